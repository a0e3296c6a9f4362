/* limits.c - what two cores of this machine can do, timed as the cells of the libraries are:
 *
 *   round_trip          a cache line to the other core and back
 *   barrier             each rank sets a flag, then waits for the other's
 *   allreduce_in_place  both vectors in memory that both see; each rank adds one half of both and
 *                       stores the sum in both, with the barrier above before and after. Nobody is
 *                       checked on, nothing is promised: a bound, not a library
 *   copy                memcpy to private memory from what this rank has just written, both ranks at once
 *   cross_copy          the same from what the other rank has just written
 *
 * The two ranks are processes, each bound to a core. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker.h"

/* Vectors of 64 bytes, in whatever registers the machine has. */
typedef float floats __attribute__((vector_size(64), aligned(4), may_alias));
enum { LANES = sizeof(floats) / sizeof(float) };

#if defined(__x86_64__)
#define FOR_EACH_MACHINE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_MACHINE
#endif

typedef struct flag {
    _Alignas(BENCH_LINE) _Atomic uint64_t value; /* release by its rank, acquire by the other */
} flag;

typedef struct limit {
    bench *bench;
    flag *own, *other;
    uint64_t sequence;
    float *vector[2]; /* in shared memory, by rank */
} limit;

/* ---- flags -------------------------------------------------------------------------------- */

static void set(limit *l)
{
    atomic_store_explicit(&l->own->value, l->sequence, memory_order_release);
}

static void await(limit *l)
{
    while (atomic_load_explicit(&l->other->value, memory_order_acquire) < l->sequence)
        bench_pause();
}

static void flag_exchange(limit *l)
{
    l->sequence++;
    set(l);
    await(l);
}

static int barrier(void *self, float *send, float *recv, size_t count)
{
    (void)send, (void)recv, (void)count;
    flag_exchange(self);
    return 0;
}

static int round_trip(void *self, float *send, float *recv, size_t count)
{
    limit *l = self;

    (void)send, (void)recv, (void)count;
    l->sequence++;
    if (l->bench->rank == 0) {
        set(l);
        await(l);
    } else {
        await(l);
        set(l);
    }
    return 0;
}

/* ---- a bare allreduce --------------------------------------------------------------------- */

/* x[i] = y[i] = x[i] + y[i] */
FOR_EACH_MACHINE static void add_both(float *restrict x, float *restrict y, size_t count)
{
    size_t i = 0;

    for (; i + LANES <= count; i += LANES) {
        floats *a = (floats *)(x + i), *b = (floats *)(y + i);
        *a = *b = *a + *b;
    }
    for (; i < count; i++)
        x[i] = y[i] = x[i] + y[i];
}

static int bare_allreduce(void *self, float *both, float *unused, size_t count)
{
    limit *l = self;
    size_t half = count / 2, first = l->bench->rank == 0 ? 0 : half;
    size_t length = l->bench->rank == 0 ? half : count - half;

    (void)both, (void)unused; /* the vectors of both ranks are known */
    flag_exchange(l);
    add_both(l->vector[0] + first, l->vector[1] + first, length);
    flag_exchange(l);
    return 0;
}

/* ---- copies ------------------------------------------------------------------------------- */

static int copy(void *self, float *own, float *to, size_t count)
{
    (void)self;
    memcpy(to, own, count * sizeof(*to));
    return 0;
}

static int cross_copy(void *self, float *own, float *to, size_t count)
{
    limit *l = self;

    (void)own;
    memcpy(to, l->vector[1 - l->bench->rank], count * sizeof(*to));
    return 0;
}

static bench_function *const k_functions[BENCH_OPERATIONS] = {
    [BENCH_BARRIER] = barrier,       [BENCH_ALLREDUCE_IN_PLACE] = bare_allreduce,
    [BENCH_ROUND_TRIP] = round_trip, [BENCH_COPY] = copy,
    [BENCH_CROSS_COPY] = cross_copy,
};

/* ---- two ranks ---------------------------------------------------------------------------- */

static int work(limit *l, const bench_options *options, bench_shared *shared, int rank)
{
    bench_library library = {.self = l};
    bench b;

    memcpy(library.run, k_functions, sizeof(library.run));
    bench_bind(bench_core(rank));
    memset(l->vector[rank], 0, bench_send_bytes(options));
    l->bench = &b;
    if (bench_begin(&b, shared, rank, 2) != 0)
        return -1;
    float *target = bench_private(bench_recv_bytes(options));
    int failed = bench_work(&b, &library, options, l->vector[rank], target);
    free(target);
    return failed;
}

int main(int argc, char **argv)
{
    bench_options options = {0};
    limit l = {0};

    argp_parse(&bench_argp, argc, argv, 0, NULL, &options);
    if (bench_core(1) < 0) {
        fprintf(stderr, "bench_limits: this needs two cores\n");
        return 1;
    }
    bench_shared *shared = bench_map_shared(bench_shared_bytes(2));
    flag *flags = bench_map_shared(2 * sizeof(*flags));
    for (int r = 0; r < 2; r++)
        l.vector[r] = bench_map_shared(bench_send_bytes(&options));

    pid_t child = fork();
    if (child < 0) {
        perror("bench_limits: cannot start the second rank");
        return 1;
    }
    int rank = child == 0;
    if (child == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    l.own = &flags[rank];
    l.other = &flags[1 - rank];
    int failed = work(&l, &options, shared, rank);
    if (child > 0)
        waitpid(child, NULL, 0);
    return failed != 0;
}
