/* timeout.c - the timeouts of many operations: a hash table from operation ids to tokens.
 *
 * Whoever takes a token out of the table under the lock is the one who ends or cancels it; watches
 * are called when the lock has been given back, so they may come back in here. A timeout that
 * nobody ends is found, once it has expired, when the table must grow. */
#include <serry/timeout.h>

#include <pthread.h>
#include <stdlib.h>

#include "token.h"

#define FIVE_MINUTES_MS 300000
#define FEWEST_SLOTS 16u /* all numbers of slots are powers of two, or 0 */

typedef struct slot {
    uint64_t operation_id;
    serry_token *token; /* a reference; NULL: the slot is free */
} slot;

/* Linear probing without gaps: from an id's home to its slot no slot is free. Never more than half
 * full. */
typedef struct table {
    slot *slots;
    size_t size, used;
} table;

struct serry_timeouts {
    int default_ms;
    pthread_mutex_t lock; /* of the table */
    table table;
};

/* ---- the table ---------------------------------------------------------------------------- */

/* Ids are mostly consecutive: the factor (2^64 over the golden ratio) spreads them. */
static size_t home_of(const table *t, uint64_t operation_id)
{
    uint64_t mixed = operation_id * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(mixed ^ (mixed >> 32)) & (t->size - 1);
}

/* The slot of an id, or the free one where it would go. NULL in a table without slots. */
static slot *find(const table *t, uint64_t operation_id)
{
    if (t->size == 0)
        return NULL;
    size_t at = home_of(t, operation_id);
    while (t->slots[at].token != NULL && t->slots[at].operation_id != operation_id)
        at = (at + 1) & (t->size - 1);
    return &t->slots[at];
}

static void put(table *t, uint64_t operation_id, serry_token *token)
{
    *find(t, operation_id) = (slot){operation_id, token};
    t->used++;
}

/* Move all that still runs to a table that it fills to a quarter, with one more, and forget what has
 * expired. False: no memory, and the table is as before. */
static bool rebuild(table *t)
{
    size_t running = 0;
    for (size_t i = 0; i < t->size; i++)
        if (t->slots[i].token != NULL)
            running += serry_token_state(t->slots[i].token) == SERRY_TOKEN_RUNNING;

    table new = {NULL, FEWEST_SLOTS, 0};
    while (new.size < 4 * (running + 1))
        new.size *= 2;
    new.slots = calloc(new.size, sizeof(slot));
    if (new.slots == NULL)
        return false;
    for (size_t i = 0; i < t->size; i++) {
        slot *old = &t->slots[i];
        if (old->token != NULL && serry_token_state(old->token) == SERRY_TOKEN_RUNNING)
            put(&new, old->operation_id, old->token);
        else
            serry_token_release(&old->token);
    }
    free(t->slots);
    *t = new;
    return true;
}

/* Take an id out. NULL: it is not there. The reference passes to the caller. */
static serry_token *take(table *t, uint64_t operation_id)
{
    slot *found = find(t, operation_id);
    if (found == NULL || found->token == NULL)
        return NULL;
    serry_token *token = found->token;
    found->token = NULL;
    t->used--;

    /* Fill the gap with the next one that may lie there, and then the gap that it leaves. */
    size_t gap = (size_t)(found - t->slots), mask = t->size - 1;
    for (size_t at = (gap + 1) & mask; t->slots[at].token != NULL; at = (at + 1) & mask) {
        size_t home = home_of(t, t->slots[at].operation_id);
        if (((at - home) & mask) < ((at - gap) & mask))
            continue; /* its home lies behind the gap */
        t->slots[gap] = t->slots[at];
        t->slots[at].token = NULL;
        gap = at;
    }
    if (t->size > FEWEST_SLOTS && 16 * t->used < t->size)
        rebuild(t); /* where there is no memory for it, the larger one stays */
    return token;
}

/* ---- the timeouts ------------------------------------------------------------------------- */

int serry_timeouts_create(int default_timeout_ms, serry_timeouts **timeouts)
{
    serry_timeouts *new = calloc(1, sizeof(*new));
    *timeouts = new;
    if (new == NULL)
        return SERRY_ERR_NO_SPACE;
    bool given = default_timeout_ms != SERRY_DEFAULT_TIMEOUT;
    new->default_ms = given ? default_timeout_ms : FIVE_MINUTES_MS;
    pthread_mutex_init(&new->lock, NULL);
    return SERRY_OK;
}

