/* stress.c - many more ranks than cores: 64 ranks pass 10,000 barriers and 1,000 allreduces, every one
 * checked. */
#include <string.h>

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

int main(void)
{
    const struct CMUnitTest k_tests[] = {
        cmocka_unit_test(test_barriers_of_processes),
        cmocka_unit_test(test_barriers_of_threads),
        cmocka_unit_test(test_allreduces_of_processes),
        cmocka_unit_test(test_allreduces_of_threads),
    };
    test_watchdog(250);
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
