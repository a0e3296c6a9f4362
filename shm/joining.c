/* joining.c - see arena.h: from a job to a running arena, in steps.
 *
 *   meets     all have come, and say the same of the job
 *   gets      the host makes the arena and hands it out; the guests map it
 *   settles   memory of its own, its life lock, its name
 *   waits     until all have done that
 *
 * A step that has to wait for others goes as far as it goes by what is there, and the next call goes on with
 * the same step. Where nobody polls, and there is nothing else to look at, the waits inside it are real
 * ones. */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "arena.h"
#include "group.h"
#include "monitor.h"
#include "record.h"
#include "rendezvous.h"

/* Who is polled naps for so small a part of the time that it has waited. */
#define NAP_PART 8
#define NAP_LEAST_NS 200000
#define NAP_MOST_NS 2000000

typedef enum step { STEP_MEETS, STEP_GETS, STEP_SETTLES, STEP_WAITS, STEPS } step;

/* By one thread at a time, but perhaps by another one at each poll. */
struct arena_joining {
    arena_joining *next; /* of this process; under the lock */
    serry_job job;
    serry_limit given;
    wait_limit limit;
    uint64_t began_ns;
    pthread_t thread;    /* where it began */
    rendezvous *meeting; /* NULL: alone */
    step at;
    shm_arena *arena; /* NULL: not yet */
    bool settled;     /* others may know of it */
};

/* Those that are on their way. What connects them must not stay open in the child of a fork: the others
 * would wait for who has died. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static arena_joining *joinings;

static void before_fork(void)
{
    pthread_mutex_lock(&lock);
}

static void parent_after_fork(void)
{
    pthread_mutex_unlock(&lock);
}

/* A thread of the parent may have been at work on the rest. */
static void child_after_fork(void)
{
    for (arena_joining *j = joinings; j != NULL; j = j->next)
        if (j->meeting != NULL)
            rendezvous_cut(j->meeting);
    joinings = NULL;
    pthread_mutex_unlock(&lock);
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, parent_after_fork, child_after_fork);
}

static void list(arena_joining *j)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, watch_forks);
    pthread_mutex_lock(&lock);
    j->next = joinings;
    joinings = j;
    pthread_mutex_unlock(&lock);
}

static void unlist(const arena_joining *j)
{
    pthread_mutex_lock(&lock);
    arena_joining **at = &joinings;
    while (*at != NULL && *at != j)
        at = &(*at)->next;
    if (*at != NULL)
        *at = j->next;
    pthread_mutex_unlock(&lock);
}

/* ---- the steps ---------------------------------------------------------------------------------- */

static int make_it(arena_joining *j, serry_error *error)
{
    arena_ticket ticket = {0};

    j->arena = arena_make(&j->job, &ticket, error);
    if (j->arena == NULL)
        return error->error;
    return j->meeting == NULL ? SERRY_OK
                              : rendezvous_hand_out(j->meeting, &ticket, j->arena->fd, error);
}

static int map_it(arena_joining *j, serry_error *error)
{
    arena_ticket ticket = {0};
    int fd, rc = rendezvous_receive(j->meeting, &ticket, &fd, error);

    if (rc != SERRY_OK)
        return rc;
    j->arena = arena_map(&j->job, &ticket, fd, error);
    return j->arena == NULL ? error->error : SERRY_OK;
}

/* This rank's own part: memory, its life lock, and its name last. */
static int settle(arena_joining *j, serry_error *error)
{
    const serry_job *job = &j->job;
    int rc = group_settle(j->arena, j->arena->header->world_offset, job->size, job->rank, error);

    if (rc == SERRY_OK) /* alone: nobody to watch, and nobody who would care */
        rc = arena_sign_in(j->arena, job->rank, job->size == 1, error);
    j->settled = rc == SERRY_OK;
    if (rc == SERRY_OK && j->meeting != NULL)
        rc = rendezvous_say_ready(j->meeting, error);
    return rc;
}

/* A thread rank is one of the thread whose life lock it holds: another one that polls leaves it that. */
static bool is_for_owner(const arena_joining *j, bool polled)
{
    return polled && j->job.kind == SERRY_THREADS && !pthread_equal(j->thread, pthread_self());
}

static int meet(arena_joining *j, serry_error *error)
{
    serry_rank_set failed;
    int rc = rendezvous_meet(j->meeting, error);

    if (rc != SERRY_ERR_AGAIN || j->job.failed == NULL)
        return rc;
    j->job.failed(j->job.argument, &failed);
    rc = rendezvous_look(j->meeting, &failed, error);
    return rc == SERRY_OK ? SERRY_ERR_AGAIN : rc;
}

