/* joining.c - joining wrongly, and with a rank that dies meanwhile: everybody is told, and why. */
#include <stdint.h>
#include <string.h>

#include <serry/backend.h>

#include "harness.h"

/* What each process of a run says about itself. */
typedef struct claims {
    int processes;
    int rank[4], size[4];
    serry_kind_of_rank kind[4];
    const char *word; /* in the message of those who get SERRY_ERR_INVALID */
    int refused;      /* at least so many get it; others may find nobody there any more */
} claims;

static void body_claims(test_rank *self)
{
    const claims *c = self->argument;
    serry_config config = SERRY_CONFIG_INIT;
    serry_comm *comm = self->comm;
    config.rank = c->rank[self->rank];
    config.size = c->size[self->rank];
    config.kind = c->kind[self->rank];
    config.job = self->job;
    config.timeout_ms = 2000;
    int result = serry_init(&config, &comm);
    const serry_error *record = serry_last_error(NULL);
    CHECK(self, result != SERRY_OK && comm == NULL);
    CHECK(self, record->error == result && strcmp(record->operation, "init") == 0);
    if (result == SERRY_ERR_INVALID) {
        test_mine(self)->number[0] = 1;
        if (strstr(record->message, c->word) == NULL)
            test_failed(self, "the message does not say \"%s\": %s", c->word, record->message);
    }
    serry_finalize(&comm);
}

static void run_claims(const claims *c)
{
    test_options options = {.kind = SERRY_PROCESSES, .size = c->processes, .body_joins = true};
    test_run *run = test_start(&options, body_claims, (void *)(uintptr_t)c);
    int refused = 0;
    test_join(run);
    for (int r = 0; r < c->processes; r++)
        refused += (int)test_report_of(run, r)->number[0];
    test_end(run);
    if (refused < c->refused)
        fail_msg("%d ranks were refused, not %d; the word was \"%s\"", refused, c->refused,
                 c->word);
}

static void threads_and_processes_in_one_job(void **state)
{
    (void)state;
    static const claims k_ways[] = {
        {2, {0, 1}, {2, 2}, {SERRY_THREADS, SERRY_PROCESSES}, "thread", 2},
        {2, {0, 1}, {2, 2}, {SERRY_PROCESSES, SERRY_THREADS}, "process", 2},
        {3, {0, 1, 2}, {3, 3, 3}, {SERRY_PROCESSES, SERRY_PROCESSES, SERRY_THREADS}, "thread", 2},
    };
    for (size_t i = 0; i < sizeof(k_ways) / sizeof(k_ways[0]); i++)
        run_claims(&k_ways[i]);
}

/* The first of them may have been taken for the right one. */
static void the_same_rank_twice(void **state)
{
    (void)state;
    static const claims k_ways[] = {
        {2, {0, 0}, {2, 2}, {0}, "rank 0", 1},
        {2, {1, 1}, {2, 2}, {0}, "rank 1", 0}, /* no rank 0 to tell them */
        {3, {0, 1, 1}, {3, 3, 3}, {0}, "rank 1", 2},
        {4, {0, 1, 2, 0}, {4, 4, 4, 4}, {0}, "rank 0", 1},
    };
    for (size_t i = 0; i < sizeof(k_ways) / sizeof(k_ways[0]); i++)
        run_claims(&k_ways[i]);
}

static void different_sizes(void **state)
{
    (void)state;
    static const claims k_ways[] = {
        {2, {0, 1}, {2, 3}, {0}, "3", 2},
        {3, {0, 1, 2}, {2, 3, 3}, {0}, "3", 2},
        {3, {0, 1, 2}, {3, 3, 4}, {0}, "4", 2},
    };
    for (size_t i = 0; i < sizeof(k_ways) / sizeof(k_ways[0]); i++)
        run_claims(&k_ways[i]);
}

static void refused(const serry_config *config, const char *word)
{
    serry_comm *comm = (serry_comm *)(void *)&comm;
    assert_int_equal(serry_init(config, &comm), SERRY_ERR_INVALID);
    assert_null(comm);
    if (strstr(serry_last_error(NULL)->message, word) == NULL)
        fail_msg("the message does not say \"%s\": %s", word, serry_last_error(NULL)->message);
}

static void wrong_configurations(void **state)
{
    (void)state;
    serry_config good = SERRY_CONFIG_INIT;
    good.rank = 0;
    good.size = 2;
    good.job = "job";
    good.timeout_ms = 200;
    char long_name[SERRY_JOB_NAME_MAX + 1];
    memset(long_name, 'x', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = 0;
    serry_config c = good;
    c.rank = 2, refused(&c, "rank");
    c.rank = -2, refused(&c, "rank");
    c = good, c.size = 0, refused(&c, "size");
    c = good, c.size = 257, refused(&c, "256");
    c = good, c.kind = (serry_kind_of_rank)7, refused(&c, "kind");
    c = good, c.bytes = 3, refused(&c, "SERRY_CONFIG_INIT");
    c = good, c.job = long_name, refused(&c, "job");
    assert_int_equal(serry_init(&good, NULL), SERRY_ERR_INVALID);
}

/* ---- a rank that dies while it joins -------------------------------------------------------- */

#define LAST 3 /* comes only when the victim is dead */

static void body_dies_joining(test_rank *self)
{
    int victim = *(const int *)self->argument;
    serry_comm *comm;
    if (self->rank == LAST)
        test_await(self, 0, 1);
    else
        test_raise(self, 1);
    int result = test_init(self, 3000, &comm);
    const serry_error *record = serry_last_error(NULL);
    CHECK(self, result != SERRY_OK && comm == NULL);
    if (self->rank != LAST && !serry_rank_set_has(&record->ranks, victim))
        test_failed(self, "%s: the record does not name rank %d: %s", serry_error_name(result),
                    victim, record->message);
}

static void a_rank_dies_joining(void **state)
{
    (void)state;
    for (int victim = 0; victim < LAST; victim++) {
        test_options options = {.kind = SERRY_PROCESSES, .size = LAST + 1, .body_joins = true};
        test_run *run = test_start(&options, body_dies_joining, &victim);
        while (test_flag(run, 1) < LAST)
            test_sleep_ms(1);
        test_sleep_ms(100);
        test_kill(run, victim);
        test_raise_in(run, 0);
        test_end(run);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_and_processes_in_one_job),
        cmocka_unit_test(the_same_rank_twice),
        cmocka_unit_test(different_sizes),
        cmocka_unit_test(wrong_configurations),
        cmocka_unit_test(a_rank_dies_joining),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
