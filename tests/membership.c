/* membership.c - what the policies of a communicator promise when a rank is missing, and who is
 * told of it. Real deaths, really detected; large operations are in membership_large.c. */
#include <stdlib.h>
#include <string.h>

#include "deaths.h"

#define VICTIM 1
#define RANKS 4
static const int k_none[] = {-1}, k_victim[] = {VICTIM, -1};

enum { READY, KNOWN }; /* flags of a run */

/* A body with one death, for both kinds of ranks. */
static void everywhere(int size, test_body body, const int *dead)
{
    run_deaths(SERRY_PROCESSES, size, body, NULL, dead);
    run_deaths(SERRY_THREADS, size, body, NULL, k_none);
}

/* ---- exclude: the work goes on --------------------------------------------------------------- */

static void average_of(test_rank *self, size_t count, double wanted)
{
    double *vector = malloc(count * sizeof(*vector));

    for (size_t i = 0; i < count; i++)
        vector[i] = 12.0 * self->rank;
    EXPECT_OK(self,
              serry_allreduce(SERRY_IN_PLACE, vector, count, SERRY_F64, SERRY_AVG, self->comm));
    for (size_t i = 0; i < count; i++)
        if (vector[i] != wanted) {
            test_failed(self, "average of %zu is %g, not %g", count, vector[i], wanted);
            break;
        }
    free(vector);
}

/* Fault:  rank 1 of 4 is killed; its death is first met by a small, or by a large operation.
 * Expect: no error; sums and averages over exactly those that took part. */
static void body_exclude(test_rank *self)
{
    const size_t counts[] = {1, 5000, DEATHS_LARGE};
    size_t first = *(const size_t *)self->argument;

    EXPECT_OK(self, serry_set_policy(self->comm, SERRY_EXCLUDE));
    EXPECT_OK(self, serry_barrier(self->comm));
    expect_participants(self, self->comm, k_none);
    if (self->rank == VICTIM)
        death_now(self);
    await_ends(self, 1);
    average_of(self, first, 12.0 * (0 + 2 + 3) / 3);
    expect_participants(self, self->comm, k_victim);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        average_of(self, counts[i], 12.0 * (0 + 2 + 3) / 3);
    expect_goes_on(self, self->comm, k_victim);
    CHECK(self, serry_last_error(self->comm)->error == SERRY_OK); /* never was there one */
}

static void exclude_goes_on_without_the_dead(void **state)
{
    (void)state;
    size_t first[] = {1, 600, DEATHS_LARGE};

    for (size_t i = 0; i < sizeof(first) / sizeof(first[0]); i++) {
        run_deaths(SERRY_PROCESSES, RANKS, body_exclude, &first[i], k_victim);
        run_deaths(SERRY_THREADS, RANKS, body_exclude, &first[i], k_none);
    }
}

/* Fault:  the root is dead.
 * Expect: RANK_FAILED on all survivors, each time, buffers as they were; other roots work. */
static void rooted_calls(test_rank *self, size_t count, int root, int wanted)
{
    const serry_kind kinds[] = {SERRY_KIND_BROADCAST, SERRY_KIND_REDUCE, SERRY_KIND_GATHER,
                                SERRY_KIND_SCATTER};
    size_t elements = count * RANKS;
    int64_t *send = malloc(elements * sizeof(*send)), *recv = malloc(elements * sizeof(*recv));

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        serry_call call = {kinds[i], SERRY_I64, SERRY_SUM, root, count, send, recv};
        memset(send, 1, elements * sizeof(*send));
        memset(recv, 2, elements * sizeof(*recv));
        test_at(self, "%s of %zu, root %d", serry_kind_name(kinds[i]), count, root);
        int rc = test_call(&call, self->comm);
        if (wanted == SERRY_OK)
            test_expect(self, SERRY_OK, rc, self->comm, "%s, root %d", serry_kind_name(kinds[i]),
                        root);
        else
            expect_failed(self, self->comm, rc, (const int[]){root, -1}, serry_kind_name(kinds[i]));
        for (size_t b = 0; wanted != SERRY_OK && b < elements * sizeof(*recv); b += sizeof(*recv))
            if (((const char *)recv)[b] != 2 || ((const char *)send)[b] != 1) {
                test_failed(self, "a buffer of %s has changed", serry_kind_name(kinds[i]));
                break;
            }
    }
    free(send);
    free(recv);
}

