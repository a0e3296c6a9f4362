/* halves.h - what 16-bit floats stand for, said in plain arithmetic. */
#ifndef TEST_HALVES_H
#define TEST_HALVES_H

#include <serry/types.h>

/* Of SERRY_F16 or SERRY_BF16, in its low 16 bits. Any NaN is NAN. */
float half_widened(serry_dtype dtype, unsigned half);

/* To nearest, even in the middle; the one quiet NaN without a sign. */
unsigned half_narrowed(serry_dtype dtype, float value);

#endif
