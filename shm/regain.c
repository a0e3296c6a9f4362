/* regain.c - see regain.h. */
#include "regain.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "extent.h"
#include "record.h"
#include "slot.h"
#include "word.h"

#define NAP_NS 20000000 /* between two looks; who enters the new group wakes most sleeps before */

enum { TRIES = 500 }; /* to look through the groups, 20 ms each */

/* What a rank asks for: a part, by its number, and a place in it. */
static uint64_t request(uint32_t communicator, int rank)
{
    return (uint64_t)communicator << 32 | ((uint32_t)rank + 1);
}

/* ---- members of the part ------------------------------------------------------------------------ */

int regain_applicant(const shm_group *group, int rank)
{
    const shm_arena *arena = group->arena;
    uint64_t place = request(group->header->communicator, rank);

    for (uint32_t r = 0; r < arena->header->ranks; r++) {
        uint32_t slot = atomic_load_explicit(&arena->header->holder[r], memory_order_acquire);
        if (slot < SHM_SLOTS &&
            (slot != group->header->slot[rank] ||
             group_has_left(group->header, rank) == GROUP_NEVER) &&
            slot_is_alive(&arena->slots[slot]) &&
            atomic_load_explicit(&arena->slots[slot].asks, memory_order_seq_cst) == place)
            return (int)slot;
    }
    return -1;
}

void regain_look_again(const shm_group *old, uint64_t offset)
{
    shm_group group;

    if (!group_view(old->arena, offset, &group))
        return;
    for (int r = 0; r < group.size; r++) {
        const arena_slot *slot = &old->arena->slots[group.header->slot[r]];
        uint64_t place = request(group.header->communicator, r);
        bool wants = serry_rank_set_has(&group.header->joined, r)
                         ? group_has_left(group.header, r) != GROUP_NEVER &&
                               atomic_load_explicit(&slot->asks, memory_order_seq_cst) == place
                         : group_has_left(old->header, r) != GROUP_NEVER;
        if (wants || !group_is_settled(&group, r))
            continue;
        group_seal_member(&group, r);
        group_abandon(old->arena, offset, r);
    }
}

/* ---- the replacement ---------------------------------------------------------------------------- */

/* One look through all groups. */
typedef struct search {
    uint32_t parent, ordinal; /* which part of which communicator */
    int origin;               /* this rank there */
    uint32_t slot;

    bool found;
    bool left, inside; /* its predecessor has left it; this rank is in it */
    bool living;       /* somebody is left in it */
    shm_group group;   /* the latest that somebody has entered */
    int rank;          /* in it */
} search;

/* This rank's place, also where its predecessor has left it; -1: there is none. */
static int place_in(const group_header *header, int size, int origin)
{
    for (int r = 0; r < size; r++)
        if (header->origin[r] == origin)
            return r;
    return -1;
}

static bool is_later(const group_header *a, const group_header *b)
{
    return a->communicator != b->communicator ? a->communicator > b->communicator
                                              : a->version > b->version;
}

/* Is anybody in it who has a say? */
static bool has_living(const shm_group *group, int but)
{
    for (int r = 0; r < group->size; r++)
        if (r != but && serry_rank_set_has(&group->header->present, r) &&
            group_has_left(group->header, r) == GROUP_STAYS &&
            slot_is_alive(&group->arena->slots[group->header->slot[r] % SHM_SLOTS]))
            return true;
    return false;
}

static void look_at(shm_arena *arena, uint64_t offset, void *argument)
{
    search *s = argument;
    shm_group group;

    if (!group_view(arena, offset, &group))
        return;
    const group_header *header = group.header;
    int rank = place_in(header, group.size, s->origin);
    if (header->parent != s->parent || header->ordinal != s->ordinal || rank < 0 ||
        atomic_load_explicit(&header->entered, memory_order_seq_cst) == 0 ||
        (s->found && !is_later(header, s->group.header)))
        return;
    bool present = serry_rank_set_has(&header->present, rank);
    enum group_left left = group_has_left(header, rank);
    s->found = true;
    s->group = group;
    s->rank = rank;
    s->inside = present && header->slot[rank] == s->slot && left != GROUP_NEVER;
    s->left = present && left == GROUP_LEFT;
    s->living = has_living(&group, rank);
}

