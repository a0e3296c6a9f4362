/* ft_waiting.c - timeouts and cancellation of operations under the wrapper, with a mock that
 * sleeps. */
#include "ft_mock.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#define SHORT_MS 50

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + 1e-9 * (double)at.tv_nsec;
}

static void await_sleep(mock *m)
{
    while (!atomic_load(&m->asleep))
        usleep(1000);
}

typedef struct helper {
    chain *c;
    serry_timeouts *outer;
    uint64_t id;
    pthread_t thread;
    bool done;
} helper;

static void start(helper *h, void *(*body)(void *))
{
    assert_int_equal(pthread_create(&h->thread, NULL, body, h), 0);
}

/* ---- by the number of the operation --------------------------------------------------------- */

static void *cancel_by_id(void *argument)
{
    helper *h = argument;
    await_sleep(h->c->mocks[0]);
    h->done = serry_timeouts_cancel(serry_ft_timeouts(h->c->comm), serry_ft_operation(h->c->comm));
    return NULL;
}

static void another_thread_cancels_an_operation(void **state)
{
    (void)state;
    chain c;
    mock m;
    helper h = {.c = &c};
    chain_one(&c, &m);
    m.run[1] = MOCK_SLEEP;
    assert_int_equal(chain_sum(&c), SERRY_OK);
    start(&h, cancel_by_id);
    assert_int_equal(chain_sum(&c), SERRY_ERR_CANCELLED);
    pthread_join(h.thread, NULL);
    assert_true(h.done);
    assert_int_equal(m.runs, 2);
    assert_int_equal(m.meets, 1);
    assert_true(m.timeout_ms[0] > 0 && m.timeout_ms[0] <= 1000);
    assert_int_equal(serry_last_error(c.comm)->operation_id, 2);
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(serry_timeouts_remaining(serry_ft_timeouts(c.comm), 2), 0);
    chain_close(&c);
}

static void another_thread_cancels_a_meeting(void **state)
{
    (void)state;
    chain c;
    mock m;
    helper h = {.c = &c};
    chain_one(&c, &m);
    m.run[0] = SERRY_ERR_NO_SPACE;
    m.meet[0].code = MOCK_SLEEP;
    start(&h, cancel_by_id);
    assert_int_equal(chain_sum(&c), SERRY_ERR_NO_SPACE);
    pthread_join(h.thread, NULL);
    assert_string_equal(serry_error_context_get(serry_last_error(c.comm), "Meeting"), "open");
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m.meets, 2);
    chain_close(&c);
}

static void *extend_by_id(void *argument)
{
    helper *h = argument;
    serry_timeouts *timeouts = serry_ft_timeouts(h->c->comm);
    await_sleep(h->c->mocks[0]);
    h->done = serry_timeouts_extend(timeouts, 1, 100000) > 0;
    usleep(10 * SHORT_MS * 1000);
    h->done &= serry_timeouts_remaining(timeouts, 1) > 1000;
    h->done &= serry_timeouts_cancel(timeouts, 1);
    return NULL;
}

static void another_thread_gives_an_operation_more_time(void **state)
{
    (void)state;
    chain c;
    mock m;
    helper h = {.c = &c};
    mock_make(&m, "mock");
    chain_begin(&c, &m, NULL, NULL);
    c.timeout_ms = 2000;
    assert_int_equal(chain_open(&c), SERRY_OK);
    assert_int_equal(serry_timeouts_default(serry_ft_timeouts(c.comm)), 2000);
    m.run[0] = MOCK_SLEEP;
    start(&h, extend_by_id);
    assert_int_equal(chain_sum(&c), SERRY_ERR_CANCELLED);
    pthread_join(h.thread, NULL);
    assert_true(h.done);
    chain_close(&c);
}

