/* cancel_messages.c - a send or a receive is cancelled, wherever its message is: what was not sent does not
 * come, what was not received stays the next one, and both ends say the same. */
#include <stdlib.h>
#include <string.h>

#include "deaths.h"
#include "driven.h"

enum { SENDER, RECEIVER, RANKS, TAG = 3, MARK = 4, LINES = 64, SENDS = LINES + 20, ROUNDS = 100 };
enum { FLAG_SENT, FLAG_SEEN, FLAG_GONE }; /* raised once in a round, or as it says there */

#define UNTOUCHED 0xa5
#define LARGE ((size_t)4 << 20)

/* What a message of so many bytes lies in, from such memory. */
typedef struct size {
    const char *where;
    size_t bytes;
    bool arena;
} size;

static const size k_sizes[] = {{"the line", 40, false},
                               {"the ring", 1000, false},
                               {"a box", 100000, false},
                               {"where it was", 100000, true}};
#define SIZES (sizeof(k_sizes) / sizeof(k_sizes[0]))

/* Only there it is known when a message goes. */
static bool is_shm(void)
{
    return getenv("SERRY_BACKEND") == NULL;
}

/* Is it copied when it is sent? Threads read everything large where it is. */
static bool is_eager(const test_rank *self, const size *s)
{
    return s->bytes <= 1000 || (self->kind == SERRY_PROCESSES && !s->arena);
}

static unsigned char *get(test_rank *self, const size *s)
{
    unsigned char *memory = s->arena ? serry_alloc(self->comm, s->bytes) : malloc(s->bytes);

    CHECK(self, memory != NULL);
    return memory;
}

static void give(test_rank *self, const size *s, void *memory)
{
    if (s->arena)
        serry_free(self->comm, memory);
    else
        free(memory);
}

static bool is_all(const unsigned char *data, size_t bytes, unsigned char value)
{
    for (size_t i = 0; i < bytes; i++)
        if (data[i] != value)
            return false;
    return true;
}

static int result_of(serry_request **request)
{
    int rc = serry_wait(request, -1);

    serry_request_free(request);
    return rc;
}

/* Does nobody else drive its requests? A thread that waits drives those of all in its process. */
static bool drives_alone(const test_rank *self)
{
    return driven_by(self) == SERRY_PROGRESS_CALLER && self->kind == SERRY_PROCESSES;
}

/* ---- receives ----------------------------------------------------------------------------------- */

/* Three receives, of which the middle one is cancelled: with a message for each there, or with none. */
static void receive_around(test_rank *self, const size *s, unsigned char *room[3], bool matched,
                           unsigned round)
{
    serry_request *request[3];
    serry_status status;

    for (int i = 0; i < 3; i++) {
        memset(room[i], UNTOUCHED, s->bytes);
        EXPECT_OK(self, serry_irecv(room[i], s->bytes, SERRY_U8, SENDER, TAG, NULL, self->comm,
                                    &request[i]));
    }
    test_raise(self, FLAG_SEEN);
    if (matched)
        test_await(self, FLAG_SENT, round + 1);
    EXPECT_OK(self, serry_cancel(request[1]));
    if (!matched)
        test_raise(self, FLAG_SEEN);
    int rc = serry_request_error(request[1])->error;
    CHECK(self, rc == SERRY_ERR_CANCELLED || (rc == SERRY_OK && matched && !drives_alone(self)));
    CHECK(self, rc == result_of(&request[1]));
    CHECK(self, is_all(room[1], s->bytes, rc == SERRY_OK ? 2 : UNTOUCHED));
    EXPECT_OK(self, serry_wait_all(request, 3, -1));
    CHECK(self, is_all(room[0], s->bytes, 1));
    CHECK(self, is_all(room[2], s->bytes, rc == SERRY_OK ? 3 : 2));
    if (rc == SERRY_OK)
        return;
    EXPECT_OK(self,
              serry_recv(room[1], s->bytes, SERRY_U8, SENDER, SERRY_ANY_TAG, &status, self->comm));
    CHECK(self, status.tag == TAG && status.count == s->bytes && is_all(room[1], s->bytes, 3));
}

static void send_three(test_rank *self, const size *s, unsigned char *data[3], unsigned seen)
{
    serry_request *request[3];

    test_await(self, FLAG_SEEN, seen);
    for (int i = 0; i < 3; i++) {
        memset(data[i], i + 1, s->bytes);
        EXPECT_OK(self,
                  serry_isend(data[i], s->bytes, SERRY_U8, RECEIVER, TAG, self->comm, &request[i]));
    }
    test_raise(self, FLAG_SENT);
    EXPECT_OK(self, serry_wait_all(request, 3, -1));
}

