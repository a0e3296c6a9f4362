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

static uint64_t checksum(const void *data, size_t bytes)
{
    const unsigned char *at = data;
    uint64_t sum = bytes, word = 0;

    for (; bytes >= sizeof(word); at += sizeof(word), bytes -= sizeof(word)) {
        memcpy(&word, at, sizeof(word));
        sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        sum ^= sum >> 32;
    }
    for (; bytes > 0; at++, bytes--)
        sum = (sum ^ *at) * UINT64_C(0x9e3779b97f4a7c15);
    return sum;
}

static bool overlap(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    uintptr_t x = (uintptr_t)a, y = (uintptr_t)b;

    return a_bytes != 0 && b_bytes != 0 && x < y + b_bytes && y < x + a_bytes;
}

/* May they run at the same time? Both may read the same. */
static bool fit(const guard *g, const guard *other)
{
    return !overlap(g->recv, g->recv_bytes, other->send, other->send_bytes) &&
           !overlap(g->recv, g->recv_bytes, other->recv, other->recv_bytes) &&
           !overlap(g->send, g->send_bytes, other->recv, other->recv_bytes);
}

static int refuse(const guard *g, const guard *other, serry_error *error)
{
    serry_error_begin(error, g->operation, 0, g->rank);
    return serry_fail(error, SERRY_ERR_INVALID,
                      "%s: a buffer of rank %d (send %zu bytes at %p, recv %zu at %p) overlaps one "
                      "that the library still has: of a running %s of rank %d (send %zu bytes at "
                      "%p, recv %zu at %p); wait for that request first, or use another buffer",
                      g->operation, g->rank, g->send_bytes, g->send, g->recv_bytes, g->recv,
                      other->operation, other->rank, other->send_bytes, other->send,
                      other->recv_bytes, other->recv);
}

int guard_start(guard *g, const char *operation, int rank, const void *send, size_t send_bytes,
                const void *recv, size_t recv_bytes, serry_error *error)
{
    int rc = SERRY_OK;

    *g = (guard){NULL, operation, rank, send, recv, send_bytes, recv_bytes, false, 0};
    g->is_compared = send_bytes != 0 && !overlap(send, send_bytes, recv, recv_bytes);
    if (g->is_compared)
        g->checksum = checksum(send, send_bytes);
    pthread_mutex_lock(&running.lock);
    for (const guard *other = running.first; other != NULL && rc == SERRY_OK; other = other->next)
        if (!fit(g, other))
            rc = refuse(g, other, error);
    if (rc == SERRY_OK) {
        g->next = running.first;
        running.first = g;
    } else {
        g->operation = NULL;
    }
    pthread_mutex_unlock(&running.lock);
    return rc;
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

int guard_end(guard *g, int rc, serry_error *error)
{
    const char *operation = g->operation;

    if (operation == NULL)
        return rc;
    leave(g);
    g->operation = NULL;
    if (rc != SERRY_OK || !g->is_compared || checksum(g->send, g->send_bytes) == g->checksum)
        return rc;
    serry_error_begin(error, operation, 0, g->rank);
    return serry_fail(error, SERRY_ERR_INVALID,
                      "%s: the send buffer of rank %d (%zu bytes at %p) was changed while the "
                      "operation was under way, so nobody knows what was sent; leave it as it is "
                      "until the request has ended. Other ranks may have ended it well",
                      operation, g->rank, g->send_bytes, g->send);
}

void guard_forget(void)
{
    pthread_mutex_init(&running.lock, NULL);
    running.first = NULL;
}

#endif
