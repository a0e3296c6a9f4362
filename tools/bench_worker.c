/* bench_worker.c - starting workers, talking to them, ending them.
 *
 * Rank 0 of a worker connects to an abstract socket, so nothing is left in the file system whatever is
 * killed; and when this process is gone the connection is, and the worker ends. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

enum { ARGUMENTS_MAX = 40, START_MS = 60000, SLICE_S = 120, LINE_MAX_BYTES = 512 };
enum { END_MS = 10000, GRACE_MS = 1000, OUTPUT_MS = 300000 };

/* ---- programs ------------------------------------------------------------------------------- */

static bool is_program(const char *folder, const char *name)
{
    char *path;

    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return false;
    bool is = access(path, X_OK) == 0;
    free(path);
    return is;
}

char *bench_find_folder(void)
{
    static const char *const k_places[] = {SERRY_LIBEXEC,
                                           "../bench"}; /* from the command's folder */
    char self[4096], folder[4096 + 64];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);

    if (length < 0)
        return NULL;
    self[length] = '\0';
    *strrchr(self, '/') = '\0';
    for (size_t i = 0; i < sizeof k_places / sizeof *k_places; i++) {
        snprintf(folder, sizeof folder, "%s/%s", self, k_places[i]);
        if (is_program(folder, "bench_serry"))
            return realpath(folder, NULL);
    }
    return NULL;
}

bool bench_is_in_path(const char *name)
{
    const char *path = getenv("PATH");
    char folder[4096];

    for (const char *at = path; at != NULL && *at != '\0'; at += *at == ':') {
        size_t length = strcspn(at, ":");
        snprintf(folder, sizeof folder, "%.*s", (int)length, at);
        if (is_program(folder, name))
            return true;
        at += length;
    }
    return false;
}

bool bench_is_there(const bench_run *run, const bench_subject *s, const char **why)
{
    *why = "it was not there when serry was built";
    if (!is_program(run->folder, s->program))
        return false;
    *why = "its launcher is not installed";
    if (s->launcher == BENCH_BY_OPENMPI)
        return bench_is_in_path("mpirun.openmpi");
    return s->launcher != BENCH_BY_MPICH || bench_is_in_path("mpirun.mpich");
}

/* ---- command lines --------------------------------------------------------------------------- */

/* A list of arguments, NULL at the end; numbers are kept in `text`. */
typedef struct arguments {
    const char *list[ARGUMENTS_MAX];
    size_t count;
    char program[4096], ranks[16], send[32], recv[32];
} arguments;

static void add(arguments *a, const char *argument)
{
    if (argument != NULL && a->count + 1 < ARGUMENTS_MAX)
        a->list[a->count++] = argument;
}

static void add_all(arguments *a, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        add(a, list[i]);
}

#define ADD(a, ...)                                                                                \
    add_all(a, (const char *[]){__VA_ARGS__},                                                      \
            sizeof((const char *[]){__VA_ARGS__}) / sizeof(const char *))

/* A rank has a core of its own as long as there are enough. */
static void add_launcher(arguments *a, const bench_run *run, const bench_worker *worker)
{
    bool bound = worker->ranks <= run->cores && !worker->subject->beside;

    switch (worker->subject->launcher) {
    case BENCH_BY_SERRY:
        ADD(a, "/proc/self/exe", "run", "--kill-on-failure", "-n", a->ranks);
        if (bound)
            ADD(a, "--bind", "core");
        break;
    case BENCH_BY_OPENMPI:
        ADD(a, "mpirun.openmpi", "-np", a->ranks);
        if (bound)
            ADD(a, "--bind-to", "core");
        else
            ADD(a, "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1");
        break;
    case BENCH_BY_MPICH:
        ADD(a, "mpirun.mpich", "-np", a->ranks);
        if (bound)
            ADD(a, "-bind-to", "core");
        break;
    case BENCH_BY_ITSELF:
        break;
    }
}

static void make_command(arguments *a, const bench_run *run, const bench_worker *worker)
{
    const bench_subject *s = worker->subject;

    *a = (arguments){.count = 0};
    snprintf(a->program, sizeof a->program, "%s/%s", run->folder, s->program);
    snprintf(a->ranks, sizeof a->ranks, "%d", worker->ranks);
    snprintf(a->send, sizeof a->send, "%zu", (worker->send + 1023) >> 10);
    snprintf(a->recv, sizeof a->recv, "%zu", (worker->recv + 1023) >> 10);
    add_launcher(a, run, worker);
    add_all(a, s->launch, sizeof s->launch / sizeof *s->launch);
    ADD(a, a->program, "--socket", run->address, "--send", a->send, "--recv", a->recv);
    if (s->launcher == BENCH_BY_ITSELF && s->role != BENCH_LIMIT)
        ADD(a, s->threads ? "--threads" : "--ranks", a->ranks);
    add_all(a, s->options, sizeof s->options / sizeof *s->options);
}

