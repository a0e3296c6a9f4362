/* backend.c - the shared-memory backend's table, and the life of a member. */
#include <serry/backend.h>

#include <stdlib.h>
#include <sys/mman.h>

#include "channel.h"
#include "extent.h"
#include "lifeline.h"
#include "openmp.h"
#include "operation.h"
#include "record.h"
#include "regain.h"
#include "vitals.h"
#include "word.h"

enum { LEAVE_MS = 10000 }; /* for others to end, or go on with, what they write */

/* serry_member is what the floor above calls a shm_member. */
static shm_member *own(serry_member *member)
{
    return (shm_member *)(void *)member;
}

static const shm_member *own_const(const serry_member *member)
{
    return (const shm_member *)(const void *)member;
}

/* This rank's number in the job. */
static uint32_t slot_of(const shm_member *m)
{
    return m->group.header->slot[m->group.rank];
}

/* This rank in one set of cells of a group. */
static shm_member *member_in(const shm_group *group, wait_plan plan, serry_error *error)
{
    shm_member *m = calloc(1, sizeof(*m));

    if (m == NULL) {
        serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory for a communicator");
        return NULL;
    }
    m->group = *group;
    pthread_mutex_init(&m->view, NULL);
    m->plan = plan;
    m->hears = GROUP_CALL_MEETING;
    m->policy = (serry_policy)group->header->policy;
    m->variant = group->header->variant;
    m->epoch = group->header->epoch;
    m->parts = group->header->parts;
    if (operation_setup(m, error) == SERRY_OK)
        return m;
    pthread_mutex_destroy(&m->view);
    free(m);
    return NULL;
}

static void member_free(shm_member *m)
{
    if (m == NULL)
        return;
    member_free(m->control);
    pthread_mutex_destroy(&m->view);
    channel_free(m);
    operation_cleanup(m);
    free(m);
}

shm_member *member_new(shm_arena *arena, uint64_t offset, int size, int rank, wait_plan plan,
                       serry_error *error)
{
    shm_group group, control;

    if (group_open(&group, arena, offset, size, rank, error) != SERRY_OK)
        return NULL;
    control = group_control(&group);
    shm_member *m = member_in(&group, plan, error);
    if (m != NULL) {
        m->control = member_in(&control, plan, error);
        if (m->control != NULL) {
            m->control->owner = m;
            m->control->policy = SERRY_EXCLUDE;
            m->control->hears = GROUP_CALLS;
            m->control->variant = 0;
            return m;
        }
    }
    member_free(m);
    group_close(&group); /* the others learn of it at their next operation */
    return NULL;
}

/* Its life lock lies in the arena, which must not go while a living thread holds it. */
static int check_thread(const shm_member *m, serry_error *error)
{
    shm_arena *arena = m->group.arena;
    uint32_t slot = slot_of(m);

    if (arena->kind != SERRY_THREADS || !arena_is_last(arena, (int)slot) ||
        !lifeline_is_elsewhere(&arena->slots[slot].life))
        return SERRY_OK;
    serry_error_begin(error, "finalize", 0, m->group.rank);
    return serry_fail(error, SERRY_ERR_INVALID,
                      "finalize: rank %d joined in another thread, which still runs; finalize it "
                      "there",
                      m->group.rank);
}

/* Nobody begins any more to write into the result of an operation that is left open, once the own word is
 * sealed; who is at it goes on for a moment. */
static void leave_open(shm_member *m)
{
    static const serry_limit limit = {.timeout_ms = LEAVE_MS};
    serry_error error;

    wait_begin(&m->limit, &limit);
    m->error = &error;
    (void)operation_leave(m);
}

/* Others, which took it for dead, may still read what it has in the arena. */
static bool is_sealed(const shm_member *m)
{
    return m->excluded || !word_second_look(&m->own->word);
}

static int shm_close(serry_member *member, serry_error *error)
{
    shm_member *m = own(member);

    if (m->joining != NULL) {
        arena_give_up_joining(m->joining);
        free(m);
        return SERRY_OK;
    }
    int rc = check_thread(m, error);
    if (rc != SERRY_OK)
        return rc;
    bool sealed = is_sealed(m);
    group_seal_member(&m->group, m->group.rank); /* first: messages that lie there are not sent */
    leave_open(m);
    room_close(m);
    bool *read_on = &m->group.arena->read_on[slot_of(m)];
    *read_on |= sealed || (m->open && (m->published || m->passed)); /* it takes part in that one */
    if (m->whole && !*read_on)
        extent_give_all(m->group.arena, slot_of(m));
    shm_group group = m->group;
    if (m->whole)
        openmp_end();
    member_free(m);
    group_close(&group);
    return SERRY_OK;
}

static void shm_forget(serry_member *member)
{
    shm_member *m = own(member);

    if (m->joining == NULL) {
        member_free(m);
        return;
    }
    arena_forget_joining(m->joining);
    free(m);
}

