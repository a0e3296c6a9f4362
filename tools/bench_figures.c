/* bench_figures.c - from slices to figures. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double bench_median(double *values, size_t n)
{
    if (n == 0)
        return NAN;
    qsort(values, n, sizeof *values, compare);
    return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

double bench_time(const bench_cell *cell, size_t worker)
{
    double values[BENCH_SLICES_MAX];
    size_t n = 0;

    for (int s = 0; cell->samples[worker] != NULL && s < cell->slices; s++)
        if (cell->samples[worker][s].calls > 0)
            values[n++] = cell->samples[worker][s].median;
    return bench_median(values, n);
}

double bench_back_to_back(const bench_cell *cell, size_t worker)
{
    double values[BENCH_SLICES_MAX];
    size_t n = 0;

    for (int s = 0; cell->samples[worker] != NULL && s < cell->slices; s++)
        if (cell->samples[worker][s].back_to_back > 0)
            values[n++] = cell->samples[worker][s].back_to_back;
    return bench_median(values, n);
}

double bench_ratio(const bench_cell *cell, size_t worker, size_t other, double range[2])
{
    const bench_sample *own = cell->samples[worker], *others = cell->samples[other];
    double values[BENCH_SLICES_MAX];
    size_t n = 0;

    for (int s = 0; own != NULL && others != NULL && s < cell->slices; s++)
        if (own[s].calls > 0 && others[s].calls > 0 && others[s].median > 0)
            values[n++] = own[s].median / others[s].median;
    double median = bench_median(values, n);
    if (range != NULL) {
        range[0] = n > 0 ? values[n / 4] : NAN;
        range[1] = n > 0 ? values[n - 1 - n / 4] : NAN;
    }
    return median;
}

size_t bench_best_peer(const bench_run *run, const bench_cell *cell, bool threads)
{
    size_t best = SIZE_MAX;
    double least = INFINITY;

    for (size_t w = 0; w < run->worker_count; w++) {
        const bench_subject *s = run->workers[w].subject;
        if (s->role != BENCH_PEER || (s->threads && !threads))
            continue;
        double time = bench_time(cell, w);
        if (time < least) { /* not where there is none: NAN */
            least = time;
            best = w;
        }
    }
    return best;
}

size_t bench_worker_named(const bench_run *run, const bench_cell *cell, const char *subject)
{
    for (size_t w = 0; w < run->worker_count; w++)
        if (strcmp(run->workers[w].subject->name, subject) == 0 && cell->samples[w] != NULL &&
            !isnan(bench_time(cell, w)))
            return w;
    return SIZE_MAX;
}

const bench_cell *bench_cell_of(const bench_run *run, const char *operation, int ranks,
                                size_t bytes)
{
    for (size_t c = 0; c < run->cell_count; c++) {
        const bench_cell *cell = &run->cells[c];
        if (cell->ranks == ranks && cell->bytes == bytes && strcmp(cell->operation, operation) == 0)
            return cell;
    }
    return NULL;
}

unsigned long long bench_wrong(const bench_run *run)
{
    unsigned long long wrong = 0;

    for (size_t c = 0; c < run->cell_count; c++)
        for (size_t w = 0; w < run->worker_count; w++)
            for (int s = 0; run->cells[c].samples[w] != NULL && s < run->cells[c].slices; s++)
                wrong += run->cells[c].samples[w][s].wrong;
    return wrong;
}
