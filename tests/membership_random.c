/* membership_random.c - ranks that are killed at random moments, wherever they are then: what the
 * survivors see must be the same for all of them. The seed is printed; SERRY_TEST_SEED repeats it
 * as far as the machine does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deaths.h"

#define RANKS 5
#define ROUNDS (TEST_SANITIZER ? 15 : 50)
#define POWERS 11 /* a victim dies within 4 ms of the operation where its timer starts */

/* Who dies in a round, and where. */
typedef struct round_of {
    int number;
    int dead[3];        /* one or two, ascending, ended by -1 */
    int at[RANKS];      /* the operation, from 0, before which its timer starts */
    unsigned us[RANKS]; /* and how long it runs */
    int revoke_at;      /* the operation before which rank `revoker` revokes; -1: never */
    int revoker;
    void *results; /* of all ranks: shared memory */
} round_of;

static round_of random_round(uint64_t *sequence, int number, int operations)
{
    round_of r = {.number = number, .revoke_at = -1};
    int first = (int)chance(sequence, RANKS), second = (int)chance(sequence, RANKS);

    r.dead[0] = first < second ? first : second;
    r.dead[1] = first == second ? -1 : first < second ? second : first;
    r.dead[2] = -1;
    for (const int *d = r.dead; *d >= 0; d++) {
        r.at[*d] = (int)chance(sequence, (unsigned)operations);
        r.us[*d] = chance_us(sequence, POWERS);
    }
    return r;
}

/* Before operation i of a sequence. */
static void start_timer(test_rank *self, const round_of *r, int i)
{
    test_at(self, "round %d, operation %d", r->number, i);
    if (is_one_of(r->dead, self->rank) && r->at[self->rank] == i)
        death_in(self, r->us[self->rank]);
}

/* A victim whose time has not come at the end. */
static void wait_for_timer(test_rank *self, const round_of *r)
{
    if (is_one_of(r->dead, self->rank))
        death_await();
}

static int first_survivor(const round_of *r)
{
    int rank = 0;

    while (is_one_of(r->dead, rank))
        rank++;
    return rank;
}

static void run_round(test_body body, round_of *r)
{
    run_deaths(SERRY_PROCESSES, RANKS, body, r, r->dead);
}

/* ---- a sequence of agrees ------------------------------------------------------------------- */

#define AGREES 40

/* Who took part, as each rank was told; 0: it was not. */
typedef struct agreed {
    _Atomic uint64_t ranks[RANKS][AGREES];
} agreed;

static void body_agrees(test_rank *self)
{
    round_of *r = self->argument;
    agreed *results = r->results;

    for (int i = 0; i < AGREES; i++) {
        uint64_t bit = UINT64_C(1) << self->rank, bits = i % 2 == 0 ? bit : ~bit;
        start_timer(self, r, i);
        if (r->revoke_at == i && r->revoker == self->rank)
            EXPECT_OK(self, serry_revoke(self->comm));
        EXPECT_OK(self, serry_agree(self->comm, i % 2 == 0 ? SERRY_BOR : SERRY_BAND, &bits));
        results->ranks[self->rank][i] = i % 2 == 0 ? bits : ~bits;
    }
    wait_for_timer(self, r);
}

/* True if a death fell between the first and the last agree. */
static bool check_agrees(const round_of *r)
{
    const agreed *results = r->results;
    uint64_t before = (1u << RANKS) - 1, survivors = before;

    for (const int *d = r->dead; *d >= 0; d++)
        survivors &= ~(UINT64_C(1) << *d);
    for (int i = 0; i < AGREES; i++) {
        uint64_t told = results->ranks[first_survivor(r)][i];
        for (int rank = 0; rank < RANKS; rank++) { /* also what a victim was told while it lived */
            uint64_t other = results->ranks[rank][i];
            if (other != told && (other != 0 || !is_one_of(r->dead, rank)))
                fail_msg("round %d, agree %d: rank %d was told %#llx, another one %#llx", r->number,
                         i, rank, (unsigned long long)other, (unsigned long long)told);
        }
        if ((told & survivors) != survivors || (told & ~before) != 0)
            fail_msg("round %d, agree %d: %#llx took part, after %#llx", r->number, i,
                     (unsigned long long)told, (unsigned long long)before);
        before = told;
    }
    return before != results->ranks[first_survivor(r)][0];
}

static void killed_in_a_sequence_of_agrees(void **state)
{
    (void)state;
    uint64_t sequence = chance_begin(2);
    int within = 0;

    for (int i = 0; i < ROUNDS; i++) {
        round_of r = random_round(&sequence, i, AGREES);
        r.revoke_at = i % 3 == 0 ? (int)chance(&sequence, AGREES) : -1;
        r.revoker = (int)chance(&sequence, RANKS);
        r.results = test_shared(sizeof(agreed));
        run_round(body_agrees, &r);
        within += check_agrees(&r);
        test_unshare(r.results, sizeof(agreed));
    }
    print_message("%d of %d rounds had a death within the sequence\n", within, ROUNDS);
}

