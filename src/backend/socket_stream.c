/* socket_stream.c - one operation after the other, each with one outcome for all; see socket.h.
 *
 * The hub is the lowest rank that lives. In operation n each member
 *
 *   1. reports to the hub: its call, its contribution, and which decision of n it holds, if any;
 *   2. gets the hub's decision: who takes part, the outcome, its result; and holds it;
 *   3. gets the hub's commit, and hands the result out.
 *
 * The hub commits when it has written the decision to all that live, which then have it, whatever
 * becomes of the hub. So if anybody has handed n out, all that live hold its decision. When a hub
 * dies, each member reports to the next one as soon as it has read the dead one's end, and with that
 * all the dead one ever said. The new hub waits for the reports of all that live:
 *
 *   - all hold the same decision: somebody may have handed it out. It is committed.
 *   - some do not, or hold another one: nobody has. The hub makes a new decision, under its own
 *     ballot, from the contributions of those that live.
 *   - somebody reports for n + 1: that one has handed n out. It is committed.
 *
 * A member that has handed n out may meet a report for n, from one whose hub died before its commit
 * was sent: it answers with the commit.
 *
 * A member takes part if its report is with the hub when the hub decides, even if it has died. */
#include "socket.h"

#include <stdlib.h>
#include <string.h>

#include "record.h"
#include "token.h"

#define PATIENCE_NS 5000000 /* before a rank tells the others that it waits */

void stream_setup(socket_member *m, stream *s, int which)
{
    s->which = which;
    s->told = -1;
    s->alive_count = m->size;
    for (int r = 0; r < m->size; r++)
        serry_rank_set_add(&s->alive, r);
}

int stream_hub(const socket_member *m)
{
    int hub = 0;

    while (hub != m->rank && m->gone[hub])
        hub++;
    return hub;
}

serry_policy stream_policy(const socket_member *m, const stream *s)
{
    return s->which == WORK ? m->policy : SERRY_EXCLUDE;
}

frame stream_frame(const socket_member *m, const stream *s, uint32_t type)
{
    return (frame){.type = type,
                   .stream = m->id * STREAMS + (uint64_t)s->which,
                   .number = s->done + 1,
                   .ballot = s->decision.ballot};
}

void stream_forget_decision(stream *s)
{
    body_release(s->result);
    s->result = NULL;
    s->decision.ballot = 0;
    s->committed = s->committing = false;
}

static void drop(stream *s)
{
    stream_forget_decision(s);
    body_release(s->given);
    s->given = NULL;
    s->open = s->announced = s->polled = false;
    s->told = -1;
}

static void forget_reports(socket_member *m, stream *s, uint64_t up_to)
{
    for (int r = 0; r < m->size; r++)
        if (s->peer[r].report.number <= up_to) {
            body_release(s->peer[r].report.body);
            s->peer[r].report.body = NULL;
        }
}

void stream_end(socket_member *m, stream *s)
{
    drop(s);
    s->done++;
    forget_reports(m, s, s->done);
}

void stream_cleanup(socket_member *m, stream *s)
{
    drop(s);
    if (s->peer != NULL)
        forget_reports(m, s, UINT64_MAX);
    free(s->peer);
    s->peer = NULL;
}

/* ---- what comes -------------------------------------------------------------------------------- */

static void take_report(socket_member *m, stream *s, int from, const frame *head, body *b)
{
    report *r = &s->peer[from].report;

    if (head->number <= s->done || (s->committing && head->number == s->done + 1)) {
        if (head->ballot != 0)
            hub_send_commit(m, s, from, head->number, head->ballot);
        body_release(b);
        return;
    }
    body_release(r->body);
    *r = (report){head->number, head->ballot, head->signature[0], b};
}

