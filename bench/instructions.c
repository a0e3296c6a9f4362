/* instructions.c - how many instructions one call takes, counted by callgrind.
 *
 *   bench_instructions            prints lines of CALL,INSTRUCTIONS; needs valgrind
 *
 * Two process ranks: rank 0 under callgrind, which counts inside of the call, but not while the rank
 * waits for the other, nor while it gets ready to. So the figure hardly depends on the load of the machine
 * (the least of some runs is printed), and can be compared from one version to the next:
 * bench/instructions.csv has what it was. */
#include <serry/serry.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "wrapped.h"

enum { RUNS = 3, CALLS = 1000, COUNT = 2 };

/* What waits inside of the library: shm/small.c. */
#define WAITING "wait_for"

static const struct {
    const char *name, *function;
    bool wrapped;
} k_calls[] = {
    {"barrier", "serry_barrier", false},
    {"allreduce of 8 bytes", "serry_allreduce", false},
    {"allreduce of 8 bytes over serry_ft", "serry_allreduce", true},
};
enum { KINDS = sizeof k_calls / sizeof *k_calls };

static int tell(const char *what)
{
    fprintf(stderr, "bench_instructions: %s\n", what);
    return 1;
}

/* ---- a rank ---------------------------------------------------------------------------------- */

static int make_calls(int kind, serry_comm *comm)
{
    float send[COUNT] = {1, 2}, recv[COUNT];
    int rc = SERRY_OK;

    for (int i = 0; i < CALLS && rc == SERRY_OK; i++) {
        if (strcmp(k_calls[kind].function, "serry_barrier") == 0)
            rc = serry_barrier(comm);
        else
            rc = serry_allreduce(send, recv, COUNT, SERRY_F32, SERRY_SUM, comm);
    }
    return rc;
}

static int be_rank(int rank, int kind, const char *job)
{
    serry_config config = SERRY_CONFIG_INIT;
    serry_backend *wrapper = NULL;
    serry_comm *comm;

    if (k_calls[kind].wrapped && bench_wrap(&wrapper) != SERRY_OK)
        return tell(serry_last_error(NULL)->message);
    config.rank = rank;
    config.size = 2;
    config.job = job;
    config.backend = wrapper;
    if (serry_init(&config, &comm) != SERRY_OK)
        return tell(serry_last_error(NULL)->message);
    int rc = make_calls(kind, comm);
    if (rc != SERRY_OK)
        tell(serry_last_error(comm)->message);
    serry_finalize(&comm);
    serry_ft_destroy(&wrapper);
    return rc != SERRY_OK;
}

/* ---- counting -------------------------------------------------------------------------------- */

/* In the new process. */
static void become_counted(int kind, const char *job, int log)
{
    char toggle[64], self[4096], number[16];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);

    if (length < 0)
        _exit(tell("cannot find itself"));
    self[length] = '\0';
    snprintf(toggle, sizeof toggle, "--toggle-collect=%s", k_calls[kind].function);
    snprintf(number, sizeof number, "%d", kind);
    dup2(log, STDERR_FILENO);
    execlp("valgrind", "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", toggle,
           "--toggle-collect=" WAITING, self, number, job, (char *)NULL);
    _exit(tell("valgrind is not installed"));
}

/* What callgrind says at its end; 0: nothing, and what it said else is passed on. */
static unsigned long long read_count(FILE *log)
{
    unsigned long long count = 0;
    char line[512], last[512] = "";

    while (fgets(line, sizeof line, log) != NULL) {
        const char *found = strstr(line, "Collected : ");
        if (found != NULL)
            count = strtoull(found + 12, NULL, 10);
        memcpy(last, line, sizeof last);
    }
    if (count == 0)
        fputs(last, stderr);
    return count;
}

/* In one run of all calls; 0 after saying what was wrong. */
static unsigned long long count_once(int kind, int run)
{
    int log[2], status[2] = {0, 0};
    char job[64];
    pid_t ranks[2];

    snprintf(job, sizeof job, "instructions of process %d, %d in run %d", (int)getpid(), kind, run);
    if (pipe(log) != 0)
        return tell("cannot make a pipe"), 0;
    for (int r = 0; r < 2; r++) {
        ranks[r] = fork();
        if (ranks[r] != 0)
            continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (r == 0)
            become_counted(kind, job, log[1]);
        close(log[1]);
        _exit(be_rank(r, kind, job));
    }
    close(log[1]);
    FILE *file = fdopen(log[0], "r");
    unsigned long long count = file != NULL ? read_count(file) : 0;
    if (file != NULL)
        fclose(file);
    for (int r = 0; r < 2; r++)
        if (waitpid(ranks[r], &status[r], 0) != ranks[r] || status[r] != 0)
            return tell("a rank has failed"), 0;
    if (count == 0)
        tell("callgrind has counted nothing");
    return count;
}

static int count_calls(int kind)
{
    unsigned long long least = 0;

    for (int run = 0; run < RUNS; run++) {
        unsigned long long count = count_once(kind, run);
        if (count == 0)
            return 1;
        if (least == 0 || count < least)
            least = count;
    }
    printf("%s,%llu\n", k_calls[kind].name, (least + CALLS / 2) / CALLS);
    fflush(stdout);
    return 0;
}

/* With arguments it is rank 0 of such a job. */
int main(int argc, char **argv)
{
    if (argc == 3 && atoi(argv[1]) >= 0 && atoi(argv[1]) < KINDS)
        return be_rank(0, atoi(argv[1]), argv[2]);
    if (argc != 1)
        return tell("takes no arguments");
    puts("call,instructions");
    fflush(stdout);
    for (int kind = 0; kind < KINDS; kind++)
        if (count_calls(kind) != 0)
            return 1;
    return 0;
}
