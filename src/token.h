/* token.h - what a token is, for those who wait with it and those who trip it; used on every floor,
 * knows none.
 *
 * `deadline_ns` alone says what a token is, and moves only so:
 *
 *     a time ---> a later time                 serry_token_extend
 *     a time ---> TOKEN_EXPIRED                whoever sees that the time has come
 *     a time or SERRY_NO_DEADLINE ---> TOKEN_CANCELLED    serry_token_cancel
 *     a time ---> SERRY_NO_DEADLINE            serry_token_end
 *
 * so that an extension and an expiry, or a cancellation and an end, never both happen. The two
 * tripped values are times long past: `now >= deadline_ns` is the whole test of a waiter, and only
 * where it holds need it ask for the reason (serry_token_state). */
#ifndef SERRY_TOKEN_H
#define SERRY_TOKEN_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include <serry/timeout.h>

#define TOKEN_EXPIRED UINT64_C(0)
#define TOKEN_CANCELLED UINT64_C(1)

struct serry_token {
    _Atomic uint64_t deadline_ns; /* released and acquired: who sees a token cancelled sees
                                     what the other thread did before it cancelled */
    _Atomic uint32_t cancelled;   /* 0, then 1 for ever, written after deadline_ns. A private futex
                                     word: who sleeps on it counts itself in `sleepers` before */
    _Atomic uint32_t sleepers;
    _Atomic uint32_t references;
    pthread_mutex_t lock; /* of the list below; held while watches are called, so that
                                     unwatching waits for them */
    serry_watch *watches;
};

static inline uint64_t serry_token_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* A running token with two references, the caller's and the manager's; NULL: no memory.
 * timeout_ms <= 0: no deadline. */
serry_token *serry_token_new(int timeout_ms);

/* Make a running token a cancelled one, and tell whether this call has done it: it must then be
 * followed by serry_token_wake, with no lock held that a watch might take. */
bool serry_token_cancel(serry_token *token);

/* Wake who sleeps on a cancelled token and call its watches. */
void serry_token_wake(serry_token *token);

/* Let a token never trip, and tell whether it was running. */
bool serry_token_end(serry_token *token);

/* Move the deadline; true unless the token has tripped. <= 0, or no deadline: nothing moves. */
bool serry_token_extend(serry_token *token, int additional_ms);

#endif
