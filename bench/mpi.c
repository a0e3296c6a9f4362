/* mpi.c - the cells of an MPI library; bench/run.sh builds it with the compiler of each.
 *
 *   mpirun -np 2 PROGRAM --name NAME [OPTION...]
 *
 * MPI's default error handler ends all ranks and says why, so calls that return have succeeded. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cells.h"

static int barrier(void *self, float *send, float *recv, size_t count)
{
    (void)self, (void)send, (void)recv, (void)count;
    return MPI_Barrier(MPI_COMM_WORLD);
}

static int allreduce(void *self, float *send, float *recv, size_t count)
{
    (void)self;
    return MPI_Allreduce(send, recv, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

static int allreduce_in_place(void *self, float *both, float *unused, size_t count)
{
    (void)self, (void)unused;
    return MPI_Allreduce(MPI_IN_PLACE, both, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

static int broadcast(void *self, float *buffer, float *unused, size_t count)
{
    (void)self, (void)unused;
    return MPI_Bcast(buffer, (int)count, MPI_FLOAT, 0, MPI_COMM_WORLD);
}

static int reduce(void *self, float *send, float *recv, size_t count)
{
    (void)self;
    return MPI_Reduce(send, recv, (int)count, MPI_FLOAT, MPI_SUM, 0, MPI_COMM_WORLD);
}

static int allgather(void *self, float *send, float *recv, size_t count)
{
    (void)self;
    return MPI_Allgather(send, (int)count, MPI_FLOAT, recv, (int)count, MPI_FLOAT, MPI_COMM_WORLD);
}

static int reduce_scatter(void *self, float *send, float *recv, size_t count)
{
    (void)self;
    return MPI_Reduce_scatter_block(send, recv, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

static const bench_library k_library = {.run = {
                                            [BENCH_BARRIER] = barrier,
                                            [BENCH_ALLREDUCE] = allreduce,
                                            [BENCH_ALLREDUCE_IN_PLACE] = allreduce_in_place,
                                            [BENCH_BROADCAST] = broadcast,
                                            [BENCH_REDUCE] = reduce,
                                            [BENCH_ALLGATHER] = allgather,
                                            [BENCH_REDUCE_SCATTER] = reduce_scatter,
                                        }};

static int share(void *self, void *data, size_t bytes)
{
    (void)self;
    return MPI_Bcast(data, (int)bytes, MPI_BYTE, 0, MPI_COMM_WORLD);
}

/* Touched, so that no page fault is timed. */
static float *make_buffer(size_t bytes)
{
    void *memory = NULL;

    if (posix_memalign(&memory, 4096, bytes) != 0) {
        fprintf(stderr, "bench: no memory for %zu bytes; give smaller --sizes\n", bytes);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    return memset(memory, 0, bytes);
}

int main(int argc, char **argv)
{
    bench_options options = BENCH_OPTIONS_INIT("mpi");
    int rank, ranks, failed;
    bench b;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    argp_parse(&bench_argp, argc, argv, 0, NULL, &options);
    if (bench_join(&b, rank, ranks, share, NULL) != 0)
        MPI_Abort(MPI_COMM_WORLD, 1);
    float *send = make_buffer(bench_send_bytes(&options));
    float *recv = make_buffer(bench_recv_bytes(&options, ranks));
    failed = bench_cells(&b, &k_library, &options, send, recv);
    free(send);
    free(recv);
    bench_end(&b);
    MPI_Finalize();
    return failed != 0;
}
