/* operation.c - see operation.h. docs/protocol.md walks through one call with pictures. */
#include "operation.h"

#include <stdlib.h>
#include <string.h>

#include "lines.h"
#include "record.h"
#include "reduce/reduce.h"
#include "word.h"
#include "writes.h"

#define COLD __attribute__((cold, noinline))

/* ---- membership ------------------------------------------------------------------------------ */

void operation_enter_group(shm_member *m)
{
    const group_header *header = m->group.header;

    m->own = group_cell_of(&m->group, m->group.rank);
    writes_init(m);
    m->step = 0;
    m->operations = header->operations;
    m->open = m->published = m->passed = m->dropped = false;
    m->absent = (serry_rank_set){{0}};
    m->absent_count = 0;
    m->rare = 0;
    m->seen = SEEN_UNKNOWN;
    m->alive_count = 0;
    m->alive_set = header->present;
    for (int r = 0; r < m->group.size; r++)
        if (serry_rank_set_has(&header->present, r))
            m->alive[m->alive_count++] = (uint16_t)r;
    levels_plan(m);
}

int operation_setup(shm_member *m, serry_error *error)
{
    operation_enter_group(m);
    m->scratch = malloc((size_t)m->group.size * m->group.small_bytes);
    if (m->scratch == NULL)
        return serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory for a communicator");
    return SERRY_OK;
}

void operation_cleanup(shm_member *m)
{
    staging_trim(m);
    batch_free(m);
    free(m->scratch);
}

