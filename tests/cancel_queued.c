/* cancel_queued.c - requests end that have not come to their turn: in the queue of what others have just
 * started, on the way to a meeting, and behind another one when their communicator is finalized. */
#include <pthread.h>
#include <string.h>

#include "driven.h"

#include "comm.h"
#include "flight.h"

enum { RANKS = 3, CANCELLER = 0, CALLER = 1, LATE = 2, TAG = 5, ID = 4 };
enum { SOON_MS = 50 };
enum { FLAG_CANCELLED, FLAG_FINALIZED }; /* raised once in a run */

typedef struct begun {
    test_rank *self;
    int64_t in, out[2];
    int got;
    serry_request *first, *receive, *second;
} begun;

/* Two operations with a receive between them. */
static void *begin(void *of)
{
    begun *b = of;
    test_rank *self = b->self;

    b->in = INT64_C(1) << 8 * self->rank;
    b->got = -1;
    EXPECT_OK(self,
              serry_iallreduce(&b->in, &b->out[0], 1, SERRY_I64, SERRY_SUM, self->comm, &b->first));
    EXPECT_OK(self, serry_irecv(&b->got, 1, SERRY_I32, SERRY_ANY_SOURCE, TAG, NULL, self->comm,
                                &b->receive));
    EXPECT_OK(self, serry_iallreduce(&b->in, &b->out[1], 1, SERRY_I64, SERRY_SUM, self->comm,
                                     &b->second));
    return NULL;
}

static void expect_sums(test_rank *self, const begun *b)
{
    int64_t sum = 0;

    for (int r = 0; r < self->size; r++)
        sum += INT64_C(1) << 8 * r;
    CHECK(self, b->out[0] == sum && b->out[1] == sum);
}

/* It has ended with a whole record. Gives it back. */
static void expect_record(test_rank *self, serry_request **request, int code, const char *operation,
                          const char *says)
{
    test_expect(self, code, serry_wait(request, -1), NULL, "the wait for %s", operation);
    const serry_error *error = serry_request_error(*request);
    CHECK(self, error->error == code && error->rank == self->rank);
    CHECK(self, strcmp(error->operation, operation) == 0);
    if (strstr(error->message, says) == NULL)
        test_failed(self, "it does not say '%s': %s", says, error->message);
    serry_request_free(request);
}

static bool has_ended(const serry_request *request)
{
    return serry_request_error(request)->error != SERRY_OK;
}

/* As the others have it, who have heard of nothing. */
static void take_part(test_rank *self)
{
    begun b = {.self = self};

    b.in = INT64_C(1) << 8 * self->rank;
    for (int i = 0; i < 2; i++)
        EXPECT_OK(self, serry_allreduce(&b.in, &b.out[i], 1, SERRY_I64, SERRY_SUM, self->comm));
    expect_sums(self, &b);
}

/* After a cancellation: both again, and the message for the receive that goes on. */
static void do_again(test_rank *self, begun *b, bool apart)
{
    for (int i = 0; i < 2; i++)
        if (apart)
            EXPECT_OK(self, serry_iallreduce(&b->in, &b->out[i], 1, SERRY_I64, SERRY_SUM,
                                             self->comm, i == 0 ? &b->first : &b->second));
        else
            EXPECT_OK(self,
                      serry_allreduce(&b->in, &b->out[i], 1, SERRY_I64, SERRY_SUM, self->comm));
    if (apart)
        test_raise(self, FLAG_CANCELLED);
    EXPECT_OK(self, serry_wait(&b->first, -1));
    EXPECT_OK(self, serry_wait(&b->second, -1));
    EXPECT_OK(self, serry_send(&self->rank, 1, SERRY_I32, self->rank, TAG, self->comm));
    EXPECT_OK(self, serry_wait(&b->receive, -1));
    CHECK(self, b->got == self->rank);
    expect_sums(self, b);
}

/* ---- in the queue of what was just started ------------------------------------------------------ */

/* Another thread starts them while this one has the turn: so they are only queued. */
static void begin_in_queue(test_rank *self, begun *b, flight *f)
{
    pthread_t thread;

    CHECK(self, pthread_create(&thread, NULL, begin, b) == 0);
    pthread_join(thread, NULL);
    CHECK(self, atomic_load(&f->incoming) == b->second && f->calls.first == NULL);
}

