/* report.c - `serry run`: how it ended, in plain words and as an exit code. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

enum { LISTED_MAX = 8 };

/* "was killed by signal 9 (Killed) after 1.3 s", of a process that failed. */
static void describe_end(const run_job *job, const run_process *process, char *text, size_t size)
{
    double after_s = (double)(process->ended_ns - job->started_ns) / 1e9;
    int digits = after_s < 1 ? 2 : 1;

    if (process->signalled)
        snprintf(text, size, "was killed by signal %d (%s%s) after %.*f s", process->value,
                 strsignal(process->value), process->dumped ? ", core dumped" : "", digits,
                 after_s);
    else
        snprintf(text, size, "ended with exit code %d after %.*f s", process->value, digits,
                 after_s);
}

/* "rank 2", "the replacement of rank 2", "spare 0". */
static void describe_name(const run_process *process, char *text, size_t size)
{
    static const char *const names[] = {[RUN_RANK] = "rank %d",
                                        [RUN_REPLACEMENT] = "the replacement of rank %d",
                                        [RUN_SPARE] = "spare %d"};

    snprintf(text, size, names[process->role], process->number);
}

static int exit_code_of(const run_process *process)
{
    return process->signalled ? TOOL_EXIT_SIGNAL + process->value : process->value;
}

/* ---- where nothing takes the place of a rank ----------------------------------------------- */

/* "; 2 other ranks failed too, 1 ended well", or what of it is true. */
static void describe_others(const run_job *job, char *text, size_t size)
{
    int failed = run_missing(job) - 1; /* the first is no other */
    int well = job->options->ranks - run_missing(job);

    text[0] = '\0';
    if (failed > 0 && well > 0)
        snprintf(text, size, "; %d other rank%s failed too, %d ended well", failed,
                 failed == 1 ? "" : "s", well);
    else if (failed > 0 || well > 0)
        snprintf(text, size, "; %d other rank%s %s", failed + well, failed + well == 1 ? "" : "s",
                 failed > 0 ? "failed too" : "ended well");
}

static void say_first_failed(const run_job *job, const run_process *first)
{
    char end[128], others[96];

    describe_end(job, first, end, sizeof end);
    describe_others(job, others, sizeof others);
    run_say("rank %d %s%s", first->number, end, others);
}

/* ---- where something does -------------------------------------------------------------------- */

static bool is_plain(const run_job *job)
{
    const run_options *options = job->options;

    return options->respawn == 0 && options->spares == 0 && options->tolerate == 0 &&
           !options->kill_on_failure;
}

/* What was done about a failure; begins with "; ", or is empty. */
static void describe_sequel(const run_job *job, const run_process *process, char *text, size_t size)
{
    bool spares = job->options->spares > 0;

    text[0] = '\0';
    if (process->sequel == RUN_FOLLOWED)
        snprintf(text, size, spares ? "; another spare was started" : "; it was replaced");
    else if (process->sequel == RUN_LEFT && process->role != RUN_SPARE)
        snprintf(text, size, "; a spare was there to take its place");
    else if (process->sequel == RUN_EXHAUSTED && spares)
        snprintf(text, size, "; no spare was left");
    else if (process->sequel == RUN_EXHAUSTED)
        snprintf(text, size, "; no more than %d may be replaced", job->options->respawn);
    else if (process->sequel == RUN_ALONE)
        snprintf(text, size, "; nobody was in the job who could let another in");
    else if (process->sequel == RUN_LATE)
        snprintf(text, size, "; the others ended before another could be started");
    else if (process->sequel == RUN_UNSTARTED)
        snprintf(text, size, "; another process could not be started");
}

/* When the last of the first N ended. */
static int64_t ranks_ended_ns(const run_job *job)
{
    int64_t last_ns = 0;

    for (int i = 0; i < job->options->ranks; i++)
        if (job->processes[i].ended_ns > last_ns)
            last_ns = job->processes[i].ended_ns;
    return last_ns;
}

static bool is_any_rank_lost(const run_job *job)
{
    for (int i = 0; i < job->options->ranks; i++)
        if (job->processes[i].value != 0)
            return true;
    return false;
}

/* What failed by itself. A spare that ends by an exit code where no rank was lost, or after the ranks,
 * was not needed, or has said what it has to say. */
static bool is_worth_telling(const run_job *job, const run_process *process)
{
    if (process->value == 0 || process->ended_ns > job->ending_ns)
        return false;
    return process->role != RUN_SPARE || process->signalled ||
           (is_any_rank_lost(job) && process->ended_ns < ranks_ended_ns(job));
}

/* The next to tell of after `last`, in the order of time; NULL: none. */
static const run_process *next_failed(const run_job *job, const run_process *last)
{
    const run_process *next = NULL;

    for (int i = 0; i < job->count; i++) {
        const run_process *process = &job->processes[i];
        bool after = last == NULL || process->ended_ns > last->ended_ns ||
                     (process->ended_ns == last->ended_ns && process > last);

        if (after && is_worth_telling(job, process) &&
            (next == NULL || process->ended_ns < next->ended_ns))
            next = process;
    }
    return next;
}

