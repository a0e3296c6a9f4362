/* writes.h - who writes into the memory of others, and when it is sure that nobody does any more.
 *
 * Stores cannot be recalled: a rank that is sealed, or whose communicator is revoked, may be in the middle of
 * a copy. So a member says in its cell (group_cell.writes) that it is about to write into others' memory, for
 * one piece at a time, and looks then whether it still may; and who wants to rely on it that the member does
 * not, sees to the reason first and looks at the cell then. Both in sequentially consistent order, so one of
 * them sees the other:
 *
 *   the member    writes = 1, looks at its own word, the group's call and the other's word, copies, writes = 0
 *   an other      has seen the member's word sealed: it goes on in its place
 *                 has seen a revocation:             it leaves with its buffers
 *                 has found its own word sealed:     likewise
 *                 each of them waits then until writes is 0, or the member gone
 *
 * Gone is who was killed when the thread that wrote has ended, which the kernel tells by a robust lock that it
 * holds (lifeline.h), before it takes the process's memory down; or, where a team may have helped that thread,
 * and as a second witness, when the last thread of the process has (slot_is_gone). A member that is stopped in a
 * piece holds the others up until it goes on, is killed, or they run out of time; so it cannot be excluded by a
 * seal: see writes_stuck. Where some health monitor is set to seal, nobody writes into others' memory at all. */
#ifndef SHM_WRITES_H
#define SHM_WRITES_H

#include <stdbool.h>

#include "arena.h"

struct shm_member;

/* Can every member be seen to be gone? Else nobody may write into others' memory. The same answer as long as
 * the group is the same. */
bool writes_can_be_seen(struct shm_member *m);

/* Of a new group, before its first operation: this rank's lock. */
void writes_init(const struct shm_member *m);

/* The calling thread is the one that will write, until it says that it has done. */
bool writes_enter(const struct shm_member *m);
void writes_leave(const struct shm_member *m, bool entered);

/* This rank is about to write a piece into others' memory. False: it must not any more. */
bool writes_begin(const struct shm_member *m);
void writes_end(const struct shm_member *m);

/* Is a member at it? */
bool writes_now(const struct shm_member *m, int rank);

/* A member's word is sealed. Wait until it writes no more, as wait_decided waits. */
int writes_await(struct shm_member *m, int rank);

/* This rank is about to leave the operation with its buffers: wait until nobody writes there.
 *
 * @retval SERRY_OK, SERRY_ERR_TIMEOUT, SERRY_ERR_CANCELLED, SERRY_ERR_AGAIN */
int writes_await_all(struct shm_member *m);

/* Is the rank of a slot at it in some group? */
bool writes_by(shm_arena *arena, int slot);

/* And is it still, after a moment? Then it is stopped there, or starved. */
bool writes_stuck(shm_arena *arena, int slot);

#endif
