/* membership_shrink.c - agreeing and shrinking: what survivors rebuild with. Deaths at random
 * moments are in membership_random.c. */
#include <stdlib.h>
#include <string.h>

#include "deaths.h"

#define RANKS 5
static const int k_none[] = {-1};

enum { LATE, WENT_ON }; /* flags of a run */

static void everywhere(test_body body, void *argument, const int *dead)
{
    run_deaths(SERRY_PROCESSES, RANKS, body, argument, dead);
    run_deaths(SERRY_THREADS, RANKS, body, argument, k_none);
}

/* ---- agree ---------------------------------------------------------------------------------- */

static void agree_over(test_rank *self, serry_comm *comm, uint64_t ranks)
{
    uint64_t bit = UINT64_C(1) << self->rank, high = UINT64_C(0xf) << 60, any = high | bit,
             all = ~bit;

    test_expect(self, SERRY_OK, serry_agree(comm, SERRY_BOR, &any), comm, "agree by or");
    CHECK(self, any == (high | ranks));
    test_expect(self, SERRY_OK, serry_agree(comm, SERRY_BAND, &all), comm, "agree by and");
    CHECK(self, all == ~ranks);
}

/* Fault:  a rank is killed, and another one revokes.
 * Expect: the same bits on all survivors, with the dead rank's until it died; operations in between
 *         do not mind, and do not know yet. */
static void body_agree(test_rank *self)
{
    const int victim[] = {2, -1};
    uint64_t bits = 1;

    agree_over(self, self->comm, 0x1f);
    EXPECT_OK(self, serry_barrier(self->comm));
    agree_over(self, self->comm, 0x1f);
    if (self->rank == 2)
        death_now(self);
    await_ends(self, 1);
    agree_over(self, self->comm, 0x1b);
    expect_failed(self, self->comm, serry_barrier(self->comm), victim, "barrier");
    agree_over(self, self->comm, 0x1b);
    expect_goes_on(self, self->comm, victim);
    test_raise(self, WENT_ON);
    if (self->rank == 4) { /* when nobody is in an operation any more */
        test_await(self, WENT_ON, 4);
        EXPECT_OK(self, serry_revoke(self->comm));
    }
    agree_over(self, self->comm, 0x1b);
    test_expect(self, SERRY_ERR_REVOKED, serry_barrier(self->comm), self->comm, "barrier");
    agree_over(self, self->comm, 0x1b);
    test_expect(self, SERRY_ERR_INVALID, serry_agree(self->comm, SERRY_SUM, &bits), self->comm,
                "agree by sum");
    test_expect(self, SERRY_ERR_INVALID, serry_agree(self->comm, SERRY_BOR, NULL), self->comm,
                "agree on nothing");
    agree_over(self, self->comm, 0x1b);
}

static void agree_is_uniform_after_a_death_and_a_revocation(void **state)
{
    (void)state;
    everywhere(body_agree, NULL, (const int[]){2, -1});
}

/* Fault:  a rank comes late to agree, and to shrink.
 * Expect: TIMEOUT for the others; the same call again goes on, another one is PENDING. */
static void body_late(test_rank *self)
{
    uint64_t bits = UINT64_C(1) << self->rank;
    serry_comm *rest = NULL;

    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank != 0) {
        serry_set_timeout(self->comm, 150);
        test_expect(self, SERRY_ERR_TIMEOUT, serry_agree(self->comm, SERRY_BOR, &bits), self->comm,
                    "agree");
        CHECK(self, bits == UINT64_C(1) << self->rank);
        test_expect(self, SERRY_ERR_PENDING, serry_shrink(self->comm, &rest), self->comm, "shrink");
        serry_set_timeout(self->comm, 60000);
        test_raise(self, LATE);
    }
    test_await(self, LATE, RANKS - 1);
    EXPECT_OK(self, serry_agree(self->comm, SERRY_BOR, &bits));
    CHECK(self, bits == 0x1f);
    if (self->rank != 0) {
        serry_set_timeout(self->comm, 150);
        test_expect(self, SERRY_ERR_TIMEOUT, serry_shrink(self->comm, &rest), self->comm, "shrink");
        CHECK(self, rest == NULL);
        serry_set_timeout(self->comm, 60000);
        test_raise(self, LATE);
    }
    test_await(self, LATE, 2 * (RANKS - 1));
    if (EXPECT_OK(self, serry_shrink(self->comm, &rest)))
        expect_goes_on(self, rest, k_none);
    EXPECT_OK(self, serry_finalize(&rest));
}

