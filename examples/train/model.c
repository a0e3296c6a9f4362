/* model.c - the language model: embedded context, one tanh layer, softmax; and how it learns.
 *
 * All matrices are row-major. Inner loops run over whole rows with no sum across the row, so that
 * compilers turn them into vector instructions without reordering any addition. */
#include "train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- matrix product ----------------------------------------------------------------------- */

/* c(i, j) += the sum over k of a(i, k) * b(k, j), for m x n results and `depth` products each. a is
 * read with any strides, so that it may be the transpose of what is stored. */
struct product {
    const float *a;
    size_t row, column; /* of a: a(i, k) is a[i * row + k * column] */
    const float *b;     /* depth x n */
    float *c;           /* m x n */
    size_t m, depth, n;
};

static inline __attribute__((always_inline)) void multiply_rows(const struct product *p)
{
    size_t n = p->n, column = p->column, k = 0;

    for (; k + 8 <= p->depth; k += 8) {
        const float *restrict b = p->b + k * n;
        for (size_t i = 0; i < p->m; i++) {
            const float *a = p->a + i * p->row + k * column;
            float a0 = a[0], a1 = a[column], a2 = a[2 * column], a3 = a[3 * column];
            float a4 = a[4 * column], a5 = a[5 * column], a6 = a[6 * column], a7 = a[7 * column];
            float *restrict c = p->c + i * n;
            for (size_t j = 0; j < n; j++) {
                c[j] += a0 * b[j] + a1 * b[n + j] + a2 * b[2 * n + j] + a3 * b[3 * n + j] +
                        a4 * b[4 * n + j] + a5 * b[5 * n + j] + a6 * b[6 * n + j] +
                        a7 * b[7 * n + j];
            }
        }
    }
    for (; k < p->depth; k++) {
        const float *restrict b = p->b + k * n;
        for (size_t i = 0; i < p->m; i++) {
            float a = p->a[i * p->row + k * column];
            float *restrict c = p->c + i * n;
            for (size_t j = 0; j < n; j++)
                c[j] += a * b[j];
        }
    }
}

#ifdef __x86_64__
/* The same loops, for processors with wider vectors than every x86-64 has. */
__attribute__((target("avx2,fma"))) static void multiply_wide(const struct product *p)
{
    multiply_rows(p);
}

static void multiply(const struct product *p)
{
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        multiply_wide(p);
    else
        multiply_rows(p);
}
#else
static void multiply(const struct product *p)
{
    multiply_rows(p);
}
#endif

static void transpose(const float *from, float *to, size_t rows, size_t columns)
{
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < columns; j++)
            to[j * rows + i] = from[i * columns + j];
    }
}

/* ---- making a model ----------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint64_t model_random(uint64_t seed, uint64_t stream, uint64_t index)
{
    const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15);

    return mix(mix(mix(seed + golden) + stream * golden) + (index + 1) * golden);
}

/* Even numbers between -range and range. */
static void fill(float *numbers, size_t count, float range, uint64_t seed, uint64_t stream)
{
    for (size_t i = 0; i < count; i++) {
        float even = (float)(model_random(seed, stream, i) >> 40) * 0x1p-24f;
        numbers[i] = range * (2 * even - 1);
    }
}

int model_init(struct model *model, int symbols, int context, int hidden, uint64_t seed,
               struct problem *problem)
{
    size_t s = (size_t)symbols, h = (size_t)hidden, in = (size_t)context * MODEL_EMBEDDING;

    memset(model, 0, sizeof *model);
    model->symbols = symbols;
    model->context = context;
    model->hidden = hidden;
    model->weights1 = s * MODEL_EMBEDDING;
    model->biases1 = model->weights1 + in * h;
    model->weights2 = model->biases1 + h;
    model->biases2 = model->weights2 + h * s;
    model->parameters = model->biases2 + s;

