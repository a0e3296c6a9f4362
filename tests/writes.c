/* writes.c - a rank that stopped, or was killed, or just takes its time while it writes into the memory of
 * others (shm/writes.h): nobody goes on in its place, or leaves with buffers that it may write to, before it is
 * done or gone. Here it only says that it writes. */
#include <pthread.h>
#include <serry/health.h>

#include "comm.h"
#include "deaths.h"
#include "harness.h"
#include "operation.h"
#include "writes.h"

#define COUNT ((size_t)5000)

enum { RANKS = 3, WRITER = 2 };
enum { WRITING, REFUSED, SEALED, TIMED_OUT, DONE, ALL_ENDED }; /* flags of a run */
enum { SHORT_MS = 100, MOMENT_MS = 300 };

static shm_member *member_of(const test_rank *self)
{
    return (shm_member *)(void *)self->comm->member;
}

/* As if it were in the middle of a copy. */
static void begin(test_rank *self)
{
    CHECK(self, writes_begin(member_of(self)));
    test_raise(self, WRITING);
}

static void end(test_rank *self)
{
    writes_end(member_of(self));
}

static bool somebody_writes(const test_rank *self)
{
    return writes_now(member_of(self), WRITER);
}

/* A sum that others write into, where they come to it. */
static int sum(test_rank *self, int64_t *buffer)
{
    return serry_allreduce(SERRY_IN_PLACE, buffer, COUNT, SERRY_I64, SERRY_SUM, self->comm);
}

static int64_t *take(test_rank *self)
{
    int64_t *buffer = serry_alloc(self->comm, COUNT * sizeof(*buffer));

    for (size_t i = 0; i < COUNT && CHECK(self, buffer != NULL); i++)
        buffer[i] = self->rank + 1;
    return buffer;
}

static void check_all(test_rank *self, const int64_t *buffer, int64_t wanted)
{
    for (size_t i = 0; i < COUNT; i++)
        if (!CHECK(self, buffer[i] == wanted))
            return;
}

/* Out of time, and the writer is named. */
static void expect_waits(test_rank *self, int rc)
{
    const serry_error *error = serry_last_error(self->comm);

    CHECK(self, somebody_writes(self));
    if (test_expect(self, SERRY_ERR_TIMEOUT, rc, self->comm, "beside a writer"))
        CHECK(self,
              serry_rank_set_has(&error->ranks, WRITER) && test_names_rank(error->message, WRITER));
}

/* ---- sealed -------------------------------------------------------------------------------------- */

static void sealed(test_rank *self)
{
    int64_t *buffer = take(self);

    if (self->rank == WRITER) {
        begin(self);
        test_await(self, TIMED_OUT, RANKS - 1);
        end(self);
        test_raise(self, DONE);
        test_expect(self, SERRY_ERR_EXCLUDED, sum(self, buffer), self->comm, "the writer's call");
        check_all(self, buffer, self->rank + 1);
        return;
    }
    test_await(self, WRITING, 1);
    if (self->rank == 0)
        group_seal_member(&member_of(self)->group, WRITER);
    EXPECT_OK(self, serry_set_timeout(self->comm, SHORT_MS));
    expect_waits(self, sum(self, buffer));
    test_raise(self, TIMED_OUT);
    test_await(self, DONE, 1);
    EXPECT_OK(self, serry_set_timeout(self->comm, -1));
    test_expect(self, SERRY_ERR_RANK_FAILED, sum(self, buffer), self->comm, "the same call again");
    check_all(self, buffer, self->rank + 1);
    EXPECT_OK(self, sum(self, buffer));
    check_all(self, buffer, 1 + 2);
}

static void nobody_goes_on_for_a_sealed_rank_that_writes(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, sealed, NULL);
    run_ranks(SERRY_THREADS, RANKS, sealed, NULL);
}

/* ---- excluded by a seal -------------------------------------------------------------------------- */

static void seal_refused(test_rank *self)
{
    const serry_backend *backend = self->comm->backend;
    serry_error error;

    if (self->rank == WRITER) {
        begin(self);
        test_await(self, REFUSED, 1);
        end(self);
        test_raise(self, DONE);
    } else if (self->rank == 0) {
        test_await(self, WRITING, 1);
        int rc = backend->exclude(self->comm->member, WRITER, SERRY_EXCLUSION_SEAL, &error);
        CHECK(self, rc == SERRY_ERR_UNSUPPORTED && test_names_rank(error.message, WRITER));
        CHECK(self, serry_live(self->comm) == RANKS);
        test_raise(self, REFUSED);
        test_await(self, DONE, 1);
        CHECK(self, backend->exclude(self->comm->member, WRITER, SERRY_EXCLUSION_SEAL, &error) ==
                        SERRY_OK);
        test_raise(self, SEALED);
    }
    test_await(self, SEALED, 1);
    int rc = serry_barrier(self->comm);
    test_expect(self, self->rank == WRITER ? SERRY_ERR_EXCLUDED : SERRY_ERR_RANK_FAILED, rc,
                self->comm, "afterwards");
}

