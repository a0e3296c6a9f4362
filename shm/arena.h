/* arena.h - this process's view of an arena. Thread ranks share one, process ranks have one each. */
#ifndef SHM_ARENA_H
#define SHM_ARENA_H

#include <serry/backend.h>

#include "layout.h"
#include "wait.h"

typedef struct shm_arena {
    struct shm_arena *next;               /* arenas of this process; under the lock of join.c */
    unsigned members;                     /* communicators of this process that use it; likewise */
    uint16_t members_of[SERRY_MAX_RANKS]; /* of each of its ranks; likewise */
    struct shm_monitor *monitor;          /* set before the job runs, then constant */
    int fd;                               /* for reserving and giving back memory */
    serry_kind_of_rank kind;
    uint64_t key[2];
    uint64_t bytes;
    unsigned char *base;
    arena_header *header; /* at base */
    arena_slot *slots;
    arena_extent *extents;
} shm_arena;

/**
 * Join a job: meet the others, make or map the arena, give memory to this rank's own part of it.
 *
 * @param[out] plan  How to wait, given the cores that all ranks together may use.
 * @return NULL on failure, with nothing left behind. The world group lies at header->world_offset;
 *         this rank's word in it is sealed where joining failed after others may have seen it.
 */
shm_arena *arena_join(const serry_job *job, wait_plan *plan, serry_error *error);

/* One more communicator of rank `slot` of the job, one less. With a rank's last one it leaves the
 * job; with the last one of the process the arena is unmapped. */
void arena_hold(shm_arena *arena, int slot);
void arena_drop(shm_arena *arena, int slot);

/* Has this rank of the process one communicator left? */
bool arena_is_last(shm_arena *arena, int slot);

/* [offset, offset + bytes) as a pointer, or NULL where it is not wholly in the pool. */
static inline void *arena_in_pool(const shm_arena *arena, uint64_t offset, uint64_t bytes)
{
    uint64_t start = arena->header->pool_offset;

    if (offset < start || bytes > arena->bytes || offset > arena->bytes - bytes)
        return NULL;
    return arena->base + offset;
}

#endif