static void body_root(test_rank *self)
{
    EXPECT_OK(self, serry_set_policy(self->comm, SERRY_EXCLUDE));
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == VICTIM)
        death_now(self);
    await_ends(self, 1);
    for (int i = 0; i < 2; i++) {
        rooted_calls(self, 3, VICTIM, SERRY_ERR_RANK_FAILED);
        rooted_calls(self, DEATHS_LARGE, VICTIM, SERRY_ERR_RANK_FAILED);
        rooted_calls(self, 3, 2, SERRY_OK);
        rooted_calls(self, DEATHS_LARGE, 2, SERRY_OK);
    }
    expect_goes_on(self, self->comm, k_victim);
}

static void exclude_fails_where_the_root_is_dead(void **state)
{
    (void)state;
    everywhere(RANKS, body_root, k_victim);
}

/* Fault:  a rank whose block would stand in the results is dead.
 * Expect: the block is as it was. */
static void gathered(test_rank *self, serry_kind kind, size_t count, bool in_arena)
{
    size_t bytes = count * RANKS * sizeof(int64_t);
    int64_t *send = in_arena ? serry_alloc(self->comm, bytes) : malloc(bytes);
    int64_t *recv = in_arena ? serry_alloc(self->comm, bytes) : malloc(bytes);
    serry_call call = {kind, SERRY_I64, SERRY_SUM, 0, count, send, recv};
    bool gets = kind != SERRY_KIND_GATHER || self->rank == 0;

    for (size_t i = 0; i < count * RANKS; i++) {
        send[i] = 100 + self->rank;
        recv[i] = -7;
    }
    EXPECT_OK(self, test_call(&call, self->comm));
    for (size_t i = 0; i < count * RANKS; i++) {
        int block = (int)(i / count);
        if (recv[i] != (gets && block != VICTIM ? 100 + block : -7)) {
            test_failed(self, "%s of %zu: %lld in block %d", serry_kind_name(kind), count,
                        (long long)recv[i], block);
            break;
        }
    }
    if (in_arena) {
        serry_free(self->comm, send);
        serry_free(self->comm, recv);
    } else {
        free(send);
        free(recv);
    }
}

static void body_blocks(test_rank *self)
{
    const serry_kind kinds[] = {SERRY_KIND_ALLGATHER, SERRY_KIND_GATHER, SERRY_KIND_ALLTOALL};

    EXPECT_OK(self, serry_set_policy(self->comm, SERRY_EXCLUDE));
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == VICTIM)
        death_now(self);
    await_ends(self, 1);
    for (int i = 0; i < 3; i++) {
        gathered(self, kinds[i], 1, false);
        gathered(self, kinds[i], DEATHS_LARGE / RANKS, false);
        gathered(self, kinds[i], DEATHS_LARGE / RANKS, true);
    }
}

static void blocks_of_the_dead_are_left_as_they_were(void **state)
{
    (void)state;
    everywhere(RANKS, body_blocks, k_victim);
}

/* ---- revoke --------------------------------------------------------------------------------- */

/* Fault:  under the policy REVOKE a rank is killed.
 * Expect: this and every later operation is REVOKED on all, buffers intact; agree and shrink work,
 *         and the new communicator has the same policy. */
