/* flight.c - see flight.h: queues, the turn, and calls one after the other. */
#include "flight.h"

#include <stdlib.h>
#include <string.h>

#include "many.h"
#include "record.h"
#include "token.h"

#define COLD __attribute__((cold, noinline))

/* ---- queues ----------------------------------------------------------------------------------- */

static void queue_add(flight *f, request_queue *q, serry_request *r)
{
    r->next = NULL;
    *q->last = r;
    q->last = &r->next;
    f->tokens |= r->token != NULL;
}

void queue_remove(request_queue *q, serry_request *r)
{
    serry_request **place = &q->first;

    while (*place != r)
        place = &(*place)->next;
    *place = r->next;
    if (q->last == &r->next)
        q->last = place;
}

static request_queue *queue_of(flight *f, const serry_request *r)
{
    switch (r->what) {
    case REQUEST_CALL:
        return &f->calls;
    case REQUEST_SEND:
        return &f->sends;
    case REQUEST_RECEIVE:
    case REQUEST_PROBE:
    default:
        return &f->receives;
    }
}

/* What others have started meanwhile, in the order in which they did. */
void flight_take_incoming(flight *f)
{
    if (atomic_load_explicit(&f->incoming, memory_order_relaxed) == NULL)
        return;
    serry_request *newest = atomic_exchange_explicit(&f->incoming, NULL, memory_order_acquire);
    serry_request *oldest = NULL;
    while (newest != NULL) {
        serry_request *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != NULL) {
        serry_request *next = oldest->next;
        queue_add(f, queue_of(f, oldest), oldest);
        oldest = next;
    }
}

/* ---- the turn --------------------------------------------------------------------------------- */

bool flight_try(flight *f)
{
    bool free = false;

    return atomic_compare_exchange_strong_explicit(&f->turn, &free, true, memory_order_seq_cst,
                                                   memory_order_relaxed);
}

static COLD void pulse(flight *f)
{
    atomic_fetch_add_explicit(&f->pulse, 1, memory_order_seq_cst);
    sleep_wake(&f->pulse);
}

void flight_pulse(flight *f)
{
    if (__builtin_expect(atomic_load_explicit(&f->sleepers, memory_order_seq_cst) != 0, 0))
        pulse(f);
}

/* Without a look at who sleeps: that is counted for changes that are seen in another order. */
COLD void flight_rouse(void *f)
{
    pulse(f);
    progress_ring(true);
}

void flight_leave(flight *f)
{
    bool news = f->news;

    f->news = false;
    atomic_store_explicit(&f->turn, false, memory_order_seq_cst);
    if (__builtin_expect(atomic_load_explicit(&f->wanted, memory_order_seq_cst) != 0, 0))
        pulse(f);
    else if (news)
        flight_pulse(f);
}

void flight_enter(flight *f)
{
    sleep_list list;

    if (flight_try(f))
        return;
    atomic_fetch_add_explicit(&f->wanted, 1, memory_order_seq_cst);
    for (;;) {
        uint32_t seen = atomic_load_explicit(&f->pulse, memory_order_seq_cst);
        if (flight_try(f))
            break;
        sleep_begin(&list, UINT64_MAX);
        sleep_add(&list, (uint32_t *)(void *)&f->pulse, seen);
        sleep_on(&list);
    }
    atomic_fetch_sub_explicit(&f->wanted, 1, memory_order_seq_cst);
}

/* ---- ends ------------------------------------------------------------------------------------- */

/* Who sleeps learns of it when the turn is given back. */
static void count_ended(flight *f)
{
    uint32_t ended = atomic_load_explicit(&f->ended, memory_order_relaxed);

    f->news = true;
    atomic_store_explicit(&f->ended, ended + 1, memory_order_release);
}

/* Of a call: a collective, or something like a split, which has a record of its own. */
static COLD const char *name_of(const serry_request *r)
{
    return r->function == NULL ? serry_kind_name(r->call.kind) : "operation";
}

