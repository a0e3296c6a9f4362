/* rejoin.c - replacements: what those who are there see of them, under each policy. */
#include "newcomers.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FLAG_DEAD, FLAG_IN, FLAG_DONE };

/* All four sum: the newcomer as the victim's number. */
static bool sum_of_all(test_rank *self, size_t count)
{
    int64_t *vector = malloc(count * sizeof(*vector));
    bool good = true;

    for (size_t i = 0; i < count; i++)
        vector[i] = (int64_t)i + 100 * serry_rank(self->comm);
    good &= EXPECT_OK(
        self, serry_allreduce(SERRY_IN_PLACE, vector, count, SERRY_I64, SERRY_SUM, self->comm));
    for (size_t i = 0; i < count && good; i++)
        good &= CHECK(self, vector[i] == (int64_t)i * RANKS + 100 * (0 + 1 + 2 + 3));
    free(vector);
    return good;
}

static void goes_on_with_all(test_rank *self)
{
    serry_rank_set all;

    for (int i = 0; i < 3; i++) {
        sum_of_all(self, 1);
        sum_of_all(self, 700);
        sum_of_all(self, DEATHS_LARGE);
    }
    serry_participants(self->comm, &all);
    CHECK(self, all.bits[0] == (1u << RANKS) - 1);
    CHECK(self, serry_live(self->comm) == RANKS);
    serry_get_failed(self->comm, &all);
    CHECK(self, all.bits[0] == 0);
    sum_of_all(self, 1); /* until here nobody leaves */
}

/* ---- REPORT ----------------------------------------------------------------------------------- */

/* Operations until the newcomer is there; each one right, or RANK_JOINED. */
static bool until_joined(test_rank *self)
{
    for (;;) {
        int64_t one = 1;
        test_at(self, "waiting for the newcomer");
        int rc = serry_allreduce(SERRY_IN_PLACE, &one, 1, SERRY_I64, SERRY_SUM, self->comm);
        if (rc == SERRY_ERR_RANK_JOINED)
            return CHECK(self, one == 1) &&
                   CHECK(self, test_ranks_are(&serry_last_error(self->comm)->ranks, k_victim)) &&
                   CHECK(self, serry_last_error(self->comm)->peer == VICTIM) &&
                   CHECK(self, test_names_rank(serry_last_error(self->comm)->message, VICTIM));
        if (!test_expect(self, SERRY_OK, rc, self->comm, "allreduce") ||
            !CHECK(self, one == RANKS - 1))
            return false;
        usleep(1000);
    }
}

static void body_report(test_rank *self)
{
    uint64_t state = 0, epoch;

    if (self->rank >= RANKS) {
        test_await(self, FLAG_DEAD, RANKS - 1);
        if (!rejoin(self, VICTIM, SERRY_REPORT))
            return;
        CHECK(self, serry_rank(self->comm) == VICTIM && serry_size(self->comm) == RANKS);
    } else {
        if (!join(self, self->rank, SERRY_REPORT))
            return;
        EXPECT_OK(self, serry_barrier(self->comm));
        if (self->rank == VICTIM) {
            death_now(self);
        }
        await_ends(self, 1);
        expect_failed(self, self->comm, serry_barrier(self->comm), k_victim, "barrier");
        epoch = serry_epoch(self->comm);
        test_raise(self, FLAG_DEAD);
        if (!until_joined(self))
            return;
        CHECK(self, serry_epoch(self->comm) == epoch + 1);
        state = 42;
    }
    EXPECT_OK(self, serry_broadcast(&state, 1, SERRY_U64, 0, self->comm));
    CHECK(self, state == 42);
    epoch = serry_epoch(self->comm);
    EXPECT_OK(self, serry_broadcast(&epoch, 1, SERRY_U64, 0, self->comm));
    CHECK(self, serry_epoch(self->comm) == epoch);
    goes_on_with_all(self);
    EXPECT_OK(self, serry_finalize(&self->comm));
}

static void under_report_all_learn_of_a_replacement_at_one_operation(void **state)
{
    (void)state;
    run_newcomers(SERRY_PROCESSES, 1, body_report, NULL, k_victim);
    run_newcomers(SERRY_THREADS, 1, body_report, NULL, k_victim);
}

/* ---- EXCLUDE and WAIT -------------------------------------------------------------------------- */

