/* train.c - ranks train one language model together: each takes a share of every batch, and
 * serry_allreduce sums the gradients.
 *
 * Nothing random depends on time or on who does the work: window i of step s is the same for any
 * number of ranks. The sum's order is serry's (docs/reductions.md), so N process ranks and N thread
 * ranks end with the same bits. */
#include "train.h"

#include <argp.h>
#include <errno.h>
#include <serry/serry.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CURVE_POINTS 60      /* close together first, where the loss falls fastest */
#define HELDOUT_WINDOWS 4096 /* at most, evenly spread */

/* Numbers that follow the gradient in the memory that ranks share. */
enum { SUM_TRAIN, SUM_HELDOUT, SUMS };

/* One rank's training. */
struct run {
    serry_comm *comm;
    const struct settings *settings;
    int rank, size;
    struct text text;
    struct model model;
    struct report report; /* rank 0 */
    struct progress progress;
    uint64_t begun_ns;
    float *gradient; /* parameters + SUMS numbers; owned by the communicator or by malloc */
    bool in_arena;
    struct problem problem;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- problems are told once --------------------------------------------------------------- */

static int tell(const char *text)
{
    fprintf(stderr, "train: %s\n", text);
    return -1;
}

/* Tell the last error of the communicator (NULL: of a call without one). Where other ranks see the
 * same, the lowest that is not at fault speaks for all; where all are, rank 0. */
static int tell_serry(const serry_comm *comm)
{
    const serry_error *error = serry_last_error(comm);
    int speaker = 0;

    while (serry_rank_set_has(&error->ranks, speaker))
        speaker++;
    if (comm != NULL && speaker >= serry_size(comm))
        speaker = 0;
    if (serry_error_scope(error->error) == SERRY_SCOPE_COMM && error->rank >= 0 &&
        error->rank != speaker)
        return -1;
    return tell(error->message);
}

/* All ranks learn whether one has a problem; the lowest that has tells its own. Returns -1 on all
 * ranks alike if so. */
static int agree(struct run *run, int failed)
{
    int32_t first = failed ? run->size - run->rank : 0;

    if (serry_allreduce(SERRY_IN_PLACE, &first, 1, SERRY_I32, SERRY_MAX, run->comm) != SERRY_OK)
        return tell_serry(run->comm);
    if (first == 0)
        return 0;
    return first == run->size - run->rank ? tell(run->problem.text) : -1;
}

/* ---- before the training ------------------------------------------------------------------ */

/* Rank 0 reads the text, the others get it from there. */
static int share_text(struct run *run)
{
    struct text *text = &run->text;
    uint64_t length = 0;
    int failed = 0;

    if (run->rank == 0) {
        failed = text_read(text, run->settings->files, &run->problem);
        length = text->length;
    }
    if (serry_broadcast(&length, 1, SERRY_U64, 0, run->comm) != SERRY_OK)
        return tell_serry(run->comm);
    if (run->rank != 0 && length > 0) {
        text->length = length;
        text->data = malloc(length);
        if (text->data == NULL)
            failed = problem_set(&run->problem, "rank %d has no memory for the text", run->rank);
    }
    if (agree(run, failed) != 0)
        return -1;
    if (serry_broadcast(text->data, length, SERRY_U8, 0, run->comm) != SERRY_OK)
        return tell_serry(run->comm);
    return 0;
}

/* Memory for gradient and sums; in the arena, if there is room, so that nothing is copied. */
static int make_gradient(struct run *run)
{
    size_t bytes = (run->model.parameters + SUMS) * sizeof(float);

    run->gradient = serry_alloc(run->comm, bytes);
    run->in_arena = run->gradient != NULL;
    if (!run->in_arena)
        run->gradient = malloc(bytes);
    return run->gradient != NULL
               ? 0
               : problem_set(&run->problem, "rank %d has no memory for the gradient", run->rank);
}

static int prepare(struct run *run)
{
    const struct settings *s = run->settings;
    int failed;

    if (share_text(run) != 0)
        return -1;
    failed = text_prepare(&run->text, s->context, &run->problem) != 0 ||
             model_init(&run->model, run->text.symbols, s->context, s->hidden, s->seed,
                        &run->problem) != 0 ||
             make_gradient(run) != 0 ||
             (run->rank == 0 && report_open(&run->report, s, &run->problem) != 0);
    return agree(run, failed);
}

static void clean_up(struct run *run)
{
    if (run->in_arena)
        serry_free(run->comm, run->gradient);
    else
        free(run->gradient);
    model_free(&run->model);
    text_free(&run->text);
    report_close(&run->report);
}

/* ---- the training ------------------------------------------------------------------------- */

/* Sum `count` numbers over the ranks, in place, and take the time. */
static int sum(struct run *run, float *numbers, size_t count)
{
    uint64_t begun = now_ns();

    if (serry_allreduce(SERRY_IN_PLACE, numbers, count, SERRY_F32, SERRY_SUM, run->comm) !=
        SERRY_OK)
        return tell_serry(run->comm);
    run->progress.collective_ns += now_ns() - begun;
    run->progress.collectives++;
    return 0;
}

/* The first of `total` things that this rank does, of all that are divided among the ranks. */
static size_t share(const struct run *run, int rank, size_t total)
{
    return total * (size_t)rank / (size_t)run->size;
}

/* This rank's part of the gradient and the loss of a step, over its share of the batch. */
static void step_gradient(struct run *run, int step)
{
    struct model *model = &run->model;
    const struct settings *s = run->settings;
    size_t next = share(run, run->rank, (size_t)s->batch);
    size_t end = share(run, run->rank + 1, (size_t)s->batch);

    memset(run->gradient, 0, (model->parameters + SUMS) * sizeof(float));
    while (next < end) {
        int rows = 0;
        for (; rows < MODEL_ROWS && next < end; rows++, next++) {
            uint64_t random = model_random(s->seed, STREAM_STEP + (uint64_t)step, next);
            size_t target = text_train_target(&run->text, random % run->text.train_positions);
            model->window[rows] = run->text.data + target - run->text.context;
        }
        model_forward(model, rows);
        run->gradient[model->parameters + SUM_TRAIN] += model_loss(model, rows);
        model_backward_upper(model, rows, run->gradient);
        model_backward_lower(model, rows, run->gradient);
    }
}

static int train_step(struct run *run, int step)
{
    const struct settings *s = run->settings;
    struct progress *progress = &run->progress;
    float gone = (float)(step - 1) / (float)s->steps;
    float rate = s->rate * (1 - 0.95f * gone);
    float loss;

    step_gradient(run, step);
    if (sum(run, run->gradient, run->model.parameters + SUM_TRAIN + 1) != 0)
        return -1;
    if (s->sgd)
        model_update_sgd(&run->model, run->gradient, s->batch, rate);
    else
        model_update_adam(&run->model, run->gradient, s->batch, rate, step);

    loss = run->gradient[run->model.parameters + SUM_TRAIN] / (float)s->batch;
    progress->train_loss = step == 1 ? loss : 0.9f * progress->train_loss + 0.1f * loss;
    progress->step = step;
    return 0;
}

/* The loss on held-out text, each rank doing its share. */
static int measure_heldout(struct run *run)
{
    struct model *model = &run->model;
    size_t positions = run->text.heldout_positions;
    size_t windows = positions < HELDOUT_WINDOWS ? positions : HELDOUT_WINDOWS;
    size_t next = share(run, run->rank, windows), end = share(run, run->rank + 1, windows);
    float *loss = run->gradient + model->parameters + SUM_HELDOUT;

    *loss = 0;
    while (next < end) {
        int rows = 0;
        for (; rows < MODEL_ROWS && next < end; rows++, next++) {
            size_t target = text_heldout_target(&run->text, next * positions / windows);
            model->window[rows] = run->text.data + target - run->text.context;
        }
        model_forward(model, rows);
        *loss += model_loss(model, rows);
    }
    if (sum(run, loss, 1) != 0)
        return -1;
    run->progress.heldout_loss = *loss / (float)windows;
    return 0;
}

/* Is a point of the curve due after this step? Points go with the square of the step. */
static bool point_due(const struct settings *settings, int step, int *points)
{
    int before = *points;

    while (*points <= CURVE_POINTS && (long long)*points * *points * settings->steps <=
                                          (long long)step * CURVE_POINTS * CURVE_POINTS)
        ++*points;
    return *points > before || step == settings->steps;
}

static int train(struct run *run)
{
    int points = 0;

    if (run->rank == 0)
        report_heading(&run->report, &run->text, &run->model, run->size);
    run->begun_ns = now_ns();
    for (int step = 1; step <= run->settings->steps; step++) {
        bool due = point_due(run->settings, step, &points);
        if (train_step(run, step) != 0 || (due && measure_heldout(run) != 0))
            return -1;
        run->progress.elapsed_ns = now_ns() - run->begun_ns;
        if (run->rank == 0 && due)
            report_point(&run->report, &run->progress);
        if (run->rank == 0)
            report_progress(&run->report, &run->progress);
    }
    return 0;
}

/* Have all ranks the same parameters? If not, this is a fault of the program or of serry. */
static int compare_parameters(struct run *run)
{
    uint64_t hash = model_hash(&run->model), least = hash, most = hash;

    if (serry_allreduce(&hash, &least, 1, SERRY_U64, SERRY_MIN, run->comm) != SERRY_OK ||
        serry_allreduce(&hash, &most, 1, SERRY_U64, SERRY_MAX, run->comm) != SERRY_OK)
        return tell_serry(run->comm);
    return agree(run,
                 least == most ? 0 : problem_set(&run->problem, "the ranks' parameters differ"));
}

/* All that one rank does. 0, or 1 where something failed, which has been told. */
static int rank_body(serry_comm *comm, void *argument)
{
    struct run run = {.comm = comm, .settings = argument};
    int failed;

    run.rank = serry_rank(comm);
    run.size = serry_size(comm);
    failed = prepare(&run) != 0 || train(&run) != 0 || compare_parameters(&run) != 0;
    if (!failed && run.rank == 0 &&
        report_finish(&run.report, &run.progress, &run.model, &run.text, run.size, &run.problem) !=
            0)
        failed = tell(run.problem.text) != 0;
    clean_up(&run);
    return failed;
}

/* ---- command line ------------------------------------------------------------------------- */

const char *argp_program_version = "train (serry " SERRY_VERSION ")";

enum { OPT_STEPS = 256, OPT_BATCH, OPT_CONTEXT, OPT_HIDDEN, OPT_SEED, OPT_SGD, OPT_RATE };

static const struct argp_option k_options[] = {
    {"steps", OPT_STEPS, "N", 0, "steps to train", 0},
    {"batch", OPT_BATCH, "N", 0, "characters predicted per step, over all ranks", 0},
    {"context", OPT_CONTEXT, "N", 0, "characters that a prediction looks back", 0},
    {"hidden", OPT_HIDDEN, "N", 0, "units of the hidden layer", 0},
    {"seed", OPT_SEED, "N", 0, "where the random choices begin", 0},
    {"sgd", OPT_SGD, NULL, 0, "plain gradient descent instead of Adam", 0},
    {"rate", OPT_RATE, "X", 0, "learning rate of the first step", 0},
    {"threads", 't', "N", 0, "N thread ranks in this process, rather than process ranks", 0},
    {"out", 'o', "DIR", 0, "write curve.csv, sample.txt and result.txt there", 0},
    {"quiet", 'q', NULL, 0, "print the result alone", 0},
    {NULL, 0, NULL, 0, NULL, 0}};

static int parse_count(struct argp_state *state, const char *option, const char *value, int most)
{
    char *end;
    long count;

    errno = 0;
    count = strtol(value, &end, 10);
    if (errno != 0 || end == value || *end != '\0' || count < 1 || count > most)
        argp_error(state, "--%s: '%s' is not a whole number from 1 to %d", option, value, most);
    return (int)count;
}

static uint64_t parse_seed(struct argp_state *state, const char *value)
{
    char *end;
    uint64_t seed;

    errno = 0;
    seed = strtoull(value, &end, 10);
    if (errno != 0 || end == value || *end != '\0' || strchr(value, '-') != NULL)
        argp_error(state, "--seed: '%s' is not a whole number from 0 to 2^64 - 1", value);
    return seed;
}

static float parse_rate(struct argp_state *state, const char *value)
{
    char *end;
    float rate = strtof(value, &end);

    if (end == value || *end != '\0' || !(rate > 0 && rate <= 100))
        argp_error(state, "--rate: '%s' is not a number above 0 and up to 100", value);
    return rate;
}

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    struct settings *s = state->input;

