/**
 * recovery.h - what to do about an error: retry, go elsewhere or give up; and what went wrong so
 * far.
 *
 * A serry_recovery is told of every error (serry_recovery_handle) and answers with a decision. It
 * counts the attempts of each operation, keeps the last errors, and counts all of them.
 *
 * Which strategy: the one set for the error's code; else the one set for its class; else the one
 * set for SERRY_CLASS_ANY. From the start these are set, and nothing for single codes:
 *
 *     SERRY_CLASS_TIMEOUT   SERRY_RETRY        SERRY_CLASS_MISMATCH  SERRY_ABORT
 *     SERRY_CLASS_IO        SERRY_RETRY        SERRY_CLASS_ANY       SERRY_ABORT
 *
 * How often: an operation is an id and a kind ("allreduce"). After its first error it may be tried
 * again max_retries times, whatever the strategies; the error after that ends it. Clearing the
 * history does not give it more.
 *
 * Common to all functions:
 * - Any thread, at any time, but destroy: nobody else may use the object then.
 * - Memory is bounded: by the history's capacity, SERRY_RECOVERY_OPEN and SERRY_RECOVERY_KINDS.
 * - Nothing is printed. Not async-signal-safe; not for an object that a fork has taken along.
 */
#ifndef SERRY_RECOVERY_H
#define SERRY_RECOVERY_H

#include <serry/error.h>
#include <serry/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Operations that have failed and not ended, whose attempts are counted. Of more than that, the one
 * whose last error is oldest is forgotten, and starts from 0 at its next error. */
#define SERRY_RECOVERY_OPEN 1024u

/* Kinds of operation in the statistics. The last place counts all kinds that came too late. */
#define SERRY_RECOVERY_KINDS 32u

/* Stands in the statistics for every code that this library does not know. */
#define SERRY_ERROR_OTHER 1

/* What is kept of errors, and what to do about them. Made by serry_recovery_create(). */
typedef struct serry_recovery serry_recovery;

/* What is done about an error. */
typedef enum serry_strategy {
    SERRY_RETRY = 0,           /* the same again, after a pause */
    SERRY_FALLBACK_BACKEND,    /* the same by the next backend of a chain, at once */
    SERRY_DIFFERENT_ALGORITHM, /* the same by another algorithm, at once */
    SERRY_ABORT,               /* hand the error on */
    SERRY_STRATEGIES           /* how many there are */
} serry_strategy;

/* The answer to an error, for the attempt that has failed. */
typedef struct serry_decision {
    serry_strategy strategy;
    bool retry;       /* try again, as the strategy says. False: hand the error on */
    int delay_ms;     /* wait so long before; 0 unless the strategy is SERRY_RETRY */
    int64_t attempts; /* that have failed so far, this one included */
} serry_decision;

/* Called for every error, by the thread that handles it, with a copy of the record and the decision,
 * both for the time of the call. May use the serry_recovery. */
typedef void (*serry_recovery_log)(const serry_error *error, const serry_decision *decision,
                                   void *argument);

/* Start from SERRY_RECOVERY_CONFIG_INIT. The pause before retry n (from 1) is retry_delay_ms *
 * backoff^(n-1), growing to max_delay_ms at most; then a part of it, random between 0 and jitter,
 * is taken off. Equal seeds give an operation equal pauses in every run. */
typedef struct serry_recovery_config {
    size_t bytes;           /* sizeof(serry_recovery_config): set by SERRY_RECOVERY_CONFIG_INIT */
    int max_retries;        /* >= 0 */
    int retry_delay_ms;     /* >= 0 */
    double backoff;         /* >= 1; 1: the same pause every time */
    int max_delay_ms;       /* >= 0; a larger retry_delay_ms is kept as it is */
    double jitter;          /* 0 to 1; 0: no chance */
    uint64_t seed;          /* of the jitter; different ones keep ranks apart */
    size_t history;         /* how many errors are kept; 0: none */
    serry_recovery_log log; /* NULL: silent */
    void *log_argument;
} serry_recovery_config;

#define SERRY_RECOVERY_CONFIG_INIT                                                                 \
    {                                                                                              \
        sizeof(serry_recovery_config), 3, 100, 1.0, 30000, 0.0, 0, 256, NULL, NULL                 \
    }

/**
 * Make a recovery manager, with no history.
 *
 * @param config         Copied. NULL: all as in SERRY_RECOVERY_CONFIG_INIT.
 * @param[out] recovery  NULL unless SERRY_OK is returned; serry_recovery_destroy() it.
 * @retval SERRY_ERR_INVALID   A field is out of its range, or `bytes` is another library's.
 * @retval SERRY_ERR_NO_SPACE  No memory for a history of that length.
 */
