/* crash.c - kill -9 at every instruction. A rank runs through a call of the library one instruction at a
 * time and is killed at a chosen one; what the others then see must be right at each of them.
 *
 *   crash GROUP            right before and right after each change of what survives the victim
 *                          (crash_step.h), where all instructions between are alike
 *   crash GROUP --changes  the same, also of long sections, of which only a few points are tried
 *                          otherwise, by chance
 *   crash GROUP --all      at every instruction
 *   ... --only TEXT        of scenarios with this text in their names
 *
 * Groups: the table at the end; `all` of them. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash_ranks.h"
#include "crash_scenarios.h"
#include "crash_step.h"
#include "deaths.h"

enum { CHANGES_MOST = 4000, STEPS_MOST = 400000, FAULTS_MOST = 3, LONG_GAP = 64, LOOPS_GAP = 4000 };
enum { DOUBLES = 8, DOUBLES_ALL = 500 };

/* Of a section of more instructions so many points are tried, about. */
enum { LONG_KILLED = 90000, LONG_SEALED = 20000, SAMPLE = 5 };

static bool all_instructions, all_changes;

typedef struct plan {
    const crash_scenario *scenario;
    crash_trial *trial; /* shared with the ranks */

    /* the section, as it was recorded */
    uint64_t *address; /* of each instruction, in the order of execution */
    unsigned *first;   /* for each change: the number of the instruction after it */
    unsigned steps, changes;
    unsigned known; /* from this change on the others know of the victim: it may join */

    int second;         /* who dies soon after the victim; -1: nobody */
    unsigned second_us; /* how soon */

    unsigned points, trials, early, faults;
} plan;

/* ---- one trial -------------------------------------------------------------------------------- */

static unsigned who_goes(const crash_scenario *s)
{
    return 1u << s->victim | (s->fallen ? 1u << (s->size - 1) : 0);
}

static test_run *start(plan *p, bool sealed)
{
    const crash_scenario *s = p->scenario;
    test_options options = {.size = s->size + s->newcomers, .body_joins = true};

    memset(p->trial, 0, sizeof(*p->trial));
    p->trial->scenario = s;
    p->trial->gone = who_goes(s) | (p->second >= 0 ? 1u << p->second : 0);
    p->trial->sealed = sealed;
    return test_start(&options, crash_body, p->trial);
}

static bool has_children(void)
{
    return waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD;
}

/* Whatever went wrong is on stderr already. */
static void finish(plan *p, test_run *run, bool fired, crash_point at)
{
    int bad = test_end_count(run);
    bool agree = crash_logs_agree(p->trial);

    p->trials++;
    if (bad == 0 && agree && fired && !has_children())
        return;
    fprintf(stderr, "FAULT: %s, killed after change %u and %u instructions: %s\n",
            p->scenario->name, at.changes, at.after,
            !fired   ? "the fault did not fire"
            : !agree ? "the survivors differ"
                     : "see above");
    p->faults++;
}

/* To the end of the section; the victim is killed there. */
static void record(plan *p)
{
    stepper s;
    test_run *run = start(p, false);
    bool fired = step_attach(&s, run, p->scenario->victim);

    p->steps = p->changes = p->first[0] = 0;
    while (fired && p->steps < STEPS_MOST && p->changes + 1 < CHANGES_MOST) {
        step_outcome outcome = step_once(&s);
        if (outcome >= STEP_ENDED)
            break;
        p->address[p->steps++] = s.address;
        if (outcome == STEP_CHANGED)
            p->first[++p->changes] = p->steps;
        if (s.call == SYS_accept4 || (s.call == SYS_sendmsg && p->known == 0))
            p->known = p->changes;
    }
    p->first[p->changes + 1] = p->steps;
    fired = step_kill(&s) && fired;
    step_detach(&s);
    finish(p, run, fired, s.at);
}

/* Instructions from change c to the next one. */
static unsigned gap(const plan *p, unsigned c)
{
    return p->first[c + 1] - p->first[c];
}

/* How often instruction number i of the record has been come to when it is executed. */
static unsigned passes(const plan *p, unsigned i)
{
    unsigned count = 0;

    for (unsigned k = 0; k <= i; k++)
        count += p->address[k] == p->address[i];
    return count;
}

