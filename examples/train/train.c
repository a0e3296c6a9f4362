/* train.c - ranks train one language model together: each takes a share of every batch, and
 * serry_allreduce sums the gradients. When a rank dies, or a replacement comes, the sum says so on all
 * others alike, nothing has been updated, and they do the step again (recover.c).
 *
 * Nothing random depends on time or on who does the work: window i of step s is the same for any
 * number of ranks. The sum's order is serry's (docs/reductions.md), so N process ranks and N thread
 * ranks end with the same bits. */
#include "train.h"

#include <serry/serry.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CURVE_POINTS 60      /* close together first, where the loss falls fastest */
#define HELDOUT_WINDOWS 4096 /* at most, evenly spread */

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
        return run_tell_serry(run->comm);
    if (run->rank != 0 && length > 0) {
        text->length = length;
        text->data = malloc(length);
        if (text->data == NULL)
            failed = problem_set(&run->problem, "rank %d has no memory for the text", run->rank);
    }
    int rc = run_agree(run, failed);
    if (rc != 0)
        return rc;
    if (serry_broadcast(text->data, length, SERRY_U8, 0, run->comm) != SERRY_OK)
        return run_tell_serry(run->comm);
    return 0;
}

/* Memory for gradient and sums; in the arena, if there is room, so that nothing is copied. */
int run_make_gradient(struct run *run)
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

    int rc = share_text(run);
    if (rc != 0)
        return rc;
    failed = text_prepare(&run->text, s->context, &run->problem) != 0 ||
             model_init(&run->model, run->text.symbols, s->context, s->hidden, s->seed,
                        &run->problem) != 0 ||
             run_make_gradient(run) != 0 ||
             (run->rank == 0 && report_open(&run->report, s, false, &run->problem) != 0);
    run->progress.measured = true;
    return run_agree(run, failed);
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

static void enter(struct run *run)
{
    run->entered_ns = run_now_ns();
}

static void come_out(struct run *run)
{
    run->progress.collective_ns += run_now_ns() - run->entered_ns;
}

/* Sum `count` numbers over the ranks, in place, and take the time. */
static int sum(struct run *run, float *numbers, size_t count)
{
    int rc;

    enter(run);
    rc = serry_allreduce(SERRY_IN_PLACE, numbers, count, SERRY_F32, SERRY_SUM, run->comm);
    come_out(run);
    run->progress.collectives++;
    return run_outcome(run, rc);
}

/* Let the sum of the upper layer's gradient and of the loss, which follows it, begin: this rank has
 * nothing to add to them any more, and goes on with the lower layer meanwhile. */
static int start_upper(struct run *run)
{
    size_t from = run->model.weights2;
    int rc;

    enter(run);
    rc = serry_iallreduce(SERRY_IN_PLACE, run->gradient + from,
                          run->model.parameters + SUM_TRAIN + 1 - from, SERRY_F32, SERRY_SUM,
                          run->comm, &run->upper);
    come_out(run);
    run->progress.collectives++;
    return run_outcome(run, rc);
}

/* The upper layer's sum has to be there before the lower one's begins: if it tells of a replacement,
 * that one waits to be told everything, and knows of no sum. */
static int finish_upper(struct run *run)
{
    int rc;

    enter(run);
    rc = serry_wait(&run->upper, -1);
    come_out(run);
    rc = run_outcome_of(run, rc, serry_request_error(run->upper));
    serry_request_free(&run->upper);
    return rc;
}

static int sum_gradient(struct run *run)
{
    if (run->upper == NULL)
        return sum(run, run->gradient, run->model.parameters + SUM_TRAIN + 1);
    int rc = finish_upper(run);
    return rc != 0 ? rc : sum(run, run->gradient, run->model.weights2);
}

/* The first of `total` things that the rank at this place among the living does, of all that are
 * divided among them. */
static size_t share(const struct run *run, int place, size_t total)
{
    return total * (size_t)place / (size_t)run->living;
}

/* This rank's part of the gradient and the loss of a step, over its share of the batch. */
static int step_gradient(struct run *run, int step)
{
    struct model *model = &run->model;
    const struct settings *s = run->settings;
    size_t next = share(run, run->place, (size_t)s->batch);
    size_t end = share(run, run->place + 1, (size_t)s->batch);

    memset(run->gradient, 0, (model->parameters + SUMS) * sizeof(float));
    if (s->overlap && next == end) /* more ranks than windows */
        return start_upper(run);
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
        if (s->overlap && next == end && start_upper(run) != 0)
            return -1;
        if (step == s->kill_step && run->rank == s->kill_rank && !run->replaces)
            run_kill(run);
        model_backward_lower(model, rows, run->gradient);
    }
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

