/* small.c - one step: the contribution travels beside the publication word or in a small buffer,
 * and every rank works out the whole of what it gets.
 *
 * What is called most is here in one go, from the call to its result: operation_run. It does what
 * operation.c does step by step, and leaves to that whatever is not as usual. Nothing is noted down
 * before the call is published, and only if it must wait: others wait for that. */
#include <string.h>

#include "lines.h"
#include "operation.h"
#include "reduce/reduce.h"
#include "word.h"

#define COLD __attribute__((cold, noinline))

/* Into the own cell, or the small buffer. */
static inline void give(shm_member *m, const serry_call *call, uint64_t signature, size_t bytes)
{
    uint64_t step = m->step + 1;

    m->own->signature[step & 1] = signature;
    if (bytes == 0)
        return;
    if (bytes <= SHM_INLINE)
        copy_short(m->own->data[step & 1], call->send, bytes);
    else
        memcpy(group_small(&m->group, m->group.rank, step), call->send, bytes);
}

static void contribute(shm_member *m)
{
    give(m, &m->call, m->signature, operation_gives(m) ? operation_input_bytes(m) : 0);
}

static const unsigned char *given_by(const shm_member *m, int r, size_t bytes)
{
    return bytes <= SHM_INLINE
               ? (const unsigned char *)group_cell_of(&m->group, r)->data[m->step & 1]
               : group_small(&m->group, r, m->step);
}

/* One vector that travels beside the words, for all: made of copies, which nobody can change any more. */
static __attribute__((noinline)) int hand_out_few(shm_member *m, const serry_call *call)
{
    uint64_t few[SERRY_MAX_RANKS][SHM_INLINE / 8];
    const void *vector[SERRY_MAX_RANKS];

    for (int i = 0; i < m->alive_count; i++) {
        memcpy(few[i], group_cell_of(&m->group, m->alive[i])->data[m->step & 1], SHM_INLINE);
        vector[i] = few[i];
    }
    if (!word_second_look(&m->own->word))
        return SERRY_ERR_EXCLUDED;
    serry_reduce_vectors(call->recv, vector, m->alive_count, call->count, call->dtype, call->op);
    return OPERATION_DONE;
}

/* Of a call that is noted. */
static int hand_out_many(shm_member *m, size_t bytes)
{
    size_t block = m->call.count * m->element;

    for (int i = 0; i < m->alive_count; i++) {
        int r = m->alive[i];
        m->source[r] = given_by(m, r, bytes);
        m->stride[r] = block;
        if (!m->flow.from_root || r == m->call.root)
            lines_read(m, r, lines_of(block, SHM_INLINE));
    }
    operation_pull(m, m->scratch, block, m->call.count);
    if (!word_second_look(&m->own->word))
        return SERRY_ERR_EXCLUDED;
    operation_commit(m, m->scratch);
    return OPERATION_DONE;
}

static inline bool is_few(const serry_call *call, size_t bytes)
{
    return bytes == 0 || (bytes <= SHM_INLINE && call->kind == SERRY_KIND_ALLREDUCE);
}

/* Noted, unless it is of few. */
static inline int hand_out(shm_member *m, const serry_call *call, size_t bytes)
{
    if (!is_few(call, bytes))
        return hand_out_many(m, bytes);
    if (bytes != 0)
        return hand_out_few(m, call);
    return word_second_look(&m->own->word) ? OPERATION_DONE : SERRY_ERR_EXCLUDED;
}

int small_hand_out(shm_member *m)
{
    int rc = hand_out(m, &m->call, operation_input_bytes(m));

    return rc == OPERATION_DONE ? rc : operation_fail_excluded(m);
}

static int judge_and_hand_out(shm_member *m)
{
    int rc = operation_judge(m);

    return rc == SERRY_OK ? small_hand_out(m) : rc;
}

const algorithm algorithm_small = {"small", contribute, judge_and_hand_out};

/* ---- the usual case in one go ------------------------------------------------------------------ */