static void rank_late_to_agree_and_to_shrink(void **state)
{
    (void)state;
    everywhere(body_late, NULL, k_none);
}

/* ---- shrink --------------------------------------------------------------------------------- */

/* All members of the new communicator come here: it is dense and in the order of the old ranks. */
static void check_rest(test_rank *self, serry_comm *rest, const int *dead, int size)
{
    int32_t old = self->rank, olds[RANKS] = {0};
    int living = 0, own = -1;

    for (int r = 0; r < size; r++) {
        if (is_one_of(dead, r))
            continue;
        own = r == self->rank ? living : own;
        living++;
    }
    CHECK(self, serry_size(rest) == living && serry_live(rest) == living);
    CHECK(self, serry_rank(rest) == own);
    test_expect(self, SERRY_OK, serry_allgather(&old, olds, 1, SERRY_I32, rest), rest, "allgather");
    for (int r = 0, at = 0; r < size; r++)
        if (!is_one_of(dead, r) && olds[at++] != r)
            test_failed(self, "rank %d of the rest is not rank %d of the old one", at - 1, r);
    expect_goes_on(self, rest, k_none);
}

typedef struct shrinking {
    int dead[3];  /* ended by -1 */
    bool noticed; /* an operation has reported them before */
    bool revoked;
} shrinking;

static void notice(test_rank *self, const int *dead)
{
    int errors = 0;

    while (serry_barrier(self->comm) == SERRY_ERR_RANK_FAILED)
        errors++;
    CHECK(self, errors >= 1 && serry_live(self->comm) == RANKS - (dead[1] >= 0 ? 2 : 1));
}

/* Fault:  one or two ranks are dead.
 * Expect: a communicator of the others, in order, in which everything works, and which can be
 *         shrunk again; the old one goes on too. */
static void body_shrink(test_rank *self)
{
    const shrinking *s = self->argument;
    serry_comm *rest = NULL, *again = NULL;
    serry_rank_set failed;

    EXPECT_OK(self, serry_barrier(self->comm));
    if (is_one_of(s->dead, self->rank))
        death_now(self);
    await_ends(self, s->dead[0] < 0 ? 0 : s->dead[1] < 0 ? 1 : 2);
    await_known(self, self->comm, s->dead);
    if (s->noticed)
        notice(self, s->dead);
    if (s->revoked && self->rank == RANKS - 1)
        EXPECT_OK(self, serry_revoke(self->comm));
    if (!EXPECT_OK(self, serry_shrink(self->comm, &rest)))
        return;
    check_rest(self, rest, s->dead, RANKS);
    EXPECT_OK(self, serry_get_failed(rest, &failed));
    CHECK(self, test_ranks_are(&failed, k_none));
    if (EXPECT_OK(self, serry_shrink(rest, &again)))
        check_rest(self, again, s->dead, RANKS);
    EXPECT_OK(self, serry_finalize(&again));
    check_rest(self, rest, s->dead, RANKS);
    EXPECT_OK(self, serry_finalize(&rest));
    if (s->revoked)
        test_expect(self, SERRY_ERR_REVOKED, serry_barrier(self->comm), self->comm, "barrier");
    else if (s->noticed || s->dead[0] < 0)
        expect_goes_on(self, self->comm, s->dead);
    else
        expect_failed(self, self->comm, serry_barrier(self->comm), s->dead, "barrier");
}

static void shrink_leaves_out_the_dead(void **state)
{
    (void)state;
    shrinking ways[] = {
        {{-1}, false, false},    {{1, -1}, true, false},    {{0, -1}, true, true},
        {{4, -1}, false, false}, {{0, 3, -1}, true, false}, {{1, 2, -1}, false, true},
    };

    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
        everywhere(body_shrink, &ways[i], ways[i].dead);
}

/* Fault:  a rank dies, the others shrink; one of those dies, the others shrink again. */
static void body_chain(test_rank *self)
{
    const int order[] = {3, 0, 4};
    serry_comm *comm = self->comm, *made[3] = {NULL};
    int dead[4] = {-1};

    for (int i = 0; i < 3; i++) {
        if (self->rank == order[i]) {
            for (int k = 0; k < i; k++)
                orphan(made[k]);
            death_now(self);
        }
        await_ends(self, (unsigned)i + 1);
        dead[i] = order[i];
        dead[i + 1] = -1;
        test_at(self, "after death %d", i + 1);
        test_expect(self, SERRY_ERR_RANK_FAILED, serry_barrier(comm), comm, "barrier");
        if (!test_expect(self, SERRY_OK, serry_shrink(comm, &made[i]), comm, "shrink %d", i))
            return;
        comm = made[i];
        check_rest(self, comm, dead, RANKS);
    }
    for (int i = 2; i >= 0; i--)
        EXPECT_OK(self, serry_finalize(&made[i]));
}

