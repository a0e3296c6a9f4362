/* crash_membership.c - joining, leaving, dividing, agreeing: a death at each instruction of them. */
#include <stdlib.h>

#include "crash_scenarios.h"
#include "crash_step.h"

enum { ALLOCATED = 10000 };

static bool is_victim(const crash_actor *a)
{
    return a->self->rank == a->scenario->victim;
}

/* ---- new communicators ------------------------------------------------------------------------ */

static int split(crash_actor *a)
{
    return serry_split(a->comm, 0, a->self->rank, &a->part);
}

/* All get the part alike, or all are told and divide again. */
static void split_judge(crash_actor *a, int rc)
{
    crash_note(a, "split", rc, 0);
    while (rc != SERRY_OK && crash_may_fail(a, a->comm, "split", rc)) {
        rc = split(a);
        crash_note(a, "split again", rc, 0);
    }
    if (CHECK(a->self, a->part != NULL))
        crash_go_on(a, a->part, "in the part");
}

static int shrink(crash_actor *a)
{
    return serry_shrink(a->comm, &a->part);
}

static void shrink_judge(crash_actor *a, int rc)
{
    crash_note(a, "shrink", rc, a->part != NULL ? serry_size(a->part) : 0);
    test_expect(a->self, SERRY_OK, rc, a->comm, "shrink");
    if (CHECK(a->self, a->part != NULL))
        crash_go_on(a, a->part, "among the rest");
}

/* ---- agreeing and revoking -------------------------------------------------------------------- */

static uint64_t bit_of(int rank)
{
    return UINT64_C(1) << rank;
}

static int agree(crash_actor *a)
{
    a->bits = ~bit_of(a->self->rank);
    return serry_agree(a->comm, SERRY_BAND, &a->bits);
}

static void agree_judge(crash_actor *a, int rc)
{
    uint64_t all = bit_of(a->self->size) - 1, survivors = all & ~(uint64_t)a->trial->gone;

    crash_note(a, "agree", rc, (int64_t)a->bits);
    test_expect(a->self, SERRY_OK, rc, a->comm, "agree");
    CHECK(a->self, (~a->bits & survivors) == survivors && (~a->bits & ~all) == 0);
}

/* The others are waiting meanwhile. */
static int revoke(crash_actor *a)
{
    return is_victim(a) ? serry_revoke(a->comm) : serry_barrier(a->comm);
}

/* What each has seen of it may differ; what they agree on may not. A revocation that has woken nobody
 * before its end is seen by the next operation. */
static void revoke_judge(crash_actor *a, int rc)
{
    if (rc != SERRY_ERR_REVOKED && crash_may_fail(a, a->comm, "the barrier", rc))
        rc = serry_barrier(a->comm);
    uint64_t revoked = rc == SERRY_ERR_REVOKED;
    if (!revoked)
        crash_may_fail(a, a->comm, "the next barrier", rc);
    test_expect(a->self, SERRY_OK, serry_agree(a->comm, SERRY_BOR, &revoked), a->comm, "agree");
    crash_note(a, "revoked", SERRY_OK, (int64_t)revoked);
    if (!revoked)
        return;
    shrink_judge(a, shrink(a));
    test_expect(a->self, SERRY_ERR_REVOKED, serry_barrier(a->comm), a->comm, "a revoked barrier");
    a->comm = a->part;
}

/* ---- memory ----------------------------------------------------------------------------------- */

static int alloc_and_free(crash_actor *a)
{
    if (!is_victim(a))
        return SERRY_OK;
    void *memory = serry_alloc(a->comm, ALLOCATED);
    serry_free(a->comm, memory);
    return memory != NULL ? SERRY_OK : SERRY_ERR_NO_SPACE;
}

/* The lock of the pool is free again, and a piece of it can be had. */
static void alloc_judge(crash_actor *a, int rc)
{
    void *memory = serry_alloc(a->comm, ALLOCATED);

    (void)rc;
    CHECK(a->self, memory != NULL);
    split_judge(a, split(a));
    serry_free(a->comm, memory);
}

/* ---- leaving and joining ---------------------------------------------------------------------- */

static void with_part(crash_actor *a)
{
    EXPECT_OK(a->self, split(a));
    CHECK(a->self, serry_alloc(a->comm, ALLOCATED) != NULL);
}

static int leave(crash_actor *a)
{
    if (!is_victim(a))
        return SERRY_OK;
    serry_finalize(&a->part);
    return serry_finalize(&a->self->comm);
}

static void leave_judge(crash_actor *a, int rc)
{
    (void)rc;
    crash_go_on(a, a->part, "in the part");
}

static int join(crash_actor *a)
{
    return crash_join(a, a->self->rank, SERRY_ENTRY_START);
}

/* Who has got in goes on without those who have not. */
static void join_judge(crash_actor *a, int rc)
{
    if (rc == SERRY_OK)
        return;
    a->trial->log[a->self->rank].outside = true;
    if (rc == SERRY_ERR_TIMEOUT)
        test_await(a->self, CRASH_FIRED, 1); /* now it is certain how far the victim came */
    if (rc != SERRY_ERR_TIMEOUT || !a->trial->unknown)
        test_expect(a->self, SERRY_ERR_RANK_FAILED, rc, NULL, "serry_init");
}

// clang-format off
const crash_scenario crash_memberships[] = {
    {"split", 3, 1, .section = split, .judge = split_judge},
    {"split, by the first of the part", 3, 0, .section = split, .judge = split_judge},
    {"split, excluding", 4, 0, SERRY_EXCLUDE, .section = split, .judge = split_judge},
    {"agree", 3, 1, .section = agree, .judge = agree_judge},
    {"agree, another has failed", 4, 1, .fallen = true, .section = agree, .judge = agree_judge},
    {"shrink", 4, 1, .fallen = true, .section = shrink, .judge = shrink_judge},
    {"shrink, by the first of the rest", 4, 0, .fallen = true, .section = shrink, .judge = shrink_judge},
    {"revoke", 3, 1, .awake = true, .section = revoke, .judge = revoke_judge},
    {"alloc and free", 3, 1, .section = alloc_and_free, .judge = alloc_judge},
    {"leave", 3, 1, .prepare = with_part, .section = leave, .judge = leave_judge, .awake = true},
    {"join", 3, 1, .joins = true, .section = join, .judge = join_judge},
    {"join, as rank 0", 3, 0, .joins = true, .section = join, .judge = join_judge},
};
// clang-format on

const size_t crash_memberships_count = sizeof(crash_memberships) / sizeof(crash_memberships[0]);
