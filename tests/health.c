/* health.c - what the monitor of ranks' health makes of signs of life, of silence and of evidence. The
 * thread has tests of its own (health_thread.c), and real ranks have (health_ranks.c, health_held.c). */
#include "health_fake.h"

/* ---- configuration ------------------------------------------------------------------------------ */

static void wrong_configurations_are_refused(void **state)
{
    (void)state;
    serry_health_config good = fake_config(), wrong[6];
    serry_health *health;

    for (int i = 0; i < 6; i++)
        wrong[i] = good;
    wrong[0].bytes--;
    wrong[1].period_ms = 0;
    wrong[2].heartbeat_timeout_ms = 0;
    wrong[3].heartbeat_timeout_ms = -1;
    wrong[4].exclusion = (serry_exclusion)(SERRY_EXCLUSION_SEAL + 1);
    wrong[5].exclusion = (serry_exclusion)-1;
    for (int i = 0; i < 6; i++) {
        health = (void *)&good;
        assert_int_equal(serry_health_create(&fake_comm, &wrong[i], &health), SERRY_ERR_INVALID);
        assert_null(health);
    }
    assert_int_equal(serry_health_create(NULL, &good, &health), SERRY_ERR_INVALID);
    assert_int_equal(serry_health_create(&fake_comm, NULL, &health), SERRY_OK);
    assert_int_equal(serry_health_destroy(&health), SERRY_OK);
    assert_null(health);
    assert_int_equal(serry_health_destroy(&health), SERRY_OK);
}

static void defaults_are_those_of_the_specification(void **state)
{
    (void)state;
    serry_health_config c = SERRY_HEALTH_CONFIG_INIT;

    assert_int_equal(c.period_ms, 5000);
    assert_int_equal(c.heartbeat_timeout_ms, 30000);
    assert_int_equal(c.exclusion, SERRY_EXCLUSION_NONE);
}

/* ---- status ------------------------------------------------------------------------------------- */

static void all_ranks_are_healthy_at_first(void **state)
{
    (void)state;
    serry_health *health = fake_watch(NULL);
    serry_rank_set ranks;

    for (int r = 0; r < FAKE_SIZE; r++)
        assert_int_equal(serry_health_status(health, r, NULL), SERRY_HEALTHY);
    assert_int_equal(serry_health_healthy(health, &ranks), FAKE_SIZE);
    assert_int_equal(ranks.bits[0], (1 << FAKE_SIZE) - 1);
    assert_int_equal(serry_health_unresponsive(health), 0);
    serry_health_destroy(&health);
}

static void a_rank_that_does_not_exist_has_failed(void **state)
{
    (void)state;
    serry_health *health = fake_watch(NULL);
    const int unknown[] = {-1, FAKE_SIZE, SERRY_MAX_RANKS, 1000000};

    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        serry_health_report report;
        assert_int_equal(serry_health_status(health, unknown[i], &report), SERRY_FAILED);
        assert_int_equal(report.rank, unknown[i]);
        assert_int_equal(report.activity, SERRY_UNKNOWN);
        assert_int_equal(serry_health_update(health, unknown[i]), SERRY_ERR_INVALID);
    }
    serry_health_destroy(&health);
}

/* Fault:  rank 2 shows no sign of life any more, and then does again.
 * Expect: each status once, in order, and nothing about anybody else. */
