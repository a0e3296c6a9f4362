/* bench_remarks.c - what stands below the times: limits, what is put on top costs, memory, deaths. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

/* ---- the machine ----------------------------------------------------------------------------- */

static double bandwidth(const bench_run *run, const char *operation, size_t bytes)
{
    const bench_cell *cell = bench_cell_of(run, operation, 2, bytes);
    size_t limit = cell != NULL ? bench_worker_named(run, cell, "limit") : SIZE_MAX;

    return limit == SIZE_MAX ? NAN : (double)bytes / bench_time(cell, limit) / 1e3;
}

static void print_limits(const bench_run *run)
{
    const bench_cell *flags = bench_cell_of(run, "barrier", 2, 0);
    const bench_cell *trip = bench_cell_of(run, "round_trip", 2, 0);
    size_t f = flags != NULL ? bench_worker_named(run, flags, "limit") : SIZE_MAX;
    size_t t = trip != NULL ? bench_worker_named(run, trip, "limit") : SIZE_MAX;
    char size[32];

    if (f != SIZE_MAX && t != SIZE_MAX)
        printf(
            "\nWhat two cores can do: a cache line there and back in %.0f ns, flags exchanged in "
            "%.0f ns (back to back)\n",
            bench_back_to_back(trip, t) * 1e3, bench_back_to_back(flags, f) * 1e3);
    for (size_t c = 0; c < run->cell_count; c++) {
        size_t bytes = run->cells[c].bytes;
        double own = bandwidth(run, "copy", bytes), cross = bandwidth(run, "cross_copy", bytes);
        if (strcmp(run->cells[c].operation, "copy") == 0 && !isnan(own) && !isnan(cross))
            printf("  %8s: memcpy %5.1f GB/s per core, of what the other core has written %5.1f\n",
                   bench_size_text(bytes, size, sizeof size), own, cross);
    }
}

/* ---- variants -------------------------------------------------------------------------------- */

static void print_variant(const bench_run *run, const char *what, const char *operation,
                          size_t bytes, const char *variant)
{
    const bench_cell *cell = bench_cell_of(run, operation, 2, bytes);
    size_t plain = cell != NULL ? bench_worker_named(run, cell, "serry") : SIZE_MAX;
    size_t varied = cell != NULL ? bench_worker_named(run, cell, variant) : SIZE_MAX;
    double range[2];
    char size[32];

    if (plain == SIZE_MAX || varied == SIZE_MAX)
        return;
    double ratio = bench_ratio(cell, varied, plain, range);
    printf(
        "  %-44s %8s %8.3f us, without %8.3f us: ratio %.2f (half of the slices: %.2f to %.2f)\n",
        what, bench_size_text(bytes, size, sizeof size), bench_time(cell, varied),
        bench_time(cell, plain), ratio, range[0], range[1]);
}

static void print_variants(const bench_run *run)
{
    bool any = false;

    for (size_t w = 0; w < run->worker_count; w++)
        any = any || run->workers[w].subject->role == BENCH_VARIANT;
    if (!any)
        return;
    printf("\nWith and without, two process ranks, private memory\n");
    print_variant(run, "barrier over serry_ft", "barrier", 0, "serry_wrapped");
    print_variant(run, "allreduce over serry_ft", "allreduce", 8, "serry_wrapped");
    print_variant(run, "barrier with a health monitor", "barrier", 0, "serry_watched");
    print_variant(run, "allreduce with a health monitor", "allreduce", 8, "serry_watched");
    print_variant(run, "iallreduce, waited for at once", "allreduce", 8, "serry_async");
    print_variant(run, "isend and irecv there and back", "send_recv", 8, "serry_async");
    for (int i = 0; i < run->options.size_count; i++) {
        size_t bytes = run->options.sizes[i];
        print_variant(run, "allreduce of f16, against f32", "allreduce", bytes, "serry_f16");
        print_variant(run, "allreduce of bf16, against f32", "allreduce", bytes, "serry_bf16");
    }
}

/* Of the time of an allreduce, how much vanishes behind a computation: slice by slice. */
static double hidden(const bench_cell *cell, size_t both, size_t compute, size_t allreduce)
{
    double values[BENCH_SLICES_MAX];
    size_t n = 0;

    for (int s = 0; s < cell->slices; s++) {
        const bench_sample *b = &cell->samples[both][s], *c = &cell->samples[compute][s];
        const bench_sample *a = &cell->samples[allreduce][s];
        if (b->calls > 0 && c->calls > 0 && a->calls > 0)
            values[n++] = (a->median + c->median - b->median) / a->median;
    }
    return bench_median(values, n);
}

