/* team.c - ranks that reduce and copy with an OpenMP team.
 *
 *   team KIND   "processes", "threads", or "share" (where OMP_NUM_THREADS is not set)
 *
 * Teams have as many threads as OMP_NUM_THREADS says; whoever starts this sets it, since libgomp reads it
 * once. Process ranks have teams only if this program, which they are forked from, has not loaded libgomp:
 * so thread ranks are run apart. */
#include <dirent.h>
#include <dlfcn.h>
#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm.h"
#include "cores.h"
#include "harness.h"
#include "operation.h"
#include "reference.h"

#define RANKS 3
#define VICTIM 1
#define COUNT ((size_t)600 * 1024) /* 64-bit elements: more than a team needs */
#define CALLS 16
#define DEATHS 6

static serry_kind_of_rank g_kind;

static int team_of(const serry_comm *comm)
{
    return atomic_load(&((shm_member *)(void *)comm->member)->group.arena->team);
}

static int wanted_threads(void)
{
    return TEST_TSAN ? 1 : atoi(getenv("OMP_NUM_THREADS"));
}

static int count_threads(void)
{
    DIR *folder = opendir("/proc/self/task");
    int count = 0;

    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder))
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

/* ---- the same bits ------------------------------------------------------------------------------ */

/* Results of each call with no team. They lie in memory that all ranks of all runs share. */
typedef struct results {
    uint64_t hash[CALLS][RANKS];
} results;

typedef struct bits_run {
    results *before; /* filled in by the first run, compared by the second */
    bool with_team;
} bits_run;