static void body_receives(test_rank *self)
{
    unsigned seen = 0;

    for (unsigned round = 0; round < 2 * SIZES && test_mine(self)->failures == 0; round++) {
        const size *s = &k_sizes[round / 2];
        bool matched = round % 2;
        unsigned char *memory[3] = {get(self, s), get(self, s), get(self, s)};
        test_at(self, "a receive from %s, %smatched", s->where, matched ? "" : "un");
        seen += matched ? 1 : 2;
        if (self->rank == RECEIVER)
            receive_around(self, s, memory, matched, round);
        else
            send_three(self, s, memory, seen);
        EXPECT_OK(self, serry_barrier(self->comm));
        for (int i = 0; i < 3; i++)
            give(self, s, memory[i]);
    }
}

/* ---- sends that have gone, or wait to be taken ----------------------------------------------------- */

/* The first of two is cancelled before anybody looks. */
static void cancel_first(test_rank *self, const size *s, unsigned char *data[2])
{
    serry_request *request[2];

    for (int i = 0; i < 2; i++) {
        memset(data[i], i + 1, s->bytes);
        EXPECT_OK(self,
                  serry_isend(data[i], s->bytes, SERRY_U8, RECEIVER, TAG, self->comm, &request[i]));
    }
    EXPECT_OK(self, serry_cancel(request[0]));
    int rc = result_of(&request[0]);
    CHECK(self, rc == SERRY_OK || rc == SERRY_ERR_CANCELLED);
    CHECK(self, !is_shm() || (rc == SERRY_OK) == is_eager(self, s));
    if (rc == SERRY_OK)
        test_raise(self, FLAG_GONE);
    memset(data[0], 9, s->bytes); /* it is the sender's again */
    test_raise(self, FLAG_SENT);
    EXPECT_OK(self, serry_wait(&request[1], -1));
}

static void body_offered(test_rank *self)
{
    unsigned gone = 0;

    for (unsigned round = 0; round < SIZES && test_mine(self)->failures == 0; round++) {
        const size *s = &k_sizes[round];
        unsigned char *memory[2] = {get(self, s), get(self, s)};
        test_at(self, "a send in %s", s->where);
        if (self->rank == SENDER) {
            cancel_first(self, s, memory);
        } else {
            test_await(self, FLAG_SENT, round + 1);
            bool both = test_flag(self->run, FLAG_GONE) > gone;
            gone += both;
            for (unsigned char value = both ? 1 : 2; value <= 2; value++) {
                EXPECT_OK(self,
                          serry_recv(memory[0], s->bytes, SERRY_U8, SENDER, TAG, NULL, self->comm));
                CHECK(self, is_all(memory[0], s->bytes, value));
            }
        }
        EXPECT_OK(self, serry_barrier(self->comm));
        give(self, s, memory[0]);
        give(self, s, memory[1]);
    }
}

/* Every third is cancelled. */
static int send_many(test_rank *self)
{
    serry_request *request[SENDS];
    int value[SENDS], gone = 0;

    for (int i = 0; i < SENDS; i++) {
        value[i] = i;
        EXPECT_OK(self,
                  serry_isend(&value[i], 1, SERRY_I32, RECEIVER, TAG, self->comm, &request[i]));
    }
    for (int i = 0; i < SENDS; i += 3) {
        EXPECT_OK(self, serry_cancel(request[i]));
        int rc = result_of(&request[i]);
        gone += rc == SERRY_OK;
        CHECK(self, rc == SERRY_OK || rc == SERRY_ERR_CANCELLED);
        CHECK(self, !is_shm() || (rc == SERRY_OK) == (i < LINES));
    }
    test_meet(self);
    EXPECT_OK(self, serry_wait_all(request, SENDS, -1));
    return gone;
}

static int receive_many(test_rank *self)
{
    int got = -1, gone = 0;

    test_meet(self);
    for (int before = -1; before < SENDS - 1; before = got) {
        EXPECT_OK(self, serry_recv(&got, 1, SERRY_I32, SENDER, TAG, NULL, self->comm));
        gone += got % 3 == 0;
        if (!CHECK(self, got == before + 1 || (got == before + 2 && got % 3 == 1)))
            break;
    }
    return gone;
}

/* More than there are lines for: those that are cancelled while they wait for one never come. */
static void body_full(test_rank *self)
{
    int gone = self->rank == SENDER ? send_many(self) : receive_many(self), all = 0;

    EXPECT_OK(self, serry_allreduce(&gone, &all, 1, SERRY_I32, SERRY_MAX, self->comm));
    CHECK(self, gone == all);
}

/* ---- sends that are being read -------------------------------------------------------------------- */

static void spin(unsigned us)
{
    double until = test_now() + us * 1e-6;

    while (test_now() < until)
        continue;
}

/* Sent or taken back: the message that follows says which. Each round has a tag of its own, as the next
 * one may begin meanwhile. */