/* All but the victim, which dies, and the newcomer. The others are inside an operation when that happens. */
static bool come_under_wait(test_rank *self)
{
    if (self->rank >= RANKS) {
        test_await(self, FLAG_DEAD, 1);
        return rejoin(self, VICTIM, SERRY_WAIT);
    }
    if (!join(self, self->rank, SERRY_WAIT))
        return false;
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == VICTIM) {
        test_raise(self, FLAG_DEAD);
        death_now(self);
    }
    await_ends(self, 1);
    return true;
}

static void body_wait(test_rank *self)
{
    if (!come_under_wait(self))
        return;
    goes_on_with_all(self);
    EXPECT_OK(self, serry_finalize(&self->comm));
}

static void under_wait_the_operation_completes_with_the_replacement(void **state)
{
    (void)state;
    run_newcomers(SERRY_PROCESSES, 1, body_wait, NULL, k_victim);
    run_newcomers(SERRY_THREADS, 1, body_wait, NULL, k_victim);
}

static void body_wait_for_nobody(test_rank *self)
{
    if (!join(self, self->rank, SERRY_WAIT))
        return;
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == VICTIM) {
        death_now(self);
    }
    EXPECT_OK(self, serry_set_timeout(self->comm, 150));
    for (int i = 0; i < 3; i++) {
        test_expect(self, SERRY_ERR_TIMEOUT, serry_barrier(self->comm), self->comm, "barrier");
        CHECK(self, strstr(serry_last_error(self->comm)->message, "replacement") != NULL);
    }
    EXPECT_OK(self, serry_finalize(&self->comm));
}

static void under_wait_nobody_comes_is_a_timeout(void **state)
{
    (void)state;
    test_options options = {.kind = SERRY_PROCESSES, .size = RANKS, .body_joins = true};
    deaths_end(test_start(&options, body_wait_for_nobody, NULL), SERRY_PROCESSES, RANKS, k_victim);
}

/* Operations go on without the victim, then with the newcomer, whose first call is the same. */
static void body_exclude(test_rank *self)
{
    if (self->rank >= RANKS) {
        test_await(self, FLAG_DEAD, 1);
        if (!rejoin(self, VICTIM, SERRY_EXCLUDE))
            return;
        test_raise(self, FLAG_IN);
    } else {
        if (!join(self, self->rank, SERRY_EXCLUDE))
            return;
        EXPECT_OK(self, serry_barrier(self->comm));
        if (self->rank == VICTIM)
            death_now(self);
        await_ends(self, 1);
        test_raise(self, FLAG_DEAD);
    }
    for (int64_t all = 0; all != RANKS;) {
        all = 1;
        test_at(self, "waiting for the newcomer");
        if (!EXPECT_OK(self,
                       serry_allreduce(SERRY_IN_PLACE, &all, 1, SERRY_I64, SERRY_SUM, self->comm)))
            return;
        CHECK(self, all == RANKS || all == RANKS - 1);
    }
    goes_on_with_all(self);
    EXPECT_OK(self, serry_finalize(&self->comm));
}

static void under_exclude_a_replacement_just_takes_part(void **state)
{
    (void)state;
    run_newcomers(SERRY_PROCESSES, 1, body_exclude, NULL, k_victim);
    run_newcomers(SERRY_THREADS, 1, body_exclude, NULL, k_victim);
}

/* ---- spares ------------------------------------------------------------------------------------ */

static void body_spares(test_rank *self)
{
    serry_config spare = config_of(self, -1, SERRY_WAIT, SERRY_ENTRY_SPARE);

    if (self->rank >= RANKS) {
        test_raise(self, FLAG_IN);
        int rc = serry_init(&spare, &self->comm);
        if (rc == SERRY_ERR_CANCELLED) {
            test_raise(self, FLAG_DONE);
            return; /* the other one was taken */
        }
        if (!test_expect(self, SERRY_OK, rc, NULL, "init of a spare") ||
            !CHECK(self, serry_rank(self->comm) == VICTIM))
            return;
    } else {
        if (!join(self, self->rank, SERRY_WAIT))
            return;
        EXPECT_OK(self, serry_barrier(self->comm));
        if (self->rank == VICTIM) {
            test_await(self, FLAG_IN, 2);
            death_now(self);
        }
    }
    goes_on_with_all(self);
    EXPECT_OK(self, serry_finalize(&self->comm));
}

