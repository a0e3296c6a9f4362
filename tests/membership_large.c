/* membership_large.c - ranks that are killed in the middle of a large operation, at a known place:
 * a reduction of the test's own is the trap. Nobody but the library tells the others.
 *
 * Under EXCLUDE all survivors complete with one result, which is right for exactly those ranks that
 * serry_participants() names; under the other policies they have the result of all ranks, or their
 * inputs. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "deaths.h"
#include "operation.h"
#include "traps.h"

#define RANKS 4
#define ELEMENTS ((size_t)200000) /* several chunks of every algorithm */

typedef struct plan {
    serry_kind kind; /* allreduce, reduce or reduce_scatter */
    serry_policy policy;
    bool arena;        /* memory of the vectors */
    int deadly[RANKS]; /* for each rank: the call at which it dies; 0: never */
    bool counts;       /* what the dead have given counts in the first result */
    unsigned variant;
} plan;

/* ---- vectors -------------------------------------------------------------------------------- */

static size_t given(const plan *p)
{
    return p->kind == SERRY_KIND_REDUCE_SCATTER ? ELEMENTS / RANKS * RANKS : ELEMENTS;
}

static int64_t value(int rank, size_t i)
{
    return (int64_t)(i * 16 + (size_t)rank);
}

static void fill(int64_t *vector, const plan *p, int rank)
{
    for (size_t i = 0; i < given(p); i++)
        vector[i] = value(rank, i);
}

static bool holds(const int64_t *vector, size_t count, size_t first, const serry_rank_set *ranks)
{
    for (size_t i = 0; i < count; i++) {
        int64_t wanted = 0;
        for (int r = 0; r < RANKS; r++)
            wanted += serry_rank_set_has(ranks, r) ? value(r, first + i) : 0;
        if (vector[i] != wanted)
            return false;
    }
    return true;
}

static serry_rank_set set_of(int rank)
{
    serry_rank_set set = {{0}};

    set.bits[rank / 64] |= UINT64_C(1) << (rank % 64);
    return set;
}

/* Does this rank's vector hold the result over `ranks`, or (where it gets none) its input? */
static bool holds_result(test_rank *self, const plan *p, const int64_t *vector,
                         const serry_rank_set *ranks)
{
    serry_rank_set own = set_of(self->rank);

    if (p->kind == SERRY_KIND_REDUCE_SCATTER) {
        size_t count = ELEMENTS / RANKS;
        return holds(vector, count, count * (size_t)self->rank, ranks);
    }
    bool gets = p->kind == SERRY_KIND_ALLREDUCE || self->rank == RANKS - 1;
    return holds(vector, ELEMENTS, 0, gets ? ranks : &own);
}

static int call(test_rank *self, const plan *p, int64_t *vector, serry_op op)
{
    const int root = RANKS - 1;

    if (p->kind == SERRY_KIND_ALLREDUCE)
        return serry_allreduce(SERRY_IN_PLACE, vector, ELEMENTS, SERRY_I64, op, self->comm);
    if (p->kind == SERRY_KIND_REDUCE)
        return serry_reduce(self->rank == root ? SERRY_IN_PLACE : vector, vector, ELEMENTS,
                            SERRY_I64, op, root, self->comm);
    return serry_reduce_scatter(SERRY_IN_PLACE, vector, ELEMENTS / RANKS, SERRY_I64, op,
                                self->comm);
}

/* ---- what survivors see --------------------------------------------------------------------- */

static void ranks_that_die(const plan *p, int *dead)
{
    for (int r = 0; r < RANKS; r++)
        if (p->deadly[r] != 0)
            *dead++ = r;
    *dead = -1;
}

/* Every operation completes; who took part in the first one depends on where the inputs lay. */
static void check_excludes(test_rank *self, const plan *p, int64_t *vector, serry_op op,
                           const int *dead)
{
    for (int i = 0; i < 2; i++) {
        serry_rank_set took_part;
        fill(vector, p, self->rank);
        int rc = call(self, p, vector, op);
        if (!test_expect(self, SERRY_OK, rc, self->comm, "operation %d", i))
            return;
        serry_participants(self->comm, &took_part);
        for (const int *d = dead; *d >= 0; d++)
            CHECK(self, serry_rank_set_has(&took_part, *d) == (i == 0 && p->counts));
        CHECK(self, holds_result(self, p, vector, &took_part));
        test_mine(self)->number[i] = (double)took_part.bits[0];
    }
}

static void check_reports(test_rank *self, const plan *p, int64_t *vector, serry_op op,
                          const int *dead)
{
    serry_rank_set all = {{(1u << RANKS) - 1}}, own = set_of(self->rank);
    int rc = call(self, p, vector, op);

    if (p->counts) {
        test_expect(self, SERRY_OK, rc, self->comm, "the operation in which the rank died");
        CHECK(self, holds_result(self, p, vector, &all));
        fill(vector, p, self->rank);
        rc = call(self, p, vector, op);
    }
    expect_failed(self, self->comm, rc, dead, "the first operation that could not do without it");
    CHECK(self, holds(vector, given(p), 0, &own));
}

static void check_revokes(test_rank *self, const plan *p, int64_t *vector, serry_op op)
{
    serry_rank_set all = {{(1u << RANKS) - 1}}, own = set_of(self->rank);
    int rc = call(self, p, vector, op);

    if (p->counts && rc == SERRY_OK) { /* others may have been at the next one, and revoked it */
        CHECK(self, holds_result(self, p, vector, &all));
        fill(vector, p, self->rank);
        rc = call(self, p, vector, op);
    }
    test_expect(self, SERRY_ERR_REVOKED, rc, self->comm, "operation");
    if (!p->counts)
        CHECK(self, holds(vector, given(p), 0, &own));
    test_expect(self, SERRY_ERR_REVOKED, serry_barrier(self->comm), self->comm, "barrier");
}

