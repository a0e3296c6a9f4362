/* half_avx2.h - 16-bit floats with AVX2 and F16C, eight at a time: binary16 with the conversion
 * instructions, bfloat16 by shifts.
 *
 * Compilers do not vectorise the former by themselves, and the latter with many moves between lanes. The
 * functions are those of half.h and of FLOAT_PAIRS in kernels.inc, with the same bits. */
#ifndef SERRY_REDUCE_HALF_AVX2_H
#define SERRY_REDUCE_HALF_AVX2_H

#include <immintrin.h>
#include <stdbool.h>

#include "half.h"

static inline float widen_f16c(uint16_t half)
{
    return _cvtsh_ss(half);
}

static inline uint16_t narrow_f16c(float value)
{
    return _cvtss_sh(serry_f32_one_nan(value), _MM_FROUND_TO_NEAREST_INT);
}

static inline __m256 widen_f16c_8(const void *half)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(half));
}

static inline void narrow_f16c_8(void *half, __m256 value)
{
    __m256 nan = _mm256_cmp_ps(value, value, _CMP_UNORD_Q);
    value = _mm256_blendv_ps(value, _mm256_set1_ps(__builtin_nanf("")), nan);
    _mm_storeu_si128(half, _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}

static inline __m256 widen_bf16_8(const void *half)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(half)), 16));
}

/* Rounded, in the upper halves; what is left in the lower ones is to be dropped. */
static inline __m256i round_bf16(__m256 value)
{
    __m256i bits = _mm256_castps_si256(value);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));

    bits = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    return _mm256_blendv_epi8(bits, _mm256_set1_epi32(0x7fc00000), nan);
}

static inline void narrow_bf16_8(void *half, __m256 value)
{
    __m256i upper = _mm256_srli_epi32(round_bf16(value), 16);
    __m128i low = _mm256_castsi256_si128(upper), high = _mm256_extracti128_si256(upper, 1);

    _mm_storeu_si128(half, _mm_packus_epi32(low, high));
}

static inline __m256 sum_f32_8(__m256 a, __m256 b)
{
    return _mm256_add_ps(a, b);
}

static inline __m256 prod_f32_8(__m256 a, __m256 b)
{
    return _mm256_mul_ps(a, b);
}

static inline __m256 min_f32_8(__m256 a, __m256 b)
{
    return _mm256_or_ps(_mm256_min_ps(a, b), _mm256_min_ps(b, a));
}

static inline __m256 max_f32_8(__m256 a, __m256 b)
{
    __m256 one = _mm256_max_ps(a, b), other = _mm256_max_ps(b, a);
    __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), _mm256_or_ps(one, other));
    return _mm256_or_ps(magnitude, _mm256_and_ps(one, other));
}

/* Sixteen, widened: of bfloat16 those at even places, and those at odd ones, so that none has to change its
 * lane; of binary16 the first eight, and the others. */
typedef struct wide_16 {
    __m256 one, other;
} wide_16;

/* Is any of them NaN? Next to none is. */
static inline bool has_nan(wide_16 value)
{
    __m256 unordered = _mm256_cmp_ps(value.one, value.other, _CMP_UNORD_Q);
    return __builtin_expect(_mm256_movemask_ps(unordered) != 0, 0);
}

static inline wide_16 widen_f16c_16(const uint16_t *half)
{
    return (wide_16){widen_f16c_8(half), widen_f16c_8(half + 8)};
}

static inline void narrow_f16c_16(uint16_t *half, wide_16 value)
{
    if (has_nan(value)) {
        narrow_f16c_8(half, value.one);
        narrow_f16c_8(half + 8, value.other);
        return;
    }
    _mm_storeu_si128((void *)half, _mm256_cvtps_ph(value.one, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((void *)(half + 8), _mm256_cvtps_ph(value.other, _MM_FROUND_TO_NEAREST_INT));
}

static inline wide_16 widen_bf16_16(const void *half)
{
    __m256i bits = _mm256_loadu_si256(half);
    return (wide_16){_mm256_castsi256_ps(_mm256_slli_epi32(bits, 16)),
                     _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(-0x10000)))};
}

/* Rounded all together, as numbers of 16 bits: one more where the half that is dropped is more than half a
 * unit, or just that, and the half that stays is odd. */
static inline void narrow_bf16_16(void *half, wide_16 value)
{
    __m256i even = _mm256_castps_si256(value.one), odd = _mm256_castps_si256(value.other);
    __m256i stays = _mm256_blend_epi16(_mm256_srli_epi32(even, 16), odd, 0xaa);
    __m256i drops = _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xaa);

    if (has_nan(value)) {
        even = _mm256_srli_epi32(round_bf16(value.one), 16);
        _mm256_storeu_si256(half, _mm256_blend_epi16(even, round_bf16(value.other), 0xaa));
        return;
    }
    drops = _mm256_xor_si256(drops, _mm256_set1_epi16(INT16_MIN)); /* to compare it signed */
    drops = _mm256_adds_epi16(drops, _mm256_and_si256(stays, _mm256_set1_epi16(1)));
    stays = _mm256_sub_epi16(stays, _mm256_cmpgt_epi16(drops, _mm256_setzero_si256()));
    _mm256_storeu_si256(half, stays);
}

#define BOTH(pair)                                                                                 \
    static inline wide_16 pair##_16(wide_16 a, wide_16 b)                                          \
    {                                                                                              \
        return (wide_16){pair##_8(a.one, b.one), pair##_8(a.other, b.other)};                      \
    }
BOTH(sum_f32)
BOTH(prod_f32)
BOTH(min_f32)
BOTH(max_f32)
#undef BOTH

#endif
