/* many.c - lists of buffers as one operation: packed into one, which is reduced or broadcast, and unpacked
 * when it has ended well. So all of them are done or none is, and the caller's buffers are untouched until
 * then, on errors of any kind.
 *
 * The lengths are compared as part of the call (serry_call.list). Large packs lie in the arena, where
 * others read them in place; one is kept for the next list.
 *
 * An operation that is left open by a timeout needs its pack: it stays with the communicator until the
 * same call is made again. Nobody packs again then, for others may be reading. One that was ended before
 * its turn had come needs none: it is packed again. Nobody here knows what a backend really keeps open
 * (one may tell of a timeout without having begun), so as many are kept as were left. */
#include "many.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flight.h"
#include "record.h"

#define ARENA_BYTES ((size_t)64 << 10) /* from here on a pack is worth an extent of the arena */

struct many {
    struct many *next; /* of those that are left open; by who has the flight's turn */
    const char *name;
    serry_call call;
    size_t number;
    serry_buffer *buffers;
    pack pack;
    bool left; /* its operation has been left open: others may read the pack */
};

/* ---- memory: all with the flight's turn, where there is a flight -------------------------------- */

static bool pack_take(serry_comm *comm, size_t bytes, pack *p)
{
    serry_error ignored;

    if (comm->pack.bytes >= bytes && comm->pack.memory != NULL) {
        *p = comm->pack;
        comm->pack = (pack){0};
        return true;
    }
    *p = (pack){.bytes = bytes};
    if (bytes >= ARENA_BYTES) {
        p->memory = comm->backend->alloc(comm->member, bytes, &ignored);
        p->in_arena = p->memory != NULL;
    }
    if (p->memory == NULL)
        p->memory = malloc(bytes);
    return p->memory != NULL;
}

static void pack_drop(serry_comm *comm, pack *p)
{
    serry_error ignored;

    if (p->in_arena)
        comm->backend->free(comm->member, p->memory, &ignored);
    else
        free(p->memory);
    *p = (pack){0};
}

/* The larger one is kept. In the arena what operations have left open goes when the arena's owner sees
 * fit: others may read there. */
static void pack_give(serry_comm *comm, pack *p)
{
    if (comm->closed) {
        if (!p->in_arena)
            free(p->memory);
        return;
    }
    if (p->bytes <= comm->pack.bytes) {
        pack_drop(comm, p);
        return;
    }
    pack_drop(comm, &comm->pack);
    comm->pack = *p;
}

static void many_free(serry_comm *comm, many *m)
{
    pack_give(comm, &m->pack);
    free(m->buffers);
    free(m);
}

void many_close(serry_comm *comm)
{
    pack_drop(comm, &comm->pack);
    comm->closed = true;
}

void many_closed(serry_comm *comm, bool well)
{
    comm->closed = well;
    while (well && comm->open != NULL) {
        many *m = comm->open;
        comm->open = m->next;
        many_free(comm, m);
    }
}

/* ---- one list ----------------------------------------------------------------------------------- */

/* Of all lengths in their order. */
static uint64_t checksum(const serry_buffer *buffers, size_t number)
{
    uint64_t sum = UINT64_C(0x9e3779b97f4a7c15) + number;

    for (size_t i = 0; i < number; i++) {
        sum = (sum ^ buffers[i].count) * UINT64_C(0xff51afd7ed558ccd);
        sum ^= sum >> 29;
    }
    return sum >> (64 - SERRY_LIST_BITS);
}

static void copy(const many *m, bool in)
{
    unsigned char *at = m->pack.memory;
    size_t element = serry_dtype_size(m->call.dtype);

    for (size_t i = 0; i < m->number; i++) {
        size_t bytes = m->buffers[i].count * element;
        if (bytes != 0 && in)
            memcpy(at, m->buffers[i].data, bytes);
        else if (bytes != 0)
            memcpy(m->buffers[i].data, at, bytes);
        at += bytes;
    }
}

