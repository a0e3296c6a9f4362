/* chaos_messages.c - messages among random deaths; see chaos.h.
 *
 * Every member sends one message to each of the next few members, and gets one from each of those before:
 * by receives of its own for each, or from any source. So all know which are to come. What a living rank
 * has sent comes, whole; of one that was ordered to die it may be missing, and then RANK_FAILED says so.
 * In between there may be operations under way, at which members are replaced. A collective call comes
 * last: the next messages are among those that it leaves. */
#include "chaos.h"

#include <stdlib.h>
#include <string.h>

enum { PEERS_MOST = 4, TAGS = 16, BRIEFLY_MS = 50 };
enum { KEY_LAST = 128 };
enum { ROOM = CHAOS_ELEMENTS / PEERS_MOST }; /* elements of one message */

typedef struct message {
    int peer; /* in the world */
    int tag;
    size_t count;
    int64_t *data;
    serry_request *request; /* NULL: it is over */
} message;

typedef struct exchange {
    chaos_rank *self;
    uint64_t common; /* what all draw from */
    bool beside;     /* operations that are under way */
    bool arena;      /* of its own, for all messages */
    int64_t *memory;
    size_t peers;
    message out[PEERS_MOST], in[PEERS_MOST];
} exchange;

/* ---- what is sent ------------------------------------------------------------------------------- */

static int64_t told(const exchange *e, int from, int to, size_t k)
{
    return (int64_t)(chaos_mix(e->common, (uint64_t)(from * CHAOS_RANKS + to)) >> 2) + (int64_t)k;
}

/* In the line, the ring, a box; where there is memory of the arena, where it lies. */
static void draw(const exchange *e, int from, int to, message *m)
{
    static const size_t most[] = {1, 5, 100, 3000, ROOM};
    uint64_t own = chaos_mix(e->common + 1, (uint64_t)(from * CHAOS_RANKS + to));

    m->count = chaos_chance(&own, most[chaos_chance(&own, 5)] + 1);
    m->tag = (int)((e->self->call & 0xffffff) * TAGS + chaos_chance(&own, TAGS));
}

/* The nth member after this one, or before it. */
static int member_at(const chaos_group *w, int steps)
{
    int rank = w->rank, step = steps < 0 ? w->size - 1 : 1;

    for (int left = steps < 0 ? -steps : steps; left > 0;) {
        rank = (rank + step) % w->size;
        left -= (int)(w->members >> rank & 1);
    }
    return rank;
}

static void prepare(exchange *e)
{
    chaos_rank *self = e->self;
    const chaos_group *w = &self->world;
    size_t bytes = 2 * PEERS_MOST * ROOM * sizeof(int64_t);
    void *arena = chaos_chance(&self->sequence, 2) == 0 ? serry_alloc(w->comm, bytes) : NULL;

    e->arena = arena != NULL;
    e->memory = e->arena ? arena : malloc(bytes);
    for (size_t i = 0; i < e->peers; i++) {
        message *out = &e->out[i], *in = &e->in[i];
        *out = (message){.peer = member_at(w, (int)i + 1), .data = e->memory + i * ROOM};
        *in = (message){.peer = member_at(w, -(int)i - 1),
                        .data = e->memory + (PEERS_MOST + i) * ROOM};
        draw(e, w->rank, out->peer, out);
        draw(e, in->peer, w->rank, in);
        for (size_t k = 0; k < out->count; k++)
            out->data[k] = told(e, w->rank, out->peer, k);
        memset(in->data, 0, in->count * sizeof(*in->data));
    }
}

static void release(const exchange *e)
{
    if (e->arena)
        serry_free(e->self->world.comm, e->memory);
    else
        free(e->memory);
}

/* ---- how they end ------------------------------------------------------------------------------- */

static bool may_fail(const exchange *e, int peer)
{
    const chaos_rank *self = e->self;

    return chaos_is_doomed(self->board, peer, self->world.incarnation[peer]);
}

static void expect_end(const exchange *e, const message *m, int code, const char *what)
{
    bool lost = code == SERRY_ERR_RANK_FAILED || (e->beside && code == SERRY_ERR_CANCELLED);

    if (code != SERRY_OK && !(lost && may_fail(e, m->peer)))
        chaos_fail(e->self, "%s rank %d, tag %d: %s", what, m->peer, m->tag,
                   serry_error_name(code));
}

static void expect_whole(const exchange *e, const message *m)
{
    for (size_t k = 0; k < m->count; k++)
        if (m->data[k] != told(e, m->peer, e->self->rank, k))
            chaos_fail(e->self, "element %zu of %zu from rank %d is %lld, not %lld", k, m->count,
                       m->peer, (long long)m->data[k],
                       (long long)told(e, m->peer, e->self->rank, k));
}

