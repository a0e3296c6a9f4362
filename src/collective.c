/* collective.c - from the arguments of each function to one call. */
#include <serry/serry.h>

#include "comm.h"
#include "flight.h"
#include "many.h"
#include "record.h"
#include "signature.h"

#define URGENT_BYTES ((size_t)64 << 10) /* worth a wake-up of the progress thread at once */

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

/* Operations that were started go first. */
static __attribute__((cold, noinline)) int run_in_order(serry_comm *comm, const serry_call *call,
                                                        many *list)
{
    serry_request r;

    request_init(&r, comm->flight, REQUEST_CALL);
    r.call = *call;
    r.list = list;
    return flight_do(comm->flight, &r);
}

static inline int run_checked(serry_comm *comm, const serry_call *call)
{
    if (__builtin_expect(comm->flight != NULL, 0) && !flight_is_idle(comm->flight))
        return run_in_order(comm, call, NULL);
    int rc = comm->backend->run(comm->member, call, &comm->limit, &comm->error);
    return __builtin_expect(rc == SERRY_ERR_MEETING, 0) ? run_again(comm, call) : rc;
}

static int run(serry_comm *comm, const serry_call *call)
{
    if (!serry_comm_is_usable(comm))
        return serry_comm_check(comm, serry_kind_name(call->kind));
    int rc = serry_call_check(call, comm->rank, comm->size, &comm->error);
    return __builtin_expect(rc == SERRY_OK, 1) ? run_checked(comm, call) : rc;
}

int serry_comm_run(serry_comm *comm, const serry_call *call, many *list)
{
    if (comm->flight != NULL && !flight_is_idle(comm->flight))
        return run_in_order(comm, call, list);
    int rc = run(comm, call);
    serry_comm_hold(comm);
    many_end(comm, list, true, rc, &comm->error);
    serry_comm_release(comm);
    return rc;
}

static size_t bytes_of(const serry_call *call)
{
    return call->count * signature_element(call->dtype);
}

/* May the call be started? *request is NULL then. */
static int check_start(serry_comm *comm, const serry_call *call, serry_request **request)
{
    if (request != NULL)
        *request = NULL;
    if (!serry_comm_is_usable(comm))
        return serry_comm_check(comm, serry_kind_name(call->kind));
    int rc = serry_call_check(call, comm->rank, comm->size, &comm->error);
    if (__builtin_expect(rc == SERRY_OK && request == NULL, 0))
        rc = serry_error_make(&comm->error, SERRY_ERR_INVALID, serry_kind_name(call->kind), 0,
                              comm->rank, "%s: no place to put the request (NULL)",
                              serry_kind_name(call->kind));
    return rc;
}

/* Fill the request in; it is gone where that is an error. */
static int prepare(serry_comm *comm, const serry_call *call, many *list, serry_request *r)
{
    r->call = *call;
    r->list = list;
    int rc = list == NULL ? guard_start_call(&r->guard, call, comm->rank, comm->size, &comm->error)
                          : many_guard(list, &r->guard, comm->rank, &comm->error);
    if (rc != SERRY_OK)
        request_dispose(r);
    return rc;
}

int serry_comm_start(serry_comm *comm, const serry_call *call, many *list, serry_request **request)
{
    flight *f;
    int rc = check_start(comm, call, request);

    if (rc == SERRY_OK)
        rc = flight_of(comm, true, &f);
    if (rc != SERRY_OK)
        return rc;
    bool turn = flight_try(f);
    serry_request *r =
        request_new(f, turn ? request_take(f) : NULL, REQUEST_CALL, serry_kind_name(call->kind));
    rc = r == NULL ? comm->error.error : prepare(comm, call, list, r);
    if (rc != SERRY_OK) {
        if (turn)
            flight_leave(f);
        return rc;
    }
    bool urgent = bytes_of(call) >= URGENT_BYTES; /* the call may be a list's, which goes with it */
    flight_begin(f, r, turn);
    progress_ring(urgent);
    *request = r;
    return SERRY_OK;
}

