/* ft_strategies.c - what the fault-tolerant wrapper makes of each error, with mock backends. */
#include "ft_mock.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#define HISTORY 64

static void answer_all(int *answers, int code, int times)
{
    for (int i = 0; i < times; i++)
        answers[i] = code;
}

static void set(chain *c, int code, serry_strategy strategy)
{
    assert_int_equal(serry_recovery_set_strategy(serry_ft_recovery(c->comm), code, strategy),
                     SERRY_OK);
}

static size_t history(const chain *c, serry_error *errors)
{
    return serry_recovery_history(serry_ft_recovery(c->comm), errors, errors == NULL ? 0 : HISTORY);
}

static void assert_context(const serry_error *error, const char *key, const char *value)
{
    const char *found = serry_error_context_get(error, key);
    assert_non_null(found);
    assert_string_equal(found, value);
}

/* How another rank votes that hands `code` on, or wants `strategy`. */
static uint64_t vote_of(int rank, int code, serry_strategy strategy)
{
    chain c;
    mock m;
    mock_make(&m, "other");
    m.rank = rank;
    m.run[0] = code;
    chain_begin(&c, &m, NULL, NULL);
    assert_int_equal(chain_open(&c), SERRY_OK);
    set(&c, code, strategy);
    assert_int_equal(chain_sum(&c), code);
    assert_int_equal(m.meets, 1);
    chain_close(&c);
    return m.vote[0];
}

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
    assert_int_equal(history(&c, NULL), 0);
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
    serry_error errors[HISTORY];
    serry_error_statistics statistics;
    chain c;
    mock m;
    chain_one(&c, &m);
    assert_int_equal(serry_recovery_max_retries(serry_ft_recovery(c.comm)), 3);
    answer_all(m.run, SERRY_ERR_TIMEOUT, 4);
    assert_int_equal(chain_sum(&c), SERRY_ERR_TIMEOUT);
    assert_int_equal(m.runs, 4);
    assert_int_equal(m.meets, 1);
    assert_int_equal(history(&c, errors), 4);
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
    answer_all(m.run, SERRY_ERR_SYSTEM, 3);
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m.runs, 4);
    assert_int_equal(m.meets, 0);
    assert_int_equal(history(&c, NULL), 3);
    assert_int_equal(serry_ft_operation(c.comm), 1);
    answer_all(m.run + 4, SERRY_ERR_SYSTEM, 3); /* attempts are counted for each operation */
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
    answer_all(m.run, SERRY_ERR_SYSTEM, 2);
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
    serry_error errors[HISTORY];
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        chain c;
        mock m;
        chain_one(&c, &m);
        m.run[0] = codes[i];
        assert_int_equal(chain_sum(&c), codes[i]);
        assert_int_equal(m.runs, 1);
        assert_int_equal(m.meets, 0);
        assert_int_equal(history(&c, errors), 1);
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
    set(&c, SERRY_ERR_RANK_MISMATCH, SERRY_RETRY);
    set(&c, SERRY_ERR_REVOKED, SERRY_RETRY); /* is not followed */
    m.run[0] = SERRY_ERR_RANK_MISMATCH;
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m.runs, 2);
    m.run[2] = SERRY_ERR_REVOKED;
    assert_int_equal(chain_sum(&c), SERRY_ERR_REVOKED);
    assert_int_equal(m.runs, 3);
    answer_all(m.run + 3, SERRY_ERR_RANK_MISMATCH, 4); /* others may have attempts left */
    assert_int_equal(chain_sum(&c), SERRY_ERR_RANK_MISMATCH);
    assert_int_equal(m.runs, 7);
    assert_int_equal(m.meets, 1);
    chain_close(&c);
}

/* ---- abort ---------------------------------------------------------------------------------- */

static void an_error_of_this_rank_alone_takes_all_to_a_meeting(void **state)
{
    (void)state;
    chain c;
    mock m;
    chain_one(&c, &m);
    m.run[0] = SERRY_ERR_NO_SPACE;
    assert_int_equal(chain_sum(&c), SERRY_ERR_NO_SPACE);
    assert_int_equal(m.runs, 1);
    assert_int_equal(m.meets, 1);
    assert_string_equal(serry_last_error(c.comm)->message, "the mock says so, number 0");
    assert_null(serry_error_context_get(serry_last_error(c.comm), "Meeting"));
    assert_int_equal(chain_sum(&c), SERRY_OK);
    chain_close(&c);
}

