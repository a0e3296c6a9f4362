/* common.h - what the benchmarks share: a clock, a synchroniser of their own, the timing of a cell.
 *
 * A cell is one operation of one library at one size and number of ranks. The synchroniser belongs
 * to the benchmark and not to what is timed, so every library starts each call from the same state. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_LINE 64u
#define BENCH_RANKS_MAX 256
#define BENCH_CALLS_MAX 4000 /* timed calls of one cell */
#define BENCH_CPU_WORDS 16   /* affinity masks of 1024 processors */

/* Memory that all ranks of a run see; zeroed when it is made. */
typedef struct bench_shared {
    /* a line for each kind of traffic */
    _Alignas(
        BENCH_LINE) _Atomic uint32_t arrived; /* ranks in this meeting; the last one clears it */
    _Alignas(
        BENCH_LINE) _Atomic uint32_t meetings;     /* the last to arrive adds 1, release; the others
                                                       wait for that, acquire */
    _Alignas(BENCH_LINE) _Atomic uint32_t present; /* ranks that have begun */
    _Atomic uint32_t failed;                       /* nonzero: a rank has given up */
    _Atomic uint64_t wrong;                        /* wrong elements seen in this cell */
    _Atomic uint64_t cpus[BENCH_CPU_WORDS];        /* where the ranks may run, together */
    uint32_t calls; /* plain: rank 0 writes it between two meetings */
    _Alignas(BENCH_LINE) uint64_t ns[][BENCH_CALLS_MAX]; /* [rank][call]: durations, plain; each
                                                            rank its own, rank 0 after a meeting */
} bench_shared;

/* One rank's part in a run. */
typedef struct bench {
    bench_shared *shared;
    int rank, ranks;
    bool crowded; /* more ranks than processors: wait by yielding */
} bench;

/* One cell, as one rank sees it. */
typedef struct bench_cell {
    const char *library, *operation;
    size_t bytes;                               /* as printed */
    void (*rewrite)(void *self, uint32_t call); /* before each timed call, untimed; NULL: nothing */
    int (*run)(void *self);                     /* the call. 0, or -1 after saying what was wrong */
    uint64_t (*check)(void *self, uint32_t call, bool all); /* number of wrong elements, among all
                                                               or a few; NULL: nothing to check */
    void *self;
} bench_cell;

/* CLOCK_MONOTONIC, ns. */
uint64_t bench_now_ns(void);

/* What a core is told in a loop that waits for memory to change. */
static inline void bench_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

/* A processor of the n-th core (from 0) that this thread may run on; -1: there is none. */
int bench_core(int n);

/* Bind this thread to one processor. */
void bench_bind(int cpu);

/* Bytes of a bench_shared for so many ranks. */
size_t bench_shared_bytes(int ranks);

/* Begin, on memory that the ranks already share; returns when all have begun. 0, or -1 after saying
 * that ranks are missing. */
int bench_begin(bench *b, bench_shared *shared, int rank, int ranks);

/**
 * Begin, where ranks share no memory yet.
 *
 * @param share  Brings `bytes` at `data` from rank 0 to all; 0, or -1 after saying what was wrong.
 * @return 0; -1 after saying what was wrong. bench_end() gives the memory back.
 */
int bench_join(bench *b, int rank, int ranks, int (*share)(void *self, void *data, size_t bytes),
               void *self);
void bench_end(bench *b);

/* Wait until all ranks are here. 0; -1: a rank has given up, end. */
int bench_meet(bench *b);

/* Make all ranks end: what they wait for here returns -1. */
void bench_give_up(bench *b);

/**
 * Time one cell, for about `seconds` of which rewriting and checking are a part, and print its line
 * on rank 0. Called by all ranks with the same cell. 0; -1: a rank has given up.
 */
int bench_measure(bench *b, const bench_cell *cell, double seconds);

/* The names of what bench_measure() prints, in one line. */
#define BENCH_HEADER                                                                               \
    "library,operation,ranks,bytes,calls,min_us,median_us,p99_us,back_to_back_us,wrong"

/* The p-th part (0 to 1) of n values, which are put in order. n > 0. */
double bench_quantile(double *values, size_t n, double p);

#endif
