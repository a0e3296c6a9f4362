/* tool.h - what the files of the command `serry` share.
 *
 * `serry run` is three kinds of process:
 *
 *   launcher   what the user started; passes signals on, waits          run.c
 *      |  control pipe: one byte per signal; its end means "the launcher is gone"
 *   guardian   parent of the ranks, in a session of its own             guardian.c, children.c
 *      |       kills everything when the launcher goes; the launcher does when the guardian goes;
 *      |       says how it ended                                    report.c
 *   ranks      each in a process group of its own; the kernel kills     children.c
 *   relay      them with the guardian. With --tag: copies output        relay.c
 *
 * Newcomers are processes of PROGRAM beside the first N: replacements, which the guardian starts
 * for ranks that fail (--respawn), and spares, which wait from the beginning (--spares).
 *
 * Launcher and guardian are both subreapers: whatever a rank leaves behind becomes a child of the
 * guardian or, after its death, of the launcher, and is found and killed there. */
#ifndef SERRY_TOOL_H
#define SERRY_TOOL_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <serry/types.h>

/* Exit codes of the command's own; others are the ranks'. */
enum {
    TOOL_EXIT_TIMEOUT = 124,
    TOOL_EXIT_FAILED = 125, /* the command itself: bad usage, no resources */
    TOOL_EXIT_NOT_EXECUTABLE = 126,
    TOOL_EXIT_NOT_FOUND = 127,
    TOOL_EXIT_SIGNAL = 128 /* + signal number */
};

/* The subcommands. argv[0] is "serry run" and so on; each returns the exit code. */
int tool_run(int argc, char **argv);
int tool_bench(int argc, char **argv);
int tool_info(int argc, char **argv);
int tool_version(int argc, char **argv);

/* The usual help for a subcommand without arguments; refuses everything else and exits. */
void tool_no_arguments(int argc, char **argv, const char *what);

/* ---- run ---------------------------------------------------------------------------------- */

/* The time that ranks get between being asked to end and SIGKILL. */
#define RUN_GRACE_NS INT64_C(5000000000)

/* Far below the number of slots in an arena. */
enum { RUN_RESPAWN_MAX = 1000 };

typedef enum run_bind { RUN_BIND_NONE, RUN_BIND_CORE, RUN_BIND_NUMA } run_bind;

/* What the user asked for. */
typedef struct run_options {
    int ranks; /* 1 to SERRY_MAX_RANKS */
    run_bind bind;
    bool tag;
    double timeout_s; /* 0: none */
    int respawn;      /* so many newcomers may be started, 0 to RUN_RESPAWN_MAX */
    int spares;       /* 0 to SERRY_MAX_RANKS */
    int tolerate;     /* so many ranks may be lost, less than `ranks` */
    bool kill_on_failure;
    uint64_t heap_threshold; /* --heap: from so many bytes on; 0: no heap */
    char **program;          /* name and arguments, NULL at the end; points into argv */
} run_options;

/* Which processors each rank is bound to. Opaque. */
typedef struct run_binding run_binding;

typedef enum run_role { RUN_RANK, RUN_REPLACEMENT, RUN_SPARE } run_role;

/* What the guardian did when a process had failed. */
typedef enum run_sequel {
    RUN_NOTHING,   /* nothing was to be done: all are ending, or it was not asked for */
    RUN_FOLLOWED,  /* started a newcomer */
    RUN_LEFT,      /* left it to a spare that runs */
    RUN_EXHAUSTED, /* there was none left to take the place */
    RUN_ALONE,     /* nobody in the job answered who could have let a newcomer in */
    RUN_LATE,      /* all had ended before an answer came */
    RUN_UNSTARTED  /* could not start one */
} run_sequel;

/* One process of PROGRAM as the guardian knows it. */
typedef struct run_process {
    run_role role;
    int number;        /* its rank; of a spare, its own number, from 0 */
    pid_t pid;         /* 0: never started */
    bool ended;        /* and was reaped: pid is nobody's any more */
    bool signalled;    /* killed by a signal, and... */
    bool dumped;       /* ...a core was written */
    bool judged;       /* the guardian has decided what follows from its end, and that is: */
    run_sequel sequel; /* RUN_NOTHING unless it failed */
    int value;         /* that signal, or the exit code */
    int64_t ended_ns;  /* CLOCK_MONOTONIC; equal for deaths that were seen together */
    int output[2];     /* --tag: read ends of its stdout and stderr; else -1 */
} run_process;

/* What a rank was doing when it could not be started. */
typedef enum run_step { RUN_STEP_FORK, RUN_STEP_STREAMS, RUN_STEP_BIND, RUN_STEP_EXEC } run_step;

/* Comes through a pipe from a rank that could not be started. */
typedef struct run_start_failure {
    int rank;
    run_step step;
    int system_error; /* errno; 0: no failure */
} run_start_failure;

/* Does anybody in the job open the door to newcomers? */
typedef enum run_answer { RUN_NOT_ASKED, RUN_ASKED, RUN_ANSWERED, RUN_SILENCE } run_answer;

