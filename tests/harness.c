/* harness.c - see harness.h. */
#include "harness.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_TIMEOUT_MS 60000
#define RUNS_MAX 8 /* runs at a time, for the watchdog */

/* What the ranks of a run share. */
typedef struct board {
    pthread_barrier_t meeting;
    _Atomic unsigned flag[TEST_FLAGS];
    test_report report[];
} board;

struct test_run {
    test_options options;
    test_body body;
    char job[64];
    board *board;
    test_rank *rank;   /* one each */
    pthread_t *thread; /* one each, thread ranks */
    pid_t parent;
    bool joined;
};

static test_run *g_runs[RUNS_MAX];
static unsigned g_watchdog_seconds = 100;

/* ---- the watchdog --------------------------------------------------------------------------- */

static void say(const char *text)
{
    ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written;
}

static void say_number(int number)
{
    char text[16], *at = text + sizeof(text) - 1;
    *at = 0;
    do
        *--at = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    say(at);
}

/* Signal handler: only write, kill and _exit. */
static void watchdog_bites(int number)
{
    (void)number;
    say("WATCHDOG: this run takes too long\n");
    for (int i = 0; i < RUNS_MAX; i++) {
        test_run *run = g_runs[i];
        for (int r = 0; run != NULL && r < run->options.size; r++) {
            test_report *report = &run->board->report[r];
            say("  rank ");
            say_number(r);
            say(atomic_load(&report->finished) ? " has ended, last at: " : " is at: ");
            say(report->where);
            say("\n");
            if (report->failures > 0)
                say(report->text);
            if (run->options.kind == SERRY_PROCESSES && report->pid > 0)
                kill(report->pid, SIGKILL);
        }
    }
    _exit(1);
}

void test_watchdog(unsigned seconds)
{
    g_watchdog_seconds = seconds;
}

void test_watch(bool on)
{
    struct sigaction action = {.sa_handler = watchdog_bites};
    sigaction(SIGALRM, &action, NULL);
    alarm(!on ? 0 : TEST_SANITIZER ? 4 * g_watchdog_seconds : g_watchdog_seconds);
}

static void remember(test_run *from, test_run *to)
{
    for (int i = 0; i < RUNS_MAX; i++)
        if (g_runs[i] == from) {
            g_runs[i] = to;
            return;
        }
    fprintf(stderr, "harness: more than %d runs at a time\n", RUNS_MAX);
    abort();
}

/* ---- seeds ---------------------------------------------------------------------------------- */

static uint64_t fresh(void)
{
    uint64_t value;
    if (getrandom(&value, sizeof(value), 0) != (ssize_t)sizeof(value)) {
        perror("harness: getrandom");
        abort();
    }
    return value;
}

uint64_t test_seed(void)
{
    static uint64_t seed;
    static bool known;
    if (!known) {
        const char *given = getenv("SERRY_TEST_SEED");
        seed = given != NULL ? strtoull(given, NULL, 0) : fresh() >> 32;
        known = true;
        printf("# seed: SERRY_TEST_SEED=%llu repeats this run\n", (unsigned long long)seed);
    }
    return seed;
}

void test_job_name(char *name, size_t size)
{
    snprintf(name, size, "test-%d-%016llx", (int)getpid(), (unsigned long long)fresh());
}

void *test_shared(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        perror("harness: mmap");
        abort();
    }
    return memory;
}

void test_unshare(void *memory, size_t bytes)
{
    munmap(memory, bytes);
}

/* ---- running the ranks ---------------------------------------------------------------------- */

static void run_body(test_rank *self)
{
    test_run *run = self->run;
    int timeout = run->options.timeout_ms != 0 ? run->options.timeout_ms : DEFAULT_TIMEOUT_MS;
    bool joins = run->options.body_joins;

    test_at(self, "serry_init");
    if (joins ||
        test_expect(self, SERRY_OK, test_init(self, timeout, &self->comm), NULL, "serry_init"))
        run->body(self);
    if (!joins) {
        test_expect(self, SERRY_OK, serry_finalize(&self->comm), NULL, "serry_finalize");
        CHECK(self, self->comm == NULL);
    }
    atomic_store(&test_mine(self)->finished, 1);
}

static void *thread_main(void *rank)
{
    run_body(rank);
    return NULL;
}

static void start_process(test_run *run, int rank)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        perror("harness: fork");
        abort();
    }
    if (pid > 0) {
        run->board->report[rank].pid = pid;
        return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != run->parent)
        _exit(2);
    run_body(&run->rank[rank]);
    fflush(NULL);
    _exit(0);
}

