/* rejoin_parts.c - replacements, while ranks work on several communicators. */
#include "newcomers.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SLOW = 1 };
enum { FLAG_BUSY, FLAG_CALLING, FLAG_DEAD, FLAG_DONE };

/* ---- a meeting that one comes to too late ------------------------------------------------------- */

#define LATE_MS 300 /* the others have come to the meeting long before */
#define SOON_MS 10000

typedef enum after { AFTER_BARRIER, AFTER_AGREE } after;

/* A sum. In the rank that is to be late it takes until the others have left for the meeting. */
static void late_sum(void *accumulator, const void *next, size_t count, serry_dtype dtype,
                     void *argument)
{
    test_rank *self = argument;
    const int64_t *from = next;
    int64_t *to = accumulator;

    (void)dtype;
    for (size_t i = 0; i < count; i++)
        to[i] += from[i];
    if (self->rank == SLOW && test_flag(self->run, FLAG_CALLING) == 0) {
        test_raise(self, FLAG_BUSY);
        test_await(self, FLAG_CALLING, 1);
        test_sleep_ms(LATE_MS);
    }
}

/* The survivors' sum, of arena memory: whoever has combined its slice is waited for by the others, and
 * then they all have it without waiting for any of them again. */
static bool sum_late(test_rank *self)
{
    enum { COUNT = 3000 };
    int64_t *vector = serry_alloc(self->comm, COUNT * sizeof(*vector));
    serry_op op;

    EXPECT_OK(self, serry_op_create("late sum", late_sum, self, &op));
    for (size_t i = 0; i < COUNT; i++)
        vector[i] = 1 + self->rank;
    test_at(self, "in the operation that the meeting interrupts");
    bool good =
        EXPECT_OK(self, serry_allreduce(SERRY_IN_PLACE, vector, COUNT, SERRY_I64, op, self->comm));
    for (size_t i = 0; i < COUNT; i++)
        good = good && CHECK(self, vector[i] == 1 + 2 + 4);
    serry_op_free(&op);
    serry_free(self->comm, vector);
    return good;
}

/* Sums until the newcomer is among them. */
static void until_all_are_there(test_rank *self)
{
    for (int64_t all = 0; all != RANKS;) {
        all = 1;
        test_at(self, "waiting for the newcomer");
        if (!EXPECT_OK(self,
                       serry_allreduce(SERRY_IN_PLACE, &all, 1, SERRY_I64, SERRY_SUM, self->comm)))
            return;
    }
}

/* The survivors hear of the newcomer in the middle of an operation of the world; the one that is busy
 * there completes it and goes on to their other communicator, where it needs them. */
static void body_late(test_rank *self)
{
    after then = *(const after *)self->argument;
    serry_comm *part = NULL;
    uint64_t bits = 1;

    if (self->rank >= RANKS) {
        test_await(self, FLAG_BUSY, 1);
        test_raise(self, FLAG_CALLING);
        if (rejoin(self, VICTIM, SERRY_EXCLUDE))
            until_all_are_there(self);
        EXPECT_OK(self, serry_finalize(&self->comm));
        return;
    }
    if (!join(self, self->rank, SERRY_EXCLUDE) || !EXPECT_OK(self, serry_barrier(self->comm)))
        return;
    if (self->rank == VICTIM)
        death_now(self);
    await_ends(self, 1);
    await_known(self, self->comm, k_victim);
    EXPECT_OK(self, serry_split(self->comm, 0, self->rank, &part));
    EXPECT_OK(self, serry_set_timeout(part, SOON_MS));
    if (sum_late(self)) {
        test_at(self, "in the part");
        test_expect(self, SERRY_OK, serry_barrier(part), part, "barrier of the part");
        if (then == AFTER_AGREE) {
            EXPECT_OK(self, serry_agree(self->comm, SERRY_BAND, &bits));
            CHECK(self, bits == 1);
        }
        until_all_are_there(self);
    }
    EXPECT_OK(self, serry_finalize(&part));
    EXPECT_OK(self, serry_finalize(&self->comm));
}

static void who_meets_does_not_wait_for_one_who_has_completed_the_operation(void **state)
{
    after barrier = AFTER_BARRIER;

    (void)state;
    run_newcomers(SERRY_PROCESSES, 1, body_late, &barrier, k_victim);
}