static void body_revoke(test_rank *self)
{
    serry_comm *rest = NULL, *part = NULL;
    int64_t value = 5, sum = 77;
    uint64_t bits = UINT64_C(1) << self->rank;

    EXPECT_OK(self, serry_set_policy(self->comm, SERRY_REVOKE));
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == VICTIM)
        death_now(self);
    await_ends(self, 1);
    for (int i = 0; i < 3; i++) {
        int rc = serry_allreduce(&value, &sum, 1, SERRY_I64, SERRY_SUM, self->comm);
        test_expect(self, SERRY_ERR_REVOKED, rc, self->comm, "allreduce %d", i);
        CHECK(self, value == 5 && sum == 77);
    }
    test_expect(self, SERRY_ERR_REVOKED, serry_split(self->comm, 0, 0, &part), self->comm, "split");
    EXPECT_OK(self, serry_agree(self->comm, SERRY_BOR, &bits));
    CHECK(self, bits == 0xd); /* 0, 2 and 3 */
    if (!EXPECT_OK(self, serry_shrink(self->comm, &rest)))
        return;
    expect_goes_on(self, rest, k_none);
    if (self->rank == 2) {
        orphan(rest);
        death_now(self);
    }
    for (int i = 0; i < 2; i++)
        test_expect(self, SERRY_ERR_REVOKED, serry_barrier(rest), rest, "barrier of the rest");
    EXPECT_OK(self, serry_finalize(&rest));
}

static void revoke_ends_the_communicator(void **state)
{
    (void)state;
    everywhere(RANKS, body_revoke, (const int[]){VICTIM, 2, -1});
}

/* Fault:  one rank has another policy.
 * Expect: RANK_MISMATCH for all, which says so; with the same policy they go on. */
static void body_policies(test_rank *self)
{
    const serry_policy policies[] = {SERRY_EXCLUDE, SERRY_REVOKE};
    const char *const words[] = {"policy exclude", "policy revoke"};

    for (int i = 0; i < 2; i++) {
        EXPECT_OK(self, serry_set_policy(self->comm, self->rank == 2 ? policies[i] : SERRY_REPORT));
        test_expect(self, SERRY_ERR_RANK_MISMATCH, serry_barrier(self->comm), self->comm,
                    "barrier under two policies");
        const char *message = serry_last_error(self->comm)->message;
        if (strstr(message, words[i]) == NULL || !test_names_rank(message, 2))
            test_failed(self, "does not say who has which policy: %s", message);
        EXPECT_OK(self, serry_set_policy(self->comm, policies[i]));
        expect_goes_on(self, self->comm, k_none);
    }
    test_expect(self, SERRY_ERR_INVALID, serry_set_policy(self->comm, (serry_policy)9), self->comm,
                "no policy");
}

static void ranks_with_different_policies(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, body_policies, NULL);
    run_ranks(SERRY_THREADS, RANKS, body_policies, NULL);
}

/* ---- serry_revoke --------------------------------------------------------------------------- */

/* Fault:  rank 0 revokes while the others sleep in an operation.
 * Expect: they wake with REVOKED, buffers as they were; so ends all that is called later. */
static void body_revoked(test_rank *self)
{
    size_t count = *(const size_t *)self->argument;
    int64_t *vector = malloc((count + 1) * sizeof(*vector));
    serry_comm *rest = NULL;
    serry_rank_set failed;

    for (size_t i = 0; i < count; i++)
        vector[i] = (int64_t)i;
    EXPECT_OK(self, serry_barrier(self->comm));
    test_raise(self, READY);
    if (self->rank == 0) {
        test_await(self, READY, RANKS);
        test_sleep_ms(300); /* asleep by now */
        EXPECT_OK(self, serry_revoke(self->comm));
        EXPECT_OK(self, serry_revoke(self->comm));
    }
    for (int i = 0; i < 2; i++) {
        int rc = count == 0 ? serry_barrier(self->comm)
                            : serry_allreduce(SERRY_IN_PLACE, vector, count, SERRY_I64, SERRY_SUM,
                                              self->comm);
        test_expect(self, SERRY_ERR_REVOKED, rc, self->comm, "operation");
    }
    for (size_t i = 0; i < count; i++)
        if (!CHECK(self, vector[i] == (int64_t)i))
            break;
    test_expect(self, SERRY_ERR_REVOKED, serry_dup(self->comm, &rest), self->comm, "dup");
    EXPECT_OK(self, serry_get_failed(self->comm, &failed));
    CHECK(self, test_ranks_are(&failed, k_none));
    EXPECT_OK(self, serry_shrink(self->comm, &rest));
    CHECK(self, serry_size(rest) == RANKS && serry_rank(rest) == self->rank);
    expect_goes_on(self, rest, k_none);
    EXPECT_OK(self, serry_finalize(&rest));
    free(vector);
}