static void the_error_of_another_rank_comes_to_this_one(void **state)
{
    (void)state;
    uint64_t vote = vote_of(2, SERRY_ERR_NO_SPACE, SERRY_ABORT);
    chain c;
    mock m;
    chain_one(&c, &m);
    m.run[0] = SERRY_ERR_MEETING;
    m.meet[0].votes = vote;
    assert_int_equal(chain_sum(&c), SERRY_ERR_NO_SPACE);
    assert_int_equal(m.vote[0], 0);
    const serry_error *error = serry_last_error(c.comm);
    assert_int_equal(error->peer, 2);
    assert_true(serry_rank_set_has(&error->ranks, 2));
    assert_non_null(strstr(error->message, "rank 2"));
    assert_non_null(strstr(error->message, "allreduce"));
    assert_int_equal(error->operation_id, 1);
    assert_int_equal(history(&c, NULL), 1);
    assert_int_equal(chain_sum(&c), SERRY_OK);
    chain_close(&c);
}

static void of_several_errors_all_get_the_same(void **state)
{
    (void)state;
    uint64_t vote = vote_of(2, SERRY_ERR_UNSUPPORTED, SERRY_ABORT);
    chain c;
    mock m;
    chain_one(&c, &m);
    m.run[0] = SERRY_ERR_NO_SPACE;
    m.meet[0].votes = vote;
    assert_int_equal(chain_sum(&c), SERRY_ERR_UNSUPPORTED);
    assert_int_equal(serry_last_error(c.comm)->peer, -1);
    assert_non_null(strstr(serry_last_error(c.comm)->message, "several ranks"));
    chain_close(&c);
}

static void abort_wins_over_fallback(void **state)
{
    (void)state;
    uint64_t vote = vote_of(2, SERRY_ERR_NO_SPACE, SERRY_ABORT);
    chain c;
    mock m, second;
    mock_make(&m, "mock");
    mock_make(&second, "second");
    chain_begin(&c, &m, &second, NULL);
    assert_int_equal(chain_open(&c), SERRY_OK);
    set(&c, SERRY_ERR_SYSTEM, SERRY_FALLBACK_BACKEND);
    m.run[0] = SERRY_ERR_SYSTEM;
    m.meet[0].votes = vote;
    assert_int_equal(chain_sum(&c), SERRY_ERR_NO_SPACE);
    assert_int_equal(second.opens, 0);
    chain_close(&c);
}

static void what_all_had_contributed_to_completes_instead(void **state)
{
    (void)state;
    chain c;
    mock m;
    chain_one(&c, &m);
    answer_all(m.run, SERRY_ERR_TIMEOUT, 4);
    m.meet[0].repeat = SERRY_FINISH;
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m.runs, 5);
    chain_close(&c);
}

static void a_meeting_for_somebody_elses_sake_changes_nothing(void **state)
{
    (void)state;
    chain c;
    mock m;
    chain_one(&c, &m);
    answer_all(m.run, SERRY_ERR_MEETING, 3);
    m.meet[1].repeat = SERRY_FINISH;
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m.runs, 4);
    assert_int_equal(m.meets, 3);
    assert_int_equal(history(&c, NULL), 0);
    assert_int_equal(m.variant_calls, 0);
    chain_close(&c);
}

/* Somebody else finishes, for ever, and this rank has an error, for ever. */
static void giving_up_is_voted_for_once(void **state)
{
    (void)state;
    chain c;
    mock m;
    chain_one(&c, &m);
    answer_all(m.run, SERRY_ERR_NO_SPACE, MOCK_ANSWERS);
    for (int i = 0; i < MOCK_ANSWERS; i++)
        m.meet[i].repeat = SERRY_FINISH;
    assert_int_equal(chain_sum(&c), SERRY_ERR_NO_SPACE);
    assert_int_equal(m.meets, 1);
    assert_int_equal(m.runs, 2);
    chain_close(&c);
}