int serry_recovery_create(const serry_recovery_config *config, serry_recovery **recovery);

/**
 * Free a recovery manager.
 *
 * @param[in,out] recovery  Set to NULL. NULL in it is allowed.
 */
void serry_recovery_destroy(serry_recovery **recovery);

/**
 * Tell how often an operation may be tried again.
 *
 * @return As configured.
 */
int serry_recovery_max_retries(const serry_recovery *recovery);

/* ---- strategies --------------------------------------------------------------------------- */

/**
 * Set the strategy for one error code.
 *
 * @retval SERRY_ERR_INVALID  Not an error code, or not a strategy; nothing has changed.
 */
int serry_recovery_set_strategy(serry_recovery *recovery, int error, serry_strategy strategy);

/**
 * Set the strategy for all errors of a class for whose codes none is set; for SERRY_CLASS_ANY: of
 * classes, too, for which none is set.
 *
 * @retval SERRY_ERR_INVALID  Not a class, or not a strategy; nothing has changed.
 */
int serry_recovery_set_class_strategy(serry_recovery *recovery, serry_error_class error_class,
                                      serry_strategy strategy);

/**
 * Tell which strategy an error of this code gets.
 *
 * @return Unknown codes: that of SERRY_CLASS_ANY.
 */
serry_strategy serry_recovery_strategy(serry_recovery *recovery, int error);

/* ---- errors ------------------------------------------------------------------------------- */

/**
 * Take an error into history and statistics, count the attempt, log, and decide.
 *
 * @param error          Its code, operation and operation_id must be set; the rest as well as it is
 *                       known. Its severity is made to follow from its code. Copied.
 * @param[out] decision  Always filled; what an invalid error gets is SERRY_ABORT.
 * @retval SERRY_ERR_INVALID  The record holds no error, or no operation; nothing was counted.
 */
int serry_recovery_handle(serry_recovery *recovery, const serry_error *error,
                          serry_decision *decision);

/**
 * Say that an operation has ended, well or not: its attempts are forgotten. One that never failed
 * may be ended as well. Must be said of every operation that has failed.
 *
 * @param operation  As in its records; compared as text.
 */
void serry_recovery_end(serry_recovery *recovery, uint64_t operation_id, const char *operation);

/**
 * Copy the latest errors, oldest first.
 *
 * @param[out] errors  Room for `capacity` records; may be NULL where that is 0.
 * @param capacity     At most so many are copied; where more are kept, the latest.
 * @return How many are kept.
 */
size_t serry_recovery_history(serry_recovery *recovery, serry_error *errors, size_t capacity);

/* Forget history and statistics. Operations in progress keep the count of their attempts. */
void serry_recovery_clear(serry_recovery *recovery);

/* ---- statistics --------------------------------------------------------------------------- */

/* Errors since the beginning or the last clear, exact, also when the history has forgotten them. */
typedef struct serry_error_statistics {
    uint64_t total;
    uint64_t by_severity[SERRY_SEVERITIES];
    struct {
        int error; /* the code, or SERRY_ERROR_OTHER */
        uint64_t count;
    } by_type[SERRY_ERROR_CODES + 1]; /* the first `types`: those that occurred */
    struct {
        const char *operation; /* never freed; NULL: all further kinds, always last */
        uint64_t count;
    } by_operation[SERRY_RECOVERY_KINDS]; /* the first `operations`, as they first occurred */
    size_t types, operations;
} serry_error_statistics;

/**
 * Fill in what went wrong so far, counted.
 *
 * @param[out] statistics  The caller's; all at one moment.
 */
void serry_recovery_statistics(serry_recovery *recovery, serry_error_statistics *statistics);

/**
 * Put statistics in words.
 *
 * "Total Errors: 3, By Type: SERRY_ERR_TIMEOUT=2, SERRY_ERR_SYSTEM=1, By Severity: Recoverable=3",
 * cut to `size` bytes with the final 0.
 *
 * @param[out] text  SERRY_STATISTICS_TEXT_MAX bytes are enough.
 * @return text
 */
char *serry_error_statistics_text(const serry_error_statistics *statistics, char *text,
                                  size_t size);

#define SERRY_STATISTICS_TEXT_MAX 1024u /* room for every text of statistics */

#ifdef __cplusplus
}
#endif
#endif
