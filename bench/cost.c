/* cost.c - what ranks cost before they do anything: the memory of the arena, and the time of
 * serry_init() and serry_finalize(), for some world sizes, of process and of thread ranks.
 *
 * Each run is in fresh processes. All ranks begin together, and the slowest counts. Memory is what
 * the kernel has reserved for the arena, after an allreduce of 1 MiB from private memory. */
#include <dirent.h>
#include <linux/magic.h>
#include <pthread.h>
#include <serry/serry.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

enum { RUNS = 5, RUNS_OF_MANY = 1, MANY = 128, FILES_MAX = 64 };

static const int k_sizes[] = {2, 16, 64, 256};

/* What a rank measures, in its row of bench_shared's ns. */
enum { INIT_NS, FINALIZE_NS, ARENA_BYTES };

typedef struct cost_rank {
    bench_shared *shared;
    serry_config config;
    int failed;
} cost_rank;

static int tell(const char *what)
{
    fprintf(stderr, "bench_cost: %s\n", what);
    return -1;
}

/* ---- memory ------------------------------------------------------------------------------- */

/* Is it one more unnamed file in memory? Several descriptors may lead to one. */
static bool is_new_segment(int fd, struct stat *status, ino_t seen[FILES_MAX], int *count)
{
    struct statfs fs;

    if (fstat(fd, status) != 0 || !S_ISREG(status->st_mode) || status->st_nlink != 0 ||
        fstatfs(fd, &fs) != 0 || fs.f_type != TMPFS_MAGIC || *count == FILES_MAX)
        return false;
    for (int i = 0; i < *count; i++)
        if (seen[i] == status->st_ino)
            return false;
    seen[(*count)++] = status->st_ino;
    return true;
}

/* Bytes that the kernel has reserved for the unnamed files in memory that this process has open. */
static uint64_t segment_bytes(void)
{
    ino_t seen[FILES_MAX];
    int count = 0;
    uint64_t bytes = 0;
    DIR *directory = opendir("/proc/self/fd");

    if (directory == NULL)
        return 0;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        struct stat status;
        if (entry->d_name[0] != '.' && is_new_segment(atoi(entry->d_name), &status, seen, &count))
            bytes += (uint64_t)status.st_blocks * 512;
    }
    closedir(directory);
    return bytes;
}

/* ---- one rank ----------------------------------------------------------------------------- */

/* The arena in use. */
static int use(serry_comm *comm)
{
    size_t count = (1 << 20) / sizeof(float);
    float *vector = calloc(count, sizeof(float));

    if (vector == NULL)
        return tell("no memory for a vector");
    int rc = serry_allreduce(SERRY_IN_PLACE, vector, count, SERRY_F32, SERRY_SUM, comm);
    free(vector);
    return rc == SERRY_OK ? 0 : tell(serry_last_error(comm)->message);
}

static int measure(bench *b, const serry_config *config)
{
    uint64_t *own = b->shared->ns[b->rank];
    uint64_t before = b->rank == 0 ? segment_bytes() : 0;
    serry_comm *comm;

    if (bench_meet(b) != 0)
        return -1;
    uint64_t begun = bench_now_ns();
    if (serry_init(config, &comm) != SERRY_OK)
        return tell(serry_last_error(NULL)->message);
    own[INIT_NS] = bench_now_ns() - begun;
    int failed = use(comm) != 0 || bench_meet(b) != 0;
    if (b->rank == 0)
        own[ARENA_BYTES] = segment_bytes() - before;
    failed = failed || bench_meet(b) != 0;
    begun = bench_now_ns();
    serry_finalize(&comm);
    own[FINALIZE_NS] = bench_now_ns() - begun;
    return failed ? -1 : 0;
}

static void *rank_main(void *argument)
{
    cost_rank *rank = argument;
    bench b;

    rank->failed = bench_begin(&b, rank->shared, rank->config.rank, rank->config.size);
    if (rank->failed == 0)
        rank->failed = measure(&b, &rank->config);
    if (rank->failed != 0)
        bench_give_up(&b);
    return NULL;
}

