/* meeting.c - all living members stop, find out where they stand, and go on together: in a new group,
 * with replacements of those that failed, or with the operation that some had all but completed.
 *
 * A meeting is called by setting the group's call (group_call_all). Operations end with
 * SERRY_ERR_MEETING when they wait or when they begin, and stay as they are. Each member comes with
 *
 *   n        how many operations it has completed
 *   begun    it has published a step of operation n+1
 *   passed   such a step has been decided for it: it went on to the next, or found members missing
 *   dropped  under SERRY_WAIT: it found members missing, and waits
 *
 * and all give that to each other on the control words, so who gives is a pure function of those
 * words, and everybody who gives decides alike. Let m be the greatest n + passed: the last operation
 * that one of them has been decided about.
 *
 *   n + begun < m   This member has not contributed to m, so it must be sealed: it is excluded.
 *   n < m           m is open here. All have contributed to it, so it completes: run it again and
 *                   hear no meeting until it has ended (SERRY_FINISH). Who has completed it comes
 *                   again at once, the others at their next operation. Where somebody has dropped m,
 *                   all have, or will: it counts as not begun.
 *   else            m+1 is open, or not begun. Somebody who gives nothing may have completed it and
 *                   left. He did before his control word was sealed, so now everybody who has it open
 *                   can see that it is decided. In the next exchange they say so: if one does, all
 *                   finish it as above. (Where he did so without this one, which only slept, this
 *                   one's word is sealed: it looks before it goes on.) Otherwise nobody is past its first step, no output was
 *                   touched: all drop it, and the group is replaced (SERRY_REPEAT).
 *
 * Replacing is done as in split.c: in the second exchange the first giver has made the new group and
 * tells where; each gives memory to its region and tells in a third that it has. If the set of givers
 * shrinks between two exchanges, all begin again. In the new group the ranks are the same, and steps
 * begin at 1. Present in it is who was present in the old one, and the replacements; who did not come
 * is sealed in it from the beginning, so that the next operation finds it missing and does what the
 * policy says.
 *
 * serry_agree and serry_shrink use the same control words. A member that meets, and one that agrees,
 * find a mismatch, alike: who agrees tries again, who meets puts it off to its next operation. */
#include "extent.h"
#include "operation.h"
#include "record.h"
#include "slot.h"
#include "word.h"

enum { PHASE_POSITIONS = 1, PHASE_MEMORY, PHASE_READY };

#define DECIDED UINT64_C(1) /* beside an offset, which is one of a page */

enum { POSITION_PASSED = 1, POSITION_BEGUN = 2, POSITION_DROPPED = 4, POSITION_SHIFT = 3 };

/* ---- positions --------------------------------------------------------------------------------- */

static uint64_t position(const shm_member *m)
{
    bool begun = m->open && (m->published || m->passed), passed = m->open && m->passed;

    return m->operations << POSITION_SHIFT | (m->dropped ? POSITION_DROPPED : 0) |
           (begun ? POSITION_BEGUN : 0) | (passed ? POSITION_PASSED : 0);
}

static uint64_t completed(uint64_t position)
{
    return position >> POSITION_SHIFT;
}

static uint64_t reached(uint64_t position)
{
    return completed(position) + (position & POSITION_BEGUN ? 1 : 0);
}

static uint64_t decided(uint64_t position)
{
    bool counts = (position & POSITION_PASSED) != 0 && (position & POSITION_DROPPED) == 0;

    return completed(position) + (counts ? 1 : 0);
}

enum verdict { VERDICT_EXCLUDED, VERDICT_FINISH, VERDICT_AGAIN, VERDICT_REPLACE };

static enum verdict judge(const shm_member *m)
{
    const shm_member *c = m->control;
    const uint64_t *all = m->meeting.all;
    uint64_t own = m->meeting.own[0], last = 0;
    bool finish = false, dropped = false;

    for (int i = 0; i < c->alive_count; i++) {
        uint64_t p = all[2 * c->alive[i]];
        last = decided(p) > last ? decided(p) : last;
    }
    for (int i = 0; i < c->alive_count; i++) {
        uint64_t p = all[2 * c->alive[i]];
        dropped |= (p & POSITION_DROPPED) != 0 && completed(p) + 1 == last;
        finish |= completed(p) < last && reached(p) >= last;
    }
    if (reached(own) < last)
        return VERDICT_EXCLUDED;
    if (finish && !dropped)
        return completed(own) < last ? VERDICT_FINISH : VERDICT_AGAIN;
    return VERDICT_REPLACE;
}

