/* rendezvous.c - see rendezvous.h. The host's side is in host.c. */
#include "rendezvous.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "local.h"
#include "host.h"
#include "layout.h"
#include "record.h"

#define RETRY_NS 2000000L /* between two attempts to reach a host that is not there yet */
#define GRACE_NS UINT64_C(2000000000) /* a guest waits longer: the host knows who is missing */

int rendezvous_host(const serry_job *job)
{
    int rank = 0;

    while (serry_rank_set_has(&job->absent, rank))
        rank++;
    return rank;
}

void rendezvous_fill(const rendezvous *r, message *m, uint32_t type)
{
    memset(m, 0, sizeof(*m));
    m->type = type;
    m->layout = SHM_LAYOUT;
    memcpy(m->job, r->key, sizeof(m->job));
    m->rank = r->job->rank;
    m->size = r->job->size;
    m->kind = (int32_t)r->job->kind;
    m->pid = (int32_t)getpid();
    m->peer = -1;
    m->ranks = r->job->absent;
}

int rendezvous_poll(struct pollfd *fds, nfds_t count, wait_limit *limit)
{
    for (;;) {
        if (wait_expired(limit))
            return 0;
        uint64_t left_ms = limit->deadline_ns == UINT64_MAX
                               ? INT_MAX
                               : (limit->deadline_ns - wait_now_ns()) / 1000000 + 1;
        int rc = poll(fds, count, left_ms > INT_MAX ? INT_MAX : (int)left_ms);
        if (rc > 0)
            return rc;
    }
}

int rendezvous_fail_as_told(const message *m, serry_error *error)
{
    int code = m->code < 0 ? m->code : SERRY_ERR_ARENA;

    error->peer = m->peer;
    error->ranks = m->ranks;
    return serry_fail(error, code, "%s", m->text);
}

int rendezvous_fail_gone(int rank, serry_error *error)
{
    error->peer = rank;
    serry_rank_set_add(&error->ranks, rank);
    return serry_fail(error, SERRY_ERR_RANK_FAILED, "rank %d ended while the job was starting",
                      rank);
}

void rendezvous_fill_failure(const rendezvous *r, message *m, const serry_error *error)
{
    rendezvous_fill(r, m, MESSAGE_FAILED);
    m->code = error->error;
    m->peer = error->peer;
    m->ranks = error->ranks;
    snprintf(m->text, sizeof(m->text), "%s", error->message);
}

static void tell_all(rendezvous *r, const serry_error *error)
{
    message m;

    rendezvous_fill_failure(r, &m, error);
    for (int i = 0; i < r->connections; i++)
        message_send(r->connection[i].fd, &m, -1);
    r->told = true;
}

/* The same for the job's start: SERRY_OK, or why there is nothing. */
int rendezvous_await(rendezvous *r, struct pollfd *fds, nfds_t count, wait_limit *limit)
{
    if (!r->polled)
        return rendezvous_poll(fds, count, limit) > 0 ? SERRY_OK : SERRY_ERR_TIMEOUT;
    if (poll(fds, count, 0) > 0)
        return SERRY_OK;
    return wait_expired(limit) ? SERRY_ERR_TIMEOUT : SERRY_ERR_AGAIN;
}

/* ---- guest ----------------------------------------------------------------------------------- */

static int guest_connect(rendezvous *r, serry_error *error)
{
    struct sockaddr_un address;
    socklen_t length = serry_local_address(r->key, "", &address);
    const struct timespec nap = {0, RETRY_NS};

    for (;;) {
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | (r->polled ? SOCK_NONBLOCK : 0),
                        0); /* it would wait where many others are before it */
        if (fd < 0)
            return serry_fail_errno(error, errno, "cannot make a socket to start the job");
        if (connect(fd, (struct sockaddr *)&address, length) == 0) {
            r->connection[r->connections++] = (connection){fd, r->host};
            if (serry_local_same_user(fd))
                return SERRY_OK;
            return serry_fail(error, SERRY_ERR_ARENA,
                              "another user's process answers for job \"%s\"", r->job->name);
        }
        int cause = errno;
        close(fd);
        if (cause != ECONNREFUSED && cause != EINTR && cause != EAGAIN)
            return serry_fail_errno(error, cause, "cannot reach rank %d of job \"%s\"", r->host,
                                    r->job->name);
        if (wait_expired(r->limit)) {
            error->peer = r->host;
            serry_rank_set_add(&error->ranks, r->host);
            return serry_fail(error, SERRY_ERR_TIMEOUT,
                              "job \"%s\" did not start within %d ms: rank %d did not come",
                              r->job->name, r->limit->given->timeout_ms, r->host);
        }
        if (r->polled)
            return SERRY_ERR_AGAIN;
        nanosleep(&nap, NULL);
    }
}

