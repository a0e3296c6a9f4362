/* cancel.c - a token ends an operation that waits: cancelled by another thread, or expired. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

#include <serry/timeout.h>

enum { RANKS = 3, LATE = 1, ID = 7, LARGE = 200000 };
enum { FLAG_CANCELLED };

typedef struct canceller {
    serry_timeouts *timeouts;
    unsigned after_us;
    pthread_t thread;
    bool cancelled;
} canceller;

static void *cancel_main(void *argument)
{
    canceller *c = argument;

    usleep(c->after_us);
    c->cancelled = serry_timeouts_cancel(c->timeouts, ID);
    return NULL;
}

typedef struct plan {
    size_t count;
    unsigned after_us;
} plan;

static bool is_sum(const int64_t *vector, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (vector[i] != (int64_t)i * RANKS)
            return false;
    return true;
}

static bool is_as_before(const int64_t *vector, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (vector[i] != (int64_t)i)
            return false;
    return true;
}

/* Its operation is cancelled while it waits for the late rank; a second call completes it. */
static void cancelled(test_rank *self, const plan *p, int64_t *vector)
{
    canceller c = {.after_us = p->after_us};
    serry_token *token;

    if (!CHECK(self, serry_timeouts_create(-1, &c.timeouts) == SERRY_OK) ||
        !CHECK(self, serry_timeouts_start(c.timeouts, ID, -1, &token) == SERRY_OK))
        return;
    EXPECT_OK(self, serry_set_token(self->comm, token));
    CHECK(self, pthread_create(&c.thread, NULL, cancel_main, &c) == 0);
    test_expect(self, SERRY_ERR_CANCELLED,
                serry_allreduce(SERRY_IN_PLACE, vector, p->count, SERRY_I64, SERRY_SUM, self->comm),
                self->comm, "allreduce");
    pthread_join(c.thread, NULL);
    CHECK(self, c.cancelled);
    CHECK(self, serry_last_error(self->comm)->operation_id == 2);
    if (p->count <= 1000 || self->kind == SERRY_PROCESSES)
        CHECK(self, is_as_before(vector, p->count));
    test_expect(self, SERRY_ERR_PENDING, serry_barrier(self->comm), self->comm, "barrier");
    test_raise(self, FLAG_CANCELLED);
    EXPECT_OK(self, serry_set_token(self->comm, NULL));
    serry_token_release(&token);
    serry_timeouts_destroy(&c.timeouts);
}

static void body_cancel(test_rank *self)
{
    const plan *p = self->argument;
    int64_t *vector = malloc(p->count * sizeof(*vector));

    for (size_t i = 0; i < p->count; i++)
        vector[i] = (int64_t)i;
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == LATE)
        test_await(self, FLAG_CANCELLED, RANKS - 1);
    else
        cancelled(self, p, vector);
    EXPECT_OK(self,
              serry_allreduce(SERRY_IN_PLACE, vector, p->count, SERRY_I64, SERRY_SUM, self->comm));
    CHECK(self, is_sum(vector, p->count));
    EXPECT_OK(self, serry_barrier(self->comm));
    free(vector);
}

static void cancelling_from_another_thread_ends_a_blocked_operation(void **state)
{
    (void)state;
    static const plan plans[] = {{1, 30000}, {1, 0}, {600, 5000}, {LARGE, 30000}, {LARGE, 100}};

    for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
        run_ranks(SERRY_PROCESSES, RANKS, body_cancel, (void *)(uintptr_t)&plans[i]);
        run_ranks(SERRY_THREADS, RANKS, body_cancel, (void *)(uintptr_t)&plans[i]);
    }
}

/* ---- expiry ------------------------------------------------------------------------------------ */

