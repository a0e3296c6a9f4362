/* unit_history.c - history, statistics and log of the recovery manager; many threads. */
#include "unit_recovery.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- history ------------------------------------------------------------------------------ */

static void history_gives_back_what_was_handled(void **state)
{
    (void)state;
    serry_recovery *recovery = create(NULL);
    assert_int_equal(serry_recovery_history(recovery, NULL, 0), 0);
    serry_error error = record(SERRY_ERR_RANK_FAILED, "alltoall", 12), back;
    error.peer = 3;
    error.ranks.bits[0] = 8;
    serry_error_context_set(&error, "RetryCount", "1");
    error.severity = SERRY_WARNING; /* what does not follow from the code is put right */
    serry_decision decision;
    serry_recovery_handle(recovery, &error, &decision);
    assert_int_equal(serry_recovery_history(recovery, &back, 1), 1);
    assert_int_equal(back.severity, SERRY_RECOVERABLE);
    back.severity = SERRY_WARNING;
    assert_memory_equal(&back, &error, sizeof(error));
    serry_recovery_destroy(&recovery);
}

static void history_keeps_the_latest_in_order(void **state)
{
    (void)state;
    enum { KEPT = 7 };
    serry_recovery_config config = SERRY_RECOVERY_CONFIG_INIT;
    config.history = KEPT;
    serry_recovery *recovery = create(&config);
    static serry_error errors[KEPT + 1];
    for (uint64_t n = 1; n <= 30; n++) {
        handle(recovery, SERRY_ERR_TIMEOUT, "reduce", n);
        size_t kept = n < KEPT ? (size_t)n : KEPT;
        for (size_t room = 0; room <= KEPT + 1; room++) {
            assert_int_equal(serry_recovery_history(recovery, errors, room), kept);
            size_t copied = room < kept ? room : kept;
            for (size_t i = 0; i < copied; i++)
                assert_int_equal(errors[i].operation_id, n - copied + 1 + i);
        }
    }
    serry_recovery_clear(recovery);
    assert_int_equal(serry_recovery_history(recovery, errors, KEPT), 0);
    handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 31);
    assert_int_equal(serry_recovery_history(recovery, errors, KEPT), 1);
    assert_int_equal(errors[0].operation_id, 31);
    serry_recovery_destroy(&recovery);
}

static void history_keeps_256_unless_told_otherwise(void **state)
{
    (void)state;
    serry_recovery *recovery = create(NULL);
    for (uint64_t n = 0; n < 300; n++)
        handle(recovery, SERRY_ERR_TIMEOUT, "reduce", n);
    assert_int_equal(serry_recovery_history(recovery, NULL, 0), 256);
    serry_recovery_destroy(&recovery);

    serry_recovery_config config = SERRY_RECOVERY_CONFIG_INIT;
    config.history = 0;
    recovery = create(&config);
    serry_error error;
    handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 1);
    assert_int_equal(serry_recovery_history(recovery, &error, 1), 0);
    serry_recovery_destroy(&recovery);
}

/* ---- statistics --------------------------------------------------------------------------- */

static uint64_t count_of_type(const serry_error_statistics *s, int error)
{
    for (size_t i = 0; i < s->types; i++)
        if (s->by_type[i].error == error)
            return s->by_type[i].count;
    return 0;
}

static uint64_t count_of_operation(const serry_error_statistics *s, const char *operation)
{
    for (size_t i = 0; i < s->operations; i++)
        if (s->by_operation[i].operation != NULL &&
            strcmp(s->by_operation[i].operation, operation) == 0)
            return s->by_operation[i].count;
    return 0;
}

