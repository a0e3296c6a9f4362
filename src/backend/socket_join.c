/* socket_join.c - from a job to a mesh; see socket.h.
 *
 * Every rank listens under an abstract address that bears a hash of user and job, and its number.
 * It connects to all lower ranks and accepts all higher ones; both sides say hello and check what
 * they hear. Who has all its links tells the host, the lowest rank; when all have, the host lets them
 * go. From then on a death is an ordinary death; before, it fails the start on all ranks. */
#include "socket.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "local.h"
#include "record.h"
#include "token.h"

#define VERSION 2           /* of the frames; grows with every change of them */
#define RETRY_NS 2000000    /* between two attempts to reach ranks that are not there yet */
#define LOOK_NS 20000000    /* between two looks at who has failed meanwhile */
#define GRACE_NS 2000000000 /* all others wait longer than the host, which knows who is missing */
#define FAREWELL_NS 500000000
#define STRANGERS 64 /* connections that have not said hello */

typedef struct joining {
    mesh *mesh;
    const serry_job *job;
    serry_error *error;
    uint64_t key[2]; /* hash of user and job name */
    uint64_t deadline_ns;
    int host;
    int listener; /* -1: none */
    int strangers;
    mesh_link stranger[STRANGERS];
    bool met[SERRY_MAX_RANKS];   /* has said hello */
    bool ready[SERRY_MAX_RANKS]; /* host: has all its links */
    bool waits;                  /* this rank has all its links */
    bool go;
} joining;

static socklen_t address_of(const joining *j, int rank, struct sockaddr_un *address)
{
    char part[32];

    snprintf(part, sizeof(part), "/socket/%d", rank);
    return serry_local_address(j->key, part, address);
}

static bool is_expected(const joining *j, int rank)
{
    return rank >= 0 && rank < j->job->size && !serry_rank_set_has(&j->job->absent, rank);
}

/* ---- failures ---------------------------------------------------------------------------------- */

static void blame(joining *j, int rank)
{
    if (j->error->peer < 0)
        j->error->peer = rank;
    serry_rank_set_add(&j->error->ranks, rank);
}

static int fail_gone(joining *j, int rank)
{
    blame(j, rank);
    return serry_fail(j->error, SERRY_ERR_RANK_FAILED, "rank %d ended while the job was starting",
                      rank);
}

static int fail_twice(joining *j, int rank)
{
    blame(j, rank);
    return serry_fail(j->error, SERRY_ERR_INVALID,
                      "job \"%s\": two ranks say that they are rank %d of %d; give each its own "
                      "number, and each job its own name",
                      j->job->name, rank, j->job->size);
}

static int fail_timeout(joining *j)
{
    char text[256];

    for (int r = 0; r < j->job->size; r++)
        if (is_expected(j, r) && r != j->job->rank &&
            (j->waits ? j->job->rank == j->host && !j->ready[r] : !j->met[r]))
            blame(j, r);
    if (j->error->peer < 0)
        return serry_fail(j->error, SERRY_ERR_TIMEOUT,
                          "job \"%s\" did not start within %d ms: this rank waits for rank %d, "
                          "which waits for others",
                          j->job->name, j->job->timeout_ms, j->host);
    return serry_fail(j->error, SERRY_ERR_TIMEOUT,
                      "job \"%s\" did not start within %d ms: still missing rank %s of %d",
                      j->job->name, j->job->timeout_ms,
                      serry_rank_set_text(&j->error->ranks, text, sizeof(text)), j->job->size);
}

static int fail_as_told(joining *j, const frame *head, const body *b)
{
    bool is_text = b != NULL && b->bytes > 0 && b->data[b->bytes - 1] == 0;

    j->error->peer = head->who[0];
    j->error->ranks = head->wrong;
    return serry_fail(j->error, head->code < 0 ? head->code : SERRY_ERR_ARENA, "%s",
                      is_text ? (const char *)b->data : "another rank could not join");
}

/* ---- hello ------------------------------------------------------------------------------------- */

static const char *kind_text(int kind)
{
    return kind == SERRY_THREADS ? "threads" : "processes";
}

static void say_hello(joining *j, int to)
{
    const serry_job *job = j->job;
    const frame hello = {.type = FRAME_HELLO,
                         .number = VERSION,
                         .code = (int32_t)job->kind,
                         .signature = {j->key[0], j->key[1]},
                         .who = {job->rank, job->size},
                         .id = (uint64_t)getpid()};

    mesh_send(j->mesh, to, &hello, NULL);
}