static void a_rank_that_writes_is_not_sealed(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, seal_refused, NULL);
    run_ranks(SERRY_THREADS, RANKS, seal_refused, NULL);
}

/* ---- killed -------------------------------------------------------------------------------------- */

/* By its lock, if it holds that; else by the end of its process. */
static void killed(test_rank *self)
{
    bool enters = *(const bool *)self->argument;
    int64_t *buffer = take(self);

    if (self->rank == WRITER) {
        CHECK(self, !enters || writes_enter(member_of(self)));
        begin(self);
        death_now(self);
    }
    test_expect(self, SERRY_ERR_RANK_FAILED, sum(self, buffer), self->comm, "beside the dead");
    CHECK(self, somebody_writes(self)); /* it stays so, and stops nobody */
    EXPECT_OK(self, sum(self, buffer));
    check_all(self, buffer, 1 + 2);
}

static void a_killed_writer_holds_nobody_up(void **state)
{
    bool enters = false;

    (void)state;
    run_deaths(SERRY_PROCESSES, RANKS, killed, &enters, (int[]){WRITER, -1});
    enters = true;
    run_deaths(SERRY_PROCESSES, RANKS, killed, &enters, (int[]){WRITER, -1});
    run_deaths(SERRY_THREADS, RANKS, killed, &enters, (int[]){WRITER, -1});
}

/* ---- who leaves ---------------------------------------------------------------------------------- */

typedef enum way { REVOKES, IS_EXCLUDED, FINALIZES, WAYS } way;

/* The others stay out of the operation, and one of them writes: so who has come to it may not leave. */
static void leave(test_rank *self, way how)
{
    int64_t *buffer = take(self);

    EXPECT_OK(self, serry_set_timeout(self->comm, SHORT_MS));
    test_expect(self, SERRY_ERR_TIMEOUT, sum(self, buffer), self->comm, "alone");
    if (how == REVOKES)
        EXPECT_OK(self, serry_revoke(self->comm));
    if (how == IS_EXCLUDED)
        group_seal_member(&member_of(self)->group, self->rank);
    if (how != FINALIZES) {
        expect_waits(self, sum(self, buffer));
        test_raise(self, TIMED_OUT);
        test_await(self, DONE, 1);
        test_expect(self, how == REVOKES ? SERRY_ERR_REVOKED : SERRY_ERR_EXCLUDED,
                    sum(self, buffer), self->comm, "when nobody writes any more");
    } else {
        test_raise(self, TIMED_OUT);
        EXPECT_OK(self, serry_finalize(&self->comm));
        CHECK(self, test_flag(self->run, DONE) == 1);
    }
}

static void leaving(test_rank *self)
{
    way how = *(const way *)self->argument;

    if (self->rank == WRITER) {
        begin(self);
        test_await(self, TIMED_OUT, 1);
        if (how == FINALIZES)
            test_sleep_ms(MOMENT_MS);
        test_raise(self, DONE);
        end(self);
    } else if (self->rank == 0) {
        test_await(self, WRITING, 1);
        leave(self, how);
    }
    test_raise(self, ALL_ENDED);
    test_await(self, ALL_ENDED, RANKS);
}

static void nobody_leaves_while_others_write_into_its_result(void **state)
{
    (void)state;
    for (way how = 0; how < WAYS; how++) {
        run_ranks(SERRY_PROCESSES, RANKS, leaving, &how);
        run_ranks(SERRY_THREADS, RANKS, leaving, &how);
    }
}

/* ---- who is excluded ----------------------------------------------------------------------------- */

/* The writer is still at its sums when another rank is sealed, which leaves then, and takes its result for
 * something else. */
static serry_op slow_op;
static _Thread_local test_rank *own;

static void slow_sum(void *accumulator, const void *next, size_t count, serry_dtype dtype,
                     void *argument)
{
    const int64_t *b = next;
    int64_t *a = accumulator;

    (void)dtype;
    (void)argument;
    if (own->rank == WRITER) {
        test_raise(own, WRITING);
        test_await(own, DONE, 1);
    }
    for (size_t i = 0; i < count; i++)
        a[i] += b[i];
}

