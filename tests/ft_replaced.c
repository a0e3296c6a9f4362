/* ft_replaced.c - replacements once a job has moved to another backend of its chain: under each policy,
 * one after the other, in vain, and where they cannot follow. */
#include <string.h>

#include "ft_moved.h"

/* ---- under each policy ------------------------------------------------------------------------ */

/* Newcomer i takes the victim's place, and dies in its turn, but for the last. */
static bool is_its_turn(const test_rank *self, int round)
{
    int newcomer = self->rank - RANKS;

    return newcomer >= 0 ? newcomer == round - 1
                         : self->rank == moved_scene_of(self)->victim && round == 0;
}

/* The round from which on this rank is in the job. */
static int first_round(const test_rank *self)
{
    return self->rank >= RANKS ? self->rank - RANKS + 1 : 0;
}

/* One error tells of the death, one of the replacement. */
static bool round_of_report(test_rank *self)
{
    const int victim[] = {moved_scene_of(self)->victim, -1};
    uint64_t got, epoch;

    if (!moved_expect_death(self, moved_sum(self, &got), victim))
        return false;
    epoch = serry_epoch(self->comm);
    test_raise(self, FLAG_DEAD);
    return moved_until_joined(self, ((1u << RANKS) - 1) & ~(1u << victim[0]), victim) &&
           CHECK(self, serry_epoch(self->comm) == epoch + 1);
}

/* Operations complete without the victim, then with its replacement, whose first call is the same. */
static bool round_of_exclude(test_rank *self)
{
    uint64_t all = (1u << RANKS) - 1, got;

    do {
        test_at(self, "waiting for the newcomer");
        if (!test_expect(self, SERRY_OK, moved_sum(self, &got), self->comm, "sum"))
            return false;
    } while (got == (all & ~(UINT64_C(1) << moved_scene_of(self)->victim)));
    return CHECK(self, got == all);
}

static void body_rounds(test_rank *self)
{
    const scene *s = moved_scene_of(self);
    int round = first_round(self);

    if (round > 0) {
        test_await(self, FLAG_DEAD, (unsigned)round * (RANKS - 1));
        if (!moved_replace(self))
            return;
        if (s->policy == SERRY_EXCLUDE && !round_of_exclude(self))
            return;
        moved_goes_on(self, k_none);
    } else if (!moved_start(self)) {
        return;
    }
    for (; round < s->rounds; round++) {
        if (is_its_turn(self, round))
            death_now(self);
        await_ends(self, (unsigned)round + 1);
        if (s->policy != SERRY_REPORT)
            test_raise(self, FLAG_DEAD);
        if (s->policy == SERRY_REPORT ? !round_of_report(self)
                                      : s->policy == SERRY_EXCLUDE && !round_of_exclude(self))
            return;
        moved_goes_on(self, k_none);
    }
    moved_leave(self);
}

static void rounds_under(serry_policy policy)
{
    static const int k_victims[] = {2, 0};
    for (int i = 0; i < 2; i++) {
        scene s = {.victim = k_victims[i], .policy = policy, .rounds = 3};
        int dead[] = {s.victim, RANKS, RANKS + 1, -1};
        moved_run(SERRY_PROCESSES, &s, s.rounds, body_rounds, dead);
        moved_run(SERRY_THREADS, &s, s.rounds, body_rounds, dead);
    }
}

static void under_report_all_learn_of_a_replacement_at_one_operation(void **state)
{
    (void)state;
    rounds_under(SERRY_REPORT);
}

static void under_wait_the_operation_completes_with_the_replacement(void **state)
{
    (void)state;
    rounds_under(SERRY_WAIT);
}

static void under_exclude_a_replacement_just_takes_part(void **state)
{
    (void)state;
    rounds_under(SERRY_EXCLUDE);
}

/* ---- WAIT in vain, spares ---------------------------------------------------------------------- */