    model->state = calloc(3 * model->parameters, sizeof(float));
    model->input = calloc(MODEL_ROWS * in, sizeof(float));
    model->input_error = calloc(MODEL_ROWS * in, sizeof(float));
    model->active = calloc(MODEL_ROWS * h, sizeof(float));
    model->active_error = calloc(MODEL_ROWS * h, sizeof(float));
    model->output = calloc(MODEL_ROWS * s, sizeof(float));
    model->transposed = calloc(h * (in > s ? in : s), sizeof(float));
    model->window = calloc(MODEL_ROWS, sizeof *model->window);
    if (model->state == NULL || model->input == NULL || model->input_error == NULL ||
        model->active == NULL || model->active_error == NULL || model->output == NULL ||
        model->transposed == NULL || model->window == NULL) {
        model_free(model);
        return problem_set(problem,
                           "not enough memory for a model of %zu parameters; give a "
                           "smaller --context or --hidden",
                           model->parameters);
    }
    fill(model->state, model->weights1, 1.0f, seed, STREAM_EMBEDDING);
    fill(model->state + model->weights1, in * h, 1.5f / sqrtf((float)in), seed, STREAM_WEIGHTS1);
    fill(model->state + model->weights2, h * s, 0.5f / sqrtf((float)h), seed, STREAM_WEIGHTS2);
    return 0;
}

void model_free(struct model *model)
{
    free(model->state);
    free(model->input);
    free(model->input_error);
    free(model->active);
    free(model->active_error);
    free(model->output);
    free(model->transposed);
    free(model->window);
    model->state = model->input = model->input_error = model->active = NULL;
    model->active_error = model->output = model->transposed = NULL;
    model->window = NULL;
}