static void a_backend_without_meetings_hands_errors_on(void **state)
{
    (void)state;
    chain c;
    mock m;
    chain_one(&c, &m);
    m.run[0] = SERRY_ERR_NO_SPACE;
    m.meet[0].code = SERRY_ERR_UNSUPPORTED;
    assert_int_equal(chain_sum(&c), SERRY_ERR_NO_SPACE);
    assert_int_equal(chain_sum(&c), SERRY_OK);
    m.run[2] = SERRY_ERR_NO_SPACE;
    m.meet[1].code = SERRY_ERR_EXCLUDED; /* says more than the other */
    assert_int_equal(chain_sum(&c), SERRY_ERR_EXCLUDED);
    chain_close(&c);
}

/* ---- meetings to which not all come --------------------------------------------------------- */

static void a_late_rank_keeps_nobody_from_the_error(void **state)
{
    (void)state;
    chain c;
    mock m;
    chain_one(&c, &m);
    answer_all(m.run, SERRY_ERR_TIMEOUT, 4);
    m.meet[0].code = SERRY_ERR_TIMEOUT;
    assert_int_equal(chain_sum(&c), SERRY_ERR_TIMEOUT);
    assert_true(m.timeout_ms[0] > 0 && m.timeout_ms[0] <= 1000); /* not all the time again */
    assert_context(serry_last_error(c.comm), "Meeting", "open");
    assert_int_equal(history(&c, NULL), 4);

    m.meet[1].code = SERRY_ERR_TIMEOUT; /* still not, and the next operation is tried again */
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(serry_ft_operation(c.comm), 2);
    assert_int_equal(m.meets, 3);
    assert_int_equal(m.timeout_ms[1], -1);
    assert_int_equal(m.runs, 5);
    assert_int_equal(history(&c, NULL), 5);
    chain_close(&c);
}

/* The caller was told of three operations; the others have to hear of each. */
static void every_error_that_was_told_comes_to_the_others(void **state)
{
    (void)state;
    chain c;
    mock m;
    mock_make(&m, "mock");
    chain_begin(&c, &m, NULL, NULL);
    c.recovery.max_retries = 0;
    assert_int_equal(chain_open(&c), SERRY_OK);
    m.run[0] = SERRY_ERR_TIMEOUT;
    for (int i = 0; i < 3; i++) {
        m.meet[i].code = SERRY_ERR_TIMEOUT;
        assert_int_equal(chain_sum(&c), SERRY_ERR_TIMEOUT);
        assert_context(serry_last_error(c.comm), "Meeting", "open");
    }
    assert_int_equal(m.meets, 3);
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m.runs, 2);
    assert_int_equal(m.meets, 6); /* the rest of the first one, and one for each of the others */
    for (int i = 0; i < 6; i++)
        assert_true(m.vote[i] != 0);
    assert_int_equal(serry_ft_operation(c.comm), 4);
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m.meets, 6);
    chain_close(&c);
}

static void what_turns_out_complete_must_be_fetched(void **state)
{
    (void)state;
    uint64_t send = 42, recv = 7;
    chain c;
    mock m;
    chain_one(&c, &m);
    answer_all(m.run, SERRY_ERR_TIMEOUT, 4);
    m.meet[0].code = SERRY_ERR_TIMEOUT;
    m.meet[1].repeat = SERRY_FINISH;
    assert_int_equal(serry_allreduce(&send, &recv, 1, SERRY_U64, SERRY_SUM, c.comm),
                     SERRY_ERR_TIMEOUT);
    assert_int_equal(serry_barrier(c.comm), SERRY_ERR_PENDING);
    assert_non_null(strstr(serry_last_error(c.comm)->message, "allreduce"));
    assert_int_equal(serry_barrier(c.comm), SERRY_ERR_PENDING);
    assert_int_equal(serry_allreduce(&send, &recv, 1, SERRY_U64, SERRY_SUM, c.comm), SERRY_OK);
    assert_int_equal(recv, 42);
    assert_int_equal(serry_barrier(c.comm), SERRY_OK);
    chain_close(&c);
}