static void each_attempt_has_the_whole_time(void **state)
{
    (void)state;
    chain c;
    mock m;
    chain_one(&c, &m);
    assert_int_equal(serry_set_timeout(c.comm, SHORT_MS), SERRY_OK);
    m.run[0] = m.run[1] = m.run[2] = MOCK_SLEEP;
    double before = now();
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_true(now() - before >= 3 * 0.001 * SHORT_MS);
    assert_int_equal(m.runs, 4);
    chain_close(&c);
}

/* ---- by a token of the caller's ------------------------------------------------------------- */

static void *cancel_outer(void *argument)
{
    helper *h = argument;
    await_sleep(h->c->mocks[0]);
    h->done = serry_timeouts_cancel(h->outer, h->id);
    return NULL;
}

/* The first sleep is over by then, the second is not. */
static void *cancel_outer_late(void *argument)
{
    helper *h = argument;
    while (h->c->mocks[0]->runs < 9)
        usleep(1000);
    return cancel_outer(argument);
}

static void set_token(helper *h, int timeout_ms)
{
    serry_token *token;
    assert_int_equal(serry_timeouts_start(h->outer, ++h->id, timeout_ms, &token), SERRY_OK);
    assert_int_equal(serry_set_token(h->c->comm, token), SERRY_OK);
    serry_token_release(&token);
}

static void the_callers_token_works_as_well(void **state)
{
    (void)state;
    serry_error errors[CHAIN_HISTORY];
    chain c;
    mock m;
    helper h = {.c = &c};
    chain_one(&c, &m);
    assert_int_equal(serry_timeouts_create(0, &h.outer), SERRY_OK);

    set_token(&h, 0);
    assert_int_equal(chain_sum(&c), SERRY_OK);
    m.run[1] = MOCK_SLEEP;
    start(&h, cancel_outer);
    assert_int_equal(chain_sum(&c), SERRY_ERR_CANCELLED);
    pthread_join(h.thread, NULL);
    assert_true(h.done);
    assert_int_equal(m.runs, 2);

    m.run[2] = MOCK_SLEEP; /* tripped already */
    assert_int_equal(chain_sum(&c), SERRY_ERR_CANCELLED);

    set_token(&h, SHORT_MS); /* its time is less than the communicator's */
    for (int i = 3; i < 7; i++)
        m.run[i] = MOCK_SLEEP;
    double before = now();
    assert_int_equal(chain_sum(&c), SERRY_ERR_TIMEOUT);
    assert_true(now() - before >= 0.001 * SHORT_MS);
    assert_int_equal(m.runs, 7);

    set_token(&h, 1000); /* its time is extended meanwhile */
    m.run[7] = m.run[8] = MOCK_SLEEP;
    m.extended = h.outer;
    m.extend = h.id;
    start(&h, cancel_outer_late);
    assert_int_equal(chain_sum(&c), SERRY_ERR_CANCELLED);
    pthread_join(h.thread, NULL);
    assert_true(h.done);
    assert_int_equal(chain_history(&c, errors), 7); /* putting off is no error */

    set_token(&h, 0); /* and the number works beside it */
    unsigned next = m.runs;
    m.run[next] = MOCK_SLEEP;
    start(&h, cancel_by_id);
    assert_int_equal(chain_sum(&c), SERRY_ERR_CANCELLED);
    pthread_join(h.thread, NULL);
    assert_true(h.done);
    assert_int_equal(serry_set_token(c.comm, NULL), SERRY_OK);
    assert_int_equal(chain_sum(&c), SERRY_OK);
    serry_timeouts_destroy(&h.outer);
    chain_close(&c);
}

int main(void)
{
    const struct CMUnitTest k_tests[] = {
        cmocka_unit_test(another_thread_cancels_an_operation),
        cmocka_unit_test(another_thread_cancels_a_meeting),
        cmocka_unit_test(another_thread_gives_an_operation_more_time),
        cmocka_unit_test(each_attempt_has_the_whole_time),
        cmocka_unit_test(the_callers_token_works_as_well),
    };
    alarm(120);
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
