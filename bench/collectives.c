/* collectives.c - the cells of serry: between processes or threads, on private or arena memory.
 *
 *   serry run -n 2 --bind core bench_collectives [--arena] [OPTION...]
 *   bench_collectives --threads 2 [--arena] [OPTION...] */
#include <errno.h>
#include <serry/serry.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cells.h"

struct settings {
    bench_options cells;
    int threads; /* 0: process ranks */
    bool arena;
};

static int tell(const serry_comm *comm)
{
    fprintf(stderr, "bench_collectives: %s\n", serry_last_error(comm)->message);
    return -1;
}

/* ---- the library, for bench_cells() ------------------------------------------------------- */

static int result(int rc, const serry_comm *comm)
{
    return rc == SERRY_OK ? 0 : tell(comm);
}

static int barrier(void *comm, float *send, float *recv, size_t count)
{
    (void)send, (void)recv, (void)count;
    return result(serry_barrier(comm), comm);
}

static int allreduce(void *comm, float *send, float *recv, size_t count)
{
    return result(serry_allreduce(send, recv, count, SERRY_F32, SERRY_SUM, comm), comm);
}

static int allreduce_in_place(void *comm, float *both, float *unused, size_t count)
{
    (void)unused;
    return result(serry_allreduce(SERRY_IN_PLACE, both, count, SERRY_F32, SERRY_SUM, comm), comm);
}

static int broadcast(void *comm, float *buffer, float *unused, size_t count)
{
    (void)unused;
    return result(serry_broadcast(buffer, count, SERRY_F32, 0, comm), comm);
}

static int reduce(void *comm, float *send, float *recv, size_t count)
{
    return result(serry_reduce(send, recv, count, SERRY_F32, SERRY_SUM, 0, comm), comm);
}

static int allgather(void *comm, float *send, float *recv, size_t count)
{
    return result(serry_allgather(send, recv, count, SERRY_F32, comm), comm);
}

static int reduce_scatter(void *comm, float *send, float *recv, size_t count)
{
    return result(serry_reduce_scatter(send, recv, count, SERRY_F32, SERRY_SUM, comm), comm);
}

static bench_function *const k_functions[BENCH_OPERATIONS] = {
    [BENCH_BARRIER] = barrier,
    [BENCH_ALLREDUCE] = allreduce,
    [BENCH_ALLREDUCE_IN_PLACE] = allreduce_in_place,
    [BENCH_BROADCAST] = broadcast,
    [BENCH_REDUCE] = reduce,
    [BENCH_ALLGATHER] = allgather,
    [BENCH_REDUCE_SCATTER] = reduce_scatter,
};

static int share(void *comm, void *data, size_t bytes)
{
    return result(serry_broadcast(data, bytes, SERRY_U8, 0, comm), comm);
}

/* ---- one rank ----------------------------------------------------------------------------- */

/* NULL after saying why. Touched, so that no page fault is timed. */
static float *make_buffer(const struct settings *settings, serry_comm *comm, size_t bytes)
{
    void *memory = NULL;

    if (settings->arena) {
        memory = serry_alloc(comm, bytes);
        if (memory == NULL)
            tell(comm);
    } else if (posix_memalign(&memory, 4096, bytes) != 0) {
        memory = NULL;
        fprintf(stderr, "bench_collectives: no memory for %zu bytes; give smaller --sizes\n",
                bytes);
    }
    if (memory != NULL)
        memset(memory, 0, bytes);
    return memory;
}

static void free_buffer(const struct settings *settings, serry_comm *comm, float *memory)
{
    if (settings->arena)
        serry_free(comm, memory);
    else
        free(memory);
}

static int measure(const struct settings *settings, serry_comm *comm)
{
    bench_library library = {.self = comm};
    bench b;
    int failed = -1;

    if (bench_join(&b, serry_rank(comm), serry_size(comm), share, comm) != 0)
        return -1;
    memcpy(library.run, k_functions, sizeof(library.run));
    float *send = make_buffer(settings, comm, bench_send_bytes(&settings->cells));
    float *recv = make_buffer(settings, comm, bench_recv_bytes(&settings->cells, b.ranks));
    if (send == NULL || recv == NULL)
        bench_give_up(&b);
    else
        failed = bench_cells(&b, &library, &settings->cells, send, recv);
    free_buffer(settings, comm, send);
    free_buffer(settings, comm, recv);
    bench_end(&b);
    return failed;
}

static int process_body(struct settings *settings)
{
    serry_comm *comm;

    if (serry_init(NULL, &comm) != SERRY_OK)
        return tell(NULL);
    int failed = measure(settings, comm);
    serry_finalize(&comm);
    return failed;
}

/* Each thread on a core of its own, as long as there is one. */
static int thread_body(serry_comm *comm, void *argument)
{
    struct settings *settings = argument;

    if (bench_core(serry_size(comm) - 1) >= 0)
        bench_bind(bench_core(serry_rank(comm)));
    return measure(settings, comm);
}

/* ---- command line ------------------------------------------------------------------------- */

static const struct argp_option k_options[] = {
    {"threads", 't', "N", 0, "N thread ranks in this process, rather than process ranks", 0},
    {"arena", 'a', NULL, 0, "buffers from serry_alloc, rather than private memory", 0},
    {NULL, 0, NULL, 0, NULL, 0}};

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    struct settings *settings = state->input;
    char *end;
    long threads;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &settings->cells;
        break;
    case 't':
        threads = strtol(value, &end, 10);
        if (*end != '\0' || threads < 1 || threads > BENCH_RANKS_MAX)
            argp_error(state, "--threads: '%s' is not a whole number from 1 to %d", value,
                       BENCH_RANKS_MAX);
        settings->threads = (int)threads;
        break;
    case 'a':
        settings->arena = true;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_child k_children[] = {{&bench_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};

static const struct argp k_argp = {
    k_options,  parse_option,
    NULL,       "Time serry's collectives; docs/bench.md says how and what is printed.",
    k_children, NULL,
    NULL};

int main(int argc, char **argv)
{
    struct settings settings = {.cells = BENCH_OPTIONS_INIT("serry")};
    int failed;

    argp_parse(&k_argp, argc, argv, 0, NULL, &settings);
    if (settings.threads == 0)
        return process_body(&settings) != 0;
    failed = serry_run_threads(settings.threads, thread_body, &settings);
    if (failed < -1 || serry_last_error(NULL)->error != SERRY_OK)
        tell(NULL);
    return failed != 0;
}