static COLD void keep_record(flight *f, serry_request *r, int rc)
{
    if (f->error.error != rc) {
        const char *name = r->what == REQUEST_CALL ? name_of(r) : f->error.operation;
        serry_error_begin(&f->error, name, 0, f->comm->rank);
        serry_fail(&f->error, rc, "%s: %s", name, serry_strerror(rc));
    }
    r->error = malloc(sizeof(*r->error));
    if (r->error != NULL)
        *r->error = f->error;
}

static _Thread_local const flight *g_completing; /* whose completion this thread is in */

bool flight_is_completing(const flight *f)
{
    return g_completing == f;
}

static COLD void complete(flight *f, serry_request *r)
{
    const flight *outer = g_completing;

    flight_pulse(f); /* it may take long, and others have ended before it */
    g_completing = f;
    r->completion(r->result, r->result == SERRY_OK ? NULL : &f->error, r->completion_argument);
    g_completing = outer;
}

void flight_end(flight *f, serry_request *r, int rc)
{
    rc = guard_end(&r->guard, rc, &f->error);
    r->result = rc;
    if (__builtin_expect(r->watching, 0))
        flight_unwatch(r);
    if (__builtin_expect(r->list != NULL, 0))
        many_end(f->comm, r->list, r->polled, rc, &f->error);
    if (__builtin_expect(rc != SERRY_OK, 0))
        keep_record(f, r, rc);
    if (__builtin_expect(r->completion != NULL, 0))
        complete(f, r);
    bool orphan = r->orphan;
    if (__builtin_expect(orphan, 0)) {
        request_dispose(r);
    } else {
        atomic_store_explicit(&r->ended, 1, memory_order_release); /* the last that is done to it */
    }
    count_ended(f);
}

/* The calls from `r` on are not to be gone on with, as far as they were shown to the backend. */
static void leave_out(flight *f, const serry_request *r)
{
    for (int i = 0; i < f->batched; i++)
        if (f->batch[i] == &r->call)
            f->batched = i;
}

/* After an operation that stays open, or was not begun: those that were started after it, from r on. */
static COLD void end_followers(flight *f, serry_request *r)
{
    serry_request **place = &f->calls.first;

    if (r != NULL)
        leave_out(f, r);
    while (*place != r)
        place = &(*place)->next;
    *place = NULL;
    f->calls.last = place;
    while (r != NULL) {
        serry_request *next = r->next;
        const char *name = name_of(r);
        serry_error_begin(&f->error, name, 0, f->comm->rank);
        serry_fail(&f->error, SERRY_ERR_PENDING,
                   f->ending
                       ? "the communicator was finalized on this rank while an operation that "
                         "was started before this %s had not ended; neither was done here"
                       : "an operation that was started before this %s was cancelled or ran "
                         "out of time; repeat that one, then this one, unchanged",
                   name);
        flight_end(f, r, SERRY_ERR_PENDING);
        r = next;
    }
}

/* One of the calls, which is not over; f->error says why. */
static COLD void end_call(flight *f, serry_request *r, int rc)
{
    serry_request *after = r->next;

    if (r == f->calls.first)
        f->meeting = false; /* the next one is told of it anew */
    leave_out(f, r);
    queue_remove(&f->calls, r);
    flight_end(f, r, rc);
    end_followers(f, after);
}

COLD void flight_cancel(flight *f, serry_request *r)
{
    static const char *const names[] = {"", "send", "recv", "probe"};
    bool is_call = r->what == REQUEST_CALL;
    const char *name = is_call ? name_of(r) : names[r->what];

    flight_take_incoming(f);
    if (!match_withdraw(f, r))
        return;
    serry_error_begin(&f->error, name, 0, f->comm->rank);
    serry_fail(&f->error, SERRY_ERR_CANCELLED, "%s was cancelled%s", name,
               f->ending  ? ": the communicator was finalized on this rank before it had ended"
               : !is_call ? ""
                          : "; it may be open, and the same call again goes on with it");
    if (is_call) {
        end_call(f, r, SERRY_ERR_CANCELLED);
        return;
    }
    queue_remove(queue_of(f, r), r);
    flight_end(f, r, SERRY_ERR_CANCELLED);
}

