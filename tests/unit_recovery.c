/* unit_recovery.c - which strategy an error gets, how often, and after which pause. */
#include "unit_recovery.h"

#include <limits.h>
#include <math.h>
#include <unistd.h>

/* ---- the specification's defaults --------------------------------------------------------- */

static void three_retries_after_100_ms_each(void **state)
{
    (void)state;
    serry_recovery *recovery = create(NULL);
    assert_int_equal(serry_recovery_max_retries(recovery), 3);
    for (int i = 1; i <= 6; i++) {
        serry_decision d = handle(recovery, SERRY_ERR_TIMEOUT, "allreduce", 1);
        assert_int_equal(d.strategy, SERRY_RETRY);
        assert_int_equal(d.attempts, i);
        assert_int_equal(d.retry, i <= 3);
        assert_int_equal(d.delay_ms, i <= 3 ? 100 : 0);
    }
    serry_recovery_destroy(&recovery);
    assert_null(recovery);
    serry_recovery_destroy(&recovery);
}

static void a_timeout_is_retried(void **state)
{
    (void)state;
    serry_recovery *recovery = create(NULL);
    assert_int_equal(serry_recovery_strategy(recovery, SERRY_ERR_TIMEOUT), SERRY_RETRY);
    assert_true(handle(recovery, SERRY_ERR_TIMEOUT, "barrier", 1).retry);
    serry_recovery_destroy(&recovery);
}

static void a_mismatch_is_aborted(void **state)
{
    (void)state;
    serry_recovery *recovery = create(NULL);
    assert_int_equal(serry_recovery_strategy(recovery, SERRY_ERR_RANK_MISMATCH), SERRY_ABORT);
    assert_false(handle(recovery, SERRY_ERR_RANK_MISMATCH, "barrier", 1).retry);
    /* by its own class: what is said of all errors does not touch it */
    serry_recovery_set_class_strategy(recovery, SERRY_CLASS_ANY, SERRY_RETRY);
    assert_int_equal(serry_recovery_strategy(recovery, SERRY_ERR_RANK_MISMATCH), SERRY_ABORT);
    serry_recovery_destroy(&recovery);
}

static void an_io_error_is_retried(void **state)
{
    (void)state;
    serry_recovery *recovery = create(NULL);
    assert_int_equal(serry_recovery_strategy(recovery, SERRY_ERR_SYSTEM), SERRY_RETRY);
    assert_true(handle(recovery, SERRY_ERR_SYSTEM, "barrier", 1).retry);
    serry_recovery_destroy(&recovery);
}

static void everything_else_is_aborted(void **state)
{
    (void)state;
    serry_recovery *recovery = create(NULL);
    for (size_t i = 0; i < SERRY_ERROR_CODES; i++) {
        if (k_codes[i] == SERRY_ERR_TIMEOUT || k_codes[i] == SERRY_ERR_SYSTEM)
            continue;
        serry_decision d = handle(recovery, k_codes[i], "barrier", i);
        assert_int_equal(d.strategy, SERRY_ABORT);
        assert_false(d.retry);
        assert_int_equal(d.delay_ms, 0);
    }
    serry_decision d = handle(recovery, -1000, "barrier", 1000);
    assert_int_equal(d.strategy, SERRY_ABORT);
    assert_false(d.retry);
    serry_recovery_destroy(&recovery);
}

/* ---- strategies --------------------------------------------------------------------------- */

