/* flight.h - what a communicator has under way: requests that were started and have not ended.
 *
 *   serry_iallreduce ...  -->  incoming  -->  calls      one after the other, by polling `run`
 *   serry_isend                               sends      until the backend has put them
 *   serry_irecv                               receives   until a message matches (match.c)
 *
 * Whoever has the flight's turn drives it: polls what can go on, never waits. That is a thread that
 * waits or tests, one that starts an operation, or the progress thread (progress.c). Only who has the
 * turn touches the queues and the backend's member; anybody may push to `incoming`. Nobody sleeps
 * with the turn. */
#ifndef SERRY_FLIGHT_H
#define SERRY_FLIGHT_H

#include <stdatomic.h>

#include <serry/request.h>
#include <serry/serry.h>

#include "comm.h"
#include "guard.h"
#include "sleep.h"

typedef struct flight flight;

typedef enum request_kind {
    REQUEST_CALL,
    REQUEST_SEND,
    REQUEST_RECEIVE,
    REQUEST_PROBE
} request_kind;

typedef struct request_message {
    int peer, tag;
    serry_dtype dtype;
    size_t bytes; /* of the message, or of the room for it */
    const void *send;
    void *recv;
    serry_status *status;
    bool looked;          /* a receive: at what lies aside */
    uint64_t ticket;      /* of a send that the receiver has not read yet */
    uint64_t deadline_ns; /* 0, 1: not known yet */
} request_message;

struct serry_request {
    serry_request *next; /* in incoming, or in its queue */
    flight *flight;      /* constant */
    unsigned forks;      /* serry_forks when it was started */
    request_kind what;
    _Atomic int ended; /* 0, then 1: released when all below stands; nobody else touches it then */
    bool polled;       /* a call that has begun. By who has the turn */
    bool orphan;       /* freed by its owner before it has ended. By who has the turn */
    int result;
    serry_error *error; /* NULL: it ended well, or there was no memory */
    serry_completion completion;
    void *completion_argument;
    serry_limit limit;
    serry_token *token;           /* what limit.token gives. A reference */
    serry_watch watch;            /* on it, from when a thread that drives the flight sleeps, */
    bool watching;                /* until it has ended. Both by who has the turn */
    serry_comm_function function; /* NULL: the call */
    void *argument;
    serry_call call;
    struct many *list; /* of buffers, that the call is about; NULL: none */
    request_message message;
    guard guard;
};

typedef struct request_queue {
    serry_request *first, **last;
} request_queue;

enum { FLIGHT_BATCH = 129 }; /* calls that the backend is shown at a time */

/* A message that came while another one was wanted; its data follow. */
typedef struct waiting_message {
    struct waiting_message *next;
    int source;
    serry_envelope envelope;
    _Alignas(16) unsigned char data[];
} waiting_message;

struct flight {
    serry_comm *comm;
    bool joined; /* progress.c knows of it. By the thread that starts operations */
    bool ending; /* its communicator is being finalized: nothing new. By that thread */
    _Atomic(serry_request *)
        incoming;             /* newest first; anybody pushes, who has the turn takes all */
    _Atomic bool turn;        /* somebody has it */
    _Atomic uint32_t started; /* requests, modulo 2^32: relaxed, before they can end, by who has the
                                          turn; */
    _Atomic uint32_t pushed;  /* and by all others: those that are, or were, incoming */
    _Atomic uint32_t ended;   /* of those: by who has the turn, release */
    _Atomic uint32_t pulse;   /* private futex word: grows where somebody may sleep for a
                                          request to end, or for the turn */
    _Atomic uint32_t sleepers, wanted; /* who would miss that: seq_cst, before they look */
    _Atomic uint32_t attended;         /* threads that wait, and so drive it */

    /* of who has the turn */
    request_queue calls, sends, receives;
    serry_request *spare; /* one that has ended, and that nobody knows any more; NULL: none */
    waiting_message *waiting, **last_waiting;
    bool news;                             /* something has ended since the turn was taken */
    bool meeting;                          /* the first call waits for one */
    bool tokens;                           /* there has been a request with one */
    const serry_call *batch[FLIGHT_BATCH]; /* the first calls, as they were at its first poll */
    int batched;                           /* 0: it has not been polled */
    int turn_of;                           /* the source that is looked at first */
    serry_rank_set known; /* failures that a receive from any source has told, or that are
                              acknowledged; */
    uint64_t known_of[SERRY_MAX_RANKS]; /* of which incarnation of the rank */
    uint32_t pauses, yields; /* how patient it is worth to be before sleeping, by the last poll */
    uint32_t looks, looked;  /* of the first call, by whoever polls on and on: see serry_interest */
    serry_error error;
};

/* ---- flight.c, flight_life.c ------------------------------------------------------------------- */

/* The communicator's flight, made at the first need. `apart`: for something that is started and finished
 * apart, so with the progress thread, where there is to be one.
 * SERRY_ERR_NO_SPACE, SERRY_ERR_SYSTEM, told in the communicator's record. */
