/* cancel_asleep.c - a token that is cancelled ends its requests although all who might drive them sleep,
 * for ever or for an hour, and nobody waits for the requests. Each test would hang, and the watchdog end
 * it, if that were not felt. One rank: nothing else ever wakes anybody here. */
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

#include "harness.h"

#include <serry/backend.h>
#include <serry/ft.h>

enum { ID = 3, TAG = 5, MANY = 100, ROUNDS = 300, DEEP_MS = 20, HOUR_MS = 3600 * 1000 };

/* Self, but its operations do not end before they are let go. As others would end them, with a word that
 * nobody wakes. */
typedef struct held {
    serry_backend table;
    _Atomic bool go;
} held;

static held g_held;

static int held_run(serry_member *member, const serry_call *call, const serry_limit *limit,
                    serry_error *error)
{
    serry_token *token = limit->token == NULL ? NULL : limit->token(limit->argument);
    serry_token_status status = token == NULL ? SERRY_TOKEN_RUNNING : serry_token_state(token);

    if (atomic_load(&g_held.go))
        return serry_backend_self.run(member, call, limit, error);
    if (status != SERRY_TOKEN_RUNNING)
        return serry_error_make(error, (int)status, serry_kind_name(call->kind), 1, 0,
                                "ended by its token");
    assert_non_null(limit->poll);
    *limit->poll = (serry_interest){.sleep = limit->poll->sleep};
    return SERRY_ERR_AGAIN;
}

/* Never in time. */
static int refuse_run(serry_member *member, const serry_call *call, const serry_limit *limit,
                      serry_error *error)
{
    (void)member, (void)limit;
    return serry_error_make(error, SERRY_ERR_SYSTEM, serry_kind_name(call->kind), 1, 0, "refused");
}

static serry_comm *join(const serry_backend *backend, serry_progress progress)
{
    serry_config config = SERRY_CONFIG_INIT;
    serry_comm *comm = NULL;

    config.rank = 0;
    config.size = 1;
    config.job = "alone";
    config.backend = backend;
    config.progress = progress;
    config.timeout_ms = -1;
    assert_int_equal(serry_init(&config, &comm), SERRY_OK);
    return comm;
}

static serry_comm *join_held(serry_progress progress)
{
    g_held.table = serry_backend_self;
    g_held.table.run = held_run;
    atomic_store(&g_held.go, false);
    return join(&g_held.table, progress);
}

/* ---- tokens ------------------------------------------------------------------------------------- */

typedef struct token {
    serry_timeouts *timeouts;
    serry_token *token;
} token;

static void token_begin(token *t, serry_comm *comm)
{
    assert_int_equal(serry_timeouts_create(-1, &t->timeouts), SERRY_OK);
    assert_int_equal(serry_timeouts_start(t->timeouts, ID, -1, &t->token), SERRY_OK);
    assert_int_equal(serry_set_token(comm, t->token), SERRY_OK);
}

static void token_end(token *t, serry_comm *comm)
{
    assert_int_equal(serry_set_token(comm, NULL), SERRY_OK);
    serry_token_release(&t->token);
    serry_timeouts_destroy(&t->timeouts);
}

/* ---- requests that nobody drives but the progress thread ---------------------------------------- */

typedef struct watched {
    serry_request *request;
    sem_t ended;
    int result;
    int64_t in, out;
} watched;

static void has_ended(int result, const serry_error *error, void *of)
{
    watched *w = of;

    (void)error;
    w->result = result;
    sem_post(&w->ended);
}

static void watch(watched *w)
{
    sem_init(&w->ended, 0, 0);
    assert_int_equal(serry_on_completion(w->request, has_ended, w), SERRY_OK);
}

static void sum(watched *w, serry_comm *comm)
{
    *w = (watched){.in = 7};
    assert_int_equal(serry_iallreduce(&w->in, &w->out, 1, SERRY_I64, SERRY_SUM, comm, &w->request),
                     SERRY_OK);
    watch(w);
}

static void receive(watched *w, serry_comm *comm)
{
    *w = (watched){.in = 0};
    assert_int_equal(serry_irecv(&w->out, 1, SERRY_I64, 0, TAG, NULL, comm, &w->request), SERRY_OK);
    watch(w);
}

