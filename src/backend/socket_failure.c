/* socket_failure.c - what an operation tells when it ends without a result; see socket.h. */
#include <stdio.h>

#include "record.h"
#include "socket.h"

static void describe(uint64_t signature, char *text, size_t size)
{
    static const char *const policies[SERRY_POLICIES] = {
        "", " under policy exclude", " under policy revoke", " under policy wait"};
    char call[96];

    serry_signature_describe(signature & ~(UINT64_C(3) << POLICY_SHIFT), call, sizeof(call));
    snprintf(text, size, "%s%s", call, policies[signature >> POLICY_SHIFT]);
}

static void start(socket_member *m, const stream *s, char *text, size_t size)
{
    serry_error_begin(m->error, serry_kind_name(s->call.kind), s->done + 1, m->rank);
    describe(s->signature, text, size);
}

static void blame(socket_member *m, int rank)
{
    if (m->error->peer < 0)
        m->error->peer = rank;
    serry_rank_set_add(&m->error->ranks, rank);
}

int failure_lost(socket_member *m, const char *operation)
{
    serry_error_begin(m->error, operation, 0, m->rank);
    return serry_fail(m->error, SERRY_ERR_EXCLUDED,
                      "rank %d has cut its connections, for want of memory or because its thread "
                      "has ended; to the others it has failed",
                      m->rank);
}

int failure_revoked_at(socket_member *m, const char *operation, uint64_t number)
{
    serry_error_begin(m->error, operation, number, m->rank);
    return serry_fail(m->error, SERRY_ERR_REVOKED,
                      "the communicator was revoked; only shrink, agree, get_failed and finalize "
                      "work on it");
}

int failure_revoked(socket_member *m, const stream *s)
{
    return failure_revoked_at(m, serry_kind_name(s->call.kind), s->done + 1);
}

int failure_ended(socket_member *m, const char *operation, int peer)
{
    serry_error_begin(m->error, operation, 0, m->rank);
    blame(m, peer);
    return serry_fail(m->error, SERRY_ERR_RANK_FAILED, "%s: rank %d has left or failed", operation,
                      peer);
}

int failure_meeting(socket_member *m, const stream *s)
{
    serry_error_begin(m->error, serry_kind_name(s->call.kind), s->done + 1, m->rank);
    return serry_fail(m->error, SERRY_ERR_MEETING, "a rank calls all ranks to meet");
}

int failure_pending(socket_member *m, const stream *s)
{
    char call[128];

    start(m, s, call, sizeof(call));
    return serry_fail(m->error, SERRY_ERR_PENDING,
                      "an earlier %s is still open; repeat that call, with the same buffers, until "
                      "it ends",
                      call);
}

int failure_cancelled(socket_member *m, const stream *s)
{
    char call[128];

    start(m, s, call, sizeof(call));
    return serry_fail(m->error, SERRY_ERR_CANCELLED,
                      "%s was cancelled while it waited; it stays open, and the same call again "
                      "goes on waiting",
                      call);
}

int failure_timeout(socket_member *m, const stream *s)
{
    char call[128], ranks[128];

    start(m, s, call, sizeof(call));
    for (int r = 0; r < m->size; r++) {
        const struct stream_peer *peer = &s->peer[r];
        if (r != m->rank && !m->gone[r] && serry_rank_set_has(&s->alive, r) &&
            peer->report.number <= s->done && peer->waits <= s->done)
            blame(m, r);
    }
    if (m->error->peer < 0)
        return serry_fail(m->error, SERRY_ERR_TIMEOUT,
                          "%s took longer than %d ms, though all ranks have come by now; the same "
                          "call again completes it",
                          call, m->limit.timeout_ms);
    return serry_fail(m->error, SERRY_ERR_TIMEOUT,
                      "rank %s did not come to %s within %d ms; the operation stays open, and the "
                      "same call again goes on waiting",
                      serry_rank_set_text(&m->error->ranks, ranks, sizeof(ranks)), call,
                      m->limit.timeout_ms);
}

static int decided_mismatch(socket_member *m, const frame *d)
{
    char first[128], other[128];

    describe(d->signature[0], first, sizeof(first));
    describe(d->signature[1], other, sizeof(other));
    return serry_fail(m->error, SERRY_ERR_RANK_MISMATCH,
                      "rank %d called %s, but rank %d called %s; nothing was done", d->who[0],
                      first, d->who[1], other);
}

int failure_decided(socket_member *m, const stream *s)
{
    const frame *d = &s->decision;
    char call[128], ranks[128];

    start(m, s, call, sizeof(call));
    for (int r = 0; r < m->size && d->code != SERRY_ERR_REVOKED; r++)
        if (serry_rank_set_has(&d->wrong, r))
            blame(m, r);
    switch (d->code) {
    case SERRY_ERR_REVOKED:
        return failure_revoked(m, s);
    case SERRY_ERR_RANK_MISMATCH:
        return decided_mismatch(m, d);
    case SERRY_ERR_RANK_FAILED:
        return serry_fail(m->error, SERRY_ERR_RANK_FAILED,
                          "rank %s left or failed before %s; nothing was done, and the next "
                          "operation goes on among the other %d ranks",
                          serry_rank_set_text(&m->error->ranks, ranks, sizeof(ranks)), call,
                          s->alive_count);
    default:
        return serry_fail(m->error, d->code, "the rank that combines has no memory for %s", call);
    }
}