static int do_step(arena_joining *j, bool polled, serry_error *error)
{
    bool met = j->meeting != NULL;

    switch (j->at) {
    case STEP_MEETS:
        return met ? meet(j, error) : SERRY_OK;
    case STEP_GETS:
        return j->job.rank == rendezvous_host(&j->job) ? make_it(j, error) : map_it(j, error);
    case STEP_SETTLES:
        return is_for_owner(j, polled) ? SERRY_ERR_AGAIN : settle(j, error);
    case STEP_WAITS:
        return met ? rendezvous_ready(j->meeting, error) : SERRY_OK;
    case STEPS:
    default:
        return SERRY_OK;
    }
}

/* ---- beginning and end --------------------------------------------------------------------------- */

static int check_absent(const serry_job *job, serry_error *error)
{
    int known = 0;

    for (int i = 0; i < job->size; i++)
        known += serry_rank_set_has(&job->absent, i);
    if (serry_rank_set_has(&job->absent, job->rank) || known != serry_rank_set_count(&job->absent))
        return serry_fail(error, SERRY_ERR_INVALID,
                          "job \"%s\": rank %d is one of those that are absent, or some of them "
                          "are no ranks of %d",
                          job->name, job->rank, job->size);
    return SERRY_OK;
}

arena_joining *arena_begin_to_join(const serry_job *job, serry_error *error)
{
    if (check_absent(job, error) != SERRY_OK)
        return NULL;
    arena_watch_forks();
    arena_joining *j = calloc(1, sizeof(*j));
    if (j == NULL) {
        serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory while joining the job");
        return NULL;
    }
    j->job = *job;
    j->given = (serry_limit){job->timeout_ms, NULL, NULL, NULL};
    j->limit = (wait_limit){&j->given, 0, NULL, false};
    j->began_ns = wait_now_ns();
    j->thread = pthread_self();
    wait_expired(&j->limit); /* from now on */
    if (job->size > 1 && (j->meeting = rendezvous_new(&j->job, &j->limit, error)) == NULL) {
        free(j);
        return NULL;
    }
    list(j);
    return j;
}

static void free_it(arena_joining *j)
{
    unlist(j);
    rendezvous_close(j->meeting);
    free(j);
}

static void seal_own_word(const arena_joining *j)
{
    shm_group world;

    if (group_open(&world, j->arena, j->arena->header->world_offset, j->job.size, j->job.rank,
                   NULL) == SERRY_OK)
        group_close(&world);
}

/* The others see its connection end. */
void arena_give_up_joining(arena_joining *j)
{
    if (j->settled)
        seal_own_word(j);
    if (j->arena != NULL)
        arena_drop(j->arena, j->settled ? j->job.rank : -1);
    free_it(j);
}

/* The arena went when the process was forked. */
void arena_forget_joining(arena_joining *j)
{
    free_it(j);
}

static uint64_t nap_ns(const arena_joining *j)
{
    uint64_t nap_ns = (wait_now_ns() - j->began_ns) / NAP_PART;

    return nap_ns < NAP_LEAST_NS ? NAP_LEAST_NS : nap_ns > NAP_MOST_NS ? NAP_MOST_NS : nap_ns;
}

/* As far as it goes, or to its end. */
static int go_on(arena_joining *j, serry_interest *poll, serry_error *error)
{
    int rc = SERRY_OK;

    if (j->meeting != NULL)
        rendezvous_polled(j->meeting, poll != NULL || j->job.failed != NULL);
    while (j->at < STEPS) {
        rc = do_step(j, poll != NULL, error);
        if (rc == SERRY_ERR_AGAIN && poll == NULL) {
            const struct timespec nap = {0, (long)nap_ns(j)};
            nanosleep(&nap, NULL);
            continue;
        }
        if (rc != SERRY_OK)
            break;
        j->at++;
    }
    return rc;
}

int arena_join(arena_joining *j, serry_interest *poll, shm_arena **arena, wait_plan *plan,
               serry_error *error)
{
    int rc = go_on(j, poll, error);

    *arena = NULL;
    if (rc == SERRY_ERR_AGAIN) {
        *poll = (serry_interest){.sleep = poll->sleep, .at_ns = wait_now_ns() + nap_ns(j)};
        return rc;
    }
    if (rc != SERRY_OK) {
        if (j->meeting != NULL)
            rendezvous_refuse(j->meeting, error);
        arena_give_up_joining(j);
        return rc;
    }
    *arena = j->arena;
    if (j->arena->monitor != NULL)
        monitor_watch(j->arena->monitor);
    *plan = arena_plan_waiting(j->arena);
    arena_choose_team(j->arena, &j->job);
    free_it(j);
    return SERRY_OK;
}
