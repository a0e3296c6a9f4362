/* regroup.h - the group that a meeting makes: the same ranks, and replacements, under the same
 * communicators. m->meeting says where it lies; meeting.c, when which of these is done. */
#ifndef SHM_REGROUP_H
#define SHM_REGROUP_H

#include "operation.h"

/* The first giver makes the group, and gives memory to the regions of those that will not come to do
 * it themselves. SERRY_ERR_NO_SPACE. */
int regroup_make(shm_member *m);

/* Nobody else knows of it. Only its maker gives it back: the last threads of a killed one may still
 * write there, so its group goes with the arena. */
void regroup_unmake(shm_member *m);

/* All know where it is: one that is sealed since may still be giving memory to its region there, so it
 * is given back when all have left or are gone. */
void regroup_abandon(shm_member *m);

/* Give memory to this rank's region. SERRY_ERR_NO_SPACE. */
int regroup_settle(shm_member *m);

/* Leave the old group for this one, and let in who has joined. */
int regroup_enter(shm_member *m);

#endif