static int train_step(struct run *run, int step)
{
    const struct settings *s = run->settings;
    struct progress *progress = &run->progress;
    float gone = (float)(step - 1) / (float)s->steps;
    float rate = s->rate * (1 - 0.95f * gone);
    float loss;
    int rc;

    run->begun_step_ns = run_now_ns();
    if (step_gradient(run, step) != 0)
        return -1;
    rc = sum_gradient(run);
    if (rc != 0)
        return rc;
    if (s->sgd)
        model_update_sgd(&run->model, run->gradient, s->batch, rate);
    else
        model_update_adam(&run->model, run->gradient, s->batch, rate, step);

    loss = run->gradient[run->model.parameters + SUM_TRAIN] / (float)s->batch;
    progress->train_loss = step == 1 ? loss : 0.9f * progress->train_loss + 0.1f * loss;
    progress->step = step;
    progress->measured = !point_due(s, step, &progress->points);
    return 0;
}

/* The loss on held-out text, each rank doing its share. */
static int measure_heldout(struct run *run)
{
    struct model *model = &run->model;
    size_t positions = run->text.heldout_positions;
    size_t windows = positions < HELDOUT_WINDOWS ? positions : HELDOUT_WINDOWS;
    size_t next = share(run, run->place, windows), end = share(run, run->place + 1, windows);
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
    int rc = sum(run, loss, 1);
    if (rc != 0)
        return rc;
    run->progress.heldout_loss = *loss / (float)windows;
    run->progress.measured = true;
    return 0;
}

static void show(struct run *run, bool point)
{
    run->progress.elapsed_ns = run_now_ns() - run->begun_ns;
    if (run->place != 0)
        return;
    if (point)
        report_point(&run->report, &run->progress);
    if (run->progress.measured)
        report_progress(&run->report, &run->progress);
}

/* What comes next is in `progress`, which a replacement gets from the others. */
static int train(struct run *run)
{
    struct progress *progress = &run->progress;

    while (progress->step < run->settings->steps || !progress->measured) {
        bool measure = !progress->measured;
        int rc = measure ? measure_heldout(run) : train_step(run, progress->step + 1);
        if (rc == RUN_CHANGED)
            rc = run_recover(run);
        else if (rc == 0)
            show(run, measure);
        if (rc != 0)
            return -1;
    }
    return 0;
}

/* ---- a rank's life ------------------------------------------------------------------------ */

/* A rank that is there from the beginning, or a replacement, to which the others tell everything. */
static int begin(struct run *run)
{
    if (run->replaces)
        return run_recover(run);
    int rc = prepare(run);
    if (rc != 0)
        return rc == RUN_CHANGED ? run_tell_serry(run->comm) : rc;
    if (run->rank == 0)
        report_heading(&run->report, &run->text, &run->model, run->size);
    run->begun_ns = run_now_ns();
    return 0;
}

static int finish(struct run *run)
{
    int rc;

    do
        rc = run_compare_parameters(run);
    while (rc == RUN_CHANGED && (rc = run_recover(run)) == 0);
    if (rc != 0 || run->place != 0)
        return rc;
    rc = report_finish(&run->report, &run->progress, &run->model, &run->text, run->living,
                       &run->problem);
    return rc == 0 ? 0 : run_tell(run->problem.text);
}

/* All that one rank does. 0, or 1 where something failed, which has been told. */
static int rank_body(serry_comm *comm, void *argument)
{
    struct run run = {.comm = comm, .settings = argument};
    int failed;

    run.rank = run.place = serry_rank(comm);
    run.size = run.living = serry_size(comm);
    run.replaces = run.ignorant = serry_epoch(comm) > 0; /* the membership has changed already */
    failed = begin(&run) != 0 || train(&run) != 0 || finish(&run) != 0;
    clean_up(&run);
    return failed;
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
            run_tell("--threads makes thread ranks, but these are process ranks already; leave out "
                     "--threads, or start one process");
        return 1;
    }
    leave();
    failed = serry_run_threads(settings->threads, rank_body, settings);
    if (failed < 0)
        run_tell_serry(NULL);
    return failed != 0;
}

int main(int argc, char **argv)
{
    char *no_files[] = {NULL};
    struct settings settings = {
        .files = no_files, .steps = 3000, .batch = 256, .context = 12, .hidden = 340, .seed = 1};

    if (serry_init(NULL, &world) != SERRY_OK) {
        run_tell_serry(NULL);
        return 1;
    }
    atexit(leave);
    options_parse(argc, argv, serry_rank(world), &settings);
    return settings.threads > 0 ? run_threads(&settings) : rank_body(world, &settings);
}
