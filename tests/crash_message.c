/* crash_message.c - messages: a death at each instruction of a send and of a receive, wherever the data
 * travel. What was received is whole, in order and nothing twice; after that comes RANK_FAILED. */
#include <stdlib.h>

#include "crash_scenarios.h"

#define UNTOUCHED INT64_C(0x5a5a5a5a5a5a5a5a)

enum { RECEIVER, SENDER, MESSAGES = 3 };

/* Messages that this rank has got in the section. */
static size_t received;

static int64_t told(int message, size_t index)
{
    return (int64_t)(message + 1) * 1000003 + (int64_t)index * 7919;
}

static int send_all(crash_actor *a)
{
    size_t count = a->scenario->count;
    int rc = SERRY_OK;

    for (int n = 0; n < MESSAGES && rc == SERRY_OK; n++)
        rc = serry_send(a->send + (size_t)n * count, count, SERRY_I64, RECEIVER, n, a->comm);
    return rc;
}

static int receive_all(crash_actor *a)
{
    size_t count = a->scenario->count;
    int rc = SERRY_OK;

    for (int n = 0; n < MESSAGES && rc == SERRY_OK; n++) {
        rc = serry_recv(a->recv + (size_t)n * count, count, SERRY_I64, SENDER, n, NULL, a->comm);
        received += rc == SERRY_OK;
    }
    return rc;
}

static int exchange(crash_actor *a)
{
    int rank = a->self->rank;

    return rank == SENDER ? send_all(a) : rank == RECEIVER ? receive_all(a) : SERRY_OK;
}

static void forget(crash_actor *a)
{
    received = 0;
    for (size_t i = 0; i < MESSAGES * a->scenario->count; i++)
        a->recv[i] = UNTOUCHED;
}

/* Where the sender is not the one that is looked at, its channel and boxes are there before. */
static void exchange_prepare(crash_actor *a)
{
    const crash_scenario *s = a->scenario;
    size_t bytes = MESSAGES * s->count * sizeof(int64_t);

    a->send = s->arena ? serry_alloc(a->comm, bytes) : malloc(bytes);
    a->recv = s->arena ? serry_alloc(a->comm, bytes) : malloc(bytes);
    if (!CHECK(a->self, a->send != NULL && a->recv != NULL))
        return;
    for (size_t i = 0; i < MESSAGES * s->count; i++)
        a->send[i] = told((int)(i / s->count), i % s->count);
    if (s->victim == RECEIVER)
        EXPECT_OK(a->self, exchange(a));
    forget(a);
}

static void exchange_judge(crash_actor *a, int rc)
{
    size_t count = a->scenario->count;

    if (rc != SERRY_OK)
        test_expect(a->self, SERRY_ERR_RANK_FAILED, rc, a->comm, "the messages");
    for (size_t i = 0; i < MESSAGES * count; i++) {
        size_t n = i / count;
        int64_t want = n < received ? told((int)n, i % count) : UNTOUCHED;
        if (a->send[i] != told((int)n, i % count) || a->recv[i] != want) {
            test_failed(a->self, "%zu received, %s: element %zu of message %zu is %lld, not %lld",
                        received, serry_error_name(rc), i % count, n, (long long)a->recv[i],
                        (long long)want);
            return;
        }
    }
}

#define SENDING(COUNT)                                                                             \
    3, SENDER, .count = (COUNT), .section = exchange, .prepare = exchange_prepare,                 \
               .judge = exchange_judge
#define RECEIVING(COUNT)                                                                           \
    3, RECEIVER, .count = (COUNT), .section = exchange, .prepare = exchange_prepare,               \
                 .judge = exchange_judge

// clang-format off
const crash_scenario crash_messages[] = {
    {"send in the line", SENDING(5)},
    {"send through the ring", SENDING(100)},
    {"send in a box", SENDING(4200), .points = 60},
    {"send from where it lies", SENDING(4200), .arena = true},
    {"receive from the line", RECEIVING(5)},
    {"receive from the ring", RECEIVING(100)},
    {"receive from a box", RECEIVING(4200)},
    {"receive from where it lies", RECEIVING(4200), .arena = true},
};
// clang-format on

const size_t crash_messages_count = sizeof(crash_messages) / sizeof(crash_messages[0]);