/* By a leap, where that saves steps, to the point itself or to the change before it. */
static step_outcome leap(const plan *p, stepper *s, crash_point point)
{
    unsigned change = p->first[point.changes], target = change + point.after;
    crash_point before = {point.changes - 1, point.changes == 0 ? 0 : gap(p, point.changes - 1)};

    if (point.after > LONG_GAP && target < p->steps && passes(p, target) < point.after / 4)
        return step_leap(s, p->address[target], passes(p, target), point);
    if (point.changes == 0)
        return STEP_QUIET;
    before.after--;
    return step_leap(s, p->address[change - 1], passes(p, change - 1), before);
}

/* Where a run differs from the record, because somebody slept here and not there, a leap may miss its
 * target. False: the victim ran to its end. */
static bool go_to(stepper *s, const plan *p, crash_point point, bool leaping)
{
    step_outcome outcome = leaping ? leap(p, s, point) : STEP_QUIET;

    if (outcome < STEP_ENDED)
        outcome = step_to(s, point);
    return outcome < STEP_ENDED;
}

static bool kill_there(plan *p, crash_point point, bool leaping)
{
    stepper s;
    test_run *run = start(p, false);
    bool attached = step_attach(&s, run, p->scenario->victim);
    bool there = attached && go_to(&s, p, point, leaping);
    bool fired = step_kill(&s) && attached;

    step_detach(&s);
    if (p->second >= 0) {
        usleep(p->second_us);
        test_kill(run, p->second);
    }
    finish(p, run, fired, s.at);
    return there;
}

static void kill_at(plan *p, crash_point point)
{
    p->early += !kill_there(p, point, true) && !kill_there(p, point, false);
}

static unsigned count_survivors(const plan *p)
{
    int ranks = p->scenario->size + p->scenario->newcomers;

    return (unsigned)(ranks - __builtin_popcount(p->trial->gone));
}

/* The victim is stopped and sealed; the others go on, and go on further when it wakes up. Not while it
 * holds the lock of the pool: they would wait for that, and fail after 10 s. */
static bool seal_there(plan *p, crash_point point, bool leaping)
{
    stepper s;
    test_run *run = start(p, true);
    bool attached = step_attach(&s, run, p->scenario->victim);
    bool there = attached && go_to(&s, p, point, leaping);

    while (there && step_holds_lock(&s) && step_once(&s) < STEP_ENDED)
        ;
    bool fired = step_seal(&s) && attached;

    while (test_flag(run, CRASH_SURVIVED) < count_survivors(p))
        test_sleep_ms(1);
    test_raise_in(run, CRASH_WOKEN);
    step_release(&s);
    step_detach(&s);
    finish(p, run, fired, s.at);
    return there;
}

static void seal_at(plan *p, crash_point point)
{
    p->early += !seal_there(p, point, true) && !seal_there(p, point, false);
}

/* ---- all of a scenario ------------------------------------------------------------------------ */

/* In a long gap, the passes of a loop between the second and the last one are all the same. */
static bool is_repetition(const plan *p, unsigned c, unsigned after)
{
    const uint64_t *at = p->address + p->first[c];
    unsigned before = 0, behind = 0;

    for (unsigned i = 0; i < gap(p, c); i++)
        if (at[i] == at[after]) {
            before += i < after;
            behind += i > after;
        }
    return before >= 2 && behind >= 1;
}

static bool is_point(const plan *p, unsigned c, unsigned after)
{
    unsigned length = gap(p, c);

    if (all_instructions)
        return length < LOOPS_GAP || !is_repetition(p, c, after);
    return after == 0 || after + 1 == length || (length > LONG_GAP && after == length / 2);
}

typedef void (*trial_function)(plan *p, crash_point point);

/* A sequence of chance for the scenario. */
static uint64_t sequence_of(const plan *p)
{
    uint64_t purpose = 0;

    for (const char *c = p->scenario->name; *c; c++)
        purpose = purpose * 31 + (unsigned char)*c;
    return chance_begin(purpose);
}

static void try_all(plan *p, trial_function trial)
{
    uint64_t sequence = sequence_of(p);
    bool sample = p->steps > (trial == seal_at ? LONG_SEALED : LONG_KILLED) && !all_changes &&
                  !all_instructions;

    for (unsigned c = p->scenario->joins ? p->known : 0; c <= p->changes; c++)
        for (unsigned after = 0; after < gap(p, c); after++) {
            if (!is_point(p, c, after) || (sample && chance(&sequence, 3 * p->changes) >= SAMPLE))
                continue;
            p->points++;
            trial(p, (crash_point){c, after});
            if (all_instructions && p->points % 1000 == 0)
                print_message("%s: %u of %u instructions\n", p->scenario->name, p->first[c] + after,
                              p->steps);
            if (p->faults >= FAULTS_MOST) {
                fprintf(stderr, "%s: enough\n", p->scenario->name);
                return;
            }
        }
}

