/* follow.c - large allreduces where every input and every result can be read where it lies: each member
 * combines one range of the vector into its own result, and follows the others through theirs.
 *
 * A range goes piece by piece. When one is ready its member says so (group_cell.pieces), and the others
 * copy it from its result when they come by, while it is still in a cache; nobody waits for it. What is
 * left is copied when all have published that their ranges are whole, and one more step says that nobody
 * reads anybody's result any more:
 *
 *   work      combine the own range, copying pieces of the others on the way
 *   rest      copy what is left of the others' ranges
 *
 * In place a result overwrites an input that others would need if this member died before its range is
 * whole. So each piece is combined into one of two buffers (`out`, which stays in the cache), said to be
 * there, and only then copied into the result, if this member's word is not sealed by then:
 *
 *   pieces = n    in place: pieces up to n - 2 are in the result, n - 1 is in its buffer, and maybe in
 *                 the result; no input has been overwritten from n on
 *                 else: pieces up to n - 1 are in the result, and no input has been overwritten
 *
 * Where a member is sealed before its range is whole, all others find it missing in the first step. It may
 * live, and go on: by one more piece at the most that it combines and says, but does not copy. Nor does it
 * copy more pieces of others, as it looks at its word after it has seen them. So what each survivor finds
 * said from then on is enough to complete the range: pieces in the result or the buffer are taken from
 * there, and the others are combined again, since what lies there in anybody's memory is input. All do that
 * in private memory before anybody overwrites anything:
 *
 *   work      a member is missing
 *   lost      the ranges of those who are, into private memory
 *   rest      copy these, and what is left of the others' ranges */
#include <string.h>

#include "operation.h"
#include "word.h"

/* Small beside a core's cache, long beside a cache line's way. A team would have nothing to share: with
 * one a piece is what `out` holds. */
#define PIECE_BYTES ((size_t)16 << 10)

typedef struct range {
    int rank;
    size_t first, length; /* elements */
    size_t pieces;
} range;

static size_t piece_length(const shm_member *m)
{
    bool whole = m->teams || m->group.chunk_bytes < PIECE_BYTES;

    return (whole ? m->group.chunk_bytes : PIECE_BYTES) / m->element;
}

static range range_of(const shm_member *m, int index)
{
    range r = {.rank = m->alive[index]};
    size_t piece = piece_length(m);

    operation_slice(m, m->call.count, index, m->alive_count, &r.first, &r.length);
    r.pieces = (r.length + piece - 1) / piece;
    return r;
}

/* Where piece k of a range begins, and its elements. */
static size_t piece_of(const shm_member *m, const range *r, size_t k, size_t *first)
{
    size_t piece = piece_length(m), done = k * piece;

    *first = r->first + done;
    return r->length - done < piece ? r->length - done : piece;
}

static bool is_in_place(const shm_member *m, int rank)
{
    return m->input[rank] == m->result[rank];
}

static unsigned char *buffer_of(const shm_member *m, int rank, size_t k)
{
    return group_out(&m->group, rank, k);
}

static void combine(const shm_member *m, void *to, size_t first, size_t length)
{
    const void *vector[SERRY_MAX_RANKS];

    for (int i = 0; i < m->alive_count; i++)
        vector[i] = m->input[m->alive[i]] + first * m->element;
    operation_reduce(m, to, vector, length);
}

/* ---- the first step ---------------------------------------------------------------------------- */

/* Said by a member, which may be anything. */
static size_t pieces_said(const shm_member *m, const range *r)
{
    uint32_t said =
        atomic_load_explicit(&group_cell_of(&m->group, r->rank)->pieces, memory_order_seq_cst);

    return said < r->pieces ? said : r->pieces;
}

/* Those that are in its result. */
static size_t pieces_ready(const shm_member *m, const range *r)
{
    size_t said = pieces_said(m, r);

    return said != 0 && is_in_place(m, r->rank) ? said - 1 : said;
}

static bool is_sealed(const shm_member *m)
{
    return (atomic_load_explicit(&m->own->word, memory_order_seq_cst) & WORD_SEALED) != 0;
}

