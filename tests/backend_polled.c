/* backend_polled.c - split, shrink, agree and meet by polling, as requests do it: a poll never blocks, says
 * what to wait for, and the call goes on until all that live have come. Over the backend of SERRY_BACKEND. */
#include <sched.h>

#include "comm.h"
#include "deaths.h"

#include <serry/backend.h>

enum { RANKS = 4, LATE = 2, DEAD = 1, POLLS = 20, VOTE = 64 };
enum { FLAG_POLLED }; /* raised by each of the others, once in a turn */

typedef enum what { SPLIT, SHRINK, AGREE, MEET, WHATS } what;

static const char *const k_names[] = {"split", "shrink", "agree", "meet"};

typedef struct polled {
    what it;
    uint64_t bits, votes;
    int repeat;
    serry_member *made;
} polled;

static int poll_once(test_rank *self, polled *p, const serry_limit *limit)
{
    const serry_backend *b = self->comm->backend;
    serry_member *member = self->comm->member;
    serry_error *error = &self->comm->error;

    switch (p->it) {
    case SPLIT:
        return b->split(member, 0, self->rank, limit, &p->made, error);
    case SHRINK:
        return b->shrink(member, limit, &p->made, error);
    case AGREE:
        return b->agree(member, SERRY_BOR, &p->bits, limit, error);
    case MEET:
    default:
        return b->meet(member, VOTE + (uint64_t)self->rank, limit, &p->votes, &p->repeat, error);
    }
}

/* Until it is not SERRY_ERR_AGAIN. */
static int poll_on(test_rank *self, polled *p, bool tells)
{
    serry_interest interest = {.begins = true};
    const serry_limit limit = {60000, NULL, NULL, &interest};
    int rc;

    *p = (polled){.it = p->it, .bits = UINT64_C(1) << self->rank};
    for (int polls = 0; (rc = poll_once(self, p, &limit)) == SERRY_ERR_AGAIN; polls++) {
        interest = (serry_interest){.sleep = polls % 2 == 0};
        CHECK(self, p->made == NULL);
        if (tells && polls == POLLS)
            test_raise(self, FLAG_POLLED);
        sched_yield();
    }
    return rc;
}

/* One that has died meanwhile may have taken part, or not. */
static void expect_made(test_rank *self, polled *p, bool dead)
{
    const serry_backend *b = self->comm->backend;

    if (p->it == AGREE)
        CHECK(self, p->bits == 0xf || (dead && p->bits == (0xf & ~(1u << DEAD))));
    if (p->it == MEET)
        CHECK(self, p->votes == (VOTE | 3) && p->repeat == SERRY_REPEAT);
    if (p->it == AGREE || p->it == MEET || !CHECK(self, p->made != NULL))
        return;
    int size = b->size(p->made), rank = self->rank - (size < RANKS && self->rank > DEAD);
    CHECK(self, size == RANKS || (dead && size == RANKS - 1));
    CHECK(self, b->rank(p->made) == rank);
    test_expect(self, SERRY_OK, b->close(p->made, &self->comm->error), NULL, "close");
}

static void one_turn(test_rank *self, what it, unsigned number, bool dead)
{
    unsigned others = RANKS - 1 - (unsigned)dead;
    polled p = {.it = it};

    test_at(self, "%s", k_names[it]);
    if (self->rank == LATE)
        test_await(self, FLAG_POLLED, (number + 1) * others);
    int rc = poll_on(self, &p, self->rank != LATE);
    if (dead && it == SPLIT && rc == SERRY_ERR_RANK_FAILED) /* as any operation, by the policy */
        rc = poll_on(self, &p, false);
    test_expect(self, SERRY_OK, rc, self->comm, "%s", k_names[it]);
    expect_made(self, &p, dead);
}

/* ---- a late rank -------------------------------------------------------------------------------- */

static void body_late(test_rank *self)
{
    for (unsigned n = 0; n < 2 * WHATS && test_mine(self)->failures == 0; n++) {
        one_turn(self, (what)(n % WHATS), n, false);
        test_meet(self);
    }
    EXPECT_OK(self, serry_barrier(self->comm));
}

static void a_poll_goes_on_until_the_last_one_has_come(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, body_late, NULL);
    run_ranks(SERRY_THREADS, RANKS, body_late, NULL);
}

/* ---- a dead one --------------------------------------------------------------------------------- */

/* The argument: which of them, and whether it has begun when it dies. */
static void body_dead(test_rank *self)
{
    int turn = *(const int *)self->argument;
    const int dead[] = {DEAD, -1};

    EXPECT_OK(self, serry_barrier(self->comm));
    test_meet(self); /* who is called to a meeting inside the barrier would come to it from there */
    if (self->rank == DEAD) {
        serry_interest interest = {.begins = true};
        const serry_limit limit = {60000, NULL, NULL, &interest};
        polled p = {.it = (what)(turn / 2), .bits = 1u << DEAD};
        if (turn % 2 == 0)
            CHECK(self, poll_once(self, &p, &limit) == SERRY_ERR_AGAIN);
        death_now(self);
    }
    await_known(self, self->comm, dead);
    one_turn(self, (what)(turn / 2), 0, true);
    int rc = serry_barrier(self->comm);
    if (rc != SERRY_OK)
        expect_failed(self, self->comm, rc, dead, "barrier");
    expect_goes_on(self, self->comm, dead);
}

static void a_poll_does_not_wait_for_the_dead(void **state)
{
    const int dead[] = {DEAD, -1};

    (void)state;
    for (int turn = 0; turn < 2 * WHATS; turn++)
        run_deaths(SERRY_PROCESSES, RANKS, body_dead, &turn, dead);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_poll_goes_on_until_the_last_one_has_come),
        cmocka_unit_test(a_poll_does_not_wait_for_the_dead),
    };

    test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
