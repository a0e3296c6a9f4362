/* bench_table.c - the conditions of a run, and its times. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include <serry/serry.h>

#include "bench.h"

static const double k_slower = 1.005; /* what is printed as more than 1.00 */

static const char *const k_ours[] = {"serry", "serry_arena", "serry_threads"};
enum { OURS = sizeof k_ours / sizeof *k_ours, LABEL = 29 };

/* ---- how things are written ------------------------------------------------------------------ */

char *bench_size_text(size_t bytes, char *text, size_t size)
{
    if (bytes == 0)
        text[0] = '\0';
    else if (bytes % (1 << 20) == 0)
        snprintf(text, size, "%zu MiB", bytes >> 20);
    else if (bytes % (1 << 10) == 0)
        snprintf(text, size, "%zu KiB", bytes >> 10);
    else
        snprintf(text, size, "%zu B", bytes);
    return text;
}

/* Three digits or so, right-aligned. */
static void print_number(double x, int width)
{
    if (isnan(x))
        printf(" %*s", width, "-");
    else
        printf(" %*.*f", width, x < 10 ? 2 : x < 100 ? 1 : 0, x);
}

static void print_ratio(double x, int width)
{
    if (isnan(x))
        printf(" %*s ", width - 1, "-");
    else
        printf(" %*.2f%c", width - 1, x, x >= k_slower ? '!' : ' ');
}

static void print_label(const bench_run *run, const bench_cell *cell)
{
    char size[32], ranks[32] = "";

    if (cell->ranks > 2)
        snprintf(ranks, sizeof ranks, " %3d%s", cell->ranks, cell->ranks > run->cores ? "*" : " ");
    printf("%-*s%8s%5s", LABEL - 13, cell->operation,
           bench_size_text(cell->bytes, size, sizeof size), ranks);
}

/* ---- conditions ------------------------------------------------------------------------------ */

static void processor_name(char *text, size_t size)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "re");

    snprintf(text, size, "unknown processor");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':') != NULL) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(text, size, "%s", strchr(line, ':') + 2);
            break;
        }
    if (file != NULL)
        fclose(file);
}

void bench_print_conditions(const bench_run *run, FILE *to)
{
    char name[200], date[32];
    struct utsname kernel;
    double load[1] = {NAN};
    time_t now = time(NULL);

    processor_name(name, sizeof name);
    uname(&kernel);
    strftime(date, sizeof date, "%Y-%m-%d %H:%M", localtime(&now));
    if (getloadavg(load, 1) != 1)
        load[0] = NAN;
    fprintf(to, "# serry %s, %s; %s, %d core%s, %s %s, load %.2f before the run\n", serry_version(),
            date, name, run->cores, run->cores == 1 ? "" : "s", kernel.sysname, kernel.release,
            load[0]);
}

static void print_run(const bench_run *run)
{
    int least = BENCH_SLICES_MAX, most = 0;

    for (size_t c = 0; c < run->cell_count; c++) {
        least = run->cells[c].slices < least ? run->cells[c].slices : least;
        most = run->cells[c].slices > most ? run->cells[c].slices : most;
    }
    if (run->cell_count > 0)
        printf("# slices of a cell: %d to %d; other programs worked for %.0f %% of the processors' "
               "time\n",
               least, most, run->disturbance * 100);
    for (size_t i = 0; i < run->note_count; i++)
        printf("# note: %s\n", run->notes[i]);
}

/* ---- times ----------------------------------------------------------------------------------- */

static size_t named(const bench_run *run, const bench_cell *cell, size_t ours)
{
    return bench_worker_named(run, cell, k_ours[ours]);
}

static double time_of(const bench_cell *cell, size_t worker)
{
    return worker == SIZE_MAX ? NAN : bench_time(cell, worker);
}

static double ratio_of(const bench_cell *cell, size_t worker, size_t other)
{
    return worker == SIZE_MAX || other == SIZE_MAX ? NAN : bench_ratio(cell, worker, other, NULL);
}

static void print_cell(const bench_run *run, const bench_cell *cell)
{
    size_t limit = bench_worker_named(run, cell, "limit");
    size_t best = bench_best_peer(run, cell, false);

    print_label(run, cell);
    for (size_t i = 0; i < OURS; i++)
        print_number(time_of(cell, named(run, cell, i)), 8);
    printf(" |");
    print_number(time_of(cell, best), 8);
    printf(" %-13s", best == SIZE_MAX ? "" : run->workers[best].subject->name);
    print_number(time_of(cell, limit), 8);
    printf(" |");
    for (size_t i = 0; i < OURS; i++) {
        bool threads = strcmp(k_ours[i], "serry_threads") == 0;
        print_ratio(ratio_of(cell, named(run, cell, i), bench_best_peer(run, cell, threads)), 8);
    }
    printf(" |");
    for (size_t i = 0; i < OURS; i++)
        print_number(ratio_of(cell, named(run, cell, i), limit), 8);
    putchar('\n');
}

