/* vitals.c - see vitals.h. What a rank does is read from its words, its slot and the system; it is
 * asked nothing. */
#include "vitals.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "beat.h"
#include "monitor.h"
#include "operation.h"
#include "process.h"
#include "record.h"
#include "slot.h"
#include "word.h"
#include "writes.h"

/* A beat that is late by no more than this says nothing. */
#define LATE_NS UINT64_C(5000000)

static arena_slot *slot_of(const shm_group *group, int rank)
{
    return &group->arena->slots[group->header->slot[rank]];
}

/* ---- the words ---------------------------------------------------------------------------------- */

static const group_cell *cell_of(const shm_group *group, int rank, int cell)
{
    return (const group_cell *)(const void *)group_region(group, rank) + cell;
}

static uint64_t word_of(const shm_group *group, int rank, int cell)
{
    return atomic_load_explicit(&cell_of(group, rank, cell)->word, memory_order_relaxed);
}

static bool is_member(const shm_group *group, int rank)
{
    return group_is_settled(group, rank) && !(word_of(group, rank, CELL_OPERATIONS) & WORD_SEALED);
}

/* Has this member contributed to a step that others have not reached? */
static bool is_ahead(const shm_group *group, int rank, int cell)
{
    uint64_t step = word_step(word_of(group, rank, cell));

    for (int r = 0; r < group->size; r++)
        if (is_member(group, r) && !word_reached(word_of(group, r, cell), step))
            return true;
    return false;
}

static void read_words(const shm_group *group, int rank, serry_vitals *vitals)
{
    vitals->activity = SERRY_COMPUTING;
    vitals->failed = false;
    for (int cell = 0; cell < CELLS; cell++) {
        vitals->progress += word_step(word_of(group, rank, cell));
        if (vitals->activity == SERRY_COMPUTING && is_ahead(group, rank, cell)) {
            vitals->activity = SERRY_WAITING;
            vitals->operation =
                atomic_load_explicit(&cell_of(group, rank, cell)->operation, memory_order_relaxed);
        }
    }
}

/* ---- the system --------------------------------------------------------------------------------- */

static bool is_in_our_namespace(const arena_slot *slot)
{
    return slot->pid_namespace != 0 && slot->pid_namespace == slot_pid_namespace();
}

/* SERRY_COMPUTING: nothing keeps it from that. */
static serry_activity ask_system(const arena_slot *slot, uint64_t late_ns)
{
    if (!is_in_our_namespace(slot))
        return SERRY_UNKNOWN;
    serry_activity activity = process_activity(slot->pid, slot->start_ticks);
    if (activity == SERRY_COMPUTING && late_ns > LATE_NS)
        activity = process_delay(slot->pid, beat_giver(slot));
    return activity;
}

static int check_rank(const shm_member *m, const char *what, int rank, serry_error *error)
{
    serry_error_begin(error, what, 0, m->group.rank);
    if (rank >= 0 && rank < m->group.size)
        return SERRY_OK;
    return serry_fail(error, SERRY_ERR_INVALID,
                      "%s: there is no rank %d in a communicator of size %d", what, rank,
                      m->group.size);
}

int vitals_read(serry_member *member, int rank, serry_vitals *vitals, serry_error *error)
{
    shm_member *m = (shm_member *)(void *)member;
    const arena_slot *slot = NULL;

    *vitals = (serry_vitals){.activity = SERRY_GONE, .failed = true};
    pthread_mutex_lock(&m->view);
    int rc = check_rank(m, "vitals", rank, error);
    if (rc == SERRY_OK) {
        slot = slot_of(&m->group, rank);
        if (is_member(&m->group, rank) && slot_is_alive(slot))
            read_words(&m->group, rank, vitals);
    }
    pthread_mutex_unlock(&m->view);
    if (rc != SERRY_OK)
        return rc;
    uint64_t now = wait_now_ns();
    vitals->alive_ns = beat_seen(slot, now);
    if (vitals->failed)
        return SERRY_OK;
    serry_activity activity = ask_system(slot, now - vitals->alive_ns);
    if (activity != SERRY_COMPUTING &&
        !(activity == SERRY_UNKNOWN && vitals->activity == SERRY_WAITING))
        vitals->activity = activity;
    return SERRY_OK;
}

/* ---- exclusion ---------------------------------------------------------------------------------- */

static int fail_kill(int rank, int failure, serry_error *error)
{
    if (failure == ESRCH)
        return SERRY_OK; /* it ends already */
    return serry_fail_errno(error, failure, "exclude: cannot kill the process of rank %d", rank);
}

/* A number may be another process's by now, a descriptor cannot. */
static int kill_process(const arena_slot *slot, int rank, serry_error *error)
{
    int fd = (int)syscall(SYS_pidfd_open, slot->pid, 0), failure = 0;

    if (fd < 0)
        return fail_kill(rank, errno, error);
    uint64_t ticks = process_start_ticks(slot->pid);
    if (ticks != slot->start_ticks)
        failure = ticks == 0 ? EACCES : ESRCH;
    else if (syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) != 0)
        failure = errno;
    close(fd);
    return failure == 0 ? SERRY_OK : fail_kill(rank, failure, error);
}

static int check_kill(const shm_arena *arena, const arena_slot *slot, int rank, serry_error *error)
{
    if (arena->kind == SERRY_THREADS)
        return serry_fail(error, SERRY_ERR_UNSUPPORTED,
                          "exclude: rank %d is a thread of this process, which cannot be killed "
                          "alone; use SERRY_EXCLUSION_SEAL",
                          rank);
    if (slot->start_ticks == 0 || !is_in_our_namespace(slot))
        return serry_fail(error, SERRY_ERR_UNSUPPORTED,
                          "exclude: rank %d lives in another PID namespace, where it cannot be "
                          "killed from here; use SERRY_EXCLUSION_SEAL",
                          rank);
    return SERRY_OK;
}

/* Whom does it concern? */
static int find(const shm_member *m, int rank, serry_exclusion how, int *slot, serry_error *error)
{
    int rc = check_rank(m, "exclude", rank, error);

    if (rc != SERRY_OK)
        return rc;
    if (rank == m->group.rank)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "exclude: a rank cannot exclude itself; finalize instead");
    if (how != SERRY_EXCLUSION_KILL && how != SERRY_EXCLUSION_SEAL)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "exclude: give SERRY_EXCLUSION_KILL or SERRY_EXCLUSION_SEAL");
    *slot = m->group.header->slot[rank];
    return SERRY_OK;
}

int vitals_exclude(serry_member *member, int rank, serry_exclusion how, serry_error *error)
{
    shm_member *m = (shm_member *)(void *)member;
    int number = 0;

    pthread_mutex_lock(&m->view);
    shm_arena *arena = m->group.arena;
    int rc = find(m, rank, how, &number, error);
    pthread_mutex_unlock(&m->view);
    const arena_slot *slot = &arena->slots[number];
    if (rc != SERRY_OK || !slot_is_alive(slot))
        return rc;
    if (how == SERRY_EXCLUSION_SEAL && writes_stuck(arena, number))
        return serry_fail(
            error, SERRY_ERR_UNSUPPORTED,
            "exclude: rank %d has stopped while it writes into the memory of others, where "
            "it would go on later; continue it, or use SERRY_EXCLUSION_KILL",
            rank);
    if (how == SERRY_EXCLUSION_SEAL) {
        monitor_bury(arena, number); /* all monitors see to the rest */
        return SERRY_OK;
    }
    rc = check_kill(arena, slot, rank, error);
    return rc == SERRY_OK ? kill_process(slot, rank, error) : rc;
}
