/* rendezvous.h - how the ranks of a job find each other and the arena, and know that all are there.
 *
 *   host: the first rank                         guests: the others
 *   listens on the job's abstract socket         connect, until somebody listens
 *                            <--- HELLO ---      who I am, what I was built as, who is absent
 *   all there? all alike?
 *   makes the arena          --- ARENA ---->     with the descriptor
 *                                                map, reserve and touch one's own part
 *                            <--- READY ---
 *   all ready?               --- GO ------->
 *
 * Ranks that the job says are absent do not come; the first rank is the first of the others. Who is
 * absent is agreed on like the rest of the job: whoever was told otherwise makes all fail.
 *
 * An abstract socket has no file to leave behind, ends with its process, and tells at once when a
 * guest or the host dies (end of stream). Instead of any message either side may send FAILED with
 * code and text; the host passes it on to all, so every rank fails alike. Both sides check that the
 * other runs under their own user id. */
#ifndef SHM_RENDEZVOUS_H
#define SHM_RENDEZVOUS_H

#include <serry/backend.h>

#include "wait.h"

/* What the host tells about the arena it made. */
struct arena_ticket {
    uint64_t total_bytes;
    uint64_t key[2];
};
typedef struct arena_ticket arena_ticket;

typedef struct rendezvous rendezvous;

/* The rank that makes the arena. */
int rendezvous_host(const serry_job *job);

/* For a job, and a limit whose deadline is fixed, that stay where they are. */
rendezvous *rendezvous_new(const serry_job *job, wait_limit *limit, serry_error *error);

/* From now on the functions that would wait return SERRY_ERR_AGAIN instead, and are to be called again; or
 * not any more. */
void rendezvous_polled(rendezvous *r, bool polled);

/* Host: listen; it is over when every guest has said hello and all agree on the job.
 * Guest: find the host and say hello. */
int rendezvous_meet(rendezvous *r, serry_error *error);

/* While they meet: who has failed, and has not come, never will. SERRY_OK: none of those that this rank waits
 * for. Of who has come, the connections tell. */
int rendezvous_look(const rendezvous *r, const serry_rank_set *failed, serry_error *error);

/* Host: hand out the descriptor. Guest: receive it (the caller's to close). */
int rendezvous_hand_out(rendezvous *r, const arena_ticket *ticket, int fd, serry_error *error);
int rendezvous_receive(rendezvous *r, arena_ticket *ticket, int *fd, serry_error *error);

/* This rank has done its part. */
int rendezvous_say_ready(rendezvous *r, serry_error *error);

/* It is over when all have. */
int rendezvous_ready(rendezvous *r, serry_error *error);

/* Tell the others that this rank cannot join, as `error` says (error->error must not be SERRY_OK).
 * May follow any failure above; where the others know already, nothing more is sent. Waits, half a second
 * at the most, for those that are still on their way. */
void rendezvous_refuse(rendezvous *r, const serry_error *error);

/* Close everything; NULL is allowed. */
void rendezvous_close(rendezvous *r);

/* In the child of a fork: close its copies of what connects the parent. It stays to be closed. */
void rendezvous_cut(rendezvous *r);

#endif
