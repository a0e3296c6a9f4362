/* wait.c - see wait.h. The figures behind the numbers are in docs/protocol.md.
 *
 * A sleeper sets the asleep bit of the word it waits for and sleeps on the word's lower half; the
 * publication (or the seal) that changes the word reports the bit, and the writer then wakes. The
 * kernel compares before it sleeps, so nothing is missed: either the word has changed, or its
 * writer sees the bit. A nap is bounded all the same: a rank that is killed wakes nobody. */
#include "wait.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <serry/error.h>

#include "layout.h"
#include "word.h"

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)
#define NOT_READ_NS 1            /* the clock: a deadline that is fixed when somebody looks again */
#define NAP_NS (100 * NS_PER_MS) /* a look around this often while asleep */
#define NAP_WATCHED_NS (20 * NS_PER_MS) /* others may set the bit again that a cancellation took */

enum {
    PAUSES_PER_LOOK = 100,
    PAUSES_ALONE = 1000, /* about 10 us, the price of a sleep and a wake on one core */
    YIELDS_ALONE = 16,
    YIELDS_CROWDED = 100 /* a yield to a rank that has work to do beats any sleep */
};

wait_plan wait_plan_for(int ranks, int cores)
{
    wait_plan alone = {PAUSES_ALONE, YIELDS_ALONE}, crowded = {0, YIELDS_CROWDED};

    return ranks <= cores ? alone : crowded;
}

uint64_t wait_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

int wait_expired(wait_limit *limit)
{
    if (limit->given->timeout_ms < 0)
        limit->deadline_ns = UINT64_MAX;
    if (limit->deadline_ns == UINT64_MAX)
        return 0;
    uint64_t now = wait_now_ns();
    if (limit->deadline_ns <= NOT_READ_NS)
        limit->deadline_ns = now + (uint64_t)limit->given->timeout_ms * NS_PER_MS;
    return now >= limit->deadline_ns;
}

void wait_ask(wait_limit *limit)
{
    if (limit->token == NULL && limit->given->token != NULL)
        limit->token = limit->given->token(limit->given->argument);
}

void wait_rouse(_Atomic uint64_t *word)
{
    if (atomic_fetch_and_explicit(word, ~WORD_ASLEEP, memory_order_seq_cst) & WORD_ASLEEP)
        wait_wake(word);
}

static uint64_t nap_end(const wait_limit *limit)
{
    uint64_t until = wait_now_ns() + (limit->token != NULL ? NAP_WATCHED_NS : NAP_NS);

    if (limit->deadline_ns < until)
        until = limit->deadline_ns;
    if (limit->token != NULL && serry_token_deadline(limit->token) < until)
        until = serry_token_deadline(limit->token);
    return until;
}

/* Returns at a wake, a signal, a change of the word, the deadline, or the end of the nap: in every
 * case the caller looks again. */
static void sleep_while(_Atomic uint64_t *word, uint64_t seen, const wait_limit *limit)
{
    uint64_t until = nap_end(limit);
    struct timespec at = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
    syscall(SYS_futex, word, FUTEX_WAIT_BITSET, (uint32_t)seen, &at, NULL, FUTEX_BITSET_MATCH_ANY);
}