    switch (key) {
    case OPT_STEPS:
        s->steps = parse_count(state, "steps", value, 10000000);
        break;
    case OPT_BATCH:
        s->batch = parse_count(state, "batch", value, 1000000);
        break;
    case OPT_CONTEXT:
        s->context = parse_count(state, "context", value, 1000);
        break;
    case OPT_HIDDEN:
        s->hidden = parse_count(state, "hidden", value, 10000);
        break;
    case OPT_SEED:
        s->seed = parse_seed(state, value);
        break;
    case OPT_SGD:
        s->sgd = true;
        break;
    case OPT_RATE:
        s->rate = parse_rate(state, value);
        break;
    case 't':
        s->threads = parse_count(state, "threads", value, (int)SERRY_MAX_RANKS);
        break;
    case 'o':
        s->out = value;
        break;
    case 'q':
        s->quiet = true;
        break;
    case ARGP_KEY_ARGS:
        s->files = state->argv + state->next;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp k_argp = {
    k_options,
    parse_option,
    "[FILE...]",
    "Train a small language model, character by character, on text files (without any: those "
    "in " TRAIN_DEFAULT_TEXTS "), with every rank working on a part of each batch.\v"
    "Start process ranks with `serry run -n 4 train`, thread ranks with `train --threads 4`: both "
    "end with the same bits.",
    NULL,
    NULL,
    NULL};

/* Fill the settings, or end the program: with status 0 after --help, 1 after an error. Only rank 0
 * prints. */
static void parse(int argc, char **argv, int rank, struct settings *settings)
{
    FILE *out = stdout, *err = stderr, *nowhere = rank == 0 ? NULL : fopen("/dev/null", "w");

    if (nowhere != NULL)
        stdout = stderr = nowhere;
    argp_err_exit_status = 1;
    argp_parse(&k_argp, argc, argv, 0, NULL, settings);
    stdout = out;
    stderr = err;
    if (nowhere != NULL)
        fclose(nowhere);
    if (settings->rate == 0)
        settings->rate = settings->sgd ? 1.0f : 0.006f;
}

/* ---- start and end ------------------------------------------------------------------------ */

static serry_comm *world; /* so that a rank leaves in order wherever it exits */

static void leave(void)
{
    serry_finalize(&world);
}

static int run_threads(struct settings *settings)
{
    int failed;

    if (serry_size(world) > 1) {
        if (serry_rank(world) == 0)
            tell("--threads makes thread ranks, but these are process ranks already; leave out "
                 "--threads, or start one process");
        return 1;
    }
    leave();
    failed = serry_run_threads(settings->threads, rank_body, settings);
    if (failed < 0)
        tell_serry(NULL);
    return failed != 0;
}

int main(int argc, char **argv)
{
    char *no_files[] = {NULL};
    struct settings settings = {
        .files = no_files, .steps = 3000, .batch = 256, .context = 12, .hidden = 340, .seed = 1};

    if (serry_init(NULL, &world) != SERRY_OK) {
        tell_serry(NULL);
        return 1;
    }
    atexit(leave);
    parse(argc, argv, serry_rank(world), &settings);
    return settings.threads > 0 ? run_threads(&settings) : rank_body(world, &settings);
}
