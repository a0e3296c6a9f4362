/* cleanup.c - nothing in /dev/shm and no process stays behind, whatever ends.
 *
 * Fault:  normal end; end without finalize; SIGKILL of one rank in the middle of a collective, of
 *         all ranks, of the launcher, and of ranks at random moments while they join.
 * Expect: survivors end with an error that names the dead; afterwards /dev/shm lists what it listed
 *         before, and no process is left.
 * Limits: only the watchdog bounds time here.
 *
 * For the launcher's tests this program is also the rank program (--rank-body NAME); the command is
 * taken from SERRY_COMMAND, and these tests are skipped where that is not set. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "reference.h"

#define VICTIM 2
#define LAUNCHED 4 /* ranks under the launcher */

/* ---- what lies in /dev/shm ------------------------------------------------------------------ */

#define NAMES_MAX 256

typedef struct listing {
    int count;
    char name[NAMES_MAX][NAME_MAX + 1];
} listing;

static void list_shm(listing *l)
{
    DIR *directory = opendir("/dev/shm");
    l->count = 0;
    for (struct dirent *e; directory != NULL && (e = readdir(directory)) != NULL;)
        if (e->d_name[0] != '.' && strncmp(e->d_name, "sem.", 4) != 0 && l->count < NAMES_MAX)
            snprintf(l->name[l->count++], sizeof(l->name[0]), "%s", e->d_name);
    if (directory != NULL)
        closedir(directory);
}

/* A name that was not there before, or NULL. */
static const char *new_name(const listing *before, const listing *now)
{
    for (int i = 0; i < now->count; i++) {
        bool known = false;
        for (int j = 0; j < before->count && !known; j++)
            known = strcmp(now->name[i], before->name[j]) == 0;
        if (!known)
            return now->name[i];
    }
    return NULL;
}

/* Programs beside this one may use /dev/shm for a moment; what is left behind stays. */
static void check_shm(const listing *before)
{
    static listing now;
    for (int attempt = 0; attempt < 100; attempt++) {
        list_shm(&now);
        if (new_name(before, &now) == NULL)
            return;
        test_sleep_ms(50);
    }
    fail_msg("/dev/shm/%s was left behind", new_name(before, &now));
}

/* No child, and as this process adopts the orphans of its children, no grandchild. Ranks that would
 * never end by themselves are waited for until they are gone. */
static void check_processes(void)
{
    while (waitpid(-1, NULL, 0) > 0)
        continue;
    assert_int_equal(errno, ECHILD);
}

static listing g_before;

static int setup(void **state)
{
    (void)state;
    list_shm(&g_before);
    test_watch(true);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_watch(true);
    check_processes();
    check_shm(&g_before);
    test_watch(false);
    return 0;
}

/* ---- bodies --------------------------------------------------------------------------------- */

/* What ranks do in a collective when they are hit. */
typedef struct work {
    size_t count;
    bool arena;
} work;

static float *buffer(serry_comm *comm, const work *w)
{
    size_t bytes = w->count * sizeof(float);
    return w->arena ? serry_alloc(comm, bytes) : calloc(1, bytes);
}

static void body_normal(test_rank *self)
{
    const work *w = self->argument;
    float *data = buffer(self->comm, w);
    for (int i = 0; i < 10; i++)
        EXPECT_OK(self, serry_allreduce(SERRY_IN_PLACE, data, w->count, SERRY_F32, SERRY_SUM,
                                        self->comm));
    if (!w->arena)
        free(data);
}

/* Ends with all that it has. */
static void body_no_finalize(test_rank *self)
{
    serry_comm *comm, *part;
    if (!test_expect(self, SERRY_OK, test_init(self, 30000, &comm), NULL, "serry_init"))
        return;
    CHECK(self, buffer(comm, self->argument) != NULL);
    test_expect(self, SERRY_OK, serry_split(comm, self->rank % 2, 0, &part), comm, "serry_split");
    test_expect(self, SERRY_OK, serry_barrier(part), part, "barrier");
}

/* Allreduces until one fails; says so after each. */
static int sum_until_it_fails(serry_comm *comm, const work *w, _Atomic unsigned *rounds)
{
    float *data = buffer(comm, w);
    int result = data != NULL ? SERRY_OK : SERRY_ERR_NO_SPACE;
    while (result == SERRY_OK) {
        result = serry_allreduce(SERRY_IN_PLACE, data, w->count, SERRY_F32, SERRY_SUM, comm);
        atomic_fetch_add(rounds, 1);
    }
    if (!w->arena)
        free(data);
    return result;
}

static bool names_victim(const serry_error *record, int victim)
{
    return (record->error == SERRY_ERR_TIMEOUT || record->error == SERRY_ERR_RANK_FAILED) &&
           serry_rank_set_has(&record->ranks, victim) && test_names_rank(record->message, victim);
}

typedef struct killing {
    work work;
    bool all; /* every rank is a victim: those that see another one die wait for their turn */
    _Atomic unsigned *rounds;
} killing;

