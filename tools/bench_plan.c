/* bench_plan.c - which workers are timed in which cells. */
#include <hwloc.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { MOST_WORKERS = 256, MOST_CELLS = 1024, SMALL_SLICES = 3 };

static const size_t k_large = 1 << 20;  /* from here on a slice takes long: one in each pass */
static const size_t k_copies = 1 << 14; /* smaller ones tell of the clock, not of the memory */
static const size_t k_crowd_sizes[] = {8, 1 << 10, 1 << 20};

static const char *const k_sized[] = {"allreduce", "allreduce_in_place", "broadcast",
                                      "reduce",    "allgather",          "reduce_scatter"};

void bench_note(bench_run *run, const char *format, ...)
{
    void *more = realloc(run->notes, (run->note_count + 1) * sizeof *run->notes);
    va_list arguments;

    if (more == NULL)
        return;
    run->notes = more;
    va_start(arguments, format);
    vsnprintf(run->notes[run->note_count++], sizeof *run->notes, format, arguments);
    va_end(arguments);
}

/* ---- cells --------------------------------------------------------------------------------- */

static void add_cell(bench_run *run, const char *operation, int ranks, size_t bytes)
{
    size_t blocks = strcmp(operation, "reduce_scatter") == 0 ? (size_t)ranks : 1;

    if (bytes % (blocks * sizeof(float)) != 0 || run->cell_count == MOST_CELLS)
        return;
    run->cells[run->cell_count++] = (bench_cell){.operation = operation,
                                                 .ranks = ranks,
                                                 .bytes = bytes,
                                                 .per_pass = bytes < k_large ? SMALL_SLICES : 1};
}

static void add_sizes(bench_run *run, const char *operation, int ranks, const size_t *sizes,
                      int count)
{
    if (bench_listed(run->options.operations, operation))
        for (int i = 0; i < count; i++)
            add_cell(run, operation, ranks, sizes[i]);
}

/* What two cores can do, whatever else is asked for. */
static void add_limits(bench_run *run)
{
    add_cell(run, "round_trip", 2, 0);
    for (int i = 0; i < run->options.size_count; i++)
        if (run->options.sizes[i] >= k_copies) {
            add_cell(run, "copy", 2, run->options.sizes[i]);
            add_cell(run, "cross_copy", 2, run->options.sizes[i]);
        }
}

/* With more than two ranks only what matters most, unless more is asked for. */
static void add_cells(bench_run *run, int ranks)
{
    static const size_t k_message = 8, k_overlap = 16 << 20;
    static const int k_crowd_count = sizeof k_crowd_sizes / sizeof *k_crowd_sizes;
    const bench_options *o = &run->options;
    bool two = ranks == 2 || o->sizes_given;
    bool all = two || o->operations != NULL;

    if (bench_listed(o->operations, "barrier"))
        add_cell(run, "barrier", ranks, 0);
    for (size_t i = 0; i < sizeof k_sized / sizeof *k_sized; i++)
        if (all || strcmp(k_sized[i], "allreduce") == 0)
            add_sizes(run, k_sized[i], ranks, two ? o->sizes : k_crowd_sizes,
                      two ? o->size_count : k_crowd_count);
    if (ranks != 2)
        return;
    if (o->operations == NULL && bench_listed(o->peers, "limit"))
        add_limits(run);
    add_sizes(run, "send_recv", ranks, o->sizes_given ? o->sizes : &k_message,
              o->sizes_given ? o->size_count : 1);
    if (run->cores >= 2 && o->processes)
        add_sizes(run, "overlap", ranks, &k_overlap, 1);
}

/* ---- workers ------------------------------------------------------------------------------- */

static bool is_wanted(const bench_run *run, const bench_subject *s, int ranks)
{
    const bench_options *o = &run->options;

    if (ranks > 2 && !s->crowd)
        return false;
    if (s->role == BENCH_LIMIT && run->cores < 2)
        return false;
    if (s->peer != NULL)
        return bench_listed(o->peers, s->peer);
    return s->threads ? o->threads : o->processes;
}

/* Does the worker take part in the cell, as far as is known before it has started? */
static bool takes_part(const bench_worker *worker, const bench_cell *cell)
{
    const char *operation = bench_asked_for(worker->subject, cell->operation, cell->bytes);

    if (worker->ranks != cell->ranks || operation == NULL)
        return false;
    return worker->has == NULL || bench_has(worker, operation);
}

bool bench_has(const bench_worker *worker, const char *operation)
{
    char word[64];

    snprintf(word, sizeof word, " %s ", operation);
    return worker->has != NULL && strstr(worker->has, word) != NULL;
}

/* Bytes of each rank's result. */
static size_t result_bytes(const bench_cell *cell)
{
    return cell->bytes * (strcmp(cell->operation, "allgather") == 0 ? (size_t)cell->ranks : 1);
}

