/* coalesce.c - small operations that were started together share a step; whatever ranks have started
 * and others have not, each request ends as if it had gone alone. */
#include <stdlib.h>
#include <string.h>

#include "comm.h"
#include "deaths.h"
#include "flight.h"
#include "harness.h"
#include "operation.h"

enum { MANY = 64, LATE = 2, DIES = 2, ODD = 5 };
enum { FLAG_POSTED, FLAG_DONE }; /* flags of a run */

static uint64_t step_of(const test_rank *self)
{
    return ((shm_member *)(void *)self->comm->member)->step;
}

/* Until release, nothing that is started begins. */
static void hold(test_rank *self)
{
    flight *f;

    EXPECT_OK(self, flight_of(self->comm, true, &f));
    flight_enter(f);
}

static void release(test_rank *self)
{
    flight_leave(self->comm->flight);
}

/* Number i of a row of sums; rank r gives i + r. */
typedef struct sums {
    int64_t in[MANY], out[MANY];
    serry_request *request[MANY];
} sums;

static void start_sums(test_rank *self, sums *s, int from, int to)
{
    for (int i = from; i < to; i++) {
        s->in[i] = i + self->rank;
        s->out[i] = -1;
        EXPECT_OK(self, serry_iallreduce(&s->in[i], &s->out[i], 1, SERRY_I64, SERRY_SUM, self->comm,
                                         &s->request[i]));
    }
}

/* Of the ranks below `ranks`. */
static int64_t sum_of(int i, int ranks)
{
    return (int64_t)i * ranks + (int64_t)ranks * (ranks - 1) / 2;
}

static void expect_sums(test_rank *self, const sums *s, int from, int to, int ranks)
{
    for (int i = from; i < to; i++)
        if (s->out[i] != sum_of(i, ranks))
            test_failed(self, "sum %d is %lld and not %lld", i, (long long)s->out[i],
                        (long long)sum_of(i, ranks));
}

/* ---- together ---------------------------------------------------------------------------------- */

static void body_together(test_rank *self)
{
    sums s;

    hold(self);
    uint64_t before = step_of(self);
    start_sums(self, &s, 0, MANY);
    release(self);
    EXPECT_OK(self, serry_wait_all(s.request, MANY, -1));
    expect_sums(self, &s, 0, MANY, self->size);
    CHECK(self, step_of(self) == before + 1);
}

/* Each rank has another number of them at hand: in the end all are done, in fewer steps than one for
 * each. */
static void body_uneven(test_rank *self)
{
    int at = 0, next = 3 + 5 * self->rank;
    sums s;

    hold(self);
    uint64_t before = step_of(self);
    release(self);
    while (at < MANY) {
        next = next < MANY ? next : MANY;
        hold(self);
        start_sums(self, &s, at, next);
        release(self);
        EXPECT_OK(self, serry_wait_all(s.request + at, (size_t)(next - at), -1));
        at = next;
        next += 3 + 5 * ((self->rank + at) % 4);
    }
    expect_sums(self, &s, 0, MANY, self->size);
    EXPECT_OK(self, serry_barrier(self->comm));
    CHECK(self, step_of(self) < before + MANY);
}

/* ---- all kinds and sizes ------------------------------------------------------------------------- */

enum { LENGTH = 2048 };

typedef struct mixed {
    serry_call call;
    int64_t *send, *recv;
    serry_request *request;
} mixed;

static int64_t value(int rank, unsigned number, size_t i)
{
    return (int64_t)number * 1000003 + rank * 7919 + (int64_t)i;
}

static void start_mixed(test_rank *self, mixed *x, unsigned number, uint64_t *sequence)
{
    static const serry_kind kinds[] = {SERRY_KIND_BARRIER,   SERRY_KIND_BROADCAST,
                                       SERRY_KIND_REDUCE,    SERRY_KIND_ALLREDUCE,
                                       SERRY_KIND_ALLGATHER, SERRY_KIND_ALLTOALL};
    serry_kind kind = kinds[chance(sequence, 6)];
    int root = (int)chance(sequence, (unsigned)self->size);
    size_t count = chance(sequence, 20) == 0 ? LENGTH : chance(sequence, 12);
    size_t blocks = (size_t)self->size;
    serry_comm *comm = self->comm;
    int rc;

    x->call = (serry_call){.kind = kind, .root = root, .count = count};
    for (size_t i = 0; i < count * blocks; i++) {
        x->send[i] = value(self->rank, number, i);
        x->recv[i] = -1;
    }
    switch (kind) {
    case SERRY_KIND_BARRIER:
        rc = serry_ibarrier(comm, &x->request);
        break;
    case SERRY_KIND_BROADCAST:
        rc = serry_ibroadcast(self->rank == root ? x->send : x->recv, count, SERRY_I64, root, comm,
                              &x->request);
        break;
    case SERRY_KIND_REDUCE:
        rc = serry_ireduce(x->send, x->recv, count, SERRY_I64, SERRY_SUM, root, comm, &x->request);
        break;
    case SERRY_KIND_ALLREDUCE:
        rc = serry_iallreduce(x->send, x->recv, count, SERRY_I64, SERRY_SUM, comm, &x->request);
        break;
    case SERRY_KIND_ALLGATHER:
        rc = serry_iallgather(x->send, x->recv, count, SERRY_I64, comm, &x->request);
        break;
    default:
        rc = serry_ialltoall(x->send, x->recv, count, SERRY_I64, comm, &x->request);
    }
    EXPECT_OK(self, rc);
}

