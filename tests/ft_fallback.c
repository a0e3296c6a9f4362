/* ft_fallback.c - all ranks move to the next backend of the chain at the same operation. */
#include <string.h>

#include "ft_jobs.h"

#define VICTIM 1
#define DEAD 2

static const ft_job *job_of(const test_rank *self)
{
    return self->argument;
}

static bool is_carried_by(const test_rank *self, const serry_comm *comm, int at)
{
    return serry_ft_carrier(comm) == job_of(self)->faulty[at];
}

static void all_kinds(test_rank *self, vectors *v)
{
    static const size_t k_counts[] = {1, 100, 5000};
    for (serry_kind kind = SERRY_KIND_BARRIER; kind <= SERRY_KIND_ALLTOALL; kind++)
        for (size_t i = 0; i < 3; i++)
            ft_job_call(self, v, kind, kind == SERRY_KIND_BARRIER ? 0 : k_counts[i], SERRY_OK);
}

/* ---- the whole job -------------------------------------------------------------------------- */

/* The victim fails in its third operation, which the others have contributed to or not. */
static void body_move(test_rank *self)
{
    const size_t *count = job_of(self)->more;
    vectors v, old;
    if (!ft_job_open(self) || !vectors_open(self, &v, false) || !vectors_open(self, &old, true))
        return;
    CHECK(self, is_carried_by(self, self->comm, 0));
    ft_job_call(self, &v, SERRY_KIND_ALLREDUCE, *count, SERRY_OK);
    ft_job_call(self, &old, SERRY_KIND_ALLTOALL, *count, SERRY_OK);
    if (self->rank == VICTIM)
        test_sleep_ms(20);
    ft_job_call(self, &old, SERRY_KIND_ALLREDUCE, *count, SERRY_OK);
    CHECK(self, is_carried_by(self, self->comm, 1));
    CHECK(self, serry_ft_operation(self->comm) == 3);
    CHECK(self, serry_live(self->comm) == self->size && serry_rank(self->comm) == self->rank);
    all_kinds(self, &v);
    all_kinds(self, &old); /* memory of the first backend */
    vectors_close(self, &old, true);
    if (!vectors_open(self, &old, true))
        return;
    all_kinds(self, &old); /* of the second */
    if (self->rank == VICTIM)
        CHECK(self, serry_faulty_fired(job_of(self)->faulty[0], SERRY_FAULT_FAIL) == 1);
    vectors_close(self, &v, false);
    ft_job_close(self);
}

static void move_between(const serry_backend *first, const serry_backend *second)
{
    static const size_t k_counts[] = {7, VECTORS_LARGE};
    for (int i = 0; i < 2; i++) {
        ft_job job = {.inner = {first, second},
                      .script = {"rank=1 op=3 fail=SYSTEM", ""},
                      .system = SERRY_FALLBACK_BACKEND,
                      .more = &k_counts[i]};
        for (int size = 2; size <= 4; size++) {
            ft_job_run(&job, SERRY_THREADS, size, -1, body_move);
            ft_job_run(&job, SERRY_PROCESSES, size, -1, body_move);
        }
    }
}

static void from_shm_to_another_shm(void **state)
{
    (void)state;
    move_between(&serry_backend_shm, &serry_backend_shm);
}

static void from_shm_to_sockets(void **state)
{
    (void)state;
    move_between(&serry_backend_shm, &serry_backend_socket);
}

static void from_sockets_to_shm(void **state)
{
    (void)state;
    move_between(&serry_backend_socket, &serry_backend_shm);
}

/* ---- joining -------------------------------------------------------------------------------- */

static void body_join(test_rank *self)
{
    vectors v;
    if (!ft_job_open(self) || !vectors_open(self, &v, false))
        return;
    CHECK(self, is_carried_by(self, self->comm, 1));
    all_kinds(self, &v);
    vectors_close(self, &v, false);
    ft_job_close(self);
}

static void the_first_backend_lets_nobody_in(void **state)
{
    (void)state;
    ft_job job = {.script = {"kind=open fail=NO_SPACE", ""}};
    ft_job_run(&job, SERRY_THREADS, 3, -1, body_join);
    ft_job_run(&job, SERRY_PROCESSES, 3, -1, body_join);
}

/* The others wait in vain for it, then all go on to the third. */
static void body_skip(test_rank *self)
{
    vectors v;
    if (!ft_job_open(self) || !vectors_open(self, &v, false))
        return;
    ft_job_call(self, &v, SERRY_KIND_ALLREDUCE, 100, SERRY_OK);
    CHECK(self, is_carried_by(self, self->comm, 2));
    serry_set_timeout(self->comm, 60000);
    all_kinds(self, &v);
    vectors_close(self, &v, false);
    ft_job_close(self);
}

static void the_second_backend_lets_one_rank_not_in(void **state)
{
    (void)state;
    ft_job job = {.script = {"rank=0 op=1 fail=SYSTEM", "kind=open rank=1 fail=NO_SPACE", ""},
                  .timeout_ms = 1500,
                  .max_retries = 20,
                  .system = SERRY_FALLBACK_BACKEND};
    ft_job_run(&job, SERRY_THREADS, 3, -1, body_skip);
    ft_job_run(&job, SERRY_PROCESSES, 3, -1, body_skip);
}

/* ---- deaths --------------------------------------------------------------------------------- */

/* A sum among the survivors. */
static int sum(test_rank *self, int *ranks)
{
    uint64_t own = UINT64_C(1) << (8 * self->rank), all = 0;
    int code = serry_allreduce(&own, &all, 1, SERRY_U64, SERRY_SUM, self->comm);
    *ranks = code == SERRY_OK ? __builtin_popcountll(all) : 0;
    return code;
}

