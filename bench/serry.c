/* serry.c - times serry: between processes or threads, on private or arena memory, plain or with what
 * can be put on top.
 *
 *   serry run -n 2 --bind core bench_serry [OPTION...]
 *   bench_serry --threads 2 [OPTION...] */
#include <serry/health.h>
#include <serry/serry.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker.h"
#include "wrapped.h"

enum { WATCH_PERIOD_MS = 100 };

struct settings {
    bench_options work;
    int threads; /* 0: process ranks */
    bool arena;
    bool wrapped; /* by serry_ft */
    bool watched; /* by a health monitor */
    bool
        asynchronous; /* has the operations that are started and waited for, which bring a thread of
                          the library to life, and no others */
};

static int tell(const serry_comm *comm)
{
    fprintf(stderr, "bench_serry: %s\n", serry_last_error(comm)->message);
    return -1;
}

/* ---- the library, for bench_cells() ------------------------------------------------------- */

static int result(int rc, const serry_comm *comm)
{
    return rc == SERRY_OK ? 0 : tell(comm);
}

static int call_barrier(void *comm, float *send, float *recv, size_t count)
{
    (void)send, (void)recv, (void)count;
    return result(serry_barrier(comm), comm);
}

static int call_allreduce(void *comm, float *send, float *recv, size_t count)
{
    return result(serry_allreduce(send, recv, count, SERRY_F32, SERRY_SUM, comm), comm);
}

static int call_allreduce_in_place(void *comm, float *both, float *unused, size_t count)
{
    (void)unused;
    return result(serry_allreduce(SERRY_IN_PLACE, both, count, SERRY_F32, SERRY_SUM, comm), comm);
}

static int call_broadcast(void *comm, float *buffer, float *unused, size_t count)
{
    (void)unused;
    return result(serry_broadcast(buffer, count, SERRY_F32, 0, comm), comm);
}

static int call_reduce(void *comm, float *send, float *recv, size_t count)
{
    return result(serry_reduce(send, recv, count, SERRY_F32, SERRY_SUM, 0, comm), comm);
}

static int call_allgather(void *comm, float *send, float *recv, size_t count)
{
    return result(serry_allgather(send, recv, count, SERRY_F32, comm), comm);
}

static int call_reduce_scatter(void *comm, float *send, float *recv, size_t count)
{
    return result(serry_reduce_scatter(send, recv, count, SERRY_F32, SERRY_SUM, comm), comm);
}

static int call_allreduce_f16(void *comm, float *send, float *recv, size_t count)
{
    return result(serry_allreduce(send, recv, count, SERRY_F16, SERRY_SUM, comm), comm);
}

static int call_allreduce_bf16(void *comm, float *send, float *recv, size_t count)
{
    return result(serry_allreduce(send, recv, count, SERRY_BF16, SERRY_SUM, comm), comm);
}

static int send_recv(void *comm, float *send, float *recv, size_t count)
{
    int rank = serry_rank(comm), rc = SERRY_OK;

    if (rank == 0)
        rc = serry_send(send, count, SERRY_F32, 1, 0, comm);
    if (rank <= 1 && rc == SERRY_OK)
        rc = serry_recv(recv, count, SERRY_F32, 1 - rank, 0, NULL, comm);
    if (rank == 1 && rc == SERRY_OK)
        rc = serry_send(recv, count, SERRY_F32, 0, 0, comm);
    return result(rc, comm);
}

static bench_function *const k_synchronous[BENCH_OPERATIONS] = {
    BENCH_ROW(call),
    [BENCH_REDUCE_SCATTER] = call_reduce_scatter,
    [BENCH_ALLREDUCE_F16] = call_allreduce_f16,
    [BENCH_ALLREDUCE_BF16] = call_allreduce_bf16,
    [BENCH_SEND_RECV] = send_recv,
};

/* ---- operations that are started and waited for ------------------------------------------- */

static int wait_for(int rc, serry_request **request)
{
    if (rc == SERRY_OK)
        rc = serry_wait(request, -1);
    serry_request_free(request);
    return rc;
}

static int iallreduce(void *comm, float *send, float *recv, size_t count)
{
    serry_request *request = NULL;
    int rc = serry_iallreduce(send, recv, count, SERRY_F32, SERRY_SUM, comm, &request);

    return result(wait_for(rc, &request), comm);
}

static int isend(serry_comm *comm, const float *data, size_t count)
{
    serry_request *request = NULL;
    int rc = serry_isend(data, count, SERRY_F32, 1 - serry_rank(comm), 0, comm, &request);

    return wait_for(rc, &request);
}

static int irecv(serry_comm *comm, float *data, size_t count)
{
    serry_request *request = NULL;
    int rc = serry_irecv(data, count, SERRY_F32, 1 - serry_rank(comm), 0, NULL, comm, &request);

    return wait_for(rc, &request);
}

static int isend_irecv(void *comm, float *send, float *recv, size_t count)
{
    int rank = serry_rank(comm), rc = SERRY_OK;

    if (rank == 0)
        rc = isend(comm, send, count);
    if (rank <= 1 && rc == SERRY_OK)
        rc = irecv(comm, recv, count);
    if (rank == 1 && rc == SERRY_OK)
        rc = isend(comm, recv, count);
    return result(rc, comm);
}

/* In registers: it takes no memory bandwidth from the operation beside it. About as long as the
 * allreduce of so many elements. */