static void body_wait_for_nobody(test_rank *self)
{
    const int victim[] = {moved_scene_of(self)->victim, -1};
    uint64_t got;

    if (!moved_start(self))
        return;
    if (self->rank == victim[0])
        death_now(self);
    serry_recovery_set_strategy(serry_ft_recovery(self->comm), SERRY_ERR_TIMEOUT, SERRY_ABORT);
    EXPECT_OK(self, serry_set_timeout(self->comm, 150));
    for (int i = 0; i < 3; i++) {
        test_expect(self, SERRY_ERR_TIMEOUT, moved_sum(self, &got), self->comm, "sum");
        const serry_error *record = test_record_of(self->comm);
        if (strstr(record->message, "no replacement came") == NULL)
            continue; /* another rank was the first, and all have given it up */
        CHECK(self, test_ranks_are(&record->ranks, victim));
        CHECK(self, test_names_rank(record->message, victim[0]));
        test_raise(self, FLAG_DONE);
    }
    moved_leave(self);
}

static void under_wait_nobody_comes_is_a_timeout(void **state)
{
    (void)state;
    scene s = {.victim = 2, .policy = SERRY_WAIT};
    const int dead[] = {s.victim, -1};
    test_options options = {.kind = SERRY_PROCESSES, .size = RANKS, .body_joins = true};
    test_run *run = test_start(&options, body_wait_for_nobody, &s);

    test_join(run);
    assert_true(test_flag(run, FLAG_DONE) >= 3);
    deaths_end(run, SERRY_PROCESSES, RANKS, dead);
}

static void body_spare(test_rank *self)
{
    const scene *s = moved_scene_of(self);

    if (self->rank >= RANKS) {
        test_await(self, FLAG_IN, RANKS - 1);
        const chain *c = moved_chain(self, 2);
        if (c == NULL ||
            !test_expect(self, SERRY_OK, moved_enter(self, c, -1, SERRY_ENTRY_SPARE), NULL,
                         "spare") ||
            !CHECK(self, serry_rank(self->comm) == s->victim))
            return;
    } else {
        if (!moved_start(self))
            return;
        if (self->rank == s->victim)
            death_now(self);
        test_raise(self, FLAG_IN);
    }
    moved_goes_on(self, k_none);
    moved_leave(self);
}

static void a_spare_takes_over(void **state)
{
    (void)state;
    scene s = {.victim = 3, .policy = SERRY_WAIT};
    const int dead[] = {s.victim, -1};
    moved_run(SERRY_PROCESSES, &s, 1, body_spare, dead);
}

/* ---- two deaths, one replacement --------------------------------------------------------------- */

/* No operation comes between the deaths and the replacement: each is told once, and the second death
 * to the newcomer as well. */
static void body_two_deaths(test_rank *self)
{
    const int victim[] = {moved_scene_of(self)->victim, -1}, lost[] = {3, -1};
    uint64_t got;

    if (self->rank >= RANKS) {
        test_await(self, FLAG_DEAD, 2);
        if (!moved_replace(self))
            return;
    } else {
        if (!moved_start(self))
            return;
        if (self->rank == victim[0] || self->rank == lost[0])
            death_now(self);
        await_known(self, self->comm, victim);
        await_known(self, self->comm, lost);
        test_raise(self, FLAG_DEAD);
        test_sleep_ms(300); /* now the newcomer waits, most likely */
        int rc = moved_sum(self, &got);
        if (rc == SERRY_ERR_RANK_FAILED) { /* it does not */
            rc = moved_sum(self, &got);
            while (rc == SERRY_OK && got == 3)
                rc = moved_sum(self, &got);
            test_expect(self, SERRY_ERR_RANK_JOINED, rc, self->comm, "sum");
            test_raise(self, FLAG_DONE);
        } else {
            test_expect(self, SERRY_ERR_RANK_JOINED, rc, self->comm, "sum");
            CHECK(self, test_ranks_are(&test_record_of(self->comm)->ranks, victim));
        }
    }
    int rc = moved_sum(self, &got);
    if (rc != SERRY_OK) {
        moved_expect_death(self, rc, lost);
        CHECK(self, test_flag(self->run, FLAG_DONE) == 0);
    }
    moved_goes_on(self, lost);
    moved_leave(self);
}

static void a_death_that_was_not_told_is_told_after_the_replacement(void **state)
{
    (void)state;
    scene s = {.victim = 2, .policy = SERRY_REPORT};
    const int dead[] = {s.victim, 3, -1};
    moved_run(SERRY_PROCESSES, &s, 1, body_two_deaths, dead);
}

/* ---- a newcomer that cannot follow ------------------------------------------------------------- */