void stream_take(socket_member *m, stream *s, int from, const frame *head, body *b)
{
    bool current = s->open && head->number == s->done + 1;

    switch (head->type) {
    case FRAME_REPORT:
        take_report(m, s, from, head, b);
        return;
    case FRAME_DECISION:
        if (!current)
            break;
        stream_forget_decision(s);
        s->decision = *head;
        s->result = b;
        return;
    case FRAME_COMMIT:
        s->committed |= current && head->ballot != 0 && head->ballot == s->decision.ballot;
        break;
    default:
        if (s->peer[from].waits < head->number)
            s->peer[from].waits = head->number;
    }
    body_release(b);
}

/* ---- a member's part --------------------------------------------------------------------------- */

static void tell_hub(socket_member *m, stream *s, int hub)
{
    frame head = stream_frame(m, s, FRAME_REPORT);

    head.signature[0] = s->signature;
    if (hub == m->rank)
        take_report(m, s, hub, &head, body_retain(s->given));
    else
        member_send(m, hub, &head, s->given);
    s->told = hub;
}

/* The outcome is known to all, or will be. */
static int hand_out(socket_member *m, stream *s)
{
    int before = s->alive_count, rc = s->decision.code;

    if (rc == SERRY_OK)
        result_hand_out(m, s);
    s->alive = s->decision.ranks;
    s->alive_count = serry_rank_set_count(&s->alive);
    s->epoch += s->alive_count != before;
    if (rc == SERRY_ERR_REVOKED)
        member_revoke(m);
    if (rc != SERRY_OK)
        failure_decided(m, s);
    if (!s->committing) /* they take this rank for the hub, and do not have the commit */
        hub_commit_to_all(m, s);
    stream_end(m, s);
    return rc;
}

static bool step(socket_member *m, stream *s)
{
    int hub = stream_hub(m);

    if (!s->committed && s->told != hub)
        tell_hub(m, s, hub);
    if (!s->committed && hub == m->rank)
        hub_work(m, s);
    return s->committed;
}

/* ---- waiting ----------------------------------------------------------------------------------- */

typedef struct patience {
    serry_interest *poll; /* NULL: it waits */
    serry_token *token;
    serry_watch watch;
    bool asked, watched;
} patience;

/* A call that is polled again keeps what the first poll has fixed. */
static void be_patient(stream *s, const serry_limit *limit)
{
    bool goes_on = limit->poll != NULL && s->polled && !limit->poll->begins;
    uint64_t now_ns = serry_token_now_ns();

    s->polled = false;
    if (goes_on)
        return;
    s->announce_ns = now_ns + PATIENCE_NS;
    s->deadline_ns =
        limit->timeout_ms < 0 ? SERRY_NO_DEADLINE : now_ns + (uint64_t)limit->timeout_ms * 1000000;
}

static void wake(void *of)
{
    mesh_wake(of);
}

/* Before the first wait: until when? */
static void ask(socket_member *m, const serry_limit *limit, patience *p)
{
    p->asked = true;
    if (limit->token == NULL)
        return;
    pthread_mutex_unlock(&m->mesh->lock);
    p->token = limit->token(limit->argument);
    if (p->token != NULL && p->poll == NULL)
        p->watched = serry_token_watch(p->token, &p->watch, wake, m->mesh) == SERRY_TOKEN_RUNNING;
    pthread_mutex_lock(&m->mesh->lock);
}

/* Returns whether it did: what was queued may be written by now. */
static bool announce(socket_member *m, stream *s, uint64_t now_ns)
{
    bool awaited = false;

    for (int r = 0; r < m->size; r++)
        awaited |= s->peer[r].waits > s->done;
    if (s->announced || (!awaited && now_ns < s->announce_ns))
        return false;
    s->announced = true;
    member_tell(m, FRAME_WAITING, s, s->done + 1);
    return true;
}

