/* timeout.c - a rank that comes late, or never.
 *
 * The others get SERRY_ERR_TIMEOUT naming exactly the missing, with inputs and outputs as they
 * were; every other operation is SERRY_ERR_PENDING; the same call again completes with the right
 * result. No upper bounds on time but the watchdog's. */
#include <string.h>

#include "vectors.h"

#define SHORT_MS 40
#define LONG_MS 60000
#define ATTEMPTS 75    /* timeouts; for so long the machine may starve a rank that is on time */
#define JOINING_MS 300 /* in one attempt, so that is the time for all who join */
#define LATE 1         /* the late rank, mostly */

/* ---- a late rank ---------------------------------------------------------------------------- */

typedef struct late_case {
    serry_kind kind;
    size_t count;
    int root;
    bool twice; /* the others time out twice before it comes */
} late_case;

static const late_case k_late[] = {
    {SERRY_KIND_BARRIER, 0, 0, true},
    {SERRY_KIND_ALLREDUCE, 1, 0, false},
    {SERRY_KIND_ALLREDUCE, VECTORS_LARGE, 0, true},
    {SERRY_KIND_BROADCAST, 100, LATE, false},
    {SERRY_KIND_BROADCAST, VECTORS_LARGE, 0, false},
    {SERRY_KIND_REDUCE, 10, 0, true},
    {SERRY_KIND_REDUCE, VECTORS_LARGE, LATE, false},
    {SERRY_KIND_ALLGATHER, VECTORS_LARGE, 0, false},
    {SERRY_KIND_REDUCE_SCATTER, VECTORS_LARGE, 0, true},
    {SERRY_KIND_REDUCE_SCATTER, 3, 0, false},
    {SERRY_KIND_GATHER, VECTORS_LARGE, LATE, false},
    {SERRY_KIND_SCATTER, 9, LATE, false},
    {SERRY_KIND_ALLTOALL, VECTORS_LARGE, 0, false},
};
#define LATE_CASES (sizeof(k_late) / sizeof(k_late[0]))

static serry_call call_of(const late_case *l, const vectors *v)
{
    return (serry_call){l->kind, SERRY_U64, SERRY_SUM, l->root, l->count, v->send, v->recv};
}

/* The call until it times out with rank LATE alone missing; a rank that the machine starves may be
 * missing too at first. False if it does something else. */
static bool times_out(test_rank *self, const serry_call *c, const char *what)
{
    static const int k_late_ranks[] = {LATE, -1};
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        double start = test_now();
        int result = test_call(c, self->comm);
        const serry_error *record = serry_last_error(self->comm);
        if (!test_expect(self, SERRY_ERR_TIMEOUT, result, self->comm, "%s", what))
            return false;
        if (test_now() - start < 1e-3 * (SHORT_MS - 1))
            test_failed(self, "%s: timed out too early", what);
        CHECK(self, record->error == SERRY_ERR_TIMEOUT && record->rank == self->rank);
        CHECK(self, strcmp(record->operation, serry_kind_name(c->kind)) == 0);
        CHECK(self, serry_rank_set_has(&record->ranks, LATE));
        CHECK(self, !serry_rank_set_has(&record->ranks, self->rank));
        CHECK(self, test_names_rank(record->message, LATE));
        if (test_ranks_are(&record->ranks, k_late_ranks))
            return CHECK(self, record->peer == LATE);
    }
    test_failed(self, "%s: never was rank %d alone missing", what, LATE);
    return false;
}

/* While an operation is open, nothing else goes. */
static void everything_else_pends(test_rank *self, const serry_call *open)
{
    uint64_t other[2] = {0, UNTOUCHED};
    serry_comm *part = self->comm;
    if (open->kind != SERRY_KIND_BARRIER)
        test_expect(self, SERRY_ERR_PENDING, serry_barrier(self->comm), self->comm, "barrier");
    test_expect(self, SERRY_ERR_PENDING,
                serry_allreduce(&other[0], &other[1], 1, SERRY_U64, SERRY_MAX, self->comm),
                self->comm, "another allreduce");
    test_expect(self, SERRY_ERR_PENDING, serry_split(self->comm, 0, 0, &part), self->comm, "split");
    CHECK(self, part == NULL && other[1] == UNTOUCHED);
    CHECK(self, strstr(serry_last_error(self->comm)->message, serry_kind_name(open->kind)) != NULL);
}

