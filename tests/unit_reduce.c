/* unit_reduce.c - every reduction of every type against arithmetic written anew, bit for bit, with
 * every kernel set of this processor; and the order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <serry/call.h>

#include "halves.h"
#include "reduce/kernels.h"
#include "reduce/reduce.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

enum { MOST = 256, BLOCK = (int)SERRY_BLOCK_BYTES };

static uint64_t random_state = 0x5e44;

static uint64_t random_bits(void)
{
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* ---- the reference: one element ----------------------------------------------------------- */

/* One element of any type, as what it is combined in: binary32, binary64, or its bits. */
typedef union number {
    float f;
    double d;
    uint64_t u;
} number;

static bool is_floating(serry_dtype dtype)
{
    return dtype <= SERRY_BF16;
}

static uint64_t cut(uint64_t bits, serry_dtype dtype)
{
    return bits & UINT64_MAX >> (64 - 8 * serry_dtype_size(dtype));
}

static int64_t as_signed(uint64_t bits, serry_dtype dtype)
{
    uint64_t top = UINT64_C(1) << (8 * serry_dtype_size(dtype) - 1);
    return (bits & top) != 0 ? -(int64_t)cut(~bits, dtype) - 1 : (int64_t)bits;
}

static number number_at(const unsigned char *vector, size_t i, serry_dtype dtype)
{
    size_t size = serry_dtype_size(dtype);
    number n = {.u = 0};
    memcpy(&n, vector + i * size, size); /* little-endian, or the number's own type */
    if (size == 2 && is_floating(dtype))
        n.f = half_widened(dtype, (unsigned)n.u);
    return n;
}

static void put_number(unsigned char *vector, size_t i, number n, serry_dtype dtype)
{
    size_t size = serry_dtype_size(dtype);
    if (dtype == SERRY_F32 && isnan(n.f))
        n.u = 0x7fc00000u;
    if (dtype == SERRY_F64 && isnan(n.d))
        n.u = UINT64_C(0x7ff8000000000000);
    if (size == 2 && is_floating(dtype))
        n.u = half_narrowed(dtype, n.f);
    memcpy(vector + i * size, &n, size);
}

#define FLOAT_PAIR(type)                                                                           \
    static type pair_##type(type a, type b, serry_op op)                                           \
    {                                                                                              \
        bool first = op == SERRY_MIN ? a < b : a > b;                                              \
        if (op == SERRY_SUM || op == SERRY_AVG)                                                    \
            return a + b;                                                                          \
        if (op == SERRY_PROD)                                                                      \
            return a * b;                                                                          \
        if (isnan(a) || isnan(b))                                                                  \
            return NAN;                                                                            \
        if (a == b)                                                                                \
            first = (signbit(a) != 0) == (op == SERRY_MIN);                                        \
        return first ? a : b;                                                                      \
    }
FLOAT_PAIR(float)
FLOAT_PAIR(double)

static uint64_t pair_integer(uint64_t a, uint64_t b, serry_dtype dtype, serry_op op)
{
    bool is_signed = dtype < SERRY_U8;
    bool less = is_signed ? as_signed(a, dtype) < as_signed(b, dtype) : a < b;
    switch (op) {
    case SERRY_PROD:
        return cut(a * b, dtype);
    case SERRY_MIN:
        return less ? a : b;
    case SERRY_MAX:
        return less ? b : a;
    case SERRY_BAND:
        return a & b;
    case SERRY_BOR:
        return a | b;
    case SERRY_BXOR:
        return a ^ b;
    default:
        return cut(a + b, dtype);
    }
}

static number tree(const number *input, int n, serry_dtype dtype, serry_op op)
{
    if (n == 1)
        return input[0];
    int left = 1;
    while (left * 2 < n)
        left *= 2;
    number a = tree(input, left, dtype, op), b = tree(input + left, n - left, dtype, op);
    if (dtype == SERRY_F64)
        return (number){.d = pair_double(a.d, b.d, op)};
    if (is_floating(dtype))
        return (number){.f = pair_float(a.f, b.f, op)};
    return (number){.u = pair_integer(a.u, b.u, dtype, op)};
}

static number divided(number sum, int n, serry_dtype dtype)
{
    if (dtype == SERRY_F64)
        return (number){.d = sum.d / n};
    if (is_floating(dtype))
        return (number){.f = sum.f / (float)n};
    if (dtype < SERRY_U8)
        return (number){.u = cut((uint64_t)(as_signed(sum.u, dtype) / n), dtype)};
    return (number){.u = sum.u / (unsigned)n};
}