static int check_hello(joining *j, const frame *head)
{
    const serry_job *job = j->job;
    int rank = head->who[0];
    serry_error *error = j->error;

    blame(j, rank);
    if (head->number != VERSION)
        return serry_fail(error, SERRY_ERR_LAYOUT,
                          "rank %d runs another build of serry than rank %d; use one library for "
                          "all ranks of job \"%s\"",
                          rank, job->rank, job->name);
    if (head->code != (int32_t)job->kind)
        return serry_fail(
            error, SERRY_ERR_INVALID,
            "job \"%s\" mixes kinds of ranks: rank %d joined as one of %s, rank %d as "
            "one of %s; all ranks must be of one kind",
            job->name, job->rank, kind_text((int)job->kind), rank, kind_text(head->code));
    if (job->kind == SERRY_THREADS && head->id != (uint64_t)getpid())
        return serry_fail(error, SERRY_ERR_INVALID,
                          "job \"%s\" has thread ranks in two processes (%d and %d); thread ranks "
                          "share one process",
                          job->name, (int)getpid(), (int)head->id);
    if (head->who[1] != job->size)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "job \"%s\": rank %d was told a world size of %d, rank %d one of %d",
                          job->name, job->rank, job->size, rank, head->who[1]);
    error->peer = -1;
    error->ranks = (serry_rank_set){{0}};
    return SERRY_OK;
}

/* ---- connections ------------------------------------------------------------------------------- */

static int listen_for_others(joining *j)
{
    struct sockaddr_un address;
    socklen_t length = address_of(j, j->job->rank, &address);

    j->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (j->listener < 0)
        return serry_fail_errno(j->error, errno, "cannot make a socket to start the job");
    if (bind(j->listener, (struct sockaddr *)&address, length) != 0) {
        int cause = errno;
        close(j->listener);
        j->listener = -1;
        if (cause != EADDRINUSE)
            return serry_fail_errno(j->error, cause, "cannot bind the socket to start the job");
        return fail_twice(j, j->job->rank);
    }
    if (listen(j->listener, SERRY_MAX_RANKS) != 0)
        return serry_fail_errno(j->error, errno, "cannot listen for the ranks of the job");
    return SERRY_OK;
}

/* The other one of this number, and through it all others, shall know as well. */
static void tell_namesake(joining *j)
{
    struct sockaddr_un address;
    socklen_t length = address_of(j, j->job->rank, &address);
    mesh_link *own = &j->mesh->link[j->job->rank];

    own->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (own->fd >= 0 && connect(own->fd, (struct sockaddr *)&address, length) == 0)
        say_hello(j, j->job->rank);
    mesh_close_link(own);
}

static int try_connect(joining *j, int to)
{
    struct sockaddr_un address;
    socklen_t length = address_of(j, to, &address);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return serry_fail_errno(j->error, errno,
                                "cannot make a socket to start the job (a rank "
                                "needs one for each other rank)");
    if (connect(fd, (struct sockaddr *)&address, length) != 0) {
        int cause = errno;
        close(fd);
        if (cause == ECONNREFUSED || cause == EINTR || cause == EAGAIN)
            return SERRY_OK;
        return serry_fail_errno(j->error, cause, "cannot reach rank %d of job \"%s\"", to,
                                j->job->name);
    }
    if (!serry_local_same_user(fd)) {
        close(fd);
        return serry_fail(j->error, SERRY_ERR_ARENA,
                          "another user's process answers for job \"%s\"", j->job->name);
    }
    j->mesh->link[to].fd = fd;
    say_hello(j, to);
    return SERRY_OK;
}

/* Sets *all unless somebody is not there yet. */
static int connect_to_lower(joining *j, bool *all)
{
    int rc = SERRY_OK;

    *all = true;
    for (int r = 0; r < j->job->rank && rc == SERRY_OK; r++) {
        if (!is_expected(j, r) || j->mesh->link[r].fd >= 0)
            continue;
        rc = try_connect(j, r);
        *all &= j->mesh->link[r].fd >= 0;
    }
    return rc;
}

/* A place for one more; STRANGERS: there is none. */
static int free_place(const joining *j)
{
    int i = 0;

    while (i < j->strangers && j->stranger[i].fd >= 0)
        i++;
    return i;
}

static void accept_stranger(joining *j)
{
    int place = free_place(j), fd;

    if (place == STRANGERS)
        return;
    fd = accept4(j->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0 && serry_local_same_user(fd)) {
        j->stranger[place] = (mesh_link){.fd = fd};
        j->strangers += place == j->strangers;
    } else if (fd >= 0) {
        close(fd);
    }
}

