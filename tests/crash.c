/* crash.c - kill -9 at every instruction. A rank runs through a call of the library one instruction at a
 * time and is killed at a chosen one; what the others then see must be right at each of them.
 *
 *   crash GROUP            right before and right after each change of what survives the victim
 *                          (crash_step.h), where all instructions between are alike
 *   crash GROUP --changes  the same, also of long sections and with a second victim, of which only a few
 *                          points are tried otherwise, by chance
 *   crash GROUP --all      at every instruction: crash_all.h
 *   ... --only TEXT        of scenarios with this text in their names
 *
 * Groups: the table at the end; `all` of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crash_all.h"
#include "crash_scenarios.h"
#include "crash_trial.h"
#include "deaths.h"

/* Trials with a second victim, and ranks in them. */
enum { DOUBLES = 4, LONG_DOUBLES = 2, DOUBLE_SIZE = 4 };

/* Of sections of more than a few thousand instructions, and of long ones, so many points are tried, about. With --changes all are: .ci/run does
 * that for the groups of one call at a time, `make crash-changes` for those of messages and requests too. */
enum { SHORT = 2500, SAMPLE = 7, LONG = 20000, LONG_SAMPLE = 3 };

static bool all_instructions, all_changes;

/* ---- all of a scenario ------------------------------------------------------------------------ */

/* Between two changes all instructions are alike to others, but for a waking that follows the first, and
 * for threads of the victim's own: so the first one counts, the last one, and one in the middle. Of two
 * deaths the second comes when it may, and the first right after the change. */
static bool is_point(const plan *p, unsigned c, unsigned after)
{
    unsigned length = plan_gap(p, c);

    if (after == 0 || p->fault == PLAN_KILL_TWO)
        return after == 0;
    return after + 1 == length || (length > LONG_GAP && after == length / 2);
}

/* A sequence of chance for the scenario. */
static uint64_t sequence_of(const plan *p)
{
    uint64_t purpose = 0;

    for (const char *c = p->scenario.name; *c; c++)
        purpose = purpose * 31 + (unsigned char)*c;
    return chance_begin(purpose);
}

/* Points of a section; 0: all. */
static unsigned sample_of(const plan *p)
{
    if (all_changes)
        return 0;
    if (p->scenario.points != 0)
        return p->scenario.points;
    if (p->steps > LONG)
        return LONG_SAMPLE;
    return p->steps > SHORT ? SAMPLE : 0;
}

static void try_changes(plan *p)
{
    uint64_t sequence = sequence_of(p);
    unsigned some = sample_of(p);

    for (unsigned c = p->known; c <= p->changes; c++)
        for (unsigned after = 0; after < plan_gap(p, c); after++) {
            if (!is_point(p, c, after) || (some != 0 && chance(&sequence, 3 * p->changes) >= some))
                continue;
            if (p->fault == PLAN_KILL_TWO)
                plan_draw_second(p, &sequence);
            plan_try(p, (crash_point){c, after});
            if (p->faults >= PLAN_FAULTS_MOST) {
                fprintf(stderr, "%s: enough\n", p->scenario.name);
                return;
            }
        }
}

/* Some of the points, and soon afterwards the death of another one. */
static void try_some(plan *p)
{
    uint64_t sequence = sequence_of(p);
    unsigned trials = p->steps > LONG ? LONG_DOUBLES : DOUBLES;

    for (unsigned i = 0; i < trials && p->faults == 0; i++) {
        unsigned change = chance(&sequence, p->changes + 1), length = plan_gap(p, change);
        unsigned after = chance(&sequence, 2) == 0 || length == 0 ? 0 : chance(&sequence, length);
        plan_draw_second(p, &sequence);
        plan_try(p, (crash_point){change, after});
    }
}

/* Who has not joined yet cannot be sealed, and is not known to be dead. */
static bool is_possible(const plan *p)
{
    const crash_scenario *s = &p->scenario;

    switch (p->fault) {
    case PLAN_KILL_TWO: /* nor is there a newcomer for each */
        return !s->joins && s->newcomers < 2;
    case PLAN_SEAL:
        return !s->awake && !s->joins && s->victim < s->size;
    case PLAN_KILL:
    default:
        return true;
    }
}

static void record(void **state)
{
    plan *p = *state;

    if (!is_possible(p))
        skip();
    plan_record(p);
    all_add(p);
    print_message("%s: %u points\n", p->scenario.name, p->steps);
    assert_int_equal(p->faults, 0);
}

static void try(void **state)
{
    plan *p = *state;
    double began = test_now();

    if (!is_possible(p))
        skip();
    if (!all_instructions)
        plan_record(p);
    if (all_instructions)
        all_try(p);
    else if (p->fault == PLAN_KILL_TWO && !all_changes)
        try_some(p);
    else
        try_changes(p);
    print_message("%s: %u instructions, %u changes, %u points, %u trials (%u at the end, %u "
                  "missed), %.1f s\n",
                  p->scenario.name, p->steps, p->changes, p->points, p->trials, p->early, p->missed,
                  test_now() - began);
    plan_release(p);
    assert_int_equal(p->faults, 0);
}