/* The others have a place among the remarks. */
static bool is_collective(const bench_cell *cell)
{
    static const char *const k_others[] = {"send_recv", "overlap", "round_trip", "copy",
                                           "cross_copy"};

    for (size_t i = 0; i < sizeof k_others / sizeof *k_others; i++)
        if (strcmp(cell->operation, k_others[i]) == 0)
            return false;
    return true;
}

static void print_times(const bench_run *run, bool crowds)
{
    bool any = false;

    for (size_t c = 0; c < run->cell_count; c++) {
        const bench_cell *cell = &run->cells[c];
        if ((cell->ranks > 2) != crowds || !is_collective(cell))
            continue;
        if (!any) {
            printf(
                "\n%s: time of a call in us; ratio to the best peer (! = the peer is faster) and "
                "to the limit\n",
                crowds ? "More ranks (* = more than cores, OVERSUBSCRIBED)" : "Two ranks");
            printf("%-*s %8s %8s %8s | %8s %-13s %8s | %8s %8s %8s | %8s %8s %8s\n", LABEL, "",
                   "serry", "serry", "serry", "best", "", "the", "ratio", "ratio", "ratio",
                   "to limit", "to limit", "to limit");
            printf("%-*s %8s %8s %8s | %8s %-13s %8s | %8s %8s %8s | %8s %8s %8s\n", LABEL,
                   "operation", "private", "arena", "threads", "peer", "", "limit", "private",
                   "arena", "threads", "private", "arena", "threads");
        }
        any = true;
        print_cell(run, cell);
    }
}

/* ---- the peers one by one -------------------------------------------------------------------- */

static bool is_a_peer(const bench_run *run, const bench_subject *subject)
{
    for (size_t w = 0; w < run->worker_count; w++)
        if (run->workers[w].subject == subject && subject->role == BENCH_PEER)
            return true;
    return false;
}

static void print_peers(const bench_run *run)
{
    bool any = false;

    for (size_t i = 0; i < bench_subject_count; i++)
        any = any || is_a_peer(run, &bench_subjects[i]);
    if (!any)
        return;
    printf("\nThe peers: time of a call in us\n%-*s", LABEL, "operation");
    for (size_t i = 0; i < bench_subject_count; i++)
        if (is_a_peer(run, &bench_subjects[i]))
            printf(" %9s", bench_subjects[i].heading);
    putchar('\n');
    for (size_t c = 0; c < run->cell_count; c++) {
        const bench_cell *cell = &run->cells[c];
        if (bench_best_peer(run, cell, true) == SIZE_MAX)
            continue;
        print_label(run, cell);
        for (size_t i = 0; i < bench_subject_count; i++)
            if (is_a_peer(run, &bench_subjects[i]))
                print_number(time_of(cell, bench_worker_named(run, cell, bench_subjects[i].name)),
                             9);
        putchar('\n');
    }
}

/* ---- where we lose --------------------------------------------------------------------------- */

static bool print_loss(const bench_run *run, const bench_cell *cell, size_t ours, bool said)
{
    bool threads = strcmp(k_ours[ours], "serry_threads") == 0;
    size_t own = named(run, cell, ours), best = bench_best_peer(run, cell, threads);
    double range[2];
    char size[32];

    if (own == SIZE_MAX || best == SIZE_MAX)
        return false;
    double ratio = bench_ratio(cell, own, best, range);
    if (!(ratio >= k_slower))
        return false;
    if (said)
        printf("  %-14s %-19s %-8s %3d ranks: %.2f x %s (half of the slices: %.2f to %.2f)\n",
               k_ours[ours], cell->operation, bench_size_text(cell->bytes, size, sizeof size),
               cell->ranks, ratio, run->workers[best].subject->name, range[0], range[1]);
    return true;
}

void bench_print_losses(const bench_run *run)
{
    int losses = 0, compared = 0;

    for (size_t c = 0; c < run->cell_count; c++)
        for (size_t i = 0; i < OURS; i++) {
            bool threads = strcmp(k_ours[i], "serry_threads") == 0;
            size_t own = named(run, &run->cells[c], i);
            compared +=
                own != SIZE_MAX && bench_best_peer(run, &run->cells[c], threads) != SIZE_MAX;
            losses += print_loss(run, &run->cells[c], i, false);
        }
    if (compared == 0)
        return;
    printf("\nserry is slower than the best peer in %d of %d comparisons%s\n", losses, compared,
           losses > 0 ? ":" : "");
    for (size_t c = 0; c < run->cell_count; c++)
        for (size_t i = 0; i < OURS; i++)
            print_loss(run, &run->cells[c], i, true);
}

void bench_print_tables(const bench_run *run)
{
    print_run(run);
    print_times(run, false);
    print_times(run, true);
    print_peers(run);
}
