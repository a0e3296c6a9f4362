/* operation.c - see operation.h. docs/protocol.md walks through one call with pictures. */
#include "operation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "record.h"
#include "reduce/reduce.h"
#include "word.h"

static const flow flows[SERRY_KINDS] = {
    [SERRY_KIND_BARRIER] = {.combine = false},
    [SERRY_KIND_BROADCAST] = {.from_root = true},
    [SERRY_KIND_REDUCE] = {.combine = true, .to_root = true},
    [SERRY_KIND_ALLREDUCE] = {.combine = true},
    [SERRY_KIND_ALLGATHER] = {.recv_n = true},
    [SERRY_KIND_REDUCE_SCATTER] = {.combine = true, .send_n = true},
    [SERRY_KIND_GATHER] = {.to_root = true, .recv_n = true},
    [SERRY_KIND_SCATTER] = {.from_root = true, .send_n = true},
    [SERRY_KIND_ALLTOALL] = {.send_n = true, .recv_n = true},
    [SERRY_KIND_SPLIT] = {.recv_n = true},
};

/* ---- membership ------------------------------------------------------------------------------ */

int operation_setup(shm_member *m, serry_error *error)
{
    m->own = group_cell_of(&m->group, m->group.rank);
    m->scratch = malloc((size_t)m->group.size * m->group.small_bytes);
    if (m->scratch == NULL)
        return serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory for a communicator");
    m->alive_count = m->group.size;
    for (int r = 0; r < m->group.size; r++) {
        m->alive[r] = (uint16_t)r;
        serry_rank_set_add(&m->alive_set, r);
    }
    return SERRY_OK;
}

void operation_cleanup(shm_member *m)
{
    staging_trim(m);
    free(m->scratch);
}

/* From now on the absent count as failed. They are the same on all ranks, at the same operation. */
static void forget_absent(shm_member *m)
{
    int kept = 0;

    for (int i = 0; i < m->alive_count; i++) {
        int r = m->alive[i];
        if (serry_rank_set_has(&m->absent, r))
            m->alive_set.bits[r / 64] &= ~(UINT64_C(1) << (r % 64));
        else
            m->alive[kept++] = (uint16_t)r;
    }
    m->alive_count = kept;
}

/* ---- errors: off the way ---------------------------------------------------------------------- */

#define COLD __attribute__((cold, noinline))

/* The policy rides in the top bits of the signature, above the count. */
enum { POLICY_SHIFT = 62 };

