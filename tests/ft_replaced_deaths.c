/* ft_replaced_deaths.c - deaths while a replacement comes into a job that has moved to another backend of
 * its chain. */
#include <unistd.h>

#include "ft_moved.h"

/* The first newcomer dies on its way in, the second one gets in. */
static void body_newcomer_dies(test_rank *self)
{
    if (self->rank >= RANKS) {
        test_await(self, FLAG_DEAD, RANKS - 1);
        if (self->rank == RANKS)
            moved_arm(self);
        else
            test_await(self, FLAG_DONE, 1);
        if (!moved_replace(self))
            return;
        if (self->rank == RANKS)
            moved_die(self);
    } else {
        if (!moved_start(self))
            return;
        if (self->rank == moved_scene_of(self)->victim)
            death_now(self);
        test_raise(self, FLAG_DEAD);
    }
    moved_goes_on(self, k_none);
    moved_leave(self);
}

static void await_death(test_run *run, int rank)
{
    const test_report *report = test_report_of(run, rank);

    while (report->pid == 0 ||
           (process_state(report->pid) != 'Z' && process_state(report->pid) != 0))
        usleep(1000);
}

static void newcomer_dies(scene *s)
{
    for (s->victim = 0; s->victim <= 2; s->victim += 2) {
        const int dead[] = {s->victim, RANKS, -1};
        test_options options = {.kind = SERRY_PROCESSES, .size = RANKS + 2, .body_joins = true};
        test_run *run = test_start(&options, body_newcomer_dies, s);

        await_death(run, RANKS);
        test_raise_in(run, FLAG_DONE);
        deaths_end(run, SERRY_PROCESSES, RANKS + 2, dead);
    }
}

static void newcomer_dies_at(const char *step, int at)
{
    newcomer_dies(&(scene){.policy = SERRY_WAIT, .step = step, .at = at});
}

/* Before each agreement of the move, before it joins the new job, and after. */
static void a_newcomer_that_dies_on_its_way_in_is_replaced(void **state)
{
    (void)state;
    for (int at = 1; at <= 5; at++)
        newcomer_dies_at("agree", at);
    newcomer_dies_at("open", 1);
    newcomer_dies_at("opened", 1);
    newcomer_dies_at("never", 1);
}

/* A survivor dies while the newcomer comes in: both are told, or only the death where that was first. */
static void body_bystander_dies(test_rank *self)
{
    const int victim[] = {moved_scene_of(self)->victim, -1}, lost[] = {BYSTANDER, -1};
    uint64_t got;
    bool joined = false;

    if (self->rank >= RANKS) {
        test_await(self, FLAG_DEAD, RANKS - 1);
        if (!moved_replace(self))
            return;
        joined = true;
    } else {
        if (!moved_start(self))
            return;
        if (self->rank == victim[0])
            death_now(self);
        moved_expect_death(self, moved_sum(self, &got), victim);
        test_raise(self, FLAG_DEAD);
        if (self->rank == BYSTANDER)
            moved_arm(self);
    }
    /* One error for each: the newcomer gets that of the death if it comes after its own. */
    for (int errors = 0;;) {
        test_at(self, "sum %d", errors);
        int rc = moved_sum(self, &got);
        if (rc == SERRY_OK && (got & 1u << BYSTANDER) == 0 && (got & 1u << victim[0]) != 0)
            break;
        if (rc == SERRY_ERR_RANK_JOINED)
            joined = CHECK(self, !joined);
        else if (rc != SERRY_OK && !moved_expect_death(self, rc, lost))
            return;
        errors += rc != SERRY_OK;
        if (!CHECK(self, errors <= 2))
            return;
        if (self->rank == BYSTANDER && joined)
            moved_die(self);
    }
    CHECK(self, joined);
    moved_goes_on(self, lost);
    moved_leave(self);
}

static void bystander_dies(scene *s)
{
    for (s->victim = 0; s->victim <= 2; s->victim += 2) {
        const int dead[] = {s->victim, BYSTANDER, -1};
        moved_run(SERRY_PROCESSES, s, 1, body_bystander_dies, dead);
    }
}

static void bystander_dies_at(const char *step, int at)
{
    bystander_dies(&(scene){.policy = SERRY_REPORT, .step = step, .at = at});
}

static void a_rank_dies_while_a_newcomer_comes_in(void **state)
{
    (void)state;
    bystander_dies_at("meet", 1);
    for (int at = 1; at <= 5; at++)
        bystander_dies_at("agree", at);
    bystander_dies_at("open", 1);
    bystander_dies_at("opened", 1);
    bystander_dies_at("never", 1);
}

static void somebody_dies_at_any_time(void **state)
{
    (void)state;
    uint64_t sequence = chance_begin(1);
    for (int i = 0; i < 8; i++) {
        newcomer_dies(&(scene){.policy = SERRY_WAIT, .us = chance_us(&sequence, 13)});
        bystander_dies(&(scene){.policy = SERRY_REPORT, .us = chance_us(&sequence, 13)});
    }
}

int main(void)
{
    const struct CMUnitTest k_tests[] = {
        cmocka_unit_test(a_newcomer_that_dies_on_its_way_in_is_replaced),
        cmocka_unit_test(a_rank_dies_while_a_newcomer_comes_in),
        cmocka_unit_test(somebody_dies_at_any_time),
    };
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