/* ---- what is heard ----------------------------------------------------------------------------- */

static int hear(joining *j, int from, const frame *head, body *b)
{
    int rc = SERRY_OK;

    if (head->type >= FRAME_REPORT) { /* it is let go already */
        member_take(j->mesh, from, head, b);
        return SERRY_OK;
    }
    if (head->type == FRAME_HELLO && (rc = check_hello(j, head)) == SERRY_OK)
        j->met[from] = true;
    else if (head->type == FRAME_READY)
        j->ready[from] = true;
    else if (head->type == FRAME_GO && from == j->host)
        j->go = true;
    else if (head->type == FRAME_FAILED)
        rc = fail_as_told(j, head, b);
    body_release(b);
    return rc;
}

static int hear_link(joining *j, int from)
{
    mesh_link *l = &j->mesh->link[from];
    frame head;
    body *b;
    int got, rc = SERRY_OK;

    while (rc == SERRY_OK && (got = mesh_read(l, &head, &b)) != 0) {
        if (got > 0) {
            rc = hear(j, from, &head, b);
            continue;
        }
        mesh_close_link(l);
        /* Afterwards it is for the host to say: it may have let that one go before. */
        return j->waits && from != j->host ? SERRY_OK : j->go ? SERRY_OK : fail_gone(j, from);
    }
    return rc;
}

static int hear_stranger(joining *j, int i)
{
    mesh_link *l = &j->stranger[i];
    frame head;
    body *b;
    int got = mesh_read(l, &head, &b), rc;

    if (got == 0)
        return SERRY_OK;
    if (got > 0)
        body_release(b);
    if (got < 0 || head.type != FRAME_HELLO || head.signature[0] != j->key[0] ||
        head.signature[1] != j->key[1]) {
        mesh_close_link(l); /* poll() passes over it */
        return SERRY_OK;
    }
    int rank = head.who[0];
    rc = check_hello(j, &head);
    if (rc == SERRY_OK && (!is_expected(j, rank) || rank <= j->job->rank || j->met[rank]))
        rc = fail_twice(j, rank);
    if (rc != SERRY_OK)
        return rc; /* it stays among the strangers, who are told, too */
    j->mesh->link[rank] = *l;
    *l = (mesh_link){.fd = -1};
    j->met[rank] = true;
    say_hello(j, rank);
    return SERRY_OK;
}

/* Wait for something until a time, and hear it. */
static int listen_until(joining *j, uint64_t until_ns)
{
    struct pollfd fd[SERRY_MAX_RANKS + STRANGERS + 1];
    int size = j->job->size, strangers = j->strangers, rc = SERRY_OK;
    uint64_t now_ns = serry_token_now_ns();
    const struct timespec left = mesh_time(until_ns > now_ns ? until_ns - now_ns : 0);

    for (int r = 0; r < size; r++)
        fd[r] = (struct pollfd){j->mesh->link[r].fd, POLLIN, 0};
    for (int i = 0; i < strangers; i++)
        fd[size + i] = (struct pollfd){j->stranger[i].fd, POLLIN, 0};
    fd[size + strangers] = (struct pollfd){free_place(j) < STRANGERS ? j->listener : -1, POLLIN, 0};
    if (ppoll(fd, (nfds_t)(size + strangers + 1), until_ns == SERRY_NO_DEADLINE ? NULL : &left,
              NULL) <= 0)
        return SERRY_OK;
    for (int r = 0; r < size && rc == SERRY_OK; r++)
        if (fd[r].revents != 0)
            rc = hear_link(j, r);
    for (int i = 0; i < strangers && rc == SERRY_OK; i++)
        if (fd[size + i].revents != 0)
            rc = hear_stranger(j, i);
    if (fd[size + strangers].revents != 0)
        accept_stranger(j);
    return rc;
}

/* ---- the three parts of joining ---------------------------------------------------------------- */

static bool have_all(const joining *j, const bool *of)
{
    for (int r = 0; r < j->job->size; r++)
        if (is_expected(j, r) && r != j->job->rank && !of[r])
            return false;
    return true;
}

/* Who has failed before it said hello will never come; of the others, the links tell. */
static int look_for_failed(joining *j)
{
    serry_rank_set failed;

    if (j->job->failed == NULL)
        return SERRY_OK;
    j->job->failed(j->job->argument, &failed);
    for (int r = 0; r < j->job->size; r++)
        if (is_expected(j, r) && r != j->job->rank && !j->met[r] && serry_rank_set_has(&failed, r))
            return fail_gone(j, r);
    return SERRY_OK;
}