static void a_meeting_that_nobody_ends_leaves_the_operation_open(void **state)
{
    (void)state;
    uint64_t send = 42, recv = 7;
    chain c;
    mock m;
    chain_one(&c, &m);
    m.run[0] = SERRY_ERR_MEETING;
    for (int i = 0; i < 4; i++)
        m.meet[i].code = SERRY_ERR_TIMEOUT;
    assert_int_equal(serry_allreduce(&send, &recv, 1, SERRY_U64, SERRY_SUM, c.comm),
                     SERRY_ERR_TIMEOUT);
    assert_int_equal(m.meets, 4);
    assert_context(serry_last_error(c.comm), "Meeting", "open");
    assert_int_equal(serry_barrier(c.comm), SERRY_ERR_PENDING);
    assert_int_equal(serry_allreduce(&send, &recv, 1, SERRY_U64, SERRY_SUM, c.comm), SERRY_OK);
    assert_int_equal(serry_ft_operation(c.comm), 1);
    assert_int_equal(m.meets, 5);
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
    set(&c, SERRY_ERR_SYSTEM, SERRY_DIFFERENT_ALGORITHM);
    answer_all(m.run, SERRY_ERR_SYSTEM, 2);
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
    uint64_t vote = vote_of(1, SERRY_ERR_SYSTEM, SERRY_DIFFERENT_ALGORITHM);
    chain c;
    mock m;
    chain_one(&c, &m);
    m.variants = 2;
    m.run[0] = SERRY_ERR_MEETING;
    m.meet[0].votes = vote;
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m.variant, 1);
    assert_int_equal(m.runs, 2);
    assert_int_equal(history(&c, NULL), 0);
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
    set(&c, SERRY_ERR_SYSTEM, SERRY_DIFFERENT_ALGORITHM);
    answer_all(m.run, SERRY_ERR_SYSTEM, 2);
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
    answer_all(m.agree, SERRY_ERR_SYSTEM, 2);
    assert_int_equal(serry_agree(c.comm, SERRY_BOR, &value), SERRY_OK);
    assert_int_equal(m.agrees, 3);
    set(&c, SERRY_ERR_NO_SPACE, SERRY_FALLBACK_BACKEND);
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
    set(&c, SERRY_ERR_NO_SPACE, SERRY_RETRY);
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
    assert_int_equal(history(&c, NULL), 0);
    assert_int_equal(serry_finalize(&part), SERRY_OK);
    assert_int_equal(serry_finalize(&rest), SERRY_OK);
    assert_int_equal(m.closes, 2);
    m.closes = 0;
    chain_close(&c);
}

static void asynchronous_operations_are_not_there_yet(void **state)
{
    (void)state;
    serry_error error = {0};
    serry_operation *operation;
    serry_call call = {.kind = SERRY_KIND_BARRIER, .dtype = SERRY_U8};
    bool done;
    chain c;
    mock m;
    chain_one(&c, &m);
    assert_int_equal(c.backend->start(NULL, &call, NULL, &operation, &error),
                     SERRY_ERR_UNSUPPORTED);
    assert_null(operation);
    assert_int_equal(c.backend->test(NULL, &done, &error), SERRY_ERR_UNSUPPORTED);
    assert_int_equal(c.backend->wait(NULL, 1, &error), SERRY_ERR_UNSUPPORTED);
    assert_int_equal(c.backend->cancel(NULL, &error), SERRY_ERR_UNSUPPORTED);
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
        cmocka_unit_test(an_error_of_this_rank_alone_takes_all_to_a_meeting),
        cmocka_unit_test(the_error_of_another_rank_comes_to_this_one),
        cmocka_unit_test(of_several_errors_all_get_the_same),
        cmocka_unit_test(abort_wins_over_fallback),
        cmocka_unit_test(what_all_had_contributed_to_completes_instead),
        cmocka_unit_test(a_meeting_for_somebody_elses_sake_changes_nothing),
        cmocka_unit_test(giving_up_is_voted_for_once),
        cmocka_unit_test(a_backend_without_meetings_hands_errors_on),
        cmocka_unit_test(a_late_rank_keeps_nobody_from_the_error),
        cmocka_unit_test(every_error_that_was_told_comes_to_the_others),
        cmocka_unit_test(what_turns_out_complete_must_be_fetched),
        cmocka_unit_test(a_meeting_that_nobody_ends_leaves_the_operation_open),
        cmocka_unit_test(another_algorithm_is_taken_and_kept),
        cmocka_unit_test(another_rank_wants_another_algorithm),
        cmocka_unit_test(a_replacement_begins_with_the_first_algorithm),
        cmocka_unit_test(agree_and_shrink_are_only_retried),
        cmocka_unit_test(parts_are_wrapped_and_inherit_strategies),
        cmocka_unit_test(asynchronous_operations_are_not_there_yet),
        cmocka_unit_test(bad_configurations_are_refused),
    };
    alarm(120);
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
