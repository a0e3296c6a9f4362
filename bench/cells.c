/* cells.c - see cells.h.
 *
 * What a rank passes in depends on the rank, on the call and on the place, so that a result which is
 * stale, shifted, incomplete or counted twice is seen. All values and sums are small whole numbers,
 * exact in f32 in whatever order they are added; those of two ranks are exact in f16 and bf16 as well. */
#include "cells.h"

#include <string.h>

enum { BLOCK = 64, RAMP = 8, RANK_STEPS = 64, CALL_STEPS = 8, SAMPLES = 4 };
enum { F16_MANTISSA = 10, BF16_MANTISSA = 7 };

typedef struct cell_work {
    const bench *bench;
    const bench_library *library;
    bench_operation operation;
    float *send, *recv;
    size_t length; /* elements passed in */
    size_t count;  /* elements as the operation counts them */
} cell_work;

/* ---- what goes in, what must come out ----------------------------------------------------- */

/* The part of a value that its place decides. */
static float of_block(size_t block)
{
    return (float)((uint32_t)block * UINT32_C(2654435761) >> 28);
}

static float of_place(size_t i)
{
    return of_block(i / BLOCK) + (float)(i % RAMP);
}

/* The part of a value that rank and call decide. */
static float of_rank(int rank, uint32_t call)
{
    return (float)(rank % RANK_STEPS) + (float)(call % CALL_STEPS);
}

/* A whole number that has no more binary digits than the format: its bits. */
static uint16_t half_of(uint32_t value, int mantissa_bits)
{
    int bias = mantissa_bits == F16_MANTISSA ? 15 : 127;

    if (value == 0)
        return 0;
    int exponent = 31 - __builtin_clz(value);
    uint32_t mantissa = exponent <= mantissa_bits ? value << (mantissa_bits - exponent)
                                                  : value >> (exponent - mantissa_bits);
    return (uint16_t)(((uint32_t)(exponent + bias) << mantissa_bits) |
                      (mantissa & ((1u << mantissa_bits) - 1)));
}

static void fill_halves(uint16_t *to, size_t count, int rank, uint32_t call, int mantissa_bits)
{
    uint16_t ramp[RAMP];

    for (size_t i = 0; i < count; i++) {
        if (i % BLOCK == 0)
            for (size_t k = 0; k < RAMP; k++)
                ramp[k] = half_of((uint32_t)(of_rank(rank, call) + of_place(i + k)), mantissa_bits);
        to[i] = ramp[i % RAMP];
    }
}

static void fill(float *to, size_t count, int rank, uint32_t call)
{
    size_t i = 0;

    for (; i + BLOCK <= count; i += BLOCK) {
        float base = of_rank(rank, call) + of_block(i / BLOCK);
        for (int k = 0; k < BLOCK; k++) /* all of one length, so that compilers vectorise it */
            to[i + (size_t)k] = base + (float)(k % RAMP);
    }
    for (; i < count; i++)
        to[i] = of_rank(rank, call) + of_place(i);
}

/* The place that check number k is to look at: all of them, or a few of which one changes. */
static size_t place_of(size_t k, size_t count, uint32_t call, bool all)
{
    size_t sample[SAMPLES] = {0, count / 2, count - 1, call * UINT64_C(7919) % count};

    return all ? k : sample[k];
}

/* Wrong elements among result[0, count), which should be elements `first` on of the vector of the
 * ranks [from, to) summed. */
static uint64_t wrong(const float *result, size_t count, size_t first, int from, int to,
                      uint32_t call, bool all)
{
    size_t looks = all ? count : SAMPLES;
    float of_ranks = 0;
    uint64_t bad = 0;

    for (int r = from; r < to; r++)
        of_ranks += of_rank(r, call);
    for (size_t k = 0; k < looks; k++) {
        size_t i = place_of(k, count, call, all);
        bad += result[i] != (float)(to - from) * of_place(first + i) + of_ranks;
    }
    return bad;
}

/* The same for the sum of all ranks in half the bits. */
static uint64_t wrong_halves(const uint16_t *result, size_t count, int ranks, uint32_t call,
                             bool all, int mantissa_bits)
{
    size_t looks = all ? count : SAMPLES;
    float of_ranks = 0;
    uint64_t bad = 0;

    for (int r = 0; r < ranks; r++)
        of_ranks += of_rank(r, call);
    for (size_t k = 0; k < looks; k++) {
        size_t i = place_of(k, count, call, all);
        bad +=
            result[i] != half_of((uint32_t)((float)ranks * of_place(i) + of_ranks), mantissa_bits);
    }
    return bad;
}

/* ---- the operations ----------------------------------------------------------------------- */

static void rewrite_all(void *self, uint32_t call)
{
    cell_work *w = self;

    fill(w->send, w->length, w->bench->rank, call);
}

static void rewrite_root(void *self, uint32_t call)
{
    cell_work *w = self;

    if (w->bench->rank == 0)
        fill(w->send, w->length, 0, call);
}

static int run(void *self)
{
    cell_work *w = self;

    return w->library->run[w->operation](w->library->self, w->send, w->recv, w->count);
}

static uint64_t check_allreduce(void *self, uint32_t call, bool all)
{
    cell_work *w = self;

    return wrong(w->recv, w->count, 0, 0, w->bench->ranks, call, all);
}

static uint64_t check_in_place(void *self, uint32_t call, bool all)
{
    cell_work *w = self;

    return wrong(w->send, w->count, 0, 0, w->bench->ranks, call, all);
}

static uint64_t check_broadcast(void *self, uint32_t call, bool all)
{
    cell_work *w = self;

    return wrong(w->send, w->count, 0, 0, 1, call, all);
}

