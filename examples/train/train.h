/* train.h - the parts of the example program `train`, a character-level language model that ranks
 * train together: problems in plain words, options, text, model and report. */
#ifndef TRAIN_H
#define TRAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <serry/serry.h>

#define TRAIN_DEFAULT_TEXTS "/usr/share/common-licenses"
#define TRAIN_MAX_SYMBOLS 256 /* a character is a byte */

/* What went wrong on this rank, in plain words; empty: nothing. */
struct problem {
    char text[600];
};

/* Writes the message (printf's format) and returns -1. */
int problem_set(struct problem *problem, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* What the command line asks for; the same on all ranks. */
struct settings {
    char **files; /* ends with NULL; none: the texts in TRAIN_DEFAULT_TEXTS */
    int steps;
    int batch;   /* characters predicted per step, over all ranks */
    int context; /* characters that a prediction looks back */
    int hidden;  /* units of the hidden layer */
    uint64_t seed;
    bool sgd;                 /* plain gradient descent instead of Adam */
    bool overlap;             /* sum the upper layer's gradient while the lower one's is computed */
    float rate;               /* learning rate of the first step; falls to a twentieth of it */
    int threads;              /* thread ranks in this process; 0: process ranks */
    const char *out;          /* folder for curve.csv, sample.txt and result.txt; NULL: none */
    bool quiet;               /* print the result alone */
    int kill_rank, kill_step; /* who kills itself, and in which step; step 0: nobody */
};

/* ---- options.c ---------------------------------------------------------------------------- */

/* Fill the settings, or end the program: with status 0 after --help, 1 after an error. Only rank 0
 * prints. */
void options_parse(int argc, char **argv, int rank, struct settings *settings);

/* ---- text.c: what is read, and which of it is held out ------------------------------------ */

/* First raw bytes, then, after text_prepare(), symbols: 0 to symbols - 1. Cycles of ten blocks:
 * nine to train on and one held out. No window of context and target crosses into the other. */
struct text {
    unsigned char *data; /* owned; text_free() */
    size_t length;
    int files;
    int symbols;                              /* how many different bytes there are */
    unsigned char byte_of[TRAIN_MAX_SYMBOLS]; /* of a symbol, in rising order */
    size_t context;
    size_t block;
    size_t train_positions, heldout_positions; /* characters that can be predicted */
};

/* Read the files, or the default texts where none are named, one after the other. */
int text_read(struct text *text, char *const *files, struct problem *problem);

/* Turn bytes into symbols and divide the text. Depends on nothing but its bytes and the context. */
int text_prepare(struct text *text, int context, struct problem *problem);

/* Where in `data` the target number `index` lies (index < train_positions or heldout_positions);
 * its context is the `context` symbols before it. */
size_t text_train_target(const struct text *text, size_t index);
size_t text_heldout_target(const struct text *text, size_t index);

void text_free(struct text *text);

/* ---- model.c: embedding, one tanh layer, softmax ------------------------------------------ */

#define MODEL_ROWS 64      /* windows that are worked on at once, at most */
#define MODEL_EMBEDDING 16 /* numbers per embedded character */

struct model {
    int symbols, context, hidden;
    size_t parameters;

    /* Owned. Parameters, then both moments of Adam: 3 * parameters numbers, all that a rank needs
     * to go on from here. Parameters in order: embedding, weights and biases of the hidden layer
     * (the lower part), weights and biases of the output layer (the upper part). */
    float *state;
    size_t weights1, biases1, weights2, biases2; /* where they begin */

    float *input, *active, *output;    /* MODEL_ROWS rows: embedded context, tanh, probabilities */
    float *active_error, *input_error; /* MODEL_ROWS rows */
    float *transposed;                 /* of one layer's weights */
    const unsigned char **window;      /* MODEL_ROWS contexts, each followed by its target */
};

/* What random numbers are for; steps of the training take the streams from STREAM_STEP + 1 on. */
enum { STREAM_EMBEDDING, STREAM_WEIGHTS1, STREAM_WEIGHTS2, STREAM_SAMPLE, STREAM_STEP = 16 };

/* A number that depends on its three arguments alone, even over all 64 bits. */
uint64_t model_random(uint64_t seed, uint64_t stream, uint64_t index);

/* Allocate a model and give it the first parameters of `seed`. */
int model_init(struct model *model, int symbols, int context, int hidden, uint64_t seed,
               struct problem *problem);

/* Probabilities of the next symbol for `rows` windows (1 to MODEL_ROWS, in model->window), into
 * model->output: `rows` rows of `symbols`. */
void model_forward(struct model *model, int rows);

/* After model_forward(): the sum over the rows of -log(probability of the target), in nats. */
float model_loss(const struct model *model, int rows);

/* After model_forward() and model_loss(): add the gradient of that sum to `gradient` (`parameters`
 * numbers), of the upper part first; the lower part needs the upper one's call before it. Destroys
 * model->output. */
void model_backward_upper(struct model *model, int rows, float *gradient);
void model_backward_lower(struct model *model, int rows, float *gradient);

/* One step (from 1) down the gradient of a mean over `batch` windows, given as their sum. */
void model_update_adam(struct model *model, const float *gradient, int batch, float rate, int step);
void model_update_sgd(struct model *model, const float *gradient, int batch, float rate);

/* FNV-1a over the bytes of the parameters. */
uint64_t model_hash(const struct model *model);

void model_free(struct model *model);

/* ---- report.c: what the lowest rank that lives tells ---------------------------------------------------------- */

/* How far the training is. Losses in nats per character. */
struct progress {
    int step;         /* the last one that is done */
    int points;       /* of the curve, so far */
    bool measured;    /* the held-out loss after that step is known, or not wanted */
    float train_loss; /* of the latest batches, the last one weighing most */
    float heldout_loss;
    uint64_t elapsed_ns;
    uint64_t collective_ns; /* of it inside collectives, waiting for other ranks included */
    uint64_t collectives;
};

struct report {
    const struct settings *settings;
    bool terminal;     /* redraw one line in place, rather than print one every 5 % */
    uint64_t drawn_ns; /* elapsed then; terminal only */
    FILE *curve;       /* NULL where no folder is given */
    FILE *events;      /* likewise */
};

/* Make the folder and begin the curve, or go on with the one that another rank began. Where it fails
 * nothing needs closing. */
int report_open(struct report *report, const struct settings *settings, bool go_on,
                struct problem *problem);

/* A line on the terminal, kept in events.csv as well: what happened to which rank at which step. */
void report_event(struct report *report, const struct progress *progress, const char *event,
                  int rank, const char *format, ...) __attribute__((format(printf, 5, 6)));

void report_heading(const struct report *report, const struct text *text, const struct model *model,
                    int ranks);

/* Draw the progress, if it is time to. */
void report_progress(struct report *report, const struct progress *progress);

/* Add a point to the curve. */
void report_point(struct report *report, const struct progress *progress);

/* Text that the model writes, losses, times and the parameters' hash, which all ranks share. */
int report_finish(struct report *report, const struct progress *progress, struct model *model,
                  const struct text *text, int ranks, struct problem *problem);

/* Close what is open. */
void report_close(struct report *report);

/* ---- train.c and recover.c: one rank ------------------------------------------------------ */

/* Numbers that follow the gradient in the memory that ranks share. */
enum { SUM_TRAIN, SUM_HELDOUT, SUMS };

/* Beside 0 and -1 (failed, and told): ranks have died or joined, nothing was done; run_recover(), then
 * the same again. */
enum { RUN_CHANGED = 1 };

struct run {
    serry_comm *comm;
    const struct settings *settings;
    int rank, size;
    int place, living; /* this rank's place among those that live, and how many they are */
    bool replaces;     /* a rank that died */
    bool ignorant;     /* and does not know yet what the others do */
    bool welcome;      /* a replacement has joined, and is to be told */
    struct text text;
    struct model model;
    struct report report; /* at place 0 */
    struct progress progress;
    uint64_t begun_ns, begun_step_ns, entered_ns; /* the training, a step, a collective */
    serry_request *upper; /* the sum of the upper layer's gradient, under way; NULL: none is */
    serry_error change;   /* what RUN_CHANGED was returned for */
    float *gradient;      /* parameters + SUMS numbers; owned by the communicator or by malloc */
    bool in_arena;
    struct problem problem;
};

uint64_t run_now_ns(void);

/* Problems are told once. Both return -1. */
int run_tell(const char *text);
int run_tell_serry(const serry_comm *comm);

/* What a collective's result means: 0, RUN_CHANGED, or -1. The second: of one that was started and
 * waited for apart, whose record is its own. */
int run_outcome(struct run *run, int result);
int run_outcome_of(struct run *run, int result, const serry_error *error);

/* All ranks learn whether one has a problem; the lowest that has tells its own. 0 where nobody has. */
int run_agree(struct run *run, int failed);

/* Memory for gradient and sums. */
int run_make_gradient(struct run *run);

/* After RUN_CHANGED: divide the work anew, tell a replacement all it must know, compare. */
int run_recover(struct run *run);

/* Have all ranks the same parameters? If not, this is a fault of the program or of serry. */
int run_compare_parameters(struct run *run);

/* For the demonstration: leave the time behind, and end by SIGKILL. */
void run_kill(const struct run *run);

#endif
