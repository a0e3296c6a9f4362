/* ft_meetings.c - errors that take all ranks to a meeting, and meetings to which not all come, with
 * mock backends. */
#include "ft_mock.h"

#include <string.h>
#include <unistd.h>

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
    uint64_t vote = mock_vote(2, SERRY_ERR_NO_SPACE, SERRY_ABORT);
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
    assert_int_equal(chain_history(&c, NULL), 1);
    assert_int_equal(chain_sum(&c), SERRY_OK);
    chain_close(&c);
}

static void of_several_errors_all_get_the_same(void **state)
{
    (void)state;
    uint64_t vote = mock_vote(2, SERRY_ERR_UNSUPPORTED, SERRY_ABORT);
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
    uint64_t vote = mock_vote(2, SERRY_ERR_NO_SPACE, SERRY_ABORT);
    chain c;
    mock m, second;
    mock_make(&m, "mock");
    mock_make(&second, "second");
    chain_begin(&c, &m, &second, NULL);
    assert_int_equal(chain_open(&c), SERRY_OK);
    chain_set(&c, SERRY_ERR_SYSTEM, SERRY_FALLBACK_BACKEND);
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
    mock_answer_all(m.run, SERRY_ERR_TIMEOUT, 4);
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
    mock_answer_all(m.run, SERRY_ERR_MEETING, 3);
    m.meet[1].repeat = SERRY_FINISH;
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m.runs, 4);
    assert_int_equal(m.meets, 3);
    assert_int_equal(chain_history(&c, NULL), 0);
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
    mock_answer_all(m.run, SERRY_ERR_NO_SPACE, MOCK_ANSWERS);
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
    mock_answer_all(m.run, SERRY_ERR_TIMEOUT, 4);
    m.meet[0].code = SERRY_ERR_TIMEOUT;
    assert_int_equal(chain_sum(&c), SERRY_ERR_TIMEOUT);
    assert_true(m.timeout_ms[0] > 0 && m.timeout_ms[0] <= 1000); /* not all the time again */
    assert_context(serry_last_error(c.comm), "Meeting", "open");
    assert_int_equal(chain_history(&c, NULL), 4);

    m.meet[1].code = SERRY_ERR_TIMEOUT; /* still not, and the next operation is tried again */
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(serry_ft_operation(c.comm), 2);
    assert_int_equal(m.meets, 3);
    assert_int_equal(m.timeout_ms[1], -1);
    assert_int_equal(m.runs, 5);
    assert_int_equal(chain_history(&c, NULL), 5);
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
    mock_answer_all(m.run, SERRY_ERR_TIMEOUT, 4);
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

int main(void)
{
    const struct CMUnitTest k_tests[] = {
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
    };
    alarm(120);
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
