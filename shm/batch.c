/* batch.c - small operations that were started together share one step.
 *
 * The first of them is an ordinary small operation. Behind its contribution, in the same small buffer, a
 * member appends those of the calls that it has at hand to follow:
 *
 *   small | first, unless it is in the cell | record: signature, data | record | ...      | group_batch |
 *
 * and says in group_batch how many, and in which step: who has none writes nothing there, so the first
 * operation costs what it always does. When the step is decided, all look at the records of all who take
 * part. As many calls are over as all have given alike, from the first one on; that is a function of what
 * was published, the same on all ranks. What one had given in excess it gives again, in the next step.
 *
 * A contribution cannot be taken back. So where the first operation is left open by a timeout, those that
 * went with it are open too. If its caller goes on with it alone, their results are kept (`ahead`), and
 * handed out when the same calls are made again, in order; others have had them long ago.
 *
 * For the order of things, meetings for instance, all calls of a step are one operation: they are all
 * over or none is. */
#include <stdlib.h>
#include <string.h>

#include "operation.h"
#include "word.h"

/* Of a record's start, and of what follows it. */
#define ROUND ((size_t)16)

typedef struct record {
    uint64_t signature;
    uint64_t unused;
} record;

_Static_assert(sizeof(record) == ROUND, "data begin where records do");

/* Private. */
struct shm_batch {
    int count;                       /* calls that go with the first one */
    serry_call call[OPERATION_MANY]; /* these */
    const serry_call *const *given;  /* calls that the caller has at hand behind the first one, */
    int givens;                      /* while it runs; */
    int done;                        /* of them are over */
    int ahead, aheads; /* of `call`: the next one that is to be handed out, and the end */
    size_t result[OPERATION_MANY]; /* where each one's lies in `results` */
    unsigned char *results;        /* as large as m->scratch */
};

static size_t rounded(size_t bytes)
{
    return (bytes + ROUND - 1) / ROUND * ROUND;
}

/* What rank r gives to a call. */
static size_t given_bytes(const shm_member *m, const serry_call *call, int r)
{
    const flow *f = &serry_flows[call->kind];
    size_t blocks = f->send_n ? (size_t)m->group.size : 1;

    if (call->kind == SERRY_KIND_BARRIER || (f->from_root && call->root != r))
        return 0;
    return blocks * call->count * serry_dtype_size(call->dtype);
}

/* Where the records of rank r begin. */
static size_t first_record(const shm_member *m, const serry_call *first, int r)
{
    size_t bytes = given_bytes(m, first, r);

    return bytes <= SHM_INLINE ? 0 : rounded(bytes);
}

static group_batch *batch_of(const shm_member *m, int r, uint64_t step)
{
    return (group_batch *)(void *)(group_small(&m->group, r, step) + m->group.small_bytes);
}

/* ---- what goes along ---------------------------------------------------------------------------- */

static bool make(shm_member *m)
{
    struct shm_batch *b = calloc(1, sizeof(*b));

    if (b != NULL)
        b->results = malloc((size_t)m->group.size * m->group.small_bytes);
    if (b == NULL || b->results == NULL) {
        free(b);
        return false;
    }
    m->batch = b;
    return true;
}

void batch_free(shm_member *m)
{
    if (m->batch != NULL)
        free(m->batch->results);
    free(m->batch);
    m->batch = NULL;
}

static bool is_small(const shm_member *m, const serry_call *call)
{
    size_t blocks = serry_flows[call->kind].send_n ? (size_t)m->group.size : 1;

    return blocks * call->count * serry_dtype_size(call->dtype) <= m->group.small_bytes;
}

/* As many as there is room for: what this rank gives, and gets. */
static int choose(const shm_member *m, const serry_call *const *calls, int count)
{
    size_t at = first_record(m, &m->call, m->group.rank), to = 0;
    int n = 0;

    for (; n < count && n < OPERATION_MANY && is_small(m, calls[n]); n++) {
        size_t blocks = serry_flows[calls[n]->kind].recv_n ? (size_t)m->group.size : 1;
        at += sizeof(record) + rounded(given_bytes(m, calls[n], m->group.rank));
        to += rounded(blocks * calls[n]->count * serry_dtype_size(calls[n]->dtype));
        if (at > m->group.small_bytes || to > (size_t)m->group.size * m->group.small_bytes)
            break;
    }
    return n;
}

void batch_begin(shm_member *m, const serry_call *const *calls, int count)
{
    if (m->algorithm != &algorithm_small || (m->batch == NULL && !make(m)))
        return;
    struct shm_batch *b = m->batch;
    b->count = choose(m, calls, count);
    for (int i = 0; i < b->count; i++)
        b->call[i] = *calls[i];
    if (b->count > 0)
        m->algorithm = &algorithm_batch;
}

void batch_attend(shm_member *m, const serry_call *const *calls, int count)
{
    if (m->batch != NULL) {
        m->batch->given = calls;
        m->batch->givens = count;
        m->batch->done = 0;
    }
}

