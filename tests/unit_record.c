/* unit_record.c - what an error means, its context, and its text in one line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <serry/error.h>

static serry_error made(void)
{
    serry_error error;
    serry_error_make(&error, SERRY_ERR_TIMEOUT, "allreduce", 17, 3, "rank %d is late", 5);
    return error;
}

/* ---- what a code means -------------------------------------------------------------------- */

static void severity_and_class_follow_from_the_code(void **state)
{
    (void)state;
    static const struct {
        int code;
        serry_severity severity;
        serry_error_class error_class;
    } cases[] = {
        {SERRY_ERR_INVALID, SERRY_FATAL, SERRY_CLASS_ARGUMENT},
        {SERRY_ERR_UNSUPPORTED, SERRY_RECOVERABLE, SERRY_CLASS_ARGUMENT},
        {SERRY_ERR_NO_SPACE, SERRY_RECOVERABLE, SERRY_CLASS_SPACE},
        {SERRY_ERR_PENDING, SERRY_WARNING, SERRY_CLASS_ARGUMENT},
        {SERRY_ERR_SYSTEM, SERRY_RECOVERABLE, SERRY_CLASS_IO},
        {SERRY_ERR_TOO_SMALL, SERRY_RECOVERABLE, SERRY_CLASS_ARGUMENT},
        {SERRY_ERR_AGAIN, SERRY_WARNING, SERRY_CLASS_ARGUMENT},
        {SERRY_ERR_TIMEOUT, SERRY_RECOVERABLE, SERRY_CLASS_TIMEOUT},
        {SERRY_ERR_RANK_FAILED, SERRY_RECOVERABLE, SERRY_CLASS_MEMBERSHIP},
        {SERRY_ERR_RANK_MISMATCH, SERRY_FATAL, SERRY_CLASS_MISMATCH},
        {SERRY_ERR_CANCELLED, SERRY_WARNING, SERRY_CLASS_CANCELLED},
        {SERRY_ERR_REVOKED, SERRY_RECOVERABLE, SERRY_CLASS_MEMBERSHIP},
        {SERRY_ERR_RANK_JOINED, SERRY_RECOVERABLE, SERRY_CLASS_MEMBERSHIP},
        {SERRY_ERR_MEETING, SERRY_RECOVERABLE, SERRY_CLASS_MEMBERSHIP},
        {SERRY_ERR_EXCLUDED, SERRY_FATAL, SERRY_CLASS_MEMBERSHIP},
        {SERRY_ERR_FORKED, SERRY_FATAL, SERRY_CLASS_MEMBERSHIP},
        {SERRY_ERR_LAYOUT, SERRY_FATAL, SERRY_CLASS_ARENA},
        {SERRY_ERR_ARENA, SERRY_FATAL, SERRY_CLASS_ARENA},
    };
    assert_int_equal(sizeof(cases) / sizeof(cases[0]), SERRY_ERROR_CODES);
    for (size_t i = 0; i < SERRY_ERROR_CODES; i++) {
        assert_int_equal(serry_error_severity(cases[i].code), cases[i].severity);
        assert_int_equal(serry_error_class_of(cases[i].code), cases[i].error_class);
    }
}

static void an_unknown_code_is_fatal_and_of_no_class_but_any(void **state)
{
    (void)state;
    static const int codes[] = {1, -8, -1000, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        assert_int_equal(serry_error_severity(codes[i]), SERRY_FATAL);
        assert_int_equal(serry_error_class_of(codes[i]), SERRY_CLASS_ANY);
    }
}

static void a_lost_communicator_is_always_fatal(void **state)
{
    (void)state;
    for (int code = -1; code > -100; code--)
        if (serry_error_scope(code) == SERRY_SCOPE_LOST)
            assert_int_equal(serry_error_severity(code), SERRY_FATAL);
}

static void severities_have_names(void **state)
{
    (void)state;
    assert_string_equal(serry_severity_name(SERRY_WARNING), "Warning");
    assert_string_equal(serry_severity_name(SERRY_RECOVERABLE), "Recoverable");
    assert_string_equal(serry_severity_name(SERRY_FATAL), "Fatal");
    assert_string_equal(serry_severity_name((serry_severity)3), "?");
    assert_string_equal(serry_severity_name((serry_severity)-1), "?");
}