static void body_death(test_rank *self)
{
    const int *errors = job_of(self)->more;
    int ranks, failed = 0, code = SERRY_OK;
    if (!ft_job_open(self))
        return;
    for (int i = 0; i < 8; i++) {
        test_at(self, "sum %d", i);
        code = sum(self, &ranks);
        failed += code == SERRY_ERR_RANK_FAILED;
        test_expect(self, code == SERRY_OK ? SERRY_OK : SERRY_ERR_RANK_FAILED, code, self->comm,
                    "sum %d", i);
    }
    CHECK(self, code == SERRY_OK && ranks == self->size - 1);
    CHECK(self, is_carried_by(self, self->comm, 1));
    CHECK(self, failed == *errors);
    CHECK(self, serry_live(self->comm) == self->size - 1);
    ft_job_close(self);
}

static void a_rank_that_had_failed_is_not_waited_for(void **state)
{
    (void)state;
    int errors = 1;
    ft_job job = {.inner = {&serry_backend_shm, &serry_backend_socket},
                  .script = {"rank=2 op=2 kill; rank=1 op=4 fail=SYSTEM", ""},
                  .system = SERRY_FALLBACK_BACKEND,
                  .more = &errors};
    ft_job_run(&job, SERRY_PROCESSES, 3, DEAD, body_death);
    ft_job_run(&job, SERRY_PROCESSES, 4, DEAD, body_death);
}

static void a_rank_dies_while_all_move(void **state)
{
    (void)state;
    int errors = 0;
    ft_job job = {.inner = {&serry_backend_shm, &serry_backend_socket},
                  .script = {"rank=1 op=4 fail=SYSTEM", "kind=open rank=2 kill"},
                  .system = SERRY_FALLBACK_BACKEND,
                  .more = &errors,
                  .timeout_ms = 5000,
                  .max_retries = 20};
    ft_job_run(&job, SERRY_PROCESSES, 3, DEAD, body_death);
    ft_job_run(&job, SERRY_PROCESSES, 4, DEAD, body_death);
}

/* It had contributed by then, or not: nobody knows which. */
static void body_death_at_once(test_rank *self)
{
    int ranks;
    if (!ft_job_open(self))
        return;
    int first = sum(self, &ranks);
    CHECK(self, first == SERRY_OK || first == SERRY_ERR_RANK_FAILED);
    while (sum(self, &ranks) != SERRY_OK || ranks == self->size)
        ;
    CHECK(self, is_carried_by(self, self->comm, 1));
    ft_job_close(self);
}

static void a_rank_dies_in_the_operation_that_moves(void **state)
{
    (void)state;
    ft_job job = {.inner = {&serry_backend_shm, &serry_backend_socket},
                  .script = {"rank=1 op=1 fail=SYSTEM; rank=2 op=1 delay=5; rank=2 op=1 kill", ""},
                  .system = SERRY_FALLBACK_BACKEND};
    ft_job_run(&job, SERRY_PROCESSES, 3, DEAD, body_death_at_once);
    ft_job_run(&job, SERRY_PROCESSES, 4, DEAD, body_death_at_once);
}

/* ---- parts ---------------------------------------------------------------------------------- */

/* Even ranks in one part, odd ones, with the victim, in the other: only that one moves. */
static void body_parts(test_rank *self)
{
    serry_comm *part, *again;
    uint64_t one = 1, all = 0;
    if (!ft_job_open(self))
        return;
    test_expect(self, SERRY_OK, serry_split(self->comm, self->rank % 2, 0, &part), self->comm,
                "split");
    for (int i = 0; i < 3; i++) {
        test_expect(self, SERRY_OK, serry_gather(&one, &all, 0, SERRY_U64, 0, part), part,
                    "gather");
        test_expect(self, SERRY_OK, serry_allreduce(&one, &all, 1, SERRY_U64, SERRY_SUM, part),
                    part, "allreduce");
        CHECK(self, all == (uint64_t)serry_size(part));
    }
    CHECK(self, is_carried_by(self, part, self->rank % 2));
    test_expect(self, SERRY_OK, serry_dup(part, &again), part, "dup");
    CHECK(self, is_carried_by(self, again, self->rank % 2));
    test_expect(self, SERRY_OK, serry_barrier(again), again, "barrier");
    test_expect(self, SERRY_OK, serry_barrier(self->comm), self->comm, "barrier");
    CHECK(self, is_carried_by(self, self->comm, 0));
    CHECK(self, serry_finalize(&again) == SERRY_OK);
    CHECK(self, serry_finalize(&part) == SERRY_OK);
    ft_job_close(self);
}

static void a_part_moves_alone(void **state)
{
    (void)state;
    ft_job job = {.script = {"rank=1 kind=gather fail=SYSTEM", ""},
                  .system = SERRY_FALLBACK_BACKEND};
    for (int size = 2; size <= 4; size++) {
        ft_job_run(&job, SERRY_THREADS, size, -1, body_parts);
        ft_job_run(&job, SERRY_PROCESSES, size, -1, body_parts);
    }
}

int main(void)
{
    const struct CMUnitTest k_tests[] = {
        cmocka_unit_test(from_shm_to_another_shm),
        cmocka_unit_test(from_shm_to_sockets),
        cmocka_unit_test(from_sockets_to_shm),
        cmocka_unit_test(the_first_backend_lets_nobody_in),
        cmocka_unit_test(the_second_backend_lets_one_rank_not_in),
        cmocka_unit_test(a_rank_that_had_failed_is_not_waited_for),
        cmocka_unit_test(a_rank_dies_while_all_move),
        cmocka_unit_test(a_rank_dies_in_the_operation_that_moves),
        cmocka_unit_test(a_part_moves_alone),
    };
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
