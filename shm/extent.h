/* extent.h - runs of pages of the pool, each with its owner on record. Off the way of operations. */
#ifndef SHM_EXTENT_H
#define SHM_EXTENT_H

#include "arena.h"

/* Prepare the lock of a new arena; the table is zeroed memory. */
int extent_init(arena_header *header, serry_error *error);

/**
 * Take `bytes` (rounded up to pages) of zeroed pool.
 *
 * @param owner        A slot, or EXTENT_OF_GROUP: then the first page has memory before
 *                     anybody can visit it.
 * @param reserve      Give it memory now; otherwise the caller does so, piece by piece.
 * @param[out] offset  From the arena's base.
 * @retval SERRY_ERR_NO_SPACE  The pool, the table or the memory is exhausted.
 */
int extent_take(shm_arena *arena, uint32_t owner, uint64_t bytes, bool reserve, uint64_t *offset,
                serry_error *error);

/* Which messages. */
typedef struct extent_post {
    uint32_t communicator;
    uint16_t source, dest; /* slots */
} extent_post;

/**
 * Take `bytes` of zeroed pool for messages.
 *
 * @param dest  The receiver's word.
 * @retval SERRY_ERR_AGAIN        The table is locked for longer than a moment. Without a record.
 * @retval SERRY_ERR_RANK_FAILED  That word is sealed. Without a record.
 * @retval SERRY_ERR_NO_SPACE     As extent_take.
 */
int extent_take_post(shm_arena *arena, const extent_post *post, const _Atomic uint64_t *dest,
                     uint64_t bytes, uint64_t *offset, serry_error *error);

/* A rank will touch no messages of this communicator any more, but for those from or to the slots in
 * `stay`. To be called when no more of these can be made: its word is sealed, or theirs. */
void extent_end_posts(shm_arena *arena, uint32_t communicator, uint32_t slot, const uint16_t *stay,
                      int stays);

/* Give back the extent that starts at `offset` and belongs to `owner`, and its memory. Stores its
 * size. False: there is none. */
bool extent_give(shm_arena *arena, uint32_t owner, uint64_t offset, uint64_t *bytes);

/* The extent that starts at `offset` and belongs to `owner` is that of a communicator from now on: it
 * is given back when that has no member any more. */
void extent_entrust(shm_arena *arena, uint32_t owner, uint64_t offset, uint32_t communicator);

/* Give back all that a rank has taken. */
void extent_give_all(shm_arena *arena, uint32_t owner);

/* What the table cannot know. Asked while nobody can give or take an extent. */
typedef struct extent_judge {
    bool (*is_unused)(shm_arena *arena, uint64_t group); /* nobody will touch it any more */
    bool (*has_member)(shm_arena *arena, uint64_t group,
                       uint32_t slot);                /* which somebody may use */
    bool (*is_gone)(shm_arena *arena, uint32_t slot); /* it is dead, and writes no more */
    bool (*is_of)(shm_arena *arena, uint64_t group, uint32_t communicator);
} extent_judge;

/* Give back all groups that are unused; what was entrusted to communicators of such groups alone; what
 * those had taken who are gone and members of no group any more: until then others may be reading
 * there; and messages that both ends are done with. */
void extent_sweep(shm_arena *arena, const extent_judge *judge);

/* Call `visit` while no extent is taken or given back. False: the table was locked for too long. */
bool extent_locked(shm_arena *arena, void (*visit)(shm_arena *arena, void *argument),
                   void *argument);

/* Call `visit` for each group there is, with its offset. The set cannot change meanwhile, so `visit`
 * must be short. False: the table was locked for too long. */
bool extent_each_group(shm_arena *arena,
                       void (*visit)(shm_arena *arena, uint64_t offset, void *argument),
                       void *argument);

#endif