static void counters_are_exact_when_the_history_has_wrapped(void **state)
{
    (void)state;
    serry_recovery_config config = SERRY_RECOVERY_CONFIG_INIT;
    config.history = 4;
    serry_recovery *recovery = create(&config);
    for (uint64_t n = 0; n < 1000; n++) {
        handle(recovery, SERRY_ERR_TIMEOUT, "allreduce", n);
        if (n < 300)
            handle(recovery, SERRY_ERR_RANK_MISMATCH, "barrier", n);
        if (n < 20)
            handle(recovery, SERRY_ERR_CANCELLED, "allreduce", n);
        if (n < 3)
            handle(recovery, -1000 - (int)n, "mine", n);
    }
    serry_error_statistics s;
    serry_recovery_statistics(recovery, &s);
    assert_int_equal(s.total, 1323);
    assert_int_equal(s.types, 4);
    assert_int_equal(count_of_type(&s, SERRY_ERR_TIMEOUT), 1000);
    assert_int_equal(count_of_type(&s, SERRY_ERR_RANK_MISMATCH), 300);
    assert_int_equal(count_of_type(&s, SERRY_ERR_CANCELLED), 20);
    assert_int_equal(count_of_type(&s, SERRY_ERROR_OTHER), 3);
    assert_int_equal(s.by_severity[SERRY_WARNING], 20);
    assert_int_equal(s.by_severity[SERRY_RECOVERABLE], 1000);
    assert_int_equal(s.by_severity[SERRY_FATAL], 303);
    assert_int_equal(s.operations, 3);
    assert_int_equal(count_of_operation(&s, "allreduce"), 1020);
    assert_int_equal(count_of_operation(&s, "barrier"), 300);
    assert_int_equal(count_of_operation(&s, "mine"), 3);
    serry_recovery_destroy(&recovery);
}

static void kinds_that_come_too_late_are_counted_together(void **state)
{
    (void)state;
    static char names[40][8];
    serry_recovery *recovery = create(NULL);
    for (uint64_t i = 0; i < 40; i++) {
        snprintf(names[i], sizeof(names[i]), "kind%llu", (unsigned long long)i);
        for (uint64_t times = 0; times <= i; times++)
            handle(recovery, SERRY_ERR_SYSTEM, names[i], i);
    }
    serry_error_statistics s;
    serry_recovery_statistics(recovery, &s);
    assert_int_equal(s.operations, SERRY_RECOVERY_KINDS);
    uint64_t sum = 0;
    for (size_t i = 0; i < s.operations; i++) {
        sum += s.by_operation[i].count;
        if (i < SERRY_RECOVERY_KINDS - 1)
            assert_int_equal(s.by_operation[i].count, i + 1);
    }
    assert_null(s.by_operation[SERRY_RECOVERY_KINDS - 1].operation);
    assert_int_equal(sum, s.total);
    assert_int_equal(sum, 40 * 41 / 2);
    serry_recovery_destroy(&recovery);
}

static void clearing_forgets_history_and_counters(void **state)
{
    (void)state;
    serry_recovery *recovery = create(NULL);
    handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 1);
    serry_recovery_set_strategy(recovery, SERRY_ERR_INVALID, SERRY_RETRY);
    serry_recovery_clear(recovery);
    serry_error_statistics s, none = {0};
    serry_recovery_statistics(recovery, &s);
    assert_memory_equal(&s, &none, sizeof(s));
    assert_int_equal(serry_recovery_history(recovery, NULL, 0), 0);
    assert_int_equal(serry_recovery_strategy(recovery, SERRY_ERR_INVALID), SERRY_RETRY);
    serry_recovery_destroy(&recovery);
}