/* With the groups kept from going away: they all hear of it. */
static void look_and_call(shm_arena *arena, uint64_t offset, void *argument)
{
    search *s = argument;

    look_at(arena, offset, s);
    if (s->found && s->group.offset == offset && !s->inside && !s->left)
        group_call_all(&s->group, GROUP_CALL_MEETING);
}

static bool look_once(shm_member *m, search *s, int index, bool call)
{
    *s = (search){.parent = m->group.header->communicator,
                  .ordinal = (uint32_t)index,
                  .origin = m->group.rank,
                  .slot = m->group.header->slot[m->group.rank]};
    return extent_each_group(m->group.arena, call ? look_and_call : look_at, s);
}

/* Who entered a later group and died while this rank was looking has left that to be seen now, and
 * somebody may live in it. */
static bool look(shm_member *m, search *s, int index, bool call)
{
    bool looked = look_once(m, s, index, call);

    return looked && s->found && !s->living ? look_once(m, s, index, call) : looked;
}

static int check(shm_member *m, const search *s, int index, serry_error *error)
{
    m->error = error;
    if (m->excluded || !word_second_look(&m->own->word))
        return operation_fail_excluded(m);
    if (group_called(&m->group) == GROUP_CALL_REVOKED)
        return operation_fail_revoked(m);
    if ((uint32_t)index >= m->parts)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "rejoin_part: there is no communicator number %d; %u have been made from "
                          "this one",
                          index, m->parts);
    if (!s->found || s->left)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "rejoin_part: communicator number %d is finalized, or rank %d was never "
                          "in it",
                          index, m->group.rank);
    if (s->inside)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "rejoin_part: rank %d is in communicator number %d already",
                          m->group.rank, index);
    return SERRY_OK;
}

/* While it has not been let in. */
static int check_others(const search *s, int index, serry_error *error)
{
    if (!s->living)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "rejoin_part: nobody is left in communicator number %d", index);
    if (group_called(&s->group) == GROUP_CALL_REVOKED)
        return serry_fail(error, SERRY_ERR_REVOKED,
                          "rejoin_part: communicator number %d was revoked", index);
    return SERRY_OK;
}

/* Until somebody has entered the new group, but not for long. */
static int nap(shm_member *m, _Atomic uint64_t *asks)
{
    const struct timespec most = {0, NAP_NS};
    uint32_t seen = (uint32_t)atomic_load_explicit(asks, memory_order_relaxed);
    serry_interest *interest = m->limit.given->poll;

    if (interest == NULL) {
        syscall(SYS_futex, asks, FUTEX_WAIT, seen, &most, NULL, 0);
        return SERRY_OK;
    }
    *interest = (serry_interest){.sleep = interest->sleep,
                                 .word = (uint32_t *)(void *)asks,
                                 .value = seen,
                                 .at_ns = wait_now_ns() + NAP_NS};
    m->limit.polled = true;
    return SERRY_ERR_AGAIN;
}

static arena_slot *own_slot(const shm_member *m)
{
    return &m->group.arena->slots[m->group.header->slot[m->group.rank]];
}

static int check_limit(shm_member *m, int index, serry_error *error)
{
    int code = SERRY_OK;

    wait_ask(&m->limit);
    if (m->limit.token != NULL)
        code = (int)serry_token_state(m->limit.token);
    if (code == SERRY_ERR_CANCELLED)
        return serry_fail(error, code, "rejoin_part was cancelled while it waited");
    if (code == SERRY_OK && !wait_expired(&m->limit))
        return SERRY_OK;
    return serry_fail(error, SERRY_ERR_TIMEOUT,
                      "the others did not come to an operation on communicator number %d, so rank "
                      "%d was not admitted",
                      index, m->group.rank);
}