static void who_left_a_meeting_open_can_agree(void **state)
{
    after agree = AFTER_AGREE;

    (void)state;
    run_newcomers(SERRY_PROCESSES, 1, body_late, &agree, k_victim);
}

/* ---- parts are regained -------------------------------------------------------------------------- */

enum { WHOLE, HALVES, PARTS, NESTED = PARTS, COMMS };

typedef struct parts {
    serry_comm *comm[COMMS]; /* all; those of even and of odd number; all, made from the first */
} parts;

static bool divide(test_rank *self, parts *p)
{
    return EXPECT_OK(self, serry_dup(self->comm, &p->comm[WHOLE])) &&
           EXPECT_OK(self, serry_split(self->comm, self->rank % 2, self->rank, &p->comm[HALVES])) &&
           EXPECT_OK(self, serry_dup(p->comm[WHOLE], &p->comm[NESTED]));
}

static void free_parts(test_rank *self, parts *p)
{
    for (int i = COMMS - 1; i >= 0; i--)
        EXPECT_OK(self, serry_finalize(&p->comm[i]));
    EXPECT_OK(self, serry_finalize(&self->comm));
}

/* Operations until all are there; under REPORT each of both errors comes once at the most. */
static bool until_whole(test_rank *self, serry_comm *comm, serry_policy policy, int *joined)
{
    int64_t all = 0, failed = 0;

    *joined = 0;
    while (all != serry_size(comm)) {
        all = 1;
        test_at(self, "among %d, waiting for the newcomer", serry_size(comm));
        int rc = serry_allreduce(SERRY_IN_PLACE, &all, 1, SERRY_I64, SERRY_SUM, comm);
        if (policy == SERRY_REPORT && rc == SERRY_ERR_RANK_FAILED && failed++ == 0)
            continue;
        if (policy == SERRY_REPORT && rc == SERRY_ERR_RANK_JOINED && (*joined)++ == 0)
            continue;
        if (!test_expect(self, SERRY_OK, rc, comm, "allreduce"))
            return false;
        CHECK(self,
              all == serry_size(comm) || (policy != SERRY_WAIT && all == serry_size(comm) - 1));
        usleep(500);
    }
    return true;
}

/* Sums of all sizes, in which each has its own share. */
static void work(test_rank *self, serry_comm *comm)
{
    static const size_t counts[] = {1, 700, DEATHS_LARGE};
    int size = serry_size(comm);
    serry_rank_set all;

    for (size_t c = 0; c < 3; c++) {
        int64_t *vector = calloc(counts[c], sizeof(*vector));
        for (size_t i = 0; i < counts[c]; i++)
            vector[i] = (int64_t)i + 10 * serry_rank(comm);
        test_expect(self, SERRY_OK,
                    serry_allreduce(SERRY_IN_PLACE, vector, counts[c], SERRY_I64, SERRY_SUM, comm),
                    comm, "allreduce");
        for (size_t i = 0; i < counts[c]; i += 100)
            CHECK(self, vector[i] == (int64_t)i * size + 5 * size * (size - 1));
        free(vector);
    }
    serry_participants(comm, &all);
    CHECK(self, all.bits[0] == (1u << size) - 1 && serry_live(comm) == size);
    serry_get_failed(comm, &all);
    CHECK(self, all.bits[0] == 0);
    test_expect(self, SERRY_OK, serry_barrier(comm), comm, "barrier"); /* nobody leaves before */
}

static bool regain(test_rank *self, serry_comm *from, int index, serry_comm **part)
{
    test_at(self, "rejoining part %d", index);
    return test_expect(self, SERRY_OK, serry_rejoin_part(from, index, part), from, "rejoin_part");
}

