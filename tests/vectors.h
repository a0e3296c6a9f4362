/* vectors.h - simple vectors of u64 for calls that time out or fail: what must lie in them before
 * and after. */
#ifndef TEST_VECTORS_H
#define TEST_VECTORS_H

#include "harness.h"

#define VECTORS_LARGE 50000u                     /* a count of many elements */
#define VECTORS_MOST ((size_t)VECTORS_LARGE * 4) /* elements of a buffer: up to 4 ranks */
#define UNTOUCHED UINT64_C(0xabababababababab)   /* in recv before a call */

typedef struct vectors {
    uint64_t *send, *recv;
} vectors;

/* Element i of the input of a rank, and the sum over all. */
uint64_t vectors_value(int rank, size_t i);
uint64_t vectors_sum(int size, size_t i);

/* Private memory or the arena's. False if there is none (reported). */
bool vectors_open(test_rank *self, vectors *v, bool arena);
void vectors_close(test_rank *self, vectors *v, bool arena);

/* As they must be before the call. */
void vectors_fill(const test_rank *self, vectors *v, const serry_call *c);

/* Are they as they must be after the call: with its result, or (done = false) as before? Reports
 * the first element that is not. */
void vectors_check(test_rank *self, const vectors *v, const serry_call *c, bool done);

#endif
