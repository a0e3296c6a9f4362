/* match.c - messages of a flight: sends until the backend has them, receives until a message matches.
 *
 * A receive looks once, when it is new, at what has come and was not wanted; after that only at what
 * comes. What comes goes to the first receive, in the order of their start, that it matches; where
 * there is none, and one wants another message of the same source, it is put aside. So what lies aside
 * never matches a receive that has looked, and messages of one pair and tag stay in order.
 *
 * A message that does not fit its receive stays where it is, the next one. */
#include "flight.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "record.h"
#include "token.h"

#define NS_PER_MS UINT64_C(1000000)
#define COLD __attribute__((cold, noinline))

static const char *name_of(const serry_request *r)
{
    return r->what == REQUEST_SEND ? "send" : r->what == REQUEST_RECEIVE ? "recv" : "probe";
}

static void begin_record(flight *f, const serry_request *r, int peer)
{
    serry_error_begin(&f->error, name_of(r), 0, f->comm->rank);
    f->error.peer = peer;
    if (peer >= 0)
        serry_rank_set_add(&f->error.ranks, peer);
}

/* ---- how long ---------------------------------------------------------------------------------- */

/* One pass over all requests. */
typedef struct pass {
    bool sleeps;     /* who drives is about to */
    uint64_t now_ns; /* 0: not read yet */
    uint64_t at_ns;  /* the first end of one of them */
} pass;

static COLD int fail_limit(flight *f, const serry_request *r, int rc)
{
    const request_message *m = &r->message;
    char peer[32] = "any rank", tag[32] = "any tag";

    begin_record(f, r, m->peer);
    if (m->peer >= 0)
        snprintf(peer, sizeof(peer), "rank %d", m->peer);
    if (m->tag >= 0)
        snprintf(tag, sizeof(tag), "tag %d", m->tag);
    if (rc == SERRY_ERR_CANCELLED)
        return serry_fail(&f->error, rc, "%s (%s, %s) was cancelled", name_of(r), peer, tag);
    if (r->what == REQUEST_SEND)
        return serry_fail(&f->error, rc, "send: %s did not take the message (%s) in time", peer,
                          tag);
    return serry_fail(&f->error, rc, "%s: no message from %s (%s) in time", name_of(r), peer, tag);
}

/* May it go on? SERRY_ERR_AGAIN, or why not. The first look reads no clock: most are driven by who has
 * just started them. */
static int limit_of(flight *f, serry_request *r, pass *p)
{
    request_message *m = &r->message;
    int rc = r->token == NULL ? SERRY_OK : (int)serry_token_state(r->token);

    if (rc != SERRY_OK)
        return fail_limit(f, r, rc);
    if (m->deadline_ns == 0 && r->limit.timeout_ms < 0)
        m->deadline_ns = UINT64_MAX;
    if (m->deadline_ns == 0 && !p->sleeps) {
        m->deadline_ns = 1;
        return SERRY_ERR_AGAIN;
    }
    if (m->deadline_ns != UINT64_MAX && p->now_ns == 0)
        p->now_ns = serry_token_now_ns();
    if (m->deadline_ns <= 1)
        m->deadline_ns = p->now_ns + (uint64_t)r->limit.timeout_ms * NS_PER_MS;
    if (m->deadline_ns <= p->now_ns)
        return fail_limit(f, r, SERRY_ERR_TIMEOUT);
    p->at_ns = m->deadline_ns < p->at_ns ? m->deadline_ns : p->at_ns;
    if (r->token != NULL && serry_token_deadline(r->token) < p->at_ns)
        p->at_ns = serry_token_deadline(r->token);
    return SERRY_ERR_AGAIN;
}

/* ---- sends ------------------------------------------------------------------------------------- */

