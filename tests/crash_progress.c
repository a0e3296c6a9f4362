/* crash_progress.c - a death at each instruction of the progress thread, which alone drives what the
 * victim has started: each operation ends alike for all, each message is whole or not there.
 *
 * The victim's first sum is the beginning: the others join it when it is under way, so that the progress
 * thread ends it. In its completion, with the flight's turn, that thread waits until the main thread has
 * started the rest, which so is still to be taken up, and the steps begin. They end in the completion of
 * what ends last; all ends but that one have been gone through then. */
#include <semaphore.h>
#include <stdlib.h>

#include "crash_scenarios.h"
#include "crash_step.h"

#define UNTOUCHED INT64_C(0x5a5a5a5a5a5a5a5a)

enum { RECEIVER, SENDER, MOST = 8 };

/* Of this rank. */
static serry_request *first, *request[MOST];
static int result[MOST];

/* Between the victim's threads. */
static sem_t begun, started, ended;
static int running; /* completions to come; by the progress thread */

/* ---- what is started ---------------------------------------------------------------------------- */

/* Request number i is a message of two ranks, or a sum of all. */
static bool is_sum(const crash_actor *a, size_t i)
{
    return a->scenario->kind == SERRY_KIND_ALLREDUCE && (!a->scenario->mixed || i % 2 == 0);
}

static int64_t factor(size_t i, size_t k)
{
    return (int64_t)(k + i + 1);
}

static int64_t given(const crash_actor *a, size_t i, size_t k)
{
    return is_sum(a, i) ? (INT64_C(1) << a->self->rank) * factor(i, k) : 1000003 * factor(i, k);
}

static int start(crash_actor *a, size_t i)
{
    size_t count = a->scenario->count;
    int64_t *send = a->send + i * count, *recv = a->recv + i * count;
    int rank = a->self->rank, tag = (int)i;

    if (is_sum(a, i))
        return serry_iallreduce(send, recv, count, SERRY_I64, SERRY_SUM, a->comm, &request[i]);
    if (rank == SENDER)
        return serry_isend(send, count, SERRY_I64, RECEIVER, tag, a->comm, &request[i]);
    if (rank == RECEIVER)
        return serry_irecv(recv, count, SERRY_I64, SENDER, tag, NULL, a->comm, &request[i]);
    return SERRY_OK;
}

static void start_all(crash_actor *a)
{
    for (size_t i = 0; i < a->scenario->requests; i++)
        EXPECT_OK(a->self, start(a, i));
}

/* The channel and its boxes are there before, but for a message that is alone: making them is long. */
static void exchange_before(crash_actor *a)
{
    size_t count = a->scenario->count;

    for (size_t i = 0; i < a->scenario->requests && a->scenario->requests > 1; i++) {
        const int64_t *send = a->send + i * count;
        int64_t *recv = a->recv + i * count;
        if (is_sum(a, i))
            continue;
        if (a->self->rank == SENDER)
            EXPECT_OK(a->self, serry_send(send, count, SERRY_I64, RECEIVER, 0, a->comm));
        if (a->self->rank == RECEIVER)
            EXPECT_OK(a->self, serry_recv(recv, count, SERRY_I64, SENDER, 0, NULL, a->comm));
    }
}

static void progress_prepare(crash_actor *a)
{
    const crash_scenario *s = a->scenario;
    size_t elements = s->requests * s->count, bytes = elements * sizeof(int64_t);

    a->send = s->arena ? serry_alloc(a->comm, bytes) : malloc(bytes);
    a->recv = s->arena ? serry_alloc(a->comm, bytes) : malloc(bytes);
    if (!CHECK(a->self, a->send != NULL && a->recv != NULL))
        return;
    for (size_t e = 0; e < elements; e++)
        a->send[e] = given(a, e / s->count, e % s->count);
    exchange_before(a);
    for (size_t e = 0; e < elements; e++)
        a->recv[e] = UNTOUCHED;
    sem_init(&begun, 0, 0);
    sem_init(&started, 0, 0);
    sem_init(&ended, 0, 0);
}

/* ---- the section -------------------------------------------------------------------------------- */

/* In the progress thread. */
static void end(int rc, const serry_error *error, void *actor)
{
    (void)rc, (void)error;
    if (--running != 0)
        return;
    step_end(((crash_actor *)actor)->self);
    sem_post(&ended);
}

/* Likewise. The main thread could not give the completions: it would wait for the turn. */
static void begin(int rc, const serry_error *error, void *actor)
{
    crash_actor *a = actor;

    (void)error;
    test_expect(a->self, SERRY_OK, rc, NULL, "the sum before the section");
    sem_post(&begun);
    sem_wait(&started);
    running = (int)a->scenario->requests;
    for (size_t i = 0; i < a->scenario->requests; i++)
        EXPECT_OK(a->self, serry_on_completion(request[i], end, a));
    step_begin(a->self);
}

static int64_t one = 1, sum;

