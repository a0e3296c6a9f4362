/* whole.c - large operations on private memory of processes: each that gives copies what others need of its
 * input into its room, publishes, and each takes what it gets straight from the rooms, or combines it from
 * there and from its own input.
 *
 * Nothing is handed out before all have published, so until then a death leaves everybody's buffers as
 * they were; afterwards the rooms outlive their ranks. Small inputs go into the rooms before the first step is
 * published, and that is the only one. Where a result is combined over this rank's own input
 * (in place), nobody else needs that any more. */
#include <string.h>

#include "operation.h"
#include "word.h"

static void copy_in(shm_member *m, unsigned char *to, const unsigned char *from, size_t bytes)
{
    if (m->streams)
        operation_copy(m, to, from, bytes);
    else
        operation_copy_in(m, to, from, bytes);
}

static void give_to(shm_member *m, unsigned char *room)
{
    size_t block = m->call.count * m->element;
    const unsigned char *send = m->call.send;

    if (!operation_gives(m))
        return;
    if (!m->flow.send_n) {
        if (!m->flow.to_root || m->call.root != m->group.rank)
            copy_in(m, room, send, block);
        return;
    }
    for (int i = 0; i < m->alive_count; i++) {
        size_t at = m->alive[i] * block;
        if (m->alive[i] != m->group.rank)
            copy_in(m, room + at, send + at, block);
    }
}

static void give(shm_member *m)
{
    give_to(m, m->room.memory);
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

/* ---- small ones: in the first step ------------------------------------------------------------ */

bool whole_may_go_ahead(const shm_member *m)
{
    return m->variant != VARIANT_NO_ROOM && m->group.size <= ROOM_FEW && m->alive_count > 1 &&
           operation_input_bytes(m) <= ROOM_AHEAD;
}

void whole_give_ahead(shm_member *m)
{
    give_to(m, m->room.memory - room_ahead(m));
}

int whole_take_ahead(shm_member *m)
{
    for (int i = 0; i < m->alive_count; i++) {
        int r = m->alive[i];
        if (m->rooms[r] != NULL)
            m->rooms[r] -= room_ahead(m);
    }
    return take(m);
}

const algorithm algorithm_whole = {"whole", give, take};