/* ---- making a record ---------------------------------------------------------------------- */

static void a_record_made_is_complete(void **state)
{
    (void)state;
    serry_error error;
    memset(&error, 0x5a, sizeof(error));
    time_t before = time(NULL);
    int code = serry_error_make(&error, SERRY_ERR_RANK_MISMATCH, "reduce", 9, 2, "%s", "differs");
    assert_int_equal(code, SERRY_ERR_RANK_MISMATCH);
    assert_int_equal(error.error, SERRY_ERR_RANK_MISMATCH);
    assert_int_equal(error.severity, SERRY_FATAL);
    assert_string_equal(error.operation, "reduce");
    assert_int_equal(error.operation_id, 9);
    assert_int_equal(error.rank, 2);
    assert_int_equal(error.peer, -1);
    assert_int_equal(error.system_error, 0);
    assert_string_equal(error.message, "differs");
    assert_false(serry_rank_set_has(&error.ranks, 0));
    assert_null(serry_error_context_get(&error, "ZZZZ"));
    assert_true(error.monotonic_ns > 0);
    assert_true(error.wall_ns / 1000000000 >= before);
}

static void a_record_may_be_made_from_itself(void **state)
{
    (void)state;
    serry_error error = made();
    serry_error_make(&error, SERRY_ERR_SYSTEM, error.operation, 1, 0, "gave up: %s", error.message);
    assert_string_equal(error.message, "gave up: rank 5 is late");
    assert_string_equal(error.operation, "allreduce");
    assert_int_equal(error.severity, SERRY_RECOVERABLE);
}

/* ---- context ------------------------------------------------------------------------------ */

static void a_new_record_has_no_context(void **state)
{
    (void)state;
    serry_error error = made();
    assert_null(serry_error_context_get(&error, "RetryCount"));
    assert_null(serry_error_context_get(&error, ""));
}

static void a_pair_is_found_by_its_key(void **state)
{
    (void)state;
    serry_error error = made();
    assert_int_equal(serry_error_context_set(&error, "RetryCount", "%d", 2), SERRY_OK);
    assert_int_equal(serry_error_context_set(&error, "Backend", "%s", "shm"), SERRY_OK);
    assert_int_equal(serry_error_context_set(&error, "Empty", "%s", ""), SERRY_OK);
    assert_string_equal(serry_error_context_get(&error, "RetryCount"), "2");
    assert_string_equal(serry_error_context_get(&error, "Backend"), "shm");
    assert_string_equal(serry_error_context_get(&error, "Empty"), "");
    assert_null(serry_error_context_get(&error, "Retry"));
    assert_string_equal(error.message, "rank 5 is late");
}

static void a_key_has_one_value_the_last(void **state)
{
    (void)state;
    serry_error error = made();
    for (int i = 0; i < 10; i++)
        assert_int_equal(serry_error_context_set(&error, "RetryCount", "%d", i), SERRY_OK);
    assert_string_equal(serry_error_context_get(&error, "RetryCount"), "9");
    const char *old = serry_error_context_get(&error, "RetryCount");
    assert_int_equal(serry_error_context_set(&error, "RetryCount", "was %s", old), SERRY_OK);
    assert_string_equal(serry_error_context_get(&error, "RetryCount"), "was 9");
}

static void a_full_context_refuses_new_keys_only(void **state)
{
    (void)state;
    serry_error error = made();
    static const char *const keys[] = {"a", "b", "c", "d"};
    for (size_t i = 0; i < SERRY_CONTEXT_PAIRS; i++)
        assert_int_equal(serry_error_context_set(&error, keys[i], "%s", keys[i]), SERRY_OK);
    serry_error before = error;
    assert_int_equal(serry_error_context_set(&error, "e", "x"), SERRY_ERR_NO_SPACE);
    assert_memory_equal(&error, &before, sizeof(error));
    assert_int_equal(serry_error_context_set(&error, "c", "new"), SERRY_OK);
    assert_string_equal(serry_error_context_get(&error, "c"), "new");
    assert_string_equal(serry_error_context_get(&error, "d"), "d");
}

