/* regain.h - a replacement takes its predecessor's place in the parts, too.
 *
 *   replacement, a member of the parent              members of the part
 *   looks through all groups for the part's
 *   slot.asks = the part, and its rank there
 *   calls the part's members to a meeting  ----->    each comes at its next operation: see meeting.c
 *                                                    they make a new group; who makes it finds the
 *                                                    replacement by what it asks for
 *   finds the new group, entered  <--------------    and enter it
 *   enters it
 *
 * Which group is the part's follows from group headers alone: it is a part of the parent, made by its
 * split of that number, with this rank of the parent in it. A group that replaces another has a higher
 * version, and counts from when somebody has entered it.
 *
 * The replacement may die at any time: its words are sealed like those of any dead rank. If it gives up
 * it takes back what it asks for, then seals its place wherever it has become a member meanwhile; the
 * maker of a group gives the place memory, then looks whether it is still asked for. One of both sees
 * the other. The place is free then, for the next replacement or for this one again (GROUP_NEVER), so who is
 * new in a group is what its header says: the slot may be the same. */
#ifndef SHM_REGAIN_H
#define SHM_REGAIN_H

#include "operation.h"

/* As serry_rejoin_part; `m` is the parent. */
int regain_run(shm_member *m, int index, shm_member **part, serry_error *error);

/* The slot of a living replacement that asks for this place; -1: there is none. */
int regain_applicant(const shm_group *group, int rank);

/* The new group at `offset` stands: is somebody in it who does not want its place any more? */
void regain_look_again(const shm_group *old, uint64_t offset);

#endif
