/* request.c - waiting for requests, and what a caller may do with one. */
#include "flight.h"

#include <limits.h>
#include <sched.h>
#include <stdlib.h>

#include "record.h"
#include "token.h"

#define NS_PER_MS UINT64_C(1000000)
#define BURST 32u /* polls with one turn */

/* ---- making ----------------------------------------------------------------------------------- */

static serry_token *token_of(void *request)
{
    return ((serry_request *)request)->token;
}

void request_init(serry_request *r, flight *f, request_kind what)
{
    r->flight = f;
    r->forks = serry_forks;
    r->what = what;
    atomic_init(&r->ended, 0);
    r->polled = r->orphan = r->watching = false;
    r->error = NULL;
    r->completion = NULL;
    r->limit = (serry_limit){.timeout_ms = f->comm->limit.timeout_ms};
    r->token = NULL;
    r->function = NULL;
    r->list = NULL;
    r->guard = (guard){};
    if (__builtin_expect(f->comm->token != NULL, 0)) {
        r->token = serry_token_retain(f->comm->token);
        r->limit.token = token_of;
        r->limit.argument = r;
    }
}

serry_request *request_take(flight *f)
{
    serry_request *r = f->spare;

    f->spare = NULL;
    return r;
}

serry_request *request_new(flight *f, serry_request *r, request_kind what, const char *operation)
{
    if (r == NULL)
        r = malloc(sizeof(*r));
    if (r == NULL) {
        serry_error_begin(&f->comm->error, operation, 0, f->comm->rank);
        serry_fail(&f->comm->error, SERRY_ERR_NO_SPACE, "out of memory for a request");
        return NULL;
    }
    request_init(r, f, what);
    return r;
}

void request_dispose(serry_request *r)
{
    serry_token_release(&r->token);
    free(r->error);
    free(r);
}

int request_finish(serry_request *r, serry_error *error)
{
    int rc = r->result;

    if (rc != SERRY_OK && r->error != NULL)
        *error = *r->error;
    free(r->error);
    r->error = NULL;
    serry_token_release(&r->token);
    return rc;
}

/* ---- waiting ---------------------------------------------------------------------------------- */

static size_t first_ended(serry_request *const *requests, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (requests[i] != NULL && request_has_ended(requests[i]))
            return i;
    return count;
}

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

/* Is it the first request of its flight here? The others need not drive it again. */
static bool leads(serry_request *const *requests, size_t i)
{
    return requests[i] != NULL &&
           (i == 0 || requests[i - 1] == NULL || requests[i - 1]->flight != requests[i]->flight);
}

static void attend(serry_request *const *requests, size_t count, uint32_t by)
{
    for (size_t i = 0; i < count; i++)
        if (leads(requests, i))
            atomic_fetch_add_explicit(&requests[i]->flight->attended, by, memory_order_seq_cst);
}

/* As many polls of a flight as one turn is good for, with the turn. Where there are no messages to be looked
 * at in between, the backend looks again by itself. */
static void poll_burst(flight *f, const serry_request *r)
{
    bool alone = f->sends.first == NULL && f->receives.first == NULL;

    for (uint32_t b = 0; b < BURST && !request_has_ended(r); b += 1 + f->looked) {
        f->looks = alone ? BURST - 1 - b : 0;
        f->looked = 0;
        flight_drive(f, NULL);
        if (f->pauses == 0)
            break;
        cpu_relax();
    }
    f->looks = 0;
}

/* Raises what polls have said to be worth while. */
static void poll(const serry_request *r, uint32_t *pauses, uint32_t *yields)
{
    flight *f = r->flight;

    if (!flight_try(f))
        return;
    poll_burst(f, r);
    *pauses = f->pauses / BURST > *pauses ? f->pauses / BURST : *pauses;
    *yields = f->yields > *yields ? f->yields : *yields;
    flight_leave(f);
}

/* Polls with pauses, then with yields. The progress thread is told that this one drives, and so need not
 * itself, when the first burst was not enough. */
static bool spin(serry_request *const *requests, size_t count, uint64_t deadline_ns, bool *attends)
{
    uint32_t pauses = 1, yields = 0;

    for (uint32_t done = 0; done < pauses + yields; done++) {
        for (size_t i = 0; i < count; i++)
            if (leads(requests, i))
                poll(requests[i], &pauses, &yields);
        if (first_ended(requests, count) != count)
            return true;
        if (!*attends)
            attend(requests, count, 1);
        *attends = true;
        if (done < pauses)
            continue;
        if (serry_token_now_ns() >= deadline_ns)
            break;
        sched_yield();
    }
    return false;
}

