/* backend_socket.c - what is the socket backend's own, beside what all tests with SERRY_BACKEND=socket
 * ask of it: the bits of shared memory, meetings, ranks that are absent from the beginning, evidence of
 * death, what it does not have. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "comm.h"
#include "deaths.h"

#define SHORT_MS 60
static const int k_none[] = {-1};

static void everywhere(int size, test_body body)
{
    run_ranks(SERRY_PROCESSES, size, body, NULL);
    run_ranks(SERRY_THREADS, size, body, NULL);
}

static int meet(test_rank *self, uint64_t vote, int timeout_ms, uint64_t *votes, int *repeat)
{
    const serry_limit limit = {timeout_ms, NULL, NULL, NULL};
    serry_comm *comm = self->comm;

    return comm->backend->meet(comm->member, vote, &limit, votes, repeat, &comm->error);
}

/* ---- the same bits --------------------------------------------------------------------------- */

#define ELEMENTS ((size_t)30000)

static void fill(float *vector, int rank)
{
    uint64_t sequence = chance_begin((uint64_t)rank);

    for (size_t i = 0; i < ELEMENTS; i++)
        vector[i] = ((float)chance(&sequence, 2000000) - 1e6F) * 1.1e-3F;
}

static void sum_over(test_rank *self, const serry_backend *backend, float *sum)
{
    float *vector = malloc(ELEMENTS * sizeof(*vector));
    serry_config config = test_config(self, 0);
    serry_comm *comm;

    config.backend = backend;
    fill(vector, self->rank);
    if (test_expect(self, SERRY_OK, serry_init(&config, &comm), NULL, "init over %s",
                    backend->name)) {
        CHECK(self, comm->backend == backend);
        test_expect(self, SERRY_OK,
                    serry_allreduce(vector, sum, ELEMENTS, SERRY_F32, SERRY_SUM, comm), comm,
                    "allreduce over %s", backend->name);
        serry_finalize(&comm);
    }
    free(vector);
}

static void body_bits(test_rank *self)
{
    float *sums = calloc(2 * ELEMENTS, sizeof(*sums));

    sum_over(self, &serry_backend_shm, sums);
    sum_over(self, &serry_backend_socket, sums + ELEMENTS);
    CHECK(self, sums[0] != 0 && memcmp(sums, sums + ELEMENTS, ELEMENTS * sizeof(*sums)) == 0);
    free(sums);
}

static void results_have_the_bits_of_shared_memory(void **state)
{
    (void)state;
    for (int size = 2; size <= 7; size += 5)
        for (int kind = SERRY_PROCESSES; kind <= SERRY_THREADS; kind++) {
            test_options options = {
                .kind = (serry_kind_of_rank)kind, .size = size, .body_joins = true};
            test_end(test_start(&options, body_bits, NULL));
        }
}

/* ---- a rank that comes late ------------------------------------------------------------------ */

/* Fault:  rank 1, or rank 0, the hub, comes late.
 * Expect: TIMEOUT names it; another call is PENDING; the same call completes when it has come. */
static void body_late(test_rank *self)
{
    for (int late = 1; late >= 0; late--) {
        int64_t sum = self->rank + 1, other = 7;
        unsigned others = (unsigned)(self->size - 1) * (late == 1 ? 1u : 2u);
        if (self->rank == late) {
            test_await(self, 0, others);
        } else {
            EXPECT_OK(self, serry_set_timeout(self->comm, SHORT_MS));
            int rc = serry_allreduce(SERRY_IN_PLACE, &sum, 1, SERRY_I64, SERRY_SUM, self->comm);
            test_expect(self, SERRY_ERR_TIMEOUT, rc, self->comm, "allreduce without rank %d", late);
            CHECK(self, serry_rank_set_has(&serry_last_error(self->comm)->ranks, late));
            rc = serry_allreduce(SERRY_IN_PLACE, &other, 1, SERRY_I64, SERRY_SUM, self->comm);
            test_expect(self, SERRY_ERR_PENDING, rc, self->comm, "another allreduce");
            CHECK(self, sum == self->rank + 1 && other == 7);
            EXPECT_OK(self, serry_set_timeout(self->comm, -1));
            test_raise(self, 0);
        }
        EXPECT_OK(self, serry_allreduce(SERRY_IN_PLACE, &sum, 1, SERRY_I64, SERRY_SUM, self->comm));
        CHECK(self, sum == self->size * (self->size + 1) / 2);
    }
}

static void a_late_rank_is_named_and_the_operation_stays_open(void **state)
{
    (void)state;
    everywhere(4, body_late);
}

/* ---- meetings -------------------------------------------------------------------------------- */

/* Fault:  rank 2 does not come; rank 0 has waited long enough, and calls a meeting.
 * Expect: rank 1 is called from its wait, rank 2 at its next operation. All get all votes, and drop what
 *         was open, inputs intact: another operation completes. */
