/* reference.c - see reference.h. */
#include "reference.h"

#include <math.h>
#include <string.h>

#define PIECE 256 /* elements combined at a time */

/* How a type is computed with. */
typedef enum arithmetic { IN_F32, IN_F64, IN_SIGNED, IN_UNSIGNED, IN_BITS } arithmetic;

/* A piece of a vector, widened. */
typedef union wide {
    float f32[PIECE];
    double f64[PIECE];
    int64_t i64[PIECE];
    uint64_t u64[PIECE];
} wide;

size_t reference_size(serry_dtype dtype)
{
    static const size_t k_size[] = {4, 8, 2, 2, 1, 2, 4, 8, 1, 2, 4, 8};
    return k_size[dtype];
}

bool reference_is_float(serry_dtype dtype)
{
    return dtype <= SERRY_BF16;
}

bool reference_valid(serry_op op, serry_dtype dtype)
{
    return op < SERRY_BAND || !reference_is_float(dtype);
}

static arithmetic arithmetic_of(serry_dtype dtype, serry_op op)
{
    if (op >= SERRY_OP_USER)
        return IN_BITS;
    if (reference_is_float(dtype))
        return dtype == SERRY_F64 ? IN_F64 : IN_F32;
    return dtype >= SERRY_U8 ? IN_UNSIGNED : IN_SIGNED;
}

/* ---- elements ------------------------------------------------------------------------------- */

uint64_t reference_bits(const void *vector, size_t index, serry_dtype dtype)
{
    size_t size = reference_size(dtype);
    uint64_t bits = 0;
    memcpy(&bits, (const char *)vector + index * size, size); /* little-endian */
    return bits;
}

static void set_bits(void *vector, size_t index, serry_dtype dtype, uint64_t bits)
{
    size_t size = reference_size(dtype);
    memcpy((char *)vector + index * size, &bits, size);
}

static int64_t sign_extended(uint64_t bits, serry_dtype dtype)
{
    unsigned above = 64 - 8 * (unsigned)reference_size(dtype);
    return (int64_t)(bits << above) >> above;
}

static float float_of_f16(uint64_t bits)
{
    int exponent = (int)(bits >> 10 & 31);
    int mantissa = (int)(bits & 1023);
    float value;
    if (exponent == 31)
        value = mantissa != 0 ? NAN : INFINITY;
    else if (exponent == 0)
        value = ldexpf((float)mantissa, -24);
    else
        value = ldexpf((float)(mantissa + 1024), exponent - 25);
    return bits >> 15 ? -value : value;
}

static uint64_t f16_of_float(float value)
{
    uint64_t sign = signbit(value) ? 0x8000 : 0;
    double size = fabs((double)value);
    if (isnan(value))
        return 0x7e00;
    if (size >= 65520.0)
        return sign | 0x7c00;
    int exponent = size < 0x1p-14 ? -14 : ilogb(size);
    double units = nearbyint(ldexp(size, 10 - exponent)); /* to nearest even */
    return sign | ((uint64_t)(exponent + 14) * 1024 + (uint64_t)units);
}

static float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static uint64_t bf16_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    if (isnan(value))
        return 0x7fc0;
    uint32_t upper = bits >> 16, lower = bits & 0xffff;
    bool up = lower > 0x8000 || (lower == 0x8000 && (upper & 1) != 0);
    return upper + up;
}

static void widen(wide *to, const void *from, size_t first, size_t count, serry_dtype dtype,
                  arithmetic how)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t bits = reference_bits(from, first + i, dtype);
        if (how == IN_SIGNED)
            to->i64[i] = sign_extended(bits, dtype);
        else if (how == IN_F32 && dtype == SERRY_F32)
            to->f32[i] = float_of_bits((uint32_t)bits);
        else if (how == IN_F32 && dtype == SERRY_BF16)
            to->f32[i] = float_of_bits((uint32_t)bits << 16);
        else if (how == IN_F32)
            to->f32[i] = float_of_f16(bits);
        else
            to->u64[i] = bits; /* of a double too */
    }
}

static void narrow(void *to, size_t first, const wide *from, size_t count, serry_dtype dtype,
                   arithmetic how)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t bits = from->u64[i];
        if (how == IN_F32) {
            uint32_t half;
            memcpy(&half, &from->f32[i], sizeof(half));
            bits = dtype == SERRY_F32    ? half
                   : dtype == SERRY_BF16 ? bf16_of_float(from->f32[i])
                                         : f16_of_float(from->f32[i]);
        }
        set_bits(to, first + i, dtype, bits);
    }
}

/* ---- combining ------------------------------------------------------------------------------ */

static uint64_t user(uint64_t a, uint64_t b, serry_dtype dtype)
{
    unsigned half = 4 * (unsigned)reference_size(dtype);
    uint64_t mask = (UINT64_C(1) << half) - 1;
    uint64_t p = (a >> half) * (b >> half);
    uint64_t q = (a >> half) * (b & mask) + (a & mask);
    return (p & mask) << half | (q & mask);
}

