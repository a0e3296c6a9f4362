/* blocks.c - large operations on whole vectors (allreduce, reduce, broadcast) of many members in several
 * domains (of a cache and a NUMA node, see src/locality.h).
 *
 * Where a vector of N bytes is divided among all members, each domain takes in most of every input and of the
 * result, as often as it has members that want them. Here the members are divided into blocks, as in levels.c but
 * larger: as few as lie in one domain each. Chunk by chunk, each block combines its own inputs, and takes in
 * from the others only what they have combined, once for the whole block. A chunk has a slice for each
 * member of a block, which is divided into a piece for each block:
 *
 *                  block 0                  block 1
 *   members        0           1            2           3
 *   part           slice 0     slice 1      slice 0     slice 1     of the inputs of the own block
 *   piece          0 of 0      0 of 1       1 of 0      1 of 1      of the parts of all blocks: the result
 *   slice          slice 0     slice 1      slice 0     slice 1     its pieces, from all blocks, side by side
 *   copy out       from 0, 1   from 0, 1    from 2, 3   from 2, 3   all slices of the own block
 *
 * In the tree of docs/reductions.md the members of a block are a subtree, so the bits are the same. A last block
 * with fewer members makes the same slices, several each. A broadcast begins with the slices, which come
 * from the root.
 *
 * Each line of that is a step later than the one before, and all are under way at a time, for one chunk
 * each. What a member makes lies in its own buffers, by their rule:
 *
 *   in     its parts            out    its pieces, then its slices
 *
 * Direct, where every input can be read where it lies: what is copied out may overwrite inputs of that chunk,
 * since its pieces are all there. When a member is missing, chunks up to that are in all results, and the
 * inputs of the next ones whole: direct.c goes on from there, among the others, or anew for a broadcast.
 *
 * Else each copies its chunk in first, a step before the parts, into its room, and its slices into the room
 * too, for the whole vector: they are copied out when the last step is decided, as in slices.c and whole.c. Until
 * then everybody's buffers are as they were: when a member is missing, staged.c begins anew, and tells whether that
 * can be done without it. The room: slices, then two chunks that were copied in. */
#include "lines.h"
#include "operation.h"
#include "reduce/reduce.h"
#include "word.h"

/* ---- who makes what ------------------------------------------------------------------------------ */

static int span_of(const shm_member *m)
{
    return m->levels.large_span;
}

static int block_count(const shm_member *m)
{
    return (m->alive_count + span_of(m) - 1) / span_of(m);
}

static int members_of(const shm_member *m, int block)
{
    int left = m->alive_count - block * span_of(m);

    return left < span_of(m) ? left : span_of(m);
}

/* The rank that makes slice j, and a piece of it, for a block; and before that, how many others. */
static int maker_of(const shm_member *m, int block, int j, size_t *before)
{
    int members = members_of(m, block);

    *before = (size_t)(j / members);
    return m->alive[block * span_of(m) + j % members];
}

/* Slices that a member makes at most. */
static size_t most_slices(const shm_member *m)
{
    int last = members_of(m, block_count(m) - 1);

    return (size_t)((span_of(m) + last - 1) / last);
}

/* ---- how the vector is divided ------------------------------------------------------------------- */

/* A chunk that is copied in is combined from there: small beside a core's cache, twice. */
#define COPIED_BYTES ((size_t)256 << 10)

static bool copies(const shm_member *m)
{
    return m->algorithm == &algorithm_blocks_copied;
}

/* Bytes of a slice of a whole chunk. Of its parts, which may be twice as large, and of its pieces beside it,
 * a member has room for all that it makes. */
static size_t bytes_of_slice(const shm_member *m, bool copied)
{
    size_t bytes = m->group.chunk_bytes / most_slices(m) / 2;
    size_t most = COPIED_BYTES / (size_t)span_of(m);

    return (copied && most < bytes ? most : bytes) / SHM_LINE * SHM_LINE;
}

static size_t slice_bytes(const shm_member *m)
{
    return bytes_of_slice(m, copies(m));
}

/* Elements. */
static size_t chunk_length(const shm_member *m)
{
    return slice_bytes(m) / m->element * (size_t)span_of(m);
}

static size_t chunk_count(const shm_member *m)
{
    return (m->call.count + chunk_length(m) - 1) / chunk_length(m);
}

static size_t slice_of(const shm_member *m, size_t t, int j, size_t *first)
{
    size_t begin = t * chunk_length(m), left = m->call.count - begin, length;

    operation_slice(m, left < chunk_length(m) ? left : chunk_length(m), j, span_of(m), first,
                    &length);
    *first += begin;
    return length;
}

