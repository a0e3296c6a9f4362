/* crash_part.c - a replacement has come into the world and takes its place in a part of it, too; somebody
 * dies at each instruction of that: a member of the part, in the operation in which all meet, or the
 * replacement. */
#include "crash_scenarios.h"
#include "crash_step.h"

enum { PART = 0 };  /* its number: the first that was made of the world */
enum { HURRY = 1 }; /* ms: who gives up has hardly asked */

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

static void come(crash_actor *a)
{
    unsigned members = (unsigned)a->scenario->size - 1;

    a->trial->log[a->self->rank].outside = true;
    test_await(a->self, CRASH_READY, members);
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

/* Sums until all are in the world. */
static void gather(crash_actor *a)
{
    int64_t all = ((INT64_C(1) << a->self->size) - 1) & ~(INT64_C(1) << fallen_of(a)), mask = 0;

    if (crash_is_newcomer(a))
        come(a);
    else
        let_in(a);
    while (mask != all) {
        int rc = crash_sum(a, a->comm, 0, &mask);
        if (rc != SERRY_ERR_RANK_JOINED &&
            !test_expect(a->self, SERRY_OK, rc, a->comm, "letting the newcomer in"))
            return;
    }
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
    if (crash_is_newcomer(a))
        test_expect(a->self, SERRY_OK, rc, a->comm, "rejoin_part");
    else if (rc != SERRY_ERR_RANK_JOINED || !reports)
        crash_may_fail(a, a->part, "the meeting of the part", rc);
    if (CHECK(a->self, a->part != NULL))
        crash_go_on(a, a->part, "in the part");
}

/* It takes back what it asks for, and leaves the place where it has been let in meanwhile. */
static int give_up(crash_actor *a)
{
    if (crash_is_newcomer(a))
        serry_set_timeout(a->comm, HURRY);
    return meet(a);
}

#define NEWCOMER                                                                                   \
    .newcomers = 1, .fallen = true, .prepare = divide, .ready = gather, .judge = meet_judge
#define REGAIN NEWCOMER, .section = meet

// clang-format off
const crash_scenario crash_parts[] = {
    {"part that reports", 3, 0, REGAIN},
    {"part that reports, by its maker", 3, 1, REGAIN},
    {"part that excludes, by its maker", 3, 1, SERRY_EXCLUDE, REGAIN},
    {"part of some that excludes", 4, 2, SERRY_EXCLUDE, REGAIN, .apart = true},
    {"newcomer to a part", 3, 3, REGAIN},
    {"newcomer to a part of some that excludes", 4, 4, SERRY_EXCLUDE, REGAIN, .apart = true},
    {"newcomer to a part, who gives up", 3, 3, NEWCOMER, .section = give_up},
};
// clang-format on

const size_t crash_parts_count = sizeof(crash_parts) / sizeof(crash_parts[0]);
