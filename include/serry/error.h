/* error.h - what can go wrong, how far the damage reaches, and the record of the last error. */
#ifndef SERRY_ERROR_H
#define SERRY_ERROR_H

#include <serry/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One list makes the enum, the texts and the scopes.
 * CALL: only this call failed, the communicator is as before.
 * COMM: the communicator is usable again, as docs/failure-model.md says for each.
 * LOST: this rank can no longer use the communicator; finalize it. */
#define SERRY_ERROR_MAP(X)                                                                         \
    X(ERR_INVALID, -1, CALL, "invalid argument")                                                   \
    X(ERR_UNSUPPORTED, -2, CALL, "not supported")                                                  \
    X(ERR_NO_SPACE, -3, CALL, "not enough memory or space")                                        \
    X(ERR_PENDING, -4, CALL, "an earlier operation is still open; repeat that call first")         \
    X(ERR_SYSTEM, -5, CALL, "a system call failed")                                                \
    X(ERR_TIMEOUT, -20, COMM, "the deadline passed before all ranks came")                         \
    X(ERR_RANK_FAILED, -21, COMM, "a rank has failed or left")                                     \
    X(ERR_RANK_MISMATCH, -22, COMM, "ranks made different calls")                                  \
    X(ERR_CANCELLED, -23, COMM, "the operation was cancelled")                                     \
    X(ERR_REVOKED, -24, COMM, "the communicator was revoked")                                      \
    X(ERR_EXCLUDED, -40, LOST, "this rank was excluded by the others")                             \
    X(ERR_FORKED, -41, LOST, "the communicator belongs to the parent process of a fork")           \
    X(ERR_LAYOUT, -42, LOST, "the arena was made by an incompatible build of serry")               \
    X(ERR_ARENA, -43, LOST, "the arena holds values that cannot be right")

typedef enum serry_error_code {
    SERRY_OK = 0,
#define SERRY_X(name, value, scope, text) SERRY_##name = value,
    SERRY_ERROR_MAP(SERRY_X)
#undef SERRY_X
} serry_error_code;

typedef enum serry_scope { SERRY_SCOPE_CALL, SERRY_SCOPE_COMM, SERRY_SCOPE_LOST } serry_scope;

/* All about one error. Plain data: copy it if you want to keep it. */
typedef struct serry_error {
    int error;             /* a serry_error_code; SERRY_OK: there was none */
    int system_error;      /* errno where a system call was the cause, else 0 */
    const char *operation; /* "allreduce", "init", ...; never NULL, never freed */
    uint64_t operation_id; /* sequence number on the communicator; 0 outside an operation */
    int rank;              /* the rank this record belongs to; -1 where it has none yet */
    int peer;              /* the rank that is at fault, the first of several; -1: none */
    serry_rank_set ranks;  /* all ranks at fault: missing, failed or in another call */
    uint64_t monotonic_ns; /* CLOCK_MONOTONIC */
    int64_t wall_ns;       /* CLOCK_REALTIME, since 1970 */
    char message[512];     /* in plain words: what was wrong and what to do */
} serry_error;

/* The text of an error code. Never NULL, never allocates, any thread, any time. */
const char *serry_strerror(int error);

/* The name of an error code as it stands in this header ("SERRY_ERR_TIMEOUT"). As serry_strerror. */
const char *serry_error_name(int error);

/* How far the damage of an error reaches. Unknown codes: SERRY_SCOPE_LOST. */
serry_scope serry_error_scope(int error);

/**
 * The record of the last error on a communicator, or, with comm NULL, of the last call in this
 * thread that had no communicator (serry_init, serry_op_create, serry_run_threads).
 *
 * @return Never NULL; `error` is SERRY_OK where nothing has failed yet. Success does not clear it.
 *         Owned by the library; valid until the next failing call on the same communicator (or in
 *         the same thread).
 */
const serry_error *serry_last_error(const serry_comm *comm);

#ifdef __cplusplus
}
#endif
#endif
