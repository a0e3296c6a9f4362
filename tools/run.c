/* run.c - `serry run`: what the user asked for, and the launcher process. */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tool.h"

enum {
    OPTION_BIND = 256,
    OPTION_TAG,
    OPTION_TIMEOUT,
    OPTION_RESPAWN,
    OPTION_SPARES,
    OPTION_TOLERATE,
    OPTION_KILL,
    OPTION_HEAP
};

/* About 30 years: keeps nanoseconds well inside 64 bits. */
static const double k_timeout_max_s = 1e9;

static const struct argp_option k_options[] = {
    {"ranks", 'n', "N", 0, "Start N ranks, 1 to 256", 0},
    {"bind", OPTION_BIND, "WHERE", 0,
     "Bind rank r to core r (core), to the cores of one NUMA node in turn (numa), or leave it free "
     "(none, the default)",
     0},
    {"tag", OPTION_TAG, NULL, 0, "Begin each line of output with the rank that wrote it: [2] text",
     0},
    {"timeout", OPTION_TIMEOUT, "S", 0,
     "After S seconds (fractions allowed) end all ranks and exit with 124", 0},
    {"respawn", OPTION_RESPAWN, "K", 0,
     "Start another process in the place of a rank that fails; at most K in the whole job", 0},
    {"spares", OPTION_SPARES, "K", 0,
     "Start K processes more, which wait in serry_init to take the place of ranks that fail", 0},
    {"tolerate", OPTION_TOLERATE, "K", 0,
     "Exit with 0 where no more than K ranks are lost, less than N", 0},
    {"kill-on-failure", OPTION_KILL, NULL, 0,
     "End all ranks when one fails that neither a replacement nor a spare follows", 0},
    {"heap", OPTION_HEAP, "KIB", OPTION_ARG_OPTIONAL,
     "Let the ranks' allocations of at least KIB kibibytes (64, which is the least, if not given) "
     "lie "
     "where other ranks can read them, so that collectives copy less; preloads jemalloc",
     0},
    {NULL, 0, NULL, 0, NULL, 0}};

static const char k_doc[] =
    "Start N ranks of PROGRAM on this machine and see them to their end."
    "\v"
    "Options of serry come before PROGRAM; everything after it is PROGRAM's own. Each rank finds "
    "SERRY_RANK, SERRY_SIZE and SERRY_JOB in its environment, and torchrun's variables (RANK, "
    "WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT). Standard input goes to "
    "rank 0. When a rank fails (is killed, or ends with another exit code than 0) the others go "
    "on; "
    "when serry ends, however it ends, all ranks end.\n"
    "\n"
    "A replacement (--respawn) or spare (--spares) is a process of PROGRAM like the others; "
    "SERRY_ENTRY tells serry_init to let it into the running job. With both options, it is spares "
    "that are started anew. A spare that was not needed is told so by serry_init: it should end, "
    "with "
    "another exit code than 0.\n"
    "\n"
    "Exit code: 0 if all ranks succeeded, counting those that were replaced, or if no more are "
    "lost "
    "than --tolerate allows; else that of the first rank that failed (128 + signal if "
    "it was killed), 124 after a timeout, 127 if PROGRAM was not found, 126 if it cannot be "
    "executed, 125 if serry itself failed.\n"
    "\n"
    "Examples:\n"
    "  serry run -n 4 ./train corpus.txt\n"
    "  serry run -n 2 --bind core --tag python3 train.py --epochs 3\n"
    "  serry run -n 4 --respawn 2 ./train corpus.txt\n"
    "  serry run -n 4 --spares 1 --tolerate 1 ./train corpus.txt\n"
    "  serry run -n 8 --timeout 60 sh -c 'echo $SERRY_RANK of $SERRY_SIZE'";

/* A whole number from low to high; `what` stands before it in the message. */
static int parse_number(const char *text, const char *what, int low, int high,
                        struct argp_state *state)
{
    char *end;
    long number;

    errno = 0;
    number = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || number < low || number > high)
        argp_error(state, "%s from %d to %d, not '%s'", what, low, high, text);
    return (int)number;
}