uint64_t model_hash(const struct model *model)
{
    const unsigned char *bytes = (const unsigned char *)model->state;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < model->parameters * sizeof(float); i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* ---- forward ------------------------------------------------------------------------------ */

static void repeat_row(float *to, const float *row, size_t columns, int rows)
{
    for (int r = 0; r < rows; r++)
        memcpy(to + (size_t)r * columns, row, columns * sizeof(float));
}

static void softmax(float *row, int count)
{
    float highest = row[0], sum = 0;

    for (int j = 1; j < count; j++)
        highest = row[j] > highest ? row[j] : highest;
    for (int j = 0; j < count; j++) {
        row[j] = expf(row[j] - highest);
        sum += row[j];
    }
    for (int j = 0; j < count; j++)
        row[j] /= sum;
}

void model_forward(struct model *model, int rows)
{
    size_t s = (size_t)model->symbols, h = (size_t)model->hidden;
    size_t in = (size_t)model->context * MODEL_EMBEDDING;
    const float *parameters = model->state;

    for (int r = 0; r < rows; r++) {
        for (int c = 0; c < model->context; c++)
            memcpy(model->input + (size_t)r * in + (size_t)c * MODEL_EMBEDDING,
                   parameters + (size_t)model->window[r][c] * MODEL_EMBEDDING,
                   MODEL_EMBEDDING * sizeof(float));
    }
    repeat_row(model->active, parameters + model->biases1, h, rows);
    multiply(&(struct product){.a = model->input,
                               .row = in,
                               .column = 1,
                               .b = parameters + model->weights1,
                               .c = model->active,
                               .m = (size_t)rows,
                               .depth = in,
                               .n = h});
    for (size_t i = 0; i < (size_t)rows * h; i++)
        model->active[i] = 1 - 2 / (1 + expf(2 * model->active[i])); /* tanh */

    repeat_row(model->output, parameters + model->biases2, s, rows);
    multiply(&(struct product){.a = model->active,
                               .row = h,
                               .column = 1,
                               .b = parameters + model->weights2,
                               .c = model->output,
                               .m = (size_t)rows,
                               .depth = h,
                               .n = s});
    for (int r = 0; r < rows; r++)
        softmax(model->output + (size_t)r * s, model->symbols);
}

float model_loss(const struct model *model, int rows)
{
    float loss = 0;

    for (int r = 0; r < rows; r++) {
        float p =
            model->output[(size_t)r * (size_t)model->symbols + model->window[r][model->context]];
        loss -= logf(p > 1e-30f ? p : 1e-30f);
    }
    return loss;
}

/* ---- backward ----------------------------------------------------------------------------- */

void model_backward_upper(struct model *model, int rows, float *gradient)
{
    size_t s = (size_t)model->symbols, h = (size_t)model->hidden, m = (size_t)rows;

    for (size_t r = 0; r < m; r++) {
        float *error = model->output + r * s;
        float *biases = gradient + model->biases2;
        error[model->window[r][model->context]] -= 1;
        for (size_t j = 0; j < s; j++)
            biases[j] += error[j];
    }
    multiply(&(struct product){.a = model->active,
                               .row = 1,
                               .column = h,
                               .b = model->output,
                               .c = gradient + model->weights2,
                               .m = h,
                               .depth = m,
                               .n = s});
}

/* Through the output layer and tanh: what the hidden layer's sums are wrong by. */
static void active_errors(struct model *model, size_t m)
{
    size_t s = (size_t)model->symbols, h = (size_t)model->hidden;

    transpose(model->state + model->weights2, model->transposed, h, s);
    memset(model->active_error, 0, m * h * sizeof(float));
    multiply(&(struct product){.a = model->output,
                               .row = s,
                               .column = 1,
                               .b = model->transposed,
                               .c = model->active_error,
                               .m = m,
                               .depth = s,
                               .n = h});
    for (size_t i = 0; i < m * h; i++)
        model->active_error[i] *= 1 - model->active[i] * model->active[i];
}

void model_backward_lower(struct model *model, int rows, float *gradient)
{
    size_t h = (size_t)model->hidden, m = (size_t)rows;
    size_t in = (size_t)model->context * MODEL_EMBEDDING;

    active_errors(model, m);
    for (size_t r = 0; r < m; r++) {
        const float *error = model->active_error + r * h;
        float *biases = gradient + model->biases1;
        for (size_t j = 0; j < h; j++)
            biases[j] += error[j];
    }
    multiply(&(struct product){.a = model->input,
                               .row = 1,
                               .column = in,
                               .b = model->active_error,
                               .c = gradient + model->weights1,
                               .m = in,
                               .depth = m,
                               .n = h});

    transpose(model->state + model->weights1, model->transposed, in, h);
    memset(model->input_error, 0, m * in * sizeof(float));
    multiply(&(struct product){.a = model->active_error,
                               .row = h,
                               .column = 1,
                               .b = model->transposed,
                               .c = model->input_error,
                               .m = m,
                               .depth = h,
                               .n = in});
    for (size_t r = 0; r < m; r++) {
        for (int c = 0; c < model->context; c++) {
            const float *error = model->input_error + r * in + (size_t)c * MODEL_EMBEDDING;
            float *to = gradient + (size_t)model->window[r][c] * MODEL_EMBEDDING;
            for (int e = 0; e < MODEL_EMBEDDING; e++)
                to[e] += error[e];
        }
    }
}

/* ---- learning ----------------------------------------------------------------------------- */

void model_update_adam(struct model *model, const float *gradient, int batch, float rate, int step)
{
    const float keep1 = 0.9f, keep2 = 0.999f, mean = 1 / (float)batch;
    const float whole1 = 1 - powf(keep1, (float)step), whole2 = 1 - powf(keep2, (float)step);
    const float scale = rate * sqrtf(whole2) / whole1, least = 1e-8f * sqrtf(whole2);
    float *restrict parameter = model->state;
    float *restrict first = parameter + model->parameters;
    float *restrict second = first + model->parameters;

    for (size_t i = 0; i < model->parameters; i++) {
        float g = gradient[i] * mean;
        first[i] = keep1 * first[i] + (1 - keep1) * g;
        second[i] = keep2 * second[i] + (1 - keep2) * g * g;
        parameter[i] -= scale * first[i] / (sqrtf(second[i]) + least);
    }
}

void model_update_sgd(struct model *model, const float *gradient, int batch, float rate)
{
    float scale = rate / (float)batch;

    for (size_t i = 0; i < model->parameters; i++)
        model->state[i] -= scale * gradient[i];
}
