/* ft_strategies.c - what the fault-tolerant wrapper makes of each error, with mock backends. */
#include "ft_mock.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- when all is well ----------------------------------------------------------------------- */

static void it_costs_no_timeout_when_nobody_waits(void **state)
{
    (void)state;
    chain c;
    mock m;
    chain_one(&c, &m);
    assert_string_equal(c.backend->name, "FT_mock");
    assert_ptr_equal(serry_ft_carrier(c.comm), &m.table);
    for (unsigned i = 1; i <= 5; i++) {
        assert_int_equal(chain_sum(&c), SERRY_OK);
        assert_int_equal(serry_ft_operation(c.comm), i);
        assert_int_equal(serry_timeouts_remaining(serry_ft_timeouts(c.comm), i), 0);
    }
    assert_int_equal(m.runs, 5);
    assert_int_equal(m.meets, 0);
    assert_int_equal(chain_history(&c, NULL), 0);
    assert_int_equal(serry_rank(c.comm), 0);
    assert_int_equal(serry_size(c.comm), 3);
    chain_close(&c);
}

static void an_operation_that_waits_has_a_timeout_and_ends_it(void **state)
{
    (void)state;
    chain c;
    mock m;
    chain_one(&c, &m);
    m.token_at_once = true;
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_false(serry_timeouts_cancel(serry_ft_timeouts(c.comm), 1));
    assert_int_equal(chain_sum(&c), SERRY_OK);
    chain_close(&c);
}

static void other_communicators_have_none_of_it(void **state)
{
    (void)state;
    serry_config config = SERRY_CONFIG_INIT;
    serry_comm *comm;
    config.backend = &serry_backend_self;
    config.rank = 0;
    config.size = 1;
    config.job = "self";
    assert_int_equal(serry_init(&config, &comm), SERRY_OK);
    assert_null(serry_ft_timeouts(comm));
    assert_null(serry_ft_recovery(comm));
    assert_null(serry_ft_carrier(comm));
    assert_int_equal(serry_ft_operation(comm), 0);
    assert_null(serry_ft_timeouts(NULL));
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
}

/* ---- retry ---------------------------------------------------------------------------------- */

static void a_timeout_is_tried_three_times_more_then_all_give_up(void **state)
{
    (void)state;
    serry_error errors[CHAIN_HISTORY];
    serry_error_statistics statistics;
    chain c;
    mock m;
    chain_one(&c, &m);
    assert_int_equal(serry_recovery_max_retries(serry_ft_recovery(c.comm)), 3);
    mock_answer_all(m.run, SERRY_ERR_TIMEOUT, 4);
    assert_int_equal(chain_sum(&c), SERRY_ERR_TIMEOUT);
    assert_int_equal(m.runs, 4);
    assert_int_equal(m.meets, 1);
    assert_int_equal(chain_history(&c, errors), 4);
    for (int i = 0; i < 4; i++) {
        static const char *const counts[] = {"0", "1", "2", "3"};
        assert_int_equal(errors[i].error, SERRY_ERR_TIMEOUT);
        assert_int_equal(errors[i].operation_id, 1);
        assert_int_equal(errors[i].rank, 0);
        assert_string_equal(errors[i].operation, "allreduce");
        assert_context(&errors[i], "RetryCount", counts[i]);
        assert_context(&errors[i], "Backend", "mock");
        assert_context(&errors[i], "Strategy", "RETRY");
    }
    serry_recovery_statistics(serry_ft_recovery(c.comm), &statistics);
    assert_int_equal(statistics.total, 4);
    assert_int_equal(statistics.by_severity[SERRY_RECOVERABLE], 4);
    assert_int_equal(statistics.types, 1);
    assert_int_equal(statistics.by_type[0].count, 4);
    assert_int_equal(statistics.by_operation[0].count, 4);
    assert_string_equal(serry_last_error(c.comm)->message, "the mock says so, number 3");

    assert_int_equal(chain_sum(&c), SERRY_OK); /* the next operation */
    assert_int_equal(serry_ft_operation(c.comm), 2);
    assert_int_equal(m.meets, 1);
    chain_close(&c);
}

