/* unit_timeout.h - what the tests of timeouts and tokens share. */
#ifndef TEST_UNIT_TIMEOUT_H
#define TEST_UNIT_TIMEOUT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <time.h>

#include <serry/timeout.h>

#define MINUTE_MS 60000
#define MS UINT64_C(1000000)
#define WATCHDOG_S 120 /* a test that hangs ends by SIGALRM */

static inline uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static inline void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static inline serry_timeouts *create(int default_timeout_ms)
{
    serry_timeouts *timeouts = NULL;
    assert_int_equal(serry_timeouts_create(default_timeout_ms, &timeouts), SERRY_OK);
    assert_non_null(timeouts);
    return timeouts;
}

static inline serry_token *start(serry_timeouts *timeouts, uint64_t id, int timeout_ms)
{
    serry_token *token = NULL;
    assert_int_equal(serry_timeouts_start(timeouts, id, timeout_ms, &token), SERRY_OK);
    assert_non_null(token);
    return token;
}

static inline pthread_t run(void *(*body)(void *), void *argument)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, body, argument), 0);
    return thread;
}

#endif