static void statistics_have_the_text_of_the_specification(void **state)
{
    (void)state;
    char text[SERRY_STATISTICS_TEXT_MAX + 1];
    serry_recovery *recovery = create(NULL);
    serry_error_statistics s;
    serry_recovery_statistics(recovery, &s);
    assert_ptr_equal(serry_error_statistics_text(&s, text, sizeof(text)), text);
    assert_string_equal(text, "Total Errors: 0, By Type: , By Severity: ");

    handle(recovery, SERRY_ERR_RANK_MISMATCH, "reduce", 1);
    handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 2);
    handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 3);
    handle(recovery, -1000, "reduce", 4);
    serry_recovery_statistics(recovery, &s);
    serry_error_statistics_text(&s, text, sizeof(text));
    assert_string_equal(text, "Total Errors: 4, By Type: SERRY_ERR_TIMEOUT=2, "
                              "SERRY_ERR_RANK_MISMATCH=1, unknown serry error=1, "
                              "By Severity: Recoverable=2, Fatal=2");
    serry_recovery_destroy(&recovery);

    s.total = UINT64_MAX;
    s.types = SERRY_ERROR_CODES + 1;
    for (size_t i = 0; i < s.types; i++) {
        s.by_type[i].error = i < SERRY_ERROR_CODES ? k_codes[i] : SERRY_ERROR_OTHER;
        s.by_type[i].count = UINT64_MAX;
    }
    for (size_t i = 0; i < SERRY_SEVERITIES; i++)
        s.by_severity[i] = UINT64_MAX;
    serry_error_statistics_text(&s, text, SERRY_STATISTICS_TEXT_MAX);
    assert_non_null(strstr(text, "Fatal=18446744073709551615")); /* the longest fits */
    for (size_t size = 1; size < SERRY_STATISTICS_TEXT_MAX; size++) {
        text[size] = '#';
        serry_error_statistics_text(&s, text, size);
        assert_true(strlen(text) < size);
        assert_int_equal(text[size], '#');
    }
}

/* ---- the log ------------------------------------------------------------------------------ */

typedef struct logged {
    serry_recovery *recovery;
    int lines, attempts;
    serry_severity severity;
    size_t kept;
} logged;

static void log_line(const serry_error *error, const serry_decision *decision, void *argument)
{
    logged *l = argument;
    l->lines++;
    l->severity = error->severity;
    l->attempts = (int)decision->attempts;
    l->kept = serry_recovery_history(l->recovery, NULL, 0); /* it may come back */
}

static void every_error_is_logged_with_its_decision(void **state)
{
    (void)state;
    logged l = {0};
    serry_recovery_config config = SERRY_RECOVERY_CONFIG_INIT;
    config.log = log_line;
    config.log_argument = &l;
    serry_recovery *recovery = create(&config);
    l.recovery = recovery;
    for (int i = 1; i <= 5; i++) {
        handle(recovery, SERRY_ERR_EXCLUDED, "reduce", 1);
        assert_int_equal(l.lines, i);
        assert_int_equal(l.attempts, i);
        assert_int_equal(l.severity, SERRY_FATAL);
        assert_int_equal(l.kept, i);
    }
    serry_recovery_destroy(&recovery);
}

/* Standard output and error go to a file meanwhile. */
static void nothing_is_printed_without_a_log(void **state)
{
    (void)state;
    fflush(NULL);
    FILE *file = tmpfile();
    assert_non_null(file);
    int out = dup(1), err = dup(2);
    dup2(fileno(file), 1);
    dup2(fileno(file), 2);
    serry_recovery *recovery = NULL;
    serry_error error = record(SERRY_ERR_ARENA, "reduce", 1);
    serry_decision decision;
    serry_recovery_create(NULL, &recovery);
    for (int i = 0; i < 10; i++)
        serry_recovery_handle(recovery, &error, &decision);
    serry_recovery_destroy(&recovery);
    fflush(NULL);
    dup2(out, 1);
    dup2(err, 2);
    close(out);
    close(err);
    fseek(file, 0, SEEK_END);
    assert_int_equal(ftell(file), 0);
    fclose(file);
}

static void what_is_no_error_is_refused_and_not_counted(void **state)
{
    (void)state;
    serry_recovery *recovery = create(NULL);
    serry_error error = record(SERRY_ERR_TIMEOUT, "reduce", 1);
    error.error = SERRY_OK;
    serry_decision decision = {SERRY_RETRY, true, 5, 5};
    assert_int_equal(serry_recovery_handle(recovery, &error, &decision), SERRY_ERR_INVALID);
    assert_int_equal(decision.strategy, SERRY_ABORT);
    assert_false(decision.retry);
    error = record(SERRY_ERR_TIMEOUT, NULL, 1);
    assert_int_equal(serry_recovery_handle(recovery, &error, &decision), SERRY_ERR_INVALID);
    serry_error_statistics s;
    serry_recovery_statistics(recovery, &s);
    assert_int_equal(s.total, 0);
    assert_int_equal(handle(recovery, SERRY_ERR_TIMEOUT, "reduce", 1).attempts, 1);
    serry_recovery_destroy(&recovery);
}

