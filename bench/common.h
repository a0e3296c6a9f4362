/* common.h - what the benchmarks share: a clock, a synchroniser of their own, the timing of a cell.
 *
 * A cell is one operation of one library at one size and number of ranks; it is timed in slices of
 * some milliseconds. The synchroniser belongs to the benchmark and not to what is timed, so every
 * library starts each call from the same state. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_LINE 64u
#define BENCH_RANKS_MAX 256
#define BENCH_CALLS_MAX 4000 /* timed calls of one slice */
#define BENCH_CPU_WORDS 16   /* affinity masks of 1024 processors */

/* What the ranks are to do next. */
typedef struct bench_order {
    bool end;       /* nothing any more */
    int operation;  /* a bench_operation: cells.h */
    size_t bytes;   /* size of the cell */
    double seconds; /* of the slice */
    bool full;      /* check the first result element by element */
} bench_order;

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
    _Atomic uint32_t calls; /* of this slice; rank 0 writes it before a meeting, the others read it
                               after */
    _Alignas(
        BENCH_LINE) _Atomic uint32_t orders; /* given so far. Rank 0 adds 1, release; the others
                                                     sleep on it as a futex, acquire */
    bench_order order; /* plain: rank 0 writes it before it adds to `orders`, while the others are
                          done with the one before */
    _Alignas(BENCH_LINE) uint64_t ns[][BENCH_CALLS_MAX]; /* [rank][call]: durations, plain; each
                                                            rank its own, rank 0 after a meeting */
} bench_shared;

/* One rank's part in a run. */
typedef struct bench {
    bench_shared *shared;
    int rank, ranks;
    bool crowded; /* more ranks than processors: wait by yielding */
} bench;

/* What is timed, as one rank sees it. */
typedef struct bench_cell {
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

/* Zeroed memory that processes which are forked later share. Ends the program after saying why. */
void *bench_map_shared(size_t bytes);

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

/* Rank 0: what all ranks are to do now. */
void bench_give_order(bench *b, const bench_order *order);

/* The other ranks: sleep until there is an order, the `number`-th from 1. 0; -1: a rank has given up. */
int bench_await_order(bench *b, uint32_t number, bench_order *order);

/* What came of a slice. Times in us, of the slowest rank in each call. */
typedef struct bench_result {
    uint32_t calls;
    double min, median, p99;
    double back_to_back; /* mean of calls with nothing between them; 0: there was no time for it */
    uint64_t wrong;      /* elements */
} bench_result;

/**
 * Time one slice of a cell, for about `seconds` of which rewriting and checking are a part. Called by
 * all ranks with the same cell.
 *
 * @param full         Check the first result element by element, rather than a few of them.
 * @param[out] result  Rank 0's; NULL elsewhere.
 * @return 0; -1: a rank has given up.
 */
int bench_measure(bench *b, const bench_cell *cell, double seconds, bool full,
                  bench_result *result);

/* The p-th part (0 to 1) of n values, which are put in order. n > 0. */
double bench_quantile(double *values, size_t n, double p);

#endif
