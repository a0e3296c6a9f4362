/* wait.h - the one way to wait: pauses, then yields, then a futex; always with an end. */
#ifndef SHM_WAIT_H
#define SHM_WAIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <serry/backend.h>
#include <serry/error.h>

/* How patient each stage is; fixed when a rank joins, from the cores that all ranks may use. */
typedef struct wait_plan {
    uint32_t pauses; /* 0 where there are more ranks than cores */
    uint32_t yields;
} wait_plan;

/* When a wait must end. The clock is first read when something really waits; from then on the
 * deadline is absolute (CLOCK_MONOTONIC), so several waits in a row share it. */
typedef struct wait_limit {
    const serry_limit *given;
    uint64_t deadline_ns; /* 0, 1: not read yet; UINT64_MAX: none */
    serry_token *token;   /* NULL: there is none, or nobody has asked yet */
    bool polled; /* the last call ended with SERRY_ERR_AGAIN: the next keeps the deadline */
} wait_limit;

/* Between two looks at a word. */
static inline void wait_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#else
#error "serry runs on x86-64 and aarch64"
#endif
}

wait_plan wait_plan_for(int ranks, int cores);

/* For a call that starts, or goes on. */
static inline void wait_begin(wait_limit *limit, const serry_limit *given)
{
    bool goes_on =
        __builtin_expect(given->poll != NULL, 0) && limit->polled && !given->poll->begins;

    *limit = (wait_limit){given, goes_on ? limit->deadline_ns : 0, NULL, false};
}

/* After these codes a call is open, and the same call again goes on with it. */
static inline bool wait_is_over(int rc)
{
    return rc != SERRY_ERR_TIMEOUT && rc != SERRY_ERR_CANCELLED && rc != SERRY_ERR_AGAIN;
}

uint64_t wait_now_ns(void);

/* Fix the deadline if it is not yet, and tell whether it has passed. */
int wait_expired(wait_limit *limit);

/* What is waited for, and what ends the waiting. */
typedef struct wait_target {
    _Atomic uint64_t *word;
    uint64_t step;
    const _Atomic uint64_t *own;  /* the waiting rank's own word: is it sealed? */
    const _Atomic uint32_t *call; /* the group's call, enum group_call */
    uint32_t least;               /* the least of them that ends this wait */
} wait_target;

/**
 * Wait until the word is decided for the step.
 *
 * @retval SERRY_OK            It is decided (and this wins over everything else).
 * @retval SERRY_ERR_EXCLUDED  The own word is sealed.
 * @retval SERRY_ERR_REVOKED   The communicator is revoked.
 * @retval SERRY_ERR_MEETING   A member calls a meeting.
 * @retval SERRY_ERR_CANCELLED The limit's token was cancelled.
 * @retval SERRY_ERR_TIMEOUT   The limit has passed.
 * @retval SERRY_ERR_AGAIN     None of these yet, and the limit says to poll.
 */
int wait_decided(const wait_target *target, const wait_plan *plan, wait_limit *limit);

/* Wake all who sleep on a word. A system call: only when word.h says that somebody may sleep. */
void wait_wake(_Atomic uint64_t *word);

/* Let all who sleep on a word, or are about to, look again. */
void wait_rouse(_Atomic uint64_t *word);

/* Before a first sleep: get the limit's token, if it has one. */
void wait_ask(wait_limit *limit);

#endif
