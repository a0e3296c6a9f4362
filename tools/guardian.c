/* guardian.c - `serry run`: the parent of the ranks, from their start to the report on their end.
 *
 * One loop over three descriptors: children have ended (signalfd), the launcher has a signal for
 * the ranks or is gone (control pipe), a rank could not be started (failure pipe). Signals sent to
 * the guardian itself are blocked and have no effect, so that `pkill serry` or a whole process
 * group's SIGTERM comes to the ranks once: through the launcher. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tool.h"

typedef struct guard {
    run_job *job;
    int control;          /* -1: the launcher is gone */
    int ends;             /* signalfd of SIGCHLD */
    int requests;         /* to end: SIGINT and SIGTERM that came */
    bool closing;         /* all are to end: nobody is replaced any more */
    bool was_up;          /* somebody in the job answered once */
    int64_t timeout_ns;   /* when --timeout is over; INT64_MAX: never, or over already */
    int64_t kill_ns;      /* when patience is over; INT64_MAX: no rank was asked to end */
    int64_t timed_out_ns; /* when the timeout struck; 0: it did not */
    int late;             /* ranks that were running then */
} guard;

/* ---- starting ---------------------------------------------------------------------------- */

static void start_relay(run_job *job)
{
    int queue[2] = {-1, -1};

    if (job->options->respawn > 0 &&
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, queue) != 0) {
        job->failure = (run_start_failure){0, RUN_STEP_FORK, errno};
        return;
    }
    job->relay = fork();
    if (job->relay == 0) {
        run_close(&queue[0]);
        prctl(PR_SET_NAME, "relay");
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == job->guardian)
            run_relay(job, queue[1]);
        _exit(0);
    }
    if (job->relay < 0) {
        job->relay = 0; /* the ranks will see broken pipes, but are not left to run for nothing */
        job->failure = (run_start_failure){0, RUN_STEP_FORK, errno};
    }
    job->relay_queue = queue[0];
    run_close(&queue[1]);
}

/* Start ranks and relay. Whatever goes wrong stands in job->failure. */
static void start(run_job *job)
{
    if (pipe2(job->failures, O_CLOEXEC) != 0) {
        job->failures[0] = job->failures[1] = -1;
        job->failure = (run_start_failure){0, RUN_STEP_FORK, errno};
        return;
    }
    if (run_start(job) && job->options->tag) {
        run_close(&job->failures[1]); /* the relay must not hold it open */
        start_relay(job);
    }
    run_close(&job->failures[1]);
    for (int i = 0; i < job->count; i++) {
        run_close(&job->processes[i].output[0]);
        run_close(&job->processes[i].output[1]);
    }
}

/* ---- ending them ------------------------------------------------------------------------- */

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Everything, now; the relay only when there is no rank left whose last lines it may still hold. */
static void kill_all(guard *g)
{
    if (g->job->relay > 0 && (g->job->running == 0 || g->control < 0))
        kill(g->job->relay, SIGKILL);
    run_forward(g->job, SIGKILL);
    g->kill_ns = run_now_ns() + RUN_GRACE_NS;
    g->closing = true;
}

static void kill_after_grace(guard *g)
{
    g->kill_ns = earlier(g->kill_ns, run_now_ns() + RUN_GRACE_NS);
    g->closing = true;
}

static void end_all(guard *g)
{
    g->job->ending_ns = earlier(g->job->ending_ns, run_now_ns());
    g->timeout_ns = INT64_MAX;
    run_forward(g->job, SIGTERM);
    run_forward(g->job, SIGCONT); /* a stopped rank could not act on it */
    kill_after_grace(g);
}

/* ---- failures ---------------------------------------------------------------------------- */

static run_sequel start_newcomer(guard *g, const run_process *failed)
{
    run_job *job = g->job;
    bool spare = job->options->spares > 0;
    int number = spare ? job->options->spares + job->respawned : failed->number;

    if (!run_start_newcomer(job, spare ? RUN_SPARE : RUN_REPLACEMENT, number)) {
        run_say("cannot start another process: %s", strerror(errno));
        return RUN_UNSTARTED;
    }
    job->respawned++;
    return RUN_FOLLOWED;
}

