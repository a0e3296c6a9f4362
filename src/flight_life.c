/* flight_life.c - the beginning and the end of a flight. */
#include <sched.h>
#include <stdlib.h>

#include "flight.h"
#include "record.h"

#define COLD __attribute__((cold, noinline))

static void queue_init(request_queue *q)
{
    q->first = NULL;
    q->last = &q->first;
}

/* ---- failures that are known ------------------------------------------------------------------- */

static uint64_t incarnation_of(const flight *f, int rank)
{
    const serry_backend *backend = f->comm->backend;

    return backend->incarnation == NULL ? 0 : backend->incarnation(f->comm->member, rank);
}

void flight_learn(flight *f, int rank)
{
    serry_rank_set_add(&f->known, rank);
    f->known_of[rank] = incarnation_of(f, rank);
}

bool flight_knows(const flight *f, int rank)
{
    return serry_rank_set_has(&f->known, rank) && f->known_of[rank] == incarnation_of(f, rank);
}

/* ---- life -------------------------------------------------------------------------------------- */

static int make(serry_comm *comm, flight **made)
{
    flight *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return serry_fail(&comm->error, SERRY_ERR_NO_SPACE, "out of memory for a request");
    f->comm = comm;
    queue_init(&f->calls);
    queue_init(&f->sends);
    queue_init(&f->receives);
    *made = f;
    return SERRY_OK;
}

static COLD int prepare(serry_comm *comm, bool apart)
{
    int rc = SERRY_OK;

    serry_error_begin(&comm->error, "start", 0, comm->rank);
    if (comm->flight != NULL && comm->flight->ending)
        return serry_fail(&comm->error, SERRY_ERR_INVALID,
                          "the communicator is being finalized; nothing can be started on it");
    if (comm->flight == NULL)
        rc = make(comm, &comm->flight);
    if (rc == SERRY_OK && apart) {
        rc = progress_join(comm->flight, &comm->error);
        comm->flight->joined = rc == SERRY_OK;
    }
    return rc;
}

int flight_of(serry_comm *comm, bool apart, flight **f)
{
    if (__builtin_expect(comm->flight == NULL || (apart && !comm->flight->joined), 0)) {
        int rc = prepare(comm, apart);
        if (rc != SERRY_OK)
            return rc;
    }
    *f = comm->flight;
    return SERRY_OK;
}

void flight_withdraw(flight *f)
{
    serry_request *next;

    flight_take_incoming(f);
    for (serry_request *r = f->sends.first; r != NULL; r = next) {
        next = r->next;
        while (r->message.ticket != 0 && !match_withdraw(f, r) &&
               f->comm->backend->settled(f->comm->member, r->message.peer, r->message.ticket,
                                         &f->error) == SERRY_ERR_AGAIN)
            sched_yield(); /* it is being copied by another thread of this process */
        r->message.ticket = 0;
    }
}

static void cancel_all(flight *f, request_queue *q)
{
    while (q->first != NULL)
        flight_cancel(f, q->first);
}

void flight_free(flight *f)
{
    flight_take_incoming(f);
    cancel_all(f, &f->calls);
    cancel_all(f, &f->sends);
    cancel_all(f, &f->receives);
    flight_forget(f);
}

void flight_forget(flight *f)
{
    match_free(f);
    free(f->spare);
    free(f);
}