static void the_code_goes_before_the_class_before_any(void **state)
{
    (void)state;
    serry_recovery *recovery = create(NULL);
    assert_int_equal(
        serry_recovery_set_class_strategy(recovery, SERRY_CLASS_ANY, SERRY_DIFFERENT_ALGORITHM),
        SERRY_OK);
    assert_int_equal(serry_recovery_strategy(recovery, SERRY_ERR_RANK_FAILED),
                     SERRY_DIFFERENT_ALGORITHM);
    assert_int_equal(serry_recovery_strategy(recovery, -1000), SERRY_DIFFERENT_ALGORITHM);

    assert_int_equal(
        serry_recovery_set_class_strategy(recovery, SERRY_CLASS_MEMBERSHIP, SERRY_FALLBACK_BACKEND),
        SERRY_OK);
    assert_int_equal(serry_recovery_strategy(recovery, SERRY_ERR_RANK_FAILED),
                     SERRY_FALLBACK_BACKEND);
    assert_int_equal(serry_recovery_strategy(recovery, SERRY_ERR_EXCLUDED), SERRY_FALLBACK_BACKEND);
    assert_int_equal(serry_recovery_strategy(recovery, SERRY_ERR_NO_SPACE),
                     SERRY_DIFFERENT_ALGORITHM);

    assert_int_equal(serry_recovery_set_strategy(recovery, SERRY_ERR_EXCLUDED, SERRY_ABORT),
                     SERRY_OK);
    assert_int_equal(serry_recovery_strategy(recovery, SERRY_ERR_EXCLUDED), SERRY_ABORT);
    assert_int_equal(serry_recovery_strategy(recovery, SERRY_ERR_RANK_FAILED),
                     SERRY_FALLBACK_BACKEND);
    serry_recovery_destroy(&recovery);
}

static void every_strategy_can_be_set_for_every_code(void **state)
{
    (void)state;
    serry_recovery *recovery = create(NULL);
    uint64_t id = 0;
    for (int s = 0; s < SERRY_STRATEGIES; s++)
        for (size_t i = 0; i < SERRY_ERROR_CODES; i++) {
            serry_strategy strategy = (serry_strategy)s;
            assert_int_equal(serry_recovery_set_strategy(recovery, k_codes[i], strategy), SERRY_OK);
            serry_decision d = handle(recovery, k_codes[i], "gather", ++id);
            assert_int_equal(d.strategy, strategy);
            assert_int_equal(d.retry, strategy != SERRY_ABORT);
            assert_int_equal(d.delay_ms, strategy == SERRY_RETRY ? 100 : 0);
        }
    serry_recovery_destroy(&recovery);
}

static void what_is_no_code_class_or_strategy_is_refused(void **state)
{
    (void)state;
    serry_recovery *recovery = create(NULL);
    assert_int_equal(serry_recovery_set_strategy(recovery, SERRY_OK, SERRY_RETRY),
                     SERRY_ERR_INVALID);
    assert_int_equal(serry_recovery_set_strategy(recovery, -1000, SERRY_RETRY), SERRY_ERR_INVALID);
    for (int bad = -1; bad <= (int)SERRY_STRATEGIES; bad += (int)SERRY_STRATEGIES + 1) {
        serry_strategy strategy = (serry_strategy)bad;
        assert_int_equal(serry_recovery_set_strategy(recovery, SERRY_ERR_TIMEOUT, strategy),
                         SERRY_ERR_INVALID);
        assert_int_equal(serry_recovery_set_class_strategy(recovery, SERRY_CLASS_ANY, strategy),
                         SERRY_ERR_INVALID);
    }
    assert_int_equal(serry_recovery_set_class_strategy(recovery, SERRY_ERROR_CLASSES, SERRY_RETRY),
                     SERRY_ERR_INVALID);
    assert_int_equal(serry_recovery_strategy(recovery, SERRY_ERR_TIMEOUT), SERRY_RETRY);
    serry_recovery_destroy(&recovery);
}

/* ---- attempts ----------------------------------------------------------------------------- */

static void attempts_count_for_an_id_and_a_kind_alone(void **state)
{
    (void)state;
    serry_recovery *recovery = create(NULL);
    char kind[] = "allreduce"; /* the same name elsewhere in memory */
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(handle(recovery, SERRY_ERR_TIMEOUT, "allreduce", 1).attempts, 2 * i - 1);
        assert_int_equal(handle(recovery, SERRY_ERR_SYSTEM, kind, 1).attempts, 2 * i);
        assert_int_equal(handle(recovery, SERRY_ERR_TIMEOUT, "allreduce", 2).attempts, i);
        assert_int_equal(handle(recovery, SERRY_ERR_TIMEOUT, "barrier", 1).attempts, i);
    }
    serry_recovery_end(recovery, 1, "allreduce");
    serry_recovery_destroy(&recovery);
}

