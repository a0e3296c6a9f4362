/* monitor.h - from evidence of death to seals: one thread a process, asleep until a rank dies.
 *
 * Among process ranks the same thread holds this rank's life lock: a thread of its own, which holds
 * nothing else, so that nothing the program does with locks or threads can cut it. Thread ranks hold
 * theirs themselves. */
#ifndef SHM_MONITOR_H
#define SHM_MONITOR_H

#include "arena.h"

typedef struct shm_monitor shm_monitor;

/* Start the thread. With `slot` >= 0 it takes that slot's life lock, which has been made, and returns
 * when it holds it. Watches nobody yet. */
shm_monitor *monitor_start(shm_arena *arena, int slot, serry_error *error);

/* All ranks are there: watch them. Repeating it changes nothing. */
void monitor_watch(shm_monitor *monitor);

/* Let a slot count as dead, and seal its words wherever it is a member. Nothing happens to one that
 * has left in order. False: some group could not be reached just now; repeat it. Any thread. */
bool monitor_bury(shm_arena *arena, int slot);

/* End the thread; it lets go of the life lock, which the slot's state must have announced. */
void monitor_stop(shm_monitor *monitor);

/* In the child of a fork, which has no such thread: free what it left, NULL is allowed. */
void monitor_forget(shm_monitor *monitor);

#endif
