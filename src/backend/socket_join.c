/* socket_join.c - from a job to a mesh; see socket.h.
 *
 * Every rank listens under an abstract address that bears a hash of user and job, and its number.
 * It connects to all lower ranks and accepts all higher ones; both sides say hello and check what
 * they hear. Who has all its links tells the host, the lowest rank; when all have, the host lets them
 * go. From then on a death is an ordinary death; before, it fails the start on all ranks. */
#include "socket_joining.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "local.h"
#include "record.h"
#include "token.h"

#define RETRY_NS 2000000    /* between two attempts to reach ranks that are not there yet */
#define LOOK_NS 20000000    /* between two looks at who has failed meanwhile */
#define GRACE_NS 2000000000 /* all others wait longer than the host, which knows who is missing */
#define FAREWELL_NS 500000000
#define NAP_PART 8 /* who polls naps for so small a part of the time that it has waited */
#define NAP_LEAST_NS 200000

static socklen_t address_of(const joining *j, int rank, struct sockaddr_un *address)
{
    char part[32];

    snprintf(part, sizeof(part), "/socket/%d", rank);
    return serry_local_address(j->key, part, address);
}

/* ---- connections ------------------------------------------------------------------------------- */

static int listen_for_others(joining *j)
{
    struct sockaddr_un address;
    socklen_t length = address_of(j, j->job.rank, &address);

    j->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (j->listener < 0)
        return serry_fail_errno(&j->error, errno, "cannot make a socket to start the job");
    if (bind(j->listener, (struct sockaddr *)&address, length) != 0) {
        int cause = errno;
        close(j->listener);
        j->listener = -1;
        if (cause != EADDRINUSE)
            return serry_fail_errno(&j->error, cause, "cannot bind the socket to start the job");
        return joining_fail_twice(j, j->job.rank);
    }
    if (listen(j->listener, SERRY_MAX_RANKS) != 0)
        return serry_fail_errno(&j->error, errno, "cannot listen for the ranks of the job");
    return SERRY_OK;
}

/* The other one of this number, and through it all others, shall know as well. */
static void tell_namesake(joining *j)
{
    struct sockaddr_un address;
    socklen_t length = address_of(j, j->job.rank, &address);
    mesh_link *own = &j->mesh->link[j->job.rank];

    own->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (own->fd >= 0 && connect(own->fd, (struct sockaddr *)&address, length) == 0)
        joining_say_hello(j, j->job.rank);
    mesh_close_link(own);
}

static int try_connect(joining *j, int to)
{
    struct sockaddr_un address;
    socklen_t length = address_of(j, to, &address);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return serry_fail_errno(&j->error, errno,
                                "cannot make a socket to start the job (a rank "
                                "needs one for each other rank)");
    if (connect(fd, (struct sockaddr *)&address, length) != 0) {
        int cause = errno;
        close(fd);
        if (cause == ECONNREFUSED || cause == EINTR || cause == EAGAIN)
            return SERRY_OK;
        return serry_fail_errno(&j->error, cause, "cannot reach rank %d of job \"%s\"", to,
                                j->job.name);
    }
    if (!serry_local_same_user(fd)) {
        close(fd);
        return serry_fail(&j->error, SERRY_ERR_ARENA,
                          "another user's process answers for job \"%s\"", j->job.name);
    }
    j->mesh->link[to].fd = fd;
    joining_say_hello(j, to);
    return SERRY_OK;
}