static int shm_run(serry_member *member, const serry_call *call, const serry_limit *limit,
                   serry_error *error)
{
    shm_member *m = own(member);

    if (!m->open) /* else others are reading there, and nothing will be written */
        word_prepare(&m->own->word);
    wait_begin(&m->limit, limit);
    return operation_run(m, call, error);
}

static int shm_run_many(serry_member *member, const serry_call *const *calls, int count, int *done,
                        const serry_limit *limit, serry_error *error)
{
    shm_member *m = own(member);

    wait_begin(&m->limit, limit);
    return operation_run_many(m, calls, count, done, error);
}

static int shm_split(serry_member *member, int colour, int key, const serry_limit *limit,
                     serry_member **part, serry_error *error)
{
    shm_member *m = own(member), *new_member;

    wait_begin(&m->limit, limit);
    int rc = split_run(m, colour, key, &new_member, error);
    *part = (serry_member *)(void *)new_member;
    return rc;
}

/* ---- membership -------------------------------------------------------------------------------- */

/* Before members find to each other on their control words: what the revocation has ended is theirs again. */
static int clear(shm_member *m, const serry_limit *limit, serry_error *error)
{
    if (group_called(&m->group) == GROUP_CALL_REVOKED) {
        wait_begin(&m->limit, limit);
        m->error = error;
        int rc = operation_leave(m);
        if (rc != SERRY_OK)
            return rc;
    }
    return meeting_clear(m, error);
}

static int shm_set_policy(serry_member *member, serry_policy policy, serry_error *error)
{
    (void)error;
    own(member)->policy = policy;
    return SERRY_OK;
}

static int shm_set_variant(serry_member *member, unsigned variant, serry_error *error)
{
    shm_member *m = own(member);

    if (variant < SHM_VARIANTS || (variant >= VARIANT_LEVELS && variant < SHM_VARIANTS_END)) {
        m->variant = variant == VARIANT_LEVELS ? VARIANT_CHOOSE : variant;
        m->past_caches = variant == VARIANT_STREAM;
        if (m->past_caches)
            m->variant = VARIANT_SPREAD;
        levels_force(m, variant == VARIANT_LEVELS);
        return SERRY_OK;
    }
    serry_error_begin(error, "set_variant", 0, m->group.rank);
    return serry_fail(error, SERRY_ERR_UNSUPPORTED, "there is no algorithm number %u", variant);
}

static void shm_failed(const serry_member *member, serry_rank_set *failed)
{
    const shm_group *group = &own_const(member)->group;

    *failed = (serry_rank_set){{0}};
    for (int r = 0; r < group->size; r++)
        if (!group_is_settled(group, r) ||
            (atomic_load_explicit(&group_cell_of(group, r)->word, memory_order_relaxed) &
             WORD_SEALED))
            serry_rank_set_add(failed, r);
}

static int shm_revoke(serry_member *member, serry_error *error)
{
    shm_member *m = own(member);
    int rc = SERRY_OK;

    pthread_mutex_lock(&m->view);
    if (m->excluded || !word_second_look(&m->own->word)) { /* it has no say any more */
        m->error = error;
        rc = operation_fail_excluded(m);
    } else {
        group_call_all(&m->group, GROUP_CALL_REVOKED);
    }
    pthread_mutex_unlock(&m->view);
    return rc;
}

static int shm_agree(serry_member *member, serry_op op, uint64_t *value, const serry_limit *limit,
                     serry_error *error)
{
    shm_member *m = own(member)->control;
    serry_call call = {.kind = SERRY_KIND_ALLREDUCE,
                       .dtype = SERRY_U64,
                       .op = op,
                       .count = 1,
                       .send = value,
                       .recv = value};

    wait_begin(&m->limit, limit);
    int rc = clear(own(member), limit, error);
    if (rc != SERRY_OK)
        return rc;
    while ((rc = operation_run(m, &call, error)) == SERRY_ERR_RANK_MISMATCH && m->met)
        meeting_put_off(m); /* the others were on their way to one */
    return rc;
}

static int shm_shrink(serry_member *member, const serry_limit *limit, serry_member **rest,
                      serry_error *error)
{
    shm_member *m = own(member)->control, *new_member;

    wait_begin(&m->limit, limit);
    *rest = NULL;
    int rc = clear(own(member), limit, error);
    if (rc != SERRY_OK)
        return rc;
    rc = split_run(m, 0, m->group.rank, &new_member, error);
    if (new_member != NULL)
        new_member->policy = own(member)->policy == SERRY_WAIT ? SERRY_REPORT : own(member)->policy;
    *rest = (serry_member *)(void *)new_member;
    return rc;
}

static int shm_regain(serry_member *member, int index, const serry_limit *limit,
                      serry_member **part, serry_error *error)
{
    shm_member *m = own(member), *new_member;

    wait_begin(&m->limit, limit);
    int rc = regain_run(m, index, &new_member, error);
    *part = (serry_member *)(void *)new_member;
    return rc;
}

static int shm_meet(serry_member *member, uint64_t vote, const serry_limit *limit, uint64_t *votes,
                    int *repeat, serry_error *error)
{
    shm_member *m = own(member);

    wait_begin(&m->control->limit, limit);
    m->limit = m->control->limit;
    return meeting_run(m, vote, votes, repeat, error);
}

