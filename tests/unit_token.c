/* unit_token.c - a token between two threads: sleeping on it, watching it. */
#include "unit_timeout.h"

#include <stdatomic.h>
#include <unistd.h>

/* ---- sleeping ----------------------------------------------------------------------------- */

typedef struct sleeper {
    serry_token *token;
    int timeout_ms;
    serry_token_status status;
    uint64_t woken_ns;
} sleeper;

static void *sleep_on(void *argument)
{
    sleeper *s = argument;
    s->status = serry_token_sleep(s->token, s->timeout_ms);
    s->woken_ns = now_ns();
    return NULL;
}

static void cancelling_from_another_thread_ends_a_sleep_at_once(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(0);
    sleeper sleepers[3];
    pthread_t threads[3];
    serry_token *token = start(timeouts, 1, 0);
    for (size_t i = 0; i < 3; i++) {
        sleepers[i] = (sleeper){.token = token, .timeout_ms = INT_MAX};
        threads[i] = run(sleep_on, &sleepers[i]);
    }
    sleep_ms(20);
    assert_true(serry_timeouts_cancel(timeouts, 1));
    for (size_t i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL); /* the watchdog is the bound: a nap would be 24 days */
        assert_int_equal(sleepers[i].status, SERRY_TOKEN_CANCELLED);
    }
    serry_token_release(&token);
    serry_timeouts_destroy(&timeouts);
}

static void a_sleep_ends_with_its_own_time(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(0);
    serry_token *token = start(timeouts, 1, MINUTE_MS);
    uint64_t before = now_ns();
    assert_int_equal(serry_token_sleep(token, 20), SERRY_TOKEN_RUNNING);
    assert_true(now_ns() - before >= 20 * MS);
    assert_int_equal(serry_token_sleep(token, 0), SERRY_TOKEN_RUNNING);
    assert_int_equal(serry_token_sleep(token, -1), SERRY_TOKEN_RUNNING);
    serry_token_release(&token);
    serry_timeouts_destroy(&timeouts);
}

static void a_sleep_ends_with_the_deadline(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(0);
    uint64_t before = now_ns();
    serry_token *token = start(timeouts, 1, 20);
    assert_int_equal(serry_token_sleep(token, INT_MAX), SERRY_TOKEN_EXPIRED);
    assert_true(now_ns() - before >= 20 * MS);
    assert_int_equal(serry_token_sleep(token, INT_MAX), SERRY_TOKEN_EXPIRED);
    serry_token_release(&token);
    serry_timeouts_destroy(&timeouts);
}

static void a_sleep_that_has_begun_sees_an_extension(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(0);
    uint64_t before = now_ns();
    serry_token *token = start(timeouts, 1, 1000);
    sleeper s = {.token = token, .timeout_ms = INT_MAX};
    pthread_t thread = run(sleep_on, &s);
    sleep_ms(20);
    bool extended = serry_timeouts_extend(timeouts, 1, 200) > 0;
    pthread_join(thread, NULL);
    assert_true(extended);
    assert_int_equal(s.status, SERRY_TOKEN_EXPIRED);
    assert_true(s.woken_ns - before >= 1200 * MS);
    serry_token_release(&token);
    serry_timeouts_destroy(&timeouts);
}

/* ---- watches ------------------------------------------------------------------------------ */

typedef struct call {
    atomic_int calls;
    pthread_t by;
} call;

static void note(void *argument)
{
    call *c = argument;
    c->by = pthread_self();
    atomic_fetch_add(&c->calls, 1);
}

static void *cancel_one(void *argument)
{
    serry_timeouts_cancel(argument, 1);
    return NULL;
}

static void a_watch_is_called_once_by_the_thread_that_cancels(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(0);
    serry_token *token = start(timeouts, 1, 0);
    serry_watch watch;
    call c = {0};
    assert_int_equal(serry_token_watch(token, &watch, note, &c), SERRY_TOKEN_RUNNING);
    pthread_t thread = run(cancel_one, timeouts);
    while (serry_token_state(token) == SERRY_TOKEN_RUNNING)
        sleep_ms(1);
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&c.calls), 1);
    assert_true(pthread_equal(c.by, thread));
    serry_timeouts_cancel(timeouts, 1);
    serry_timeouts_cancel_all(timeouts);
    serry_token_unwatch(token, &watch);
    assert_int_equal(atomic_load(&c.calls), 1);
    serry_token_release(&token);
    serry_timeouts_destroy(&timeouts);
}

static void every_way_of_cancelling_calls_the_watches(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        serry_timeouts *timeouts = create(0);
        serry_token *token = start(timeouts, 1, 0), *newer = NULL;
        serry_watch watch;
        call c = {0};
        serry_token_watch(token, &watch, note, &c);
        if (way == 0)
            serry_timeouts_cancel(timeouts, 1);
        else if (way == 1)
            serry_timeouts_cancel_all(timeouts);
        else if (way == 2)
            newer = start(timeouts, 1, 0);
        else
            serry_timeouts_destroy(&timeouts);
        assert_int_equal(atomic_load(&c.calls), 1);
        serry_token_unwatch(token, &watch);
        serry_token_release(&token);
        serry_token_release(&newer);
        serry_timeouts_destroy(&timeouts);
    }
}