static COLD void describe(uint64_t signature, char *text, size_t size)
{
    static const char *const policies[4] = {"", " under policy exclude", " under policy revoke",
                                            ""};
    char call[96];

    serry_signature_describe(signature & ~(UINT64_C(3) << POLICY_SHIFT), call, sizeof(call));
    snprintf(text, size, "%s%s", call, policies[signature >> POLICY_SHIFT]);
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

static COLD int fail_revoked(shm_member *m)
{
    operation_error(m);
    return serry_fail(m->error, SERRY_ERR_REVOKED,
                      "the communicator was revoked; only shrink, agree, get_failed and finalize "
                      "work on it");
}

static COLD int fail_absent(shm_member *m)
{
    char call[128], ranks[128];

    operation_error(m);
    for (int r = 0; r < m->group.size; r++)
        if (serry_rank_set_has(&m->absent, r))
            blame(m, r);
    forget_absent(m);
    describe(m->signature, call, sizeof(call));
    return serry_fail(m->error, SERRY_ERR_RANK_FAILED,
                      "rank %s left or failed before %s; nothing was done, and the next operation "
                      "goes on among the other %d ranks",
                      serry_rank_set_text(&m->error->ranks, ranks, sizeof(ranks)), call,
                      m->alive_count);
}

COLD int operation_without_absent(shm_member *m)
{
    if (!word_second_look(&m->own->word))
        return operation_fail_excluded(m);
    switch (m->policy) {
    case SERRY_EXCLUDE:
        forget_absent(m);
        m->algorithm = choose_first(m);
        return OPERATION_GOES_ON;
    case SERRY_REVOKE:
        group_revoke(&m->group);
        return fail_revoked(m);
    case SERRY_REPORT:
    default:
        return fail_absent(m);
    }
}

static COLD int fail_mismatch(shm_member *m)
{
    char first[128], other[128];
    int a = m->alive[0], b = -1;
    uint64_t signature[2] = {group_cell_of(&m->group, a)->signature[m->step & 1], 0};

    operation_error(m);
    for (int i = 1; i < m->alive_count; i++) {
        uint64_t s = group_cell_of(&m->group, m->alive[i])->signature[m->step & 1];
        if (s == signature[0])
            continue;
        blame(m, m->alive[i]);
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

static COLD int fail_root(shm_member *m)
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

static COLD int fail_timeout(shm_member *m)
{
    char call[128], ranks[128];

    operation_error(m);
    for (int i = 0; i < m->alive_count; i++) {
        int r = m->alive[i];
        uint64_t word =
            atomic_load_explicit(&group_cell_of(&m->group, r)->word, memory_order_acquire);
        if (!word_decided(word, m->step))
            blame(m, r);
    }
    describe(m->signature, call, sizeof(call));
    if (m->error->peer < 0)
        return serry_fail(m->error, SERRY_ERR_TIMEOUT,
                          "%s took longer than %d ms, though all ranks have come by now; the same "
                          "call again completes it",
                          call, m->limit.timeout_ms);
    return serry_fail(
        m->error, SERRY_ERR_TIMEOUT,
        "rank %s did not come to %s within %d ms (rank %d is process %u); the operation "
        "stays open, and the same call again goes on waiting",
        serry_rank_set_text(&m->error->ranks, ranks, sizeof(ranks)), call, m->limit.timeout_ms,
        m->error->peer, pid_of(m, m->error->peer));
}

static COLD int fail_pending(shm_member *m)
{
    char call[128];

    operation_error(m);
    describe(m->signature, call, sizeof(call));
    return serry_fail(m->error, SERRY_ERR_PENDING,
                      "an earlier %s is still open; repeat that call, with the same buffers, until "
                      "it ends",
                      call);
}

/* ---- steps ------------------------------------------------------------------------------------ */

static int publish(shm_member *m)
{
    word_result result = word_publish(&m->own->word, m->step + 1);

    if (__builtin_expect(result == WORD_IS_SEALED, 0))
        return operation_fail_excluded(m);
    m->step++;
    if (__builtin_expect(result == WORD_PUBLISHED_WAKE, 0))
        wait_wake(&m->own->word);
    return SERRY_OK;
}

/* Wait until the step is decided for rank r, which has not reached it yet. */
static COLD int decide_slowly(shm_member *m, int r)
{
    _Atomic uint64_t *word = &group_cell_of(&m->group, r)->word;
    wait_target target = {word, m->step, &m->own->word,
                          m->control != NULL ? &m->group.header->revoked : NULL};
    int rc = wait_decided(&target, &m->plan, &m->limit);

    if (rc == SERRY_ERR_TIMEOUT)
        return fail_timeout(m);
    if (rc == SERRY_ERR_EXCLUDED)
        return operation_fail_excluded(m);
    if (rc == SERRY_ERR_REVOKED)
        return fail_revoked(m);
    if (!word_reached(atomic_load_explicit(word, memory_order_acquire), m->step)) {
        serry_rank_set_add(&m->absent, r);
        m->absent_count++;
    }
    return SERRY_OK;
}

static int decide(shm_member *m)
{
    if (__builtin_expect(m->absent_count != 0, 0)) {
        m->absent = (serry_rank_set){{0}};
        m->absent_count = 0;
    }
    for (int i = 0; i < m->alive_count; i++) {
        int r = m->alive[i];
        const _Atomic uint64_t *word = &group_cell_of(&m->group, r)->word;
        if (word_reached(atomic_load_explicit(word, memory_order_acquire), m->step))
            continue;
        int rc = decide_slowly(m, r);
        if (rc != SERRY_OK)
            return rc;
    }
    return SERRY_OK;
}

int operation_judge(shm_member *m)
{
    bool same = true;

    if (__builtin_expect(m->absent_count != 0, 0)) {
        if (m->policy != SERRY_EXCLUDE)
            return operation_without_absent(m);
        forget_absent(m);
    }
    for (int i = 0; i < m->alive_count; i++)
        same &= group_cell_of(&m->group, m->alive[i])->signature[m->step & 1] == m->signature;
    if (__builtin_expect(!same, 0))
        return fail_mismatch(m);
    if ((m->flow.from_root || m->flow.to_root) &&
        __builtin_expect(!serry_rank_set_has(&m->alive_set, m->call.root), 0))
        return fail_root(m);
    return SERRY_OK;
}

/* From wherever the operation stands to its end, or to a timeout, after which it stands there. */
static int drive(shm_member *m)
{
    int rc;

    do {
        if (!m->published) {
            m->algorithm->work(m);
            rc = publish(m);
            if (rc != SERRY_OK)
                break;
            m->published = true;
        }
        rc = decide(m);
        if (rc == SERRY_ERR_TIMEOUT)
            return rc;
        m->published = false;
        if (rc == SERRY_OK)
            rc = m->algorithm->decided(m);
    } while (rc == OPERATION_GOES_ON);
    m->open = false;
    m->operations++;
    return rc;
}

static int begin(shm_member *m, const serry_call *call)
{
    m->call = *call;
    m->flow = flows[call->kind];
    m->signature = serry_call_signature(call) | (uint64_t)m->policy << POLICY_SHIFT;
    m->element = serry_dtype_size(call->dtype);
    m->algorithm = choose_first(m);
    if (m->algorithm != &algorithm_small) {
        int rc = staging_reserve(m, operation_result_bytes(m));
        if (rc != SERRY_OK)
            return rc;
    }
    m->published = false;
    m->open = true;
    return SERRY_OK;
}

static bool is_same(const serry_call *a, const serry_call *b)
{
    return a->kind == b->kind && a->dtype == b->dtype && a->op == b->op && a->root == b->root &&
           a->count == b->count && a->send == b->send && a->recv == b->recv;
}

int operation_run(shm_member *m, const serry_call *call, serry_error *error)
{
    m->error = error;
    if (__builtin_expect(group_is_revoked(&m->group), 0)) {
        m->open = false;
        return fail_revoked(m);
    }
    if (__builtin_expect(m->open || m->excluded, 0)) {
        if (m->excluded)
            return operation_fail_excluded(m);
        if (!is_same(&m->call, call))
            return fail_pending(m);
    } else {
        int rc = begin(m, call);
        if (rc != SERRY_OK)
            return rc;
    }
    return drive(m);
}

/* ---- data ------------------------------------------------------------------------------------- */

size_t operation_result_bytes(const shm_member *m)
{
    size_t blocks = m->flow.recv_n ? (size_t)m->group.size : 1;

    return operation_gets(m) ? blocks * m->call.count * m->element : 0;
}

void operation_slice(const shm_member *m, size_t length, int index, int count, size_t *first,
                     size_t *elements)
{
    size_t line = SHM_LINE / m->element;
    size_t share = (length + (size_t)count - 1) / (size_t)count;

    share = (share + line - 1) / line * line;
    *first = (size_t)index * share < length ? (size_t)index * share : length;
    *elements = length - *first < share ? length - *first : share;
}

static void combine(shm_member *m, unsigned char *dest, size_t block, size_t count)
{
    const void *vector[SERRY_MAX_RANKS];

    for (int i = 0; i < m->alive_count; i++)
        vector[i] = m->source[m->alive[i]] + block * m->stride[m->alive[i]];
    serry_reduce_vectors(dest, vector, m->alive_count, count, m->call.dtype, m->call.op);
}

void operation_pull(shm_member *m, unsigned char *dest, size_t dest_stride, size_t count)
{
    size_t block = m->flow.send_n ? (size_t)m->group.rank : 0, bytes = count * m->element;

    if (!operation_gets(m) || count == 0)
        return;
    if (m->flow.combine) {
        combine(m, dest, block, count);
        return;
    }
    for (int i = 0; i < m->alive_count; i++) {
        int r = m->alive[i];
        if (m->flow.from_root && r != m->call.root)
            continue;
        unsigned char *to = dest + (m->flow.recv_n ? (size_t)r * dest_stride : 0);
        const unsigned char *from = m->source[r] + block * m->stride[r];
        if (to != from) /* this rank's own block, in place */
            memcpy(to, from, bytes);
    }
}

void operation_commit(shm_member *m, const unsigned char *from)
{
    size_t bytes = m->call.count * m->element;
    unsigned char *recv = m->call.recv;

    if (!operation_gets(m) || bytes == 0)
        return;
    if (!m->flow.recv_n) {
        memcpy(recv, from, bytes);
        return;
    }
    for (int i = 0; i < m->alive_count; i++)
        memcpy(recv + m->alive[i] * bytes, from + m->alive[i] * bytes, bytes);
}
