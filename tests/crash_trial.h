/* crash_trial.h - one scenario of crash.c: its section as it was recorded, and trials of it. */
#ifndef TEST_CRASH_TRIAL_H
#define TEST_CRASH_TRIAL_H

#include "crash_ranks.h"
#include "crash_step.h"

/* Of more instructions between two changes, not all are tried: crash.c. */
enum { LONG_GAP = 64 };

/* A scenario is given up after so many. */
enum { PLAN_FAULTS_MOST = 3 };

/* PLAN_HOLD: the victim is stopped until a newcomer has done something behind its back, and all go on. */
typedef enum plan_fault { PLAN_KILL, PLAN_KILL_TWO, PLAN_SEAL, PLAN_HOLD } plan_fault;

typedef struct plan {
    const char *group;
    crash_scenario scenario;
    plan_fault fault;
    crash_trial *trial; /* shared with the ranks */

    /* the section, as it was recorded */
    uint64_t *address; /* of each instruction, in the order of execution; NULL: not yet */
    unsigned *first;   /* for each change: the number of the instruction after it */
    unsigned steps, changes;
    unsigned known; /* from this change on the others know of the victim, which joins; 0: always */

    int second;         /* who dies soon after the victim; -1: nobody */
    unsigned second_us; /* how soon */

    unsigned points, trials, early, missed, faults;
    bool again; /* the last trial says nothing: nothing was wrong, but the fault did not fire */
} plan;

/* The victim runs to the end of the section and is killed there. */
void plan_record(plan *p);
void plan_release(plan *p);

/* Instructions from change c to the next one. */
unsigned plan_gap(const plan *p, unsigned c);

/* A second victim, and how soon it dies. */
void plan_draw_second(plan *p, uint64_t *sequence);

/* The fault at that point. Where the run has ended before, because somebody slept in the record and
 * not here, it is tried once more, and then counted as early. Where it did not fire although all else was
 * right, because the victim could not be traced, the trial is made again, a few times in a scenario. */
void plan_try(plan *p, crash_point point);

#endif
