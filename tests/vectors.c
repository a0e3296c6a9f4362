/* vectors.c - see vectors.h. */
#include "vectors.h"

#include <stdlib.h>

uint64_t vectors_value(int rank, size_t i)
{
    return (uint64_t)rank * 1000003 + 7 * (uint64_t)i + 1;
}

uint64_t vectors_sum(int size, size_t i)
{
    uint64_t sum = 0;
    for (int r = 0; r < size; r++)
        sum += vectors_value(r, i);
    return sum;
}

/* Element j of what `rank` receives. */
static uint64_t wanted(const serry_call *c, int size, int rank, size_t j)
{
    size_t own = (size_t)rank * c->count, in_block = c->count > 0 ? j % c->count : 0;
    int block = c->count > 0 ? (int)(j / c->count) : 0;
    switch (c->kind) {
    case SERRY_KIND_REDUCE:
    case SERRY_KIND_ALLREDUCE:
        return vectors_sum(size, j);
    case SERRY_KIND_REDUCE_SCATTER:
        return vectors_sum(size, own + j);
    case SERRY_KIND_SCATTER:
        return vectors_value(c->root, own + j);
    case SERRY_KIND_ALLGATHER:
    case SERRY_KIND_GATHER:
        return vectors_value(block, in_block);
    case SERRY_KIND_ALLTOALL:
        return vectors_value(block, own + in_block);
    default:
        return vectors_value(c->root, j);
    }
}

/* Elements that this rank receives. */
static size_t received(const test_rank *self, const serry_call *c)
{
    size_t all = c->count * (size_t)self->size;
    switch (c->kind) {
    case SERRY_KIND_BARRIER:
        return 0;
    case SERRY_KIND_REDUCE:
        return self->rank == c->root ? c->count : 0;
    case SERRY_KIND_GATHER:
        return self->rank == c->root ? all : 0;
    case SERRY_KIND_ALLGATHER:
    case SERRY_KIND_ALLTOALL:
        return all;
    default:
        return c->count;
    }
}

void vectors_fill(const test_rank *self, vectors *v, const serry_call *c)
{
    bool gives_recv = c->kind == SERRY_KIND_BROADCAST && self->rank == c->root;
    for (size_t i = 0; i < VECTORS_MOST; i++) {
        v->send[i] = vectors_value(self->rank, i);
        v->recv[i] = gives_recv ? vectors_value(self->rank, i) : UNTOUCHED;
    }
}

void vectors_check(test_rank *self, const vectors *v, const serry_call *c, bool done)
{
    bool gives_recv = c->kind == SERRY_KIND_BROADCAST && self->rank == c->root;
    size_t count = done ? received(self, c) : 0;
    for (size_t i = 0; i < VECTORS_MOST; i++) {
        uint64_t right = gives_recv ? vectors_value(self->rank, i) : UNTOUCHED;
        if (i < count)
            right = wanted(c, self->size, self->rank, i);
        if (v->send[i] != vectors_value(self->rank, i) || v->recv[i] != right) {
            test_failed(self,
                        "%s of %zu, %s: element %zu: send %llu (wanted %llu), recv %#llx "
                        "(wanted %#llx)",
                        serry_kind_name(c->kind), c->count, done ? "done" : "timed out", i,
                        (unsigned long long)v->send[i],
                        (unsigned long long)vectors_value(self->rank, i),
                        (unsigned long long)v->recv[i], (unsigned long long)right);
            return;
        }
    }
}

bool vectors_open(test_rank *self, vectors *v, bool arena)
{
    size_t bytes = VECTORS_MOST * sizeof(uint64_t);
    v->send = arena ? serry_alloc(self->comm, bytes) : malloc(bytes);
    v->recv = arena ? serry_alloc(self->comm, bytes) : malloc(bytes);
    return CHECK(self, v->send != NULL && v->recv != NULL);
}

void vectors_close(test_rank *self, vectors *v, bool arena)
{
    if (arena) {
        serry_free(self->comm, v->send);
        serry_free(self->comm, v->recv);
    } else {
        free(v->send);
        free(v->recv);
    }
}
