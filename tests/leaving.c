/* leaving.c - a rank finalizes before the others are done.
 *
 * The next operation is SERRY_ERR_RANK_FAILED for all others alike, at the same operation, naming
 * who left, with inputs and outputs as they were; after it the survivors go on among themselves. */
#include <stdio.h>
#include <string.h>

#include <stdlib.h>
#include <string.h>

#include "vectors.h"

#define SHORT_MS 150
#define LONG_MS 60000
#define LEAVER 1 /* where it is always the same */

typedef struct leaving {
    int who;
    size_t count; /* of the operations */
    bool arena;
    bool waiting; /* the others already wait when it leaves */
} leaving;

/* By "rank 3", or "root 3" where the root has left. */
static bool names(const char *message, int rank)
{
    char root[16];
    snprintf(root, sizeof(root), "root %d", rank);
    return test_names_rank(message, rank) || strstr(message, root) != NULL;
}

static void check_failure(test_rank *self, int result, int who, const char *what)
{
    const int ranks[] = {who, -1};
    const serry_error *record = serry_last_error(self->comm);
    if (!test_expect(self, SERRY_ERR_RANK_FAILED, result, self->comm, "%s", what))
        return;
    if (!test_ranks_are(&record->ranks, ranks) || record->peer != who ||
        !names(record->message, who))
        test_failed(self, "%s: the record does not name rank %d: peer %d, %s", what, who,
                    record->peer, record->message);
}

static void check_survivors(test_rank *self, int who)
{
    serry_rank_set set;
    EXPECT_OK(self, serry_participants(self->comm, &set));
    for (int r = 0; r < (int)SERRY_MAX_RANKS; r++)
        if (serry_rank_set_has(&set, r) != (r < self->size && r != who))
            test_failed(self, "rank %d is %s the participants", r, r == who ? "in" : "not in");
    CHECK(self, serry_live(self->comm) == self->size - 1);
    CHECK(self, serry_size(self->comm) == self->size);
}

/* Sums, averages and gathered blocks of those who are left. */
static void go_on_without(test_rank *self, const leaving *l, vectors *v)
{
    serry_call c = {SERRY_KIND_ALLREDUCE, SERRY_U64, SERRY_SUM, 0, l->count, v->send, v->recv};
    uint64_t n = (uint64_t)self->size - 1, sum, block[4] = {9, 9, 9, 9};
    vectors_fill(self, v, &c);
    EXPECT_OK(self, test_call(&c, self->comm));
    for (size_t i = 0; i < l->count; i++)
        if (v->recv[i] != vectors_sum(self->size, i) - vectors_value(l->who, i)) {
            test_failed(self, "wrong sum of the survivors at element %zu", i);
            break;
        }
    check_survivors(self, l->who);
    sum = 10 * n + 3;
    uint64_t average = 0, own = self->rank == (l->who + 1) % self->size ? sum : 0;
    EXPECT_OK(self, serry_allreduce(&own, &average, 1, SERRY_U64, SERRY_AVG, self->comm));
    CHECK(self, average == sum / n);
    own = (uint64_t)self->rank;
    EXPECT_OK(self, serry_allgather(&own, block, 1, SERRY_U64, self->comm));
    for (int r = 0; r < self->size; r++)
        CHECK(self, block[r] == (r == l->who ? 9 : (uint64_t)r));
    check_failure(self, serry_broadcast(v->recv, l->count, SERRY_U64, l->who, self->comm), l->who,
                  "broadcast from the one who left");
    EXPECT_OK(self, serry_barrier(self->comm));
    check_survivors(self, l->who);
}

static void body_leaving(test_rank *self)
{
    const leaving *l = self->argument;
    serry_call c = {SERRY_KIND_ALLREDUCE, SERRY_U64, SERRY_SUM, 0, l->count, NULL, NULL};
    vectors v;
    if (!vectors_open(self, &v, l->arena))
        return;
    c.send = v.send;
    c.recv = v.recv;
    vectors_fill(self, &v, &c);
    EXPECT_OK(self, serry_barrier(self->comm));
    test_at(self, "rank %d leaves, count %zu", l->who, l->count);
    if (self->rank == l->who) {
        if (l->waiting)
            test_await(self, 0, (unsigned)self->size - 1);
        if (l->waiting)
            test_sleep_ms(50);
        vectors_close(self, &v, l->arena);
        CHECK(self, serry_finalize(&self->comm) == SERRY_OK && self->comm == NULL);
        test_raise(self, 1);
        return;
    }
    test_raise(self, 0);
    if (!l->waiting)
        test_await(self, 1, 1);
    check_failure(self, test_call(&c, self->comm), l->who, "the first operation without it");
    vectors_check(self, &v, &c, false);
    test_mine(self)->number[0] = (double)serry_last_error(self->comm)->operation_id;
    go_on_without(self, l, &v);
    vectors_close(self, &v, l->arena);
}