/* Room for the vectors of all its cells; false: it has none. */
static bool find_room(const bench_run *run, bench_worker *worker)
{
    bool any = false;

    worker->send = worker->recv = 1 << 10;
    for (size_t c = 0; c < run->cell_count; c++) {
        const bench_cell *cell = &run->cells[c];
        if (!takes_part(worker, cell))
            continue;
        any = true;
        if (cell->bytes > worker->send)
            worker->send = cell->bytes;
        if (result_bytes(cell) > worker->recv)
            worker->recv = result_bytes(cell);
    }
    return any;
}

static void add_workers(bench_run *run, int ranks)
{
    for (size_t i = 0; i < bench_subject_count && run->worker_count < MOST_WORKERS; i++) {
        const bench_subject *s = &bench_subjects[i];
        bench_worker worker = {.subject = s, .ranks = ranks, .log = -1};
        const char *why;
        if (!is_wanted(run, s, ranks) || !find_room(run, &worker))
            continue;
        if (bench_is_there(run, s, &why))
            run->workers[run->worker_count++] = worker;
        else
            bench_note(run, "%s with %d ranks is left out: %s", s->name, ranks, why);
    }
}

/* Memory that can be had, in bytes. */
static double available(void)
{
    unsigned long long kib = 0;
    char line[128];
    FILE *file = fopen("/proc/meminfo", "re");

    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
            break;
    if (file != NULL)
        fclose(file);
    return kib > 0 ? (double)kib * 1024 : 1e18;
}

static double needed(const bench_run *run)
{
    double bytes = 0;

    for (size_t w = 0; w < run->worker_count; w++)
        bytes +=
            (double)run->workers[w].ranks * (double)(run->workers[w].send + run->workers[w].recv);
    return 2 * bytes; /* what a library copies into counts as well */
}

static void leave_out_largest(bench_run *run)
{
    size_t largest = 0;
    double most = 0;
    char text[32];

    for (size_t c = 0; c < run->cell_count; c++) {
        double bytes = (double)run->cells[c].ranks *
                       ((double)run->cells[c].bytes + (double)result_bytes(&run->cells[c]));
        if (bytes > most) {
            most = bytes;
            largest = c;
        }
    }
    bench_note(run, "%s of %s with %d ranks is left out: there is not enough memory",
               run->cells[largest].operation,
               bench_size_text(run->cells[largest].bytes, text, sizeof text),
               run->cells[largest].ranks);
    run->cell_count--;
    memmove(&run->cells[largest], &run->cells[largest + 1],
            (run->cell_count - largest) * sizeof *run->cells);
    for (size_t w = 0; w < run->worker_count; w++)
        find_room(run, &run->workers[w]);
}

/* ---- all ------------------------------------------------------------------------------------ */

/* Those that this process may use. */
static int count_cores(void)
{
    hwloc_topology_t topology;
    hwloc_bitmap_t own = hwloc_bitmap_alloc();
    int cores = 1;

    if (own == NULL || hwloc_topology_init(&topology) != 0)
        return 1;
    if (hwloc_topology_load(topology) == 0) {
        if (hwloc_get_cpubind(topology, own, HWLOC_CPUBIND_PROCESS) == 0)
            hwloc_topology_restrict(topology, own, 0);
        cores = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
    }
    hwloc_topology_destroy(topology);
    hwloc_bitmap_free(own);
    return cores < 1 ? 1 : cores;
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);

    if (memory == NULL) {
        fprintf(stderr, "serry bench: not enough memory\n");
        exit(1);
    }
    return memory;
}

void bench_plan(bench_run *run)
{
    const char *asked = run->options.operations;

    run->cores = count_cores();
    run->cells = allocate(MOST_CELLS, sizeof *run->cells);
    run->workers = allocate(MOST_WORKERS, sizeof *run->workers);
    run->cost = bench_listed(asked, "cost");
    run->deaths = bench_listed(asked, "deaths");
    run->instructions = bench_listed(asked, "instructions");
    for (int i = 0; i < run->options.rank_count; i++)
        add_cells(run, run->options.ranks[i]);
    for (int i = 0; i < run->options.rank_count; i++)
        add_workers(run, run->options.ranks[i]);
    while (needed(run) > available() && run->cell_count > 0)
        leave_out_largest(run);
}

void bench_plan_samples(bench_run *run)
{
    for (size_t c = 0; c < run->cell_count; c++) {
        bench_cell *cell = &run->cells[c];
        cell->samples = allocate(run->worker_count, sizeof *cell->samples);
        for (size_t w = 0; w < run->worker_count; w++)
            if (run->workers[w].in != NULL && takes_part(&run->workers[w], cell))
                cell->samples[w] = allocate(BENCH_SLICES_MAX, sizeof **cell->samples);
    }
}

void bench_plan_free(bench_run *run)
{
    for (size_t c = 0; c < run->cell_count; c++) {
        for (size_t w = 0; run->cells[c].samples != NULL && w < run->worker_count; w++)
            free(run->cells[c].samples[w]);
        free(run->cells[c].samples);
    }
    for (size_t w = 0; w < run->worker_count; w++)
        free(run->workers[w].has);
    free(run->cells);
    free(run->workers);
    free(run->notes);
    free(run->cost_csv);
    free(run->deaths_csv);
    free(run->instructions_csv);
}