static void revoke_wakes_those_who_sleep(void **state)
{
    (void)state;
    size_t counts[] = {0, 1, DEATHS_LARGE};

    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        for (int kind = SERRY_PROCESSES; kind <= SERRY_THREADS; kind++) {
            test_options options = {.kind = (serry_kind_of_rank)kind, .size = RANKS};
            test_end(test_start(&options, body_revoked, &counts[i]));
        }
}

/* A part is revoked: its world and other parts are not. */
static void body_revoked_part(test_rank *self)
{
    serry_comm *part;

    EXPECT_OK(self, serry_split(self->comm, self->rank % 2, 0, &part));
    if (self->rank == 0)
        EXPECT_OK(self, serry_revoke(part));
    EXPECT_OK(self, serry_barrier(self->comm));
    test_expect(self, self->rank % 2 == 0 ? SERRY_ERR_REVOKED : SERRY_OK, serry_barrier(part), part,
                "barrier of the part");
    expect_goes_on(self, self->comm, k_none);
    EXPECT_OK(self, serry_finalize(&part));
}

static void revoke_of_a_part_leaves_the_others_alone(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, body_revoked_part, NULL);
    run_ranks(SERRY_THREADS, RANKS, body_revoked_part, NULL);
}

/* ---- serry_get_failed ----------------------------------------------------------------------- */

/* Fault:  rank 3 of 5 is killed, then rank 1 leaves.
 * Expect: all know, without an operation, in each communicator under the ranks it has there. */
static void body_failed(test_rank *self)
{
    const int first[] = {3, -1}, both[] = {1, 3, -1}, reversed[] = {1, -1};
    serry_comm *backwards;
    serry_rank_set failed;

    EXPECT_OK(self, serry_split(self->comm, 0, -self->rank, &backwards));
    EXPECT_OK(self, serry_get_failed(self->comm, &failed));
    CHECK(self, test_ranks_are(&failed, k_none));
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == 3) {
        orphan(backwards);
        death_now(self);
    }
    await_known(self, self->comm, first);
    await_known(self, backwards, reversed);
    EXPECT_OK(self, serry_get_failed(self->comm, &failed));
    CHECK(self, test_ranks_are(&failed, first));
    EXPECT_OK(self, serry_get_failed(backwards, &failed));
    CHECK(self, test_ranks_are(&failed, reversed)); /* 5 - 1 - 3 */
    test_raise(self, KNOWN);
    test_await(self, KNOWN, 4);
    EXPECT_OK(self, serry_finalize(&backwards));
    if (self->rank == 1)
        return; /* the harness finalizes */
    await_known(self, self->comm, both);
    EXPECT_OK(self, serry_get_failed(self->comm, &failed));
    CHECK(self, test_ranks_are(&failed, both));
    expect_failed(self, self->comm, serry_barrier(self->comm), both, "barrier");
}

static void get_failed_tells_who_died_and_who_left(void **state)
{
    (void)state;
    everywhere(5, body_failed, (const int[]){3, -1});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exclude_goes_on_without_the_dead),
        cmocka_unit_test(exclude_fails_where_the_root_is_dead),
        cmocka_unit_test(blocks_of_the_dead_are_left_as_they_were),
        cmocka_unit_test(revoke_ends_the_communicator),
        cmocka_unit_test(ranks_with_different_policies),
        cmocka_unit_test(revoke_wakes_those_who_sleep),
        cmocka_unit_test(revoke_of_a_part_leaves_the_others_alone),
        cmocka_unit_test(get_failed_tells_who_died_and_who_left),
    };

    return cmocka_run_group_tests_name("membership", tests, NULL, NULL);
}