static void body_until_it_fails(test_rank *self)
{
    const killing *k = self->argument;
    sum_until_it_fails(self->comm, &k->work, k->rounds);
    while (k->all)
        pause();
    const serry_error *record = serry_last_error(self->comm);
    if (!names_victim(record, VICTIM))
        test_failed(self, "%s: the record does not name rank %d: %s",
                    serry_error_name(record->error), VICTIM, record->message);
}

/* ---- ends of ranks -------------------------------------------------------------------------- */

static const work k_works[] = {{10, false}, {300000, false}, {300000, true}};
#define WORKS (sizeof(k_works) / sizeof(k_works[0]))

static void test_normal_end(void **state)
{
    (void)state;
    for (size_t i = 0; i < WORKS; i++)
        run_ranks(SERRY_PROCESSES, 4, body_normal, (void *)(uintptr_t)&k_works[i]);
}

static void test_end_without_finalize(void **state)
{
    (void)state;
    for (size_t i = 0; i < WORKS; i++) {
        test_options options = {.kind = SERRY_PROCESSES, .size = 4, .body_joins = true};
        test_end(test_start(&options, body_no_finalize, (void *)(uintptr_t)&k_works[i]));
    }
}

/* Kill one rank, or all, once they are at work, at a random moment. */
static void kill_at_work(const work *w, bool all, uint64_t number)
{
    killing k = {*w, all, test_shared(sizeof(unsigned))};
    test_options options = {.kind = SERRY_PROCESSES, .size = 4, .timeout_ms = 2000};
    test_run *run = test_start(&options, body_until_it_fails, &k);
    while (atomic_load(k.rounds) < 40)
        test_sleep_ms(1);
    usleep((useconds_t)(reference_random(test_seed(), 1, number) % 5000));
    for (int r = 0; r < options.size; r++)
        if (all || r == VICTIM)
            test_kill(run, r);
    test_end(run);
    test_unshare((void *)(uintptr_t)k.rounds, sizeof(unsigned));
}

static void test_one_rank_killed(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 2 * WORKS; i++)
        kill_at_work(&k_works[i % WORKS], false, i);
}

static void test_all_ranks_killed(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 4 * WORKS; i++) {
        kill_at_work(&k_works[i % WORKS], true, 100 + i);
        check_shm(&g_before);
    }
}

/* ---- killed while joining ------------------------------------------------------------------- */

#define ROUNDS 50
#define AT_ONCE 5 /* of them */
#define JOINING 3 /* ranks */

/* Whatever comes of it, it ends, for those who are not killed. */
static void body_joins_and_waits(test_rank *self)
{
    bool victim = (*(const unsigned *)self->argument >> self->rank & 1) != 0;
    serry_comm *comm;
    if (test_init(self, 500, &comm) == SERRY_OK) {
        while (serry_barrier(comm) == SERRY_OK)
            test_sleep_ms(1);
        serry_finalize(&comm);
    }
    while (victim)
        pause();
}

static void test_killed_while_joining(void **state)
{
    (void)state;
    test_options options = {.kind = SERRY_PROCESSES, .size = JOINING, .body_joins = true};
    for (uint64_t round = 0; round < ROUNDS; round += AT_ONCE) {
        test_run *run[AT_ONCE];
        unsigned victims[AT_ONCE];
        int bad = 0;
        for (unsigned i = 0; i < AT_ONCE; i++) { /* none to all: at least one */
            victims[i] = 1 + (unsigned)(reference_random(test_seed(), 2, round + i) % 7);
            run[i] = test_start(&options, body_joins_and_waits, &victims[i]);
        }
        for (unsigned i = 0; i < AT_ONCE; i++) {
            usleep((useconds_t)(reference_random(test_seed(), 3, round + i) % 3000));
            for (int r = 0; r < JOINING; r++)
                if ((victims[i] >> r & 1) != 0)
                    test_kill(run[i], r);
        }
        for (unsigned i = 0; i < AT_ONCE; i++)
            bad += test_end_count(run[i]);
        assert_int_equal(bad, 0);
        check_shm(&g_before);
    }
}

/* ---- under the launcher --------------------------------------------------------------------- */

/* What this program shares with the ranks that the launcher starts; TEST_BOARD names the file. */
typedef struct launch_board {
    _Atomic unsigned rounds;
    _Atomic int pid[LAUNCHED]; /* of the ranks, once they have joined */
} launch_board;

static launch_board *g_board;

