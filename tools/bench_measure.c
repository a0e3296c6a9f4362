/* bench_measure.c - slice after slice: all workers of a cell in turn, each time in another order; all
 * cells in a pass; passes until the time is over. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

enum { BAR_WIDTH = 24 };

static const double k_slice_most_s = 0.02, k_slice_least_s = 0.001;

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- progress -------------------------------------------------------------------------------- */

static void print_bar(double done)
{
    int filled = (int)(done * BAR_WIDTH);

    fputc('[', stderr);
    for (int i = 0; i < BAR_WIDTH; i++)
        fputc(i < filled ? '#' : '.', stderr);
    fprintf(stderr, "] %2.0f %%  ", done * 100);
}

void bench_progress(double done, double seconds_left, const char *format, ...)
{
    va_list arguments;

    if (!isatty(STDERR_FILENO))
        return;
    fputs("\r\033[K", stderr);
    if (done >= 0)
        print_bar(done < 1 ? done : 1);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    if (done >= 0)
        fprintf(stderr, "; about %d min %02d s left", (int)seconds_left / 60,
                (int)seconds_left % 60);
    fflush(stderr);
}

void bench_progress_end(void)
{
    if (isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
}

/* ---- the share of others ---------------------------------------------------------------------- */

/* Seconds that all processors have worked since the machine started. */
static double busy_s(void)
{
    unsigned long long user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, soft = 0;
    FILE *file = fopen("/proc/stat", "re");

    if (file != NULL && fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice,
                               &system, &idle, &wait, &irq, &soft) != 7)
        user = 0;
    if (file != NULL)
        fclose(file);
    return (double)(user + nice + system + irq + soft) / (double)sysconf(_SC_CLK_TCK);
}

static double of_rusage(int who)
{
    struct rusage used;

    getrusage(who, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

/* What others have worked, up to a constant: known when all children have ended. */
static double others_s(void)
{
    return busy_s() - of_rusage(RUSAGE_SELF) - of_rusage(RUSAGE_CHILDREN);
}

/* ---- slices ----------------------------------------------------------------------------------- */

static void take_slices(bench_run *run, bench_cell *cell, double seconds)
{
    size_t count = run->worker_count;

    for (size_t i = 0; i < count && cell->slices < BENCH_SLICES_MAX; i++) {
        size_t turn = cell->slices % 2 == 0 ? i : count - 1 - i;
        size_t w = (turn + (size_t)cell->slices / 2) % count;
        if (cell->samples[w] == NULL)
            continue;
        bench_worker *worker = &run->workers[w];
        const char *operation = bench_asked_for(worker->subject, cell->operation, cell->bytes);
        size_t bytes = strcmp(operation, "barrier") == 0 ? 0 : cell->bytes;
        cell->samples[w][cell->slices] =
            bench_ask(run, worker, operation, bytes, seconds, cell->slices == 0);
    }
    if (cell->slices < BENCH_SLICES_MAX)
        cell->slices++;
}

/* So short that the first pass takes half the time at most, where that can be. */
static double slice_s(const bench_run *run)
{
    double slices = 0;

    for (size_t c = 0; c < run->cell_count; c++)
        for (size_t w = 0; w < run->worker_count; w++)
            slices += run->cells[c].samples[w] != NULL ? run->cells[c].per_pass : 0;
    double seconds = run->options.seconds / 2 / (slices > 0 ? slices : 1);
    return seconds > k_slice_most_s    ? k_slice_most_s
           : seconds < k_slice_least_s ? k_slice_least_s
                                       : seconds;
}

static void say_where(const bench_run *run, const bench_cell *cell, double begun_s)
{
    double taken = now_s() - begun_s, all = run->options.seconds;
    double part = (double)(cell - run->cells) / (double)run->cell_count;
    char size[32];

    if (run->passes == 0 && part > 0.1 && taken / part > all)
        all = taken / part; /* one pass there is in any case */
    bench_size_text(cell->bytes, size, sizeof size);
    bench_progress(taken / all, all > taken ? all - taken : 0, "%s%s%s, %d ranks", cell->operation,
                   size[0] != '\0' ? " " : "", size, cell->ranks);
}

/* False: the time is over, or there is no room for more slices. */
static bool make_pass(bench_run *run, double seconds, double begun_s)
{
    for (size_t c = 0; c < run->cell_count; c++) {
        if (run->passes > 0 && now_s() - begun_s >= run->options.seconds)
            return false;
        say_where(run, &run->cells[c], begun_s);
        for (int i = 0; i < run->cells[c].per_pass; i++)
            take_slices(run, &run->cells[c], seconds);
    }
    run->passes++;
    return run->cell_count > 0 && run->cells[0].slices < BENCH_SLICES_MAX &&
           now_s() - begun_s < run->options.seconds;
}

void bench_measure(bench_run *run)
{
    double others = others_s(), started_s = now_s();

    for (size_t w = 0; w < run->worker_count; w++) {
        bench_progress(-1, 0, "starting %s, %d ranks", run->workers[w].subject->name,
                       run->workers[w].ranks);
        bench_start(run, &run->workers[w]);
    }
    bench_plan_samples(run);
    double seconds = slice_s(run), begun_s = now_s();
    while (make_pass(run, seconds, begun_s))
        continue;
    bench_end(run);
    double elapsed = (now_s() - started_s) * (double)sysconf(_SC_NPROCESSORS_ONLN);
    double share = (others_s() - others) / elapsed;
    run->disturbance = share > 0 ? share : 0;
}
