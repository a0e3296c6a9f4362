/* bench_files.c - the files of `serry bench`: every slice as CSV, latency over size as SVG. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

/* NAME.csv and "-cost.csv" make NAME-cost.csv. */
static char *beside(const char *name, const char *ending)
{
    char *text;
    int stem = (int)(strrchr(name, '.') - name);

    return asprintf(&text, "%.*s%s", stem, name, ending) < 0 ? NULL : text;
}

static bool say_failure(const char *name)
{
    fprintf(stderr, "serry bench: cannot write %s: %s\n", name, strerror(errno));
    return false;
}

/* ---- CSV ------------------------------------------------------------------------------------- */

static void write_cell(const bench_run *run, const bench_cell *cell, FILE *to)
{
    for (int s = 0; s < cell->slices; s++)
        for (size_t w = 0; w < run->worker_count; w++) {
            const bench_sample *sample = cell->samples[w] != NULL ? &cell->samples[w][s] : NULL;
            if (sample == NULL || sample->calls == 0)
                continue;
            fprintf(to, "%d,%s,%s,%d,%zu,%u,%.3f,%.3f,%.3f,", s, run->workers[w].subject->name,
                    cell->operation, cell->ranks, cell->bytes, sample->calls, sample->min,
                    sample->median, sample->p99);
            if (sample->back_to_back > 0)
                fprintf(to, "%.4f", sample->back_to_back);
            fprintf(to, ",%llu\n", sample->wrong);
        }
}

static bool write_text(const bench_run *run, const char *ending, const char *text)
{
    char *name = text != NULL ? beside(run->options.csv, ending) : NULL;
    FILE *file = name != NULL ? fopen(name, "w") : NULL;
    bool written = name == NULL;

    if (file != NULL) {
        bench_print_conditions(run, file);
        fputs(text, file);
        written = fclose(file) == 0;
    }
    if (!written)
        say_failure(name);
    free(name);
    return written;
}

bool bench_write_csv(const bench_run *run)
{
    if (run->options.csv == NULL)
        return true;
    FILE *file = fopen(run->options.csv, "w");
    if (file == NULL)
        return say_failure(run->options.csv);
    bench_print_conditions(run, file);
    fprintf(file, "slice,library,operation,ranks,bytes,calls,min_us,median_us,p99_us,"
                  "back_to_back_us,wrong\n");
    for (size_t c = 0; c < run->cell_count; c++)
        write_cell(run, &run->cells[c], file);
    if (fclose(file) != 0)
        return say_failure(run->options.csv);
    return write_text(run, "-cost.csv", run->cost_csv) &&
           write_text(run, "-deaths.csv", run->deaths_csv) &&
           write_text(run, "-instructions.csv", run->instructions_csv);
}

/* ---- plots ----------------------------------------------------------------------------------- */

/* How the line of a subject is drawn. */
static const char *line_of(const bench_subject *subject)
{
    static const char *const k_ours[][2] = {{"serry", "lc rgb '#1d4ed8' lw 2.5 pt 7"},
                                            {"serry_arena", "lc rgb '#0891b2' lw 2.5 pt 5"},
                                            {"serry_threads", "lc rgb '#15803d' lw 2.5 pt 9"},
                                            {"openmpi", "lc rgb '#c2410c' lw 1.2 pt 6"},
                                            {"openmpi_sm", "lc rgb '#ea580c' lw 1.2 pt 4"},
                                            {"openmpi_copy", "lc rgb '#f59e0b' lw 1.2 pt 8"},
                                            {"mpich", "lc rgb '#a21caf' lw 1.2 pt 10"},
                                            {"gloo", "lc rgb '#78350f' lw 1.2 pt 12"},
                                            {"limit", "lc rgb '#404040' lw 1.5 dt 2 pt 0"}};

    for (size_t i = 0; i < sizeof k_ours / sizeof *k_ours; i++)
        if (strcmp(k_ours[i][0], subject->name) == 0)
            return k_ours[i][1];
    return "lc rgb '#9ca3af' lw 1.2 pt 1";
}

