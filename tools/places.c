/* places.c - `serry run`: which ranks are well, which are missing, and who may stand in for them.
 *
 * A rank is well when a process with its number has ended with exit code 0: its first one or a
 * replacement. Which rank a spare takes the place of is decided inside the job, and not known here:
 * so spares are only counted. One that ends well has stood in for a rank; the library sees to it that
 * the others' serry_init fails. */
#include "tool.h"

static bool is_running(const run_process *process)
{
    return process->pid > 0 && !process->ended;
}

bool run_is_well(const run_process *process)
{
    return process->ended && process->value == 0;
}

/* Processes with this number (spares: -1) that fulfil a condition. */
static int count_of(const run_job *job, int rank, bool (*fulfils)(const run_process *process))
{
    int count = 0;

    for (int i = 0; i < job->count; i++) {
        const run_process *process = &job->processes[i];
        int number = process->role == RUN_SPARE ? -1 : process->number;

        count += number == rank && fulfils(process);
    }
    return count;
}

bool run_rank_is_well(const run_job *job, int rank)
{
    return count_of(job, rank, run_is_well) > 0;
}

static int more_than(int wanted, int there)
{
    return wanted > there ? wanted - there : 0;
}

int run_missing(const run_job *job)
{
    int lost = 0;

    for (int rank = 0; rank < job->options->ranks; rank++)
        lost += !run_rank_is_well(job, rank);
    return more_than(lost, count_of(job, -1, run_is_well));
}

/* Failures are judged one by one: what has not been judged yet has not happened yet. */
static bool is_there(const run_process *process)
{
    return is_running(process) || (process->ended && process->value != 0 && !process->judged);
}

int run_uncovered(const run_job *job)
{
    int open = 0;

    for (int rank = 0; rank < job->options->ranks; rank++)
        open += !run_rank_is_well(job, rank) && count_of(job, rank, is_there) == 0;
    return more_than(open, count_of(job, -1, run_is_well) + count_of(job, -1, is_there));
}

int run_ranks_running(const run_job *job)
{
    int running = 0, open = 0, spares = count_of(job, -1, is_running);

    for (int rank = 0; rank < job->options->ranks; rank++) {
        bool runs = count_of(job, rank, is_running) > 0;

        running += runs;
        open += !runs && !run_rank_is_well(job, rank);
    }
    return running + (spares < open ? spares : open);
}

bool run_first_runs(const run_job *job)
{
    for (int i = 0; i < job->options->ranks; i++)
        if (is_running(&job->processes[i]))
            return true;
    return false;
}

static bool is_before(const run_process *a, const run_process *b)
{
    return a->ended_ns < b->ended_ns ||
           (a->ended_ns == b->ended_ns && a->signalled && !b->signalled);
}

/* Spares stand in for those that failed first. */
const run_process *run_first_missing(const run_job *job)
{
    bool passed[SERRY_MAX_RANKS] = {false};
    const run_process *first = NULL;

    for (int spares = count_of(job, -1, run_is_well); spares >= 0; spares--) {
        first = NULL;
        for (int rank = 0; rank < job->options->ranks; rank++)
            if (!passed[rank] && !run_rank_is_well(job, rank) &&
                (first == NULL || is_before(&job->processes[rank], first)))
                first = &job->processes[rank];
        if (first == NULL)
            return NULL;
        passed[first->number] = true;
    }
    return first;
}