static void print_overlap(const bench_run *run)
{
    char size[32];

    for (size_t c = 0; c < run->cell_count; c++) {
        const bench_cell *cell = &run->cells[c];
        size_t both = bench_worker_named(run, cell, "overlap");
        size_t compute = bench_worker_named(run, cell, "overlap_compute");
        size_t allreduce = bench_worker_named(run, cell, "overlap_allreduce");
        if (both == SIZE_MAX || compute == SIZE_MAX || allreduce == SIZE_MAX)
            continue;
        printf("  iallreduce of %s behind a computation, with a core to spare: %.0f us alone, "
               "computation %.0f us, both %.0f us: %.0f %% hidden\n",
               bench_size_text(cell->bytes, size, sizeof size), bench_time(cell, allreduce),
               bench_time(cell, compute), bench_time(cell, both),
               100 * hidden(cell, both, compute, allreduce));
    }
}

/* ---- ranks and deaths: from the lines of two other programs ------------------------------------ */

/* Lines of bench_cost: kind,ranks,init_us,finalize_us,arena_bytes */
static void print_cost(const char *csv)
{
    char kind[16];
    int ranks;
    double init, finalize, bytes;

    printf("\nWhat ranks cost\n  %-10s %6s %16s %18s\n", "kind", "ranks", "arena, KiB",
           "init, finalize, ms");
    for (const char *line = csv; line != NULL && *line != '\0'; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (sscanf(line, "%15[^,],%d,%lf,%lf,%lf", kind, &ranks, &init, &finalize, &bytes) == 5)
            printf("  %-10s %6d %16.0f %9.2f %8.2f\n", kind, ranks, bytes / 1024, init / 1e3,
                   finalize / 1e3);
    }
}

/* Lines of bench_deaths: what,ranks,touched_mib,kills,median_us,p99_us,max_us */
static void print_deaths(const char *csv)
{
    static const char *const k_names[][2] = {{"first", "first survivor told"},
                                             {"all", "all survivors told"},
                                             {"next", "next operation done"},
                                             {"joined", "a replacement, start to admission"}};
    char what[16];
    int ranks, mib, kills;
    double median, p99, max;

    printf("\nkill -9 of one of 4 ranks%40s %8s %8s\n", "us: median", "p99", "max");
    for (const char *line = csv; line != NULL && *line != '\0'; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (sscanf(line, "%15[^,],%d,%d,%d,%lf,%lf,%lf", what, &ranks, &mib, &kills, &median, &p99,
                   &max) != 7)
            continue;
        for (size_t i = 0; i < sizeof k_names / sizeof *k_names; i++)
            if (strcmp(k_names[i][0], what) == 0)
                printf("  %4d kills, %4d MiB touched: %-34s %5.0f %8.0f %8.0f\n", kills, mib,
                       k_names[i][1], median, p99, max);
    }
}

/* Lines of bench_instructions: call,instructions */
static void print_instructions(const char *csv)
{
    char call[64];
    int count;

    printf("\nInstructions of a call, without waiting\n");
    for (const char *line = csv; line != NULL && *line != '\0'; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (sscanf(line, "%63[^,],%d", call, &count) == 2)
            printf("  %-36s %6d\n", call, count);
    }
}

static void print_wrong(const bench_run *run)
{
    printf("Wrong results: %llu\n", bench_wrong(run));
    for (size_t c = 0; c < run->cell_count; c++)
        for (size_t w = 0; w < run->worker_count; w++) {
            unsigned long long wrong = 0;
            for (int s = 0; run->cells[c].samples[w] != NULL && s < run->cells[c].slices; s++)
                wrong += run->cells[c].samples[w][s].wrong;
            if (wrong > 0)
                printf("  %s, %s, %zu bytes, %d ranks: %llu\n", run->workers[w].subject->name,
                       run->cells[c].operation, run->cells[c].bytes, run->cells[c].ranks, wrong);
        }
}

void bench_print_remarks(const bench_run *run)
{
    print_variants(run);
    print_overlap(run);
    print_limits(run);
    if (run->cost_csv != NULL)
        print_cost(run->cost_csv);
    if (run->deaths_csv != NULL)
        print_deaths(run->deaths_csv);
    if (run->instructions_csv != NULL)
        print_instructions(run->instructions_csv);
    bench_print_losses(run);
    if (run->cell_count > 0)
        print_wrong(run);
}
