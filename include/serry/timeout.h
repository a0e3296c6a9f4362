/**
 * timeout.h - timeouts of operations, and the tokens by which a wait learns that it must end.
 *
 * A serry_timeouts keeps one timeout per operation id. Starting one gives a token; whoever carries
 * out the operation asks the token, or hands it to what it waits with. A token runs until its time
 * is over (expired) or until somebody cancels it (cancelled); it stays what it has become. Expiry
 * needs no thread and no timer: it is a comparison of the clock with the deadline, made by who
 * looks. Cancelling reaches a wait at once: it runs what the waiter has left with serry_token_watch.
 *
 * Common to all functions:
 * - Any thread, at any time, but destroy and the last release: nobody else may use the object then.
 * - Memory follows the number of timeouts that are running (and of tokens that callers keep).
 * - Not async-signal-safe; not for an object that a fork has taken along.
 */
#ifndef SERRY_TIMEOUT_H
#define SERRY_TIMEOUT_H

#include <limits.h>

#include <serry/error.h>
#include <serry/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* In place of milliseconds: 300000 for a serry_timeouts, its default for an operation. */
#define SERRY_DEFAULT_TIMEOUT INT_MIN

/* A deadline that never comes. */
#define SERRY_NO_DEADLINE UINT64_MAX

/* The timeouts of many operations. */
typedef struct serry_timeouts serry_timeouts;

/* What an operation knows of its timeout. Counted references; each is given back by
 * serry_token_release(). Outlives the serry_timeouts that it came from. */
typedef struct serry_token serry_token;

/* The codes with which the operation ends. */
typedef enum serry_token_status {
    SERRY_TOKEN_RUNNING = SERRY_OK,
    SERRY_TOKEN_EXPIRED = SERRY_ERR_TIMEOUT,
    SERRY_TOKEN_CANCELLED = SERRY_ERR_CANCELLED
} serry_token_status;

/* ---- timeouts of operations --------------------------------------------------------------- */

/**
 * Make a set of timeouts, empty.
 *
 * @param default_timeout_ms  Of operations that are started with SERRY_DEFAULT_TIMEOUT;
 *                            <= 0: none; SERRY_DEFAULT_TIMEOUT: 300000 (5 minutes).
 * @param[out] timeouts       NULL unless SERRY_OK is returned; serry_timeouts_destroy() it.
 * @retval SERRY_ERR_NO_SPACE  No memory.
 */
int serry_timeouts_create(int default_timeout_ms, serry_timeouts **timeouts);

/**
 * Cancel all timeouts and free the set. Tokens stay valid until they are released.
 *
 * @param[in,out] timeouts  Set to NULL. NULL in it is allowed.
 */
void serry_timeouts_destroy(serry_timeouts **timeouts);

/**
 * Tell the default timeout.
 *
 * @return Milliseconds, as given to serry_timeouts_create(); <= 0: none.
 */
int serry_timeouts_default(const serry_timeouts *timeouts);

/**
 * Start the timeout of an operation. One that runs under the same id is replaced: its token is
 * cancelled before this returns.
 *
 * @param operation_id  Any number, the program's own.
 * @param timeout_ms    From now; <= 0: none, only cancelling ends it; or SERRY_DEFAULT_TIMEOUT.
 * @param[out] token    A reference for the caller; NULL unless SERRY_OK is returned.
 * @retval SERRY_ERR_NO_SPACE  No memory. What ran under this id goes on.
 */
int serry_timeouts_start(serry_timeouts *timeouts, uint64_t operation_id, int timeout_ms,
                         serry_token **token);

/**
 * End the timeout of an operation, because that is over: its token never trips any more.
 *
 * @return Did it end in time? False where nothing runs under this id: never started, ended already,
 *         cancelled, or seen to have expired.
 */
bool serry_timeouts_end(serry_timeouts *timeouts, uint64_t operation_id);

/**
 * Cancel an operation: its timeout goes, its token is cancelled, its waiters are woken, all before
 * this returns. A token whose time is over becomes expired instead.
 *
 * @return Was it cancelled? False where nothing runs under this id.
 */
bool serry_timeouts_cancel(serry_timeouts *timeouts, uint64_t operation_id);

/* Cancel every operation that runs, as serry_timeouts_cancel() does it. */
void serry_timeouts_cancel_all(serry_timeouts *timeouts);

/**
 * Give an operation more time: `additional_ms` more than what is left. Waits that have begun see it.
 * Time is never taken away: <= 0 adds nothing.
 *
 * @return What is left then, as serry_timeouts_remaining; 0 where there was nothing to extend.
 */
int64_t serry_timeouts_extend(serry_timeouts *timeouts, uint64_t operation_id, int additional_ms);

/**
 * Tell how much time is left to an operation.
 *
 * @return Milliseconds, rounded up. -1: it runs without a deadline. 0: nothing runs under this id:
 *         never
 *         started, ended, cancelled or expired.
 */
int64_t serry_timeouts_remaining(serry_timeouts *timeouts, uint64_t operation_id);

/* ---- tokens ------------------------------------------------------------------------------- */

/**
 * Tell what a token is now. Once it has tripped (it is not RUNNING), it stays as it is. Who sees it
 * cancelled sees what the other thread did before it cancelled.
 *
 * @return SERRY_TOKEN_RUNNING, SERRY_TOKEN_EXPIRED or SERRY_TOKEN_CANCELLED.
 */
serry_token_status serry_token_state(serry_token *token);

/**
 * Tell when a token expires. That moves later by serry_timeouts_extend(): look again when it has
 * come.
 *
 * @return Absolute, CLOCK_MONOTONIC, nanoseconds; SERRY_NO_DEADLINE: never. Of a tripped token: a
 *         time in the
 *         past.
 */
uint64_t serry_token_deadline(const serry_token *token);

/**
 * Sleep for some time, or until a token trips.
 *
 * @param timeout_ms  Milliseconds; <= 0: do not sleep.
 * @return The token's state then.
 */
serry_token_status serry_token_sleep(serry_token *token, int timeout_ms);

/**
 * Take one more reference to a token, to be given back with serry_token_release().
 *
 * @return token
 */
serry_token *serry_token_retain(serry_token *token);

/**
 * Give a reference to a token back; the last one frees it.
 *
 * @param[in,out] token  Set to NULL. NULL in it is allowed.
 */
void serry_token_release(serry_token **token);

/* What a waiter leaves with a token. The waiter's memory; all fields are the library's. */
typedef struct serry_watch {
    void (*wake)(void *argument);
    void *argument;
    struct serry_watch *next, *previous;
    bool waiting; /* it is in the token's list */
} serry_watch;

/**
 * Have `wake(argument)` called when the token is cancelled: once, by the thread that cancels. Expiry
 * calls nobody: the waiter must not sleep past the deadline.
 *
 * `wake` must be short, must not wait for other threads, and must not watch or unwatch any token.
 * It may call everything else of this header.
 *
 * @param watch     The caller's; stays in place until serry_token_unwatch().
 * @param wake      Not NULL.
 * @param argument  Passed on to it.
 * @return The state. Only if it is SERRY_TOKEN_RUNNING is there a watch, else nothing will be called
 *         and there is nothing to unwatch.
 */
serry_token_status serry_token_watch(serry_token *token, serry_watch *watch,
                                     void (*wake)(void *argument), void *argument);

/* End a watch, called or not. When this returns, `wake` is not running and will not be called: so it
 * must not be called from within it. The watch is the caller's again. */
void serry_token_unwatch(serry_token *token, serry_watch *watch);

#ifdef __cplusplus
}
#endif
#endif
