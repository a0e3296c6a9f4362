/* communicator.c - joining, leaving, dividing; what a communicator knows; memory in the arena. */
#include <serry/serry.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "comm.h"
#include "environment.h"
#include "flight.h"
#include "many.h"
#include "record.h"
#include "settings.h"

unsigned serry_forks;

static void count_fork(void)
{
    serry_forks++;
    progress_forget();
    guard_forget();
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, count_fork);
}

const char *serry_version(void)
{
    return SERRY_VERSION;
}

static __attribute__((cold, noinline)) int refuse(serry_comm *comm, const char *operation)
{
    serry_error *error = comm == NULL ? serry_error_of_thread() : &comm->error;

    serry_error_begin(error, operation, 0, comm == NULL ? -1 : comm->rank);
    if (comm == NULL)
        return serry_fail(error, SERRY_ERR_INVALID, "%s: the communicator is NULL", operation);
    return serry_fail(error, SERRY_ERR_FORKED,
                      "%s: this communicator belongs to the parent of this process; a child after "
                      "fork can only finalize it, and join a job of its own",
                      operation);
}

int serry_comm_check(serry_comm *comm, const char *operation)
{
    return serry_comm_is_usable(comm) ? SERRY_OK : refuse(comm, operation);
}

/* ---- joining and leaving ---------------------------------------------------------------------- */

/* Without a member yet, like `parent` where there is one; NULL: no memory, told in the record. */
static serry_comm *new_comm(const serry_backend *backend, int timeout_ms, const serry_comm *parent,
                            serry_error *error)
{
    serry_comm *comm = calloc(1, sizeof(*comm));

    if (comm == NULL) {
        serry_error_begin(error, "init", 0, -1);
        serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory for a communicator");
        return NULL;
    }
    comm->backend = backend;
    comm->limit.timeout_ms = timeout_ms;
    comm->forks = serry_forks;
    if (parent != NULL) {
        comm->progress = parent->progress;
        comm->progress_cpu = parent->progress_cpu;
    }
    return comm;
}

static void adopt(serry_comm *comm, serry_member *member)
{
    comm->member = member;
    comm->rank = comm->backend->rank(member);
    comm->size = comm->backend->size(member);
    serry_error_begin(&comm->error, "", 0, comm->rank);
}

int serry_init(const serry_config *config, serry_comm **comm)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    serry_error *error = serry_error_of_thread();
    serry_job job;

    serry_error_begin(error, "init", 0, -1);
    if (comm == NULL)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "init: no place to put the communicator (NULL)");
    *comm = NULL;
    pthread_once(&once, watch_forks);
    int rc = serry_environment_job(config, &job, error);
    if (rc != SERRY_OK)
        return rc;
    error->rank = job.rank;
    const serry_backend *backend;
    rc = serry_settings_find_backend(config, &backend, error);
    if (rc != SERRY_OK)
        return rc;
    serry_comm *made = new_comm(backend, job.timeout_ms, NULL, error);
    serry_member *member;
    if (made == NULL)
        return error->error;
    rc = serry_settings_find_progress(config, made, error);
    if (rc == SERRY_OK)
        rc = backend->open(backend, &job, &member, error);
    if (rc != SERRY_OK) {
        free(made);
        return rc;
    }
    adopt(made, member);
    *comm = made;
    return SERRY_OK;
}

static int close_member(serry_comm *comm)
{
    many_close(comm);
    int rc = comm->backend->close(comm->member, &comm->error);
    many_closed(comm, rc == SERRY_OK);
    return rc;
}

/* Requests that have not ended are cancelled. */
static int close_comm(serry_comm *comm)
{
    if (comm->flight == NULL)
        return close_member(comm);
    flight_enter(comm->flight);
    flight_withdraw(comm->flight);
    int rc = close_member(comm);
    if (rc != SERRY_OK) {
        flight_leave(comm->flight);
        return rc;
    }
    if (comm->flight->joined)
        progress_leave(comm->flight);
    comm->flight->joined = false;
    comm->flight->ending = true; /* for completions that start something again */
    flight_free(comm->flight);
    return SERRY_OK;
}

int serry_finalize(serry_comm **comm)
{
    if (comm == NULL || *comm == NULL)
        return SERRY_OK;
    if ((*comm)->forks == serry_forks) {
        int rc = close_comm(*comm);
        if (rc != SERRY_OK)
            return rc;
    } else {
        (*comm)->backend->forget((*comm)->member);
        if ((*comm)->flight != NULL)
            flight_forget((*comm)->flight);
    }
    serry_token_release(&(*comm)->token);
    free(*comm);
    *comm = NULL;
    return SERRY_OK;
}

int serry_comm_derive(serry_comm *comm, serry_comm_function function, void *argument,
                      serry_member *const *member, serry_comm **part)
{
    serry_comm *made = new_comm(comm->backend, comm->limit.timeout_ms, comm, &comm->error);

    if (made == NULL)
        return comm->error.error;
    int rc = serry_comm_do(comm, function, argument);
    if (rc == SERRY_OK && *member != NULL) {
        adopt(made, *member);
        *part = made;
    } else {
        free(made);
    }
    return rc;
}

