/* cells.h - the operations that are timed alike for every library: what goes in and what must come out.
 *
 * f32 unless the name says otherwise, summed where there is something to sum, root 0. The size of a
 * cell is that of the vector which each rank passes in: the whole vector, or for allgather the rank's
 * own block. */
#ifndef BENCH_CELLS_H
#define BENCH_CELLS_H

#include "common.h"

typedef enum bench_operation {
    BENCH_BARRIER,
    BENCH_ALLREDUCE,
    BENCH_ALLREDUCE_IN_PLACE,
    BENCH_BROADCAST,
    BENCH_REDUCE,
    BENCH_ALLGATHER,
    BENCH_REDUCE_SCATTER,
    BENCH_ALLREDUCE_F16,  /* of half floats */
    BENCH_ALLREDUCE_BF16, /* of brain floats */
    BENCH_IALLREDUCE,     /* started, and waited for at once */
    BENCH_SEND_RECV,      /* rank 0 to rank 1 and back */
    BENCH_ISEND_IRECV,    /* the same, started and waited for */
    BENCH_COMPUTE,        /* a computation alone */
    BENCH_OVERLAP,        /* the same while an allreduce that was started before is on its way */
    BENCH_ROUND_TRIP,     /* a cache line to the other core and back */
    BENCH_COPY,           /* what this core has just written, by all ranks at once */
    BENCH_CROSS_COPY,     /* what the other core has just written, by both at once */
    BENCH_OPERATIONS
} bench_operation;

/* Makes one call and returns 0, or -1 after saying what was wrong. `count` is in elements, as MPI
 * counts: for reduce_scatter what each rank receives. What has only one buffer has it in `send`. */
typedef int bench_function(void *self, float *send, float *recv, size_t count);

/* One rank's way into a library. It has no operation that is NULL. */
typedef struct bench_library {
    bench_function *run[BENCH_OPERATIONS];
    void *self;
} bench_library;

/* The row of a library whose functions are PREFIX_operation; reduce_scatter, which not all have, apart. */
#define BENCH_ROW(prefix)                                                                          \
    [BENCH_BARRIER] = prefix##_barrier, [BENCH_ALLREDUCE] = prefix##_allreduce,                    \
    [BENCH_ALLREDUCE_IN_PLACE] = prefix##_allreduce_in_place,                                      \
    [BENCH_BROADCAST] = prefix##_broadcast, [BENCH_REDUCE] = prefix##_reduce,                      \
    [BENCH_ALLGATHER] = prefix##_allgather

const char *bench_operation_name(bench_operation operation);

/* BENCH_OPERATIONS: there is none of that name. */
bench_operation bench_operation_named(const char *name);

/* Can such a cell be timed: the library has the operation, and the size has elements that can be
 * divided among the ranks? */
bool bench_is_possible(const bench_library *library, bench_operation operation, size_t bytes,
                       int ranks);

/* Time one slice, as bench_measure() does. */
int bench_slice(bench *b, const bench_library *library, const bench_order *order, float *send,
                float *recv, bench_result *result);

#endif