static void say_failures(const run_job *job)
{
    const run_process *process = next_failed(job, NULL);
    int more = 0;

    for (int i = 0; i < LISTED_MAX && process != NULL; i++) {
        char name[64], end[128], sequel[96];

        describe_name(process, name, sizeof name);
        describe_end(job, process, end, sizeof end);
        describe_sequel(job, process, sequel, sizeof sequel);
        run_say("%s %s%s", name, end, sequel);
        process = next_failed(job, process);
    }
    for (; process != NULL; process = next_failed(job, process))
        more++;
    if (more > 0)
        run_say("... and %d more processes failed", more);
}

/* The last line: the exit code, and why. */
static int conclude(const run_job *job, const run_process *cause)
{
    const run_options *options = job->options;
    int well = options->ranks - run_missing(job), code = exit_code_of(cause);
    char name[64];

    describe_name(cause, name, sizeof name);
    if (job->culprit != NULL)
        run_say("the failure of %s ended all others (--kill-on-failure); the exit code is %d", name,
                code);
    else
        run_say("%d of %d ranks ended well; the exit code, %d, is due to %s", well, options->ranks,
                code, name);
    return code;
}

static int report_places(const run_job *job)
{
    const run_options *options = job->options;
    const run_process *cause = job->culprit != NULL ? job->culprit : run_first_missing(job);
    int missing = run_missing(job);

    if (next_failed(job, NULL) == NULL && missing == 0)
        return 0;
    say_failures(job);
    if (job->culprit == NULL && missing == 0)
        run_say("all %d ranks ended well, counting those that were replaced", options->ranks);
    else if (job->culprit == NULL && missing <= options->tolerate)
        run_say("%d of %d ranks ended well; %d lost %s tolerated, so the exit code is 0",
                options->ranks - missing, options->ranks, missing, missing == 1 ? "is" : "are");
    else
        return conclude(job, cause);
    return 0;
}

/* ---- failures to start ------------------------------------------------------------------------ */

/* PROGRAM itself is the trouble. */
static int report_exec_failure(const char *program, int error)
{
    bool path = strchr(program, '/') != NULL;

    if (error != ENOENT && error != ENOTDIR) {
        run_say("cannot run '%s': %s; is it an executable file for this machine?", program,
                strerror(error));
        return TOOL_EXIT_NOT_EXECUTABLE;
    }
    if (!path)
        run_say("cannot run '%s': there is no such program in PATH; for one in this directory say "
                "./%s",
                program, program);
    else if (access(program, F_OK) == 0)
        run_say("cannot run '%s': the interpreter in its first line (#!), or its loader, does not "
                "exist",
                program);
    else
        run_say("cannot run '%s': there is no such file", program);
    return TOOL_EXIT_NOT_FOUND;
}

static int report_start_failure(const run_job *job)
{
    static const char *const steps[] = {[RUN_STEP_FORK] = "start",
                                        [RUN_STEP_STREAMS] = "connect the standard streams of",
                                        [RUN_STEP_BIND] = "bind"};
    const run_start_failure *failure = &job->failure;
    const char *advice = "";

    if (failure->step == RUN_STEP_EXEC)
        return report_exec_failure(job->options->program[0], failure->system_error);
    if (failure->system_error == EAGAIN)
        advice = "; raise ulimit -u, or the pids limit of the control group";
    else if (failure->system_error == EMFILE)
        advice = "; raise ulimit -n, or leave out --tag";
    run_say("cannot %s rank %d of %d: %s%s", steps[failure->step], failure->rank,
            job->options->ranks, strerror(failure->system_error), advice);
    return TOOL_EXIT_FAILED;
}

/* ---- the end --------------------------------------------------------------------------------- */

int run_report(const run_job *job)
{
    const run_process *first;

    if (job->failure.system_error != 0)
        return report_start_failure(job);
    if (!is_plain(job))
        return report_places(job);
    first = run_first_missing(job);
    if (first == NULL)
        return 0;
    say_first_failed(job, first);
    return exit_code_of(first);
}

int run_report_timeout(const run_job *job, int64_t timed_out_ns, int late)
{
    const run_process *first = run_first_missing(job);

    if (!is_plain(job))
        say_failures(job);
    else if (first != NULL && first->ended_ns < timed_out_ns)
        say_first_failed(job, first);
    run_say("the timeout of %g s passed while %d of %d rank%s ran; %s", job->options->timeout_s,
            late, job->options->ranks, job->options->ranks == 1 ? "" : "s",
            late == 1 ? "it was ended" : "they were ended");
    return TOOL_EXIT_TIMEOUT;
}
