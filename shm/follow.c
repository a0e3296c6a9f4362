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

#include "pieces.h"
#include "word.h"

/* ---- the first step ---------------------------------------------------------------------------- */

/* Those that are in its result. */
static size_t pieces_ready(const shm_member *m, const range *r)
{
    size_t said = pieces_said(m, r);

    return said != 0 && pieces_in_place(m, r->rank) ? said - 1 : said;
}

/* False: this rank is sealed. */
static bool make_piece(const shm_member *m, const range *own, size_t k)
{
    size_t first, length = pieces_at(m, own, k, &first);
    unsigned char *result = (unsigned char *)m->call.recv + first * m->element;

    if (!pieces_in_place(m, own->rank)) {
        pieces_combine(m, result, first, length);
        pieces_say(m, k + 1);
        return true;
    }
    unsigned char *buffer = pieces_buffer(m, own->rank, k);
    pieces_combine(m, buffer, first, length);
    pieces_say(m, k + 1);
    if (pieces_sealed(m, m->group.rank))
        return false;
    operation_fill(m, result, buffer, length * m->element);
    return true;
}

static void copy_piece(const shm_member *m, const range *r, size_t k)
{
    size_t first, length = pieces_at(m, r, k, &first), at = first * m->element;

    operation_copy(m, (unsigned char *)m->call.recv + at, m->result[r->rank] + at,
                   length * m->element);
}

/* One piece of every other range, where there is one. */
static bool copy_some(shm_member *m, int mine)
{
    for (int i = 1; i < m->alive_count; i++) {
        int index = (mine + i) % m->alive_count;
        range r = pieces_range(m, index);
        if (m->copied[index] >= pieces_ready(m, &r))
            continue;
        if (pieces_sealed(m, m->group.rank)) /* looked at after what the other has said */
            return false;
        copy_piece(m, &r, m->copied[index]++);
    }
    return true;
}

static void work(shm_member *m)
{
    int mine = operation_index(m);
    range own = pieces_range(m, mine);
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
        size_t first, length = pieces_at(m, r, k, &first), at = first * m->element;
        if (k >= said)
            pieces_combine(m, m->staging + at, first, length);
        else
            memcpy(m->staging + at,
                   k < ready ? m->result[r->rank] + at : pieces_buffer(m, r->rank, k),
                   length * m->element);
    }
}

static void lost_work(shm_member *m)
{
    for (int i = 0; i < m->alive_count; i++) {
        range r = pieces_range(m, i);
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
        range r = pieces_range(m, i);
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