static void one_late(test_rank *self, const late_case *l, vectors *v, int flag)
{
    serry_call c = call_of(l, v);
    vectors_fill(self, v, &c);
    test_meet(self);
    test_at(self, "%s of %zu, rank %d late", serry_kind_name(c.kind), c.count, LATE);
    if (self->rank == LATE) {
        test_await(self, flag, (unsigned)self->size - 1);
    } else {
        EXPECT_OK(self, serry_set_timeout(self->comm, SHORT_MS));
        if (times_out(self, &c, serry_kind_name(c.kind))) {
            vectors_check(self, v, &c, false);
            everything_else_pends(self, &c);
            if (l->twice) {
                times_out(self, &c, "the second time");
                vectors_check(self, v, &c, false);
            }
        }
        EXPECT_OK(self, serry_set_timeout(self->comm, LONG_MS));
        test_raise(self, flag);
    }
    test_expect(self, SERRY_OK, test_call(&c, self->comm), self->comm, "%s of %zu at last",
                serry_kind_name(c.kind), c.count);
    vectors_check(self, v, &c, true);
}

static void body_late(test_rank *self)
{
    bool arena = *(const bool *)self->argument;
    vectors v;
    if (!vectors_open(self, &v, arena))
        return;
    for (size_t i = 0; i < LATE_CASES; i++)
        one_late(self, &k_late[i], &v, (int)i);
    vectors_close(self, &v, arena);
}

/* The others completed the operation long before the one that had timed out asks again. */
static void body_impatient(test_rank *self)
{
    int impatient = self->size - 1;
    vectors v;
    if (!vectors_open(self, &v, false))
        return;
    for (int i = 0; i < 3; i++) {
        late_case l = {i == 0 ? SERRY_KIND_BARRIER : SERRY_KIND_ALLREDUCE, i == 0 ? 0 : 2, 0,
                       false};
        serry_call c = call_of(&l, &v);
        vectors_fill(self, &v, &c);
        test_meet(self);
        if (self->rank == impatient) {
            serry_set_timeout(self->comm, SHORT_MS);
            times_out(self, &c, "the impatient one");
            serry_set_timeout(self->comm, LONG_MS);
            test_raise(self, 2 * i);
            test_await(self, 2 * i + 1, (unsigned)self->size - 1);
        } else if (self->rank == LATE) {
            test_await(self, 2 * i, 1);
        }
        test_expect(self, SERRY_OK, test_call(&c, self->comm), self->comm, "round %d", i);
        test_raise(self, 2 * i + 1);
        vectors_check(self, &v, &c, true);
    }
    vectors_close(self, &v, false);
}

/* A late rank in split and dup. */
static void body_late_split(test_rank *self)
{
    static const int k_late_ranks[] = {LATE, -1};
    serry_comm *part = NULL, *copy = NULL;
    int colour = self->rank % 2;
    if (self->rank == LATE) {
        test_await(self, 0, (unsigned)self->size - 1);
    } else {
        int attempt = 0;
        serry_set_timeout(self->comm, SHORT_MS);
        do
            test_expect(self, SERRY_ERR_TIMEOUT,
                        serry_split(self->comm, colour, -self->rank, &part), self->comm, "split");
        while (!test_ranks_are(&serry_last_error(self->comm)->ranks, k_late_ranks) &&
               ++attempt < ATTEMPTS);
        CHECK(self, attempt < ATTEMPTS && part == NULL);
        test_expect(self, SERRY_ERR_PENDING, serry_barrier(self->comm), self->comm, "barrier");
        test_expect(self, SERRY_ERR_PENDING, serry_split(self->comm, colour + 5, self->rank, &part),
                    self->comm, "another split");
        serry_set_timeout(self->comm, LONG_MS);
        test_raise(self, 0);
    }
    if (EXPECT_OK(self, serry_split(self->comm, colour, -self->rank, &part))) {
        int one = 1, sum = 0;
        CHECK(self, serry_size(part) == (self->size + 1 - colour) / 2);
        test_expect(self, SERRY_OK, serry_allreduce(&one, &sum, 1, SERRY_I32, SERRY_SUM, part),
                    part, "allreduce in a part");
        CHECK(self, sum == serry_size(part));
    }
    EXPECT_OK(self, serry_dup(self->comm, &copy));
    test_expect(self, SERRY_OK, serry_barrier(copy), copy, "barrier of a copy");
    serry_finalize(&part);
    serry_finalize(&copy);
}