void reference_user(void *accumulator, const void *next, size_t count, serry_dtype dtype,
                    void *argument)
{
    (void)argument;
    for (size_t i = 0; i < count; i++)
        set_bits(
            accumulator, i, dtype,
            user(reference_bits(accumulator, i, dtype), reference_bits(next, i, dtype), dtype));
}

/* The lesser of two doubles (exact for floats too); the greater is the same of the negatives. */
static double lesser(double a, double b)
{
    if (isnan(a) || isnan(b))
        return NAN;
    if (a == b)
        return signbit(a) ? a : b;
    return a < b ? a : b;
}

static float join_f32(float a, float b, serry_op op)
{
    switch (op) {
    case SERRY_PROD:
        return a * b;
    case SERRY_MIN:
        return (float)lesser((double)a, (double)b);
    case SERRY_MAX:
        return -(float)lesser(-(double)a, -(double)b);
    default:
        return a + b;
    }
}

static double join_f64(double a, double b, serry_op op)
{
    switch (op) {
    case SERRY_PROD:
        return a * b;
    case SERRY_MIN:
        return lesser(a, b);
    case SERRY_MAX:
        return -lesser(-a, -b);
    default:
        return a + b;
    }
}

/* Modulo 2^64, which holds modulo any smaller power. */
static uint64_t join_u64(uint64_t a, uint64_t b, serry_op op, arithmetic how)
{
    bool less = how == IN_SIGNED ? (int64_t)a < (int64_t)b : a < b;
    switch (op) {
    case SERRY_PROD:
        return a * b;
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
        return a + b;
    }
}

static void join(wide *left, const wide *right, size_t count, serry_dtype dtype, serry_op op,
                 arithmetic how)
{
    for (size_t i = 0; i < count; i++)
        switch (how) {
        case IN_F32:
            left->f32[i] = join_f32(left->f32[i], right->f32[i], op);
            break;
        case IN_F64:
            left->f64[i] = join_f64(left->f64[i], right->f64[i], op);
            break;
        case IN_SIGNED:
        case IN_UNSIGNED:
            left->u64[i] = join_u64(left->u64[i], right->u64[i], op, how);
            break;
        case IN_BITS:
            left->u64[i] = user(left->u64[i], right->u64[i], dtype);
            break;
        }
}

static void divide(wide *sum, int n, size_t count, serry_dtype dtype, arithmetic how)
{
    uint64_t mask = UINT64_MAX >> (64 - 8 * reference_size(dtype));
    for (size_t i = 0; i < count; i++)
        switch (how) {
        case IN_F32:
            sum->f32[i] /= (float)n;
            break;
        case IN_F64:
            sum->f64[i] /= (double)n;
            break;
        case IN_SIGNED:
            sum->i64[i] = sign_extended(sum->u64[i], dtype) / n;
            break;
        case IN_UNSIGNED:
        case IN_BITS:
            sum->u64[i] = (sum->u64[i] & mask) / (uint64_t)n;
            break;
        }
}

static void tree(wide *result, const void *const *source, int n, size_t first, size_t count,
                 serry_dtype dtype, serry_op op, arithmetic how)
{
    if (n == 1) {
        widen(result, source[0], first, count, dtype, how);
        return;
    }
    wide right;
    int left = 1;
    while (2 * left < n)
        left *= 2;
    tree(result, source, left, first, count, dtype, op, how);
    tree(&right, source + left, n - left, first, count, dtype, op, how);
    join(result, &right, count, dtype, op, how);
}

void reference_combine(void *result, const void *const *source, int n, size_t count,
                       serry_dtype dtype, serry_op op)
{
    arithmetic how = arithmetic_of(dtype, op);
    for (size_t first = 0; first < count; first += PIECE) {
        size_t some = count - first < PIECE ? count - first : PIECE;
        wide sum;
        tree(&sum, source, n, first, some, dtype, op, how);
        if (op == SERRY_AVG)
            divide(&sum, n, some, dtype, how);
        narrow(result, first, &sum, some, dtype, how);
    }
}

static bool is_nan(uint64_t bits, serry_dtype dtype)
{
    static const uint64_t k_infinity[] = {0x7f800000, UINT64_C(0x7ff) << 52, 0x7c00, 0x7f80};
    uint64_t without_sign = bits & (UINT64_MAX >> (65 - 8 * reference_size(dtype)));
    return reference_is_float(dtype) && without_sign > k_infinity[dtype];
}

size_t reference_differ(const void *got, const void *wanted, size_t count, serry_dtype dtype,
                        bool nan_is_nan)
{
    if (count == 0 || memcmp(got, wanted, count * reference_size(dtype)) == 0)
        return count;
    for (size_t i = 0; i < count; i++) {
        uint64_t a = reference_bits(got, i, dtype), b = reference_bits(wanted, i, dtype);
        if (a != b && !(nan_is_nan && is_nan(a, dtype) && is_nan(b, dtype)))
            return i;
    }
    return count;
}

/* ---- inputs --------------------------------------------------------------------------------- */

