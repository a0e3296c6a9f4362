/* guard.c - see guard.h. */
#include "guard.h"

#ifndef NDEBUG
#include <pthread.h>
#include <string.h>

#include "record.h"

/* What runs in this process. */
static struct {
    pthread_mutex_t lock;
    guard *first;
} running = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- what a request has ------------------------------------------------------------------------ */

/* One piece of memory. */
typedef struct range {
    const void *at;
    size_t bytes;
    bool is_written; /* by the library */
} range;

static size_t ranges_of(const guard *g)
{
    return g->list.number != 0 ? g->list.number : 2;
}

static range range_of(const guard *g, size_t i)
{
    const serry_buffer *buffer = g->list.buffers + i;

    if (g->list.number != 0)
        return (range){buffer->data, buffer->count * g->list.element, g->list.gets};
    return i == 0 ? (range){g->send, g->send_bytes, false} : (range){g->recv, g->recv_bytes, true};
}

static bool overlap(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    uintptr_t x = (uintptr_t)a, y = (uintptr_t)b;

    return a_bytes != 0 && b_bytes != 0 && x < y + b_bytes && y < x + a_bytes;
}

/* May they be in use at the same time? Both may be read. */
static bool fit(range a, range b)
{
    return (!a.is_written && !b.is_written) || !overlap(a.at, a.bytes, b.at, b.bytes);
}

static uint64_t add_to(uint64_t sum, const void *data, size_t bytes)
{
    const unsigned char *at = data;
    uint64_t word = 0;

    for (sum ^= bytes; bytes >= sizeof(word); at += sizeof(word), bytes -= sizeof(word)) {
        memcpy(&word, at, sizeof(word));
        sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        sum ^= sum >> 32;
    }
    for (; bytes > 0; at++, bytes--)
        sum = (sum ^ *at) * UINT64_C(0x9e3779b97f4a7c15);
    return sum;
}

static uint64_t checksum(const guard *g)
{
    uint64_t sum = 0;

    if (g->list.number == 0)
        return add_to(sum, g->send, g->send_bytes);
    for (size_t i = 0; i < g->list.number; i++) {
        range r = range_of(g, i);
        sum = add_to(sum, r.at, r.bytes);
    }
    return sum;
}

/* ---- starting ---------------------------------------------------------------------------------- */

static int refuse(const guard *g, range mine, const guard *other, range theirs, serry_error *error)
{
    serry_error_begin(error, g->operation, 0, g->rank);
    return serry_fail(error, SERRY_ERR_INVALID,
                      "%s: a buffer of rank %d (%zu bytes at %p, to be %s) overlaps one that the "
                      "library still has: of a running %s of rank %d (%zu bytes at %p, being %s); "
                      "wait for that request first, or use another buffer",
                      g->operation, g->rank, mine.bytes, mine.at,
                      mine.is_written ? "written" : "read", other->operation, other->rank,
                      theirs.bytes, theirs.at, theirs.is_written ? "written" : "read");
}

static int compare(const guard *g, const guard *other, serry_error *error)
{
    for (size_t i = 0; i < ranges_of(g); i++)
        for (size_t k = 0; k < ranges_of(other); k++) {
            range mine = range_of(g, i), theirs = range_of(other, k);
            if (!fit(mine, theirs))
                return refuse(g, mine, other, theirs, error);
        }
    return SERRY_OK;
}

/* All but the checksum is filled in. */
static int begin(guard *g, serry_error *error)
{
    int rc = SERRY_OK;

    if (g->is_compared)
        g->checksum = checksum(g);
    pthread_mutex_lock(&running.lock);
    for (const guard *other = running.first; other != NULL && rc == SERRY_OK; other = other->next)
        rc = compare(g, other, error);
    if (rc == SERRY_OK) {
        g->next = running.first;
        running.first = g;
    } else {
        g->operation = NULL;
    }
    pthread_mutex_unlock(&running.lock);
    return rc;
}

int guard_start(guard *g, const char *operation, int rank, const void *send, size_t send_bytes,
                const void *recv, size_t recv_bytes, serry_error *error)
{
    *g = (guard){.operation = operation,
                 .rank = rank,
                 .send = send,
                 .recv = recv,
                 .send_bytes = send_bytes,
                 .recv_bytes = recv_bytes};
    g->is_compared = send_bytes != 0 && !overlap(send, send_bytes, recv, recv_bytes);
    return begin(g, error);
}

int guard_start_list(guard *g, const char *operation, int rank, const guard_list *list,
                     serry_error *error)
{
    *g = (guard){.operation = operation,
                 .rank = rank,
                 .list = *list,
                 .is_compared = list->gives && list->number != 0};
    return begin(g, error);
}

int guard_start_call(guard *g, const serry_call *call, int rank, int size, serry_error *error)
{
    enum { BLOCKS_0, BLOCKS_1, BLOCKS_N };
    static const unsigned char k_blocks[SERRY_KINDS][2] = {
#define SERRY_X(name, text, root, reduction, send, recv)                                           \
    [SERRY_KIND_##name] = {BLOCKS_##send, BLOCKS_##recv},
        SERRY_KIND_MAP(SERRY_X)
#undef SERRY_X
    };
    const size_t block = call->count * serry_dtype_size(call->dtype);
    const size_t bytes[] = {0, block, (size_t)size * block};

    return guard_start(g, serry_kind_name(call->kind), rank, call->send,
                       call->send == NULL ? 0 : bytes[k_blocks[call->kind][0]], call->recv,
                       call->recv == NULL ? 0 : bytes[k_blocks[call->kind][1]], error);
}

/* ---- ending ------------------------------------------------------------------------------------ */

static void leave(const guard *g)
{
    guard **place = &running.first;

    pthread_mutex_lock(&running.lock);
    while (*place != NULL && *place != g)
        place = &(*place)->next;
    if (*place != NULL)
        *place = g->next;
    pthread_mutex_unlock(&running.lock);
}

static int tell_changed(const guard *g, const char *operation, serry_error *error)
{
    serry_error_begin(error, operation, 0, g->rank);
    if (g->list.number != 0)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "%s: a buffer of the list of rank %d (%zu buffers) was changed while the "
                          "operation was under way; what it held at the start was sent, and no "
                          "result was put there; leave it as it is until the request has ended. "
                          "Other ranks may have ended it well",
                          operation, g->rank, g->list.number);
    return serry_fail(error, SERRY_ERR_INVALID,
                      "%s: the send buffer of rank %d (%zu bytes at %p) was changed while the "
                      "operation was under way, so nobody knows what was sent; leave it as it is "
                      "until the request has ended. Other ranks may have ended it well",
                      operation, g->rank, g->send_bytes, g->send);
}

int guard_end(guard *g, int rc, serry_error *error)
{
    const char *operation = g->operation;

    if (operation == NULL)
        return rc;
    leave(g);
    g->operation = NULL;
    if (rc != SERRY_OK || !g->is_compared || checksum(g) == g->checksum)
        return rc;
    return tell_changed(g, operation, error);
}

void guard_forget(void)
{
    pthread_mutex_init(&running.lock, NULL);
    running.first = NULL;
}

#endif
