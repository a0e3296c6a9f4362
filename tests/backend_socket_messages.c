/* backend_socket_messages.c - requests and messages over the socket backend: operations in flight together
 * with messages, order, the window, and what becomes of messages when a rank dies. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "comm.h"
#include "deaths.h"

#define SHORT_MS 60
#define MOST 64
#define LARGE ((size_t)16 << 20)
static const int k_none[] = {-1};

static void everywhere(int size, test_body body)
{
    run_ranks(SERRY_PROCESSES, size, body, NULL);
    run_ranks(SERRY_THREADS, size, body, NULL);
}

/* ---- in flight together ---------------------------------------------------------------------- */

/* Each round: so many allreduces, with as many messages to the next rank and from the one before. */
static void body_together(test_rank *self)
{
    static const int in_flight[] = {1, 2, MOST};
    serry_request *request[3 * MOST];
    int64_t sum[MOST], sent[MOST], got[MOST];
    int next = (self->rank + 1) % self->size, last = (self->rank + self->size - 1) % self->size;

    for (size_t round = 0; round < 3; round++) {
        int n = in_flight[round], count = 0;
        for (int i = 0; i < n; i++) {
            sum[i] = self->rank + i;
            sent[i] = 1000 * self->rank + i;
            EXPECT_OK(self, serry_irecv(&got[i], 1, SERRY_I64, last, 5, NULL, self->comm,
                                        &request[count++]));
            EXPECT_OK(self, serry_iallreduce(SERRY_IN_PLACE, &sum[i], 1, SERRY_I64, SERRY_SUM,
                                             self->comm, &request[count++]));
            EXPECT_OK(self,
                      serry_isend(&sent[i], 1, SERRY_I64, next, 5, self->comm, &request[count++]));
        }
        EXPECT_OK(self, serry_wait_all(request, (size_t)count, -1));
        for (int i = 0; i < n; i++) {
            CHECK(self, sum[i] == self->size * (self->size - 1) / 2 + self->size * i);
            CHECK(self, got[i] == 1000 * last + i);
        }
    }
}

static void operations_and_messages_are_in_flight_together(void **state)
{
    (void)state;
    everywhere(1, body_together);
    everywhere(2, body_together);
    everywhere(3, body_together);
    everywhere(4, body_together);
    everywhere(7, body_together);
}

/* ---- what does not fit, and large ones -------------------------------------------------------- */

/* 100 messages of 64 KiB are more than a window, so the sender has to wait for the receiver. */
static void body_window(test_rank *self)
{
    size_t count = 65536 / sizeof(uint32_t);
    uint32_t *data = malloc(LARGE);
    serry_status status;

    for (uint32_t i = 0; i < 100 && self->rank == 0; i++) {
        for (size_t k = 0; k < count; k++)
            data[k] = i + (uint32_t)k;
        EXPECT_OK(self, serry_send(data, count, SERRY_U32, 1, (int)(i % 2), self->comm));
    }
    for (uint32_t i = 0; i < 100 && self->rank == 1; i++) {
        if (i == 0) {
            int rc = serry_recv(data, 1, SERRY_U32, 0, 0, &status, self->comm);
            test_expect(self, SERRY_ERR_TOO_SMALL, rc, self->comm, "recv into one element");
            CHECK(self, status.count == count);
            rc = serry_recv(data, count, SERRY_F32, 0, 0, NULL, self->comm);
            test_expect(self, SERRY_ERR_RANK_MISMATCH, rc, self->comm, "recv of floats");
            EXPECT_OK(self, serry_probe(SERRY_ANY_SOURCE, SERRY_ANY_TAG, &status, self->comm));
            CHECK(self, status.source == 0 && status.tag == 0 && status.dtype == SERRY_U32);
        }
        EXPECT_OK(self, serry_recv(data, count, SERRY_U32, SERRY_ANY_SOURCE, (int)(i % 2), &status,
                                   self->comm));
        CHECK(self, data[0] == i && data[count - 1] == i + (uint32_t)count - 1);
    }
    for (size_t k = 0; k < LARGE / sizeof(*data) && self->rank == 0; k++)
        data[k] = (uint32_t)k;
    if (self->rank == 0)
        EXPECT_OK(self, serry_send(data, LARGE / sizeof(*data), SERRY_U32, 1, 7, self->comm));
    else
        EXPECT_OK(self, serry_recv(data, LARGE / sizeof(*data), SERRY_U32, 0, 7, NULL, self->comm));
    size_t right = 0;
    while (right < LARGE / sizeof(*data) && data[right] == right)
        right++;
    CHECK(self, right == LARGE / sizeof(*data));
    free(data);
}

