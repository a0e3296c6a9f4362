/* report.c - what rank 0 tells: progress on a terminal or in a log, the curve, the result. */
#include "train.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SAMPLE_CHARACTERS 400
#define SAMPLE_TEMPERATURE 0.7f
#define REDRAW_NS UINT64_C(100000000)
#define WIDE_COLUMNS 120 /* a terminal from here on gets the long form */
#define MAX_BAR 40

/* ---- files -------------------------------------------------------------------------------- */

static FILE *open_in_folder(const char *folder, const char *name, const char *mode,
                            struct problem *problem)
{
    char path[4096];
    FILE *file;

    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path) {
        problem_set(problem, "the name of the folder for results is too long");
        return NULL;
    }
    file = fopen(path, mode);
    if (file == NULL)
        problem_set(problem, "cannot write %s: %s", path, strerror(errno));
    return file;
}

/* Close a file that was written, NULL allowed; -1 and the problem where not all of it was. */
static int close_written(FILE *file, const char *folder, const char *name, struct problem *problem)
{
    bool failed;

    if (file == NULL)
        return 0;
    failed = ferror(file) != 0;
    failed = fclose(file) != 0 || failed;
    return failed ? problem_set(problem, "cannot write %s/%s: %s", folder, name, strerror(errno))
                  : 0;
}

int report_open(struct report *report, const struct settings *settings, bool go_on,
                struct problem *problem)
{
    memset(report, 0, sizeof *report);
    report->settings = settings;
    report->terminal = isatty(STDERR_FILENO) == 1;
    if (settings->out == NULL)
        return 0;
    if (mkdir(settings->out, 0777) != 0 && errno != EEXIST)
        return problem_set(problem, "cannot make the folder %s: %s", settings->out,
                           strerror(errno));
    report->curve = open_in_folder(settings->out, "curve.csv", go_on ? "a" : "w", problem);
    if (report->curve == NULL)
        return -1;
    report->events = open_in_folder(settings->out, "events.csv", go_on ? "a" : "w", problem);
    if (report->events == NULL) {
        report_close(report);
        return -1;
    }
    if (!go_on) {
        FILE *killed = open_in_folder(settings->out, "killed", "w", problem); /* nobody, so far */
        if (killed != NULL)
            fclose(killed);
        fprintf(report->curve, "step,seconds,train_loss,heldout_loss\n");
        fprintf(report->events, "step,seconds,event,rank\n");
    }
    return 0;
}

void report_close(struct report *report)
{
    if (report->curve != NULL)
        fclose(report->curve);
    report->curve = NULL;
    if (report->events != NULL)
        fclose(report->events);
    report->events = NULL;
}

void report_event(struct report *report, const struct progress *progress, const char *event,
                  int rank, const char *format, ...)
{
    char line[400];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (!report->settings->quiet)
        fprintf(stderr, "%s%s\n", report->terminal ? "\n" : "", line);
    if (report->events != NULL) {
        fprintf(report->events, "%d,%.3f,%s,%d\n", progress->step,
                (double)progress->elapsed_ns * 1e-9, event, rank);
        fflush(report->events);
    }
}

void report_point(struct report *report, const struct progress *progress)
{
    if (report->curve == NULL)
        return;
    fprintf(report->curve, "%d,%.3f,%.5f,%.5f\n", progress->step,
            (double)progress->elapsed_ns * 1e-9, (double)progress->train_loss,
            (double)progress->heldout_loss);
    fflush(report->curve); /* another rank may have to go on with it */
}

/* ---- before and during the training ------------------------------------------------------- */

void report_heading(const struct report *report, const struct text *text, const struct model *model,
                    int ranks)
{
    const struct settings *s = report->settings;

    if (s->quiet)
        return;
    printf("text   %zu characters in %d %s, %d different; every tenth block of %zu held out\n",
           text->length, text->files, text->files == 1 ? "file" : "files", text->symbols,
           text->block);
    printf("model  %zu parameters: context %d, embedding %d, hidden %d; %s, rate %g\n",
           model->parameters, s->context, MODEL_EMBEDDING, s->hidden,
           s->sgd ? "gradient descent" : "Adam", (double)s->rate);
    printf("work   %d steps of %d characters over %d %s %s, seed %llu\n", s->steps, s->batch, ranks,
           s->threads ? "thread" : "process", ranks == 1 ? "rank" : "ranks",
           (unsigned long long)s->seed);
    fflush(stdout);
}