/* `full`: where there is no room for earlier ones. */
static int drive_send(flight *f, serry_request *r, serry_rank_set *full)
{
    const serry_backend *backend = f->comm->backend;
    request_message *m = &r->message;
    const serry_envelope envelope = {m->tag, m->dtype, m->bytes};

    if (m->ticket == 0) {
        if (serry_rank_set_has(full, m->peer))
            return SERRY_ERR_AGAIN;
        int rc = backend->put(f->comm->member, m->peer, &envelope, m->send, &m->ticket, &f->error);
        if (rc == SERRY_ERR_AGAIN)
            serry_rank_set_add(full, m->peer);
        if (rc != SERRY_OK || m->ticket == 0)
            return rc;
    }
    return backend->settled(f->comm->member, m->peer, m->ticket, &f->error);
}

/* The receiver shall not read it any more. False: it is just reading it, so it has been sent. */
static bool withdraw(const flight *f, const serry_request *r)
{
    return r->message.ticket == 0 || f->comm->backend->withdraw(f->comm->member, r->message.peer,
                                                                r->message.ticket) == SERRY_OK;
}

static void drive_sends(flight *f, pass *p)
{
    serry_rank_set full = {{0}};
    serry_request *next;

    for (serry_request *r = f->sends.first; r != NULL; r = next) {
        next = r->next;
        int rc = drive_send(f, r, &full);
        if (rc == SERRY_ERR_AGAIN) {
            rc = limit_of(f, r, p);
            if (rc != SERRY_ERR_AGAIN && !withdraw(f, r))
                rc = SERRY_ERR_AGAIN;
        }
        if (rc == SERRY_ERR_AGAIN)
            continue;
        queue_remove(&f->sends, r);
        flight_end(f, r, rc);
    }
}

bool match_withdraw(flight *f, const serry_request *r)
{
    return r->what != REQUEST_SEND || withdraw(f, r);
}

/* ---- receives ---------------------------------------------------------------------------------- */

static bool wants_source(const serry_request *r, int source)
{
    return r->message.peer == SERRY_ANY_SOURCE || r->message.peer == source;
}

static bool matches(const serry_request *r, int source, int tag)
{
    return wants_source(r, source) && (r->message.tag == SERRY_ANY_TAG || r->message.tag == tag);
}

static serry_request *first_that_wants(const flight *f, int source)
{
    serry_request *r = f->receives.first;

    while (r != NULL && !wants_source(r, source))
        r = r->next;
    return r;
}

static serry_request *first_match(const flight *f, int source, int tag)
{
    serry_request *r = f->receives.first;

    while (r != NULL && !matches(r, source, tag))
        r = r->next;
    return r;
}

static void end_receive(flight *f, serry_request *r, int rc)
{
    queue_remove(&f->receives, r);
    flight_end(f, r, rc);
}

static void tell_status(const serry_request *r, int source, const serry_envelope *e)
{
    if (r->message.status != NULL)
        *r->message.status = (serry_status){.source = source,
                                            .tag = e->tag,
                                            .dtype = e->dtype,
                                            .count = (size_t)e->bytes / serry_dtype_size(e->dtype)};
}

/* Does the message go into the buffer? */
static int check_fit(flight *f, const serry_request *r, int source, const serry_envelope *e)
{
    size_t element = serry_dtype_size(e->dtype);

    if (r->what == REQUEST_PROBE || (e->dtype == r->message.dtype && e->bytes <= r->message.bytes))
        return SERRY_OK;
    begin_record(f, r, source);
    if (e->dtype != r->message.dtype)
        return serry_fail(
            &f->error, SERRY_ERR_RANK_MISMATCH,
            "recv: the next message from rank %d (tag %d) has elements of type %s, but "
            "%s were asked for; it is still the next one",
            source, e->tag, serry_dtype_name(e->dtype), serry_dtype_name(r->message.dtype));
    tell_status(r, source, e);
    return serry_fail(&f->error, SERRY_ERR_TOO_SMALL,
                      "recv: the next message from rank %d (tag %d) has %zu elements, but there is "
                      "room for %zu; it is still the next one",
                      source, e->tag, (size_t)e->bytes / element, r->message.bytes / element);
}