/* What element i of the receive buffer must be. */
static int64_t wanted(const test_rank *self, const mixed *x, unsigned number, size_t i)
{
    size_t count = x->call.count;
    int64_t sum = 0;

    switch (x->call.kind) {
    case SERRY_KIND_BARRIER:
        return -1;
    case SERRY_KIND_BROADCAST:
        return self->rank == x->call.root ? -1 : value(x->call.root, number, i);
    case SERRY_KIND_REDUCE:
        if (self->rank != x->call.root)
            return -1;
        break;
    case SERRY_KIND_ALLGATHER:
        return value((int)(i / count), number, i % count);
    case SERRY_KIND_ALLTOALL:
        return value((int)(i / count), number, (size_t)self->rank * count + i % count);
    default:
        break;
    }
    for (int r = 0; r < self->size; r++)
        sum += value(r, number, i);
    return sum;
}

static void expect_mixed(test_rank *self, const mixed *x, unsigned number)
{
    bool blocks = x->call.kind == SERRY_KIND_ALLGATHER || x->call.kind == SERRY_KIND_ALLTOALL;
    size_t count = x->call.count * (blocks ? (size_t)self->size : 1);

    for (size_t i = 0; i < count; i++)
        if (x->recv[i] != wanted(self, x, number, i)) {
            test_failed(self, "%s number %u, element %zu of %zu: %lld and not %lld",
                        serry_kind_name(x->call.kind), number, i, count, (long long)x->recv[i],
                        (long long)wanted(self, x, number, i));
            return;
        }
}

static void body_mixed(test_rank *self)
{
    uint64_t same = chance_begin(1), own = chance_begin(100 + (uint64_t)self->rank);
    mixed x[MANY];

    for (int i = 0; i < MANY; i++) {
        x[i].send = malloc((size_t)LENGTH * (size_t)self->size * sizeof(int64_t));
        x[i].recv = malloc((size_t)LENGTH * (size_t)self->size * sizeof(int64_t));
    }
    for (unsigned round = 0; round < 40; round++) {
        for (unsigned at = 0; at < MANY;) {
            unsigned end = at + 1 + chance(&own, 30);
            end = end < MANY ? end : MANY;
            hold(self);
            for (unsigned i = at; i < end; i++)
                start_mixed(self, &x[i], round * MANY + i, &same);
            release(self);
            for (; at < end; at++) {
                EXPECT_OK(self, serry_wait(&x[at].request, -1));
                expect_mixed(self, &x[at], round * MANY + at);
            }
        }
    }
    for (int i = 0; i < MANY; i++) {
        free(x[i].send);
        free(x[i].recv);
    }
}

/* ---- one of them is wrong, or late, or its rank dies ---------------------------------------------- */

/* One rank makes another call in the middle of the row: that one fails on all, and no other. */
static void body_mismatch(test_rank *self)
{
    sums s;
    int64_t pair[2] = {0, 0};
    serry_request *odd;

    hold(self);
    start_sums(self, &s, 0, ODD);
    if (self->rank == 1) {
        EXPECT_OK(self, serry_iallreduce(SERRY_IN_PLACE, pair, 2, SERRY_I64, SERRY_SUM, self->comm,
                                         &odd));
    } else {
        EXPECT_OK(self, serry_iallreduce(SERRY_IN_PLACE, pair, 1, SERRY_I64, SERRY_SUM, self->comm,
                                         &odd));
    }
    start_sums(self, &s, ODD, 2 * ODD);
    release(self);
    EXPECT_OK(self, serry_wait_all(s.request, 2 * ODD, -1));
    test_expect(self, SERRY_ERR_RANK_MISMATCH, serry_wait(&odd, -1), self->comm, "the odd one");
    CHECK(self, strstr(serry_request_error(odd)->message, "count=2") != NULL);
    serry_request_free(&odd);
    expect_sums(self, &s, 0, 2 * ODD, self->size);
}

/* The others give up waiting for the late one, which then finds all they had contributed and goes on.
 * They are handed theirs when they make the same calls again. */
