/* health_held.c - ranks that live and do not come: stopped, traced and frozen; and how they are excluded
 * where the configuration says so. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "deaths.h"
#include "health_watch.h"

enum { GO_ON, DONE, SKIPPED }; /* flags of a run */

static const int g_victim[] = {VICTIM, -1};

/* ---- stopped, traced, frozen -------------------------------------------------------------------- */

/* A way to hold a rank fast, without its end, and to let it go. */
typedef struct fault {
    serry_activity activity;
    bool (*hold)(test_rank *self); /* false: that cannot be done here */
    void (*let_go)(test_rank *self);
} fault;

static bool stop(test_rank *self)
{
    return kill(victim_pid(self), SIGSTOP) == 0;
}

static void go_on(test_rank *self)
{
    kill(victim_pid(self), SIGCONT);
}

/* Of the victim, by the tracer alone. */
static bool each_thread(test_rank *self, bool (*act)(pid_t thread))
{
    char path[64];
    bool all = true;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)victim_pid(self));
    DIR *tasks = opendir(path);
    if (tasks == NULL)
        return false;
    for (struct dirent *entry = readdir(tasks); entry != NULL && all; entry = readdir(tasks))
        if (entry->d_name[0] != '.')
            all = act((pid_t)atoi(entry->d_name));
    closedir(tasks);
    return all;
}

static bool seize(pid_t thread)
{
    return ptrace(PTRACE_SEIZE, thread, NULL, NULL) == 0 &&
           ptrace(PTRACE_INTERRUPT, thread, NULL, NULL) == 0 &&
           waitpid(thread, NULL, __WALL) == thread;
}

static bool detach(pid_t thread)
{
    return ptrace(PTRACE_DETACH, thread, NULL, NULL) == 0;
}

static bool trace(test_rank *self)
{
    return each_thread(self, seize);
}

static void untrace(test_rank *self)
{
    each_thread(self, detach);
}

static bool put(const char *directory, const char *name, const char *text)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "we");
    if (file == NULL)
        return false;
    bool good = fputs(text, file) >= 0;
    return fclose(file) == 0 && good;
}

static const char *const g_mounts[] = {"/sys/fs/cgroup/unified", "/sys/fs/cgroup"};
static char g_freezer[128], g_thawed[64]; /* the watcher's: groups of its own and before */

static bool freeze(test_rank *self)
{
    char pid[16], line[512];
    struct stat st;

    snprintf(pid, sizeof(pid), "%d", (int)victim_pid(self));
    snprintf(line, sizeof(line), "/proc/%s/cgroup", pid);
    FILE *file = fopen(line, "re");
    bool at_root = false; /* elsewhere somebody else manages the groups */
    while (file != NULL && fgets(line, sizeof(line), file) != NULL)
        at_root |= strcmp(line, "0::/\n") == 0;
    if (file != NULL)
        fclose(file);
    for (int i = 0; i < 2 && at_root; i++) {
        snprintf(g_thawed, sizeof(g_thawed), "%s", g_mounts[i]);
        snprintf(line, sizeof(line), "%s/cgroup.procs", g_thawed);
        snprintf(g_freezer, sizeof(g_freezer), "%s/serry-test-%s", g_thawed, pid);
        if (stat(line, &st) != 0 || mkdir(g_freezer, 0700) != 0)
            continue;
        if (put(g_freezer, "cgroup.procs", pid) && put(g_freezer, "cgroup.freeze", "1"))
            return true;
        put(g_thawed, "cgroup.procs", pid);
        rmdir(g_freezer);
    }
    return false;
}

static void thaw(test_rank *self)
{
    char pid[16];

    snprintf(pid, sizeof(pid), "%d", (int)victim_pid(self));
    put(g_freezer, "cgroup.freeze", "0");
    put(g_thawed, "cgroup.procs", pid);
    while (rmdir(g_freezer) != 0 && errno == EBUSY)
        test_sleep_ms(1);
}

static bool is_rising(const story *s)
{
    static const serry_rank_status rising[] = {SERRY_UNRESPONSIVE, SERRY_FAILED};

    /* a busy machine may have made it unresponsive once before */
    for (int i = 0; i + 1 < atomic_load(&s->count); i++)
        if (s->after[i] == rising[0] && s->after[i + 1] == rising[1])
            return true;
    return false;
}

static void body_held(test_rank *self)
{
    const fault *f = self->argument;

    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == WATCHER) {
        story s;
        serry_health *health = watch(self, SERRY_EXCLUSION_NONE, &s);
        await_status(self, health, SERRY_HEALTHY);
        if (f->hold(self)) {
            await_activity(self, health, f->activity);
            serry_health_report report = await_status(self, health, SERRY_FAILED);
            CHECK(self, report.activity == f->activity);
            CHECK(self, !report.evidence && report.silent_ms >= 2 * TIMEOUT_MS);
            while (!is_rising(&s)) /* the status can be asked for before its change is told */
                test_sleep_ms(1);
            f->let_go(self);
            await_status(self, health, SERRY_HEALTHY);
            await_activity(self, health, SERRY_COMPUTING);
        } else {
            test_raise(self, SKIPPED);
        }
        serry_health_destroy(&health);
        test_raise(self, DONE);
    }
    test_await(self, DONE, 1);
    EXPECT_OK(self, serry_barrier(self->comm)); /* nobody has been excluded */
}