/* The watchdog's signal is for the main thread alone. */
static void start_thread(test_run *run, int rank)
{
    sigset_t alarm_only, before;
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm_only, &before);
    int error = pthread_create(&run->thread[rank], NULL, thread_main, &run->rank[rank]);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        fprintf(stderr, "harness: pthread_create: %s\n", strerror(error));
        abort();
    }
}

/* cmocka turns crashes into a jump back to its main loop, which is no place for a thread or a child
 * to go on from. */
static void let_crashes_kill(void)
{
    static const int k_crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS};
    for (size_t i = 0; i < sizeof(k_crashes) / sizeof(k_crashes[0]); i++)
        signal(k_crashes[i], SIG_DFL);
}

static size_t board_bytes(int size)
{
    return sizeof(board) + (size_t)size * sizeof(test_report);
}

static test_run *run_new(const test_options *options, test_body body, void *argument)
{
    test_run *run = calloc(1, sizeof(*run));
    size_t size = (size_t)options->size;
    pthread_barrierattr_t shared;

    test_seed(); /* before the ranks: the same for all */
    let_crashes_kill();
    run->options = *options;
    run->body = body;
    run->parent = getpid();
    if (options->job != NULL)
        snprintf(run->job, sizeof(run->job), "%s", options->job);
    else
        test_job_name(run->job, sizeof(run->job));
    run->board = test_shared(board_bytes(options->size));
    pthread_barrierattr_init(&shared);
    pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&run->board->meeting, &shared, (unsigned)size);
    pthread_barrierattr_destroy(&shared);
    run->rank = calloc(size, sizeof(*run->rank));
    run->thread = calloc(size, sizeof(*run->thread));
    for (int r = 0; r < options->size; r++)
        run->rank[r] = (test_rank){.rank = r,
                                   .size = options->size,
                                   .kind = options->kind,
                                   .job = run->job,
                                   .argument = argument,
                                   .run = run};
    remember(NULL, run);
    test_watch(true);
    return run;
}

test_run *test_start(const test_options *options, test_body body, void *argument)
{
    test_run *run = run_new(options, body, argument);
    for (int r = 0; r < options->size; r++)
        if (options->kind == SERRY_PROCESSES)
            start_process(run, r);
        else
            start_thread(run, r);
    return run;
}

void test_kill(test_run *run, int rank)
{
    run->board->report[rank].killed = 1;
    kill(run->board->report[rank].pid, SIGKILL);
}

void test_join(test_run *run)
{
    for (int r = 0; r < run->options.size && !run->joined; r++) {
        test_report *report = &run->board->report[r];
        if (run->options.kind == SERRY_THREADS)
            pthread_join(run->thread[r], NULL);
        else
            while (waitpid(report->pid, &report->status, 0) < 0 && errno == EINTR)
                continue;
    }
    run->joined = true;
}

static bool ended_well(const test_run *run, int rank)
{
    test_report *report = &run->board->report[rank];
    int status = report->status;
    bool process = run->options.kind == SERRY_PROCESSES;

    if (report->killed && (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL))
        fprintf(stderr, "rank %d: was to die of SIGKILL, but has wait status %#x\n", rank,
                (unsigned)status);
    else if (process && !report->killed && WIFSIGNALED(status))
        fprintf(stderr, "rank %d: died of signal %d at: %s\n", rank, WTERMSIG(status),
                report->where);
    else if (!report->killed && (!atomic_load(&report->finished) || status != 0))
        fprintf(stderr, "rank %d: ended with wait status %#x at: %s\n", rank, (unsigned)status,
                report->where);
    else if (report->failures > 0)
        fprintf(stderr, "%s%s", report->text, report->cut ? "(and more of this rank)\n" : "");
    else
        return true;
    return false;
}

static int finish(test_run *run)
{
    int bad = 0;
    for (int r = 0; r < run->options.size; r++)
        bad += !ended_well(run, r);
    if (bad > 0)
        fprintf(stderr, "%d of %d ranks (%s) at fault; seed %llu\n", bad, run->options.size,
                test_kind_name(run->options.kind), (unsigned long long)test_seed());
    remember(run, NULL);
    test_watch(false);
    /* The barrier is not destroyed: that would wait for one who was killed in it. */
    test_unshare(run->board, board_bytes(run->options.size));
    free(run->rank);
    free(run->thread);
    free(run);
    return bad;
}