static void body_trap(test_rank *self)
{
    const plan *p = self->argument;
    trap t = {.self = self, .deadly = p->deadly[self->rank], .spring = death_now};
    size_t bytes = ELEMENTS * sizeof(int64_t);
    int64_t *vector = p->arena ? serry_alloc(self->comm, bytes) : malloc(bytes);
    int dead[RANKS + 1];
    serry_op op;

    if (!CHECK(self, vector != NULL))
        return;
    ranks_that_die(p, dead);
    test_expect(self, SERRY_OK, serry_op_create("sum or die", trapped_sum, &t, &op), NULL, "op");
    EXPECT_OK(self, serry_set_policy(self->comm, p->policy));
    EXPECT_OK(self, test_set_variant(self->comm, p->variant));
    fill(vector, p, self->rank);
    test_at(self, "%s, trap at %d", serry_kind_name(p->kind), dead[0] < 0 ? 0 : p->deadly[dead[0]]);
    if (p->policy == SERRY_EXCLUDE)
        check_excludes(self, p, vector, op, dead);
    else if (p->policy == SERRY_REPORT)
        check_reports(self, p, vector, op, dead);
    else
        check_revokes(self, p, vector, op);
    if (p->policy != SERRY_REVOKE)
        expect_goes_on(self, self->comm, dead);
    if (p->arena)
        serry_free(self->comm, vector);
    else
        free(vector);
    serry_op_free(&op);
}

/* ---- the tests ------------------------------------------------------------------------------ */

static void run_plan(plan p)
{
    test_options options = {.kind = SERRY_PROCESSES, .size = RANKS};
    test_run *run = test_start(&options, body_trap, &p);
    int dead[RANKS + 1], some = 0, differ = 0;

    ranks_that_die(&p, dead);
    while (is_one_of(dead, some))
        some++;
    test_join(run);
    for (int r = 0; r < RANKS; r++)
        for (int i = 0; i < 2 && !is_one_of(dead, r); i++)
            differ += test_report_of(run, r)->number[i] != test_report_of(run, some)->number[i];
    deaths_end(run, options.kind, RANKS, dead); /* the traps were sprung */
    assert_int_equal(differ, 0);                /* one same set on all survivors */
}

static const serry_policy k_policies[] = {SERRY_EXCLUDE, SERRY_REPORT, SERRY_REVOKE};

/* Private memory dies with its rank: the operation goes on without it, from its beginning. */
static void killed_in_a_staged_allreduce(void **state)
{
    (void)state;
    for (int call_number = 1; call_number <= 300; call_number += 60)
        for (int i = 0; i < 3; i++)
            run_plan(
                (plan){SERRY_KIND_ALLREDUCE, k_policies[i], false, {0, call_number, 0, 0}, false});
}

/* Arena memory outlives its rank: the result holds its part, although it overwrites inputs. */
static void killed_in_a_direct_allreduce(void **state)
{
    (void)state;
    for (int call_number = 1; call_number <= 300; call_number += 60)
        for (int i = 0; i < 3; i++)
            run_plan(
                (plan){SERRY_KIND_ALLREDUCE, k_policies[i], true, {0, 0, call_number, 0}, true});
}

static void killed_in_a_reduce(void **state)
{
    (void)state;
    for (int arena = 0; arena <= 1; arena++)
        for (int call_number = 1; call_number <= 150; call_number += 70)
            run_plan((plan){
                SERRY_KIND_REDUCE, SERRY_EXCLUDE, arena == 1, {call_number, 0, 0, 0}, arena == 1});
}

/* Of private memory too, all lies in the arena before anything is combined, but in slices. */
static void killed_in_a_reduce_scatter(void **state)
{
    static const struct {
        bool arena;
        unsigned variant;
    } k_ways[] = {{true, VARIANT_CHOOSE}, {false, VARIANT_CHOOSE}, {false, VARIANT_SLICES}};

    (void)state;
    for (int way = 0; way < 3; way++)
        for (int call_number = 1; call_number <= 10; call_number += 4)
            run_plan((plan){SERRY_KIND_REDUCE_SCATTER,
                            SERRY_EXCLUDE,
                            k_ways[way].arena,
                            {0, call_number, 0, 0},
                            k_ways[way].variant != VARIANT_SLICES,
                            k_ways[way].variant});
}

static void several_killed_in_one_operation(void **state)
{
    (void)state;
    for (int arena = 0; arena <= 1; arena++)
        for (int c = 1; c <= 200; c += 60) {
            run_plan(
                (plan){SERRY_KIND_ALLREDUCE, SERRY_EXCLUDE, arena == 1, {c, 0, c, 0}, arena == 1});
            run_plan((plan){SERRY_KIND_ALLREDUCE,
                            SERRY_EXCLUDE,
                            arena == 1,
                            {c, c + 30, 0, c + 60},
                            arena == 1});
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_in_a_staged_allreduce),
        cmocka_unit_test(killed_in_a_direct_allreduce),
        cmocka_unit_test(killed_in_a_reduce),
        cmocka_unit_test(killed_in_a_reduce_scatter),
        cmocka_unit_test(several_killed_in_one_operation),
    };

    return cmocka_run_group_tests_name("membership_large", tests, NULL, NULL);
}
