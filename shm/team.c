/* team.c - see team.h. Pieces end where cache lines of the written memory do: no line has two writers. */
#include "team.h"

#include <serry/call.h>

#include "copy.h"
#include "layout.h"
#include "openmp.h"
#include "reduce/reduce.h"

/* Threads that are worth it. */
static int threads_for(int threads, size_t bytes)
{
    size_t pieces = bytes / TEAM_PIECE_BYTES;

    return pieces < (size_t)threads ? (int)pieces : threads;
}

/* Where piece `index` of `count` begins, each of TEAM_PIECE_BYTES or so at least. Number `count` is the
 * end. */
static size_t border(const void *memory, size_t bytes, int index, int count)
{
    size_t at = bytes / (size_t)count * (size_t)index;

    if (index == 0)
        return 0;
    return index == count ? bytes : at - ((uintptr_t)memory + at) % SHM_LINE;
}

/* ---- copies ------------------------------------------------------------------------------------ */

typedef struct copying {
    unsigned char *dest;
    const unsigned char *source;
    size_t bytes;
    bool stream;
} copying;

static void copy_piece(void *work, int index, int count)
{
    const copying *c = work;
    size_t first = border(c->dest, c->bytes, index, count);
    size_t bytes = border(c->dest, c->bytes, index + 1, count) - first;

    if (c->stream)
        copy_stream(c->dest + first, c->source + first, bytes);
    else
        memcpy(c->dest + first, c->source + first, bytes);
}

void team_copy(int threads, void *dest, const void *source, size_t bytes, bool stream)
{
    copying c = {dest, source, bytes, stream};

    threads = threads_for(threads, bytes);
    if (threads > 1)
        openmp_run(threads, copy_piece, &c);
    else
        copy_piece(&c, 0, 1);
}

/* ---- reductions -------------------------------------------------------------------------------- */

/* What is combined in the first-level cache before it goes past the others: so little that memory is read for the
 * next one while it is written for this one. Measured: 0.8 of the time with 16 KiB. */
#define STREAM_BYTES ((size_t)2 << 10)

typedef struct reduction {
    unsigned char *result;
    const void *const *source;
    int n;
    size_t count, element;
    serry_dtype dtype;
    serry_op op;
    bool stream;
} reduction;

/* Bytes [first, end) of the result. */
static void reduce_range(const reduction *r, unsigned char *result, size_t first, size_t end)
{
    const void *source[SERRY_MAX_RANKS];

    for (int i = 0; i < r->n; i++)
        source[i] = (const unsigned char *)r->source[i] + first;
    serry_reduce_vectors(result, source, r->n, (end - first) / r->element, r->dtype, r->op);
}

/* The first block ends where a line of the result does, and so do the others. */
static void reduce_past_caches(const reduction *r, size_t first, size_t end)
{
    _Alignas(SHM_LINE) unsigned char block[STREAM_BYTES];
    size_t length = STREAM_BYTES - ((uintptr_t)r->result + first) % SHM_LINE;

    for (; first < end; first += length, length = STREAM_BYTES) {
        length = end - first < length ? end - first : length;
        reduce_range(r, block, first, first + length);
        copy_stream_on(r->result + first, block, length);
    }
    copy_stream_end();
}

static void reduce_piece(void *work, int index, int count)
{
    const reduction *r = work;
    size_t bytes = r->count * r->element;
    size_t first = border(r->result, bytes, index, count);
    size_t end = border(r->result, bytes, index + 1, count);

    if (r->stream)
        reduce_past_caches(r, first, end);
    else
        reduce_range(r, r->result + first, first, end);
}

void team_reduce(int threads, void *result, const void *const *source, int n, size_t count,
                 serry_dtype dtype, serry_op op, bool stream)
{
    size_t element = serry_dtype_size(dtype);
    reduction r = {result, source, n, count, element, dtype, op, stream};

    threads = op < SERRY_OP_USER ? threads_for(threads, count * element) : 1;
    if (threads > 1)
        openmp_run(threads, reduce_piece, &r);
    else
        reduce_piece(&r, 0, 1);
}
