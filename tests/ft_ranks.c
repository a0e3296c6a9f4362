/* ft_ranks.c - the fault-tolerant wrapper over shared memory: each strategy, with faults on one
 * rank.
 *
 * Whatever the fault, all ranks get the same code from the same operation, results are right,
 * inputs and outputs of what failed are as they were, and the next operation works. */
#include <pthread.h>
#include <string.h>

#include "ft_jobs.h"

#define VICTIM 1
#define LATE_MS 250 /* three times that, and the machine has run all that are not late */

static const size_t k_counts[] = {1, 100, VECTORS_LARGE};
#define COUNTS (sizeof(k_counts) / sizeof(k_counts[0]))

static void on_all(ft_job *job, test_body body)
{
    for (int size = 2; size <= 4; size++) {
        ft_job_run(job, SERRY_THREADS, size, -1, body);
        ft_job_run(job, SERRY_PROCESSES, size, -1, body);
    }
}

/* How often the victim was struck, by the chain's first backend. */
static uint64_t fired(const test_rank *self, serry_fault fault)
{
    return serry_faulty_fired(((const ft_job *)self->argument)->faulty[0], fault);
}

static size_t errors_of(const test_rank *self)
{
    return serry_recovery_history(serry_ft_recovery(self->comm), NULL, 0);
}

/* ---- retry ---------------------------------------------------------------------------------- */

static void body_all_kinds(test_rank *self)
{
    vectors v;
    if (!ft_job_open(self) || !vectors_open(self, &v, false))
        return;
    for (serry_kind kind = SERRY_KIND_BARRIER; kind <= SERRY_KIND_ALLTOALL; kind++)
        for (size_t i = 0; i < COUNTS; i++)
            ft_job_call(self, &v, kind, kind == SERRY_KIND_BARRIER ? 0 : k_counts[i], SERRY_OK);
    CHECK(self, serry_ft_operation(self->comm) == 9 * COUNTS);
    test_mine(self)->number[0] = (double)errors_of(self);
    vectors_close(self, &v, false);
    ft_job_close(self);
}

static void body_healed(test_rank *self)
{
    body_all_kinds(self);
    if (self->rank == VICTIM)
        CHECK(self, test_mine(self)->number[0] >= 2 && fired(self, SERRY_FAULT_FAIL) >= 2);
}

static void retries_heal_what_fails_on_one_rank(void **state)
{
    (void)state;
    ft_job job = {.script = {"rank=1 kind=allreduce fail=SYSTEM times=2;"
                             "rank=1 p=0.2 fail=SYSTEM;"
                             "rank=0 p=0.2 fail=SYSTEM; p=0.1 delay=1"},
                  .max_retries = 50};
    on_all(&job, body_healed);
}

static void without_faults_nothing_is_noted(void **state)
{
    (void)state;
    ft_job job = {.script = {""}};
    on_all(&job, body_all_kinds);
}

/* ---- abort ---------------------------------------------------------------------------------- */

static void body_abort(test_rank *self)
{
    bool late = *(const bool *)((const ft_job *)self->argument)->more;
    vectors v;
    if (!ft_job_open(self) || !vectors_open(self, &v, late))
        return;
    for (size_t i = 0; i < COUNTS; i++) {
        ft_job_call(self, &v, SERRY_KIND_ALLGATHER, k_counts[i], SERRY_OK);
        if (late && self->rank != VICTIM) /* the victim waits for them in its meeting */
            test_sleep_ms(20);
        if (!late && self->rank == VICTIM) /* the others wait in the operation */
            test_sleep_ms(20);
        ft_job_call(self, &v, SERRY_KIND_ALLREDUCE, k_counts[i], SERRY_ERR_NO_SPACE);
        const serry_error *error = test_record_of(self->comm);
        CHECK(self, error->rank == self->rank && strcmp(error->operation, "allreduce") == 0);
        CHECK(self, error->operation_id == 2 + 3 * i);
        CHECK(self, self->rank == VICTIM ? strstr(error->message, "on purpose") != NULL
                                         : error->peer == VICTIM);
        CHECK(self, errors_of(self) == i + 1);
        ft_job_call(self, &v, SERRY_KIND_BROADCAST, k_counts[i], SERRY_OK);
    }
    CHECK(self, self->rank != VICTIM || fired(self, SERRY_FAULT_FAIL) == COUNTS);
    vectors_close(self, &v, late);
    ft_job_close(self);
}

static void an_error_of_one_rank_comes_to_all(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        bool is_late = late == 1;
        ft_job job = {.script = {"rank=1 kind=allreduce fail=NO_SPACE times=3"}, .more = &is_late};
        on_all(&job, body_abort);
    }
}

/* ---- a mismatch ----------------------------------------------------------------------------- */

static void body_mismatch(test_rank *self)
{
    vectors v;
    if (!ft_job_open(self) || !vectors_open(self, &v, false))
        return;
    ft_job_call(self, &v, SERRY_KIND_ALLREDUCE, 100, SERRY_ERR_RANK_MISMATCH);
    serry_recovery_set_strategy(serry_ft_recovery(self->comm), SERRY_ERR_RANK_MISMATCH,
                                SERRY_RETRY);
    ft_job_call(self, &v, SERRY_KIND_ALLREDUCE, VECTORS_LARGE, SERRY_OK);
    CHECK(self, errors_of(self) == 2);
    CHECK(self, self->rank != VICTIM || fired(self, SERRY_FAULT_CORRUPT) == 2);
    vectors_close(self, &v, false);
    ft_job_close(self);
}