static void *seal_soon(void *argument)
{
    test_rank *self = argument;

    test_await(self, WRITING, 1);
    test_sleep_ms(SHORT_MS); /* it has come to the end of its own part by then */
    group_seal_member(&member_of(self)->group, self->rank);
    return NULL;
}

static void excluded(test_rank *self)
{
    int64_t *send = take(self), *recv = take(self);
    pthread_t thread;

    own = self;
    if (self->rank == 0 && !CHECK(self, pthread_create(&thread, NULL, seal_soon, self) == 0))
        return;
    int rc = serry_allreduce(send, recv, COUNT, SERRY_I64, slow_op, self->comm);
    if (self->rank == 0) {
        test_expect(self, SERRY_ERR_EXCLUDED, rc, self->comm, "the sealed rank's call");
        for (size_t i = 0; i < COUNT; i++)
            recv[i] = -1;
        test_raise(self, DONE);
        pthread_join(thread, NULL);
    } else {
        EXPECT_OK(self, rc);
        check_all(self, recv, 1 + 2 + 3);
    }
    test_raise(self, ALL_ENDED);
    test_await(self, ALL_ENDED, RANKS);
    if (self->rank == 0)
        check_all(self, recv, -1);
}

static void nobody_writes_to_who_has_been_excluded(void **state)
{
    (void)state;
    assert_int_equal(serry_op_create("slow sum", slow_sum, NULL, &slow_op), SERRY_OK);
    run_ranks(SERRY_PROCESSES, RANKS, excluded, NULL);
    run_ranks(SERRY_THREADS, RANKS, excluded, NULL);
    serry_op_free(&slow_op);
}

/* ---- where -------------------------------------------------------------------------------------- */

/* Each rank stands in one of two domains, or all in one. */
static void stand(test_rank *self, bool apart)
{
    const shm_group *g = &member_of(self)->group;

    test_meet(self);
    g->arena->slots[g->header->slot[self->rank]].domain = apart ? 1 + (uint32_t)self->rank % 2 : 1;
    test_meet(self);
}

static void in_domains(test_rank *self)
{
    int64_t *buffer = take(self), total = (int64_t)self->size * (self->size + 1) / 2;

    for (int apart = 0; apart < 2; apart++) {
        for (size_t i = 0; i < COUNT; i++)
            buffer[i] = self->rank + 1;
        stand(self, apart == 1);
        EXPECT_OK(self, sum(self, buffer));
        check_all(self, buffer, total);
        bool near = apart == 0 || self->size <= SPREAD_FAR;
        CHECK(self, (member_of(self)->algorithm == &algorithm_spread) == near);
    }
}

static void many_ranks_write_to_others_of_their_domain_only(void **state)
{
    (void)state;
    run_ranks(SERRY_THREADS, SPREAD_FAR, in_domains, NULL);
    run_ranks(SERRY_THREADS, SPREAD_FAR + 1, in_domains, NULL);
}

/* ---- a monitor that seals ------------------------------------------------------------------------ */

static void watched(test_rank *self)
{
    serry_health_config config = SERRY_HEALTH_CONFIG_INIT;
    int64_t *buffer = take(self);
    serry_health *health = NULL;

    EXPECT_OK(self, sum(self, buffer));
    CHECK(self, member_of(self)->algorithm == &algorithm_spread);
    config.exclusion = SERRY_EXCLUSION_SEAL;
    if (self->rank == 0) /* of one rank */
        EXPECT_OK(self, serry_health_create(self->comm, &config, &health));
    EXPECT_OK(self, serry_barrier(self->comm));
    for (size_t i = 0; i < COUNT; i++)
        buffer[i] = self->rank + 1;
    EXPECT_OK(self, sum(self, buffer));
    check_all(self, buffer, 1 + 2 + 3);
    CHECK(self, member_of(self)->algorithm != &algorithm_spread);
    if (health != NULL)
        EXPECT_OK(self, serry_health_destroy(&health));
}

static void nobody_writes_to_others_where_somebody_may_be_sealed(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, watched, NULL);
    run_ranks(SERRY_THREADS, RANKS, watched, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_goes_on_for_a_sealed_rank_that_writes),
        cmocka_unit_test(a_rank_that_writes_is_not_sealed),
        cmocka_unit_test(a_killed_writer_holds_nobody_up),
        cmocka_unit_test(nobody_leaves_while_others_write_into_its_result),
        cmocka_unit_test(nobody_writes_to_who_has_been_excluded),
        cmocka_unit_test(many_ranks_write_to_others_of_their_domain_only),
        cmocka_unit_test(nobody_writes_to_others_where_somebody_may_be_sealed),
    };

    return cmocka_run_group_tests_name("writes", tests, NULL, NULL);
}
