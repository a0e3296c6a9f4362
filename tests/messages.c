/* messages.c - from one rank to another: whole, in order, once; or an error that loses nothing. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "deaths.h"
#include "harness.h"

enum { TAG = 3, OTHER = 4, SHORT_MS = 60, DEAD = 1 };
enum { FLAG_SENT, FLAG_SEEN }; /* flags of a run */
#define LARGE ((size_t)3 << 20)

static unsigned char byte_of(int from, int to, unsigned number, size_t i)
{
    return (unsigned char)((size_t)from * 7 + (size_t)to * 13 + number * 31 + i * 5);
}

static void fill(unsigned char *data, size_t bytes, int from, int to, unsigned number)
{
    for (size_t i = 0; i < bytes; i++)
        data[i] = byte_of(from, to, number, i);
}

static void expect_bytes(test_rank *self, const unsigned char *data, size_t bytes, int from,
                         unsigned number)
{
    for (size_t i = 0; i < bytes; i++)
        if (data[i] != byte_of(from, self->rank, number, i)) {
            test_failed(self, "message %u from rank %d: byte %zu of %zu is wrong", number, from, i,
                        bytes);
            return;
        }
}

/* ---- every size, from every kind of memory ------------------------------------------------------- */

static const size_t k_bytes[] = {0,     1,     39,    40,    41,     1000,    4096, 16384,
                                 32767, 32768, 32769, 65536, 100000, 1 << 20, LARGE};
#define SIZES (sizeof(k_bytes) / sizeof(k_bytes[0]))

static void body_sizes(test_rank *self)
{
    int next = (self->rank + 1) % self->size, previous = (self->rank + self->size - 1) % self->size;
    unsigned char *memory[2] = {malloc(LARGE), serry_alloc(self->comm, LARGE)};
    unsigned char *room = malloc(LARGE);

    for (unsigned n = 0; n < 2 * SIZES; n++) {
        size_t bytes = k_bytes[n / 2];
        unsigned char *data = memory[n % 2];
        serry_request *request;
        serry_status status;
        fill(data, bytes, self->rank, next, n);
        EXPECT_OK(self, serry_isend(data, bytes, SERRY_U8, next, TAG, self->comm, &request));
        EXPECT_OK(self, serry_recv(room, LARGE, SERRY_U8, previous, TAG, &status, self->comm));
        CHECK(self, status.source == previous && status.tag == TAG && status.dtype == SERRY_U8 &&
                        status.count == bytes);
        expect_bytes(self, room, bytes, previous, n);
        EXPECT_OK(self, serry_wait(&request, -1));
    }
    EXPECT_OK(self, serry_barrier(self->comm));
    serry_free(self->comm, memory[1]);
    free(memory[0]);
    free(room);
}

/* The ring is full of long and short ones, some taken, when the next long one comes. */
static void body_full(test_rank *self)
{
    enum { MESSAGES = 300, LONG = 2048 };
    unsigned char data[LONG];
    serry_request *request[MESSAGES];
    unsigned char *kept = malloc((size_t)MESSAGES * LONG);

    if (self->rank == 0) {
        for (unsigned n = 0; n < MESSAGES; n++) {
            fill(kept + n * LONG, n % 2 ? 8 : LONG, 0, 1, n);
            EXPECT_OK(self, serry_isend(kept + n * LONG, n % 2 ? 8 : LONG, SERRY_U8, 1, TAG,
                                        self->comm, &request[n]));
        }
        test_raise(self, FLAG_SENT);
        EXPECT_OK(self, serry_wait_all(request, MESSAGES, -1));
    } else if (self->rank == 1) {
        test_await(self, FLAG_SENT, 1);
        for (unsigned n = 0; n < MESSAGES; n++) {
            EXPECT_OK(self, serry_recv(data, LONG, SERRY_U8, 0, TAG, NULL, self->comm));
            expect_bytes(self, data, n % 2 ? 8 : LONG, 0, n);
        }
    }
    EXPECT_OK(self, serry_barrier(self->comm));
    free(kept);
}

/* ---- order, tags, any ---------------------------------------------------------------------------- */

static void body_order(test_rank *self)
{
    enum { EACH = 50 };
    int got = -1;
    serry_status status;

    for (int n = 0; n < EACH && self->rank != 0; n++) {
        int value = self->rank * 1000 + n;
        EXPECT_OK(self, serry_send(&value, 1, SERRY_I32, 0, n % 2 ? TAG : OTHER, self->comm));
    }
    if (self->rank == 0) { /* the odd ones first, then the others from any source */
        int next[16] = {0};
        for (int r = 1; r < self->size; r++)
            for (int n = 1; n < EACH; n += 2) {
                EXPECT_OK(self, serry_recv(&got, 1, SERRY_I32, r, TAG, NULL, self->comm));
                CHECK(self, got == r * 1000 + n);
            }
        for (int n = 0; n < (self->size - 1) * EACH / 2; n++) {
            EXPECT_OK(self, serry_recv(&got, 1, SERRY_I32, SERRY_ANY_SOURCE, SERRY_ANY_TAG, &status,
                                       self->comm));
            CHECK(self, got == status.source * 1000 + next[status.source]);
            CHECK(self, status.tag == OTHER);
            next[status.source] += 2;
        }
    }
    EXPECT_OK(self, serry_barrier(self->comm));
}

