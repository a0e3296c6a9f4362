/* inquiry.c - `serry run`: is there anybody in the job who would let a newcomer in?
 *
 * A replacement of a rank that failed before the job was up, or when the others have left already,
 * would wait for a door that nobody opens. So a process of ours knocks first, as a rank of a job of
 * another size: whoever is in the job refuses that at once, and nothing in it changes. It is a process
 * of its own, as the guardian must not wait. */
#include <sys/prctl.h>
#include <unistd.h>

#include <serry/serry.h>

#include "tool.h"

enum { PATIENCE_MS = 5000 };

static bool job_answers(const run_job *job)
{
    const int ranks = job->options->ranks;
    serry_config config = SERRY_CONFIG_INIT;
    serry_comm *comm;

    config.size = ranks < (int)SERRY_MAX_RANKS ? ranks + 1 : ranks - 1;
    config.entry = SERRY_ENTRY_SPARE;
    config.timeout_ms = PATIENCE_MS;
    int result = serry_init(&config, &comm);
    return result == SERRY_ERR_INVALID || result == SERRY_ERR_LAYOUT; /* with another build, too */
}

void run_ask(run_job *job)
{
    pid_t pid = fork();

    if (pid == 0) {
        prctl(PR_SET_NAME, "inquiry");
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(getppid() == job->guardian && job_answers(job) ? 0 : 1);
    }
    job->inquiry = pid > 0 ? pid : 0;
    job->answer = pid > 0 ? RUN_ASKED : RUN_SILENCE;
}