/* As the steps of operation.c have it. */
static void note(shm_member *m, const serry_call *call)
{
    m->call = *call;
    m->flow = serry_flows[call->kind];
    m->signature = operation_signature(m, call);
    m->element = signature_element(call->dtype);
    m->passed = m->lent = false;
    m->algorithm = &algorithm_small;
    m->open = m->published = true;
}

/* What was published is not as usual. */
static COLD int go_on(shm_member *m, const serry_call *call)
{
    note(m, call);
    return operation_go_on(m);
}

/* Waiting, or handing out, has ended with this. */
static COLD int stop(shm_member *m, const serry_call *call, int rc)
{
    if (rc == SERRY_ERR_EXCLUDED) {
        note(m, call);
        operation_fail_excluded(m);
    }
    return operation_stop(m, rc);
}

static __attribute__((noinline)) int wait_for(shm_member *m, const serry_call *call, int r)
{
    note(m, call);
    return operation_await(m, r);
}

/* Has everybody published the same? Negative: waiting has ended with that. */
static inline int decide(shm_member *m, const serry_call *call, uint64_t signature)
{
    bool same = true;

    for (int i = 0; i < m->alive_count; i++) {
        int r = m->alive[i], rc;
        if (r == m->group.rank)
            continue;
        const group_cell *cell = group_cell_of(&m->group, r);
        lines_read(m, r, 1);
        if (!word_reached(atomic_load_explicit(&cell->word, memory_order_acquire), m->step)) {
            if ((rc = wait_for(m, call, r)) != SERRY_OK)
                return rc;
            if (m->rare != 0) /* it is missing, and may write there when it wakes */
                return 0;
        }
        same &= cell->signature[m->step & 1] == signature;
    }
    return same;
}

/* A small call, as usual. Made anew for each of its two callers: the compiler knows what a barrier is. */
static inline __attribute__((always_inline)) int
run(shm_member *m, const serry_call *call, const flow *f, uint64_t signature, size_t bytes)
{
    bool gives = !f->from_root || call->root == m->group.rank;

    give(m, call, signature, gives ? bytes : 0);
    word_result result = word_publish(&m->own->word, m->step + 1);
    if (__builtin_expect(result == WORD_IS_SEALED, 0))
        return stop(m, call, SERRY_ERR_EXCLUDED);
    m->step++;
    if (__builtin_expect(result == WORD_PUBLISHED_WAKE, 0))
        wait_wake(&m->own->word);
    int rc = decide(m, call, signature);
    if (__builtin_expect(rc < 0, 0))
        return stop(m, call, rc);
    bool has_root = !(f->from_root || f->to_root) || serry_rank_set_has(&m->alive_set, call->root);
    if (__builtin_expect(rc == 0 || m->rare != 0 || !has_root, 0))
        return go_on(m, call);
    if (!is_few(call, bytes))
        note(m, call);
    rc = hand_out(m, call, bytes);
    return __builtin_expect(rc == OPERATION_DONE, 1) ? operation_end(m, rc) : stop(m, call, rc);
}

static __attribute__((noinline)) int run_data(shm_member *m, const serry_call *call)
{
    const flow *f = &serry_flows[call->kind];
    size_t blocks = f->send_n ? (size_t)m->group.size : 1;
    size_t bytes = blocks * call->count * signature_element(call->dtype);

    if (!choose_is_small(m, bytes))
        return operation_run_any(m, call);
    return run(m, call, f, operation_signature(m, call), bytes);
}

static const flow k_nothing = {.combine = false}; /* that of a barrier */

/* Barriers, of whose calls only the type differs, take the shortest way. */
int operation_run(shm_member *m, const serry_call *call, serry_error *error)
{
    m->error = error;
    if (!operation_is_usual(m) || m->rare != 0)
        return operation_run_any(m, call);
    if (call->kind != SERRY_KIND_BARRIER || m->variant != VARIANT_CHOOSE)
        return run_data(m, call);
    serry_call barrier = {.kind = SERRY_KIND_BARRIER, .dtype = call->dtype};
    return run(m, call, &k_nothing, operation_signature(m, &barrier), 0);
}