/* Who has contributed and gives up waiting may leave: its arena memory is read by the others all the same. */
static void body_gives_up_and_leaves(test_rank *self)
{
    vectors v;

    if (!vectors_open(self, &v, true))
        return;
    serry_call c = {SERRY_KIND_ALLREDUCE, SERRY_U64, SERRY_SUM, 0, VECTORS_LARGE, v.send, v.recv};
    vectors_fill(self, &v, &c);
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == LEAVER) {
        serry_set_timeout(self->comm, SHORT_MS);
        test_expect(self, SERRY_ERR_TIMEOUT, test_call(&c, self->comm), self->comm, "allreduce");
        CHECK(self, serry_finalize(&self->comm) == SERRY_OK);
        test_raise(self, 0);
        return;
    }
    test_await(self, 0, 1);
    EXPECT_OK(self, test_call(&c, self->comm));
    vectors_check(self, &v, &c, true);
    vectors_close(self, &v, true);
}

/* It does not come, the others time out, then it leaves: the open operation ends for all alike. */
static void body_late_then_leaves(test_rank *self)
{
    vectors v;
    size_t count = *(const bool *)self->argument ? VECTORS_LARGE : 1;
    if (!vectors_open(self, &v, false))
        return;
    serry_call c = {SERRY_KIND_ALLREDUCE, SERRY_U64, SERRY_SUM, 0, count, v.send, v.recv};
    vectors_fill(self, &v, &c);
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == LEAVER) {
        test_await(self, 0, (unsigned)self->size - 1);
        serry_finalize(&self->comm);
    } else {
        serry_set_timeout(self->comm, SHORT_MS);
        test_expect(self, SERRY_ERR_TIMEOUT, test_call(&c, self->comm), self->comm, "allreduce");
        serry_set_timeout(self->comm, LONG_MS);
        test_raise(self, 0);
        check_failure(self, test_call(&c, self->comm), LEAVER, "the same call");
        vectors_check(self, &v, &c, false);
        EXPECT_OK(self, serry_barrier(self->comm));
        check_survivors(self, LEAVER);
    }
    vectors_close(self, &v, false);
}

/* ---- the tests ------------------------------------------------------------------------------ */

/* All get the error at the same operation. */
static void run_leaving(serry_kind_of_rank kind, int size, leaving *l)
{
    test_options options = {.kind = kind, .size = size};
    test_run *run = test_start(&options, body_leaving, l);
    test_join(run);
    int some = l->who == 0 ? 1 : 0, differ = 0;
    for (int r = 0; r < size; r++)
        differ += r != l->who &&
                  test_report_of(run, r)->number[0] != test_report_of(run, some)->number[0];
    test_end(run);
    assert_int_equal(differ, 0);
}

static void test_leaving(void **state)
{
    (void)state;
    static leaving ways[] = {
        {1, 1, false, false},
        {1, 1, false, true},
        {0, 1, false, true},
        {0, VECTORS_LARGE, false, false},
        {1, VECTORS_LARGE, true, true},
        {1, VECTORS_LARGE, false, true},
        {0, VECTORS_LARGE, true, false},
    };
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
        for (int size = 2; size <= 4; size++) {
            run_leaving(SERRY_THREADS, size, &ways[i]);
            run_leaving(SERRY_PROCESSES, size, &ways[i]);
        }
}

static void test_late_then_leaves(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        bool large = i == 1;
        run_ranks(SERRY_PROCESSES, 2, body_late_then_leaves, &large);
        run_ranks(SERRY_THREADS, 4, body_late_then_leaves, &large);
        run_ranks(SERRY_PROCESSES, 4, body_late_then_leaves, &large);
    }
}

static void test_gives_up_and_leaves(void **state)
{
    const char *backend = getenv("SERRY_BACKEND");
    (void)state;

    if (backend != NULL && strcmp(backend, "shm") != 0)
        skip(); /* elsewhere others do not read this rank's memory */
    for (int size = 2; size <= 4; size++) {
        run_ranks(SERRY_PROCESSES, size, body_gives_up_and_leaves, NULL);
        run_ranks(SERRY_THREADS, size, body_gives_up_and_leaves, NULL);
    }
}

int main(void)
{
    const struct CMUnitTest k_tests[] = {
        cmocka_unit_test(test_leaving),
        cmocka_unit_test(test_late_then_leaves),
        cmocka_unit_test(test_gives_up_and_leaves),
    };
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
