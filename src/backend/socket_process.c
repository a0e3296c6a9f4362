/* socket_process.c - all meshes of this process: what becomes of them at a fork, and at the end of a
 * thread rank; see socket.h. */
#include "socket.h"

#include <stdlib.h>
#include <unistd.h>

/* A child of a fork must not keep its parent's links open: the others would never see their end. */
static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static mesh *g_meshes;
/* Who ends as a thread rank, and who frees what another one has that may end just now, keep each other
 * waiting. Before g_lock and the lock of a mesh. */
static pthread_mutex_t g_ends = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t g_once = PTHREAD_ONCE_INIT;
static pthread_key_t g_joined; /* the meshes of a thread rank */

static void before_fork(void)
{
    pthread_mutex_lock(&g_ends);
    pthread_mutex_lock(&g_lock);
}

static void in_parent(void)
{
    pthread_mutex_unlock(&g_lock);
    pthread_mutex_unlock(&g_ends);
}

static void in_child(void)
{
    for (mesh *m = g_meshes; m != NULL; m = m->next) {
        for (int r = 0; r < m->size; r++)
            if (m->link[r].fd >= 0) {
                close(m->link[r].fd);
                m->link[r].fd = -1;
            }
        close(m->wake);
        m->wake = -1;
        if (m->joining != NULL)
            joining_in_child(m->joining);
    }
    g_meshes = NULL;
    pthread_mutex_unlock(&g_lock);
    pthread_mutex_unlock(&g_ends);
}

/* A thread rank has ended without leaving: to the others it has failed. Whoever frees what it left
 * behind waits for `ended`. */
static void thread_ends(void *first)
{
    mesh *next;

    for (mesh *m = first; m != NULL; m = next) {
        next = m->beside;
        pthread_mutex_lock(&g_ends);
        if (m->freed) {
            free(m);
        } else {
            pthread_mutex_lock(&m->lock);
            mesh_lose(m);
            m->ended = true;
            pthread_mutex_unlock(&m->lock);
        }
        pthread_mutex_unlock(&g_ends);
    }
}

static void prepare(void)
{
    pthread_atfork(before_fork, in_parent, in_child);
    pthread_key_create(&g_joined, thread_ends);
}

void mesh_enlist(mesh *m)
{
    pthread_once(&g_once, prepare);
    pthread_mutex_lock(&g_lock);
    m->next = g_meshes;
    g_meshes = m;
    pthread_mutex_unlock(&g_lock);
    m->thread = pthread_self();
    if (m->kind == SERRY_THREADS) {
        m->beside = pthread_getspecific(g_joined);
        pthread_setspecific(g_joined, m);
    }
}

/* Does its thread run, and is another one than this? Then with g_ends. */
static bool is_of_another(const mesh *m)
{
    pthread_mutex_lock(&g_ends);
    if (m->kind == SERRY_THREADS && !m->ended && !pthread_equal(m->thread, pthread_self()))
        return true;
    pthread_mutex_unlock(&g_ends);
    return false;
}

bool mesh_delist(mesh *m)
{
    bool is_ours = !is_of_another(m);

    pthread_mutex_lock(&g_lock);
    for (mesh **at = &g_meshes; *at != NULL; at = &(*at)->next)
        if (*at == m) {
            *at = m->next;
            break;
        }
    pthread_mutex_unlock(&g_lock);
    if (m->kind != SERRY_THREADS || !is_ours || m->ended)
        return is_ours;
    mesh *first = pthread_getspecific(g_joined);
    for (mesh **at = &first; *at != NULL; at = &(*at)->beside)
        if (*at == m) {
            *at = m->beside;
            break;
        }
    pthread_setspecific(g_joined, first);
    return true;
}

void mesh_leave(mesh *m)
{
    m->freed = true;
    pthread_mutex_unlock(&g_ends);
}
