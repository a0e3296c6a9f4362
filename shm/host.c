/* host.c - the first rank's side of the rendezvous: see rendezvous.h for the whole, host.h for the parts. */
#include "local.h"
#include "host.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "layout.h"
#include "record.h"

#define FAREWELL_MS 500

static const char *kind_text(int kind)
{
    return kind == SERRY_THREADS ? "threads" : "processes";
}

static int fail_absent(const rendezvous *r, const message *m, serry_error *error)
{
    char ours[128], theirs[128];

    return serry_fail(
        error, SERRY_ERR_INVALID,
        "job \"%s\": rank %d was told that ranks {%s} are absent, rank %d that {%s} are; "
        "tell all ranks the same",
        r->job->name, r->host, serry_rank_set_text(&r->job->absent, ours, sizeof(ours)), m->rank,
        serry_rank_set_text(&m->ranks, theirs, sizeof(theirs)));
}

/* Is this hello one of ours? SERRY_OK also registers the guest. */
static int check_hello(rendezvous *r, connection *c, const message *m, serry_error *error)
{
    const serry_job *job = r->job;

    error->peer = m->rank;
    serry_rank_set_add(&error->ranks, m->rank);
    if (m->layout != SHM_LAYOUT)
        return serry_fail(
            error, SERRY_ERR_LAYOUT,
            "rank %d runs another build of serry than rank %d; use one library for all "
            "ranks of job \"%s\"",
            m->rank, r->host, job->name);
    if (m->kind != (int32_t)job->kind)
        return serry_fail(
            error, SERRY_ERR_INVALID,
            "job \"%s\" mixes kinds of ranks: rank %d joined as one of %s, rank %d as "
            "one of %s; all ranks must be of one kind",
            job->name, r->host, kind_text((int)job->kind), m->rank, kind_text(m->kind));
    if (job->kind == SERRY_THREADS && m->pid != (int32_t)getpid())
        return serry_fail(error, SERRY_ERR_INVALID,
                          "job \"%s\" has thread ranks in two processes (%d and %d); thread ranks "
                          "share one process",
                          job->name, (int)getpid(), m->pid);
    if (m->size != job->size)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "job \"%s\": rank %d was told a world size of %d, rank %d one of %d",
                          job->name, r->host, job->size, m->rank, m->size);
    if (memcmp(&m->ranks, &job->absent, sizeof(m->ranks)) != 0)
        return fail_absent(r, m, error);
    if (m->rank < 0 || m->rank >= job->size || m->rank == r->host || r->guest[m->rank] != NULL)
        return serry_fail(
            error, SERRY_ERR_INVALID,
            "job \"%s\": two ranks say that they are rank %d of %d; give each its own "
            "number, and each job its own name",
            job->name, m->rank, job->size);
    c->rank = m->rank;
    r->guest[m->rank] = c;
    error->peer = -1;
    error->ranks = (serry_rank_set){{0}};
    return SERRY_OK;
}