/* ---- starting -------------------------------------------------------------------------------- */

bool bench_listen(bench_run *run)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timespec now;

    signal(SIGPIPE, SIG_IGN); /* a worker that is gone is an error of the write to it */
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(run->address, sizeof run->address, "@serry-bench-%d-%ld", (int)getpid(), now.tv_nsec);
    snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "%s", run->address + 1);
    run->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return run->listener >= 0 &&
           bind(run->listener, (struct sockaddr *)&address, sizeof address) == 0 &&
           listen(run->listener, 1) == 0;
}

/* The first processors that we may use: the ranks' one, and the next one for the library's thread. */
static void go_beside(void)
{
    cpu_set_t mask, one;
    int cpus[2] = {-1, -1};
    char progress[32];

    if (sched_getaffinity(0, sizeof mask, &mask) != 0)
        return;
    for (int cpu = 0; cpu < CPU_SETSIZE && cpus[1] < 0; cpu++)
        if (CPU_ISSET((size_t)cpu, &mask))
            cpus[cpus[0] >= 0] = cpu;
    CPU_ZERO(&one);
    CPU_SET((size_t)cpus[0], &one);
    sched_setaffinity(0, sizeof one, &one);
    snprintf(progress, sizeof progress, "thread:%d", cpus[1]);
    setenv("SERRY_PROGRESS", progress, 1);
}

/* In the new process. Does not return. */
static void become(arguments *a, const bench_worker *worker, int out, int log)
{
    int nothing = open("/dev/null", O_RDWR);

    signal(SIGPIPE, SIG_DFL);
    setpgid(0, 0); /* so that it can be ended as a whole, and ^C is for us */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    dup2(nothing, STDIN_FILENO);
    dup2(out >= 0 ? out : nothing, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    if (worker != NULL && worker->subject->beside)
        go_beside();
    execvp(a->list[0], (char **)a->list);
    fprintf(stderr, "cannot start %s: %s\n", a->list[0], strerror(errno));
    _exit(127);
}

static pid_t start(arguments *a, const bench_worker *worker, int out, int log)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        become(a, worker, out, log);
    if (pid > 0)
        setpgid(pid, pid);
    return pid;
}

/* The last line of what was said there. */
static void last_words(int log, char *text, size_t size)
{
    char all[4096];
    ssize_t length = log >= 0 ? lseek(log, 0, SEEK_END) : 0;
    off_t from = length > (ssize_t)sizeof all - 1 ? length - (ssize_t)sizeof all + 1 : 0;

    length = log >= 0 ? pread(log, all, sizeof all - 1, from) : 0;
    while (length > 0 && (all[length - 1] == '\n' || all[length - 1] == '-'))
        length--;
    all[length > 0 ? length : 0] = '\0';
    const char *line = strrchr(all, '\n');
    snprintf(text, size, "%.*s", (int)size - 1, line != NULL ? line + 1 : all);
}