/* The points of a worker, as a data block; how many there are. */
static int print_points(const bench_run *run, const char *operation, int ranks, size_t w, FILE *to)
{
    int points = 0;

    fprintf(to, "$w%zu << EOD\n", w);
    for (size_t c = 0; c < run->cell_count; c++) {
        const bench_cell *cell = &run->cells[c];
        if (cell->ranks != ranks || strcmp(cell->operation, operation) != 0)
            continue;
        double time = bench_time(cell, w);
        points += !isnan(time);
        if (!isnan(time))
            fprintf(to, "%zu %.4f\n", cell->bytes, time);
    }
    fprintf(to, "EOD\n");
    return points;
}

static void print_plot(const bench_run *run, const char *operation, int ranks, const char *name,
                       FILE *to)
{
    char plot[8192];
    size_t length = 0;

    fprintf(to,
            "set terminal svg size 900,560 font 'DejaVu Sans,Arial,sans-serif,14' background rgb "
            "'white' rounded\n"
            "set output '%s'\n"
            "set title '%s, %d ranks' noenhanced\n"
            "set logscale x 2\nset logscale y\nset key top left noenhanced\n"
            "set xlabel 'bytes'\nset ylabel 'us, slowest rank, median'\n"
            "set xtics ('8' 8, '64' 64, '1 Ki' 1024, '16 Ki' 16384, '256 Ki' 262144, '1 Mi' "
            "1048576, '16 Mi' 16777216, '64 Mi' 67108864, '1 Gi' 1073741824)\n"
            "set grid linetype 1 linecolor rgb '#e4e4e4'\nset border 3\nset tics nomirror out\n",
            name, operation, ranks);
    for (size_t w = 0; w < run->worker_count; w++) {
        const bench_subject *s = run->workers[w].subject;
        if (run->workers[w].ranks != ranks || s->role == BENCH_VARIANT ||
            print_points(run, operation, ranks, w, to) < 2 || length > sizeof plot - 200)
            continue;
        length += (size_t)snprintf(plot + length, sizeof plot - length,
                                   "%s $w%zu using 1:2 with linespoints %s ps 0.7 title '%s'",
                                   length > 0 ? "," : "", w, line_of(s), s->name);
    }
    if (length > 0)
        fprintf(to, "plot%s\n", plot);
}

static int sizes_of(const bench_run *run, const char *operation, int ranks)
{
    int sizes = 0;

    for (size_t c = 0; c < run->cell_count; c++)
        sizes += run->cells[c].ranks == ranks && run->cells[c].slices > 0 &&
                 strcmp(run->cells[c].operation, operation) == 0;
    return sizes;
}

static bool plot_operation(const bench_run *run, const char *operation, int ranks)
{
    char ending[64];

    snprintf(ending, sizeof ending, "-%s.svg", operation);
    char *name = beside(run->options.plot, ending);
    FILE *gnuplot = name != NULL ? popen("gnuplot", "w") : NULL;
    if (gnuplot == NULL) {
        free(name);
        return say_failure(run->options.plot);
    }
    print_plot(run, operation, ranks, name, gnuplot);
    bool drawn = pclose(gnuplot) == 0;
    if (!drawn)
        fprintf(stderr, "serry bench: gnuplot could not draw %s\n", name);
    free(name);
    return drawn;
}

bool bench_write_plots(bench_run *run)
{
    static const char *const k_operations[] = {"allreduce", "allreduce_in_place", "broadcast",
                                               "reduce",    "allgather",          "reduce_scatter"};
    int ranks = run->options.ranks[0];
    bool drawn = true;

    if (run->options.plot == NULL)
        return true;
    if (!bench_is_in_path("gnuplot")) {
        bench_note(run, "gnuplot is not installed: there are no plots");
        return true;
    }
    for (size_t i = 0; i < sizeof k_operations / sizeof *k_operations; i++)
        if (sizes_of(run, k_operations[i], ranks) >= 2)
            drawn = plot_operation(run, k_operations[i], ranks) && drawn;
    return drawn;
}