/* ---- looking, and what does not fit -------------------------------------------------------------- */

static void body_fit(test_rank *self)
{
    int32_t data[4] = {5, 6, 7, 8}, room[4] = {0};
    serry_status status;
    float other;
    int found = -1;

    EXPECT_OK(self, serry_iprobe(self->rank, TAG, &found, &status, self->comm));
    CHECK(self, found == 0);
    EXPECT_OK(self, serry_send(data, 4, SERRY_I32, self->rank, TAG, self->comm)); /* to itself */
    EXPECT_OK(self, serry_probe(SERRY_ANY_SOURCE, SERRY_ANY_TAG, &status, self->comm));
    CHECK(self, status.source == self->rank && status.tag == TAG && status.count == 4);
    EXPECT_OK(self, serry_iprobe(self->rank, OTHER, &found, NULL, self->comm));
    CHECK(self, found == 0);
    EXPECT_OK(self, serry_iprobe(self->rank, TAG, &found, NULL, self->comm));
    CHECK(self, found == 1);
    status.count = 0;
    test_expect(self, SERRY_ERR_TOO_SMALL,
                serry_recv(room, 3, SERRY_I32, self->rank, TAG, &status, self->comm), self->comm,
                "a small buffer");
    CHECK(self, status.count == 4 && room[0] == 0);
    test_expect(self, SERRY_ERR_RANK_MISMATCH,
                serry_recv(&other, 1, SERRY_F32, self->rank, TAG, NULL, self->comm), self->comm,
                "another type");
    EXPECT_OK(self, serry_recv(room, 4, SERRY_I32, self->rank, TAG, NULL, self->comm));
    CHECK(self, memcmp(room, data, sizeof(data)) == 0);
    test_expect(self, SERRY_ERR_INVALID,
                serry_send(data, 1, SERRY_I32, self->size, TAG, self->comm), self->comm,
                "no such rank");
    test_expect(self, SERRY_ERR_INVALID, serry_send(data, 1, SERRY_I32, 0, -1, self->comm),
                self->comm, "no such tag");
    test_expect(self, SERRY_ERR_INVALID,
                serry_recv(NULL, 1, SERRY_I32, self->rank, TAG, NULL, self->comm), self->comm,
                "no buffer");
    EXPECT_OK(self, serry_barrier(self->comm));
}

/* ---- time, cancellation, revocation --------------------------------------------------------------- */

static void body_time(test_rank *self)
{
    unsigned char *large = serry_alloc(self->comm, LARGE), small = 9, got = 0;
    serry_request *request, *cancelled;

    memset(large, 1, LARGE);
    EXPECT_OK(self, serry_set_timeout(self->comm, SHORT_MS));
    test_expect(
        self, SERRY_ERR_TIMEOUT,
        serry_recv(&got, 1, SERRY_U8, (self->rank + 1) % self->size, OTHER, NULL, self->comm),
        self->comm, "nothing comes");
    EXPECT_OK(self, serry_irecv(&got, 1, SERRY_U8, SERRY_ANY_SOURCE, OTHER, NULL, self->comm,
                                &cancelled));
    EXPECT_OK(self, serry_cancel(cancelled));
    test_expect(self, SERRY_ERR_CANCELLED, serry_wait(&cancelled, -1), self->comm, "cancelled");
    serry_request_free(&cancelled);
    test_meet(self);       /* a receive of another tag would take it, and put it aside */
    if (self->rank == 0) { /* what its receiver does not take in time does not come later */
        EXPECT_OK(self, serry_isend(large, LARGE, SERRY_U8, 1, TAG, self->comm, &request));
        test_expect(self, SERRY_ERR_TIMEOUT, serry_wait(&request, -1), self->comm, "not taken");
        serry_request_free(&request);
        memset(large, 2, LARGE);
        EXPECT_OK(self, serry_isend(large, LARGE, SERRY_U8, 1, TAG, self->comm, &request));
        EXPECT_OK(self, serry_cancel(request));
        test_expect(self, SERRY_ERR_CANCELLED, serry_wait(&request, -1), self->comm, "withdrawn");
        serry_request_free(&request);
        EXPECT_OK(self, serry_set_timeout(self->comm, 60000));
        EXPECT_OK(self, serry_isend(&small, 1, SERRY_U8, 1, TAG, self->comm, &request));
        test_raise(self, FLAG_SENT);
        EXPECT_OK(self, serry_wait(&request, -1));
    }
    EXPECT_OK(self, serry_set_timeout(self->comm, 60000));
    if (self->rank == 1) {
        serry_status status;
        test_await(self, FLAG_SENT, 1);
        EXPECT_OK(self, serry_recv(large, LARGE, SERRY_U8, 0, TAG, &status, self->comm));
        CHECK(self, status.count == 1 && large[0] == small);
    }
    EXPECT_OK(self, serry_barrier(self->comm));
    serry_free(self->comm, large);
}