/* The first call goes on; those behind it wait for their turn, and a token ends also that. */
static COLD void end_tripped(flight *f, serry_request *r, sleep_list *list)
{
    int rc = SERRY_OK;

    for (; r != NULL; r = r->next) {
        if (r->token == NULL)
            continue;
        rc = (int)serry_token_state(r->token);
        if (rc != SERRY_OK)
            break;
        if (list != NULL && serry_token_deadline(r->token) < list->at_ns)
            list->at_ns = serry_token_deadline(r->token);
    }
    if (r == NULL)
        return;
    const char *name = name_of(r);
    serry_error_begin(&f->error, name, 0, f->comm->rank);
    serry_fail(&f->error, rc,
               "%s %s while it waited for operations that were started before it; the same call "
               "again goes on with it",
               name, rc == SERRY_ERR_CANCELLED ? "was cancelled" : "ran out of time");
    end_call(f, r, rc);
}

/* ---- calls ------------------------------------------------------------------------------------ */

/* Calls that were started together may go together. */
static int poll_many(flight *f, serry_request *r, int *done)
{
    if (f->batched == 0)
        for (const serry_request *q = r;
             q != NULL && q->function == NULL && f->batched < FLIGHT_BATCH; q = q->next)
            f->batch[f->batched++] = &q->call;
    return f->comm->backend->run_many(f->comm->member, f->batch, f->batched, done, &r->limit,
                                      &f->error);
}

/* *done: how many calls are over, with SERRY_OK. */
static int poll_one(flight *f, serry_request *r, int *done)
{
    const serry_backend *backend = f->comm->backend;

    *done = 1;
    if (r->function != NULL)
        return r->function(f->comm, &r->limit, r->argument, &f->error);
    if (backend->run_many != NULL && (r->next != NULL || f->batched != 0))
        return poll_many(f, r, done);
    return backend->run(f->comm->member, &r->call, &r->limit, &f->error);
}

/* One poll of the first call, or of the meeting that it waits for. */
static int poll_call(flight *f, serry_request *r, int *done)
{
    const serry_backend *backend = f->comm->backend;
    uint64_t votes;
    int repeat, rc;

    for (;;) {
        if (f->meeting) {
            rc = backend->meet(f->comm->member, 0, &r->limit, &votes, &repeat, &f->error);
            f->meeting = rc == SERRY_ERR_AGAIN;
            if (rc != SERRY_OK)
                return rc;
        }
        rc = poll_one(f, r, done);
        if (__builtin_expect(rc != SERRY_ERR_MEETING, 1))
            return rc;
        f->meeting = true;
    }
}

/* The first call is over. */
static void end_first(flight *f, int rc)
{
    serry_request *r = f->calls.first;

    f->calls.first = r->next;
    if (r->next == NULL)
        f->calls.last = &f->calls.first;
    flight_end(f, r, rc);
}

static void drive_calls(flight *f, sleep_list *list)
{
    serry_request *r;

    while ((r = f->calls.first) != NULL) {
        serry_interest interest = {.sleep = list != NULL,
                                   .begins = !r->polled,
                                   .rouse = flight_rouse,
                                   .sleeper = f,
                                   .looks = f->looks};
        r->limit.poll = &interest;
        r->polled = true;
        int done, rc = poll_call(f, r, &done);
        if (rc == SERRY_ERR_AGAIN) {
            f->pauses = interest.pauses;
            f->yields = interest.yields;
            f->looked = interest.looked;
            if (list != NULL)
                sleep_add_interest(list, &interest);
            if (__builtin_expect(f->tokens, 0))
                end_tripped(f, r->next, list);
            return;
        }
        f->batched = 0;
        do {
            end_first(f, rc);
        } while (rc == SERRY_OK && --done > 0);
        if (rc == SERRY_ERR_TIMEOUT || rc == SERRY_ERR_CANCELLED)
            end_followers(f, f->calls.first);
    }
}