/* ---- shrinking while ranks die -------------------------------------------------------------- */

enum { SHRINKS }; /* a number that ranks hand up */

static bool has_lost_somebody(test_rank *self, serry_comm *comm)
{
    int64_t one = 1, sum = 0;
    int rc = serry_allreduce(&one, &sum, 1, SERRY_I64, SERRY_SUM, comm);

    if (rc == SERRY_ERR_RANK_FAILED)
        return true;
    test_expect(self, SERRY_OK, rc, comm, "allreduce after shrink");
    CHECK(self, sum == serry_size(comm));
    return false;
}

/* Shrink until all the dead are out: each communicator is made of the one before. */
static void body_shrinks(test_rank *self)
{
    enum { MOST = 8 };
    const round_of *r = self->argument;
    serry_comm *made[MOST] = {NULL}, *comm = self->comm;
    int wanted = RANKS - (r->dead[1] >= 0 ? 2 : 1), shrinks = 0;

    EXPECT_OK(self, serry_barrier(comm));
    start_timer(self, r, 0);
    while (shrinks < MOST && serry_size(comm) > wanted) {
        if (!test_expect(self, SERRY_OK, serry_shrink(comm, &made[shrinks]), comm, "shrink"))
            break;
        comm = made[shrinks++];
        test_at(self, "round %d, after shrink %d", r->number, shrinks);
        CHECK(self, serry_size(comm) >= wanted);
        while (serry_size(comm) > wanted && !has_lost_somebody(self, comm))
            continue; /* the victims' time has not come */
    }
    wait_for_timer(self, r);
    CHECK(self, serry_size(comm) == wanted);
    expect_goes_on(self, comm, (const int[]){-1});
    test_mine(self)->number[SHRINKS] = shrinks;
    while (shrinks > 0)
        EXPECT_OK(self, serry_finalize(&made[--shrinks]));
}

static void killed_while_all_shrink(void **state)
{
    (void)state;
    test_options options = {.kind = SERRY_PROCESSES, .size = RANKS};
    uint64_t sequence = chance_begin(3);
    int several = 0;

    for (int i = 0; i < ROUNDS; i++) {
        round_of r = random_round(&sequence, i, 1);
        test_run *run = test_start(&options, body_shrinks, &r);
        test_join(run);
        int differ = 0;
        for (int rank = 0; rank < RANKS; rank++)
            differ += !is_one_of(r.dead, rank) &&
                      test_report_of(run, rank)->number[SHRINKS] !=
                          test_report_of(run, first_survivor(&r))->number[SHRINKS];
        several += test_report_of(run, first_survivor(&r))->number[SHRINKS] > 1;
        deaths_end(run, options.kind, RANKS, r.dead);
        assert_int_equal(differ, 0);
    }
    print_message("%d of %d rounds took more than one shrink\n", several, ROUNDS);
}

/* ---- a long sequence of operations under REPORT ---------------------------------------------- */

#define OPERATIONS 200
#define ELEMENTS ((size_t)40000)

/* What one operation gave to one rank. */
typedef struct outcome {
    int64_t code;
    uint64_t named;     /* ranks in the record of an error */
    uint64_t took_part; /* where it succeeded */
} outcome;

typedef struct outcomes {
    outcome of[RANKS][OPERATIONS];
} outcomes;

typedef struct buffers {
    int64_t *private_memory, *in_arena;
} buffers;

/* Element i of what a rank gives to operation n. */
static int64_t element(int rank, int n, size_t i)
{
    return (rank + 1) * (int64_t)(i % 61 + 1) + n;
}

static void check_result(test_rank *self, const serry_call *c, int n, int code,
                         const serry_rank_set *took_part)
{
    const int64_t *vector = c->recv;
    bool reduces = c->kind == SERRY_KIND_ALLREDUCE;

    for (size_t i = 0; i < c->count; i++) {
        int64_t wanted = reduces ? 0 : element(c->root, n, i);
        for (int r = 0; r < RANKS && reduces; r++)
            wanted += serry_rank_set_has(took_part, r) ? element(r, n, i) : 0;
        wanted = code == SERRY_OK ? wanted : element(self->rank, n, i);
        if (vector[i] != wanted) {
            test_failed(self, "operation %d, %s of %zu, code %d: element %zu is %lld, not %lld", n,
                        serry_kind_name(c->kind), c->count, code, i, (long long)vector[i],
                        (long long)wanted);
            return;
        }
    }
}

