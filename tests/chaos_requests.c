/* chaos_requests.c - several operations that are started together; see chaos.h.
 *
 * Who took part in one of them is not to be asked of the communicator, which tells of the last one only. So
 * each is of a kind whose result says it: sums to which rank r gives bit r, and blocks that are untouched
 * where nobody gave any.
 *
 * A request that runs out of time, or is cancelled, is made again with those behind it. Behind one that a
 * newcomer has met with its sync come more that meet the same. */
#include "chaos.h"

#include <stdlib.h>

#define UNTOUCHED INT64_C(0x5a5a5a5a5a5a5a5a)

enum { REQUESTS_MOST = 12, SHORT_MS = 1 };
enum { ROOM = CHAOS_ELEMENTS / REQUESTS_MOST }; /* elements of one output */

typedef enum kind { SUM, GATHER, SCATTERED_SUM, LIST, KINDS } kind;

typedef struct operation {
    kind kind;
    size_t count;
    int64_t *in, *out; /* a list is reduced in place, in `out` */
    serry_request *request;
    int code;
    serry_error error; /* its record, where it did not end well */
} operation;

typedef struct flight {
    chaos_rank *self;
    chaos_group *g;
    uint64_t key;
    bool arena;
    size_t number;
    operation op[REQUESTS_MOST];
} flight;

/* ---- what is given ------------------------------------------------------------------------------ */

static int64_t factor(size_t i, size_t k)
{
    return (int64_t)(1 + (17 * i + k) % 1000);
}

static int64_t given(int rank, size_t i, size_t k)
{
    return (INT64_C(1) << rank) * factor(i, k);
}

static size_t elements_in(const flight *f, size_t i)
{
    const operation *o = &f->op[i];

    return o->kind == SCATTERED_SUM ? o->count * (size_t)f->g->size : o->count;
}

static size_t elements_out(const flight *f, size_t i)
{
    const operation *o = &f->op[i];

    return o->kind == GATHER ? o->count * (size_t)f->g->size : o->count;
}

static void draw(flight *f, uint64_t *sequence)
{
    static const size_t most[] = {1, 5, 5, 60, ROOM};
    chaos_rank *self = f->self;
    int64_t *in, *out;

    f->arena =
        chaos_chance(sequence, 2) == 0 && self->arena_send != NULL && self->arena_recv != NULL;
    f->number = 2 + chaos_chance(sequence, REQUESTS_MOST - 1);
    in = (int64_t *)(void *)(f->arena ? self->arena_send : self->private_send);
    out = (int64_t *)(void *)(f->arena ? self->arena_recv : self->private_recv);
    for (size_t i = 0; i < f->number; i++) {
        operation *o = &f->op[i];
        size_t elements = 1 + chaos_chance(sequence, most[chaos_chance(sequence, 5)]);
        o->kind = (kind)chaos_chance(sequence, KINDS);
        bool blocks = o->kind == GATHER || o->kind == SCATTERED_SUM;
        o->count = blocks ? 1 + elements / (size_t)(f->g->size + 1) : elements;
        o->in = in + i * ROOM;
        o->out = out + i * ROOM;
        for (size_t k = 0; k < elements_in(f, i); k++)
            o->in[k] = given(f->g->rank, i, k);
        for (size_t k = 0; k < elements_out(f, i); k++)
            o->out[k] = o->kind == LIST ? o->in[k] : UNTOUCHED;
    }
}

/* ---- starting and waiting ----------------------------------------------------------------------- */

static int start(flight *f, operation *o)
{
    serry_comm *comm = f->g->comm;
    size_t half = o->count / 2;
    const serry_buffer list[] = {{o->out, half}, {o->out + half, o->count - half}};

    switch (o->kind) {
    case SUM:
        return serry_iallreduce(o->in, o->out, o->count, SERRY_I64, SERRY_SUM, comm, &o->request);
    case GATHER:
        return serry_iallgather(o->in, o->out, o->count, SERRY_I64, comm, &o->request);
    case SCATTERED_SUM:
        return serry_ireduce_scatter(o->in, o->out, o->count, SERRY_I64, SERRY_SUM, comm,
                                     &o->request);
    case LIST:
    default:
        return serry_iallreduce_many(list, 2, SERRY_I64, SERRY_SUM, comm, &o->request);
    }
}

static void start_from(flight *f, size_t first)
{
    for (size_t i = first; i < f->number; i++) {
        int code = start(f, &f->op[i]);
        if (code != SERRY_OK)
            chaos_fail(f->self, "request %zu: %s", i, serry_last_error(f->g->comm)->message);
        chaos_place(f->self->seat);
    }
}

/* In the order of the start, or as they come, or by looking. */
static void wait_from(flight *f, size_t first)
{
    serry_request *request[REQUESTS_MOST];
    uint64_t how = chaos_chance(&f->self->sequence, 3);
    size_t index;

    for (size_t i = first; i < f->number; i++)
        request[i] = f->op[i].request;
    for (size_t left = f->number - first; left > 0 && how == 1; left--) {
        serry_wait_any(request + first, f->number - first, -1, &index);
        if (index < f->number - first) { /* else all others have ended well */
            f->op[first + index].request = request[first + index];
            request[first + index] = NULL;
        }
        chaos_place(f->self->seat);
    }
    for (size_t i = first; i < f->number; i++) {
        operation *o = &f->op[i];
        int done = how != 2;
        while (!done)
            serry_test(&o->request, &done);
        o->code = serry_wait(&o->request, -1);
        if (o->code != SERRY_OK)
            o->error = *serry_request_error(o->request);
        serry_request_free(&o->request);
        chaos_place(f->self->seat);
    }
}