static void a_spare_takes_over_and_the_other_learns_of_the_end(void **state)
{
    (void)state;
    test_options options = {.kind = SERRY_PROCESSES, .size = RANKS + 2, .body_joins = true};
    test_run *run = test_start(&options, body_spares, NULL);

    test_join(run);
    assert_int_equal(test_flag(run, FLAG_DONE), 1);
    deaths_end(run, SERRY_PROCESSES, RANKS + 2, k_victim);
}

/* ---- no place ---------------------------------------------------------------------------------- */

static void body_no_place(test_rank *self)
{
    if (self->rank >= RANKS) {
        serry_config config = config_of(self, VICTIM, SERRY_REPORT, SERRY_ENTRY_REPLACEMENT);
        config.timeout_ms = 300;
        test_await(self, FLAG_IN, RANKS);
        test_expect(self, SERRY_ERR_TIMEOUT, serry_rejoin(&config, &self->comm), NULL, "rejoin");
        CHECK(self, self->comm == NULL);
        CHECK(self, serry_last_error(NULL)->peer == VICTIM);
        CHECK(self, strstr(serry_last_error(NULL)->message, "has not failed") != NULL);
        test_raise(self, FLAG_DONE);
        return;
    }
    if (!join(self, self->rank, SERRY_REPORT))
        return;
    test_raise(self, FLAG_IN);
    sum_of_all(self, 700);
    test_await(self, FLAG_DONE, 1);
    goes_on_with_all(self); /* nothing has happened to the job */
    CHECK(self, serry_epoch(self->comm) == 0);
    EXPECT_OK(self, serry_finalize(&self->comm));
}

static void nobody_replaces_a_living_rank(void **state)
{
    (void)state;
    run_newcomers(SERRY_PROCESSES, 1, body_no_place, NULL, k_none);
}

/* The others never come to an operation: the newcomer gives up, and is no part of anything. */
static void body_nobody_comes(test_rank *self)
{
    if (self->rank >= RANKS) {
        serry_config config = config_of(self, VICTIM, SERRY_REPORT, SERRY_ENTRY_REPLACEMENT);
        config.timeout_ms = 300;
        test_await(self, FLAG_DEAD, RANKS - 1);
        test_expect(self, SERRY_ERR_TIMEOUT, serry_rejoin(&config, &self->comm), NULL, "rejoin");
        test_raise(self, FLAG_DONE);
        return;
    }
    if (!join(self, self->rank, SERRY_REPORT))
        return;
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == VICTIM)
        death_now(self);
    expect_failed(self, self->comm, serry_barrier(self->comm), k_victim, "barrier");
    test_raise(self, FLAG_DEAD);
    test_await(self, FLAG_DONE, 1);
    expect_goes_on(self, self->comm, k_victim);
    EXPECT_OK(self, serry_finalize(&self->comm));
}

static void a_newcomer_that_gives_up_leaves_no_trace(void **state)
{
    (void)state;
    run_newcomers(SERRY_PROCESSES, 1, body_nobody_comes, NULL, k_victim);
}

/* ---- parts ------------------------------------------------------------------------------------- */

/* A split in which the newcomer takes part, and one that its coming interrupts. */
static void body_parts(test_rank *self)
{
    serry_comm *part = NULL;
    int64_t sum = 1;

    if (!come_under_wait(self))
        return;
    if (!EXPECT_OK(self, serry_split(self->comm, 0, serry_rank(self->comm), &part)))
        return;
    CHECK(self, serry_size(part) == RANKS);
    test_expect(self, SERRY_OK,
                serry_allreduce(SERRY_IN_PLACE, &sum, 1, SERRY_I64, SERRY_SUM, part), part, "sum");
    CHECK(self, sum == RANKS);
    EXPECT_OK(self, serry_finalize(&part));
    goes_on_with_all(self);
    EXPECT_OK(self, serry_finalize(&self->comm));
}

static void a_split_waits_for_the_replacement_and_has_it(void **state)
{
    (void)state;
    run_newcomers(SERRY_PROCESSES, 1, body_parts, NULL, k_victim);
    run_newcomers(SERRY_THREADS, 1, body_parts, NULL, k_victim);
}

/* ---- again and again --------------------------------------------------------------------------- */

enum { ROUNDS = 12 };

