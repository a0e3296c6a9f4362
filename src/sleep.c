/* sleep.c - see sleep.h. Words may be shared with other processes, and may be gone by the time that the
 * kernel looks at them (their communicator was finalized): then it says so, and nobody sleeps. */
#include "sleep.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "token.h"

#define NS_PER_S UINT64_C(1000000000)
#define SOON_NS UINT64_C(200000)
#define SHORT_NS UINT64_C(1000000) /* where not all words can be watched */

static void not_after(sleep_list *list, uint64_t at_ns)
{
    if (at_ns < list->at_ns)
        list->at_ns = at_ns;
}

void sleep_soon(sleep_list *list)
{
    not_after(list, serry_token_now_ns() + SOON_NS);
}

void sleep_add(sleep_list *list, uint32_t *word, uint32_t value)
{
    if (list->words == SLEEP_WORDS) {
        not_after(list, serry_token_now_ns() + SHORT_NS);
        return;
    }
    list->word[list->words] = word;
    list->value[list->words++] = value;
}

void sleep_add_interest(sleep_list *list, const serry_interest *interest)
{
    if (interest->word != NULL)
        sleep_add(list, interest->word, interest->value);
    if (interest->at_ns != 0)
        not_after(list, interest->at_ns);
}

/* One word, or a kernel without FUTEX_WAITV: then not for long, as the others go unseen. */
static void sleep_on_first(const sleep_list *list, uint64_t at_ns)
{
    struct timespec at = {(time_t)(at_ns / NS_PER_S), (long)(at_ns % NS_PER_S)};

    if (list->words == 0)
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
    else
        syscall(SYS_futex, list->word[0], FUTEX_WAIT_BITSET, list->value[0], &at, NULL,
                FUTEX_BITSET_MATCH_ANY);
}

void sleep_on(const sleep_list *list)
{
    static atomic_bool without; /* the kernel has no FUTEX_WAITV */
    struct futex_waitv watched[SLEEP_WORDS];
    uint64_t at_ns = list->at_ns, most = (uint64_t)INT64_MAX;

    at_ns = at_ns < most ? at_ns : most;
    if (list->words > 1 && !atomic_load_explicit(&without, memory_order_relaxed)) {
        struct timespec at = {(time_t)(at_ns / NS_PER_S), (long)(at_ns % NS_PER_S)};
        for (unsigned i = 0; i < list->words; i++)
            watched[i] = (struct futex_waitv){
                .val = list->value[i], .uaddr = (uintptr_t)list->word[i], .flags = FUTEX_32};
        if (syscall(SYS_futex_waitv, watched, list->words, 0, &at, CLOCK_MONOTONIC) >= 0 ||
            errno != ENOSYS)
            return;
        atomic_store_explicit(&without, true, memory_order_relaxed);
    }
    if (list->words > 1) {
        uint64_t soon = serry_token_now_ns() + SHORT_NS;
        at_ns = at_ns < soon ? at_ns : soon;
    }
    sleep_on_first(list, at_ns);
}

void sleep_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}
