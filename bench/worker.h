/* worker.h - a program that times one library and stays up, asleep, between its slices.
 *
 * Rank 0 says what it has in one line, "has OPERATION...", and then answers each line
 *
 *     OPERATION BYTES SECONDS FULL      time one slice of so many seconds; FULL 1: check all elements
 *
 * with one of its own:
 *
 *     ok CALLS MIN MEDIAN P99 BACK_TO_BACK WRONG      times in microseconds
 *     no WHY                                          nothing was done
 *
 * until there are no more. Meanwhile the other ranks sleep on a futex of the benchmark's own. */
#ifndef BENCH_WORKER_H
#define BENCH_WORKER_H

#include <argp.h>

#include "cells.h"

/* What the command line says. Start from zeros. */
typedef struct bench_options {
    const char *socket; /* where the lines come from and go to; NULL: stdin and stdout */
    unsigned long send_kib, recv_kib; /* room for vectors; 0: 1 MiB */
} bench_options;

/* The options --socket, --send and --recv; a parser whose input is a bench_options, alone or as the
 * child of another. */
extern const struct argp bench_argp;

size_t bench_send_bytes(const bench_options *options);
size_t bench_recv_bytes(const bench_options *options);

/* The count of ranks in the value of --OPTION; argp_error() where it is none. */
int bench_count_of_ranks(const char *option, const char *value, const struct argp_state *state);

/* Page-aligned private memory, touched, so that no page fault is timed. NULL after saying why. */
float *bench_private(size_t bytes);

/* Bind the calling thread, one of `ranks` alike, to a core of its own as long as there are enough. */
void bench_bind_thread(int rank, int ranks);

/* Serve until the lines end. Called by all ranks; the buffers are as large as the options say. 0, or
 * -1: a rank has given up, or there was nobody to talk to. */
int bench_work(bench *b, const bench_library *library, const bench_options *options, float *send,
               float *recv);

/* The same on private memory. */
int bench_work_private(bench *b, const bench_library *library, const bench_options *options);

#endif