static void reference(unsigned char *result, unsigned char *const *source, int n, size_t count,
                      serry_dtype dtype, serry_op op)
{
    number input[MOST];
    if (n == 1) {
        memcpy(result, source[0], count * serry_dtype_size(dtype));
        return;
    }
    for (size_t i = 0; i < count; i++) {
        for (int s = 0; s < n; s++)
            input[s] = number_at(source[s], i, dtype);
        number sum = tree(input, n, dtype, op);
        put_number(result, i, op == SERRY_AVG ? divided(sum, n, dtype) : sum, dtype);
    }
}

/* ---- inputs ------------------------------------------------------------------------------- */

/* Bits of a float with this many bits of exponent and fraction: special numbers and ordinary ones,
 * by columns, since one NaN makes a NaN of the whole column. */
static uint64_t random_float(size_t column, int exponent, int fraction)
{
    uint64_t bits = random_bits(), sign = bits >> 63 << (exponent + fraction);
    uint64_t infinity = (UINT64_C(1) << (exponent + fraction)) - (UINT64_C(1) << fraction);
    uint64_t bias = infinity / 2 & ~((UINT64_C(1) << fraction) - 1);
    uint64_t tail = bits & ((UINT64_C(1) << fraction) - 1);
    const uint64_t special[] = {0,   1, tail, infinity, infinity | 1, infinity | tail, infinity - 1,
                                bias};
    switch (column % 8) {
    case 0:
        return sign | special[bits >> 60 & 7]; /* all of them */
    case 1:
        return sign; /* zeros */
    case 2:
        return sign | ((bits >> 60 & 1) != 0 ? tail : 0); /* subnormal */
    case 3:
        return sign | (infinity - 1 - (tail & 7)); /* on the way to infinity */
    case 4:
        return bits >> (63 - exponent - fraction); /* anything */
    default:
        return sign | (bias - ((bits >> 60 & 3) << fraction)) | tail; /* about 1 */
    }
}

static uint64_t random_element(serry_dtype dtype, size_t column)
{
    switch (dtype) {
    case SERRY_F32:
        return random_float(column, 8, 23);
    case SERRY_F64:
        return random_float(column, 11, 52);
    case SERRY_F16:
        return random_float(column, 5, 10);
    case SERRY_BF16:
        return random_float(column, 8, 7);
    default:
        return column % 4 == 0 ? UINT64_C(0) - (random_bits() & 1) : random_bits();
    }
}

/* `n` vectors, each off alignment in another way; free() the block that is returned. */
static unsigned char *make_sources(unsigned char **source, int n, size_t count, serry_dtype dtype)
{
    size_t size = serry_dtype_size(dtype), stride = (count * size + 127) / 64 * 64;
    unsigned char *block = aligned_alloc(64, (size_t)n * stride);
    assert_non_null(block);
    for (int s = 0; s < n; s++) {
        source[s] = block + (size_t)s * stride + (size_t)(s % 7) * size;
        for (size_t i = 0; i < count; i++) {
            uint64_t bits = random_element(dtype, i);
            memcpy(source[s] + i * size, &bits, size);
        }
    }
    return block;
}

/* ---- every type, reduction, number of sources, count, alignment, kernel set --------------- */

static const int numbers[] = {1, 2, 3, 4, 5, 7, 8, 16, 31, 256};

static void expect_same(const unsigned char *result, const unsigned char *expected, int n,
                        size_t count, serry_dtype dtype, serry_op op, const char *where)
{
    if (memcmp(result, expected, count * serry_dtype_size(dtype)) != 0)
        fail_msg("%s of %d vectors of %zu %s %s with kernels %s differs", serry_op_name(op), n,
                 count, serry_dtype_name(dtype), where, serry_reduce_kernels());
}

/* Where one of the sources lies, another one for each count. */
static void check_in_place(unsigned char *place, unsigned char *const *source, int n, size_t count,
                           serry_dtype dtype, serry_op op, const unsigned char *expected)
{
    const void *list[MOST];
    size_t which = count % (size_t)n;

    for (int i = 0; i < n; i++)
        list[i] = source[i];
    memcpy(place, source[which], count * serry_dtype_size(dtype));
    list[which] = place;
    serry_reduce_vectors(place, list, n, count, dtype, op);
    expect_same(place, expected, n, count, dtype, op, "in place");
}

/* Runs one reduction into a guarded place, and in place, and compares all of it. */
static void check_count(unsigned char *const *source, int n, size_t count, serry_dtype dtype,
                        serry_op op, const unsigned char *expected)
{
    size_t size = serry_dtype_size(dtype), before = size * (1 + count % 5);
    unsigned char *room = malloc(before + count * size + 64);
    assert_non_null(room);
    memset(room, 0xa5, before + count * size + 64);
    serry_reduce_vectors(room + before, (const void *const *)source, n, count, dtype, op);
    expect_same(room + before, expected, n, count, dtype, op, "apart");
    check_in_place(room + before, source, n, count, dtype, op, expected);
    for (size_t i = 0; i < before; i++)
        assert_int_equal(room[i], 0xa5);
    for (size_t i = before + count * size; i < before + count * size + 64; i++)
        assert_int_equal(room[i], 0xa5);
    free(room);
}

