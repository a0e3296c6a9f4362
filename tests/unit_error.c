/* unit_error.c - codes in words, error records, sets of ranks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "record.h"

static uint64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- codes -------------------------------------------------------------------------------- */

static void every_code_has_text_name_and_scope(void **state)
{
    (void)state;
    static const struct {
        int code;
        const char *name, *text;
        serry_scope scope;
    } cases[] = {{SERRY_OK, "SERRY_OK", "success", SERRY_SCOPE_CALL},
#define SERRY_X(name, value, scope, severity, group, text)                                         \
    {value, "SERRY_" #name, text, SERRY_SCOPE_##scope},
                 SERRY_ERROR_MAP(SERRY_X)
#undef SERRY_X
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_string_equal(serry_strerror(cases[i].code), cases[i].text);
        assert_string_equal(serry_error_name(cases[i].code), cases[i].name);
        assert_int_equal(serry_error_scope(cases[i].code), cases[i].scope);
    }
    assert_string_equal(serry_error_name(SERRY_ERR_RANK_FAILED), "SERRY_ERR_RANK_FAILED");
    assert_int_equal(serry_error_scope(SERRY_ERR_INVALID), SERRY_SCOPE_CALL);
    assert_int_equal(serry_error_scope(SERRY_ERR_TIMEOUT), SERRY_SCOPE_COMM);
    assert_int_equal(serry_error_scope(SERRY_ERR_EXCLUDED), SERRY_SCOPE_LOST);
}

static void an_unknown_code_is_unknown_and_lost(void **state)
{
    (void)state;
    static const int codes[] = {1, -8, -19, -27, -44, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        assert_string_equal(serry_strerror(codes[i]), "unknown serry error");
        assert_string_equal(serry_error_name(codes[i]), "unknown serry error");
        assert_int_equal(serry_error_scope(codes[i]), SERRY_SCOPE_LOST);
    }
}

/* ---- records ------------------------------------------------------------------------------ */

static void a_new_record_is_empty(void **state)
{
    (void)state;
    serry_error error;
    memset(&error, 0x5a, sizeof(error));
    serry_error_begin(&error, "allreduce", 17, 3);
    assert_int_equal(error.error, SERRY_OK);
    assert_string_equal(error.operation, "allreduce");
    assert_int_equal(error.operation_id, 17);
    assert_int_equal(error.rank, 3);
    assert_int_equal(error.peer, -1);
    assert_int_equal(serry_rank_set_count(&error.ranks), 0);
    assert_string_equal(error.message, "");
}

static void failing_writes_the_cause_and_keeps_the_rest(void **state)
{
    (void)state;
    serry_error error;
    serry_error_begin(&error, "reduce", 5, 2);
    error.peer = 7;
    error.system_error = EIO;
    serry_rank_set_add(&error.ranks, 7);

    uint64_t monotonic_ns = now_ns(CLOCK_MONOTONIC), wall_ns = now_ns(CLOCK_REALTIME);
    int code = serry_fail(&error, SERRY_ERR_TIMEOUT, "rank %d is %s", 7, "late");

    assert_int_equal(code, SERRY_ERR_TIMEOUT);
    assert_int_equal(error.error, SERRY_ERR_TIMEOUT);
    assert_int_equal(error.system_error, 0);
    assert_string_equal(error.message, "rank 7 is late");
    assert_string_equal(error.operation, "reduce");
    assert_int_equal(error.operation_id, 5);
    assert_int_equal(error.rank, 2);
    assert_int_equal(error.peer, 7);
    assert_true(serry_rank_set_has(&error.ranks, 7));
    assert_true(error.monotonic_ns >= monotonic_ns);
    assert_true(error.monotonic_ns <= now_ns(CLOCK_MONOTONIC));
    assert_true((uint64_t)error.wall_ns >= wall_ns);
    assert_true((uint64_t)error.wall_ns <= now_ns(CLOCK_REALTIME));
}

static void without_a_record_only_the_code_comes_back(void **state)
{
    (void)state;
    assert_int_equal(serry_fail(NULL, SERRY_ERR_INVALID, "%d", 1), SERRY_ERR_INVALID);
    assert_int_equal(serry_fail_errno(NULL, ENOENT, "%d", 1), SERRY_ERR_SYSTEM);
}

static void a_system_error_is_kept_and_put_in_words(void **state)
{
    (void)state;
    serry_error error;
    serry_error_begin(&error, "init", 0, -1);
    assert_int_equal(serry_fail_errno(&error, ENOENT, "cannot open %s", "it"), SERRY_ERR_SYSTEM);
    assert_int_equal(error.error, SERRY_ERR_SYSTEM);
    assert_int_equal(error.system_error, ENOENT);
    assert_string_equal(error.message, "cannot open it: No such file or directory");
}

static void a_message_may_quote_the_one_before(void **state)
{
    (void)state;
    serry_error error;
    serry_error_begin(&error, "init", 0, -1);
    serry_fail(&error, SERRY_ERR_SYSTEM, "the cause");
    serry_fail(&error, SERRY_ERR_NO_SPACE, "no arena (%s)", error.message);
    assert_string_equal(error.message, "no arena (the cause)");
}

static void a_long_message_is_cut(void **state)
{
    (void)state;
    serry_error error;
    char text[2 * sizeof(error.message)];
    size_t room = sizeof(error.message);
    serry_error_begin(&error, "init", 0, -1);

    memset(text, 'x', sizeof(text));
    text[room - 1] = '\0';
    serry_fail(&error, SERRY_ERR_INVALID, "%s", text);
    assert_string_equal(error.message, text); /* just fits */

    text[room - 1] = 'x';
    text[room] = '\0';
    serry_fail(&error, SERRY_ERR_INVALID, "%s", text);
    assert_int_equal(strlen(error.message), room - 1);
    assert_string_equal(error.message + room - 5, "x...");

    text[room - 5] = '\0';
    serry_fail_errno(&error, ENOENT, "%s", text);
    assert_int_equal(strlen(error.message), room - 1);
    assert_string_equal(error.message + room - 6, "x:...");

    /* Characters of two bytes, so that one of these cuts would be inside of one. */
    for (size_t start = 0; start < 2; start++) {
        for (size_t i = 0; i < sizeof(text); i++)
            text[i] = i < start ? 'x' : "\xc3\xa4"[(i - start) % 2];
        text[sizeof(text) - 1] = '\0';
        serry_fail(&error, SERRY_ERR_INVALID, "%s", text);
        size_t end = strlen(error.message) - strlen("...");
        assert_string_equal(error.message + end, "...");
        assert_int_equal((unsigned char)error.message[end - 1], 0xa4);
    }
}

static void *record_of_other_thread(void *argument)
{
    serry_fail(serry_error_of_thread(), SERRY_ERR_INVALID, "from the other thread");
    *(const serry_error **)argument = serry_error_of_thread();
    return NULL;
}

static void each_thread_has_a_record(void **state)
{
    (void)state;
    serry_error *mine = serry_error_of_thread(), *other = NULL;
    assert_ptr_equal(serry_error_of_thread(), mine);
    assert_int_equal(mine->error, SERRY_OK);
    assert_non_null(mine->operation);
    assert_int_equal(mine->rank, -1);

    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, record_of_other_thread, &other), 0);
    pthread_join(thread, NULL);
    assert_ptr_not_equal(other, mine);
    assert_int_equal(mine->error, SERRY_OK);
}