static int await_admission(shm_member *m, int index, search *s, serry_error *error)
{
    int rc;

    for (;;) {
        bool looked = look(m, s, index, true);
        if (looked && s->found && s->inside)
            return SERRY_OK;
        if (looked && (rc = check(m, s, index, error)) != SERRY_OK)
            return rc;
        if (looked && (rc = check_others(s, index, error)) != SERRY_OK)
            return rc;
        if ((rc = check_limit(m, index, error)) != SERRY_OK)
            return rc;
        if ((rc = nap(m, &own_slot(m)->asks)) != SERRY_OK)
            return rc;
    }
}

/* ---- giving up ----------------------------------------------------------------------------------- */

typedef struct place {
    uint32_t communicator, slot;
    bool found; /* in a group, by this look */
} place;

static void seal_place(shm_arena *arena, uint64_t offset, void *argument)
{
    place *p = argument;
    shm_group group;

    if (!group_view(arena, offset, &group) || group.header->communicator != p->communicator)
        return;
    for (int r = 0; r < group.size; r++) {
        if (group.header->slot[r] != p->slot || group_has_left(group.header, r) != GROUP_STAYS)
            continue;
        group_abandon(arena, offset, r);
        if (group_is_settled(&group, r))
            group_seal_member(&group, r);
        p->found = true;
    }
}

/* A group that is being made has no memory for this rank's words yet, so it is given up first: who makes it
 * looks for that once there is (regain_look_again), and one of both sees what the other has written.
 *
 * Until there is no more to find: a group may be replaced by one with this rank in it while its place
 * in the old one is being given up. The table is not locked for long, unless somebody was stopped who
 * holds the lock. */
static void withdraw(shm_member *m, uint32_t communicator)
{
    place own = {.communicator = communicator, .slot = m->group.header->slot[m->group.rank]};
    int tries = 0;

    atomic_store_explicit(&own_slot(m)->asks, 0, memory_order_seq_cst);
    do
        own.found = false;
    while ((!extent_each_group(m->group.arena, seal_place, &own) || own.found) && ++tries < TRIES);
}

/* ---- from beginning to end ----------------------------------------------------------------------- */

static int ask(shm_member *m, int index, serry_error *error)
{
    uint64_t nothing = 0;
    search s;
    int rc;

    while (!look(m, &s, index, false))
        if ((rc = check_limit(m, index, error)) != SERRY_OK)
            return rc;
    if ((rc = check(m, &s, index, error)) != SERRY_OK ||
        (rc = check_others(&s, index, error)) != SERRY_OK)
        return rc;
    if (!atomic_compare_exchange_strong_explicit(&own_slot(m)->asks, &nothing,
                                                 request(s.group.header->communicator, s.rank),
                                                 memory_order_seq_cst, memory_order_relaxed))
        return serry_fail(error, SERRY_ERR_PENDING,
                          "rejoin_part: another thread of rank %d rejoins a part now",
                          m->group.rank);
    m->asks = true;
    return SERRY_OK;
}

static int enter(const shm_member *m, const search *s, shm_member **part, serry_error *error)
{
    *part = member_new(m->group.arena, s->group.offset, s->group.size, s->rank,
                       arena_plan_waiting(m->group.arena), error);
    if (*part == NULL)
        return error->error;
    group_seal_dead(&(*part)->group); /* who died while this rank entered */
    return SERRY_OK;
}

int regain_run(shm_member *m, int index, shm_member **part, serry_error *error)
{
    search s;
    int rc = SERRY_OK;

    *part = NULL;
    serry_error_begin(error, "rejoin_part", 0, m->group.rank);
    if (!m->asks)
        rc = ask(m, index, error);
    if (rc != SERRY_OK)
        return rc;
    rc = await_admission(m, index, &s, error);
    if (rc == SERRY_ERR_AGAIN)
        return rc;
    m->asks = false;
    if (rc != SERRY_OK) {
        withdraw(m, (uint32_t)(atomic_load(&own_slot(m)->asks) >> 32));
        return rc;
    }
    atomic_store_explicit(&own_slot(m)->asks, 0, memory_order_seq_cst);
    return enter(m, &s, part, error);
}
