/* spread.c - large operations with whole vectors (allreduce, reduce, allgather, gather, broadcast) where every
 * input can be read and every result can be written where it lies: each member makes one range of the result,
 * combined of all inputs, its own input, or a share of the root's, and writes it into the results of all that get
 * one. When all have published that, everybody is done.
 *
 *   work      make the own range, piece by piece, in all results
 *
 * Nothing else is ever written into others' memory, and only by the rule of writes.h: so where a member is
 * missing after that step, it is sure before anybody goes on that it does not write any more. Each then
 * completes its range in the own result, from the inputs. But where a result lies over its input, what has been
 * written was input. Then each piece is combined into one of two buffers (`out`, which stays in the cache),
 * said to be there, and only then written:
 *
 *   pieces = n    some in place: pieces up to n - 2 are in all results; n - 1 is in its buffer, and maybe in
 *                 some results; from n on no input has been overwritten
 *                 else: pieces up to n - 1 are in all results, and maybe a part of the next
 *
 * A missing member that lives may go on by one more piece at the most that it combines and says, but does not
 * write. What each survivor finds said is right either way: it takes what is left from the buffer and from
 * the inputs into private memory, and puts it into its result when all have published that they are done with
 * the inputs:
 *
 *   work      a member is missing
 *   lost      what is left of its range, into private memory
 *
 * Death is all that this waits for; that nobody may leave while others write into its result, operation.c sees
 * to. */
#include <string.h>

#include "pieces.h"
#include "writes.h"

/* Does some result lie over an input that it is made of? */
static bool overwrites(const shm_member *m)
{
    bool some = false;

    for (int i = 0; i < m->alive_count && m->flow.combine; i++)
        some |= operation_gets_at(m, m->alive[i]) && pieces_in_place(m, m->alive[i]);
    return some;
}

/* ---- the own range ------------------------------------------------------------------------------- */

/* Where a member gets what is at `from`, with `first` for its first element; NULL: it does not, has it, or is
 * sealed. */
static inline unsigned char *target(const shm_member *m, int rank, const unsigned char *from,
                                    size_t first)
{
    if (!operation_gets_at(m, rank) || pieces_sealed(m, rank))
        return NULL;
    unsigned char *to = m->result[rank] + first * m->element;
    return to == from ? NULL : to;
}

static void write_into(const shm_member *m, int rank, const unsigned char *from, size_t first,
                       size_t length, bool fetched)
{
    unsigned char *to = target(m, rank, from, first);

    if (to == NULL)
        return;
    if (fetched)
        operation_fill(m, to, from, length * m->element);
    else if (m->heavy)
        operation_copy(m, to, from, length * m->element);
    else
        copy_by_lines(to, from, length * m->element);
}

/* What a member gives to its range, from element `first` on, where nothing is combined. */
static const unsigned char *given(const shm_member *m, const range *r, size_t first)
{
    if (m->flow.from_root)
        return m->input[m->call.root] + first * m->element;
    return m->input[r->rank] + (first - r->first) * m->element;
}

/* Piece k, combined if need be, somewhere. */
static const unsigned char *make_piece(const shm_member *m, bool by_buffer, const range *own,
                                       size_t k)
{
    size_t first, length = pieces_at(m, own, k, &first);
    unsigned char *to;

    if (!m->flow.combine)
        return given(m, own, first);
    if (by_buffer || !operation_gets_at(m, own->rank))
        to = pieces_buffer(m, own->rank, k);
    else
        to = m->result[own->rank] + first * m->element;
    pieces_combine(m, to, first, length);
    if (by_buffer)
        pieces_say(m, k + 1);
    return to;
}

static void by_pieces(const shm_member *m, int mine, const range *own)
{
    bool by_buffer = overwrites(m);

    for (size_t k = 0; k < own->pieces; k++) {
        size_t first, length = pieces_at(m, own, k, &first);
        const unsigned char *piece = make_piece(m, by_buffer, own, k);
        if (!writes_begin(m))
            break;
        for (int i = 0; i < m->alive_count; i++)
            write_into(m, m->alive[(mine + i) % m->alive_count], piece, first, length, by_buffer);
        writes_end(m);
        if (!by_buffer)
            pieces_say(m, k + 1);
    }
}

/* ---- the same, made where it goes ---------------------------------------------------------------- */

