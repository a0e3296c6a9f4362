/* crash.h - a rank that crashes says so before its core is dumped.
 *
 * The kernel tells of a death only when the dying process has written its core, which may take
 * seconds. So for the signals that end a process with a core, a handler marks the slot and wakes the
 * others' monitors, and then lets the signal do what it does by default. It is installed only where
 * the program has no handler of its own (which might recover), and not with SERRY_SIGNALS=0. */
#ifndef SHM_CRASH_H
#define SHM_CRASH_H

#include "layout.h"

/* From now on a crash of this process is marked in this rank's slot; until crash_forget. Where too
 * many jobs are open at once it is left to the kernel to tell. */
void crash_mark(arena_slot *slot);

/* The slot is about to be unmapped. With the last one the handlers are taken away again. */
void crash_forget(arena_slot *slot);

/* In the child of a fork: no slot is its own. Takes no lock. */
void crash_forget_all(void);

#endif