static void drive_elsewhere(crash_actor *a)
{
    EXPECT_OK(a->self, serry_iallreduce(&one, &sum, 1, SERRY_I64, SERRY_SUM, a->comm, &first));
    EXPECT_OK(a->self, serry_on_completion(first, begin, a));
    test_raise(a->self, CRASH_READY);
    sem_wait(&begun);
    start_all(a);
    sem_post(&started);
    sem_wait(&ended);
    serry_request_free(&first);
}

static int progress_section(crash_actor *a)
{
    const crash_scenario *s = a->scenario;

    if (a->self->rank == s->victim) {
        drive_elsewhere(a);
    } else {
        test_await(a->self, CRASH_READY, 1);
        EXPECT_OK(a->self, serry_allreduce(&one, &sum, 1, SERRY_I64, SERRY_SUM, a->comm));
        start_all(a);
    }
    int rc = serry_wait_all(request, s->requests, -1);
    for (size_t i = 0; i < s->requests; i++) {
        result[i] = request[i] == NULL ? SERRY_OK : serry_request_error(request[i])->error;
        serry_request_free(&request[i]);
    }
    return rc;
}

/* ---- what must have come of it ------------------------------------------------------------------ */

static bool is_whole(crash_actor *a, size_t i, int64_t unit, bool received)
{
    size_t count = a->scenario->count;
    const int64_t *send = a->send + i * count, *recv = a->recv + i * count;

    for (size_t k = 0; k < count; k++) {
        int64_t want = received ? unit * factor(i, k) : UNTOUCHED;
        if (recv[k] == want && send[k] == given(a, i, k))
            continue;
        test_failed(a->self, "request %zu, %s: element %zu is %lld, not %lld; given %lld", i,
                    serry_error_name(result[i]), k, (long long)recv[k], (long long)want,
                    (long long)send[k]);
        return false;
    }
    return true;
}

static void judge_sum(crash_actor *a, size_t i)
{
    int64_t mask = result[i] == SERRY_OK ? a->recv[i * a->scenario->count] / factor(i, 0) : 0;

    crash_note(a, "request", result[i], mask);
    if (result[i] != SERRY_OK)
        crash_may_fail(a, a->comm, "a request", result[i]);
    is_whole(a, i, mask, result[i] == SERRY_OK);
}

/* All before the first that was lost have come, and none after it. */
static void judge_message(crash_actor *a, size_t i, bool *lost)
{
    bool receives = a->self->rank == RECEIVER;

    if (result[i] != SERRY_OK)
        test_expect(a->self, SERRY_ERR_RANK_FAILED, result[i], a->comm, "message %zu", i);
    if (result[i] == SERRY_OK && *lost)
        test_failed(a->self, "message %zu came after one that was lost", i);
    *lost |= result[i] != SERRY_OK;
    is_whole(a, i, 1000003, receives && result[i] == SERRY_OK);
}

static void progress_judge(crash_actor *a, int rc)
{
    bool lost = false;

    (void)rc; /* one of theirs */
    for (size_t i = 0; i < a->scenario->requests; i++)
        if (is_sum(a, i))
            judge_sum(a, i);
        else
            judge_message(a, i, &lost);
}

// clang-format off
#define DRIVEN(REQUESTS, COUNT)                                                                    \
    .requests = (REQUESTS), .count = (COUNT), .progress = SERRY_PROGRESS_THREAD, .elsewhere = true,   \
    .prepare = progress_prepare, .section = progress_section, .judge = progress_judge
#define SUMS(REQUESTS, COUNT) .kind = SERRY_KIND_ALLREDUCE, DRIVEN(REQUESTS, COUNT)

const crash_scenario crash_progress[] = {
    {"a small one", 3, 1, SUMS(1, 5)},
    {"4 small ones", 3, 1, SUMS(4, 5)},
    {"4 small ones, excluding", 3, 0, SERRY_EXCLUDE, SUMS(4, 5)},
    {"2 staged ones", 3, 1, SUMS(2, 1032), .points = 60},
    {"2 direct ones", 3, 1, SUMS(2, 1032), .arena = true, .points = 60},
    {"a send that is the first", 3, SENDER, DRIVEN(1, 5)},
    {"sends in the line", 3, SENDER, DRIVEN(3, 5)},
    {"sends through the ring", 3, SENDER, DRIVEN(3, 100)},
    {"sends in boxes", 3, SENDER, DRIVEN(2, 4200)},
    {"sends from where they lie", 3, SENDER, DRIVEN(3, 4200), .arena = true},
    {"receives from the line", 3, RECEIVER, DRIVEN(3, 5)},
    {"receives from the ring", 3, RECEIVER, DRIVEN(3, 100)},
    {"receives from boxes", 3, RECEIVER, DRIVEN(3, 4200)},
    {"receives from where they lie", 3, RECEIVER, DRIVEN(3, 4200), .arena = true},
    {"sums and sends", 3, SENDER, SUMS(6, 5), .mixed = true, .points = 60},
    {"sums and receives", 3, RECEIVER, SUMS(6, 5), .mixed = true, .points = 60},
};
// clang-format on

const size_t crash_progress_count = sizeof(crash_progress) / sizeof(crash_progress[0]);