static void count_sleeper(serry_request *const *requests, size_t count, uint32_t by)
{
    for (size_t i = 0; i < count; i++)
        if (leads(requests, i))
            atomic_fetch_add_explicit(&requests[i]->flight->sleepers, by, memory_order_seq_cst);
}

/* Drive all, and sleep until one of them may go on. */
static void drive_and_sleep(serry_request *const *requests, size_t count, uint64_t until_ns)
{
    sleep_list list;

    sleep_begin(&list, until_ns);
    for (size_t i = 0; i < count; i++) {
        if (!leads(requests, i))
            continue;
        flight *f = requests[i]->flight;
        uint32_t pulse = atomic_load_explicit(&f->pulse, memory_order_seq_cst);
        sleep_add(&list, (uint32_t *)(void *)&f->pulse, pulse);
        if (flight_try(f)) {
            flight_drive(f, &list);
            flight_leave(f);
        } else {
            sleep_soon(&list); /* who has the turn may have looked too early, and not look again */
        }
    }
    progress_drive_others(requests, count, &list);
    if (first_ended(requests, count) == count)
        sleep_on(&list);
}

static size_t sleep_until_ended(serry_request *const *requests, size_t count, uint64_t deadline_ns)
{
    size_t index;

    count_sleeper(requests, count, 1);
    while ((index = first_ended(requests, count)) == count && serry_token_now_ns() < deadline_ns)
        drive_and_sleep(requests, count, deadline_ns);
    count_sleeper(requests, count, (uint32_t)-1);
    return index;
}

size_t request_wait_any(serry_request *const *requests, size_t count, uint64_t deadline_ns)
{
    size_t index = first_ended(requests, count);
    bool attends = false;

    if (index != count)
        return index;
    index = spin(requests, count, deadline_ns, &attends)
                ? first_ended(requests, count)
                : sleep_until_ended(requests, count, deadline_ns);
    if (__builtin_expect(attends, 0))
        attend(requests, count, (uint32_t)-1);
    if (index != count && !flight_is_idle(requests[index]->flight))
        progress_ring(false); /* what is left goes on without this thread */
    return index;
}

static uint64_t deadline_of(int timeout_ms)
{
    return timeout_ms < 0 ? UINT64_MAX : serry_token_now_ns() + (uint64_t)timeout_ms * NS_PER_MS;
}

/* ---- what a caller does with it --------------------------------------------------------------- */

static bool is_foreign(const serry_request *r)
{
    return r->forks != serry_forks;
}

static int refuse_null(const char *function)
{
    serry_error *error = serry_error_of_thread();

    serry_error_begin(error, function, 0, -1);
    return serry_fail(error, SERRY_ERR_INVALID, "%s: NULL where a pointer must be", function);
}

static int refuse_foreign(const char *function)
{
    serry_error *error = serry_error_of_thread();

    serry_error_begin(error, function, 0, -1);
    return serry_fail(error, SERRY_ERR_FORKED,
                      "%s: this request belongs to the parent of this process; a child after fork "
                      "can only free it",
                      function);
}

/* Of a request that has ended. */
static int hand_out(serry_request **request)
{
    serry_request *r = *request;
    int rc = r->result;

    if (rc != SERRY_OK)
        return rc;
    request_dispose(r);
    *request = NULL;
    return SERRY_OK;
}

/* A call that ends well in its first burst: its request is kept for the next one. */
static bool end_soon(serry_request **request)
{
    serry_request *r = *request;
    flight *f = r->flight;

    if (r->what != REQUEST_CALL || !flight_try(f))
        return false;
    poll_burst(f, r);
    bool ended = request_has_ended(r) && r->result == SERRY_OK && f->spare == NULL;
    if (ended) {
        if (__builtin_expect(r->token != NULL, 0))
            serry_token_release(&r->token);
        f->spare = r;
        *request = NULL;
    }
    bool idle = flight_is_idle(f);
    flight_leave(f);
    if (ended && !idle)
        progress_ring(false); /* as in request_wait_any */
    return ended;
}

/* The wait's time is over; the request runs on. */
static int out_of_time(const char *function, int timeout_ms)
{
    serry_error *error = serry_error_of_thread();

    serry_error_begin(error, function, 0, -1);
    return serry_fail(error, SERRY_ERR_TIMEOUT,
                      "%s: nothing ended within %d ms; what was waited for goes on", function,
                      timeout_ms);
}

