/* unit_timeout.c - timeouts of operations and their tokens: what each call promises, one thread. */
#include "unit_timeout.h"

#include <dirent.h>
#include <malloc.h>
#include <unistd.h>

static void assert_left(int64_t left_ms, int64_t most_ms)
{
    assert_true(left_ms <= most_ms);
    assert_true(left_ms > most_ms - 30000); /* however slow this machine is */
}

/* ---- starting ----------------------------------------------------------------------------- */

static void the_default_is_five_minutes(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
    assert_int_equal(serry_timeouts_default(timeouts), 300000);
    serry_token *token = start(timeouts, 1, SERRY_DEFAULT_TIMEOUT);
    assert_left(serry_timeouts_remaining(timeouts, 1), 300000);
    serry_token_release(&token);
    assert_null(token);
    serry_timeouts_destroy(&timeouts);
    assert_null(timeouts);
}

static void another_default_is_used_where_no_time_is_given(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(MINUTE_MS);
    assert_int_equal(serry_timeouts_default(timeouts), MINUTE_MS);
    serry_token *usual = start(timeouts, 1, SERRY_DEFAULT_TIMEOUT);
    serry_token *given = start(timeouts, 2, 10 * MINUTE_MS);
    assert_left(serry_timeouts_remaining(timeouts, 1), MINUTE_MS);
    assert_left(serry_timeouts_remaining(timeouts, 2), 10 * MINUTE_MS);
    serry_token_release(&usual);
    serry_token_release(&given);
    serry_timeouts_destroy(&timeouts);
}

static void zero_and_less_is_no_deadline(void **state)
{
    (void)state;
    static const int none[] = {0, -1, INT_MIN + 1};
    for (size_t i = 0; i < 3; i++) {
        serry_timeouts *timeouts = create(none[i]);
        serry_token *by_default = start(timeouts, 1, SERRY_DEFAULT_TIMEOUT);
        serry_token *given = start(timeouts, 2, none[i]);
        assert_int_equal(serry_timeouts_remaining(timeouts, 1), -1);
        assert_int_equal(serry_timeouts_remaining(timeouts, 2), -1);
        assert_true(serry_token_deadline(by_default) == SERRY_NO_DEADLINE);
        assert_true(serry_token_deadline(given) == SERRY_NO_DEADLINE);
        assert_int_equal(serry_token_state(given), SERRY_TOKEN_RUNNING);
        assert_true(serry_timeouts_cancel(timeouts, 2));
        assert_int_equal(serry_token_state(given), SERRY_TOKEN_CANCELLED);
        serry_token_release(&by_default);
        serry_token_release(&given);
        serry_timeouts_destroy(&timeouts);
    }
}

static void a_deadline_is_absolute_and_monotonic(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
    uint64_t before = now_ns();
    serry_token *token = start(timeouts, 1, 2000);
    uint64_t after = now_ns();
    assert_true(serry_token_deadline(token) >= before + UINT64_C(2000000000));
    assert_true(serry_token_deadline(token) <= after + UINT64_C(2000000000));
    serry_token_release(&token);
    serry_timeouts_destroy(&timeouts);
}

static void any_number_is_an_id(void **state)
{
    (void)state;
    static const uint64_t ids[] = {0, 1, UINT64_C(1) << 32, UINT64_MAX - 1, UINT64_MAX};
    enum { IDS = sizeof(ids) / sizeof(ids[0]) };
    serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
    serry_token *tokens[IDS];
    for (size_t i = 0; i < IDS; i++)
        tokens[i] = start(timeouts, ids[i], 0);
    for (size_t i = 0; i < IDS; i++) {
        assert_true(serry_timeouts_cancel(timeouts, ids[i]));
        for (size_t j = 0; j < IDS; j++)
            assert_int_equal(serry_token_state(tokens[j]),
                             j <= i ? SERRY_TOKEN_CANCELLED : SERRY_TOKEN_RUNNING);
    }
    for (size_t i = 0; i < IDS; i++)
        serry_token_release(&tokens[i]);
    serry_timeouts_destroy(&timeouts);
}

static void starting_again_cancels_the_older_one(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
    serry_token *older = start(timeouts, 7, 0), *newer = start(timeouts, 7, MINUTE_MS);
    assert_ptr_not_equal(older, newer);
    assert_int_equal(serry_token_state(older), SERRY_TOKEN_CANCELLED);
    assert_int_equal(serry_token_state(newer), SERRY_TOKEN_RUNNING);
    assert_left(serry_timeouts_remaining(timeouts, 7), MINUTE_MS);
    assert_true(serry_timeouts_end(timeouts, 7));
    assert_int_equal(serry_timeouts_remaining(timeouts, 7), 0);
    serry_token_release(&older);
    serry_token_release(&newer);
    serry_timeouts_destroy(&timeouts);
}

