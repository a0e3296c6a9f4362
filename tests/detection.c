/* detection.c - ranks that end in every way there is, and what the others find out.
 *
 * The timeout of the operations is a minute and no test waits for one: only detection can end a
 * wait. What must not be taken for a death is in detection_traps.c. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "deaths.h"

#define VICTIM 1
#define MINUTE_MS 60000
static const int k_victim[] = {VICTIM, -1};

enum { WAITING, NOTICED }; /* flags of a run */

/* ---- one rank ends while the others wait ---------------------------------------------------- */

typedef struct scene {
    void (*end)(test_rank *self); /* of rank 1 */
    unsigned after_ms;            /* so long after the others began to wait: asleep by then */
} scene;

static void body_others_wait(test_rank *self)
{
    const scene *s = self->argument;

    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == VICTIM) {
        test_await(self, WAITING, (unsigned)self->size - 1);
        if (s->after_ms > 0)
            test_sleep_ms(s->after_ms);
        s->end(self);
    }
    test_at(self, "the operation in which rank %d ends", VICTIM);
    test_raise(self, WAITING);
    expect_failed(self, self->comm, serry_barrier(self->comm), k_victim, "barrier");
    test_raise(self, NOTICED);
    expect_goes_on(self, self->comm, k_victim);
}

static void rank_killed_while_the_others_sleep(void **state)
{
    (void)state;
    scene s = {death_now, 300};

    for (int size = 2; size <= 4; size += 2)
        run_deaths(SERRY_PROCESSES, size, body_others_wait, &s, k_victim);
}

/* Where there is a core for each: the other one has just begun to wait. */
static void rank_killed_while_the_other_spins(void **state)
{
    (void)state;
    scene s = {death_now, 0};

    for (int i = 0; i < 20; i++)
        run_deaths(SERRY_PROCESSES, 2, body_others_wait, &s, k_victim);
}

static void thread_rank_ends_without_finalize(void **state)
{
    (void)state;
    scene asleep = {death_now, 300}, awake = {death_now, 0};

    for (int size = 2; size <= 5; size += 3) {
        run_deaths(SERRY_THREADS, size, body_others_wait, &asleep, (const int[]){-1});
        run_deaths(SERRY_THREADS, size, body_others_wait, &awake, (const int[]){-1});
    }
}

static void end_by_exit(test_rank *self)
{
    atomic_store(&test_mine(self)->finished, 1);
    exit(0);
}

static void process_exits_without_finalize(void **state)
{
    (void)state;
    scene s = {end_by_exit, 300};

    run_deaths(SERRY_PROCESSES, 3, body_others_wait, &s, (const int[]){-1});
}

/* ---- crashes -------------------------------------------------------------------------------- */

/* As in a program without a test library, which has handlers of its own; and no core files. */
static void body_crash(test_rank *self)
{
    static const int handled[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGSYS};

    for (size_t i = 0; i < sizeof(handled) / sizeof(handled[0]); i++)
        signal(handled[i], SIG_DFL);
    prctl(PR_SET_DUMPABLE, 0);
    if (!test_expect(self, SERRY_OK, test_init(self, MINUTE_MS, &self->comm), NULL, "serry_init"))
        return;
    body_others_wait(self);
    EXPECT_OK(self, serry_finalize(&self->comm));
}

static void end_by_segv(test_rank *self)
{
    (void)self;
    void *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *(volatile int *)page = 1;
}

static void end_by_bus_error(test_rank *self)
{
    (void)self;
    int fd = memfd_create("empty", MFD_CLOEXEC);
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    *(volatile int *)page = 1;
}

static void end_by_abort(test_rank *self)
{
    (void)self;
    abort();
}

static void end_by_breakpoint(test_rank *self)
{
    (void)self;
#if defined(__x86_64__)
    __asm__ volatile("int3");
#else
    __asm__ volatile("brk #0");
#endif
    test_failed(self, "it lives on after the breakpoint");
}

/* From outside, as a user does it. */
static void end_by_quit(test_rank *self)
{
    (void)self;
    kill(getpid(), SIGQUIT);
    death_await();
}

static void run_crash(void (*end)(test_rank *), int number)
{
    scene s = {end, 100};
    test_options options = {.kind = SERRY_PROCESSES, .size = 3, .body_joins = true};
    test_run *run = test_start(&options, body_crash, &s);

    test_join(run);
    int status = test_report_of(run, VICTIM)->status;
    death_forgive(run, VICTIM);
    test_end(run);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), number);
}

