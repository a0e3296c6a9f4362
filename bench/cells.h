/* cells.h - the cells that are timed alike for every library: barrier, allreduce, broadcast, reduce,
 * allgather and reduce_scatter of f32, summed where there is something to sum, root 0.
 *
 * The size of a cell is that of the vector which each rank passes in: the whole vector, or for
 * allgather the rank's own block. */
#ifndef BENCH_CELLS_H
#define BENCH_CELLS_H

#include <argp.h>

#include "common.h"

#define BENCH_SIZES_MAX 16

typedef enum bench_operation {
    BENCH_BARRIER,
    BENCH_ALLREDUCE,
    BENCH_ALLREDUCE_IN_PLACE,
    BENCH_BROADCAST,
    BENCH_REDUCE,
    BENCH_ALLGATHER,
    BENCH_REDUCE_SCATTER,
    BENCH_OPERATIONS
} bench_operation;

/* Makes one call and returns 0, or -1 after saying what was wrong. `count` is in elements, as MPI
 * counts: for reduce_scatter what each rank receives. What has only one buffer has it in `send`. */
typedef int bench_function(void *self, float *send, float *recv, size_t count);

/* One rank's way into a library. An operation that is NULL is left out. */
typedef struct bench_library {
    bench_function *run[BENCH_OPERATIONS];
    void *self;
} bench_library;

/* What the command line asks for. Start from BENCH_OPTIONS_INIT. */
typedef struct bench_options {
    const char *name;       /* of the library, as printed */
    const char *operations; /* names with commas; NULL: all */
    size_t sizes[BENCH_SIZES_MAX];
    int size_count;
    double seconds; /* for each cell */
} bench_options;

#define BENCH_OPTIONS_INIT(library_name)                                                           \
    {                                                                                              \
        .name = (library_name),                                                                    \
        .sizes = {8, 1 << 10, 1 << 14, 1 << 18, 1 << 20, 1 << 24, 1 << 26}, .size_count = 7,       \
        .seconds = 0.1                                                                             \
    }

/* The options --name, --ops, --sizes and --seconds; a parser whose input is a bench_options, alone or
 * as the child of another. */
extern const struct argp bench_argp;

/* Bytes that bench_cells() needs at send, and at recv. */
size_t bench_send_bytes(const bench_options *options);
size_t bench_recv_bytes(const bench_options *options, int ranks);

/* Time all cells that are asked for and that the library has. 0; -1: a rank has given up. */
int bench_cells(bench *b, const bench_library *library, const bench_options *options, float *send,
                float *recv);

#endif
