/* f16c.h - binary16 with the conversion instructions of x86-64, one value and eight at a time.
 *
 * Compilers do not vectorise these conversions by themselves. The functions are those of half.h and
 * of FLOAT_PAIRS in kernels.inc, with the same bits. */
#ifndef SERRY_REDUCE_F16C_H
#define SERRY_REDUCE_F16C_H

#include <immintrin.h>

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

#endif
