/* kernels.h - the loops of a reduction: one table per instruction set, all giving the same bits. */
#ifndef SERRY_REDUCE_KERNELS_H
#define SERRY_REDUCE_KERNELS_H

#include <serry/types.h>

/* Bytes of one temporary vector: a few of them stay in the first-level cache. */
#define SERRY_BLOCK_BYTES 2048u

/* Can n vectors be combined in one pass over them? */
static inline bool serry_one_pass(int n)
{
    return n == 2 || n == 3 || n == 4 || n == 8;
}

/* Combine n vectors (serry_one_pass) element by element, along the documented tree: (0 1), (0 1) 2,
 * (0 1)(2 3), ((0 1)(2 3))((4 5)(6 7)). `result` may be one of the sources, if it has their type. */
typedef void serry_combine_function(void *result, const void *const *source, int n, size_t count);

/* The same into two results at once (the second may be NULL), past the caches. `count` elements are whole lines of
 * SERRY_LINE_BYTES, and the first result begins with a line; it costs less where the second does, too. */
#define SERRY_LINE_BYTES 64u
typedef void serry_stream_function(void *const *result, const void *const *source, int n,
                                   size_t count);

/* vector[i] /= divisor, divisor > 1; integers truncate towards zero. */
typedef void serry_divide_function(void *vector, size_t count, int divisor);

/* `count` 16-bit floats to binary32, exactly; and back, rounded to nearest even. No overlap. */
typedef void serry_widen_function(float *result, const void *source, size_t count);
typedef void serry_narrow_function(void *result, const float *source, size_t count);

/* The kernels of one element type. A floating result of its own type is never another NaN than the
 * quiet one without payload. SERRY_AVG has the sum. NULL: the reduction does not apply. */
typedef struct serry_type_kernels {
    serry_combine_function *combine[SERRY_OPS]; /* vectors of the type to one of the type */
    serry_stream_function *stream_sum;          /* SERRY_SUM; NULL: there is none */
    serry_divide_function *divide;              /* of binary32 vectors for 16-bit floats */
    /* 16-bit floats, else NULL: */
    serry_combine_function *combine_wide[SERRY_OPS]; /* vectors of the type to one of binary32 */
    serry_widen_function *widen;
    serry_narrow_function *narrow;
} serry_type_kernels;

typedef struct serry_kernels {
    const char *name;
    serry_type_kernels type[SERRY_DTYPES];
} serry_kernels;

extern const serry_kernels serry_kernels_baseline;
#if defined(__x86_64__)
extern const serry_kernels serry_kernels_avx2;
extern const serry_kernels serry_kernels_avx512;
#endif

/* The set in use; never NULL. Chosen when the library is loaded; tests choose others that
 * serry_kernels_list() names, while nothing is being reduced. */
extern const serry_kernels *serry_kernels_used;

/* Writes the sets that this processor can run, the best last, to list[0..2]; returns how many. */
int serry_kernels_list(const serry_kernels *list[3]);

#endif
