/* choose.c - which algorithm for this call. The answer depends only on what is equal on all ranks:
 * the call, the group, and (after the first step of a large call) where the members' inputs lie. */
#include "heap.h"
#include "operation.h"
#include "record.h"
#include "word.h"
#include "writes.h"

const algorithm *choose_first(const shm_member *m)
{
    return choose_is_small(m, operation_input_bytes(m)) ? &algorithm_small : &algorithm_enter;
}

/* ---- the first step of a large call: who is there, what do they call, where is their input? ---- */

static bool may_be_direct(const shm_member *m)
{
    return m->variant != VARIANT_COPY && m->variant != VARIANT_NO_ROOM &&
           m->variant != VARIANT_SLICES;
}

static bool is_crowded(const shm_member *m)
{
    return m->plan.pauses == 0;
}

/* Two members, measured against slices.c. An allreduce of both combining all: 0.7 to 0.9 of the time from
 * 16 KiB to 2 MiB, which the caches keep until it is read twice; 1.2 at 4 MiB. A reduce at the root alone: 0.64
 * to 0.9, then 1.1; from 16 MiB on, which no cache keeps anyway, 0.55 to 1.1, the less the more the machine is
 * disturbed, as nobody waits for anybody between parts. */
#define TWO_KEPT ((size_t)3 << 20)
#define TWO_PAST ((size_t)16 << 20)

/* All inputs of a reduce_scatter in rooms. */
#define SCATTER_TOTAL ((size_t)256 << 20)

/* Does it take longer to combine than to copy? Not so 16-bit floats: 0.97 to 1.05 of the time by slices, 0.5
 * to 0.8 where the cores share no cache. */
static bool is_dear(const serry_call *call)
{
    return call->op == SERRY_AVG || call->op >= SERRY_OP_USER;
}

/* Copies of whole inputs, and then each makes what it gets? A reduce_scatter combines nothing twice so. */
static bool takes_whole(const shm_member *m)
{
    size_t bytes = operation_input_bytes(m);

    if (!m->flow.combine)
        return true;
    if (m->variant == VARIANT_SLICES)
        return false;
    if (m->flow.send_n)
        return bytes <= SCATTER_TOTAL / (size_t)m->alive_count;
    return m->alive_count == 2 && !is_dear(&m->call) &&
           (bytes < TWO_KEPT || (m->flow.to_root && bytes >= TWO_PAST));
}

/* What a member, the first or a later one, stages for others in its room. */
static size_t room_bytes(const shm_member *m, int index, bool crowded)
{
    bool root = m->alive[index] == m->call.root;

    if (!takes_whole(m))
        return slices_room(m, index, crowded);
    return (m->flow.from_root && !root) || (m->flow.to_root && root) ? 0 : operation_input_bytes(m);
}

/* Are there several domains, each with members that can work for all others there? Then by blocks, if the call is
 * worth it, and nobody has to wait for a core. */
static bool may_go_by_blocks(const shm_member *m)
{
    bool whole = (m->flow.combine || m->flow.from_root) && !m->flow.send_n;
    bool large = m->call.count * m->element >= BLOCKS_BYTES || m->levels.forced;

    return m->levels.large_span != 0 && whole && large;
}

static size_t own_room_bytes(const shm_member *m)
{
    size_t bytes = room_bytes(m, operation_index(m), is_crowded(m));
    size_t blocks = may_go_by_blocks(m) ? blocks_room(m) : 0;

    return bytes > blocks ? bytes : blocks;
}

