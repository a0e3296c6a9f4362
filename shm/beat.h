/* beat.h - signs of life: the monitor thread of each process shows several times a second that it
 * gets to run, in the slots of its process. Whether a rank makes progress is another question. */
#ifndef SHM_BEAT_H
#define SHM_BEAT_H

#include "arena.h"

/* By the monitor thread before it sleeps for at most BEAT_NS: a sign for its rank's slot, or, with
 * `slot` < 0, for those of all living ranks, which are threads of its process. */
#define BEAT_NS UINT64_C(200000000)
void beat_give(shm_arena *arena, int slot);

/* When the process last showed that it lives; 0: never. It counts as alive until it has missed a
 * beat, so this is now for all that are well. */
uint64_t beat_seen(const arena_slot *slot, uint64_t now_ns);

/* The thread that gives the beats, as the process numbers it; 0: none yet. */
uint32_t beat_giver(const arena_slot *slot);

#endif