/* Has it ended within the time? Then its status is known. */
static bool ends(pid_t pid, int milliseconds, int *status)
{
    struct timespec pause = {0, 5000000};

    for (int waited = 0; waited < milliseconds; waited += 5) {
        if (waitpid(pid, status, WNOHANG) != 0)
            return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

static void end_group(pid_t pid)
{
    kill(-pid, SIGTERM);
    bool ended = ends(pid, GRACE_MS, NULL);
    kill(-pid, SIGKILL);
    if (!ended)
        waitpid(pid, NULL, 0);
}

static void give_up(bench_run *run, bench_worker *worker, const char *what)
{
    char words[120];

    if (worker->in != NULL)
        fclose(worker->in);
    if (worker->out != NULL)
        fclose(worker->out);
    worker->in = worker->out = NULL;
    if (worker->pid > 0)
        end_group(worker->pid);
    worker->pid = 0;
    last_words(worker->log, words, sizeof words);
    bench_note(run, "%s with %d ranks %s: %s", worker->subject->name, worker->ranks, what,
               words[0] != '\0' ? words : "it said nothing");
    if (worker->subject->role == BENCH_OURS || worker->subject->role == BENCH_VARIANT)
        run->failed = true;
}

/* A connection of this user's; -1: none in time, or the worker has ended. */
static int await_connection(const bench_run *run, pid_t pid)
{
    struct pollfd listener = {.fd = run->listener, .events = POLLIN};
    struct ucred peer;
    socklen_t size = sizeof peer;

    for (int waited = 0; waited < START_MS; waited += 20) {
        if (poll(&listener, 1, 20) == 1) {
            int fd = accept4(run->listener, NULL, NULL, SOCK_CLOEXEC);
            if (fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
                peer.uid == geteuid())
                return fd;
            close(fd);
        }
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid)
            return -1;
    }
    return -1;
}

bool bench_start(bench_run *run, bench_worker *worker)
{
    const struct timeval patience = {.tv_sec = SLICE_S};
    char line[LINE_MAX_BYTES];
    arguments a;

    make_command(&a, run, worker);
    worker->log = memfd_create("log", MFD_CLOEXEC);
    worker->pid = start(&a, worker, worker->log, worker->log);
    int fd = worker->pid > 0 ? await_connection(run, worker->pid) : -1;
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        worker->in = fdopen(fd, "r");
        worker->out = fdopen(fcntl(fd, F_DUPFD_CLOEXEC, 0), "w");
    }
    if (worker->in == NULL || worker->out == NULL || fgets(line, sizeof line, worker->in) == NULL ||
        strncmp(line, "has ", 4) != 0) {
        give_up(run, worker, "did not start");
        return false;
    }
    line[strcspn(line, "\n")] = ' ';
    worker->has = strdup(line + 3);
    return true;
}

/* ---- a slice --------------------------------------------------------------------------------- */

bench_sample bench_ask(bench_run *run, bench_worker *worker, const char *operation, size_t bytes,
                       double seconds, bool full)
{
    bench_sample s = {0};
    char line[LINE_MAX_BYTES];

    if (worker->in == NULL)
        return s;
    fprintf(worker->out, "%s %zu %.6f %d\n", operation, bytes, seconds, full);
    if (fflush(worker->out) != 0 || fgets(line, sizeof line, worker->in) == NULL) {
        give_up(run, worker, "failed");
        return s;
    }
    if (sscanf(line, "ok %u %lf %lf %lf %lf %llu", &s.calls, &s.min, &s.median, &s.p99,
               &s.back_to_back, &s.wrong) != 6)
        s.calls = 0;
    return s;
}

/* ---- the end --------------------------------------------------------------------------------- */

void bench_end(bench_run *run)
{
    for (size_t w = 0; w < run->worker_count; w++) {
        bench_worker *worker = &run->workers[w];
        if (worker->in != NULL)
            fclose(worker->in);
        if (worker->out != NULL)
            fclose(worker->out); /* it ends */
        worker->in = worker->out = NULL;
    }
    for (size_t w = 0; w < run->worker_count; w++) {
        bench_worker *worker = &run->workers[w];
        if (worker->pid > 0 && !ends(worker->pid, END_MS, NULL))
            end_group(worker->pid);
        worker->pid = 0;
        if (worker->log >= 0)
            close(worker->log);
        worker->log = -1;
    }
    close(run->listener);
}

/* ---- other programs --------------------------------------------------------------------------- */

static char *all_of(int file)
{
    off_t length = lseek(file, 0, SEEK_END);
    char *text = calloc(1, (size_t)length + 1);

    if (text != NULL && pread(file, text, (size_t)length, 0) != length) {
        free(text);
        text = NULL;
    }
    return text;
}

char *bench_output_of(bench_run *run, const char *program, const char *first, const char *second)
{
    int out = memfd_create("out", MFD_CLOEXEC), log = memfd_create("log", MFD_CLOEXEC), status = 0;
    char *text = NULL, words[120];
    arguments a = {.count = 0};

    snprintf(a.program, sizeof a.program, "%s/%s", run->folder, program);
    ADD(&a, a.program, first, second);
    pid_t pid = start(&a, NULL, out, log);
    if (pid > 0 && !ends(pid, OUTPUT_MS, &status))
        end_group(pid);
    else if (pid > 0 && status == 0)
        text = all_of(out);
    if (text == NULL) {
        last_words(log, words, sizeof words);
        bench_note(run, "%s failed: %s", program, words[0] != '\0' ? words : "it said nothing");
        run->failed = true;
    }
    close(out);
    close(log);
    return text;
}
