/* levels_deaths.c - deaths and sleepers where members tell of others (shm/levels.c): of the first member
 * of a block, who tells, and of the second one, at known places.
 *
 * Blocks of two among six ranks: 0 1 | 2 3 | 4 5. A reduction of the test's own is the trap; a victim
 * seals its own word before it dies, so that nothing depends on when a death is found. */
#include <signal.h>

#include "comm.h"
#include "harness.h"
#include "operation.h"
#include "traps.h"
#include "word.h"

enum { RANKS = 6, FIRST = 2, SECOND = 3 };
enum { SEALED, GO_ON }; /* flags of a run */

static shm_member *member_of(const test_rank *self)
{
    return (shm_member *)(void *)self->comm->member;
}

static void seal(const test_rank *self, int rank)
{
    _Atomic uint64_t *word = &group_cell_of(&member_of(self)->group, rank)->word;

    if (word_seal(word) & WORD_ASLEEP)
        wait_wake(word);
}

/* The last step of which a rank has told. */
static uint64_t told_by(const test_rank *self, int rank)
{
    const shm_member *m = member_of(self);
    uint64_t even = atomic_load(&group_digest_of(&m->group, rank, 0)->step);
    uint64_t odd = atomic_load(&group_digest_of(&m->group, rank, 1)->step);

    return even > odd ? even : odd;
}

static void have_blocks(test_rank *self)
{
    EXPECT_OK(self, test_set_variant(self->comm, VARIANT_LEVELS));
}

/* Of the ranks without `gone` (-1: nobody), whose first, third and so on have told of it. */
static void check_sum(test_rank *self, int gone)
{
    int64_t value[5], sum[5], wanted = RANKS * (RANKS + 1) / 2 - (gone < 0 ? 0 : gone + 1);
    int index = self->rank - (gone >= 0 && self->rank > gone);
    int live = RANKS - (gone >= 0);

    for (int i = 0; i < 5; i++)
        value[i] = self->rank + 1;
    EXPECT_OK(self, serry_allreduce(value, sum, 5, SERRY_I64, SERRY_SUM, self->comm));
    for (int i = 0; i < 5; i++)
        CHECK(self, sum[i] == wanted);
    if (index % 2 == 0 && index + 1 < live)
        CHECK(self, told_by(self, self->rank) == member_of(self)->step);
}

/* ---- killed ----------------------------------------------------------------------------------- */

typedef struct fault {
    serry_policy policy;
    int victim;
    int call; /* of its reduction, at which it dies; 0: before it contributes */
} fault;

static _Noreturn void die(test_rank *self)
{
    test_mine(self)->killed = 1;
    seal(self, self->rank);
    raise(SIGKILL);
    for (;;)
        test_sleep_ms(1000);
}

static void killed(test_rank *self)
{
    const fault *f = self->argument;
    bool reports = f->policy == SERRY_REPORT;
    trap t = {self, 0, self->rank == f->victim ? f->call : 0, die};
    int64_t value = self->rank + 1, sum = 77;
    serry_op op;

    have_blocks(self);
    EXPECT_OK(self, serry_set_policy(self->comm, f->policy));
    test_expect(self, SERRY_OK, serry_op_create("sum or die", trapped_sum, &t, &op), NULL, "op");
    check_sum(self, -1);
    if (f->call == 0 && self->rank == f->victim)
        die(self);
    if (f->call != 0) {
        EXPECT_OK(self, serry_allreduce(&value, &sum, 1, SERRY_I64, op, self->comm));
        CHECK(self, sum == RANKS * (RANKS + 1) / 2); /* it has contributed */
        sum = 77;
    }
    int rc = serry_allreduce(&value, &sum, 1, SERRY_I64, SERRY_SUM, self->comm);
    test_expect(self, reports ? SERRY_ERR_RANK_FAILED : SERRY_OK, rc, self->comm, "the next one");
    CHECK(self, sum == (reports ? 77 : RANKS * (RANKS + 1) / 2 - f->victim - 1));
    for (int i = 0; i < 5; i++)
        check_sum(self, f->victim);
    serry_op_free(&op);
}

static void run_fault(fault f)
{
    test_options options = {.kind = SERRY_PROCESSES, .size = RANKS};
    test_run *run = test_start(&options, killed, &f);

    test_join(run);
    for (int r = 0; r < RANKS; r++) /* the trap was sprung */
        assert_int_equal(test_report_of(run, r)->killed, r == f.victim);
    test_end(run);
}