static void neither_end_nor_expiry_nor_extension_calls_a_watch(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(0);
    serry_token *ended = start(timeouts, 1, 500), *expired = start(timeouts, 2, 500);
    serry_watch watches[2];
    call c = {0};
    assert_int_equal(serry_token_watch(ended, &watches[0], note, &c), SERRY_TOKEN_RUNNING);
    assert_int_equal(serry_token_watch(expired, &watches[1], note, &c), SERRY_TOKEN_RUNNING);
    assert_true(serry_timeouts_extend(timeouts, 2, 10) > 0);
    serry_timeouts_end(timeouts, 1);
    sleep_ms(520);
    assert_int_equal(serry_token_state(expired), SERRY_TOKEN_EXPIRED);
    serry_timeouts_cancel_all(timeouts);
    serry_timeouts_destroy(&timeouts);
    assert_int_equal(atomic_load(&c.calls), 0);
    serry_token_unwatch(ended, &watches[0]);
    serry_token_unwatch(expired, &watches[1]);
    serry_token_release(&ended);
    serry_token_release(&expired);
}

static void a_tripped_token_takes_no_watch_and_says_so(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(0);
    serry_token *cancelled = start(timeouts, 1, 0), *expired = start(timeouts, 2, 1);
    serry_timeouts_cancel(timeouts, 1);
    sleep_ms(2);
    serry_watch watch;
    call c = {0};
    assert_int_equal(serry_token_watch(cancelled, &watch, note, &c), SERRY_TOKEN_CANCELLED);
    assert_int_equal(serry_token_watch(expired, &watch, note, &c), SERRY_TOKEN_EXPIRED);
    serry_timeouts_destroy(&timeouts);
    assert_int_equal(atomic_load(&c.calls), 0);
    serry_token_release(&cancelled);
    serry_token_release(&expired);
}

/* Whichever of five is taken out first: that one is not called, the others are. */
static void what_is_not_watched_any_more_is_not_called(void **state)
{
    (void)state;
    enum { WATCHES = 5 };
    for (size_t first = 0; first < WATCHES; first++) {
        serry_timeouts *timeouts = create(0);
        serry_token *token = start(timeouts, 1, 0);
        serry_watch watches[WATCHES];
        call calls[WATCHES] = {{0}};
        size_t second = (first + 1) % WATCHES;
        for (size_t i = 0; i < WATCHES; i++)
            serry_token_watch(token, &watches[i], note, &calls[i]);
        serry_token_unwatch(token, &watches[first]);
        serry_token_unwatch(token, &watches[second]);
        serry_timeouts_cancel(timeouts, 1);
        for (size_t i = 0; i < WATCHES; i++) {
            if (i != first && i != second)
                serry_token_unwatch(token, &watches[i]);
            assert_int_equal(atomic_load(&calls[i].calls), i != first && i != second);
        }
        serry_token_release(&token);
        serry_timeouts_destroy(&timeouts);
    }
}

typedef struct slow_call {
    atomic_bool begun;
    bool ended; /* plain: whoever unwatches may read it, if the promise holds */
} slow_call;

static void be_slow(void *argument)
{
    slow_call *c = argument;
    atomic_store(&c->begun, true);
    sleep_ms(30);
    c->ended = true;
}

static void unwatching_waits_for_a_running_call(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(0);
    serry_token *token = start(timeouts, 1, 0);
    serry_watch watch;
    slow_call c = {0};
    serry_token_watch(token, &watch, be_slow, &c);
    pthread_t thread = run(cancel_one, timeouts);
    while (!atomic_load(&c.begun))
        sleep_ms(1);
    serry_token_unwatch(token, &watch);
    bool ended = c.ended;
    pthread_join(thread, NULL);
    assert_true(ended);
    serry_token_release(&token);
    serry_timeouts_destroy(&timeouts);
}

static void come_back(void *argument)
{
    serry_timeouts *timeouts = argument;
    serry_token *token = NULL;
    serry_timeouts_cancel(timeouts, 1);
    serry_timeouts_start(timeouts, 1, MINUTE_MS, &token);
    serry_timeouts_extend(timeouts, 1, MINUTE_MS);
    serry_timeouts_cancel(timeouts, 2);
    serry_token_release(&token);
}

static void a_watch_may_use_the_timeouts(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(0);
    serry_token *token = start(timeouts, 1, 0), *other = start(timeouts, 2, 0);
    serry_watch watch;
    serry_token_watch(token, &watch, come_back, timeouts);
    assert_true(serry_timeouts_cancel(timeouts, 1));
    serry_token_unwatch(token, &watch);
    assert_int_equal(serry_token_state(token), SERRY_TOKEN_CANCELLED);
    assert_int_equal(serry_token_state(other), SERRY_TOKEN_CANCELLED);
    assert_true(serry_timeouts_remaining(timeouts, 1) > MINUTE_MS);
    serry_token_release(&token);
    serry_token_release(&other);
    serry_timeouts_destroy(&timeouts);
}

int main(void)
{
    alarm(WATCHDOG_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cancelling_from_another_thread_ends_a_sleep_at_once),
        cmocka_unit_test(a_sleep_ends_with_its_own_time),
        cmocka_unit_test(a_sleep_ends_with_the_deadline),
        cmocka_unit_test(a_sleep_that_has_begun_sees_an_extension),
        cmocka_unit_test(a_watch_is_called_once_by_the_thread_that_cancels),
        cmocka_unit_test(every_way_of_cancelling_calls_the_watches),
        cmocka_unit_test(neither_end_nor_expiry_nor_extension_calls_a_watch),
        cmocka_unit_test(a_tripped_token_takes_no_watch_and_says_so),
        cmocka_unit_test(what_is_not_watched_any_more_is_not_called),
        cmocka_unit_test(unwatching_waits_for_a_running_call),
        cmocka_unit_test(a_watch_may_use_the_timeouts),
    };
    return cmocka_run_group_tests_name("token", tests, NULL, NULL);
}
