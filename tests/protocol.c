/* protocol.c - the publication words at work: what a rank that is sealed, or killed, at a known place
 * in an operation leaves to the others, and what it gets itself.
 *
 * Detection has tests of its own (detection.c). Here a victim seals its own word at the very place where
 * it dies, so that nothing depends on when a death is found: what the others then see is what they
 * see when a monitor seals it afterwards.
 * The places are inside the work of an operation: a reduction of the test's own is the trap. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "comm.h"
#include "harness.h"
#include "operation.h"
#include "traps.h"
#include "word.h"

enum { SEALED, GO_ON }; /* flags of a run */

static shm_member *member_of(serry_comm *comm)
{
    return (shm_member *)(void *)comm->member;
}

static void seal(serry_comm *comm, int rank)
{
    _Atomic uint64_t *word = &group_cell_of(&member_of(comm)->group, rank)->word;

    if (word_seal(word) & WORD_ASLEEP)
        wait_wake(word);
}

/* ---- the word by itself ----------------------------------------------------------------------- */

static void word_is_decided_when_reached_or_sealed(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t word, step;
        bool reached, decided;
    } cases[] = {
        {"not there yet", 6 << WORD_SHIFT, 7, false, false},
        {"just there", 7 << WORD_SHIFT, 7, true, true},
        {"further", 8 << WORD_SHIFT, 7, true, true},
        {"sealed below", 6 << WORD_SHIFT | WORD_SEALED, 7, false, true},
        {"sealed at it", 7 << WORD_SHIFT | WORD_SEALED, 7, true, true},
        {"somebody asleep", 6 << WORD_SHIFT | WORD_ASLEEP, 7, false, false},
        {"past 32 bits", (UINT64_C(1) << 40) << WORD_SHIFT, UINT64_C(1) << 40, true, true},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        print_message("%s\n", cases[i].name);
        assert_int_equal(word_reached(cases[i].word, cases[i].step), cases[i].reached);
        assert_int_equal(word_decided(cases[i].word, cases[i].step), cases[i].decided);
    }
}

static void word_does_not_move_once_sealed(void **state)
{
    (void)state;
    _Atomic uint64_t word = 0;

    assert_int_equal(word_publish(&word, 1), WORD_PUBLISHED);
    atomic_fetch_or(&word, WORD_ASLEEP);
    assert_int_equal(word_publish(&word, 2), WORD_PUBLISHED_WAKE);
    assert_true(word_second_look(&word));
    word_seal(&word);
    assert_int_equal(word_publish(&word, 3), WORD_IS_SEALED);
    assert_int_equal(word_step(word), 2);
    assert_false(word_second_look(&word));
}

/* ---- small operations ------------------------------------------------------------------------- */

#define VICTIM 1

/* An operation of the survivors that works, among `live` ranks. */
static void check_goes_on(test_rank *self, int live, int64_t wanted)
{
    int64_t value = self->rank + 1, sum = 0;

    EXPECT_OK(self, serry_allreduce(&value, &sum, 1, SERRY_I64, SERRY_SUM, self->comm));
    CHECK(self, sum == wanted);
    CHECK(self, serry_live(self->comm) == live);
}

/* Fault:  rank 1 is sealed before it contributes, and wakes up later.
 * Expect: one RANK_FAILED for all others, who then go on; EXCLUDED for rank 1, every time, with its
 *         output as it was. */