static void body_revoked(test_rank *self)
{
    serry_request *request;
    int got;

    EXPECT_OK(self,
              serry_irecv(&got, 1, SERRY_I32, SERRY_ANY_SOURCE, TAG, NULL, self->comm, &request));
    if (self->rank == 0)
        EXPECT_OK(self, serry_revoke(self->comm));
    test_expect(self, SERRY_ERR_REVOKED, serry_wait(&request, -1), self->comm, "a receive");
    serry_request_free(&request);
    test_expect(self, SERRY_ERR_REVOKED, serry_send(&got, 0, SERRY_I32, 0, TAG, self->comm),
                self->comm, "a send");
    test_meet(self); /* nobody leaves, and so ends a receive in that way, before all have seen it */
}

/* ---- deaths, and ranks that leave ----------------------------------------------------------------- */

/* It dies when it has sent three of them, and offered a fourth that nobody takes. */
static void body_sender_dies(test_rank *self)
{
    unsigned char *large = serry_alloc(self->comm, LARGE);
    int value, got = -1;
    serry_request *request;

    if (self->rank == DEAD) {
        for (value = 0; value < 3; value++)
            EXPECT_OK(self, serry_send(&value, 1, SERRY_I32, 0, TAG, self->comm));
        EXPECT_OK(self, serry_isend(large, LARGE, SERRY_U8, 0, OTHER, self->comm, &request));
        serry_request_free(&request);
        test_raise(self, FLAG_SENT);
        death_now(self);
    }
    test_await(self, FLAG_SENT, 1);
    await_known(self, self->comm, (const int[]){DEAD, -1});
    if (self->rank == 0) {
        for (value = 0; value < 3; value++) {
            EXPECT_OK(self, serry_recv(&got, 1, SERRY_I32, DEAD, TAG, NULL, self->comm));
            CHECK(self, got == value);
        }
        test_expect(self, SERRY_ERR_RANK_FAILED,
                    serry_recv(&got, 1, SERRY_I32, DEAD, TAG, NULL, self->comm), self->comm,
                    "after the last");
        CHECK(self, serry_last_error(self->comm)->peer == DEAD);
        test_expect(self, SERRY_ERR_RANK_FAILED,
                    serry_recv(large, LARGE, SERRY_U8, DEAD, OTHER, NULL, self->comm), self->comm,
                    "what was not sent completely");
        test_expect(self, SERRY_ERR_RANK_FAILED,
                    serry_send(&got, 1, SERRY_I32, DEAD, TAG, self->comm), self->comm, "a send");
    }
}

/* A receive from any source is told of each failure once, and goes on; of one that leaves never. */
static void body_any_source(test_rank *self)
{
    enum { LEAVES = 2, SENDS = 3 };
    int got = -1, value = 7;

    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == DEAD)
        death_now(self);
    if (self->rank == LEAVES) {
        CHECK(self, serry_finalize(&self->comm) == SERRY_OK);
        test_raise(self, FLAG_SENT);
        return;
    }
    await_known(self, self->comm, (const int[]){DEAD, LEAVES, -1});
    if (self->rank == SENDS) {
        test_await(self, FLAG_SEEN, 1);
        EXPECT_OK(self, serry_send(&value, 1, SERRY_I32, 0, TAG, self->comm));
        return;
    }
    test_expect(self, SERRY_ERR_RANK_FAILED,
                serry_recv(&got, 1, SERRY_I32, SERRY_ANY_SOURCE, TAG, NULL, self->comm), self->comm,
                "the first");
    CHECK(self, serry_last_error(self->comm)->peer == DEAD);
    test_raise(self, FLAG_SEEN);
    EXPECT_OK(self, serry_recv(&got, 1, SERRY_I32, SERRY_ANY_SOURCE, TAG, NULL, self->comm));
    CHECK(self, got == value);
    await_known(self, self->comm, (const int[]){DEAD, LEAVES, SENDS, -1});
    test_expect(self, SERRY_ERR_RANK_FAILED,
                serry_recv(&got, 1, SERRY_I32, SERRY_ANY_SOURCE, TAG, NULL, self->comm), self->comm,
                "nobody is left");
}