static void silence_becomes_unresponsive_then_failed_then_healthy(void **state)
{
    (void)state;
    serry_health_config c = fake_config();
    serry_health *health = fake_watch(&c);
    serry_health_report report;
    serry_rank_set ranks;

    look_for(health, 3 * TIMEOUT_MS);
    assert_int_equal(atomic_load(&fake_change_count), 0);
    fake_well(2, false);
    fake_says(2, (serry_vitals){.activity = SERRY_STOPPED});
    look_until(health, 2, SERRY_UNRESPONSIVE);
    assert_int_equal(serry_health_unresponsive(health), 1);
    serry_health_status(health, 2, &report);
    assert_int_equal(report.activity, SERRY_STOPPED);
    assert_true(report.silent_ms >= TIMEOUT_MS);
    look_until(health, 2, SERRY_FAILED);
    assert_int_equal(serry_health_unresponsive(health), 1);
    assert_int_equal(serry_health_healthy(health, &ranks), FAKE_SIZE - 1);
    assert_false(serry_rank_set_has(&ranks, 2));
    serry_health_status(health, 2, &report);
    assert_true(report.silent_ms >= 2 * TIMEOUT_MS);
    assert_false(report.evidence);
    look_for(health, TIMEOUT_MS); /* nothing is told twice */
    fake_well(2, true);
    look_until(health, 2, SERRY_HEALTHY);
    assert_changes((const fake_change[]){{.rank = 2, SERRY_HEALTHY, SERRY_UNRESPONSIVE, {0}},
                                         {.rank = 2, SERRY_UNRESPONSIVE, SERRY_FAILED, {0}},
                                         {.rank = 2, SERRY_FAILED, SERRY_HEALTHY, {0}},
                                         {.rank = -1}});
    assert_int_equal(fake.excluded[2], 0);
    serry_health_destroy(&health);
}

/* Fault:  there is evidence against ranks 3 and 1, which were healthy.
 * Expect: both failed at the next look, in the order of the ranks; a sign of life by hand does not
 *         help. */
static void evidence_is_failure_at_once(void **state)
{
    (void)state;
    serry_health_config c = fake_config();
    c.exclusion = SERRY_EXCLUSION_KILL;
    serry_health *health = fake_watch(&c);
    serry_health_report report;

    fake_says(3, (serry_vitals){.activity = SERRY_GONE, .failed = true});
    fake_says(1, (serry_vitals){.activity = SERRY_GONE, .failed = true});
    assert_int_equal(serry_health_check(health), SERRY_OK);
    assert_changes((const fake_change[]){{.rank = 1, SERRY_HEALTHY, SERRY_FAILED, {0}},
                                         {.rank = 3, SERRY_HEALTHY, SERRY_FAILED, {0}},
                                         {.rank = -1}});
    serry_health_status(health, 3, &report);
    assert_true(report.evidence);
    assert_int_equal(serry_health_update(health, 3), SERRY_ERR_RANK_FAILED);
    assert_int_equal(serry_health_status(health, 3, NULL), SERRY_FAILED);
    assert_int_equal(fake.excluded[1] + fake.excluded[3], 0); /* there is no need */
    fake_says(3, (serry_vitals){0});                          /* a replacement */
    serry_health_check(health);
    assert_int_equal(serry_health_status(health, 3, NULL), SERRY_HEALTHY);
    serry_health_destroy(&health);
}

/* Fault:  rank 1 shows no sign of life, because the machine is too busy to run it.
 * Expect: never more than unresponsive; failed only when it is stopped as well. */
static void a_starved_rank_does_not_fail(void **state)
{
    (void)state;
    serry_health_config c = fake_config();
    serry_health *health = fake_watch(&c);

    fake_well(1, false);
    fake_says(1, (serry_vitals){.activity = SERRY_STARVED});
    look_for(health, 10 * TIMEOUT_MS);
    assert_int_equal(serry_health_status(health, 1, NULL), SERRY_UNRESPONSIVE);
    fake_says(1, (serry_vitals){.activity = SERRY_STOPPED});
    look_until(health, 1, SERRY_FAILED);
    fake_says(1, (serry_vitals){.activity = SERRY_STARVED}); /* it goes on: not yet a sign */
    look_for(health, 2 * PERIOD_MS);
    fake_well(1, true);
    look_until(health, 1, SERRY_HEALTHY);
    assert_changes((const fake_change[]){{.rank = 1, SERRY_HEALTHY, SERRY_UNRESPONSIVE, {0}},
                                         {.rank = 1, SERRY_UNRESPONSIVE, SERRY_FAILED, {0}},
                                         {.rank = 1, SERRY_FAILED, SERRY_HEALTHY, {0}},
                                         {.rank = -1}});
    serry_health_destroy(&health);
}

