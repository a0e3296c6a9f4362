/* collective.c - from the arguments of each function to one call. */
#include <serry/serry.h>

#include "comm.h"
#include "record.h"

/* Somebody has called a meeting: go there, then repeat the call. */
static __attribute__((cold, noinline)) int run_again(serry_comm *comm, const serry_call *call)
{
    int rc;

    do {
        rc = serry_comm_meet(comm);
        if (rc == SERRY_OK)
            rc = comm->backend->run(comm->member, call, &comm->limit, &comm->error);
    } while (rc == SERRY_ERR_MEETING);
    return rc;
}

static int run(serry_comm *comm, const serry_call *call)
{
    int rc = serry_comm_check(comm, serry_kind_name(call->kind));

    if (rc == SERRY_OK)
        rc = serry_call_check(call, comm->rank, comm->size, &comm->error);
    if (__builtin_expect(rc != SERRY_OK, 0))
        return rc;
    rc = comm->backend->run(comm->member, call, &comm->limit, &comm->error);
    return __builtin_expect(rc == SERRY_ERR_MEETING, 0) ? run_again(comm, call) : rc;
}

static bool is_root(const serry_comm *comm, int root)
{
    return comm != NULL && comm->rank == root;
}

/* This rank's block in a buffer of one block for each rank. NULL stays NULL; a count that is too
 * large is refused later, so it may give anything here. */
static void *own_block(const serry_comm *comm, const void *buffer, size_t count, serry_dtype dtype)
{
    uintptr_t start = (uintptr_t)buffer;

    if (start != 0 && comm != NULL)
        start += (uintptr_t)comm->rank * count * serry_dtype_size(dtype);
    return (void *)start; // NOLINT(performance-no-int-to-ptr)
}

int serry_barrier(serry_comm *comm)
{
    serry_call call = {.kind = SERRY_KIND_BARRIER, .dtype = SERRY_U8};

    return run(comm, &call);
}

int serry_broadcast(void *buffer, size_t count, serry_dtype dtype, int root, serry_comm *comm)
{
    serry_call call = {.kind = SERRY_KIND_BROADCAST,
                       .dtype = dtype,
                       .root = root,
                       .count = count,
                       .send = is_root(comm, root) ? buffer : NULL,
                       .recv = is_root(comm, root) ? NULL : buffer};

    return run(comm, &call);
}

int serry_reduce(const void *send, void *recv, size_t count, serry_dtype dtype, serry_op op,
                 int root, serry_comm *comm)
{
    bool in_place = send == SERRY_IN_PLACE && is_root(comm, root);
    serry_call call = {.kind = SERRY_KIND_REDUCE,
                       .dtype = dtype,
                       .op = op,
                       .root = root,
                       .count = count,
                       .send = in_place ? recv : send,
                       .recv = is_root(comm, root) ? recv : NULL};

    return run(comm, &call);
}

int serry_allreduce(const void *send, void *recv, size_t count, serry_dtype dtype, serry_op op,
                    serry_comm *comm)
{
    serry_call call = {.kind = SERRY_KIND_ALLREDUCE,
                       .dtype = dtype,
                       .op = op,
                       .count = count,
                       .send = send == SERRY_IN_PLACE ? recv : send,
                       .recv = recv};

    return run(comm, &call);
}

int serry_allgather(const void *send, void *recv, size_t count, serry_dtype dtype, serry_comm *comm)
{
    serry_call call = {.kind = SERRY_KIND_ALLGATHER,
                       .dtype = dtype,
                       .count = count,
                       .send = send == SERRY_IN_PLACE ? own_block(comm, recv, count, dtype) : send,
                       .recv = recv};

    return run(comm, &call);
}

int serry_reduce_scatter(const void *send, void *recv, size_t count, serry_dtype dtype, serry_op op,
                         serry_comm *comm)
{
    serry_call call = {.kind = SERRY_KIND_REDUCE_SCATTER,
                       .dtype = dtype,
                       .op = op,
                       .count = count,
                       .send = send == SERRY_IN_PLACE ? recv : send,
                       .recv = recv};

    return run(comm, &call);
}

int serry_gather(const void *send, void *recv, size_t count, serry_dtype dtype, int root,
                 serry_comm *comm)
{
    bool in_place = send == SERRY_IN_PLACE && is_root(comm, root);
    serry_call call = {.kind = SERRY_KIND_GATHER,
                       .dtype = dtype,
                       .root = root,
                       .count = count,
                       .send = in_place ? own_block(comm, recv, count, dtype) : send,
                       .recv = is_root(comm, root) ? recv : NULL};

    return run(comm, &call);
}

int serry_scatter(const void *send, void *recv, size_t count, serry_dtype dtype, int root,
                  serry_comm *comm)
{
    bool in_place = recv == SERRY_IN_PLACE && is_root(comm, root);
    serry_call call = {.kind = SERRY_KIND_SCATTER,
                       .dtype = dtype,
                       .root = root,
                       .count = count,
                       .send = is_root(comm, root) ? send : NULL,
                       .recv = in_place ? own_block(comm, send, count, dtype) : recv};

    return run(comm, &call);
}

int serry_alltoall(const void *send, void *recv, size_t count, serry_dtype dtype, serry_comm *comm)
{
    serry_call call = {.kind = SERRY_KIND_ALLTOALL,
                       .dtype = dtype,
                       .count = count,
                       .send = send == SERRY_IN_PLACE ? recv : send,
                       .recv = recv};

    return run(comm, &call);
}