static void sealed_before(test_rank *self)
{
    const int victim[] = {VICTIM, -1};
    int64_t value = self->rank + 1, sum = 77, total = self->size * (self->size + 1) / 2;

    check_goes_on(self, self->size, total);
    test_meet(self); /* the victim has had its result */
    if (self->rank == 0) {
        seal(self->comm, VICTIM);
        test_raise(self, SEALED);
    }
    test_await(self, SEALED, 1);
    if (self->rank == VICTIM)
        test_await(self, GO_ON, (unsigned)self->size - 1);
    for (int i = 0; i < (self->rank == VICTIM ? 2 : 1); i++) {
        int rc = serry_allreduce(&value, &sum, 1, SERRY_I64, SERRY_SUM, self->comm);
        test_expect(self, self->rank == VICTIM ? SERRY_ERR_EXCLUDED : SERRY_ERR_RANK_FAILED, rc,
                    self->comm, "allreduce");
        CHECK(self, sum == 77);
    }
    if (self->rank == VICTIM)
        return;
    CHECK(self, test_ranks_are(&serry_last_error(self->comm)->ranks, victim));
    for (int i = 0; i < 3; i++) /* past both buffers, under the sleeper */
        check_goes_on(self, self->size - 1, total - (VICTIM + 1));
    test_raise(self, GO_ON);
}

/* Fault:  rank 1 has contributed and is sealed while it waits for rank 0.
 * Expect: it takes part, for all others alike; it gets EXCLUDED itself, its output as it was. */
static void sealed_after(test_rank *self)
{
    int64_t value = self->rank + 1, sum = 77, total = self->size * (self->size + 1) / 2;

    if (self->rank == 0) {
        const group_cell *cell = group_cell_of(&member_of(self->comm)->group, VICTIM);
        while (!word_reached(atomic_load(&cell->word), 1))
            test_sleep_ms(1);
        seal(self->comm, VICTIM);
    }
    int rc = serry_allreduce(&value, &sum, 1, SERRY_I64, SERRY_SUM, self->comm);
    test_expect(self, self->rank == VICTIM ? SERRY_ERR_EXCLUDED : SERRY_OK, rc, self->comm,
                "allreduce");
    CHECK(self, sum == (self->rank == VICTIM ? 77 : total));
    if (self->rank == VICTIM)
        return;
    rc = serry_barrier(self->comm);
    test_expect(self, SERRY_ERR_RANK_FAILED, rc, self->comm, "the next operation tells");
    check_goes_on(self, self->size - 1, total - (VICTIM + 1));
}

/* A sealed sleeper reads what the others write meanwhile, finds its seal, and drops it: by design a
 * race, which the thread sanitizer would report. */
static void everywhere(test_body body)
{
    for (int kind = SERRY_PROCESSES; kind <= (TEST_TSAN ? SERRY_PROCESSES : SERRY_THREADS); kind++)
        for (int size = 2; size <= 7; size += size == 2 ? 1 : 4)
            run_ranks((serry_kind_of_rank)kind, size, body, NULL);
}

static void rank_sealed_before_it_contributes_is_excluded(void **state)
{
    (void)state;
    everywhere(sealed_before);
}

static void rank_sealed_after_it_contributed_takes_part(void **state)
{
    (void)state;
    everywhere(sealed_after);
}

/* ---- large operations: killed in the middle of combining -------------------------------------- */

#define ELEMENTS ((size_t)200000) /* several chunks of every algorithm */

static _Noreturn void die(test_rank *self)
{
    test_mine(self)->killed = 1;
    seal(self->comm, self->rank);
    raise(SIGKILL);
    for (;;)
        test_sleep_ms(1000);
}

typedef struct plan {
    bool arena;    /* memory of the vectors */
    int deadly[4]; /* for each rank: the call at which it dies; 0: never */
    int deaths;
    bool completes; /* the operation, in spite of them */
} plan;

static void fill(int64_t *vector, int rank)
{
    for (size_t i = 0; i < ELEMENTS; i++)
        vector[i] = (int64_t)(i * 16 + (size_t)rank);
}

/* The sum of what the ranks had, or (`ranks` one rank) what one had. */
static bool holds(const int64_t *vector, int first, int last)
{
    for (size_t i = 0; i < ELEMENTS; i++) {
        int64_t wanted = 0;
        for (int r = first; r <= last; r++)
            wanted += (int64_t)(i * 16 + (size_t)r);
        if (vector[i] != wanted)
            return false;
    }
    return true;
}