static void begin(shm_member *m)
{
    m->meeting.phase = PHASE_POSITIONS;
    m->meeting.own[0] = position(m);
    m->meeting.own[1] = m->meeting.vote;
    m->meeting.code = SERRY_OK;
    m->meeting.offset = 0;
    m->meeting.made = false; /* what an error left behind goes with the arena */
    serry_error_begin(&m->meeting.error, "meet", m->operations + 1, m->group.rank);
}

static void count_votes(shm_member *m)
{
    const shm_member *c = m->control;

    m->meeting.votes = 0;
    for (int i = 0; i < c->alive_count; i++)
        m->meeting.votes |= m->meeting.all[2 * c->alive[i] + 1];
}

/* Is the operation that this member has open decided for all, by now? */
static bool sees_decided(const shm_member *m)
{
    bool open = m->open && m->published;

    for (int i = 0; i < m->alive_count && open; i++) {
        const _Atomic uint64_t *word = &group_cell_of(&m->group, m->alive[i])->word;
        open = word_decided(atomic_load_explicit(word, memory_order_acquire), m->step);
    }
    return open;
}

/* ---- the new group ----------------------------------------------------------------------------- */

static bool gives(const shm_member *m, int rank)
{
    return serry_rank_set_has(&m->control->alive_set, rank);
}

/* The slot of a living replacement of a rank that does not give; -1: there is none. */
static int applicant(const shm_member *m, int rank)
{
    const shm_arena *arena = m->group.arena;
    uint32_t said = atomic_load_explicit(&arena->header->applicant[rank], memory_order_seq_cst);

    if (!m->whole || gives(m, rank) || said == 0 || said > (uint32_t)arena_slots_used(arena) ||
        said - 1 == m->group.header->slot[rank] || !slot_is_alive(&arena->slots[said - 1]))
        return -1;
    return (int)said - 1;
}

static group_plan plan_group(const shm_member *m)
{
    group_plan plan = {.size = m->group.size,
                       .policy = m->policy,
                       .variant = m->variant,
                       .operations = m->operations,
                       .epoch = m->epoch};
    bool joined = false;

    for (int r = 0; r < plan.size; r++) {
        int newcomer = applicant(m, r);
        plan.slot[r] = m->group.header->slot[r];
        if (newcomer >= 0)
            group_plan_member(&plan, r, newcomer);
        else if (serry_rank_set_has(&m->alive_set, r))
            group_plan_member(&plan, r, plan.slot[r]);
        joined |= newcomer >= 0;
    }
    if (joined) {
        plan.epoch++;
        plan.operations += plan.policy == SERRY_REPORT; /* the one that tells of it */
    }
    return plan;
}

/* The first giver makes the group, and gives memory to the regions of those that will not come to do
 * it themselves. */
static int make_group(shm_member *m)
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
        if (serry_rank_set_has(&plan.present, r) && !gives(m, r))
            rc = group_settle(arena, m->meeting.offset, plan.size, r, error);
    return rc;
}

static bool is_maker(const shm_member *m)
{
    return m->control->alive[0] == m->group.rank;
}

/* Only its maker gives it back: the last threads of a killed one may still write there, so its group
 * goes with the arena. */
static void unmake_group(shm_member *m)
{
    uint64_t unused;

    if (m->meeting.offset != 0 && m->meeting.made)
        extent_give(m->group.arena, EXTENT_OF_GROUP, m->meeting.offset, &unused);
    m->meeting.offset = 0;
    m->meeting.made = false;
}

/* The set of givers has shrunk. Once all knew where the group is, one that is sealed since may still be
 * giving memory to its region there: it is given back when all have left or are gone. */
static void abandon_group(shm_member *m)
{
    if (m->meeting.phase < PHASE_READY || m->meeting.offset == 0) {
        unmake_group(m);
        return;
    }
    group_abandon(m->group.arena, m->meeting.offset, m->group.rank);
    for (int r = 0; r < m->group.size && m->meeting.made; r++)
        if (!serry_rank_set_has(&m->meeting.givers, r))
            group_abandon(m->group.arena, m->meeting.offset, r); /* it never knew of it */
    m->meeting.offset = 0;
    m->meeting.made = false;
}

static int settle(shm_member *m)
{
    return group_settle(m->group.arena, m->meeting.offset, m->group.size, m->group.rank,
                        &m->meeting.error);
}

/* ---- entering it ------------------------------------------------------------------------------- */

