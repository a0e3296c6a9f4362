/* unit_half.c - 16-bit floats: both conversions against arithmetic written anew, bit for bit, with every
 * kernel set of this processor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include <serry/call.h>

#include "halves.h"
#include "reduce/half.h"
#include "reduce/kernels.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static void every_half_is_widened(void **state)
{
    (void)state;
    static uint16_t all[65536], back[65536];
    static float wide[65536];
    const serry_kernels *sets[3];
    int kernel_sets = serry_kernels_list(sets);
    for (unsigned h = 0; h < 65536; h++)
        all[h] = (uint16_t)h;
    for (serry_dtype dtype = SERRY_F16; dtype <= SERRY_BF16; dtype++) {
        for (int set = 0; set < kernel_sets; set++) {
            sets[set]->type[dtype].widen(wide, all, 65535); /* leaves a rest to the last loop */
            sets[set]->type[dtype].widen(wide + 65535, all + 65535, 1);
            sets[set]->type[dtype].narrow(back, wide, 65536);
            for (unsigned h = 0; h < 65536; h++) {
                float expected = half_widened(dtype, h);
                assert_int_equal(isnan(wide[h]), isnan(expected));
                assert_int_equal(back[h], half_narrowed(dtype, expected));
                if (!isnan(expected)) {
                    assert_int_equal(serry_f32_bits(wide[h]), serry_f32_bits(expected));
                    assert_int_equal(back[h], h);
                }
            }
        }
    }
}

/* Narrows `count` values with each set and the functions for one value. */
static void check_narrow(const float *values, size_t count)
{
    static uint16_t result[4096];
    const serry_kernels *sets[3];
    int kernel_sets = serry_kernels_list(sets);
    for (serry_dtype dtype = SERRY_F16; dtype <= SERRY_BF16; dtype++) {
        uint16_t expected[4096];
        for (size_t i = 0; i < count; i++) {
            expected[i] = (uint16_t)half_narrowed(dtype, values[i]);
            assert_int_equal(dtype == SERRY_F16 ? serry_f32_to_f16(values[i])
                                                : serry_f32_to_bf16(values[i]),
                             expected[i]);
        }
        for (int set = 0; set < kernel_sets; set++) {
            sets[set]->type[dtype].narrow(result, values, count);
            for (size_t i = 0; i < count; i++)
                if (result[i] != expected[i])
                    fail_msg("%s: %a becomes %04x, not %04x, with kernels %s",
                             serry_dtype_name(dtype), (double)values[i], result[i], expected[i],
                             sets[set]->name);
        }
    }
}

static void a_dense_sample_is_narrowed(void **state)
{
    (void)state;
    float values[4096];
    size_t filled = 0;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 4093) {
        values[filled++] = serry_f32_of((uint32_t)bits);
        if (filled == LENGTH(values) || bits + 4093 > UINT32_MAX) {
            check_narrow(values, filled);
            filled = 0;
        }
    }
}

static void midpoints_go_to_even(void **state)
{
    (void)state;
    float values[3 * 1024];
    for (serry_dtype dtype = SERRY_F16; dtype <= SERRY_BF16; dtype++) {
        for (unsigned h = 0; h < 65536; h += 1024) {
            for (unsigned i = 0; i < 1024; i++) {
                double a = (double)half_widened(dtype, h + i);
                double b = (double)half_widened(dtype, (h + i + 1) & 0xffffu);
                float middle = (float)((a + b) / 2);
                values[3 * i] = nextafterf(middle, -INFINITY);
                values[3 * i + 1] = middle;
                values[3 * i + 2] = nextafterf(middle, INFINITY);
            }
            check_narrow(values, LENGTH(values));
        }
    }
    const float greatest = 65520, edge[] = {greatest, nextafterf(greatest, 0), -greatest};
    check_narrow(edge, LENGTH(edge));
    assert_int_equal(serry_f32_to_f16(edge[0]), 0x7c00);
    assert_int_equal(serry_f32_to_f16(edge[1]), 0x7bff);
    assert_int_equal(serry_f32_to_bf16(serry_f32_of(0x7fffffffu)), 0x7fc0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_is_widened),
        cmocka_unit_test(a_dense_sample_is_narrowed),
        cmocka_unit_test(midpoints_go_to_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
