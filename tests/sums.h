/* sums.h - what the tests of requests start: sums over the ranks' numbers, from 1. */
#ifndef TEST_SUMS_H
#define TEST_SUMS_H

#include "harness.h"

int64_t sum_of_ranks(const test_rank *self);

/* Start it, from *in to *out, which is -1 until then. */
serry_request *start_sum(test_rank *self, int64_t *in, int64_t *out);

/* A run on `least` to 4 ranks of each kind. */
void sums_on_all(int least, test_body body);

#endif
