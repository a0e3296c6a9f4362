/* unit_op.c - user reductions, the order they are called in, their registry and its errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <serry/serry.h>

#include "record.h"
#include "reduce/kernels.h"
#include "reduce/reduce.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

enum { MOST = 256, BLOCK = SERRY_BLOCK_BYTES / sizeof(uint64_t), COUNT = 3 * BLOCK + 5 };

/* ---- user reductions ---------------------------------------------------------------------- */

/* Neither commutative nor associative, so that the result shows the whole tree. */
static void fold(void *accumulator, const void *next, size_t count, serry_dtype dtype,
                 void *argument)
{
    assert_true(count > 0 && count * sizeof(uint64_t) <= SERRY_BLOCK_BYTES);
    assert_int_equal(dtype, SERRY_U64);
    for (size_t i = 0; i < count; i++)
        ((uint64_t *)accumulator)[i] =
            ((uint64_t *)accumulator)[i] * *(uint64_t *)argument + ((const uint64_t *)next)[i];
}

static uint64_t folded(const void *const *source, int n, size_t i, uint64_t factor)
{
    int left = 1;
    if (n == 1)
        return ((const uint64_t *)source[0])[i];
    while (left * 2 < n)
        left *= 2;
    return folded(source, left, i, factor) * factor + folded(source + left, n - left, i, factor);
}

static void user_reductions_follow_the_tree(void **state)
{
    (void)state;
    static const int numbers[] = {1, 2, 3, 4, 5, 7, 8, 16, 31, MOST};
    static const size_t counts[] = {0, 1, 17, BLOCK, BLOCK + 1, COUNT};
    static uint64_t values[MOST][COUNT];
    uint64_t factor = 31, result[COUNT + 1];
    const void *source[MOST];
    serry_op op;
    assert_int_equal(serry_op_create("fold", fold, &factor, &op), SERRY_OK);
    assert_true(serry_op_check(op, SERRY_U64) && serry_op_check(op, SERRY_F16));
    for (int s = 0; s < MOST; s++) {
        source[s] = values[s];
        for (size_t i = 0; i < COUNT; i++)
            values[s][i] = (i + 1) * 1000003u + (uint64_t)(s * s);
    }
    for (size_t n = 0; n < LENGTH(numbers); n++) {
        for (size_t c = 0; c < LENGTH(counts); c++) {
            result[counts[c]] = 5;
            serry_reduce_vectors(result, source, numbers[n], counts[c], SERRY_U64, op);
            for (size_t i = 0; i < counts[c]; i++)
                assert_true(result[i] == folded(source, numbers[n], i, factor));
            assert_true(result[counts[c]] == 5);
        }
    }
    assert_int_equal(serry_op_free(&op), SERRY_OK);
}

static void user_reductions_may_lie_where_a_source_does(void **state)
{
    (void)state;
    enum { RANKS = 5 };
    static uint64_t values[RANKS][COUNT], apart[COUNT], both[COUNT];
    uint64_t factor = 31;
    const void *source[RANKS];
    serry_op op;
    assert_int_equal(serry_op_create("fold", fold, &factor, &op), SERRY_OK);
    for (uint64_t s = 0; s < RANKS; s++) {
        source[s] = values[s];
        for (size_t i = 0; i < COUNT; i++)
            values[s][i] = (i + 1) * 1000003u + s * s;
    }
    serry_reduce_vectors(apart, source, RANKS, COUNT, SERRY_U64, op);
    for (size_t s = 0; s < RANKS; s++) {
        memcpy(both, values[s], sizeof(both));
        source[s] = both;
        serry_reduce_vectors(both, source, RANKS, COUNT, SERRY_U64, op);
        source[s] = values[s];
        assert_memory_equal(both, apart, sizeof(both));
    }
    assert_int_equal(serry_op_free(&op), SERRY_OK);
}

/* Keeps the right operand, of any 16-bit type. */
static void keep_right(void *accumulator, const void *next, size_t count, serry_dtype dtype,
                       void *argument)
{
    assert_int_equal(serry_dtype_size(dtype), 2);
    assert_null(argument);
    memcpy(accumulator, next, count * 2);
}

static void user_reductions_get_16_bit_elements_as_they_are(void **state)
{
    (void)state;
    const uint16_t first = 0x3c00, last = 0x7d01; /* a signalling NaN stays what it is */
    const void *source[] = {&first, &first, &last};
    uint16_t result;
    serry_op op;
    assert_int_equal(serry_op_create("keep right", keep_right, NULL, &op), SERRY_OK);
    serry_reduce_vectors(&result, source, 3, 1, SERRY_F16, op);
    assert_int_equal(result, last);
    assert_int_equal(serry_op_free(&op), SERRY_OK);
}

/* ---- the registry ------------------------------------------------------------------------- */

static void reductions_have_names(void **state)
{
    (void)state;
    serry_op op, again;
    assert_string_equal(serry_op_name(SERRY_SUM), "sum");
    assert_string_equal(serry_op_name(SERRY_BXOR), "bxor");
    assert_string_equal(serry_op_name(-1), "?");
    assert_string_equal(serry_op_name(SERRY_OPS), "?");
    assert_string_equal(serry_op_name(INT32_MAX), "?");
    assert_int_equal(serry_op_create("mine", fold, NULL, &op), SERRY_OK);
    assert_in_range((unsigned)op, SERRY_OP_USER, 2 * SERRY_OP_USER - 1);
    const char *name = serry_op_name(op);
    assert_string_equal(name, "mine");
    again = op;
    assert_int_equal(serry_op_free(&op), SERRY_OK);
    assert_int_equal(op, -1);
    assert_string_equal(serry_op_name(again), "?");
    assert_false(serry_op_check(again, SERRY_F32));
    assert_string_equal(name, "mine"); /* names in records outlive the reduction */
    assert_int_equal(serry_op_create("mine", fold, NULL, &op), SERRY_OK);
    assert_int_equal(op, again); /* the value comes from the name alone */
    assert_int_equal(serry_op_free(&op), SERRY_OK);
}

