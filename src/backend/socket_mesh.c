/* socket_mesh.c - frames between ranks, and waiting for them; see socket.h.
 *
 * The links are stream sockets: what is written lies with the peer at once, and is read before the
 * end that the kernel makes when a rank dies. So what has been written survives its writer, and who
 * has seen the end of a rank has seen all that it said. Nothing here blocks but mesh_wait: what a
 * peer does not take yet is queued.
 *
 * Several threads of a rank may wait, each in another communicator: one of them polls for all. */
#include "socket.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "record.h"
#include "sleep.h"
#include "token.h"

#define BODY_MOST (UINT64_C(1) << 48)

/* See socket.h. */
#define NAP_PART 8
#define NAP_LEAST_NS UINT64_C(200000)
#define NAP_MOST_NS UINT64_C(10000000)
#define YIELDS 32 /* before the first nap: about the price of one */

/* ---- bodies ------------------------------------------------------------------------------------ */

body *body_new(size_t bytes)
{
    body *b = bytes <= SIZE_MAX - sizeof(*b) ? malloc(sizeof(*b) + bytes) : NULL;

    if (b != NULL) {
        b->bytes = bytes;
        b->refs = 1;
    }
    return b;
}

body *body_retain(body *b)
{
    if (b != NULL)
        b->refs++;
    return b;
}

void body_release(body *b)
{
    if (b != NULL && --b->refs == 0)
        free(b);
}

/* ---- life -------------------------------------------------------------------------------------- */

static void make_lock(mesh *m)
{
    pthread_condattr_t monotonic;

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&m->turned, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&m->lock, NULL);
}

mesh *mesh_new(const serry_job *job, serry_error *error)
{
    mesh *m = calloc(1, sizeof(*m));
    mesh_link *links = calloc((size_t)job->size, sizeof(*links));

    if (m == NULL || links == NULL) {
        serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory while starting the job");
    } else {
        m->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (m->wake >= 0) {
            m->rank = job->rank;
            m->size = job->size;
            m->kind = job->kind;
            m->link = links;
            for (int r = 0; r < m->size; r++)
                m->link[r].fd = -1;
            make_lock(m);
            mesh_enlist(m);
            return m;
        }
        serry_fail_errno(error, errno, "cannot make a descriptor to be woken by");
    }
    free(links);
    free(m);
    return NULL;
}

static void drop_queue(mesh_link *l)
{
    if (l->first != NULL)
        l->cut = l->written + 1;
    while (l->first != NULL) {
        outgoing *o = l->first;
        l->first = o->next;
        body_release(o->body);
        free(o);
    }
    l->last = NULL;
    l->put = 0;
    l->written = l->queued;
}

void mesh_close_link(mesh_link *l)
{
    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
    drop_queue(l);
    body_release(l->in);
    l->in = NULL;
    l->got = 0;
}

void mesh_free(mesh *m)
{
    bool is_ours = mesh_delist(m);

    for (int r = 0; r < m->size; r++)
        mesh_close_link(&m->link[r]);
    while (m->early != NULL) {
        early *e = m->early;
        m->early = e->next;
        body_release(e->body);
        free(e);
    }
    while (m->memory != NULL) {
        struct memory *memory = m->memory;
        m->memory = memory->next;
        munmap(memory->start, memory->bytes);
        free(memory);
    }
    if (m->wake >= 0)
        close(m->wake);
    pthread_cond_destroy(&m->turned);
    pthread_mutex_destroy(&m->lock);
    free(m->link);
    if (is_ours)
        free(m);
    else
        mesh_leave(m);
}

void mesh_lose(mesh *m)
{
    m->lost = true;
    for (int r = 0; r < m->size; r++)
        if (m->link[r].fd >= 0) {
            shutdown(m->link[r].fd, SHUT_RDWR);
            m->link[r].mute = true;
            drop_queue(&m->link[r]);
        }
    mesh_rouse(m);
}

/* ---- writing ----------------------------------------------------------------------------------- */