/* Sets *all unless somebody is not there yet. */
static int connect_to_lower(joining *j, bool *all)
{
    int rc = SERRY_OK;

    *all = true;
    for (int r = 0; r < j->job.rank && rc == SERRY_OK; r++) {
        if (!joining_expects(j, r) || j->mesh->link[r].fd >= 0)
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
    if (head->type == FRAME_HELLO && (rc = joining_check_hello(j, head)) == SERRY_OK)
        j->met[from] = true;
    else if (head->type == FRAME_READY)
        j->ready[from] = true;
    else if (head->type == FRAME_GO && from == j->host)
        j->go = true;
    else if (head->type == FRAME_FAILED)
        rc = joining_fail_as_told(j, head, b);
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
        return j->phase != JOINING_MEETS && from != j->host ? SERRY_OK
               : j->go                                      ? SERRY_OK
                                                            : joining_fail_gone(j, from);
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
    rc = joining_check_hello(j, &head);
    if (rc == SERRY_OK && (!joining_expects(j, rank) || rank <= j->job.rank || j->met[rank]))
        rc = joining_fail_twice(j, rank);
    if (rc != SERRY_OK)
        return rc; /* it stays among the strangers, who are told, too */
    j->mesh->link[rank] = *l;
    *l = (mesh_link){.fd = -1};
    j->met[rank] = true;
    joining_say_hello(j, rank);
    return SERRY_OK;
}

/* Wait for something until a time, and hear it. */
static int listen_until(joining *j, uint64_t until_ns)
{
    struct pollfd fd[SERRY_MAX_RANKS + STRANGERS + 1];
    int size = j->job.size, strangers = j->strangers, rc = SERRY_OK;
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

/* ---- its parts --------------------------------------------------------------------------------- */

static bool have_all(const joining *j, const bool *of)
{
    for (int r = 0; r < j->job.size; r++)
        if (joining_expects(j, r) && r != j->job.rank && !of[r])
            return false;
    return true;
}

/* Who has failed before it said hello will never come; of the others, the links tell. */
static int look_for_failed(joining *j)
{
    serry_rank_set failed;

    if (j->job.failed == NULL)
        return SERRY_OK;
    j->job.failed(j->job.argument, &failed);
    for (int r = 0; r < j->job.size; r++)
        if (joining_expects(j, r) && r != j->job.rank && !j->met[r] &&
            serry_rank_set_has(&failed, r))
            return joining_fail_gone(j, r);
    return SERRY_OK;
}

static uint64_t next_look(const joining *j, bool all)
{
    uint64_t until_ns = serry_token_now_ns() + (all ? LOOK_NS : RETRY_NS);
    bool looks = !all || j->job.failed != NULL;

    return looks && until_ns < j->deadline_ns ? until_ns : j->deadline_ns;
}

/* Each of these goes as far as it goes by what is there now or, if it `waits`, until the next thing has come.
 * SERRY_OK: it is over. SERRY_ERR_AGAIN: it is not. Else why the start fails. */

static int meet_all(joining *j, bool waits)
{
    bool all;

    if (have_all(j, j->met))
        return SERRY_OK;
    if (serry_token_now_ns() >= j->deadline_ns)
        return joining_fail_timeout(j);
    int rc = connect_to_lower(j, &all);
    if (rc == SERRY_OK && (rc = listen_until(j, waits ? next_look(j, all) : 0)) == SERRY_OK)
        rc = look_for_failed(j);
    return rc == SERRY_OK && !have_all(j, j->met) ? SERRY_ERR_AGAIN : rc;
}

/* A rank that starts the same job again must not come here any more. */
static void begin_to_wait(joining *j)
{
    const frame ready = {.type = FRAME_READY};

    close(j->listener);
    j->listener = -1;
    j->phase = JOINING_WAITS;
    if (j->job.rank == j->host)
        return;
    mesh_send(j->mesh, j->host, &ready, NULL);
    if (j->deadline_ns != SERRY_NO_DEADLINE)
        j->deadline_ns += GRACE_NS;
}

static bool may_go(const joining *j)
{
    return j->go || (j->job.rank == j->host && have_all(j, j->ready));
}

static int go_together(joining *j, bool waits)
{
    const frame go = {.type = FRAME_GO};
    bool is_host = j->job.rank == j->host;

    if (!may_go(j)) {
        if (serry_token_now_ns() >= j->deadline_ns)
            return joining_fail_timeout(j);
        int rc = listen_until(j, waits ? j->deadline_ns : 0);
        for (int r = 0; is_host && r < j->job.size && rc == SERRY_OK; r++)
            if (joining_expects(j, r) && r != j->host && j->mesh->link[r].fd < 0)
                rc = joining_fail_gone(j, r);
        if (rc != SERRY_OK)
            return rc;
        if (!may_go(j))
            return SERRY_ERR_AGAIN;
    }
    for (int r = 0; is_host && r < j->job.size; r++)
        mesh_send(j->mesh, r, &go, NULL);
    return SERRY_OK;
}

/* ---- farewell ---------------------------------------------------------------------------------- */

static frame farewell_of(const joining *j, body **text)
{
    size_t length = strlen(j->error.message) + 1;

    *text = body_new(length);
    if (*text != NULL)
        memcpy((*text)->data, j->error.message, length);
    return (frame){.type = FRAME_FAILED,
                   .code = j->error.error,
                   .who = {j->error.peer, 0},
                   .wrong = j->error.ranks};
}

/* Tell all that are there why it fails, */
static void begin_farewell(joining *j)
{
    body *text;
    const frame head = farewell_of(j, &text);

    for (int r = 0; r < j->job.size; r++)
        mesh_send(j->mesh, r, &head, text);
    body_release(text);
    j->phase = JOINING_FAREWELL;
    j->farewell_ns = serry_token_now_ns() + FAREWELL_NS;
}

/* and those that come within a while. Returns whether that is over. */
static bool bid_farewell(joining *j, bool waits)
{
    mesh_link *own = &j->mesh->link[j->job.rank]; /* for one after the other of the strangers */
    struct pollfd guest = {j->listener, POLLIN, 0};
    body *text;

    if (j->listener < 0)
        return true;
    const frame head = farewell_of(j, &text);
    for (; j->strangers > 0; j->strangers--) {
        *own = j->stranger[j->strangers - 1];
        j->stranger[j->strangers - 1].fd = -1;
        mesh_send(j->mesh, j->job.rank, &head, text);
        mesh_close_link(own);
    }
    body_release(text);
    if (j->error.error == SERRY_ERR_TIMEOUT || have_all(j, j->met) ||
        serry_token_now_ns() >= j->farewell_ns)
        return true;
    if (poll(&guest, 1, waits ? 10 : 0) > 0)
        accept_stranger(j);
    return false;
}

/* ---- joining ------------------------------------------------------------------------------------ */

joining *joining_begin(const serry_job *job, serry_error *error)
{
    joining *j = calloc(1, sizeof(*j));

    if (j == NULL) {
        serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory while starting the job");
        return NULL;
    }
    j->mesh = mesh_new(job, error);
    if (j->mesh == NULL) {
        free(j);
        return NULL;
    }
    j->job = *job;
    j->error = *error;
    j->listener = -1;
    j->began_ns = serry_token_now_ns();
    j->deadline_ns = SERRY_NO_DEADLINE;
    if (job->timeout_ms >= 0)
        j->deadline_ns = j->began_ns + (uint64_t)job->timeout_ms * 1000000;
    serry_local_key(job->name, j->key);
    while (!joining_expects(j, j->host))
        j->host++;
    j->mesh->joining = j;
    int rc = listen_for_others(j);
    if (rc == SERRY_ERR_INVALID)
        tell_namesake(j);
    if (rc != SERRY_OK)
        begin_farewell(j);
    return j;
}

static int step(joining *j, bool waits)
{
    int rc;

    if (j->phase == JOINING_FAREWELL)
        return bid_farewell(j, waits) ? j->error.error : SERRY_ERR_AGAIN;
    rc = j->mesh->lost               ? joining_fail_lost(j)
         : j->phase == JOINING_MEETS ? meet_all(j, waits)
                                     : go_together(j, waits);
    if (rc == SERRY_ERR_AGAIN)
        return rc;
    if (rc != SERRY_OK)
        begin_farewell(j);
    else if (j->phase == JOINING_WAITS)
        return SERRY_OK;
    else
        begin_to_wait(j);
    return step(j, waits);
}

/* Nobody wakes who sleeps meanwhile. */
static void nap(const joining *j, serry_interest *poll)
{
    uint64_t now_ns = serry_token_now_ns(), nap_ns = (now_ns - j->began_ns) / NAP_PART;

    nap_ns = nap_ns < NAP_LEAST_NS ? NAP_LEAST_NS : nap_ns > RETRY_NS ? RETRY_NS : nap_ns;
    *poll = (serry_interest){.sleep = poll->sleep, .at_ns = now_ns + nap_ns};
}

/* Locked: a thread rank may end while another thread polls for it. */
int joining_go_on(joining *j, serry_interest *poll, serry_error *error)
{
    int rc;

    pthread_mutex_lock(&j->mesh->lock);
    do {
        rc = step(j, poll == NULL);
    } while (rc == SERRY_ERR_AGAIN && poll == NULL);
    pthread_mutex_unlock(&j->mesh->lock);
    if (rc == SERRY_ERR_AGAIN)
        nap(j, poll);
    else if (rc != SERRY_OK)
        *error = j->error;
    return rc;
}

/* A thread of the parent may have been at work on the rest. */
void joining_in_child(joining *j)
{
    if (j->listener >= 0)
        close(j->listener);
    j->listener = -1;
    for (int i = 0; i < j->strangers; i++) {
        if (j->stranger[i].fd >= 0)
            close(j->stranger[i].fd);
        j->stranger[i].fd = -1;
    }
}

mesh *joining_end(joining *j, bool joined)
{
    mesh *m = j->mesh;

    if (j->listener >= 0)
        close(j->listener);
    for (int i = 0; i < j->strangers; i++)
        mesh_close_link(&j->stranger[i]);
    m->joining = NULL;
    free(j);
    if (joined)
        return m;
    mesh_free(m);
    return NULL;
}
