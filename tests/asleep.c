/* asleep.c - what waiting costs: a rank that waits one second in a collective uses less than 5 % of it. */
#include <sys/resource.h>

#include "deaths.h"

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

static void waiting_processes_use_no_cpu(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, 4, body_idle, NULL);
    run_ranks(SERRY_PROCESSES, 8, body_idle, NULL);
}

static void waiting_threads_use_no_cpu(void **state)
{
    (void)state;
    run_ranks(SERRY_THREADS, 4, body_idle, NULL);
    run_ranks(SERRY_THREADS, 8, body_idle, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiting_processes_use_no_cpu),
        cmocka_unit_test(waiting_threads_use_no_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
