/* regroup.c - see regroup.h. */
#include "regroup.h"

#include "channel.h"
#include "extent.h"
#include "record.h"
#include "regain.h"
#include "slot.h"
#include "word.h"

/* ---- making it --------------------------------------------------------------------------------- */

static bool gives(const shm_member *m, int rank)
{
    return serry_rank_set_has(&m->control->alive_set, rank);
}

/* The slot of a living replacement of a rank that does not give; -1: there is none. */
static int applicant(const shm_member *m, int rank)
{
    const shm_arena *arena = m->group.arena;
    uint32_t said;

    if (gives(m, rank))
        return -1;
    if (!m->whole)
        return regain_applicant(&m->group, rank);
    said = atomic_load_explicit(&arena->header->applicant[rank], memory_order_seq_cst);
    if (said == 0 || said > (uint32_t)arena_slots_used(arena) ||
        said - 1 == m->group.header->slot[rank] || !slot_is_alive(&arena->slots[said - 1]))
        return -1;
    return (int)said - 1;
}

/* What a replacement of it goes by. */
static uint16_t origin_of(const group_header *header, int rank)
{
    bool left =
        serry_rank_set_has(&header->present, rank) && group_has_left(header, rank) == GROUP_LEFT;

    return left ? GROUP_NOBODY : header->origin[rank];
}

static group_plan plan_group(const shm_member *m)
{
    group_plan plan = {.size = m->group.size,
                       .policy = m->policy,
                       .variant = m->variant,
                       .parent = m->group.header->parent,
                       .ordinal = m->group.header->ordinal,
                       .version = m->group.header->version + 1,
                       .parts = m->parts,
                       .communicator = m->group.header->communicator,
                       .operations = m->operations,
                       .epoch = m->epoch,
                       .votes = m->meeting.votes};

    for (int r = 0; r < plan.size; r++) {
        int newcomer = applicant(m, r);
        plan.slot[r] = m->group.header->slot[r];
        plan.origin[r] = origin_of(m->group.header, r);
        if (newcomer >= 0) {
            group_plan_member(&plan, r, newcomer);
            serry_rank_set_add(&plan.joined, r);
        } else if (serry_rank_set_has(&m->alive_set, r))
            group_plan_member(&plan, r, plan.slot[r]);
    }
    if (serry_rank_set_count(&plan.joined) > 0) {
        plan.epoch++;
        plan.operations += plan.policy == SERRY_REPORT; /* the one that tells of it */
    }
    return plan;
}

int regroup_make(shm_member *m)
{
    shm_arena *arena = m->group.arena;
    serry_error *error = &m->meeting.error;
    group_plan plan = plan_group(m);
    int rc = extent_take(arena, EXTENT_OF_GROUP, group_bytes(plan.size), false, &m->meeting.offset,
                         error);

    if (rc != SERRY_OK) {
        m->meeting.offset = 0;
        return rc;
    }
    m->meeting.made = true;
    group_format(arena, m->meeting.offset, &plan);
    for (int r = 0; r < plan.size && rc == SERRY_OK; r++)
        if (!serry_rank_set_has(&plan.present, r))
            group_abandon(arena, m->meeting.offset, r);
        else if (!gives(m, r))
            rc = group_settle(arena, m->meeting.offset, plan.size, r, error);
    if (!m->whole && rc == SERRY_OK)
        regain_look_again(&m->group, m->meeting.offset);
    return rc;
}

void regroup_unmake(shm_member *m)
{
    uint64_t unused;

    if (m->meeting.offset != 0 && m->meeting.made)
        extent_give(m->group.arena, EXTENT_OF_GROUP, m->meeting.offset, &unused);
    m->meeting.offset = 0;
    m->meeting.made = false;
}

void regroup_abandon(shm_member *m)
{
    if (m->meeting.offset == 0)
        return;
    group_abandon(m->group.arena, m->meeting.offset, m->group.rank);
    for (int r = 0; r < m->group.size && m->meeting.made; r++)
        if (!serry_rank_set_has(&m->meeting.givers, r))
            group_abandon(m->group.arena, m->meeting.offset, r); /* it never knew of it */
    m->meeting.offset = 0;
    m->meeting.made = false;
}

