/* gloo.c - times Gloo between processes.
 *
 *   bench_gloo --ranks 2 [OPTION...] */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gloo_calls.h"
#include "worker.h"

struct settings {
    bench_options work;
    int ranks;
};

static int barrier(void *self, float *send, float *recv, size_t count)
{
    (void)self, (void)send, (void)recv, (void)count;
    return gloo_barrier();
}

static int allreduce(void *self, float *send, float *recv, size_t count)
{
    (void)self;
    return gloo_allreduce(send, recv, count);
}

static int allreduce_in_place(void *self, float *both, float *unused, size_t count)
{
    (void)self, (void)unused;
    return gloo_allreduce(NULL, both, count);
}

static int broadcast(void *self, float *both, float *unused, size_t count)
{
    (void)self, (void)unused;
    return gloo_broadcast(both, count);
}

static int reduce(void *self, float *send, float *recv, size_t count)
{
    (void)self;
    return gloo_reduce(send, recv, count);
}

static int allgather(void *self, float *send, float *recv, size_t count)
{
    (void)self;
    return gloo_allgather(send, recv, count);
}

/* Its reduce_scatter is of another kind: made once for fixed buffers. */
static const bench_library k_library = {.run = {
                                            [BENCH_BARRIER] = barrier,
                                            [BENCH_ALLREDUCE] = allreduce,
                                            [BENCH_ALLREDUCE_IN_PLACE] = allreduce_in_place,
                                            [BENCH_BROADCAST] = broadcast,
                                            [BENCH_REDUCE] = reduce,
                                            [BENCH_ALLGATHER] = allgather,
                                        }};

/* ---- ranks -------------------------------------------------------------------------------- */

static void *make_shared(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED) {
        perror("bench_gloo: no memory for the measurements");
        exit(1);
    }
    return memory;
}

static int work(const struct settings *settings, bench_shared *shared, void *meeting, int rank)
{
    bench b;

    if (gloo_begin(meeting, rank, settings->ranks) != 0)
        return -1;
    bench_bind_thread(rank, settings->ranks); /* Gloo's own thread may run where it likes */
    if (bench_begin(&b, shared, rank, settings->ranks) != 0)
        return -1;
    float *send = bench_private(bench_send_bytes(&settings->work));
    float *recv = bench_private(bench_recv_bytes(&settings->work));
    int failed = bench_work(&b, &k_library, &settings->work, send, recv);
    free(send);
    free(recv);
    gloo_end();
    return failed;
}

/* ---- command line ------------------------------------------------------------------------- */

static const struct argp_option k_options[] = {
    {"ranks", 'n', "N", 0, "so many processes; without it 2", 0}, {NULL, 0, NULL, 0, NULL, 0}};

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    struct settings *settings = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &settings->work;
        return 0;
    case 'n':
        settings->ranks = atoi(value);
        if (settings->ranks < 1 || settings->ranks > BENCH_RANKS_MAX)
            argp_error(state, "--ranks: '%s' is not a whole number from 1 to %d", value,
                       BENCH_RANKS_MAX);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child k_children[] = {{&bench_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};

static const struct argp k_argp = {
    k_options, parse_option, NULL, "Time Gloo, as `serry bench' asks.", k_children, NULL, NULL};

int main(int argc, char **argv)
{
    struct settings settings = {.ranks = 2};
    int rank = 0, failed;

    argp_parse(&k_argp, argc, argv, 0, NULL, &settings);
    bench_shared *shared = make_shared(bench_shared_bytes(settings.ranks));
    void *meeting = make_shared(gloo_memory_bytes(settings.ranks));
    for (int r = 1; r < settings.ranks && rank == 0; r++) {
        pid_t child = fork();
        if (child < 0) {
            perror("bench_gloo: cannot start so many ranks");
            return 1; /* and the others with it */
        }
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            rank = r;
        }
    }
    failed = work(&settings, shared, meeting, rank);
    while (rank == 0 && wait(NULL) > 0)
        continue;
    return failed != 0;
}
