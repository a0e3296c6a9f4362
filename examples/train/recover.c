/* recover.c - what ranks tell each other beside numbers: problems, who lives, and, to a replacement,
 * everything. */
#include "train.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t run_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- problems are told once --------------------------------------------------------------- */

int run_tell(const char *text)
{
    fprintf(stderr, "train: %s\n", text);
    return -1;
}

/* Where other ranks see the same, the lowest that is not at fault speaks for all; where all are,
 * rank 0. */
static int tell_error(const serry_error *error, const serry_comm *comm)
{
    int speaker = 0;

    while (serry_rank_set_has(&error->ranks, speaker))
        speaker++;
    if (comm != NULL && speaker >= serry_size(comm))
        speaker = 0;
    if (serry_error_scope(error->error) == SERRY_SCOPE_COMM && error->rank >= 0 &&
        error->rank != speaker)
        return -1;
    return run_tell(error->message);
}

/* Tell the last error of the communicator (NULL: of a call without one). */
int run_tell_serry(const serry_comm *comm)
{
    return tell_error(serry_last_error(comm), comm);
}

int run_outcome_of(struct run *run, int result, const serry_error *error)
{
    if (result == SERRY_OK)
        return 0;
    if (result != SERRY_ERR_RANK_FAILED && result != SERRY_ERR_RANK_JOINED)
        return tell_error(error, run->comm);
    run->change = *error;
    run->welcome |= result == SERRY_ERR_RANK_JOINED;
    return RUN_CHANGED;
}

int run_outcome(struct run *run, int result)
{
    return run_outcome_of(run, result, serry_last_error(run->comm));
}

int run_agree(struct run *run, int failed)
{
    int32_t first = failed ? run->size - run->rank : 0;
    int rc = run_outcome(
        run, serry_allreduce(SERRY_IN_PLACE, &first, 1, SERRY_I32, SERRY_MAX, run->comm));

    if (rc != 0 || first == 0)
        return rc;
    return first == run->size - run->rank ? run_tell(run->problem.text) : -1;
}

/* ---- a death ------------------------------------------------------------------------------- */

/* Where the time of the death is kept for the others. */
static FILE *open_killed(const struct settings *settings, const char *mode)
{
    char path[4096];

    snprintf(path, sizeof path, "%s/killed", settings->out == NULL ? "." : settings->out);
    return settings->out == NULL ? NULL : fopen(path, mode);
}

void run_kill(const struct run *run)
{
    FILE *file = open_killed(run->settings, "w");

    if (file != NULL) {
        fprintf(file, "%" PRIu64 "\n", run_now_ns());
        fclose(file);
    }
    raise(SIGKILL);
}

/* 0: nobody has told. */
static uint64_t killed_ns(const struct run *run)
{
    FILE *file = open_killed(run->settings, "r");
    uint64_t ns = 0;

    if (file != NULL) {
        if (fscanf(file, "%" SCNu64, &ns) != 1)
            ns = 0;
        fclose(file);
    }
    return ns;
}

/* The time that counts for finding out begins when both have happened: the death, and that this rank
 * has come to the operation. */
static void report_death(struct run *run, uint64_t told_ns)
{
    int who = run->change.peer;
    uint64_t killed = killed_ns(run);
    double lost_ms = (double)(told_ns - run->begun_step_ns) * 1e-6;
    char found[160] = "";

    if (killed != 0 && killed < told_ns) {
        uint64_t from = killed > run->entered_ns ? killed : run->entered_ns;
        snprintf(
            found, sizeof found, "; found out %.0f us after %s", (double)(told_ns - from) * 1e-3,
            killed > run->entered_ns ? "its death" : "coming to the sum (it was dead by then)");
    }
    report_event(&run->report, &run->progress, "died", who,
                 "rank %d died in step %d%s; %d ranks do the step again, %.1f ms lost", who,
                 run->progress.step + 1, found, run->living, lost_ms);
}

/* ---- who lives ----------------------------------------------------------------------------- */

static int find_place(struct run *run)
{
    serry_rank_set living;
    bool reported = run->place == 0 && !run->ignorant;

    serry_participants(run->comm, &living);
    run->place = run->living = 0;
    for (int r = 0; r < run->size; r++) {
        run->living += serry_rank_set_has(&living, r);
        run->place += r < run->rank && serry_rank_set_has(&living, r);
    }
    if (run->place != 0 && reported)
        report_close(&run->report);
    if (run->place != 0 || reported || run->ignorant)
        return 0;
    return report_open(&run->report, run->settings, true, &run->problem) == 0
               ? 0
               : run_tell(run->problem.text);
}

