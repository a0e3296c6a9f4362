/* slot.h - a rank's place in the arena: who it is, and whether it lives.
 *
 *   FREE --> ALIVE --> LEFT      moved by the rank itself: it has joined, it has left
 *     |        +-----> DEAD      moved by whoever has evidence
 *     +--------------> DEAD      of a rank that is absent from the beginning, by the arena's maker
 *
 * DEAD is never left: a rank that was buried by mistake finds its words sealed. */
#ifndef SHM_SLOT_H
#define SHM_SLOT_H

#include <stdbool.h>
#include <sys/types.h>

#include <serry/types.h>

#include "layout.h"

/* The calling thread's rank signs in: who it is, what cores it may use, and ALIVE. */
void slot_sign_in(arena_slot *slot);

/* Before anybody can see the arena: the rank has failed already, and will not come. */
void slot_begin_dead(arena_slot *slot);

/* The rank leaves in order: its end from now on is no failure. */
void slot_leave(arena_slot *slot);

/* On evidence. False: there is nobody to bury, the slot is free or its rank has left in order. */
bool slot_bury(arena_slot *slot);

bool slot_has_left(const arena_slot *slot);

bool slot_is_alive(const arena_slot *slot);

/* Nobody has signed in yet, though somebody may. */
bool slot_is_free(const arena_slot *slot);

/* It is dead, and nobody can write in its name any more. */
bool slot_is_gone(const arena_slot *slot, serry_kind_of_rank kind);

/* The process that has signed in has ended, with all its threads, whatever the rank is. */
bool slot_process_is_gone(const arena_slot *slot);

/* Would slot_process_is_gone tell, if /proc shows this process itself? */
bool slot_can_be_seen(const arena_slot *slot);

/* Somebody, perhaps the rank itself, has found it to be gone. */
bool slot_is_dead(const arena_slot *slot);

/* Numbers of processes mean something in one namespace only; this tells which. 0: not to be read. */
uint64_t slot_pid_namespace(void);

#endif