/* ---- how it ends -------------------------------------------------------------------------- */

static void time_that_is_over_expires_the_token(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
    serry_token *token = start(timeouts, 1, 20);
    sleep_ms(25);
    assert_int_equal(serry_timeouts_remaining(timeouts, 1), 0);
    assert_int_equal(serry_token_state(token), SERRY_TOKEN_EXPIRED);
    assert_int_equal(serry_token_state(token), SERRY_ERR_TIMEOUT);
    assert_true(serry_token_deadline(token) < now_ns());
    serry_token_release(&token);
    serry_timeouts_destroy(&timeouts);
}

static void what_has_expired_stays_so(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
    serry_token *seen = start(timeouts, 1, 5), *unseen = start(timeouts, 2, 5);
    serry_token *ended = start(timeouts, 3, 5);
    sleep_ms(10);
    assert_int_equal(serry_token_state(seen), SERRY_TOKEN_EXPIRED);
    assert_int_equal(serry_timeouts_extend(timeouts, 1, MINUTE_MS), 0);
    assert_false(serry_timeouts_cancel(timeouts, 1));
    assert_false(serry_timeouts_end(timeouts, 1));
    assert_int_equal(serry_token_state(seen), SERRY_TOKEN_EXPIRED);

    assert_int_equal(serry_token_state(ended), SERRY_TOKEN_EXPIRED);
    assert_false(serry_timeouts_end(timeouts, 3));
    assert_int_equal(serry_token_state(ended), SERRY_TOKEN_EXPIRED);

    assert_int_equal(serry_timeouts_extend(timeouts, 2, MINUTE_MS), 0);
    serry_timeouts_cancel_all(timeouts);
    assert_int_equal(serry_token_state(unseen), SERRY_TOKEN_EXPIRED);
    serry_token_release(&seen);
    serry_token_release(&unseen);
    serry_token_release(&ended);
    serry_timeouts_destroy(&timeouts);
}

static void cancelling_trips_the_token_for_good(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
    serry_token *token = start(timeouts, 1, 500);
    assert_true(serry_timeouts_cancel(timeouts, 1));
    assert_int_equal(serry_token_state(token), SERRY_TOKEN_CANCELLED);
    assert_int_equal(serry_token_state(token), SERRY_ERR_CANCELLED);
    assert_true(serry_token_deadline(token) < now_ns());
    assert_false(serry_timeouts_cancel(timeouts, 1));
    assert_int_equal(serry_timeouts_extend(timeouts, 1, MINUTE_MS), 0);
    assert_int_equal(serry_timeouts_remaining(timeouts, 1), 0);
    sleep_ms(510);
    assert_int_equal(serry_token_state(token), SERRY_TOKEN_CANCELLED);
    serry_token_release(&token);
    serry_timeouts_destroy(&timeouts);
}

static void ending_does_not_trip_the_token(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
    serry_token *token = start(timeouts, 1, 20), *late = start(timeouts, 2, 1);
    assert_true(serry_timeouts_end(timeouts, 1));
    assert_false(serry_timeouts_end(timeouts, 1));
    assert_false(serry_timeouts_cancel(timeouts, 1));
    assert_int_equal(serry_timeouts_remaining(timeouts, 1), 0);
    assert_int_equal(serry_timeouts_extend(timeouts, 1, 1), 0);
    sleep_ms(25);
    assert_int_equal(serry_token_state(token), SERRY_TOKEN_RUNNING);
    assert_true(serry_timeouts_end(timeouts, 2)); /* late, but nobody has minded */
    assert_int_equal(serry_token_state(late), SERRY_TOKEN_RUNNING);
    serry_timeouts_destroy(&timeouts);
    assert_int_equal(serry_token_state(token), SERRY_TOKEN_RUNNING);
    serry_token_release(&token);
    serry_token_release(&late);
}

static void an_unknown_id_is_nothing(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(serry_timeouts_remaining(timeouts, 5), 0);
        assert_int_equal(serry_timeouts_extend(timeouts, 5, MINUTE_MS), 0);
        assert_false(serry_timeouts_cancel(timeouts, 5));
        assert_false(serry_timeouts_end(timeouts, 5));
        serry_token *token = start(timeouts, 6, 0); /* the table was empty before */
        serry_token_release(&token);
    }
    serry_timeouts_destroy(&timeouts);
    serry_timeouts_destroy(&timeouts);
    serry_token *none = NULL;
    serry_token_release(&none);
}

