/* excluded.c - a rank that lives but was sealed, and does not give up: whatever it calls, it
 * changes nothing that others read. The seal is set by hand, at a known place. */
#include <string.h>

#include "comm.h"
#include "harness.h"
#include "operation.h"
#include "word.h"

#define VICTIM 1
#define SLOW 2
#define RANKS 3
#define MOST ((size_t)1000)

enum { CALLED_AGAIN }; /* flag of a run */

static _Atomic uint64_t *word_of(serry_comm *comm, int rank)
{
    shm_member *member = (shm_member *)(void *)comm->member;

    return &group_cell_of(&member->group, rank)->word;
}

static void seal(serry_comm *comm, int rank)
{
    _Atomic uint64_t *word = word_of(comm, rank);

    if (word_seal(word) & WORD_ASLEEP)
        wait_wake(word);
}

/* A sum that, on one rank, does not begin to read before the victim has called again. */
static void slow_sum(void *accumulator, const void *next, size_t count, serry_dtype dtype,
                     void *argument)
{
    test_rank *self = argument;
    int64_t *a = accumulator;
    const int64_t *b = next;

    (void)dtype;
    if (self->rank == SLOW)
        test_await(self, CALLED_AGAIN, 1);
    for (size_t i = 0; i < count; i++)
        a[i] += b[i];
}

static int sum(test_rank *self, size_t count, int64_t own, serry_op op, int64_t *result)
{
    int64_t vector[MOST];

    for (size_t i = 0; i < count; i++)
        vector[i] = own;
    memset(result, 0, count * sizeof(*result));
    return serry_allreduce(vector, result, count, SERRY_I64, op, self->comm);
}

static void expect_sum(test_rank *self, int rc, size_t count, const int64_t *result, int64_t wanted)
{
    test_expect(self, SERRY_OK, rc, self->comm, "allreduce of %zu", count);
    for (size_t i = 0; i < count; i++)
        if (result[i] != wanted) {
            test_failed(self, "element %zu of %zu is %lld, not %lld", i, count,
                        (long long)result[i], (long long)wanted);
            return;
        }
}

/* Fault:  rank 1 has contributed to the second operation and is sealed, while rank 2 still reads
 *         what it gave to the first one; rank 1 calls again and again.
 * Expect: EXCLUDED each time, and both operations are right on the others. */
static void body_calls_again(test_rank *self)
{
    size_t count = *(const size_t *)self->argument;
    int64_t result[MOST];
    serry_op slow;

    test_expect(self, SERRY_OK, serry_op_create("slow sum", slow_sum, self, &slow), NULL, "op");
    int rc = sum(self, count, self->rank + 1, slow, result);
    expect_sum(self, rc, count, result, 6);
    if (self->rank == 0) {
        test_at(self, "waiting for rank %d's second contribution", VICTIM);
        while (!word_reached(atomic_load(word_of(self->comm, VICTIM)), 2))
            test_sleep_ms(1);
        seal(self->comm, VICTIM);
    }
    rc = sum(self, count, 10 * (self->rank + 1), SERRY_SUM, result);
    if (self->rank == VICTIM) {
        for (int i = 0; i < 5; i++) {
            test_expect(self, SERRY_ERR_EXCLUDED, rc, self->comm, "call %d", i);
            rc = sum(self, count, 1000, SERRY_SUM, result);
        }
        test_raise(self, CALLED_AGAIN);
    } else {
        expect_sum(self, rc, count, result, 60); /* it takes part */
        rc = sum(self, count, 1, SERRY_SUM, result);
        test_expect(self, SERRY_ERR_RANK_FAILED, rc, self->comm, "the third one");
        rc = sum(self, count, 1, SERRY_SUM, result);
        expect_sum(self, rc, count, result, 2);
    }
    serry_op_free(&slow);
}

static void excluded_rank_calls_again_and_changes_nothing(void **state)
{
    (void)state;
    size_t counts[] = {1, 2, MOST};

    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        run_ranks(SERRY_PROCESSES, RANKS, body_calls_again, &counts[i]);
}

/* ---- in the middle of a range ------------------------------------------------------------------- */

#define PIECE ((size_t)2048)            /* elements of a piece, see follow.c */
#define VECTOR (RANKS * 3 * PIECE)      /* three pieces for each rank */
#define HELD ((VICTIM * 3 + 1) * PIECE) /* the victim's second piece */
#define GIVEN(i, rank) ((int64_t)(i)*16 + (rank))

enum { WOKEN = CALLED_AGAIN + 1, READING };

/* A sum in which the victim, at its second piece, is sealed and sleeps until another rank is about to
 * read what it gave there; and that one goes on when the victim has come back from the call. */
static void held_sum(void *accumulator, const void *next, size_t count, serry_dtype dtype,
                     void *argument)
{
    test_rank *self = argument;
    int64_t *a = accumulator;
    const int64_t *b = next;

    (void)dtype;
    if (b[0] == GIVEN(HELD, VICTIM) && self->rank == VICTIM) {
        seal(self->comm, VICTIM);
        test_await(self, READING, 1);
    } else if (b[0] == GIVEN(HELD, VICTIM) && self->rank == SLOW) {
        test_raise(self, READING);
        test_await(self, WOKEN, 1);
    }
    for (size_t i = 0; i < count; i++)
        a[i] += b[i];
}

/* Fault:  rank 1 makes a piece of its range, in place; it is sealed before it says so, and goes on when
 *         another rank completes the range from its input.
 * Expect: EXCLUDED, with the input of that piece as it was; the others have the right sum, although it frees
 *         the input and finalizes at once. */
