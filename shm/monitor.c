/* monitor.c - see monitor.h.
 *
 * Asleep, the thread watches the life locks of up to 126 other ranks with one FUTEX_WAITV, in the
 * order of the ranks after its own; among more process ranks each is watched by the 126 before it.
 * Now and then it also looks at all of them, and asks the process descriptors of some: the second
 * witness, for deaths that the robust list has not told (after the OOM killer, for instance). Where
 * the kernel has no FUTEX_WAITV it just looks more often. */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "beat.h"
#include "door.h"
#include "extent.h"
#include "group.h"
#include "lifeline.h"
#include "record.h"
#include "process.h"
#include "slot.h"

enum { WATCHED_MOST = 126, WITNESSED_MOST = 16 };
enum { COMMAND_HOLD, COMMAND_WATCH, COMMAND_STOP };
enum { HOLD_TRYING, HOLD_DONE, HOLD_FAILED };

/* Between two looks at everybody. The kernel wakes one of those who watch a lock; where that one is
 * being killed as well, the others find the death at their next look. */
#define PERIOD_NS BEAT_NS
#define PERIOD_EAGER_NS UINT64_C(3000000) /* of who keeps the door, for a while after a death */
#define EAGER_NS UINT64_C(10000000000)
#define PERIOD_UNWATCHED_NS UINT64_C(2000000) /* where somebody cannot be watched */

struct shm_monitor {
    shm_arena *arena;
    int slot; /* whose life lock this thread holds; -1: nobody's */
    pthread_t thread;
    _Atomic uint32_t command; /* futex word; from other threads of the process */
    _Atomic uint32_t hold;    /* futex word; from the thread itself */
    door door;
    uint64_t eager_until_ns; /* to let a replacement in */
    serry_error error;       /* why it could not hold the lock; published by hold */
    bool waitv;              /* the kernel has FUTEX_WAITV */
    bool buried[SHM_SLOTS];
    int witness[SHM_SLOTS]; /* process descriptors; -1: none yet, -2: cannot be had */
};