static void run_held(serry_activity activity, bool (*hold)(test_rank *),
                     void (*let_go)(test_rank *))
{
    fault f = {activity, hold, let_go};
    test_options options = {.kind = SERRY_PROCESSES, .size = RANKS};
    test_run *run = test_start(&options, body_held, &f);

    test_join(run);
    bool skipped = test_flag(run, SKIPPED) != 0;
    test_end(run);
    if (skipped)
        skip();
}

/* Fault:  the process of a rank is stopped, traced, or frozen, and later goes on.
 * Expect: unresponsive, failed, with the reason, then healthy; it is not excluded. */
static void a_stopped_rank_fails_and_recovers(void **state)
{
    (void)state;
    run_held(SERRY_STOPPED, stop, go_on);
}

static void a_traced_rank_fails_and_recovers(void **state)
{
    (void)state;
    run_held(SERRY_TRACED, trace, untrace);
}

static void a_frozen_rank_fails_and_recovers(void **state)
{
    (void)state;
    run_held(SERRY_FROZEN, freeze, thaw);
}

/* ---- exclusion ---------------------------------------------------------------------------------- */

static void body_killed(test_rank *self)
{
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == VICTIM) {
        test_mine(self)->killed = 1;
        raise(SIGSTOP);
        test_failed(self, "went on instead of being killed");
        return;
    }
    if (self->rank == WATCHER) {
        story s;
        serry_health *health = watch(self, SERRY_EXCLUSION_KILL, &s);
        serry_health_report report;
        test_at(self, "waiting for evidence");
        do
            report = await_status(self, health, SERRY_FAILED);
        while (!report.evidence);
        CHECK(self, report.exclusion == SERRY_EXCLUSION_KILL && report.exclusion_error == SERRY_OK);
        serry_health_destroy(&health);
    }
    expect_failed(self, self->comm, serry_barrier(self->comm), g_victim, "barrier");
    expect_goes_on(self, self->comm, g_victim);
}

/* Fault:  a rank is stopped for good; the configuration says to kill it.
 * Expect: it is killed and excluded like any dead rank, the others go on. */
static void a_stopped_rank_is_excluded_by_kill(void **state)
{
    (void)state;
    run_deaths(SERRY_PROCESSES, RANKS, body_killed, NULL, g_victim);
}

static void body_sealed(test_rank *self)
{
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == VICTIM) {
        raise(SIGSTOP);
        test_expect(self, SERRY_ERR_EXCLUDED, serry_barrier(self->comm), self->comm, "barrier");
        return;
    }
    if (self->rank == WATCHER) {
        story s;
        serry_health *health = watch(self, SERRY_EXCLUSION_SEAL, &s);
        serry_health_report report;
        test_at(self, "waiting for the seal");
        do
            report = await_status(self, health, SERRY_FAILED);
        while (!report.evidence);
        CHECK(self, report.exclusion == SERRY_EXCLUSION_SEAL && report.exclusion_error == SERRY_OK);
        CHECK(self, process_state(victim_pid(self)) == 'T');
        serry_health_destroy(&health);
    }
    expect_failed(self, self->comm, serry_barrier(self->comm), g_victim, "barrier");
    expect_goes_on(self, self->comm, g_victim);
    if (self->rank == WATCHER)
        go_on(self);
}

/* Fault:  a rank is stopped; the configuration says to seal it; when the others have gone on, it wakes.
 * Expect: EXCLUDED for it, the others go on all the time. */
static void a_stopped_rank_is_excluded_by_seal(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, body_sealed, NULL);
}

static void body_sealed_thread(test_rank *self)
{
    EXPECT_OK(self, serry_barrier(self->comm));
    test_meet(self); /* all have looked again after the barrier */
    if (self->rank == WATCHER) {
        test_expect(self, SERRY_ERR_UNSUPPORTED, exclude(self, VICTIM, SERRY_EXCLUSION_KILL), NULL,
                    "kill");
        test_expect(self, SERRY_ERR_INVALID, exclude(self, WATCHER, SERRY_EXCLUSION_SEAL), NULL,
                    "exclude itself");
        test_expect(self, SERRY_ERR_INVALID, exclude(self, RANKS, SERRY_EXCLUSION_SEAL), NULL,
                    "exclude nobody");
        test_expect(self, SERRY_ERR_INVALID, exclude(self, VICTIM, SERRY_EXCLUSION_NONE), NULL,
                    "exclude not at all");
        for (int i = 0; i < 2; i++)
            test_expect(self, SERRY_OK, exclude(self, VICTIM, SERRY_EXCLUSION_SEAL), NULL, "seal");
        test_raise(self, GO_ON);
    }
    test_await(self, GO_ON, 1);
    if (self->rank == VICTIM) {
        test_expect(self, SERRY_ERR_EXCLUDED, serry_barrier(self->comm), self->comm, "barrier");
        return;
    }
    expect_failed(self, self->comm, serry_barrier(self->comm), g_victim, "barrier");
    expect_goes_on(self, self->comm, g_victim);
}

/* A living thread can be sealed, and not be killed; nobody excludes himself. */
static void a_thread_rank_is_excluded_by_seal_alone(void **state)
{
    (void)state;
    run_ranks(SERRY_THREADS, RANKS, body_sealed_thread, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stopped_rank_fails_and_recovers),
        cmocka_unit_test(a_traced_rank_fails_and_recovers),
        cmocka_unit_test(a_frozen_rank_fails_and_recovers),
        cmocka_unit_test(a_stopped_rank_is_excluded_by_kill),
        cmocka_unit_test(a_stopped_rank_is_excluded_by_seal),
        cmocka_unit_test(a_thread_rank_is_excluded_by_seal_alone),
    };

    return cmocka_run_group_tests_name("health_held", tests, NULL, NULL);
}
