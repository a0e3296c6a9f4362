/* rendezvous.c - see rendezvous.h. */
#include "rendezvous.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "layout.h"
#include "message.h"
#include "record.h"

enum { STRANGERS = 16 }; /* connections beyond the guests that may wait to be looked at */
#define HOST 0
#define RETRY_NS 2000000L /* between two attempts to reach a host that is not there yet */
#define FAREWELL_MS 500
#define GRACE_NS                                                                                   \
    UINT64_C(2000000000) /* a guest waits this much longer: the host knows who is missing */

typedef struct connection {
    int fd;
    int rank; /* -1: has not said hello */
} connection;

struct rendezvous {
    const serry_job *job;
    wait_limit *limit;
    uint64_t key[2]; /* hash of user and job name */
    int listener;    /* host; -1: none */
    bool told;       /* the others know of the failure */
    int connections;
    connection connection[SERRY_MAX_RANKS + STRANGERS];
    connection
        *guest[SERRY_MAX_RANKS]; /* host: by rank; NULL: not there. Valid after the meeting */
};

static void hash_job(const char *name, uint64_t key[2])
{
    const uint64_t prime = UINT64_C(0x100000001b3);

    key[0] = UINT64_C(0xcbf29ce484222325) ^ geteuid();
    key[1] = UINT64_C(0x9ae16a3b2f90404f) ^ geteuid();
    for (const char *c = name; *c; c++) {
        key[0] = (key[0] ^ (unsigned char)*c) * prime;
        key[1] = ((key[1] << 7 | key[1] >> 57) ^ (unsigned char)*c) * prime;
    }
}

static socklen_t job_address(const rendezvous *r, struct sockaddr_un *address)
{
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    int length =
        snprintf(address->sun_path + 1, sizeof(address->sun_path) - 1,
                 "serry/%u/%016" PRIx64 "%016" PRIx64, (unsigned)geteuid(), r->key[0], r->key[1]);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

static void fill(const rendezvous *r, message *m, uint32_t type)
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
}

/* poll() until something is there or the limit has passed (then 0). */
static int poll_until(struct pollfd *fds, nfds_t count, wait_limit *limit)
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

static int fail_as_told(const message *m, serry_error *error)
{
    int code = m->code < 0 ? m->code : SERRY_ERR_ARENA;

    error->peer = m->peer;
    error->ranks = m->ranks;
    return serry_fail(error, code, "%s", m->text);
}

static int fail_gone(int rank, serry_error *error)
{
    error->peer = rank;
    serry_rank_set_add(&error->ranks, rank);
    return serry_fail(error, SERRY_ERR_RANK_FAILED, "rank %d ended while the job was starting",
                      rank);
}

/* ---- host ------------------------------------------------------------------------------------ */

static const char *kind_text(int kind)
{
    return kind == SERRY_THREADS ? "threads" : "processes";
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
            "rank %d runs another build of serry than rank 0; use one library for all "
            "ranks of job \"%s\"",
            m->rank, job->name);
    if (m->kind != (int32_t)job->kind)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "job \"%s\" mixes kinds of ranks: rank 0 joined as one of %s, rank %d as "
                          "one of %s; all ranks must be of one kind",
                          job->name, kind_text((int)job->kind), m->rank, kind_text(m->kind));
    if (job->kind == SERRY_THREADS && m->pid != (int32_t)getpid())
        return serry_fail(error, SERRY_ERR_INVALID,
                          "job \"%s\" has thread ranks in two processes (%d and %d); thread ranks "
                          "share one process",
                          job->name, (int)getpid(), m->pid);
    if (m->size != job->size)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "job \"%s\": rank 0 was told a world size of %d, rank %d one of %d",
                          job->name, job->size, m->rank, m->size);
    if (m->rank < 0 || m->rank >= job->size || m->rank == HOST || r->guest[m->rank] != NULL)
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

static void fill_failure(const rendezvous *r, message *m, const serry_error *error)
{
    fill(r, m, MESSAGE_FAILED);
    m->code = error->error;
    m->peer = error->peer;
    m->ranks = error->ranks;
    snprintf(m->text, sizeof(m->text), "%s", error->message);
}

static void tell_all(rendezvous *r, const serry_error *error)
{
    message m;

    fill_failure(r, &m, error);
    for (int i = 0; i < r->connections; i++)
        message_send(r->connection[i].fd, &m, -1);
    r->told = true;
}

