/* health_ranks.c - real ranks in the eyes of a monitor: busy, waiting, dead, replaced, mistaken. */
#include "comm.h"
#include "deaths.h"
#include "health_watch.h"
#include "operation.h"
#include "slot.h"

enum { READY, GO_ON, DONE }; /* flags of a run */

static const int g_victim[] = {VICTIM, -1};

static arena_slot *victim_slot(test_rank *self)
{
    const shm_group *group = &((shm_member *)(void *)self->comm->member)->group;

    return &group->arena->slots[group->header->slot[VICTIM]];
}

static serry_vitals vitals_of(test_rank *self, int rank)
{
    serry_vitals vitals;
    serry_error error;

    if (self->comm->backend->vitals(self->comm->member, rank, &vitals, &error) != SERRY_OK)
        test_failed(self, "vitals of rank %d: %s", rank, error.message);
    return vitals;
}

/* ---- what ranks do ------------------------------------------------------------------------------ */

static void body_idle_ranks(test_rank *self)
{
    story s;

    test_meet(self);
    if (self->rank == WATCHER) {
        serry_health *health = watch(self, SERRY_EXCLUSION_NONE, &s);
        test_sleep_ms(4 * TIMEOUT_MS);
        serry_rank_status status = serry_health_status(health, VICTIM, NULL);
        CHECK(self, status != SERRY_FAILED);
        await_status(self, health, SERRY_HEALTHY);
        test_expect(self, SERRY_OK, serry_health_destroy(&health), NULL, "destroy");
        CHECK(self, health == NULL);
    }
    test_meet(self);
    EXPECT_OK(self, serry_barrier(self->comm));
}

/* Ranks that call nothing for many timeouts are well: the library itself shows it. */
static void ranks_that_call_nothing_are_healthy(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, body_idle_ranks, NULL);
    run_ranks(SERRY_THREADS, RANKS, body_idle_ranks, NULL);
}

static void body_waits(test_rank *self)
{
    for (int i = 0; i < 3; i++)
        EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == WATCHER) {
        story s;
        serry_health *health = watch(self, SERRY_EXCLUSION_NONE, &s);
        serry_health_report report;
        await_activity(self, health, SERRY_WAITING);
        serry_health_status(health, VICTIM, &report);
        if (report.operation != 4)
            test_failed(self, "waiting in operation %d, not 4", (int)report.operation);
        EXPECT_OK(self, serry_barrier(self->comm));
        await_activity(self, health, SERRY_COMPUTING);
        serry_health_report after;
        serry_health_status(health, VICTIM, &after);
        CHECK(self, after.progress >= report.progress && after.operation == 0);
        serry_health_destroy(&health);
        test_raise(self, DONE);
    } else {
        EXPECT_OK(self, serry_barrier(self->comm));
        test_await(self, DONE, 1);
    }
}

static void a_waiting_rank_is_known_with_its_operation(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, body_waits, NULL);
    run_ranks(SERRY_THREADS, RANKS, body_waits, NULL);
}

/* ---- gone --------------------------------------------------------------------------------------- */

static void body_dies(test_rank *self)
{
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == VICTIM) {
        test_await(self, READY, 1);
        death_now(self);
    }
    if (self->rank == WATCHER) {
        story s;
        serry_health *health = watch(self, SERRY_EXCLUSION_NONE, &s);
        test_raise(self, READY);
        serry_health_report report = await_status(self, health, SERRY_FAILED);
        CHECK(self, report.evidence && report.activity == SERRY_GONE);
        CHECK(self, serry_health_unresponsive(health) >= 1);
        test_sleep_ms(2 * TIMEOUT_MS);
        CHECK(self, serry_health_status(health, VICTIM, NULL) == SERRY_FAILED);
        serry_health_destroy(&health);
    }
    await_ends(self, 1);
    expect_failed(self, self->comm, serry_barrier(self->comm), g_victim, "barrier");
}

/* Fault:  a rank dies.
 * Expect: failed, by evidence, for good. */
static void a_dead_rank_has_failed(void **state)
{
    (void)state;
    run_deaths(SERRY_PROCESSES, RANKS, body_dies, NULL, g_victim);
    run_deaths(SERRY_THREADS, RANKS, body_dies, NULL, g_victim);
}

static void body_leaves(test_rank *self)
{
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == VICTIM) {
        EXPECT_OK(self, serry_finalize(&self->comm));
    } else if (self->rank == WATCHER) {
        story s;
        serry_health *health = watch(self, SERRY_EXCLUSION_NONE, &s);
        serry_health_report report = await_status(self, health, SERRY_FAILED);
        CHECK(self, report.evidence && report.activity == SERRY_GONE);
        serry_health_destroy(&health);
    }
    test_meet(self);
}

static void a_rank_that_has_left_counts_as_failed(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, body_leaves, NULL);
}

/* ---- replaced ----------------------------------------------------------------------------------- */

static bool enter(test_rank *self, int rank, serry_entry entry)
{
    serry_config config = test_config(self, 60000);

    config.rank = rank;
    config.size = RANKS;
    config.policy = SERRY_WAIT;
    config.entry = entry;
    return test_expect(self, SERRY_OK, serry_init(&config, &self->comm), NULL, "init");
}

