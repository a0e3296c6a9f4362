/* wait.h - the one way to wait: pauses, then yields, then a futex; always with an end. */
#ifndef SHM_WAIT_H
#define SHM_WAIT_H

#include <stdatomic.h>
#include <stdint.h>

/* How patient each stage is; fixed when a rank joins, from the cores that all ranks may use. */
typedef struct wait_plan {
    uint32_t pauses; /* 0 where there are more ranks than cores */
    uint32_t yields;
} wait_plan;

/* When a wait must end. The clock is first read when something really waits; from then on the
 * deadline is absolute (CLOCK_MONOTONIC), so several waits in a row share it. */
typedef struct wait_limit {
    int timeout_ms;       /* < 0: none */
    uint64_t deadline_ns; /* 0: not read yet; UINT64_MAX: none */
} wait_limit;

wait_plan wait_plan_for(int ranks, int cores);

uint64_t wait_now_ns(void);

/* Fix the deadline if it is not yet, and tell whether it has passed. */
int wait_expired(wait_limit *limit);

/**
 * Wait until `word` is decided for `step`.
 *
 * @param own  The waiting rank's own word: when that is sealed, waiting is over.
 * @retval SERRY_OK            It is decided (and this wins over everything else).
 * @retval SERRY_ERR_EXCLUDED  `own` is sealed.
 * @retval SERRY_ERR_TIMEOUT   The limit has passed.
 */
int wait_decided(_Atomic uint64_t *word, const _Atomic uint64_t *own, uint64_t step,
                 const wait_plan *plan, wait_limit *limit);

/* Wake all who sleep on a word. A system call: only when word.h says that somebody may sleep. */
void wait_wake(_Atomic uint64_t *word);

#endif
