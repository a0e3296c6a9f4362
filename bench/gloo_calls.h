/* gloo_calls.h - Gloo, for a program in C. All that return an int return 0, or -1 after saying what was wrong. */
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

/* Each a bench_function: cells.h. */
int gloo_barrier(void *, float *, float *, size_t count);
int gloo_allreduce(void *, float *send, float *recv, size_t count);
int gloo_allreduce_in_place(void *, float *both, float *, size_t count);
int gloo_broadcast(void *, float *both, float *, size_t count);
int gloo_reduce(void *, float *send, float *recv, size_t count);
int gloo_allgather(void *, float *send, float *recv, size_t count);

#ifdef __cplusplus
}
#endif
#endif