/* The first member's first call combines what it is about to tell; the next are of its own result, when
 * the others may have been told already. */
static void killed_around_telling_all_others_go_on_alike(void **state)
{
    (void)state;
    static const serry_policy policies[] = {SERRY_REPORT, SERRY_EXCLUDE};

    for (int p = 0; p < 2; p++)
        for (int call = 0; call <= 3; call++) {
            run_fault((fault){policies[p], FIRST, call});
            run_fault((fault){policies[p], SECOND, call});
            run_fault((fault){policies[p], 0, call});
        }
}

/* ---- asleep ----------------------------------------------------------------------------------- */

static void sleep_on(test_rank *self)
{
    test_await(self, GO_ON, RANKS - 1);
}

/* Fault:  rank 2 has contributed and sleeps while it combines what it is about to tell; the others are
 *         past both buffers when it wakes up.
 * Expect: the others have its contribution, and go on without it; it gets EXCLUDED, with its output as
 *         it was, and tells nothing of what it has read. Likewise at its next call, of its own result,
 *         when it has told. */
static void asleep_before_telling(test_rank *self)
{
    int call = *(const int *)self->argument;
    trap t = {self, 0, self->rank == FIRST ? call : 0, sleep_on};
    int64_t value = self->rank + 1, sum = 77;
    uint64_t told = 0;
    serry_op op;

    have_blocks(self);
    test_expect(self, SERRY_OK, serry_op_create("sum or sleep", trapped_sum, &t, &op), NULL, "op");
    check_sum(self, -1);
    if (self->rank == FIRST)
        told = told_by(self, FIRST);
    int rc = serry_allreduce(&value, &sum, 1, SERRY_I64, op, self->comm);
    test_expect(self, self->rank == FIRST ? SERRY_ERR_EXCLUDED : SERRY_OK, rc, self->comm,
                "the operation in which it sleeps");
    CHECK(self, sum == (self->rank == FIRST ? 77 : RANKS * (RANKS + 1) / 2));
    if (self->rank == FIRST) {
        CHECK(self, (told_by(self, FIRST) == told) == (call == 1));
    } else {
        if (self->rank == 0) {
            seal(self, FIRST);
            test_raise(self, SEALED);
        }
        test_await(self, SEALED, 1);
        rc = serry_barrier(self->comm);
        test_expect(self, SERRY_ERR_RANK_FAILED, rc, self->comm, "the next operation tells");
        for (int i = 0; i < 4; i++)
            check_sum(self, FIRST);
        test_raise(self, GO_ON);
    }
    serry_op_free(&op);
}

static void sleeper_that_was_to_tell_is_excluded_and_tells_nothing(void **state)
{
    (void)state;
    for (int call = 1; call <= 2; call++)
        run_ranks(SERRY_PROCESSES, RANKS, asleep_before_telling, &call);
}

/* ---- other calls ------------------------------------------------------------------------------ */

/* Fault:  a rank calls something else; each in turn, first of its block or not.
 * Expect: RANK_MISMATCH on all alike, who then go on. */
static void mismatched(test_rank *self)
{
    have_blocks(self);
    for (int odd = 0; odd < RANKS; odd++) {
        int64_t value[2] = {1, 2}, sum[2] = {77, 77};
        size_t count = self->rank == odd ? 2 : 1;
        int rc = serry_allreduce(value, sum, count, SERRY_I64, SERRY_SUM, self->comm);
        test_expect(self, SERRY_ERR_RANK_MISMATCH, rc, self->comm, "with rank %d", odd);
        CHECK(self, sum[0] == 77 && sum[1] == 77);
        check_sum(self, -1);
    }
}

static void other_call_in_any_place_of_a_block_is_seen_by_all(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, mismatched, NULL);
    run_ranks(SERRY_THREADS, RANKS, mismatched, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_around_telling_all_others_go_on_alike),
        cmocka_unit_test(sleeper_that_was_to_tell_is_excluded_and_tells_nothing),
        cmocka_unit_test(other_call_in_any_place_of_a_block_is_seen_by_all),
    };

    return cmocka_run_group_tests_name("levels_deaths", tests, NULL, NULL);
}