/* Past the caches, into all results at once? Not by a team. */
static bool streams(const shm_member *m)
{
    if (!m->streams || m->team > 1)
        return false;
    return !m->flow.combine || (pieces_streams(m) && !overwrites(m));
}

/* Combined in the root's result, by another one? A reduction that a caller has made may take its time, and is
 * made in a buffer: meanwhile nobody writes. */
static bool goes_straight(const shm_member *m)
{
    return m->flow.combine && m->flow.to_root && !operation_gets(m) && m->call.op < SERRY_OP_USER &&
           !overwrites(m);
}

/* What is not combined, two by two. */
static void stream_given(const shm_member *m, unsigned char *const *to, int count,
                         const unsigned char *from, size_t length)
{
    int i = 0;

    for (; i + 1 < count; i += 2)
        copy_stream_twice(to[i], to[i + 1], from, length * m->element);
    if (i < count)
        copy_stream(to[i], from, length * m->element);
}

static void make_in(const shm_member *m, unsigned char *const *to, int count,
                    const unsigned char *from, size_t first, size_t length)
{
    if (!m->flow.combine)
        stream_given(m, to, count, from, length);
    else if (streams(m))
        pieces_stream(m, to, count, first, length);
    else if (count != 0)
        pieces_combine(m, to[0], first, length);
}

static void at_once(const shm_member *m, const range *own)
{
    unsigned char *to[SERRY_MAX_RANKS];

    for (size_t k = 0; k < own->pieces && writes_begin(m); k++) {
        size_t first, length = pieces_at(m, own, k, &first);
        const unsigned char *from = m->flow.combine ? NULL : given(m, own, first);
        int count = 0;
        for (int i = 0; i < m->alive_count; i++) {
            to[count] = target(m, m->alive[i], from, first);
            count += to[count] != NULL;
        }
        make_in(m, to, count, from, first, length);
        writes_end(m);
        pieces_say(m, k + 1);
    }
}

static void work(shm_member *m)
{
    int mine = operation_index(m);
    range own = pieces_range(m, mine);
    bool entered = writes_enter(m);

    if (streams(m) || goes_straight(m))
        at_once(m, &own);
    else
        by_pieces(m, mine, &own);
    writes_leave(m, entered);
}

static int decided(shm_member *m)
{
    if (m->absent_count == 0)
        return operation_handed_out(m);
    m->lost = m->absent;
    m->algorithm = &algorithm_spread_lost;
    return OPERATION_GOES_ON;
}

const algorithm algorithm_spread = {"spread", work, decided};

/* ---- somebody is missing ------------------------------------------------------------------------- */

static void make_lost(const shm_member *m, const range *r, size_t begin)
{
    bool by_buffer = overwrites(m);
    size_t said = pieces_said(m, r);

    for (size_t k = begin; k < r->pieces; k++) {
        size_t first, length = pieces_at(m, r, k, &first);
        unsigned char *to = m->staging + first * m->element;
        if (!m->flow.combine)
            memcpy(to, given(m, r, first), length * m->element);
        else if (by_buffer && k < said)
            memcpy(to, pieces_buffer(m, r->rank, k), length * m->element);
        else
            pieces_combine(m, to, first, length);
    }
}

static void lost_work(shm_member *m)
{
    for (int i = 0; i < m->alive_count && operation_gets(m); i++) {
        range r = pieces_range(m, i);
        size_t said = pieces_said(m, &r);
        if (!serry_rank_set_has(&m->lost, r.rank))
            continue;
        m->copied[i] = said != 0 && overwrites(m) ? said - 1 : said;
        make_lost(m, &r, m->copied[i]);
    }
}

static int lost_decided(shm_member *m)
{
    for (int i = 0; i < m->alive_count && operation_gets(m); i++) {
        range r = pieces_range(m, i);
        size_t first;
        if (!serry_rank_set_has(&m->lost, r.rank) || m->copied[i] == r.pieces)
            continue;
        pieces_at(m, &r, m->copied[i], &first);
        operation_copy(m, (unsigned char *)m->call.recv + first * m->element,
                       m->staging + first * m->element, (r.first + r.length - first) * m->element);
    }
    return operation_handed_out(m);
}

const algorithm algorithm_spread_lost = {"spread, without some", lost_work, lost_decided};
