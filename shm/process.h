/* process.h - what the system says about a process of this machine, in /proc. */
#ifndef SHM_PROCESS_H
#define SHM_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#include <serry/backend.h>

/* When a process began, in clock ticks since boot: with its number, tells it from a later one. 0 where
 * it cannot be read. */
uint64_t process_start_ticks(uint32_t pid);

/* SERRY_GONE, _STOPPED, _TRACED, _FROZEN (in an uninterruptible sleep); SERRY_COMPUTING for all that
 * runs or sleeps of itself; SERRY_UNKNOWN where /proc does not tell, or tells of other numbers than
 * this process knows. `start_ticks` tells the process from a later one of its number. */
serry_activity process_activity(uint32_t pid, uint64_t start_ticks);

/* One thread of a process that has not come when it should: waits it for a core (SERRY_STARVED), or
 * has the control group been frozen (SERRY_FROZEN)? SERRY_COMPUTING: neither. */
serry_activity process_delay(uint32_t pid, uint32_t thread);

#endif
