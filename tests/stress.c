/* stress.c - many more ranks than cores, and what waiting costs.
 *
 * 64 ranks pass 10,000 barriers and 1,000 allreduces, every one checked. A rank that waits one
 * second in a collective uses less than 5 % of it. */
#include <string.h>
#include <sys/resource.h>

#include "harness.h"

#define RANKS 64
#define BARRIERS (TEST_SANITIZER ? 300 : 10000)
#define ALLREDUCES (TEST_SANITIZER ? 60 : 1000)
#define LONG_COUNT 3000u /* every 50th allreduce has so many elements, which takes another way */

/* ---- many barriers and allreduces ----------------------------------------------------------- */

static void body_barriers(test_rank *self)
{
    _Atomic long *arrivals = self->argument;
    for (long round = 1; round <= BARRIERS; round++) {
        test_at(self, "barrier %ld", round);
        atomic_fetch_add(arrivals, 1);
        if (!EXPECT_OK(self, serry_barrier(self->comm)))
            return;
        long seen = atomic_load(arrivals);
        if (seen < round * self->size || seen > (round + 1) * self->size) {
            test_failed(self, "barrier %ld let through: %ld arrivals", round, seen);
            return;
        }
    }
}

static void body_allreduces(test_rank *self)
{
    uint64_t n = (uint64_t)self->size, r = (uint64_t)self->rank;
    uint64_t mine[LONG_COUNT], sum[LONG_COUNT];
    for (uint64_t round = 0; round < ALLREDUCES; round++) {
        size_t count = round % 50 == 49 ? LONG_COUNT : 3;
        test_at(self, "allreduce %llu", (unsigned long long)round);
        for (size_t i = 0; i < count; i++)
            mine[i] = round * r + i;
        memset(sum, 0, sizeof(sum));
        if (!EXPECT_OK(self, serry_allreduce(mine, sum, count, SERRY_U64, SERRY_SUM, self->comm)))
            return;
        for (size_t i = 0; i < count; i++)
            if (sum[i] != round * (n * (n - 1) / 2) + i * n) {
                test_failed(self, "allreduce %llu: element %zu is %llu", (unsigned long long)round,
                            i, (unsigned long long)sum[i]);
                return;
            }
    }
}

static void run_barriers(serry_kind_of_rank kind)
{
    _Atomic long *arrivals = test_shared(sizeof(*arrivals));
    run_ranks(kind, RANKS, body_barriers, arrivals);
    test_unshare(arrivals, sizeof(*arrivals));
}

static void test_barriers_of_processes(void **state)
{
    (void)state;
    run_barriers(SERRY_PROCESSES);
}

static void test_barriers_of_threads(void **state)
{
    (void)state;
    run_barriers(SERRY_THREADS);
}

static void test_allreduces_of_processes(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, body_allreduces, NULL);
}

static void test_allreduces_of_threads(void **state)
{
    (void)state;
    run_ranks(SERRY_THREADS, RANKS, body_allreduces, NULL);
}

/* ---- waiting costs nothing ------------------------------------------------------------------ */

static double cpu_seconds(int whose)
{
    struct rusage usage;
    getrusage(whose, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void check_cost(test_rank *self, const char *what, double cpu, double passed, double ranks)
{
    if (passed < 0.5)
        test_failed(self, "%s: waited only %.3f s", what, passed);
    if (cpu > 0.05 * passed * ranks)
        test_failed(self, "%s: used %.3f s of CPU in %.3f s", what, cpu, passed);
}

/* Rank 0 comes a second later. A process is measured with all its threads; of thread ranks each by
 * itself, and all together on rank 1. */
static void body_idle(test_rank *self)
{
    static const serry_call k_calls[] = {
        {SERRY_KIND_BARRIER, SERRY_U8, SERRY_SUM, 0, 0, NULL, NULL},
        {SERRY_KIND_ALLREDUCE, SERRY_F32, SERRY_SUM, 0, 10, NULL, NULL},
        {SERRY_KIND_ALLREDUCE, SERRY_F32, SERRY_SUM, 0, 20000, NULL, NULL},
    };
    static const char *const k_names[] = {"barrier", "small allreduce", "large allreduce"};
    float send[20000] = {0}, recv[20000] = {0};
    int mine = self->kind == SERRY_THREADS ? RUSAGE_THREAD : RUSAGE_SELF;

    for (int i = 0; i < 3; i++) {
        serry_call c = k_calls[i];
        c.send = send;
        c.recv = recv;
        test_at(self, "%s", k_names[i]);
        EXPECT_OK(self, serry_barrier(self->comm));
        test_meet(self);
        if (self->rank == 0)
            test_sleep_ms(1000);
        double cpu = cpu_seconds(mine), all = cpu_seconds(RUSAGE_SELF), start = test_now();
        EXPECT_OK(self, test_call(&c, self->comm));
        if (self->rank != 0)
            check_cost(self, k_names[i], cpu_seconds(mine) - cpu, test_now() - start, 1);
        if (self->rank == 1 && self->kind == SERRY_THREADS)
            check_cost(self, "all ranks together", cpu_seconds(RUSAGE_SELF) - all,
                       test_now() - start, self->size);
    }
}

static void test_idle_processes(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, 4, body_idle, NULL);
    run_ranks(SERRY_PROCESSES, 8, body_idle, NULL);
}

static void test_idle_threads(void **state)
{
    (void)state;
    run_ranks(SERRY_THREADS, 4, body_idle, NULL);
    run_ranks(SERRY_THREADS, 8, body_idle, NULL);
}

int main(void)
{
    const struct CMUnitTest k_tests[] = {
        cmocka_unit_test(test_barriers_of_processes),
        cmocka_unit_test(test_barriers_of_threads),
        cmocka_unit_test(test_allreduces_of_processes),
        cmocka_unit_test(test_allreduces_of_threads),
        cmocka_unit_test(test_idle_processes),
        cmocka_unit_test(test_idle_threads),
    };
    test_watchdog(250);
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