/* What is there to take the place of a process that failed? */
static run_sequel follow(guard *g, const run_process *failed)
{
    const run_job *job = g->job;
    bool spares = job->options->spares > 0;
    bool wanted = job->respawned < job->options->respawn &&
                  (failed->role != RUN_SPARE || run_first_runs(job));

    if (job->answer == RUN_SILENCE && (wanted || !g->was_up))
        return RUN_ALONE;
    if (wanted)
        return job->answer == RUN_ANSWERED && job->running > 0 ? start_newcomer(g, failed)
                                                               : RUN_LATE;
    return spares && run_uncovered(job) == 0 ? RUN_LEFT : RUN_EXHAUSTED;
}

static void judge(guard *g, run_process *failed)
{
    bool lost;

    failed->judged = true;
    if (g->closing)
        return;
    if (g->job->options->respawn > 0 || g->job->options->spares > 0)
        failed->sequel = follow(g, failed);
    lost = run_uncovered(g->job) > 0 || (failed->sequel == RUN_ALONE && failed->role == RUN_RANK);
    if (!lost || !g->job->options->kill_on_failure)
        return;
    g->job->culprit = failed;
    end_all(g);
}

static bool is_news(const run_process *process)
{
    return process->ended && process->value != 0 && !process->judged;
}

/* Deaths seen together: those killed by a signal come first, as the others may have failed
 * because of them. */
static void judge_all(guard *g)
{
    run_job *job = g->job;
    const int count = job->count; /* without those that are started here */

    for (int signalled = 1; signalled >= 0; signalled--)
        for (int i = 0; i < count; i++)
            if (is_news(&job->processes[i]) && job->processes[i].signalled == (signalled == 1))
                judge(g, &job->processes[i]);
}

/* Must it be known whether the job lets newcomers in, before anything follows from a failure? */
static bool is_answer_needed(const guard *g)
{
    const run_options *options = g->job->options;

    return !g->closing && g->job->running > 0 &&
           (g->job->respawned < options->respawn ||
            (options->spares > 0 && options->kill_on_failure && !g->was_up));
}

/* An answer serves all failures that are known when it comes. */
static void look_at_failures(guard *g)
{
    run_job *job = g->job;
    bool news = false;

    for (int i = 0; i < job->count; i++)
        news = news || is_news(&job->processes[i]);
    if (news && job->answer == RUN_NOT_ASKED &&
        (is_answer_needed(g) || (job->options->spares > 0 && !g->was_up)))
        run_ask(job);
    if (job->answer == RUN_ASKED && is_answer_needed(g))
        return; /* its end will bring us here again */
    g->was_up = g->was_up || job->answer == RUN_ANSWERED;
    judge_all(g);
    if (job->answer != RUN_ASKED)
        job->answer = RUN_NOT_ASKED;
}

/* When none of the first N runs any more, newcomers may be left that nobody needs: all ranks are well,
 * or none is and the job was never up, so that nobody can be in it. The library tells spares, but
 * whether their program listens is its own affair. Where some ranks are well and some are missing, a
 * newcomer may be at work for one: it ends by itself, if only when the library's timeout is over. */
static void look_at_newcomers(guard *g)
{
    run_job *job = g->job;
    int missing = run_missing(job);

    if (job->running == 0 || run_first_runs(job) || job->answer == RUN_ASKED ||
        job->ending_ns != INT64_MAX)
        return;
    if (missing > 0 && (g->was_up || missing < job->options->ranks))
        return;
    job->ending_ns = run_now_ns();
    g->timeout_ns = INT64_MAX; /* the ranks have kept it */
    kill_after_grace(g);
}

/* ---- events ------------------------------------------------------------------------------ */