static void body_repeat(test_rank *self)
{
    const serry_limit limit = {self->rank == 0 ? SHORT_MS : -1, NULL, NULL, NULL};
    int64_t value = self->rank, sums[2] = {self->rank, 1};
    const serry_call call = {SERRY_KIND_ALLREDUCE, SERRY_I64, SERRY_SUM, 0, 1, &value, &value};
    serry_comm *comm = self->comm;
    uint64_t votes = 0;
    int repeat = -1;

    if (self->rank == 2)
        test_sleep_ms(4 * SHORT_MS);
    int rc = comm->backend->run(comm->member, &call, &limit, &comm->error);
    test_expect(self, self->rank == 0 ? SERRY_ERR_TIMEOUT : SERRY_ERR_MEETING, rc, comm, "run");
    EXPECT_OK(self, meet(self, UINT64_C(1) << self->rank, -1, &votes, &repeat));
    CHECK(self, votes == 7 && repeat == SERRY_REPEAT && value == self->rank);
    EXPECT_OK(self, serry_allreduce(SERRY_IN_PLACE, sums, 2, SERRY_I64, SERRY_SUM, comm));
    CHECK(self, sums[0] == 3 && sums[1] == 3);
}

static void a_meeting_drops_what_cannot_end(void **state)
{
    (void)state;
    everywhere(3, body_repeat);
}

/* Fault:  all have contributed, but the hub is not there; it calls a meeting before it goes on.
 * Expect: all are told to finish, and that completes the operation. */
static void body_finish(test_rank *self)
{
    const serry_limit limit = {self->rank == 0 ? SHORT_MS : -1, NULL, NULL, NULL};
    int64_t value = self->rank + 1;
    const serry_call call = {SERRY_KIND_ALLREDUCE, SERRY_I64, SERRY_SUM, 0, 1, &value, &value};
    serry_comm *comm = self->comm;
    uint64_t votes = 0;
    int repeat = -1, rc;

    if (self->rank != 0)
        test_await(self, 0, 1);
    rc = comm->backend->run(comm->member, &call, &limit, &comm->error);
    if (self->rank == 0) {
        test_expect(self, SERRY_ERR_TIMEOUT, rc, comm, "run");
        test_raise(self, 0);
        test_sleep_ms(2 * SHORT_MS); /* until all wait for the hub */
    } else {
        test_expect(self, SERRY_ERR_MEETING, rc, comm, "run");
    }
    EXPECT_OK(self, meet(self, 0, -1, &votes, &repeat));
    CHECK(self, repeat == SERRY_FINISH && value == self->rank + 1);
    EXPECT_OK(self, comm->backend->run(comm->member, &call, &limit, &comm->error));
    CHECK(self, value == 6);
}

static void a_meeting_lets_end_what_all_have_begun(void **state)
{
    (void)state;
    everywhere(3, body_finish);
}

/* Fault:  rank 2 does not come to the meeting at first; then it is killed.
 * Expect: TIMEOUT, the meeting stays open and nothing else runs; without rank 2 it ends. */
static void body_open_meeting(test_rank *self)
{
    uint64_t votes = 0;
    int repeat = -1;

    if (self->rank == 2) {
        test_await(self, 0, 2);
        death_now(self);
    }
    test_expect(self, SERRY_ERR_TIMEOUT, meet(self, 1, SHORT_MS, &votes, &repeat), self->comm,
                "meet");
    const serry_limit limit = {-1, NULL, NULL, NULL};
    const serry_call barrier = {.kind = SERRY_KIND_BARRIER};
    serry_comm *comm = self->comm;
    test_expect(self, SERRY_ERR_MEETING,
                comm->backend->run(comm->member, &barrier, &limit, &comm->error), comm, "run");
    test_raise(self, 0);
    EXPECT_OK(self, meet(self, 1, -1, &votes, &repeat));
    CHECK(self, votes == 1 && repeat == SERRY_REPEAT);
    expect_failed(self, comm, serry_barrier(comm), (const int[]){2, -1}, "barrier");
    expect_goes_on(self, comm, (const int[]){2, -1});
}

static void a_meeting_stays_open_until_all_have_come_or_gone(void **state)
{
    (void)state;
    run_deaths(SERRY_PROCESSES, 3, body_open_meeting, NULL, (const int[]){2, -1});
    run_deaths(SERRY_THREADS, 3, body_open_meeting, NULL, k_none);
}

/* Fault:  one rank calls a meeting while the others agree.
 * Expect: the agreement is made, and everybody goes on. */
static void body_agree_meanwhile(test_rank *self)
{
    uint64_t votes = 0, bits = UINT64_C(1) << self->rank;
    int repeat = -1;

    if (self->rank == 1) {
        test_sleep_ms(SHORT_MS);
        EXPECT_OK(self, meet(self, 1, -1, &votes, &repeat));
        CHECK(self, repeat == SERRY_FINISH);
    }
    EXPECT_OK(self, serry_agree(self->comm, SERRY_BOR, &bits));
    CHECK(self, bits == 7);
    expect_goes_on(self, self->comm, k_none);
}