static void cancelling_all_spares_what_has_ended(void **state)
{
    (void)state;
    enum { IDS = 50 };
    serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
    serry_token *tokens[IDS];
    for (uint64_t i = 0; i < IDS; i++)
        tokens[i] = start(timeouts, i, 0);
    assert_true(serry_timeouts_end(timeouts, 3));
    serry_timeouts_cancel_all(timeouts);
    for (uint64_t i = 0; i < IDS; i++) {
        assert_int_equal(serry_token_state(tokens[i]),
                         i == 3 ? SERRY_TOKEN_RUNNING : SERRY_TOKEN_CANCELLED);
        assert_int_equal(serry_timeouts_remaining(timeouts, i), 0);
        serry_token_release(&tokens[i]);
    }
    serry_token *again = start(timeouts, 3, 0);
    assert_int_equal(serry_token_state(again), SERRY_TOKEN_RUNNING);
    serry_token_release(&again);
    serry_timeouts_cancel_all(timeouts);
    serry_timeouts_cancel_all(timeouts);
    serry_timeouts_destroy(&timeouts);
}

static void destroying_cancels_and_leaves_the_tokens(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
    serry_token *token = start(timeouts, 1, 0);
    serry_token *same = serry_token_retain(token);
    assert_ptr_equal(same, token);
    serry_timeouts_destroy(&timeouts);
    assert_int_equal(serry_token_state(token), SERRY_TOKEN_CANCELLED);
    serry_token_release(&token);
    assert_int_equal(serry_token_state(same), SERRY_TOKEN_CANCELLED);
    serry_token_release(&same);
}

/* ---- extending ---------------------------------------------------------------------------- */

static void extending_adds_to_what_is_left(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
    serry_token *token = start(timeouts, 1, 10 * MINUTE_MS);
    uint64_t first = serry_token_deadline(token);
    assert_left(serry_timeouts_extend(timeouts, 1, MINUTE_MS), 11 * MINUTE_MS);
    assert_left(serry_timeouts_extend(timeouts, 1, 1), 11 * MINUTE_MS + 1);
    assert_left(serry_timeouts_remaining(timeouts, 1), 11 * MINUTE_MS + 1);
    assert_true(serry_token_deadline(token) == first + (MINUTE_MS + 1) * UINT64_C(1000000));
    serry_token_release(&token);
    serry_timeouts_destroy(&timeouts);
}

static void extending_never_takes_time_away(void **state)
{
    (void)state;
    static const int less[] = {0, -1, INT_MIN};
    serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
    serry_token *token = start(timeouts, 1, MINUTE_MS);
    uint64_t first = serry_token_deadline(token);
    for (size_t i = 0; i < 3; i++) {
        assert_left(serry_timeouts_extend(timeouts, 1, less[i]), MINUTE_MS);
        assert_true(serry_token_deadline(token) == first);
    }
    serry_token_release(&token);
    serry_timeouts_destroy(&timeouts);
}

static void extending_no_deadline_leaves_none(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
    serry_token *token = start(timeouts, 1, 0);
    assert_int_equal(serry_timeouts_extend(timeouts, 1, MINUTE_MS), -1);
    assert_true(serry_token_deadline(token) == SERRY_NO_DEADLINE);
    serry_token_release(&token);
    serry_timeouts_destroy(&timeouts);
}

static void extending_for_ever_does_not_wrap(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
    serry_token *token = start(timeouts, 1, INT_MAX);
    int64_t left = serry_timeouts_remaining(timeouts, 1);
    for (int i = 0; i < 10000; i++) { /* 2^64 ns are 8590 times that */
        int64_t more = serry_timeouts_extend(timeouts, 1, INT_MAX);
        assert_true(more > left || more > INT64_C(18000000000000));
        left = more;
    }
    assert_true(serry_token_deadline(token) == SERRY_NO_DEADLINE - 1);
    assert_int_equal(serry_token_state(token), SERRY_TOKEN_RUNNING);
    serry_token_release(&token);
    serry_timeouts_destroy(&timeouts);
}

/* ---- what it costs ------------------------------------------------------------------------ */

static int count_threads(void)
{
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    int threads = 0;
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;)
        threads += entry->d_name[0] != '.';
    closedir(tasks);
    return threads;
}

static void a_thousand_running_timeouts_cost_no_thread(void **state)
{
    (void)state;
    enum { IDS = 1000, SHORT = 500 };
    int threads = count_threads();
    serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
    serry_token *tokens[IDS];
    for (uint64_t i = 0; i < IDS; i++)
        tokens[i] = start(timeouts, i, i < SHORT ? 50 : MINUTE_MS);
    assert_int_equal(count_threads(), threads);
    sleep_ms(55);
    assert_int_equal(count_threads(), threads);
    for (uint64_t i = 0; i < IDS; i++) {
        assert_int_equal(serry_token_state(tokens[i]),
                         i < SHORT ? SERRY_TOKEN_EXPIRED : SERRY_TOKEN_RUNNING);
        serry_token_release(&tokens[i]);
    }
    serry_timeouts_destroy(&timeouts);
    assert_int_equal(count_threads(), threads);
}