static void accept_guest(rendezvous *r)
{
    int fd = accept4(r->listener, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return;
    if (!message_same_user(fd) || r->connections == SERRY_MAX_RANKS + STRANGERS)
        close(fd);
    else
        r->connection[r->connections++] = (connection){fd, -1};
}

static int count_guests(const rendezvous *r)
{
    int count = 0;

    for (int i = 1; i < r->job->size; i++)
        count += r->guest[i] != NULL;
    return count;
}

static int fail_missing(const rendezvous *r, const bool *there, serry_error *error)
{
    char text[256];

    for (int i = 1; i < r->job->size; i++) {
        if (there[i])
            continue;
        serry_rank_set_add(&error->ranks, i);
        if (error->peer < 0)
            error->peer = i;
    }
    return serry_fail(error, SERRY_ERR_TIMEOUT,
                      "job \"%s\" did not start within %d ms: still missing rank %s of %d",
                      r->job->name, r->limit->timeout_ms,
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
    if (poll_until(fds, (nfds_t)r->connections + 1, r->limit) == 0)
        return SERRY_ERR_TIMEOUT;
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
            return fail_gone(c->rank, error);
        close(c->fd); /* a stranger that went away */
        c->fd = -1;   /* poll() passes over it */
        return SERRY_OK;
    }
    if (fd >= 0)
        close(fd);
    if (m.type == MESSAGE_FAILED)
        return fail_as_told(&m, error);
    if (m.type != type || memcmp(m.job, r->key, sizeof(m.job)) != 0)
        return serry_fail(error, SERRY_ERR_ARENA, "job \"%s\": a process spoke out of turn",
                          r->job->name);
    return type == MESSAGE_HELLO ? check_hello(r, c, &m, error) : SERRY_OK;
}

static int host_gather(rendezvous *r, serry_error *error)
{
    while (count_guests(r) < r->job->size - 1) {
        bool there[SERRY_MAX_RANKS];
        int index, rc = next_event(r, &index);
        if (rc == SERRY_ERR_TIMEOUT) {
            for (int i = 0; i < r->job->size; i++)
                there[i] = r->guest[i] != NULL;
            return fail_missing(r, there, error);
        }
        if (index < 0)
            accept_guest(r);
        else if ((rc = read_guest(r, index, MESSAGE_HELLO, error)) != SERRY_OK)
            return rc;
    }
    return SERRY_OK;
}

static int host_listen(rendezvous *r, serry_error *error)
{
    struct sockaddr_un address;
    socklen_t length = job_address(r, &address);

    r->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (r->listener < 0)
        return serry_fail_errno(error, errno, "cannot make a socket to start the job");
    if (bind(r->listener, (struct sockaddr *)&address, length) != 0) {
        int cause = errno;
        close(r->listener);
        r->listener = -1;
        if (cause == EADDRINUSE)
            return SERRY_ERR_INVALID; /* somebody else is rank 0: see meet */
        return serry_fail_errno(error, cause, "cannot bind the socket to start the job");
    }
    if (listen(r->listener, SERRY_MAX_RANKS) != 0)
        return serry_fail_errno(error, errno, "cannot listen for the ranks of the job");
    return SERRY_OK;
}

/* Others may still be on their way: tell them as they come, for a while. And let everybody read what
 * was said: a connection that is closed before its end has read it may lose it. */
static void host_farewell(rendezvous *r, const serry_error *error)
{
    wait_limit while_ms = {FAREWELL_MS, 0}, *limit = r->limit;
    int open = r->connections, index;
    message m;

    fill_failure(r, &m, error);
    r->limit = &while_ms;
    while (open > 0 || (error->error != SERRY_ERR_TIMEOUT && r->connections < r->job->size - 1)) {
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

static int host_ready(rendezvous *r, serry_error *error)
{
    bool ready[SERRY_MAX_RANKS] = {true};
    message m;

    for (int left = r->job->size - 1; left > 0;) {
        int index, rc = next_event(r, &index);
        if (rc == SERRY_ERR_TIMEOUT)
            return fail_missing(r, ready, error);
        if (index < 0) {
            accept_guest(r); /* late, and one too many: its hello says whose number it bears */
            continue;
        }
        int rank = r->connection[index].rank;
        rc = read_guest(r, index, rank < 0 ? MESSAGE_HELLO : MESSAGE_READY, error);
        if (rc != SERRY_OK)
            return rc;
        if (rank > 0 && !ready[rank]) {
            ready[rank] = true;
            left--;
        }
    }
    fill(r, &m, MESSAGE_GO);
    r->told = true; /* from the first GO on, a death is an ordinary death */
    for (int i = 1; i < r->job->size; i++)
        message_send(r->guest[i]->fd, &m, -1);
    return SERRY_OK;
}

/* ---- guest ----------------------------------------------------------------------------------- */

static int guest_connect(rendezvous *r, serry_error *error)
{
    struct sockaddr_un address;
    socklen_t length = job_address(r, &address);
    const struct timespec nap = {0, RETRY_NS};

    for (;;) {
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (fd < 0)
            return serry_fail_errno(error, errno, "cannot make a socket to start the job");
        if (connect(fd, (struct sockaddr *)&address, length) == 0) {
            r->connection[r->connections++] = (connection){fd, HOST};
            if (message_same_user(fd))
                return SERRY_OK;
            return serry_fail(error, SERRY_ERR_ARENA,
                              "another user's process answers for job \"%s\"", r->job->name);
        }
        int cause = errno;
        close(fd);
        if (cause != ECONNREFUSED && cause != EINTR && cause != EAGAIN)
            return serry_fail_errno(error, cause, "cannot reach rank 0 of job \"%s\"",
                                    r->job->name);
        if (wait_expired(r->limit)) {
            error->peer = HOST;
            serry_rank_set_add(&error->ranks, HOST);
            return serry_fail(error, SERRY_ERR_TIMEOUT,
                              "job \"%s\" did not start within %d ms: rank 0 did not come",
                              r->job->name, r->limit->timeout_ms);
        }
        nanosleep(&nap, NULL);
    }
}

/* The host's next message, which should be of `type`. */
static int guest_read(rendezvous *r, uint32_t type, message *m, int *fd, serry_error *error)
{
    struct pollfd ready = {r->connection[0].fd, POLLIN, 0};
    wait_limit patient = *r->limit;

    *fd = -1;
    if (!wait_expired(&patient) && patient.deadline_ns != UINT64_MAX)
        patient.deadline_ns += GRACE_NS;
    if (poll_until(&ready, 1, &patient) == 0)
        return serry_fail(
            error, SERRY_ERR_TIMEOUT,
            "job \"%s\" did not start within %d ms: this rank waits for rank 0, which "
            "waits for others",
            r->job->name, r->limit->timeout_ms);
    if (!message_receive(r->connection[0].fd, m, fd))
        return fail_gone(HOST, error);
    if (m->type == type)
        return SERRY_OK;
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    if (m->type != MESSAGE_FAILED)
        return serry_fail(error, SERRY_ERR_ARENA, "job \"%s\": rank 0 spoke out of turn",
                          r->job->name);
    r->told = true;
    return fail_as_told(m, error);
}

static int guest_say(rendezvous *r, uint32_t type, serry_error *error)
{
    message m;

    fill(r, &m, type);
    return message_send(r->connection[0].fd, &m, -1) ? SERRY_OK : fail_gone(HOST, error);
}

/* ---- both ------------------------------------------------------------------------------------ */

rendezvous *rendezvous_meet(const serry_job *job, wait_limit *limit, serry_error *error)
{
    rendezvous *r = calloc(1, sizeof(*r));
    int rc;

    if (r == NULL) {
        serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory while starting the job");
        return NULL;
    }
    r->job = job;
    r->limit = limit;
    r->listener = -1;
    hash_job(job->name, r->key);
    if (job->rank == HOST && (rc = host_listen(r, error)) == SERRY_OK) {
        rc = host_gather(r, error);
    } else if (job->rank != HOST || rc == SERRY_ERR_INVALID) {
        /* A second rank 0 says hello as well, so that the first one learns of it. */
        rc = guest_connect(r, error);
        if (rc == SERRY_OK)
            rc = guest_say(r, MESSAGE_HELLO, error);
        if (rc == SERRY_OK && job->rank == HOST) {
            message m;
            int fd;
            rc = guest_read(r, MESSAGE_FAILED, &m, &fd, error);
            rc = rc == SERRY_OK ? fail_as_told(&m, error) : rc;
        }
    }
    if (rc != SERRY_OK) {
        rendezvous_refuse(r, error);
        rendezvous_close(r);
        r = NULL;
    }
    return r;
}

int rendezvous_hand_out(rendezvous *r, const arena_ticket *ticket, int fd, serry_error *error)
{
    message m;

    fill(r, &m, MESSAGE_ARENA);
    m.ticket = *ticket;
    for (int i = 1; i < r->job->size; i++)
        if (!message_send(r->guest[i]->fd, &m, fd))
            return fail_gone(i, error);
    return SERRY_OK;
}

int rendezvous_receive(rendezvous *r, arena_ticket *ticket, int *fd, serry_error *error)
{
    message m;
    int rc = guest_read(r, MESSAGE_ARENA, &m, fd, error);

    if (rc == SERRY_OK && *fd < 0)
        rc = serry_fail(error, SERRY_ERR_ARENA,
                        "rank 0 sent no descriptor of the arena (is the "
                        "limit of open files reached?)");
    if (rc == SERRY_OK)
        *ticket = m.ticket;
    return rc;
}

int rendezvous_ready(rendezvous *r, serry_error *error)
{
    message m;
    int fd, rc;

    if (r->job->rank == HOST)
        return host_ready(r, error);
    rc = guest_say(r, MESSAGE_READY, error);
    return rc == SERRY_OK ? guest_read(r, MESSAGE_GO, &m, &fd, error) : rc;
}

void rendezvous_refuse(rendezvous *r, const serry_error *error)
{
    if (r->told)
        return;
    tell_all(r, error);
    if (r->listener >= 0)
        host_farewell(r, error);
}

void rendezvous_close(rendezvous *r)
{
    if (r == NULL)
        return;
    for (int i = 0; i < r->connections; i++)
        if (r->connection[i].fd >= 0)
            close(r->connection[i].fd);
    if (r->listener >= 0)
        close(r->listener);
    free(r);
}
