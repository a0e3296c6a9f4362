/* detection_idle.c - what watching costs those who have nothing to do, and what is left of it. */
#include <pthread.h>
#include <sys/resource.h>

#include "deaths.h"

#define RANKS 4
#define MINUTE_MS 60000

/* ---- threads -------------------------------------------------------------------------------- */

/* A thread that has been joined may be listed for a moment longer; one that stays is for the
 * watchdog. */
static void await_threads(test_rank *self, int wanted)
{
    test_at(self, "waiting until this process has %d threads, now %d", wanted, thread_count());
    while (thread_count() != wanted)
        test_sleep_ms(1);
}

static void body_twice(test_rank *self)
{
    int before = 0;

    for (int i = 0; i < 3; i++) {
        if (i == (TEST_SANITIZER ? 1 : 0)) /* a sanitizer's own thread comes with the first one */
            before = thread_count();
        if (!test_expect(self, SERRY_OK, test_init(self, MINUTE_MS, &self->comm), NULL, "init"))
            return;
        EXPECT_OK(self, serry_barrier(self->comm));
        EXPECT_OK(self, serry_finalize(&self->comm));
        test_meet(self); /* the name of the job is free again */
        if (before != 0)
            await_threads(self, before);
    }
}

static void no_thread_is_left_after_the_last_finalize(void **state)
{
    (void)state;
    for (int size = 1; size <= RANKS; size += RANKS - 1) {
        test_options options = {.kind = SERRY_PROCESSES, .size = size, .body_joins = true};
        test_end(test_start(&options, body_twice, NULL));
    }
}

static void body_barrier(test_rank *self)
{
    EXPECT_OK(self, serry_barrier(self->comm));
}

static void no_thread_is_left_after_thread_ranks(void **state)
{
    (void)state;
    run_ranks(SERRY_THREADS, RANKS, body_barrier, NULL);
    int before = thread_count();
    run_ranks(SERRY_THREADS, RANKS, body_barrier, NULL);
    while (thread_count() != before)
        test_sleep_ms(1);
}

static void body_one_ends(test_rank *self)
{
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == 1)
        death_now(self);
    expect_failed(self, self->comm, serry_barrier(self->comm), (const int[]){1, -1}, "barrier");
}

/* Fault:  a thread rank ends without finalize; another thread finalizes its communicator later.
 * Expect: no thread stays, and nothing of the ended thread's lock troubles the process. */
static void no_thread_is_left_after_a_thread_rank_has_ended(void **state)
{
    (void)state;
    test_options options = {.kind = SERRY_THREADS, .size = RANKS};
    int before = thread_count();
    test_run *run = test_start(&options, body_one_ends, NULL);

    test_join(run);
    orphans_free();
    while (thread_count() != before)
        test_sleep_ms(1);
    test_end(run);
}

/* ---- a life lock and its thread ------------------------------------------------------------- */

static void *finalize_for_another(void *argument)
{
    test_rank *self = argument;

    test_expect(self, SERRY_ERR_INVALID, serry_finalize(&self->comm), self->comm,
                "finalize in another thread");
    return NULL;
}

/* Fault:  a thread rank is finalized by another thread than the one that joined, which would take its
 *         life lock away under the living holder.
 * Expect: that is refused, and nothing has changed. */
static void body_finalized_elsewhere(test_rank *self)
{
    pthread_t thread;

    EXPECT_OK(self, serry_barrier(self->comm));
    CHECK(self, pthread_create(&thread, NULL, finalize_for_another, self) == 0);
    pthread_join(thread, NULL);
    CHECK(self, self->comm != NULL);
    EXPECT_OK(self, serry_barrier(self->comm));
}

static void thread_ranks_finalized_by_other_threads(void **state)
{
    (void)state;
    run_ranks(SERRY_THREADS, RANKS, body_finalized_elsewhere, NULL);
}

/* ---- idle ----------------------------------------------------------------------------------- */

#define IDLE_MS 2000
#define MOST_CPU_S (0.01 * IDLE_MS / 1000) /* 1 % */

/* All idle outside the library; then all but one asleep in it. */
static void body_idle(test_rank *self)
{
    EXPECT_OK(self, serry_barrier(self->comm));
    test_meet(self);
    double before = cpu_seconds(RUSAGE_SELF);
    test_sleep_ms(IDLE_MS);
    double idle = cpu_seconds(RUSAGE_SELF) - before;
    test_meet(self);
    before = cpu_seconds(RUSAGE_SELF);
    if (self->rank == 0)
        test_sleep_ms(IDLE_MS);
    EXPECT_OK(self, serry_barrier(self->comm));
    double asleep = cpu_seconds(RUSAGE_SELF) - before;
    if (idle >= MOST_CPU_S || asleep >= MOST_CPU_S)
        test_failed(self, "idle for %d ms took %.1f ms of CPU time, waiting as long %.1f ms",
                    IDLE_MS, 1e3 * idle, 1e3 * asleep);
}

static void idle_ranks_use_less_than_one_percent(void **state)
{
    (void)state;
    if (TEST_SANITIZER) {
        print_message("skipped: a sanitizer's own thread is not idle\n");
        skip();
    }
    run_ranks(SERRY_PROCESSES, RANKS, body_idle, NULL);
    run_ranks(SERRY_THREADS, RANKS, body_idle, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_thread_is_left_after_the_last_finalize),
        cmocka_unit_test(no_thread_is_left_after_thread_ranks),
        cmocka_unit_test(no_thread_is_left_after_a_thread_rank_has_ended),
        cmocka_unit_test(thread_ranks_finalized_by_other_threads),
        cmocka_unit_test(idle_ranks_use_less_than_one_percent),
    };

    return cmocka_run_group_tests_name("detection_idle", tests, NULL, NULL);
}
