/* door.c - see door.h. */
#include "door.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "local.h"
#include "host.h"
#include "message.h"
#include "record.h"
#include "slot.h"

#define PART "/door"
#define RETRY_NS 5000000L
#define PATIENCE_MS 10000 /* of a replacement: the job it knows of has been running */

enum { WAITING_MOST = 64 };

/* ---- inside ----------------------------------------------------------------------------------- */

static bool is_my_turn(const shm_arena *arena, int slot)
{
    for (int i = 0; i < slot; i++)
        if (slot_is_alive(&arena->slots[i]))
            return false;
    return true;
}

static void open_door(door *d, const shm_arena *arena)
{
    struct sockaddr_un address;
    socklen_t length = serry_local_address(arena->job, PART, &address);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, length) == 0 &&
        listen(fd, WAITING_MOST) == 0)
        d->listener = fd;
    else if (fd >= 0) /* the one before has it still: next round */
        close(fd);
}

void door_attend(door *d, const shm_arena *arena, int slot)
{
    message m = {.type = MESSAGE_ARENA, .layout = SHM_LAYOUT, .peer = -1};
    int fd;

    if (d->listener < 0 && is_my_turn(arena, slot))
        open_door(d, arena);
    if (d->listener < 0)
        return;
    memcpy(m.job, arena->job, sizeof(m.job));
    m.size = (int32_t)arena->header->ranks;
    m.kind = (int32_t)arena->kind;
    m.ticket.total_bytes = arena->bytes;
    memcpy(m.ticket.key, arena->key, sizeof(m.ticket.key));
    while ((fd = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        if (serry_local_same_user(fd))
            message_send(fd, &m, arena->fd);
        close(fd);
    }
}

void door_close(door *d)
{
    if (d->listener >= 0)
        close(d->listener);
    d->listener = -1;
}

/* ---- outside ---------------------------------------------------------------------------------- */

static int check(const serry_job *job, const message *m, int fd, serry_error *error)
{
    if (m->type != MESSAGE_ARENA || fd < 0)
        return serry_fail(error, SERRY_ERR_ARENA, "job \"%s\": a process spoke out of turn",
                          job->name);
    if (m->layout != SHM_LAYOUT)
        return serry_fail(
            error, SERRY_ERR_LAYOUT,
            "job \"%s\" runs another build of serry than this process; use one library "
            "for all its ranks",
            job->name);
    if (m->size != job->size || m->kind != (int32_t)job->kind)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "job \"%s\" has %d ranks that are %s; this one was told %d that are %s",
                          job->name, m->size, m->kind == SERRY_THREADS ? "threads" : "processes",
                          job->size, job->kind == SERRY_THREADS ? "threads" : "processes");
    return SERRY_OK;
}

/* False: nobody opened this time. */
static bool knock_once(const serry_job *job, wait_limit *limit, message *m, int *fd)
{
    struct sockaddr_un address;
    uint64_t key[2];
    bool answered = false;
    int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    serry_local_key(job->name, key);
    socklen_t length = serry_local_address(key, PART, &address);
    if (s < 0)
        return false;
    if (connect(s, (struct sockaddr *)&address, length) == 0 && serry_local_same_user(s)) {
        struct pollfd answer = {s, POLLIN, 0};
        answered = rendezvous_poll(&answer, 1, limit) > 0 && message_receive(s, m, fd);
    }
    close(s);
    return answered;
}

int door_knock(const serry_job *job, wait_limit *limit, arena_ticket *ticket, int *fd,
               serry_error *error)
{
    const struct timespec nap = {0, RETRY_NS};
    uint64_t patient_until_ns = wait_now_ns() + PATIENCE_MS * UINT64_C(1000000);
    message m;

    *fd = -1;
    while (!knock_once(job, limit, &m, fd)) {
        bool late = job->entry == SERRY_ENTRY_REPLACEMENT && wait_now_ns() > patient_until_ns;
        if (wait_expired(limit) || late)
            return serry_fail(error, SERRY_ERR_TIMEOUT,
                              "nobody opened within %d ms: is job \"%s\" running?",
                              late ? PATIENCE_MS : job->timeout_ms, job->name);
        nanosleep(&nap, NULL);
    }
    int rc = check(job, &m, *fd, error);
    if (rc != SERRY_OK && *fd >= 0)
        close(*fd);
    *ticket = m.ticket;
    return rc;
}