static int columns(void)
{
    struct winsize size;

    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
}

/* Where the training stands, in one line. */
static void describe(const struct report *report, const struct progress *p, bool wide, char *line,
                     size_t size)
{
    const struct settings *s = report->settings;
    double seconds = (double)p->elapsed_ns * 1e-9, collective = (double)p->collective_ns * 1e-9;
    double per_second = seconds > 0 ? (double)p->step * s->batch / seconds : 0;
    double share = seconds > 0 ? 100 * collective / seconds : 0;
    double left = seconds / p->step * (s->steps - p->step);

    if (wide)
        snprintf(line, size,
                 "%3.0f %%  step %d/%d  loss %.3f  held-out %.3f  %.0f characters/s  "
                 "in collectives %.0f %%, %.2f ms a step  %.0f s left",
                 100.0 * p->step / s->steps, p->step, s->steps, (double)p->train_loss,
                 (double)p->heldout_loss, per_second, share, 1e3 * collective / p->step, left);
    else
        snprintf(line, size,
                 "%3.0f %% loss %.2f held-out %.2f %.0fk char/s collectives %.0f %% %.0f s left",
                 100.0 * p->step / s->steps, (double)p->train_loss, (double)p->heldout_loss,
                 per_second * 1e-3, share, left);
}

static void draw_bar(const struct report *report, const struct progress *progress)
{
    char line[256], bar[MAX_BAR + 1] = "";
    int width = columns() - 1, room, filled;

    describe(report, progress, width >= WIDE_COLUMNS, line, sizeof line);
    room = width - (int)strlen(line) - 3;
    if (room > MAX_BAR)
        room = MAX_BAR;
    if (room < 1) {
        fprintf(stderr, "\r%-*.*s", width, width, line);
        return;
    }
    filled = (int)((long long)room * progress->step / report->settings->steps);
    memset(bar, '#', (size_t)filled);
    memset(bar + filled, '.', (size_t)(room - filled));
    bar[room] = '\0';
    fprintf(stderr, "\r[%s] %-*s", bar, width - room - 3, line);
}

/* Has the training just passed another twentieth of its steps? */
static bool passed_twentieth(const struct progress *progress, int steps)
{
    long long step = progress->step;

    return step * 20 / steps != (step - 1) * 20 / steps;
}

void report_progress(struct report *report, const struct progress *progress)
{
    int steps = report->settings->steps;
    char line[256];

    if (report->settings->quiet)
        return;
    if (!report->terminal) {
        if (passed_twentieth(progress, steps)) {
            describe(report, progress, true, line, sizeof line);
            fprintf(stderr, "%s\n", line);
        }
        return;
    }
    if (progress->step > 1 && progress->step < steps &&
        progress->elapsed_ns - report->drawn_ns < REDRAW_NS)
        return;
    report->drawn_ns = progress->elapsed_ns;
    draw_bar(report, progress);
    if (progress->step == steps)
        fputc('\n', stderr);
}

/* ---- after it ----------------------------------------------------------------------------- */

/* A symbol after the first window, by the model's probabilities to the power 1/temperature. */
static int choose_symbol(const struct model *model, uint64_t random)
{
    float weight[TRAIN_MAX_SYMBOLS], sum = 0;
    float left = (float)(random >> 40) * 0x1p-24f;
    int symbol = 0;

    for (int j = 0; j < model->symbols; j++) {
        weight[j] = powf(model->output[j], 1 / SAMPLE_TEMPERATURE);
        sum += weight[j];
    }
    left *= sum;
    while (symbol < model->symbols - 1 && left >= weight[symbol])
        left -= weight[symbol++];
    return symbol;
}

