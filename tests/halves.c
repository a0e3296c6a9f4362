/* halves.c - see halves.h. */
#include "halves.h"

#include <math.h>
#include <stdbool.h>

typedef struct half_format {
    int fraction; /* bits */
    int least;    /* exponent of the least normal number */
    int greatest; /* exponent of the greatest finite numbers */
} half_format;

static const half_format k_f16 = {10, -14, 15}, k_bf16 = {7, -126, 127};

static const half_format *format_of(serry_dtype dtype)
{
    return dtype == SERRY_F16 ? &k_f16 : &k_bf16;
}

float half_widened(serry_dtype dtype, unsigned half)
{
    const half_format *format = format_of(dtype);
    int exponent = (int)(half & 0x7fffu) >> format->fraction;
    double fraction = half & ((1u << format->fraction) - 1u), one = 1 << format->fraction;
    double sign = (half & 0x8000u) != 0 ? -1 : 1;
    if (exponent == format->greatest - format->least + 2)
        return fraction != 0 ? NAN : (float)(sign * INFINITY);
    if (exponent == 0)
        return (float)(sign * ldexp(fraction / one, format->least));
    return (float)(sign * ldexp(1 + fraction / one, exponent + format->least - 1));
}

unsigned half_narrowed(serry_dtype dtype, float value)
{
    const half_format *format = format_of(dtype);
    unsigned infinity = (unsigned)(format->greatest - format->least + 2) << format->fraction;
    if (isnan(value))
        return infinity | 1u << (format->fraction - 1);
    unsigned sign = signbit(value) ? 0x8000u : 0;
    if (isinf(value))
        return sign | infinity;
    int exponent = value == 0 || ilogbf(value) < format->least ? format->least : ilogbf(value);
    double units = nearbyint(ldexp(fabs((double)value), format->fraction - exponent));
    /* In units of the last place the numbers of one exponent follow those of the one below. */
    double half = units + ldexp(exponent - format->least, format->fraction);
    return sign | (half > infinity ? infinity : (unsigned)half);
}