static void cancel_in_queue(test_rank *self)
{
    begun b = {.self = self};
    flight *f;

    EXPECT_OK(self, flight_of(self->comm, true, &f));
    flight_enter(f);
    begin_in_queue(self, &b, f);
    flight_cancel(f, b.first); /* as serry_cancel does when it has the turn */
    CHECK(self, has_ended(b.first) && has_ended(b.second) && !has_ended(b.receive));
    flight_leave(f);
    expect_record(self, &b.first, SERRY_ERR_CANCELLED, "allreduce", "was cancelled");
    expect_record(self, &b.second, SERRY_ERR_PENDING, "allreduce", "repeat that one");
    do_again(self, &b, true);
}

/* Its token is cancelled there. Who takes it out of the queue sees that. */
static void trip_in_queue(test_rank *self)
{
    serry_timeouts *timeouts;
    serry_token *token;
    begun b = {.self = self}, tripped = {.self = self};
    flight *f;

    EXPECT_OK(self, flight_of(self->comm, true, &f));
    begin(&b);
    EXPECT_OK(self, serry_timeouts_create(-1, &timeouts));
    EXPECT_OK(self, serry_timeouts_start(timeouts, ID, -1, &token));
    EXPECT_OK(self, serry_set_token(self->comm, token));
    flight_enter(f);
    begin(&tripped);
    CHECK(self, atomic_load(&f->incoming) == tripped.second);
    serry_timeouts_cancel(timeouts, ID);
    flight_leave(f);
    expect_record(self, &tripped.first, SERRY_ERR_CANCELLED, "allreduce", "was cancelled while it");
    expect_record(self, &tripped.receive, SERRY_ERR_CANCELLED, "recv", "was cancelled");
    expect_record(self, &tripped.second, SERRY_ERR_PENDING, "allreduce", "repeat that one");
    CHECK(self, !has_ended(b.first) && !has_ended(b.receive) && !has_ended(b.second));
    EXPECT_OK(self, serry_set_token(self->comm, NULL));
    serry_token_release(&token);
    serry_timeouts_destroy(&timeouts);
    EXPECT_OK(self, serry_cancel(b.first));
    expect_record(self, &b.first, SERRY_ERR_CANCELLED, "allreduce", "was cancelled");
    expect_record(self, &b.second, SERRY_ERR_PENDING, "allreduce", "repeat that one");
    do_again(self, &b, true);
}

static void body_queue(test_rank *self)
{
    for (unsigned turn = 1; turn <= 2; turn++) {
        if (self->rank == CANCELLER) {
            (turn == 1 ? cancel_in_queue : trip_in_queue)(self);
        } else {
            test_await(self, FLAG_CANCELLED, turn);
            take_part(self);
        }
    }
    EXPECT_OK(self, serry_barrier(self->comm));
}

/* ---- on the way to a meeting -------------------------------------------------------------------- */

/* What a replacement, or the fault-tolerant wrapper, would have all do. */
static void call_meeting(test_rank *self)
{
    serry_error error = {.message = ""};
    uint64_t votes;
    int repeat = SERRY_FINISH;

    int rc = self->comm->backend->meet(self->comm->member, 0, &self->comm->limit, &votes, &repeat,
                                       &error);
    if (rc != SERRY_OK || repeat != SERRY_REPEAT)
        test_failed(self, "the meeting has ended with %d, %d: %s", rc, repeat, error.message);
}

/* In flight: started, called to the meeting, and waiting there for the late one. */
static void await_meeting(test_rank *self, begun *b)
{
    flight *f = self->comm->flight;
    bool meets = false;
    int done = 0;

    while (!meets && done == 0) {
        EXPECT_OK(self, serry_test(&b->second, &done)); /* where nobody else drives it */
        flight_enter(f);
        meets = f->meeting;
        flight_leave(f);
    }
    CHECK(self, meets);
}

static void cancel_on_the_way(test_rank *self, bool apart)
{
    begun b = {.self = self};

    begin(&b);
    await_meeting(self, &b);
    EXPECT_OK(self, serry_cancel(b.first));
    CHECK(self, !self->comm->flight->meeting);
    expect_record(self, &b.first, SERRY_ERR_CANCELLED, "allreduce", "was cancelled");
    expect_record(self, &b.second, SERRY_ERR_PENDING, "allreduce", "repeat that one");
    CHECK(self, !has_ended(b.receive));
    if (!apart)
        test_raise(self, FLAG_CANCELLED);
    do_again(self, &b, apart);
}

