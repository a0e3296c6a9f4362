/* ft_random.c - faults by chance on all ranks, each strategy among the answers: at every operation
 * all ranks get the same code, and what completes is right. */
#include "ft_jobs.h"

#define OPERATIONS 150

static const char k_script[] = "p=0.03 fail=SYSTEM; p=0.01 fail=NO_SPACE; p=0.005 fail=UNSUPPORTED;"
                               "p=0.02 delay=1; p=0.02 corrupt";

/* What each rank got from each operation; memory that all ranks share. */
typedef struct outcomes {
    int code[OPERATIONS][4];
} outcomes;

static void body_random(test_rank *self)
{
    const ft_job *job = self->argument;
    outcomes *all = (outcomes *)(uintptr_t)job->more;
    vectors v;
    if (!ft_job_open(self) || !vectors_open(self, &v, false))
        return;
    serry_recovery *recovery = serry_ft_recovery(self->comm);
    serry_recovery_set_strategy(recovery, SERRY_ERR_UNSUPPORTED, SERRY_DIFFERENT_ALGORITHM);
    serry_recovery_set_strategy(recovery, SERRY_ERR_RANK_MISMATCH, SERRY_RETRY);
    uint64_t random = test_seed();
    for (int i = 0; i < OPERATIONS; i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        serry_kind kind = (serry_kind)(1 + (random >> 33) % SERRY_KIND_ALLTOALL);
        size_t count = 1 + (size_t)((random >> 40) % 3000);
        serry_call c = {kind, SERRY_U64, SERRY_SUM, 0, count, v.send, v.recv};
        test_at(self, "operation %d: %s of %zu", i, serry_kind_name(kind), count);
        vectors_fill(self, &v, &c);
        int code = all->code[i][self->rank] = test_call(&c, self->comm);
        if (code != SERRY_OK && code != SERRY_ERR_NO_SPACE && code != SERRY_ERR_UNSUPPORTED)
            test_failed(self, "operation %d: %s", i, serry_last_error(self->comm)->message);
        vectors_check(self, &v, &c, code == SERRY_OK);
    }
    CHECK(self, serry_ft_operation(self->comm) == OPERATIONS);
    test_mine(self)->number[0] =
        (double)serry_recovery_history(serry_ft_recovery(self->comm), NULL, 0);
    CHECK(self, test_mine(self)->number[0] > 0);
    vectors_close(self, &v, false);
    ft_job_close(self);
}

static void all_ranks_fare_alike(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        outcomes *all = test_shared(sizeof(*all));
        int size = 2 + i % 3, differ = 0, failed = 0;
        ft_job job = {.inner = {NULL, NULL, &serry_backend_socket},
                      .script = {k_script, k_script, k_script},
                      .max_retries = 50,
                      .more = all};
        ft_job_run(&job, i < 3 ? SERRY_THREADS : SERRY_PROCESSES, size, -1, body_random);
        for (int n = 0; n < OPERATIONS; n++) {
            failed += all->code[n][0] != SERRY_OK;
            for (int r = 1; r < size; r++)
                differ += all->code[n][r] != all->code[n][0];
        }
        print_message("# %d ranks: %d of %d operations were aborted\n", size, failed, OPERATIONS);
        test_unshare(all, sizeof(*all));
        assert_int_equal(differ, 0);
    }
}

int main(void)
{
    const struct CMUnitTest k_tests[] = {
        cmocka_unit_test(all_ranks_fare_alike),
    };
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