static void take_signal(guard *g, int signal)
{
    run_forward(g->job, signal);
    if (signal == SIGHUP || signal == SIGQUIT)
        g->closing = true;
    if (signal != SIGINT && signal != SIGTERM)
        return;
    g->closing = true;
    g->requests++;
    if (g->requests == 2) {
        run_say("asked to end a second time: ranks that are still there in 5 s will be killed");
        kill_after_grace(g);
    } else if (g->requests > 2) {
        kill_all(g);
    }
}

static void read_control(guard *g)
{
    unsigned char signals[64];
    ssize_t count = read(g->control, signals, sizeof signals);

    for (ssize_t i = 0; i < count; i++)
        take_signal(g, signals[i]);
    if (count == 0) {
        run_close(&g->control);
        kill_all(g);
    }
}

static void read_ends(guard *g)
{
    struct signalfd_siginfo ignored;

    if (read(g->ends, &ignored, sizeof ignored) < 0)
        return;
    run_reap(g->job);
}

/* One failure stands for all: every rank runs the same program. */
static void read_failures(guard *g)
{
    run_job *job = g->job;
    run_start_failure failure;
    ssize_t got = read(job->failures[0], &failure, sizeof failure);

    if (got == (ssize_t)sizeof failure) {
        if (job->failure.system_error == 0)
            job->failure = failure;
        kill_all(g);
    } else if (got == 0) {
        run_close(&job->failures[0]);
    }
}

static void look_at_clock(guard *g)
{
    int64_t now_ns = run_now_ns();

    if (now_ns >= g->timeout_ns) {
        g->timed_out_ns = now_ns;
        g->late = run_ranks_running(g->job);
        end_all(g);
    }
    if (now_ns >= g->kill_ns)
        kill_all(g);
}

/* Milliseconds until the next deadline, rounded up; -1: none. */
static int patience_ms(const guard *g)
{
    int64_t next_ns = earlier(g->timeout_ns, g->kill_ns), left_ns;

    if (next_ns == INT64_MAX)
        return -1;
    left_ns = next_ns - run_now_ns();
    if (left_ns <= 0)
        return 0;
    return (int)earlier((left_ns + 999999) / 1000000, 1000000);
}

static void watch(guard *g)
{
    run_job *job = g->job;
    bool swept = false;

    while (job->running > 0 || job->relay > 0 || job->failures[0] >= 0) {
        struct pollfd ready[] = {
            {g->ends, POLLIN, 0}, {g->control, POLLIN, 0}, {job->failures[0], POLLIN, 0}};

        if (poll(ready, 3, patience_ms(g)) > 0) {
            if (ready[2].revents != 0) /* before the ends that follow from it */
                read_failures(g);
            if (ready[1].revents != 0)
                read_control(g);
            if (ready[0].revents != 0)
                read_ends(g);
        }
        look_at_failures(g);
        look_at_newcomers(g);
        look_at_clock(g);
        if (job->running == 0 && !swept) { /* what they left may hold the relay's pipes open */
            run_sweep(&job->relay, 1);
            run_close(&job->relay_queue);
            swept = true;
        }
    }
}

int run_guardian(run_job *job, int control)
{
    guard g = {.job = job, .control = control, .timeout_ns = INT64_MAX, .kill_ns = INT64_MAX};
    sigset_t child;

    job->ending_ns = INT64_MAX;
    job->relay_queue = -1;
    prctl(PR_SET_NAME, "guardian"); /* `killall -9 serry` must not kill both */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    setsid(); /* away from the terminal: its signals come through the launcher, once */
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    g.ends = signalfd(-1, &child, SFD_CLOEXEC);
    if (g.ends < 0) {
        run_say("cannot start: %s", strerror(errno));
        return TOOL_EXIT_FAILED;
    }
    start(job);
    if (job->failure.system_error != 0)
        kill_all(&g);
    else if (job->options->timeout_s > 0)
        g.timeout_ns = job->started_ns + (int64_t)(job->options->timeout_s * 1e9);
    watch(&g);
    if (g.control < 0)
        return TOOL_EXIT_FAILED; /* nobody is left to tell */
    if (g.timed_out_ns != 0)
        return run_report_timeout(job, g.timed_out_ns, g.late);
    return run_report(job);
}
