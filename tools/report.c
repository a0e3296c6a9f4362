/* report.c - `serry run`: how it ended, in plain words and as an exit code. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

/* The first rank that failed; of deaths seen together, one by a signal is the likelier cause.
 * NULL: none failed. */
static const run_rank *first_failed(const run_job *job)
{
    const run_rank *first = NULL;

    for (int i = 0; i < job->options->ranks; i++) {
        const run_rank *rank = &job->ranks[i];

        if (rank->value != 0 &&
            (first == NULL || rank->ended_ns < first->ended_ns ||
             (rank->ended_ns == first->ended_ns && rank->signalled && !first->signalled)))
            first = rank;
    }
    return first;
}

/* "; 2 other ranks failed too, 1 ended well", or what of it is true. */
static void describe_others(const run_job *job, char *text, size_t size)
{
    int well = 0, failed = -1; /* the first is no other */

    for (int i = 0; i < job->options->ranks; i++) {
        well += job->ranks[i].value == 0;
        failed += job->ranks[i].value != 0;
    }
    text[0] = '\0';
    if (failed > 0 && well > 0)
        snprintf(text, size, "; %d other rank%s failed too, %d ended well", failed,
                 failed == 1 ? "" : "s", well);
    else if (failed > 0 || well > 0)
        snprintf(text, size, "; %d other rank%s %s", failed + well, failed + well == 1 ? "" : "s",
                 failed > 0 ? "failed too" : "ended well");
}

static void say_first_failed(const run_job *job, const run_rank *rank)
{
    int number = (int)(rank - job->ranks);
    double after_s = (double)(rank->ended_ns - job->started_ns) / 1e9;
    int digits = after_s < 1 ? 2 : 1;
    char others[96];

    describe_others(job, others, sizeof others);
    if (rank->signalled)
        run_say("rank %d was killed by signal %d (%s%s) after %.*f s%s", number, rank->value,
                strsignal(rank->value), rank->dumped ? ", core dumped" : "", digits, after_s,
                others);
    else
        run_say("rank %d ended with exit code %d after %.*f s%s", number, rank->value, digits,
                after_s, others);
}

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

int run_report(const run_job *job)
{
    const run_rank *first;

    if (job->failure.system_error != 0)
        return report_start_failure(job);
    first = first_failed(job);
    if (first == NULL)
        return 0;
    say_first_failed(job, first);
    return first->signalled ? TOOL_EXIT_SIGNAL + first->value : first->value;
}

int run_report_timeout(const run_job *job, int64_t timed_out_ns, int late)
{
    const run_rank *first = first_failed(job);

    if (first != NULL && first->ended_ns < timed_out_ns)
        say_first_failed(job, first);
    run_say("the timeout of %g s passed while %d of %d rank%s ran; %s", job->options->timeout_s,
            late, job->options->ranks, job->options->ranks == 1 ? "" : "s",
            late == 1 ? "it was ended" : "they were ended");
    return TOOL_EXIT_TIMEOUT;
}
