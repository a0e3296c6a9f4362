/* ft_messages.c - messages through the fault-tolerant wrapper, also across a move to the next backend, and
 * requests that its timeouts end. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "ft_jobs.h"

enum { TAG = 5, MANY = 20 };
#define LARGE ((size_t)300000)

static int next_of(const test_rank *self)
{
    return (self->rank + 1) % self->size;
}

static int previous_of(const test_rank *self)
{
    return (self->rank + self->size - 1) % self->size;
}

static void start(test_rank *self, int64_t *value, int from, int to, serry_request **request)
{
    for (int i = from; i < to; i++) {
        value[i] = self->rank * 1000 + i;
        EXPECT_OK(self, serry_isend(&value[i], 1, SERRY_I64, next_of(self), TAG, self->comm,
                                    &request[i]));
    }
}

static void expect(test_rank *self, int from, int to)
{
    for (int i = from; i < to; i++) {
        serry_status status;
        int64_t got = -1;
        EXPECT_OK(self,
                  serry_recv(&got, 1, SERRY_I64, previous_of(self), TAG, &status, self->comm));
        if (got != previous_of(self) * 1000 + i || status.source != previous_of(self))
            test_failed(self, "message %d is %lld", i, (long long)got);
    }
}

/* Some are received before the move, some after; what was sent by the old backend comes first. */
static void body_move(test_rank *self)
{
    int64_t value[MANY], *large, *room = malloc(LARGE * sizeof(*room));
    serry_request *request[MANY], *rendezvous;
    vectors v;

    if (!ft_job_open(self) || !vectors_open(self, &v, false))
        return;
    large = serry_alloc(self->comm, LARGE * sizeof(*large));
    for (size_t i = 0; i < LARGE; i++)
        large[i] = self->rank + (int64_t)i;
    start(self, value, 0, MANY / 2, request);
    EXPECT_OK(self, serry_isend(large, LARGE, SERRY_I64, next_of(self), TAG + 1, self->comm,
                                &rendezvous));
    expect(self, 0, 3);
    ft_job_call(self, &v, SERRY_KIND_ALLREDUCE, 10, SERRY_OK);
    CHECK(self, serry_ft_carrier(self->comm) == ((const ft_job *)self->argument)->faulty[1]);
    start(self, value, MANY / 2, MANY, request);
    EXPECT_OK(self,
              serry_recv(room, LARGE, SERRY_I64, previous_of(self), TAG + 1, NULL, self->comm));
    for (size_t i = 0; i < LARGE; i++)
        if (room[i] != previous_of(self) + (int64_t)i) {
            test_failed(self, "element %zu of the large message is wrong", i);
            break;
        }
    EXPECT_OK(self, serry_wait(&rendezvous, -1));
    expect(self, 3, MANY);
    EXPECT_OK(self, serry_wait_all(request, MANY, -1));
    EXPECT_OK(self, serry_barrier(self->comm));
    serry_free(self->comm, large);
    free(room);
    vectors_close(self, &v, false);
    ft_job_close(self);
}

static void messages_sent_before_a_move_are_received_after_it(void **state)
{
    (void)state;
    ft_job job = {.inner = {&serry_backend_shm, &serry_backend_socket},
                  .script = {"rank=1 kind=allreduce fail=SYSTEM times=1", ""},
                  .system = SERRY_FALLBACK_BACKEND};
    for (int size = 2; size <= 4; size++) {
        ft_job_run(&job, SERRY_THREADS, size, -1, body_move);
        ft_job_run(&job, SERRY_PROCESSES, size, -1, body_move);
    }
}

/* ---- timeouts of the wrapper, and requests ------------------------------------------------------- */

static void *cancel_soon(void *argument)
{
    serry_comm *comm = argument;

    while (!serry_timeouts_cancel(serry_ft_timeouts(comm), serry_ft_operation(comm)))
        sched_yield();
    return NULL;
}

/* The others do not come before it was cancelled: all give it up, and the next one completes. */
static void body_cancel(test_rank *self)
{
    int64_t one = 1, sum = 0;
    serry_request *request;
    pthread_t thread;

    if (!ft_job_open(self))
        return;
    serry_recovery_set_strategy(serry_ft_recovery(self->comm), SERRY_ERR_CANCELLED, SERRY_ABORT);
    if (self->rank == 0) {
        EXPECT_OK(self,
                  serry_iallreduce(&one, &sum, 1, SERRY_I64, SERRY_SUM, self->comm, &request));
        CHECK(self, pthread_create(&thread, NULL, cancel_soon, self->comm) == 0);
        test_expect(self, SERRY_ERR_CANCELLED, serry_wait(&request, -1), self->comm, "cancelled");
        CHECK(self, sum == 0);
        serry_request_free(&request);
        pthread_join(thread, NULL);
        test_raise(self, 0);
    } else {
        test_await(self, 0, 1);
        test_expect(self, SERRY_ERR_CANCELLED,
                    serry_allreduce(&one, &sum, 1, SERRY_I64, SERRY_SUM, self->comm), self->comm,
                    "what all have given up");
        CHECK(self, sum == 0);
    }
    sum = 0;
    EXPECT_OK(self, serry_allreduce(&one, &sum, 1, SERRY_I64, SERRY_SUM, self->comm));
    CHECK(self, sum == self->size);
    ft_job_close(self);
}

static void a_request_ends_when_the_wrappers_timeout_is_cancelled(void **state)
{
    (void)state;
    ft_job job = {.script = {""}};
    ft_job_run(&job, SERRY_THREADS, 3, -1, body_cancel);
    ft_job_run(&job, SERRY_PROCESSES, 3, -1, body_cancel);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_sent_before_a_move_are_received_after_it),
        cmocka_unit_test(a_request_ends_when_the_wrappers_timeout_is_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
