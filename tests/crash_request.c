/* crash_request.c - many operations started, then waited for: a death at each instruction between.
 * Each of them ends alike for all. */
#include "crash_scenarios.h"

#define UNTOUCHED INT64_C(0x5a5a5a5a5a5a5a5a)

enum { MOST = 64, ELEMENTS = 1032 };

/* Of this rank. */
static int64_t given[MOST][ELEMENTS], got[MOST][ELEMENTS];
static serry_request *request[MOST];
static int result[MOST];

static void start_prepare(crash_actor *a)
{
    for (size_t i = 0; i < MOST; i++)
        for (size_t k = 0; k < ELEMENTS; k++) {
            given[i][k] = (INT64_C(1) << a->self->rank) * (int64_t)(k + i + 1);
            got[i][k] = UNTOUCHED;
        }
}

static int start_all(crash_actor *a)
{
    const crash_scenario *s = a->scenario;

    for (size_t i = 0; i < s->requests; i++)
        EXPECT_OK(a->self, serry_iallreduce(given[i], got[i], s->count, SERRY_I64, SERRY_SUM,
                                            a->comm, &request[i]));
    return (int)s->requests;
}

static int end_all(crash_actor *a, int first)
{
    for (size_t i = 0; i < a->scenario->requests; i++) {
        result[i] = request[i] == NULL ? SERRY_OK : serry_request_error(request[i])->error;
        serry_request_free(&request[i]);
    }
    return first;
}

static int wait_for_all(crash_actor *a)
{
    size_t count = (size_t)start_all(a);

    return end_all(a, serry_wait_all(request, count, -1));
}

static int test_all(crash_actor *a)
{
    size_t count = (size_t)start_all(a);
    int first = SERRY_OK;

    for (size_t i = 0; i < count; i++) {
        int done = 0, rc = SERRY_OK;
        while (!done)
            rc = serry_test(&request[i], &done);
        first = first == SERRY_OK ? rc : first;
    }
    return end_all(a, first);
}

static void judge_one(crash_actor *a, size_t i)
{
    int64_t mask = result[i] == SERRY_OK ? got[i][0] / (int64_t)(i + 1) : 0;

    crash_note(a, "request", result[i], mask);
    if (result[i] != SERRY_OK)
        crash_may_fail(a, a->comm, "a request", result[i]);
    for (size_t k = 0; k < a->scenario->count; k++) {
        int64_t factor = (int64_t)(k + i + 1), own = (INT64_C(1) << a->self->rank) * factor;
        int64_t want = result[i] == SERRY_OK ? mask * factor : UNTOUCHED;
        if (got[i][k] == want && given[i][k] == own)
            continue;
        test_failed(a->self, "request %zu, %s: element %zu is %lld, not %lld; given %lld", i,
                    serry_error_name(result[i]), k, (long long)got[i][k], (long long)want,
                    (long long)given[i][k]);
        return;
    }
}

static void judge_all(crash_actor *a, int rc)
{
    (void)rc; /* one of theirs */
    for (size_t i = 0; i < a->scenario->requests; i++)
        judge_one(a, i);
}

#define STARTED(SECTION, REQUESTS, COUNT)                                                          \
    .count = (COUNT), .requests = (REQUESTS), .progress = SERRY_PROGRESS_CALLER,                   \
    .prepare = start_prepare, .section = SECTION, .judge = judge_all

// clang-format off
const crash_scenario crash_requests[] = {
    {"4 small ones", 3, 1, STARTED(wait_for_all, 4, 5)},
    {"4 small ones, excluding", 3, 0, SERRY_EXCLUDE, STARTED(wait_for_all, 4, 5)},
    {"4 small ones, tested", 3, 1, STARTED(test_all, 4, 5)},
    {"64 small ones", 3, 1, STARTED(wait_for_all, 64, 5), .points = 8},
    {"64 small ones, excluding", 3, 0, SERRY_EXCLUDE, STARTED(wait_for_all, 64, 5), .points = 8},
    {"3 staged ones", 3, 1, STARTED(wait_for_all, 3, ELEMENTS), .points = 100},
    {"3 staged ones, excluding", 3, 0, SERRY_EXCLUDE, STARTED(wait_for_all, 3, ELEMENTS), .points = 100},
    {"3 staged ones, tested", 3, 1, STARTED(test_all, 3, ELEMENTS), .points = 100},
};
// clang-format on

const size_t crash_requests_count = sizeof(crash_requests) / sizeof(crash_requests[0]);
