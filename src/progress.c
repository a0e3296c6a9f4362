/* progress.c - the thread that drives what was started while its starters do something else.
 *
 * One per process, started with the first flight and ended with the last. It is never in the way of
 * small operations that are waited for at once: starting one wakes nobody as long as the thread only
 * naps, which it does for some milliseconds after it last had something to do. Then it sleeps until it
 * is rung for, or until something that it has looked at changes:
 *
 *   naps    looks again every 0.2 ms           posts need not ring, unless they are urgent
 *   sleeps  on its bell and all interests      posts ring
 *
 * Flights that a waiting thread attends are that thread's business. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

#include "flight.h"
#include "record.h"
#include "token.h"

#define NAP_NS UINT64_C(200000)
#define ACTIVE_NS UINT64_C(5000000) /* it naps so long after there was something to do */

/* The process's. In the child of a fork everything starts anew. */
static struct {
    pthread_mutex_t threads; /* held to start and end the thread; before `lock` */
    pthread_mutex_t
        lock; /* of the list; held to leave a flight, so that who frees it can be sure */
    flight **flights;
    size_t count, room;
    size_t driven; /* of them: by the thread */
    pthread_t thread;
    bool started;
    _Atomic uint32_t bell; /* private futex word */
    _Atomic bool
        asleep; /* a post must ring: seq_cst, by the thread before it looks a last time; who
                              rings for it takes it back, so that others need not until it is awake */
    _Atomic bool stop;
} p = {.threads = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- the thread ------------------------------------------------------------------------------- */

static void ring(void)
{
    atomic_fetch_add_explicit(&p.bell, 1, memory_order_seq_cst);
    sleep_wake(&p.bell);
}

void progress_ring(bool urgent)
{
    bool asleep = atomic_load_explicit(&p.asleep, memory_order_seq_cst) &&
                  atomic_exchange_explicit(&p.asleep, false, memory_order_seq_cst);

    if (urgent || asleep)
        ring();
}

static bool is_among(const flight *f, serry_request *const *requests, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (requests[i] != NULL && requests[i]->flight == f)
            return true;
    return false;
}

/* The next flight from number *at on that has something under way, is driven in this way, and by nobody
 * else now: with its turn. *missed: one that somebody has just now, who may have looked too early. */
static flight *next_flight(size_t *at, serry_progress progress, serry_request *const *but,
                           size_t count, bool *missed)
{
    flight *found = NULL;

    pthread_mutex_lock(&p.lock);
    while (*at < p.count && found == NULL) {
        flight *f = p.flights[(*at)++];
        if (!flight_is_idle(f) && f->comm->progress == progress && !is_among(f, but, count) &&
            (progress == SERRY_PROGRESS_CALLER ||
             atomic_load_explicit(&f->attended, memory_order_seq_cst) == 0)) {
            found = flight_try(f) ? f : NULL;
            *missed |= found == NULL;
        }
    }
    pthread_mutex_unlock(&p.lock);
    return found;
}

static void leave_flight(flight *f)
{
    pthread_mutex_lock(&p.lock);
    flight_leave(f);
    pthread_mutex_unlock(&p.lock);
}

/* Was there any? */
static bool drive_all(serry_progress progress, serry_request *const *but, size_t count,
                      sleep_list *list)
{
    bool missed = false, any = false;
    size_t at = 0;
    flight *f;

    while ((f = next_flight(&at, progress, but, count, &missed)) != NULL) {
        flight_drive(f, list);
        leave_flight(f);
        any = true;
    }
    if (missed && list != NULL)
        sleep_soon(list);
    return any;
}

static void *progress_main(void *unused)
{
    uint64_t rung_ns = serry_token_now_ns();
    sleep_list list;

    (void)unused;
    while (!atomic_load_explicit(&p.stop, memory_order_acquire)) {
        uint32_t bell = atomic_load_explicit(&p.bell, memory_order_seq_cst);
        uint64_t now_ns = serry_token_now_ns();
        bool naps = now_ns - rung_ns < ACTIVE_NS;
        atomic_store_explicit(&p.asleep, !naps, memory_order_seq_cst);
        sleep_begin(&list, naps ? now_ns + NAP_NS : UINT64_MAX);
        sleep_add(&list, (uint32_t *)(void *)&p.bell, bell);
        drive_all(SERRY_PROGRESS_THREAD, NULL, 0, &list);
        sleep_on(&list);
        if (atomic_load_explicit(&p.bell, memory_order_seq_cst) != bell)
            rung_ns = serry_token_now_ns();
    }
    return NULL;
}

/* It takes no signal that is meant for the program. */
static int start_thread(int cpu)
{
    sigset_t all, before;
    pthread_attr_t attributes;

    atomic_store(&p.stop, false);
    pthread_attr_init(&attributes);
    if (cpu >= 0) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET((size_t)cpu, &cpus);
        pthread_attr_setaffinity_np(&attributes, sizeof(cpus), &cpus);
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&p.thread, &attributes, progress_main, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    p.started = rc == 0;
    return rc;
}

static void end_thread(void)
{
    atomic_store_explicit(&p.stop, true, memory_order_release);
    ring();
    pthread_join(p.thread, NULL);
    p.started = false;
}

/* ---- its flights ------------------------------------------------------------------------------ */

static int make_room(void)
{
    size_t room = p.room == 0 ? 8 : 2 * p.room;

    if (p.count < p.room)
        return SERRY_OK;
    flight **flights = realloc(p.flights, room * sizeof(*flights));
    if (flights == NULL)
        return SERRY_ERR_NO_SPACE;
    p.flights = flights;
    p.room = room;
    return SERRY_OK;
}

int progress_join(flight *f, serry_error *error)
{
    bool wanted = f->comm->progress == SERRY_PROGRESS_THREAD;
    int failed = 0;

    pthread_mutex_lock(&p.threads);
    pthread_mutex_lock(&p.lock);
    int rc = make_room();
    if (rc == SERRY_OK && wanted && p.driven == 0)
        failed = start_thread(f->comm->progress_cpu);
    if (rc == SERRY_OK && failed == 0) {
        p.flights[p.count++] = f;
        p.driven += wanted;
    }
    pthread_mutex_unlock(&p.lock);
    pthread_mutex_unlock(&p.threads);
    if (rc != SERRY_OK)
        return serry_fail(error, rc, "out of memory for a request");
    if (failed != 0)
        return serry_fail_errno(error, failed,
                                "the progress thread could not be started%s; without one, set "
                                "SERRY_PROGRESS=caller",
                                failed == EINVAL ? " on the CPU that SERRY_PROGRESS names" : "");
    return SERRY_OK;
}

void progress_leave(flight *f)
{
    size_t i = 0;

    pthread_mutex_lock(&p.threads);
    pthread_mutex_lock(&p.lock);
    while (p.flights[i] != f)
        i++;
    p.flights[i] = p.flights[--p.count];
    p.driven -= f->comm->progress == SERRY_PROGRESS_THREAD;
    bool last = p.started && p.driven == 0;
    if (p.count == 0) {
        free(p.flights);
        p.flights = NULL;
        p.room = 0;
    }
    pthread_mutex_unlock(&p.lock);
    if (last)
        end_thread();
    else
        ring(); /* the flight that has taken its number may have been passed over */
    pthread_mutex_unlock(&p.threads);
}

void progress_forget(void)
{
    free(p.flights);
    p.flights = NULL;
    p.count = p.room = p.driven = 0;
    p.started = false;
    pthread_mutex_init(&p.lock, NULL);
    pthread_mutex_init(&p.threads, NULL);
}

/* Who sleeps then is the one to feel a token of theirs: that rings. */
void progress_drive_others(serry_request *const *requests, size_t count, sleep_list *list)
{
    uint32_t bell = atomic_load_explicit(&p.bell, memory_order_seq_cst);

    if (drive_all(SERRY_PROGRESS_CALLER, requests, count, list) && list != NULL)
        sleep_add(list, (uint32_t *)(void *)&p.bell, bell);
}
