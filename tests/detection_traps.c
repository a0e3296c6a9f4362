/* detection_traps.c - what looks like a death and is none, and what might hide one.
 *
 * A living rank must not be declared failed; each test lets the monitors look at everybody at least
 * twice before it checks that. A later death of the same rank must be found all the same. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
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
#define RANKS 3
#define TWO_LOOKS_MS 1200
#define MINUTE_MS 60000
static const int k_victim[] = {VICTIM, -1};

enum { READY, RETURNED, NOTICED }; /* flags of a run */

/* The suspect does something, the others wait for it in a barrier: nobody fails. Then it is killed,
 * and that is found. */
static void body_lives_then_dies(test_rank *self)
{
    void (*suspicious)(test_rank *) = *(void (**)(test_rank *))self->argument;
    const int none[] = {-1};

    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == VICTIM)
        suspicious(self);
    EXPECT_OK(self, serry_barrier(self->comm));
    expect_goes_on(self, self->comm, none);
    if (self->rank == VICTIM)
        death_now(self);
    expect_failed(self, self->comm, serry_barrier(self->comm), k_victim, "barrier");
    expect_goes_on(self, self->comm, k_victim);
}

static void run_suspicious(void (*suspicious)(test_rank *))
{
    run_deaths(SERRY_PROCESSES, RANKS, body_lives_then_dies, &suspicious, k_victim);
}

/* ---- locks of the program ------------------------------------------------------------------- */

#define LOCKS 2100 /* the kernel walks 2048 of a thread's robust locks */

static void hold_many_robust_locks(test_rank *self)
{
    static pthread_mutex_t locks[LOCKS];
    pthread_mutexattr_t attributes;

    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    for (int i = 0; i < LOCKS; i++)
        CHECK(self, pthread_mutex_init(&locks[i], &attributes) == 0 &&
                        pthread_mutex_lock(&locks[i]) == 0);
    pthread_mutexattr_destroy(&attributes);
    test_sleep_ms(TWO_LOOKS_MS);
}

static void program_holds_more_robust_locks_than_the_kernel_walks(void **state)
{
    (void)state;
    if (TEST_TSAN) {
        print_message("skipped: the thread sanitizer bears no thread with that many locks\n");
        skip();
    }
    run_suspicious(hold_many_robust_locks);
}

/* ---- stopped -------------------------------------------------------------------------------- */

static void body_stopped(test_rank *self)
{
    const int none[] = {-1};

    EXPECT_OK(self, serry_barrier(self->comm));
    test_raise(self, READY);
    if (self->rank == VICTIM)
        raise(SIGSTOP);
    EXPECT_OK(self, serry_barrier(self->comm));
    test_raise(self, RETURNED);
    expect_goes_on(self, self->comm, none);
}

static void process_stopped_for_two_seconds_and_continued(void **state)
{
    (void)state;
    test_options options = {.kind = SERRY_PROCESSES, .size = RANKS};
    test_run *run = test_start(&options, body_stopped, NULL);
    pid_t pid = test_report_of(run, VICTIM)->pid;

    while (test_flag(run, READY) < RANKS || process_state(pid) != 'T')
        test_sleep_ms(1);
    test_sleep_ms(2000);
    char before = process_state(pid);
    unsigned returned = test_flag(run, RETURNED);
    kill(pid, SIGCONT);
    test_end(run);
    assert_int_equal(before, 'T');
    assert_int_equal(returned, 0);
}

/* Fault:  a rank is killed while it is stopped.
 * Expect: that is a death like any other. */
static void body_killed_while_stopped(test_rank *self)
{
    EXPECT_OK(self, serry_barrier(self->comm));
    test_raise(self, READY);
    if (self->rank == VICTIM)
        raise(SIGSTOP);
    expect_failed(self, self->comm, serry_barrier(self->comm), k_victim, "barrier");
    expect_goes_on(self, self->comm, k_victim);
}

static void process_killed_while_stopped(void **state)
{
    (void)state;
    test_options options = {.kind = SERRY_PROCESSES, .size = RANKS};
    test_run *run = test_start(&options, body_killed_while_stopped, NULL);

    while (test_flag(run, READY) < RANKS || process_state(test_report_of(run, VICTIM)->pid) != 'T')
        test_sleep_ms(1);
    test_kill(run, VICTIM);
    deaths_end(run, options.kind, options.size, k_victim);
}

/* ---- children ------------------------------------------------------------------------------- */

static void child_exits(serry_comm *comm)
{
    (void)comm;
    _exit(0);
}

static void child_is_killed(serry_comm *comm)
{
    (void)comm;
    raise(SIGKILL);
}

static void child_aborts(serry_comm *comm)
{
    (void)comm;
    signal(SIGSEGV, SIG_DFL); /* cmocka's would take the child back into the test */
    prctl(PR_SET_DUMPABLE, 0);
    abort();
}

