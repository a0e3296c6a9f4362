/* socket_hub.c - the hub's part in an operation: see socket_stream.c. Nothing here waits. */
#include "socket.h"

#include <stdlib.h>

#include "flow.h"
#include "record.h"

void hub_send_commit(const socket_member *m, const stream *s, int to, uint64_t number,
                     uint64_t ballot)
{
    frame head = stream_frame(m, s, FRAME_COMMIT);

    head.number = number;
    head.ballot = ballot;
    member_send(m, to, &head, NULL);
}

/* ---- who takes part, and how it ends ----------------------------------------------------------- */

/* In a meeting, and in a shrunk group, the living are among themselves. */
static bool takes_part(const socket_member *m, const stream *s, int r)
{
    bool must_live = s->which == CONTROL && s->call.kind != SERRY_KIND_ALLREDUCE;

    return serry_rank_set_has(&s->alive, r) && s->peer[r].report.number == s->done + 1 &&
           !(must_live && m->gone[r]);
}

/* Who calls what, and is the root there? */
static void judge_calls(const socket_member *m, const stream *s, frame *d)
{
    const flow way = serry_flows[s->call.kind];
    int first = -1;

    for (int r = 0; r < m->size; r++) {
        uint64_t signature = s->peer[r].report.signature;
        if (!serry_rank_set_has(&d->ranks, r))
            continue;
        d->id |= serry_signature_kind(signature) == SERRY_KIND_MEET;
        if (first < 0) {
            first = r;
            d->who[0] = r;
            d->signature[0] = signature;
        } else if (signature != d->signature[0]) {
            serry_rank_set_add(&d->wrong, r);
            if (d->code == SERRY_OK) {
                d->code = SERRY_ERR_RANK_MISMATCH;
                d->who[1] = r;
                d->signature[1] = signature;
            }
        }
    }
    if (d->code == SERRY_OK && (way.from_root || way.to_root) &&
        !serry_rank_set_has(&d->ranks, s->call.root)) {
        d->code = SERRY_ERR_RANK_FAILED;
        serry_rank_set_add(&d->wrong, s->call.root);
    }
}

/* The outcome, from the reports; see serry_policy. */
static void judge(const socket_member *m, stream *s)
{
    frame *d = &s->decision;

    *d = stream_frame(m, s, FRAME_DECISION);
    d->ballot = (uint64_t)m->rank + 1;
    d->who[0] = d->who[1] = -1;
    for (int r = 0; r < m->size; r++)
        if (takes_part(m, s, r))
            serry_rank_set_add(&d->ranks, r);
        else if (serry_rank_set_has(&s->alive, r))
            serry_rank_set_add(&d->wrong, r);
    bool absent = serry_rank_set_count(&d->wrong) > 0;
    if (absent && stream_policy(m, s) == SERRY_REPORT)
        d->code = SERRY_ERR_RANK_FAILED;
    if (absent && stream_policy(m, s) == SERRY_REVOKE)
        d->code = SERRY_ERR_REVOKED;
    if (d->code != SERRY_OK)
        return;
    d->wrong = (serry_rank_set){{0}};
    judge_calls(m, s, d);
}

static void send_decision(socket_member *m, stream *s, int to, body *result)
{
    member_send(m, to, &s->decision, result);
    s->peer[to].queued = m->mesh->link[m->at[to]].queued;
}

static bool is_told(const socket_member *m, int r)
{
    return r != m->rank && !m->gone[r];
}

/* One result for all, or one for each rank. False: no memory; nothing was sent. */
static bool send_results(socket_member *m, stream *s)
{
    bool each = serry_flows[s->call.kind].send_n;
    body *shared = NULL, **of = calloc((size_t)m->size, sizeof(*of));
    bool enough = of != NULL;

    for (int r = 0; r < m->size && enough; r++) {
        if ((r != m->rank && !is_told(m, r)) || !result_gets(&s->call, r))
            continue;
        of[r] = shared != NULL ? body_retain(shared) : result_make(m, s, r);
        enough = of[r] != NULL;
        shared = each ? NULL : of[r];
    }
    for (int r = 0; r < m->size && enough; r++)
        if (is_told(m, r))
            send_decision(m, s, r, of[r]);
    for (int r = 0; r < m->size && of != NULL; r++)
        if (r == m->rank && enough)
            s->result = of[r];
        else
            body_release(of[r]);
    free(of);
    return enough;
}

static void decide(socket_member *m, stream *s)
{
    stream_forget_decision(s);
    judge(m, s);
    if (s->decision.code == SERRY_OK && s->call.kind == SERRY_KIND_SPLIT) {
        s->decision.id = (uint64_t)(m->mesh->rank + 1) << 40 | m->mesh->groups;
        m->mesh->groups += (uint64_t)m->size; /* one for each rank's part, at most */
    }
    if (s->decision.code == SERRY_OK && send_results(m, s))
        return;
    if (s->decision.code == SERRY_OK)
        s->decision.code = SERRY_ERR_NO_SPACE;
    for (int r = 0; r < m->size; r++)
        if (is_told(m, r))
            send_decision(m, s, r, NULL);
}

/* ---- decision and commit ----------------------------------------------------------------------- */

enum { NOT_ALL, SOME_DIFFER, ALL_HOLD };

/* What the reports say of the decision that this rank holds. */
static int count_reports(const socket_member *m, const stream *s)
{
    int all = s->decision.ballot == 0 ? SOME_DIFFER : ALL_HOLD;

    for (int r = 0; r < m->size; r++) {
        const report *said = &s->peer[r].report;
        if (said->number > s->done + 1)
            return ALL_HOLD;
        if (m->gone[r] || !serry_rank_set_has(&s->alive, r) || r == m->rank)
            continue;
        if (said->number <= s->done)
            all = NOT_ALL;
        else if (said->ballot != s->decision.ballot && all == ALL_HOLD)
            all = SOME_DIFFER;
    }
    return all;
}

static bool is_written(const socket_member *m, const stream *s)
{
    for (int r = 0; r < m->size; r++)
        if (is_told(m, r) && !mesh_has_written(m->mesh, m->at[r], s->peer[r].queued))
            return false;
    return true;
}

void hub_commit_to_all(socket_member *m, stream *s)
{
    for (int r = 0; r < m->size; r++)
        if (is_told(m, r) && s->peer[r].report.number == s->done + 1) {
            hub_send_commit(m, s, r, s->done + 1, s->decision.ballot);
            s->peer[r].queued = m->mesh->link[m->at[r]].queued;
        }
}

/* As far as it goes without waiting; sets committed. */
void hub_work(socket_member *m, stream *s)
{
    bool own = s->decision.ballot == (uint64_t)m->rank + 1;

    if (!own && !s->committing) {
        int reports = count_reports(m, s);
        if (reports == NOT_ALL)
            return;
        if (reports == ALL_HOLD && s->decision.ballot == 0) {
            mesh_lose(m->mesh); /* it cannot be */
            return;
        }
        if (reports == SOME_DIFFER)
            decide(m, s);
        own = reports == SOME_DIFFER;
    }
    if (!s->committing && (!own || is_written(m, s))) {
        s->committing = true;
        hub_commit_to_all(m, s);
    }
    s->committed = s->committing && is_written(m, s);
}
