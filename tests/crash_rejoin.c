/* crash_rejoin.c - a replacement comes for a rank that has fallen, and somebody dies at each
 * instruction of that: a member, in the operation in which all meet, or the newcomer. */
#include <unistd.h>

#include "comm.h"
#include "crash_scenarios.h"
#include "crash_step.h"
#include "operation.h"

static int fallen_of(const crash_actor *a)
{
    return a->scenario->size - 1;
}

bool crash_is_newcomer(const crash_actor *a)
{
    return a->self->rank >= a->scenario->size;
}

static bool is_called(const serry_comm *comm)
{
    const shm_member *m = (const shm_member *)(const void *)comm->member;

    return group_called(&m->group) == GROUP_CALL_MEETING;
}

void crash_await_call(const crash_actor *a, const serry_comm *comm)
{
    while (a->scenario->victim < a->scenario->size && !is_called(comm))
        usleep(200);
}

/* Members wait until it is time for the section, newcomers until it is time to come. */
static void await_time(crash_actor *a)
{
    const crash_scenario *s = a->scenario;

    if (crash_is_newcomer(a)) {
        a->trial->log[a->self->rank].outside = true;
        test_await(a->self, CRASH_READY, (unsigned)s->size - 1);
        if (a->self->rank > s->size)
            test_await(a->self, CRASH_FIRED, 1);
        return;
    }
    if (s->policy == SERRY_REPORT)
        test_expect(a->self, SERRY_ERR_RANK_FAILED, serry_barrier(a->comm), a->comm, "barrier");
    test_raise(a->self, CRASH_READY);
    crash_await_call(a, a->comm);
}

/* The first newcomer takes the place of the fallen rank; the second that of who else is missing. */
static int come(crash_actor *a)
{
    const crash_scenario *s = a->scenario;
    bool second = a->self->rank > s->size && s->victim < s->size;

    return crash_join(a, second ? s->victim : fallen_of(a), SERRY_ENTRY_REPLACEMENT);
}

/* What the newcomer calls first must be what the others call then. */
static int meet(crash_actor *a)
{
    int64_t mask = 0;

    if (crash_is_newcomer(a))
        return come(a);
    if (a->scenario->victim >= a->scenario->size)
        return SERRY_OK;
    return crash_sum(a, a->comm, 0, &mask);
}

static void meet_judge(crash_actor *a, int rc)
{
    crash_note(a, "the meeting", rc, 0);
    if (crash_is_newcomer(a))
        test_expect(a->self, SERRY_OK, rc, NULL, "serry_init of the newcomer");
    else if (rc != SERRY_ERR_RANK_JOINED || a->scenario->policy != SERRY_REPORT)
        crash_may_fail(a, a->comm, "the meeting", rc);
}

#define MEETING .fallen = true, .ready = await_time, .section = meet, .judge = meet_judge

const crash_scenario crash_replacements[] = {
    {"meeting that reports", 3, 1, .newcomers = 1, MEETING},
    {"meeting that reports, by its maker", 3, 0, .newcomers = 1, MEETING},
    {"meeting that excludes", 3, 1, SERRY_EXCLUDE, .newcomers = 1, MEETING},
    {"meeting of those who wait, by its maker", 3, 0, SERRY_WAIT, .newcomers = 2, MEETING},
    {"newcomer", 3, 3, .newcomers = 1, MEETING},
    {"newcomer to those who exclude", 3, 3, SERRY_EXCLUDE, .newcomers = 1, MEETING},
    {"newcomer to those who wait", 3, 3, SERRY_WAIT, .newcomers = 2, MEETING},
};

const size_t crash_replacements_count = sizeof(crash_replacements) / sizeof(crash_replacements[0]);