static int compute(void *comm, float *send, float *recv, size_t count)
{
    volatile float factor = 0.999f, sink;
    float f = factor, x = 1;

    (void)comm, (void)send, (void)recv;
    for (size_t i = 0; i < count; i++)
        x = x * f + 1; /* each waits for the one before */
    sink = x;
    (void)sink;
    return 0;
}

static int overlap(void *comm, float *send, float *recv, size_t count)
{
    serry_request *request = NULL;
    int rc = serry_iallreduce(send, recv, count, SERRY_F32, SERRY_SUM, comm, &request);

    compute(NULL, NULL, NULL, count);
    return result(wait_for(rc, &request), comm);
}

static bench_function *const k_asynchronous[BENCH_OPERATIONS] = {
    [BENCH_IALLREDUCE] = iallreduce,
    [BENCH_ISEND_IRECV] = isend_irecv,
    [BENCH_COMPUTE] = compute,
    [BENCH_OVERLAP] = overlap,
};

static int share(void *comm, void *data, size_t bytes)
{
    return result(serry_broadcast(data, bytes, SERRY_U8, 0, comm), comm);
}

/* ---- one rank ----------------------------------------------------------------------------- */

/* NULL after saying why. */
static float *make_buffer(const struct settings *settings, serry_comm *comm, size_t bytes)
{
    if (!settings->arena)
        return bench_private(bytes);
    float *memory = serry_alloc(comm, bytes);
    if (memory == NULL)
        tell(comm);
    else
        memset(memory, 0, bytes); /* touched, so that no page fault is timed */
    return memory;
}

static void free_buffer(const struct settings *settings, serry_comm *comm, float *memory)
{
    if (settings->arena)
        serry_free(comm, memory);
    else
        free(memory);
}

static int work(const struct settings *settings, serry_comm *comm)
{
    bench_library library = {.self = comm};
    bench b;

    if (bench_join(&b, serry_rank(comm), serry_size(comm), share, comm) != 0)
        return -1;
    memcpy(library.run, settings->asynchronous ? k_asynchronous : k_synchronous,
           sizeof(library.run));
    if (b.ranks < 2)
        library.run[BENCH_SEND_RECV] = library.run[BENCH_ISEND_IRECV] = NULL;
    float *send = make_buffer(settings, comm, bench_send_bytes(&settings->work));
    float *recv = make_buffer(settings, comm, bench_recv_bytes(&settings->work));
    int failed = bench_work(&b, &library, &settings->work, send, recv);
    free_buffer(settings, comm, send);
    free_buffer(settings, comm, recv);
    bench_end(&b);
    return failed;
}

static int work_watched(const struct settings *settings, serry_comm *comm)
{
    serry_health_config config = SERRY_HEALTH_CONFIG_INIT;
    serry_health *health = NULL;

    config.period_ms = WATCH_PERIOD_MS;
    if (serry_health_create(comm, &config, &health) != SERRY_OK ||
        serry_health_start(health) != SERRY_OK)
        return tell(NULL);
    int failed = work(settings, comm);
    serry_health_destroy(&health);
    return failed;
}

static int process_body(struct settings *settings)
{
    serry_config config = SERRY_CONFIG_INIT;
    serry_backend *wrapper = NULL;
    serry_comm *comm;

    if (settings->wrapped && bench_wrap(&wrapper) != SERRY_OK)
        return tell(NULL);
    config.backend = wrapper;
    if (serry_init(&config, &comm) != SERRY_OK)
        return tell(NULL);
    int failed = settings->watched ? work_watched(settings, comm) : work(settings, comm);
    serry_finalize(&comm);
    serry_ft_destroy(&wrapper);
    return failed;
}

static int thread_body(serry_comm *comm, void *argument)
{
    bench_bind_thread(serry_rank(comm), serry_size(comm));
    return work(argument, comm);
}

/* ---- command line ------------------------------------------------------------------------- */

enum { OPTION_WRAPPED = 768, OPTION_WATCHED, OPTION_ASYNCHRONOUS };

static const struct argp_option k_options[] = {
    {"threads", 't', "N", 0, "N thread ranks in this process, rather than process ranks", 0},
    {"arena", 'a', NULL, 0, "buffers from serry_alloc, rather than private memory", 0},
    {"wrapped", OPTION_WRAPPED, NULL, 0, "over serry_ft (process ranks)", 0},
    {"watched", OPTION_WATCHED, NULL, 0, "with a health monitor (process ranks)", 0},
    {"async", OPTION_ASYNCHRONOUS, NULL, 0, "operations that are started and waited for", 0},
    {NULL, 0, NULL, 0, NULL, 0}};

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    struct settings *settings = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &settings->work;
        break;
    case 't':
        settings->threads = bench_count_of_ranks("threads", value, state);
        break;
    case 'a':
        settings->arena = true;
        break;
    case OPTION_WRAPPED:
        settings->wrapped = true;
        break;
    case OPTION_WATCHED:
        settings->watched = true;
        break;
    case OPTION_ASYNCHRONOUS:
        settings->asynchronous = true;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_child k_children[] = {{&bench_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};

static const struct argp k_argp = {
    k_options,  parse_option, NULL, "Time serry, as `serry bench' asks; docs/bench.md says how.",
    k_children, NULL,         NULL};

int main(int argc, char **argv)
{
    struct settings settings = {0};

    argp_parse(&k_argp, argc, argv, 0, NULL, &settings);
    if (settings.threads == 0)
        return process_body(&settings) != 0;
    int failed = serry_run_threads(settings.threads, thread_body, &settings);
    if (failed < -1 || serry_last_error(NULL)->error != SERRY_OK)
        tell(NULL);
    return failed != 0;
}
