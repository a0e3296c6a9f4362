/* mpi.c - times an MPI library; it is built with the compiler of each.
 *
 *   mpirun -np 2 bench_openmpi [OPTION...]
 *
 * MPI's default error handler ends all ranks and says why, so calls that return have succeeded. */
#include <mpi.h>

#include "worker.h"

static int mpi_barrier(void *self, float *send, float *recv, size_t count)
{
    (void)self, (void)send, (void)recv, (void)count;
    return MPI_Barrier(MPI_COMM_WORLD);
}

static int mpi_allreduce(void *self, float *send, float *recv, size_t count)
{
    (void)self;
    return MPI_Allreduce(send, recv, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

static int mpi_allreduce_in_place(void *self, float *both, float *unused, size_t count)
{
    (void)self, (void)unused;
    return MPI_Allreduce(MPI_IN_PLACE, both, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

static int mpi_broadcast(void *self, float *buffer, float *unused, size_t count)
{
    (void)self, (void)unused;
    return MPI_Bcast(buffer, (int)count, MPI_FLOAT, 0, MPI_COMM_WORLD);
}

static int mpi_reduce(void *self, float *send, float *recv, size_t count)
{
    (void)self;
    return MPI_Reduce(send, recv, (int)count, MPI_FLOAT, MPI_SUM, 0, MPI_COMM_WORLD);
}

static int mpi_allgather(void *self, float *send, float *recv, size_t count)
{
    (void)self;
    return MPI_Allgather(send, (int)count, MPI_FLOAT, recv, (int)count, MPI_FLOAT, MPI_COMM_WORLD);
}

static int mpi_reduce_scatter(void *self, float *send, float *recv, size_t count)
{
    (void)self;
    return MPI_Reduce_scatter_block(send, recv, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

static const bench_library k_library = {.run = {
                                            BENCH_ROW(mpi),
                                            [BENCH_REDUCE_SCATTER] = mpi_reduce_scatter,
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
    if (bench_work_private(&b, &k_library, &options) != 0)
        MPI_Abort(MPI_COMM_WORLD, 1);
    bench_end(&b);
    MPI_Finalize();
    return 0;
}