static void body_regain(test_rank *self)
{
    serry_policy policy = *(const serry_policy *)self->argument;
    bool newcomer = self->rank >= RANKS;
    parts p = {{NULL}};
    int joined;

    if (newcomer) {
        test_await(self, FLAG_DEAD, RANKS - 1);
        if (!rejoin(self, VICTIM, policy))
            return;
    } else {
        if (!join(self, self->rank, policy) || !divide(self, &p))
            return;
        for (int i = 0; i < COMMS; i++) {
            test_expect(self, SERRY_OK, serry_set_policy(p.comm[i], policy), p.comm[i], "policy");
            test_expect(self, SERRY_OK, serry_barrier(p.comm[i]), p.comm[i], "barrier");
        }
        EXPECT_OK(self, serry_barrier(self->comm));
        if (self->rank == VICTIM) {
            for (int i = COMMS - 1; i >= 0; i--)
                orphan(p.comm[i]);
            death_now(self);
        }
        await_ends(self, 1);
        await_known(self, self->comm, k_victim);
        test_raise(self, FLAG_DEAD);
    }
    if (!until_whole(self, self->comm, policy, &joined))
        return;
    for (int i = 0; i < COMMS; i++) {
        bool concerned = i != HALVES || serry_rank(self->comm) % 2 == VICTIM % 2;
        serry_comm *from = i == NESTED ? p.comm[WHOLE] : self->comm;
        if (newcomer && !regain(self, from, i == NESTED ? 0 : i, &p.comm[i]))
            return;
        if (!until_whole(self, p.comm[i], policy, &joined))
            return;
        CHECK(self, joined == (policy == SERRY_REPORT && concerned && !newcomer));
        CHECK(self, serry_rank(p.comm[i]) == serry_rank(self->comm) / (i == HALVES ? 2 : 1));
        CHECK(self, serry_size(p.comm[i]) == (i == HALVES ? RANKS / 2 : RANKS));
        work(self, p.comm[i]);
    }
    work(self, self->comm);
    free_parts(self, &p);
}

static void a_replacement_regains_parts(serry_policy policy)
{
    run_newcomers(SERRY_PROCESSES, 1, body_regain, &policy, k_victim);
    run_newcomers(SERRY_THREADS, 1, body_regain, &policy, k_victim);
}

static void a_replacement_regains_parts_under_report(void **state)
{
    (void)state;
    a_replacement_regains_parts(SERRY_REPORT);
}

static void a_replacement_regains_parts_under_exclude(void **state)
{
    (void)state;
    a_replacement_regains_parts(SERRY_EXCLUDE);
}

static void a_replacement_regains_parts_under_wait(void **state)
{
    (void)state;
    a_replacement_regains_parts(SERRY_WAIT);
}

/* ---- killed again -------------------------------------------------------------------------------- */

enum { ROUNDS = 12, LAST = RANKS + ROUNDS - 1 };
enum { HERE, FAILED, FINAL, WORDS };

/* One operation on the part: who is here, whether somebody knows that the newcomer has failed, whether
 * this is the last one. */
static bool ask_all(test_rank *self, serry_comm *part, int64_t all[WORDS])
{
    serry_rank_set failed;

    serry_get_failed(self->comm, &failed);
    all[HERE] = 1;
    all[FAILED] = serry_rank_set_has(&failed, VICTIM);
    all[FINAL] = self->rank == LAST;
    return test_expect(self, SERRY_OK,
                       serry_allreduce(SERRY_IN_PLACE, all, WORDS, SERRY_I64, SERRY_SUM, part),
                       part, "allreduce of the part");
}

/* Newcomer after newcomer is killed somewhere on its way into the part; the last one gets there. */
static void body_killed(test_rank *self)
{
    int round = self->rank - RANKS, joined;
    uint64_t sequence = chance_begin((uint64_t)self->rank);
    int64_t all[WORDS] = {0};
    serry_comm *part = NULL;

    if (round >= 0) {
        test_await(self, FLAG_DEAD, (unsigned)round + 1);
        if (!rejoin(self, VICTIM, SERRY_EXCLUDE) ||
            !until_whole(self, self->comm, SERRY_EXCLUDE, &joined))
            return;
        test_raise(self, FLAG_DEAD);
        if (self->rank != LAST)
            death_in(self, chance_us(&sequence, 13));
        if (!regain(self, self->comm, 0, &part))
            return;
        if (self->rank != LAST)
            death_await();
        ask_all(self, part, all);
    } else {
        if (!join(self, self->rank, SERRY_EXCLUDE) ||
            !EXPECT_OK(self, serry_dup(self->comm, &part)) || !EXPECT_OK(self, serry_barrier(part)))
            return;
        if (self->rank == VICTIM) {
            test_raise(self, FLAG_DEAD);
            death_now(self);
        }
        while (all[FINAL] == 0) {
            if (!until_whole(self, self->comm, SERRY_EXCLUDE, &joined))
                return;
            do {
                test_at(self, "in the part");
                if (!ask_all(self, part, all))
                    return;
                usleep(200);
            } while (all[FAILED] == 0 && all[FINAL] == 0);
        }
    }
    CHECK(self, all[HERE] == RANKS);
    work(self, part);
    work(self, self->comm);
    EXPECT_OK(self, serry_finalize(&part));
    EXPECT_OK(self, serry_finalize(&self->comm));
}