static launch_board *map_board(int fd)
{
    void *memory = mmap(NULL, sizeof(launch_board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* The rank program: the exit code is 0 where all went as this kind of test wants it. */
static int rank_body(const char *name)
{
    const char *path = getenv("TEST_BOARD");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    launch_board *b = fd >= 0 ? map_board(fd) : NULL;
    serry_comm *comm;
    work w = {300000, false};

    if (b == NULL || serry_init(NULL, &comm) != SERRY_OK || serry_size(comm) != LAUNCHED)
        return 50;
    int rank = serry_rank(comm);
    atomic_store(&b->pid[rank], getpid());
    if (serry_barrier(comm) != SERRY_OK)
        return 51;
    if (strcmp(name, "normal") == 0)
        return serry_finalize(&comm) == SERRY_OK ? 0 : 52;
    if (strcmp(name, "forever") == 0) {
        serry_set_timeout(comm, -1);
        atomic_fetch_add(&b->rounds, 1);
        while (rank == 0)
            pause();
        return serry_barrier(comm) == SERRY_OK ? 53 : 54;
    }
    if (strcmp(name, "exit-3") == 0 && rank == VICTIM)
        return 3;
    serry_set_timeout(comm, 2000);
    sum_until_it_fails(comm, &w, &b->rounds);
    return names_victim(serry_last_error(comm), VICTIM) ? 0 : 55;
}

/* The command with this program as its ranks. Skips the test where there is none. */
static pid_t launch(const char *body)
{
    const char *command = getenv("SERRY_COMMAND");
    char program[4096], path[64], ranks[16];
    ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);

    if (command == NULL) {
        print_message("skipped: SERRY_COMMAND does not say where the command is\n");
        skip();
    }
    assert_true(length > 0);
    program[length] = 0;
    int fd = memfd_create("board", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, sizeof(launch_board)), 0);
    g_board = map_board(fd);
    assert_non_null(g_board);
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), fd);
    snprintf(ranks, sizeof(ranks), "%d", LAUNCHED);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setenv("TEST_BOARD", path, 1);
        execl(command, command, "run", "-n", ranks, program, "--rank-body", body, NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

static void wait_for_rounds(unsigned rounds)
{
    while (atomic_load(&g_board->rounds) < rounds)
        test_sleep_ms(1);
}

static int status_of(pid_t launcher)
{
    int status = -1;
    while (waitpid(launcher, &status, 0) < 0 && errno == EINTR)
        continue;
    return status;
}

/* The launcher has ended; so have all ranks, without being waited for. */
static void check_launched(int status, int code)
{
    int left = waitpid(-1, NULL, WNOHANG);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code)
        fail_msg("the launcher ended with wait status %#x, not exit code %d", (unsigned)status,
                 code);
    if (left >= 0)
        fail_msg("a process outlives the launcher");
    for (int r = 0; r < LAUNCHED; r++)
        assert_true(kill(atomic_load(&g_board->pid[r]), 0) < 0 && errno == ESRCH);
    munmap(g_board, sizeof(*g_board));
}

static void test_launched_normal_end(void **state)
{
    (void)state;
    pid_t launcher = launch("normal");
    check_launched(status_of(launcher), 0);
}

static void test_launched_rank_exits(void **state)
{
    (void)state;
    pid_t launcher = launch("exit-3");
    check_launched(status_of(launcher), 3);
}

static void test_launched_rank_killed(void **state)
{
    (void)state;
    pid_t launcher = launch("sum");
    wait_for_rounds(40);
    assert_int_equal(kill(atomic_load(&g_board->pid[VICTIM]), SIGKILL), 0);
    check_launched(status_of(launcher), 128 + SIGKILL);
}

static void test_launched_ranks_killed(void **state)
{
    (void)state;
    pid_t launcher = launch("forever");
    wait_for_rounds(LAUNCHED);
    for (int r = 0; r < LAUNCHED; r++) /* none can end of another one's death before its own */
        assert_int_equal(kill(atomic_load(&g_board->pid[r]), SIGSTOP), 0);
    for (int r = 0; r < LAUNCHED; r++)
        assert_int_equal(kill(atomic_load(&g_board->pid[r]), SIGKILL), 0);
    check_launched(status_of(launcher), 128 + SIGKILL);
}

/* Its ranks wait for ever in a barrier: they must end all the same. */
static void test_launcher_killed(void **state)
{
    (void)state;
    pid_t launcher = launch("forever");
    wait_for_rounds(LAUNCHED);
    assert_int_equal(kill(launcher, SIGKILL), 0);
    int status = status_of(launcher);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    check_processes();
    for (int r = 0; r < LAUNCHED; r++)
        assert_true(kill(atomic_load(&g_board->pid[r]), 0) < 0 && errno == ESRCH);
    munmap(g_board, sizeof(*g_board));
}

/* Before its ranks have joined, too. */
static void test_launcher_killed_at_once(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 10; i++) {
        pid_t launcher = launch("forever");
        usleep((useconds_t)(reference_random(test_seed(), 4, i) % 20000));
        assert_int_equal(kill(launcher, SIGKILL), 0);
        int status = status_of(launcher);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        check_processes();
        munmap(g_board, sizeof(*g_board));
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest k_tests[] = {
        TEST(normal_end),          TEST(end_without_finalize),    TEST(one_rank_killed),
        TEST(all_ranks_killed),    TEST(killed_while_joining),    TEST(launched_normal_end),
        TEST(launched_rank_exits), TEST(launched_rank_killed),    TEST(launched_ranks_killed),
        TEST(launcher_killed),     TEST(launcher_killed_at_once),
    };
    if (argc == 3 && strcmp(argv[1], "--rank-body") == 0)
        return rank_body(argv[2]);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    test_seed();
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