static void a_key_must_fit_and_a_value_is_cut(void **state)
{
    (void)state;
    serry_error error = made();
    static const char key[] = "12345678901234567890123"; /* 23 */
    assert_int_equal(serry_error_context_set(&error, "", "x"), SERRY_ERR_INVALID);
    assert_int_equal(serry_error_context_set(&error, "123456789012345678901234", "x"),
                     SERRY_ERR_INVALID);
    assert_int_equal(serry_error_context_set(&error, key, "%039d", 7), SERRY_OK);
    assert_int_equal(strlen(serry_error_context_get(&error, key)), 39);
    assert_int_equal(serry_error_context_set(&error, key, "%040d", 7), SERRY_OK);
    assert_string_equal(serry_error_context_get(&error, key),
                        "000000000000000000000000000000000000...");
}

/* ---- the text ----------------------------------------------------------------------------- */

static void a_record_is_one_line_in_the_form_of_the_specification(void **state)
{
    (void)state;
    setenv("TZ", "UTC0", 1);
    tzset();
    serry_error error = made();
    char text[SERRY_ERROR_TEXT_MAX];
    error.wall_ns = INT64_C(1700000000123999999); /* 2023-11-14 22:13:20 UTC */
    assert_ptr_equal(serry_error_text(&error, text, sizeof(text)), text);
    assert_string_equal(text, "[22:13:20.123] allreduce (Rank: 3): Recoverable - rank 5 is late");

    error.rank = -1;
    error.error = SERRY_ERR_EXCLUDED;
    error.wall_ns = INT64_C(3600000000000) * 7;
    serry_error_text(&error, text, sizeof(text));
    assert_string_equal(text, "[07:00:00.000] allreduce (Rank: N/A): Fatal - rank 5 is late");

    setenv("TZ", "XXX-5:30", 1); /* local time, five and a half hours ahead */
    tzset();
    serry_error_text(&error, text, sizeof(text));
    assert_memory_equal(text, "[12:30:00.000]", 14);
}

static void a_record_without_words_says_what_its_code_says(void **state)
{
    (void)state;
    serry_error error = made();
    char text[SERRY_ERROR_TEXT_MAX];
    error.message[0] = '\0';
    serry_error_text(&error, text, sizeof(text));
    assert_non_null(strstr(text, "Recoverable - the deadline passed before all ranks came"));
}

static void the_text_stays_in_one_line_and_in_its_place(void **state)
{
    (void)state;
    serry_error error;
    serry_error_make(&error, SERRY_ERR_SYSTEM, "init", 0, -1, "one\ntwo\r\nthree%0500d\n", 0);
    char text[SERRY_ERROR_TEXT_MAX + 1];
    serry_error_text(&error, text, SERRY_ERROR_TEXT_MAX);
    assert_null(strpbrk(text, "\r\n"));
    assert_non_null(strstr(text, "one two  three000"));
    assert_non_null(strstr(text, "000...")); /* the longest message fits, with its own mark */
    for (size_t size = 1; size < SERRY_ERROR_TEXT_MAX; size++) {
        text[size] = '#';
        serry_error_text(&error, text, size);
        assert_true(strlen(text) < size);
        assert_int_equal(text[size], '#');
    }
    text[0] = '#';
    serry_error_text(&error, text, 0);
    assert_int_equal(text[0], '#');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(severity_and_class_follow_from_the_code),
        cmocka_unit_test(an_unknown_code_is_fatal_and_of_no_class_but_any),
        cmocka_unit_test(a_lost_communicator_is_always_fatal),
        cmocka_unit_test(severities_have_names),
        cmocka_unit_test(a_record_made_is_complete),
        cmocka_unit_test(a_record_may_be_made_from_itself),
        cmocka_unit_test(a_new_record_has_no_context),
        cmocka_unit_test(a_pair_is_found_by_its_key),
        cmocka_unit_test(a_key_has_one_value_the_last),
        cmocka_unit_test(a_full_context_refuses_new_keys_only),
        cmocka_unit_test(a_key_must_fit_and_a_value_is_cut),
        cmocka_unit_test(a_record_is_one_line_in_the_form_of_the_specification),
        cmocka_unit_test(a_record_without_words_says_what_its_code_says),
        cmocka_unit_test(the_text_stays_in_one_line_and_in_its_place),
    };
    return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