/* Fault:  the monitor itself does not get to look for many timeouts.
 * Expect: that counts as two periods, so nobody is suspected. */
static void the_monitors_own_sleep_is_nobodys_death(void **state)
{
    (void)state;
    serry_health_config c = fake_config();
    serry_health *health = fake_watch(&c);

    for (int r = 0; r < FAKE_SIZE; r++)
        fake_well(r, false);
    for (int i = 0; i < 2; i++) {
        test_sleep_ms(5 * TIMEOUT_MS);
        serry_health_check(health);
    }
    assert_int_equal(atomic_load(&fake_change_count), 0);
    serry_health_destroy(&health);
}

static void the_own_rank_is_always_healthy(void **state)
{
    (void)state;
    serry_health_config c = fake_config();
    serry_health *health = fake_watch(&c);

    fake_says(FAKE_OWN, (serry_vitals){.activity = SERRY_GONE, .failed = true});
    look_for(health, 3 * TIMEOUT_MS);
    assert_int_equal(serry_health_status(health, FAKE_OWN, NULL), SERRY_HEALTHY);
    assert_int_equal(atomic_load(&fake_change_count), 0);
    serry_health_destroy(&health);
}

static void progress_and_life_are_apart(void **state)
{
    (void)state;
    serry_health_config c = fake_config();
    serry_health *health = fake_watch(&c);
    serry_health_report report;

    fake_says(1, (serry_vitals){.progress = 7, .operation = 3, .activity = SERRY_WAITING});
    serry_health_check(health);
    look_for(health, 2 * TIMEOUT_MS);
    serry_health_status(health, 1, &report);
    assert_int_equal(report.status, SERRY_HEALTHY);
    assert_int_equal(report.progress, 7);
    assert_int_equal(report.operation, 3);
    assert_true(report.idle_ms > report.silent_ms);
    fake_says(1, (serry_vitals){.progress = 8});
    serry_health_check(health);
    serry_health_status(health, 1, &report);
    assert_int_equal(report.idle_ms, 0);
    assert_int_equal(report.operation, 0);
    serry_health_destroy(&health);
}

/* ---- by hand ------------------------------------------------------------------------------------ */

/* Fault:  a backend without signs of life; one rank is updated by hand, the others are not.
 * Expect: that one is healthy, the others fail, and an update makes one healthy again. */
static void updates_by_hand_keep_a_rank_healthy(void **state)
{
    (void)state;
    serry_health_config c = fake_config();
    c.heartbeat_timeout_ms = 10 * TIMEOUT_MS; /* no update may be as late as this */
    serry_health *health = fake_watch(&c);
    serry_health_report report;

    while (serry_health_status(health, 1, NULL) != SERRY_FAILED) {
        assert_int_equal(serry_health_update(health, 2), SERRY_OK);
        look_for(health, 2 * PERIOD_MS);
    }
    assert_int_equal(serry_health_status(health, 2, NULL), SERRY_HEALTHY);
    assert_int_equal(serry_health_status(health, 3, NULL), SERRY_FAILED);
    assert_int_equal(serry_health_unresponsive(health), 2);
    assert_int_equal(serry_health_update(health, 1), SERRY_OK);
    assert_int_equal(serry_health_status(health, 1, &report), SERRY_HEALTHY);
    assert_int_equal(report.silent_ms, 0);
    assert_int_equal(report.activity, SERRY_UNKNOWN);
    assert_changes((const fake_change[]){{.rank = 1, SERRY_HEALTHY, SERRY_UNRESPONSIVE, {0}},
                                         {.rank = 3, SERRY_HEALTHY, SERRY_UNRESPONSIVE, {0}},
                                         {.rank = 1, SERRY_UNRESPONSIVE, SERRY_FAILED, {0}},
                                         {.rank = 3, SERRY_UNRESPONSIVE, SERRY_FAILED, {0}},
                                         {.rank = 1, SERRY_FAILED, SERRY_HEALTHY, {0}},
                                         {.rank = -1}});
    serry_health_destroy(&health);
}