static void reductions_apply_to_their_types(void **state)
{
    (void)state;
    for (serry_dtype dtype = 0; dtype < SERRY_DTYPES; dtype++) {
        for (serry_op op = SERRY_SUM; op <= SERRY_AVG; op++)
            assert_true(serry_op_check(op, dtype));
        for (serry_op op = SERRY_BAND; op <= SERRY_BXOR; op++)
            assert_int_equal(serry_op_check(op, dtype), dtype > SERRY_BF16);
    }
    assert_false(serry_op_check(SERRY_SUM, SERRY_DTYPES));
    assert_false(serry_op_check(SERRY_SUM, (serry_dtype)-1));
    assert_false(serry_op_check(-1, SERRY_F32));
    assert_false(serry_op_check(SERRY_OPS, SERRY_F32));
    assert_false(serry_op_check(INT32_MIN, SERRY_F32));
}

static void expect_refusal(const char *name, serry_reduce_function function, serry_op *op,
                           const char *reason)
{
    assert_int_equal(serry_op_create(name, function, NULL, op), SERRY_ERR_INVALID);
    const serry_error *error = serry_error_of_thread();
    assert_int_equal(error->error, SERRY_ERR_INVALID);
    assert_string_equal(error->operation, "op_create");
    assert_non_null(strstr(error->message, reason));
    if (op != NULL)
        assert_int_equal(*op, -1);
}

static void bad_arguments_are_refused(void **state)
{
    (void)state;
    char name[33] = "0123456789012345678901234567890x";
    serry_op op = 0, taken;
    expect_refusal("a", fold, NULL, "op is NULL");
    expect_refusal(NULL, fold, &op, "1 to 31 characters");
    expect_refusal("", fold, &op, "1 to 31 characters");
    expect_refusal(name, fold, &op, "1 to 31 characters");
    expect_refusal("a", NULL, &op, "no function");
    expect_refusal("sum", fold, &op, "predefined");
    name[31] = '\0';
    assert_int_equal(serry_op_create(name, fold, NULL, &taken), SERRY_OK);
    expect_refusal(name, fold, &op, "exists already");
    assert_int_equal(serry_op_free(NULL), SERRY_ERR_INVALID);
    assert_int_equal(serry_op_free(&op), SERRY_ERR_INVALID); /* -1 */
    op = SERRY_SUM;
    assert_int_equal(serry_op_free(&op), SERRY_ERR_INVALID);
    assert_int_equal(op, SERRY_SUM);
    op = taken;
    assert_int_equal(serry_op_free(&taken), SERRY_OK);
    assert_int_equal(serry_op_free(&op), SERRY_ERR_INVALID);
    assert_string_equal(serry_error_of_thread()->operation, "op_free");
}

static void a_name_with_a_taken_hash_is_refused(void **state)
{
    (void)state;
    static serry_op made[SERRY_OP_USER + 1];
    char name[32];
    int ops = 0;
    for (;; ops++) {
        snprintf(name, sizeof(name), "reduction %d", ops);
        if (serry_op_create(name, fold, NULL, &made[ops]) != SERRY_OK)
            break;
        assert_true(ops < SERRY_OP_USER);
    }
    expect_refusal(name, fold, &made[ops], "11-bit hash");
    while (ops > 0)
        assert_int_equal(serry_op_free(&made[--ops]), SERRY_OK);
    assert_int_equal(serry_op_create(name, fold, NULL, &made[0]), SERRY_OK);
    assert_int_equal(serry_op_free(&made[0]), SERRY_OK);
}

static void *make_and_free(void *name)
{
    uintptr_t failures = 0;
    for (int i = 0; i < 2000; i++) {
        serry_op op;
        if (serry_op_create(name, fold, NULL, &op) != SERRY_OK ||
            strcmp(serry_op_name(op), name) != 0 || serry_op_free(&op) != SERRY_OK)
            failures++;
        for (serry_op other = SERRY_OP_USER; other < SERRY_OP_USER + 64; other++)
            failures += serry_op_name(other) == NULL;
    }
    return (void *)failures;
}

static void the_registry_serves_many_threads(void **state)
{
    (void)state;
    static char names[][8] = {"first", "second", "third", "fourth"};
    pthread_t threads[LENGTH(names)];
    for (size_t i = 0; i < LENGTH(names); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, make_and_free, names[i]), 0);
    for (size_t i = 0; i < LENGTH(names); i++) {
        void *failures;
        assert_int_equal(pthread_join(threads[i], &failures), 0);
        assert_null(failures);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(user_reductions_follow_the_tree),
        cmocka_unit_test(user_reductions_may_lie_where_a_source_does),
        cmocka_unit_test(user_reductions_get_16_bit_elements_as_they_are),
        cmocka_unit_test(reductions_have_names),
        cmocka_unit_test(reductions_apply_to_their_types),
        cmocka_unit_test(bad_arguments_are_refused),
        cmocka_unit_test(a_name_with_a_taken_hash_is_refused),
        cmocka_unit_test(the_registry_serves_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