/* ---- groups ----------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    const crash_scenario *scenarios;
    const size_t *count;
    plan_fault fault;
} groups[] = {
    {"collectives", crash_collectives, &crash_collectives_count, PLAN_KILL},
    {"recoveries", crash_recoveries, &crash_recoveries_count, PLAN_KILL},
    {"memberships", crash_memberships, &crash_memberships_count, PLAN_KILL},
    {"replacements", crash_replacements, &crash_replacements_count, PLAN_KILL},
    {"parts", crash_parts, &crash_parts_count, PLAN_KILL},
    {"held_parts", crash_held_parts, &crash_held_parts_count, PLAN_HOLD},
    {"messages", crash_messages, &crash_messages_count, PLAN_KILL},
    {"requests", crash_requests, &crash_requests_count, PLAN_KILL},
    {"progress", crash_progress, &crash_progress_count, PLAN_KILL},
    {"double_collectives", crash_collectives, &crash_collectives_count, PLAN_KILL_TWO},
    {"double_recoveries", crash_recoveries, &crash_recoveries_count, PLAN_KILL_TWO},
    {"double_memberships", crash_memberships, &crash_memberships_count, PLAN_KILL_TWO},
    {"double_replacements", crash_replacements, &crash_replacements_count, PLAN_KILL_TWO},
    {"double_parts", crash_parts, &crash_parts_count, PLAN_KILL_TWO},
    {"sleeping_recoveries", crash_recoveries, &crash_recoveries_count, PLAN_SEAL},
    {"sleeping_memberships", crash_memberships, &crash_memberships_count, PLAN_SEAL},
    {"sleeping_replacements", crash_replacements, &crash_replacements_count, PLAN_SEAL},
    {"sleeping_parts", crash_parts, &crash_parts_count, PLAN_SEAL},
    {"sleeping_collectives", crash_collectives, &crash_collectives_count, PLAN_SEAL},
    {"sleeping_messages", crash_messages, &crash_messages_count, PLAN_SEAL},
    {"sleeping_requests", crash_requests, &crash_requests_count, PLAN_SEAL},
    {"sleeping_progress", crash_progress, &crash_progress_count, PLAN_SEAL},
};

enum { GROUPS = sizeof(groups) / sizeof(groups[0]) };

typedef struct chosen {
    plan *plans;
    size_t count;
} chosen;

/* Two that are killed have more ranks, so that two are left, who has fallen before not counted. */
static void enlarge(crash_scenario *s)
{
    int size = DOUBLE_SIZE + s->fallen;

    if (s->victim >= s->size)
        s->victim += size - s->size;
    if (s->fallen && s->root == s->size - 1)
        s->root = size - 1;
    s->size = size;
}

static chosen choose(size_t group, const char *only)
{
    chosen c = {calloc(*groups[group].count, sizeof(plan)), 0};

    for (size_t i = 0; i < *groups[group].count; i++) {
        plan p = {.group = groups[group].name,
                  .scenario = groups[group].scenarios[i],
                  .fault = groups[group].fault};
        if (p.fault == PLAN_KILL_TWO)
            enlarge(&p.scenario);
        if (only == NULL || strstr(p.scenario.name, only) != NULL)
            c.plans[c.count++] = p;
    }
    return c;
}

static int run(CMUnitTestFunction function, const chosen *c)
{
    struct CMUnitTest *tests = calloc(c->count + 1, sizeof(*tests));

    for (size_t i = 0; i < c->count; i++)
        tests[i] = (struct CMUnitTest){.name = c->plans[i].scenario.name,
                                       .test_func = function,
                                       .initial_state = &c->plans[i]};
    int failed =
        c->count == 0 ? 0 : _cmocka_run_group_tests(c->plans[0].group, tests, c->count, NULL, NULL);
    free(tests);
    return failed;
}

static int run_groups(const char *name, const char *only)
{
    chosen c[GROUPS] = {{0}};
    int failed = 0;

    for (size_t i = 0; i < GROUPS; i++)
        if (strcmp(name, "all") == 0 || strcmp(name, groups[i].name) == 0)
            c[i] = choose(i, only);
    for (size_t i = 0; i < GROUPS && all_instructions; i++)
        failed += run(record, &c[i]);
    if (all_instructions)
        all_start();
    for (size_t i = 0; i < GROUPS; i++) {
        failed += run(try, &c[i]);
        free(c[i].plans);
    }
    return failed;
}

static bool is_group(const char *name)
{
    bool known = strcmp(name, "all") == 0;

    for (size_t i = 0; i < GROUPS; i++)
        known |= strcmp(name, groups[i].name) == 0;
    return known;
}

/* Without instructions that trap once for each byte that they copy. */
static void without_string_instructions(char **argv)
{
    static const char name[] = "GLIBC_TUNABLES";

    if (getenv(name) != NULL)
        return;
    setenv(name,
           "glibc.cpu.x86_rep_movsb_threshold=1000000000:"
           "glibc.cpu.x86_rep_stosb_threshold=1000000000",
           1);
    execv("/proc/self/exe", argv);
}

int main(int argc, char **argv)
{
    const char *only = NULL, *group = argc > 1 ? argv[1] : "";

    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], "--all") == 0)
            all_instructions = true;
        else if (strcmp(argv[i], "--changes") == 0)
            all_changes = true;
        else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc)
            only = argv[++i];
    if (TEST_SANITIZER) {
        printf("skipped: instrumented code is too long to step through\n");
        return 77;
    }
    if (!step_possible())
        return 77;
    without_string_instructions(argv);
    if (is_group(group) && (!all_instructions || all_begin()))
        return run_groups(group, only) > 0;
    fprintf(stderr, "usage: crash GROUP [--changes|--all] [--only TEXT]\n");
    return 2;
}
