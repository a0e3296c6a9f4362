/* word.h - the publication word: one sticky word per rank and communicator, moved and sealed by one
 * atomic read-modify-write each. Everything that must be uniform among ranks follows from these
 * words (docs/protocol.md; model: uniform.pml).
 *
 *   63                                   2        1        0
 *   +------------------------------------+--------+--------+
 *   | step: the last step that the rank  | some   | sealed |
 *   |       has contributed to           | asleep |        |
 *   +------------------------------------+--------+--------+
 *
 * - step moves from s-1 to s, by the owning rank alone, and only while the word is not sealed.
 * - sealed is set by anybody who has evidence, by fetch-or, and is never cleared.
 * - asleep is set by a rank before it sleeps on the word, and cleared by the step that wakes it, or
 *   by a revocation. A sleeper that dies leaves it set: one needless system call, nothing else.
 *
 * So step s is decided for a rank as soon as its word has reached s (the rank takes part) or is
 * sealed below s (it does not), and nothing can change that afterwards. 62 bits do not wrap. */
#ifndef SHM_WORD_H
#define SHM_WORD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define WORD_SEALED UINT64_C(1)
#define WORD_ASLEEP UINT64_C(2)
#define WORD_SHIFT 2

static inline uint64_t word_step(uint64_t word)
{
    return word >> WORD_SHIFT;
}

static inline bool word_reached(uint64_t word, uint64_t step)
{
    return word_step(word) >= step;
}

static inline bool word_decided(uint64_t word, uint64_t step)
{
    return word_reached(word, step) || (word & WORD_SEALED) != 0;
}

typedef enum word_result { WORD_PUBLISHED, WORD_PUBLISHED_WAKE, WORD_IS_SEALED } word_result;

/* Ahead of word_publish: the line, of which others have copies, is fetched for writing while the call is
 * still looked at. The compiler's builtin would fetch it for reading, as the oldest processors can no
 * more. */
static inline void word_prepare(const _Atomic uint64_t *word)
{
#if defined(__x86_64__)
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)word));
#else
    __builtin_prefetch((const void *)word, 1);
#endif
}

/* The owner contributes to `step`, having contributed to step - 1. Release: all that it wrote before
 * is there for whoever sees the step. Acquire: nothing it does later is seen before. */
static inline word_result word_publish(_Atomic uint64_t *word, uint64_t step)
{
    uint64_t seen = (step - 1) << WORD_SHIFT;

    while (!atomic_compare_exchange_weak_explicit(word, &seen, step << WORD_SHIFT,
                                                  memory_order_acq_rel, memory_order_relaxed)) {
        if (seen & WORD_SEALED)
            return WORD_IS_SEALED;
    }
    return seen & WORD_ASLEEP ? WORD_PUBLISHED_WAKE : WORD_PUBLISHED;
}

/* Anybody freezes the word; returns what it was. Acquire: who finds it sealed afterwards knows the
 * last step's data. In one order with writes.h. */
static inline uint64_t word_seal(_Atomic uint64_t *word)
{
    return atomic_fetch_or_explicit(word, WORD_SEALED, memory_order_seq_cst);
}

/* The thread sanitizer does not know fences. This one orders reads that only a sealed sleeper can lose,
 * whose result is dropped. */
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan"
#endif

/* The second look: was this rank's own word sealed while it read what the others wrote? The fence
 * keeps those reads before the look. */
static inline bool word_second_look(const _Atomic uint64_t *word)
{
    atomic_thread_fence(memory_order_acquire);
    return (atomic_load_explicit(word, memory_order_relaxed) & WORD_SEALED) == 0;
}

#endif