static void a_system_error_is_healed_by_retries(void **state)
{
    (void)state;
    chain c;
    mock m;
    chain_one(&c, &m);
    mock_answer_all(m.run, SERRY_ERR_SYSTEM, 3);
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m.runs, 4);
    assert_int_equal(m.meets, 0);
    assert_int_equal(chain_history(&c, NULL), 3);
    assert_int_equal(serry_ft_operation(c.comm), 1);
    mock_answer_all(m.run + 4, SERRY_ERR_SYSTEM, 3); /* attempts are counted for each operation */
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m.runs, 8);
    chain_close(&c);
}

static void retries_pause_and_a_cancellation_ends_the_pause(void **state)
{
    (void)state;
    chain c;
    mock m;
    mock_make(&m, "mock");
    chain_begin(&c, &m, NULL, NULL);
    c.recovery.retry_delay_ms = 60;
    assert_int_equal(chain_open(&c), SERRY_OK);
    mock_answer_all(m.run, SERRY_ERR_SYSTEM, 2);
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    assert_int_equal(chain_sum(&c), SERRY_OK);
    clock_gettime(CLOCK_MONOTONIC, &after);
    assert_true((double)(after.tv_sec - before.tv_sec) +
                    1e-9 * (double)(after.tv_nsec - before.tv_nsec) >=
                0.12);

    serry_timeouts *own;
    serry_token *token;
    assert_int_equal(serry_timeouts_create(0, &own), SERRY_OK);
    assert_int_equal(serry_timeouts_start(own, 1, 0, &token), SERRY_OK);
    assert_true(serry_timeouts_cancel(own, 1));
    assert_int_equal(serry_set_token(c.comm, token), SERRY_OK);
    m.run[3] = SERRY_ERR_SYSTEM;
    assert_int_equal(chain_sum(&c), SERRY_ERR_CANCELLED);
    assert_int_equal(m.runs, 4);
    assert_int_equal(m.meets, 1);
    serry_token_release(&token);
    serry_timeouts_destroy(&own);
    chain_close(&c);
}

/* ---- errors that are no matter for a meeting ------------------------------------------------ */

static void a_mismatch_is_handed_on_at_once(void **state)
{
    (void)state;
    static const int codes[] = {
        SERRY_ERR_RANK_MISMATCH, SERRY_ERR_RANK_FAILED, SERRY_ERR_RANK_JOINED, SERRY_ERR_INVALID,
        SERRY_ERR_PENDING,       SERRY_ERR_REVOKED,     SERRY_ERR_EXCLUDED,    SERRY_ERR_ARENA};
    serry_error errors[CHAIN_HISTORY];
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        chain c;
        mock m;
        chain_one(&c, &m);
        m.run[0] = codes[i];
        assert_int_equal(chain_sum(&c), codes[i]);
        assert_int_equal(m.runs, 1);
        assert_int_equal(m.meets, 0);
        assert_int_equal(chain_history(&c, errors), 1);
        assert_context(&errors[0], "Strategy", "ABORT");
        assert_int_equal(serry_last_error(c.comm)->error, codes[i]);
        assert_int_equal(chain_sum(&c), SERRY_OK);
        chain_close(&c);
    }
}

static void all_retry_a_mismatch_where_they_are_told_to(void **state)
{
    (void)state;
    chain c;
    mock m;
    chain_one(&c, &m);
    chain_set(&c, SERRY_ERR_RANK_MISMATCH, SERRY_RETRY);
    chain_set(&c, SERRY_ERR_REVOKED, SERRY_RETRY); /* is not followed */
    m.run[0] = SERRY_ERR_RANK_MISMATCH;
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m.runs, 2);
    m.run[2] = SERRY_ERR_REVOKED;
    assert_int_equal(chain_sum(&c), SERRY_ERR_REVOKED);
    assert_int_equal(m.runs, 3);
    mock_answer_all(m.run + 3, SERRY_ERR_RANK_MISMATCH, 4); /* others may have attempts left */
    assert_int_equal(chain_sum(&c), SERRY_ERR_RANK_MISMATCH);
    assert_int_equal(m.runs, 7);
    assert_int_equal(m.meets, 1);
    chain_close(&c);
}