/* Bytes that the program holds, by the C library's account. Sanitizers do not keep it: with them the
 * next two tests say nothing. */
static size_t held(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static void timeouts_that_nobody_ends_do_not_pile_up(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
    size_t before = held();
    for (uint64_t i = 0; i < 200000; i++) {
        serry_token *token = start(timeouts, i, 1);
        serry_token_release(&token);
        if (i % 5000 == 4999)
            sleep_ms(2);
    }
    assert_true(held() < before + ((size_t)4 << 20)); /* all of them would be 30 MB */
    serry_timeouts_destroy(&timeouts);
    assert_true(held() <= before + 4096);
}

static void memory_goes_back_when_operations_end(void **state)
{
    (void)state;
    enum { IDS = 50000 };
    serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
    size_t before = held();
    for (uint64_t i = 0; i < IDS; i++) {
        serry_token *token = start(timeouts, i, 0);
        serry_token_release(&token);
    }
    for (uint64_t i = 0; i < IDS; i++)
        assert_true(serry_timeouts_end(timeouts, i));
    assert_true(held() <= before + 8192);
    serry_timeouts_destroy(&timeouts);
}

/* ---- the table, against one that is too simple to be wrong -------------------------------- */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void every_id_is_found_again(void **state)
{
    (void)state;
    enum { IDS = 600, STEPS = 200000 };
    static const uint64_t factors[] = {1, 4096, UINT64_C(1) << 40};
    uint64_t random = 88172645463325252u;
    for (size_t f = 0; f < 3; f++) {
        serry_timeouts *timeouts = create(SERRY_DEFAULT_TIMEOUT);
        static bool runs[IDS];
        for (size_t i = 0; i < IDS; i++)
            runs[i] = false;
        for (int step = 0; step < STEPS; step++) {
            /* mostly starting, then mostly ending, and so on, so that the table grows and shrinks */
            bool growing = step / 20000 % 2 == 0;
            uint64_t i = next_random(&random) % IDS, id = i * factors[f];
            uint64_t choice = next_random(&random) % 10;
            assert_int_equal(serry_timeouts_remaining(timeouts, id), runs[i] ? -1 : 0);
            if (choice < (growing ? 8 : 1)) {
                serry_token *token = start(timeouts, id, 0);
                serry_token_release(&token);
                runs[i] = true;
            } else if (choice % 2 == 0) {
                assert_int_equal(serry_timeouts_end(timeouts, id), runs[i]);
                runs[i] = false;
            } else {
                assert_int_equal(serry_timeouts_cancel(timeouts, id), runs[i]);
                runs[i] = false;
            }
        }
        serry_timeouts_destroy(&timeouts);
    }
}

int main(void)
{
    alarm(WATCHDOG_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_default_is_five_minutes),
        cmocka_unit_test(another_default_is_used_where_no_time_is_given),
        cmocka_unit_test(zero_and_less_is_no_deadline),
        cmocka_unit_test(a_deadline_is_absolute_and_monotonic),
        cmocka_unit_test(any_number_is_an_id),
        cmocka_unit_test(starting_again_cancels_the_older_one),
        cmocka_unit_test(time_that_is_over_expires_the_token),
        cmocka_unit_test(what_has_expired_stays_so),
        cmocka_unit_test(cancelling_trips_the_token_for_good),
        cmocka_unit_test(ending_does_not_trip_the_token),
        cmocka_unit_test(an_unknown_id_is_nothing),
        cmocka_unit_test(cancelling_all_spares_what_has_ended),
        cmocka_unit_test(destroying_cancels_and_leaves_the_tokens),
        cmocka_unit_test(extending_adds_to_what_is_left),
        cmocka_unit_test(extending_never_takes_time_away),
        cmocka_unit_test(extending_no_deadline_leaves_none),
        cmocka_unit_test(extending_for_ever_does_not_wrap),
        cmocka_unit_test(a_thousand_running_timeouts_cost_no_thread),
        cmocka_unit_test(timeouts_that_nobody_ends_do_not_pile_up),
        cmocka_unit_test(memory_goes_back_when_operations_end),
        cmocka_unit_test(every_id_is_found_again),
    };
    return cmocka_run_group_tests_name("timeout", tests, NULL, NULL);
}
