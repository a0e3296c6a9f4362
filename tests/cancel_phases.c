/* cancel_phases.c - one of several operations under way is cancelled, wherever it is: waiting for its
 * turn, contributed, over for the others, in a step that it shares. Those before it are not disturbed; it
 * and those after it, made again, end as for the others, who never hear of it. */
#include <stdlib.h>
#include <string.h>

#include "driven.h"

#define UNTOUCHED INT64_C(0x5a5a5a5a5a5a5a5a)

enum { RANKS = 3, CANCELLER = 0, REQUESTS = 5, BRIEFLY_MS = 20 };
enum {
    FLAG_HERE,
    FLAG_READY,
    FLAG_CANCELLED
}; /* raised once in a turn, READY by each of the others */

/* How far things are when one is cancelled. Where the progress thread drives them they may be further. */
typedef enum phase {
    ALONE,       /* the first is contributed, and nobody else has come */
    JOINED,      /* all have come to all */
    OVER,        /* and have it behind them, where it does not need this rank any more */
    SHARED,      /* the first is over, and the rest contributed together, by this rank alone */
    SHARED_OVER, /* and over for the others */
    PHASES
} phase;

static const char *const k_phases[] = {"alone", "joined", "over", "shared", "shared and over"};

typedef struct turn {
    unsigned number;
    phase at;
    size_t count, victim; /* elements; which request */
    bool arena;
} turn;

typedef struct buffers {
    int64_t *in[REQUESTS], *out[REQUESTS];
    serry_request *request[REQUESTS];
} buffers;

/* ---- the operations ----------------------------------------------------------------------------- */

typedef enum kind { SUM, GATHER, LIST, KINDS } kind;

static kind kind_of(size_t i)
{
    return (kind)(i % KINDS);
}

static int64_t given(int rank, size_t i, size_t k)
{
    return (int64_t)(((size_t)rank + 1) * (i + 1) + k);
}

static size_t elements_out(const turn *t, size_t i)
{
    return kind_of(i) == GATHER ? RANKS * t->count : t->count;
}

static int64_t wanted(const turn *t, size_t i, size_t k)
{
    int64_t sum = 0;

    if (kind_of(i) == GATHER)
        return given((int)(k / t->count), i, k % t->count);
    for (int r = 0; r < RANKS; r++)
        sum += given(r, i, k);
    return sum;
}

static void *get(test_rank *self, const turn *t, size_t elements)
{
    size_t bytes = elements * sizeof(int64_t);
    void *memory = t->arena ? serry_alloc(self->comm, bytes) : malloc(bytes);

    CHECK(self, memory != NULL);
    return memory;
}

static void give(test_rank *self, const turn *t, void *memory)
{
    if (t->arena)
        serry_free(self->comm, memory);
    else
        free(memory);
}

/* A list is reduced in place. */
static void prepare(test_rank *self, const turn *t, buffers *m)
{
    for (size_t i = 0; i < REQUESTS; i++) {
        m->in[i] = get(self, t, t->count);
        m->out[i] = get(self, t, elements_out(t, i));
        m->request[i] = NULL;
        for (size_t k = 0; k < t->count; k++)
            m->in[i][k] = given(self->rank, i, k);
        for (size_t k = 0; k < elements_out(t, i); k++)
            m->out[i][k] = kind_of(i) == LIST ? m->in[i][k] : UNTOUCHED;
    }
}

static void release(test_rank *self, const turn *t, const buffers *m)
{
    for (size_t i = 0; i < REQUESTS; i++) {
        give(self, t, m->in[i]);
        give(self, t, m->out[i]);
    }
}

static void start(test_rank *self, const turn *t, buffers *m, size_t i)
{
    size_t half = t->count / 2;
    const serry_buffer list[] = {{m->out[i], half}, {m->out[i] + half, t->count - half}};
    serry_request **request = &m->request[i];

    switch (kind_of(i)) {
    case SUM:
        EXPECT_OK(self, serry_iallreduce(m->in[i], m->out[i], t->count, SERRY_I64, SERRY_SUM,
                                         self->comm, request));
        break;
    case GATHER:
        EXPECT_OK(self,
                  serry_iallgather(m->in[i], m->out[i], t->count, SERRY_I64, self->comm, request));
        break;
    case LIST:
    default:
        EXPECT_OK(self, serry_iallreduce_many(list, 2, SERRY_I64, SERRY_SUM, self->comm, request));
    }
}

static void start_from(test_rank *self, const turn *t, buffers *m, size_t first)
{
    for (size_t i = first; i < REQUESTS; i++)
        start(self, t, m, i);
}

static void expect_results(test_rank *self, const turn *t, const buffers *m)
{
    for (size_t i = 0; i < REQUESTS; i++)
        for (size_t k = 0; k < elements_out(t, i); k++) {
            if (m->out[i][k] == wanted(t, i, k) &&
                (k >= t->count || m->in[i][k] == given(self->rank, i, k)))
                continue;
            test_failed(self, "operation %zu: element %zu is %lld, not %lld", i, k,
                        (long long)m->out[i][k], (long long)wanted(t, i, k));
            break;
        }
}

/* ---- who cancels -------------------------------------------------------------------------------- */

