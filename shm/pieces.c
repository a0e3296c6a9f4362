/* pieces.c - see pieces.h. */
#include "pieces.h"

#include "reduce/reduce.h"
#include "word.h"

/* Small beside a core's cache, long beside a cache line's way. A team would have nothing to share: with
 * one a piece is what `out` holds. */
#define PIECE_BYTES ((size_t)16 << 10)

static size_t piece_length(const shm_member *m)
{
    bool whole = m->teams || m->group.chunk_bytes < PIECE_BYTES;

    return (whole ? m->group.chunk_bytes : PIECE_BYTES) / m->element;
}

range pieces_range(const shm_member *m, int index)
{
    range r = {.rank = m->alive[index]};
    size_t piece = piece_length(m);

    if (m->flow.recv_n) {
        r.first = (size_t)r.rank * m->call.count;
        r.length = m->call.count;
    } else {
        operation_slice(m, m->call.count, index, m->alive_count, &r.first, &r.length);
    }
    r.pieces = (r.length + piece - 1) / piece;
    return r;
}

size_t pieces_at(const shm_member *m, const range *r, size_t k, size_t *first)
{
    size_t piece = piece_length(m), done = k * piece;

    *first = r->first + done;
    return r->length - done < piece ? r->length - done : piece;
}

static void find_inputs(const shm_member *m, size_t first, const void **vector)
{
    for (int i = 0; i < m->alive_count; i++)
        vector[i] = m->input[m->alive[i]] + first * m->element;
}

void pieces_combine(const shm_member *m, void *to, size_t first, size_t length)
{
    const void *vector[SERRY_MAX_RANKS];

    find_inputs(m, first, vector);
    operation_reduce(m, to, vector, length);
}

bool pieces_streams(const shm_member *m)
{
    return serry_reduce_streams(m->alive_count, m->call.dtype, m->call.op);
}

/* Two by two: what others than the first two get is combined again, of inputs that are in the cache by then. */
void pieces_stream(const shm_member *m, unsigned char *const *to, int count, size_t first,
                   size_t length)
{
    const void *vector[SERRY_MAX_RANKS];

    find_inputs(m, first, vector);
    for (int i = 0; i < count; i += 2) {
        void *const result[2] = {to[i], i + 1 < count ? to[i + 1] : NULL};
        serry_reduce_stream(result, vector, m->alive_count, length, m->call.dtype, m->call.op);
    }
}

size_t pieces_said(const shm_member *m, const range *r)
{
    uint32_t said =
        atomic_load_explicit(&group_cell_of(&m->group, r->rank)->pieces, memory_order_seq_cst);

    return said < r->pieces ? said : r->pieces;
}

bool pieces_sealed(const shm_member *m, int rank)
{
    const _Atomic uint64_t *word = &group_cell_of(&m->group, rank)->word;

    return (atomic_load_explicit(word, memory_order_seq_cst) & WORD_SEALED) != 0;
}