static void body_meeting(test_rank *self)
{
    for (unsigned turn = 0; turn < 2; turn++) {
        bool apart = turn == 0;
        test_meet(self); /* nobody is in an operation any more, and called from there */
        if (self->rank == CANCELLER)
            cancel_on_the_way(self, apart);
        if (self->rank == LATE)
            test_await(self, FLAG_CANCELLED, turn + 1);
        if (self->rank == CALLER)
            call_meeting(self);
        if (self->rank != CANCELLER)
            take_part(self);
    }
    EXPECT_OK(self, serry_barrier(self->comm));
}

/* Fault:  a request runs out of time in a meeting that was called before it began, and the next one is
 *         started before anybody has looked at it.
 * Wanted: that one does not begin in its place. */
static void run_out_of_time(test_rank *self)
{
    begun b = {.self = self, .in = INT64_C(1) << 8 * self->rank};
    serry_request **const request[] = {&b.first, &b.second};

    while (self->comm->backend->called(self->comm->member) != SERRY_ERR_MEETING)
        test_sleep_ms(1);
    EXPECT_OK(self, serry_set_timeout(self->comm, SOON_MS));
    for (int i = 0; i < 2; i++) {
        EXPECT_OK(self, serry_iallreduce(&b.in, &b.out[i], 1, SERRY_I64, SERRY_SUM, self->comm,
                                         request[i]));
        while (!has_ended(*request[i])) /* the progress thread hears of it, this one does not */
            test_sleep_ms(1);
    }
    expect_record(self, &b.first, SERRY_ERR_TIMEOUT, "meet", "");
    expect_record(self, &b.second, SERRY_ERR_PENDING, "allreduce", "open");
    EXPECT_OK(self, serry_set_timeout(self->comm, -1));
    test_raise(self, FLAG_CANCELLED);
    for (int i = 0; i < 2; i++)
        EXPECT_OK(self, serry_allreduce(&b.in, &b.out[i], 1, SERRY_I64, SERRY_SUM, self->comm));
    expect_sums(self, &b);
}

static void body_timeout(test_rank *self)
{
    test_meet(self);
    if (self->rank == CANCELLER)
        run_out_of_time(self);
    if (self->rank == LATE)
        test_await(self, FLAG_CANCELLED, 1);
    if (self->rank == CALLER)
        call_meeting(self);
    if (self->rank != CANCELLER)
        take_part(self);
    EXPECT_OK(self, serry_barrier(self->comm));
}

/* ---- when the communicator is finalized --------------------------------------------------------- */

static void body_finalize(test_rank *self)
{
    begun b = {.self = self};

    if (self->rank == CANCELLER) {
        begin(&b);
        EXPECT_OK(self, serry_finalize(&self->comm));
        expect_record(self, &b.first, SERRY_ERR_CANCELLED, "allreduce", "was finalized");
        expect_record(self, &b.second, SERRY_ERR_PENDING, "allreduce", "was finalized");
        expect_record(self, &b.receive, SERRY_ERR_CANCELLED, "recv", "was finalized");
        test_raise(self, FLAG_FINALIZED);
        return;
    }
    test_await(self, FLAG_FINALIZED, 1);
}

/* ---- the tests ---------------------------------------------------------------------------------- */

static void on_all(test_body body)
{
    run_driven(SERRY_PROGRESS_THREAD, RANKS, body);
    run_driven(SERRY_PROGRESS_CALLER, RANKS, body);
}

static void cancelled_where_it_was_just_started(void **state)
{
    (void)state;
    on_all(body_queue);
}

static void cancelled_on_the_way_to_a_meeting(void **state)
{
    (void)state;
    on_all(body_meeting);
}

static void out_of_time_on_the_way_to_a_meeting(void **state)
{
    (void)state;
    run_driven(SERRY_PROGRESS_THREAD, RANKS, body_timeout);
}

static void the_records_after_finalize(void **state)
{
    (void)state;
    on_all(body_finalize);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(cancelled_where_it_was_just_started),
        cmocka_unit_test(cancelled_on_the_way_to_a_meeting),
        cmocka_unit_test(out_of_time_on_the_way_to_a_meeting),
        cmocka_unit_test(the_records_after_finalize),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