/* ---- a replacement ------------------------------------------------------------------------- */

/* The lowest rank that knows the state. */
static int find_teller(struct run *run, int32_t *teller)
{
    int rc;

    *teller = run->ignorant ? run->size : run->rank;
    rc = run_outcome(run,
                     serry_allreduce(SERRY_IN_PLACE, teller, 1, SERRY_I32, SERRY_MIN, run->comm));
    if (rc == 0 && *teller == run->size)
        return run_tell("all ranks that knew the parameters have died");
    return rc;
}

static int broadcast(struct run *run, void *data, size_t bytes, int root)
{
    return run_outcome(run, serry_broadcast(data, bytes, SERRY_U8, root, run->comm));
}

/* Memory for what the others are about to tell. */
static int make_room(struct run *run, const struct text *text)
{
    const struct settings *s = run->settings;

    if (!run->ignorant || run->text.data != NULL)
        return 0;
    run->text = *text;
    run->text.data = malloc(text->length);
    if (run->text.data == NULL)
        return problem_set(&run->problem, "rank %d has no memory for the text", run->rank);
    if (model_init(&run->model, text->symbols, s->context, s->hidden, s->seed, &run->problem) != 0)
        return -1;
    return run_make_gradient(run);
}

static int tell_everything(struct run *run)
{
    struct {
        struct text text; /* but for data */
        struct progress progress;
    } state = {run->text, run->progress};
    int32_t teller;
    int rc = find_teller(run, &teller);

    if (rc == 0)
        rc = broadcast(run, &state, sizeof state, teller);
    if (rc == 0)
        rc = run_agree(run, make_room(run, &state.text));
    if (rc == 0)
        rc = broadcast(run, run->text.data, run->text.length, teller);
    if (rc == 0)
        rc = broadcast(run, run->model.state, 3 * run->model.parameters * sizeof(float), teller);
    if (rc != 0)
        return rc;
    if (run->ignorant) {
        run->progress = state.progress;
        run->begun_ns = run_now_ns() - state.progress.elapsed_ns;
    }
    run->ignorant = run->welcome = false;
    return 0;
}

/* ---- all of it ----------------------------------------------------------------------------- */

int run_compare_parameters(struct run *run)
{
    uint64_t hash = model_hash(&run->model), least = hash, most = hash;
    int rc = run_outcome(run, serry_allreduce(&hash, &least, 1, SERRY_U64, SERRY_MIN, run->comm));

    if (rc == 0)
        rc = run_outcome(run, serry_allreduce(&hash, &most, 1, SERRY_U64, SERRY_MAX, run->comm));
    if (rc != 0)
        return rc;
    return run_agree(
        run, least == most ? 0 : problem_set(&run->problem, "the ranks' parameters differ"));
}

/* One attempt; another change of membership ends it with RUN_CHANGED. */
static int attempt(struct run *run, uint64_t told_ns)
{
    bool joined = run->welcome || run->ignorant;
    int who = run->change.peer, rc;

    if (find_place(run) != 0)
        return -1;
    if (!run->ignorant)
        run->progress.elapsed_ns = told_ns - run->begun_ns;
    if (run->place == 0 && !joined)
        report_death(run, told_ns);
    if (joined && (rc = tell_everything(run)) != 0)
        return rc;
    if (find_place(run) != 0 || (rc = run_compare_parameters(run)) != 0)
        return rc;
    if (run->place == 0 && joined)
        report_event(
            &run->report, &run->progress, "joined", who,
            "rank %d has a replacement, which got the parameters in %.1f ms; %d ranks go on", who,
            (double)(run_now_ns() - told_ns) * 1e-6, run->living);
    if (run->place == 0)
        report_event(&run->report, &run->progress, "compared", run->rank,
                     "parameters 0x%016" PRIx64 ": bit-identical on all %d ranks",
                     model_hash(&run->model), run->living);
    return 0;
}

int run_recover(struct run *run)
{
    int rc;

    do
        rc = attempt(run, run_now_ns());
    while (rc == RUN_CHANGED);
    return rc;
}
