/* kernels.h - the loops of a reduction: one table per instruction set, all giving the same bits. */
#ifndef SERRY_REDUCE_KERNELS_H
#define SERRY_REDUCE_KERNELS_H

#include <serry/types.h>

/* A combination of up to this many vectors is one pass over them. A power of two, so that passes
 * over groups of SERRY_FAN make up the documented tree. */
#define SERRY_FAN 4

/* Bytes of one temporary vector: a few of them stay in the first-level cache. */
#define SERRY_BLOCK_BYTES 2048u

/* result = ((0 op 1) op (2 op 3)) for n = 4, ((0 op 1) op 2) for 3, (0 op 1) for 2, element by
 * element. `result` overlaps no source. A floating result that is NaN is the one quiet NaN. */
typedef void serry_combine_function(void *result, const void *const *source, int n, size_t count);

/* vector[i] /= divisor, divisor > 1; integers truncate towards zero. */
typedef void serry_divide_function(void *vector, size_t count, int divisor);

/* `count` 16-bit floats to binary32, exactly; and back, rounded to nearest even. No overlap. */
typedef void serry_widen_function(float *result, const void *source, size_t count);
typedef void serry_narrow_function(void *result, const float *source, size_t count);

typedef struct serry_kernels {
    const char *name;
    /* NULL where the reduction does not apply to the type. SERRY_AVG has the sum. A 16-bit float has
     * what works on its widened vectors. */
    serry_combine_function *combine[SERRY_DTYPES][SERRY_OPS];
    serry_divide_function *divide[SERRY_DTYPES]; /* likewise on widened vectors */
    serry_widen_function *widen[SERRY_DTYPES];   /* NULL but for 16-bit floats */
    serry_narrow_function *narrow[SERRY_DTYPES]; /* likewise */
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