static ssize_t write_first(const mesh_link *l)
{
    outgoing *o = l->first;
    struct iovec part[2];
    size_t parts = 0, head = sizeof(o->head), skip = l->put > head ? l->put - head : 0;

    if (l->put < head)
        part[parts++] = (struct iovec){(char *)&o->head + l->put, head - l->put};
    if (o->head.bytes > skip)
        part[parts++] = (struct iovec){o->body->data + skip, o->head.bytes - skip};
    struct msghdr message = {.msg_iov = part, .msg_iovlen = parts};
    return sendmsg(l->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void write_queue(mesh_link *l)
{
    while (l->first != NULL) {
        outgoing *o = l->first;
        ssize_t put = write_first(l);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM))
            return;
        if (put < 0) { /* it reads no more; what it said before is still to be read */
            l->mute = true;
            drop_queue(l);
            return;
        }
        l->put += (size_t)put;
        if (l->put < sizeof(o->head) + o->head.bytes)
            continue;
        l->put = 0;
        l->written++;
        l->first = o->next;
        if (l->first == NULL)
            l->last = NULL;
        body_release(o->body);
        free(o);
    }
}

void mesh_send(mesh *m, int to, const frame *head, body *b)
{
    mesh_link *l = &m->link[to];

    if (l->fd < 0 || l->mute)
        return;
    outgoing *o = malloc(sizeof(*o));
    if (o == NULL) {
        mesh_lose(m);
        return;
    }
    *o = (outgoing){NULL, *head, body_retain(b)};
    o->head.bytes = b == NULL ? 0 : b->bytes;
    if (l->last == NULL)
        l->first = o;
    else
        l->last->next = o;
    l->last = o;
    l->queued++;
    write_queue(l);
    if (l->first != NULL && m->polling)
        mesh_wake(m);
}

bool mesh_has_written(const mesh *m, int to, uint64_t queued)
{
    return m->link[to].written >= queued;
}

bool mesh_has_dropped(const mesh *m, int to, uint64_t queued)
{
    const mesh_link *l = &m->link[to];

    return l->cut != 0 && queued >= l->cut;
}

outgoing *mesh_find_queued(const mesh *m, int to, uint64_t queued)
{
    const mesh_link *l = &m->link[to];
    outgoing *o = l->first;

    for (uint64_t number = l->written + 1; o != NULL && number < queued; number++)
        o = o->next;
    return l->written >= queued || (o == l->first && l->put > 0) ? NULL : o;
}

/* ---- reading ----------------------------------------------------------------------------------- */

/* Where the next bytes go; 0: the frame is complete; -1: it cannot be. */
static ssize_t next_part(mesh_link *l, void **to)
{
    if (l->got < sizeof(l->head)) {
        *to = (char *)&l->head + l->got;
        return (ssize_t)(sizeof(l->head) - l->got);
    }
    if (l->head.type == 0 || l->head.type >= FRAME_TYPES || l->head.bytes > BODY_MOST)
        return -1;
    if (l->in == NULL && l->head.bytes > 0) {
        l->in = body_new((size_t)l->head.bytes);
        if (l->in == NULL)
            return -1;
    }
    size_t put = l->got - sizeof(l->head);
    *to = l->in == NULL ? NULL : l->in->data + put;
    return (ssize_t)((size_t)l->head.bytes - put);
}

int mesh_read(mesh_link *l, frame *head, body **b)
{
    for (;;) {
        void *to;
        ssize_t part = next_part(l, &to);
        if (part < 0)
            return -1;
        if (part == 0) {
            *head = l->head;
            *b = l->in;
            l->in = NULL;
            l->got = 0;
            return 1;
        }
        ssize_t got = recv(l->fd, to, (size_t)part, MSG_DONTWAIT);
        if (got > 0)
            l->got += (size_t)got;
        else if (got == 0 || (errno != EINTR && errno != EAGAIN))
            return -1;
        else if (errno == EAGAIN)
            return 0;
    }
}

static void read_all(mesh *m, int from)
{
    mesh_link *l = &m->link[from];
    frame head;
    body *b;
    int rc;

    while ((rc = mesh_read(l, &head, &b)) > 0)
        member_take(m, from, &head, b);
    if (rc == 0)
        return;
    if (l->got >=
        sizeof(l->head)) /* no end, but nonsense, or no memory; or it died within a frame */
        m->lost |= l->in == NULL;
    mesh_close_link(l);
    member_lost(m, from);
}

/* ---- waiting ----------------------------------------------------------------------------------- */

typedef struct watched {
    int count;
    int rank[SERRY_MAX_RANKS + 1];
    struct pollfd fd[SERRY_MAX_RANKS + 1];
} watched;

