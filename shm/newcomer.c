/* newcomer.c - into a running job: a replacement in the place of a failed rank, or a spare in the
 * first place that falls free.
 *
 *   newcomer                                        members of the world
 *   knocks at the door, gets the arena
 *   takes a slot that nobody has had, signs in      their monitors watch it from now on
 *   until the place is free: waits
 *   applicant[rank] = its slot
 *   calls the world's members to a meeting  ----->  each comes at its next operation, or out of the
 *                                                   one it waits in: see meeting.c
 *                                                   they make a new group with the newcomer in it
 *   is invited: knows where  <------------------    and enter it
 *   enters it
 *
 * Until it is invited it touches nothing but its slot and its application, so it may die, or give up,
 * at any time. It gives up by having itself buried: wherever it may have become a member meanwhile,
 * its words are sealed like those of any dead rank. */
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "door.h"
#include "extent.h"
#include "group.h"
#include "lifeline.h"
#include "monitor.h"
#include "record.h"
#include "segment.h"
#include "slot.h"

#define NAP_NS 20000000 /* between two looks; what is waited for wakes most sleeps before */

static void nap(_Atomic uint32_t *word, uint32_t seen)
{
    struct timespec most = {0, NAP_NS};

    syscall(SYS_futex, word, FUTEX_WAIT, seen, &most, NULL, 0);
}

/* ---- a slot ------------------------------------------------------------------------------------ */

/* The next one that nobody has had. Its memory comes first; the same page may be reserved twice. */
static int take_slot(shm_arena *arena, int *slot, serry_error *error)
{
    arena_header *header = arena->header;
    uint32_t used = atomic_load_explicit(&header->slots, memory_order_acquire);

    do {
        uint64_t first = header->slots_offset + used * sizeof(arena_slot);
        uint64_t page = first / SHM_PAGE * SHM_PAGE;
        if (used >= SHM_SLOTS)
            return serry_fail(error, SERRY_ERR_NO_SPACE,
                              "%u ranks, replacements and spares have joined this job, and that is "
                              "the most; start it anew",
                              SHM_SLOTS);
        int rc = segment_reserve(arena->fd, page, first + sizeof(arena_slot) - page,
                                 "a newcomer's slot", error);
        if (rc != SERRY_OK)
            return rc;
    } while (!atomic_compare_exchange_strong_explicit(&header->slots, &used, used + 1,
                                                      memory_order_seq_cst, memory_order_acquire));
    *slot = (int)used;
    return SERRY_OK;
}

/* ---- a place ----------------------------------------------------------------------------------- */

static const arena_slot *holder_of(const shm_arena *arena, int rank)
{
    uint32_t slot =
        atomic_load_explicit(&arena->header->holder[rank], memory_order_acquire) % SHM_SLOTS;

    return &arena->slots[slot];
}

static bool is_vacant(const shm_arena *arena, int rank)
{
    return slot_is_dead(holder_of(arena, rank)) || slot_has_left(holder_of(arena, rank));
}

/* False: somebody else, who lives, wants to be this rank. */
static bool apply(shm_arena *arena, int rank, int slot)
{
    _Atomic uint32_t *place = &arena->header->applicant[rank];
    uint32_t seen = atomic_load_explicit(place, memory_order_acquire), own = (uint32_t)slot + 1;

    do {
        arena_slot *other = &arena->slots[(seen - 1) % SHM_SLOTS];
        if (seen == own)
            return true;
        if (seen != 0 && slot_is_alive(other) && lifeline_look(&other->life) == LIFE_ENDED)
            monitor_bury(arena, (int)(seen - 1) % (int)SHM_SLOTS); /* its launcher was faster */
        if (seen != 0 && slot_is_alive(other) && other != holder_of(arena, rank))
            return false;
    } while (!atomic_compare_exchange_weak_explicit(place, &seen, own, memory_order_seq_cst,
                                                    memory_order_acquire));
    return true;
}

/* Wait until the rank of its number has failed. */
static int find_own_place(shm_arena *arena, int rank, int slot, wait_limit *limit,
                          serry_error *error)
{
    for (;;) {
        uint32_t deaths = atomic_load_explicit(&arena->header->deaths, memory_order_acquire);
        if (is_vacant(arena, rank)) {
            if (apply(arena, rank, slot))
                return SERRY_OK;
            return serry_fail(error, SERRY_ERR_INVALID,
                              "another replacement of rank %d waits for its place already", rank);
        }
        if (wait_expired(limit)) {
            error->peer = rank;
            serry_rank_set_add(&error->ranks, rank);
            return serry_fail(error, SERRY_ERR_TIMEOUT,
                              "rank %d has not failed within %d ms (it is process %u), so there is "
                              "no place for a replacement",
                              rank, limit->given->timeout_ms, holder_of(arena, rank)->pid);
        }
        nap(&arena->header->deaths, deaths);
    }
}

