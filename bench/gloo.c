/* gloo.c - times Gloo between processes.
 *
 *   bench_gloo --ranks 2 [OPTION...] */
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gloo_calls.h"
#include "worker.h"

struct settings {
    bench_options work;
    int ranks;
};

/* Its reduce_scatter is of another kind: made once for fixed buffers. */
static const bench_library k_library = {.run = {BENCH_ROW(gloo)}};

/* ---- ranks -------------------------------------------------------------------------------- */

static int work(const struct settings *settings, bench_shared *shared, void *meeting, int rank)
{
    bench b;

    if (gloo_begin(meeting, rank, settings->ranks) != 0)
        return -1;
    bench_bind_thread(rank, settings->ranks); /* Gloo's own thread may run where it likes */
    if (bench_begin(&b, shared, rank, settings->ranks) != 0)
        return -1;
    int failed = bench_work_private(&b, &k_library, &settings->work);
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
        settings->ranks = bench_count_of_ranks("ranks", value, state);
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
    bench_shared *shared = bench_map_shared(bench_shared_bytes(settings.ranks));
    void *meeting = bench_map_shared(gloo_memory_bytes(settings.ranks));
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