static uint64_t next_look(const joining *j, bool all)
{
    uint64_t until_ns = serry_token_now_ns() + (all ? LOOK_NS : RETRY_NS);
    bool looks = !all || j->job->failed != NULL;

    return looks && until_ns < j->deadline_ns ? until_ns : j->deadline_ns;
}

static int meet_all(joining *j)
{
    int rc = SERRY_OK;

    while (rc == SERRY_OK && !have_all(j, j->met)) {
        bool all;
        if (serry_token_now_ns() >= j->deadline_ns)
            return fail_timeout(j);
        rc = connect_to_lower(j, &all);
        if (rc == SERRY_OK && (rc = listen_until(j, next_look(j, all))) == SERRY_OK)
            rc = look_for_failed(j);
    }
    return rc;
}

static int go_together(joining *j)
{
    const frame ready = {.type = FRAME_READY}, go = {.type = FRAME_GO};
    bool is_host = j->job->rank == j->host;
    uint64_t deadline_ns = j->deadline_ns;
    int rc = SERRY_OK;

    j->waits = true;
    if (!is_host)
        mesh_send(j->mesh, j->host, &ready, NULL);
    if (!is_host && deadline_ns != SERRY_NO_DEADLINE)
        deadline_ns += GRACE_NS;
    while (rc == SERRY_OK && !j->go && !(is_host && have_all(j, j->ready))) {
        if (serry_token_now_ns() >= deadline_ns)
            return fail_timeout(j);
        rc = listen_until(j, deadline_ns);
        for (int r = 0; is_host && r < j->job->size && rc == SERRY_OK; r++)
            if (is_expected(j, r) && r != j->host && j->mesh->link[r].fd < 0)
                rc = fail_gone(j, r);
    }
    for (int r = 0; is_host && r < j->job->size && rc == SERRY_OK; r++)
        mesh_send(j->mesh, r, &go, NULL);
    return rc;
}

/* Tell all that are there why it fails, and those that come within a while. */
static void tell_failure(joining *j)
{
    frame head = {.type = FRAME_FAILED, .code = j->error->error, .who = {j->error->peer, 0}};
    size_t length = strlen(j->error->message) + 1;
    body *text = body_new(length);
    uint64_t end_ns = serry_token_now_ns() + FAREWELL_NS;
    mesh_link *own = &j->mesh->link[j->job->rank]; /* for one after the other of the strangers */

    head.wrong = j->error->ranks;
    if (text != NULL)
        memcpy(text->data, j->error->message, length);
    for (int r = 0; r < j->job->size; r++)
        mesh_send(j->mesh, r, &head, text);
    while (j->listener >= 0) {
        for (; j->strangers > 0; j->strangers--) {
            *own = j->stranger[j->strangers - 1];
            mesh_send(j->mesh, j->job->rank, &head, text);
            mesh_close_link(own);
        }
        struct pollfd guest = {j->listener, POLLIN, 0};
        if (j->error->error == SERRY_ERR_TIMEOUT || have_all(j, j->met) ||
            serry_token_now_ns() >= end_ns)
            break;
        if (poll(&guest, 1, 10) > 0)
            accept_stranger(j);
    }
    body_release(text);
}

mesh *socket_join(const serry_job *job, serry_error *error)
{
    mesh *m = mesh_new(job, error);
    joining all = {.mesh = m, .job = job, .error = error, .listener = -1}, *j = &all;

    if (m == NULL)
        return NULL;
    j->deadline_ns = SERRY_NO_DEADLINE;
    if (job->timeout_ms >= 0)
        j->deadline_ns = serry_token_now_ns() + (uint64_t)job->timeout_ms * 1000000;
    serry_local_key(job->name, j->key);
    while (!is_expected(j, j->host))
        j->host++;
    int rc = listen_for_others(j);
    if (rc != SERRY_OK && error->error == SERRY_ERR_INVALID)
        tell_namesake(j);
    if (rc == SERRY_OK)
        rc = meet_all(j);
    if (rc == SERRY_OK) { /* a rank that starts the same job again must not come here any more */
        close(j->listener);
        j->listener = -1;
        rc = go_together(j);
    }
    if (rc != SERRY_OK)
        tell_failure(j);
    if (j->listener >= 0)
        close(j->listener);
    for (int i = 0; i < j->strangers; i++)
        mesh_close_link(&j->stranger[i]);
    if (rc == SERRY_OK)
        return m;
    mesh_free(m);
    return NULL;
}