void wait_wake(_Atomic uint64_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static int called(const wait_target *t)
{
    uint32_t call = atomic_load_explicit(t->call, memory_order_relaxed);

    if (__builtin_expect(call < t->least, 1))
        return SERRY_OK;
    return call == GROUP_CALL_MEETING ? SERRY_ERR_MEETING : SERRY_ERR_REVOKED;
}

/* The order in which reasons to end are looked at: success, exclusion, revocation or a meeting,
 * cancellation, deadline. */
static int look(const wait_target *t, wait_limit *limit, int *code)
{
    if (word_decided(atomic_load_explicit(t->word, memory_order_acquire), t->step))
        *code = SERRY_OK;
    else if (atomic_load_explicit(t->own, memory_order_relaxed) & WORD_SEALED)
        *code = SERRY_ERR_EXCLUDED;
    else if ((*code = called(t)) != SERRY_OK)
        return 1;
    else if (limit->token != NULL && (*code = (int)serry_token_state(limit->token)) != SERRY_OK)
        return 1;
    else if (wait_expired(limit))
        *code = SERRY_ERR_TIMEOUT;
    else
        return 0;
    return 1;
}

/* Set the asleep bit, look once more, sleep. A call that comes after the look, or a cancellation,
 * takes the bit away, and the kernel does not let this rank sleep at a word that has changed. */
static int sleep_once(const wait_target *t, wait_limit *limit, int *code)
{
    uint64_t seen = atomic_fetch_or_explicit(t->word, WORD_ASLEEP, memory_order_seq_cst);

    if (look(t, limit, code)) {
        if (called(t) != SERRY_OK)
            wait_rouse(t->word); /* the caller has been here already, and others may sleep */
        return 1;
    }
    sleep_while(t->word, seen | WORD_ASLEEP, limit);
    return look(t, limit, code);
}

static int sleep_until(const wait_target *t, wait_limit *limit)
{
    int code;

    while (!sleep_once(t, limit, &code))
        ;
    return code;
}

/* Run by the thread that cancels the token. */
static void rouse(void *word)
{
    wait_rouse(word);
}

/* A watch would be too dear for each look; asleep it is what makes a cancellation felt at once. */
static int sleep_watched(const wait_target *t, wait_limit *limit)
{
    serry_watch watch;
    serry_token_status status = serry_token_watch(limit->token, &watch, rouse, t->word);
    int code = sleep_until(t, limit); /* tripped already: the first look says so */

    if (status == SERRY_TOKEN_RUNNING)
        serry_token_unwatch(limit->token, &watch);
    return code;
}

/* The first poll of a call reads no clock: most calls are polled by who has just started them. */
static bool is_early(const wait_target *t, wait_limit *limit)
{
    const serry_interest *interest = limit->given->poll;
    bool early = limit->deadline_ns == 0 && !interest->sleep && called(t) == SERRY_OK &&
                 !word_decided(atomic_load_explicit(t->word, memory_order_acquire), t->step) &&
                 !(atomic_load_explicit(t->own, memory_order_relaxed) & WORD_SEALED);

    if (early)
        limit->deadline_ns = NOT_READ_NS;
    return early;
}

/* As often as the caller lets it, before anything else is looked at. Is it decided? */
static bool look_ahead(const wait_target *t, const wait_plan *plan, serry_interest *interest)
{
    uint32_t looks = interest->looks < plan->pauses ? interest->looks : plan->pauses;

    for (interest->looked = 0; interest->looked < looks; interest->looked++) {
        if (word_decided(atomic_load_explicit(t->word, memory_order_acquire), t->step))
            return true;
        wait_relax();
    }
    return false;
}

/* As one look of a wait. Who is about to sleep has set the asleep bit before that look. */
static int poll_once(const wait_target *t, const wait_plan *plan, wait_limit *limit)
{
    serry_interest *interest = limit->given->poll;
    uint64_t seen = 0;
    int code;

    if (look_ahead(t, plan, interest))
        return SERRY_OK;
    if (!is_early(t, limit)) {
        wait_ask(limit);
        if (interest->sleep)
            seen = atomic_fetch_or_explicit(t->word, WORD_ASLEEP, memory_order_seq_cst);
        if (look(t, limit, &code)) {
            if (interest->sleep && called(t) != SERRY_OK)
                wait_rouse(t->word);
            return code;
        }
    }
    *interest = (serry_interest){.sleep = interest->sleep,
                                 .word = (uint32_t *)(void *)t->word,
                                 .value = (uint32_t)(seen | WORD_ASLEEP),
                                 .at_ns = interest->sleep ? nap_end(limit) : 0,
                                 .pauses = plan->pauses,
                                 .yields = plan->yields,
                                 .looked = interest->looked};
    limit->polled = true;
    return SERRY_ERR_AGAIN;
}

int wait_decided(const wait_target *t, const wait_plan *plan, wait_limit *limit)
{
    int code;

    if (limit->given->poll != NULL)
        return poll_once(t, plan, limit);
    for (uint32_t i = 1; i <= plan->pauses; i++) {
        if (word_decided(atomic_load_explicit(t->word, memory_order_acquire), t->step))
            return SERRY_OK;
        if (i % PAUSES_PER_LOOK == 0 && look(t, limit, &code))
            return code;
        wait_relax();
    }
    for (uint32_t i = 0; i < plan->yields; i++) {
        if (look(t, limit, &code))
            return code;
        sched_yield();
    }
    wait_ask(limit);
    return limit->token != NULL ? sleep_watched(t, limit) : sleep_until(t, limit);
}