static uint64_t hash_of(const void *memory, size_t bytes)
{
    const unsigned char *at = memory;
    uint64_t hash = bytes, word = 0;

    for (size_t i = 0; i + sizeof(word) <= bytes; i += sizeof(word)) {
        memcpy(&word, at + i, sizeof(word));
        hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    for (size_t i = bytes / sizeof(word) * sizeof(word); i < bytes; i++)
        hash = (hash ^ at[i]) * UINT64_C(0x9e3779b97f4a7c15);
    return hash;
}

/* Make a call with fresh input, from and to memory that is aligned to elements only, and note or compare
 * what comes out. */
static void one_call(test_rank *self, serry_call call, int number)
{
    bits_run *run = self->argument;
    size_t element = reference_size(call.dtype);
    size_t elements = RANKS * call.count, bytes = elements * element;
    unsigned char *memory = calloc(2, bytes + 2 * element);
    unsigned char *send = memory + element, *recv = memory + bytes + 3 * element;

    test_at(self, "call %d: %s of %zu", number, serry_kind_name(call.kind), call.count);
    reference_fill(send, 0, elements, call.dtype, call.op, test_seed() + (uint64_t)number,
                   self->rank);
    if (call.kind == SERRY_KIND_BROADCAST)
        memcpy(recv, send, call.count * element);
    call.send = send;
    call.recv = recv;
    call.root = number % RANKS;
    EXPECT_OK(self, test_call(&call, self->comm));
    uint64_t hash = hash_of(recv, bytes);
    if (run->with_team && hash != run->before->hash[number][self->rank])
        test_failed(self, "call %d, %s of %zu: other bits than without a team", number,
                    serry_kind_name(call.kind), call.count);
    run->before->hash[number][self->rank] = hash;
    free(memory);
}

static void all_calls(test_rank *self, int *number)
{
    static const struct {
        serry_dtype dtype;
        serry_op op;
    } k_sums[] = {{SERRY_F32, SERRY_SUM},  {SERRY_F64, SERRY_AVG}, {SERRY_F16, SERRY_SUM},
                  {SERRY_BF16, SERRY_AVG}, {SERRY_U8, SERRY_PROD}, {SERRY_I64, SERRY_MIN}};
    static const serry_kind k_kinds[] = {SERRY_KIND_ALLREDUCE, SERRY_KIND_REDUCE,
                                         SERRY_KIND_REDUCE_SCATTER};
    static const serry_kind k_copies[] = {SERRY_KIND_BROADCAST, SERRY_KIND_ALLGATHER,
                                          SERRY_KIND_GATHER, SERRY_KIND_SCATTER,
                                          SERRY_KIND_ALLTOALL};

    for (size_t s = 0; s < sizeof(k_sums) / sizeof(k_sums[0]); s++) {
        size_t bytes = TEAM_OPERATION_BYTES + TEAM_OPERATION_BYTES / 4;
        one_call(self,
                 (serry_call){.kind = k_kinds[s % 3],
                              .dtype = k_sums[s].dtype,
                              .op = k_sums[s].op,
                              .count = bytes / reference_size(k_sums[s].dtype) + 77 + s},
                 (*number)++);
    }
    for (size_t k = 0; k < sizeof(k_copies) / sizeof(k_copies[0]); k++)
        one_call(self, (serry_call){.kind = k_copies[k], .dtype = SERRY_U8, .count = 2 * COUNT + k},
                 (*number)++);
}

static void body_bits(test_rank *self)
{
    const bits_run *run = self->argument;
    int number = 0, before = count_threads();

    CHECK(self, (team_of(self->comm) > 1) == (run->with_team && !TEST_TSAN));
    all_calls(self, &number);
    if (getenv("SERRY_TEST_APART") != NULL)
        return; /* the progress thread has a team and a floating-point mode of its own */
    if (run->with_team && self->kind == SERRY_PROCESSES)
        CHECK(self, count_threads() == before + wanted_threads() - 1);
    fesetround(FE_UPWARD); /* when the team has been there for long */
    one_call(self,
             (serry_call){.kind = SERRY_KIND_ALLREDUCE, .dtype = SERRY_F32, .count = COUNT / 2},
             number++);
    fesetround(FE_TONEAREST);
}

static void a_team_gives_the_same_bits(void **state)
{
    results *before = test_shared(sizeof(*before));
    bits_run run = {before, false};
    (void)state;

    setenv("SERRY_TEAM", "none", 1);
    run_ranks(g_kind, RANKS, body_bits, &run);
    setenv("SERRY_TEAM", "openmp", 1);
    run.with_team = true;
    run_ranks(g_kind, RANKS, body_bits, &run);
    test_unshare(before, sizeof(*before));
}

/* ---- a reduction that the caller has made ----------------------------------------------------------- */

static serry_op g_op;
static _Thread_local bool t_is_rank; /* the thread that calls */
static _Atomic int g_strangers;

static void add(void *accumulator, const void *next, size_t count, serry_dtype dtype,
                void *argument)
{
    int64_t *to = accumulator;
    const int64_t *from = next;

    (void)dtype;
    (void)argument;
    atomic_fetch_add(&g_strangers, !t_is_rank);
    for (size_t i = 0; i < count; i++)
        to[i] += from[i];
}

/* The sum over `ranks` of rank + i, with `op`, in place. */
static int sum(test_rank *self, serry_comm *comm, serry_op op, int64_t *vector)
{
    for (size_t i = 0; i < COUNT; i++)
        vector[i] = self->rank + (int64_t)i;
    return serry_allreduce(SERRY_IN_PLACE, vector, COUNT, SERRY_I64, op, comm);
}

/* Is it the sum of `ranks` ranks, whose numbers have this sum? */
static bool is_sum(const int64_t *vector, int64_t numbers, int64_t ranks)
{
    for (size_t i = 0; i < COUNT; i++)
        if (vector[i] != numbers + ranks * (int64_t)i)
            return false;
    return true;
}

static void body_user(test_rank *self)
{
    int64_t *vector = malloc(COUNT * sizeof(*vector));

    t_is_rank = true;
    for (int turn = 0; turn < 2; turn++) {
        EXPECT_OK(self, sum(self, self->comm, turn == 0 ? SERRY_SUM : g_op, vector));
        CHECK(self, is_sum(vector, 3, RANKS));
    }
    CHECK(self, atomic_load(&g_strangers) == 0);
    free(vector);
}

static void a_reduction_of_ones_own_is_called_by_one_thread(void **state)
{
    (void)state;
    assert_int_equal(serry_op_create("team_add", add, NULL, &g_op), SERRY_OK);
    run_ranks(g_kind, RANKS, body_user, NULL);
    assert_int_equal(serry_op_free(&g_op), SERRY_OK);
}

/* ---- fork, bound ranks, the end ---------------------------------------------------------------------- */

static void nothing(void *argument)
{
    (void)argument;
}

/* OpenMP of the child's own, and a job of its own, which has no team. */
static int be_a_child(test_rank *self, int64_t *vector)
{
    void (*parallel)(void (*)(void *), void *, unsigned, unsigned) = NULL;
    void *found = dlsym(dlopen("libgomp.so.1", RTLD_NOW), "GOMP_parallel");
    serry_comm *comm = NULL;

    if (sum(self, self->comm, SERRY_SUM, vector) != SERRY_ERR_FORKED)
        return 1;
    memcpy(&parallel, &found, sizeof(found));
    parallel(nothing, NULL, 2, 0);
    int threads = count_threads();
    serry_config config = SERRY_CONFIG_INIT;
    config.rank = 0;
    config.size = 1;
    config.job = "a child's own";
    if (serry_init(&config, &comm) != SERRY_OK)
        return 2;
    if (team_of(comm) > 1)
        return 3;
    if (sum(self, comm, SERRY_SUM, vector) != SERRY_OK || !is_sum(vector, self->rank, 1))
        return 4;
    if (count_threads() != threads)
        return 5;
    return serry_finalize(&comm) == SERRY_OK ? 0 : 6;
}

static void body_fork(test_rank *self)
{
    int64_t *vector = malloc(COUNT * sizeof(*vector));

    for (int turn = 0; turn < 3; turn++) {
        EXPECT_OK(self, sum(self, self->comm, SERRY_SUM, vector));
        CHECK(self, is_sum(vector, 3, RANKS));
        test_at(self, "forking");
        pid_t child = fork();
        if (child == 0)
            _exit(be_a_child(self, vector));
        int status = 0;
        CHECK(self, waitpid(child, &status, 0) == child);
        if (status != 0)
            test_failed(self, "the child ended with status %#x", (unsigned)status);
    }
    free(vector);
}

/* Fault:  a rank forks when its team has worked.
 * Expect: child and parent can use OpenMP, neither hangs, and the parent's next operation is right. */
static void a_fork_does_not_hang(void **state)
{
    (void)state;
    run_ranks(g_kind, RANKS, body_fork, NULL);
}

static void body_bound(test_rank *self)
{
    int64_t *vector = malloc(COUNT * sizeof(*vector));
    int before = count_threads();
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    CHECK(self, sched_setaffinity(0, sizeof(one), &one) == 0);
    EXPECT_OK(self, sum(self, self->comm, SERRY_SUM, vector));
    CHECK(self, is_sum(vector, 3, RANKS));
    CHECK(self, self->kind == SERRY_THREADS || count_threads() == before);
    free(vector);
}

static void on_one_core_there_is_no_team(void **state)
{
    (void)state;
    run_ranks(g_kind, RANKS, body_bound, NULL);
}

static void body_end(test_rank *self)
{
    int64_t *vector = malloc(COUNT * sizeof(*vector));
    int before = count_threads();
    serry_comm *comm = NULL;

    test_meet(self);
    test_expect(self, SERRY_OK, test_init(self, 0, &comm), NULL, "init");
    test_expect(self, SERRY_OK, sum(self, comm, SERRY_SUM, vector), comm, "allreduce");
    CHECK(self, count_threads() >= before + wanted_threads() - 1);
    test_meet(self);
    test_expect(self, SERRY_OK, serry_finalize(&comm), NULL, "finalize");
    test_meet(self);
    while (count_threads() > before) /* until the kernel is done with them; or the watchdog */
        test_sleep_ms(1);
    free(vector);
}

static void no_thread_of_a_team_stays_after_finalize(void **state)
{
    test_options options = {.kind = g_kind, .size = RANKS, .body_joins = true};
    (void)state;
    test_end(test_start(&options, body_end, NULL));
}

/* ---- killed ------------------------------------------------------------------------------------------ */

static void body_killed(test_rank *self)
{
    int64_t *vector = malloc(COUNT * sizeof(*vector));
    serry_rank_set with;

    EXPECT_OK(self, serry_set_policy(self->comm, SERRY_EXCLUDE));
    if (self->rank == VICTIM)
        test_raise(self, 0);
    do {
        EXPECT_OK(self, sum(self, self->comm, SERRY_SUM, vector));
        EXPECT_OK(self, serry_participants(self->comm, &with));
        bool all = serry_rank_set_has(&with, VICTIM);
        CHECK(self, is_sum(vector, all ? 3 : 2, all ? RANKS : RANKS - 1));
    } while (serry_rank_set_has(&with, VICTIM));
    for (int i = 0; i < 3; i++) {
        EXPECT_OK(self, sum(self, self->comm, SERRY_SUM, vector));
        CHECK(self, is_sum(vector, 2, RANKS - 1));
    }
    free(vector);
}

/* Fault:  a rank is killed while it and its team are at work, somewhere.
 * Expect: each operation of the others is the sum of those that took part, the next ones as well. */
static void killed_with_its_team_a_rank_spoils_nothing(void **state)
{
    test_options options = {.kind = SERRY_PROCESSES, .size = RANKS};
    (void)state;

    if (g_kind == SERRY_THREADS)
        skip();
    for (uint64_t i = 0; i < DEATHS; i++) {
        test_run *run = test_start(&options, body_killed, NULL);
        while (test_flag(run, 0) == 0)
            usleep(100);
        usleep((useconds_t)(reference_random(test_seed(), 1, i) % 40000));
        test_kill(run, VICTIM);
        test_end(run);
    }
}

/* ---- how many ----------------------------------------------------------------------------------------- */

static void body_share(test_rank *self)
{
    cpu_set_t mask;

    CHECK(self, sched_getaffinity(0, sizeof(mask), &mask) == 0);
    int share = serry_cores(&mask) / 2;
    CHECK(self, team_of(self->comm) == (share > 1 && !TEST_TSAN ? share : 1));
}

static void without_a_number_ranks_share_the_cores(void **state)
{
    (void)state;
    unsetenv("OMP_NUM_THREADS");
    setenv("SERRY_TEAM", "openmp", 1);
    run_ranks(SERRY_PROCESSES, 2, body_share, NULL);
}

int main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_team_gives_the_same_bits),
        cmocka_unit_test(a_reduction_of_ones_own_is_called_by_one_thread),
        cmocka_unit_test(a_fork_does_not_hang),
        cmocka_unit_test(on_one_core_there_is_no_team),
        cmocka_unit_test(no_thread_of_a_team_stays_after_finalize),
        cmocka_unit_test(killed_with_its_team_a_rank_spoils_nothing),
    };
    const struct CMUnitTest share[] = {cmocka_unit_test(without_a_number_ranks_share_the_cores)};

    if (count == 2 && strcmp(arguments[1], "share") == 0)
        return cmocka_run_group_tests_name("share", share, NULL, NULL);
    if (count != 2 || getenv("OMP_NUM_THREADS") == NULL) {
        fputs("usage: OMP_NUM_THREADS=N team processes|threads, or team share\n", stderr);
        return 2;
    }
    g_kind = strcmp(arguments[1], "threads") == 0 ? SERRY_THREADS : SERRY_PROCESSES;
    return cmocka_run_group_tests_name(arguments[1], tests, NULL, NULL);
}
