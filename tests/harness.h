/* harness.h - runs a body on every rank of a job, as threads or as processes, and collects what the
 * ranks have to say.
 *
 * Process ranks are forked, thread ranks are pthreads; all share one anonymous mapping (the board),
 * so nothing here depends on the library under test. A rank reports what is wrong as text; only the
 * test's main thread speaks to cmocka. A watchdog ends the program when a run takes too long, after
 * printing where each rank is. */
#ifndef TEST_HARNESS_H
#define TEST_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* cmocka.h needs the headers above. */
#include <cmocka.h>

#include <serry/serry.h>

#if defined(__SANITIZE_THREAD__)
#define TEST_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TEST_TSAN 1
#endif
#endif
#ifndef TEST_TSAN
#define TEST_TSAN 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#define TEST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TEST_ASAN 1
#endif
#endif
#ifndef TEST_ASAN
#define TEST_ASAN 0
#endif

#define TEST_SANITIZER (TEST_TSAN || TEST_ASAN)

#define TEST_FLAGS 32  /* counters of a run, see test_raise */
#define TEST_NUMBERS 8 /* figures that a rank can hand up */

typedef struct test_run test_run;

/* One rank of a run, as its body sees it. */
typedef struct test_rank {
    int rank, size;
    serry_kind_of_rank kind;
    const char *job;  /* unique and random */
    serry_comm *comm; /* NULL where the body joins by itself */
    void *argument;   /* as given to test_start */
    test_run *run;
} test_rank;

typedef void (*test_body)(test_rank *self);

/* What a rank left behind; lies on the board. */
typedef struct test_report {
    pid_t pid;                   /* of a process rank */
    int status;                  /* of a process rank, from waitpid; valid after test_join */
    _Atomic int finished;        /* the body has returned */
    int killed;                  /* the test has sent SIGKILL and expects that end */
    int failures;                /* calls of test_failed */
    int cut;                     /* not all of them are in text */
    double number[TEST_NUMBERS]; /* the body's own */
    char where[192];             /* from test_at */
    char text[3072];             /* from test_failed */
} test_report;

typedef struct test_options {
    serry_kind_of_rank kind;
    int size;
    int timeout_ms;    /* of each operation; 0: a minute */
    size_t pool_bytes; /* 0: the default */
    bool body_joins;   /* the body calls serry_init itself, see test_init */
    const char *job;   /* NULL: a new name */
} test_options;

/* ---- in the test ---------------------------------------------------------------------------- */

/* Start a run of `body` on every rank; the watchdog starts too. Owned by the caller: test_end. */
test_run *test_start(const test_options *options, test_body body, void *argument);

/* Kill a process rank with SIGKILL and expect that it ends of it. */
void test_kill(test_run *run, int rank);

/* Wait until all ranks have ended; afterwards the reports are complete. */
void test_join(test_run *run);

/* Wait likewise, print what the ranks reported, and free the run. A process rank must have returned
 * from its body, or died of the SIGKILL that test_kill sent. Returns how many ranks are at fault. */
int test_end_count(test_run *run);

/* test_end_count, and fail the cmocka test unless it is 0. */
void test_end(test_run *run);

/* A whole run in one call. */
void run_ranks(serry_kind_of_rank kind, int size, test_body body, void *argument);

/* The same through serry_run_threads(). */
void run_ranks_by_library(int size, test_body body, void *argument);

test_report *test_report_of(test_run *run, int rank);

/* The flags of a run (see test_raise), from outside. */
void test_raise_in(test_run *run, int flag);
unsigned test_flag(test_run *run, int flag);

/* The next run's watchdog, in seconds (four times that under sanitizers); 100 if never set. For
 * good: set it once. */
void test_watchdog(unsigned seconds);

/* Start the watchdog anew or stop it, where a test waits for something else than a run. */
void test_watch(bool on);

/* "threads" or "processes". */
const char *test_kind_name(serry_kind_of_rank kind);

/* ---- seeds ---------------------------------------------------------------------------------- */

/* The seed of all that is random in this program: SERRY_TEST_SEED, or a new one. Printed once. */
uint64_t test_seed(void);

/* A job name that nobody else uses. At least 64 bytes. */
void test_job_name(char *name, size_t size);

/* Zeroed memory that processes forked later share; touched pages only count. */
void *test_shared(size_t bytes);
void test_unshare(void *memory, size_t bytes);

/* ---- in a body ------------------------------------------------------------------------------ */

/* Report a failure. */
void test_failed(test_rank *self, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Say where this rank is, for the watchdog. */
void test_at(test_rank *self, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Report a failure unless the condition holds; its value. */
#define CHECK(self, condition)                                                                     \
    ((condition)                                                                                   \
         ? true                                                                                    \
         : (test_failed((self), "%s:%d: not true: %s", __FILE__, __LINE__, #condition), false))

/* Report a failure, with the record's message of `comm` (which may be NULL), unless got == wanted.
 * True if it is. */
bool test_expect(test_rank *self, int wanted, int got, const serry_comm *comm, const char *format,
                 ...) __attribute__((format(printf, 5, 6)));

/* test_expect(SERRY_OK) on the rank's own communicator. */
#define EXPECT_OK(self, call) test_expect((self), SERRY_OK, (call), (self)->comm, "%s", #call)

/* How this rank joins the run's job: everything explicit but what a test is about. */
serry_config test_config(const test_rank *self, int timeout_ms);

/* Join the run's job so, as the harness does it unless body_joins. */
int test_init(test_rank *self, int timeout_ms, serry_comm **comm);

/* Where SERRY_TEST_VARIANT is set, have the communicator use that one of its algorithms. On all ranks. */
int test_force_variant(serry_comm *comm);

/* Have it use this one. On all ranks. */
int test_set_variant(serry_comm *comm, unsigned variant);

/* Flags are counters of the run, all 0 at first: add one, or wait until one has reached a value. */
void test_raise(test_rank *self, int flag);
void test_await(test_rank *self, int flag, unsigned value);

/* Wait until all ranks of the run are here; independent of the library. */
void test_meet(test_rank *self);

void test_sleep_ms(unsigned ms);

/* Seconds of CLOCK_MONOTONIC. */
double test_now(void);

/* This rank's own report, for its numbers. */
test_report *test_mine(test_rank *self);

/* Make this call on this communicator through the public function of its kind (all but split). */
int test_call(const serry_call *call, serry_comm *comm);

/* The same where SERRY_TEST_APART is set: test_call starts it and waits for it apart. The record of the
 * last one, either way. */
const serry_error *test_record_of(const serry_comm *comm);

/* Likewise through the i-form. */
int test_call_apart(const serry_call *call, serry_comm *comm, serry_request **request);

/* Is exactly this set of ranks in the record? -1 ends the list. */
bool test_ranks_are(const serry_rank_set *set, const int *ranks);

/* Does the text name this rank ("rank 3", "ranks 1, 3 and 5"), as a whole number? */
bool test_names_rank(const char *text, int rank);

#endif