static void body_held_in_a_piece(test_rank *self)
{
    int64_t *vector = serry_alloc(self->comm, VECTOR * sizeof(*vector));
    serry_op op;

    if (!CHECK(self, vector != NULL))
        return;
    EXPECT_OK(self, test_set_variant(self->comm, VARIANT_FOLLOW));
    test_expect(self, SERRY_OK, serry_op_create("held sum", held_sum, self, &op), NULL, "op");
    for (size_t i = 0; i < VECTOR; i++)
        vector[i] = GIVEN(i, self->rank);
    int rc = serry_allreduce(SERRY_IN_PLACE, vector, VECTOR, SERRY_I64, op, self->comm);
    if (self->rank == VICTIM) {
        test_expect(self, SERRY_ERR_EXCLUDED, rc, self->comm, "the sum");
        for (size_t i = HELD; i < HELD + PIECE; i++)
            if (!CHECK(self, vector[i] == GIVEN(i, VICTIM)))
                break;
        serry_free(self->comm, vector); /* another one is about to read there */
        EXPECT_OK(self, serry_finalize(&self->comm));
        test_raise(self, WOKEN);
    } else {
        test_expect(self, SERRY_OK, rc, self->comm, "the sum");
        for (size_t i = 0; i < VECTOR; i++)
            if (!CHECK(self, vector[i] == RANKS * GIVEN(i, 1))) /* 0 + 1 + 2 */
                break;
    }
    if (self->rank != VICTIM)
        serry_free(self->comm, vector);
    serry_op_free(&op);
}

static void excluded_in_a_piece_a_rank_keeps_the_input_that_others_read(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, body_held_in_a_piece, NULL);
}

/* ---- at the end of a reduction of blocks --------------------------------------------------------- */

#define BLOCK ((size_t)4096) /* elements, one block for each rank */

static unsigned last_variant; /* of the run */

/* A sum in which the victim is sealed at the last thing that it combines, and sleeps. */
static void last_sum(void *accumulator, const void *next, size_t count, serry_dtype dtype,
                     void *argument)
{
    test_rank *self = argument;
    int64_t *a = accumulator;
    const int64_t *b = next;

    (void)dtype;
    if (self->rank == VICTIM && b[count - 1] == GIVEN((VICTIM + 1) * BLOCK - 1, VICTIM)) {
        seal(self->comm, VICTIM);
        test_await(self, WOKEN, RANKS - 1);
    }
    for (size_t i = 0; i < count; i++)
        a[i] += b[i];
}

/* Fault:  rank 1 has published the last step of a reduce_scatter, is sealed while it combines its result,
 *         and wakes when the others are past all buffers.
 * Expect: EXCLUDED, its output as it was: it may have read what was written over. But where it has what all
 * got, since all inputs are in rooms, which are not written again: that, and EXCLUDED by the next one. */
static void body_held_at_the_end(test_rank *self)
{
    static int64_t vector[RANKS * BLOCK], block[BLOCK];
    serry_op op;

    EXPECT_OK(self, test_set_variant(self->comm, last_variant));
    test_expect(self, SERRY_OK, serry_op_create("last sum", last_sum, self, &op), NULL, "op");
    for (size_t i = 0; i < RANKS * BLOCK; i++)
        vector[i] = GIVEN(i, self->rank);
    memset(block, 0, sizeof(block));
    int rc = serry_reduce_scatter(vector, block, BLOCK, SERRY_I64, op, self->comm);
    bool gets = self->rank != VICTIM || last_variant == VARIANT_COPY;
    test_expect(self, gets ? SERRY_OK : SERRY_ERR_EXCLUDED, rc, self->comm, "reduce_scatter");
    for (size_t i = 0; i < BLOCK; i++)
        if (!CHECK(self, block[i] == (gets ? RANKS * GIVEN((size_t)self->rank * BLOCK + i, 1) : 0)))
            break;
    if (self->rank == VICTIM) {
        rc = serry_barrier(self->comm);
        test_expect(self, SERRY_ERR_EXCLUDED, rc, self->comm, "the next one");
    } else {
        rc = serry_reduce_scatter(vector, block, BLOCK, SERRY_I64, SERRY_SUM, self->comm);
        test_expect(self, SERRY_ERR_RANK_FAILED, rc, self->comm, "the next one");
        for (int i = 0; i < 3; i++)
            EXPECT_OK(self,
                      serry_reduce_scatter(vector, block, BLOCK, SERRY_I64, SERRY_SUM, self->comm));
        test_raise(self, WOKEN);
    }
    serry_op_free(&op);
}

static void excluded_at_its_last_sum_a_rank_hands_out_what_all_got_or_nothing(void **state)
{
    static const unsigned variants[] = {VARIANT_COPY, VARIANT_NO_ROOM, VARIANT_SLICES};
    (void)state;

    for (int v = 0; v < 3; v++) {
        last_variant = variants[v];
        run_ranks(SERRY_PROCESSES, RANKS, body_held_at_the_end, NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(excluded_rank_calls_again_and_changes_nothing),
        cmocka_unit_test(excluded_in_a_piece_a_rank_keeps_the_input_that_others_read),
        cmocka_unit_test(excluded_at_its_last_sum_a_rank_hands_out_what_all_got_or_nothing),
    };

    return cmocka_run_group_tests_name("excluded", tests, NULL, NULL);
}