/* Some of the points, and soon afterwards the death of another one. */
static void try_some(plan *p)
{
    uint64_t sequence = sequence_of(p);

    for (unsigned i = 0; i < (all_instructions ? DOUBLES_ALL : DOUBLES) && p->faults == 0; i++) {
        unsigned change = chance(&sequence, p->changes + 1), length = gap(p, change);
        unsigned after = chance(&sequence, 2) == 0 || length == 0 ? 0 : chance(&sequence, length);
        do
            p->second = (int)chance(&sequence, (unsigned)p->scenario->size);
        while (who_goes(p->scenario) >> p->second & 1);
        p->second_us = chance_us(&sequence, 9);
        p->points++;
        kill_at(p, (crash_point){change, after});
    }
}

static void try_scenario(const crash_scenario *scenario, trial_function trial)
{
    plan p = {.scenario = scenario, .second = -1};

    p.trial = test_shared(sizeof(*p.trial));
    p.address = calloc(STEPS_MOST, sizeof(*p.address));
    p.first = calloc(CHANGES_MOST + 1, sizeof(*p.first));
    double began = test_now();
    record(&p);
    if (trial != NULL)
        try_all(&p, trial);
    else
        try_some(&p);
    print_message("%s: %u instructions, %u changes, %u points, %u trials (%u at the end), %.1f s\n",
                  scenario->name, p.steps, p.changes, p.points, p.trials, p.early,
                  test_now() - began);
    free(p.address);
    free(p.first);
    test_unshare(p.trial, sizeof(*p.trial));
    assert_int_equal(p.faults, 0);
}

static void killed(void **state)
{
    try_scenario(*state, kill_at);
}

/* With one rank more, so that two are left. */
static void both_killed(void **state)
{
    crash_scenario scenario = *(const crash_scenario *)*state;

    scenario.size = CRASH_RANKS - 1;
    if (scenario.joins)
        skip();
    try_scenario(&scenario, NULL);
}

static void sealed(void **state)
{
    const crash_scenario *scenario = *state;

    /* who has not joined yet cannot be sealed */
    if (scenario->awake || scenario->joins || scenario->victim >= scenario->size)
        skip();
    try_scenario(scenario, seal_at);
}

static const struct {
    const char *name;
    const crash_scenario *scenarios;
    const size_t *count;
    CMUnitTestFunction function;
} groups[] = {
    {"collectives", crash_collectives, &crash_collectives_count, killed},
    {"recoveries", crash_recoveries, &crash_recoveries_count, killed},
    {"memberships", crash_memberships, &crash_memberships_count, killed},
    {"replacements", crash_replacements, &crash_replacements_count, killed},
    {"double_collectives", crash_collectives, &crash_collectives_count, both_killed},
    {"double_memberships", crash_memberships, &crash_memberships_count, both_killed},
    {"sleeping_memberships", crash_memberships, &crash_memberships_count, sealed},
    {"sleeping_replacements", crash_replacements, &crash_replacements_count, sealed},
    {"sleeping_collectives", crash_collectives, &crash_collectives_count, sealed},
};

static int run_group(size_t group, const char *only)
{
    const crash_scenario *scenarios = groups[group].scenarios;
    size_t count = *groups[group].count, chosen = 0;
    struct CMUnitTest *tests = calloc(count, sizeof(*tests));

    for (size_t i = 0; i < count; i++)
        if (only == NULL || strstr(scenarios[i].name, only) != NULL)
            tests[chosen++] =
                (struct CMUnitTest){.name = scenarios[i].name,
                                    .test_func = groups[group].function,
                                    .initial_state = (void *)(uintptr_t)&scenarios[i]};
    int failed = _cmocka_run_group_tests(groups[group].name, tests, chosen, NULL, NULL);
    free(tests);
    return failed;
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
    int failed = 0;
    bool known = false;
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
        if (strcmp(group, "all") == 0 || strcmp(group, groups[i].name) == 0) {
            failed += run_group(i, only);
            known = true;
        }
    if (known)
        return failed > 0;
    fprintf(stderr, "usage: crash GROUP [--changes|--all] [--only TEXT]\n");
    return 2;
}
