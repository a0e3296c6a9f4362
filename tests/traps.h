/* traps.h - a reduction that does something to a rank in the middle of an operation, at a known place. */
#ifndef TEST_TRAPS_H
#define TEST_TRAPS_H

#include "harness.h"

typedef struct trap {
    test_rank *self;
    int calls,
        deadly; /* made; and at which it is sprung, before that combines anything. 0: never */
    void (*spring)(test_rank *self); /* the rank dies, sleeps, ... */
} trap;

/* For serry_op_create, with a trap: the sum of int64_t. */
void trapped_sum(void *accumulator, const void *next, size_t count, serry_dtype dtype,
                 void *argument);

#endif
