/* claim.h - the job's heap as one process finds it: its descriptor, its slice, and whose the others
 * are.
 *
 * Slice 0 of the memfd is an array of claims. A process that is killed while it claims leaves a number
 * that nobody has, and no memory. One that ends without having joined the job (a shell that starts the
 * program, say) leaves memory that nobody will read: the next that claims gives it back. Once it has
 * joined, that is for the arena to decide: see shm/heap.h. */
#ifndef HEAP_CLAIM_H
#define HEAP_CLAIM_H

#include <stdbool.h>

#include "heap_view.h"

enum claim_state { CLAIM_NONE = 0, CLAIM_HELD, CLAIM_GIVEN_BACK };

/* One line each: the owner writes it once, but for state. Zero, as the memfd is at first, is right. */
typedef struct claim {
    _Alignas(
        64) _Atomic uint32_t state; /* enum claim_state: HELD by the owner, release, when the rest
                                            stands; GIVEN_BACK by any process, once the owner is gone */
    _Atomic uint32_t joined;        /* by the owner, before it tells the others; seq_cst */
    uint32_t pid;                   /* plain, published by state, as all below */
    uint64_t pid_namespace;         /* in which pid means something */
    uint64_t start_ticks;           /* with pid, tells the process from a later one */
} claim;

typedef struct claims {
    _Alignas(
        64) _Atomic uint32_t next; /* how many slices have been claimed; each process adds one */
    claim claim[HEAP_SLICES];      /* of slice number 1 on */
} claims;

/* Does SERRY_HEAP name a heap, and is its descriptor here? */
bool claim_find_heap(void);

/* Claim a slice and map it: *view is complete then. False: there is none to be had. */
bool claim_slice(serry_heap_view *view);

/* Is fd still the heap's? */
bool claim_is_heap(int fd, uint64_t inode, uint64_t slice_bytes);

#endif
