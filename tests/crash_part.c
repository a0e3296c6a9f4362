/* crash_part.c - a replacement has come into the world and takes its place in a part of it, too; somebody
 * dies at each instruction of that: a member of the part, in the operation in which all meet, or the
 * replacement. Or a member is held there until the replacement has given up and asks again. */
#include "crash_scenarios.h"
#include "crash_step.h"

enum { PART = 0 }; /* its number: the first that was made of the world */

static int fallen_of(const crash_actor *a)
{
    return a->scenario->size - 1;
}

/* Ranks 1, 0, 3, 2 and so on: not as in the world, and the maker of the new group is rank 1. */
static void divide(crash_actor *a)
{
    bool apart = a->scenario->apart && a->self->rank == 0;

    EXPECT_OK(a->self,
              serry_split(a->comm, apart ? SERRY_UNDEFINED : 0, a->self->rank ^ 1, &a->part));
    CHECK(a->self, (a->part == NULL) == apart);
}

static bool is_apart(const crash_actor *a)
{
    return a->part == NULL && !crash_is_newcomer(a);
}

/* ---- into the world ----------------------------------------------------------------------------- */

static bool is_second(const crash_actor *a)
{
    return a->self->rank > a->scenario->size;
}

/* The second one comes in the place of the first. */
static void come(crash_actor *a)
{
    unsigned members = (unsigned)a->scenario->size - 1;

    a->trial->log[a->self->rank].outside = true;
    test_await(a->self, is_second(a) ? CRASH_FIRED : CRASH_READY, is_second(a) ? 1 : members);
    test_expect(a->self, SERRY_OK, crash_join(a, fallen_of(a), SERRY_ENTRY_REPLACEMENT), NULL,
                "serry_init of the newcomer");
}

/* Who reports has told of the fallen rank in the part as well. */
static void let_in(crash_actor *a)
{
    bool reports = a->scenario->policy == SERRY_REPORT;

    a->trial->log[a->self->rank].outside = is_apart(a);
    if (reports)
        test_expect(a->self, SERRY_ERR_RANK_FAILED, serry_barrier(a->comm), a->comm, "barrier");
    if (reports && !is_apart(a))
        test_expect(a->self, SERRY_ERR_RANK_FAILED, serry_barrier(a->part), a->part,
                    "barrier of the part");
    test_raise(a->self, CRASH_READY);
}

/* Sums until that newcomer and all others are in the world. */
static void gather(crash_actor *a, int newcomer)
{
    int64_t all = ((INT64_C(1) << (a->scenario->size - 1)) - 1) | INT64_C(1) << newcomer, mask = 0;

    while (mask != all) {
        int rc = crash_sum(a, a->comm, 0, &mask);
        if (rc != SERRY_ERR_RANK_JOINED &&
            !test_expect(a->self, SERRY_OK, rc, a->comm, "letting the newcomer in"))
            return;
    }
}

static void begin(crash_actor *a)
{
    if (crash_is_newcomer(a))
        come(a);
    else
        let_in(a);
    gather(a, is_second(a) ? a->self->rank : a->scenario->size);
    if (a->part != NULL)
        crash_await_call(a, a->part);
}

/* ---- into the part ------------------------------------------------------------------------------ */

/* As in crash_rejoin.c: what the newcomer calls first is what the others call then. */
static int meet(crash_actor *a)
{
    int64_t mask = 0;

    if (crash_is_newcomer(a))
        return serry_rejoin_part(a->comm, PART, &a->part);
    if (is_apart(a) || a->scenario->victim >= a->scenario->size)
        return SERRY_OK;
    return crash_sum(a, a->part, 0, &mask);
}

static void meet_judge(crash_actor *a, int rc)
{
    bool reports = a->scenario->policy == SERRY_REPORT;

    crash_note(a, "the meeting of the part", rc, 0);
    if (is_apart(a))
        return;
    if (a->scenario->newcomers > 1 && !crash_is_newcomer(a)) {
        crash_await_strike(a, a->part);
        gather(a, a->scenario->size + 1);
    }
    if (crash_is_newcomer(a))
        test_expect(a->self, SERRY_OK, rc, a->comm, "rejoin_part");
    else if (rc != SERRY_ERR_RANK_JOINED || !reports)
        crash_may_fail(a, a->part, "the meeting of the part", rc);
    if (CHECK(a->self, a->part != NULL))
        crash_go_on(a, a->part, "in the part");
}

/* ---- giving up ---------------------------------------------------------------------------------- */

