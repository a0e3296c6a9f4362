/* reference.h - what the collectives must compute, said plainly and slowly, and the values to try.
 *
 * Shares nothing with the library but the enums of types.h. The order of combination is the tree
 * that splits [0, n) at the largest power of two below n, left before right. 16-bit floats are
 * widened to binary32, combined there along the whole tree, and rounded once, to nearest even.
 * SERRY_AVG divides at the end: floats before they are rounded, integers after they have wrapped,
 * towards zero. A NaN in min or max makes NaN; -0 is less than +0. Integers wrap. */
#ifndef TEST_REFERENCE_H
#define TEST_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <serry/types.h>

/* Bytes of an element. */
size_t reference_size(serry_dtype dtype);

bool reference_is_float(serry_dtype dtype);

/* Can the predefined reduction be applied to the type? */
bool reference_valid(serry_op op, serry_dtype dtype);

/* A number that depends on all three and on nothing else. */
uint64_t reference_random(uint64_t seed, uint64_t stream, uint64_t index);

/**
 * Elements [first, first + count) of the input of `rank`, the same for the same arguments whatever
 * the range asked for. Fit for `op`: for float sums the order of addition shows in the bits, one
 * index in eight holds special values (zeros, subnormals, infinities, NaN, extremes).
 */
void reference_fill(void *to, size_t first, size_t count, serry_dtype dtype, serry_op op,
                    uint64_t seed, int rank);

/* The combination of source[0 .. n), `count` elements each. `op` >= SERRY_OP_USER stands for
 * reference_user. */
void reference_combine(void *result, const void *const *source, int n, size_t count,
                       serry_dtype dtype, serry_op op);

/* Index of the first element that differs in its bits, or `count`. With `nan_is_nan`, two NaN of a
 * floating type are the same. */
size_t reference_differ(const void *got, const void *wanted, size_t count, serry_dtype dtype,
                        bool nan_is_nan);

/* The bits of element `index`, for messages. */
uint64_t reference_bits(const void *vector, size_t index, serry_dtype dtype);

/* A reduction of one's own, associative but not commutative, for every type: the upper half of the
 * bits is p and the lower half is q of the map x -> p x + q (modulo 2 ^ half), and two maps are
 * composed. `argument` is not used. A serry_reduce_function. */
void reference_user(void *accumulator, const void *next, size_t count, serry_dtype dtype,
                    void *argument);

#endif
