/* cells.c - see cells.h.
 *
 * What a rank passes in depends on the rank, on the call and on the place, so that a result which is
 * stale, shifted, incomplete or counted twice is seen. All values and sums are small whole numbers,
 * exact in f32 in whatever order they are added. */
#include "cells.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64, RAMP = 8, RANK_STEPS = 64, CALL_STEPS = 8, SAMPLES = 4 };

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

/* Wrong elements among result[0, count), which should be elements `first` on of the vector of the
 * ranks [from, to) summed. */
static uint64_t wrong(const float *result, size_t count, size_t first, int from, int to,
                      uint32_t call, bool all)
{
    size_t sample[SAMPLES] = {0, count / 2, count - 1, call * UINT64_C(7919) % count};
    size_t looks = all ? count : SAMPLES;
    float of_ranks = 0;
    uint64_t bad = 0;

    for (int r = from; r < to; r++)
        of_ranks += of_rank(r, call);
    for (size_t k = 0; k < looks; k++) {
        size_t i = all ? k : sample[k];
        bad += result[i] != (float)(to - from) * of_place(first + i) + of_ranks;
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

static const struct {
    const char *name;
    bool sized;
    bool divided; /* the vector passed in has a block for each rank */
    void (*rewrite)(void *self, uint32_t call);
    uint64_t (*check)(void *self, uint32_t call, bool all);
} k_operations[BENCH_OPERATIONS] = {
    [BENCH_BARRIER] = {"barrier", false, false, NULL, NULL},
    [BENCH_ALLREDUCE] = {"allreduce", true, false, rewrite_all, check_allreduce},
    [BENCH_ALLREDUCE_IN_PLACE] = {"allreduce_in_place", true, false, rewrite_all, check_in_place},
    [BENCH_BROADCAST] = {"broadcast", true, false, rewrite_root, check_broadcast},
    [BENCH_REDUCE] = {"reduce", true, false, rewrite_all, check_reduce},
    [BENCH_ALLGATHER] = {"allgather", true, false, rewrite_all, check_allgather},
    [BENCH_REDUCE_SCATTER] = {"reduce_scatter", true, true, rewrite_all, check_reduce_scatter},
};

/* ---- options ------------------------------------------------------------------------------ */

/* Is the name one of a list with commas? NULL lists all. */
static bool listed(const char *list, const char *name)
{
    size_t length = strlen(name);

    if (list == NULL)
        return true;
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return true;
    }
    return false;
}

/* "8", "16K" or "64M", up to a comma or the end; 0: it is none, or not a whole number of f32. */
static size_t parse_size(const char *text, const char **end)
{
    char *after;

    errno = 0;
    unsigned long value = strtoul(text, &after, 10);
    unsigned long unit = *after == 'K' ? 1ul << 10 : *after == 'M' ? 1ul << 20 : 1;
    *end = after + (unit > 1);
    if (errno != 0 || after == text || (**end != ',' && **end != '\0') || value > (1ul << 32) ||
        value * unit % sizeof(float) != 0)
        return 0;
    return value * unit;
}

static void parse_sizes(struct argp_state *state, const char *text, bench_options *options)
{
    options->size_count = 0;
    for (const char *at = text, *end; at != NULL; at = *end == ',' ? end + 1 : NULL) {
        size_t size = parse_size(at, &end);
        if (size == 0 || options->size_count == BENCH_SIZES_MAX)
            argp_error(state,
                       "--sizes: '%s' is not a list of up to %d sizes in bytes such as 8,16K,1M, "
                       "each a multiple of 4",
                       text, BENCH_SIZES_MAX);
        options->sizes[options->size_count++] = size;
    }
}

enum { OPTION_NAME = 512, OPTION_OPS, OPTION_SIZES, OPTION_SECONDS };

static const struct argp_option k_options[] = {
    {"name", OPTION_NAME, "NAME", 0, "the first column of each line", 0},
    {"ops", OPTION_OPS, "LIST", 0, "the operations to time; without it all", 0},
    {"sizes", OPTION_SIZES, "LIST", 0, "the sizes, in bytes; without it 8,1K,16K,256K,1M,16M,64M",
     0},
    {"seconds", OPTION_SECONDS, "S", 0, "time for each cell; without it 0.1", 0},
    {NULL, 0, NULL, 0, NULL, 0}};

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    bench_options *options = state->input;

    switch (key) {
    case OPTION_NAME:
        options->name = value;
        break;
    case OPTION_OPS:
        options->operations = value;
        break;
    case OPTION_SIZES:
        parse_sizes(state, value, options);
        break;
    case OPTION_SECONDS:
        options->seconds = atof(value);
        if (!(options->seconds > 0 && options->seconds <= 100))
            argp_error(state, "--seconds: '%s' is not a number above 0 and up to 100", value);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

const struct argp bench_argp = {k_options, parse_option, NULL, NULL, NULL, NULL, NULL};

/* ---- all cells ---------------------------------------------------------------------------- */

size_t bench_send_bytes(const bench_options *options)
{
    size_t most = 0;

    for (int i = 0; i < options->size_count; i++)
        if (options->sizes[i] > most)
            most = options->sizes[i];
    return most;
}

size_t bench_recv_bytes(const bench_options *options, int ranks)
{
    return bench_send_bytes(options) *
           (listed(options->operations, "allgather") ? (size_t)ranks : 1);
}

static int measure_operation(bench *b, cell_work *w, const bench_options *options)
{
    bench_operation op = w->operation;
    size_t blocks = k_operations[op].divided ? (size_t)b->ranks : 1;
    bench_cell cell = {.library = options->name,
                       .operation = k_operations[op].name,
                       .rewrite = k_operations[op].rewrite,
                       .run = run,
                       .check = k_operations[op].check,
                       .self = w};

    for (int i = 0; i < (k_operations[op].sized ? options->size_count : 1); i++) {
        cell.bytes = k_operations[op].sized ? options->sizes[i] : 0;
        w->length = cell.bytes / sizeof(float);
        w->count = w->length / blocks;
        if (w->count * blocks != w->length)
            continue; /* it has no equal blocks */
        if (bench_measure(b, &cell, options->seconds) != 0)
            return -1;
    }
    return 0;
}

int bench_cells(bench *b, const bench_library *library, const bench_options *options, float *send,
                float *recv)
{
    for (bench_operation op = 0; op < BENCH_OPERATIONS; op++) {
        cell_work w = {b, library, op, send, recv, 0, 0};
        if (library->run[op] != NULL && listed(options->operations, k_operations[op].name) &&
            measure_operation(b, &w, options) != 0)
            return -1;
    }
    return 0;
}