static void a_meeting_gives_way_to_an_agreement(void **state)
{
    (void)state;
    everywhere(3, body_agree_meanwhile);
}

/* ---- who is there ---------------------------------------------------------------------------- */

/* Ranks 0 and 2 of 4 are known to have failed before. */
static void body_absent(test_rank *self)
{
    const serry_backend *backend = &serry_backend_socket;
    const serry_limit limit = {-1, NULL, NULL, NULL};
    serry_job job = {.rank = self->rank,
                     .size = self->size,
                     .kind = self->kind,
                     .timeout_ms = 60000,
                     .entry = SERRY_ENTRY_START,
                     .absent = {{5}}};
    serry_member *member;
    serry_rank_set set;
    serry_error error;
    int64_t value = self->rank;

    if (serry_rank_set_has(&job.absent, self->rank))
        return;
    snprintf(job.name, sizeof(job.name), "%s", self->job);
    serry_error_make(&error, SERRY_ERR_INVALID, "test", 0, self->rank, "none");
    if (!CHECK(self, backend->open(backend, &job, &member, &error) == SERRY_OK))
        return;
    const serry_call call = {SERRY_KIND_ALLREDUCE, SERRY_I64, SERRY_SUM, 0, 1, &value, &value};
    CHECK(self, backend->run(member, &call, &limit, &error) == SERRY_OK && value == 4);
    backend->failed(member, &set);
    CHECK(self, set.bits[0] == 5 && backend->live(member) == 2 && backend->epoch(member) == 0);
    serry_vitals vitals;
    CHECK(self, backend->vitals(member, 2, &vitals, &error) == SERRY_OK && vitals.failed &&
                    vitals.activity == SERRY_GONE);
    CHECK(self, backend->vitals(member, 3, &vitals, &error) == SERRY_OK && !vitals.failed);
    test_raise(self, 0);
    test_await(self, 0, 2); /* both have looked */
    CHECK(self, backend->close(member, &error) == SERRY_OK);
}

static void absent_ranks_are_not_waited_for(void **state)
{
    (void)state;
    for (int kind = SERRY_PROCESSES; kind <= SERRY_THREADS; kind++) {
        test_options options = {.kind = (serry_kind_of_rank)kind, .size = 4, .body_joins = true};
        test_end(test_start(&options, body_absent, NULL));
    }
}

/* Fault:  a rank is killed that has a child, a copy of it with all its descriptors.
 * Expect: the others learn of its end all the same. */
static void body_child(test_rank *self)
{
    _Atomic pid_t *child = self->argument;

    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == 1) {
        pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, 0);
            for (;;)
                pause();
        }
        atomic_store(child, pid);
        death_now(self);
    }
    expect_failed(self, self->comm, serry_barrier(self->comm), (const int[]){1, -1}, "barrier");
}

static void a_child_does_not_hide_the_end_of_its_parent(void **state)
{
    (void)state;
    _Atomic pid_t *child = test_shared(sizeof(*child));

    run_deaths(SERRY_PROCESSES, 3, body_child, child, (const int[]){1, -1});
    assert_true(atomic_load(child) > 0);
    assert_int_equal(kill(atomic_load(child), SIGKILL), 0);
    test_unshare(child, sizeof(*child));
}

/* ---- what it does not have -------------------------------------------------------------------- */

static void body_unsupported(test_rank *self)
{
    serry_comm *comm = self->comm;
    const serry_backend *backend = comm->backend;
    int no = SERRY_ERR_UNSUPPORTED;

    CHECK(self, backend == &serry_backend_socket);
    test_expect(self, no, serry_set_policy(comm, SERRY_WAIT), comm, "policy wait");
    test_expect(self, no, backend->set_variant(comm->member, 1, &comm->error), comm, "variant");
    EXPECT_OK(self, backend->set_variant(comm->member, 0, &comm->error));
    test_expect(self, no, backend->exclude(comm->member, 0, SERRY_EXCLUSION_KILL, &comm->error),
                comm, "exclude");
    expect_goes_on(self, comm, k_none);
}

static void what_it_does_not_have_is_unsupported(void **state)
{
    (void)state;
    everywhere(2, body_unsupported);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_have_the_bits_of_shared_memory),
        cmocka_unit_test(a_late_rank_is_named_and_the_operation_stays_open),
        cmocka_unit_test(a_meeting_drops_what_cannot_end),
        cmocka_unit_test(a_meeting_lets_end_what_all_have_begun),
        cmocka_unit_test(a_meeting_stays_open_until_all_have_come_or_gone),
        cmocka_unit_test(a_meeting_gives_way_to_an_agreement),
        cmocka_unit_test(absent_ranks_are_not_waited_for),
        cmocka_unit_test(a_child_does_not_hide_the_end_of_its_parent),
        cmocka_unit_test(what_it_does_not_have_is_unsupported),
    };

    setenv("SERRY_BACKEND", "socket", 1);
    return cmocka_run_group_tests_name("backend_socket", tests, NULL, NULL);
}
