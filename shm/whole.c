/* whole.c - large operations on private memory of processes: each that gives copies what others need of its
 * input into its room, publishes, and each takes what it gets straight from the rooms, or combines it from
 * there and from its own input.
 *
 * Nothing is handed out before all have published, so until then a death leaves everybody's buffers as
 * they were; afterwards the rooms outlive their ranks. Where a result is combined over this rank's own input
 * (in place), nobody else needs that any more. */
#include <string.h>

#include "operation.h"
#include "word.h"

static void copy_in(shm_member *m, size_t at, const unsigned char *from, size_t bytes)
{
    if (m->streams)
        operation_copy(m, m->room.memory + at, from, bytes);
    else
        operation_copy_in(m, m->room.memory + at, from, bytes);
}

static void give(shm_member *m)
{
    size_t block = m->call.count * m->element;
    const unsigned char *send = m->call.send;

    if (!operation_gives(m))
        return;
    if (!m->flow.send_n) {
        if (!m->flow.to_root || m->call.root != m->group.rank)
            copy_in(m, 0, send, block);
        return;
    }
    for (int i = 0; i < m->alive_count; i++) {
        size_t at = m->alive[i] * block;
        if (m->alive[i] != m->group.rank)
            copy_in(m, at, send + at, block);
    }
}

static int take(shm_member *m)
{
    bool needed = !m->flow.from_root || serry_rank_set_has(&m->absent, m->call.root);
    size_t block = m->call.count * m->element;

    if (m->absent_count != 0 && needed)
        return operation_without_absent(m);
    if (!word_second_look(&m->own->word))
        return operation_fail_excluded(m);
    for (int i = 0; i < m->alive_count; i++) {
        int r = m->alive[i];
        m->source[r] = r == m->group.rank ? m->call.send : m->rooms[r];
        m->stride[r] = block;
    }
    operation_pull_large(m, m->call.recv, block, m->call.count);
    return OPERATION_DONE;
}

const algorithm algorithm_whole = {"whole", give, take};