/* Without waiting for it by the library. */
static void expect_ends(watched *w, int code)
{
    while (sem_wait(&w->ended) != 0)
        ;
    assert_int_equal(w->result, code);
    assert_int_equal(serry_wait(&w->request, -1), code);
    assert_int_equal(serry_request_error(w->request)->error, code);
    serry_request_free(&w->request);
    sem_destroy(&w->ended);
}

static bool runs(watched *w)
{
    int value = 1;

    return sem_getvalue(&w->ended, &value) == 0 && value == 0;
}

/* ---- the tests ---------------------------------------------------------------------------------- */

static void a_receive(void **state)
{
    serry_comm *comm = join(&serry_backend_self, SERRY_PROGRESS_THREAD);
    static watched w[MANY];
    token t;

    (void)state;
    token_begin(&t, comm);
    for (int i = 0; i < MANY; i++)
        receive(&w[i], comm);
    test_sleep_ms(DEEP_MS);
    assert_true(runs(&w[0]) && runs(&w[MANY - 1]));
    serry_timeouts_cancel(t.timeouts, ID);
    for (int i = 0; i < MANY; i++)
        expect_ends(&w[i], SERRY_ERR_CANCELLED);
    token_end(&t, comm);
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
}

static void the_first_operation(void **state)
{
    serry_comm *comm = join_held(SERRY_PROGRESS_THREAD);
    watched first, second;
    token t;

    (void)state;
    token_begin(&t, comm);
    sum(&first, comm);
    sum(&second, comm);
    test_sleep_ms(DEEP_MS);
    assert_true(runs(&first) && runs(&second));
    serry_timeouts_cancel(t.timeouts, ID);
    expect_ends(&first, SERRY_ERR_CANCELLED);
    expect_ends(&second, SERRY_ERR_PENDING);
    token_end(&t, comm);
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
}

/* The one before it has no token, and goes on. */
static void one_that_stands_behind(void **state)
{
    serry_comm *comm = join_held(SERRY_PROGRESS_THREAD);
    watched first, second, third;
    token t;

    (void)state;
    sum(&first, comm);
    token_begin(&t, comm);
    sum(&second, comm);
    assert_int_equal(serry_set_token(comm, NULL), SERRY_OK);
    sum(&third, comm);
    test_sleep_ms(DEEP_MS);
    assert_true(runs(&second));
    serry_timeouts_cancel(t.timeouts, ID);
    expect_ends(&second, SERRY_ERR_CANCELLED);
    expect_ends(&third, SERRY_ERR_PENDING);
    assert_true(runs(&first));
    atomic_store(&g_held.go, true);
    assert_int_equal(serry_wait(&first.request, -1), SERRY_OK);
    assert_int_equal(first.out, 7);
    token_end(&t, comm);
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
}

/* Whenever it comes: as the thread goes to sleep, most of all. */
static void at_any_time(void **state)
{
    serry_comm *comm = join_held(SERRY_PROGRESS_THREAD);
    unsigned random = (unsigned)test_seed();

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        watched first, second;
        token t;
        sum(&first, comm);
        token_begin(&t, comm);
        sum(&second, comm);
        for (volatile int pauses = rand_r(&random) % 200000; pauses > 0; pauses--)
            ;
        serry_timeouts_cancel(t.timeouts, ID);
        expect_ends(&second, SERRY_ERR_CANCELLED);
        token_end(&t, comm);
        assert_int_equal(serry_cancel(first.request), SERRY_OK);
        expect_ends(&first, SERRY_ERR_CANCELLED);
    }
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
}

/* An attempt has failed, and the next one is due in an hour. `by`: whose token is cancelled. */
static void in_a_pause(bool by_operation)
{
    serry_ft_config config = SERRY_FT_CONFIG_INIT;
    serry_backend refuses = serry_backend_self, *backend;
    const serry_backend *chain[] = {&refuses};
    watched w;
    token t;

    refuses.run = refuse_run;
    config.chain = chain;
    config.count = 1;
    config.timeout_ms = -1;
    config.recovery.retry_delay_ms = HOUR_MS;
    config.recovery.jitter = 0;
    assert_int_equal(serry_ft_create(&config, &backend), SERRY_OK);
    serry_comm *comm = join(backend, SERRY_PROGRESS_THREAD);
    assert_int_equal(
        serry_recovery_set_strategy(serry_ft_recovery(comm), SERRY_ERR_SYSTEM, SERRY_RETRY),
        SERRY_OK);
    token_begin(&t, comm);
    sum(&w, comm);
    test_sleep_ms(DEEP_MS);
    assert_true(runs(&w));
    if (by_operation)
        serry_timeouts_cancel(serry_ft_timeouts(comm), serry_ft_operation(comm));
    else
        serry_timeouts_cancel(t.timeouts, ID);
    expect_ends(&w, SERRY_ERR_CANCELLED);
    token_end(&t, comm);
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
    serry_ft_destroy(&backend);
}