/* SERRY_OK: look again. */
static int wait_more(socket_member *m, stream *s, const patience *p)
{
    uint64_t now_ns = serry_token_now_ns(), until_ns = s->deadline_ns;

    if (p->token != NULL) {
        serry_token_status status = serry_token_state(p->token);
        uint64_t ends_ns = serry_token_deadline(p->token);
        if (status != SERRY_TOKEN_RUNNING)
            return (int)status;
        until_ns = ends_ns < until_ns ? ends_ns : until_ns;
    }
    if (now_ns >= s->deadline_ns)
        return SERRY_ERR_TIMEOUT;
    if (announce(m, s, now_ns))
        return SERRY_OK;
    if (!s->announced && s->announce_ns < until_ns)
        until_ns = s->announce_ns;
    if (p->poll != NULL) {
        mesh_nap(m->mesh, until_ns, p->poll);
        s->polled = true;
        return SERRY_ERR_AGAIN;
    }
    mesh_wait(m->mesh, until_ns);
    return SERRY_OK;
}

/* ---- a call ------------------------------------------------------------------------------------ */

static int begin(socket_member *m, stream *s, const serry_call *call)
{
    size_t bytes = result_gives(call, m->rank) ? result_given_bytes(m, call) : 0;

    if (bytes > 0) {
        s->given = body_new(bytes);
        if (s->given == NULL) {
            serry_error_begin(m->error, serry_kind_name(call->kind), s->done + 1, m->rank);
            return serry_fail(m->error, SERRY_ERR_NO_SPACE,
                              "no memory for a copy of this rank's %zu bytes", bytes);
        }
        memcpy(s->given->data, call->send, bytes);
    }
    s->call = *call;
    s->signature = serry_call_signature(call) | (uint64_t)stream_policy(m, s) << POLICY_SHIFT;
    s->told = -1;
    s->open = true;
    return SERRY_OK;
}

static bool is_same(const serry_call *a, const serry_call *b)
{
    return a->kind == b->kind && a->dtype == b->dtype && a->op == b->op && a->root == b->root &&
           a->count == b->count && a->send == b->send && a->recv == b->recv;
}

/* What ends an operation of the group from outside. */
static int interrupted(socket_member *m, stream *s)
{
    if (m->mesh->lost)
        return failure_lost(m, serry_kind_name(s->call.kind));
    if (s->which != WORK)
        return SERRY_OK;
    if (m->revoked) {
        drop(s);
        return failure_revoked(m, s);
    }
    return m->called > m->meetings ? failure_meeting(m, s) : SERRY_OK;
}

static int go_on(socket_member *m, stream *s, const serry_limit *limit)
{
    patience p = {.poll = limit->poll};
    int rc = SERRY_OK;

    be_patient(s, limit);
    while (!step(m, s)) {
        rc = interrupted(m, s);
        if (rc != SERRY_OK)
            break;
        if (!p.asked) {
            ask(m, limit, &p);
            continue;
        }
        rc = wait_more(m, s, &p);
        if (rc == SERRY_ERR_TIMEOUT)
            failure_timeout(m, s);
        else if (rc == SERRY_ERR_CANCELLED)
            failure_cancelled(m, s);
        if (rc != SERRY_OK)
            break;
    }
    if (rc == SERRY_OK)
        rc = hand_out(m, s);
    if (p.watched) { /* which may wait for the one who cancels, but that one never for the lock */
        serry_token_unwatch(p.token, &p.watch);
    }
    return rc;
}

int stream_run(socket_member *m, stream *s, const serry_call *call, const serry_limit *limit,
               serry_error *error)
{
    int rc = SERRY_OK;

    m->error = error;
    m->limit = *limit;
    mesh_pump(m->mesh);
    if (!s->open && !s->awaited)
        s->call = *call; /* for the records */
    else if (!is_same(&s->call, call))
        return m->revoked && s->which == WORK ? interrupted(m, s) : failure_pending(m, s);
    /* Who has told a meeting where it stands must not go on. */
    const stream *control = &m->stream[CONTROL];
    if (!s->open || (control->open && control->call.kind == SERRY_KIND_MEET))
        rc = interrupted(m, s);
    s->awaited = rc == SERRY_ERR_MEETING && !s->open;
    if (s->awaited)
        s->signature = serry_call_signature(call);
    if (rc == SERRY_OK && !s->open)
        rc = begin(m, s, call);
    return rc == SERRY_OK ? go_on(m, s, limit) : rc;
}
