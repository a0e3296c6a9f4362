/* failure.c - what an operation tells when it ends without a result: the records, in words. */
#include <stdio.h>

#include "operation.h"
#include "record.h"
#include "word.h"
#include "writes.h"

#define COLD __attribute__((cold, noinline))

static COLD void describe(uint64_t signature, char *text, size_t size)
{
    static const char *const policies[SERRY_POLICIES] = {
        "", " under policy exclude", " under policy revoke", " under policy wait"};
    char call[96];

    serry_signature_describe(signature & ~(UINT64_C(3) << OPERATION_POLICY_SHIFT), call,
                             sizeof(call));
    snprintf(text, size, "%s%s", call, policies[signature >> OPERATION_POLICY_SHIFT]);
}

COLD void operation_error(shm_member *m)
{
    serry_error_begin(m->error, serry_kind_name(m->call.kind), m->operations + 1, m->group.rank);
}

static COLD void blame(shm_member *m, int rank)
{
    if (m->error->peer < 0)
        m->error->peer = rank;
    serry_rank_set_add(&m->error->ranks, rank);
}

static COLD unsigned pid_of(const shm_member *m, int rank)
{
    return m->group.arena->slots[m->group.header->slot[rank]].pid;
}

COLD int operation_fail_excluded(shm_member *m)
{
    m->excluded = true;
    operation_error(m);
    return serry_fail(
        m->error, SERRY_ERR_EXCLUDED,
        "the other ranks went on without rank %d, which was taken for failed; nothing "
        "was handed out",
        m->group.rank);
}

COLD int operation_fail_revoked(shm_member *m)
{
    operation_error(m);
    return serry_fail(m->error, SERRY_ERR_REVOKED,
                      "the communicator was revoked; only shrink, agree, get_failed and finalize "
                      "work on it");
}

COLD int operation_fail_absent(shm_member *m)
{
    char call[128], ranks[128];

    operation_error(m);
    for (int r = 0; r < m->group.size; r++)
        if (serry_rank_set_has(&m->absent, r))
            blame(m, r);
    operation_forget_absent(m);
    describe(m->signature, call, sizeof(call));
    return serry_fail(m->error, SERRY_ERR_RANK_FAILED,
                      "rank %s left or failed before %s; nothing was done, and the next operation "
                      "goes on among the other %d ranks",
                      serry_rank_set_text(&m->error->ranks, ranks, sizeof(ranks)), call,
                      m->alive_count);
}

static bool is_meet(uint64_t signature)
{
    return serry_signature_kind(signature) == SERRY_KIND_MEET;
}

COLD int operation_fail_mismatch(shm_member *m)
{
    char first[128], other[128];
    int a = m->alive[0], b = -1;
    uint64_t signature[2] = {group_cell_of(&m->group, a)->signature[m->step & 1], 0};

    operation_error(m);
    m->met = is_meet(signature[0]);
    for (int i = 1; i < m->alive_count; i++) {
        uint64_t s = group_cell_of(&m->group, m->alive[i])->signature[m->step & 1];
        if (s == signature[0])
            continue;
        blame(m, m->alive[i]);
        m->met |= is_meet(s);
        if (b < 0) {
            b = m->alive[i];
            signature[1] = s;
        }
    }
    if (!word_second_look(&m->own->word) || b < 0)
        return operation_fail_excluded(m);
    describe(signature[0], first, sizeof(first));
    describe(signature[1], other, sizeof(other));
    return serry_fail(m->error, SERRY_ERR_RANK_MISMATCH,
                      "rank %d called %s, but rank %d called %s; nothing was done", a, first, b,
                      other);
}

COLD int operation_fail_root(shm_member *m)
{
    char call[128];

    if (!word_second_look(&m->own->word))
        return operation_fail_excluded(m);
    operation_error(m);
    blame(m, m->call.root);
    describe(m->signature, call, sizeof(call));
    return serry_fail(m->error, SERRY_ERR_RANK_FAILED,
                      "rank %d, the root of %s, has left or failed; nothing was done", m->call.root,
                      call);
}

/* " within 100 ms", or nothing where a token alone has set the time. */
static const char *limit_text(const shm_member *m, char text[32])
{
    text[0] = '\0';
    if (m->limit.given->timeout_ms >= 0)
        snprintf(text, 32, " within %d ms", m->limit.given->timeout_ms);
    return text;
}

COLD int operation_fail_timeout(shm_member *m)
{
    char call[128], ranks[128], limit[32];

    operation_error(m);
    for (int i = 0; i < m->alive_count; i++) {
        int r = m->alive[i];
        uint64_t word =
            atomic_load_explicit(&group_cell_of(&m->group, r)->word, memory_order_acquire);
        if (!word_decided(word, m->step) || writes_now(m, r))
            blame(m, r);
    }
    describe(m->signature, call, sizeof(call));
    if (m->dropped)
        return serry_fail(m->error, SERRY_ERR_TIMEOUT,
                          "no replacement has come to %s%s; the same call again goes on waiting",
                          call, limit_text(m, limit));
    if (m->error->peer < 0)
        return serry_fail(m->error, SERRY_ERR_TIMEOUT,
                          "%s did not complete%s, though all ranks have come by now; the same call "
                          "again completes it",
                          call, limit_text(m, limit));
    return serry_fail(
        m->error, SERRY_ERR_TIMEOUT,
        "rank %s did not come to %s%s (rank %d is process %u); the operation stays open, and the "
        "same call again goes on waiting",
        serry_rank_set_text(&m->error->ranks, ranks, sizeof(ranks)), call, limit_text(m, limit),
        m->error->peer, pid_of(m, m->error->peer));
}

COLD int operation_fail_pending(shm_member *m)
{
    char call[128];

    operation_error(m);
    describe(m->signature, call, sizeof(call));
    return serry_fail(m->error, SERRY_ERR_PENDING,
                      "an earlier %s is still open; repeat that call, with the same buffers, until "
                      "it ends",
                      call);
}

COLD int operation_fail_cancelled(shm_member *m)
{
    char call[128];

    operation_error(m);
    describe(m->signature, call, sizeof(call));
    return serry_fail(
        m->error, SERRY_ERR_CANCELLED,
        "%s was cancelled while it waited; it stays open, and the same call again goes "
        "on waiting",
        call);
}

COLD int operation_fail_meeting(shm_member *m)
{
    operation_error(m);
    return serry_fail(m->error, SERRY_ERR_MEETING, "a rank calls all ranks to meet");
}

COLD int operation_fail_joined(shm_member *m)
{
    char ranks[128];

    operation_error(m);
    m->error->operation_id = m->operations;
    for (int r = 0; r < m->group.size; r++)
        if (serry_rank_set_has(&m->joined, r))
            blame(m, r);
    return serry_fail(
        m->error, SERRY_ERR_RANK_JOINED,
        "a replacement of rank %s has joined; nothing was done, and the next operation "
        "is one with it",
        serry_rank_set_text(&m->joined, ranks, sizeof(ranks)));
}
