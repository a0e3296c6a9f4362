/* door.h - where replacements and spares come into a running job.
 *
 * The lowest living slot's monitor listens on a second abstract socket of the job. Whoever connects, and
 * is of the same user, is sent the arena's descriptor and what it should look like, and may then see
 * for himself. The door is looked after in the monitor's rounds; when the one who keeps it dies, the
 * next one opens it in its next round. */
#ifndef SHM_DOOR_H
#define SHM_DOOR_H

#include "arena.h"
#include "rendezvous.h"

typedef struct door {
    int listener; /* -1: it is not open here */
    bool wanted;  /* it should be, but the one before has not let go yet */
} door;

/* Keep the door, if it is this slot's turn (-1: of a process of thread ranks), and let in who waits.
 * Never blocks. */
void door_attend(door *d, const shm_arena *arena, int slot);

void door_close(door *d);

/* A newcomer: knock until somebody opens. Receives the descriptor (the caller's to close). */
int door_knock(const serry_job *job, wait_limit *limit, arena_ticket *ticket, int *fd,
               serry_error *error);

#endif
