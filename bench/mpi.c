/* mpi.c - times an MPI library; it is built with the compiler of each.
 *
 *   mpirun -np 2 bench_openmpi [OPTION...]
 *
 * MPI's default error handler ends all ranks and says why, so calls that return have succeeded. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker.h"

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

int main(int argc, char **argv)
{
    bench_options options = {0};
    int rank, ranks;
    bench b;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    argp_parse(&bench_argp, argc, argv, 0, NULL, &options);
    if (bench_join(&b, rank, ranks, share, NULL) != 0)
        MPI_Abort(MPI_COMM_WORLD, 1);
    float *send = bench_private(bench_send_bytes(&options));
    float *recv = bench_private(bench_recv_bytes(&options));
    if (bench_work(&b, &k_library, &options, send, recv) != 0)
        MPI_Abort(MPI_COMM_WORLD, 1);
    free(send);
    free(recv);
    bench_end(&b);
    MPI_Finalize();
    return 0;
}