int batch_done(shm_member *m)
{
    int done = m->batch == NULL ? 0 : m->batch->done;

    batch_attend(m, NULL, 0);
    return done;
}

static void contribute(shm_member *m)
{
    const struct shm_batch *b = m->batch;
    uint64_t step = m->step + 1;
    unsigned char *small = group_small(&m->group, m->group.rank, step);
    group_batch *said = batch_of(m, m->group.rank, step);
    size_t at = first_record(m, &m->call, m->group.rank);

    algorithm_small.work(m);
    for (int i = 0; i < b->count; i++) {
        size_t bytes = given_bytes(m, &b->call[i], m->group.rank);
        ((record *)(void *)(small + at))->signature = operation_signature(m, &b->call[i]);
        if (bytes != 0)
            memcpy(small + at + sizeof(record), b->call[i].send, bytes);
        at += sizeof(record) + rounded(bytes);
    }
    said->count = (uint32_t)b->count;
    said->step = step;
}

/* ---- what is over ------------------------------------------------------------------------------- */

static void take_on(shm_member *m, const serry_call *call)
{
    m->call = *call;
    m->flow = serry_flows[call->kind];
    m->signature = operation_signature(m, call);
    m->element = serry_dtype_size(call->dtype);
}

/* m->call: the first. */
static void find_records(const shm_member *m, size_t *at)
{
    for (int i = 0; i < m->alive_count; i++)
        at[m->alive[i]] = first_record(m, &m->call, m->alive[i]);
}

/* Has everybody given number i, alike? m->call is that one; then m->source is set, and `at` moves on. What
 * is read here may be anything if this rank was sealed, so it is checked. */
static bool find_next(shm_member *m, int i, size_t *at)
{
    if ((m->flow.from_root || m->flow.to_root) && !serry_rank_set_has(&m->alive_set, m->call.root))
        return false;
    for (int a = 0; a < m->alive_count; a++) {
        int r = m->alive[a];
        const group_batch *said = batch_of(m, r, m->step);
        const unsigned char *small = group_small(&m->group, r, m->step);
        size_t bytes = given_bytes(m, &m->call, r);
        size_t end = at[r] + sizeof(record) + rounded(bytes);
        if (said->step != m->step || said->count <= (uint32_t)i || end > m->group.small_bytes ||
            ((const record *)(const void *)(small + at[r]))->signature != m->signature)
            return false;
        m->source[r] = small + at[r] + sizeof(record);
        m->stride[r] = m->call.count * m->element;
        at[r] = end;
    }
    return true;
}

/* Work out the results of all that go with the first one. Returns how many those are. */
static int work_out(shm_member *m)
{
    struct shm_batch *b = m->batch;
    size_t at[SERRY_MAX_RANKS], to = 0;
    int n = 0;

    find_records(m, at);
    for (; n < b->count; n++) {
        take_on(m, &b->call[n]);
        if (!find_next(m, n, at))
            break;
        b->result[n] = to;
        if (m->call.kind != SERRY_KIND_BARRIER)
            operation_pull(m, b->results + to, m->call.count * m->element, m->call.count);
        to += rounded(operation_result_bytes(m));
    }
    return n;
}

/* Those that the caller still has at hand get theirs; the others' are kept. */
static void hand_out_followers(shm_member *m, int count)
{
    struct shm_batch *b = m->batch;

    while (b->done < count && b->done < b->givens &&
           operation_is_same(b->given[b->done], &b->call[b->done])) {
        take_on(m, &b->call[b->done]);
        operation_commit(m, b->results + b->result[b->done]);
        b->done++;
    }
    b->ahead = b->done;
    b->aheads = count;
    if (b->ahead < b->aheads)
        m->news |= NEWS_AHEAD;
}

static int hand_out(shm_member *m)
{
    const serry_call first = m->call;
    int rc = operation_judge(m);

    if (rc != SERRY_OK)
        return rc;
    int count = work_out(m);
    take_on(m, &first);
    rc = small_hand_out(m);
    if (rc != OPERATION_DONE)
        return rc;
    hand_out_followers(m, count);
    take_on(m, &first);
    return OPERATION_DONE;
}

const algorithm algorithm_batch = {"batch", contribute, hand_out};

/* ---- what was over before ------------------------------------------------------------------------ */

int batch_hand_out_ahead(shm_member *m, const serry_call *call)
{
    struct shm_batch *b = m->batch;
    const serry_call *next = &b->call[b->ahead];

    take_on(m, next);
    if (serry_call_signature(call) != serry_call_signature(next))
        return operation_fail_pending(m);
    if (!word_second_look(&m->own->word))
        return operation_fail_excluded(m);
    m->call = *call;
    operation_commit(m, b->results + b->result[b->ahead]);
    if (++b->ahead == b->aheads)
        m->news &= ~(unsigned)NEWS_AHEAD;
    return SERRY_OK;
}