/* The piece of a slice that a block makes. */
static size_t piece_of(const shm_member *m, size_t t, int j, int block, size_t *first)
{
    size_t begin, length = slice_of(m, t, j, &begin);

    operation_slice(m, length, block, block_count(m), first, &length);
    *first += begin;
    return length;
}

/* ---- where it lies ------------------------------------------------------------------------------- */

static unsigned char *part_place(const shm_member *m, int rank, uint64_t step, size_t before)
{
    return group_in(&m->group, rank, step) + before * 2 * slice_bytes(m);
}

static unsigned char *piece_place(const shm_member *m, int rank, uint64_t step, size_t before)
{
    return group_out(&m->group, rank, step) + before * 2 * slice_bytes(m);
}

/* From the start of a room: a slice of chunk t; the chunk that was copied in for a step. */
static size_t room_place(const shm_member *m, size_t t, size_t before)
{
    return (before * chunk_count(m) + t) * slice_bytes(m);
}

static size_t copied_place(const shm_member *m, uint64_t step)
{
    size_t slices = most_slices(m) * chunk_count(m), chunk = (size_t)span_of(m);

    return (slices + (step & 1) * chunk) * slice_bytes(m);
}

size_t blocks_room(const shm_member *m)
{
    size_t slice = bytes_of_slice(m, true), chunk = slice * (size_t)span_of(m);
    size_t chunks = (m->call.count * m->element + chunk - 1) / chunk;

    return most_slices(m) * chunks * slice + 2 * chunk;
}

/* A slice that this rank makes. */
static unsigned char *own_slice(const shm_member *m, size_t t, size_t before)
{
    if (copies(m))
        return m->room.memory + room_place(m, t, before);
    return piece_place(m, m->group.rank, m->step + 1, before) + slice_bytes(m);
}

/* A slice that has been made. */
static const unsigned char *made_slice(const shm_member *m, int rank, size_t t, size_t before)
{
    if (copies(m))
        return m->rooms[rank] + room_place(m, t, before);
    return piece_place(m, rank, m->step, before) + slice_bytes(m);
}

/* Elements from `first` on, of chunk t, of the input of a member. */
static const unsigned char *input_of(const shm_member *m, int rank, size_t t, size_t first)
{
    size_t done = t * chunk_length(m);

    if (copies(m))
        return m->rooms[rank] + copied_place(m, m->step) + (first - done) * m->element;
    return m->input[rank] + first * m->element;
}

/* ---- the lines of the table above ---------------------------------------------------------------- */

static void copy_in(const shm_member *m, size_t t)
{
    size_t begin = t * chunk_length(m), left = m->call.count - begin;
    size_t length = left < chunk_length(m) ? left : chunk_length(m);

    if (operation_gives(m))
        operation_fill(m, m->room.memory + copied_place(m, m->step + 1),
                       (const unsigned char *)m->call.send + begin * m->element,
                       length * m->element);
}

static void read_by(const shm_member *m, int rank, size_t bytes)
{
    lines_read(m, rank, lines_of(bytes, 0));
}

/* Slice j of the inputs of the own block. */
static void make_part(const shm_member *m, int own, size_t t, int j, size_t before)
{
    const void *vector[SERRY_MAX_RANKS];
    size_t first, length = slice_of(m, t, j, &first);

    for (int i = 0; i < members_of(m, own); i++) {
        int r = m->alive[own * span_of(m) + i];
        vector[i] = input_of(m, r, t, first);
        read_by(m, r, length * m->element);
    }
    serry_reduce_part(part_place(m, m->group.rank, m->step + 1, before), vector, members_of(m, own),
                      length, m->call.dtype, m->call.op);
}

static void make_piece(const shm_member *m, int own, size_t t, int j, size_t before)
{
    size_t begin, first, length = piece_of(m, t, j, own, &first);
    size_t size = serry_part_size(m->call.dtype, m->call.op), theirs;
    const void *part[SERRY_MAX_RANKS];

    slice_of(m, t, j, &begin);
    for (int b = 0; b < block_count(m); b++) {
        int r = maker_of(m, b, j, &theirs);
        part[b] = part_place(m, r, m->step, theirs) + (first - begin) * size;
        read_by(m, r, length * size);
    }
    serry_reduce_parts(piece_place(m, m->group.rank, m->step + 1, before), part, block_count(m),
                       m->alive_count, length, m->call.dtype, m->call.op);
}

