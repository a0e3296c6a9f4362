/* crash_trial.c - one fault: the ranks of a scenario are started, one of them is brought to a point and
 * killed or sealed there, and what the others make of it is looked at. */
#include "crash_trial.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "deaths.h"

/* A newcomer that the others keep waiting looks through all groups every 20 ms: 60000 instructions. */
enum { CHANGES_MOST = 4000, STEPS_MOST = 2000000, MISSED_MOST = 3 };

/* ---- one trial -------------------------------------------------------------------------------- */

static unsigned who_goes(const crash_scenario *s, plan_fault fault)
{
    return (fault == PLAN_HOLD ? 0 : 1u << s->victim) | (s->fallen ? 1u << (s->size - 1) : 0);
}

static test_run *start(plan *p, plan_fault fault, crash_point point)
{
    const crash_scenario *s = &p->scenario;
    test_options options = {.size = s->size + s->newcomers, .body_joins = true};

    memset(p->trial, 0, sizeof(*p->trial));
    p->trial->scenario = s;
    p->trial->gone = who_goes(s, fault) | (p->second >= 0 ? 1u << p->second : 0);
    p->trial->sealed = fault == PLAN_SEAL;
    p->trial->held = fault == PLAN_HOLD;
    p->trial->unknown = point.changes < p->known;
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
    bool right = bad == 0 && agree && !has_children();
    p->again = right && !fired && p->missed < MISSED_MOST;
    p->missed += p->again;
    if (right && (fired || p->again))
        return;
    fprintf(stderr, "FAULT: %s, killed after change %u and %u instructions: %s\n", p->scenario.name,
            at.changes, at.after,
            !fired   ? "the fault did not fire"
            : !agree ? "the survivors differ"
                     : "see above");
    p->faults++;
}

void plan_record(plan *p)
{
    p->second = -1;
    p->trial = test_shared(sizeof(*p->trial));
    p->address = calloc(STEPS_MOST, sizeof(*p->address));
    p->first = calloc(CHANGES_MOST + 1, sizeof(*p->first));

    stepper s;
    test_run *run = start(p, PLAN_KILL, CRASH_AT_END);
    bool fired = step_attach(&s, run, p->scenario.victim), ended = !fired;

    while (!ended && p->steps < STEPS_MOST && p->changes + 1 < CHANGES_MOST) {
        step_outcome outcome = step_once(&s);
        ended = outcome >= STEP_ENDED;
        if (ended)
            break;
        p->address[p->steps++] = s.address;
        if (outcome == STEP_CHANGED)
            p->first[++p->changes] = p->steps;
        if (s.call == SYS_accept4 || (s.call == SYS_sendmsg && p->known == 0))
            p->known = p->changes;
    }
    p->first[p->changes + 1] = p->steps;
    if (!p->scenario.joins)
        p->known = 0;
    fired = step_kill(&s) && fired;
    step_detach(&s);
    p->missed = MISSED_MOST; /* this one has to be right */
    finish(p, run, fired, s.at);
    p->missed = 0;
    if (ended)
        return;
    fprintf(stderr, "FAULT: %s: a section of %u instructions and more\n", p->scenario.name,
            p->steps);
    p->faults++;
}

void plan_release(plan *p)
{
    free(p->address);
    free(p->first);
    if (p->trial != NULL)
        test_unshare(p->trial, sizeof(*p->trial));
}

unsigned plan_gap(const plan *p, unsigned c)
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
    crash_point before = {point.changes - 1,
                          point.changes == 0 ? 0 : plan_gap(p, point.changes - 1)};

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

/* Have the others heard of the victim, which joins? The first rank is known when it has met all. */
static bool is_known(const plan *p, const stepper *s)
{
    return p->scenario.victim == 0 ? s->met + 1 >= (unsigned)p->scenario.size : s->sent > 0;
}

static bool kill_there(plan *p, crash_point point, bool leaping)
{
    stepper s;
    test_run *run = start(p, p->fault, point);
    bool attached = step_attach(&s, run, p->scenario.victim);
    bool there = attached && go_to(&s, p, point, leaping);

    if (p->scenario.joins && !is_known(p, &s))
        p->trial->unknown = true;
    bool fired = step_kill(&s) && attached;

    step_detach(&s);
    if (p->second >= 0) {
        usleep(p->second_us);
        test_kill(run, p->second);
    }
    finish(p, run, fired, s.at);
    return there;
}

static unsigned count_survivors(const plan *p)
{
    int ranks = p->scenario.size + p->scenario.newcomers;

    return (unsigned)(ranks - __builtin_popcount(p->trial->gone));
}

/* The victim is stopped and sealed; the others go on, and go on further when it wakes up. Not while it
 * holds the lock of the pool: they would wait for that, and fail after 10 s; nor while it writes into the
 * memory of others, when it is not sealed. */
static bool seal_there(plan *p, crash_point point, bool leaping)
{
    stepper s;
    test_run *run = start(p, p->fault, point);
    bool attached = step_attach(&s, run, p->scenario.victim);
    bool there = attached && go_to(&s, p, point, leaping);

    while (there && (step_holds_lock(&s) || step_writes(&s)) && step_once(&s) < STEP_ENDED)
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

/* The victim is held until the newcomer has given up and asks again, or has been let in. Not while it
 * holds the lock of the pool, as above. */
static bool hold_there(plan *p, crash_point point, bool leaping)
{
    stepper s;
    test_run *run = start(p, p->fault, point);
    bool attached = step_attach(&s, run, p->scenario.victim);
    bool there = attached && go_to(&s, p, point, leaping);

    while (there && step_holds_lock(&s) && step_once(&s) < STEP_ENDED)
        ;
    test_raise_in(run, CRASH_FIRED);
    while (attached && test_flag(run, CRASH_AGAIN) < 2 &&
           (test_flag(run, CRASH_AGAIN) < 1 || !step_asks(&s, p->scenario.size)))
        usleep(100);
    step_release(&s);
    step_detach(&s);
    finish(p, run, attached, s.at);
    return there;
}

void plan_draw_second(plan *p, uint64_t *sequence)
{
    unsigned ranks = (unsigned)(p->scenario.size + p->scenario.newcomers);

    do
        p->second = (int)chance(sequence, ranks);
    while (who_goes(&p->scenario, p->fault) >> p->second & 1);
    p->second_us = chance_us(sequence, 9);
}

void plan_try(plan *p, crash_point point)
{
    bool (*there)(plan *, crash_point, bool) = p->fault == PLAN_SEAL   ? seal_there
                                               : p->fault == PLAN_HOLD ? hold_there
                                                                       : kill_there;

    bool reached;

    p->points++;
    do
        reached = there(p, point, true) || (!p->again && there(p, point, false));
    while (p->again);
    p->early += !reached;
}