static void a_corrupted_call_is_retried_by_all_if_told_so(void **state)
{
    (void)state;
    ft_job job = {.script = {"rank=1 corrupt times=2"}};
    on_all(&job, body_mismatch);
}

/* ---- another algorithm ---------------------------------------------------------------------- */

static void body_algorithm(test_rank *self)
{
    vectors v;
    if (!ft_job_open(self) || !vectors_open(self, &v, true))
        return;
    for (size_t i = 0; i < COUNTS; i++)
        ft_job_call(self, &v, SERRY_KIND_ALLREDUCE, k_counts[i], SERRY_OK);
    CHECK(self, errors_of(self) == (self->rank == VICTIM ? 2 : 0));
    for (size_t i = 0; i < COUNTS; i++)
        ft_job_call(self, &v, SERRY_KIND_BROADCAST, k_counts[i], i == 1 ? SERRY_ERR_SYSTEM : 0);
    vectors_close(self, &v, true);
    ft_job_close(self);
}

static void all_change_the_algorithm_together(void **state)
{
    (void)state;
    ft_job job = {
        .script = {"rank=1 op=2 fail=SYSTEM; rank=1 op=3 fail=SYSTEM; rank=1 op=4 fail=SYSTEM; "
                   "rank=1 op=5 fail=SYSTEM times=3"},
        .system = SERRY_DIFFERENT_ALGORITHM};
    on_all(&job, body_algorithm);
}

/* ---- a late rank ---------------------------------------------------------------------------- */

/* All the others have given the operation up by then. It gets their error, too. */
static void body_late(test_rank *self)
{
    vectors v;
    if (!ft_job_open(self) || !vectors_open(self, &v, false))
        return;
    ft_job_call(self, &v, SERRY_KIND_BARRIER, 0, SERRY_OK);
    if (self->rank == VICTIM)
        test_await(self, 0, (unsigned)self->size - 1);
    else
        serry_set_timeout(self->comm, LATE_MS);
    ft_job_call(self, &v, SERRY_KIND_ALLREDUCE, 100, SERRY_ERR_TIMEOUT);
    const serry_error *error = test_record_of(self->comm);
    if (self->rank != VICTIM) {
        CHECK(self, errors_of(self) == 3);
        CHECK(self, serry_rank_set_has(&error->ranks, VICTIM));
        CHECK(self, serry_error_context_get(error, "Meeting") != NULL);
        test_raise(self, 0);
        serry_set_timeout(self->comm, 60000);
    } else {
        CHECK(self, errors_of(self) == 1);
    }
    ft_job_call(self, &v, SERRY_KIND_ALLREDUCE, 100, SERRY_OK);
    CHECK(self, serry_ft_operation(self->comm) == 3);
    ft_job_call(self, &v, SERRY_KIND_ALLTOALL, 100, SERRY_OK);
    vectors_close(self, &v, false);
    ft_job_close(self);
}

static void a_late_rank_gets_the_timeout_as_well(void **state)
{
    (void)state;
    ft_job job = {.script = {""}, .max_retries = 2};
    on_all(&job, body_late);
}

/* ---- cancelling ----------------------------------------------------------------------------- */

/* Until the operation waits, nothing runs under its number. */
static void *cancel_second(void *argument)
{
    test_rank *self = argument;
    test_sleep_ms(30);
    while (!serry_timeouts_cancel(serry_ft_timeouts(self->comm), 2))
        test_sleep_ms(1);
    return NULL;
}

static void body_cancel(test_rank *self)
{
    vectors v;
    pthread_t thread;
    if (!ft_job_open(self) || !vectors_open(self, &v, false))
        return;
    ft_job_call(self, &v, SERRY_KIND_BARRIER, 0, SERRY_OK);
    if (self->rank == 0) {
        CHECK(self, pthread_create(&thread, NULL, cancel_second, self) == 0);
        ft_job_call(self, &v, SERRY_KIND_ALLREDUCE, 100, SERRY_ERR_CANCELLED);
        CHECK(self, strstr(test_record_of(self->comm)->message, "cancelled") != NULL);
        pthread_join(thread, NULL);
        test_raise(self, 0);
    } else {
        if (self->rank == VICTIM)
            test_await(self, 0, 1);
        ft_job_call(self, &v, SERRY_KIND_ALLREDUCE, 100, SERRY_ERR_CANCELLED);
        CHECK(self, test_record_of(self->comm)->peer == 0);
    }
    ft_job_call(self, &v, SERRY_KIND_ALLREDUCE, 100, SERRY_OK);
    ft_job_call(self, &v, SERRY_KIND_GATHER, VECTORS_LARGE, SERRY_OK);
    vectors_close(self, &v, false);
    ft_job_close(self);
}

static void a_cancelled_operation_ends_for_all(void **state)
{
    (void)state;
    ft_job job = {.script = {""}};
    on_all(&job, body_cancel);
}

int main(void)
{
    const struct CMUnitTest k_tests[] = {
        cmocka_unit_test(without_faults_nothing_is_noted),
        cmocka_unit_test(retries_heal_what_fails_on_one_rank),
        cmocka_unit_test(an_error_of_one_rank_comes_to_all),
        cmocka_unit_test(a_corrupted_call_is_retried_by_all_if_told_so),
        cmocka_unit_test(all_change_the_algorithm_together),
        cmocka_unit_test(a_late_rank_gets_the_timeout_as_well),
        cmocka_unit_test(a_cancelled_operation_ends_for_all),
    };
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
