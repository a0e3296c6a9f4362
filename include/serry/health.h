/**
 * health.h - how the other ranks of a communicator are: healthy, unresponsive or failed, and why.
 *
 * Ranks need not do anything for it: the library itself shows that their processes live, several
 * times a second. A monitor looks at all ranks periodically. Of a rank it says
 *
 *     SERRY_HEALTHY       to begin with, and whenever there is a sign of life;
 *     SERRY_UNRESPONSIVE  after one heartbeat timeout without one;
 *     SERRY_FAILED        after two, or as soon as there is evidence that the rank has failed or left.
 *
 * and in a report, what it does: computing, waiting in an operation, stopped, frozen, gone...
 *
 * - Silence alone is only a suspicion: the next sign of life makes a rank healthy again. Other
 *   operations take no notice, unless the configuration says that such a rank is to be excluded.
 * - A rank that wants to run, but does not get to it because the machine is too busy, becomes
 *   unresponsive, but never failed.
 * - Time is what the monitor has seen itself: of a gap between two looks that is longer than two
 *   periods, two periods count. So its own sleep is nobody's death.
 * - A rank is always healthy in its own eyes.
 * - Where the backend has no signs of life to offer, serry_health_update() gives them by hand.
 *
 * Common to all functions:
 * - Any thread, at any time, but destroy: nobody else may use the object then.
 * - Destroy it before its communicator is finalized.
 * - In the child of a fork there is only destroy: the others return SERRY_ERR_FORKED, or no ranks.
 * - Nothing is printed.
 */
#ifndef SERRY_HEALTH_H
#define SERRY_HEALTH_H

#include <serry/backend.h>
#include <serry/error.h>
#include <serry/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A monitor of the ranks of a communicator. Made by serry_health_create(). */
typedef struct serry_health serry_health;

/* How a rank is: see above. */
typedef enum serry_rank_status {
    SERRY_HEALTHY = 0,
    SERRY_UNRESPONSIVE,
    SERRY_FAILED
} serry_rank_status;

/* A rank as the monitor saw it when it last looked. */
typedef struct serry_health_report {
    int rank;
    serry_rank_status status;
    serry_activity activity;
    bool evidence;      /* it is known to have failed or left; false: FAILED is a suspicion */
    uint64_t operation; /* number of the one that it waits in; 0: none, or not known */
    uint64_t progress;  /* moves with the rank's own operations on the communicator */
    int64_t silent_ms;  /* since the last sign of life */
    int64_t idle_ms;    /* since progress has moved */
    serry_exclusion exclusion; /* how it was excluded, or was to be; SERRY_EXCLUSION_NONE: not */
    int exclusion_error;       /* SERRY_OK, or why that could not be done */
} serry_health_report;

/* Called at each change of a rank's status, in the order of the ranks, one call at a time, by the
 * thread that found it: the monitor's own, or the one that called check or update. May ask for
 * status and numbers; the functions that change something return SERRY_ERR_INVALID from within. */
typedef void (*serry_health_change)(int rank, serry_rank_status before, serry_rank_status after,
                                    const serry_health_report *report, void *argument);

/* Start from SERRY_HEALTH_CONFIG_INIT. */
typedef struct serry_health_config {
    size_t bytes;                  /* sizeof(serry_health_config): set by the INIT */
    int period_ms;                 /* between two looks; > 0 */
    int heartbeat_timeout_ms;      /* > 0 */
    serry_exclusion exclusion;     /* of a rank that becomes SERRY_FAILED without evidence */
    serry_health_change on_change; /* NULL: nobody is told */
    void *argument;                /* of on_change */
} serry_health_config;

#define SERRY_HEALTH_CONFIG_INIT                                                                   \
    {                                                                                              \
        sizeof(serry_health_config), 5000, 30000, SERRY_EXCLUSION_NONE, NULL, NULL                 \
    }

/**
 * Make a monitor that does not run yet; all ranks are healthy.
 *
 * @param comm         Must outlive it.
 * @param config       Copied. NULL: all as in SERRY_HEALTH_CONFIG_INIT.
 * @param[out] health  NULL unless SERRY_OK is returned; serry_health_destroy() it.
 * @retval SERRY_ERR_INVALID   No communicator, a field is out of its range, or `bytes` is another
 *                             library's.
 * @retval SERRY_ERR_NO_SPACE  No memory.
 * @retval SERRY_ERR_FORKED    The communicator is the parent's.
 */
int serry_health_create(serry_comm *comm, const serry_health_config *config, serry_health **health);

/**
 * Stop a monitor and free it.
 *
 * @param[in,out] health  Set to NULL. NULL in it is allowed.
 * @retval SERRY_ERR_INVALID  Called from within on_change; nothing has changed.
 */
int serry_health_destroy(serry_health **health);

/**
 * Start a thread that looks at once, and then every period. May be stopped and started again;
 * starting it twice changes nothing. Time between stop and start does not count.
 *
 * @retval SERRY_ERR_SYSTEM   There can be no thread; nothing has changed.
 * @retval SERRY_ERR_INVALID  Called from within on_change.
 * @retval SERRY_ERR_FORKED
 */
int serry_health_start(serry_health *health);

/**
 * Stop the thread and wait for its end, and so for its call of on_change. What is known stays.
 *
 * @retval SERRY_ERR_INVALID  Called from within on_change.
 * @retval SERRY_ERR_FORKED
 */
int serry_health_stop(serry_health *health);

/**
 * Look once, now, whether the thread runs or not.
 *
 * @retval SERRY_ERR_INVALID  Called from within on_change.
 * @retval SERRY_ERR_FORKED
 */
int serry_health_check(serry_health *health);

/**
 * Give a sign of life of a rank, by hand: it is healthy.
 *
 * @retval SERRY_ERR_INVALID      There is no such rank, or called from within on_change.
 * @retval SERRY_ERR_RANK_FAILED  There is evidence against it, which stands.
 * @retval SERRY_ERR_FORKED
 */
int serry_health_update(serry_health *health, int rank);

/**
 * Tell how a rank was when the monitor last looked.
 *
 * @param[out] report  All that is known of it; may be NULL.
 * @return Its status. A rank that does not exist, and any rank in the child of a fork, is
 *         SERRY_FAILED.
 */
serry_rank_status serry_health_status(serry_health *health, int rank, serry_health_report *report);

/**
 * Tell which ranks are healthy.
 *
 * @param[out] ranks  See serry_rank_set_has(); may be NULL.
 * @return How many they are; 0 in the child of a fork.
 */
int serry_health_healthy(serry_health *health, serry_rank_set *ranks);

/**
 * Count the ranks that are not healthy.
 *
 * @return How many are unresponsive or failed; 0 in the child of a fork.
 */
int serry_health_unresponsive(serry_health *health);

/**
 * Tell the name of a status.
 *
 * @return "HEALTHY", "UNRESPONSIVE" or "FAILED"; "?" for no status. Constant, never NULL.
 */
const char *serry_rank_status_name(serry_rank_status status);

#define SERRY_HEALTH_TEXT_MAX 160u /* room for every text */

/**
 * Put a report in words: "rank 3 is UNRESPONSIVE: stopped, silent for 31.0 s". Cut to `size` bytes
 * with the final 0.
 *
 * @param[out] text  SERRY_HEALTH_TEXT_MAX bytes are enough.
 * @return text
 */
char *serry_health_text(const serry_health_report *report, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
