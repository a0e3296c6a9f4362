/* token.c - see token.h. */
#include "token.h"

#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)
#define LAST_DEADLINE (SERRY_NO_DEADLINE - 1)

/* ---- life --------------------------------------------------------------------------------- */

serry_token *serry_token_new(int timeout_ms)
{
    serry_token *token = calloc(1, sizeof(*token));
    if (token == NULL)
        return NULL;
    uint64_t deadline_ns = SERRY_NO_DEADLINE;
    if (timeout_ms > 0)
        deadline_ns = serry_token_now_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    atomic_init(&token->deadline_ns, deadline_ns);
    atomic_init(&token->references, 2);
    pthread_mutex_init(&token->lock, NULL);
    return token;
}

serry_token *serry_token_retain(serry_token *token)
{
    atomic_fetch_add_explicit(&token->references, 1, memory_order_relaxed);
    return token;
}

void serry_token_release(serry_token **token)
{
    serry_token *old = *token;
    *token = NULL;
    /* whoever is last sees all that the others have done */
    if (old == NULL || atomic_fetch_sub_explicit(&old->references, 1, memory_order_acq_rel) > 1)
        return;
    pthread_mutex_destroy(&old->lock);
    free(old);
}

/* ---- what it is --------------------------------------------------------------------------- */

static bool is_tripped(uint64_t deadline_ns)
{
    return deadline_ns <= TOKEN_CANCELLED;
}

/* The deadline, after it was made TOKEN_EXPIRED if it has come. The clock is read after the deadline,
 * and the exchange fails if that has moved meanwhile: nothing expires that was extended in time. */
static uint64_t look(serry_token *token)
{
    uint64_t deadline_ns = atomic_load_explicit(&token->deadline_ns, memory_order_acquire);
    while (!is_tripped(deadline_ns) && deadline_ns != SERRY_NO_DEADLINE &&
           serry_token_now_ns() >= deadline_ns)
        if (atomic_compare_exchange_weak_explicit(&token->deadline_ns, &deadline_ns, TOKEN_EXPIRED,
                                                  memory_order_acq_rel, memory_order_acquire))
            return TOKEN_EXPIRED;
    return deadline_ns;
}

serry_token_status serry_token_state(serry_token *token)
{
    switch (look(token)) {
    case TOKEN_EXPIRED:
        return SERRY_TOKEN_EXPIRED;
    case TOKEN_CANCELLED:
        return SERRY_TOKEN_CANCELLED;
    default:
        return SERRY_TOKEN_RUNNING;
    }
}

uint64_t serry_token_deadline(const serry_token *token)
{
    return atomic_load_explicit(&token->deadline_ns, memory_order_acquire);
}

/* Replace a deadline that has been looked at by another; false: it had changed meanwhile. */
static bool move(serry_token *token, uint64_t from_ns, uint64_t to_ns)
{
    return atomic_compare_exchange_strong_explicit(&token->deadline_ns, &from_ns, to_ns,
                                                   memory_order_acq_rel, memory_order_acquire);
}

bool serry_token_extend(serry_token *token, int additional_ms)
{
    for (;;) {
        uint64_t from_ns = look(token);
        if (is_tripped(from_ns))
            return false;
        if (from_ns == SERRY_NO_DEADLINE || additional_ms <= 0)
            return true;
        uint64_t more_ns = (uint64_t)additional_ms * NS_PER_MS;
        uint64_t to_ns = from_ns > LAST_DEADLINE - more_ns ? LAST_DEADLINE : from_ns + more_ns;
        if (move(token, from_ns, to_ns))
            return true;
    }
}

/* An operation that has succeeded did so, even if its time is over by now and nobody has looked. */
bool serry_token_end(serry_token *token)
{
    for (;;) {
        uint64_t from_ns = serry_token_deadline(token);
        if (is_tripped(from_ns))
            return false;
        if (move(token, from_ns, SERRY_NO_DEADLINE))
            return true;
    }
}

bool serry_token_cancel(serry_token *token)
{
    for (;;) {
        uint64_t from_ns = look(token);
        if (is_tripped(from_ns))
            return false;
        if (move(token, from_ns, TOKEN_CANCELLED))
            break;
    }
    atomic_store_explicit(&token->cancelled, 1, memory_order_seq_cst);
    return true;
}

/* ---- waiting ------------------------------------------------------------------------------ */

serry_token_status serry_token_sleep(serry_token *token, int timeout_ms)
{
    uint64_t end_ns = 0;
    if (timeout_ms > 0)
        end_ns = serry_token_now_ns() + (uint64_t)timeout_ms * NS_PER_MS;

    atomic_fetch_add_explicit(&token->sleepers, 1, memory_order_seq_cst);
    serry_token_status status;
    while ((status = serry_token_state(token)) == SERRY_TOKEN_RUNNING &&
           serry_token_now_ns() < end_ns) {
        uint64_t until_ns = serry_token_deadline(token);
        if (end_ns < until_ns)
            until_ns = end_ns;
        struct timespec until = {(time_t)(until_ns / NS_PER_S), (long)(until_ns % NS_PER_S)};
        syscall(SYS_futex, &token->cancelled, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 0, &until,
                NULL, FUTEX_BITSET_MATCH_ANY);
    }
    atomic_fetch_sub_explicit(&token->sleepers, 1, memory_order_relaxed);
    return status;
}

void serry_token_wake(serry_token *token)
{
    if (atomic_load_explicit(&token->sleepers, memory_order_seq_cst) > 0)
        syscall(SYS_futex, &token->cancelled, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX, NULL, NULL,
                0);

    pthread_mutex_lock(&token->lock);
    while (token->watches != NULL) {
        serry_watch *watch = token->watches;
        token->watches = watch->next;
        watch->waiting = false;
        watch->wake(watch->argument);
    }
    pthread_mutex_unlock(&token->lock);
}

/* Either the state is read before the token is cancelled, and then the watch is in the list before
 * serry_token_wake can take the lock; or after, and then the caller knows. */
serry_token_status serry_token_watch(serry_token *token, serry_watch *watch,
                                     void (*wake)(void *argument), void *argument)
{
    pthread_mutex_lock(&token->lock);
    serry_token_status status = serry_token_state(token);
    if (status == SERRY_TOKEN_RUNNING) {
        *watch = (serry_watch){wake, argument, token->watches, NULL, true};
        if (watch->next != NULL)
            watch->next->previous = watch;
        token->watches = watch;
    }
    pthread_mutex_unlock(&token->lock);
    return status;
}

void serry_token_unwatch(serry_token *token, serry_watch *watch)
{
    pthread_mutex_lock(&token->lock);
    if (watch->waiting) {
        watch->waiting = false;
        if (watch->previous != NULL)
            watch->previous->next = watch->next;
        else
            token->watches = watch->next;
        if (watch->next != NULL)
            watch->next->previous = watch->previous;
    }
    pthread_mutex_unlock(&token->lock);
}
