/* options.c - the command line. */
#include "train.h"

#include <argp.h>
#include <errno.h>
#include <serry/serry.h>
#include <stdlib.h>
#include <string.h>

const char *argp_program_version = "train (serry " SERRY_VERSION ")";

enum {
    OPT_STEPS = 256,
    OPT_BATCH,
    OPT_CONTEXT,
    OPT_HIDDEN,
    OPT_SEED,
    OPT_SGD,
    OPT_RATE,
    OPT_OVERLAP,
    OPT_KILL
};

static const struct argp_option k_options[] = {
    {"steps", OPT_STEPS, "N", 0, "steps to train", 0},
    {"batch", OPT_BATCH, "N", 0, "characters predicted per step, over all ranks", 0},
    {"context", OPT_CONTEXT, "N", 0, "characters that a prediction looks back", 0},
    {"hidden", OPT_HIDDEN, "N", 0, "units of the hidden layer", 0},
    {"seed", OPT_SEED, "N", 0, "where the random choices begin", 0},
    {"sgd", OPT_SGD, NULL, 0, "plain gradient descent instead of Adam", 0},
    {"rate", OPT_RATE, "X", 0, "learning rate of the first step", 0},
    {"overlap", OPT_OVERLAP, NULL, 0,
     "sum the gradient of the upper layer over the ranks while that of the lower one is computed; "
     "ends with the same bits",
     0},
    {"threads", 't', "N", 0, "N thread ranks in this process, rather than process ranks", 0},
    {"out", 'o', "DIR", 0, "write curve.csv, sample.txt and result.txt there", 0},
    {"kill", OPT_KILL, "RANK:STEP", 0, "let this rank kill itself (-9) in the middle of that step",
     0},
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

static void parse_kill(struct argp_state *state, const char *value)
{
    struct settings *s = state->input;
    char rest;

    if (sscanf(value, "%d:%d%c", &s->kill_rank, &s->kill_step, &rest) != 2 || s->kill_rank < 0 ||
        s->kill_step < 1)
        argp_error(state, "--kill: '%s' is not a rank and a step, such as 2:1500", value);
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
    case OPT_OVERLAP:
        s->overlap = true;
        break;
    case OPT_KILL:
        parse_kill(state, value);
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
    "When a rank dies, the others repeat the step among themselves; a replacement (`serry run "
    "--respawn 1`) gets the parameters from them and takes its share again.\n\n"
    "Start process ranks with `serry run -n 4 train`, thread ranks with `train --threads 4`: both "
    "end with the same bits.",
    NULL,
    NULL,
    NULL};

void options_parse(int argc, char **argv, int rank, struct settings *settings)
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