static void killed_while_combining(test_rank *self)
{
    const plan *p = self->argument;
    trap t = {.self = self, .deadly = p->deadly[self->rank], .spring = die};
    serry_op op;
    int64_t *vector = p->arena ? serry_alloc(self->comm, ELEMENTS * sizeof(*vector))
                               : malloc(ELEMENTS * sizeof(*vector));
    int total = self->size * (self->size + 1) / 2, live = self->size - p->deaths;

    if (!CHECK(self, vector != NULL))
        return;
    test_expect(self, SERRY_OK, serry_op_create("sum or die", trapped_sum, &t, &op), NULL, "op");
    fill(vector, self->rank);
    int rc = serry_allreduce(SERRY_IN_PLACE, vector, ELEMENTS, SERRY_I64, op, self->comm);
    if (p->completes) {
        test_expect(self, SERRY_OK, rc, self->comm, "the operation in which the rank died");
        CHECK(self, holds(vector, 0, self->size - 1));
        rc = serry_allreduce(SERRY_IN_PLACE, vector, ELEMENTS, SERRY_I64, op, self->comm);
        test_expect(self, SERRY_ERR_RANK_FAILED, rc, self->comm, "the next operation");
        CHECK(self, holds(vector, 0, self->size - 1));
    } else {
        test_expect(self, SERRY_ERR_RANK_FAILED, rc, self->comm, "the operation");
        CHECK(self, holds(vector, self->rank, self->rank));
    }
    for (int r = 0; r < self->size; r++) {
        CHECK(self,
              serry_rank_set_has(&serry_last_error(self->comm)->ranks, r) == (p->deadly[r] != 0));
        total -= p->deadly[r] != 0 ? r + 1 : 0;
    }
    for (int i = 0; i < 3; i++)
        check_goes_on(self, live, total);
    if (p->arena)
        serry_free(self->comm, vector);
    else
        free(vector);
    serry_op_free(&op);
}

static void run_plan(plan p)
{
    test_options options = {.kind = SERRY_PROCESSES, .size = 4};
    test_run *run = test_start(&options, killed_while_combining, &p);

    test_join(run);
    for (int r = 0; r < options.size; r++) /* the traps were sprung */
        assert_int_equal(test_report_of(run, r)->killed, p.deadly[r] != 0);
    test_end(run);
}

/* Private memory dies with its rank: no survivor may have a sum, all must have their inputs. */
static void killed_in_a_staged_allreduce_all_keep_their_inputs(void **state)
{
    (void)state;
    for (int call = 1; call <= 300; call += 37)
        run_plan((plan){.deadly = {0, call, 0, 0}, .deaths = 1});
}

/* Arena memory outlives its rank: the sum holds its part, although results overwrite inputs. */
static void killed_in_a_direct_allreduce_all_complete_with_its_input(void **state)
{
    (void)state;
    for (int call = 1; call <= 300; call += 37)
        run_plan((plan){.arena = true, .deadly = {0, 0, call, 0}, .deaths = 1, .completes = true});
}

static void killed_in_another_ones_place_the_rest_completes(void **state)
{
    (void)state;
    for (int call = 1; call <= 300; call += 61) {
        run_plan(
            (plan){.arena = true, .deadly = {call, 0, call, 0}, .deaths = 2, .completes = true});
        run_plan((plan){
            .arena = true, .deadly = {call, 0, call + 20, 0}, .deaths = 2, .completes = true});
        run_plan((plan){.arena = true,
                        .deadly = {call, call + 30, 0, call + 60},
                        .deaths = 3,
                        .completes = true});
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(word_is_decided_when_reached_or_sealed),
        cmocka_unit_test(word_does_not_move_once_sealed),
        cmocka_unit_test(rank_sealed_before_it_contributes_is_excluded),
        cmocka_unit_test(rank_sealed_after_it_contributed_takes_part),
        cmocka_unit_test(killed_in_a_staged_allreduce_all_keep_their_inputs),
        cmocka_unit_test(killed_in_a_direct_allreduce_all_complete_with_its_input),
        cmocka_unit_test(killed_in_another_ones_place_the_rest_completes),
    };

    return cmocka_run_group_tests_name("protocol", tests, NULL, NULL);
}