static void process_crashes(void **state)
{
    (void)state;
    run_crash(end_by_segv, SIGSEGV);
    run_crash(end_by_bus_error, SIGBUS);
    run_crash(end_by_abort, SIGABRT);
    run_crash(end_by_quit, SIGQUIT);
}

static void process_crashes_at_a_breakpoint(void **state)
{
    (void)state;
    run_crash(end_by_breakpoint, SIGTRAP);
}

static void process_crashes_with_the_library_s_handlers_off(void **state)
{
    (void)state;
    setenv("SERRY_SIGNALS", "0", 1);
    run_crash(end_by_segv, SIGSEGV);
    run_crash(end_by_abort, SIGABRT);
    unsetenv("SERRY_SIGNALS");
}

/* ---- exec: the process lives on as another program ------------------------------------------- */

static void end_by_exec(test_rank *self)
{
    execlp("sleep", "sleep", "1000", (char *)NULL);
    test_failed(self, "cannot execute sleep");
}

static bool is_called(pid_t pid, const char *name)
{
    char path[64], comm[32] = "";

    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = read(fd, comm, sizeof(comm) - 1);
    close(fd);
    comm[strcspn(comm, "\n")] = 0;
    return length > 0 && strcmp(comm, name) == 0;
}

static void process_executes_another_program(void **state)
{
    (void)state;
    scene s = {end_by_exec, 100};
    test_options options = {.kind = SERRY_PROCESSES, .size = 3};
    test_run *run = test_start(&options, body_others_wait, &s);

    while (test_flag(run, NOTICED) < 2)
        test_sleep_ms(1);
    while (!is_called(test_report_of(run, VICTIM)->pid, "sleep")) /* the threads go first */
        test_sleep_ms(1);
    test_kill(run, VICTIM);
    test_end(run);
}

/* ---- many ranks ----------------------------------------------------------------------------- */

#define CROWD 8
#define DIES_AT 200

/* Fault:  one of 8 ranks, on fewer cores, is killed in a stream of operations.
 * Expect: all others get the one error at the same operation. */
static void body_crowd(test_rank *self)
{
    int64_t value = self->rank, sum;

    for (int i = 0; i < 2 * DIES_AT; i++) {
        test_at(self, "operation %d", i);
        if (self->rank == VICTIM && i == DIES_AT)
            death_now(self);
        int rc = serry_allreduce(&value, &sum, 1, SERRY_I64, SERRY_SUM, self->comm);
        if (i == DIES_AT)
            expect_failed(self, self->comm, rc, k_victim, "allreduce without it");
        else
            test_expect(self, SERRY_OK, rc, self->comm, "operation %d", i);
        CHECK(self, i == DIES_AT || sum == CROWD * (CROWD - 1) / 2 - (i > DIES_AT ? VICTIM : 0));
    }
    expect_goes_on(self, self->comm, k_victim);
}

static void rank_killed_among_more_ranks_than_cores(void **state)
{
    (void)state;
    run_deaths(SERRY_PROCESSES, CROWD, body_crowd, NULL, k_victim);
    run_deaths(SERRY_THREADS, CROWD, body_crowd, NULL, (const int[]){-1});
}

static void body_alone(test_rank *self)
{
    serry_comm *part = NULL;
    const int none[] = {-1};
    int dead[CROWD] = {0};

    for (int r = 1; r < self->size; r++)
        dead[r - 1] = r;
    dead[self->size - 1] = -1;
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank > 0) {
        test_await(self, WAITING, 1);
        death_await();
    }
    test_raise(self, WAITING);
    expect_failed(self, self->comm, serry_barrier(self->comm), dead, "barrier");
    expect_goes_on(self, self->comm, dead);
    EXPECT_OK(self, serry_split(self->comm, 0, 0, &part));
    CHECK(self, serry_size(part) == 1);
    expect_goes_on(self, part, none);
    EXPECT_OK(self, serry_finalize(&part));
}

static void all_but_one_killed_at_once(void **state)
{
    (void)state;
    const int dead[] = {1, 2, 3, 4, -1};
    test_options options = {.kind = SERRY_PROCESSES, .size = 5};
    test_run *run = test_start(&options, body_alone, NULL);

    while (test_flag(run, WAITING) < 1)
        test_sleep_ms(1);
    for (int r = 1; r < options.size; r++)
        test_kill(run, r);
    deaths_end(run, options.kind, options.size, dead);
}

