/* communicator.c - joining, leaving, dividing; what a communicator knows; memory in the arena. */
#include <serry/serry.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "comm.h"
#include "environment.h"
#include "record.h"

unsigned serry_forks;

static void count_fork(void)
{
    serry_forks++;
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
    if (__builtin_expect(comm == NULL || comm->forks != serry_forks, 0))
        return refuse(comm, operation);
    return SERRY_OK;
}

/* ---- joining and leaving ---------------------------------------------------------------------- */

static serry_comm *comm_new(const serry_backend *backend, int timeout_ms, serry_error *error)
{
    serry_comm *comm = calloc(1, sizeof(*comm));

    if (comm == NULL) {
        serry_error_begin(error, "init", 0, -1);
        serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory for a communicator");
        return NULL;
    }
    comm->backend = backend;
    comm->timeout_ms = timeout_ms;
    comm->forks = serry_forks;
    return comm;
}

static void comm_adopt(serry_comm *comm, serry_member *member)
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
    serry_comm *made = comm_new(&serry_backend_shm, job.timeout_ms, error);
    serry_member *member;
    if (made == NULL)
        return error->error;
    rc = made->backend->open(&job, &member, error);
    if (rc != SERRY_OK) {
        free(made);
        return rc;
    }
    comm_adopt(made, member);
    *comm = made;
    return SERRY_OK;
}

int serry_finalize(serry_comm **comm)
{
    if (comm == NULL || *comm == NULL)
        return SERRY_OK;
    if ((*comm)->forks == serry_forks) {
        int rc = (*comm)->backend->close((*comm)->member, &(*comm)->error);
        if (rc != SERRY_OK)
            return rc;
    } else {
        (*comm)->backend->forget((*comm)->member);
    }
    free(*comm);
    *comm = NULL;
    return SERRY_OK;
}

static int divide(serry_comm *comm, int colour, int key, serry_comm **part)
{
    serry_member *member;
    serry_comm *made = comm_new(comm->backend, comm->timeout_ms, &comm->error);

    if (made == NULL)
        return comm->error.error;
    int rc =
        comm->backend->split(comm->member, colour, key, comm->timeout_ms, &member, &comm->error);
    if (rc == SERRY_OK && member != NULL) {
        comm_adopt(made, member);
        *part = made;
    } else {
        free(made);
    }
    return rc;
}

static int check_divide(serry_comm *comm, const char *operation, int colour, serry_comm **part)
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
    int rc = check_divide(comm, "split", colour, part);

    return rc == SERRY_OK ? divide(comm, colour, key, part) : rc;
}

int serry_dup(serry_comm *comm, serry_comm **copy)
{
    int rc = check_divide(comm, "dup", 0, copy);

    return rc == SERRY_OK ? divide(comm, 0, comm->rank, copy) : rc;
}

/* ---- when ranks fail -------------------------------------------------------------------------- */

int serry_set_policy(serry_comm *comm, serry_policy policy)
{
    int rc = serry_comm_check(comm, "set_policy");

    if (rc != SERRY_OK)
        return rc;
    if (policy != SERRY_REPORT && policy != SERRY_EXCLUDE && policy != SERRY_REVOKE) {
        serry_error_begin(&comm->error, "set_policy", 0, comm->rank);
        return serry_fail(&comm->error, SERRY_ERR_INVALID,
                          "set_policy: %d is no policy; give SERRY_REPORT, SERRY_EXCLUDE or "
                          "SERRY_REVOKE",
                          (int)policy);
    }
    comm->backend->set_policy(comm->member, policy);
    return SERRY_OK;
}

int serry_revoke(serry_comm *comm)
{
    int rc = serry_comm_check(comm, "revoke");

    return rc == SERRY_OK ? comm->backend->revoke(comm->member, &comm->error) : rc;
}

int serry_agree(serry_comm *comm, serry_op op, uint64_t *value)
{
    int rc = serry_comm_check(comm, "agree");

    if (rc != SERRY_OK)
        return rc;
    if (value == NULL || (op != SERRY_BAND && op != SERRY_BOR)) {
        serry_error_begin(&comm->error, "agree", 0, comm->rank);
        return serry_fail(&comm->error, SERRY_ERR_INVALID,
                          "agree: %s; give SERRY_BAND or SERRY_BOR and a value",
                          value == NULL ? "the value is NULL" : "that is no way to agree");
    }
    return comm->backend->agree(comm->member, op, value, comm->timeout_ms, &comm->error);
}

int serry_shrink(serry_comm *comm, serry_comm **rest)
{
    int rc = check_divide(comm, "shrink", 0, rest);
    serry_member *member;

    if (rc != SERRY_OK)
        return rc;
    serry_comm *made = comm_new(comm->backend, comm->timeout_ms, &comm->error);
    if (made == NULL)
        return comm->error.error;
    rc = comm->backend->shrink(comm->member, comm->timeout_ms, &member, &comm->error);
    if (rc != SERRY_OK) {
        free(made);
        return rc;
    }
    comm_adopt(made, member);
    *rest = made;
    return SERRY_OK;
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
    return comm == NULL ? -1 : comm->backend->live(comm->member);
}

/* May `ranks` be filled in? A const communicator has no record to write into: the thread's does. */
static int check_set(const serry_comm *comm, const serry_rank_set *ranks, const char *operation)
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
    int rc = check_set(comm, ranks, "participants");

    if (rc == SERRY_OK)
        comm->backend->participants(comm->member, ranks);
    return rc;
}

int serry_get_failed(const serry_comm *comm, serry_rank_set *failed)
{
    int rc = check_set(comm, failed, "get_failed");

    if (rc == SERRY_OK)
        comm->backend->failed(comm->member, failed);
    return rc;
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
    comm->timeout_ms = timeout_ms;
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
    return comm->backend->alloc(comm->member, bytes, &comm->error);
}

void serry_free(serry_comm *comm, void *memory)
{
    if (memory == NULL || serry_comm_check(comm, "free") != SERRY_OK)
        return;
    comm->backend->free(comm->member, memory, &comm->error);
}