static void accept_guest(rendezvous *r)
{
    int fd = accept4(r->listener, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return;
    if (!serry_local_same_user(fd) || r->connections == SERRY_MAX_RANKS + STRANGERS)
        close(fd);
    else
        r->connection[r->connections++] = (connection){fd, -1};
}

/* Who are to come. */
static int count_guests(const rendezvous *r)
{
    return r->job->size - 1 - serry_rank_set_count(&r->job->absent);
}

static int count_there(const rendezvous *r)
{
    int count = 0;

    for (int i = 0; i < r->job->size; i++)
        count += r->guest[i] != NULL;
    return count;
}

static int count_ready(const rendezvous *r)
{
    int count = 0;

    for (int i = 0; i < r->job->size; i++)
        count += r->ready[i];
    return count;
}

static int fail_missing(const rendezvous *r, const bool *there, serry_error *error)
{
    char text[256];

    for (int i = 0; i < r->job->size; i++) {
        if (there[i] || i == r->host || serry_rank_set_has(&r->job->absent, i))
            continue;
        serry_rank_set_add(&error->ranks, i);
        if (error->peer < 0)
            error->peer = i;
    }
    return serry_fail(error, SERRY_ERR_TIMEOUT,
                      "job \"%s\" did not start within %d ms: still missing rank %s of %d",
                      r->job->name, r->limit->given->timeout_ms,
                      serry_rank_set_text(&error->ranks, text, sizeof(text)), r->job->size);
}

/* Wait until something happens on the listener or a connection; *index is the connection, or -1 for
 * the listener. */
static int next_event(rendezvous *r, int *index)
{
    struct pollfd fds[SERRY_MAX_RANKS + STRANGERS + 1];

    for (int i = 0; i < r->connections; i++)
        fds[i] = (struct pollfd){r->connection[i].fd, POLLIN, 0};
    fds[r->connections] = (struct pollfd){r->listener, POLLIN, 0};
    int rc = rendezvous_await(r, fds, (nfds_t)r->connections + 1, r->limit);
    if (rc != SERRY_OK)
        return rc;
    *index = -1;
    for (int i = 0; i < r->connections && *index < 0; i++)
        *index = fds[i].revents != 0 ? i : -1;
    return SERRY_OK;
}

/* A message of connection `i`, which the host expects to be of `type`. */
static int read_guest(rendezvous *r, int i, uint32_t type, serry_error *error)
{
    connection *c = &r->connection[i];
    message m;
    int fd;

    if (!message_receive(c->fd, &m, &fd)) {
        if (c->rank >= 0)
            return rendezvous_fail_gone(c->rank, error);
        close(c->fd); /* a stranger that went away */
        c->fd = -1;   /* poll() passes over it */
        return SERRY_OK;
    }
    if (fd >= 0)
        close(fd);
    if (m.type == MESSAGE_FAILED)
        return rendezvous_fail_as_told(&m, error);
    if (m.type != type || memcmp(m.job, r->key, sizeof(m.job)) != 0)
        return serry_fail(error, SERRY_ERR_ARENA, "job \"%s\": a process spoke out of turn",
                          r->job->name);
    return type == MESSAGE_HELLO ? check_hello(r, c, &m, error) : SERRY_OK;
}

int host_gather(rendezvous *r, serry_error *error)
{
    while (count_there(r) < count_guests(r)) {
        bool there[SERRY_MAX_RANKS];
        int index, rc = next_event(r, &index);
        if (rc == SERRY_ERR_TIMEOUT) {
            for (int i = 0; i < r->job->size; i++)
                there[i] = r->guest[i] != NULL;
            return fail_missing(r, there, error);
        }
        if (rc == SERRY_ERR_AGAIN)
            return rc;
        if (index < 0)
            accept_guest(r);
        else if ((rc = read_guest(r, index, MESSAGE_HELLO, error)) != SERRY_OK)
            return rc;
    }
    return SERRY_OK;
}

int host_listen(rendezvous *r, serry_error *error)
{
    struct sockaddr_un address;
    socklen_t length = serry_local_address(r->key, "", &address);

    r->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (r->listener < 0)
        return serry_fail_errno(error, errno, "cannot make a socket to start the job");
    if (bind(r->listener, (struct sockaddr *)&address, length) != 0) {
        int cause = errno;
        close(r->listener);
        r->listener = -1;
        if (cause == EADDRINUSE)
            return SERRY_ERR_INVALID; /* somebody else is it: see meet */
        return serry_fail_errno(error, cause, "cannot bind the socket to start the job");
    }
    if (listen(r->listener, SERRY_MAX_RANKS) != 0)
        return serry_fail_errno(error, errno, "cannot listen for the ranks of the job");
    return SERRY_OK;
}

/* Others may still be on their way: tell them as they come, for a while. And let everybody read what
 * was said: a connection that is closed before its end has read it may lose it. */
void host_farewell(rendezvous *r, const serry_error *error)
{
    const serry_limit farewell = {FAREWELL_MS, NULL, NULL, NULL};
    wait_limit while_ms = {&farewell, 0, NULL, false}, *limit = r->limit;
    int open = r->connections, index;
    message m;

    rendezvous_fill_failure(r, &m, error);
    r->limit = &while_ms;
    while (open > 0 || (error->error != SERRY_ERR_TIMEOUT && r->connections < count_guests(r))) {
        int before = r->connections, fd;
        if (next_event(r, &index) != SERRY_OK)
            break;
        if (index < 0)
            accept_guest(r);
        if (r->connections > before && message_send(r->connection[before].fd, &m, -1))
            open++;
        message said;
        if (index >= 0 && !message_receive(r->connection[index].fd, &said, &fd)) {
            close(r->connection[index].fd);
            r->connection[index].fd = -1;
            open--;
        } else if (index >= 0 && fd >= 0) {
            close(fd);
        }
    }
    r->limit = limit;
}

int host_ready(rendezvous *r, serry_error *error)
{
    message m;

    while (count_ready(r) < count_guests(r)) {
        int index, rc = next_event(r, &index);
        if (rc == SERRY_ERR_TIMEOUT)
            return fail_missing(r, r->ready, error);
        if (rc == SERRY_ERR_AGAIN)
            return rc;
        if (index < 0) {
            accept_guest(r); /* late, and one too many: its hello says whose number it bears */
            continue;
        }
        int rank = r->connection[index].rank;
        rc = read_guest(r, index, rank < 0 ? MESSAGE_HELLO : MESSAGE_READY, error);
        if (rc != SERRY_OK)
            return rc;
        if (rank >= 0)
            r->ready[rank] = true;
    }
    rendezvous_fill(r, &m, MESSAGE_GO);
    r->told = true; /* from the first GO on, a death is an ordinary death */
    for (int i = 0; i < r->job->size; i++)
        if (r->guest[i] != NULL)
            message_send(r->guest[i]->fd, &m, -1);
    return SERRY_OK;
}
