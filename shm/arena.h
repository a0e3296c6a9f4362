/* arena.h - this process's view of an arena. Thread ranks share one, process ranks have one each. */
#ifndef SHM_ARENA_H
#define SHM_ARENA_H

#include <serry/backend.h>

#include "layout.h"
#include "wait.h"

struct arena_ticket;
struct shm_heap;

typedef struct shm_arena {
    struct shm_arena *next;         /* arenas of this process; under the lock of join.c */
    unsigned members;               /* communicators of this process that use it; likewise */
    uint16_t members_of[SHM_SLOTS]; /* of each of its slots; likewise */
    bool read_on[SHM_SLOTS];        /* it has left an operation that was open, or was sealed: others
                                       may still read its memory. By its rank */
    struct shm_monitor *monitor;    /* set before the job runs, then constant */
    int fd;                         /* for reserving, giving back, and handing on */
    uint64_t job[2];                /* hash of user and job: where newcomers knock */
    serry_kind_of_rank kind;
    uint64_t key[2];
    uint64_t bytes;
    unsigned char *base;
    arena_header *header; /* at base */
    arena_slot *slots;
    arena_extent *extents;
    struct shm_heap *heap; /* NULL: none; see heap.h */
    _Atomic bool seals; /* some rank of the process may seal others that live; relaxed: it matters
                              to operations that begin later */
    _Atomic int
        team; /* threads that share the large work of a rank; 0 or 1: none do. Written by each
                         rank of the process that asks for it, while it joins; relaxed, a hint */
} shm_arena;

/* A rank on its way into a job: see joining.c. */
typedef struct arena_joining arena_joining;
arena_joining *arena_begin_to_join(const serry_job *job, serry_error *error);

/**
 * Join a job: meet the others, make or map the arena, give memory to this rank's own part of it.
 *
 * @param poll       NULL: wait for the others.
 * @param[out] plan  How to wait, given the cores that all ranks together may use.
 * @retval SERRY_ERR_AGAIN  It would have to wait; the next call goes on. After any other code `joining` is
 *                   gone. After an error nothing is left behind. The world group lies at
 *                   header->world_offset; this rank's word in it is sealed where joining failed after
 *                   others may have seen it.
 */
int arena_join(arena_joining *joining, struct serry_interest *poll, shm_arena **arena,
               wait_plan *plan, serry_error *error);

/* Not to go on with it; and: in the child of a fork. */
void arena_give_up_joining(arena_joining *joining);
void arena_forget_joining(arena_joining *joining);

/**
 * Join a running job: see newcomer.c.
 *
 * @param[out] entry  Where this rank has its place.
 * @return NULL on failure, with nothing left behind.
 */
typedef struct arena_entry {
    int rank, slot;
    uint64_t world; /* offset of the group */
} arena_entry;
shm_arena *arena_join_late(const serry_job *job, wait_plan *plan, arena_entry *entry,
                           serry_error *error);

/* One more communicator of a slot, one less (slot -1: of none yet). With a slot's last one its rank
 * leaves the job; with the last one of the process the arena is unmapped. */
void arena_hold(shm_arena *arena, int slot);
void arena_drop(shm_arena *arena, int slot);

/* ---- for newcomer.c and joining.c, from join.c -------------------------------------------------- */

/* Before anything else: what is mapped here is forgotten in the child of a fork. */
void arena_watch_forks(void);

/* A new arena, held once by nobody, and what the others are told of it. */
shm_arena *arena_make(const serry_job *job, struct arena_ticket *ticket, serry_error *error);

/* The arena behind a descriptor, which it takes over: mapped, held once by nobody, and checked. */
shm_arena *arena_map(const serry_job *job, const struct arena_ticket *ticket, int fd,
                     serry_error *error);

/* Become the holder of a slot: its life lock is held, its name written, the others are watched. */
int arena_sign_in(shm_arena *arena, int slot, bool alone, serry_error *error);

/* How to wait, given the cores of all that live. */
wait_plan arena_plan_waiting(const shm_arena *arena);

/* A rank of this process has joined: will it have a team, and how large? */
void arena_choose_team(shm_arena *arena, const serry_job *job);

/* Has this rank of the process one communicator left? */
bool arena_is_last(shm_arena *arena, int slot);

/* Slots that are in use, or have been. */
static inline int arena_slots_used(const shm_arena *arena)
{
    uint32_t used = atomic_load_explicit(&arena->header->slots, memory_order_acquire);

    return used < SHM_SLOTS ? (int)used : (int)SHM_SLOTS;
}

/* [offset, offset + bytes) as a pointer, or NULL where it is not wholly in the pool. */
static inline void *arena_in_pool(const shm_arena *arena, uint64_t offset, uint64_t bytes)
{
    uint64_t start = arena->header->pool_offset;

    if (offset < start || bytes > arena->bytes || offset > arena->bytes - bytes)
        return NULL;
    return arena->base + offset;
}

#endif
