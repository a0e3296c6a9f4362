/* requests.c - what a caller may do with operations that it has started: wait for them, look, start the next
 * one when they end, give them back. requests_ended.c has ends that are no success. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "deaths.h"
#include "sums.h"

enum { MANY = 2000, LATE = 1 };
enum { FLAG_GO }; /* of a run */

/* ---- waiting and looking -------------------------------------------------------------------------- */

static void body_wait(test_rank *self)
{
    serry_request *none = NULL, *request[3];
    int64_t in[3], out[3];
    int done = -1;
    size_t index = 9;

    EXPECT_OK(self, serry_wait(&none, -1));
    EXPECT_OK(self, serry_test(&none, &done));
    CHECK(self, done == 1);
    EXPECT_OK(self, serry_wait_any(&none, 1, -1, &index));
    CHECK(self, index == 1);
    EXPECT_OK(self, serry_wait_all(NULL, 0, -1));
    EXPECT_OK(self, serry_cancel(NULL));
    serry_request_free(&none);
    CHECK(self, serry_request_error(NULL)->error == SERRY_OK);
    CHECK(self, serry_wait(NULL, 0) == SERRY_ERR_INVALID);
    if (self->rank == LATE)
        test_await(self, FLAG_GO, (unsigned)self->size - 1);
    for (int i = 0; i < 3; i++)
        request[i] = start_sum(self, &in[i], &out[i]);
    if (self->rank != LATE) { /* nothing can end yet, and nothing blocks */
        EXPECT_OK(self, serry_test(&request[0], &done));
        CHECK(self, done == 0 && request[0] != NULL);
        CHECK(self, serry_wait(&request[0], 5) == SERRY_ERR_TIMEOUT && request[0] != NULL);
        CHECK(self, serry_wait_all(request, 3, 5) == SERRY_ERR_TIMEOUT);
        CHECK(self, serry_wait_any(request, 3, 5, &index) == SERRY_ERR_TIMEOUT && index == 3);
        CHECK(self, serry_request_error(request[0])->error == SERRY_OK);
        test_raise(self, FLAG_GO);
    }
    EXPECT_OK(self, serry_wait_any(request, 3, -1, &index));
    CHECK(self, index < 3 && request[index] == NULL && out[index] == sum_of_ranks(self));
    for (done = 0; !done;) {
        EXPECT_OK(self, serry_test(&request[1], &done));
    }
    EXPECT_OK(self, serry_wait_all(request, 3, -1));
    for (int i = 0; i < 3; i++)
        CHECK(self, request[i] == NULL && out[i] == sum_of_ranks(self));
}

/* More than anybody will want, with synchronous ones between; they end in the order of their start. */
typedef struct order {
    int next;
    bool wrong;
} order;

typedef struct numbered {
    order *order;
    int number;
} numbered;

static void note(int result, const serry_error *error, void *argument)
{
    numbered *n = argument;

    n->order->wrong |= result != SERRY_OK || error != NULL || n->order->next++ != n->number;
}

static void body_many(test_rank *self)
{
    serry_request **request = calloc(MANY, sizeof(*request));
    int64_t *in = calloc(MANY, sizeof(*in)), *out = calloc(MANY, sizeof(*out));
    numbered *number = calloc(MANY, sizeof(*number));
    order ends = {0};

    for (int i = 0; i < MANY; i++) {
        request[i] = start_sum(self, &in[i], &out[i]);
        number[i] = (numbered){&ends, i};
        EXPECT_OK(self, serry_on_completion(request[i], note, &number[i]));
        if (i % 500 == 499) {
            int64_t one = 1, sum = 0;
            EXPECT_OK(self, serry_allreduce(&one, &sum, 1, SERRY_I64, SERRY_SUM, self->comm));
            CHECK(self, sum == self->size && out[i] == sum_of_ranks(self));
        }
    }
    EXPECT_OK(self, serry_wait_all(request, MANY, -1));
    for (int i = 0; i < MANY; i++)
        if (out[i] != sum_of_ranks(self))
            test_failed(self, "sum %d is wrong", i);
    CHECK(self, ends.next == MANY && !ends.wrong);
    free(request);
    free(in);
    free(out);
    free(number);
}

