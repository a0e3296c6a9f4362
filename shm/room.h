/* room.h - where a member stages what the others take from it when an operation is sure: an extent of
 * its own, one for each communicator, kept from operation to operation.
 *
 *   front        | input, of an even operation | of an odd one |       where there are few members
 *   then         | what an operation stages in its steps |
 *
 *   who writes   the member alone, after the first step of an operation is decided: by then all have
 *                published that step, and so are done with what lay here before. In front before it
 *                publishes that step: the operation before has been decided, so by then all are done
 *                with the one before that, whose input lay in the same place
 *   who reads    any member, from the decision of the operation's last step until it publishes again
 *   its end      a dead member's stays while anybody is a member with it. One that is outgrown, or
 *                whose communicator is closed, stays until nobody reads it
 *
 * A member that was sealed although it lives has published that last step, takes part in the operation,
 * and may still be copying from here after the others went on. So a room is offered no more while such
 * a one may be about: operations go through private memory then (staged.c). */
#ifndef SHM_ROOM_H
#define SHM_ROOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "group.h"

/* An input of so many bytes may go ahead, in a group of so many members. Measured with two ranks, 16 KiB: 0.63 to
 * 1.0 of the time of two steps. */
#define ROOM_AHEAD ((size_t)32 << 10)
enum { ROOM_FEW = 8 };

typedef struct shm_room {
    unsigned char *memory; /* behind the front. NULL: none */
    uint64_t offset;       /* of the extent */
    uint64_t bytes;        /* behind the front */
    uint64_t outgrown; /* offset of the one before, until an operation is begun by all. 0: none */
    int lost_count;
    uint64_t lost[SHM_SLOTS / 64]; /* slots of members that may still read, a bit each */
} shm_room;

struct shm_member;

/* Before the operation contributes anything: room for so many bytes, if the pool has it. */
void room_reserve(struct shm_member *m, uint64_t bytes);

/* Bytes of the front, in any member's room. */
uint64_t room_front(const struct shm_member *m);

/* Where in the front, before the rest, the input lies of the operation that is open. */
size_t room_ahead(const struct shm_member *m);

/* The offset of what is behind the front, to be published; 0: it has not so many bytes, or may not be used now. */
uint64_t room_offer(struct shm_member *m, uint64_t bytes);

/* The first step of a large operation is decided. */
void room_begun(struct shm_member *m);

/* A member of m->group goes on without this one, or goes to another group. */
void room_lose(struct shm_member *m, int rank);

/* The communicator is closed, by this member. */
void room_close(struct shm_member *m);

#endif