/* ---- sets of ranks ------------------------------------------------------------------------ */

static void a_set_counts_its_ranks_once(void **state)
{
    (void)state;
    serry_rank_set set = {{0}};
    static const int ranks[] = {0, 63, 64, 127, 128, 255, 0, 255};
    for (size_t i = 0; i < sizeof(ranks) / sizeof(ranks[0]); i++)
        serry_rank_set_add(&set, ranks[i]);
    assert_int_equal(serry_rank_set_count(&set), 6);
    assert_true(serry_rank_set_has(&set, 255));
    assert_false(serry_rank_set_has(&set, 1));
    assert_false(serry_rank_set_has(&set, 256));
    assert_false(serry_rank_set_has(&set, -1));
}

static void a_set_in_words(void **state)
{
    (void)state;
    static const struct {
        int count;
        int ranks[4];
        size_t size;
        const char *text;
    } cases[] = {
        {0, {0}, 64, "none"},
        {1, {255}, 64, "255"},
        {2, {3, 1}, 64, "1 and 3"},
        {3, {1, 3, 5}, 64, "1, 3 and 5"},
        {4, {1, 3, 5, 9}, 64, "1, 3, 5 and 9"},
        {4, {1, 3, 5, 9}, sizeof("1, 3, 5 and 9"), "1, 3, 5 and 9"},
        {4, {1, 3, 5, 9}, sizeof("1, 3, 5 and 9") - 1, "1 and 3 more"},
        {4, {1, 3, 5, 99}, sizeof("1, 3, 5 and 9"), "1 and 3 more"},
        {4, {1, 3, 5, 99}, 4, "1 a"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        serry_rank_set set = {{0}};
        char text[64];
        for (int j = 0; j < cases[i].count; j++)
            serry_rank_set_add(&set, cases[i].ranks[j]);
        assert_ptr_equal(serry_rank_set_text(&set, text, cases[i].size), text);
        assert_string_equal(text, cases[i].text);
    }
}

static void a_full_set_in_words(void **state)
{
    (void)state;
    serry_rank_set all;
    memset(&all, 0xff, sizeof(all));
    assert_int_equal(serry_rank_set_count(&all), SERRY_MAX_RANKS);

    char text[2048];
    serry_rank_set_text(&all, text, sizeof(text));
    assert_string_equal(text + strlen(text) - strlen(", 254 and 255"), ", 254 and 255");

    serry_rank_set_text(&all, text, 32);
    assert_string_equal(text, "0, 1, 2, 3, 4, 5 and 250 more");

    /* Any size: it ends, and never outside. */
    for (size_t size = 1; size < 1200; size++) {
        text[size] = '#';
        serry_rank_set_text(&all, text, size);
        assert_true(strlen(text) < size);
        assert_int_equal(text[size], '#');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_text_name_and_scope),
        cmocka_unit_test(an_unknown_code_is_unknown_and_lost),
        cmocka_unit_test(a_new_record_is_empty),
        cmocka_unit_test(failing_writes_the_cause_and_keeps_the_rest),
        cmocka_unit_test(without_a_record_only_the_code_comes_back),
        cmocka_unit_test(a_system_error_is_kept_and_put_in_words),
        cmocka_unit_test(a_message_may_quote_the_one_before),
        cmocka_unit_test(a_long_message_is_cut),
        cmocka_unit_test(each_thread_has_a_record),
        cmocka_unit_test(a_set_counts_its_ranks_once),
        cmocka_unit_test(a_set_in_words),
        cmocka_unit_test(a_full_set_in_words),
    };
    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