/* ---- exclusion ---------------------------------------------------------------------------------- */

/* Fault:  rank 1 is silent for two timeouts.
 * Expect: it is excluded as configured, once, before it is told; what came of it is in the report. */
static void a_failed_rank_is_excluded_as_configured(void **state)
{
    (void)state;
    const int results[] = {SERRY_OK, SERRY_ERR_UNSUPPORTED};

    for (int i = 0; i < 2; i++) {
        fake_all_well(NULL);
        serry_health_config c = fake_config();
        c.exclusion = i == 0 ? SERRY_EXCLUSION_KILL : SERRY_EXCLUSION_SEAL;
        serry_health *health = fake_watch(&c);
        fake.exclude_rc = results[i];
        fake_well(1, false);
        look_until(health, 1, SERRY_FAILED);
        look_for(health, TIMEOUT_MS);
        assert_int_equal(fake.excluded[1], 1);
        assert_int_equal(fake.how, c.exclusion);
        assert_int_equal(atomic_load(&fake_change_count), 2);
        assert_int_equal(fake_changes[0].report.exclusion, SERRY_EXCLUSION_NONE);
        assert_int_equal(fake_changes[1].report.exclusion, c.exclusion);
        assert_int_equal(fake_changes[1].report.exclusion_error, results[i]);
        serry_health_destroy(&health);
    }
}

/* ---- words -------------------------------------------------------------------------------------- */

static void reports_in_words(void **state)
{
    (void)state;
    static const struct {
        serry_health_report report;
        const char *text;
    } cases[] = {
        {{.rank = 1, .activity = SERRY_COMPUTING, .silent_ms = 100},
         "rank 1 is HEALTHY: computing"},
        {{.rank = 2, .activity = SERRY_WAITING, .operation = 17},
         "rank 2 is HEALTHY: waiting in operation 17"},
        {{.rank = 3, .status = SERRY_UNRESPONSIVE, .activity = SERRY_STOPPED, .silent_ms = 31049},
         "rank 3 is UNRESPONSIVE: stopped, silent for 31.0 s"},
        {{.rank = 4, .status = SERRY_FAILED, .activity = SERRY_GONE, .evidence = true},
         "rank 4 is FAILED: gone"},
        {{.rank = 5, .status = SERRY_FAILED, .activity = SERRY_TRACED, .silent_ms = 60000},
         "rank 5 is FAILED: stopped by a debugger, silent for 60.0 s"},
    };
    char text[SERRY_HEALTH_TEXT_MAX];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(serry_health_text(&cases[i].report, text, sizeof(text)), cases[i].text);
    assert_string_equal(serry_health_text(&cases[0].report, text, 7), "rank 1");
    assert_string_equal(serry_rank_status_name((serry_rank_status)99), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_configurations_are_refused),
        cmocka_unit_test(defaults_are_those_of_the_specification),
        cmocka_unit_test_setup(all_ranks_are_healthy_at_first, fake_all_well),
        cmocka_unit_test_setup(a_rank_that_does_not_exist_has_failed, fake_all_well),
        cmocka_unit_test_setup(silence_becomes_unresponsive_then_failed_then_healthy,
                               fake_all_well),
        cmocka_unit_test_setup(evidence_is_failure_at_once, fake_all_well),
        cmocka_unit_test_setup(a_starved_rank_does_not_fail, fake_all_well),
        cmocka_unit_test_setup(the_monitors_own_sleep_is_nobodys_death, fake_all_well),
        cmocka_unit_test_setup(the_own_rank_is_always_healthy, fake_all_well),
        cmocka_unit_test_setup(progress_and_life_are_apart, fake_all_well),
        cmocka_unit_test_setup(updates_by_hand_keep_a_rank_healthy, fake_says_nothing),
        cmocka_unit_test_setup(a_failed_rank_is_excluded_as_configured, fake_all_well),
        cmocka_unit_test(reports_in_words),
    };

    test_watch(true);
    return cmocka_run_group_tests_name("health", tests, NULL, NULL);
}