typedef struct division {
    int colour, key;
    serry_member *member;
} division;

static int split_member(serry_comm *comm, const serry_limit *limit, void *argument,
                        serry_error *error)
{
    division *d = argument;

    return comm->backend->split(comm->member, d->colour, d->key, limit, &d->member, error);
}

static int divide(serry_comm *comm, int colour, int key, serry_comm **part)
{
    division d = {colour, key, NULL};

    return serry_comm_derive(comm, split_member, &d, &d.member, part);
}

int serry_comm_check_new(serry_comm *comm, const char *operation, int colour, serry_comm **part)
{
    int rc = serry_comm_check(comm, operation);

    if (part != NULL)
        *part = NULL;
    if (rc != SERRY_OK || (part != NULL && (colour >= 0 || colour == SERRY_UNDEFINED)))
        return rc;
    serry_error_begin(&comm->error, operation, 0, comm->rank);
    if (part == NULL)
        return serry_fail(&comm->error, SERRY_ERR_INVALID,
                          "%s: no place to put the new communicator (NULL)", operation);
    return serry_fail(&comm->error, SERRY_ERR_INVALID,
                      "%s: colour %d is negative; give 0 or more, or SERRY_UNDEFINED", operation,
                      colour);
}

int serry_split(serry_comm *comm, int colour, int key, serry_comm **part)
{
    int rc = serry_comm_check_new(comm, "split", colour, part);

    return rc == SERRY_OK ? divide(comm, colour, key, part) : rc;
}

int serry_dup(serry_comm *comm, serry_comm **copy)
{
    int rc = serry_comm_check_new(comm, "dup", 0, copy);

    return rc == SERRY_OK ? divide(comm, 0, comm->rank, copy) : rc;
}

/* ---- what it knows ---------------------------------------------------------------------------- */

int serry_rank(const serry_comm *comm)
{
    return comm == NULL ? -1 : comm->rank;
}

int serry_size(const serry_comm *comm)
{
    return comm == NULL ? -1 : comm->size;
}

int serry_live(const serry_comm *comm)
{
    if (comm == NULL)
        return -1;
    serry_comm_hold(comm);
    int live = comm->backend->live(comm->member);
    serry_comm_release(comm);
    return live;
}

/* May `ranks` be filled in? A const communicator has no record to write into: the thread's does. */
int serry_comm_check_set(const serry_comm *comm, const serry_rank_set *ranks, const char *operation)
{
    serry_error *error = serry_error_of_thread();

    if (comm != NULL && ranks != NULL && comm->forks == serry_forks)
        return SERRY_OK;
    serry_error_begin(error, operation, 0, -1);
    if (comm != NULL && ranks != NULL)
        return serry_fail(error, SERRY_ERR_FORKED,
                          "%s: this communicator belongs to the parent of this process", operation);
    return serry_fail(error, SERRY_ERR_INVALID, "%s: %s is NULL", operation,
                      comm == NULL ? "the communicator" : "the set of ranks");
}

int serry_participants(const serry_comm *comm, serry_rank_set *ranks)
{
    int rc = serry_comm_check_set(comm, ranks, "participants");

    if (rc != SERRY_OK)
        return rc;
    serry_comm_hold(comm);
    comm->backend->participants(comm->member, ranks);
    serry_comm_release(comm);
    return SERRY_OK;
}

int serry_set_timeout(serry_comm *comm, int timeout_ms)
{
    int rc = serry_comm_check(comm, "set_timeout");

    if (rc != SERRY_OK)
        return rc;
    if (timeout_ms == 0) {
        serry_error_begin(&comm->error, "set_timeout", 0, comm->rank);
        return serry_fail(&comm->error, SERRY_ERR_INVALID,
                          "set_timeout: 0 ms is no timeout; give milliseconds, or less than 0 for "
                          "none");
    }
    comm->limit.timeout_ms = timeout_ms;
    return SERRY_OK;
}

const serry_error *serry_last_error(const serry_comm *comm)
{
    return comm == NULL ? serry_error_of_thread() : &comm->error;
}

/* ---- memory ----------------------------------------------------------------------------------- */

void *serry_alloc(serry_comm *comm, size_t bytes)
{
    if (serry_comm_check(comm, "alloc") != SERRY_OK)
        return NULL;
    serry_comm_hold(comm);
    void *memory = comm->backend->alloc(comm->member, bytes, &comm->error);
    serry_comm_release(comm);
    return memory;
}

void serry_free(serry_comm *comm, void *memory)
{
    if (memory == NULL || serry_comm_check(comm, "free") != SERRY_OK)
        return;
    serry_comm_hold(comm);
    comm->backend->free(comm->member, memory, &comm->error);
    serry_comm_release(comm);
}
