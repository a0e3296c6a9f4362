/* conformance.h - the parts of the conformance test; see conformance.c. */
#ifndef TEST_CONFORMANCE_H
#define TEST_CONFORMANCE_H

#include "cases.h"

#define KIB 1024u
#define MIB (1024u * KIB)

/* What the ranks of a run share beside the harness. Zero at first. */
typedef struct shared {
    _Atomic long arrivals;               /* of the barrier test */
    uint64_t hash[SERRY_MAX_RANKS];      /* of the large ones: each rank's */
    _Alignas(64) unsigned char memory[]; /* of datasets */
} shared;

/* reference_user, made before the ranks start: its value is the same in all. */
extern serry_op g_user;

/* Bodies; the argument is the shared memory. */

/* 500 calls drawn from the seed, now and then with a late rank. */
void body_sequence(test_rank *self);

/* Calls drawn likewise, started and finished apart: 1, 2 and 64 requests under way at once, mixed with
 * synchronous calls. */
void body_started(test_rank *self);

/* From several threads of each rank, each with a communicator of its own: synchronous calls, calls started and
 * finished apart, and messages, drawn from the seed. */
void body_mixed(test_rank *self);

/* Calls on communicators from split and dup, in turn with those on their parents. */
void body_parts(test_rank *self);

/* Many communicators one after the other: their memory comes back. */
void body_many_parts(test_rank *self);

/* Two threads of each rank at once, on a communicator each. */
void body_two_at_once(test_rank *self);

/* Private buffers of 256 MiB: with two ranks apart, else in place. */
void body_large(test_rank *self);

#endif