static void body_expire(test_rank *self)
{
    serry_timeouts *timeouts;
    serry_token *token;

    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == LATE) {
        test_await(self, FLAG_CANCELLED, RANKS - 1);
    } else if (CHECK(self, serry_timeouts_create(100, &timeouts) == SERRY_OK) &&
               CHECK(self, serry_timeouts_start(timeouts, ID, SERRY_DEFAULT_TIMEOUT, &token) ==
                               SERRY_OK)) {
        double begun = test_now();
        serry_timeouts_extend(timeouts, ID, 100);
        EXPECT_OK(self, serry_set_token(self->comm, token));
        test_expect(self, SERRY_ERR_TIMEOUT, serry_barrier(self->comm), self->comm, "barrier");
        CHECK(self, test_now() - begun > 0.199); /* with what was added */
        CHECK(self, serry_rank_set_has(&serry_last_error(self->comm)->ranks, LATE));
        EXPECT_OK(self, serry_set_token(self->comm, NULL));
        serry_token_release(&token);
        serry_timeouts_destroy(&timeouts);
        test_raise(self, FLAG_CANCELLED);
    }
    EXPECT_OK(self, serry_barrier(self->comm));
}

static void an_expired_token_is_a_timeout(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, body_expire, NULL);
    run_ranks(SERRY_THREADS, RANKS, body_expire, NULL);
}

/* ---- split ------------------------------------------------------------------------------------- */

static void body_split(test_rank *self)
{
    canceller c = {.after_us = 20000};
    serry_comm *part = NULL;
    serry_token *token;

    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == LATE) {
        test_await(self, FLAG_CANCELLED, RANKS - 1);
    } else if (CHECK(self, serry_timeouts_create(-1, &c.timeouts) == SERRY_OK) &&
               CHECK(self, serry_timeouts_start(c.timeouts, ID, -1, &token) == SERRY_OK)) {
        EXPECT_OK(self, serry_set_token(self->comm, token));
        CHECK(self, pthread_create(&c.thread, NULL, cancel_main, &c) == 0);
        test_expect(self, SERRY_ERR_CANCELLED, serry_split(self->comm, 0, 0, &part), self->comm,
                    "split");
        CHECK(self, part == NULL);
        pthread_join(c.thread, NULL);
        test_raise(self, FLAG_CANCELLED);
        EXPECT_OK(self, serry_set_token(self->comm, NULL));
        serry_token_release(&token);
        serry_timeouts_destroy(&c.timeouts);
    }
    EXPECT_OK(self, serry_split(self->comm, 0, 0, &part));
    if (part != NULL)
        test_expect(self, SERRY_OK, serry_barrier(part), part, "barrier of the part");
    EXPECT_OK(self, serry_finalize(&part));
}

static void a_split_can_be_cancelled_and_goes_on(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, body_split, NULL);
    run_ranks(SERRY_THREADS, RANKS, body_split, NULL);
}

/* ---- nobody waits ------------------------------------------------------------------------------- */

static void body_alone(test_rank *self)
{
    serry_timeouts *timeouts;
    serry_token *token;
    int64_t one = 1;

    if (!CHECK(self, serry_timeouts_create(-1, &timeouts) == SERRY_OK) ||
        !CHECK(self, serry_timeouts_start(timeouts, ID, -1, &token) == SERRY_OK))
        return;
    EXPECT_OK(self, serry_set_token(self->comm, token));
    CHECK(self, serry_timeouts_cancel(timeouts, ID));
    EXPECT_OK(self, serry_allreduce(SERRY_IN_PLACE, &one, 1, SERRY_I64, SERRY_SUM, self->comm));
    serry_token_release(&token); /* the communicator keeps its own reference */
    serry_timeouts_destroy(&timeouts);
    EXPECT_OK(self, serry_barrier(self->comm));
}

static void a_tripped_token_does_not_disturb_who_need_not_wait(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, 1, body_alone, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cancelling_from_another_thread_ends_a_blocked_operation),
        cmocka_unit_test(an_expired_token_is_a_timeout),
        cmocka_unit_test(a_split_can_be_cancelled_and_goes_on),
        cmocka_unit_test(a_tripped_token_does_not_disturb_who_need_not_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