static void wake_word(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* ---- burying ---------------------------------------------------------------------------------- */

static void seal_in_group(shm_arena *arena, uint64_t offset, void *dead)
{
    group_seal_slot(arena, offset, *(const int *)dead);
}

bool monitor_bury(shm_arena *arena, int dead)
{
    if (!slot_bury(&arena->slots[dead]))
        return true;
    group_seal_slot(arena, arena->header->world_offset, dead);
    bool all = extent_each_group(arena, seal_in_group, &dead);
    atomic_fetch_add_explicit(&arena->header->deaths, 1, memory_order_seq_cst);
    syscall(SYS_futex, &arena->header->deaths, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    return all;
}

/* ---- evidence --------------------------------------------------------------------------------- */

static int open_witness(const shm_arena *arena, int number)
{
    const arena_slot *slot = &arena->slots[number];

    if (arena->kind == SERRY_THREADS || slot->pid_namespace != slot_pid_namespace())
        return -2;
    int fd = (int)syscall(SYS_pidfd_open, slot->pid, 0);
    if (fd < 0)
        return -2;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (process_start_ticks(slot->pid) == slot->start_ticks)
        return fd;
    close(fd); /* another process has its number: the lock has told, or will */
    return -2;
}

/* Has the process of this slot ended, as its descriptor says? Stays false where there is none. */
static bool witness_says_gone(shm_monitor *m, int number)
{
    if (m->witness[number] == -1)
        m->witness[number] = open_witness(m->arena, number);
    struct pollfd end = {m->witness[number], POLLIN, 0};
    return m->witness[number] >= 0 && poll(&end, 1, 0) == 1;
}

/* ---- one round -------------------------------------------------------------------------------- */

typedef struct round {
    struct futex_waitv watched[WATCHED_MOST + 1]; /* the last one: the command */
    unsigned count;
    bool unwatched; /* somebody lives who is not among them */
} round_plan;

static void watch_word(round_plan *plan, const void *word, uint32_t value)
{
    plan->watched[plan->count++] =
        (struct futex_waitv){.val = value, .uaddr = (uintptr_t)word, .flags = FUTEX_32};
}

/* A slot whose rank neither has signed in, nor is known to be gone, nor is this thread's own. */
static bool concerns(const shm_monitor *m, int number)
{
    const arena_slot *slot = &m->arena->slots[number];

    return number != m->slot && !m->buried[number] && !slot_is_free(slot) && !slot_has_left(slot);
}

static void bury_here(shm_monitor *m, int number)
{
    lifeline_pass_on(&m->arena->slots[number].life);
    m->buried[number] = monitor_bury(m->arena, number);
    m->eager_until_ns = wait_now_ns() + EAGER_NS;
    if (m->witness[number] >= 0)
        close(m->witness[number]);
    m->witness[number] = -2;
}

/* Look at everybody, bury who is gone, and find out whom to watch until the next round. */
static void look_round(shm_monitor *m, round_plan *plan)
{
    int slots = arena_slots_used(m->arena), witnessed = 0;

    for (int i = 1; i <= slots; i++) {
        int number = (m->slot + i + slots) % slots;
        arena_slot *slot = &m->arena->slots[number];
        uint32_t *word, value;
        if (!concerns(m, number))
            continue;
        if (slot_is_dead(slot) || lifeline_look(&slot->life) == LIFE_ENDED ||
            (witnessed++ < WITNESSED_MOST && witness_says_gone(m, number))) {
            bury_here(m, number);
            plan->unwatched |= !m->buried[number];
        } else if (plan->count < WATCHED_MOST && m->waitv) {
            if (lifeline_watch(&slot->life, &word, &value))
                watch_word(plan, word, value);
            else
                plan->unwatched = true; /* it ends, or lets go, at this very moment */
        } else {
            plan->unwatched |= !m->waitv || m->arena->kind == SERRY_THREADS;
        }
    }
}

static void sleep_until_something(shm_monitor *m, round_plan *plan, uint32_t command)
{
    uint64_t now = wait_now_ns(), period = PERIOD_NS;

    if (plan->unwatched)
        period = PERIOD_UNWATCHED_NS;
    else if ((m->door.listener >= 0 || m->door.wanted) && now < m->eager_until_ns)
        period = PERIOD_EAGER_NS;
    uint64_t until = now + period;
    struct timespec at = {(time_t)(until / 1000000000), (long)(until % 1000000000)};

    beat_give(m->arena, m->slot);
    watch_word(plan, &m->command, command);
    if (m->waitv &&
        syscall(SYS_futex_waitv, plan->watched, plan->count, 0, &at, CLOCK_MONOTONIC) < 0 &&
        errno == ENOSYS)
        m->waitv = false;
    if (!m->waitv)
        syscall(SYS_futex, &m->command, FUTEX_WAIT_BITSET, command, &at, NULL,
                FUTEX_BITSET_MATCH_ANY);
}

static void *monitor_main(void *argument)
{
    shm_monitor *m = argument;
    pthread_mutex_t *own = m->slot >= 0 ? &m->arena->slots[m->slot].life : NULL;
    int rc = own == NULL ? SERRY_OK : lifeline_hold(own, &m->error);

    atomic_store_explicit(&m->hold, rc == SERRY_OK ? HOLD_DONE : HOLD_FAILED, memory_order_release);
    wake_word(&m->hold);
    for (;;) {
        uint32_t command = atomic_load_explicit(&m->command, memory_order_acquire);
        round_plan plan = {.count = 0};
        if (command == COMMAND_STOP || rc != SERRY_OK)
            break;
        if (command == COMMAND_WATCH) {
            look_round(m, &plan);
            door_attend(&m->door, m->arena, m->slot);
        }
        sleep_until_something(m, &plan, command);
    }
    if (own != NULL && rc == SERRY_OK)
        lifeline_let_go(own);
    return NULL;
}

/* ---- from other threads ----------------------------------------------------------------------- */

static int start_thread(shm_monitor *m)
{
    sigset_t all, before;

    sigfillset(&all); /* the program's signals are for its own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&m->thread, NULL, monitor_main, m);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

shm_monitor *monitor_start(shm_arena *arena, int slot, serry_error *error)
{
    shm_monitor *m = calloc(1, sizeof(*m));

    if (m == NULL) {
        serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory for the monitor of the ranks");
        return NULL;
    }
    m->arena = arena;
    m->slot = slot;
    m->waitv = lifeline_works();
    m->door.listener = -1;
    for (int r = 0; r < (int)SHM_SLOTS; r++)
        m->witness[r] = -1;
    int rc = start_thread(m);
    if (rc != 0) {
        serry_fail_errno(error, rc, "cannot start the thread that watches the other ranks");
        free(m);
        return NULL;
    }
    while (atomic_load_explicit(&m->hold, memory_order_acquire) == HOLD_TRYING)
        syscall(SYS_futex, &m->hold, FUTEX_WAIT, HOLD_TRYING, NULL, NULL, 0);
    if (atomic_load_explicit(&m->hold, memory_order_relaxed) == HOLD_FAILED) {
        *error = m->error;
        monitor_stop(m);
        return NULL;
    }
    return m;
}

static void command(shm_monitor *m, uint32_t value)
{
    atomic_store_explicit(&m->command, value, memory_order_release);
    wake_word(&m->command);
}

void monitor_watch(shm_monitor *m)
{
    if (atomic_load_explicit(&m->command, memory_order_relaxed) == COMMAND_HOLD)
        command(m, COMMAND_WATCH);
}

static void close_descriptors(shm_monitor *m)
{
    door_close(&m->door);
    for (int r = 0; r < (int)SHM_SLOTS; r++)
        if (m->witness[r] >= 0)
            close(m->witness[r]);
}

void monitor_forget(shm_monitor *m)
{
    if (m != NULL)
        close_descriptors(m);
    free(m);
}

void monitor_stop(shm_monitor *m)
{
    command(m, COMMAND_STOP);
    pthread_join(m->thread, NULL);
    monitor_forget(m);
}
