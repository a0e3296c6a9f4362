/* error.h - what can go wrong, how far the damage reaches, and the record of the last error. */
#ifndef SERRY_ERROR_H
#define SERRY_ERROR_H

#include <serry/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * The error codes: X(NAME, value, scope, severity, class, "text"). One list makes the enum, the
 * texts, the scopes, the severities and the classes: see serry_scope, serry_severity and
 * serry_error_class.
 */
#define SERRY_ERROR_MAP(X)                                                                         \
    X(ERR_INVALID, -1, CALL, FATAL, ARGUMENT, "invalid argument")                                  \
    X(ERR_UNSUPPORTED, -2, CALL, RECOVERABLE, ARGUMENT, "not supported")                           \
    X(ERR_NO_SPACE, -3, CALL, RECOVERABLE, SPACE, "not enough memory or space")                    \
    X(ERR_PENDING, -4, CALL, WARNING, ARGUMENT,                                                    \
      "an earlier operation is still open; repeat that call first")                                \
    X(ERR_SYSTEM, -5, CALL, RECOVERABLE, IO, "a system call failed")                               \
    X(ERR_TOO_SMALL, -6, CALL, RECOVERABLE, ARGUMENT,                                              \
      "the message is larger than the receive buffer")                                             \
    X(ERR_AGAIN, -7, CALL, WARNING, ARGUMENT, "the call would have to wait")                       \
    X(ERR_TIMEOUT, -20, COMM, RECOVERABLE, TIMEOUT, "the deadline passed before all ranks came")   \
    X(ERR_RANK_FAILED, -21, COMM, RECOVERABLE, MEMBERSHIP, "a rank has failed or left")            \
    X(ERR_RANK_MISMATCH, -22, COMM, FATAL, MISMATCH, "ranks made different calls")                 \
    X(ERR_CANCELLED, -23, COMM, WARNING, CANCELLED, "the operation was cancelled")                 \
    X(ERR_REVOKED, -24, COMM, RECOVERABLE, MEMBERSHIP, "the communicator was revoked")             \
    X(ERR_RANK_JOINED, -25, COMM, RECOVERABLE, MEMBERSHIP, "a replacement has joined")             \
    X(ERR_MEETING, -26, COMM, RECOVERABLE, MEMBERSHIP, "a rank has called all ranks to meet")      \
    X(ERR_EXCLUDED, -40, LOST, FATAL, MEMBERSHIP, "this rank was excluded by the others")          \
    X(ERR_FORKED, -41, LOST, FATAL, MEMBERSHIP,                                                    \
      "the communicator belongs to the parent process of a fork")                                  \
    X(ERR_LAYOUT, -42, LOST, FATAL, ARENA, "the arena was made by an incompatible build of serry") \
    X(ERR_ARENA, -43, LOST, FATAL, ARENA, "the arena holds values that cannot be right")

typedef enum serry_error_code {
    SERRY_OK = 0,
#define SERRY_X(name, value, scope, severity, group, text) SERRY_##name = value,
    SERRY_ERROR_MAP(SERRY_X)
#undef SERRY_X
} serry_error_code;

/* How many codes the list has. */
enum {
#define SERRY_X(name, value, scope, severity, group, text) +1
    SERRY_ERROR_CODES = SERRY_ERROR_MAP(SERRY_X)
#undef SERRY_X
};

/* How far the damage of an error reaches; follows from its code. */
typedef enum serry_scope {
    SERRY_SCOPE_CALL, /* only this call failed, the communicator is as before */
    SERRY_SCOPE_COMM, /* the communicator is usable again, as docs/failure-model.md says for each */
    SERRY_SCOPE_LOST  /* this rank can no longer use the communicator; finalize it */
} serry_scope;

/* What an error means for the work; follows from its code. */
typedef enum serry_severity {
    SERRY_WARNING = 0, /* nothing is broken: the caller wished it so, or only came too early */
    SERRY_RECOVERABLE, /* the work can go on: after another attempt, by another algorithm or
                          backend, or among the survivors */
    SERRY_FATAL,       /* no attempt can help: the program is wrong, or this rank's communicator
                          is lost */
    SERRY_SEVERITIES   /* how many there are */
} serry_severity;

/* Errors that are treated alike unless something is said about one of them (recovery.h). */
typedef enum serry_error_class {
    SERRY_CLASS_ANY = 0,    /* every error, of unknown code too: the base of all classes */
    SERRY_CLASS_ARGUMENT,   /* what was asked for cannot be done here, or not now */
    SERRY_CLASS_SPACE,      /* memory or shared memory is short */
    SERRY_CLASS_IO,         /* the system refused or failed */
    SERRY_CLASS_TIMEOUT,    /* not all ranks came in time */
    SERRY_CLASS_MISMATCH,   /* ranks made different calls */
    SERRY_CLASS_CANCELLED,  /* the caller has changed its mind */
    SERRY_CLASS_MEMBERSHIP, /* who belongs to the communicator has changed */
    SERRY_CLASS_ARENA,      /* the shared segment cannot be trusted */
    SERRY_ERROR_CLASSES     /* how many there are */
} serry_error_class;

#define SERRY_CONTEXT_PAIRS 4u

