/* driven.h - runs a body on ranks whose requests are driven by the caller, or by the progress thread. */
#ifndef TEST_DRIVEN_H
#define TEST_DRIVEN_H

#include "harness.h"

/* A run on thread ranks, then one on process ranks; they have joined, and finalize after the body. */
void run_driven(serry_progress progress, int size, test_body body);

/* In a body: who drives. */
serry_progress driven_by(const test_rank *self);

/* The tests of a program that cancels something, `body` under each progress; what main() returns. */
int run_cancelled(int size, test_body body);

#endif
