/* deaths.c - see deaths.h. */
#include "deaths.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- ends ----------------------------------------------------------------------------------- */

enum { ORPHANS_MOST = 64 };
enum { ENDS = TEST_FLAGS - 1 }; /* flag of a run: thread ranks that have ended */

static pthread_mutex_t orphans_lock = PTHREAD_MUTEX_INITIALIZER;
static serry_comm *orphans[ORPHANS_MOST];
static int orphan_count;

void orphan(serry_comm *comm)
{
    pthread_mutex_lock(&orphans_lock);
    if (orphan_count < ORPHANS_MOST)
        orphans[orphan_count++] = comm;
    pthread_mutex_unlock(&orphans_lock);
}

/* The last ones first: parts before their worlds. */
void orphans_free(void)
{
    while (orphan_count > 0)
        serry_finalize(&orphans[--orphan_count]);
}

_Noreturn void death_now(test_rank *self)
{
    if (self->kind == SERRY_THREADS) {
        orphan(self->comm);
        test_raise(self, ENDS);
        atomic_store(&test_mine(self)->finished, 1);
        pthread_exit(NULL);
    }
    test_mine(self)->killed = 1;
    raise(SIGKILL);
    death_await();
}

void await_ends(test_rank *self, unsigned ends)
{
    if (TEST_TSAN && self->kind == SERRY_THREADS)
        test_await(self, ENDS, ends);
}

void death_in(test_rank *self, unsigned us)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
    struct itimerspec at = {.it_value = {us / 1000000, (long)(us % 1000000) * 1000}};
    timer_t timer;

    test_mine(self)->killed = 1;
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0 ||
        timer_settime(timer, 0, &at, NULL) != 0)
        test_failed(self, "cannot set a timer");
}

_Noreturn void death_await(void)
{
    for (;;)
        pause();
}

void death_forgive(test_run *run, int rank)
{
    test_report *report = test_report_of(run, rank);

    report->status = 0;
    atomic_store(&report->finished, 1);
}

void deaths_end(test_run *run, serry_kind_of_rank kind, int size, const int *dead)
{
    int wrong = 0;

    test_join(run);
    orphans_free();
    for (int r = 0; r < size && kind == SERRY_PROCESSES; r++)
        wrong += (test_report_of(run, r)->killed != 0) != is_one_of(dead, r);
    test_end(run); /* which checks that those who were to be killed have died of it */
    assert_int_equal(wrong, 0);
}

void run_deaths(serry_kind_of_rank kind, int size, test_body body, void *argument, const int *dead)
{
    test_options options = {.kind = kind, .size = size};

    deaths_end(test_start(&options, body, argument), kind, size, dead);
}

/* ---- what survivors see --------------------------------------------------------------------- */

bool is_one_of(const int *ranks, int rank)
{
    for (; *ranks >= 0; ranks++)
        if (*ranks == rank)
            return true;
    return false;
}

/* By "rank 3", or "root 3", or "the root of", where the root is the one. */
static bool is_named(const char *message, int rank)
{
    char root[24];

    snprintf(root, sizeof(root), "root %d", rank);
    return test_names_rank(message, rank) || strstr(message, root) != NULL;
}

bool expect_failed(test_rank *self, const serry_comm *comm, int rc, const int *dead,
                   const char *what)
{
    const serry_error *record = serry_last_error(comm);

    test_flag(self->run, ENDS); /* as await_ends: those that this record names have raised it */
    if (!test_expect(self, SERRY_ERR_RANK_FAILED, rc, comm, "%s", what))
        return false;
    bool right = test_ranks_are(&record->ranks, dead) && record->peer == dead[0];
    for (const int *d = dead; *d >= 0; d++)
        right = right && is_named(record->message, *d);
    if (!right)
        test_failed(self, "%s: the record does not name rank %d%s alone: peer %d, %s", what,
                    dead[0], dead[1] >= 0 ? " and the others" : "", record->peer, record->message);
    return right;
}