/* ---- another algorithm ---------------------------------------------------------------------- */

static void another_algorithm_is_taken_and_kept(void **state)
{
    (void)state;
    chain c;
    mock m;
    chain_one(&c, &m);
    m.variants = 3;
    chain_set(&c, SERRY_ERR_SYSTEM, SERRY_DIFFERENT_ALGORITHM);
    mock_answer_all(m.run, SERRY_ERR_SYSTEM, 2);
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m.variant, 2);
    assert_int_equal(m.meets, 2);
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m.variant, 2);
    m.run[4] = SERRY_ERR_SYSTEM; /* there is no further one, and no further backend */
    assert_int_equal(chain_sum(&c), SERRY_ERR_SYSTEM);
    assert_int_equal(chain_sum(&c), SERRY_OK);
    chain_close(&c);
}

static void another_rank_wants_another_algorithm(void **state)
{
    (void)state;
    uint64_t vote = mock_vote(1, SERRY_ERR_SYSTEM, SERRY_DIFFERENT_ALGORITHM);
    chain c;
    mock m;
    chain_one(&c, &m);
    m.variants = 2;
    m.run[0] = SERRY_ERR_MEETING;
    m.meet[0].votes = vote;
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m.variant, 1);
    assert_int_equal(m.runs, 2);
    assert_int_equal(chain_history(&c, NULL), 0);
    m.run[2] = SERRY_ERR_MEETING; /* again: all get its error */
    m.meet[1].votes = vote;
    assert_int_equal(chain_sum(&c), SERRY_ERR_SYSTEM);
    assert_int_equal(serry_last_error(c.comm)->peer, 1);
    chain_close(&c);
}

/* It has not heard of algorithms that were changed before it came. */
static void a_replacement_begins_with_the_first_algorithm(void **state)
{
    (void)state;
    chain c;
    mock m;
    chain_one(&c, &m);
    m.variants = 4;
    chain_set(&c, SERRY_ERR_SYSTEM, SERRY_DIFFERENT_ALGORITHM);
    mock_answer_all(m.run, SERRY_ERR_SYSTEM, 2);
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m.variant, 2);
    m.run[3] = SERRY_ERR_MEETING;
    m.joins = 3;
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m.variant, 0);
    m.run[5] = SERRY_ERR_SYSTEM;
    m.joins = 4; /* admitted by the meeting about an algorithm: there is another one with it */
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m.variant, 1);
    assert_int_equal(m.meets, 5);
    assert_int_equal(m.vote[4], m.vote[3]);
    chain_close(&c);
}

/* ---- what goes through ---------------------------------------------------------------------- */

static void agree_and_shrink_are_only_retried(void **state)
{
    (void)state;
    uint64_t value = 5;
    chain c;
    mock m;
    chain_one(&c, &m);
    mock_answer_all(m.agree, SERRY_ERR_SYSTEM, 2);
    assert_int_equal(serry_agree(c.comm, SERRY_BOR, &value), SERRY_OK);
    assert_int_equal(m.agrees, 3);
    chain_set(&c, SERRY_ERR_NO_SPACE, SERRY_FALLBACK_BACKEND);
    m.agree[3] = SERRY_ERR_NO_SPACE;
    assert_int_equal(serry_agree(c.comm, SERRY_BOR, &value), SERRY_ERR_NO_SPACE);
    assert_string_equal(serry_last_error(c.comm)->operation, "agree");
    assert_int_equal(m.meets, 0);
    assert_int_equal(serry_agree(c.comm, SERRY_BOR, &value), SERRY_OK);
    chain_close(&c);
}

