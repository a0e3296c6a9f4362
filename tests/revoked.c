/* revoked.c - a revocation while one rank still reads what another one has: that one leaves with
 * SERRY_ERR_REVOKED, and changes its memory at once. Who was reading must not take what it read for a
 * result, nor write there. */
#include <pthread.h>

#include "harness.h"

#define COUNT ((size_t)5000)

enum { RANKS = 2, LEAVER = 0, SLOW = 1 };
enum { READING, CHANGED, ENDED }; /* flags of a run */
enum { SOON_MS = 50 };            /* the leaver has done its part by then, and waits */

static serry_op slow_op; /* of all ranks, and the one that runs it */
static _Thread_local test_rank *own;

/* A sum that the slow rank does not read for before the other one has left. */
static void slow_sum(void *accumulator, const void *next, size_t count, serry_dtype dtype,
                     void *argument)
{
    const int64_t *b = next;
    int64_t *a = accumulator;

    (void)dtype;
    (void)argument;
    if (own->rank == SLOW) {
        test_raise(own, READING);
        test_await(own, CHANGED, 1);
    }
    for (size_t i = 0; i < count; i++)
        a[i] += b[i];
}

static void *revoke_soon(void *argument)
{
    test_rank *self = argument;

    test_await(self, READING, 1);
    test_sleep_ms(SOON_MS);
    EXPECT_OK(self, serry_revoke(self->comm));
    return NULL;
}

static int sum(const test_rank *self, bool in_place, int64_t *send, int64_t *recv)
{
    return serry_allreduce(in_place ? SERRY_IN_PLACE : send, recv, COUNT, SERRY_I64, slow_op,
                           self->comm);
}

static void leave(test_rank *self, bool in_place, int64_t *send, int64_t *recv)
{
    pthread_t thread;

    if (!CHECK(self, pthread_create(&thread, NULL, revoke_soon, self) == 0))
        return;
    int rc = sum(self, in_place, send, recv);
    test_expect(self, SERRY_ERR_REVOKED, rc, self->comm, "the sum that is revoked");
    for (size_t i = 0; i < COUNT; i++)
        send[i] = recv[i] = -1;
    test_raise(self, CHANGED);
    pthread_join(thread, NULL);
    test_await(self, ENDED, 1);
    for (size_t i = 0; i < COUNT; i++) /* and nobody has written there */
        if (!CHECK(self, recv[i] == -1))
            return;
}

static void stay(test_rank *self, bool in_place, int64_t *send, int64_t *recv)
{
    int rc = sum(self, in_place, send, recv);

    CHECK(self, rc == SERRY_OK || rc == SERRY_ERR_REVOKED);
    for (size_t i = 0; i < COUNT && rc == SERRY_OK; i++)
        if (!CHECK(self, recv[i] == 2 * (int64_t)i + 1))
            return;
    test_expect(self, SERRY_ERR_REVOKED, serry_barrier(self->comm), self->comm, "barrier");
    test_raise(self, ENDED);
}

static void body(test_rank *self)
{
    bool in_place = *(const bool *)self->argument;
    int64_t *send = serry_alloc(self->comm, COUNT * sizeof(*send));
    int64_t *recv = serry_alloc(self->comm, COUNT * sizeof(*recv));

    own = self;
    if (!CHECK(self, send != NULL && recv != NULL))
        return;
    for (size_t i = 0; i < COUNT; i++)
        send[i] = recv[i] = (int64_t)i + self->rank;
    if (self->rank == LEAVER)
        leave(self, in_place, send, recv);
    else
        stay(self, in_place, send, recv);
    serry_free(self->comm, send);
    serry_free(self->comm, recv);
}

static void revoke_in_a_sum(bool in_place)
{
    assert_int_equal(serry_op_create("slow sum", slow_sum, NULL, &slow_op), SERRY_OK);
    run_ranks(SERRY_PROCESSES, RANKS, body, &in_place);
    run_ranks(SERRY_THREADS, RANKS, body, &in_place);
    serry_op_free(&slow_op);
}

static void who_reads_what_has_been_changed_after_a_revocation_has_no_result(void **state)
{
    (void)state;
    revoke_in_a_sum(false);
}

static void nor_has_it_one_in_place(void **state)
{
    (void)state;
    revoke_in_a_sum(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_reads_what_has_been_changed_after_a_revocation_has_no_result),
        cmocka_unit_test(nor_has_it_one_in_place),
    };

    return cmocka_run_group_tests_name("revoked", tests, NULL, NULL);
}