static uint64_t check_reduce(void *self, uint32_t call, bool all)
{
    cell_work *w = self;

    return w->bench->rank == 0 ? check_allreduce(self, call, all) : 0;
}

static uint64_t check_allgather(void *self, uint32_t call, bool all)
{
    cell_work *w = self;
    uint64_t bad = 0;

    for (int r = 0; r < w->bench->ranks; r++)
        bad += wrong(w->recv + (size_t)r * w->count, w->count, 0, r, r + 1, call, all);
    return bad;
}

static uint64_t check_reduce_scatter(void *self, uint32_t call, bool all)
{
    cell_work *w = self;
    size_t first = w->count * (size_t)w->bench->rank;

    return wrong(w->recv, w->count, first, 0, w->bench->ranks, call, all);
}

static void rewrite_f16(void *self, uint32_t call)
{
    cell_work *w = self;

    fill_halves((uint16_t *)w->send, w->length, w->bench->rank, call, F16_MANTISSA);
}

static void rewrite_bf16(void *self, uint32_t call)
{
    cell_work *w = self;

    fill_halves((uint16_t *)w->send, w->length, w->bench->rank, call, BF16_MANTISSA);
}

static uint64_t check_f16(void *self, uint32_t call, bool all)
{
    cell_work *w = self;

    return wrong_halves((uint16_t *)w->recv, w->count, w->bench->ranks, call, all, F16_MANTISSA);
}

static uint64_t check_bf16(void *self, uint32_t call, bool all)
{
    cell_work *w = self;

    return wrong_halves((uint16_t *)w->recv, w->count, w->bench->ranks, call, all, BF16_MANTISSA);
}

/* Rank 1 has what rank 0 has sent, and rank 0 has it back. */
static uint64_t check_echo(void *self, uint32_t call, bool all)
{
    cell_work *w = self;

    return wrong(w->recv, w->count, 0, 0, 1, call, all);
}

static uint64_t check_copy(void *self, uint32_t call, bool all)
{
    cell_work *w = self;
    int rank = w->bench->rank;

    return wrong(w->recv, w->count, 0, rank, rank + 1, call, all);
}

/* ---- the table of operations -------------------------------------------------------------- */

static const struct {
    const char *name;
    size_t element; /* bytes; 0: the operation has no size */
    bool divided;   /* the vector passed in has a block for each rank */
    void (*rewrite)(void *self, uint32_t call);
    uint64_t (*check)(void *self, uint32_t call, bool all);
} k_operations[BENCH_OPERATIONS] = {
    [BENCH_BARRIER] = {"barrier", 0, false, NULL, NULL},
    [BENCH_ALLREDUCE] = {"allreduce", 4, false, rewrite_all, check_allreduce},
    [BENCH_ALLREDUCE_IN_PLACE] = {"allreduce_in_place", 4, false, rewrite_all, check_in_place},
    [BENCH_BROADCAST] = {"broadcast", 4, false, rewrite_root, check_broadcast},
    [BENCH_REDUCE] = {"reduce", 4, false, rewrite_all, check_reduce},
    [BENCH_ALLGATHER] = {"allgather", 4, false, rewrite_all, check_allgather},
    [BENCH_REDUCE_SCATTER] = {"reduce_scatter", 4, true, rewrite_all, check_reduce_scatter},
    [BENCH_ALLREDUCE_F16] = {"allreduce_f16", 2, false, rewrite_f16, check_f16},
    [BENCH_ALLREDUCE_BF16] = {"allreduce_bf16", 2, false, rewrite_bf16, check_bf16},
    [BENCH_IALLREDUCE] = {"iallreduce", 4, false, rewrite_all, check_allreduce},
    [BENCH_SEND_RECV] = {"send_recv", 4, false, rewrite_root, check_echo},
    [BENCH_ISEND_IRECV] = {"isend_irecv", 4, false, rewrite_root, check_echo},
    [BENCH_COMPUTE] = {"compute", 4, false, NULL, NULL},
    [BENCH_OVERLAP] = {"overlap", 4, false, rewrite_all, check_allreduce},
    [BENCH_ROUND_TRIP] = {"round_trip", 0, false, NULL, NULL},
    [BENCH_COPY] = {"copy", 4, false, rewrite_all, check_copy},
    /* Not checked: the other may have written the next call's values already. */
    [BENCH_CROSS_COPY] = {"cross_copy", 4, false, rewrite_all, NULL},
};

const char *bench_operation_name(bench_operation operation)
{
    return k_operations[operation].name;
}

bench_operation bench_operation_named(const char *name)
{
    bench_operation op = 0;

    while (op < BENCH_OPERATIONS && strcmp(k_operations[op].name, name) != 0)
        op++;
    return op;
}

bool bench_is_possible(const bench_library *library, bench_operation operation, size_t bytes,
                       int ranks)
{
    size_t element = k_operations[operation].element;
    size_t blocks = k_operations[operation].divided ? (size_t)ranks : 1;

    if (library->run[operation] == NULL)
        return false;
    return element == 0 ? bytes == 0 : bytes > 0 && bytes % (element * blocks) == 0;
}

int bench_slice(bench *b, const bench_library *library, const bench_order *order, float *send,
                float *recv, bench_result *result)
{
    bench_operation op = (bench_operation)order->operation;
    size_t element = k_operations[op].element;
    size_t length = element > 0 ? order->bytes / element : 0;
    size_t blocks = k_operations[op].divided ? (size_t)b->ranks : 1;
    cell_work w = {b, library, op, send, recv, length, length / blocks};
    bench_cell cell = {k_operations[op].rewrite, run, k_operations[op].check, &w};

    return bench_measure(b, &cell, order->seconds, order->full, result);
}
