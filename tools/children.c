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

/* A spare has no rank yet, and must not find one that an outer launcher had. */
static void export_process(const run_process *process)
{
    static const char *const names[] = {"SERRY_RANK", "RANK", "LOCAL_RANK"};
    static const char *const entries[] = {
        [RUN_RANK] = "start", [RUN_REPLACEMENT] = "replacement", [RUN_SPARE] = "spare"};

    setenv("SERRY_ENTRY", entries[process->role], 1);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (process->role == RUN_SPARE)
            unsetenv(names[i]);
        else
            set_number(names[i], process->number);
    }
}

/* ---- starting ---------------------------------------------------------------------------- */

/* In a process that cannot be started: tell the guardian and end. Nobody listens any more when it is
 * a newcomer: it has an exit code, like a rank that failed. */
static void give_up(const run_job *job, const run_process *process, run_step step)
    __attribute__((noreturn));
static void give_up(const run_job *job, const run_process *process, run_step step)
{
    const run_start_failure failure = {process->number, step, errno};

    if (job->failures[1] < 0)
        run_say("cannot start another process of '%s': %s", job->options->program[0],
                strerror(failure.system_error));
    else if (write(job->failures[1], &failure, sizeof failure) < 0)
        _exit(TOOL_EXIT_FAILED); /* the guardian is gone */
    _exit(TOOL_EXIT_FAILED);
}

/* Standard streams: input for the first rank 0 alone; output to the relay if there is one. */
static bool connect_streams(const run_job *job, const run_process *process, const int *output)
{
    if (process->role != RUN_RANK || process->number != 0 || job->no_stdin) {
        int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);

        if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0)
            return false;
    }
    if (!job->options->tag)
        return true;
    return dup2(output[0], STDOUT_FILENO) >= 0 && dup2(output[1], STDERR_FILENO) >= 0;
}

/* The life of a process before it becomes PROGRAM. `output`: write ends of its pipes. Spares are not
 * bound: whose cores they should have is not known before they take a place. */
static void become_program(const run_job *job, const run_process *process, const int *output)
    __attribute__((noreturn));
static void become_program(const run_job *job, const run_process *process, const int *output)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != job->guardian)
        _exit(TOOL_EXIT_FAILED); /* it died before the line above: nobody would kill us */
    if (!connect_streams(job, process, output))
        give_up(job, process, RUN_STEP_STREAMS);
    if (job->binding != NULL && process->role != RUN_SPARE) {
        errno = run_binding_apply(job->binding, process->number);
        if (errno != 0)
            give_up(job, process, RUN_STEP_BIND);
    }
    export_process(process);
    sigprocmask(SIG_SETMASK, job->rank_mask, NULL);
    execvp(job->options->program[0], job->options->program);
    give_up(job, process, RUN_STEP_EXEC);
}

/* One pipe each for stdout and stderr. True without --tag too. */
static bool make_pipes(run_process *process, int *output, bool tag)
{
    for (int i = 0; tag && i < 2; i++) {
        int ends[2];

        if (pipe2(ends, O_CLOEXEC) != 0)
            return false;
        process->output[i] = ends[0];
        output[i] = ends[1];
    }
    return true;
}

/* The next process. True, or errno says why not. */
static bool start_process(run_job *job, run_role role, int number)
{
    run_process *process = &job->processes[job->count];
    int output[2] = {-1, -1};
    pid_t pid = -1;
    int error;

    *process = (run_process){.role = role, .number = number, .output = {-1, -1}};
    if (make_pipes(process, output, job->options->tag) &&
        (job->relay == 0 || run_relay_add(job, process)))
        pid = fork();
    if (pid == 0)
        become_program(job, process, output);
    error = errno;
    run_close(&output[0]);
    run_close(&output[1]);
    errno = error;
    job->count++; /* its pipes are the caller's to close, started or not */
    if (pid < 0)
        return false;
    setpgid(pid, pid); /* the process does it too; whoever comes first */
    process->pid = pid;
    job->running++;
    return true;
}

bool run_start_newcomer(run_job *job, run_role role, int number)
{
    run_process *process = &job->processes[job->count];
    bool started = start_process(job, role, number);
    int error = errno;

    run_close(&process->output[0]);
    run_close(&process->output[1]);
    if (!started) {
        job->count--;
        errno = error;
    }
    return started;
}

bool run_start(run_job *job)
{
    const int ranks = job->options->ranks;

    job->guardian = getpid();
    job->failure.step = RUN_STEP_FORK;
    if (!export_job(job)) {
        job->failure.system_error = errno;
        return false;
    }
    job->started_ns = run_now_ns();
    for (int i = 0; i < ranks + job->options->spares; i++) {
        if (start_process(job, i < ranks ? RUN_RANK : RUN_SPARE, i < ranks ? i : i - ranks))
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

    for (int i = 0; i < job->count; i++) {
        const run_process *process = &job->processes[i];

        if (process->pid > 0 && !process->ended)
            kill(alone ? process->pid : -process->pid, signal);
    }
}

static void note_end(run_job *job, const siginfo_t *info, int64_t now_ns)
{
    for (int i = 0; i < job->count; i++) {
        run_process *process = &job->processes[i];

        if (process->pid != info->si_pid || process->ended)
            continue;
        kill(-process->pid, SIGKILL); /* before reaping: until then the number is the process's */
        process->ended = true;
        process->signalled = info->si_code != CLD_EXITED;
        process->dumped = info->si_code == CLD_DUMPED;
        process->value = info->si_status;
        process->ended_ns = now_ns;
        job->running--;
        return;
    }
    if (info->si_pid == job->relay)
        job->relay = 0;
    if (info->si_pid == job->inquiry) {
        job->inquiry = 0;
        job->answer =
            info->si_code == CLD_EXITED && info->si_status == 0 ? RUN_ANSWERED : RUN_SILENCE;
    }
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