static void invite(arena_slot *slot, uint64_t offset)
{
    uint64_t nobody = 0;

    atomic_compare_exchange_strong_explicit(&slot->invited, &nobody, offset, memory_order_seq_cst,
                                            memory_order_relaxed);
    wait_wake(&slot->invited);
}

/* Everybody says the same of the world; who dies here leaves the rest to the others. A sleeper may say it
 * when the world is another one already: only what the old group knows is replaced. */
static void announce(shm_member *m, const shm_group *old)
{
    arena_header *header = m->group.arena->header;
    uint64_t world = old->offset;

    if (!m->news) /* else nobody has told of the ones before, and all tell of all together */
        m->joined = (serry_rank_set){{0}};
    for (int r = 0; r < m->group.size; r++) {
        uint32_t slot = m->group.header->slot[r], before = old->header->slot[r];
        if (slot == before)
            continue;
        serry_rank_set_add(&m->joined, r);
        m->news = true;
        atomic_compare_exchange_strong_explicit(&header->holder[r], &before, slot,
                                                memory_order_seq_cst, memory_order_relaxed);
    }
    if (m->whole)
        atomic_compare_exchange_strong_explicit(&header->world, &world, m->group.offset,
                                                memory_order_seq_cst, memory_order_relaxed);
    for (int r = 0; r < m->group.size; r++)
        if (m->group.header->slot[r] != old->header->slot[r])
            invite(&m->group.arena->slots[m->group.header->slot[r]], m->group.offset);
}

/* Of those that did not come, and are not replaced. */
static void seal_missing(const shm_member *m, const shm_group *old, const serry_rank_set *givers)
{
    const group_header *header = m->group.header;

    for (int r = 0; r < m->group.size; r++)
        if (serry_rank_set_has(&header->present, r) && !serry_rank_set_has(givers, r) &&
            header->slot[r] == old->header->slot[r])
            group_seal_member(&m->group, r);
}

static int enter_group(shm_member *m)
{
    shm_group old = m->group, next;
    serry_rank_set givers = m->control->alive_set;
    int rc = group_open(&next, old.arena, m->meeting.offset, old.size, old.rank, &m->meeting.error);

    if (rc != SERRY_OK)
        return rc;
    pthread_mutex_lock(&m->view); /* the old group may go as soon as this rank has left it */
    m->group = next;
    m->control->group = group_control(&m->group);
    operation_enter_group(m);
    operation_enter_group(m->control);
    pthread_mutex_unlock(&m->view);
    m->epoch = m->group.header->epoch;
    m->plan = m->control->plan = arena_plan_waiting(old.arena);
    seal_missing(m, &old, &givers);
    group_seal_dead(&m->group);
    announce(m, &old); /* now newcomers may come */
    if (group_called(&old) == GROUP_CALL_REVOKED)
        group_call_all(&m->group, GROUP_CALL_REVOKED);
    group_leave(&old);
    return SERRY_OK;
}

/* ---- the meeting ------------------------------------------------------------------------------- */

static int exchange(shm_member *m, serry_error *error)
{
    shm_member *c = m->control;
    serry_call call = {.kind = SERRY_KIND_MEET,
                       .dtype = SERRY_U64,
                       .count = 2,
                       .send = m->meeting.own,
                       .recv = m->meeting.all};

    /* Who has said that he is ready goes where the others go: none of them may be kept from it. */
    c->hears = m->meeting.phase == PHASE_READY ? GROUP_CALLS : GROUP_CALL_REVOKED;
    int rc = operation_run(c, &call, error);
    c->hears = GROUP_CALLS;
    return rc;
}

/* Nobody comes out of the meeting with anything changed; it is put off to the end of the operation. */
static int put_off(shm_member *m, int *repeat)
{
    m->meeting.phase = 0;
    m->meeting.votes = 0;
    m->deaf = true;
    m->hears = GROUP_CALL_REVOKED;
    *repeat = SERRY_FINISH;
    return SERRY_OK;
}

/* After all it was decided. Who has not contributed to it is sealed. */
static int finish_first(shm_member *m, int *repeat, serry_error *error)
{
    unmake_group(m);
    if (m->open)
        return put_off(m, repeat);
    m->error = error;
    return operation_fail_excluded(m);
}

static void say(shm_member *m, uint64_t first, int code)
{
    m->meeting.own[0] = first;
    m->meeting.own[1] = (uint64_t)(int64_t)code;
}

