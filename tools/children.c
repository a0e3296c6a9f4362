/* children.c - starting the ranks, seeing them end, and leaving none of their children behind. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tool.h"

enum { KEY_BYTES = 16 };

/* ---- environment ------------------------------------------------------------------------- */

static void set_number(const char *name, int value)
{
    char text[16];

    snprintf(text, sizeof text, "%d", value);
    setenv(name, text, 1);
}

/* A port that nobody listens on now; 0 where there is no network to ask. */
static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int port = 0;

    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0 &&
        getsockname(fd, (struct sockaddr *)&address, &size) == 0)
        port = ntohs(address.sin_port);
    run_close(&fd);
    return port;
}

/* What is equal for all ranks. Set in the guardian: it starts nothing else. */
static bool export_job(const run_job *job)
{
    unsigned char key[KEY_BYTES];
    char text[2 * KEY_BYTES + 1];
    int port = free_port();

    if (getrandom(key, sizeof key, 0) != (ssize_t)sizeof key)
        return false;
    for (size_t i = 0; i < sizeof key; i++)
        snprintf(text + 2 * i, 3, "%02x", key[i]);
    setenv("SERRY_JOB", text, 1);
    set_number("SERRY_SIZE", job->options->ranks);
    set_number("WORLD_SIZE", job->options->ranks);
    set_number("LOCAL_WORLD_SIZE", job->options->ranks);
    setenv("MASTER_ADDR", "127.0.0.1", 1);
    if (port > 0)
        set_number("MASTER_PORT", port);
    else
        unsetenv("MASTER_PORT"); /* no network here: an old value would only mislead */
    return true;
}

static void export_rank(int rank)
{
    set_number("SERRY_RANK", rank);
    set_number("RANK", rank);
    set_number("LOCAL_RANK", rank);
}

/* ---- starting ---------------------------------------------------------------------------- */

/* In a rank that cannot be started: tell the guardian and end. */
static void give_up(const run_job *job, int rank, run_step step) __attribute__((noreturn));
static void give_up(const run_job *job, int rank, run_step step)
{
    const run_start_failure failure = {rank, step, errno};

    if (write(job->failures[1], &failure, sizeof failure) < 0)
        _exit(TOOL_EXIT_FAILED); /* the guardian is gone */
    _exit(TOOL_EXIT_FAILED);
}

/* Standard streams of a rank: input for rank 0 alone; output to the relay if there is one. */
static bool connect_streams(const run_job *job, int rank, const int *output)
{
    if (rank != 0 || job->no_stdin) {
        int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);

        if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0)
            return false;
    }
    if (!job->options->tag)
        return true;
    return dup2(output[0], STDOUT_FILENO) >= 0 && dup2(output[1], STDERR_FILENO) >= 0;
}

/* The life of a rank before it becomes PROGRAM. `output`: write ends of its pipes. */
static void become_rank(const run_job *job, int rank, const int *output) __attribute__((noreturn));
static void become_rank(const run_job *job, int rank, const int *output)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != job->guardian)
        _exit(TOOL_EXIT_FAILED); /* it died before the line above: nobody would kill us */
    if (!connect_streams(job, rank, output))
        give_up(job, rank, RUN_STEP_STREAMS);
    if (job->binding != NULL) {
        errno = run_binding_apply(job->binding, rank);
        if (errno != 0)
            give_up(job, rank, RUN_STEP_BIND);
    }
    export_rank(rank);
    sigprocmask(SIG_SETMASK, job->rank_mask, NULL);
    execvp(job->options->program[0], job->options->program);
    give_up(job, rank, RUN_STEP_EXEC);
}

/* One pipe each for stdout and stderr. True without --tag too. */
static bool make_pipes(run_rank *rank, int *output, bool tag)
{
    for (int i = 0; tag && i < 2; i++) {
        int ends[2];

        if (pipe2(ends, O_CLOEXEC) != 0)
            return false;
        rank->output[i] = ends[0];
        output[i] = ends[1];
    }
    return true;
}

/* True, or errno says why not. */
static bool start_rank(run_job *job, int number)
{
    run_rank *rank = &job->ranks[number];
    int output[2] = {-1, -1};
    pid_t pid = -1;
    int error;

    if (make_pipes(rank, output, job->options->tag))
        pid = fork();
    if (pid == 0)
        become_rank(job, number, output);
    error = errno;
    run_close(&output[0]);
    run_close(&output[1]);
    errno = error;
    if (pid < 0)
        return false;
    setpgid(pid, pid); /* the rank does it too; whoever comes first */
    rank->pid = pid;
    job->running++;
    return true;
}