/* From now on the absent count as failed. They are the same on all ranks, at the same operation. */
COLD void operation_forget_absent(shm_member *m)
{
    int kept = 0;

    for (int i = 0; i < m->alive_count; i++) {
        int r = m->alive[i];
        if (serry_rank_set_has(&m->absent, r)) {
            m->alive_set.bits[r / 64] &= ~(UINT64_C(1) << (r % 64));
            room_lose(m, r);
        } else
            m->alive[kept++] = (uint16_t)r;
    }
    m->epoch += m->alive_count != kept;
    m->alive_count = kept;
    levels_plan(m);
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

static COLD int fail_wait(shm_member *m, int code)
{
    switch (code) {
    case SERRY_ERR_EXCLUDED:
        return operation_fail_excluded(m);
    case SERRY_ERR_REVOKED:
        return operation_fail_revoked(m);
    case SERRY_ERR_MEETING:
        return operation_fail_meeting(m);
    case SERRY_ERR_CANCELLED:
        return operation_fail_cancelled(m);
    case SERRY_ERR_AGAIN:
        return code;
    default:
        return operation_fail_timeout(m);
    }
}

int operation_await(shm_member *m, int r)
{
    _Atomic uint64_t *word = &group_cell_of(&m->group, r)->word;
    wait_target target = {word, m->step, &m->own->word, &m->group.header->call, m->hears};

    atomic_store_explicit(&m->own->operation, m->operations + 1, memory_order_relaxed);
    m->waited = true;
    wait_plan plan = m->algorithm == &algorithm_slices ? slices_plan(m) : m->plan;
    int rc = wait_decided(&target, &plan, &m->limit);
    bool missing =
        rc == SERRY_OK && !word_reached(atomic_load_explicit(word, memory_order_acquire), m->step);

    if (missing)
        rc = writes_await(m, r);
    if (rc != SERRY_OK)
        return fail_wait(m, rc);
    if (missing) {
        serry_rank_set_add(&m->absent, r);
        m->absent_count++;
        m->rare |= RARE_ABSENT;
    }
    return SERRY_OK;
}

COLD int operation_decide(shm_member *m, int r)
{
    const _Atomic uint64_t *word = &group_cell_of(&m->group, r)->word;

    lines_read(m, r, 1);
    if (word_reached(atomic_load_explicit(word, memory_order_acquire), m->step))
        return SERRY_OK;
    return operation_await(m, r);
}

/* What comes first where m->rare says so. OPERATION_GOES_ON: the words are still to be looked at. */
static COLD int decide_rarely(shm_member *m)
{
    m->absent = (serry_rank_set){{0}};
    m->absent_count = 0;
    m->rare &= ~(unsigned)RARE_ABSENT;
    return m->rare & RARE_LEVELS ? levels_decide(m) : OPERATION_GOES_ON;
}

static int decide(shm_member *m)
{
    if (__builtin_expect(m->rare != 0, 0)) {
        int rc = decide_rarely(m);
        if (rc != OPERATION_GOES_ON)
            return rc;
    }
    for (int i = 0; i < m->alive_count; i++) {
        int r = m->alive[i];
        const _Atomic uint64_t *word = &group_cell_of(&m->group, r)->word;
        lines_read(m, r, 1);
        if (word_reached(atomic_load_explicit(word, memory_order_acquire), m->step))
            continue;
        int rc = operation_await(m, r);
        if (rc != SERRY_OK)
            return rc;
    }
    return SERRY_OK;
}

int operation_judge(shm_member *m)
{
    if (__builtin_expect(m->absent_count != 0, 0)) {
        if (m->policy != SERRY_EXCLUDE)
            return operation_without_absent(m);
        operation_forget_absent(m);
    }
    if (__builtin_expect(!operation_is_alike(m), 0))
        return operation_fail_mismatch(m);
    if (__builtin_expect(!operation_has_root(m), 0))
        return operation_fail_root(m);
    return SERRY_OK;
}

/* A replacement calls a meeting, so that is what is waited for; the own word never gets to the next
 * step meanwhile. */
static COLD int wait_for_replacement(shm_member *m)
{
    m->deaf = false;
    m->hears = GROUP_CALL_MEETING;
    wait_target target = {&m->own->word, m->step + 1, &m->own->word, &m->group.header->call,
                          m->hears};
    int rc = wait_decided(&target, &m->plan, &m->limit);

    return fail_wait(m, rc == SERRY_OK ? SERRY_ERR_EXCLUDED : rc);
}

COLD int operation_without_absent(shm_member *m)
{
    if (!word_second_look(&m->own->word))
        return operation_fail_excluded(m);
    switch (m->policy) {
    case SERRY_EXCLUDE:
        operation_forget_absent(m);
        m->algorithm = choose_first(m);
        return OPERATION_GOES_ON;
    case SERRY_REVOKE:
        group_call_all(&m->group, GROUP_CALL_REVOKED);
        return operation_fail_revoked(m);
    case SERRY_WAIT:
        m->dropped = true;
        return wait_for_replacement(m);
    case SERRY_REPORT:
    default:
        return operation_fail_absent(m);
    }
}

int operation_handed_out(shm_member *m)
{
    if (!word_second_look(&m->own->word))
        return operation_fail_excluded(m);
    if (__builtin_expect(group_called(&m->group) == GROUP_CALL_REVOKED, 0))
        return operation_fail_revoked(m);
    return OPERATION_DONE;
}

/* After these the operation is open: the same call goes on with it. */
static bool is_pause(int rc)
{
    return !wait_is_over(rc) || rc == SERRY_ERR_MEETING;
}

COLD int operation_leave(shm_member *m)
{
    int rc = m->open && m->lent ? writes_await_all(m) : SERRY_OK;

    return rc == SERRY_OK ? rc : fail_wait(m, rc);
}

/* It ends with this, or, while others may be writing into its result, does not end yet. */
static COLD int end_early(shm_member *m, int rc)
{
    int still = rc == SERRY_ERR_EXCLUDED || rc == SERRY_ERR_REVOKED ? operation_leave(m) : SERRY_OK;

    return still == SERRY_OK ? rc : still;
}

COLD int operation_stop(shm_member *m, int rc)
{
    if (is_pause(rc))
        return rc;
    m->published = false;
    rc = end_early(m, rc);
    return is_pause(rc) ? rc : operation_end(m, rc);
}

int operation_go_on(shm_member *m)
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
        if (__builtin_expect(rc != SERRY_OK, 0) && is_pause(rc))
            return rc;
        m->published = false;
        m->passed = true;
        if (rc == SERRY_OK)
            rc = m->algorithm->decided(m);
    } while (rc == OPERATION_GOES_ON);
    if (__builtin_expect(rc != OPERATION_DONE, 0))
        return operation_stop(m, rc);
    return operation_end(m, rc);
}

/* How a large call moves its data. */
static void weigh(shm_member *m)
{
    size_t given = operation_input_bytes(m), got = operation_result_bytes(m);
    size_t bytes = given > got ? given : got;

    m->streams = bytes >= COPY_STREAM_BYTES || m->past_caches;
    m->team = 1;
    if (bytes >= TEAM_OPERATION_BYTES)
        m->team = atomic_load_explicit(&m->group.arena->team, memory_order_relaxed);
    m->heavy = m->streams || m->team > 1;
}

static int begin(shm_member *m, const serry_call *call)
{
    m->call = *call;
    m->flow = serry_flows[call->kind];
    m->signature = operation_signature(m, call);
    m->element = serry_dtype_size(call->dtype);
    m->passed = m->lent = m->waited = false;
    m->algorithm = choose_first(m);
    if (m->algorithm != &algorithm_small) {
        int rc = staging_reserve(m, operation_result_bytes(m));
        if (rc != SERRY_OK)
            return rc;
        weigh(m);
        choose_room(m);
    }
    m->published = false;
    m->open = true;
    return SERRY_OK;
}