/* What follows when the exchange of a phase has ended well. OPERATION_GOES_ON: with the next one. */
static int advance(shm_member *m, int *repeat, serry_error *error)
{
    const shm_member *c = m->control;
    const uint64_t *all = m->meeting.all;

    switch (m->meeting.phase) {
    case PHASE_POSITIONS:
        count_votes(m);
        switch (judge(m)) {
        case VERDICT_EXCLUDED:
            m->error = error;
            return operation_fail_excluded(m);
        case VERDICT_FINISH:
            return put_off(m, repeat);
        case VERDICT_AGAIN:
            return OPERATION_GOES_ON;
        case VERDICT_REPLACE:
            if (word_second_look(&m->own->word))
                break;
            m->error = error;
            return operation_fail_excluded(m);
        }
        m->meeting.alive_count = c->alive_count;
        m->meeting.givers = c->alive_set;
        m->meeting.phase = PHASE_MEMORY;
        m->meeting.offset = 0;
        m->meeting.code = is_maker(m) ? make_group(m) : SERRY_OK;
        say(m, m->meeting.offset | (sees_decided(m) ? DECIDED : 0), m->meeting.code);
        return OPERATION_GOES_ON;
    case PHASE_MEMORY:
        for (int i = 0; i < c->alive_count; i++)
            if (all[2 * c->alive[i]] & DECIDED)
                return finish_first(m, repeat, error);
        m->meeting.offset = all[2 * c->alive[0]];
        m->meeting.code = (int)(int64_t)all[2 * c->alive[0] + 1];
        if (m->meeting.code == SERRY_OK)
            m->meeting.code = settle(m);
        m->meeting.phase = PHASE_READY;
        say(m, 0, m->meeting.code);
        return OPERATION_GOES_ON;
    default:
        for (int i = 0; i < c->alive_count && m->meeting.code == SERRY_OK; i++)
            m->meeting.code = (int)(int64_t)all[2 * c->alive[i] + 1];
        return SERRY_OK;
    }
}

/* All have said that they are ready, or that they cannot be. */
static int finish(shm_member *m, int *repeat, serry_error *error)
{
    int rc = m->meeting.code == SERRY_OK ? enter_group(m) : m->meeting.code;

    if (rc != SERRY_OK)
        unmake_group(m);
    m->meeting.phase = 0;
    m->meeting.made = false;
    *repeat = SERRY_REPEAT;
    if (rc == SERRY_OK)
        return SERRY_OK;
    if (m->meeting.error.error == SERRY_OK)
        serry_fail(&m->meeting.error, rc,
                   "another rank could not get memory to go on with; give the arena more with "
                   "SERRY_POOL (or pool_bytes)");
    *error = m->meeting.error;
    return rc;
}

int meeting_run(shm_member *m, uint64_t vote, uint64_t *votes, int *repeat, serry_error *error)
{
    int rc;

    if (m->meeting.phase == 0) {
        group_call_all(&m->group, GROUP_CALL_MEETING);
        m->meeting.vote = vote;
        begin(m);
    }
    do {
        rc = exchange(m, error);
        if (rc == SERRY_ERR_RANK_MISMATCH && m->control->met) {
            abandon_group(m);
            *votes = 0;
            return put_off(m, repeat);
        }
        if (!wait_is_over(rc) || rc == SERRY_ERR_PENDING)
            return rc;
        if (rc == SERRY_OK && m->meeting.phase > PHASE_POSITIONS &&
            m->control->alive_count != m->meeting.alive_count) {
            abandon_group(m);
            begin(m);
            rc = OPERATION_GOES_ON;
        } else if (rc == SERRY_OK) {
            rc = advance(m, repeat, error);
            if (rc == SERRY_OK && m->meeting.phase == PHASE_READY)
                rc = finish(m, repeat, error);
        }
    } while (rc == OPERATION_GOES_ON);
    *votes = m->meeting.votes;
    if (rc != SERRY_OK)
        m->meeting.phase = 0;
    return rc;
}

int meeting_clear(shm_member *m, serry_error *error)
{
    shm_member *c = m->control;
    uint64_t votes;
    int repeat, rc;

    if (!c->open || c->call.kind != SERRY_KIND_MEET)
        return SERRY_OK;
    if (m->meeting.phase == PHASE_READY) {
        rc = meeting_run(m, 0, &votes, &repeat, error);
        return wait_is_over(rc) ? SERRY_OK : rc;
    }
    if (group_called(&m->group) == GROUP_CALL_REVOKED) {
        c->open = false;
        m->meeting.phase = 0;
    }
    return SERRY_OK;
}