/* What lies aside, for a receive that is new. True: it has ended. */
static bool look_aside(flight *f, serry_request *r)
{
    waiting_message **place = &f->waiting;

    r->message.looked = true;
    while (*place != NULL && !matches(r, (*place)->source, (*place)->envelope.tag))
        place = &(*place)->next;
    waiting_message *w = *place;
    if (w == NULL)
        return false;
    int rc = check_fit(f, r, w->source, &w->envelope);
    if (rc == SERRY_OK)
        tell_status(r, w->source, &w->envelope);
    if (rc == SERRY_OK && r->what == REQUEST_RECEIVE) {
        if (w->envelope.bytes != 0)
            memcpy(r->message.recv, w->data, (size_t)w->envelope.bytes);
        *place = w->next;
        if (f->last_waiting == &w->next)
            f->last_waiting = place;
        free(w);
    }
    end_receive(f, r, rc);
    return true;
}

/* The next message of `source` is wanted by nobody, but another one is: it makes way. SERRY_OK, or why
 * it cannot. */
static int put_aside(flight *f, int source, const serry_envelope *e)
{
    waiting_message *w = malloc(sizeof(*w) + (size_t)e->bytes);

    if (w == NULL) {
        serry_error_begin(&f->error, "recv", 0, f->comm->rank);
        return serry_fail(
            &f->error, SERRY_ERR_NO_SPACE,
            "recv: out of memory for a message of %zu bytes from rank %d (tag %d) that "
            "came before the one that is wanted",
            (size_t)e->bytes, source, e->tag);
    }
    int rc = f->comm->backend->take(f->comm->member, source, w->data, &f->error);
    if (rc != SERRY_OK) {
        free(w);
        return rc;
    }
    w->next = NULL;
    w->source = source;
    w->envelope = *e;
    if (f->waiting == NULL)
        f->last_waiting = &f->waiting;
    *f->last_waiting = w;
    f->last_waiting = &w->next;
    return SERRY_OK;
}

/* After take, the message was there, but is not any more: it was withdrawn, or its sender has failed,
 * while it was read. The next look says what comes instead. */
static bool is_lost(int rc)
{
    return rc == SERRY_ERR_AGAIN || rc == SERRY_ERR_RANK_FAILED;
}

static void deliver(flight *f, serry_request *r, int source, const serry_envelope *e)
{
    int rc = check_fit(f, r, source, e);

    if (rc == SERRY_OK && r->what == REQUEST_RECEIVE) {
        rc = f->comm->backend->take(f->comm->member, source, r->message.recv, &f->error);
        if (is_lost(rc))
            return;
    }
    if (rc == SERRY_OK)
        tell_status(r, source, e);
    end_receive(f, r, rc);
}

/* Nothing more comes from `source`; f->error says so. */
static COLD void tell_end(flight *f, int source)
{
    serry_request *next;

    for (serry_request *r = f->receives.first; r != NULL; r = next) {
        next = r->next;
        if (r->message.peer == source)
            end_receive(f, r, SERRY_ERR_RANK_FAILED);
    }
}

/* What there is to know of a source, when all its messages are out. */
typedef enum source_state { SOURCE_LIVES, SOURCE_LEFT, SOURCE_FAILED } source_state;

/* Everything that `source` has sent, as far as somebody wants it. */
static source_state drain(flight *f, int source)
{
    const serry_backend *backend = f->comm->backend;
    serry_request *r;
    serry_envelope e;

    while ((r = first_that_wants(f, source)) != NULL) {
        int rc = backend->peek(f->comm->member, source, &e, &f->error);
        if (rc == SERRY_ERR_AGAIN)
            return SOURCE_LIVES;
        if (rc == SERRY_ERR_RANK_FAILED || rc == SERRY_HAS_LEFT) {
            tell_end(f, source);
            return rc == SERRY_HAS_LEFT ? SOURCE_LEFT : SOURCE_FAILED;
        }
        serry_request *match = rc == SERRY_OK ? first_match(f, source, e.tag) : NULL;
        if (match != NULL) {
            deliver(f, match, source, &e);
            continue;
        }
        if (rc == SERRY_OK)
            rc = put_aside(f, source, &e);
        if (rc != SERRY_OK && !is_lost(rc))
            end_receive(f, r, rc);
    }
    return SOURCE_LIVES;
}

