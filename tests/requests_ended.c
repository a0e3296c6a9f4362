/* requests_ended.c - operations that were started and do not end well: cancelled, behind one that is,
 * revoked, too late, and with ranks that die. */
#include <pthread.h>

#include "deaths.h"
#include "sums.h"

enum { FLIGHT = 64, LATE = 1, SHORT_MS = 60 };
enum { FLAG_GO }; /* of a run */

static void *cancel_soon(void *request)
{
    test_sleep_ms(20);
    serry_cancel(request);
    return NULL;
}

/* The first of five is cancelled while it is waited for: it stays open, and so do those behind it. */
static void body_cancel(test_rank *self)
{
    serry_request *request[5];
    int64_t in[5], out[5];
    pthread_t thread;

    if (self->rank == LATE)
        test_await(self, FLAG_GO, (unsigned)self->size - 1);
    for (int i = 0; i < 5; i++)
        request[i] = start_sum(self, &in[i], &out[i]);
    if (self->rank != LATE) {
        CHECK(self, pthread_create(&thread, NULL, cancel_soon, request[0]) == 0);
        test_expect(self, SERRY_ERR_CANCELLED, serry_wait(&request[0], -1), self->comm, "first");
        pthread_join(thread, NULL);
        for (int i = 0; i < 5; i++) {
            test_expect(self, i == 0 ? SERRY_ERR_CANCELLED : SERRY_ERR_PENDING,
                        serry_wait(&request[i], -1), self->comm, "number %d", i);
            CHECK(self, serry_request_error(request[i])->rank == self->rank && out[i] == -1);
            serry_request_free(&request[i]);
            CHECK(self, request[i] == NULL);
        }
        test_raise(self, FLAG_GO);
        for (int i = 0; i < 5; i++) /* the same calls, in order */
            EXPECT_OK(self, serry_allreduce(&in[i], &out[i], 1, SERRY_I64, SERRY_SUM, self->comm));
    } else {
        EXPECT_OK(self, serry_wait_all(request, 5, -1));
    }
    for (int i = 0; i < 5; i++)
        CHECK(self, out[i] == sum_of_ranks(self));
    EXPECT_OK(self, serry_barrier(self->comm));
}

/* One that waits for its turn takes those behind it along, not those before; one that has ended stays so. A
 * completion hears of an error, and at once where all is over. */
typedef struct heard {
    int calls, result, code;
} heard;

static void hear(int result, const serry_error *error, void *argument)
{
    heard *h = argument;

    h->calls++;
    h->result = result;
    h->code = error == NULL ? SERRY_OK : error->error;
}

static void body_queued(test_rank *self)
{
    static const int wanted[] = {SERRY_OK, SERRY_OK, SERRY_ERR_CANCELLED, SERRY_ERR_PENDING};
    serry_request *request[4];
    int64_t in[4], out[4];
    heard told[2] = {{0}, {0}};

    if (self->rank == LATE)
        test_await(self, FLAG_GO, (unsigned)self->size - 1);
    for (int i = 0; i < (self->rank == LATE ? 2 : 4); i++)
        request[i] = start_sum(self, &in[i], &out[i]);
    if (self->rank != LATE) {
        EXPECT_OK(self, serry_on_completion(request[2], hear, &told[0]));
        EXPECT_OK(self, serry_cancel(request[2]));
        CHECK(self, told[0].calls == 1 && told[0].result == SERRY_ERR_CANCELLED &&
                        told[0].code == SERRY_ERR_CANCELLED);
        EXPECT_OK(self, serry_on_completion(request[3], hear, &told[1]));
        CHECK(self, told[1].calls == 1 && told[1].result == SERRY_ERR_PENDING &&
                        told[1].code == SERRY_ERR_PENDING);
        test_raise(self, FLAG_GO);
    }
    for (int i = 0; i < (self->rank == LATE ? 2 : 4); i++) {
        test_expect(self, wanted[i], serry_wait(&request[i], -1), self->comm, "number %d", i);
        EXPECT_OK(self, serry_cancel(request[i])); /* changes nothing any more */
        CHECK(self, serry_request_error(request[i])->error == wanted[i]);
        serry_request_free(&request[i]);
    }
    for (int i = 0; i < 2; i++)
        CHECK(self, out[i] == sum_of_ranks(self));
    for (int i = 2; i < 4; i++) /* the same calls in order, here and there */
        request[i] = start_sum(self, &in[i], &out[i]);
    EXPECT_OK(self, serry_wait_all(request + 2, 2, -1));
    CHECK(self, out[2] == sum_of_ranks(self) && out[3] == sum_of_ranks(self));
    EXPECT_OK(self, serry_barrier(self->comm));
}