static void check_type(serry_dtype dtype)
{
    size_t size = serry_dtype_size(dtype);
    size_t block = (size_t)BLOCK / (size == 2 && is_floating(dtype) ? sizeof(float) : size);
    const size_t counts[] = {
        0, 1, 3, 7, 8, 9, 15, 16, 17, block - 1, block, block + 1, 3 * block + 5};
    const serry_kernels *sets[3], *used = serry_kernels_used;
    int kernel_sets = serry_kernels_list(sets);
    size_t most = 3 * block + 5;
    unsigned char *source[MOST], *memory = make_sources(source, MOST, most, dtype);
    unsigned char *expected = malloc(most * size);
    assert_non_null(expected);
    for (serry_op op = 0; op < SERRY_OPS; op++) {
        for (size_t i = 0; serry_op_check(op, dtype) && i < LENGTH(numbers); i++) {
            reference(expected, source, numbers[i], most, dtype, op);
            for (int set = 0; set < kernel_sets; set++) {
                serry_kernels_used = sets[set];
                for (size_t c = 0; c < LENGTH(counts); c++)
                    check_count(source, numbers[i], counts[c], dtype, op, expected);
            }
        }
    }
    serry_kernels_used = used;
    free(expected);
    free(memory);
}

static void all_types_match_the_reference(void **state)
{
    (void)state;
    for (serry_dtype dtype = 0; dtype < SERRY_DTYPES; dtype++)
        check_type(dtype);
}

static void every_number_of_ranks_follows_the_tree(void **state)
{
    (void)state;
    enum { COUNT = 5 };
    static const serry_dtype dtypes[] = {SERRY_F32, SERRY_F16};
    for (size_t t = 0; t < LENGTH(dtypes); t++) {
        unsigned char *source[MOST], expected[COUNT * sizeof(float)];
        unsigned char *memory = make_sources(source, MOST, 2 * COUNT, dtypes[t]);
        for (int s = 0; s < MOST; s++)
            source[s] += 5 * serry_dtype_size(dtypes[t]); /* columns 5 and on have few NaN */
        for (int n = 1; n <= MOST; n++) {
            reference(expected, source, n, COUNT, dtypes[t], SERRY_SUM);
            check_count(source, n, COUNT, dtypes[t], SERRY_SUM, expected);
        }
        free(memory);
    }
}

/* ---- past the caches ---------------------------------------------------------------------- */

enum { LINE = (int)SERRY_LINE_BYTES, PAIR_COUNT = 700 };

/* Into one or two guarded results, `off` elements behind the beginning of a line; the second one stands to
 * lines as the first does, or not. */
static void check_stream(unsigned char *const *source, int n, size_t count, serry_dtype dtype,
                         size_t off, bool apart, const unsigned char *expected)
{
    size_t size = serry_dtype_size(dtype), bytes = count * size;
    static _Alignas(64) unsigned char room[2][(PAIR_COUNT + 64) * 8 + 3 * LINE];
    unsigned char *one = room[0] + LINE + off * size;
    unsigned char *other = room[1] + LINE + (off + (apart ? 1 : 0)) * size;

    for (int both = 0; both < 2; both++) {
        void *const result[2] = {one, both == 1 ? other : NULL};
        memset(room, 0xa5, sizeof(room));
        serry_reduce_stream(result, (const void *const *)source, n, count, dtype, SERRY_SUM);
        assert_memory_equal(one, expected, bytes);
        if (both == 1)
            assert_memory_equal(other, expected, bytes);
        for (int i = 0; i < LINE; i++) {
            assert_int_equal(one[-1 - i], 0xa5);
            assert_int_equal(one[bytes + (size_t)i], 0xa5);
            assert_int_equal(other[-1 - i], 0xa5);
            assert_int_equal(other[bytes + (size_t)i], 0xa5);
        }
        for (size_t i = 0; i < bytes && both == 0; i++)
            assert_int_equal(other[i], 0xa5);
    }
}