static void the_limit_holds_whatever_the_strategies(void **state)
{
    (void)state;
    serry_recovery_config config = SERRY_RECOVERY_CONFIG_INIT;
    config.max_retries = 2;
    serry_recovery *recovery = create(&config);
    serry_recovery_set_strategy(recovery, SERRY_ERR_SYSTEM, SERRY_FALLBACK_BACKEND);
    serry_recovery_set_strategy(recovery, SERRY_ERR_NO_SPACE, SERRY_DIFFERENT_ALGORITHM);
    assert_true(handle(recovery, SERRY_ERR_SYSTEM, "reduce", 1).retry);
    assert_true(handle(recovery, SERRY_ERR_NO_SPACE, "reduce", 1).retry);
    assert_false(handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 1).retry);
    assert_false(handle(recovery, SERRY_ERR_SYSTEM, "reduce", 1).retry);
    serry_recovery_destroy(&recovery);

    config.max_retries = 0;
    recovery = create(&config);
    assert_false(handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 1).retry);
    serry_recovery_destroy(&recovery);
}

static void an_operation_that_ended_starts_from_nothing(void **state)
{
    (void)state;
    serry_recovery *recovery = create(NULL);
    for (int i = 0; i < 5; i++) {
        handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 1);
        handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 2);
    }
    serry_recovery_end(recovery, 1, "reduce");
    serry_recovery_end(recovery, 1, "reduce");
    serry_recovery_end(recovery, 2, "gather");
    serry_decision d = handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 1);
    assert_int_equal(d.attempts, 1);
    assert_true(d.retry);
    d = handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 2);
    assert_int_equal(d.attempts, 6);
    assert_false(d.retry);
    serry_recovery_destroy(&recovery);
}

static void attempts_outlive_a_small_history_and_a_clear(void **state)
{
    (void)state;
    for (size_t history = 0; history < 2; history++) {
        serry_recovery_config config = SERRY_RECOVERY_CONFIG_INIT;
        config.history = history;
        serry_recovery *recovery = create(&config);
        for (int i = 1; i <= 5; i++) {
            assert_int_equal(handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 1).attempts, i);
            for (uint64_t other = 0; other < 10; other++)
                handle(recovery, SERRY_ERR_INVALID, "gather", 100 + other);
            serry_recovery_clear(recovery);
        }
        serry_recovery_destroy(&recovery);
    }
}

static void too_many_open_operations_forget_the_quietest(void **state)
{
    (void)state;
    serry_recovery *recovery = create(NULL);
    for (uint64_t id = 0; id < SERRY_RECOVERY_OPEN; id++)
        assert_int_equal(handle(recovery, SERRY_ERR_TIMEOUT, "reduce", id).attempts, 1);
    assert_int_equal(handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 0).attempts, 2);
    assert_int_equal(handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 5000).attempts, 1);
    assert_int_equal(handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 0).attempts, 3);
    assert_int_equal(handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 2).attempts, 2);
    assert_int_equal(handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 1).attempts, 1); /* it was */
    serry_recovery_destroy(&recovery);
}

/* ---- pauses ------------------------------------------------------------------------------- */

static void a_backoff_multiplies_up_to_its_bound(void **state)
{
    (void)state;
    static const int expected[] = {100, 200, 400, 800, 1000, 1000};
    serry_recovery_config config = SERRY_RECOVERY_CONFIG_INIT;
    config.backoff = 2.0;
    config.max_delay_ms = 1000;
    config.max_retries = 6;
    serry_recovery *recovery = create(&config);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 1).delay_ms, expected[i]);
    serry_recovery_destroy(&recovery);

    config.max_delay_ms = 0; /* the delay itself is not made smaller */
    recovery = create(&config);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 1).delay_ms, 100);
    serry_recovery_destroy(&recovery);

    config.retry_delay_ms = 0;
    config.backoff = INFINITY;
    recovery = create(&config);
    assert_int_equal(handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 1).delay_ms, 0);
    assert_int_equal(handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 1).delay_ms, 0);
    serry_recovery_destroy(&recovery);
}

