/* choose.c - which algorithm for this call. The answer depends only on what is equal on all ranks:
 * the call, the group, and (after the first step of a large call) where the members' inputs lie. */
#include "heap.h"
#include "operation.h"
#include "record.h"
#include "word.h"

const algorithm *choose_first(const shm_member *m)
{
    size_t most = m->variant == VARIANT_CHOOSE ? m->group.small_bytes : 0;

    return operation_input_bytes(m) <= most ? &algorithm_small : &algorithm_enter;
}

/* ---- the first step of a large call: who is there, what do they call, where is their input? ---- */

/* What a member, the first or a later one, stages for others in its room. */
static size_t room_bytes(const shm_member *m, int index)
{
    size_t first, length;

    if (!m->flow.combine)
        return !m->flow.from_root || m->alive[index] == m->call.root ? operation_input_bytes(m) : 0;
    slices_range(m, index, &first, &length);
    return m->flow.send_n ? 0 : length * m->element;
}

void choose_room(shm_member *m)
{
    bool copies = m->variant == VARIANT_COPY;
    uint64_t where;

    if (m->variant == VARIANT_CHOOSE)
        copies = m->group.arena->kind != SERRY_THREADS && m->alive_count > 1 &&
                 !heap_find(m->group.arena, m->call.send, operation_input_bytes(m), &where);
    if (copies)
        room_reserve(m, room_bytes(m, operation_index(m)));
}

static uint32_t slot_of(const shm_member *m, int rank)
{
    return m->group.header->slot[rank] % SHM_SLOTS;
}

/* Can this rank read what any other has in its heap? Mapped now, if need be: once it has said so, it
 * must. */
static bool reaches_all(shm_member *m)
{
    bool all = m->group.arena->heap != NULL;

    for (int i = 0; i < m->alive_count && all; i++)
        all = m->alive[i] == m->group.rank || heap_reach(m->group.arena, slot_of(m, m->alive[i]));
    return all;
}

static void enter(shm_member *m)
{
    uint64_t step = m->step + 1;
    group_input *input = &m->own->input[step & 1];
    const shm_arena *arena = m->group.arena;

    m->own->signature[step & 1] = m->signature;
    *input = (group_input){.reaches = reaches_all(m),
                           .room = room_offer(m, room_bytes(m, operation_index(m)))};
    if (!operation_gives(m))
        return;
    if (arena->kind == SERRY_THREADS) {
        input->address = (uintptr_t)m->call.send;
        input->direct = 1;
    } else {
        input->direct = heap_find(arena, m->call.send, operation_input_bytes(m), &input->address);
    }
}

/* Has every member said that it can read in the heaps of the others? */
static bool reads_heaps(const shm_member *m)
{
    bool all = true;

    for (int i = 0; i < m->alive_count; i++)
        all &= group_cell_of(&m->group, m->alive[i])->input[m->step & 1].reaches == 1;
    return all;
}

/* Can the input of rank r be read where it lies, by every member? */
static bool is_direct(const shm_member *m, int r)
{
    const group_input *said = &group_cell_of(&m->group, r)->input[m->step & 1];

    if (m->group.arena->kind == SERRY_THREADS || (said->address & HEAP_BIT) == 0)
        return said->direct == 1;
    return said->direct == 1 && reads_heaps(m);
}

/* Where this rank can read the whole input of rank r; NULL: nowhere, it comes through copies. False:
 * rank r says what cannot be. */
static bool resolve(const shm_member *m, int r, const unsigned char **input)
{
    const group_input *said = &group_cell_of(&m->group, r)->input[m->step & 1];
    const shm_arena *arena = m->group.arena;

    *input = NULL;
    if (r == m->group.rank) { /* for itself; the others may need copies */
        *input = m->call.send;
        return true;
    }
    if (!said->direct)
        return true;
    if (arena->kind == SERRY_THREADS)
        *input =
            (const unsigned char *)(uintptr_t)said->address; // NOLINT(performance-no-int-to-ptr)
    else if ((said->address & HEAP_BIT) != 0 && !reads_heaps(m))
        return true; /* all see that, and use copies */
    else
        *input = heap_at(arena, slot_of(m, r), said->address, operation_input_bytes(m));
    return *input != NULL;
}

static int fail_input(shm_member *m, int rank, const char *what)
{
    if (!word_second_look(&m->own->word))
        return operation_fail_excluded(m);
    operation_error(m);
    m->error->peer = rank;
    return serry_fail(m->error, SERRY_ERR_ARENA, "rank %d says that its %s lies outside the arena",
                      rank, what);
}

static bool uses_rooms(const shm_member *m)
{
    return m->algorithm == &algorithm_slices || m->algorithm == &algorithm_whole;
}

/* Where a member stages. False: it says what cannot be. */
static bool find_room(shm_member *m, int index)
{
    int r = m->alive[index];
    const group_input *said = &group_cell_of(&m->group, r)->input[m->step & 1];
    size_t bytes = room_bytes(m, index);

    m->rooms[r] = bytes == 0 ? NULL : arena_in_pool(m->group.arena, said->room, bytes);
    return bytes == 0 || m->rooms[r] != NULL;
}

/* Has every member that needs one a room? With members newly missing, which may still be reading in
 * rooms, there are none. */
static bool has_rooms(const shm_member *m)
{
    bool all = m->absent_count == 0;

    for (int i = 0; i < m->alive_count; i++)
        all &= room_bytes(m, i) == 0 ||
               group_cell_of(&m->group, m->alive[i])->input[m->step & 1].room != 0;
    return all;
}

static const algorithm *choose_copies(const shm_member *m)
{
    if (m->variant == VARIANT_NO_ROOM || !has_rooms(m))
        return &algorithm_staged;
    return m->flow.combine ? &algorithm_slices : &algorithm_whole;
}

static int enter_decided(shm_member *m)
{
    int rc = operation_judge(m);

    for (int i = 0; i < m->alive_count && rc == SERRY_OK; i++)
        if (!resolve(m, m->alive[i], &m->input[m->alive[i]]))
            rc = fail_input(m, m->alive[i], "input");
    if (rc != SERRY_OK)
        return rc;
    room_begun(m);
    m->algorithm = choose_next(m);
    for (int i = 0; i < m->alive_count && uses_rooms(m); i++)
        if (!find_room(m, i))
            return fail_input(m, m->alive[i], "room");
    /* Before any pointer of the others is followed: are they still of this operation? */
    return word_second_look(&m->own->word) ? OPERATION_GOES_ON : operation_fail_excluded(m);
}

const algorithm algorithm_enter = {"enter", enter, enter_decided};

/* Direct where every input that somebody needs can be read where it lies. */
const algorithm *choose_next(shm_member *m)
{
    bool direct = m->variant == VARIANT_CHOOSE;

    for (int i = 0; i < m->alive_count; i++) {
        int r = m->alive[i];
        if (!m->flow.from_root || r == m->call.root)
            direct &= m->alive_count == 1 || is_direct(m, r);
    }
    m->turn = 0;
    m->first = m->length = m->out_first = m->out_length = 0;
    m->worker_count = m->alive_count;
    for (int i = 0; i < m->alive_count; i++)
        m->worker[i] = m->alive[i];
    if (!direct) {
        /* All inputs of others come through copies, then: only those obey the rule of the two buffers
         * to the end of the operation. */
        for (int i = 0; i < m->alive_count; i++)
            if (m->alive[i] != m->group.rank)
                m->input[m->alive[i]] = NULL;
        return choose_copies(m);
    }
    return m->flow.combine && !m->flow.send_n ? &algorithm_direct_share : &algorithm_direct_pull;
}