/* Newcomer i takes the place, works for a moment, and dies in its turn. */
static void body_rounds(test_rank *self)
{
    int round = self->rank - RANKS;

    if (self->rank == VICTIM || round >= 0) {
        if (round >= 0) {
            test_await(self, FLAG_DEAD, (unsigned)round + 1);
            if (!rejoin(self, VICTIM, SERRY_WAIT))
                return;
        } else if (!join(self, self->rank, SERRY_WAIT)) {
            return;
        }
        sum_of_all(self, 700);
        sum_of_all(self, DEATHS_LARGE);
        if (round == ROUNDS - 1)
            goto out;
        test_raise(self, FLAG_DEAD);
        death_now(self);
    }
    if (!join(self, self->rank, SERRY_WAIT))
        return;
    for (int i = 0; i <= ROUNDS; i++) {
        sum_of_all(self, 700);
        sum_of_all(self, DEATHS_LARGE);
    }
out:
    EXPECT_OK(self, serry_finalize(&self->comm));
}

static void a_replacement_may_be_replaced(void **state)
{
    (void)state;
    int dead[ROUNDS + 2] = {VICTIM};
    for (int i = 0; i < ROUNDS - 1; i++)
        dead[1 + i] = RANKS + i;
    dead[ROUNDS] = -1;
    run_newcomers(SERRY_PROCESSES, ROUNDS, body_rounds, NULL, dead);
}

/* ---- messages ---------------------------------------------------------------------------------- */

static void expect_told(test_rank *self, int wanted)
{
    int64_t number;
    int rc = serry_recv(&number, 1, SERRY_I64, SERRY_ANY_SOURCE, SERRY_ANY_TAG, NULL, self->comm);

    if (test_expect(self, wanted, rc, self->comm, "recv from any") &&
        wanted == SERRY_ERR_RANK_FAILED)
        CHECK(self, serry_last_error(self->comm)->peer == VICTIM);
}

static void with_the_newcomer(test_rank *self)
{
    test_at(self, "waiting for the newcomer");
    for (int64_t all = 0; all != RANKS;) {
        all = 1;
        if (!EXPECT_OK(self,
                       serry_allreduce(SERRY_IN_PLACE, &all, 1, SERRY_I64, SERRY_SUM, self->comm)))
            return;
    }
}

/* The newcomer dies before a receive has seen it alive. */
static void body_told(test_rank *self)
{
    if (self->rank >= RANKS) {
        test_await(self, FLAG_DEAD, 1);
        if (rejoin(self, VICTIM, SERRY_EXCLUDE))
            with_the_newcomer(self);
        death_now(self);
    }
    if (!join(self, self->rank, SERRY_EXCLUDE))
        return;
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == VICTIM)
        death_now(self);
    if (self->rank == 0) {
        expect_told(self, SERRY_ERR_RANK_FAILED);
        test_raise(self, FLAG_DEAD);
    }
    with_the_newcomer(self);
    await_known(self, self->comm, k_victim);
    if (self->rank == 0) {
        expect_told(self, SERRY_ERR_RANK_FAILED);
        EXPECT_OK(self, serry_ack_failed(self->comm, NULL));
        EXPECT_OK(self, serry_set_timeout(self->comm, 50));
        expect_told(self, SERRY_ERR_TIMEOUT);
        EXPECT_OK(self, serry_set_timeout(self->comm, 60000));
    }
    EXPECT_OK(self, serry_barrier(self->comm));
    EXPECT_OK(self, serry_finalize(&self->comm));
}

static void the_failure_of_a_replacement_is_told_as_well(void **state)
{
    static const int dead[] = {VICTIM, RANKS, -1};
    (void)state;
    run_newcomers(SERRY_PROCESSES, 1, body_told, NULL, dead);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(under_report_all_learn_of_a_replacement_at_one_operation),
        cmocka_unit_test(under_wait_the_operation_completes_with_the_replacement),
        cmocka_unit_test(under_wait_nobody_comes_is_a_timeout),
        cmocka_unit_test(under_exclude_a_replacement_just_takes_part),
        cmocka_unit_test(a_spare_takes_over_and_the_other_learns_of_the_end),
        cmocka_unit_test(nobody_replaces_a_living_rank),
        cmocka_unit_test(a_newcomer_that_gives_up_leaves_no_trace),
        cmocka_unit_test(a_split_waits_for_the_replacement_and_has_it),
        cmocka_unit_test(a_replacement_may_be_replaced),
        cmocka_unit_test(the_failure_of_a_replacement_is_told_as_well),
    };
    test_watchdog(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