bool operation_is_same(const serry_call *a, const serry_call *b)
{
    return a->kind == b->kind && a->dtype == b->dtype && a->op == b->op && a->root == b->root &&
           a->count == b->count && a->list == b->list && a->send == b->send && a->recv == b->recv;
}

/* The call comes first when the meeting is over, or when somebody goes on with it: no other one before. */
static void await_meeting(shm_member *m, const serry_call *call)
{
    if (m->open)
        return;
    m->call = *call;
    m->signature = operation_signature(m, call);
    m->news |= NEWS_AWAITED;
}

/* Somebody calls, or the operation is open, or there is something to do first. OPERATION_GOES_ON: as
 * usual, then. */
static COLD int look_around(shm_member *m, const serry_call *call)
{
    bool revoked =
        group_called(&m->group) >= m->hears && group_called(&m->group) == GROUP_CALL_REVOKED;

    if (m->excluded || revoked) {
        int rc = end_early(m, m->excluded ? operation_fail_excluded(m) : operation_fail_revoked(m));
        if (!is_pause(rc))
            m->open = m->dropped = false;
        return rc;
    }
    if ((m->open || m->news & NEWS_AWAITED) && !operation_is_same(&m->call, call))
        return operation_fail_pending(m);
    m->news &= ~(unsigned)NEWS_AWAITED;
    if (m->news & NEWS_AHEAD)
        return batch_hand_out_ahead(m, call);
    if (m->news) { /* before the next meeting */
        m->news = 0;
        m->call = *call;
        if (m->policy == SERRY_REPORT)
            return operation_fail_joined(m); /* it has been counted already */
    }
    if (group_called(&m->group) >= m->hears) {
        await_meeting(m, call);
        return operation_fail_meeting(m);
    }
    if (m->dropped) /* under SERRY_WAIT, and nobody has come yet */
        return wait_for_replacement(m);
    return OPERATION_GOES_ON;
}

/* The call that is open goes on, with nobody calling and nothing to do first. */
static bool goes_on(const shm_member *m, const serry_call *call)
{
    return group_called(&m->group) < m->hears && m->open && !m->excluded && !m->dropped &&
           m->news == 0 && operation_is_same(&m->call, call);
}

int operation_run_any(shm_member *m, const serry_call *call)
{
    if (goes_on(m, call))
        return operation_go_on(m);
    int rc = operation_is_usual(m) ? OPERATION_GOES_ON : look_around(m, call);
    if (rc != OPERATION_GOES_ON)
        return rc;
    if (!m->open && (rc = begin(m, call)) != SERRY_OK)
        return rc;
    return operation_go_on(m);
}

int operation_run_many(shm_member *m, const serry_call *const *calls, int count, int *done,
                       serry_error *error)
{
    int rc = OPERATION_GOES_ON;

    m->error = error;
    *done = 0;
    if (!operation_is_usual(m) && (rc = look_around(m, calls[0])) != OPERATION_GOES_ON) {
        *done = rc == SERRY_OK;
        return rc;
    }
    if (!m->open) {
        rc = begin(m, calls[0]);
        if (rc != SERRY_OK)
            return rc;
        batch_begin(m, calls + 1, count - 1);
    }
    batch_attend(m, calls + 1, count - 1);
    rc = operation_go_on(m);
    *done = batch_done(m) + 1;
    if (rc != SERRY_OK)
        *done = 0;
    return rc;
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

static void find_blocks(const shm_member *m, size_t block, const void **vector)
{
    for (int i = 0; i < m->alive_count; i++)
        vector[i] = m->source[m->alive[i]] + block * m->stride[m->alive[i]];
}

static void combine(shm_member *m, unsigned char *dest, size_t block, size_t count)
{
    const void *vector[SERRY_MAX_RANKS];

    find_blocks(m, block, vector);
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
            operation_copy(m, to, from, bytes);
    }
}

void operation_pull_large(shm_member *m, unsigned char *dest, size_t dest_stride, size_t count)
{
    const void *vector[SERRY_MAX_RANKS];

    if (!m->flow.combine || !operation_gets(m) || count == 0) {
        operation_pull(m, dest, dest_stride, count);
        return;
    }
    find_blocks(m, m->flow.send_n ? (size_t)m->group.rank : 0, vector);
    operation_reduce_out(m, dest, vector, count);
}

void operation_commit(shm_member *m, const unsigned char *from)
{
    size_t bytes = m->call.count * m->element;
    unsigned char *recv = m->call.recv;

    if (!operation_gets(m) || bytes == 0)
        return;
    if (!m->flow.recv_n) {
        operation_copy(m, recv, from, bytes);
        return;
    }
    for (int i = 0; i < m->alive_count; i++)
        operation_copy(m, recv + m->alive[i] * bytes, from + m->alive[i] * bytes, bytes);
}