static void jitter_takes_off_its_part_and_repeats_with_its_seed(void **state)
{
    (void)state;
    enum { OPERATIONS = 1000 };
    static int first[OPERATIONS];
    serry_recovery_config config = SERRY_RECOVERY_CONFIG_INIT;
    config.retry_delay_ms = 1000;
    config.jitter = 0.5;
    int low = INT_MAX, high = 0, same = 0;
    for (int run = 0; run < 3; run++) {
        config.seed = run < 2 ? 42 : 43;
        serry_recovery *recovery = create(&config);
        for (int i = 0; i < OPERATIONS; i++) {
            int id = run == 1 ? OPERATIONS - 1 - i : i; /* the order does not matter */
            int delay = handle(recovery, SERRY_ERR_TIMEOUT, "reduce", (uint64_t)id).delay_ms;
            if (run == 0)
                first[id] = delay;
            else if (run == 1)
                assert_int_equal(delay, first[id]);
            else
                same += delay == first[id];
            low = delay < low ? delay : low;
            high = delay > high ? delay : high;
        }
        serry_recovery_destroy(&recovery);
    }
    assert_true(low >= 500 && low < 520);
    assert_true(high <= 1000 && high > 980);
    assert_true(same < OPERATIONS / 50);
}

static void a_configuration_out_of_range_is_refused(void **state)
{
    (void)state;
    enum { BAD = 9 };
    serry_recovery_config bad[BAD];
    for (size_t i = 0; i < BAD; i++)
        bad[i] = (serry_recovery_config)SERRY_RECOVERY_CONFIG_INIT;
    bad[0].bytes--;
    bad[1].max_retries = -1;
    bad[2].retry_delay_ms = -1;
    bad[3].backoff = 0.99;
    bad[4].backoff = NAN;
    bad[5].max_delay_ms = -1;
    bad[6].jitter = -0.01;
    bad[7].jitter = 1.01;
    bad[8].jitter = NAN;
    for (size_t i = 0; i < BAD; i++) {
        serry_recovery *recovery = (serry_recovery *)&bad;
        assert_int_equal(serry_recovery_create(&bad[i], &recovery), SERRY_ERR_INVALID);
        assert_null(recovery);
    }
}

static void a_history_that_no_memory_holds_is_refused(void **state)
{
    (void)state;
    serry_recovery_config config = SERRY_RECOVERY_CONFIG_INIT;
    config.history = SIZE_MAX;
    serry_recovery *recovery = (serry_recovery *)&config;
    assert_int_equal(serry_recovery_create(&config, &recovery), SERRY_ERR_NO_SPACE);
    assert_null(recovery);
}

int main(void)
{
    alarm(WATCHDOG_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_retries_after_100_ms_each),
        cmocka_unit_test(a_timeout_is_retried),
        cmocka_unit_test(a_mismatch_is_aborted),
        cmocka_unit_test(an_io_error_is_retried),
        cmocka_unit_test(everything_else_is_aborted),
        cmocka_unit_test(the_code_goes_before_the_class_before_any),
        cmocka_unit_test(every_strategy_can_be_set_for_every_code),
        cmocka_unit_test(what_is_no_code_class_or_strategy_is_refused),
        cmocka_unit_test(attempts_count_for_an_id_and_a_kind_alone),
        cmocka_unit_test(the_limit_holds_whatever_the_strategies),
        cmocka_unit_test(an_operation_that_ended_starts_from_nothing),
        cmocka_unit_test(attempts_outlive_a_small_history_and_a_clear),
        cmocka_unit_test(too_many_open_operations_forget_the_quietest),
        cmocka_unit_test(a_backoff_multiplies_up_to_its_bound),
        cmocka_unit_test(jitter_takes_off_its_part_and_repeats_with_its_seed),
        cmocka_unit_test(a_configuration_out_of_range_is_refused),
        cmocka_unit_test(a_history_that_no_memory_holds_is_refused),
    };
    return cmocka_run_group_tests_name("recovery", tests, NULL, NULL);
}
