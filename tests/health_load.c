/* health_load.c - ranks that live, on a machine that has no time for them. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <serry/health.h>

#include "harness.h"

#define RANKS 4
#define BUSY_A_CORE 20
#define MOST_BUSY 1024
#define PERIOD_MS 10
#define TIMEOUT_MS 30
#define SECONDS 3.0

enum { WATCHED, BEHIND, SEEN_UNRESPONSIVE, SEEN_STARVED }; /* flags and numbers */

/* ---- the load ----------------------------------------------------------------------------------- */

static pid_t g_busy[MOST_BUSY];
static int g_busy_count;

static int start_load(void **state)
{
    pid_t parent = getpid();
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    (void)state;
    while (g_busy_count < BUSY_A_CORE * cores && g_busy_count < MOST_BUSY) {
        pid_t pid = fork();
        if (pid < 0)
            return -1;
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            while (getppid() == parent)
                for (volatile int i = 0; i < 1000000; i++)
                    ;
            _exit(0);
        }
        g_busy[g_busy_count++] = pid;
    }
    return 0;
}

static int end_load(void **state)
{
    (void)state;
    for (int i = 0; i < g_busy_count; i++)
        kill(g_busy[i], SIGKILL);
    for (int i = 0; i < g_busy_count; i++)
        waitpid(g_busy[i], NULL, 0);
    g_busy_count = 0;
    return 0;
}

/* Milliseconds that this thread has wanted to run and could not. */
static double ms_behind(void)
{
    unsigned long long ran, waited = 0;
    FILE *file = fopen("/proc/thread-self/schedstat", "re");

    if (file == NULL || fscanf(file, "%llu %llu", &ran, &waited) != 2)
        waited = 0;
    if (file != NULL)
        fclose(file);
    return (double)waited / 1e6;
}

/* ---- ranks under load --------------------------------------------------------------------------- */

typedef struct watched {
    test_rank *self;
    double unresponsive, starved;
} watched;

static void note(int rank, serry_rank_status before, serry_rank_status after,
                 const serry_health_report *report, void *argument)
{
    watched *w = argument;
    char text[SERRY_HEALTH_TEXT_MAX];

    (void)rank, (void)before;
    w->unresponsive += after == SERRY_UNRESPONSIVE;
    w->starved += report->activity == SERRY_STARVED;
    if (after == SERRY_FAILED)
        test_failed(w->self, "%s", serry_health_text(report, text, sizeof(text)));
}

/* All ranks watch all ranks, and go on with operations between long pauses. */
static void body_starved(test_rank *self)
{
    watched w = {.self = self};
    serry_health_config config = SERRY_HEALTH_CONFIG_INIT;
    serry_health *health;
    double until = test_now() + SECONDS;
    int going = 1;

    if (*(const bool *)self->argument)
        setpriority(PRIO_PROCESS, 0, 19); /* nearly no share at all, also for threads to come */
    if (!test_expect(self, SERRY_OK, test_init(self, 0, &self->comm), NULL, "init"))
        return;
    config.period_ms = PERIOD_MS;
    config.heartbeat_timeout_ms = TIMEOUT_MS;
    config.on_change = note;
    config.argument = &w;
    test_expect(self, SERRY_OK, serry_health_create(self->comm, &config, &health), NULL, "create");
    test_expect(self, SERRY_OK, serry_health_start(health), NULL, "start");
    while (going > 0) {
        going = self->rank == 0 && test_now() < until;
        EXPECT_OK(self, serry_broadcast(&going, 1, SERRY_I32, 0, self->comm));
        for (volatile int i = 0; i < 1000000; i++) /* wants a core */
            ;
    }
    serry_health_destroy(&health);
    test_meet(self); /* nobody leaves while somebody watches */
    test_mine(self)->number[BEHIND] = ms_behind();
    test_mine(self)->number[SEEN_UNRESPONSIVE] = w.unresponsive;
    test_mine(self)->number[SEEN_STARVED] = w.starved;
    EXPECT_OK(self, serry_finalize(&self->comm));
}

/* Fault:  20 processes a core that never pause, and ranks that the system hardly runs beside them.
 * Expect: nobody fails by that, though timeouts are much shorter than the waits for a core. */
static void run_starved(serry_kind_of_rank kind, bool last_in_line)
{
    test_options options = {.kind = kind, .size = RANKS, .body_joins = true};
    test_run *run = test_start(&options, body_starved, &last_in_line);
    double behind = 0, unresponsive = 0, starved = 0;

    test_join(run);
    for (int r = 0; r < RANKS; r++) {
        behind += test_report_of(run, r)->number[BEHIND];
        unresponsive += test_report_of(run, r)->number[SEEN_UNRESPONSIVE];
        starved += test_report_of(run, r)->number[SEEN_STARVED];
    }
    test_end(run);
    print_message("# %s%s: %.0f ms behind, unresponsive %.0f times, starved then %.0f times\n",
                  test_kind_name(kind), last_in_line ? ", last in line" : "", behind, unresponsive,
                  starved);
    assert_true(behind > 1000); /* the load was felt */
}

static void starved_processes_do_not_fail(void **state)
{
    (void)state;
    run_starved(SERRY_PROCESSES, false);
}

static void starved_processes_that_are_last_in_line_do_not_fail(void **state)
{
    (void)state;
    run_starved(SERRY_PROCESSES, true);
}

static void starved_threads_do_not_fail(void **state)
{
    (void)state;
    run_starved(SERRY_THREADS, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(starved_processes_do_not_fail),
        cmocka_unit_test(starved_processes_that_are_last_in_line_do_not_fail),
        cmocka_unit_test(starved_threads_do_not_fail),
    };

    test_watchdog(250);
    return cmocka_run_group_tests_name("health_load", tests, start_load, end_load);
}
