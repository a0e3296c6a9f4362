/* direct.c - large operations whose inputs can be read where they lie: thread ranks, and memory from
 * serry_alloc. Each rank writes nothing but its own memory, and an input outlives its rank, so the
 * death of a rank after it has entered changes nothing for the others.
 *
 * Share (allreduce, reduce): chunk by chunk, each worker combines one slice of all inputs into its
 * `out` buffer; in the next step everybody copies the slices together. By then nobody needs that
 * chunk of any input any more, so results may overwrite inputs. Where a worker is sealed before its
 * slice was published, all others find it sealed below the same step, and combine the same chunk
 * again with slices for those that are left:
 *
 *   step       s           s+1         s+2 (a worker is sealed)   s+3
 *   combine    chunk 0     chunk 1     chunk 2                    chunk 2, new slices
 *   copy out               chunk 0     chunk 1
 *
 * Pull (everything else): each takes what it gets, and one more step tells that all are done. */
#include <string.h>

#include "lines.h"
#include "operation.h"
#include "word.h"

/* ---- share ------------------------------------------------------------------------------------ */

static void next_chunk(shm_member *m)
{
    size_t most = (size_t)m->worker_count * (m->group.chunk_bytes / m->element);
    size_t left = m->call.count - m->first;

    m->length = left < most ? left : most;
}

static void combine_slice(shm_member *m)
{
    const void *vector[SERRY_MAX_RANKS];
    size_t first, length;
    int mine = 0;

    while (m->worker[mine] != m->group.rank)
        mine++;
    operation_slice(m, m->length, mine, m->worker_count, &first, &length);
    for (int i = 0; i < m->alive_count; i++) {
        vector[i] = m->input[m->alive[i]] + (m->first + first) * m->element;
        lines_read(m, m->alive[i], lines_of(length * m->element, 0));
    }
    if (length != 0)
        operation_reduce(m, group_out(&m->group, m->group.rank, m->step + 1), vector, length);
}

static void copy_out(shm_member *m)
{
    unsigned char *recv = m->call.recv;

    for (int i = 0; i < m->worker_count && operation_gets(m); i++) {
        size_t first, length;
        operation_slice(m, m->out_length, i, m->worker_count, &first, &length);
        operation_copy(m, recv + (m->out_first + first) * m->element,
                       group_out(&m->group, m->worker[i], m->step), length * m->element);
        lines_read(m, m->worker[i], lines_of(length * m->element, 0));
    }
    m->out_length = 0;
}

static void share_work(shm_member *m)
{
    next_chunk(m);
    combine_slice(m);
    if (m->out_length != 0)
        copy_out(m);
}

/* True if a worker is missing; then the others divide its work among them. */
static bool lost_workers(shm_member *m)
{
    int kept = 0, before = m->worker_count;

    for (int i = 0; i < m->worker_count; i++)
        if (!serry_rank_set_has(&m->absent, m->worker[i]))
            m->worker[kept++] = m->worker[i];
    m->worker_count = kept;
    return kept != before;
}

static int share_decided(shm_member *m)
{
    if (m->absent_count != 0 && lost_workers(m))
        return OPERATION_GOES_ON;
    m->out_first = m->first;
    m->out_length = m->length;
    m->first += m->length;
    if (m->first < m->call.count)
        return OPERATION_GOES_ON;
    copy_out(m);
    return operation_handed_out(m);
}

const algorithm algorithm_direct_share = {"direct share", share_work, share_decided};

/* ---- pull ------------------------------------------------------------------------------------- */

/* In place, these two would write where others still read. */
static bool needs_staging(const shm_member *m)
{
    return m->flow.send_n && m->call.send == m->call.recv;
}

static void pull_work(shm_member *m)
{
    size_t block = m->call.count * m->element;

    for (int i = 0; i < m->alive_count; i++) {
        int r = m->alive[i];
        bool gives = !m->flow.from_root || r == m->call.root;
        m->source[r] = m->input[r];
        m->stride[r] = block;
        lines_read(m, r, gives && operation_gets(m) ? lines_of(block, 0) : 0);
    }
    operation_pull_large(m, needs_staging(m) ? m->staging : m->call.recv, block, m->call.count);
}

static int pull_decided(shm_member *m)
{
    int rc = operation_handed_out(m);

    if (rc == OPERATION_DONE && needs_staging(m))
        operation_commit(m, m->staging);
    return rc;
}

const algorithm algorithm_direct_pull = {"direct pull", pull_work, pull_decided};