static void say(const shm_member *m, size_t pieces)
{
    atomic_store_explicit(&m->own->pieces, (uint32_t)pieces, memory_order_seq_cst);
}

/* False: this rank is sealed. */
static bool make_piece(const shm_member *m, const range *own, size_t k)
{
    size_t first, length = piece_of(m, own, k, &first);
    unsigned char *result = (unsigned char *)m->call.recv + first * m->element;

    if (!is_in_place(m, own->rank)) {
        combine(m, result, first, length);
        say(m, k + 1);
        return true;
    }
    unsigned char *buffer = buffer_of(m, own->rank, k);
    combine(m, buffer, first, length);
    say(m, k + 1);
    if (is_sealed(m))
        return false;
    operation_fill(m, result, buffer, length * m->element);
    return true;
}

static void copy_piece(const shm_member *m, const range *r, size_t k)
{
    size_t first, length = piece_of(m, r, k, &first), at = first * m->element;

    operation_copy(m, (unsigned char *)m->call.recv + at, m->result[r->rank] + at,
                   length * m->element);
}

/* One piece of every other range, where there is one. */
static bool copy_some(shm_member *m, int mine)
{
    for (int i = 1; i < m->alive_count; i++) {
        int index = (mine + i) % m->alive_count;
        range r = range_of(m, index);
        if (m->copied[index] >= pieces_ready(m, &r))
            continue;
        if (is_sealed(m)) /* looked at after what the other has said */
            return false;
        copy_piece(m, &r, m->copied[index]++);
    }
    return true;
}

static void work(shm_member *m)
{
    int mine = operation_index(m);
    range own = range_of(m, mine);
    bool goes_on = true;

    memset(m->copied, 0, (size_t)m->alive_count * sizeof(m->copied[0]));
    for (size_t k = 0; k < own.pieces && goes_on; k++)
        goes_on = make_piece(m, &own, k) && copy_some(m, mine);
}

static int decided(shm_member *m)
{
    m->lost = m->absent;
    m->algorithm = m->absent_count == 0 ? &algorithm_follow_rest : &algorithm_follow_lost;
    return OPERATION_GOES_ON;
}

const algorithm algorithm_follow = {"follow", work, decided};

/* ---- somebody is missing ------------------------------------------------------------------------- */

static void make_lost(const shm_member *m, const range *r)
{
    size_t said = pieces_said(m, r), ready = pieces_ready(m, r);

    for (size_t k = 0; k < r->pieces; k++) {
        size_t first, length = piece_of(m, r, k, &first), at = first * m->element;
        if (k >= said)
            combine(m, m->staging + at, first, length);
        else
            memcpy(m->staging + at, k < ready ? m->result[r->rank] + at : buffer_of(m, r->rank, k),
                   length * m->element);
    }
}

static void lost_work(shm_member *m)
{
    for (int i = 0; i < m->alive_count; i++) {
        range r = range_of(m, i);
        if (serry_rank_set_has(&m->lost, r.rank))
            make_lost(m, &r);
    }
}

static int lost_decided(shm_member *m)
{
    m->algorithm = &algorithm_follow_rest;
    return OPERATION_GOES_ON;
}

const algorithm algorithm_follow_lost = {"follow, without some", lost_work, lost_decided};

/* ---- the last step ------------------------------------------------------------------------------- */

static void rest_work(shm_member *m)
{
    unsigned char *recv = m->call.recv;

    for (int i = 0; i < m->alive_count; i++) {
        range r = range_of(m, i);
        if (serry_rank_set_has(&m->lost, r.rank))
            operation_copy(m, recv + r.first * m->element, m->staging + r.first * m->element,
                           r.length * m->element);
        else
            for (size_t k = m->copied[i]; k < r.pieces && r.rank != m->group.rank; k++)
                copy_piece(m, &r, k);
    }
}

static int rest_decided(shm_member *m)
{
    return operation_handed_out(m);
}

const algorithm algorithm_follow_rest = {"follow, the rest", rest_work, rest_decided};