/* In place, so that an error must leave what was there. The same on all ranks for a number. */
static serry_call random_call(uint64_t seed, int n, const buffers *b)
{
    const size_t counts[] = {0, 1, 3, 700, ELEMENTS};
    uint64_t sequence = seed + (uint64_t)n;
    size_t count = counts[chance(&sequence, 5)];
    int64_t *memory = chance(&sequence, 2) == 0 ? b->private_memory : b->in_arena;
    serry_call call = {SERRY_KIND_ALLREDUCE, SERRY_I64, SERRY_SUM, 0, count,
                       SERRY_IN_PLACE,       memory};

    if (chance(&sequence, 3) == 0) {
        call.kind = SERRY_KIND_BROADCAST;
        call.root = (int)chance(&sequence, RANKS);
    }
    return call;
}

static void body_reports(test_rank *self)
{
    const round_of *r = self->argument;
    outcome *own = ((outcomes *)r->results)->of[self->rank];
    buffers b = {malloc(ELEMENTS * sizeof(int64_t)),
                 serry_alloc(self->comm, ELEMENTS * sizeof(int64_t))};

    for (int n = 0; n < OPERATIONS; n++) {
        serry_call call = random_call(test_seed() + (uint64_t)r->number * OPERATIONS, n, &b);
        serry_rank_set took_part;
        int64_t *vector = call.recv;
        for (size_t i = 0; i < call.count; i++)
            vector[i] = element(self->rank, n, i);
        start_timer(self, r, n);
        int rc = test_call(&call, self->comm);
        serry_participants(self->comm, &took_part);
        check_result(self, &call, n, rc, &took_part);
        own[n] = (outcome){rc, 0, 0};
        if (rc == SERRY_OK)
            own[n].took_part = took_part.bits[0];
        else
            own[n].named = serry_last_error(self->comm)->ranks.bits[0];
        if (rc != SERRY_OK && rc != SERRY_ERR_RANK_FAILED)
            test_expect(self, SERRY_OK, rc, self->comm, "operation %d", n);
    }
    wait_for_timer(self, r);
    serry_free(self->comm, b.in_arena);
    free(b.private_memory);
}

/* All survivors have had the same; each death was told once; a dead root is told each time. Returns
 * how many were told. */
static int check_reports(const round_of *r)
{
    const outcomes *results = r->results;
    const outcome *first = results->of[first_survivor(r)];
    buffers none = {NULL, NULL};
    uint64_t told = 0, all = (1u << RANKS) - 1;

    for (int rank = 0; rank < RANKS; rank++)
        for (int n = 0; n < OPERATIONS && !is_one_of(r->dead, rank); n++)
            if (memcmp(&results->of[rank][n], &first[n], sizeof(outcome)) != 0)
                fail_msg("round %d, operation %d: ranks %d and %d have different results",
                         r->number, n, first_survivor(r), rank);
    for (int n = 0; n < OPERATIONS; n++) {
        serry_call call = random_call(test_seed() + (uint64_t)r->number * OPERATIONS, n, &none);
        uint64_t root = UINT64_C(1) << call.root;
        bool dead_root = call.kind == SERRY_KIND_BROADCAST && (told & root) != 0;
        if (dead_root ? first[n].named != root && (first[n].named & told) != 0
                      : (first[n].named & told) != 0)
            fail_msg("round %d, operation %d names %#llx again", r->number, n,
                     (unsigned long long)first[n].named);
        if (first[n].code == SERRY_OK && first[n].took_part != (all & ~told))
            fail_msg("round %d, operation %d: wrong participants", r->number, n);
        told |= first[n].named;
    }
    for (int rank = 0; rank < RANKS; rank++)
        if ((told >> rank & 1) != 0 && !is_one_of(r->dead, rank))
            fail_msg("round %d: rank %d was said to have failed, and lives", r->number, rank);
    return __builtin_popcountll(told);
}

static void killed_in_a_long_sequence_under_report(void **state)
{
    (void)state;
    uint64_t sequence = chance_begin(4);
    int told = 0;

    for (int i = 0; i < ROUNDS / 2; i++) {
        round_of r = random_round(&sequence, i, OPERATIONS);
        r.results = test_shared(sizeof(outcomes));
        run_round(body_reports, &r);
        told += check_reports(&r);
        test_unshare(r.results, sizeof(outcomes));
    }
    print_message("%d deaths were reported within the sequences\n", told);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_in_a_sequence_of_agrees),
        cmocka_unit_test(killed_while_all_shrink),
        cmocka_unit_test(killed_in_a_long_sequence_under_report),
    };

    return cmocka_run_group_tests_name("membership_random", tests, NULL, NULL);
}