/* A job in the guardian. */
typedef struct run_job {
    const run_options *options;
    const run_binding *binding; /* NULL: none */
    const sigset_t *rank_mask;  /* the signal mask that ranks start with */
    bool no_stdin;              /* rank 0 gets /dev/null too */
    int64_t started_ns;         /* CLOCK_MONOTONIC */
    pid_t guardian;
    pid_t relay;     /* 0: none, or ended */
    int relay_queue; /* newcomers' outputs for it; -1: none will come */
    pid_t inquiry;   /* 0: none runs */
    run_answer answer;
    int failures[2]; /* pipe of run_start_failure; exec closes a rank's end */
    run_start_failure failure;
    const run_process *culprit; /* --kill-on-failure: all were ended because of it; or NULL */
    int64_t ending_ns;          /* when all were asked to end by us; INT64_MAX: they were not */
    int running;                /* processes started and not ended */
    int respawned;              /* newcomers started for those that failed */
    int count;                  /* processes[0] to [ranks - 1] are the ranks as at first... */
    run_process *processes;     /* ...then spares, then newcomers in their order; room for all */
} run_job;

/* "serry run: " and a line to stderr, in one piece. */
void run_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* CLOCK_MONOTONIC, nanoseconds. */
int64_t run_now_ns(void);

/* Close a descriptor if there is one, and forget it. */
void run_close(int *fd);

/* --heap: make the memory, and set the variables by which processes started from now on use it. It is
 * freed when they and this process have ended. False: said why. */
bool run_heap_make(const run_options *options);

/* Decide where each of `ranks` ranks is bound; *binding is NULL for RUN_BIND_NONE, else the caller
 * frees it. Warns when several ranks share a core. False: said why. */
bool run_binding_make(run_bind kind, int ranks, run_binding **binding);
void run_binding_free(run_binding *binding); /* NULL is allowed */

/* Bind the calling process as `rank`. 0, or errno. */
int run_binding_apply(const run_binding *binding, int rank);

/* The guardian's life: start the ranks, see them to their end, report. `control` is the read end
 * of the control pipe. Returns the exit code of the job. */
int run_guardian(run_job *job, int control);

/* Set job->guardian, make the job's key, find a port for MASTER_PORT, and start all ranks and spares.
 * False: job->failure says why; those that were started before it are running. */
bool run_start(run_job *job);

/* Start a process in the place of rank `number`, or spare `number`. False: errno says why not. */
bool run_start_newcomer(run_job *job, run_role role, int number);

/* Pass a signal on to all processes of PROGRAM that run: to each alone for SIGUSR1 and SIGUSR2, which
 * mean something to the program only, otherwise to its process group, as a terminal would. */
void run_forward(const run_job *job, int signal);

/* Note what has ended, kill what ranks left in their process groups, reap them. */
void run_reap(run_job *job);

/* Begin to find out whether the job lets newcomers in: job->answer is RUN_ASKED now, and something
 * else after a run_reap(). */
void run_ask(run_job *job);

/* All children of this process, zombies included: *count of them, in memory that the caller frees.
 * NULL and 0 where there are none, or /proc cannot be read. */
pid_t *run_children(size_t *count);

/* Kill and reap all children of this process but those in `spared`, and again, as their children
 * become ours, until none is left. Those that may not be killed (other user) are left alone. */
void run_sweep(const pid_t *spared, size_t count);

/* ---- places: places.c ---- */

/* Ended with exit code 0. */
bool run_is_well(const run_process *process);

/* Some process with this number was or is: a rank's, which ended well. Spares have no rank. */
bool run_rank_is_well(const run_job *job, int rank);

/* Ranks that have no process that ended well; those that spares stood in for do not count. */
int run_missing(const run_job *job);

/* Ranks that have no process that runs or ended well, and no spare that might stand in. */
int run_uncovered(const run_job *job);

/* Ranks that have a process running. A spare counts where a rank has none. */
int run_ranks_running(const run_job *job);

/* Does one of the first N processes run? */
bool run_first_runs(const run_job *job);

/* The first rank that failed and is missing, as it was at first: whoever comes later in its place, it
 * is the cause. Of deaths seen together, one by a signal is the likelier cause. NULL: none. */
const run_process *run_first_missing(const run_job *job);

/* ---- report: report.c ---- */

/* Say how the job ended, if anything failed, and return its exit code. */
int run_report(const run_job *job);

/* The same after a timeout, which struck at `timed_out_ns` while `late` ranks ran. */
int run_report_timeout(const run_job *job, int64_t timed_out_ns, int late);

/* ---- relay: relay.c ---- */

/* The relay's life: copy all output line by line until it has ended and `queue`, the other end of
 * job->relay_queue or -1, has too. */
void run_relay(run_job *job, int queue);

/* Hand the outputs of a newcomer over to the relay. False: errno says why not. */
bool run_relay_add(const run_job *job, const run_process *process);

/* ---- info --------------------------------------------------------------------------------- */

/* Try a kernel feature; write what came of it to `text`, and return text. */
char *info_probe_memfd(char *text, size_t size);
char *info_probe_pidfd(char *text, size_t size);
char *info_probe_futex_waitv(char *text, size_t size);
char *info_probe_vm_readv(char *text, size_t size);

#endif
