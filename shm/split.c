/* split.c - new groups from an old one, by three exchanges among all its members:
 *
 *   1. colour and key of each: everybody knows who belongs to which part, and in what order.
 *   2. The first of each part has taken memory for its group and tells where (or why not).
 *   3. Each has given memory to its own region (or tells why not).
 *
 * After the third all members of a part know alike whether it is there. A part that is not is given
 * back by its first member; what a killed rank leaves behind goes with the arena. Where the policy
 * lets an exchange end without a member that has died meanwhile, all begin again without it. */
#include <stdlib.h>

#include "extent.h"
#include "operation.h"
#include "record.h"

enum { PHASE_COLOURS = 1, PHASE_MEMORY, PHASE_READY };

static int exchange(shm_member *m, serry_error *error)
{
    serry_call call = {.kind = SERRY_KIND_SPLIT,
                       .dtype = SERRY_U64,
                       .count = 2,
                       .send = m->split.own,
                       .recv = m->split.all};

    return operation_run(m, &call, error);
}

static bool is_first(const shm_member *m)
{
    return m->split.colour >= 0 && m->split.rank == 0;
}

/* The order of two members of the part: by key, then by rank. */
static bool before(const shm_member *m, int a, int b)
{
    int64_t key_a = (int64_t)m->split.all[2 * a + 1], key_b = (int64_t)m->split.all[2 * b + 1];

    return key_a != key_b ? key_a < key_b : a < b;
}

static void find_part(shm_member *m)
{
    int size = 0;

    for (int i = 0; i < m->alive_count; i++) {
        int r = m->alive[i], at = size;
        if ((int64_t)m->split.all[2 * r] != m->split.colour)
            continue;
        for (; at > 0 && before(m, r, m->split.member[at - 1]); at--)
            m->split.member[at] = m->split.member[at - 1];
        m->split.member[at] = (uint16_t)r;
        size++;
    }
    m->split.size = size;
    for (int i = 0; i < size; i++)
        if (m->split.member[i] == m->group.rank)
            m->split.rank = i;
}

/* Who counts the parts: also those that shrink has made, on the control words. */
static shm_member *counter(shm_member *m)
{
    return m->control == NULL ? m->owner : m;
}

static int make_group(shm_member *m)
{
    shm_arena *arena = m->group.arena;
    serry_error *error = &m->split.error;
    group_plan plan = {.size = m->split.size,
                       .policy = m->policy,
                       .parent = m->group.header->communicator,
                       .ordinal = counter(m)->parts};
    int rc = extent_take(arena, EXTENT_OF_GROUP, group_bytes(m->split.size), false,
                         &m->split.offset, error);

    if (rc != SERRY_OK)
        return rc;
    for (int i = 0; i < m->split.size; i++) {
        group_plan_member(&plan, i, m->group.header->slot[m->split.member[i]]);
        plan.origin[i] = m->split.member[i];
    }
    group_format(arena, m->split.offset, &plan);
    return SERRY_OK;
}

/* The first member gives the memory back; the others have nothing to give. */
static void unmake_group(shm_member *m)
{
    uint64_t unused;

    if (is_first(m) && m->split.phase >= PHASE_MEMORY && m->split.own[1] == 0)
        extent_give(m->group.arena, EXTENT_OF_GROUP, m->split.offset, &unused);
}

/* Has a member gone since everybody knew who belongs where? All see it in the same exchange. */
static bool has_shrunk(const shm_member *m)
{
    return m->split.phase > PHASE_COLOURS && m->alive_count != m->split.alive_count;
}

/* Once all knew where the group is, one that is sealed since may still be giving memory to its region
 * there: it is given back when all have left or are gone. */
static void abandon_group(shm_member *m)
{
    if (m->split.phase < PHASE_READY)
        unmake_group(m);
    else if (m->split.rank >= 0 && m->split.offset != 0)
        group_abandon(m->group.arena, m->split.offset, m->split.rank);
}

/* Do all members get this error, or none? Where some may have gone on to the next phase, the group
 * goes with the arena. */
static bool is_alike(int error)
{
    return error == SERRY_ERR_RANK_FAILED || error == SERRY_ERR_RANK_MISMATCH ||
           error == SERRY_ERR_RANK_JOINED;
}