/* The victim may not wait: once it has asked, it is told that its time is over. */
static void begin_cancelled(crash_actor *a)
{
    serry_timeouts *timeouts = NULL;
    serry_token *token = NULL;

    begin(a);
    if (a->self->rank != a->scenario->victim)
        return;
    if (CHECK(a->self, serry_timeouts_create(0, &timeouts) == SERRY_OK) &&
        CHECK(a->self, serry_timeouts_start(timeouts, 1, 0, &token) == SERRY_OK)) {
        serry_timeouts_cancel_all(timeouts);
        EXPECT_OK(a->self, serry_set_token(a->comm, token));
    }
    serry_token_release(&token);
    serry_timeouts_destroy(&timeouts);
}

/* It takes back what it has asked for, and leaves the place where it has been let in meanwhile; then it
 * asks again. */
static int give_up(crash_actor *a)
{
    int rc;

    if (a->self->rank != a->scenario->victim)
        return meet(a);
    rc = meet(a);
    test_expect(a->self, SERRY_ERR_CANCELLED, rc, a->comm, "rejoin_part, cancelled");
    EXPECT_OK(a->self, serry_set_token(a->comm, NULL));
    rc = meet(a);
    test_expect(a->self, SERRY_OK, rc, a->comm, "rejoin_part, after giving up");
    return rc;
}

/* ---- while another one is held -------------------------------------------------------------------- */

static void *cancel_when_held(void *argument)
{
    crash_actor *a = argument;

    test_await(a->self, CRASH_FIRED, 1);
    serry_timeouts_cancel_all(a->timeouts);
    return NULL;
}

static int again(crash_actor *a)
{
    EXPECT_OK(a->self, serry_set_token(a->comm, NULL));
    test_raise(a->self, CRASH_AGAIN);
    return meet(a);
}

/* The newcomer asks until a member is held in the middle of letting it in; it gives up, and asks again
 * before that one goes on. */
static int hold(crash_actor *a)
{
    serry_token *token = NULL;

    if (!crash_is_newcomer(a))
        return meet(a);
    if (!CHECK(a->self, serry_timeouts_create(0, &a->timeouts) == SERRY_OK) ||
        !CHECK(a->self, serry_timeouts_start(a->timeouts, 1, 0, &token) == SERRY_OK) ||
        !EXPECT_OK(a->self, serry_set_token(a->comm, token)) ||
        !CHECK(a->self, pthread_create(&a->canceller, NULL, cancel_when_held, a) == 0))
        return SERRY_ERR_SYSTEM;
    int rc = meet(a);
    if (rc == SERRY_ERR_CANCELLED)
        rc = again(a);
    EXPECT_OK(a->self, serry_set_token(a->comm, NULL));
    serry_token_release(&token);
    test_raise(a->self, CRASH_AGAIN);
    test_raise(a->self, CRASH_AGAIN);
    return rc;
}

static void hold_judge(crash_actor *a, int rc)
{
    meet_judge(a, rc);
    if (a->timeouts == NULL)
        return;
    pthread_join(a->canceller, NULL);
    serry_timeouts_destroy(&a->timeouts);
}

#define PART_LOST .fallen = true, .prepare = divide
#define REGAIN PART_LOST, .ready = begin, .section = meet, .judge = meet_judge
#define GIVE_UP PART_LOST, .ready = begin_cancelled, .section = give_up, .judge = meet_judge
#define HOLD PART_LOST, .ready = begin, .section = hold, .judge = hold_judge

// clang-format off
const crash_scenario crash_parts[] = {
    {"part that reports", 3, 0, .newcomers = 1, REGAIN},
    {"part that reports, by its maker", 3, 1, .newcomers = 1, REGAIN},
    {"part that excludes, by its maker", 3, 1, SERRY_EXCLUDE, .newcomers = 1, REGAIN},
    {"part of some that excludes", 4, 2, SERRY_EXCLUDE, .newcomers = 1, REGAIN, .apart = true},
    {"newcomer to a part of some", 4, 4, .newcomers = 1, REGAIN, .apart = true},
    {"newcomer to a part, who gives up", 3, 3, .newcomers = 1, GIVE_UP},
    {"newcomer to a part, who gives up, then another", 3, 3, SERRY_EXCLUDE, .newcomers = 2, GIVE_UP},
};

const crash_scenario crash_held_parts[] = {
    {"part that reports, whose maker is held", 3, 1, .newcomers = 1, .points = 30, HOLD},
    {"part that excludes, whose maker is held", 3, 1, SERRY_EXCLUDE, .newcomers = 1, .points = 20, HOLD},
    {"part that reports, one of which is held", 3, 0, .newcomers = 1, .points = 20, HOLD},
};
// clang-format on

const size_t crash_parts_count = sizeof(crash_parts) / sizeof(crash_parts[0]);
const size_t crash_held_parts_count = sizeof(crash_held_parts) / sizeof(crash_held_parts[0]);