static void body_acknowledged(test_rank *self)
{
    int got = -1, value = 7;

    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == DEAD)
        death_now(self);
    await_known(self, self->comm, (const int[]){DEAD, -1});
    EXPECT_OK(self, serry_ack_failed(self->comm, NULL));
    if (self->rank == 0)
        EXPECT_OK(self, serry_recv(&got, 1, SERRY_I32, SERRY_ANY_SOURCE, TAG, NULL, self->comm));
    else
        EXPECT_OK(self, serry_send(&value, 1, SERRY_I32, 0, TAG, self->comm));
    CHECK(self, self->rank != 0 || got == value);
}

/* ---- at random ------------------------------------------------------------------------------------- */

static void body_random(test_rank *self)
{
    enum { ROUNDS = 40, EACH = 8 };
    uint64_t same = chance_begin(5);
    unsigned char *out = malloc((size_t)EACH * 80000), *in = malloc((size_t)EACH * 80000);
    serry_request *send[EACH], *recv[EACH];

    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned n = 0; n < EACH; n++) { /* the same draws on all ranks */
            unsigned shift = 1 + chance(&same, (unsigned)self->size);
            size_t bytes = chance(&same, 2) ? chance(&same, 200) : chance(&same, 80000);
            int to = (int)((unsigned)self->rank + shift) % self->size;
            int from = (int)((unsigned)(self->rank + self->size) - shift % (unsigned)self->size) %
                       self->size;
            fill(out + n * 80000, bytes, self->rank, to, round * EACH + n);
            EXPECT_OK(self, serry_isend(out + n * 80000, bytes, SERRY_U8, to, (int)n, self->comm,
                                        &send[n]));
            EXPECT_OK(self, serry_irecv(in + n * 80000, 80000, SERRY_U8, from, (int)n, NULL,
                                        self->comm, &recv[n]));
            EXPECT_OK(self, serry_wait(&recv[n], chance(&same, 2) ? -1 : 60000));
            expect_bytes(self, in + n * 80000, bytes, from, round * EACH + n);
        }
        EXPECT_OK(self, serry_wait_all(send, EACH, -1));
        if (chance(&same, 3) == 0)
            EXPECT_OK(self, serry_barrier(self->comm));
    }
    free(out);
    free(in);
    EXPECT_OK(self, serry_barrier(self->comm));
}

/* ---- the tests ------------------------------------------------------------------------------------- */

static void on_all(int least, test_body body)
{
    for (int size = least; size <= 4; size++) {
        run_ranks(SERRY_THREADS, size, body, NULL);
        if (!TEST_TSAN)
            run_ranks(SERRY_PROCESSES, size, body, NULL);
    }
}

static void with_dead(int size, test_body body)
{
    static const int dead[] = {DEAD, -1};

    run_deaths(SERRY_THREADS, size, body, NULL, dead);
    if (!TEST_TSAN)
        run_deaths(SERRY_PROCESSES, size, body, NULL, dead);
}

static void messages_of_all_sizes_from_all_memory(void **state)
{
    (void)state;
    on_all(1, body_sizes);
}

static void a_channel_that_is_full_loses_nothing(void **state)
{
    (void)state;
    on_all(2, body_full);
}

static void messages_of_a_pair_and_tag_stay_in_order(void **state)
{
    (void)state;
    on_all(2, body_order);
}

static void what_does_not_fit_stays_the_next_one(void **state)
{
    (void)state;
    on_all(1, body_fit);
}

static void out_of_time_or_cancelled_nothing_was_sent(void **state)
{
    (void)state;
    on_all(2, body_time);
}

static void revocation_ends_messages(void **state)
{
    (void)state;
    on_all(2, body_revoked);
}

static void what_a_dead_rank_had_sent_is_received(void **state)
{
    (void)state;
    with_dead(3, body_sender_dies);
}

static void any_source_is_told_of_each_failure_once(void **state)
{
    (void)state;
    with_dead(4, body_any_source);
}

static void any_source_is_not_told_of_what_was_acknowledged(void **state)
{
    (void)state;
    with_dead(3, body_acknowledged);
}

static void traffic_at_random(void **state)
{
    (void)state;
    on_all(1, body_random);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_of_all_sizes_from_all_memory),
        cmocka_unit_test(a_channel_that_is_full_loses_nothing),
        cmocka_unit_test(messages_of_a_pair_and_tag_stay_in_order),
        cmocka_unit_test(what_does_not_fit_stays_the_next_one),
        cmocka_unit_test(out_of_time_or_cancelled_nothing_was_sent),
        cmocka_unit_test(revocation_ends_messages),
        cmocka_unit_test(what_a_dead_rank_had_sent_is_received),
        cmocka_unit_test(any_source_is_told_of_each_failure_once),
        cmocka_unit_test(any_source_is_not_told_of_what_was_acknowledged),
        cmocka_unit_test(traffic_at_random),
    };

    test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