/* Who has the place of a dead sender meanwhile sends nothing of this: then nobody ever would. */
static int result_of(const exchange *e, message *m)
{
    int code;

    while ((code = serry_wait(&m->request, BRIEFLY_MS)) == SERRY_ERR_TIMEOUT)
        if (e->beside && may_fail(e, m->peer))
            serry_cancel(m->request);
    serry_request_free(&m->request);
    chaos_place(e->self->seat);
    return code;
}

/* ---- sending and receiving ---------------------------------------------------------------------- */

static void start_sends(exchange *e)
{
    for (size_t i = 0; i < e->peers; i++) {
        message *m = &e->out[i];
        serry_comm *comm = e->self->world.comm;
        if (serry_isend(m->data, m->count, SERRY_I64, m->peer, m->tag, comm, &m->request) !=
            SERRY_OK)
            chaos_fail(e->self, "isend: %s", serry_last_error(comm)->message);
        chaos_place(e->self->seat);
    }
}

/* From each a receive of its own; the last one first, as the order does not matter. */
static void start_receives(exchange *e)
{
    for (size_t i = e->peers; i-- > 0;) {
        message *m = &e->in[i];
        serry_comm *comm = e->self->world.comm;
        if (serry_irecv(m->data, m->count, SERRY_I64, m->peer, m->tag, NULL, comm, &m->request) !=
            SERRY_OK)
            chaos_fail(e->self, "irecv: %s", serry_last_error(comm)->message);
        chaos_place(e->self->seat);
    }
}

static void end_receives(exchange *e)
{
    for (size_t i = 0; i < e->peers; i++) {
        int code = result_of(e, &e->in[i]);
        expect_end(e, &e->in[i], code, "a receive from");
        if (code == SERRY_OK)
            expect_whole(e, &e->in[i]);
    }
}

static message *from(exchange *e, int peer)
{
    for (size_t i = 0; i < e->peers; i++)
        if (e->in[i].peer == peer)
            return &e->in[i];
    return NULL;
}

/* From any source, of which each failure is told once, also of ranks that have nothing to send. Returns
 * how many of the messages need not be waited for any more. */
static size_t receive_any(exchange *e, bool *over)
{
    serry_comm *comm = e->self->world.comm;
    static int64_t room[ROOM];
    serry_status status;
    int code = serry_recv(room, ROOM, SERRY_I64, SERRY_ANY_SOURCE, SERRY_ANY_TAG, &status, comm);
    int peer = code == SERRY_OK ? status.source : serry_last_error(comm)->peer;
    message *m = from(e, peer);

    if (code == SERRY_ERR_RANK_FAILED && peer < 0) { /* nobody is left */
        for (size_t i = 0; i < e->peers; i++)
            if (!over[i])
                expect_end(e, &e->in[i], code, "a receive from any, alone, without");
        return e->peers;
    }
    if (m != NULL)
        expect_end(e, m, code, "a receive from any: of");
    if (code == SERRY_OK &&
        (m == NULL || status.tag != m->tag || status.count != m->count || over[m - e->in]))
        chaos_fail(e->self, "message from rank %d with tag %d and %zu elements", peer, status.tag,
                   status.count);
    if (m == NULL || over[m - e->in])
        return 0;
    over[m - e->in] = true;
    if (code == SERRY_OK) {
        memcpy(m->data, room, m->count * sizeof(room[0]));
        expect_whole(e, m);
    }
    return 1;
}

static void receive_from_any(exchange *e)
{
    bool over[PEERS_MOST] = {false};

    for (size_t left = e->peers; left > 0;) {
        size_t less = receive_any(e, over);
        left -= less < left ? less : left;
        chaos_place(e->self->seat);
    }
}

/* ---- an exchange -------------------------------------------------------------------------------- */

int chaos_messages(chaos_rank *self, uint64_t *sequence, uint64_t key)
{
    chaos_group *w = &self->world;
    exchange e = {.self = self, .common = *sequence};
    int others = __builtin_popcountll(w->members) - 1, code = SERRY_OK;
    uint64_t how = chaos_chance(sequence, 4);
    size_t peers = 1 + chaos_chance(sequence, PEERS_MOST);
    chaos_operation last;

    e.peers = peers < (size_t)others ? peers : (size_t)others;
    e.beside = how == 0;
    chaos_at(self, "call %#llx: messages with %zu of %d others, %s", (unsigned long long)key,
             e.peers, others,
             how == 0   ? "beside requests"
             : how == 1 ? "from any"
                        : "from each");
    chaos_place(self->seat);
    prepare(&e);
    if (how != 1)
        start_receives(&e);
    start_sends(&e);
    if (e.beside)
        code = chaos_requests(self, sequence, key);
    if (how == 1)
        receive_from_any(&e);
    else
        end_receives(&e);
    for (size_t i = 0; i < e.peers; i++)
        expect_end(&e, &e.out[i], result_of(&e, &e.out[i]), "a send to");
    release(&e);
    if (code == SERRY_ERR_RANK_MISMATCH)
        return code; /* somebody waits for a sync */
    chaos_draw(self->job, sequence, w->size, &last);
    return chaos_run(self, w, &last, key + KEY_LAST);
}