void choose_room(shm_member *m)
{
    bool copies = m->variant == VARIANT_COPY || m->variant == VARIANT_SLICES;
    uint64_t where;

    if (may_be_direct(m))
        copies = m->group.arena->kind != SERRY_THREADS && m->alive_count > 1 &&
                 !heap_find(m->group.arena, m->call.send, operation_input_bytes(m), &where);
    if (copies)
        room_reserve(m, own_room_bytes(m));
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

/* Does somebody get whole vectors: combined, all of them, or one? There are algorithms then that read results of
 * others, or write them. */
static bool may_lend(const shm_member *m)
{
    return (m->flow.combine || m->flow.recv_n || m->flow.from_root) && !m->flow.send_n &&
           m->alive_count > 1 && may_be_direct(m);
}

/* Can the others read these bytes where they lie? Then that is where. */
static bool tell(const shm_arena *arena, const void *buffer, size_t bytes, uint64_t *where)
{
    if (arena->kind != SERRY_THREADS)
        return heap_find(arena, buffer, bytes, where);
    *where = (uintptr_t)buffer;
    return true;
}

/* Who may be sealed at any time must not write into others' memory: see writes.h. */
static bool seals(const shm_arena *arena)
{
    return atomic_load_explicit(&arena->seals, memory_order_relaxed);
}

static void enter(shm_member *m)
{
    uint64_t step = m->step + 1;
    group_input *input = &m->own->input[step & 1];
    const shm_arena *arena = m->group.arena;

    m->own->signature[step & 1] = m->signature;
    *input = (group_input){.reaches = reaches_all(m),
                           .crowded = is_crowded(m),
                           .room = room_offer(m, own_room_bytes(m)),
                           .team = m->team > 1,
                           .sees = may_lend(m) && !seals(arena) && writes_can_be_seen(m)};
    m->ahead = takes_whole(m) && whole_may_go_ahead(m);
    if (operation_gives(m))
        input->direct = tell(arena, m->call.send, operation_input_bytes(m), &input->address);
    if (m->ahead && input->direct == 0 && input->room != 0 && own_room_bytes(m) != 0) {
        whole_give_ahead(m);
        input->ahead = 1;
    }
    if (!may_lend(m))
        return;
    if (operation_gets(m))
        input->lends = tell(arena, m->call.recv, operation_result_bytes(m), &input->result);
    m->lent = input->lends == 1;
    atomic_store_explicit(&m->own->pieces, 0, memory_order_relaxed); /* published by the word */
}

static const group_input *said_by(const shm_member *m, int r)
{
    return &group_cell_of(&m->group, r)->input[m->step & 1];
}

static bool some_have_teams(const shm_member *m)
{
    bool some = false;

    for (int i = 0; i < m->alive_count; i++)
        some |= said_by(m, m->alive[i])->team == 1;
    return some;
}

/* Has every member said that it can read in the heaps of the others? */
static bool reads_heaps(const shm_member *m)
{
    bool all = true;

    for (int i = 0; i < m->alive_count; i++)
        all &= said_by(m, m->alive[i])->reaches == 1;
    return all;
}

/* Members that have found more ranks than cores. */
static int count_crowded(const shm_member *m)
{
    int count = 0;

    for (int i = 0; i < m->alive_count; i++)
        count += said_by(m, m->alive[i])->crowded == 1;
    return count;
}

/* A team would have nothing to share in the slices of blocks. */
static bool goes_by_blocks(const shm_member *m)
{
    return may_go_by_blocks(m) && ((count_crowded(m) == 0 && !m->teams) || m->levels.forced);
}

/* Can what rank r has told of be read there by every member? */
static bool is_for_all(const shm_member *m, uint64_t where)
{
    return m->group.arena->kind == SERRY_THREADS || (where & HEAP_BIT) == 0 || reads_heaps(m);
}

/* Can the input of rank r be read where it lies? */
static bool is_direct(const shm_member *m, int r)
{
    return said_by(m, r)->direct == 1 && is_for_all(m, said_by(m, r)->address);
}

/* Can the result? */
static bool is_lent(const shm_member *m, int r)
{
    return said_by(m, r)->lends == 1 && is_for_all(m, said_by(m, r)->result);
}

/* The place that rank r has told of; NULL: that cannot be. */
static unsigned char *place(const shm_member *m, int r, uint64_t where, size_t bytes)
{
    const shm_arena *arena = m->group.arena;

    if (arena->kind == SERRY_THREADS)
        return (unsigned char *)(uintptr_t)where; // NOLINT(performance-no-int-to-ptr)
    return heap_at(arena, slot_of(m, r), where, bytes);
}

/* Where this rank can read the whole input of rank r; NULL: nowhere, it comes through copies. False:
 * rank r says what cannot be. */
static bool find_input(shm_member *m, int r)
{
    bool own = r == m->group.rank; /* for itself; the others may need copies */

    m->input[r] = own ? m->call.send : NULL;
    if (own || !is_direct(m, r))
        return true;
    m->input[r] = place(m, r, said_by(m, r)->address, operation_input_bytes(m));
    return m->input[r] != NULL;
}

/* The same of results, where an algorithm reads them. */
static bool find_result(shm_member *m, int r)
{
    bool own = r == m->group.rank;

    m->result[r] = own ? m->call.recv : NULL;
    if (own || !may_lend(m) || !is_lent(m, r))
        return true;
    size_t blocks = m->flow.recv_n ? (size_t)m->group.size : 1;
    m->result[r] = place(m, r, said_by(m, r)->result, blocks * m->call.count * m->element);
    return m->result[r] != NULL;
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
    return m->algorithm == &algorithm_slices || m->algorithm == &algorithm_whole ||
           m->algorithm == &algorithm_blocks_copied;
}

/* What a member needs in its room now. */
static size_t needed_room(const shm_member *m, int index, const algorithm *a)
{
    return a == &algorithm_blocks_copied ? blocks_room(m) : room_bytes(m, index, m->crowded);
}

/* Where a member stages. False: it says what cannot be. */
static bool find_room(shm_member *m, int index)
{
    int r = m->alive[index];
    size_t bytes = needed_room(m, index, m->algorithm);
    uint64_t front = room_front(m), start = said_by(m, r)->room - front;

    m->rooms[r] = bytes == 0 ? NULL : arena_in_pool(m->group.arena, start, front + bytes);
    if (m->rooms[r] != NULL)
        m->rooms[r] += front;
    return bytes == 0 || m->rooms[r] != NULL;
}

/* Has every member that gives done so already? */
static bool all_are_ahead(const shm_member *m)
{
    bool all = m->ahead;

    for (int i = 0; i < m->alive_count && all; i++)
        all = needed_room(m, i, m->algorithm) == 0 || said_by(m, m->alive[i])->ahead == 1;
    return all;
}

/* Has every member that needs one a room? With members newly missing, which may still be reading in
 * rooms, there are none. */
static bool has_rooms(const shm_member *m, const algorithm *a)
{
    bool all = m->absent_count == 0;

    for (int i = 0; i < m->alive_count; i++)
        all &= needed_room(m, i, a) == 0 || said_by(m, m->alive[i])->room != 0;
    return all;
}

static const algorithm *choose_copies(const shm_member *m)
{
    const algorithm *usual = takes_whole(m) ? &algorithm_whole : &algorithm_slices;

    if (m->variant == VARIANT_NO_ROOM)
        return &algorithm_staged;
    if (goes_by_blocks(m) && has_rooms(m, &algorithm_blocks_copied))
        return &algorithm_blocks_copied;
    return has_rooms(m, usual) ? usual : &algorithm_staged;
}

static int enter_decided(shm_member *m)
{
    int rc = operation_judge(m);

    for (int i = 0; i < m->alive_count && rc == SERRY_OK; i++)
        if (!find_input(m, m->alive[i]))
            rc = fail_input(m, m->alive[i], "input");
        else if (!find_result(m, m->alive[i]))
            rc = fail_input(m, m->alive[i], "result");
    if (rc != SERRY_OK)
        return rc;
    room_begun(m);
    m->crowded = count_crowded(m) == m->alive_count;
    m->teams = some_have_teams(m);
    m->algorithm = choose_next(m);
    for (int i = 0; i < m->alive_count && uses_rooms(m); i++)
        if (!find_room(m, i))
            return fail_input(m, m->alive[i], "room");
    if (m->algorithm == &algorithm_whole && all_are_ahead(m))
        return whole_take_ahead(m);
    /* Before any pointer of the others is followed: are they still of this operation? */
    return word_second_look(&m->own->word) ? OPERATION_GOES_ON : operation_fail_excluded(m);
}

const algorithm algorithm_enter = {"enter", enter, enter_decided};

/* An algorithm that needs results lent: is it the one that is forced, or may it be chosen from so many bytes
 * on? */
static bool is_worth(const shm_member *m, unsigned variant, size_t bytes)
{
    return may_lend(m) && (m->variant == variant ||
                           (m->variant == VARIANT_CHOOSE && m->call.count * m->element >= bytes));
}

static bool follows(const shm_member *m)
{
    bool all = is_worth(m, VARIANT_FOLLOW, FOLLOW_BYTES) && m->flow.combine && !m->flow.to_root;

    for (int i = 0; i < m->alive_count && all; i++)
        all = is_lent(m, m->alive[i]);
    return all;
}

/* What is written into each member's result comes to it from all domains: from others, where there are many
 * members, somebody near has read it before. */
static bool are_near(const shm_member *m)
{
    const arena_slot *slots = m->group.arena->slots;
    bool same = true;

    for (int i = 1; i < m->alive_count; i++)
        same &= slots[slot_of(m, m->alive[i])].domain == slots[slot_of(m, m->alive[0])].domain;
    return same || m->alive_count <= SPREAD_FAR || m->variant == VARIANT_SPREAD;
}

/* Can every result be written where it lies, and would everybody see it if a writer ended? Heaps of others
 * can only be read. */
static bool spreads(const shm_member *m)
{
    bool all = is_worth(m, VARIANT_SPREAD, SPREAD_BYTES) && are_near(m);

    for (int i = 0; i < m->alive_count && all; i++) {
        const group_input *said = said_by(m, m->alive[i]);
        bool lies_in_heap = m->group.arena->kind != SERRY_THREADS && (said->result & HEAP_BIT) != 0;
        all = said->sees == 1 &&
              (!operation_gets_at(m, m->alive[i]) || (said->lends == 1 && !lies_in_heap));
    }
    return all;
}

/* Direct where every input that somebody needs can be read where it lies. */
const algorithm *choose_next(shm_member *m)
{
    bool direct = may_be_direct(m);

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
    if (goes_by_blocks(m) && m->variant == VARIANT_CHOOSE)
        return &algorithm_blocks;
    if (spreads(m))
        return &algorithm_spread;
    if (follows(m))
        return &algorithm_follow;
    return m->flow.combine && !m->flow.send_n ? &algorithm_direct_share : &algorithm_direct_pull;
}
