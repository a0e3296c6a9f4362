/* backend.h - what carries collectives: a table of functions, the contract on each member.
 *
 * Everything above (serry.h) speaks to a backend through this table alone; everything below it is
 * the backend's own business. A new backend is a new table. */
#ifndef SERRY_BACKEND_H
#define SERRY_BACKEND_H

#include <serry/call.h>
#include <serry/error.h>
#include <serry/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SERRY_JOB_NAME_MAX 256 /* with the final 0 */

/* A job as one rank knows it, complete: what serry_init() found in configuration and environment. */
typedef struct serry_job {
    char name[SERRY_JOB_NAME_MAX];
    int rank, size;
    serry_kind_of_rank kind;
    int timeout_ms;    /* < 0: none */
    size_t pool_bytes; /* room for alloc over all ranks */
} serry_job;

/* A rank's membership in a group, as the backend sees it. Opaque here. */
typedef struct serry_member serry_member;

/* An operation that was started and not finished yet. Opaque here. */
typedef struct serry_operation serry_operation;

/* Every member is set; what a backend cannot do returns SERRY_ERR_UNSUPPORTED. Functions that take
 * an error fill it unless they return SERRY_OK. None prints, exits or blocks past its timeout
 * (milliseconds, < 0: none). One thread at a time on a member. */
typedef struct serry_backend {
    const char *name; /* "shm"; for messages and selection */

    /* Join the job and return when all its ranks have joined; *member is NULL on failure. */
    int (*open)(const serry_job *job, serry_member **member, serry_error *error);

    /* Leave at once and free the member. SERRY_ERR_INVALID where a thread rank's last group is closed
     * by another thread than the one that joined and still runs; then nothing has changed. */
    int (*close)(serry_member *member, serry_error *error);

    /* In the child of a fork: free the member's private memory, touch nothing shared. */
    void (*forget)(serry_member *member);

    /* Carry out one checked call; returns when this rank is done with it (DESIGN: uniform
     * completion). After SERRY_ERR_TIMEOUT the call is open: the same call goes on with it. */
    int (*run)(serry_member *member, const serry_call *call, int timeout_ms, serry_error *error);

    /* Start a call and return at once; *operation is NULL on failure. */
    int (*start)(serry_member *member, const serry_call *call, int timeout_ms,
                 serry_operation **operation, serry_error *error);

    /* Has it finished? Never blocks. When *done becomes true its result is returned and the
     * operation is freed. */
    int (*test)(serry_operation *operation, bool *done, serry_error *error);

    /* Wait until it has finished, return its result, free it. On SERRY_ERR_TIMEOUT it goes on. */
    int (*wait)(serry_operation *operation, int timeout_ms, serry_error *error);

    /* Ask a started operation to end with SERRY_ERR_CANCELLED; wait or test still frees it. */
    int (*cancel)(serry_operation *operation, serry_error *error);

    /* Collective: a member of the group of those who gave the same colour, ordered by key, then by
     * rank. colour < 0: *part is NULL. Open after a timeout, like run. */
    int (*split)(serry_member *member, int colour, int key, int timeout_ms, serry_member **part,
                 serry_error *error);

    /* What the next operations do when a member is missing; as serry_set_policy. */
    void (*set_policy)(serry_member *member, serry_policy policy);

    /* Members that are known, somewhere, to have failed or left. */
    void (*failed)(const serry_member *member, serry_rank_set *failed);

    /* End every operation of the group, on all members, with SERRY_ERR_REVOKED. */
    int (*revoke)(serry_member *member, serry_error *error);

    /* Collective among the living, also when revoked: combine 64 bits with SERRY_BAND or SERRY_BOR.
     * Open after a timeout, like run. */
    int (*agree)(serry_member *member, serry_op op, uint64_t *value, int timeout_ms,
                 serry_error *error);

    /* Collective among the living, also when revoked: a member of the group of those that live. Open
     * after a timeout, like run. */
    int (*shrink)(serry_member *member, int timeout_ms, serry_member **rest, serry_error *error);

    /* Zeroed, page-aligned memory that every rank of the job can reach; NULL on failure. */
    void *(*alloc)(serry_member *member, size_t bytes, serry_error *error);

    /* Give memory from alloc back; anything else is left alone with SERRY_ERR_INVALID. */
    int (*free)(serry_member *member, void *memory, serry_error *error);

    int (*rank)(const serry_member *member);
    int (*size)(const serry_member *member);

    /* Members not known to have failed or left. */
    int (*live)(const serry_member *member);

    /* Who took part in the last completed operation. */
    void (*participants)(const serry_member *member, serry_rank_set *ranks);
} serry_backend;

/* Ranks of one machine over a shared-memory arena. */
extern const serry_backend serry_backend_shm;

#ifdef __cplusplus
}
#endif
#endif