static void body_revoked(test_rank *self)
{
    serry_request *request[FLIGHT];
    int64_t in[FLIGHT], out[FLIGHT];

    if (self->rank == LATE) {
        test_await(self, FLAG_GO, (unsigned)self->size - 1);
        EXPECT_OK(self, serry_revoke(self->comm));
        test_meet(self); /* else that it leaves may be seen first */
        return;
    }
    for (int i = 0; i < FLIGHT; i++)
        request[i] = start_sum(self, &in[i], &out[i]);
    test_raise(self, FLAG_GO);
    for (int i = 0; i < FLIGHT; i++) {
        test_expect(self, SERRY_ERR_REVOKED, serry_wait(&request[i], -1), self->comm, "%d", i);
        serry_request_free(&request[i]);
    }
    test_meet(self);
}

static void body_token(test_rank *self)
{
    serry_timeouts *timeouts = NULL;
    serry_token *token = NULL;
    int64_t in, out;

    if (self->rank == LATE) {
        test_await(self, FLAG_GO, (unsigned)self->size - 1);
    } else {
        CHECK(self, serry_timeouts_create(-1, &timeouts) == SERRY_OK &&
                        serry_timeouts_start(timeouts, 1, SHORT_MS, &token) == SERRY_OK);
        EXPECT_OK(self, serry_set_token(self->comm, token));
        serry_request *request = start_sum(self, &in, &out);
        test_expect(self, SERRY_ERR_TIMEOUT, serry_wait(&request, -1), self->comm, "its token");
        serry_request_free(&request);
        EXPECT_OK(self, serry_set_token(self->comm, NULL));
        serry_token_release(&token);
        serry_timeouts_destroy(&timeouts);
        test_raise(self, FLAG_GO);
    }
    in = self->rank + 1;
    EXPECT_OK(self, serry_allreduce(&in, &out, 1, SERRY_I64, SERRY_SUM, self->comm));
    CHECK(self, out == sum_of_ranks(self));
}

/* With 64 in flight one is killed: each request ends alike on the others. */
static void body_killed(test_rank *self)
{
    const serry_policy *policy = self->argument;
    serry_request *request[FLIGHT];
    int64_t in[FLIGHT], out[FLIGHT];
    uint64_t ends[2] = {0, 0}, all[2]; /* which failed; which are sums without the dead one */

    EXPECT_OK(self, serry_set_policy(self->comm, *policy));
    EXPECT_OK(self, serry_barrier(self->comm));
    for (int i = 0; i < FLIGHT; i++) {
        request[i] = start_sum(self, &in[i], &out[i]);
        if (self->rank == LATE && i == FLIGHT / 2)
            death_now(self);
    }
    for (int i = 0; i < FLIGHT; i++) {
        int rc = serry_wait(&request[i], -1);
        int64_t without = sum_of_ranks(self) - (LATE + 1);
        if (rc == SERRY_OK)
            CHECK(self, out[i] == sum_of_ranks(self) || out[i] == without);
        else
            test_expect(self, SERRY_ERR_RANK_FAILED, rc, self->comm, "number %d", i);
        ends[0] |= (uint64_t)(rc != SERRY_OK) << i;
        ends[1] |= (uint64_t)(rc == SERRY_OK && out[i] == without) << i;
        serry_request_free(&request[i]);
    }
    for (int i = 0; i < 2; i++) {
        serry_op op = i == 0 ? SERRY_MAX : SERRY_MIN;
        EXPECT_OK(self, serry_allreduce(ends, all, 2, SERRY_U64, op, self->comm));
        CHECK(self, all[0] == ends[0] && all[1] == ends[1]);
    }
}

/* ---- the tests --------------------------------------------------------------------------------------- */

static void cancelled_by_another_thread_and_made_again(void **state)
{
    (void)state;
    sums_on_all(2, body_cancel);
}

static void one_that_waits_for_its_turn_is_cancelled(void **state)
{
    (void)state;
    sums_on_all(2, body_queued);
}

static void revocation_ends_all(void **state)
{
    (void)state;
    sums_on_all(2, body_revoked);
}

static void a_token_ends_a_request(void **state)
{
    (void)state;
    sums_on_all(2, body_token);
}

static void a_rank_killed_with_many_in_flight(void **state)
{
    static const int dead[] = {LATE, -1};
    static serry_policy policies[] = {SERRY_REPORT, SERRY_EXCLUDE};
    (void)state;

    if (TEST_TSAN)
        skip();
    for (int i = 0; i < 2; i++)
        for (int size = 2; size <= 4; size++)
            run_deaths(SERRY_PROCESSES, size, body_killed, &policies[i], dead);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(cancelled_by_another_thread_and_made_again),
        cmocka_unit_test(one_that_waits_for_its_turn_is_cancelled),
        cmocka_unit_test(revocation_ends_all),
        cmocka_unit_test(a_token_ends_a_request),
        cmocka_unit_test(a_rank_killed_with_many_in_flight),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
