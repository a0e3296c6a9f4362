/* reduce.h - combining vectors in the one documented order (docs/reductions.md). */
#ifndef SERRY_REDUCE_H
#define SERRY_REDUCE_H

#include <serry/types.h>

/* Combine n vectors (1 to SERRY_MAX_RANKS) of `count` elements, each in the order of its index,
 * into `result`, which may be one of the sources, and must not overlap any in part. Vectors may be unaligned to anything but their
 * element's natural size. SERRY_AVG divides by n. The order: the tree that splits [0, n) at the
 * largest power of two below n, left before right; so ((0+1)+(2+3))+4 for five. It depends on n
 * alone, never on count, alignment, position or kernel. 16-bit floats are widened once, combined in
 * binary32 along the whole tree, and rounded once. A NaN comes out as the one quiet NaN without
 * payload, but n = 1 is a copy. `op` must be valid for `dtype` (serry_op_check). Allocates nothing,
 * takes no lock and makes no system call; about 30 KiB of stack at most. */
void serry_reduce_vectors(void *result, const void *const *source, int n, size_t count,
                          serry_dtype dtype, serry_op op);

/* The same into one or two results (result[1] may be NULL) that lie in others' caches or in none: past the caches,
 * without fetching the lines that are overwritten. What was written is there for whoever sees a later release.
 * Only where serry_reduce_streams() says so: a sum of some numbers of vectors, on some processors. */
bool serry_reduce_streams(int n, serry_dtype dtype, serry_op op);
void serry_reduce_stream(void *const result[2], const void *const *source, int n, size_t count,
                         serry_dtype dtype, serry_op op);

/* The same in two goes, to the same bits: the sources in blocks of the same power of two each, but the
 * last, which may have fewer, combined to one part each, in their order; then all parts (2 or more) of
 * the n sources to the result. 16-bit floats stay in binary32 between the two, so `part` has elements
 * of serry_part_size() bytes. */
void serry_reduce_part(void *part, const void *const *source, int n, size_t count,
                       serry_dtype dtype, serry_op op);
void serry_reduce_parts(void *result, const void *const *part, int parts, int n, size_t count,
                        serry_dtype dtype, serry_op op);
size_t serry_part_size(serry_dtype dtype, serry_op op);

/* Can `op` be applied to `dtype`? False for unknown values, freed user operations, and bitwise
 * operations on floating types. */
bool serry_op_check(serry_op op, serry_dtype dtype);

/* The name of the kernel set in use: "baseline", "avx2", "avx512", "neon". */
const char *serry_reduce_kernels(void);

#endif