static void body_replaced(test_rank *self)
{
    serry_health *health = NULL;
    story s;

    if (self->rank == RANKS) {
        test_await(self, READY, 1);
        if (!enter(self, VICTIM, SERRY_ENTRY_REPLACEMENT))
            return;
    } else {
        if (!enter(self, self->rank, SERRY_ENTRY_START))
            return;
        EXPECT_OK(self, serry_barrier(self->comm));
        if (self->rank == VICTIM)
            death_now(self);
        if (self->rank == WATCHER) {
            health = watch(self, SERRY_EXCLUSION_NONE, &s);
            await_status(self, health, SERRY_FAILED);
            test_raise(self, READY);
        }
    }
    for (int i = 0; i < 100; i++)
        EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == WATCHER) {
        await_status(self, health, SERRY_HEALTHY);
        serry_health_destroy(&health); /* and nobody tells any more */
        CHECK(self, s.after[s.count - 1] == SERRY_HEALTHY);
    }
    EXPECT_OK(self, serry_barrier(self->comm));
    EXPECT_OK(self, serry_finalize(&self->comm));
}

/* Fault:  a rank dies, and another process or thread takes its place, while it is watched.
 * Expect: failed, then healthy. */
static void a_replaced_rank_is_healthy_again(void **state)
{
    (void)state;
    for (int kind = SERRY_PROCESSES; kind <= SERRY_THREADS; kind++) {
        test_options options = {
            .kind = (serry_kind_of_rank)kind, .size = RANKS + 1, .body_joins = true};
        test_run *run = test_start(&options, body_replaced, NULL);
        deaths_end(run, options.kind, RANKS + 1, g_victim);
    }
}

/* ---- numbers of processes ----------------------------------------------------------------------- */

static void body_numbers(test_rank *self)
{
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == WATCHER) {
        arena_slot *slot = victim_slot(self);
        uint64_t namespace = slot->pid_namespace, ticks = slot->start_ticks;

        slot->pid_namespace++;
        CHECK(self, vitals_of(self, VICTIM).activity == SERRY_UNKNOWN);
        test_expect(self, SERRY_ERR_UNSUPPORTED, exclude(self, VICTIM, SERRY_EXCLUSION_KILL), NULL,
                    "kill into another namespace");
        slot->pid_namespace = namespace;
        slot->start_ticks++;
        serry_vitals vitals = vitals_of(self, VICTIM);
        CHECK(self, vitals.activity == SERRY_GONE && !vitals.failed);
        test_expect(self, SERRY_OK, exclude(self, VICTIM, SERRY_EXCLUSION_KILL), NULL,
                    "kill what is gone already");
        slot->start_ticks = ticks;
        CHECK(self, vitals_of(self, VICTIM).activity == SERRY_COMPUTING);
    }
    test_meet(self);
    EXPECT_OK(self, serry_barrier(self->comm));
}

/* Fault:  the number in a rank's slot means another process: one of another namespace, or a later one.
 * Expect: neither is that process's state told as the rank's, nor is it killed. */
static void numbers_of_other_processes_do_not_fool(void **state)
{
    (void)state;
    if (TEST_TSAN)
        skip(); /* the monitors read what this test falsifies */
    run_ranks(SERRY_PROCESSES, RANKS, body_numbers, NULL);
}

/* ---- what is left ------------------------------------------------------------------------------- */

static void body_restarts(test_rank *self)
{
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == WATCHER) {
        int before = thread_count();
        story s;
        for (int i = 0; i < 3; i++) {
            serry_health *health = watch(self, SERRY_EXCLUSION_NONE, &s);
            await_activity(self, health, SERRY_COMPUTING);
            CHECK(self, thread_count() == before + 1);
            serry_health_stop(health);
            serry_health_start(health);
            serry_health_destroy(&health);
            while (thread_count() != before)
                test_sleep_ms(1);
        }
    }
    test_meet(self);
}

static void no_thread_is_left(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, body_restarts, NULL);
}

static void body_part(test_rank *self)
{
    serry_comm *part;
    story s;

    EXPECT_OK(self, serry_split(self->comm, 0, -self->rank, &part));
    if (self->rank == WATCHER) { /* rank 2 of the part, where the victim is 1, too */
        test_rank in_part = *self;
        in_part.comm = part;
        serry_health *whole = watch(self, SERRY_EXCLUSION_NONE, &s);
        story of_part;
        serry_health *health = watch(&in_part, SERRY_EXCLUSION_NONE, &of_part);
        test_raise(self, GO_ON);
        await_status(self, health, SERRY_FAILED);
        CHECK(self, serry_health_status(whole, VICTIM, NULL) != SERRY_FAILED);
        serry_health_destroy(&health);
        serry_health_destroy(&whole);
    } else if (self->rank == VICTIM) {
        test_await(self, GO_ON, 1);
        serry_finalize(&part);
    }
    test_meet(self);
    serry_finalize(&part);
}

static void a_rank_may_leave_one_communicator_and_be_well_in_another(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, body_part, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_that_call_nothing_are_healthy),
        cmocka_unit_test(a_waiting_rank_is_known_with_its_operation),
        cmocka_unit_test(a_dead_rank_has_failed),
        cmocka_unit_test(a_rank_that_has_left_counts_as_failed),
        cmocka_unit_test(a_replaced_rank_is_healthy_again),
        cmocka_unit_test(numbers_of_other_processes_do_not_fool),
        cmocka_unit_test(no_thread_is_left),
        cmocka_unit_test(a_rank_may_leave_one_communicator_and_be_well_in_another),
    };

    return cmocka_run_group_tests_name("health_ranks", tests, NULL, NULL);
}