void expect_participants(test_rank *self, const serry_comm *comm, const int *dead)
{
    serry_rank_set set;
    int size = serry_size(comm), count = 0;

    test_expect(self, SERRY_OK, serry_participants(comm, &set), comm, "participants");
    for (int r = 0; r < (int)SERRY_MAX_RANKS; r++) {
        bool wanted = r < size && !is_one_of(dead, r);
        count += wanted;
        if (serry_rank_set_has(&set, r) != wanted)
            test_failed(self, "rank %d is %s the participants", r, wanted ? "not in" : "in");
    }
    if (serry_live(comm) != count)
        test_failed(self, "serry_live says %d, but %d live", serry_live(comm), count);
}

static void sum_over(test_rank *self, serry_comm *comm, const int *dead, int64_t *vector,
                     size_t count)
{
    int64_t ranks = 0, members = 0, own = serry_rank(comm);

    if (!CHECK(self, vector != NULL))
        return;
    for (int r = 0; r < serry_size(comm); r++) {
        ranks += is_one_of(dead, r) ? 0 : r;
        members += is_one_of(dead, r) ? 0 : 1;
    }
    for (size_t i = 0; i < count; i++)
        vector[i] = (int64_t)i * 3 + own;
    int rc = serry_allreduce(SERRY_IN_PLACE, vector, count, SERRY_I64, SERRY_SUM, comm);
    if (!test_expect(self, SERRY_OK, rc, comm, "allreduce of %zu among the survivors", count))
        return;
    for (size_t i = 0; i < count; i++)
        if (vector[i] != (int64_t)i * 3 * members + ranks) {
            test_failed(self, "wrong sum of %zu at element %zu: %lld", count, i,
                        (long long)vector[i]);
            return;
        }
}

void expect_goes_on(test_rank *self, serry_comm *comm, const int *dead)
{
    int64_t few[2], *many = malloc(DEATHS_LARGE * sizeof(*many));
    int64_t *in_arena = serry_alloc(comm, DEATHS_LARGE * sizeof(*many));

    for (int i = 0; i < 3; i++) /* past both buffers */
        sum_over(self, comm, dead, few, 2);
    sum_over(self, comm, dead, many, DEATHS_LARGE);
    sum_over(self, comm, dead, in_arena, DEATHS_LARGE);
    expect_participants(self, comm, dead);
    serry_free(comm, in_arena);
    free(many);
}

static bool knows_all(const serry_comm *comm, const int *dead)
{
    serry_rank_set failed;

    serry_get_failed(comm, &failed);
    for (; *dead >= 0; dead++)
        if (!serry_rank_set_has(&failed, *dead))
            return false;
    return true;
}

void await_known(test_rank *self, const serry_comm *comm, const int *dead)
{
    test_at(self, "waiting until rank %d is known to have failed", dead[0]);
    while (!knows_all(comm, dead))
        test_sleep_ms(1);
}

/* ---- processes and chance ------------------------------------------------------------------- */

char process_state(pid_t pid)
{
    char path[64], line[512];

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    const char *end = fgets(line, sizeof(line), file) != NULL ? strrchr(line, ')') : NULL;
    fclose(file);
    return end != NULL && end[1] == ' ' ? end[2] : 0;
}

int thread_count(void)
{
    DIR *tasks = opendir("/proc/self/task");
    int count = 0;

    for (struct dirent *entry = readdir(tasks); entry != NULL; entry = readdir(tasks))
        count += entry->d_name[0] != '.';
    closedir(tasks);
    return count;
}

double cpu_seconds(int whose)
{
    struct rusage usage;
    getrusage(whose, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

uint64_t chance_begin(uint64_t purpose)
{
    return test_seed() ^ purpose * UINT64_C(0xd1342543de82ef95);
}

unsigned chance(uint64_t *sequence, unsigned limit)
{
    uint64_t x = *sequence += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (unsigned)((x ^ x >> 31) % limit);
}

unsigned chance_us(uint64_t *sequence, unsigned powers)
{
    unsigned power = chance(sequence, powers + 1);

    return (1u << power) + chance(sequence, 1u << power);
}