static void a_sender_waits_for_its_window_and_nothing_is_lost(void **state)
{
    (void)state;
    everywhere(2, body_window);
}

/* Fault:  rank 1 does not look for a large message in time.
 * Expect: TIMEOUT, and that message never comes; the next one does. */
static void body_withdrawn(test_rank *self)
{
    unsigned char *data = calloc(1, LARGE);

    if (self->rank == 0) {
        EXPECT_OK(self, serry_set_timeout(self->comm, SHORT_MS));
        test_expect(self, SERRY_ERR_TIMEOUT, serry_send(data, LARGE, SERRY_U8, 1, 1, self->comm),
                    self->comm, "send");
        EXPECT_OK(self, serry_set_timeout(self->comm, -1));
        test_raise(self, 0);
        EXPECT_OK(self, serry_send(data, 1, SERRY_U8, 1, 2, self->comm));
    } else {
        serry_status status;
        test_await(self, 0, 1);
        EXPECT_OK(self, serry_recv(data, LARGE, SERRY_U8, 0, SERRY_ANY_TAG, &status, self->comm));
        CHECK(self, status.tag == 2 && status.count == 1);
    }
    expect_goes_on(self, self->comm, k_none);
    free(data);
}

static void a_message_that_ran_out_of_time_does_not_come(void **state)
{
    (void)state;
    everywhere(2, body_withdrawn);
}

/* ---- ends ------------------------------------------------------------------------------------ */

/* Fault:  rank 1 is killed after it has sent three messages.
 * Expect: rank 0 gets all three, then RANK_FAILED, by name and from any source. */
static void body_killed(test_rank *self)
{
    int32_t value;

    for (value = 0; value < 3 && self->rank == 1; value++)
        EXPECT_OK(self, serry_send(&value, 1, SERRY_I32, 0, 0, self->comm));
    if (self->rank == 1)
        death_now(self);
    for (int32_t i = 0; i < 3 && self->rank == 0; i++) {
        EXPECT_OK(self, serry_recv(&value, 1, SERRY_I32, 1, 0, NULL, self->comm));
        CHECK(self, value == i);
    }
    for (int source = 1; source >= SERRY_ANY_SOURCE && self->rank == 0; source -= 2) {
        int rc = serry_recv(&value, 1, SERRY_I32, source, 0, NULL, self->comm);
        test_expect(self, SERRY_ERR_RANK_FAILED, rc, self->comm, "recv from %d", source);
        CHECK(self, serry_rank_set_has(&serry_last_error(self->comm)->ranks, 1));
    }
}

static void what_was_sent_comes_before_the_end_of_its_sender(void **state)
{
    (void)state;
    run_deaths(SERRY_PROCESSES, 2, body_killed, NULL, (const int[]){1, -1});
}

/* Fault:  a receive is cancelled, one runs out of time, and one waits when the group is revoked.
 * Expect: CANCELLED, TIMEOUT, REVOKED. */
static void body_revoked(test_rank *self)
{
    int32_t value = 7;
    serry_request *request;

    EXPECT_OK(self,
              serry_irecv(&value, 1, SERRY_I32, SERRY_ANY_SOURCE, 0, NULL, self->comm, &request));
    EXPECT_OK(self, serry_cancel(request));
    CHECK(self, serry_wait(&request, -1) == SERRY_ERR_CANCELLED);
    serry_request_free(&request);
    EXPECT_OK(self, serry_set_timeout(self->comm, SHORT_MS));
    test_expect(self, SERRY_ERR_TIMEOUT, serry_recv(&value, 1, SERRY_I32, 0, 0, NULL, self->comm),
                self->comm, "recv");
    EXPECT_OK(self, serry_set_timeout(self->comm, -1));
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == 0)
        EXPECT_OK(self, serry_revoke(self->comm));
    test_expect(self, SERRY_ERR_REVOKED, serry_recv(&value, 1, SERRY_I32, 0, 0, NULL, self->comm),
                self->comm, "recv");
    CHECK(self, value == 7);
}

static void receives_end_by_cancellation_time_and_revocation(void **state)
{
    (void)state;
    everywhere(3, body_revoked);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operations_and_messages_are_in_flight_together),
        cmocka_unit_test(a_sender_waits_for_its_window_and_nothing_is_lost),
        cmocka_unit_test(a_message_that_ran_out_of_time_does_not_come),
        cmocka_unit_test(what_was_sent_comes_before_the_end_of_its_sender),
        cmocka_unit_test(receives_end_by_cancellation_time_and_revocation),
    };

    setenv("SERRY_BACKEND", "socket", 1);
    return cmocka_run_group_tests_name("backend_socket_messages", tests, NULL, NULL);
}