static void expect_ahead(test_rank *self, sums *s)
{
    EXPECT_OK(self, serry_set_timeout(self->comm, 60000));
    test_expect(self, SERRY_ERR_PENDING, serry_barrier(self->comm), self->comm, "barrier");
    for (int i = 0; i < ODD; i++) {
        EXPECT_OK(self,
                  serry_allreduce(&s->in[i], &s->out[i], 1, SERRY_I64, SERRY_SUM, self->comm));
        if (i + 1 < ODD)
            test_expect(self, SERRY_ERR_PENDING, serry_barrier(self->comm), self->comm, "barrier");
    }
}

static void body_late(test_rank *self)
{
    sums s;

    if (self->rank == LATE) {
        test_await(self, FLAG_POSTED, (unsigned)self->size - 1);
    } else {
        EXPECT_OK(self, serry_set_timeout(self->comm, 50));
    }
    hold(self);
    start_sums(self, &s, 0, ODD);
    release(self);
    for (int i = 0; i < ODD; i++) {
        int rc = serry_wait(&s.request[i], -1);
        test_expect(self,
                    self->rank == LATE ? SERRY_OK
                    : i == 0           ? SERRY_ERR_TIMEOUT
                                       : SERRY_ERR_PENDING,
                    rc, self->comm, "sum %d", i);
        CHECK(self, self->rank == LATE || s.out[i] == -1);
        serry_request_free(&s.request[i]);
    }
    if (self->rank != LATE) {
        test_raise(self, FLAG_POSTED);
        test_await(self, FLAG_DONE, 1);
        expect_ahead(self, &s);
    } else {
        expect_sums(self, &s, 0, ODD, self->size);
        test_raise(self, FLAG_DONE);
    }
    expect_sums(self, &s, 0, ODD, self->size);
    EXPECT_OK(self, serry_barrier(self->comm));
}

/* A rank takes part in three of them and dies: the fourth tells, on all others, and the rest is among
 * them. */
static void body_dies(test_rank *self)
{
    sums s;

    hold(self);
    start_sums(self, &s, 0, self->rank == DIES ? 3 : MANY);
    release(self);
    if (self->rank == DIES) {
        EXPECT_OK(self, serry_wait_all(s.request, 3, -1));
        expect_sums(self, &s, 0, 3, self->size);
        death_now(self);
    }
    EXPECT_OK(self, serry_wait_all(s.request, 3, -1));
    test_expect(self, SERRY_ERR_RANK_FAILED, serry_wait(&s.request[3], -1), self->comm, "sum 3");
    CHECK(self, s.out[3] == -1);
    CHECK(self, serry_request_error(s.request[3])->peer == DIES);
    serry_request_free(&s.request[3]);
    EXPECT_OK(self, serry_wait_all(s.request + 4, MANY - 4, -1));
    expect_sums(self, &s, 0, 3, self->size);
    expect_sums(self, &s, 4, MANY, self->size - 1);
}

/* ---- the tests ----------------------------------------------------------------------------------- */

static void on_all(test_body body)
{
    static const int sizes[] = {1, 2, 3, 4, 7};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        run_ranks(SERRY_THREADS, sizes[i], body, NULL);
        if (!TEST_TSAN)
            run_ranks(SERRY_PROCESSES, sizes[i], body, NULL);
    }
}

static void operations_started_together_share_a_step(void **state)
{
    (void)state;
    on_all(body_together);
}

static void ranks_that_have_started_different_numbers_end_all(void **state)
{
    (void)state;
    on_all(body_uneven);
}

static void all_kinds_and_sizes_at_random(void **state)
{
    (void)state;
    on_all(body_mixed);
}

static void a_different_call_in_a_row_fails_alone(void **state)
{
    (void)state;
    run_ranks(SERRY_THREADS, 3, body_mismatch, NULL);
    if (!TEST_TSAN)
        run_ranks(SERRY_PROCESSES, 4, body_mismatch, NULL);
}

static void a_row_left_open_by_a_timeout_is_gone_on_with(void **state)
{
    (void)state;
    run_ranks(SERRY_THREADS, 3, body_late, NULL);
    if (!TEST_TSAN)
        run_ranks(SERRY_PROCESSES, 4, body_late, NULL);
}

static void a_rank_killed_after_part_of_a_row(void **state)
{
    static const int dead[] = {DIES, -1};
    (void)state;

    if (TEST_TSAN)
        skip();
    run_deaths(SERRY_PROCESSES, 3, body_dies, NULL, dead);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(operations_started_together_share_a_step),
        cmocka_unit_test(ranks_that_have_started_different_numbers_end_all),
        cmocka_unit_test(all_kinds_and_sizes_at_random),
        cmocka_unit_test(a_different_call_in_a_row_fails_alone),
        cmocka_unit_test(a_row_left_open_by_a_timeout_is_gone_on_with),
        cmocka_unit_test(a_rank_killed_after_part_of_a_row),
    };

    test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
