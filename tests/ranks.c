/* ranks.c - joining in every way there is, and living through a fork. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

/* ---- what every communicator must do -------------------------------------------------------- */

/* A barrier, a short and a long sum. */
static void use(test_rank *self, serry_comm *comm)
{
    static const size_t k_counts[] = {3, 20000};
    uint64_t n = (uint64_t)serry_size(comm), r = (uint64_t)serry_rank(comm);
    uint64_t *send = malloc(20000 * sizeof(*send)), *recv = malloc(20000 * sizeof(*recv));

    test_expect(self, SERRY_OK, serry_barrier(comm), comm, "barrier");
    for (int i = 0; i < 2; i++) {
        size_t count = k_counts[i], wrong = 0;
        for (size_t j = 0; j < count; j++)
            send[j] = r + j;
        test_expect(self, SERRY_OK, serry_allreduce(send, recv, count, SERRY_U64, SERRY_SUM, comm),
                    comm, "allreduce of %zu", count);
        for (size_t j = 0; j < count; j++)
            wrong += recv[j] != n * (n - 1) / 2 + n * j;
        CHECK(self, wrong == 0);
    }
    free(send);
    free(recv);
}

static void body_use(test_rank *self)
{
    CHECK(self, serry_rank(self->comm) == self->rank);
    CHECK(self, serry_size(self->comm) == self->size);
    CHECK(self, serry_live(self->comm) == self->size);
    use(self, self->comm);
}

/* ---- serry_run_threads ---------------------------------------------------------------------- */

static int returns_its_rank(serry_comm *comm, void *argument)
{
    int lowest = *(const int *)argument;
    int result = serry_barrier(comm);
    if (result != SERRY_OK)
        return result;
    return serry_rank(comm) >= lowest ? 100 + serry_rank(comm) : 0;
}

static void test_run_threads(void **state)
{
    (void)state;
    int lowest = 2;
    run_ranks_by_library(1, body_use, NULL);
    run_ranks_by_library(3, body_use, NULL);
    run_ranks_by_library(16, body_use, NULL);
    assert_int_equal(serry_run_threads(5, returns_its_rank, &lowest), 102);
    lowest = 5;
    assert_int_equal(serry_run_threads(5, returns_its_rank, &lowest), SERRY_OK);
    assert_int_equal(serry_run_threads(0, returns_its_rank, &lowest), SERRY_ERR_INVALID);
    assert_int_equal(serry_run_threads(-1, returns_its_rank, &lowest), SERRY_ERR_INVALID);
    assert_int_equal(serry_run_threads(257, returns_its_rank, &lowest), SERRY_ERR_INVALID);
    assert_non_null(strstr(serry_last_error(NULL)->message, "257"));
    assert_int_equal(serry_run_threads(2, NULL, NULL), SERRY_ERR_INVALID);
}

/* Teams inside the ranks of another job. */
static void body_team_inside(test_rank *self)
{
    int lowest = 100;
    for (int i = 0; i < 3; i++) {
        CHECK(self, serry_run_threads(3, returns_its_rank, &lowest) == SERRY_OK);
        use(self, self->comm);
    }
}

static void test_team_inside(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, 2, body_team_inside, NULL);
    run_ranks(SERRY_THREADS, 2, body_team_inside, NULL);
}

/* ---- OpenMP --------------------------------------------------------------------------------- */

#if defined(_OPENMP) && !TEST_TSAN
#include <omp.h>

static void test_openmp(void **state)
{
    (void)state;
    char job[64];
    int wrong = 0;
    uint64_t total = 0;
    test_job_name(job, sizeof(job));
#pragma omp parallel num_threads(4) reduction(+ : wrong, total)
    {
        serry_config config = SERRY_CONFIG_INIT;
        serry_comm *comm;
        uint64_t mine = (uint64_t)omp_get_thread_num() + 1, sum = 0;
        config.rank = omp_get_thread_num();
        config.size = omp_get_num_threads();
        config.job = job;
        config.kind = SERRY_THREADS;
        wrong += serry_init(&config, &comm) != SERRY_OK ||
                 serry_allreduce(&mine, &sum, 1, SERRY_U64, SERRY_SUM, comm) != SERRY_OK ||
                 serry_finalize(&comm) != SERRY_OK;
        total += sum;
    }
    assert_int_equal(wrong, 0);
    assert_int_equal(total, 4 * 10);
}
#else
static void test_openmp(void **state)
{
    (void)state;
    print_message(
        "skipped: built without OpenMP, or with the thread sanitizer, which does not know "
        "OpenMP's own synchronisation\n");
    skip();
}
#endif