/* A completion starts the next one. */
typedef struct chain {
    test_rank *self;
    serry_request *request[10];
    int64_t in[10], out[10];
    _Atomic int started;
} chain;

static void go_on(int result, const serry_error *error, void *argument)
{
    chain *c = argument;
    int n = c->started;
    (void)error;

    if (result != SERRY_OK || n == 10)
        return;
    c->request[n] = start_sum(c->self, &c->in[n], &c->out[n]);
    c->started = n + 1;
    serry_on_completion(c->request[n], go_on, c);
}

static void body_chain(test_rank *self)
{
    chain *c = calloc(1, sizeof(*c));

    c->self = self;
    go_on(SERRY_OK, NULL, c);
    for (int n = 0; n < 10; n++) {
        while (c->started <= n)
            sched_yield();
        EXPECT_OK(self, serry_wait(&c->request[n], -1));
        CHECK(self, c->out[n] == sum_of_ranks(self));
    }
    free(c);
}

/* ---- threads, and those who do not wait ----------------------------------------------------------- */

/* Each thread of a rank has a communicator of its own. */
enum { THREADS = 3, ROUNDS = 200 };

typedef struct worker {
    test_rank *self;
    serry_comm *comm;
    int number;
    pthread_t thread;
} worker;

static void *work(void *argument)
{
    worker *w = argument;
    serry_request *request[8];
    int64_t in[8], out[8];

    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < 8; i++) {
            in[i] = (w->self->rank + 1) * (round + w->number);
            out[i] = -1;
            test_expect(
                w->self, SERRY_OK,
                serry_iallreduce(&in[i], &out[i], 1, SERRY_I64, SERRY_SUM, w->comm, &request[i]),
                w->comm, "start");
        }
        test_expect(w->self, SERRY_OK, serry_wait_all(request, 8, -1), w->comm, "wait");
        for (int i = 0; i < 8; i++)
            CHECK(w->self, out[i] == sum_of_ranks(w->self) * (round + w->number));
    }
    return NULL;
}