static void take_slice(const shm_member *m, size_t t, int j, size_t before)
{
    size_t begin, first, length = slice_of(m, t, j, &begin), theirs;
    unsigned char *to = own_slice(m, t, before);

    if (m->flow.from_root) {
        operation_fill(m, to, input_of(m, m->call.root, t, begin), length * m->element);
        read_by(m, m->call.root, length * m->element);
        return;
    }
    for (int b = 0; b < block_count(m); b++) {
        int r = maker_of(m, b, j, &theirs);
        length = piece_of(m, t, j, b, &first);
        operation_fill(m, to + (first - begin) * m->element, piece_place(m, r, m->step, theirs),
                       length * m->element);
        read_by(m, r, length * m->element);
    }
}

static void copy_out(const shm_member *m, size_t t)
{
    int own = operation_index(m) / span_of(m);

    for (int j = 0; j < span_of(m) && operation_gets(m); j++) {
        size_t first, length = slice_of(m, t, j, &first), before;
        int r = maker_of(m, own, j, &before);
        operation_copy(m, (unsigned char *)m->call.recv + first * m->element,
                       made_slice(m, r, t, before), length * m->element);
        read_by(m, r, length * m->element);
    }
}

/* ---- steps --------------------------------------------------------------------------------------- */

/* Does somebody in the block get the result? */
static bool is_for(const shm_member *m, int block)
{
    bool some = !m->flow.to_root;

    for (int i = 0; i < members_of(m, block); i++)
        some |= m->alive[block * span_of(m) + i] == m->call.root;
    return some;
}

/* Turns from the first that has to do with a chunk to that of its slices. */
static size_t lag_of_slices(const shm_member *m)
{
    return (copies(m) ? 1u : 0u) + (m->flow.combine ? 2u : 0u);
}

/* Is chunk turn - lag one? */
static bool is_due(const shm_member *m, size_t lag)
{
    return m->turn >= lag && m->turn - lag < chunk_count(m);
}

static void make_slices(const shm_member *m)
{
    size_t lag = lag_of_slices(m), t = m->turn;
    int mine = operation_index(m), own = mine / span_of(m), members = members_of(m, own);
    bool takes = is_due(m, lag) && is_for(m, own);

    for (int j = mine % span_of(m); j < span_of(m); j += members) {
        size_t before = (size_t)(j / members);
        if (m->flow.combine && is_due(m, lag - 2))
            make_part(m, own, t - (lag - 2), j, before);
        if (m->flow.combine && is_due(m, lag - 1))
            make_piece(m, own, t - (lag - 1), j, before);
        if (takes)
            take_slice(m, t - lag, j, before);
    }
}

static void work(shm_member *m)
{
    size_t lag = lag_of_slices(m) + 1;

    if (copies(m) && is_due(m, 0))
        copy_in(m, m->turn);
    make_slices(m);
    if (!copies(m) && is_due(m, lag))
        copy_out(m, m->turn - lag);
}

/* The slices of the last chunk have been made. */
static bool was_last(shm_member *m)
{
    return m->turn++ == chunk_count(m) - 1 + lag_of_slices(m);
}

/* In the turn before, the pieces of chunk turn - 2 were all there. */
static int go_on_directly(shm_member *m)
{
    if (m->flow.from_root) {
        m->algorithm = &algorithm_direct_pull;
        return OPERATION_GOES_ON;
    }
    m->first = m->turn < 2 ? 0 : (m->turn - 2) * chunk_length(m);
    m->length = m->out_length = 0;
    m->algorithm = &algorithm_direct_share;
    return m->algorithm->decided(m);
}

static int direct_decided(shm_member *m)
{
    if (m->absent_count != 0)
        return go_on_directly(m);
    if (!was_last(m))
        return OPERATION_GOES_ON;
    copy_out(m, chunk_count(m) - 1);
    return operation_handed_out(m);
}

const algorithm algorithm_blocks = {"blocks", work, direct_decided};

static int copied_decided(shm_member *m)
{
    if (m->absent_count != 0) {
        m->turn = 0;
        m->algorithm = &algorithm_staged;
        return OPERATION_GOES_ON;
    }
    if (!was_last(m))
        return OPERATION_GOES_ON;
    if (!word_second_look(&m->own->word))
        return operation_fail_excluded(m);
    for (size_t t = 0; t < chunk_count(m); t++)
        copy_out(m, t);
    return OPERATION_DONE;
}

const algorithm algorithm_blocks_copied = {"blocks, copied", work, copied_decided};
