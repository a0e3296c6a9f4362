/* small.c - one step: the contribution travels beside the publication word or in a small buffer,
 * and every rank works out the whole of what it gets. */
#include <string.h>

#include "lines.h"
#include "operation.h"
#include "word.h"

static size_t given_bytes(const shm_member *m)
{
    size_t blocks = m->flow.send_n ? (size_t)m->group.size : 1;

    return m->call.kind == SERRY_KIND_BARRIER ? 0 : blocks * m->call.count * m->element;
}

static void contribute(shm_member *m)
{
    uint64_t step = m->step + 1;
    size_t bytes = given_bytes(m);

    m->own->signature[step & 1] = m->signature;
    if (!operation_gives(m) || bytes == 0)
        return;
    if (bytes <= SHM_INLINE)
        copy_short(m->own->data[step & 1], m->call.send, bytes);
    else
        memcpy(group_small(&m->group, m->group.rank, step), m->call.send, bytes);
}

int small_hand_out(shm_member *m)
{
    size_t bytes = given_bytes(m), block = m->call.count * m->element;

    for (int i = 0; i < m->alive_count && bytes != 0; i++) {
        int r = m->alive[i];
        m->source[r] = bytes <= SHM_INLINE
                           ? (const unsigned char *)group_cell_of(&m->group, r)->data[m->step & 1]
                           : group_small(&m->group, r, m->step);
        m->stride[r] = block;
        if (!m->flow.from_root || r == m->call.root)
            lines_read(m, r, lines_of(block, SHM_INLINE));
    }
    if (bytes != 0)
        operation_pull(m, m->scratch, block, m->call.count);
    if (!word_second_look(&m->own->word))
        return operation_fail_excluded(m);
    if (bytes != 0)
        operation_commit(m, m->scratch);
    return OPERATION_DONE;
}

static int judge_and_hand_out(shm_member *m)
{
    int rc = operation_judge(m);

    return rc == SERRY_OK ? small_hand_out(m) : rc;
}

const algorithm algorithm_small = {"small", contribute, judge_and_hand_out};