int test_end_count(test_run *run)
{
    test_join(run);
    return finish(run);
}

void test_end(test_run *run)
{
    if (test_end_count(run) > 0)
        fail();
}

void run_ranks(serry_kind_of_rank kind, int size, test_body body, void *argument)
{
    test_options options = {.kind = kind, .size = size};
    test_end(test_start(&options, body, argument));
}

static int body_by_library(serry_comm *comm, void *argument)
{
    test_run *run = argument;
    test_rank *self = &run->rank[serry_rank(comm)];
    self->comm = comm;
    run->body(self);
    atomic_store(&test_mine(self)->finished, 1);
    return 0;
}

void run_ranks_by_library(int size, test_body body, void *argument)
{
    test_options options = {.kind = SERRY_THREADS, .size = size};
    test_run *run = run_new(&options, body, argument);
    int result = serry_run_threads(size, body_by_library, run);
    if (result != SERRY_OK)
        print_error("serry_run_threads: %s: %s\n", serry_error_name(result),
                    serry_last_error(NULL)->message);
    int bad = finish(run);
    assert_int_equal(result, SERRY_OK);
    assert_int_equal(bad, 0);
}

test_report *test_report_of(test_run *run, int rank)
{
    return &run->board->report[rank];
}

const char *test_kind_name(serry_kind_of_rank kind)
{
    return kind == SERRY_THREADS ? "threads" : "processes";
}

/* ---- in a body ------------------------------------------------------------------------------ */

test_report *test_mine(test_rank *self)
{
    return &self->run->board->report[self->rank];
}

static void failed_v(test_rank *self, const char *format, va_list arguments)
{
    test_report *report = test_mine(self);
    char line[1200];

    vsnprintf(line, sizeof(line), format, arguments);
    size_t used = strlen(report->text);
    if (used + strlen(line) + 64 < sizeof(report->text))
        snprintf(report->text + used, sizeof(report->text) - used, "rank %d of %d (%s): %s\n",
                 self->rank, self->size, test_kind_name(self->kind), line);
    else
        report->cut = 1;
    report->failures++;
}

/* Of several threads of a rank, one at a time writes into its report. */
static pthread_mutex_t report_lock = PTHREAD_MUTEX_INITIALIZER;

void test_failed(test_rank *self, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    pthread_mutex_lock(&report_lock);
    failed_v(self, format, arguments);
    pthread_mutex_unlock(&report_lock);
    va_end(arguments);
}

void test_at(test_rank *self, const char *format, ...)
{
    test_report *report = test_mine(self);
    va_list arguments;
    va_start(arguments, format);
    pthread_mutex_lock(&report_lock);
    vsnprintf(report->where, sizeof(report->where), format, arguments);
    pthread_mutex_unlock(&report_lock);
    va_end(arguments);
}

bool test_expect(test_rank *self, int wanted, int got, const serry_comm *comm, const char *format,
                 ...)
{
    if (wanted == got)
        return true;
    char what[300];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    test_failed(self, "%s: wanted %s, got %s (last message: %s)", what, serry_error_name(wanted),
                serry_error_name(got), serry_last_error(comm)->message);
    return false;
}

serry_config test_config(const test_rank *self, int timeout_ms)
{
    serry_config config = SERRY_CONFIG_INIT;
    config.rank = self->rank;
    config.size = self->size;
    config.job = self->job;
    config.kind = self->kind;
    config.timeout_ms = timeout_ms;
    config.pool_bytes = self->run->options.pool_bytes;
    return config;
}

int test_init(test_rank *self, int timeout_ms, serry_comm **comm)
{
    serry_config config = test_config(self, timeout_ms);
    int rc = serry_init(&config, comm);
    return rc == SERRY_OK ? test_force_variant(*comm) : rc;
}

void test_raise_in(test_run *run, int flag)
{
    atomic_fetch_add(&run->board->flag[flag], 1);
}

void test_raise(test_rank *self, int flag)
{
    test_raise_in(self->run, flag);
}

unsigned test_flag(test_run *run, int flag)
{
    return atomic_load(&run->board->flag[flag]);
}

void test_await(test_rank *self, int flag, unsigned value)
{
    while (test_flag(self->run, flag) < value)
        test_sleep_ms(1);
}

void test_meet(test_rank *self)
{
    pthread_barrier_wait(&self->run->board->meeting);
}

void test_sleep_ms(unsigned ms)
{
    struct timespec left = {ms / 1000, (long)(ms % 1000) * 1000000};
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        continue;
}

double test_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