int flight_of(serry_comm *comm, bool apart, flight **f);

/* End all that is under way with SERRY_ERR_CANCELLED and free it. The caller has the turn. */
void flight_free(flight *f);

/* In the child of a fork: free private memory, touch nothing else. */
void flight_forget(flight *f);

/* Get the turn, give it back. Waiting for it is short: nobody sleeps with it. */
bool flight_try(flight *f);
void flight_enter(flight *f);
void flight_leave(flight *f);

/* Let a request begin, with or without the turn, which is given back. Polls it at once if it can. From then
 * on it is the flight's. */
void flight_begin(flight *f, serry_request *r, bool turn);

static inline void flight_start(flight *f, serry_request *r)
{
    flight_begin(f, r, flight_try(f));
}

/* With the turn: everything as far as it goes. `list`: who drives is about to sleep, and that is what
 * on; else NULL. */
void flight_drive(flight *f, sleep_list *list);

/* Is the calling thread in a completion of this flight? Then it has the turn already. */
bool flight_is_completing(const flight *f);

/* With the turn: a request has ended. Its result and record are in f->error unless rc is SERRY_OK. */
void flight_end(flight *f, serry_request *r, int rc);

/* With the turn: end a request that runs. Not a send whose receiver is just reading it: that ends soon
 * by itself. */
void flight_cancel(flight *f, serry_request *r);

/* Before the member is closed, with the turn: nobody may read this rank's memory any more. */
void flight_withdraw(flight *f);

/* With the turn: the failure of who has that rank now is known to the caller; is it? */
void flight_learn(flight *f, int rank);
bool flight_knows(const flight *f, int rank);

/* Wake those who sleep until something changes. */
void flight_pulse(flight *f);

/* Have a flight driven again, whoever sleeps instead: something has changed that nobody's sleep watches.
 * From any thread, also while it has a token's lock. */
void flight_rouse(void *f);

/* ---- flight_watch.c: tokens of requests. Both with the turn --------------------------------------- */

/* Who drives is about to sleep: from now on each token that is cancelled rouses the flight. */
void flight_watch(flight *f);

/* The request ends. */
void flight_unwatch(serry_request *r);

/* ---- flight.c ----------------------------------------------------------------------------------- */

/* Do something in the order of the communicator's operations, and wait for it to end. */
int flight_do(flight *f, serry_request *r);

/* A request that ends at once, or not at all. False: it has not, and nothing is known of it any more. */
bool flight_ask(flight *f, serry_request *r);

/* With the turn: what others have started meanwhile gets into the queues. */
void flight_take_incoming(flight *f);

/* With the turn. */
void queue_remove(request_queue *q, serry_request *r);

static inline bool flight_is_idle(const flight *f)
{
    uint32_t ended = atomic_load_explicit(&f->ended, memory_order_acquire);

    return ended == atomic_load_explicit(&f->started, memory_order_relaxed) +
                        atomic_load_explicit(&f->pushed, memory_order_relaxed);
}

/* ---- request.c -------------------------------------------------------------------------------- */

/* With the turn: memory of one that has ended. NULL: there is none. */
serry_request *request_take(flight *f);

/* A new request with the communicator's limit, in that memory, or in new (NULL). NULL: no memory, told in the
 * communicator's record. */
serry_request *request_new(flight *f, serry_request *memory, request_kind what,
                           const char *operation);

/* Free one that request_new has made. */
void request_dispose(serry_request *r);

/* Fill one that lies on the caller's stack: all but the call or the message. */
void request_init(serry_request *r, flight *f, request_kind what);

static inline bool request_has_ended(const serry_request *r)
{
    return atomic_load_explicit(&r->ended, memory_order_acquire) != 0;
}

/* Its result, when it has ended: with its record in *error unless that is SERRY_OK. */
int request_finish(serry_request *r, serry_error *error);

/* Wait until one of them has ended; NULLs are left out. Returns its index; `count`: the time is over. */
size_t request_wait_any(serry_request *const *requests, size_t count, uint64_t deadline_ns);

/* ---- match.c: messages. All with the turn ------------------------------------------------------ */

/* Sends and receives as far as they go. True: some wait for others. */
bool match_drive(flight *f, bool sleeps, uint64_t *at_ns);

/* A request is to end: nobody may read its buffer any more. False: its receiver is just doing so. */
bool match_withdraw(flight *f, const serry_request *r);

/* Forget what was received and not wanted. */
void match_free(flight *f);

/* ---- progress.c ------------------------------------------------------------------------------- */

/* From now on the flight is driven by the progress thread, or (caller) by all who wait. */
int progress_join(flight *f, serry_error *error);
void progress_leave(flight *f);

/* In the child of a fork: there is no thread, and no flight. */
void progress_forget(void);

/* Something was started that may go on without its caller. `urgent`: now rather than soon. */
void progress_ring(bool urgent);

/* Without a progress thread: drive all other flights of this process than those of the requests, too.
 * `list` as for flight_drive. */
void progress_drive_others(serry_request *const *requests, size_t count, sleep_list *list);

#endif