static void body_threads(test_rank *self)
{
    worker w[THREADS];

    for (int i = 0; i < THREADS; i++) {
        w[i] = (worker){.self = self, .number = i};
        EXPECT_OK(self, serry_dup(self->comm, &w[i].comm));
        CHECK(self, pthread_create(&w[i].thread, NULL, work, &w[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(w[i].thread, NULL);
        CHECK(self, serry_finalize(&w[i].comm) == SERRY_OK);
    }
}

/* Running ones are given back, and finalize ends the rest. */
static void body_free(test_rank *self)
{
    int64_t *memory = calloc(20, sizeof(*memory));
    serry_request *request[10];

    for (int i = 0; i < 10; i++)
        request[i] = start_sum(self, &memory[i], &memory[10 + i]);
    for (int i = 0; i < 5; i++)
        serry_request_free(&request[i]);
    EXPECT_OK(self, serry_wait_all(request + 5, 5, -1));
    EXPECT_OK(self, serry_barrier(self->comm));
    for (int i = 0; i < 10; i++)
        CHECK(self, memory[10 + i] == sum_of_ranks(self));
    if (self->rank != LATE) {
        request[0] = start_sum(self, &memory[0], &memory[10]);
        serry_request_free(&request[0]);
        CHECK(self, serry_finalize(&self->comm) == SERRY_OK);
    }
    free(memory);
}

/* ---- progress --------------------------------------------------------------------------------------- */

/* No thread before the first one that is started, none after the last communicator; asleep meanwhile. */
static void body_progress(test_rank *self)
{
    int64_t in, out;
    int64_t *memory = calloc(2, sizeof(*memory));
    int before = thread_count();
    bool by_caller = getenv("SERRY_PROGRESS") != NULL;

    EXPECT_OK(self, serry_barrier(self->comm));
    CHECK(self, thread_count() == before);
    if (self->rank == LATE)
        test_await(self, FLAG_GO, (unsigned)self->size - 1);
    serry_request *request = start_sum(self, &in, &out);
    CHECK(self, thread_count() == before + (by_caller ? 0 : 1));
    if (self->rank != LATE) {
        double cpu = cpu_seconds(RUSAGE_SELF);
        test_sleep_ms(1000);
        CHECK(self, cpu_seconds(RUSAGE_SELF) - cpu < 0.2);
        CHECK(self, *(volatile int64_t *)&out == -1);
        test_raise(self, FLAG_GO);
    }
    EXPECT_OK(self, serry_wait(&request, -1));
    CHECK(self, out == sum_of_ranks(self));
    test_meet(self);
    if (!by_caller) { /* on all ranks while nobody calls anything */
        request = start_sum(self, &memory[0], &memory[1]);
        while (__atomic_load_n(&memory[1], __ATOMIC_ACQUIRE) != sum_of_ranks(self))
            test_sleep_ms(1);
        EXPECT_OK(self, serry_wait(&request, -1));
    }
    CHECK(self, serry_finalize(&self->comm) == SERRY_OK);
    CHECK(self, thread_count() < before + 1);
    free(memory);
}

/* A child has nothing of it, and can give it back. */
static void body_fork(test_rank *self)
{
    int64_t in, out;

    if (self->rank == LATE)
        test_await(self, FLAG_GO, (unsigned)self->size - 1);
    serry_request *request = start_sum(self, &in, &out);
    if (self->rank != LATE) {
        pid_t child = fork();
        if (child == 0) {
            int done, rc = serry_wait(&request, -1) != SERRY_ERR_FORKED ||
                           serry_test(&request, &done) != SERRY_ERR_FORKED ||
                           serry_cancel(request) != SERRY_ERR_FORKED;
            serry_request_free(&request);
            _exit(rc || request != NULL || serry_barrier(self->comm) != SERRY_ERR_FORKED ||
                  serry_finalize(&self->comm) != SERRY_OK);
        }
        int status = -1;
        CHECK(self, child > 0 && waitpid(child, &status, 0) == child && status == 0);
        test_raise(self, FLAG_GO);
    }
    EXPECT_OK(self, serry_wait(&request, -1));
    CHECK(self, out == sum_of_ranks(self));
}

/* ---- the tests --------------------------------------------------------------------------------------- */

static void waiting_and_looking(void **state)
{
    (void)state;
    sums_on_all(2, body_wait);
}

static void thousands_end_in_order(void **state)
{
    (void)state;
    sums_on_all(1, body_many);
}

static void a_completion_starts_the_next_one(void **state)
{
    (void)state;
    sums_on_all(1, body_chain);
}

static void several_communicators_from_several_threads(void **state)
{
    (void)state;
    sums_on_all(1, body_threads);
}

static void given_back_while_they_run(void **state)
{
    (void)state;
    sums_on_all(2, body_free);
}

static void progress_by_a_thread_that_sleeps_or_by_the_caller(void **state)
{
    (void)state;
    if (TEST_SANITIZER)
        skip(); /* which have threads of their own */
    run_ranks(SERRY_PROCESSES, 2, body_progress, NULL);
    setenv("SERRY_PROGRESS", "caller", 1);
    run_ranks(SERRY_PROCESSES, 2, body_progress, NULL);
    sums_on_all(2, body_wait);
    setenv("SERRY_PROGRESS", "thread:0", 1);
    sums_on_all(2, body_wait);
    unsetenv("SERRY_PROGRESS");
}

static void a_child_of_a_fork_has_no_requests(void **state)
{
    (void)state;
    if (!TEST_TSAN)
        run_ranks(SERRY_PROCESSES, 3, body_fork, NULL);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiting_and_looking),
        cmocka_unit_test(thousands_end_in_order),
        cmocka_unit_test(a_completion_starts_the_next_one),
        cmocka_unit_test(several_communicators_from_several_threads),
        cmocka_unit_test(given_back_while_they_run),
        cmocka_unit_test(progress_by_a_thread_that_sleeps_or_by_the_caller),
        cmocka_unit_test(a_child_of_a_fork_has_no_requests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