int regroup_settle(shm_member *m)
{
    return group_settle(m->group.arena, m->meeting.offset, m->group.size, m->group.rank,
                        &m->meeting.error);
}

/* ---- entering it ------------------------------------------------------------------------------- */

/* Who comes into a part finds it by itself. */
static void invite(const shm_member *m, uint32_t number)
{
    arena_slot *slot = &m->group.arena->slots[number];
    uint64_t nobody = 0;

    if (m->whole)
        atomic_compare_exchange_strong_explicit(&slot->invited, &nobody, m->group.offset,
                                                memory_order_seq_cst, memory_order_relaxed);
    wait_wake(m->whole ? &slot->invited : &slot->asks);
}

/* Everybody says the same of the world; who dies here leaves the rest to the others. A sleeper may say it
 * when the world is another one already: only what the old group knows is replaced. */
static void announce(shm_member *m, const shm_group *old)
{
    arena_header *header = m->group.arena->header;
    const group_header *own = m->group.header;
    uint64_t world = old->offset;

    atomic_store_explicit(&m->group.header->entered, 1, memory_order_seq_cst);
    if ((m->news & NEWS_JOINED) ==
        0) /* else nobody has told of the ones before, and all tell of all together */
        m->joined = (serry_rank_set){{0}};
    for (int r = 0; r < m->group.size; r++) {
        uint32_t before = old->header->slot[r];
        if (!serry_rank_set_has(&own->joined, r))
            continue;
        serry_rank_set_add(&m->joined, r);
        m->news |= NEWS_JOINED;
        if (m->whole)
            atomic_compare_exchange_strong_explicit(&header->holder[r], &before, own->slot[r],
                                                    memory_order_seq_cst, memory_order_relaxed);
    }
    if (m->whole)
        atomic_compare_exchange_strong_explicit(&header->world, &world, m->group.offset,
                                                memory_order_seq_cst, memory_order_relaxed);
    for (int r = 0; r < m->group.size; r++)
        if (serry_rank_set_has(&own->joined, r))
            invite(m, own->slot[r]);
}

/* Of those that did not come, and are not replaced. */
static void seal_missing(const shm_member *m, const serry_rank_set *givers)
{
    const group_header *header = m->group.header;

    for (int r = 0; r < m->group.size; r++)
        if (serry_rank_set_has(&header->present, r) && !serry_rank_set_has(givers, r) &&
            !serry_rank_set_has(&header->joined, r))
            group_seal_member(&m->group, r);
}

int regroup_enter(shm_member *m)
{
    shm_group old = m->group, next;
    serry_rank_set givers = m->control->alive_set;
    int rc = group_open(&next, old.arena, m->meeting.offset, old.size, old.rank, &m->meeting.error);

    if (rc != SERRY_OK)
        return rc;
    for (int i = 0; i < m->alive_count; i++) {
        int r = m->alive[i];
        if (next.header->slot[r] != old.header->slot[r] ||
            !serry_rank_set_has(&next.header->present, r))
            room_lose(m, r);
    }
    pthread_mutex_lock(&m->view); /* the old group may go as soon as this rank has left it */
    m->group = next;
    m->control->group = group_control(&m->group);
    operation_enter_group(m);
    operation_enter_group(m->control);
    m->deaf = false;
    m->hears = GROUP_CALL_MEETING;
    pthread_mutex_unlock(&m->view);
    m->epoch = m->group.header->epoch;
    m->plan = m->control->plan = arena_plan_waiting(old.arena);
    seal_missing(m, &givers);
    group_seal_dead(&m->group);
    channel_move(m, &old);
    announce(m, &old); /* now newcomers may come */
    if (group_called(&old) == GROUP_CALL_REVOKED)
        group_call_all(&m->group, GROUP_CALL_REVOKED);
    group_leave(&old);
    return SERRY_OK;
}