static serry_request *first_from_any(const flight *f)
{
    serry_request *r = f->receives.first;

    while (r != NULL && r->message.peer != SERRY_ANY_SOURCE)
        r = r->next;
    return r;
}

/* A receive from any source is told of each failure once, when no message of others is there for it. */
static COLD void tell_failed(flight *f, const serry_rank_set *failed)
{
    serry_request *r;

    for (int source = 0; source < f->comm->size; source++) {
        if (!serry_rank_set_has(failed, source) || flight_knows(f, source) ||
            (r = first_from_any(f)) == NULL)
            continue;
        flight_learn(f, source);
        begin_record(f, r, source);
        serry_fail(&f->error, SERRY_ERR_RANK_FAILED,
                   "%s: rank %d has failed; serry_ack_failed lets receives from any source go on "
                   "without being told",
                   name_of(r), source);
        end_receive(f, r, SERRY_ERR_RANK_FAILED);
    }
}

/* A receive from any source, when nobody is left who could send. */
static COLD void tell_alone(flight *f)
{
    serry_request *next;

    for (serry_request *r = f->receives.first; r != NULL; r = next) {
        next = r->next;
        if (r->message.peer != SERRY_ANY_SOURCE)
            continue;
        begin_record(f, r, -1);
        f->comm->backend->failed(f->comm->member, &f->error.ranks);
        serry_fail(&f->error, SERRY_ERR_RANK_FAILED, "%s: all other ranks have left or failed",
                   name_of(r));
        end_receive(f, r, SERRY_ERR_RANK_FAILED);
    }
}

static void drive_receives(flight *f, pass *p)
{
    int size = f->comm->size, ended = 0;
    serry_rank_set failed = {{0}};
    serry_request *next;

    for (serry_request *r = f->receives.first; r != NULL; r = next) {
        next = r->next;
        if (!r->message.looked)
            look_aside(f, r);
    }
    for (int i = 0; i < size && f->receives.first != NULL; i++) {
        int source = (f->turn_of + i) % size; /* nobody is always the first */
        source_state state = drain(f, source);
        ended += state != SOURCE_LIVES;
        if (__builtin_expect(state == SOURCE_FAILED, 0))
            serry_rank_set_add(&failed, source);
    }
    if (__builtin_expect(ended != 0, 0))
        tell_failed(f, &failed);
    if (ended != 0 && ended == size - 1)
        tell_alone(f);
    f->turn_of = f->turn_of + 1 < size ? f->turn_of + 1 : 0;
    for (serry_request *r = f->receives.first; r != NULL; r = next) {
        next = r->next;
        int rc = limit_of(f, r, p);
        if (rc != SERRY_ERR_AGAIN)
            end_receive(f, r, rc);
    }
}

/* ---- both -------------------------------------------------------------------------------------- */

bool match_drive(flight *f, bool sleeps, uint64_t *at_ns)
{
    pass p = {sleeps, 0, UINT64_MAX};

    if (f->sends.first != NULL)
        drive_sends(f, &p);
    if (f->receives.first != NULL)
        drive_receives(f, &p);
    *at_ns = p.at_ns;
    return f->sends.first != NULL || f->receives.first != NULL;
}

void match_free(flight *f)
{
    while (f->waiting != NULL) {
        waiting_message *next = f->waiting->next;
        free(f->waiting);
        f->waiting = next;
    }
}