static void parts_are_wrapped_and_inherit_strategies(void **state)
{
    (void)state;
    serry_comm *part, *none, *rest;
    uint64_t send = 42, recv = 7;
    chain c;
    mock m;
    chain_one(&c, &m);
    chain_set(&c, SERRY_ERR_NO_SPACE, SERRY_RETRY);
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(serry_split(c.comm, 3, 1, &part), SERRY_OK);
    assert_int_equal(serry_split(c.comm, SERRY_UNDEFINED, 1, &none), SERRY_OK);
    assert_null(none);
    assert_int_equal(serry_shrink(c.comm, &rest), SERRY_OK);
    assert_int_equal(serry_ft_operation(c.comm), 4);
    assert_int_equal(serry_ft_operation(part), 0);
    assert_true(serry_ft_recovery(part) != serry_ft_recovery(c.comm));
    assert_int_equal(serry_recovery_strategy(serry_ft_recovery(part), SERRY_ERR_NO_SPACE),
                     SERRY_RETRY);
    m.run[1] = SERRY_ERR_NO_SPACE;
    assert_int_equal(serry_allreduce(&send, &recv, 1, SERRY_U64, SERRY_SUM, part), SERRY_OK);
    assert_int_equal(serry_ft_operation(part), 1);
    assert_int_equal(chain_history(&c, NULL), 0);
    assert_int_equal(serry_finalize(&part), SERRY_OK);
    assert_int_equal(serry_finalize(&rest), SERRY_OK);
    assert_int_equal(m.closes, 2);
    m.closes = 0;
    chain_close(&c);
}

static void bad_configurations_are_refused(void **state)
{
    (void)state;
    serry_backend *good, *bad;
    const serry_backend *one[] = {&serry_backend_self, NULL};
    serry_ft_config config = SERRY_FT_CONFIG_INIT;
    assert_int_equal(serry_ft_create(NULL, &bad), SERRY_ERR_INVALID);
    assert_int_equal(serry_ft_create(&config, &bad), SERRY_ERR_INVALID);
    assert_null(bad);
    config.chain = one;
    config.count = SERRY_FT_CHAIN_MAX + 1;
    assert_int_equal(serry_ft_create(&config, &bad), SERRY_ERR_INVALID);
    config.count = 2;
    assert_int_equal(serry_ft_create(&config, &bad), SERRY_ERR_INVALID);
    config.count = 1;
    config.recovery.jitter = 2.0;
    assert_int_equal(serry_ft_create(&config, &bad), SERRY_ERR_INVALID);
    config.recovery.jitter = 0.0;
    config.bytes--;
    assert_int_equal(serry_ft_create(&config, &bad), SERRY_ERR_INVALID);
    config.bytes++;
    assert_int_equal(serry_ft_create(&config, &good), SERRY_OK);
    one[0] = good;
    assert_int_equal(serry_ft_create(&config, &bad), SERRY_ERR_INVALID);
    assert_non_null(strstr(serry_last_error(NULL)->message, "a chain itself"));
    serry_ft_destroy(&good);
    serry_ft_destroy(&good);
}

int main(void)
{
    const struct CMUnitTest k_tests[] = {
        cmocka_unit_test(it_costs_no_timeout_when_nobody_waits),
        cmocka_unit_test(an_operation_that_waits_has_a_timeout_and_ends_it),
        cmocka_unit_test(other_communicators_have_none_of_it),
        cmocka_unit_test(a_timeout_is_tried_three_times_more_then_all_give_up),
        cmocka_unit_test(a_system_error_is_healed_by_retries),
        cmocka_unit_test(retries_pause_and_a_cancellation_ends_the_pause),
        cmocka_unit_test(a_mismatch_is_handed_on_at_once),
        cmocka_unit_test(all_retry_a_mismatch_where_they_are_told_to),
        cmocka_unit_test(another_algorithm_is_taken_and_kept),
        cmocka_unit_test(another_rank_wants_another_algorithm),
        cmocka_unit_test(a_replacement_begins_with_the_first_algorithm),
        cmocka_unit_test(agree_and_shrink_are_only_retried),
        cmocka_unit_test(parts_are_wrapped_and_inherit_strategies),
        cmocka_unit_test(bad_configurations_are_refused),
    };
    alarm(120);
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