bool run_start(run_job *job)
{
    job->guardian = getpid();
    for (int i = 0; i < job->options->ranks; i++)
        job->ranks[i].output[0] = job->ranks[i].output[1] = -1;
    job->failure.step = RUN_STEP_FORK;
    if (!export_job(job)) {
        job->failure.system_error = errno;
        return false;
    }
    job->started_ns = run_now_ns();
    for (int i = 0; i < job->options->ranks; i++) {
        if (start_rank(job, i))
            continue;
        job->failure.rank = i;
        job->failure.system_error = errno;
        return false;
    }
    return true;
}

/* ---- until the end ----------------------------------------------------------------------- */

void run_forward(const run_job *job, int signal)
{
    bool alone = signal == SIGUSR1 || signal == SIGUSR2;

    for (int i = 0; i < job->options->ranks; i++) {
        const run_rank *rank = &job->ranks[i];

        if (rank->pid > 0 && !rank->ended)
            kill(alone ? rank->pid : -rank->pid, signal);
    }
}

static void note_end(run_job *job, const siginfo_t *info, int64_t now_ns)
{
    for (int i = 0; i < job->options->ranks; i++) {
        run_rank *rank = &job->ranks[i];

        if (rank->pid != info->si_pid || rank->ended)
            continue;
        kill(-rank->pid, SIGKILL); /* before reaping: until then the number is the rank's */
        rank->ended = true;
        rank->signalled = info->si_code != CLD_EXITED;
        rank->dumped = info->si_code == CLD_DUMPED;
        rank->value = info->si_status;
        rank->ended_ns = now_ns;
        job->running--;
        return;
    }
    if (info->si_pid == job->relay)
        job->relay = 0;
}

void run_reap(run_job *job)
{
    int64_t now_ns = run_now_ns();
    siginfo_t info;

    for (;;) {
        info.si_pid = 0;
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0)
            return;
        note_end(job, &info, now_ns);
        waitpid(info.si_pid, NULL, 0);
    }
}

/* ---- leaving nothing behind -------------------------------------------------------------- */

/* The parent of a process, or -1. Its stat line is "PID (NAME) STATE PPID ..."; a name may hold
 * anything, parentheses too. */
static pid_t parent_of(const char *pid)
{
    char path[64], text[512];
    const char *after;
    ssize_t length;
    int fd, parent;

    snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0)
        return -1;
    text[length] = '\0';
    after = strrchr(text, ')');
    if (after == NULL || sscanf(after, ") %*c %d", &parent) != 1)
        return -1;
    return parent;
}

/* /proc is read in the order of numbers, and a child that ends stays ours as a zombie: while this
 * process has any descendant, one of its children stands there for the whole of one reading. */
pid_t *run_children(size_t *count)
{
    const pid_t self = getpid();
    pid_t *list = NULL;
    size_t room = 0;
    struct dirent *entry;
    siginfo_t info;
    DIR *proc;

    *count = 0;
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0)
        return NULL; /* none: no need to read all of /proc */
    proc = opendir("/proc");
    if (proc == NULL)
        return NULL;
    while ((entry = readdir(proc)) != NULL) {
        if (!isdigit((unsigned char)entry->d_name[0]) || parent_of(entry->d_name) != self)
            continue;
        if (*count == room) {
            pid_t *larger = realloc(list, (2 * room + 8) * sizeof *list);

            if (larger == NULL)
                break; /* the rest is found in the next round */
            list = larger;
            room = 2 * room + 8;
        }
        list[(*count)++] = (pid_t)atoi(entry->d_name);
    }
    closedir(proc);
    return list;
}

static bool is_in(pid_t pid, const pid_t *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (list[i] == pid)
            return true;
    return false;
}

void run_sweep(const pid_t *spared, size_t count)
{
    bool found;

    do {
        size_t children;
        pid_t *list = run_children(&children);

        found = false;
        for (size_t i = 0; i < children; i++) {
            if (is_in(list[i], spared, count) || kill(list[i], SIGKILL) != 0)
                continue;
            waitpid(list[i], NULL, 0);
            found = true;
        }
        free(list);
    } while (found);
}