/* Is nobody left who could invite? */
static bool has_ended(const shm_arena *arena)
{
    for (int r = 0; r < (int)arena->header->ranks; r++)
        if (slot_is_alive(holder_of(arena, r)))
            return false;
    return true;
}

/* Wait until any rank fails; however long that takes, unless the job ends. */
static int find_any_place(shm_arena *arena, int slot, int *rank, serry_error *error)
{
    int size = (int)arena->header->ranks;

    for (;;) {
        uint32_t deaths = atomic_load_explicit(&arena->header->deaths, memory_order_acquire);
        for (int r = 0; r < size; r++) {
            if (slot_is_dead(holder_of(arena, r)) && apply(arena, r, slot)) {
                *rank = r;
                return SERRY_OK;
            }
        }
        if (has_ended(arena))
            return serry_fail(error, SERRY_ERR_CANCELLED,
                              "the job has ended, and this spare was not needed");
        nap(&arena->header->deaths, deaths);
    }
}

/* ---- admission --------------------------------------------------------------------------------- */

/* With the table of extents locked: the group cannot be given back meanwhile. */
static void call_world(shm_arena *arena, void *unused)
{
    (void)unused;
    group_call_at(arena, atomic_load_explicit(&arena->header->world, memory_order_acquire),
                  GROUP_CALL_MEETING);
}

static int await_invitation(shm_arena *arena, arena_entry *entry, wait_limit *limit,
                            serry_error *error)
{
    _Atomic uint64_t *invited = &arena->slots[entry->slot].invited;

    while ((entry->world = atomic_load_explicit(invited, memory_order_seq_cst)) == 0) {
        extent_locked(arena, call_world, NULL); /* again: the world may be another one by now */
        if (has_ended(arena))
            return serry_fail(error, SERRY_ERR_CANCELLED,
                              "the job has ended before this replacement of rank %d was admitted",
                              entry->rank);
        if (wait_expired(limit))
            return serry_fail(error, SERRY_ERR_TIMEOUT,
                              "the other ranks did not come to an operation on the world "
                              "communicator within %d ms, so this replacement of rank %d was not "
                              "admitted",
                              limit->given->timeout_ms, entry->rank);
        nap((_Atomic uint32_t *)(void *)invited, 0);
    }
    return SERRY_OK;
}

static int enter(shm_arena *arena, const serry_job *job, arena_entry *entry, wait_limit *limit,
                 serry_error *error)
{
    int rc = SERRY_OK;

    entry->rank = job->rank;
    if (job->entry == SERRY_ENTRY_SPARE)
        rc = find_any_place(arena, entry->slot, &entry->rank, error);
    else
        rc = find_own_place(arena, entry->rank, entry->slot, limit, error);
    error->rank = entry->rank;
    if (job->entry == SERRY_ENTRY_SPARE)
        limit->deadline_ns = 0; /* from now on */
    return rc == SERRY_OK ? await_invitation(arena, entry, limit, error) : rc;
}

shm_arena *arena_join_late(const serry_job *job, wait_plan *plan, arena_entry *entry,
                           serry_error *error)
{
    const serry_limit given = {job->timeout_ms, NULL, NULL, NULL};
    wait_limit limit = {&given, 0, NULL, false};
    arena_ticket ticket;
    int fd;

    if (door_knock(job, &limit, &ticket, &fd, error) != SERRY_OK)
        return NULL;
    shm_arena *arena = arena_map(job, &ticket, fd, error);
    if (arena == NULL)
        return NULL;
    entry->slot = -1;
    int rc = take_slot(arena, &entry->slot, error);
    if (rc == SERRY_OK && (rc = arena_sign_in(arena, entry->slot, false, error)) != SERRY_OK)
        entry->slot = -1;
    if (rc == SERRY_OK) {
        monitor_watch(arena->monitor);
        rc = enter(arena, job, entry, &limit, error);
        if (rc != SERRY_OK)
            monitor_bury(arena, entry->slot);
    }
    if (rc != SERRY_OK) {
        arena_drop(arena, entry->slot);
        return NULL;
    }
    *plan = arena_plan_waiting(arena);
    arena_choose_team(arena, job);
    return arena;
}
