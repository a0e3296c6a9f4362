/* message.c - serry_send, serry_recv and their kin: arguments to a request. */
#include <serry/serry.h>

#include "comm.h"
#include "flight.h"
#include "record.h"

/* ---- arguments --------------------------------------------------------------------------------- */

typedef struct arguments {
    const char *name;
    request_kind what;
    const void *buffer;
    size_t count;
    serry_dtype dtype;
    int peer, tag;
} arguments;

static bool is_buffer(const arguments *a, size_t element)
{
    uintptr_t start = (uintptr_t)a->buffer;
    size_t bytes = a->count * element;

    return bytes == 0 || (start != 0 && start % element == 0 && start <= UINTPTR_MAX - bytes);
}

static int check_buffer(const arguments *a, serry_error *error)
{
    size_t element = serry_dtype_size(a->dtype);

    if (a->what == REQUEST_PROBE)
        return SERRY_OK;
    if (element == 0)
        return serry_fail(error, SERRY_ERR_INVALID, "%s: there is no element type %d", a->name,
                          (int)a->dtype);
    if (a->count > SERRY_MAX_COUNT)
        return serry_fail(error, SERRY_ERR_INVALID, "%s: %zu elements; the most are %llu", a->name,
                          a->count, (unsigned long long)SERRY_MAX_COUNT);
    if (!is_buffer(a, element))
        return serry_fail(error, SERRY_ERR_INVALID,
                          "%s: %p cannot be a buffer of %zu elements of type %s", a->name,
                          a->buffer, a->count, serry_dtype_name(a->dtype));
    return SERRY_OK;
}

static int check(serry_comm *comm, const arguments *a)
{
    bool sends = a->what == REQUEST_SEND;
    int rc = serry_comm_check(comm, a->name);

    if (rc != SERRY_OK)
        return rc;
    serry_error_begin(&comm->error, a->name, 0, comm->rank);
    if (a->peer >= comm->size || a->peer < (sends ? 0 : SERRY_ANY_SOURCE))
        return serry_fail(&comm->error, SERRY_ERR_INVALID,
                          "%s: there is no rank %d; ranks are 0 to %d%s", a->name, a->peer,
                          comm->size - 1, sends ? "" : ", or SERRY_ANY_SOURCE");
    if (a->tag < (sends ? 0 : SERRY_ANY_TAG))
        return serry_fail(&comm->error, SERRY_ERR_INVALID, "%s: %d is no tag; tags are 0 or more%s",
                          a->name, a->tag, sends ? "" : ", or SERRY_ANY_TAG");
    return check_buffer(a, &comm->error);
}

/* ---- requests ---------------------------------------------------------------------------------- */

static void fill(serry_request *r, const arguments *a, void *recv, serry_status *status)
{
    r->message = (request_message){.peer = a->peer,
                                   .tag = a->tag,
                                   .dtype = a->dtype,
                                   .bytes = a->count * serry_dtype_size(a->dtype),
                                   .send = a->buffer,
                                   .recv = recv,
                                   .status = status};
}

static int do_it(serry_comm *comm, const arguments *a, void *recv, serry_status *status)
{
    serry_request r;
    flight *f;
    int rc = flight_of(comm, false, &f);

    if (rc != SERRY_OK)
        return rc;
    request_init(&r, f, a->what);
    fill(&r, a, recv, status);
    return flight_do(f, &r);
}

static int start(serry_comm *comm, const arguments *a, void *recv, serry_status *status,
                 serry_request **request)
{
    int rc;
    flight *f;

    if (request != NULL)
        *request = NULL;
    rc = check(comm, a);
    if (rc == SERRY_OK && request == NULL)
        rc = serry_fail(&comm->error, SERRY_ERR_INVALID, "%s: no place to put the request (NULL)",
                        a->name);
    if (rc == SERRY_OK)
        rc = flight_of(comm, true, &f);
    if (rc != SERRY_OK)
        return rc;
    serry_request *r = request_new(f, NULL, a->what, a->name);
    if (r == NULL)
        return comm->error.error;
    fill(r, a, recv, status);
    rc = guard_start(&r->guard, a->name, comm->rank, recv == NULL ? a->buffer : NULL,
                     recv == NULL ? r->message.bytes : 0, recv, recv == NULL ? 0 : r->message.bytes,
                     &comm->error);
    if (rc != SERRY_OK) {
        request_dispose(r);
        return rc;
    }
    flight_start(f, r);
    progress_ring(false);
    *request = r;
    return SERRY_OK;
}

/* ---- the functions ----------------------------------------------------------------------------- */

static arguments sending(const char *name, const void *buffer, size_t count, serry_dtype dtype,
                         int dest, int tag)
{
    return (arguments){name, REQUEST_SEND, buffer, count, dtype, dest, tag};
}

static arguments receiving(const char *name, const void *buffer, size_t count, serry_dtype dtype,
                           int source, int tag)
{
    return (arguments){name, REQUEST_RECEIVE, buffer, count, dtype, source, tag};
}

int serry_send(const void *buffer, size_t count, serry_dtype dtype, int dest, int tag,
               serry_comm *comm)
{
    arguments a = sending("send", buffer, count, dtype, dest, tag);
    int rc = check(comm, &a);

    return rc == SERRY_OK ? do_it(comm, &a, NULL, NULL) : rc;
}

int serry_isend(const void *buffer, size_t count, serry_dtype dtype, int dest, int tag,
                serry_comm *comm, serry_request **request)
{
    arguments a = sending("isend", buffer, count, dtype, dest, tag);

    return start(comm, &a, NULL, NULL, request);
}

int serry_recv(void *buffer, size_t count, serry_dtype dtype, int source, int tag,
               serry_status *status, serry_comm *comm)
{
    arguments a = receiving("recv", buffer, count, dtype, source, tag);
    int rc = check(comm, &a);

    return rc == SERRY_OK ? do_it(comm, &a, buffer, status) : rc;
}

int serry_irecv(void *buffer, size_t count, serry_dtype dtype, int source, int tag,
                serry_status *status, serry_comm *comm, serry_request **request)
{
    arguments a = receiving("irecv", buffer, count, dtype, source, tag);

    return start(comm, &a, buffer, status, request);
}

static const arguments probing = {.name = "probe", .what = REQUEST_PROBE, .dtype = SERRY_U8};

int serry_probe(int source, int tag, serry_status *status, serry_comm *comm)
{
    arguments a = probing;
    a.peer = source;
    a.tag = tag;
    int rc = check(comm, &a);

    return rc == SERRY_OK ? do_it(comm, &a, NULL, status) : rc;
}

int serry_iprobe(int source, int tag, int *found, serry_status *status, serry_comm *comm)
{
    arguments a = probing;
    serry_request r;
    flight *f;
    a.peer = source;
    a.tag = tag;
    int rc = check(comm, &a);

    if (rc == SERRY_OK && found == NULL)
        rc = serry_fail(&comm->error, SERRY_ERR_INVALID, "iprobe: no place for the answer (NULL)");
    if (rc == SERRY_OK)
        rc = flight_of(comm, false, &f);
    if (rc != SERRY_OK)
        return rc;
    request_init(&r, f, REQUEST_PROBE);
    fill(&r, &a, NULL, status);
    *found = flight_ask(f, &r);
    return *found ? request_finish(&r, &comm->error) : SERRY_OK;
}