static COLD void drive_messages(flight *f, sleep_list *list)
{
    serry_interest interest = {.sleep = list != NULL};
    uint64_t at_ns = UINT64_MAX;

    f->comm->backend->listen(f->comm->member, &interest); /* before looking */
    if (!match_drive(f, list != NULL, &at_ns))
        return;
    f->pauses = interest.pauses > f->pauses ? interest.pauses : f->pauses;
    f->yields = interest.yields > f->yields ? interest.yields : f->yields;
    if (list == NULL)
        return;
    sleep_add_interest(list, &interest);
    list->at_ns = at_ns < list->at_ns ? at_ns : list->at_ns;
}

void flight_drive(flight *f, sleep_list *list)
{
    flight_take_incoming(f);
    f->pauses = f->yields = 0;
    if (__builtin_expect(f->tokens && list != NULL, 0))
        flight_watch(f);
    if (f->calls.first != NULL)
        drive_calls(f, list);
    if (__builtin_expect(f->sends.first != NULL || f->receives.first != NULL, 0))
        drive_messages(f, list);
}

/* ---- starting --------------------------------------------------------------------------------- */

static void push(flight *f, serry_request *r)
{
    serry_request *newest = atomic_load_explicit(&f->incoming, memory_order_relaxed);

    do {
        r->next = newest;
    } while (!atomic_compare_exchange_weak_explicit(&f->incoming, &newest, r, memory_order_seq_cst,
                                                    memory_order_relaxed));
}

void flight_begin(flight *f, serry_request *r, bool turn)
{
    request_queue *q = queue_of(f, r);

    if (!turn) {
        atomic_fetch_add_explicit(&f->pushed, 1, memory_order_relaxed);
        push(f, r);
        flight_pulse(f); /* a thread that waits must look at it */
        return;
    }
    uint32_t started = atomic_load_explicit(&f->started, memory_order_relaxed);
    atomic_store_explicit(&f->started, started + 1, memory_order_relaxed);
    flight_take_incoming(f);
    bool first = q->first == NULL;
    queue_add(f, q, r);
    if (first || r->what != REQUEST_CALL)
        flight_drive(f, NULL);
    flight_leave(f);
    flight_pulse(f); /* who sleeps does not watch for this one yet */
}

int flight_do(flight *f, serry_request *r)
{
    flight_start(f, r);
    request_wait_any(&r, 1, UINT64_MAX);
    return request_finish(r, &f->comm->error);
}

bool flight_ask(flight *f, serry_request *r)
{
    flight_start(f, r);
    flight_enter(f);
    if (!request_has_ended(r))
        flight_drive(f, NULL);
    bool ended = request_has_ended(r);
    if (!ended) {
        queue_remove(queue_of(f, r), r);
        flight_unwatch(r);
        serry_token_release(&r->token);
        count_ended(f);
    }
    flight_leave(f);
    return ended;
}

static bool is_under_way(const serry_comm *comm)
{
    return comm->flight != NULL && !flight_is_idle(comm->flight);
}

int serry_comm_do(serry_comm *comm, serry_comm_function function, void *argument)
{
    int rc;

    if (is_under_way(comm)) {
        serry_request r;
        request_init(&r, comm->flight, REQUEST_CALL);
        r.function = function;
        r.argument = argument;
        return flight_do(comm->flight, &r);
    }
    do {
        rc = function(comm, &comm->limit, argument, &comm->error);
    } while (rc == SERRY_ERR_MEETING && (rc = serry_comm_meet(comm)) == SERRY_OK);
    return rc;
}

void serry_comm_hold(const serry_comm *comm)
{
    if (comm->flight != NULL && comm->forks == serry_forks)
        flight_enter(comm->flight);
}

void serry_comm_release(const serry_comm *comm)
{
    if (comm->flight != NULL && comm->forks == serry_forks)
        flight_leave(comm->flight);
}
