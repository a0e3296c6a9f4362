/* staged.c - large operations on private memory, through bounded copies, chunk by chunk.
 *
 * Every rank that gives copies chunk t of its input into its `in` buffer. Where the vectors are
 * combined and everybody wants the result (allreduce, reduce), each member combines one slice of the
 * chunk into its `out` buffer; otherwise each takes what it gets straight from the `in` buffers. So:
 *
 *   turn        0         1           2            ...   T-1        T          T+1
 *   copy in     chunk 0   chunk 1     chunk 2            chunk T-1
 *   combine               chunk 0     chunk 1            chunk T-2  chunk T-1
 *   copy out                          chunk 0            chunk T-3  chunk T-2  chunk T-1
 *
 * with a published step after every turn but the last, T turns fewer one without slices. Results
 * are copied into the private staging room, and to the caller only when the last step is decided
 * with nobody missing. An input of private memory dies with its rank: where a member that gives is
 * sealed before that, every survivor finds it sealed below the same step, drops what it has, and
 * returns with its buffers as they were. */
#include "operation.h"
#include "word.h"

static bool has_slices(const shm_member *m)
{
    return m->flow.combine && !m->flow.send_n;
}

/* Elements of each block in a chunk. */
static size_t chunk_length(const shm_member *m)
{
    size_t blocks = m->flow.send_n ? (size_t)m->group.size : 1;
    size_t length = m->group.chunk_bytes / blocks / m->element, line = SHM_LINE / m->element;

    return length > line ? length / line * line : length;
}

static size_t chunk_count(const shm_member *m)
{
    size_t length = chunk_length(m);

    return (m->call.count + length - 1) / length;
}

/* Elements of chunk t, which begins at element t * chunk_length. */
static size_t length_of(const shm_member *m, size_t t)
{
    size_t left = m->call.count - t * chunk_length(m);

    return left < chunk_length(m) ? left : chunk_length(m);
}

static void copy_in(shm_member *m, size_t t)
{
    size_t blocks = m->flow.send_n ? (size_t)m->group.size : 1;
    size_t bytes = length_of(m, t) * m->element, first = t * chunk_length(m) * m->element;
    unsigned char *in = group_in(&m->group, m->group.rank, m->step + 1);
    const unsigned char *send = m->call.send;

    for (size_t b = 0; b < blocks; b++)
        operation_copy_in(m, in + b * chunk_length(m) * m->element,
                          send + b * m->call.count * m->element + first, bytes);
}

/* Point m->source at chunk t of every input, as published with the last step. */
static void find_sources(shm_member *m, size_t t)
{
    for (int i = 0; i < m->alive_count; i++) {
        int r = m->alive[i];
        if (m->input[r] != NULL) {
            m->source[r] = m->input[r] + t * chunk_length(m) * m->element;
            m->stride[r] = m->call.count * m->element;
        } else {
            m->source[r] = group_in(&m->group, r, m->step);
            m->stride[r] = chunk_length(m) * m->element;
        }
    }
}

/* This rank's slice of chunk t, of all inputs, into its out buffer. */
static void combine_slice(shm_member *m, size_t t)
{
    const void *vector[SERRY_MAX_RANKS];
    size_t first, length;

    operation_slice(m, length_of(m, t), operation_index(m), m->alive_count, &first, &length);
    find_sources(m, t);
    for (int i = 0; i < m->alive_count; i++)
        vector[i] = m->source[m->alive[i]] + first * m->element;
    if (length != 0)
        operation_reduce(m, group_out(&m->group, m->group.rank, m->step + 1), vector, length);
}

/* All slices of chunk t into the staging room. */
static void copy_out(shm_member *m, size_t t)
{
    unsigned char *to = m->staging + t * chunk_length(m) * m->element;

    for (int i = 0; i < m->alive_count && operation_gets(m); i++) {
        size_t first, length;
        operation_slice(m, length_of(m, t), i, m->alive_count, &first, &length);
        operation_copy(m, to + first * m->element, group_out(&m->group, m->alive[i], m->step),
                       length * m->element);
    }
}

static void pull_chunk(shm_member *m, size_t t)
{
    find_sources(m, t);
    operation_pull_large(m, m->staging + t * chunk_length(m) * m->element,
                         m->call.count * m->element, length_of(m, t));
}

static void work(shm_member *m)
{
    size_t t = m->turn, chunks = chunk_count(m);

    if (t < chunks && operation_gives(m))
        copy_in(m, t);
    if (!has_slices(m)) {
        if (t >= 1)
            pull_chunk(m, t - 1);
        return;
    }
    if (t >= 1 && t - 1 < chunks)
        combine_slice(m, t - 1);
    if (t >= 2)
        copy_out(m, t - 2);
}

static int decided(shm_member *m)
{
    size_t last = has_slices(m) ? chunk_count(m) : chunk_count(m) - 1;
    bool needed = !m->flow.from_root || serry_rank_set_has(&m->absent, m->call.root);

    if (m->absent_count != 0 && needed)
        return operation_without_absent(m);
    if (m->turn++ < last)
        return OPERATION_GOES_ON;
    work(m); /* what is left to read needs no further step */
    if (!word_second_look(&m->own->word))
        return operation_fail_excluded(m);
    operation_commit(m, m->staging);
    return OPERATION_DONE;
}

const algorithm algorithm_staged = {"staged", work, decided};