static bool is_same(const many *m, const serry_call *call, const serry_buffer *buffers,
                    size_t number)
{
    bool same = m->number == number && serry_call_signature(&m->call) == serry_call_signature(call);

    for (size_t i = 0; i < number && same; i++)
        same = m->buffers[i].data == buffers[i].data && m->buffers[i].count == buffers[i].count;
    return same;
}

/* The one that is open for this call, which is taken from the communicator; else NULL. */
static many *take_open(serry_comm *comm, const serry_call *call, const serry_buffer *buffers,
                       size_t number)
{
    for (many **at = &comm->open; *at != NULL; at = &(*at)->next) {
        many *m = *at;
        if (!is_same(m, call, buffers, number))
            continue;
        *at = m->next;
        return m;
    }
    return NULL;
}

/* The one that is open, or a new one. NULL: no memory. */
static many *find_or_make(serry_comm *comm, const char *name, serry_call *call,
                          const serry_buffer *buffers, size_t number)
{
    size_t bytes = call->count * serry_dtype_size(call->dtype);
    many *m = take_open(comm, call, buffers, number);

    if (m != NULL)
        return m;
    m = calloc(1, sizeof(*m));
    if (m == NULL)
        return NULL;
    m->buffers = malloc((number + 1) * sizeof(*buffers));
    if (m->buffers == NULL || !pack_take(comm, bytes + 1, &m->pack)) {
        free(m->buffers);
        free(m);
        return NULL;
    }
    if (number != 0)
        memcpy(m->buffers, buffers, number * sizeof(*buffers));
    m->name = name;
    m->number = number;
    bool gives = call->kind != SERRY_KIND_BROADCAST || call->root == comm->rank;
    bool gets = call->kind != SERRY_KIND_BROADCAST || call->root != comm->rank;
    call->send = gives ? m->pack.memory : NULL;
    call->recv = gets ? m->pack.memory : NULL;
    m->call = *call;
    if (gives)
        copy(m, true);
    return m;
}

/* A mismatch shows lists as one long buffer. */
static void explain(const many *m, serry_error *error)
{
    size_t length = strlen(error->message);

    if (m->number != 0 && length < sizeof(error->message))
        snprintf(error->message + length, sizeof(error->message) - length,
                 "; the count shown for a list of buffers is a checksum of theirs");
}

/* PENDING: it was to go on, and stood behind another one that was left open. */
static bool goes_on_later(int rc)
{
    return rc == SERRY_ERR_TIMEOUT || rc == SERRY_ERR_CANCELLED || rc == SERRY_ERR_PENDING;
}

/* An operation that is open keeps it. */
static void put_back(serry_comm *comm, many *m)
{
    if (comm->closed) {
        many_free(comm, m);
        return;
    }
    m->next = comm->open;
    comm->open = m;
}

void many_end(serry_comm *comm, many *m, bool begun, int rc, serry_error *error)
{
    if (rc == SERRY_OK && m->call.recv != NULL)
        copy(m, false);
    if (rc == SERRY_ERR_RANK_MISMATCH)
        explain(m, error);
    m->left |= begun && (rc == SERRY_ERR_TIMEOUT || rc == SERRY_ERR_CANCELLED);
    if (m->left && goes_on_later(rc))
        put_back(comm, m);
    else
        many_free(comm, m);
}

int many_guard(const many *m, guard *g, int rank, serry_error *error)
{
    const guard_list list = {.buffers = m->buffers,
                             .number = m->number,
                             .element = serry_dtype_size(m->call.dtype),
                             .gives = m->call.send != NULL,
                             .gets = m->call.recv != NULL};

    return guard_start_list(g, m->name, rank, &list, error);
}

/* ---- the calls ---------------------------------------------------------------------------------- */