/* The host's next message, which should be of `type`. */
static int guest_read(rendezvous *r, uint32_t type, message *m, int *fd, serry_error *error)
{
    struct pollfd ready = {r->connection[0].fd, POLLIN, 0};
    wait_limit patient = *r->limit;

    *fd = -1;
    if (patient.deadline_ns != UINT64_MAX)
        patient.deadline_ns += GRACE_NS;
    int rc = rendezvous_await(r, &ready, 1, &patient);
    if (rc == SERRY_ERR_AGAIN)
        return rc;
    if (rc == SERRY_ERR_TIMEOUT)
        return serry_fail(
            error, SERRY_ERR_TIMEOUT,
            "job \"%s\" did not start within %d ms: this rank waits for rank %d, which "
            "waits for others",
            r->job->name, r->limit->given->timeout_ms, r->host);
    if (!message_receive(r->connection[0].fd, m, fd))
        return rendezvous_fail_gone(r->host, error);
    if (m->type == type)
        return SERRY_OK;
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    if (m->type != MESSAGE_FAILED)
        return serry_fail(error, SERRY_ERR_ARENA, "job \"%s\": rank %d spoke out of turn",
                          r->job->name, r->host);
    r->told = true;
    return rendezvous_fail_as_told(m, error);
}

static int guest_say(rendezvous *r, uint32_t type, serry_error *error)
{
    message m;

    rendezvous_fill(r, &m, type);
    return message_send(r->connection[0].fd, &m, -1) ? SERRY_OK
                                                     : rendezvous_fail_gone(r->host, error);
}

/* ---- both ------------------------------------------------------------------------------------ */

static int meet_as_guest(rendezvous *r, serry_error *error)
{
    if (r->connections > 0) /* it has said so */
        return SERRY_OK;
    int rc = guest_connect(r, error);
    return rc == SERRY_OK ? guest_say(r, MESSAGE_HELLO, error) : rc;
}

/* A second host says hello as well, so that the first one learns of it. */
static int meet_as_host(rendezvous *r, serry_error *error)
{
    message m;
    int fd, rc = SERRY_OK;

    if (r->listener < 0 && !r->second) {
        rc = host_listen(r, error);
        r->second = rc == SERRY_ERR_INVALID;
    }
    if (rc == SERRY_OK && !r->second)
        return host_gather(r, error);
    if (r->second)
        rc = meet_as_guest(r, error);
    if (rc == SERRY_OK)
        rc = guest_read(r, MESSAGE_FAILED, &m, &fd, error);
    return rc == SERRY_OK ? rendezvous_fail_as_told(&m, error) : rc;
}

rendezvous *rendezvous_new(const serry_job *job, wait_limit *limit, serry_error *error)
{
    rendezvous *r = calloc(1, sizeof(*r));

    if (r == NULL) {
        serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory while starting the job");
        return NULL;
    }
    r->job = job;
    r->limit = limit;
    r->host = rendezvous_host(job);
    r->listener = -1;
    serry_local_key(job->name, r->key);
    return r;
}

void rendezvous_polled(rendezvous *r, bool polled)
{
    r->polled = polled;
}

int rendezvous_meet(rendezvous *r, serry_error *error)
{
    return r->job->rank == r->host ? meet_as_host(r, error) : meet_as_guest(r, error);
}

int rendezvous_look(const rendezvous *r, const serry_rank_set *failed, serry_error *error)
{
    bool is_host = r->job->rank == r->host;

    if (r->connections == 0 && !is_host && serry_rank_set_has(failed, r->host))
        return rendezvous_fail_gone(r->host, error);
    for (int i = 0; i < r->job->size && is_host; i++)
        if (i != r->host && r->guest[i] == NULL && serry_rank_set_has(failed, i) &&
            !serry_rank_set_has(&r->job->absent, i))
            return rendezvous_fail_gone(i, error);
    return SERRY_OK;
}

int rendezvous_hand_out(rendezvous *r, const arena_ticket *ticket, int fd, serry_error *error)
{
    message m;

    rendezvous_fill(r, &m, MESSAGE_ARENA);
    m.ticket = *ticket;
    for (int i = 0; i < r->job->size; i++)
        if (r->guest[i] != NULL && !message_send(r->guest[i]->fd, &m, fd))
            return rendezvous_fail_gone(i, error);
    return SERRY_OK;
}

int rendezvous_receive(rendezvous *r, arena_ticket *ticket, int *fd, serry_error *error)
{
    message m;
    int rc = guest_read(r, MESSAGE_ARENA, &m, fd, error);

    if (rc == SERRY_OK && *fd < 0)
        rc = serry_fail(error, SERRY_ERR_ARENA,
                        "rank %d sent no descriptor of the arena (is the "
                        "limit of open files reached?)",
                        r->host);
    if (rc == SERRY_OK)
        *ticket = m.ticket;
    return rc;
}

int rendezvous_say_ready(rendezvous *r, serry_error *error)
{
    return r->job->rank == r->host ? SERRY_OK : guest_say(r, MESSAGE_READY, error);
}

int rendezvous_ready(rendezvous *r, serry_error *error)
{
    message m;
    int fd;

    return r->job->rank == r->host ? host_ready(r, error)
                                   : guest_read(r, MESSAGE_GO, &m, &fd, error);
}

void rendezvous_refuse(rendezvous *r, const serry_error *error)
{
    if (r->told)
        return;
    r->polled = false;
    tell_all(r, error);
    if (r->listener >= 0)
        host_farewell(r, error);
}

void rendezvous_cut(rendezvous *r)
{
    for (int i = 0; i < r->connections; i++)
        if (r->connection[i].fd >= 0)
            close(r->connection[i].fd);
    r->connections = 0;
    if (r->listener >= 0)
        close(r->listener);
    r->listener = -1;
}

void rendezvous_close(rendezvous *r)
{
    if (r == NULL)
        return;
    rendezvous_cut(r);
    free(r);
}
