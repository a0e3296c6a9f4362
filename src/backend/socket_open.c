/* socket_open.c - how a member of the socket backend begins and ends; see socket.h. */
#include "socket.h"

#include <stdlib.h>

#include "record.h"

static socket_member *own(serry_member *member)
{
    return (socket_member *)(void *)member;
}

static int unsupported(serry_error *error, int rank, const char *what)
{
    serry_error_begin(error, "init", 0, rank);
    return serry_fail(error, SERRY_ERR_UNSUPPORTED, "init: the socket backend has no %s", what);
}

static int check_job(const serry_job *job, serry_error *error)
{
    if (job->entry != SERRY_ENTRY_START)
        return unsupported(error, job->rank, "replacements and spares");
    if (job->policy == SERRY_WAIT)
        return unsupported(error, job->rank, "replacements to wait for (policy wait)");
    if (serry_rank_set_has(&job->absent, job->rank))
        return serry_fail(error, SERRY_ERR_INVALID, "rank %d is one of those that are absent",
                          job->rank);
    return SERRY_OK;
}

/* NULL: no memory. */
static socket_member *begin_to_join(const serry_job *job, serry_error *error)
{
    socket_member *half = calloc(1, sizeof(*half));

    if (half == NULL) {
        serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory for a communicator");
        return NULL;
    }
    half->joining = joining_begin(job, error);
    if (half->joining != NULL)
        return half;
    free(half);
    return NULL;
}

/* Its mesh, if all are there; else NULL: the links are cut. */
static mesh *end_joining(socket_member *half, bool joined)
{
    mesh *m = joining_end(half->joining, joined);

    free(half);
    return m;
}

static int make_first(const serry_job *job, mesh *joined, serry_member **member, serry_error *error)
{
    uint16_t at[SERRY_MAX_RANKS];

    for (int r = 0; r < job->size; r++)
        at[r] = (uint16_t)r;
    socket_member *m = member_make(joined, 0, job->size, job->rank, at);
    if (m == NULL) {
        mesh_free(joined);
        return serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory for a communicator");
    }
    m->policy = job->policy;
    for (int r = 0; r < job->size; r++)
        if (serry_rank_set_has(&job->absent, r))
            for (int i = 0; i < STREAMS; i++) {
                rank_set_remove(&m->stream[i].alive, r);
                m->stream[i].alive_count--;
            }
    *member = (serry_member *)(void *)m;
    return SERRY_OK;
}

int socket_open(const serry_backend *backend, const serry_job *job, serry_member **member,
                serry_error *error)
{
    socket_member *half = job->joining == NULL ? NULL : own(job->joining);
    int rc = half == NULL ? check_job(job, error) : SERRY_OK;
    (void)backend;

    *member = NULL;
    if (rc != SERRY_OK)
        return rc;
    if (half == NULL)
        half = begin_to_join(job, error);
    if (half == NULL)
        return error->error;
    rc = joining_go_on(half->joining, job->poll, error);
    if (rc == SERRY_ERR_AGAIN) {
        *member = (serry_member *)(void *)half;
        return rc;
    }
    mesh *joined = end_joining(half, rc == SERRY_OK);
    return rc == SERRY_OK ? make_first(job, joined, member, error) : rc;
}

/* The mesh of a thread rank is the thread's, which looks at it when it ends. */
static int check_thread(const socket_member *m, serry_error *error)
{
    const mesh *joined = m->mesh;

    for (const socket_member *other = joined->members; other != NULL; other = other->next)
        if (other != m && !other->closed)
            return SERRY_OK;
    if (joined->kind != SERRY_THREADS || joined->ended ||
        pthread_equal(joined->thread, pthread_self()))
        return SERRY_OK;
    serry_error_begin(error, "finalize", 0, m->rank);
    return serry_fail(error, SERRY_ERR_INVALID,
                      "finalize: rank %d joined in another thread, which still runs; finalize it "
                      "there",
                      m->rank);
}

int socket_close(serry_member *member, serry_error *error)
{
    if (own(member)->joining != NULL) {
        end_joining(own(member), false);
        return SERRY_OK;
    }
    mesh *joined = own(member)->mesh;
    pthread_mutex_lock(&joined->lock);
    int rc = check_thread(own(member), error);
    if (rc != SERRY_OK || member_leave(own(member)))
        pthread_mutex_unlock(&joined->lock);
    return rc;
}

void socket_forget(serry_member *member)
{
    if (own(member)->joining != NULL)
        end_joining(own(member), false);
    else
        member_forget(own(member));
}