static void watch_links(const mesh *m, watched *w)
{
    w->count = 1;
    w->fd[0] = (struct pollfd){m->wake, POLLIN, 0};
    for (int r = 0; r < m->size; r++) {
        const mesh_link *l = &m->link[r];
        if (l->fd < 0)
            continue;
        w->rank[w->count] = r;
        w->fd[w->count++] =
            (struct pollfd){l->fd, (short)(POLLIN | (l->first != NULL ? POLLOUT : 0)), 0};
    }
}

void mesh_rouse(mesh *m)
{
    m->news_ns = serry_token_now_ns();
    pthread_cond_broadcast(&m->turned);
    if (m->polling) /* it would go on to wait for what was read just now */
        mesh_wake(m);
    if (!m->naps)
        return;
    m->naps = false;
    atomic_fetch_add_explicit(&m->news, 1, memory_order_seq_cst);
    sleep_wake(&m->news);
}

void mesh_nap(mesh *m, uint64_t until_ns, serry_interest *interest)
{
    uint64_t now_ns = serry_token_now_ns(), nap_ns = (now_ns - m->news_ns) / NAP_PART;

    interest->word = (uint32_t *)(void *)&m->news;
    interest->value = atomic_load_explicit(&m->news, memory_order_relaxed);
    interest->at_ns = 0;
    interest->pauses = 0;
    interest->yields = YIELDS;
    if (!interest->sleep) { /* it has just begun */
        m->news_ns = now_ns;
        return;
    }
    m->naps = true;
    nap_ns = nap_ns < NAP_LEAST_NS ? NAP_LEAST_NS : nap_ns > NAP_MOST_NS ? NAP_MOST_NS : nap_ns;
    interest->at_ns = now_ns + nap_ns < until_ns ? now_ns + nap_ns : until_ns;
}

static void turn(mesh *m, const watched *w)
{
    uint64_t woken;

    if (w->fd[0].revents != 0 && read(m->wake, &woken, sizeof(woken)) < 0)
        woken = 0; /* by another thread, which reads on its own */
    for (int i = 1; i < w->count; i++) {
        mesh_link *l = &m->link[w->rank[i]];
        if ((w->fd[i].revents & POLLOUT) != 0 && l->fd == w->fd[i].fd)
            write_queue(l);
        if ((w->fd[i].revents & ~POLLOUT) != 0 && l->fd == w->fd[i].fd)
            read_all(m, w->rank[i]);
    }
    if (m->lost)
        mesh_lose(m);
    mesh_rouse(m);
}

void mesh_pump(mesh *m)
{
    watched w;

    watch_links(m, &w);
    w.fd[0].events = 0; /* it is for those who wait */
    if (poll(w.fd, (nfds_t)w.count, 0) > 0)
        turn(m, &w);
}

void mesh_pump_link(mesh *m, int peer)
{
    mesh_link *l = &m->link[peer];
    struct pollfd fd = {l->fd, POLLIN, 0};

    if (l->first != NULL)
        write_queue(l);
    if (l->fd < 0 || poll(&fd, 1, 0) <= 0)
        return;
    read_all(m, peer);
    if (m->lost)
        mesh_lose(m);
    mesh_rouse(m);
}

void mesh_wait(mesh *m, uint64_t until_ns)
{
    watched w;
    uint64_t now_ns = serry_token_now_ns(), left_ns = until_ns > now_ns ? until_ns - now_ns : 0;
    const struct timespec until = mesh_time(until_ns), left = mesh_time(left_ns);

    if (m->polling) {
        if (until_ns == SERRY_NO_DEADLINE)
            pthread_cond_wait(&m->turned, &m->lock);
        else
            pthread_cond_timedwait(&m->turned, &m->lock, &until);
        return;
    }
    m->polling = true;
    watch_links(m, &w);
    pthread_mutex_unlock(&m->lock);
    int rc = ppoll(w.fd, (nfds_t)w.count, until_ns == SERRY_NO_DEADLINE ? NULL : &left, NULL);
    pthread_mutex_lock(&m->lock);
    m->polling = false;
    if (rc > 0)
        turn(m, &w);
    else
        pthread_cond_broadcast(&m->turned); /* another one polls */
}

void mesh_wake(mesh *m)
{
    const uint64_t one = 1;

    if (write(m->wake, &one, sizeof(one)) < 0)
        return; /* it is full: whoever waits is woken */
}