/* The first held-out target that follows an empty line, so that a paragraph begins there; the very
 * first one where there is none. */
static size_t sample_start(const struct text *text)
{
    for (size_t i = 0; i < text->heldout_positions && text->context >= 2; i++) {
        const unsigned char *target = text->data + text_heldout_target(text, i);
        if (text->byte_of[target[-1]] == '\n' && text->byte_of[target[-2]] == '\n')
            return i;
    }
    return 0;
}

/* Let the model go on after a held-out window. `sample` has SAMPLE_CHARACTERS + 1 bytes; what could
 * confuse a terminal becomes a space. */
static void write_sample(struct model *model, const struct text *text, uint64_t seed, char *sample)
{
    size_t context = text->context;
    unsigned char *window = malloc(context + 1);

    sample[0] = '\0';
    if (window == NULL)
        return;
    memcpy(window, text->data + text_heldout_target(text, sample_start(text)) - context, context);
    for (size_t i = 0; i < SAMPLE_CHARACTERS; i++) {
        model->window[0] = window;
        model_forward(model, 1);
        window[context] = (unsigned char)choose_symbol(model, model_random(seed, STREAM_SAMPLE, i));
        unsigned char byte = text->byte_of[window[context]];
        sample[i] = (char)((byte < 0x20 && byte != '\n') || byte == 0x7f ? ' ' : byte);
        sample[i + 1] = '\0';
        memmove(window, window + 1, context);
    }
    free(window);
}

static void print_sample(const char *sample)
{
    printf("\nThe model writes:\n\n    ");
    for (; *sample != '\0'; sample++) {
        putchar(*sample);
        if (*sample == '\n')
            fputs("    ", stdout);
    }
    fputs("\n\n", stdout);
}

/* The same lines on the terminal and in the folder. */
static void print_result(FILE *file, const struct progress *p, uint64_t hash, int ranks)
{
    double seconds = (double)p->elapsed_ns * 1e-9, collective = (double)p->collective_ns * 1e-9;

    fprintf(file, "loss        %.4f in training, %.4f held out (nats per character)\n",
            (double)p->train_loss, (double)p->heldout_loss);
    fprintf(file,
            "time        %.1f s, of it %.1f s (%.0f %%) in %llu collectives, waits included\n",
            seconds, collective, seconds > 0 ? 100 * collective / seconds : 0.0,
            (unsigned long long)p->collectives);
    fprintf(file, "parameters  0x%016llx on %s\n", (unsigned long long)hash,
            ranks == 1 ? "the only rank" : "all ranks");
}

/* sample.txt and result.txt; and the curve is complete. */
static int write_folder(struct report *report, const struct progress *progress, const char *sample,
                        uint64_t hash, int ranks, struct problem *problem)
{
    const char *folder = report->settings->out;
    FILE *curve = report->curve, *file;

    report->curve = NULL;
    if (close_written(curve, folder, "curve.csv", problem) != 0)
        return -1;
    file = open_in_folder(folder, "sample.txt", "w", problem);
    if (file == NULL)
        return -1;
    fprintf(file, "%s\n", sample);
    if (close_written(file, folder, "sample.txt", problem) != 0)
        return -1;
    file = open_in_folder(folder, "result.txt", "w", problem);
    if (file == NULL)
        return -1;
    print_result(file, progress, hash, ranks);
    return close_written(file, folder, "result.txt", problem);
}

int report_finish(struct report *report, const struct progress *progress, struct model *model,
                  const struct text *text, int ranks, struct problem *problem)
{
    char sample[SAMPLE_CHARACTERS + 1];
    uint64_t hash = model_hash(model);

    write_sample(model, text, report->settings->seed, sample);
    if (!report->settings->quiet)
        print_sample(sample);
    print_result(stdout, progress, hash, ranks);
    if (fflush(stdout) != 0)
        return problem_set(problem, "cannot write the result: %s", strerror(errno));
    return report->settings->out == NULL
               ? 0
               : write_folder(report, progress, sample, hash, ranks, problem);
}
