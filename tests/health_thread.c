/* health_thread.c - the thread of a monitor of ranks' health, and who may call what, and when. */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm.h"
#include "health_fake.h"

static void wait_until(serry_health *health, int rank, serry_rank_status wanted)
{
    while (serry_health_status(health, rank, NULL) != wanted)
        test_sleep_ms(1);
}

static void the_thread_looks_until_it_is_stopped_and_again(void **state)
{
    (void)state;
    serry_health_config c = fake_config();
    serry_health *health = fake_watch(&c);

    for (int i = 0; i < 3; i++) {
        assert_int_equal(serry_health_start(health), SERRY_OK);
        assert_int_equal(serry_health_start(health), SERRY_OK);
        fake_well(1, false);
        wait_until(health, 1, SERRY_FAILED);
        fake_well(1, true);
        wait_until(health, 1, SERRY_HEALTHY);
        assert_int_equal(serry_health_stop(health), SERRY_OK);
        assert_int_equal(serry_health_stop(health), SERRY_OK);
        assert_int_equal(atomic_load(&fake_change_count), 3 * (i + 1));
        fake_well(2, false);
        test_sleep_ms(3 * TIMEOUT_MS); /* nobody looks, and it does not count later */
        assert_int_equal(serry_health_status(health, 2, NULL), SERRY_HEALTHY);
        fake_well(2, true);
    }
    serry_health_start(health);
    serry_health_destroy(&health); /* stops it */
}

static serry_health *g_health;
static _Atomic int g_from_within; /* 1: all was as it should be there; -1: it was not */

/* From within: all that changes something is refused, and questions are answered. */
static void call_everything(int rank, serry_rank_status before, serry_rank_status after,
                            const serry_health_report *report, void *argument)
{
    serry_health *health = g_health;
    serry_rank_set ranks;
    bool right = serry_health_start(health) == SERRY_ERR_INVALID &&
                 serry_health_stop(health) == SERRY_ERR_INVALID &&
                 serry_health_check(health) == SERRY_ERR_INVALID &&
                 serry_health_update(health, rank) == SERRY_ERR_INVALID &&
                 serry_health_destroy(&health) == SERRY_ERR_INVALID && health == g_health &&
                 serry_health_status(health, rank, NULL) == after && before == SERRY_HEALTHY &&
                 serry_health_healthy(health, &ranks) == FAKE_SIZE - 1 &&
                 serry_health_unresponsive(health) == 1 && report->rank == rank;

    (void)argument;
    atomic_store(&g_from_within, right ? 1 : -1);
}

static void on_change_may_ask_but_not_change(void **state)
{
    (void)state;
    for (int by_hand = 0; by_hand < 2; by_hand++) {
        fake_all_well(NULL);
        serry_health_config c = fake_config();
        c.on_change = call_everything;
        g_health = fake_watch(&c);
        atomic_store(&g_from_within, 0);
        fake_says(3, (serry_vitals){.failed = true, .activity = SERRY_GONE});
        if (by_hand)
            serry_health_check(g_health);
        else
            serry_health_start(g_health);
        while (atomic_load(&g_from_within) == 0)
            test_sleep_ms(1);
        assert_int_equal(atomic_load(&g_from_within), 1);
        assert_int_equal(serry_health_stop(g_health), SERRY_OK);
        serry_health_destroy(&g_health);
    }
}

static void *ask_and_change(void *argument)
{
    serry_health *health = argument;

    for (int i = 0; i < 200; i++) {
        serry_health_report report;
        serry_health_status(health, i % FAKE_SIZE, &report);
        serry_health_update(health, i % FAKE_SIZE);
        serry_health_check(health);
        serry_health_unresponsive(health);
        if (i % 20 == 0) {
            serry_health_start(health);
            serry_health_stop(health);
        }
    }
    return NULL;
}

static void any_thread_may_call_at_any_time(void **state)
{
    (void)state;
    serry_health_config c = fake_config();
    pthread_t threads[4];
    serry_health *health = fake_watch(&c);

    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask_and_change, health), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(serry_health_destroy(&health), SERRY_OK);
}

/* Fault:  a fork while the thread runs.
 * Expect: in the child nothing works but destroy, and nothing hangs. */
static void the_child_of_a_fork_can_only_destroy(void **state)
{
    (void)state;
    serry_health_config c = fake_config();
    serry_health *health = fake_watch(&c);
    int status;

    serry_health_start(health);
    pid_t pid = fork();
    if (pid == 0) {
        serry_forks++; /* serry_init, which counts, was never called here */
        bool right = serry_health_start(health) == SERRY_ERR_FORKED &&
                     serry_health_stop(health) == SERRY_ERR_FORKED &&
                     serry_health_check(health) == SERRY_ERR_FORKED &&
                     serry_health_update(health, 1) == SERRY_ERR_FORKED &&
                     serry_health_status(health, 1, NULL) == SERRY_FAILED &&
                     serry_health_healthy(health, NULL) == 0 &&
                     serry_health_destroy(&health) == SERRY_OK && health == NULL &&
                     serry_health_create(&fake_comm, NULL, &health) == SERRY_ERR_FORKED;
        _exit(right ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(serry_health_destroy(&health), SERRY_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_thread_looks_until_it_is_stopped_and_again, fake_all_well),
        cmocka_unit_test_setup(on_change_may_ask_but_not_change, fake_all_well),
        cmocka_unit_test_setup(any_thread_may_call_at_any_time, fake_says_nothing),
        cmocka_unit_test_setup(the_child_of_a_fork_can_only_destroy, fake_all_well),
    };

    test_watch(true);
    return cmocka_run_group_tests_name("health_thread", tests, NULL, NULL);
}