static void a_pause_between_attempts(void **state)
{
    (void)state;
    in_a_pause(false);
}

static void an_operation_of_the_wrapper(void **state)
{
    (void)state;
    in_a_pause(true);
}

typedef struct canceller {
    serry_timeouts *timeouts;
} canceller;

static void *cancel_soon(void *of)
{
    test_sleep_ms(DEEP_MS);
    serry_timeouts_cancel(((canceller *)of)->timeouts, ID);
    return NULL;
}

/* It sleeps itself, where there is no other thread. */
static void a_wait_for_any_of_several(void **state)
{
    serry_comm *comm = join_held(SERRY_PROGRESS_CALLER);
    serry_comm *other = join(&serry_backend_self, SERRY_PROGRESS_CALLER);
    serry_request *request[3];
    int64_t in = 1, out[3];
    size_t index = 9;
    pthread_t thread;
    token t;

    (void)state;
    assert_int_equal(serry_irecv(&out[0], 1, SERRY_I64, 0, TAG, NULL, other, &request[0]),
                     SERRY_OK);
    assert_int_equal(serry_iallreduce(&in, &out[1], 1, SERRY_I64, SERRY_SUM, comm, &request[1]),
                     SERRY_OK);
    token_begin(&t, comm);
    assert_int_equal(serry_iallreduce(&in, &out[2], 1, SERRY_I64, SERRY_SUM, comm, &request[2]),
                     SERRY_OK);
    canceller c = {t.timeouts};
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &c), 0);
    assert_int_equal(serry_wait_any(request, 3, -1, &index), SERRY_ERR_CANCELLED);
    assert_int_equal(index, 2);
    pthread_join(thread, NULL);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(serry_cancel(request[i]), SERRY_OK);
        assert_int_equal(serry_request_error(request[i])->error, SERRY_ERR_CANCELLED);
        serry_request_free(&request[i]);
    }
    token_end(&t, comm);
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
    assert_int_equal(serry_finalize(&other), SERRY_OK);
}

static void *wait_for(void *of)
{
    watched *w = of;

    assert_int_equal(serry_wait(&w->request, -1), SERRY_OK);
    return NULL;
}

/* No progress thread: who waits for something else drives it, and sleeps. */
static void of_another_communicator(void **state)
{
    serry_comm *one = join(&serry_backend_self, SERRY_PROGRESS_CALLER);
    serry_comm *other = join(&serry_backend_self, SERRY_PROGRESS_CALLER);
    watched awaited, tripped;
    pthread_t thread;
    int64_t sent = 1;
    token t;

    (void)state;
    token_begin(&t, other);
    receive(&awaited, one);
    receive(&tripped, other);
    assert_int_equal(pthread_create(&thread, NULL, wait_for, &awaited), 0);
    test_sleep_ms(DEEP_MS);
    assert_true(runs(&tripped));
    serry_timeouts_cancel(t.timeouts, ID);
    expect_ends(&tripped, SERRY_ERR_CANCELLED);
    assert_true(runs(&awaited));
    assert_int_equal(serry_send(&sent, 1, SERRY_I64, 0, TAG, one), SERRY_OK);
    pthread_join(thread, NULL);
    sem_destroy(&awaited.ended);
    token_end(&t, other);
    assert_int_equal(serry_finalize(&one), SERRY_OK);
    assert_int_equal(serry_finalize(&other), SERRY_OK);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_receive),
        cmocka_unit_test(the_first_operation),
        cmocka_unit_test(one_that_stands_behind),
        cmocka_unit_test(at_any_time),
        cmocka_unit_test(a_pause_between_attempts),
        cmocka_unit_test(an_operation_of_the_wrapper),
        cmocka_unit_test(a_wait_for_any_of_several),
        cmocka_unit_test(of_another_communicator),
    };

    test_watch(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