static run_bind parse_bind(const char *text, struct argp_state *state)
{
    static const char *const names[] = {
        [RUN_BIND_NONE] = "none", [RUN_BIND_CORE] = "core", [RUN_BIND_NUMA] = "numa"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i]) == 0)
            return (run_bind)i;
    argp_error(state, "--bind wants core, numa or none, not '%s'", text);
    return RUN_BIND_NONE;
}

static double parse_timeout(const char *text, struct argp_state *state)
{
    char *end;
    double seconds = strtod(text, &end);

    if (end == text || *end != '\0' || !isfinite(seconds) || seconds <= 0 ||
        seconds > k_timeout_max_s)
        argp_error(state, "--timeout wants seconds, more than 0 (0.5, 60), not '%s'", text);
    return seconds;
}

/* Options that are right alone may make no sense together. */
static void check_together(const run_options *options, struct argp_state *state)
{
    if (options->kill_on_failure && options->tolerate > 0)
        argp_error(state,
                   "--kill-on-failure ends the job when a rank is lost, --tolerate lets it go "
                   "on; give one of them");
    if (options->tolerate >= options->ranks)
        argp_error(state, "--tolerate %d of %d ranks would leave none; give less than -n",
                   options->tolerate, options->ranks);
    if (options->ranks == 1 && (options->respawn > 0 || options->spares > 0))
        argp_error(state, "%s needs at least 2 ranks: others must let the newcomer in",
                   options->respawn > 0 ? "--respawn" : "--spares");
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    run_options *options = state->input;

    switch (key) {
    case 'n':
        options->ranks =
            parse_number(text, "-n wants a number of ranks", 1, (int)SERRY_MAX_RANKS, state);
        return 0;
    case OPTION_BIND:
        options->bind = parse_bind(text, state);
        return 0;
    case OPTION_TAG:
        options->tag = true;
        return 0;
    case OPTION_TIMEOUT:
        options->timeout_s = parse_timeout(text, state);
        return 0;
    case OPTION_RESPAWN:
        options->respawn =
            parse_number(text, "--respawn wants a number", 0, RUN_RESPAWN_MAX, state);
        return 0;
    case OPTION_SPARES:
        options->spares =
            parse_number(text, "--spares wants a number", 0, (int)SERRY_MAX_RANKS, state);
        return 0;
    case OPTION_TOLERATE:
        options->tolerate =
            parse_number(text, "--tolerate wants a number", 0, (int)SERRY_MAX_RANKS, state);
        return 0;
    case OPTION_KILL:
        options->kill_on_failure = true;
        return 0;
    case OPTION_HEAP:
        options->heap_threshold =
            1024 * (uint64_t)parse_number(text == NULL ? "64" : text, "--heap wants KiB", 64,
                                          1 << 30, state);
        return 0;
    case ARGP_KEY_ARG: /* PROGRAM: what follows is its own */
        options->program = state->argv + state->next - 1;
        state->next = state->argc;
        return 0;
    case ARGP_KEY_END:
        if (options->ranks == 0)
            argp_error(state, "how many ranks? Say serry run -n N PROGRAM");
        if (options->program == NULL)
            argp_error(state, "which program? Say serry run -n N PROGRAM");
        check_together(options, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

void run_say(const char *format, ...)
{
    char text[1024] = "serry run: ";
    size_t used = strlen(text);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text + used, sizeof text - used - 1, format, arguments);
    va_end(arguments);
    used = strlen(text);
    text[used++] = '\n';
    if (write(STDERR_FILENO, text, used) < 0)
        return; /* nobody is left to tell */
}

int64_t run_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void run_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Standard streams that were closed would be given to the first pipe made: fill the holes. */
static void fill_standard_streams(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    run_close(&fd);
}

/* A job in the background of a terminal must not take the input meant for the shell. */
static bool stdin_is_the_shells(void)
{
    pid_t foreground = tcgetpgrp(STDIN_FILENO);

    return foreground >= 0 && foreground != getpgrp();
}

/* The signals to pass on, but for those that our parent had ignored, as nohup does: those stay
 * ignored, in the ranks too. */
static void forwarded_signals(sigset_t *set)
{
    static const int signals[] = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT,
                                  SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT};
    struct sigaction action;

    sigemptyset(set);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(set, signals[i]);
}

/* Stop like any program that got SIGTSTP: the kernel decides (not in an orphaned group). */
static void stop_self(void)
{
    sigset_t stop, before;

    sigemptyset(&stop);
    sigaddset(&stop, SIGTSTP);
    raise(SIGTSTP);
    sigprocmask(SIG_UNBLOCK, &stop, &before); /* here we stop, until SIGCONT */
    sigprocmask(SIG_SETMASK, &before, NULL);
}

/* Pass signals on to the guardian until it has ended; returns its wait status. */
static int wait_for_guardian(pid_t guardian, int control, const sigset_t *awaited)
{
    int status;

    for (;;) {
        int received = sigwaitinfo(awaited, NULL);
        unsigned char message = (unsigned char)received;

        if (received < 0)
            continue; /* EINTR: after a stop */
        if (received == SIGCHLD) {
            if (waitpid(guardian, &status, WNOHANG) == guardian)
                return status;
            continue;
        }
        if (write(control, &message, 1) != 1)
            continue; /* the guardian is gone: SIGCHLD comes */
        if (received == SIGTSTP)
            stop_self();
    }
}

/* The guardian's exit code, or, when somebody killed it, the end of all that it looked after. */
static int conclude(int status, const pid_t *spared, size_t count)
{
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    run_sweep(spared, count);
    run_say("the guardian process was killed by signal %d (%s); all ranks were ended with it",
            WTERMSIG(status), strsignal(WTERMSIG(status)));
    return TOOL_EXIT_FAILED;
}

/* The launcher: fork the guardian, wait for it. `spared` are children that this process had before
 * it became `serry run`. */
static int launch(run_job *job, const sigset_t *forwarded, const pid_t *spared, size_t count)
{
    sigset_t blocked = *forwarded, awaited = *forwarded, before;
    int control[2];
    pid_t guardian;

    signal(SIGCHLD, SIG_DFL); /* a parent that ignored it would have us lose exit codes */
    sigaddset(&awaited, SIGCHLD);
    sigaddset(&blocked, SIGCHLD);
    sigaddset(&blocked, SIGPIPE);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    job->rank_mask = &before;
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0 || pipe2(control, O_CLOEXEC) != 0 ||
        (guardian = fork()) < 0) {
        run_say("cannot start: %s", strerror(errno));
        return TOOL_EXIT_FAILED;
    }
    if (guardian == 0) {
        close(control[1]);
        _exit(run_guardian(job, control[0]));
    }
    close(control[0]);
    return conclude(wait_for_guardian(guardian, control[1], &awaited), spared, count);
}