static void a_replacement_may_be_killed_while_it_regains_a_part(void **state)
{
    int dead[ROUNDS + 1] = {VICTIM};

    (void)state;
    for (int i = 1; i < ROUNDS; i++)
        dead[i] = RANKS + i - 1;
    dead[ROUNDS] = -1;
    run_newcomers(SERRY_PROCESSES, ROUNDS, body_killed, NULL, dead);
}

/* ---- what cannot be regained --------------------------------------------------------------------- */

static void refused(test_rank *self, int index, int code, const char *why)
{
    serry_comm *part = self->comm;

    test_expect(self, code, serry_rejoin_part(self->comm, index, &part), self->comm,
                "rejoin_part(%d)", index);
    CHECK(self, part == NULL);
    if (strstr(serry_last_error(self->comm)->message, why) == NULL)
        test_failed(self, "\"%s\" does not say \"%s\"", serry_last_error(self->comm)->message, why);
}

/* Number 0 is finalized by the others, 1 by the victim, 2 by nobody; 3 is revoked. */
static void body_refused(test_rank *self)
{
    serry_comm *part[4] = {NULL};
    int joined;

    if (self->rank >= RANKS) {
        test_await(self, FLAG_DEAD, 1);
        if (!rejoin(self, VICTIM, SERRY_EXCLUDE) ||
            !until_whole(self, self->comm, SERRY_EXCLUDE, &joined))
            return;
        EXPECT_OK(self, serry_barrier(self->comm));
        refused(self, -1, SERRY_ERR_INVALID, "0 or more");
        refused(self, 4, SERRY_ERR_INVALID, "4 have been made");
        refused(self, 0, SERRY_ERR_INVALID, "number 0");
        refused(self, 1, SERRY_ERR_INVALID, "finalized");
        refused(self, 3, SERRY_ERR_REVOKED, "revoked");
        EXPECT_OK(self, serry_set_timeout(self->comm, 200));
        refused(self, 2, SERRY_ERR_TIMEOUT, "did not come");
        EXPECT_OK(self, serry_set_timeout(self->comm, 60000));
        test_raise(self, FLAG_DONE);
        regain(self, self->comm, 2, &part[2]);
        refused(self, 2, SERRY_ERR_INVALID, "already");
    } else {
        if (!join(self, self->rank, SERRY_EXCLUDE))
            return;
        for (int i = 0; i < 4; i++)
            EXPECT_OK(self, serry_dup(self->comm, &part[i]));
        if (self->rank == VICTIM) {
            EXPECT_OK(self, serry_finalize(&part[1]));
            test_raise(self, FLAG_DEAD);
            death_now(self);
        }
        if (!until_whole(self, self->comm, SERRY_EXCLUDE, &joined))
            return;
        EXPECT_OK(self, serry_finalize(&part[0]));
        EXPECT_OK(self, serry_revoke(part[3]));
        EXPECT_OK(self, serry_barrier(self->comm));
        test_await(self, FLAG_DONE, 1);
    }
    until_whole(self, part[2], SERRY_EXCLUDE, &joined);
    work(self, part[2]);
    for (int i = 0; i < 4; i++)
        EXPECT_OK(self, serry_finalize(&part[i]));
    EXPECT_OK(self, serry_finalize(&self->comm));
}

static void what_is_not_there_cannot_be_regained(void **state)
{
    (void)state;
    run_newcomers(SERRY_PROCESSES, 1, body_refused, NULL, k_victim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_meets_does_not_wait_for_one_who_has_completed_the_operation),
        cmocka_unit_test(who_left_a_meeting_open_can_agree),
        cmocka_unit_test(a_replacement_regains_parts_under_report),
        cmocka_unit_test(a_replacement_regains_parts_under_exclude),
        cmocka_unit_test(a_replacement_regains_parts_under_wait),
        cmocka_unit_test(a_replacement_may_be_killed_while_it_regains_a_part),
        cmocka_unit_test(what_is_not_there_cannot_be_regained),
    };
    test_watchdog(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