static void child_finalizes(serry_comm *comm)
{
    _exit(serry_barrier(comm) == SERRY_ERR_FORKED && serry_finalize(&comm) == SERRY_OK ? 0 : 1);
}

static void child_executes(serry_comm *comm)
{
    (void)comm;
    execlp("true", "true", (char *)NULL);
    _exit(1);
}

/* The child ends, and in the way it was to. */
static void have_child(test_rank *self, void (*child)(serry_comm *), int code, int number)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0) {
        child(self->comm);
        _exit(1);
    }
    CHECK(self, pid > 0 && waitpid(pid, &status, 0) == pid);
    if (number == 0 ? !WIFEXITED(status) || WEXITSTATUS(status) != code
                    : !WIFSIGNALED(status) || WTERMSIG(status) != number)
        test_failed(self, "a child ended with wait status %#x instead of %s %d", (unsigned)status,
                    number == 0 ? "code" : "signal", number == 0 ? code : number);
}

static void have_children(test_rank *self)
{
    have_child(self, child_exits, 0, 0);
    have_child(self, child_is_killed, 0, SIGKILL);
    have_child(self, child_finalizes, 0, 0);
    have_child(self, child_executes, 0, 0);
    test_sleep_ms(TWO_LOOKS_MS);
}

static void fork_child_ends(void **state)
{
    (void)state;
    run_suspicious(have_children);
}

/* The parent's handlers of fatal signals are the child's too. */
static void have_a_child_that_aborts(test_rank *self)
{
    have_child(self, child_aborts, 0, SIGABRT);
    test_sleep_ms(TWO_LOOKS_MS);
}

static void fork_child_aborts(void **state)
{
    (void)state;
    run_suspicious(have_a_child_that_aborts);
}

/* Rank `rank` of 2 in a job of the suspect's children. */
static serry_comm *join_the_children(const test_rank *self, int rank)
{
    serry_config config = SERRY_CONFIG_INIT;
    serry_comm *comm = NULL;
    char job[96];

    snprintf(job, sizeof(job), "%s-children", self->job);
    config.rank = rank;
    config.size = 2;
    config.job = job;
    config.timeout_ms = MINUTE_MS;
    return serry_init(&config, &comm) == SERRY_OK && serry_barrier(comm) == SERRY_OK ? comm : NULL;
}

/* Rank 0 of the children's job crashes, rank 1 must find that out, and live itself. */
static void have_children_with_a_job(test_rank *self)
{
    int status = -1;
    pid_t second, first = fork();

    if (first == 0) {
        serry_comm *comm = join_the_children(self, 0);
        if (comm != NULL)
            child_aborts(comm);
        _exit(1);
    }
    second = fork();
    if (second == 0) {
        serry_comm *comm = join_the_children(self, 1);
        int rc = serry_barrier(comm);
        _exit(rc == SERRY_ERR_RANK_FAILED && serry_barrier(comm) == SERRY_OK ? 0 : -rc);
    }
    CHECK(self, waitpid(first, &status, 0) == first && WIFSIGNALED(status) &&
                    WTERMSIG(status) == SIGABRT);
    CHECK(self, waitpid(second, &status, 0) == second && WIFEXITED(status));
    test_expect(self, SERRY_OK, -WEXITSTATUS(status), NULL, "barrier of the other child");
    test_sleep_ms(TWO_LOOKS_MS);
}

/* Fault:  a child of rank 1 joins another job, with an arena where its parent's lay, and crashes.
 * Expect: that job loses this one rank, the parent's job none. */
static void fork_child_with_a_job_of_its_own_crashes(void **state)
{
    (void)state;
    if (TEST_TSAN) {
        print_message("skipped: the thread sanitizer lets no child of a fork start threads\n");
        skip();
    }
    run_suspicious(have_children_with_a_job);
}

/* ---- a program with a handler of its own ---------------------------------------------------- */

static sigjmp_buf k_rescue;

static void rescue(int number)
{
    (void)number;
    siglongjmp(k_rescue, 1);
}

static void recover_from_a_fault(test_rank *self)
{
    struct sigaction action = {.sa_handler = rescue};
    void *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    sigaction(SIGSEGV, &action, NULL);
    if (sigsetjmp(k_rescue, 1) == 0) {
        *(volatile int *)page = 1;
        test_failed(self, "there was no fault");
    }
    signal(SIGSEGV, SIG_DFL);
    munmap(page, 4096);
    test_sleep_ms(TWO_LOOKS_MS);
}

static void program_recovers_from_a_fault_by_itself(void **state)
{
    (void)state;
    run_suspicious(recover_from_a_fault);
}

/* ---- the main thread is gone ---------------------------------------------------------------- */