static run_job *make_job(const run_options *options, const run_binding *binding)
{
    const size_t room = (size_t)(options->ranks + options->spares + options->respawn);
    run_job *job = calloc(1, sizeof *job);

    if (job == NULL)
        return NULL;
    job->processes =
        calloc(room + 1, sizeof *job->processes); /* one more: that cannot be started */
    if (job->processes == NULL) {
        free(job);
        return NULL;
    }
    job->options = options;
    job->binding = binding;
    return job;
}

int tool_run(int argc, char **argv)
{
    const struct argp parser = {k_options, parse, "PROGRAM [ARG...]", k_doc, NULL, NULL, NULL};
    run_options options = {.bind = RUN_BIND_NONE};
    run_binding *binding;
    sigset_t forwarded;
    size_t count;
    pid_t *spared;
    run_job *job;
    int code;

    argp_parse(&parser, argc, argv, ARGP_IN_ORDER, NULL, &options);
    fill_standard_streams();
    if (options.heap_threshold != 0 && !run_heap_make(&options))
        return TOOL_EXIT_FAILED;
    if (!run_binding_make(options.bind, options.ranks, &binding))
        return TOOL_EXIT_FAILED;
    job = make_job(&options, binding);
    if (job == NULL) {
        run_say("not enough memory");
        run_binding_free(binding);
        return TOOL_EXIT_FAILED;
    }
    job->no_stdin = stdin_is_the_shells();
    forwarded_signals(&forwarded);
    spared = run_children(&count);
    code = launch(job, &forwarded, spared, count);
    free(spared);
    free(job->processes);
    free(job);
    run_binding_free(binding);
    return code;
}
