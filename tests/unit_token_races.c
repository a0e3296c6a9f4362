/* unit_token_races.c - tokens under several threads at once: nothing happens twice or is missed. */
#include "unit_timeout.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

enum { THREADS = 4, ROUNDS = 2000, SHARED_IDS = 8 };

typedef struct started {
    serry_token *token;
    serry_watch watch;
    atomic_int calls;
    bool watched;
} started;

typedef struct worker {
    serry_timeouts *timeouts;
    unsigned seed;
    started *all; /* ROUNDS */
} worker;

static void count_call(void *argument)
{
    atomic_fetch_add((atomic_int *)argument, 1);
}

/* Start, extend, end and cancel operations under ids that the other threads use as well. */
static void *work(void *argument)
{
    worker *w = argument;
    for (int i = 0; i < ROUNDS; i++) {
        started *s = &w->all[i];
        uint64_t id = (uint64_t)rand_r(&w->seed) % SHARED_IDS;
        int timeout_ms = rand_r(&w->seed) % 3; /* of each: none, 1 ms, 2 ms */
        if (serry_timeouts_start(w->timeouts, id, timeout_ms, &s->token) != SERRY_OK)
            return w;
        s->watched =
            serry_token_watch(s->token, &s->watch, count_call, &s->calls) == SERRY_TOKEN_RUNNING;
        id = (uint64_t)rand_r(&w->seed) % SHARED_IDS;
        switch (rand_r(&w->seed) % 6) {
        case 0:
            serry_timeouts_end(w->timeouts, id);
            break;
        case 1:
            serry_timeouts_cancel(w->timeouts, id);
            break;
        case 2:
            if (i % 100 == 0)
                serry_timeouts_cancel_all(w->timeouts);
            break;
        default:
            serry_timeouts_extend(w->timeouts, id, 1);
            serry_timeouts_remaining(w->timeouts, id);
        }
    }
    return NULL;
}

/* A token becomes one thing and stays it; its watch is called if and only if that is cancelled. */
static void threads_that_share_ids_see_each_token_trip_at_most_once(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(0);
    worker workers[THREADS];
    pthread_t threads[THREADS];
    for (unsigned t = 0; t < THREADS; t++) {
        workers[t] = (worker){timeouts, 100 + t, calloc(ROUNDS, sizeof(started))};
        assert_non_null(workers[t].all);
        threads[t] = run(work, &workers[t]);
    }
    for (size_t t = 0; t < THREADS; t++) {
        void *failed = NULL;
        pthread_join(threads[t], &failed);
        assert_null(failed);
    }
    serry_timeouts_destroy(&timeouts);

    int cancelled = 0;
    for (size_t t = 0; t < THREADS; t++) {
        for (size_t i = 0; i < ROUNDS; i++) {
            started *s = &workers[t].all[i];
            serry_token_status status = serry_token_state(s->token);
            cancelled += status == SERRY_TOKEN_CANCELLED;
            assert_int_equal(atomic_load(&s->calls), s->watched && status == SERRY_TOKEN_CANCELLED);
            if (s->watched)
                serry_token_unwatch(s->token, &s->watch);
            serry_token_release(&s->token);
        }
        free(workers[t].all);
    }
    assert_true(cancelled > ROUNDS);
}

typedef struct waiter {
    _Atomic(serry_token *) token; /* the one to wait on next; NULL: taken */
    atomic_int result;
    atomic_bool stop;
} waiter;

static void set_flag(void *argument)
{
    atomic_store((atomic_bool *)argument, true);
}

/* A waiter as a backend has it: a flag of its own, a watch that sets it, an end to both. */
static void *wait_often(void *argument)
{
    waiter *w = argument;
    while (!atomic_load(&w->stop)) {
        serry_token *token = atomic_exchange(&w->token, NULL);
        if (token == NULL) {
            sched_yield();
            continue;
        }
        atomic_bool flag = false;
        serry_watch watch;
        serry_token_status status = serry_token_watch(token, &watch, set_flag, &flag);
        if (status == SERRY_TOKEN_RUNNING) {
            while (!atomic_load(&flag))
                sched_yield();
            serry_token_unwatch(token, &watch);
            status = serry_token_state(token);
        }
        serry_token_release(&token);
        atomic_store(&w->result, status);
    }
    return NULL;
}

static void no_cancellation_is_missed_by_a_waiter(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(0);
    waiter w = {.token = NULL};
    pthread_t thread = run(wait_often, &w);
    for (uint64_t i = 0; i < 3000; i++) {
        serry_token *token = start(timeouts, i, 0);
        atomic_store(&w.result, 0);
        atomic_store(&w.token, token);
        for (uint64_t spins = i % 64 * 8; spins > 0; spins--)
            atomic_load(&w.result);
        bool cancelled = serry_timeouts_cancel(timeouts, i);
        while (atomic_load(&w.result) == 0)
            sched_yield();
        assert_true(cancelled);
        assert_int_equal(atomic_load(&w.result), SERRY_ERR_CANCELLED);
    }
    atomic_store(&w.stop, true);
    pthread_join(thread, NULL);
    serry_timeouts_destroy(&timeouts);
}

typedef struct poller {
    serry_token *token;
    uint64_t expired_ns;
} poller;

static void *poll_until_expired(void *argument)
{
    poller *p = argument;
    while (serry_token_state(p->token) == SERRY_TOKEN_RUNNING)
        ;
    p->expired_ns = now_ns();
    return NULL;
}

/* Extensions as close to the deadline as can be: each one either counts in full or says no. */
static void what_was_extended_does_not_expire_before(void **state)
{
    (void)state;
    serry_timeouts *timeouts = create(0);
    int extended = 0;
    for (int round = 0; round < 300; round++) {
        serry_token *token = start(timeouts, 1, 1);
        uint64_t first = serry_token_deadline(token), aim = first - 600 + (uint64_t)round * 2;
        poller p = {.token = token};
        pthread_t thread = run(poll_until_expired, &p);
        while (now_ns() < aim)
            ;
        bool yes = serry_timeouts_extend(timeouts, 1, 2) > 0;
        pthread_join(thread, NULL);
        extended += yes;
        assert_true(p.expired_ns >= first + (yes ? 2 * MS : 0));
        serry_token_release(&token);
    }
    print_message("extended in time: %d of 300\n", extended);
    serry_timeouts_destroy(&timeouts);
}

int main(void)
{
    alarm(WATCHDOG_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_that_share_ids_see_each_token_trip_at_most_once),
        cmocka_unit_test(no_cancellation_is_missed_by_a_waiter),
        cmocka_unit_test(what_was_extended_does_not_expire_before),
    };
    return cmocka_run_group_tests_name("token_races", tests, NULL, NULL);
}