/* What was left open has touched nothing. The first of them, or the number of all. */
static size_t first_open(const flight *f, size_t first)
{
    size_t open = f->number;

    for (size_t i = f->number; i-- > first;) {
        const operation *o = &f->op[i];
        bool is_open = o->code == SERRY_ERR_TIMEOUT || o->code == SERRY_ERR_CANCELLED;
        if (is_open)
            open = i;
        if (!is_open && o->code != SERRY_ERR_PENDING)
            continue;
        for (size_t k = 0; k < elements_out(f, i) && !f->arena; k++)
            if (o->out[k] != (o->kind == LIST ? o->in[k] : UNTOUCHED))
                chaos_fail(f->self, "request %zu: %s, and element %zu of the output is changed", i,
                           serry_error_name(o->code), k);
    }
    return open;
}

static void run_all(flight *f)
{
    uint64_t *own = &f->self->sequence;
    uint64_t trouble = chaos_chance(own, 8);
    size_t first = 0;

    if (trouble == 0)
        serry_set_timeout(f->g->comm, SHORT_MS);
    do {
        start_from(f, first);
        if (trouble == 1)
            serry_cancel(f->op[first + chaos_chance(own, f->number - first)].request);
        trouble = trouble == 1 ? 2 : trouble; /* once */
        wait_from(f, first);
        first = first_open(f, first);
        if (first < f->number)
            atomic_fetch_add_explicit(&f->self->board->timeouts, 1, memory_order_relaxed);
        if (chaos_chance(own, 2) == 0)
            serry_set_timeout(f->g->comm, -1);
    } while (first < f->number);
    serry_set_timeout(f->g->comm, -1);
}

/* ---- what has come of it ------------------------------------------------------------------------ */

static uint64_t who_took_part(const flight *f, size_t i)
{
    const operation *o = &f->op[i];
    uint64_t ranks = 0;

    if (o->kind != GATHER)
        return (uint64_t)(o->out[0] /
                          factor(i, o->kind == SCATTERED_SUM ? (size_t)f->g->rank * o->count : 0));
    for (int r = 0; r < f->g->size; r++)
        ranks |= (uint64_t)(o->out[(size_t)r * o->count] != UNTOUCHED) << r;
    return ranks;
}

static int64_t wanted(const flight *f, size_t i, size_t k, uint64_t ranks)
{
    const operation *o = &f->op[i];
    size_t from = o->kind == SCATTERED_SUM ? (size_t)f->g->rank * o->count : 0;

    if (o->code != SERRY_OK)
        return o->kind == LIST ? o->in[k] : UNTOUCHED;
    if (o->kind != GATHER)
        return (int64_t)ranks * factor(i, from + k);
    return ranks >> (k / o->count) & 1 ? given((int)(k / o->count), i, k % o->count) : UNTOUCHED;
}

static void compare(const flight *f, size_t i, uint64_t ranks)
{
    const operation *o = &f->op[i];

    for (size_t k = 0; k < elements_out(f, i); k++)
        if (o->out[k] != wanted(f, i, k, ranks))
            chaos_fail(f->self,
                       "request %zu of %zu, kind %d, %zu elements: %s, ranks %#llx: element %zu is "
                       "%lld, not %lld",
                       i, f->number, (int)o->kind, o->count, serry_error_name(o->code),
                       (unsigned long long)ranks, k, (long long)o->out[k],
                       (long long)wanted(f, i, k, ranks));
    for (size_t k = 0; k < elements_in(f, i); k++)
        if (o->in[k] != given(f->g->rank, i, k))
            chaos_fail(f->self, "request %zu has changed its input", i);
}

/* What tells most of it: that somebody has come, or the first error. */
static int account(flight *f)
{
    chaos_group *g = f->g;
    bool met = false;
    int code = SERRY_OK;

    for (size_t i = 0; i < f->number; i++) {
        operation *o = &f->op[i];
        uint64_t ranks = o->code == SERRY_OK ? who_took_part(f, i) : 0;
        compare(f, i, ranks);
        ranks = chaos_account_request(f->self, g, o->code, &o->error, ranks, &met);
        chaos_log(f->self, f->key + i, o->code, ranks, 0, 0, false);
        code = code == SERRY_OK ? o->code : code;
    }
    if (serry_epoch(g->comm) < g->epoch || (met && serry_epoch(g->comm) == g->epoch))
        chaos_fail(f->self, "epoch %llu after %llu", (unsigned long long)serry_epoch(g->comm),
                   (unsigned long long)g->epoch);
    g->epoch = serry_epoch(g->comm);
    return met ? SERRY_ERR_RANK_MISMATCH : code;
}

int chaos_requests(chaos_rank *self, uint64_t *sequence, uint64_t key)
{
    flight *f = calloc(1, sizeof(*f));

    f->self = self;
    f->g = &self->world;
    f->key = key;
    draw(f, sequence);
    chaos_at(self, "calls from %#llx on: %zu requests, policy %d, of %d%s", (unsigned long long)key,
             f->number, (int)f->g->policy, f->g->size, f->arena ? ", arena" : "");
    chaos_place(self->seat);
    run_all(f);
    int code = account(f);
    free(f);
    return code;
}
