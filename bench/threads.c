/* threads.c - times what threads have without any library of ours: the barrier of the C library, or
 * with --openmp barrier and reduction of the compiler's OpenMP.
 *
 *   bench_threads --threads 2 [--openmp] [OPTION...] */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker.h"

enum { SUMS = 3, SUM_MOST = 4096 }; /* elements */

struct settings {
    bench_options work;
    int threads;
    bool openmp;
};

typedef struct rank {
    const struct settings *settings;
    bench_shared *shared;
    int number, failed;
} rank;

static pthread_barrier_t barrier_of_all;

static int pthread_barrier(void *self, float *send, float *recv, size_t count)
{
    (void)self, (void)send, (void)recv, (void)count;
    pthread_barrier_wait(&barrier_of_all); /* 0, or what tells one of them that it is the one */
    return 0;
}

#ifdef _OPENMP
static int openmp_barrier(void *self, float *send, float *recv, size_t count)
{
    (void)self, (void)send, (void)recv, (void)count;
#pragma omp barrier
    return 0;
}

/* Call k sums in one of three arrays, after whose barrier all have their copy of that of call k - 1;
 * so the one of call k - 2 may be cleared for the next. */
static int openmp_allreduce(void *self, float *send, float *recv, size_t count)
{
    static float sums[SUMS][SUM_MOST];
    static _Thread_local unsigned calls;
    const bench *b = self;
    float *sum = sums[calls % SUMS], *next = sums[(calls + 1) % SUMS];

    calls++;
    if (count > SUM_MOST) {
        fprintf(stderr, "bench_threads: at most %d elements\n", SUM_MOST);
        return -1;
    }
    if (b->rank == 0)
        memset(next, 0, sizeof(sums[0]));
#pragma omp for schedule(static, 1) reduction(+ : sum[:count])
    for (int r = 0; r < b->ranks; r++)
        for (size_t i = 0; i < count; i++)
            sum[i] += send[i];
    memcpy(recv, sum, count * sizeof(*recv));
    return 0;
}
#endif

/* ---- ranks -------------------------------------------------------------------------------- */

static void *rank_main(void *argument)
{
    rank *self = argument;
    const struct settings *settings = self->settings;
    bench_library library = {.run = {[BENCH_BARRIER] = pthread_barrier}};
    bench b;

    bench_bind_thread(self->number, settings->threads);
    library.self = &b;
#ifdef _OPENMP
    if (settings->openmp) {
        library.run[BENCH_BARRIER] = openmp_barrier;
        library.run[BENCH_ALLREDUCE] = openmp_allreduce;
    }
#endif
    self->failed = bench_begin(&b, self->shared, self->number, settings->threads);
    if (self->failed != 0)
        return NULL;
    self->failed = bench_work_private(&b, &library, &settings->work);
    return NULL;
}

static int run_pthreads(rank *ranks, int count)
{
    pthread_t threads[BENCH_RANKS_MAX];

    for (int r = 1; r < count; r++)
        if (pthread_create(&threads[r], NULL, rank_main, &ranks[r]) != 0) {
            fprintf(stderr, "bench_threads: cannot start so many threads\n");
            exit(1);
        }
    rank_main(&ranks[0]);
    for (int r = 1; r < count; r++)
        pthread_join(threads[r], NULL);
    return ranks[0].failed;
}

static int run_openmp(rank *ranks, int count)
{
#ifdef _OPENMP
#pragma omp parallel for num_threads(count) schedule(static, 1)
    for (int r = 0; r < count; r++)
        rank_main(&ranks[r]);
    return ranks[0].failed;
#else
    (void)ranks, (void)count;
    fprintf(stderr, "bench_threads: was built without OpenMP\n");
    return -1;
#endif
}

/* ---- command line ------------------------------------------------------------------------- */

static const struct argp_option k_options[] = {
    {"threads", 't', "N", 0, "so many threads; without it 2", 0},
    {"openmp", 'o', NULL, 0, "those of OpenMP, with its barrier and reduction", 0},
    {NULL, 0, NULL, 0, NULL, 0}};

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    struct settings *settings = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &settings->work;
        return 0;
    case 't':
        settings->threads = bench_count_of_ranks("threads", value, state);
        return 0;
    case 'o':
        settings->openmp = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child k_children[] = {{&bench_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};

static const struct argp k_argp = {
    k_options,  parse_option, NULL, "Time the barriers of threads, as `serry bench' asks.",
    k_children, NULL,         NULL};

int main(int argc, char **argv)
{
    static rank ranks[BENCH_RANKS_MAX];
    struct settings settings = {.threads = 2};

    argp_parse(&k_argp, argc, argv, 0, NULL, &settings);
    bench_shared *shared = bench_map_shared(bench_shared_bytes(settings.threads));
    for (int r = 0; r < settings.threads; r++)
        ranks[r] = (rank){&settings, shared, r, 0};
    pthread_barrier_init(&barrier_of_all, NULL, (unsigned)settings.threads);
    int (*run)(rank *, int) = settings.openmp ? run_openmp : run_pthreads;
    return run(ranks, settings.threads) != 0;
}