/* ---- all ranks of one run ----------------------------------------------------------------- */

/* In a process of its own: one rank, or all of them as threads. Exits. */
static void process_main(cost_rank *first)
{
    pthread_t threads[BENCH_RANKS_MAX];
    cost_rank ranks[BENCH_RANKS_MAX];
    int started = 1, failed;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (first->config.kind == SERRY_THREADS) {
        for (; started < first->config.size; started++) {
            ranks[started] = *first;
            ranks[started].config.rank = started;
            if (pthread_create(&threads[started], NULL, rank_main, &ranks[started]) != 0)
                _exit(tell("cannot start so many threads") != 0);
        }
    }
    rank_main(first);
    failed = first->failed;
    for (int r = 1; r < started; r++) {
        pthread_join(threads[r], NULL);
        failed |= ranks[r].failed;
    }
    _exit(failed != 0);
}

/* 0, or -1 after saying what was wrong. */
static int run(bench_shared *shared, serry_kind_of_rank kind, int size, int number)
{
    char job[64];
    cost_rank rank = {.shared = shared, .config = SERRY_CONFIG_INIT};
    int processes = kind == SERRY_THREADS ? 1 : size;
    int failed = 0, status;

    snprintf(job, sizeof(job), "cost of %d ranks, process %d, run %d", size, (int)getpid(), number);
    rank.config.size = size;
    rank.config.job = job;
    rank.config.kind = kind;
    memset(shared, 0, sizeof(*shared));
    for (int r = 0; r < processes; r++) {
        rank.config.rank = r;
        pid_t child = fork();
        if (child == 0)
            process_main(&rank);
        if (child < 0) {
            tell("cannot start so many processes");
            exit(1); /* and the others with it */
        }
    }
    for (int r = 0; r < processes; r++)
        failed |= wait(&status) < 0 || status != 0;
    return failed ? tell("a rank has failed") : 0;
}

static uint64_t slowest(const bench_shared *shared, int size, int what)
{
    uint64_t most = 0;

    for (int r = 0; r < size; r++)
        if (shared->ns[r][what] > most)
            most = shared->ns[r][what];
    return most;
}

/* Medians over the runs, in one line. */
static int measure_size(bench_shared *shared, serry_kind_of_rank kind, int size)
{
    double init_us[RUNS], finalize_us[RUNS];
    size_t runs = size < MANY ? RUNS : RUNS_OF_MANY; /* many take seconds to start */

    for (size_t i = 0; i < runs; i++) {
        if (run(shared, kind, size, (int)i) != 0)
            return -1;
        init_us[i] = (double)slowest(shared, size, INIT_NS) / 1e3;
        finalize_us[i] = (double)slowest(shared, size, FINALIZE_NS) / 1e3;
    }
    uint64_t bytes = shared->ns[0][ARENA_BYTES];
    if (bytes == 0)
        return tell("found no arena among the open files of rank 0");
    printf("%s,%d,%.1f,%.1f,%llu\n", kind == SERRY_THREADS ? "threads" : "processes", size,
           bench_quantile(init_us, runs, 0.5), bench_quantile(finalize_us, runs, 0.5),
           (unsigned long long)bytes);
    fflush(stdout);
    return 0;
}

int main(void)
{
    bench_shared *shared = bench_map_shared(bench_shared_bytes(BENCH_RANKS_MAX));

    puts("kind,ranks,init_us,finalize_us,arena_bytes");
    fflush(stdout);
    for (size_t i = 0; i < sizeof(k_sizes) / sizeof(k_sizes[0]); i++)
        if (measure_size(shared, SERRY_PROCESSES, k_sizes[i]) != 0 ||
            measure_size(shared, SERRY_THREADS, k_sizes[i]) != 0)
            return 1;
    return 0;
}