static void *go_on_without_main(void *argument)
{
    test_rank *self = argument;

    test_at(self, "waiting for the end of the main thread");
    while (process_state(getpid()) != 'Z')
        test_sleep_ms(1);
    test_sleep_ms(TWO_LOOKS_MS);
    EXPECT_OK(self, serry_barrier(self->comm));
    expect_goes_on(self, self->comm, (const int[]){-1});
    death_now(self);
}

static void body_without_main(test_rank *self)
{
    pthread_t thread;

    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == VICTIM) {
        CHECK(self, pthread_create(&thread, NULL, go_on_without_main, self) == 0);
        pthread_exit(NULL);
    }
    EXPECT_OK(self, serry_barrier(self->comm));
    expect_goes_on(self, self->comm, (const int[]){-1});
    expect_failed(self, self->comm, serry_barrier(self->comm), k_victim, "barrier");
    expect_goes_on(self, self->comm, k_victim);
}

static void main_thread_ends_and_another_goes_on(void **state)
{
    (void)state;
    run_deaths(SERRY_PROCESSES, RANKS, body_without_main, NULL, k_victim);
}

/* ---- PID namespaces ------------------------------------------------------------------------- */

static int write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t written = fd < 0 ? -1 : write(fd, text, strlen(text));

    if (fd >= 0)
        close(fd);
    return written == (ssize_t)strlen(text) ? 0 : -1;
}

/* Children of this process are in a new PID namespace from now on. Where that takes privileges, a
 * user namespace in which this user has the same number has them. */
static int enter_pid_namespace(void)
{
    char map[64];

    if (unshare(CLONE_NEWPID) == 0)
        return 0;
    snprintf(map, sizeof(map), "%u %u 1", (unsigned)getuid(), (unsigned)getuid());
    if (unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0)
        return -1;
    return write_text("/proc/self/uid_map", map);
}

static void rank_in_namespace(test_rank *self)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (test_expect(self, SERRY_OK, test_init(self, MINUTE_MS, &self->comm), NULL, "serry_init") &&
        CHECK(self, getpid() == 1)) {
        EXPECT_OK(self, serry_barrier(self->comm));
        test_raise(self, READY);
        if (self->rank == VICTIM)
            death_await();
        expect_failed(self, self->comm, serry_barrier(self->comm), k_victim, "barrier");
        expect_goes_on(self, self->comm, k_victim);
        EXPECT_OK(self, serry_finalize(&self->comm));
    }
    _exit(0);
}

/* Fault:  ranks 1 and 2 are number 1 in a PID namespace of their own each, so that their threads
 *         bear the same numbers; rank 1 is killed.
 * Expect: that one is found, by those outside and by rank 2, which is not mistaken for it. */
static void body_namespaces(test_rank *self)
{
    if (self->rank == 0) {
        if (test_expect(self, SERRY_OK, test_init(self, MINUTE_MS, &self->comm), NULL, "init")) {
            EXPECT_OK(self, serry_barrier(self->comm));
            test_raise(self, READY);
            expect_failed(self, self->comm, serry_barrier(self->comm), k_victim, "barrier");
            expect_goes_on(self, self->comm, k_victim);
            EXPECT_OK(self, serry_finalize(&self->comm));
        }
        return;
    }
    CHECK(self, enter_pid_namespace() == 0);
    pid_t pid = fork();
    int status;
    if (pid == 0)
        rank_in_namespace(self);
    if (self->rank == VICTIM) {
        test_await(self, READY, RANKS);
        test_sleep_ms(100);
        kill(pid, SIGKILL);
    }
    CHECK(self, waitpid(pid, &status, 0) == pid);
    CHECK(self, self->rank == VICTIM ? WIFSIGNALED(status) : WIFEXITED(status));
}

static bool can_enter_pid_namespace(void)
{
    int status = 1;
    pid_t pid = fork();

    if (pid == 0)
        _exit(enter_pid_namespace() == 0 ? 0 : 1);
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static void rank_in_another_pid_namespace_killed(void **state)
{
    (void)state;
    test_options options = {.kind = SERRY_PROCESSES, .size = RANKS, .body_joins = true};

    if (!can_enter_pid_namespace()) {
        print_message("skipped: this user may not make a PID namespace\n");
        skip();
    }
    test_end(test_start(&options, body_namespaces, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(program_holds_more_robust_locks_than_the_kernel_walks),
        cmocka_unit_test(process_stopped_for_two_seconds_and_continued),
        cmocka_unit_test(process_killed_while_stopped),
        cmocka_unit_test(fork_child_ends),
        cmocka_unit_test(fork_child_aborts),
        cmocka_unit_test(fork_child_with_a_job_of_its_own_crashes),
        cmocka_unit_test(program_recovers_from_a_fault_by_itself),
        cmocka_unit_test(main_thread_ends_and_another_goes_on),
        cmocka_unit_test(rank_in_another_pid_namespace_killed),
    };

    return cmocka_run_group_tests_name("detection_traps", tests, NULL, NULL);
}