/* ---- many ranks ----------------------------------------------------------------------------- */

static void test_256_threads(void **state)
{
    (void)state;
    run_ranks(SERRY_THREADS, 256, body_use, NULL);
}

static void test_128_processes(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, 128, body_use, NULL);
}

/* ---- several jobs --------------------------------------------------------------------------- */

#define JOBS 4

/* Rank r of the run is rank (r + j) % n of job j. */
static void body_jobs(test_rank *self)
{
    serry_comm *comm[JOBS] = {NULL};
    char name[JOBS][80];
    for (int j = 0; j < JOBS; j++) {
        serry_config config = SERRY_CONFIG_INIT;
        snprintf(name[j], sizeof(name[j]), "%s-%d", self->job, j);
        config.rank = (self->rank + j) % self->size;
        config.size = self->size;
        config.job = name[j];
        config.kind = self->kind;
        if (!test_expect(self, SERRY_OK, serry_init(&config, &comm[j]), NULL, "job %d", j))
            return;
        CHECK(self, serry_rank(comm[j]) == config.rank);
    }
    for (int round = 0; round < 20; round++)
        for (int j = 0; j < JOBS; j++)
            use(self, comm[(round + j * 3) % JOBS]);
    for (int j = 0; j < JOBS; j++)
        test_expect(self, SERRY_OK, serry_finalize(&comm[(j + 1) % JOBS]), NULL, "finalize");
}

static void test_jobs(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, 3, body_jobs, NULL);
    run_ranks(SERRY_THREADS, 3, body_jobs, NULL);
}

/* The same name again, as soon as the first job has started. */
static void body_same_name_again(test_rank *self)
{
    serry_comm *comm[3] = {NULL};
    for (int i = 0; i < 3; i++)
        if (test_expect(self, SERRY_OK, test_init(self, 20000, &comm[i]), NULL, "join %d", i))
            use(self, comm[i]);
    for (int i = 0; i < 3; i++)
        serry_finalize(&comm[i]);
}

static void test_same_name_again(void **state)
{
    (void)state;
    for (serry_kind_of_rank kind = SERRY_PROCESSES; kind <= SERRY_THREADS; kind++) {
        test_options options = {.kind = kind, .size = 3, .body_joins = true};
        test_end(test_start(&options, body_same_name_again, NULL));
    }
}

/* ---- alone ---------------------------------------------------------------------------------- */

/* Nothing said at all: rank 0 of 1. */
static void test_alone(void **state)
{
    (void)state;
    serry_comm *comm;
    double mine = 2.5, sum = 0;
    assert_int_equal(serry_init(NULL, &comm), SERRY_OK);
    assert_int_equal(serry_rank(comm), 0);
    assert_int_equal(serry_size(comm), 1);
    assert_int_equal(serry_allreduce(&mine, &sum, 1, SERRY_F64, SERRY_SUM, comm), SERRY_OK);
    assert_true(sum == 2.5);
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
    assert_null(comm);
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
}

/* ---- fork ----------------------------------------------------------------------------------- */

/* Everything a child may try with its parent's communicator; the number of the first thing that
 * does not say SERRY_ERR_FORKED, or 0. */
static int try_everything(serry_comm *comm)
{
    float x[4] = {1, 2, 3, 4}, y[4] = {0};
    serry_comm *part = comm;
    serry_rank_set set;
    for (int kind = SERRY_KIND_BARRIER; kind <= SERRY_KIND_ALLTOALL; kind++) {
        serry_call c = {(serry_kind)kind, SERRY_F32, SERRY_SUM, 0, 1, x, y};
        if (test_call(&c, comm) != SERRY_ERR_FORKED)
            return 10 + kind;
    }
    if (serry_split(comm, 0, 0, &part) != SERRY_ERR_FORKED || part != NULL)
        return 30;
    if (serry_dup(comm, &part) != SERRY_ERR_FORKED || part != NULL)
        return 31;
    if (serry_set_timeout(comm, 5) != SERRY_ERR_FORKED)
        return 32;
    if (serry_participants(comm, &set) != SERRY_ERR_FORKED)
        return 34;
    if (serry_alloc(comm, 100) != NULL || serry_last_error(comm)->error != SERRY_ERR_FORKED)
        return 33;
    serry_free(comm, x);
    return 0;
}