/* ---- many threads ------------------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 3000 };

typedef struct worker {
    serry_recovery *recovery;
    uint64_t id;
    atomic_bool *stop; /* NULL: handles errors; else: reads and changes until told to stop */
    int wrong;
} worker;

/* Own operations: attempts are exact whatever the others do. */
static void *fail_often(void *argument)
{
    worker *w = argument;
    for (int i = 0; i < ROUNDS; i++) {
        serry_error error = record(SERRY_ERR_TIMEOUT, i % 2 ? "reduce" : "gather", w->id);
        serry_decision own, shared;
        serry_recovery_handle(w->recovery, &error, &own);
        w->wrong += own.attempts != i % 10 / 2 + 1;
        if (i % 10 == 9) {
            serry_recovery_end(w->recovery, w->id, "reduce");
            serry_recovery_end(w->recovery, w->id, "gather");
        }
        error.operation = "shared";
        error.operation_id = 0;
        serry_recovery_handle(w->recovery, &error, &shared);
    }
    return NULL;
}

static void *look_often(void *argument)
{
    worker *w = argument;
    static serry_error errors[64];
    while (!atomic_load(w->stop)) {
        serry_error_statistics s;
        serry_recovery_statistics(w->recovery, &s);
        w->wrong += s.total != count_of_type(&s, SERRY_ERR_TIMEOUT);
        size_t kept = serry_recovery_history(w->recovery, errors, 64);
        for (size_t i = 0; i < kept; i++)
            w->wrong += errors[i].error != SERRY_ERR_TIMEOUT;
        serry_recovery_set_strategy(w->recovery, SERRY_ERR_TIMEOUT, SERRY_ABORT);
        serry_recovery_set_strategy(w->recovery, SERRY_ERR_TIMEOUT, SERRY_RETRY);
        usleep(100);
    }
    return NULL;
}

static void threads_lose_no_count(void **state)
{
    (void)state;
    serry_recovery_config config = SERRY_RECOVERY_CONFIG_INIT;
    config.history = 64;
    serry_recovery *recovery = create(&config);
    worker workers[THREADS + 1];
    pthread_t threads[THREADS + 1];
    atomic_bool stop = false;
    for (size_t t = 0; t <= THREADS; t++) {
        workers[t] = (worker){recovery, 1 + t, t < THREADS ? NULL : &stop, 0};
        assert_int_equal(
            pthread_create(&threads[t], NULL, t < THREADS ? fail_often : look_often, &workers[t]),
            0);
    }
    for (size_t t = 0; t <= THREADS; t++) {
        if (t == THREADS)
            atomic_store(&stop, true);
        pthread_join(threads[t], NULL);
        assert_int_equal(workers[t].wrong, 0);
    }
    serry_error_statistics s;
    serry_recovery_statistics(recovery, &s);
    assert_int_equal(s.total, 2 * THREADS * ROUNDS);
    assert_int_equal(count_of_operation(&s, "shared"), THREADS * ROUNDS);
    assert_int_equal(count_of_operation(&s, "reduce"), THREADS * ROUNDS / 2);
    assert_int_equal(handle(recovery, SERRY_ERR_TIMEOUT, "shared", 0).attempts,
                     THREADS * ROUNDS + 1);
    serry_recovery_destroy(&recovery);
}

int main(void)
{
    alarm(WATCHDOG_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(history_gives_back_what_was_handled),
        cmocka_unit_test(history_keeps_the_latest_in_order),
        cmocka_unit_test(history_keeps_256_unless_told_otherwise),
        cmocka_unit_test(counters_are_exact_when_the_history_has_wrapped),
        cmocka_unit_test(kinds_that_come_too_late_are_counted_together),
        cmocka_unit_test(clearing_forgets_history_and_counters),
        cmocka_unit_test(statistics_have_the_text_of_the_specification),
        cmocka_unit_test(every_error_is_logged_with_its_decision),
        cmocka_unit_test(nothing_is_printed_without_a_log),
        cmocka_unit_test(what_is_no_error_is_refused_and_not_counted),
        cmocka_unit_test(threads_lose_no_count),
    };
    return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}
