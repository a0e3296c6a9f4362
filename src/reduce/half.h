/* half.h - 16-bit floats by bit arithmetic: one value at a time, no branches, so that loops over
 * them become vector code on every machine. NaN comes out as the one NaN of docs/reductions.md
 * when a value is rounded. */
#ifndef SERRY_REDUCE_HALF_H
#define SERRY_REDUCE_HALF_H

#include <stdint.h>
#include <string.h>

/* Two's powers as they stand in the exponent of a binary32. */
#define SERRY_F32_EXPONENT(biased) ((uint32_t)(biased) << 23)

static inline uint32_t serry_f32_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static inline float serry_f32_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* Any NaN becomes the quiet one without payload; everything else stays. */
static inline float serry_f32_one_nan(float value)
{
    return value == value ? value : __builtin_nanf("");
}

/* `yes` where `condition` is 1, `no` where it is 0. Selected with a mask and not with ?:, which
 * compilers may turn into a jump around the floating operations, and then cannot vectorise. */
static inline uint32_t serry_select(uint32_t condition, uint32_t yes, uint32_t no)
{
    uint32_t mask = 0u - condition;
    return (yes & mask) | (no & ~mask);
}

/* Exact. */
static inline float serry_bf16_to_f32(uint16_t half)
{
    return serry_f32_of((uint32_t)half << 16);
}

/* Nearest, ties to even; too large becomes infinity; any NaN becomes 0x7fc0. */
static inline uint16_t serry_f32_to_bf16(float value)
{
    uint32_t bits = serry_f32_bits(serry_f32_one_nan(value));
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* Exact; a NaN stays one. Exponents of binary16 are 112 below those of binary32. */
static inline float serry_f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t rest = (uint32_t)(half & 0x7fffu) << 13;
    /* 2^-14 (1 + f) - 2^-14: the subtraction finds the leading bit of a subnormal. */
    float small =
        serry_f32_of(rest + SERRY_F32_EXPONENT(113)) - serry_f32_of(SERRY_F32_EXPONENT(113));
    uint32_t bits = rest + SERRY_F32_EXPONENT(112);
    bits = serry_select(rest < SERRY_F32_EXPONENT(1), serry_f32_bits(small), bits);
    bits = serry_select(rest >= SERRY_F32_EXPONENT(31), rest + SERRY_F32_EXPONENT(224), bits);
    return serry_f32_of(sign | bits);
}

/* Nearest, ties to even; 65520 and above becomes infinity; any NaN becomes 0x7e00. */
static inline uint16_t serry_f32_to_f16(float value)
{
    uint32_t bits = serry_f32_bits(value);
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t rest = bits & 0x7fffffffu;
    /* The unit in the last place of 0.5f is that of a subnormal binary16: the addition rounds. */
    uint32_t small = serry_f32_bits(serry_f32_of(rest) + 0.5f) - serry_f32_bits(0.5f);
    uint32_t half = (rest - SERRY_F32_EXPONENT(112) + 0xfffu + ((rest >> 13) & 1u)) >> 13;
    half = serry_select(rest < SERRY_F32_EXPONENT(113), small, half);
    half = serry_select(rest >= SERRY_F32_EXPONENT(143), 0x7c00u, half);
    return (uint16_t)serry_select(rest > 0x7f800000u, 0x7e00u, sign | half);
}

#endif