void serry_timeouts_destroy(serry_timeouts **timeouts)
{
    serry_timeouts *old = *timeouts;
    *timeouts = NULL;
    if (old == NULL)
        return;
    serry_timeouts_cancel_all(old);
    pthread_mutex_destroy(&old->lock);
    free(old);
}

int serry_timeouts_default(const serry_timeouts *timeouts)
{
    return timeouts->default_ms;
}

/* The last step of a cancellation, without the lock: wake the waiters of a token that was taken out
 * and cancelled, and give the reference back. NULL is allowed. */
static void finish(serry_token *token, bool cancelled)
{
    if (cancelled)
        serry_token_wake(token);
    serry_token_release(&token);
}

int serry_timeouts_start(serry_timeouts *timeouts, uint64_t operation_id, int timeout_ms,
                         serry_token **token)
{
    serry_token *new =
        serry_token_new(timeout_ms == SERRY_DEFAULT_TIMEOUT ? timeouts->default_ms : timeout_ms);
    *token = new;
    if (new == NULL)
        return SERRY_ERR_NO_SPACE;

    pthread_mutex_lock(&timeouts->lock);
    table *t = &timeouts->table;
    if (2 * (t->used + 1) > t->size && !rebuild(t)) {
        pthread_mutex_unlock(&timeouts->lock);
        serry_token_release(&new);
        serry_token_release(token);
        return SERRY_ERR_NO_SPACE;
    }
    serry_token *older = take(t, operation_id);
    bool cancelled = older != NULL && serry_token_cancel(older);
    put(t, operation_id, new);
    pthread_mutex_unlock(&timeouts->lock);

    finish(older, cancelled);
    return SERRY_OK;
}

bool serry_timeouts_end(serry_timeouts *timeouts, uint64_t operation_id)
{
    pthread_mutex_lock(&timeouts->lock);
    serry_token *token = take(&timeouts->table, operation_id);
    bool ended = token != NULL && serry_token_end(token);
    pthread_mutex_unlock(&timeouts->lock);

    serry_token_release(&token);
    return ended;
}

bool serry_timeouts_cancel(serry_timeouts *timeouts, uint64_t operation_id)
{
    pthread_mutex_lock(&timeouts->lock);
    serry_token *token = take(&timeouts->table, operation_id);
    bool cancelled = token != NULL && serry_token_cancel(token);
    pthread_mutex_unlock(&timeouts->lock);

    finish(token, cancelled);
    return cancelled;
}

void serry_timeouts_cancel_all(serry_timeouts *timeouts)
{
    pthread_mutex_lock(&timeouts->lock);
    table all = timeouts->table;
    timeouts->table = (table){NULL, 0, 0};
    for (size_t i = 0; i < all.size; i++)
        if (all.slots[i].token != NULL && !serry_token_cancel(all.slots[i].token))
            serry_token_release(&all.slots[i].token);
    pthread_mutex_unlock(&timeouts->lock);

    for (size_t i = 0; i < all.size; i++)
        finish(all.slots[i].token, all.slots[i].token != NULL);
    free(all.slots);
}

/* ---- time --------------------------------------------------------------------------------- */

static int64_t left_ms(const serry_token *token)
{
    uint64_t deadline_ns = serry_token_deadline(token), now_ns = serry_token_now_ns();
    if (deadline_ns == SERRY_NO_DEADLINE)
        return -1;
    return deadline_ns <= now_ns ? 0 : (int64_t)((deadline_ns - now_ns - 1) / 1000000 + 1);
}

int64_t serry_timeouts_extend(serry_timeouts *timeouts, uint64_t operation_id, int additional_ms)
{
    pthread_mutex_lock(&timeouts->lock);
    slot *found = find(&timeouts->table, operation_id);
    int64_t left = 0;
    if (found != NULL && found->token != NULL && serry_token_extend(found->token, additional_ms))
        left = left_ms(found->token);
    pthread_mutex_unlock(&timeouts->lock);
    return left;
}

int64_t serry_timeouts_remaining(serry_timeouts *timeouts, uint64_t operation_id)
{
    pthread_mutex_lock(&timeouts->lock);
    slot *found = find(&timeouts->table, operation_id);
    int64_t left = found != NULL && found->token != NULL ? left_ms(found->token) : 0;
    pthread_mutex_unlock(&timeouts->lock);
    return left;
}
