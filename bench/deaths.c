/* deaths.c - how long it takes until the others know that a rank has died, and go on.
 *
 *   bench_deaths [KILLS [MIB]]          1000 kills; MIB that each rank has touched, 0
 *
 * Four process ranks meet in a barrier to which the last one does not come: it is asleep elsewhere and
 * is killed with -9, from outside, when the others sleep as well. All times are from that kill on:
 *
 *   first   the first survivor's barrier has returned SERRY_ERR_RANK_FAILED
 *   all     the last survivor's has
 *   next    their next allreduce has completed on all
 *   joined  (from its call of serry_rejoin on) a replacement has been admitted
 *
 * The replacement is the next victim. */
#include <errno.h>
#include <serry/serry.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

enum { RANKS = 4, VICTIM = RANKS - 1, KILLS_MOST = 3500 };

typedef struct board {
    _Atomic uint32_t ready;  /* ranks that are about to wait, over all rounds */
    _Atomic uint32_t past;   /* survivors that have gone on, over all rounds */
    _Atomic uint32_t failed; /* a rank gave up */
    uint64_t killed_ns[KILLS_MOST], joined_ns[KILLS_MOST];
    uint64_t told_ns[RANKS][KILLS_MOST], next_ns[RANKS][KILLS_MOST];
} board;

typedef struct plan {
    board *board;
    const char *job;
    int kills;
    size_t bytes;
} plan;

static int tell(const char *what)
{
    fprintf(stderr, "bench_deaths: %s\n", what);
    return -1;
}

static serry_config config_of(const plan *p, int rank)
{
    serry_config config = SERRY_CONFIG_INIT;

    config.rank = rank;
    config.size = RANKS;
    config.job = p->job;
    config.timeout_ms = 60000;
    config.pool_bytes = (size_t)1 << 30;
    return config;
}

static int touch(size_t bytes)
{
    unsigned char *memory = bytes > 0 ? malloc(bytes) : NULL;

    if (bytes > 0 && memory == NULL)
        return tell("no memory to touch");
    for (size_t i = 0; i < bytes; i += 4096)
        ((volatile unsigned char *)memory)[i] = 1;
    return 0;
}

/* ---- ranks ------------------------------------------------------------------------------------ */

static int unexpected(const serry_comm *comm)
{
    return tell(serry_last_error(comm)->message);
}

/* It never comes to the barrier. */
static int victim(const plan *p, int round)
{
    serry_config config = config_of(p, VICTIM);
    serry_comm *comm = NULL;

    if (touch(p->bytes) != 0)
        return -1;
    uint64_t begun = bench_now_ns();
    if ((round == 0 ? serry_init(&config, &comm) : serry_rejoin(&config, &comm)) != SERRY_OK)
        return unexpected(NULL);
    if (round > 0)
        p->board->joined_ns[round - 1] = bench_now_ns() - begun;
    if (serry_barrier(comm) != SERRY_OK)
        return unexpected(comm);
    if (round == p->kills)
        return serry_finalize(&comm);
    atomic_fetch_add(&p->board->ready, 1);
    for (;;)
        pause();
}

static int survive(const plan *p, int rank, serry_comm *comm, int round)
{
    uint64_t one = 1;
    int rc = serry_barrier(comm);

    p->board->told_ns[rank][round] = bench_now_ns();
    if (rc != SERRY_ERR_RANK_FAILED)
        return unexpected(comm);
    rc = serry_allreduce(SERRY_IN_PLACE, &one, 1, SERRY_U64, SERRY_SUM, comm);
    p->board->next_ns[rank][round] = bench_now_ns();
    atomic_fetch_add(&p->board->past, 1);
    while (rc == SERRY_OK) {
        usleep(200);
        rc = serry_barrier(comm);
    }
    return rc == SERRY_ERR_RANK_JOINED && one == RANKS - 1 ? 0 : unexpected(comm);
}

