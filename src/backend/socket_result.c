/* socket_result.c - what a rank gives to an operation, and gets from it; see socket.h. */
#include <string.h>

#include "flow.h"
#include "record.h"
#include "reduce/reduce.h"
#include "socket.h"

bool result_gives(const serry_call *call, int rank)
{
    return call->kind != SERRY_KIND_BARRIER &&
           (!serry_flows[call->kind].from_root || call->root == rank);
}

bool result_gets(const serry_call *call, int rank)
{
    bool root = call->root == rank;

    if (call->kind == SERRY_KIND_BARRIER || call->count == 0)
        return false;
    return serry_flows[call->kind].to_root ? root : !(root && call->kind == SERRY_KIND_BROADCAST);
}

static size_t block_bytes(const serry_call *call)
{
    return call->count * serry_dtype_size(call->dtype);
}

size_t result_given_bytes(const socket_member *m, const serry_call *call)
{
    return (serry_flows[call->kind].send_n ? (size_t)m->size : 1) * block_bytes(call);
}

/* Those that take part, in the order of their ranks. */
static void combine(const socket_member *m, const stream *s, size_t skip, unsigned char *to)
{
    const void *vector[SERRY_MAX_RANKS];
    int n = 0;

    for (int r = 0; r < m->size; r++)
        if (serry_rank_set_has(&s->decision.ranks, r))
            vector[n++] = s->peer[r].report.body->data + skip;
    serry_reduce_vectors(to, vector, n, s->call.count, s->call.dtype, s->call.op);
}

body *result_make(const socket_member *m, const stream *s, int to)
{
    const flow way = serry_flows[s->call.kind];
    size_t bytes = block_bytes(&s->call), skip = way.send_n ? (size_t)to * bytes : 0;
    body *b = body_new((way.recv_n ? (size_t)m->size : 1) * bytes);

    if (b == NULL)
        return NULL;
    if (way.combine) {
        combine(m, s, skip, b->data);
        return b;
    }
    for (int r = 0; r < m->size; r++) {
        unsigned char *block = b->data + (way.recv_n ? (size_t)r * bytes : 0);
        if (!serry_rank_set_has(&s->decision.ranks, r)) {
            if (way.recv_n)
                memset(block, 0, bytes); /* it is not handed out */
        } else if (!way.from_root || r == s->call.root) {
            memcpy(block, s->peer[r].report.body->data + skip, bytes);
        }
    }
    return b;
}

/* The blocks of absent ranks stay as they are. */
void result_hand_out(const socket_member *m, const stream *s)
{
    size_t bytes = block_bytes(&s->call);
    unsigned char *recv = s->call.recv;

    if (!result_gets(&s->call, m->rank))
        return;
    if (!serry_flows[s->call.kind].recv_n) {
        memcpy(recv, s->result->data, bytes);
        return;
    }
    for (size_t r = 0; r < (size_t)m->size; r++)
        if (serry_rank_set_has(&s->decision.ranks, (int)r))
            memcpy(recv + r * bytes, s->result->data + r * bytes, bytes);
}