/* Of what is neither small nor copied before it counts, the output may be touched: failure-model.md. */
static bool is_copied(const test_rank *self, const turn *t, size_t i)
{
    return kind_of(i) == LIST || t->count <= 100 || (self->kind == SERRY_PROCESSES && !t->arena);
}

static void expect_failed(test_rank *self, const turn *t, buffers *m, size_t i)
{
    int code = i == t->victim ? SERRY_ERR_CANCELLED : SERRY_ERR_PENDING;

    test_expect(self, code, serry_request_error(m->request[i])->error, NULL, "operation %zu", i);
    CHECK(self, serry_request_error(m->request[i])->rank == self->rank);
    test_expect(self, code, serry_wait(&m->request[i], -1), NULL, "the wait for %zu", i);
    for (size_t k = 0; k < elements_out(t, i) && is_copied(self, t, i); k++)
        if (m->out[i][k] != (kind_of(i) == LIST ? m->in[i][k] : UNTOUCHED)) {
            test_failed(self, "operation %zu has touched element %zu", i, k);
            break;
        }
    serry_request_free(&m->request[i]);
}

/* Does nobody else drive its requests? A thread that waits drives those of all in its process. */
static bool drives_alone(const test_rank *self)
{
    return driven_by(self) == SERRY_PROGRESS_CALLER && self->kind == SERRY_PROCESSES;
}

static void get_there(test_rank *self, const turn *t, buffers *m)
{
    bool shared = t->at == SHARED || t->at == SHARED_OVER;

    start_from(self, t, m, 0);
    test_raise(self, FLAG_HERE);
    if (t->at != ALONE)
        test_await(self, FLAG_READY, (t->number + 1) * (RANKS - 1));
    if (shared)
        EXPECT_OK(self, serry_wait(&m->request[0], -1));
    if (t->at == SHARED_OVER) {
        test_raise(self, FLAG_CANCELLED); /* the others come to the rest, */
        test_sleep_ms(BRIEFLY_MS);        /* and have it behind them if they are not held up */
    }
}

static void cancel(test_rank *self, const turn *t, buffers *m)
{
    bool shared = t->at == SHARED || t->at == SHARED_OVER;

    get_there(self, t, m);
    serry_request **victim = &m->request[t->victim];
    EXPECT_OK(self, serry_cancel(*victim));
    bool ended_well = t->victim == 0 && m->request[0] == NULL;
    if (!ended_well && serry_request_error(*victim)->error == SERRY_OK) {
        EXPECT_OK(self, serry_wait(victim, -1));
        ended_well = true;
    }
    if (drives_alone(self))
        CHECK(self, ended_well == (shared && t->victim == 0));
    for (size_t i = t->victim; i < REQUESTS && !ended_well; i++)
        expect_failed(self, t, m, i);
    if (t->at != SHARED_OVER)
        test_raise(self, FLAG_CANCELLED);
    if (!ended_well)
        start_from(self, t, m, t->victim);
    EXPECT_OK(self, serry_wait_all(m->request, REQUESTS, -1));
}

/* ---- the others --------------------------------------------------------------------------------- */

static void take_part(test_rank *self, const turn *t, buffers *m)
{
    bool shared = t->at == SHARED || t->at == SHARED_OVER;

    test_await(self, FLAG_HERE, t->number + 1);
    if (shared)
        start(self, t, m, 0);
    else if (t->at != ALONE)
        start_from(self, t, m, 0);
    if (t->at == OVER) { /* or it needs that rank; then that has not let it end */
        int rc = serry_wait(&m->request[0], BRIEFLY_MS);
        CHECK(self, rc == SERRY_OK || rc == SERRY_ERR_TIMEOUT);
    }
    test_raise(self, FLAG_READY);
    if (shared)
        EXPECT_OK(self, serry_wait(&m->request[0], -1));
    if (shared || t->at == ALONE) {
        test_await(self, FLAG_CANCELLED, t->number + 1);
        start_from(self, t, m, shared ? 1 : 0);
    }
    EXPECT_OK(self, serry_wait_all(m->request, REQUESTS, -1));
}

/* ---- the tests ---------------------------------------------------------------------------------- */

static void one_turn(test_rank *self, const turn *t)
{
    buffers m;

    test_at(self, "%s, %zu elements%s, number %zu is cancelled", k_phases[t->at], t->count,
            t->arena ? " of the arena" : "", t->victim);
    prepare(self, t, &m);
    if (self->rank == CANCELLER)
        cancel(self, t, &m);
    else
        take_part(self, t, &m);
    expect_results(self, t, &m);
    EXPECT_OK(self, serry_barrier(self->comm));
    test_meet(self);
    if (test_mine(self)->failures > 0)
        test_failed(self, "in this turn: %s", test_mine(self)->where);
    release(self, t, &m);
}

static void all_turns(test_rank *self)
{
    static const size_t counts[] = {1, 7, 1032, 20000}, victims[] = {0, 1, 3};
    unsigned number = 0;

    for (phase at = ALONE; at < PHASES; at++)
        for (size_t c = 0; c < 4; c++)
            for (size_t v = 0; v < 3; v++)
                for (int arena = 0; arena < 2 && test_mine(self)->failures == 0; arena++)
                    one_turn(self, &(turn){number++, at, counts[c], victims[v], arena});
}

int main(void)
{
    return run_cancelled(RANKS, all_turns);
}