static void shrink_after_each_of_three_deaths(void **state)
{
    (void)state;
    everywhere(body_chain, NULL, (const int[]){0, 3, 4, -1});
}

/* Fault:  rank 2, of the part {0, 2, 4}, is killed.
 * Expect: that part can be shrunk; the other one notices nothing. */
static void body_part(test_rank *self)
{
    const int dead[] = {2, -1}, dead_in_part[] = {1, -1};
    serry_comm *part = NULL, *rest = NULL;

    EXPECT_OK(self, serry_split(self->comm, self->rank % 2, 0, &part));
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == 2) {
        orphan(part);
        death_now(self);
    }
    if (self->rank % 2 == 0) {
        expect_failed(self, part, serry_barrier(part), dead_in_part, "barrier of the part");
        test_expect(self, SERRY_OK, serry_shrink(part, &rest), part, "shrink of the part");
        CHECK(self, serry_size(rest) == 2 && serry_rank(rest) == self->rank / 4);
        expect_goes_on(self, rest, k_none);
        EXPECT_OK(self, serry_finalize(&rest));
    }
    expect_goes_on(self, part, self->rank % 2 == 0 ? dead_in_part : k_none);
    expect_failed(self, self->comm, serry_barrier(self->comm), dead, "barrier");
    EXPECT_OK(self, serry_finalize(&part));
}

static void shrink_of_a_part(void **state)
{
    (void)state;
    everywhere(body_part, NULL, (const int[]){2, -1});
}

/* ---- policies ------------------------------------------------------------------------------- */

/* Fault:  rank 1 dies before, rank 2 after the communicator was made from one with a policy.
 * Expect: the new one has it too. */
static void body_policy(test_rank *self)
{
    serry_policy policy = *(const serry_policy *)self->argument;
    const int second[] = {1, -1}; /* rank 2 of the old ones */
    serry_comm *made[2] = {NULL};
    int wanted = policy == SERRY_EXCLUDE  ? SERRY_OK
                 : policy == SERRY_REVOKE ? SERRY_ERR_REVOKED
                                          : SERRY_ERR_RANK_FAILED;

    EXPECT_OK(self, serry_set_policy(self->comm, policy));
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == 1)
        death_now(self);
    await_ends(self, 1);
    test_expect(self, wanted, serry_barrier(self->comm), self->comm, "barrier of the old one");
    if (!EXPECT_OK(self, serry_shrink(self->comm, &made[0])) ||
        !test_expect(self, SERRY_OK, serry_dup(made[0], &made[1]), made[0], "dup"))
        return;
    if (self->rank == 2) {
        orphan(made[0]);
        orphan(made[1]);
        death_now(self);
    }
    await_ends(self, 2);
    for (int i = 0; i < 2; i++) {
        test_expect(self, wanted, serry_barrier(made[i]), made[i], "barrier of new one %d", i);
        if (policy != SERRY_REVOKE)
            expect_goes_on(self, made[i], second);
    }
    EXPECT_OK(self, serry_finalize(&made[1]));
    EXPECT_OK(self, serry_finalize(&made[0]));
}

static void new_communicators_have_the_policy_of_the_old_one(void **state)
{
    (void)state;
    serry_policy policies[] = {SERRY_REPORT, SERRY_EXCLUDE, SERRY_REVOKE};

    for (int i = 0; i < 3; i++)
        everywhere(body_policy, &policies[i], (const int[]){1, 2, -1});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agree_is_uniform_after_a_death_and_a_revocation),
        cmocka_unit_test(rank_late_to_agree_and_to_shrink),
        cmocka_unit_test(shrink_leaves_out_the_dead),
        cmocka_unit_test(shrink_after_each_of_three_deaths),
        cmocka_unit_test(shrink_of_a_part),
        cmocka_unit_test(new_communicators_have_the_policy_of_the_old_one),
    };

    return cmocka_run_group_tests_name("membership_shrink", tests, NULL, NULL);
}