static void start_over(shm_member *m)
{
    m->split.phase = PHASE_COLOURS;
    m->split.group = m->group.offset;
    m->split.offset = 0;
    m->split.code = SERRY_OK;
    serry_error_begin(&m->split.error, "split", m->operations + 1, m->group.rank);
    m->split.size = 0;
    m->split.rank = -1;
    m->split.own[0] = (uint64_t)(int64_t)m->split.colour;
    m->split.own[1] = (uint64_t)(int64_t)m->split.key;
}

/* What follows when the exchange of a phase has ended well. */
static void advance(shm_member *m)
{
    uint64_t *own = m->split.own;

    switch (m->split.phase++) {
    case PHASE_COLOURS:
        find_part(m);
        m->split.alive_count = m->alive_count;
        own[0] = own[1] = 0;
        if (is_first(m)) {
            int code = make_group(m);
            if (code != SERRY_OK)
                m->split.offset = 0;
            own[0] = m->split.offset;
            own[1] = (uint64_t)(int64_t)code;
        }
        break;
    case PHASE_MEMORY:
        if (m->split.colour < 0)
            break;
        m->split.offset = m->split.all[2 * m->split.member[0]];
        m->split.code = (int)(int64_t)m->split.all[2 * m->split.member[0] + 1];
        if (m->split.code == SERRY_OK)
            m->split.code = group_settle(m->group.arena, m->split.offset, m->split.size,
                                         m->split.rank, &m->split.error);
        own[0] = (uint64_t)(int64_t)m->split.code;
        own[1] = is_first(m) ? own[1] : 0;
        break;
    default:
        for (int i = 0; i < m->split.size && m->split.code == SERRY_OK; i++)
            m->split.code = (int)(int64_t)m->split.all[2 * m->split.member[i]];
    }
}

static int finish(shm_member *m, shm_member **part, serry_error *error)
{
    if (m->split.colour < 0)
        return SERRY_OK;
    if (m->split.code == SERRY_OK) {
        *part = member_new(m->group.arena, m->split.offset, m->split.size, m->split.rank, m->plan,
                           &m->split.error);
        if (*part != NULL) {
            group_seal_dead(&(*part)->group);
            atomic_store_explicit(&(*part)->group.header->entered, 1, memory_order_seq_cst);
            if (m->control != NULL)
                (*part)->policy = m->policy == SERRY_WAIT ? SERRY_REPORT : m->policy;
            return SERRY_OK;
        }
        m->split.code = m->split.error.error;
    } else {
        unmake_group(m);
    }
    if (m->split.error.error == SERRY_OK)
        serry_fail(&m->split.error, m->split.code,
                   "another rank of the new communicator could not get memory for it; give the "
                   "arena more with SERRY_POOL (or pool_bytes)");
    *error = m->split.error;
    return m->split.code;
}

int split_run(shm_member *m, int colour, int key, shm_member **part, serry_error *error)
{
    bool same = m->split.colour == colour && m->split.key == key;

    *part = NULL;
    if (m->split.phase == 0) {
        m->split.colour = colour;
        m->split.key = key;
        start_over(m);
    } else if (same && m->split.group != m->group.offset) {
        unmake_group(m); /* the group was replaced meanwhile */
        start_over(m);
    } else if (!same) {
        serry_error_begin(error, "split", m->operations + 1, m->group.rank);
        return serry_fail(error, SERRY_ERR_PENDING,
                          "an earlier split(colour %d, key %d) is still open; repeat that call",
                          m->split.colour, m->split.key);
    }
    while (m->split.phase <= PHASE_READY) {
        int rc = exchange(m, error);
        if (!wait_is_over(rc) || rc == SERRY_ERR_PENDING || rc == SERRY_ERR_MEETING)
            return rc;
        if (rc == SERRY_ERR_RANK_MISMATCH && m->met) { /* by shrink, on the control words */
            meeting_put_off(m);
            continue;
        }
        if (rc != SERRY_OK) {
            if (is_alike(rc))
                abandon_group(m);
            m->split.phase = 0;
            return rc;
        }
        if (has_shrunk(m)) {
            abandon_group(m);
            start_over(m);
        } else {
            advance(m);
        }
    }
    int rc = finish(m, part, error);
    counter(m)->parts++;
    m->split.phase = 0;
    return rc;
}
