/* limits.c - what two cores of this machine can do, timed as the cells of the libraries are:
 *
 *   round_trip          a cache line to the other core and back
 *   barrier             each rank sets a flag, then waits for the other's
 *   allreduce_in_place  both vectors in memory that both see; each rank adds one half of both and
 *                       stores the sum in both, with the barrier above before and after. Nobody is
 *                       checked on, nothing is promised: a bound, not a library
 *   copy                memcpy, private to private, both ranks at once
 *   cross_copy          memcpy to private memory from what the other rank has just written, both at
 *                       once
 *
 * The two ranks are processes, each bound to a core. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cells.h"

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
    float *vector[2];       /* in shared memory, by rank */
    float *source, *target; /* private */
    size_t bytes;           /* of the cell */
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

static int flag_exchange(void *self)
{
    limit *l = self;

    l->sequence++;
    set(l);
    await(l);
    return 0;
}

static int barrier(void *self, float *send, float *recv, size_t count)
{
    (void)send, (void)recv, (void)count;
    return flag_exchange(self);
}

static int round_trip(void *self)
{
    limit *l = self;

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
    return flag_exchange(l);
}

/* ---- copies ------------------------------------------------------------------------------- */

static void rewrite_source(void *self, uint32_t call)
{
    limit *l = self;

    memset(l->source, (int)call, l->bytes);
}

static void rewrite_vector(void *self, uint32_t call)
{
    limit *l = self;

    memset(l->vector[l->bench->rank], (int)call, l->bytes);
}

static int copy(void *self)
{
    limit *l = self;

    memcpy(l->target, l->source, l->bytes);
    return 0;
}

static int cross_copy(void *self)
{
    limit *l = self;

    memcpy(l->target, l->vector[1 - l->bench->rank], l->bytes);
    return 0;
}

/* ---- one rank ----------------------------------------------------------------------------- */

static int measure_copies(limit *l, const bench_options *options)
{
    bench_cell own = {.library = options->name,
                      .operation = "copy",
                      .rewrite = rewrite_source,
                      .run = copy,
                      .self = l};
    bench_cell cross = {.library = options->name,
                        .operation = "cross_copy",
                        .rewrite = rewrite_vector,
                        .run = cross_copy,
                        .self = l};

    for (int i = 0; i < options->size_count; i++) {
        l->bytes = own.bytes = cross.bytes = options->sizes[i];
        if (bench_measure(l->bench, &own, options->seconds) != 0 ||
            bench_measure(l->bench, &cross, options->seconds) != 0)
            return -1;
    }
    return 0;
}

static int measure(limit *l, const bench_options *options)
{
    const bench_library library = {
        .run = {[BENCH_BARRIER] = barrier, [BENCH_ALLREDUCE_IN_PLACE] = bare_allreduce}, .self = l};
    bench_cell trip = {
        .library = options->name, .operation = "round_trip", .run = round_trip, .self = l};

    if (bench_measure(l->bench, &trip, options->seconds) != 0 ||
        bench_cells(l->bench, &library, options, l->vector[l->bench->rank], NULL) != 0)
        return -1;
    return measure_copies(l, options);
}

static void *make_shared(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED) {
        perror("bench_limits: no memory; give smaller --sizes");
        exit(1);
    }
    return memory;
}

static float *make_private(size_t bytes)
{
    void *memory;

    if (posix_memalign(&memory, 4096, bytes) != 0) {
        fprintf(stderr, "bench_limits: no memory for %zu bytes; give smaller --sizes\n", bytes);
        exit(1);
    }
    return memset(memory, 0, bytes);
}

int main(int argc, char **argv)
{
    bench_options options = BENCH_OPTIONS_INIT("limit");
    limit l = {0};
    bench b;

    argp_parse(&bench_argp, argc, argv, 0, NULL, &options);
    int cores[2] = {bench_core(0), bench_core(1)};
    if (cores[1] < 0) {
        fprintf(stderr, "bench_limits: this needs two cores\n");
        return 1;
    }
    size_t bytes = bench_send_bytes(&options);
    bench_shared *shared = make_shared(bench_shared_bytes(2));
    flag *flags = make_shared(2 * sizeof(*flags));
    for (int r = 0; r < 2; r++)
        l.vector[r] = make_shared(bytes);

    pid_t child = fork();
    if (child < 0) {
        perror("bench_limits: cannot start the second rank");
        return 1;
    }
    int rank = child == 0;
    if (child == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    bench_bind(cores[rank]);
    memset(l.vector[rank], 0, bytes);
    l.source = make_private(bytes);
    l.target = make_private(bytes);
    l.bench = &b;
    l.own = &flags[rank];
    l.other = &flags[1 - rank];
    int failed = bench_begin(&b, shared, rank, 2) != 0 || measure(&l, &options) != 0;
    free(l.source);
    free(l.target);
    if (child > 0)
        waitpid(child, NULL, 0);
    return failed;
}