static void take_back(test_rank *self, unsigned char *data, unsigned round, unsigned us)
{
    serry_request *request;

    memset(data, 1, LARGE);
    EXPECT_OK(self,
              serry_isend(data, LARGE, SERRY_U8, RECEIVER, 100 + (int)round, self->comm, &request));
    test_raise(self, FLAG_SENT);
    spin(us);
    EXPECT_OK(self, serry_cancel(request));
    int rc = result_of(&request);
    memset(data, 2, LARGE);
    CHECK(self, rc == SERRY_OK || rc == SERRY_ERR_CANCELLED);
    EXPECT_OK(self, serry_send(&rc, 1, SERRY_I32, RECEIVER, MARK, self->comm));
    test_mine(self)->number[rc == SERRY_OK]++;
}

static void take_what_comes(test_rank *self, unsigned char *room, unsigned round)
{
    serry_request *data;
    int told = 1;

    test_await(self, FLAG_SENT, round + 1);
    EXPECT_OK(self, serry_irecv(room, LARGE, SERRY_U8, SENDER, 100 + (int)round, NULL, self->comm,
                                &data));
    EXPECT_OK(self, serry_recv(&told, 1, SERRY_I32, SENDER, MARK, NULL, self->comm));
    EXPECT_OK(self, serry_cancel(data)); /* it has come before, or never does */
    int rc = result_of(&data);
    test_expect(self, told, rc, NULL, "what the sender says");
    CHECK(self, rc != SERRY_OK || is_all(room, LARGE, 1));
}

static void body_read(test_rank *self)
{
    unsigned char *memory = serry_alloc(self->comm, LARGE);
    uint64_t sequence = chance_begin(11);

    for (unsigned round = 0; round < ROUNDS && test_mine(self)->failures == 0; round++)
        if (self->rank == SENDER)
            take_back(self, memory, round, chance_us(&sequence, 12));
        else
            take_what_comes(self, memory, round);
    EXPECT_OK(self, serry_barrier(self->comm));
    serry_free(self->comm, memory);
}

/* Received whole, or still the next one. */
static void stop_reading(test_rank *self, unsigned char *room, unsigned us)
{
    serry_request *request;

    memset(room, UNTOUCHED, LARGE);
    EXPECT_OK(self, serry_irecv(room, LARGE, SERRY_U8, SENDER, TAG, NULL, self->comm, &request));
    test_raise(self, FLAG_SEEN);
    spin(us);
    EXPECT_OK(self, serry_cancel(request));
    int rc = result_of(&request);
    test_mine(self)->number[rc == SERRY_OK]++;
    if (rc != SERRY_OK) {
        test_expect(self, SERRY_ERR_CANCELLED, rc, NULL, "a receive");
        CHECK(self, is_all(room, LARGE, UNTOUCHED));
        EXPECT_OK(self, serry_recv(room, LARGE, SERRY_U8, SENDER, TAG, NULL, self->comm));
    }
    CHECK(self, is_all(room, LARGE, 1));
}

static void body_reading(test_rank *self)
{
    unsigned char *memory = serry_alloc(self->comm, LARGE);
    uint64_t sequence = chance_begin(12);

    memset(memory, 1, LARGE);
    for (unsigned round = 0; round < ROUNDS && test_mine(self)->failures == 0; round++) {
        if (self->rank == RECEIVER) {
            stop_reading(self, memory, chance_us(&sequence, 12));
            continue;
        }
        test_await(self, FLAG_SEEN, round + 1);
        EXPECT_OK(self, serry_send(memory, LARGE, SERRY_U8, RECEIVER, TAG, self->comm));
    }
    EXPECT_OK(self, serry_barrier(self->comm));
    serry_free(self->comm, memory);
}

/* ---- the tests ---------------------------------------------------------------------------------- */

static void on_all(test_body body)
{
    run_driven(SERRY_PROGRESS_CALLER, RANKS, body);
    run_driven(SERRY_PROGRESS_THREAD, RANKS, body);
}

static void what_was_not_received_stays_the_next_one(void **state)
{
    (void)state;
    on_all(body_receives);
}

static void what_was_taken_back_does_not_come(void **state)
{
    (void)state;
    on_all(body_offered);
}

static void what_waits_for_a_line_never_comes(void **state)
{
    (void)state;
    on_all(body_full);
}

static void taken_back_while_it_is_read_both_say_the_same(void **state)
{
    (void)state;
    on_all(body_read);
}

static void a_receive_that_reads_ends_whole_or_untouched(void **state)
{
    (void)state;
    on_all(body_reading);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_not_received_stays_the_next_one),
        cmocka_unit_test(what_was_taken_back_does_not_come),
        cmocka_unit_test(what_waits_for_a_line_never_comes),
        cmocka_unit_test(taken_back_while_it_is_read_both_say_the_same),
        cmocka_unit_test(a_receive_that_reads_ends_whole_or_untouched),
    };

    test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