static int shm_called(serry_member *member)
{
    switch (group_called(&own(member)->group)) {
    case GROUP_CALL_MEETING:
        return SERRY_ERR_MEETING;
    case GROUP_CALL_REVOKED:
        return SERRY_ERR_REVOKED;
    default:
        return SERRY_OK;
    }
}

static uint64_t shm_told(const serry_member *member)
{
    return own_const(member)->group.header->votes;
}

/* ---- messages ---------------------------------------------------------------------------------- */

static int shm_put(serry_member *member, int dest, const serry_envelope *envelope, const void *data,
                   uint64_t *ticket, serry_error *error)
{
    return channel_put(own(member), dest, envelope, data, ticket, error);
}

static int shm_settled(serry_member *member, int dest, uint64_t ticket, serry_error *error)
{
    return channel_settled(own(member), dest, ticket, error);
}

static int shm_withdraw(serry_member *member, int dest, uint64_t ticket)
{
    return channel_withdraw(own(member), dest, ticket);
}

static int shm_peek(serry_member *member, int source, serry_envelope *envelope, serry_error *error)
{
    return channel_peek(own(member), source, envelope, error);
}

static int shm_take(serry_member *member, int source, void *data, serry_error *error)
{
    return channel_take(own(member), source, data, error);
}

static void shm_listen(serry_member *member, serry_interest *interest)
{
    channel_listen(own(member), interest);
}

/* ---- memory ----------------------------------------------------------------------------------- */

static void *shm_alloc(serry_member *member, size_t bytes, serry_error *error)
{
    shm_member *m = own(member);
    serry_error failed;
    uint64_t offset;

    serry_error_begin(&failed, "alloc", 0, m->group.rank);
    if (extent_take(m->group.arena, slot_of(m), bytes, true, &offset, &failed) != SERRY_OK) {
        *error = failed;
        return NULL;
    }
    void *memory = m->group.arena->base + offset;
    bytes = bytes == 0 ? 1 : bytes; /* as any shared memory of a program: */
    madvise(memory, bytes, MADV_DOFORK);
    madvise(memory, bytes, MADV_DODUMP);
    return memory;
}

static int shm_free(serry_member *member, void *memory, serry_error *error)
{
    shm_member *m = own(member);
    uintptr_t base = (uintptr_t)m->group.arena->base, address = (uintptr_t)memory;
    bool inside = address >= base && address - base < m->group.arena->bytes;
    uint64_t bytes;

    if (inside && is_sealed(m)) { /* it is given back with all that a dead rank leaves */
        m->group.arena->read_on[slot_of(m)] = true;
        return SERRY_OK;
    }
    if (inside && extent_give(m->group.arena, slot_of(m), address - base, &bytes)) {
        madvise(memory, bytes, MADV_DONTFORK);
        madvise(memory, bytes, MADV_DONTDUMP);
        return SERRY_OK;
    }
    serry_error_begin(error, "free", 0, m->group.rank);
    return serry_fail(error, SERRY_ERR_INVALID,
                      "%p is not memory that this rank got from serry_alloc", memory);
}

/* ---- questions -------------------------------------------------------------------------------- */

static void shm_may_seal(serry_member *member)
{
    atomic_store_explicit(&own(member)->group.arena->seals, true, memory_order_relaxed);
}

static int shm_rank(const serry_member *member)
{
    return own_const(member)->group.rank;
}

static int shm_size(const serry_member *member)
{
    return own_const(member)->group.size;
}

static int shm_live(const serry_member *member)
{
    return own_const(member)->alive_count;
}

static void shm_participants(const serry_member *member, serry_rank_set *ranks)
{
    *ranks = own_const(member)->alive_set;
}

static uint64_t shm_epoch(const serry_member *member)
{
    return own_const(member)->epoch;
}

static uint64_t shm_incarnation(const serry_member *member, int rank)
{
    return own_const(member)->group.header->slot[rank];
}

const serry_backend serry_backend_shm = {
    .name = "shm",
    .open = member_open,
    .close = shm_close,
    .forget = shm_forget,
    .run = shm_run,
    .run_many = shm_run_many,
    .split = shm_split,
    .set_policy = shm_set_policy,
    .set_variant = shm_set_variant,
    .failed = shm_failed,
    .revoke = shm_revoke,
    .agree = shm_agree,
    .shrink = shm_shrink,
    .regain = shm_regain,
    .meet = shm_meet,
    .called = shm_called,
    .told = shm_told,
    .put = shm_put,
    .settled = shm_settled,
    .withdraw = shm_withdraw,
    .peek = shm_peek,
    .take = shm_take,
    .listen = shm_listen,
    .alloc = shm_alloc,
    .free = shm_free,
    .rank = shm_rank,
    .size = shm_size,
    .live = shm_live,
    .participants = shm_participants,
    .epoch = shm_epoch,
    .incarnation = shm_incarnation,
    .vitals = vitals_read,
    .exclude = vitals_exclude,
    .may_seal = shm_may_seal,
};