/* What the newcomer gets, with the first `length` backends of the chain; the message says so much. */
static int cannot_follow(test_rank *self, size_t length, const char *says)
{
    test_await(self, FLAG_DEAD, RANKS - 1);
    chain *c = moved_chain(self, length);
    if (c == NULL)
        return SERRY_ERR_NO_SPACE;
    int rc = moved_enter(self, c, moved_scene_of(self)->victim, SERRY_ENTRY_REPLACEMENT);
    CHECK(self, strstr(serry_last_error(NULL)->message, says) != NULL);
    test_raise(self, FLAG_DONE);
    moved_chain_free(c);
    return rc;
}

/* The others: the victim dies, and they learn of it. */
static bool lose_the_victim(test_rank *self)
{
    const int victim[] = {moved_scene_of(self)->victim, -1};
    uint64_t got;

    if (!moved_start(self))
        return false;
    if (self->rank == victim[0])
        death_now(self);
    return moved_expect_death(self, moved_sum(self, &got), victim);
}

/* Until all know that the newcomer has given up. */
static bool go_on_until_it_has_given_up(test_rank *self)
{
    uint64_t others = ((1u << RANKS) - 1) & ~(1u << moved_scene_of(self)->victim), done = 0;

    while (done == 0) {
        done = test_flag(self->run, FLAG_DONE);
        if (!EXPECT_OK(self, serry_broadcast(&done, 1, SERRY_U64, 0, self->comm)) ||
            !moved_sum_is(self, others))
            return false;
    }
    return true;
}

static void body_short_chain(test_rank *self)
{
    const int victim[] = {moved_scene_of(self)->victim, -1};

    if (self->rank >= RANKS) {
        int rc = cannot_follow(self, 1, "give all ranks the same");
        test_expect(self, SERRY_ERR_INVALID, rc, NULL, "rejoin");
        return;
    }
    if (!lose_the_victim(self))
        return;
    test_raise(self, FLAG_DEAD);
    if (!go_on_until_it_has_given_up(self))
        return;
    moved_goes_on(self, victim);
    moved_leave(self);
}

static void a_newcomer_with_another_chain_is_told_so_and_the_others_go_on(void **state)
{
    (void)state;
    scene s = {.victim = 2, .policy = SERRY_REPORT};
    const int dead[] = {s.victim, -1};
    moved_run(SERRY_PROCESSES, &s, 1, body_short_chain, dead);
}

/* One rank cannot join anew. The newcomer learns of it, and the others stay where they are. */
static void body_refuse(test_rank *self)
{
    const int victim[] = {moved_scene_of(self)->victim, -1};

    if (self->rank >= RANKS) {
        CHECK(self, cannot_follow(self, 2, "could not follow") != SERRY_OK);
        return;
    }
    if (!lose_the_victim(self))
        return;
    EXPECT_OK(self, serry_set_timeout(self->comm, 1000));
    if (self->rank == BYSTANDER)
        moved_refuse();
    test_raise(self, FLAG_DEAD);
    if (!go_on_until_it_has_given_up(self))
        return;
    EXPECT_OK(self, serry_set_timeout(self->comm, 60000));
    moved_goes_on(self, victim);
    moved_leave(self);
}

static void where_one_rank_cannot_join_anew_all_stay_without_the_newcomer(void **state)
{
    (void)state;
    scene s = {.victim = 2, .policy = SERRY_REPORT};
    const int dead[] = {s.victim, -1};
    moved_run(SERRY_PROCESSES, &s, 1, body_refuse, dead);
}

int main(void)
{
    const struct CMUnitTest k_tests[] = {
        cmocka_unit_test(under_report_all_learn_of_a_replacement_at_one_operation),
        cmocka_unit_test(under_wait_the_operation_completes_with_the_replacement),
        cmocka_unit_test(under_exclude_a_replacement_just_takes_part),
        cmocka_unit_test(under_wait_nobody_comes_is_a_timeout),
        cmocka_unit_test(a_spare_takes_over),
        cmocka_unit_test(a_death_that_was_not_told_is_told_after_the_replacement),
        cmocka_unit_test(where_one_rank_cannot_join_anew_all_stay_without_the_newcomer),
        cmocka_unit_test(a_newcomer_with_another_chain_is_told_so_and_the_others_go_on),
    };
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
