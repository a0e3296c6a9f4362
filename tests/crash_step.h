/* crash_step.h - one rank, one instruction at a time, under ptrace.
 *
 * The tracer counts *changes*: steps after which the victim's part of the arena, or the head of its
 * robust list, is not what it was, and system calls that others can notice. Between two changes
 * nothing that survives the victim differs, so a place to kill it at is a number of changes and the
 * number of instructions since. That is well defined in every run, however long the victim has to
 * wait for others; the bits that others set in its words do not count. */
#ifndef TEST_CRASH_STEP_H
#define TEST_CRASH_STEP_H

#include "harness.h"

/* Flags of a run. */
enum {
    CRASH_TRACED,
    CRASH_BEGUN,
    CRASH_DONE,
    CRASH_FIRED,
    CRASH_SURVIVED,
    CRASH_WOKEN,
    CRASH_READY,
    CRASH_AGAIN,
    CRASH_SLEPT
};

/* Of the victim's numbers: the thread that is traced. Stands when CRASH_TRACED is raised. */
enum { STEP_THREAD };

typedef struct crash_point {
    unsigned changes; /* that many have happened, */
    unsigned after;   /* and so many instructions since the last one */
} crash_point;

#define CRASH_AT_END ((crash_point){UINT32_MAX, 0})

typedef struct stepper {
    test_run *run;
    int rank;  /* in the job */
    pid_t pid; /* of the thread, which need not be its process's first one */
    crash_point at;
    unsigned long steps;
    uint64_t address; /* of the instruction that was executed last, */
    long call;        /* and which system call that was; -1: none that others notice */
    unsigned sent;    /* messages that it has begun to send, */
    unsigned met;     /* and connections to accept */
    int descriptors;  /* its /proc/PID/fd; looked through until the arena is there */
    int memory;       /* its /proc/PID/mem */
    uint64_t list;    /* address of its robust list head there */
    unsigned char *arena;
    size_t bytes;
    bool look_for_arena;
    size_t length; /* of the snapshot */
    unsigned char seen[20480], now[20480];
} stepper;

/* Can this process trace its children here? Prints why not. */
bool step_possible(void);

/* ---- in the victim ---------------------------------------------------------------------------- */

/* From here on the calling thread runs step by step, until step_end. */
void step_begin(test_rank *self);
void step_end(test_rank *self);

/* ---- in the tracer ---------------------------------------------------------------------------- */

/* Wait for the victim's step_begin; tracer and victim share one core from here on. */
bool step_attach(stepper *s, test_run *run, int rank);

/* One instruction. */
typedef enum step_outcome { STEP_QUIET, STEP_CHANGED, STEP_ENDED, STEP_LOST } step_outcome;
step_outcome step_once(stepper *s);

/* Step to the point, or to the end of the section. */
step_outcome step_to(stepper *s, crash_point to);

/* Run freely until the instruction at `address` is about to be executed for the `pass`th time since
 * the section began, which is to be at that point. STEP_QUIET: there are no breakpoints here, and
 * nothing has run. */
step_outcome step_leap(stepper *s, uint64_t address, unsigned pass, crash_point point);

/* Does it hold the pool's lock, or another one that others take, or is it about to? */
bool step_holds_lock(const stepper *s);

/* Does it write into others' memory? Then it cannot be sealed: see writes.h. */
bool step_writes(const stepper *s);

/* Kill it where it stands, and wait until it is gone. False: it did not die of that. */
bool step_kill(stepper *s);

/* Seal its words where it stands, as a monitor does that takes it for dead. */
bool step_seal(stepper *s);

/* Does the rank that has this slot ask for a place in a part? */
bool step_asks(const stepper *s, int slot);

/* Let it run freely. */
void step_release(stepper *s);

/* Give everything back. */
void step_detach(stepper *s);

#endif
