/* driven.c - see driven.h. */
#include "driven.h"

typedef struct driven {
    serry_progress progress;
    test_body body;
} driven;

serry_progress driven_by(const test_rank *self)
{
    return ((const driven *)self->argument)->progress;
}

static void join_and_do(test_rank *self)
{
    const driven *d = self->argument;
    serry_config config = test_config(self, 60000);

    config.progress = d->progress;
    if (!test_expect(self, SERRY_OK, serry_init(&config, &self->comm), NULL, "serry_init"))
        return;
    EXPECT_OK(self, serry_barrier(self->comm));
    d->body(self);
    EXPECT_OK(self, serry_finalize(&self->comm));
}

void run_driven(serry_progress progress, int size, test_body body)
{
    test_options options = {.kind = SERRY_THREADS, .size = size, .body_joins = true};
    driven d = {progress, body};

    test_end(test_start(&options, join_and_do, &d));
    options.kind = SERRY_PROCESSES;
    if (!TEST_TSAN)
        test_end(test_start(&options, join_and_do, &d));
}

/* ---- one body under each ------------------------------------------------------------------------ */

static int g_size;
static test_body g_body;

static void cancelled_where_the_caller_drives(void **state)
{
    (void)state;
    run_driven(SERRY_PROGRESS_CALLER, g_size, g_body);
}

static void cancelled_where_the_progress_thread_drives(void **state)
{
    (void)state;
    run_driven(SERRY_PROGRESS_THREAD, g_size, g_body);
}

int run_cancelled(int size, test_body body)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(cancelled_where_the_caller_drives),
        cmocka_unit_test(cancelled_where_the_progress_thread_drives),
    };

    g_size = size;
    g_body = body;
    test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