uint64_t reference_random(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint64_t x = seed ^ (stream * UINT64_C(0xd1342543de82ef95));
    x += (index + 1) * UINT64_C(0x9e3779b97f4a7c15);
    for (int round = 0; round < 2; round++) {
        x = (x ^ (x >> 31)) * UINT64_C(0x7fb5d329728ea185);
        x = (x ^ (x >> 27)) * UINT64_C(0x81dadef4bc2dd44d);
        x ^= x >> 33;
    }
    return x;
}

/* Format of a floating type, and exponents to try it with. */
static const struct format {
    unsigned mantissa; /* bits */
    int bias;
    int spread; /* plain values have exponents in [-spread, spread] */
    int large;  /* exponent of values that cancel each other in a sum */
    int huge;   /* exponent of values that overflow together in a product */
} k_format[] = {
    [SERRY_F32] = {23, 127, 6, 20, 100},
    [SERRY_F64] = {52, 1023, 6, 45, 900},
    [SERRY_F16] = {10, 15, 6, 15, 13},
    [SERRY_BF16] = {7, 127, 20, 20, 100},
};

static uint64_t float_bits(serry_dtype dtype, bool minus, int exponent, uint64_t mantissa)
{
    const struct format *f = &k_format[dtype];
    uint64_t sign = (uint64_t)minus << (8 * reference_size(dtype) - 1);
    return sign | (uint64_t)(exponent + f->bias) << f->mantissa |
           (mantissa & ((UINT64_C(1) << f->mantissa) - 1));
}

/* `mood` chooses for all ranks which specials stand at an index, `r` one of them. */
static uint64_t special_float(serry_dtype dtype, uint64_t mood, uint64_t r)
{
    const struct format *f = &k_format[dtype];
    uint64_t ones = (UINT64_C(1) << f->mantissa) - 1;
    int infinity = f->bias + 1;
    bool minus = (r >> 8 & 1) != 0;

    switch (r % 4 + (mood % 4 == 0 ? 4 : mood % 4 == 1 ? 8 : 0)) {
    case 4:
    case 5:
        return float_bits(dtype, minus, infinity, 0); /* infinity */
    case 6:
    case 7:
        return float_bits(dtype, minus, infinity - 1, ones); /* the largest */
    case 8:
        return float_bits(dtype, minus, infinity, UINT64_C(1) << (f->mantissa - 1)); /* NaN */
    case 0:
        return float_bits(dtype, minus, -f->bias, 1); /* the smallest */
    case 1:
        return float_bits(dtype, minus, -f->bias, ones); /* the largest subnormal */
    case 2:
        return float_bits(dtype, minus, 0, 0); /* 1 */
    default:
        return float_bits(dtype, minus, -f->bias, 0); /* 0 */
    }
}

static uint64_t float_input(serry_dtype dtype, serry_op op, uint64_t at_index, uint64_t r)
{
    const struct format *f = &k_format[dtype];
    bool minus = (r >> 60 & 1) != 0;
    int spread = op == SERRY_PROD ? 1 : f->spread;
    int exponent = (int)(r >> 48 & 0xfff) % (2 * spread + 1) - spread;

    if (at_index % 8 == 0 && (r >> 61 & 1) != 0)
        return special_float(dtype, at_index >> 3, r);
    if (at_index % 8 <= 2 && op == SERRY_PROD)
        return float_bits(dtype, minus, (r >> 62) == 1 ? f->huge : -f->huge, r);
    if (at_index % 8 <= 2) /* large ones that cancel, among small ones that they swallow */
        return (r >> 62) != 0 ? float_bits(dtype, minus, f->large, at_index >> 8)
                              : float_bits(dtype, minus, -f->spread - (int)(r >> 48 & 3), r);
    return float_bits(dtype, minus, exponent, r);
}

static uint64_t integer_input(serry_dtype dtype, serry_op op, uint64_t at_index, uint64_t r,
                              uint64_t other)
{
    uint64_t top = UINT64_C(1) << (8 * reference_size(dtype) - 1);
    if (op >= SERRY_OP_USER) /* p odd: nothing is lost in a product */
        return r | UINT64_C(1) << (4 * reference_size(dtype));
    if (at_index % 8 == 0 && (r >> 61 & 1) != 0) {
        const uint64_t k_special[] = {0, 1, UINT64_MAX, top, top - 1, top + 1, 2, UINT64_MAX - 1};
        return k_special[r % 8];
    }
    if (op == SERRY_PROD)
        return r | 1;
    if (op == SERRY_BAND)
        return r | other | other << 7 | other >> 9;
    if (op == SERRY_BOR)
        return r & other & (other << 7 | other >> 57);
    return r;
}

void reference_fill(void *to, size_t first, size_t count, serry_dtype dtype, serry_op op,
                    uint64_t seed, int rank)
{
    bool is_float = reference_is_float(dtype) && op < SERRY_OP_USER;
    for (size_t i = 0; i < count; i++) {
        uint64_t at_index = reference_random(seed, UINT64_MAX, first + i);
        uint64_t r = reference_random(seed, (uint64_t)rank, first + i);
        set_bits(to, i, dtype,
                 is_float ? float_input(dtype, op, at_index, r)
                          : integer_input(dtype, op, at_index, r, reference_random(r, 1, 1)));
    }
}
