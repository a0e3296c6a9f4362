/* launched.c - see launched.h. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "launched.h"

enum { WATCHDOG_S = 100, ARGUMENTS_MAX = 32 };

static volatile pid_t running; /* the command of this test, for the watchdog */

static void bark(int signal)
{
    static const char text[] = "watchdog: the test that runs now takes too long\n";

    (void)signal;
    if (running > 0)
        kill(running, SIGKILL);
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(3);
    _exit(3);
}

int launched_setup(void **state)
{
    char folder[] = "/tmp/serry-test-XXXXXX";

    (void)state;
    if (getenv("SERRY_COMMAND") == NULL || mkdtemp(folder) == NULL) {
        fprintf(stderr, "needs the path of the command in SERRY_COMMAND, and /tmp\n");
        return -1;
    }
    setenv("DIR", folder, 1);
    signal(SIGALRM, bark);
    alarm(WATCHDOG_S);
    return 0;
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status, (void)kind, (void)place;
    return remove(path);
}

int launched_teardown(void **state)
{
    (void)state;
    alarm(0);
    return nftw(getenv("DIR"), remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* ---- the command ------------------------------------------------------------------------- */

static int input_file(const char *text)
{
    int fd = memfd_create("input", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static int output_file(void)
{
    int fd = memfd_create("output", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_APPEND), 0); /* several processes write to it */
    return fd;
}

static void clean_slate(void)
{
    const struct rlimit no_core = {0, 0};
    sigset_t none;

    setrlimit(RLIMIT_CORE, &no_core); /* SIGQUIT is tried too */
    for (int i = 1; i < SIGRTMIN; i++)
        signal(i, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    close_range(3, ~0u, 0);
}

static void start(launched *command, const launched_how *how, const char *const *argv)
{
    int input = input_file(how->input != NULL ? how->input : "");

    command->out = output_file();
    command->err = output_file();
    command->pid = fork();
    assert_true(command->pid >= 0);
    if (command->pid == 0) {
        dup2(how->in >= 0 ? how->in : input, STDIN_FILENO);
        dup2(how->out >= 0 ? how->out : command->out, STDOUT_FILENO);
        dup2(command->err, STDERR_FILENO);
        if (how->terminal) {
            setsid();
            ioctl(STDIN_FILENO, TIOCSCTTY, 0);
        } else {
            setpgid(0, 0);
        }
        clean_slate();
        if (how->prepare != NULL)
            how->prepare();
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(99);
    }
    close(input);
    running = command->pid;
}

void launched_start(launched *command, const launched_how *how, ...)
{
    const launched_how usual = LAUNCHED_HOW_INIT;
    const char *argv[ARGUMENTS_MAX] = {getenv("SERRY_COMMAND")};
    int argc = 1;
    va_list arguments;

    va_start(arguments, how);
    do {
        assert_true(argc < ARGUMENTS_MAX);
        argv[argc] = va_arg(arguments, const char *);
    } while (argv[argc++] != NULL);
    va_end(arguments);
    start(command, how != NULL ? how : &usual, argv);
}

void launched_start_shell(launched *command, const char *script)
{
    const launched_how usual = LAUNCHED_HOW_INIT;
    const char *argv[] = {"/bin/sh", "-c", script, NULL};

    start(command, &usual, argv);
}

int launched_end(launched *command)
{
    assert_int_equal(waitpid(command->pid, &command->status, 0), command->pid);
    running = 0;
    if (WIFEXITED(command->status))
        return WEXITSTATUS(command->status);
    return 1000 + WTERMSIG(command->status);
}

static char *contents(int fd)
{
    struct stat status;
    char *text;

    assert_int_equal(fstat(fd, &status), 0);
    text = calloc(1, (size_t)status.st_size + 1);
    assert_non_null(text);
    assert_int_equal(pread(fd, text, (size_t)status.st_size, 0), status.st_size);
    return text;
}

char *launched_out(const launched *command)
{
    return contents(command->out);
}

char *launched_err(const launched *command)
{
    return contents(command->err);
}

void launched_free(launched *command)
{
    close(command->out);
    close(command->err);
}

void expect_end(launched *command, int code, char **out, const char *const *says)
{
    int got = launched_end(command);
    char *err = launched_err(command);

    if (got != code)
        fail_msg("exit code %d, not %d:\n%s", got, code, err);
    for (; says != NULL && *says != NULL; says++)
        assert_contains(err, *says);
    if (out != NULL)
        *out = launched_out(command);
    free(err);
    launched_free(command);
}

/* ---- waiting: the watchdog ends it if what is awaited never comes ------------------------ */

static void nap(void)
{
    const struct timespec pause = {0, 5000000};

    nanosleep(&pause, NULL);
}

static char *path_of(const char *name)
{
    static char path[256];

    snprintf(path, sizeof path, "%s/%s", getenv("DIR"), name);
    return path;
}

int occurrences(const char *text, const char *what)
{
    int count = 0;

    while ((text = strstr(text, what)) != NULL) {
        count++;
        text += strlen(what);
    }
    return count;
}

char *await_lines(const char *name, int lines)
{
    for (;; nap()) {
        int fd = open(path_of(name), O_RDONLY | O_CLOEXEC);
        char *text;

        if (fd < 0)
            continue;
        text = contents(fd);
        close(fd);
        if (occurrences(text, "\n") >= lines)
            return text;
        free(text);
    }
}

pid_t await_pid(const char *name, int number)
{
    char file[64], *text;
    pid_t pid;

    snprintf(file, sizeof file, "%s%d", name, number);
    text = await_lines(file, 1);
    pid = (pid_t)atoi(text);
    free(text);
    assert_true(pid > 1);
    return pid;
}

void make_file(const char *name)
{
    int fd = open(path_of(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    close(fd);
}

void remove_file(const char *name)
{
    assert_int_equal(unlink(path_of(name)), 0);
}

char process_state(pid_t pid)
{
    char path[64], text[512], state = 0;
    const char *after;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    file = fopen(path, "re");
    if (file == NULL)
        return 0;
    if (fgets(text, sizeof text, file) != NULL && (after = strrchr(text, ')')) != NULL)
        state = after[2];
    fclose(file);
    return state;
}

void await_gone(pid_t pid)
{
    while (process_state(pid) != 0 && process_state(pid) != 'Z')
        nap();
}

void await_reaped(pid_t pid)
{
    while (process_state(pid) != 0)
        nap();
}

void await_state(pid_t pid, char state)
{
    while (process_state(pid) != state)
        nap();
}

void assert_contains(const char *text, const char *what)
{
    if (strstr(text, what) != NULL)
        return;
    fail_msg("expected \"%s\" in:\n%s", what, text);
}
