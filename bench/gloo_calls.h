/* gloo_calls.h - Gloo, for a program in C. All return 0, or -1 after saying what was wrong. */
#ifndef BENCH_GLOO_CALLS_H
#define BENCH_GLOO_CALLS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of the memory through which the ranks find each other; they share it, zeroed, beforehand. */
size_t gloo_memory_bytes(int ranks);

/* All ranks, once; gloo_end() when all is done. */
int gloo_begin(void *memory, int rank, int ranks);
void gloo_end(void);

int gloo_barrier(void);
int gloo_allreduce(float *send, float *recv, size_t count); /* send NULL: in place */
int gloo_broadcast(float *both, size_t count);
int gloo_reduce(float *send, float *recv, size_t count);
int gloo_allgather(float *send, float *recv, size_t count);

#ifdef __cplusplus
}
#endif
#endif
