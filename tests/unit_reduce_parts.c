/* unit_reduce_parts.c - combining in two goes, blocks to parts and parts to the result, gives the bits of
 * combining at once: every reduction of every type, with every kernel set of this processor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include <serry/call.h>
#include <serry/serry.h>

#include "harness.h"
#include "reduce/kernels.h"
#include "reduce/reduce.h"
#include "reference.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

enum { MOST = 256, COUNT = 1100 }; /* more than two blocks of the kernels */

/* Instrumented, many inputs are few elements each: how many there are matters to the parts, how long they
 * are to the kernels, which have both with up to 100 inputs. */
enum { ELEMENTS_MOST = (TEST_SANITIZER ? 100 : MOST) * COUNT };

static unsigned char *input[MOST];
static unsigned char wanted[COUNT * 8], got[COUNT * 8];
static unsigned char *part[MOST];
static serry_op user;

static void in_two_goes(int n, int span, size_t count, serry_dtype dtype, serry_op op)
{
    int parts = 0;

    for (int first = 0; first < n; first += span, parts++)
        serry_reduce_part(part[parts], (const void *const *)input + first,
                          n - first < span ? n - first : span, count, dtype, op);
    serry_reduce_parts(got, (const void *const *)part, parts, n, count, dtype, op);
}

static void compare(serry_dtype dtype, serry_op op)
{
    static const int numbers[] = {3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 33, 100, 255, 256};
    static const size_t counts[] = {1, 5, 513, COUNT};

    for (int i = 0; i < MOST; i++)
        reference_fill(input[i], 0, COUNT, dtype, op, 1, i);
    for (size_t i = 0; i < LENGTH(numbers); i++)
        for (size_t c = 0; c < LENGTH(counts); c++) {
            size_t bytes = counts[c] * serry_dtype_size(dtype);
            if ((size_t)numbers[i] * counts[c] > ELEMENTS_MOST)
                continue;
            serry_reduce_vectors(wanted, (const void *const *)input, numbers[i], counts[c], dtype,
                                 op);
            for (int span = 2; span < numbers[i]; span *= 2) {
                in_two_goes(numbers[i], span, counts[c], dtype, op);
                assert_memory_equal(got, wanted, bytes);
            }
        }
}

static void parts_give_the_bits_of_all_at_once(void **state)
{
    (void)state;
    const serry_kernels *list[3], *before = serry_kernels_used;
    int sets = serry_kernels_list(list);

    for (int k = 0; k < sets; k++) {
        serry_kernels_used = list[k];
        for (serry_dtype dtype = SERRY_F32; dtype < SERRY_DTYPES; dtype++) {
            for (serry_op op = SERRY_SUM; op < SERRY_OPS; op++)
                if (serry_op_check(op, dtype))
                    compare(dtype, op);
            compare(dtype, user);
        }
    }
    serry_kernels_used = before;
}

static int begin(void **state)
{
    (void)state;
    for (int i = 0; i < MOST; i++) {
        input[i] = malloc((size_t)COUNT * 8);
        part[i] = malloc((size_t)COUNT * 8);
    }
    return serry_op_create("reference", reference_user, NULL, &user) != SERRY_OK;
}

static int end(void **state)
{
    (void)state;
    for (int i = 0; i < MOST; i++) {
        free(input[i]);
        free(part[i]);
    }
    return serry_op_free(&user) != SERRY_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_give_the_bits_of_all_at_once),
    };

    return cmocka_run_group_tests_name("unit_reduce_parts", tests, begin, end);
}