/* Something worth knowing about an error: a name and its value, both ended by 0. */
typedef struct serry_context_pair {
    char key[24]; /* "": the pair is free */
    char value[40];
} serry_context_pair;

/* All about one error. Plain data: copy it if you want to keep it. */
typedef struct serry_error {
    int error;               /* a serry_error_code; SERRY_OK: there was none */
    serry_severity severity; /* follows from `error`; means nothing where there was none */
    int system_error;        /* errno where a system call was the cause, else 0 */
    const char *operation;   /* "allreduce", "init", ...; never NULL, never freed */
    uint64_t operation_id;   /* sequence number on the communicator; 0 outside an operation */
    int rank;                /* the rank this record belongs to; -1 where it has none yet */
    int peer;                /* the rank that is at fault, the first of several; -1: none */
    serry_rank_set ranks;    /* all ranks at fault: missing, failed or in another call */
    uint64_t monotonic_ns;   /* CLOCK_MONOTONIC */
    int64_t wall_ns;         /* CLOCK_REALTIME, since 1970 */
    char message[512];       /* in plain words: what was wrong and what to do */
    serry_context_pair context[SERRY_CONTEXT_PAIRS]; /* see serry_error_context_set */
} serry_error;

/* ---- codes --------------------------------------------------------------------------------
 *
 * Any thread, any time, async-signal-safe; nothing is allocated, and texts are constant. */

/**
 * Tell the text of an error code: "a rank has failed or left" and its kin.
 *
 * @return Never NULL, also for unknown codes.
 */
const char *serry_strerror(int error);

/**
 * Tell the name of an error code as it stands in this header ("SERRY_ERR_TIMEOUT").
 *
 * @return Never NULL, also for unknown codes.
 */
const char *serry_error_name(int error);

/**
 * Tell how far the damage of an error reaches.
 *
 * @return Unknown codes: SERRY_SCOPE_LOST. SERRY_OK: SERRY_SCOPE_CALL.
 */
serry_scope serry_error_scope(int error);

/**
 * Tell what an error means for the work.
 *
 * @return Unknown codes: SERRY_FATAL. SERRY_OK: SERRY_WARNING.
 */
serry_severity serry_error_severity(int error);

/**
 * Tell the name of a severity.
 *
 * @return "Warning", "Recoverable" or "Fatal"; "?" for no severity. Never NULL.
 */
const char *serry_severity_name(serry_severity severity);

/**
 * Tell the class that an error belongs to.
 *
 * @return Unknown codes: SERRY_CLASS_ANY.
 */
serry_error_class serry_error_class_of(int error);

/* ---- records ------------------------------------------------------------------------------
 *
 * Records are plain data, one thread at a time on each; there is nothing to free in them. */

/**
 * Make a record from the beginning, for backends and programs of one's own: empties it, fills in
 * what is given and the severity, stamps both clocks. No peer, no ranks, no context.
 *
 * @param[out] error    The record.
 * @param code          A serry_error_code, not SERRY_OK.
 * @param operation     "allreduce", ...; is kept as a pointer, so best a literal.
 * @param operation_id  0 outside an operation.
 * @param rank          -1 where there is none.
 * @param format        What was wrong and what to do, printf's way; cut where it does not fit.
 * @return The code.
 */
int serry_error_make(serry_error *error, int code, const char *operation, uint64_t operation_id,
                     int rank, const char *format, ...) __attribute__((format(printf, 6, 7)));

/**
 * Add a pair to a record, or give a key that it has a new value.
 *
 * @param error   A record that was made.
 * @param key     1 to 23 bytes.
 * @param format  The value, printf's way; cut to 39 bytes, the last of them "..." then.
 * @retval SERRY_ERR_INVALID   The key is empty or too long; the record is as before.
 * @retval SERRY_ERR_NO_SPACE  All SERRY_CONTEXT_PAIRS pairs are taken; the record is as before.
 */
int serry_error_context_set(serry_error *error, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/**
 * Find the value of a key in a record.
 *
 * @return The record's, valid as long as that is not changed; NULL where it has no such key.
 */
const char *serry_error_context_get(const serry_error *error, const char *key);

#define SERRY_ERROR_TEXT_MAX 640u /* room for the text of every record that the library makes */

/**
 * Put a record in one line: "[HH:mm:ss.fff] operation (Rank: N): Severity - message", with N/A for a
 * rank below 0, and the wall clock in local time. Line breaks in the message become spaces; an empty
 * message is replaced by serry_strerror's. Cut to `size` bytes with the final 0.
 *
 * @param[out] text  SERRY_ERROR_TEXT_MAX bytes are enough for records that the library makes.
 * @return text
 */
char *serry_error_text(const serry_error *error, char *text, size_t size);

/**
 * Get the record of the last error on a communicator, or of this thread.
 *
 * @param comm  NULL: of the last call in this thread that had no communicator (serry_init,
 *              serry_op_create, serry_run_threads and their kin) or was given it as const, and of
 *              waits whose own time was over.
 * @return Never NULL; `error` is SERRY_OK where nothing has failed yet. Success does not clear it.
 *         Owned by the library; valid until the next failing call on the same communicator (or in
 *         the same thread).
 */
const serry_error *serry_last_error(const serry_comm *comm);

#ifdef __cplusplus
}
#endif
#endif