static void check_streams(serry_dtype dtype)
{
    static const int some[] = {2, 3, 4, 5, 8, 9};
    static const size_t counts[] = {0, 1, 7, 63, 64, 65, 129, PAIR_COUNT};
    static unsigned char expected[PAIR_COUNT * 8];
    unsigned char *source[MOST], *memory = make_sources(source, 9, PAIR_COUNT, dtype);

    for (size_t i = 0; i < LENGTH(some); i++) {
        if (!serry_reduce_streams(some[i], dtype, SERRY_SUM))
            continue;
        reference(expected, source, some[i], PAIR_COUNT, dtype, SERRY_SUM);
        for (size_t c = 0; c < LENGTH(counts); c++)
            for (size_t off = 0; off < 9; off++)
                for (int apart = 0; apart < 2; apart++)
                    check_stream(source, some[i], counts[c], dtype, off, apart == 1, expected);
    }
    free(memory);
}

static void sums_past_the_caches_match_the_reference(void **state)
{
    (void)state;
    const serry_kernels *sets[3], *used = serry_kernels_used;
    int kernel_sets = serry_kernels_list(sets);

    for (int set = 0; set < kernel_sets; set++) {
        serry_kernels_used = sets[set];
        for (serry_dtype dtype = 0; dtype < SERRY_DTYPES; dtype++)
            check_streams(dtype);
    }
    serry_kernels_used = used;
}

/* ---- the order, in numbers that anybody can check ----------------------------------------- */

static float sum_of(const float *values, int n)
{
    const void *source[MOST];
    float result;
    for (int i = 0; i < n; i++)
        source[i] = values + i;
    serry_reduce_vectors(&result, source, n, 1, SERRY_F32, SERRY_SUM);
    return result;
}

static void sums_are_made_in_tree_order(void **state)
{
    (void)state;
    const float big = 16777216, v[] = {big, 1, 1, -big, 1, 1, 1, 1, 1}; /* big + 1 is big */
    assert_true(sum_of(v, 3) == (v[0] + v[1]) + v[2]);
    assert_true(sum_of(v, 4) == (v[0] + v[1]) + (v[2] + v[3]));
    assert_true(sum_of(v, 5) == ((v[0] + v[1]) + (v[2] + v[3])) + v[4]);
    assert_true(sum_of(v, 4) == 1);
    assert_true(sum_of(v, 7) == 4);
    assert_true(sum_of(v, 9) == 6);
}

static void halves_accumulate_in_32_bits(void **state)
{
    (void)state;
    const uint16_t f60000 = 0x7b53, f2048 = 0x6800, one = 0x3c00;
    const uint16_t minus = (uint16_t)(f60000 | 0x8000u);
    const void *over[] = {&f60000, &f60000, &minus}, *small[] = {&f2048, &one, &one};
    uint16_t result;
    serry_reduce_vectors(&result, over, 3, 1, SERRY_F16, SERRY_SUM);
    assert_int_equal(result, f60000);
    serry_reduce_vectors(&result, over, 2, 1, SERRY_F16, SERRY_AVG);
    assert_int_equal(result, f60000);
    serry_reduce_vectors(&result, over, 2, 1, SERRY_F16, SERRY_SUM);
    assert_int_equal(result, 0x7c00);
    serry_reduce_vectors(&result, small, 3, 1, SERRY_F16, SERRY_SUM);
    assert_int_equal(result, f2048 + 1); /* 2050; each sum alone would round to 2048 */
}

static void edges_are_as_documented(void **state)
{
    (void)state;
    const double zero = 0, minus_zero = -0.0, nan = NAN;
    const void *zeros[] = {&zero, &minus_zero}, *one_nan[] = {&nan, &zero};
    const int8_t high = 127, one = 1, minus_seven = -7, none = 0;
    const void *over[] = {&high, &one}, *seven[] = {&minus_seven, &none};
    double real;
    int8_t byte;
    serry_reduce_vectors(&real, zeros, 2, 1, SERRY_F64, SERRY_MIN);
    assert_true(real == 0 && signbit(real));
    serry_reduce_vectors(&real, zeros, 2, 1, SERRY_F64, SERRY_MAX);
    assert_true(real == 0 && !signbit(real));
    serry_reduce_vectors(&real, one_nan, 2, 1, SERRY_F64, SERRY_MIN);
    assert_true(isnan(real));
    serry_reduce_vectors(&byte, over, 2, 1, SERRY_I8, SERRY_SUM);
    assert_int_equal(byte, -128);
    serry_reduce_vectors(&byte, over, 2, 1, SERRY_I8, SERRY_AVG);
    assert_int_equal(byte, -64);
    serry_reduce_vectors(&byte, seven, 2, 1, SERRY_I8, SERRY_AVG);
    assert_int_equal(byte, -3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_types_match_the_reference),
        cmocka_unit_test(every_number_of_ranks_follows_the_tree),
        cmocka_unit_test(sums_past_the_caches_match_the_reference),
        cmocka_unit_test(sums_are_made_in_tree_order),
        cmocka_unit_test(halves_accumulate_in_32_bits),
        cmocka_unit_test(edges_are_as_documented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