static int check_list(serry_comm *comm, const char *name, const serry_buffer *buffers,
                      size_t number, serry_call *call)
{
    size_t element = serry_dtype_size(call->dtype);

    serry_error_begin(&comm->error, name, 0, comm->rank);
    if (number != 0 && buffers == NULL)
        return serry_fail(&comm->error, SERRY_ERR_INVALID, "%s: the list of %zu buffers is NULL",
                          name, number);
    for (size_t i = 0; i < number; i++) {
        uintptr_t at = (uintptr_t)buffers[i].data;
        if (buffers[i].count != 0 && (at == 0 || element == 0 || at % element != 0))
            return serry_fail(&comm->error, SERRY_ERR_INVALID,
                              "%s: buffer %zu of the list is %p, which is no place for %zu "
                              "elements of type %s",
                              name, i, buffers[i].data, buffers[i].count,
                              serry_dtype_name(call->dtype));
        if (buffers[i].count > SERRY_MAX_COUNT - call->count)
            return serry_fail(&comm->error, SERRY_ERR_INVALID,
                              "%s: the list has more than %llu elements in all", name,
                              (unsigned long long)SERRY_MAX_COUNT);
        call->count += buffers[i].count;
    }
    call->list = checksum(buffers, number);
    return SERRY_OK;
}

static int prepare(serry_comm *comm, const char *name, const serry_buffer *buffers, size_t number,
                   serry_call *call, many **made)
{
    int rc = serry_comm_check(comm, name);

    if (rc == SERRY_OK)
        rc = check_list(comm, name, buffers, number, call);
    if (rc != SERRY_OK)
        return rc;
    serry_call checked = *call; /* the rest: type, reduction, root */
    checked.count = 0;
    rc = serry_call_check(&checked, comm->rank, comm->size, &comm->error);
    if (rc != SERRY_OK)
        return rc;
    serry_comm_hold(comm);
    *made = find_or_make(comm, name, call, buffers, number);
    serry_comm_release(comm);
    if (*made == NULL)
        return serry_fail(&comm->error, SERRY_ERR_NO_SPACE,
                          "%s: out of memory to put %zu elements together", name, call->count);
    return SERRY_OK;
}

static int run(serry_comm *comm, const char *name, const serry_buffer *buffers, size_t number,
               serry_call *call)
{
    many *m;
    int rc = prepare(comm, name, buffers, number, call, &m);

    return rc != SERRY_OK ? rc : serry_comm_run(comm, &m->call, m);
}

static int start(serry_comm *comm, const char *name, const serry_buffer *buffers, size_t number,
                 serry_call *call, serry_request **request)
{
    many *m;
    int rc;

    if (request != NULL)
        *request = NULL;
    rc = prepare(comm, name, buffers, number, call, &m);
    if (rc != SERRY_OK)
        return rc;
    rc = serry_comm_start(comm, &m->call, m, request);
    if (rc != SERRY_OK) { /* nothing was started */
        serry_comm_hold(comm);
        if (m->left)
            put_back(comm, m);
        else
            many_free(comm, m);
        serry_comm_release(comm);
    }
    return rc;
}

static serry_call allreduce_call(serry_dtype dtype, serry_op op)
{
    return (serry_call){.kind = SERRY_KIND_ALLREDUCE, .dtype = dtype, .op = op};
}

static serry_call broadcast_call(serry_dtype dtype, int root)
{
    return (serry_call){.kind = SERRY_KIND_BROADCAST, .dtype = dtype, .root = root};
}

int serry_allreduce_many(const serry_buffer *buffers, size_t number, serry_dtype dtype, serry_op op,
                         serry_comm *comm)
{
    serry_call call = allreduce_call(dtype, op);

    return run(comm, "allreduce_many", buffers, number, &call);
}

int serry_iallreduce_many(const serry_buffer *buffers, size_t number, serry_dtype dtype,
                          serry_op op, serry_comm *comm, serry_request **request)
{
    serry_call call = allreduce_call(dtype, op);

    return start(comm, "allreduce_many", buffers, number, &call, request);
}

int serry_broadcast_many(const serry_buffer *buffers, size_t number, serry_dtype dtype, int root,
                         serry_comm *comm)
{
    serry_call call = broadcast_call(dtype, root);

    return run(comm, "broadcast_many", buffers, number, &call);
}

int serry_ibroadcast_many(const serry_buffer *buffers, size_t number, serry_dtype dtype, int root,
                          serry_comm *comm, serry_request **request)
{
    serry_call call = broadcast_call(dtype, root);

    return start(comm, "broadcast_many", buffers, number, &call, request);
}
