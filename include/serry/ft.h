/**
 * ft.h - collectives that try again, by another algorithm or another backend where need be.
 *
 * serry_ft_create() makes a backend out of a chain of backends. Given to serry_init() it carries
 * every operation through the first of them, with a timeout; an error goes to a serry_recovery
 * (recovery.h), and its decision is carried out:
 *
 *   SERRY_RETRY                The same call again on this rank, after a pause. Its input is
 *                              intact; the others still wait for it, or have got the same error and
 *                              retry too.
 *   SERRY_DIFFERENT_ALGORITHM  All ranks make the call again by the backend's next algorithm, and
 *                              stay with it. Where it has no further one: as
 *                              SERRY_FALLBACK_BACKEND.
 *   SERRY_FALLBACK_BACKEND     All ranks join the next backend of the chain that lets them in, make
 *                              the call again there, and stay there. Where the chain ends: as
 *                              SERRY_ABORT.
 *   SERRY_ABORT                All ranks get the error, and go on with their next operation.
 *
 * The last three take all ranks to one meeting (backend.h), so that they act at the same operation,
 * also those that had no error. Where ranks want different things, the later in this list wins, and
 * of several errors the first in SERRY_ERROR_MAP is handed on. An operation to which all have
 * contributed by then completes on all instead, and nobody gets an error.
 *
 * Without a meeting:
 * - SERRY_ERR_RANK_MISMATCH, _RANK_FAILED and _RANK_JOINED come to all ranks alike; aborting them
 *   means handing them on.
 * - SERRY_ERR_INVALID and _PENDING are the caller's own and are handed on, unless a strategy other
 *   than SERRY_ABORT was set for them.
 * - SERRY_ERR_REVOKED and errors by which this rank has lost the communicator are always handed on.
 * - serry_agree and serry_shrink are only ever retried.
 *
 * Where not all ranks come to a meeting in time, the error is handed on all the same, and its
 * record has the context "Meeting" = "open". Who is late gets it when it comes, and the next call
 * here waits for that; it is a new operation. (Only if the meeting comes to something else than
 * aborting, most likely that all had contributed by then, the old call must be made once more,
 * which completes it; until then any other returns SERRY_ERR_PENDING.) A cancelled operation waits
 * for the others 100 ms at most, and so does one whose last attempt is out of time.
 *
 * All ranks of a job must have the same chain and the same strategies. Errors of serry_init do not
 * follow a strategy: after NO_SPACE, UNSUPPORTED, SYSTEM, LAYOUT and ARENA the next backend is
 * tried.
 *
 * A record has the number of this wrapper's operation, and as context "RetryCount" (attempts
 * before), "Backend" and "Strategy". Memory from serry_alloc stays valid when another backend takes
 * over; the older ones are left at serry_finalize.
 *
 * Replacements and spares (serry_rejoin) join the first backend of the chain, whichever carries: give
 * them the same chain, and make the first one a backend that lets replacements in, as shm does. After a
 * fallback they find the others where these are now: all join that backend anew, with the replacement,
 * at an operation that does what the policy says, SERRY_WAIT included, also where the backend itself
 * knows neither replacements nor that policy. Each time this costs every rank what the backend needs for
 * its connections (socket: a descriptor for each rank and one more), until serry_finalize. A job whose
 * first backend lets nobody in from the beginning has no replacements.
 *
 * A request needs no thread that waits on its way through attempts, pauses, meetings, and into the next
 * backend. But a thread rank begins to join that in its own thread: where its operation is a request that
 * the progress thread drives, that waits until the rank's thread waits for the request, or tests it. So
 * let it not wait for anything else meanwhile that needs ranks which wait for this request: both would
 * wait until a timeout.
 */
#ifndef SERRY_FT_H
#define SERRY_FT_H

#include <serry/backend.h>
#include <serry/recovery.h>
#include <serry/serry.h>
#include <serry/timeout.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SERRY_FT_CHAIN_MAX 8u

/* The chain of a wrapper, and how it tries. Start from SERRY_FT_CONFIG_INIT, then give the chain. */
typedef struct serry_ft_config {
    size_t bytes; /* sizeof(serry_ft_config): set by the macro */
    const struct serry_backend *const
        *chain;     /* the first carries, the others wait; each outlives the
                                                 wrapper. None of them may be a wrapper itself */
    size_t count;   /* 1 to SERRY_FT_CHAIN_MAX */
    int timeout_ms; /* of each attempt; < 0: none; 0: the communicator's (serry_set_timeout) */
    serry_recovery_config recovery; /* of each communicator; the seed is added to the rank */
} serry_ft_config;

#define SERRY_FT_CONFIG_INIT                                                                       \
    {                                                                                              \
        sizeof(serry_ft_config), NULL, 0, 0, SERRY_RECOVERY_CONFIG_INIT                            \
    }

/**
 * Make a backend out of a chain of backends. Any thread.
 *
 * @param config        Copied, with the array that it points to.
 * @param[out] backend  For serry_config.backend, in any number of communicators; "FT_" and the name
 *                      of the first of the chain. NULL unless SERRY_OK is returned;
 *                      serry_ft_destroy() it after the last of its communicators.
 * @retval SERRY_ERR_INVALID   No chain, or a wrapper in it, or a field out of range;
 *                             serry_last_error(NULL) says which.
 * @retval SERRY_ERR_NO_SPACE  No memory.
 */
int serry_ft_create(const serry_ft_config *config, serry_backend **backend);

/**
 * Free a wrapper, after the last of its communicators.
 *
 * @param[in,out] backend  Set to NULL. NULL in it is allowed.
 */
void serry_ft_destroy(serry_backend **backend);

/* ---- of a communicator ------------------------------------------------------------------------ */

/**
 * Get the timeouts of a communicator: each attempt that has to wait runs under the number of its
 * operation (serry_ft_operation()), and can be cancelled or extended by any thread.
 *
 * @return The communicator's; NULL where it has no such backend.
 */
serry_timeouts *serry_ft_timeouts(const serry_comm *comm);

/**
 * Get the recovery manager of a communicator. Set the strategies between operations, on all ranks
 * alike. A communicator made from this one begins with its strategies, and has a history of its
 * own.
 *
 * @return The communicator's; NULL where it has no such backend.
 */
serry_recovery *serry_ft_recovery(const serry_comm *comm);

/**
 * Tell the number of a communicator's operation: the one that runs, or the last one. Attempts
 * share it. Any thread.
 *
 * @return From 1; 0 where there was none, or it has no such backend.
 */
uint64_t serry_ft_operation(const serry_comm *comm);

/**
 * Tell which backend of the chain carries a communicator now. Any thread.
 *
 * @return NULL where it has no such backend.
 */
const serry_backend *serry_ft_carrier(const serry_comm *comm);

#ifdef __cplusplus
}
#endif
#endif