static int survivor(const plan *p, int rank)
{
    serry_config config = config_of(p, rank);
    serry_comm *comm = NULL;

    if (touch(p->bytes) != 0)
        return -1;
    if (serry_init(&config, &comm) != SERRY_OK)
        return unexpected(NULL);
    for (int round = 0; round <= p->kills; round++) {
        if (serry_barrier(comm) != SERRY_OK)
            return unexpected(comm);
        atomic_fetch_add(&p->board->ready, 1);
        if (round < p->kills && survive(p, rank, comm, round) != 0)
            return -1;
    }
    return serry_finalize(&comm);
}

static pid_t start(const plan *p, int rank, int round)
{
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int rc = rank == VICTIM ? victim(p, round) : survivor(p, rank);
    if (rc != 0)
        atomic_store(&p->board->failed, 1);
    _exit(rc != 0);
}

/* ---- the killer -------------------------------------------------------------------------------- */

static int await(const plan *p, const _Atomic uint32_t *counter, int value)
{
    while (atomic_load(counter) < (uint32_t)value) {
        if (atomic_load(&p->board->failed) != 0)
            return -1;
        usleep(100);
    }
    return 0;
}

static int run(const plan *p)
{
    pid_t pids[RANKS];
    int status, failed = 0;

    for (int r = 0; r < RANKS; r++)
        pids[r] = start(p, r, 0);
    for (int round = 0; round < p->kills; round++) {
        if (await(p, &p->board->ready, RANKS * (round + 1)) != 0)
            return -1;
        usleep(3000); /* so that they sleep */
        p->board->killed_ns[round] = bench_now_ns();
        kill(pids[VICTIM], SIGKILL);
        waitpid(pids[VICTIM], &status, 0);
        if (await(p, &p->board->past, VICTIM * (round + 1)) != 0)
            return -1;
        pids[VICTIM] = start(p, VICTIM, round + 1);
    }
    for (int r = 0; r < RANKS; r++)
        failed |= waitpid(pids[r], &status, 0) != pids[r] || status != 0;
    return failed ? tell("a rank has failed") : 0;
}

/* ---- figures ----------------------------------------------------------------------------------- */

static uint64_t of_ranks(uint64_t ns[RANKS][KILLS_MOST], int round, bool last)
{
    uint64_t found = ns[0][round];

    for (int r = 1; r < VICTIM; r++)
        if ((ns[r][round] > found) == last)
            found = ns[r][round];
    return found;
}

static void print(const plan *p, const char *what, double *us)
{
    size_t n = (size_t)p->kills;
    double median = bench_quantile(us, n, 0.5), p99 = bench_quantile(us, n, 0.99);

    printf("%s,%d,%zu,%d,%.0f,%.0f,%.0f\n", what, RANKS, p->bytes >> 20, p->kills, median, p99,
           bench_quantile(us, n, 1.0));
}

static void report(const plan *p)
{
    static double us[KILLS_MOST];
    board *b = p->board;

    for (int i = 0; i < p->kills; i++)
        us[i] = (double)(of_ranks(b->told_ns, i, false) - b->killed_ns[i]) / 1e3;
    print(p, "first", us);
    for (int i = 0; i < p->kills; i++)
        us[i] = (double)(of_ranks(b->told_ns, i, true) - b->killed_ns[i]) / 1e3;
    print(p, "all", us);
    for (int i = 0; i < p->kills; i++)
        us[i] = (double)(of_ranks(b->next_ns, i, true) - b->killed_ns[i]) / 1e3;
    print(p, "next", us);
    for (int i = 0; i < p->kills; i++)
        us[i] = (double)b->joined_ns[i] / 1e3;
    print(p, "joined", us);
}

int main(int argc, char **argv)
{
    char job[64];
    plan p = {.job = job, .kills = argc > 1 ? atoi(argv[1]) : 1000};
    int mib = argc > 2 ? atoi(argv[2]) : 0;

    if (argc > 3 || p.kills < 1 || p.kills > KILLS_MOST || mib < 0)
        return tell("usage: bench_deaths [KILLS [MIB]], 1 to 3500 kills") != 0;
    p.bytes = (size_t)mib << 20;
    p.board = bench_map_shared(sizeof(board));
    snprintf(job, sizeof(job), "deaths of process %d", (int)getpid());
    if (run(&p) != 0)
        return 1;
    puts("what,ranks,touched_mib,kills,median_us,p99_us,max_us");
    report(&p);
    return 0;
}