static int child(serry_comm *comm)
{
    int wrong = try_everything(comm);
    serry_comm *own = NULL;
    if (wrong != 0)
        return wrong;
    if (serry_finalize(&comm) != SERRY_OK || comm != NULL)
        return 40;
    if (TEST_TSAN) /* no new threads in a child of a process with threads */
        return 0;
    if (serry_init(NULL, &own) != SERRY_OK || serry_barrier(own) != SERRY_OK ||
        serry_finalize(&own) != SERRY_OK)
        return 41; /* a job of its own */
    return 0;
}

/* Nor does it matter to the parent when a child ends without a word, or is killed. */
static void body_forks(test_rank *self)
{
    for (int i = 0; i < 3; i++) {
        int status = -1;
        use(self, self->comm);
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0)
            _exit(i == 0 ? child(self->comm) : i == 1 ? 0 : pause());
        use(self, self->comm);
        if (i == 2)
            kill(pid, SIGKILL);
        CHECK(self, pid > 0 && waitpid(pid, &status, 0) == pid);
        if (status != (i == 2 ? SIGKILL : 0))
            test_failed(self, "child %d ended with wait status %#x", i, (unsigned)status);
    }
    use(self, self->comm);
}

static void test_fork(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, 3, body_forks, NULL);
    if (!TEST_TSAN) /* which holds other threads' locks in the child */
        run_ranks(SERRY_THREADS, 2, body_forks, NULL);
}

/* ---- the last error ------------------------------------------------------------------------- */

static void body_last_error(test_rank *self)
{
    serry_comm *copy = NULL, *part = NULL;
    uint32_t x = 1, y = 0;
    const serry_error *record = serry_last_error(self->comm);
    CHECK(self, record->error == SERRY_OK && record->operation != NULL);

    test_expect(
        self, SERRY_ERR_RANK_MISMATCH,
        serry_allreduce(&x, &y, 1, self->rank == 0 ? SERRY_U32 : SERRY_I32, SERRY_SUM, self->comm),
        self->comm, "types");
    CHECK(self, record->error == SERRY_ERR_RANK_MISMATCH && record->peer >= 0);
    CHECK(self, strcmp(record->operation, "allreduce") == 0 && record->rank == self->rank);
    CHECK(self, record->operation_id == 1 && record->system_error == 0);
    CHECK(self, 1e-9 * (double)record->monotonic_ns <= test_now() && record->wall_ns > 0);

    EXPECT_OK(self, serry_barrier(self->comm)); /* success clears nothing */
    EXPECT_OK(self, serry_dup(self->comm, &copy));
    EXPECT_OK(self, serry_split(self->comm, 0, 0, &part));
    serry_free(self->comm, serry_alloc(self->comm, 100));
    CHECK(self, record->error == SERRY_ERR_RANK_MISMATCH);
    CHECK(self, serry_last_error(copy)->error == SERRY_OK); /* to each its own */

    test_expect(self, SERRY_ERR_INVALID, serry_barrier(NULL), NULL, "no communicator");
    CHECK(self, serry_last_error(NULL)->error == SERRY_ERR_INVALID);
    CHECK(self, record->error == SERRY_ERR_RANK_MISMATCH);

    test_expect(self, SERRY_ERR_INVALID, serry_broadcast(&x, 1, SERRY_U32, 99, self->comm),
                self->comm, "root 99");
    CHECK(self, record == serry_last_error(self->comm) && record->error == SERRY_ERR_INVALID);
    CHECK(self, record->peer == -1 && test_ranks_are(&record->ranks, &(int){-1}));
    CHECK(self, strcmp(record->operation, "broadcast") == 0);
    serry_finalize(&copy);
    serry_finalize(&part);
}

static void test_last_error(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, 3, body_last_error, NULL);
    run_ranks(SERRY_THREADS, 3, body_last_error, NULL);
}

int main(void)
{
    const struct CMUnitTest k_tests[] = {
        cmocka_unit_test(test_run_threads),
        cmocka_unit_test(test_team_inside),
        cmocka_unit_test(test_openmp),
        cmocka_unit_test(test_256_threads),
        cmocka_unit_test(test_128_processes),
        cmocka_unit_test(test_jobs),
        cmocka_unit_test(test_same_name_again),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_last_error),
    };
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
