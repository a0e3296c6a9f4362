/* sleep.h - asleep on several words at once: what the interests of several polls add up to. */
#ifndef SERRY_SLEEP_H
#define SERRY_SLEEP_H

#include <stdatomic.h>

#include <serry/backend.h>

#define SLEEP_WORDS 127u /* FUTEX_WAITV takes one more */

typedef struct sleep_list {
    uint32_t *word[SLEEP_WORDS];
    uint32_t value[SLEEP_WORDS];
    unsigned words;
    uint64_t at_ns; /* CLOCK_MONOTONIC: wake then, at the latest */
} sleep_list;

static inline void sleep_begin(sleep_list *list, uint64_t at_ns)
{
    list->words = 0;
    list->at_ns = at_ns;
}

/* Wake when *word is not `value` any more. Where there are too many, the sleep is a short one. */
void sleep_add(sleep_list *list, uint32_t *word, uint32_t value);

/* Wake soon: for what cannot be watched just now. */
void sleep_soon(sleep_list *list);

void sleep_add_interest(sleep_list *list, const serry_interest *interest);

/* Returns at a change and a wake, at the time, at a signal, or for no reason. */
void sleep_on(const sleep_list *list);

/* Wake all who sleep on a word that has changed. */
void sleep_wake(_Atomic uint32_t *word);

#endif