int serry_wait(serry_request **request, int timeout_ms)
{
    if (request == NULL)
        return refuse_null("wait");
    if (*request == NULL)
        return SERRY_OK;
    if (is_foreign(*request))
        return refuse_foreign("wait");
    if (!request_has_ended(*request)) {
        if (end_soon(request))
            return SERRY_OK;
        if (request_wait_any(request, 1, deadline_of(timeout_ms)) == 1)
            return out_of_time("wait", timeout_ms);
    }
    return hand_out(request);
}

int serry_test(serry_request **request, int *done)
{
    if (request == NULL || done == NULL)
        return refuse_null("test");
    *done = 1;
    if (*request == NULL)
        return SERRY_OK;
    if (is_foreign(*request))
        return refuse_foreign("test");
    if (!request_has_ended(*request) && flight_try((*request)->flight)) {
        flight_drive((*request)->flight, NULL);
        flight_leave((*request)->flight);
        progress_drive_others(request, 1, NULL);
    }
    if (request_has_ended(*request))
        return hand_out(request);
    *done = 0;
    return SERRY_OK;
}

int serry_wait_all(serry_request **requests, size_t count, int timeout_ms)
{
    uint64_t deadline_ns = deadline_of(timeout_ms);
    int first = SERRY_OK;

    if (requests == NULL && count != 0)
        return refuse_null("wait_all");
    for (size_t i = 0; i < count; i++) {
        if (requests[i] == NULL)
            continue;
        int rc = is_foreign(requests[i]) ? refuse_foreign("wait_all") : SERRY_OK;
        if (rc == SERRY_OK && request_wait_any(&requests[i], 1, deadline_ns) == 1)
            rc = out_of_time("wait_all", timeout_ms);
        else if (rc == SERRY_OK)
            rc = hand_out(&requests[i]);
        first = first == SERRY_OK ? rc : first;
    }
    return first;
}

int serry_wait_any(serry_request **requests, size_t count, int timeout_ms, size_t *index)
{
    size_t none = 0;

    if (index == NULL || (requests == NULL && count != 0))
        return refuse_null("wait_any");
    *index = count;
    for (size_t i = 0; i < count; i++) {
        if (requests[i] != NULL && is_foreign(requests[i]))
            return refuse_foreign("wait_any");
        none += requests[i] == NULL;
    }
    if (none == count)
        return SERRY_OK;
    *index = request_wait_any(requests, count, deadline_of(timeout_ms));
    return *index == count ? out_of_time("wait_any", timeout_ms) : hand_out(&requests[*index]);
}

int serry_cancel(serry_request *request)
{
    if (request == NULL || request_has_ended(request))
        return SERRY_OK;
    if (is_foreign(request))
        return refuse_foreign("cancel");
    flight *f = request->flight;
    flight_enter(f);
    if (!request_has_ended(request))
        flight_cancel(f, request);
    flight_leave(f);
    return SERRY_OK;
}

int serry_on_completion(serry_request *request, serry_completion function, void *argument)
{
    if (request == NULL || function == NULL)
        return refuse_null("on_completion");
    if (is_foreign(request))
        return refuse_foreign("on_completion");
    flight *f = request_has_ended(request) || flight_is_completing(request->flight)
                    ? NULL
                    : request->flight;
    if (f != NULL)
        flight_enter(f);
    bool ended = request_has_ended(request);
    if (!ended) {
        request->completion = function;
        request->completion_argument = argument;
    }
    if (f != NULL)
        flight_leave(f);
    if (ended)
        function(request->result, request->error, argument);
    return SERRY_OK;
}

const serry_error *serry_request_error(const serry_request *request)
{
    static const serry_error none = {.peer = -1};

    if (request == NULL || is_foreign(request) || !request_has_ended(request) ||
        request->error == NULL)
        return &none;
    return request->error;
}

void serry_request_free(serry_request **request)
{
    if (request == NULL || *request == NULL)
        return;
    serry_request *r = *request;
    *request = NULL;
    if (is_foreign(r)) {
        free(r->error);
        free(r);
        return;
    }
    if (!request_has_ended(r)) {
        flight *f = r->flight;
        flight_enter(f);
        bool ended = request_has_ended(r);
        r->orphan = !ended;
        flight_leave(f);
        if (!ended)
            return;
    }
    request_dispose(r);
}