/* ---- several communicators ------------------------------------------------------------------ */

/* Once in each communicator that the dead rank, the last one there, belongs to; never elsewhere. */
static void expect_once(test_rank *self, serry_comm *comm, bool has_victim)
{
    const int last[] = {serry_size(comm) - 1, -1}, none[] = {-1};

    if (has_victim)
        expect_failed(self, comm, serry_barrier(comm), last, "barrier of the part");
    expect_goes_on(self, comm, has_victim ? last : none);
}

/* Fault:  rank 3 of 4, in a world and in parts by halves and by parity, is killed.
 * Expect: each communicator with it says so once, the others do not notice. */
static void body_parts(test_rank *self)
{
    const int victim = 3;
    serry_comm *half, *parity;

    EXPECT_OK(self, serry_split(self->comm, self->rank / 2, 0, &half));
    EXPECT_OK(self, serry_split(self->comm, self->rank % 2, 0, &parity));
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == victim) {
        orphan(half);
        orphan(parity);
        death_now(self);
    }
    expect_once(self, half, self->rank == 2);
    expect_once(self, parity, self->rank == 1);
    expect_once(self, self->comm, true);
    EXPECT_OK(self, serry_finalize(&parity));
    EXPECT_OK(self, serry_finalize(&half));
}

static void rank_killed_that_is_in_several_communicators(void **state)
{
    (void)state;
    run_deaths(SERRY_PROCESSES, 4, body_parts, NULL, (const int[]){3, -1});
    run_deaths(SERRY_THREADS, 4, body_parts, NULL, (const int[]){-1});
}

/* ---- when nobody waits ---------------------------------------------------------------------- */

static void body_between(test_rank *self)
{
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == VICTIM)
        death_now(self);
    await_known(self, self->comm, k_victim);
    CHECK(self, serry_live(self->comm) == self->size); /* no operation has met it yet */
    expect_failed(self, self->comm, serry_barrier(self->comm), k_victim, "barrier");
    expect_goes_on(self, self->comm, k_victim);
}

static void rank_killed_between_two_operations(void **state)
{
    (void)state;
    run_deaths(SERRY_PROCESSES, 3, body_between, NULL, k_victim);
    run_deaths(SERRY_THREADS, 3, body_between, NULL, (const int[]){-1});
}

/* Fault:  rank 1 leaves in order, and is killed a moment later.
 * Expect: one error for its leaving, none for its end. */
static void body_left(test_rank *self)
{
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == VICTIM) {
        EXPECT_OK(self, serry_finalize(&self->comm));
        test_await(self, NOTICED, (unsigned)self->size - 1);
        death_now(self);
    }
    expect_failed(self, self->comm, serry_barrier(self->comm), k_victim, "barrier");
    test_raise(self, NOTICED);
    if (self->rank == 0) {
        test_at(self, "waiting for the end of rank %d", VICTIM);
        while (process_state(test_report_of(self->run, VICTIM)->pid) != 'Z')
            test_sleep_ms(1);
        test_sleep_ms(600); /* past a look of every monitor */
    }
    expect_goes_on(self, self->comm, k_victim);
}

static void rank_killed_that_has_left_in_order(void **state)
{
    (void)state;
    run_deaths(SERRY_PROCESSES, 3, body_left, NULL, k_victim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thread_rank_ends_without_finalize),
        cmocka_unit_test(rank_killed_while_the_others_sleep),
        cmocka_unit_test(rank_killed_while_the_other_spins),
        cmocka_unit_test(process_exits_without_finalize),
        cmocka_unit_test(process_crashes),
        cmocka_unit_test(process_crashes_at_a_breakpoint),
        cmocka_unit_test(process_crashes_with_the_library_s_handlers_off),
        cmocka_unit_test(process_executes_another_program),
        cmocka_unit_test(rank_killed_among_more_ranks_than_cores),
        cmocka_unit_test(all_but_one_killed_at_once),
        cmocka_unit_test(rank_killed_that_is_in_several_communicators),
        cmocka_unit_test(rank_killed_between_two_operations),
        cmocka_unit_test(rank_killed_that_has_left_in_order),
    };

    return cmocka_run_group_tests_name("detection", tests, NULL, NULL);
}