static void body_set_timeout(test_rank *self)
{
    test_expect(self, SERRY_ERR_INVALID, serry_set_timeout(self->comm, 0), self->comm, "0 ms");
    CHECK(self, serry_last_error(self->comm)->error == SERRY_ERR_INVALID);
    EXPECT_OK(self, serry_set_timeout(self->comm, -1));
    if (self->rank == LATE)
        test_sleep_ms(2 * SHORT_MS);
    EXPECT_OK(self, serry_barrier(self->comm));
    EXPECT_OK(self, serry_set_timeout(self->comm, INT32_MIN));
    EXPECT_OK(self, serry_barrier(self->comm));
    EXPECT_OK(self, serry_set_timeout(self->comm, INT32_MAX));
    EXPECT_OK(self, serry_barrier(self->comm));
}

/* ---- joining -------------------------------------------------------------------------------- */

/* The ranks of the list never join. Rank 0 alone knows all who are there. */
static void body_incomplete(test_rank *self)
{
    const int *missing = self->argument;
    serry_comm *comm = self->comm;
    int all = 0;
    for (; missing[all] >= 0; all++)
        if (missing[all] == self->rank)
            return;
    double start = test_now();
    int result = test_init(self, JOINING_MS, &comm);
    const serry_error *record = serry_last_error(NULL);
    CHECK(self, comm == NULL);
    if (self->rank == 0 || missing[0] == 0) /* else told by rank 0, which may have come first */
        CHECK(self, test_now() - start >= 1e-3 * (JOINING_MS - 1));
    if (!test_expect(self, SERRY_ERR_TIMEOUT, result, NULL, "serry_init"))
        return;
    CHECK(self, strcmp(record->operation, "init") == 0 && record->rank == self->rank);
    if (!serry_rank_set_has(&record->ranks, missing[0]) || record->peer != missing[0] ||
        !test_names_rank(record->message, missing[0]) ||
        (missing[0] != 0 && !test_ranks_are(&record->ranks, missing)))
        test_failed(self, "the record does not name the missing: peer %d, %s", record->peer,
                    record->message);
}

/* ---- the tests ------------------------------------------------------------------------------ */

static void run_both(int size, test_body body, void *argument)
{
    run_ranks(SERRY_THREADS, size, body, argument);
    run_ranks(SERRY_PROCESSES, size, body, argument);
}

static void test_late(void **state)
{
    (void)state;
    bool arena = false;
    run_ranks(SERRY_PROCESSES, 2, body_late, &arena);
    run_both(4, body_late, &arena);
}

static void test_late_in_the_arena(void **state)
{
    (void)state;
    bool arena = true;
    run_ranks(SERRY_PROCESSES, 2, body_late, &arena);
    run_both(4, body_late, &arena);
}

static void test_impatient(void **state)
{
    (void)state;
    run_both(3, body_impatient, NULL);
    run_both(4, body_impatient, NULL);
}

static void test_late_split(void **state)
{
    (void)state;
    run_both(2, body_late_split, NULL);
    run_both(4, body_late_split, NULL);
}

static void test_set_timeout(void **state)
{
    (void)state;
    run_both(3, body_set_timeout, NULL);
}

static void test_incomplete(void **state)
{
    (void)state;
    static int missing[][3] = {{0, -1}, {3, -1}, {1, 2, -1}};
    for (size_t i = 0; i < sizeof(missing) / sizeof(missing[0]); i++)
        for (serry_kind_of_rank kind = SERRY_PROCESSES; kind <= SERRY_THREADS; kind++) {
            test_options options = {.kind = kind, .size = 4, .body_joins = true};
            test_end(test_start(&options, body_incomplete, missing[i]));
        }
}

int main(void)
{
    const struct CMUnitTest k_tests[] = {
        cmocka_unit_test(test_late),        cmocka_unit_test(test_late_in_the_arena),
        cmocka_unit_test(test_impatient),   cmocka_unit_test(test_late_split),
        cmocka_unit_test(test_set_timeout), cmocka_unit_test(test_incomplete),
    };
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