static int start(serry_comm *comm, const serry_call *call, serry_request **request)
{
    return serry_comm_start(comm, call, NULL, request);
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

static const serry_call k_barrier = {.kind = SERRY_KIND_BARRIER, .dtype = SERRY_U8};

int serry_barrier(serry_comm *comm)
{
    if (!serry_comm_is_usable(comm))
        return serry_comm_check(comm, serry_kind_name(SERRY_KIND_BARRIER));
    return run_checked(comm, &k_barrier); /* nothing can be wrong with it */
}

int serry_ibarrier(serry_comm *comm, serry_request **request)
{
    return start(comm, &k_barrier, request);
}

static serry_call broadcast_call(void *buffer, size_t count, serry_dtype dtype, int root,
                                 const serry_comm *comm)
{
    return (serry_call){.kind = SERRY_KIND_BROADCAST,
                        .dtype = dtype,
                        .root = root,
                        .count = count,
                        .send = is_root(comm, root) ? buffer : NULL,
                        .recv = is_root(comm, root) ? NULL : buffer};
}

int serry_broadcast(void *buffer, size_t count, serry_dtype dtype, int root, serry_comm *comm)
{
    serry_call call = broadcast_call(buffer, count, dtype, root, comm);

    return run(comm, &call);
}

int serry_ibroadcast(void *buffer, size_t count, serry_dtype dtype, int root, serry_comm *comm,
                     serry_request **request)
{
    serry_call call = broadcast_call(buffer, count, dtype, root, comm);

    return start(comm, &call, request);
}

static serry_call reduce_call(const void *send, void *recv, size_t count, serry_dtype dtype,
                              serry_op op, int root, const serry_comm *comm)
{
    bool in_place = send == SERRY_IN_PLACE && is_root(comm, root);
    return (serry_call){.kind = SERRY_KIND_REDUCE,
                        .dtype = dtype,
                        .op = op,
                        .root = root,
                        .count = count,
                        .send = in_place ? recv : send,
                        .recv = is_root(comm, root) ? recv : NULL};
}

int serry_reduce(const void *send, void *recv, size_t count, serry_dtype dtype, serry_op op,
                 int root, serry_comm *comm)
{
    serry_call call = reduce_call(send, recv, count, dtype, op, root, comm);

    return run(comm, &call);
}

int serry_ireduce(const void *send, void *recv, size_t count, serry_dtype dtype, serry_op op,
                  int root, serry_comm *comm, serry_request **request)
{
    serry_call call = reduce_call(send, recv, count, dtype, op, root, comm);

    return start(comm, &call, request);
}

static serry_call allreduce_call(const void *send, void *recv, size_t count, serry_dtype dtype,
                                 serry_op op)
{
    return (serry_call){.kind = SERRY_KIND_ALLREDUCE,
                        .dtype = dtype,
                        .op = op,
                        .count = count,
                        .send = send == SERRY_IN_PLACE ? recv : send,
                        .recv = recv};
}

int serry_allreduce(const void *send, void *recv, size_t count, serry_dtype dtype, serry_op op,
                    serry_comm *comm)
{
    serry_call call = allreduce_call(send, recv, count, dtype, op);

    return run(comm, &call);
}

int serry_iallreduce(const void *send, void *recv, size_t count, serry_dtype dtype, serry_op op,
                     serry_comm *comm, serry_request **request)
{
    serry_call call = allreduce_call(send, recv, count, dtype, op);

    return start(comm, &call, request);
}

static serry_call allgather_call(const void *send, void *recv, size_t count, serry_dtype dtype,
                                 const serry_comm *comm)
{
    return (serry_call){.kind = SERRY_KIND_ALLGATHER,
                        .dtype = dtype,
                        .count = count,
                        .send = send == SERRY_IN_PLACE ? own_block(comm, recv, count, dtype) : send,
                        .recv = recv};
}

int serry_allgather(const void *send, void *recv, size_t count, serry_dtype dtype, serry_comm *comm)
{
    serry_call call = allgather_call(send, recv, count, dtype, comm);

    return run(comm, &call);
}

int serry_iallgather(const void *send, void *recv, size_t count, serry_dtype dtype,
                     serry_comm *comm, serry_request **request)
{
    serry_call call = allgather_call(send, recv, count, dtype, comm);

    return start(comm, &call, request);
}

static serry_call reduce_scatter_call(const void *send, void *recv, size_t count, serry_dtype dtype,
                                      serry_op op)
{
    return (serry_call){.kind = SERRY_KIND_REDUCE_SCATTER,
                        .dtype = dtype,
                        .op = op,
                        .count = count,
                        .send = send == SERRY_IN_PLACE ? recv : send,
                        .recv = recv};
}

int serry_reduce_scatter(const void *send, void *recv, size_t count, serry_dtype dtype, serry_op op,
                         serry_comm *comm)
{
    serry_call call = reduce_scatter_call(send, recv, count, dtype, op);

    return run(comm, &call);
}

int serry_ireduce_scatter(const void *send, void *recv, size_t count, serry_dtype dtype,
                          serry_op op, serry_comm *comm, serry_request **request)
{
    serry_call call = reduce_scatter_call(send, recv, count, dtype, op);

    return start(comm, &call, request);
}

static serry_call gather_call(const void *send, void *recv, size_t count, serry_dtype dtype,
                              int root, const serry_comm *comm)
{
    bool in_place = send == SERRY_IN_PLACE && is_root(comm, root);
    return (serry_call){.kind = SERRY_KIND_GATHER,
                        .dtype = dtype,
                        .root = root,
                        .count = count,
                        .send = in_place ? own_block(comm, recv, count, dtype) : send,
                        .recv = is_root(comm, root) ? recv : NULL};
}

int serry_gather(const void *send, void *recv, size_t count, serry_dtype dtype, int root,
                 serry_comm *comm)
{
    serry_call call = gather_call(send, recv, count, dtype, root, comm);

    return run(comm, &call);
}

int serry_igather(const void *send, void *recv, size_t count, serry_dtype dtype, int root,
                  serry_comm *comm, serry_request **request)
{
    serry_call call = gather_call(send, recv, count, dtype, root, comm);

    return start(comm, &call, request);
}

static serry_call scatter_call(const void *send, void *recv, size_t count, serry_dtype dtype,
                               int root, const serry_comm *comm)
{
    bool in_place = recv == SERRY_IN_PLACE && is_root(comm, root);
    return (serry_call){.kind = SERRY_KIND_SCATTER,
                        .dtype = dtype,
                        .root = root,
                        .count = count,
                        .send = is_root(comm, root) ? send : NULL,
                        .recv = in_place ? own_block(comm, send, count, dtype) : recv};
}

int serry_scatter(const void *send, void *recv, size_t count, serry_dtype dtype, int root,
                  serry_comm *comm)
{
    serry_call call = scatter_call(send, recv, count, dtype, root, comm);

    return run(comm, &call);
}

int serry_iscatter(const void *send, void *recv, size_t count, serry_dtype dtype, int root,
                   serry_comm *comm, serry_request **request)
{
    serry_call call = scatter_call(send, recv, count, dtype, root, comm);

    return start(comm, &call, request);
}

static serry_call alltoall_call(const void *send, void *recv, size_t count, serry_dtype dtype)
{
    return (serry_call){.kind = SERRY_KIND_ALLTOALL,
                        .dtype = dtype,
                        .count = count,
                        .send = send == SERRY_IN_PLACE ? recv : send,
                        .recv = recv};
}

int serry_alltoall(const void *send, void *recv, size_t count, serry_dtype dtype, serry_comm *comm)
{
    serry_call call = alltoall_call(send, recv, count, dtype);

    return run(comm, &call);
}

int serry_ialltoall(const void *send, void *recv, size_t count, serry_dtype dtype, serry_comm *comm,
                    serry_request **request)
{
    serry_call call = alltoall_call(send, recv, count, dtype);

    return start(comm, &call, request);
}
