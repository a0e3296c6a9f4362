/* reduce.c - walks the tree of docs/reductions.md and hands its passes to the kernels. */
#include "reduce.h"

#include <serry/call.h>
#include <string.h>

#include "kernels.h"
#include "user.h"

/* One reduction, as everybody on the way down sees it. Parts are vectors of binary32 for 16-bit
 * floats, else of the type itself. */
typedef struct plan {
    serry_combine_function *leaf;  /* sources to a part */
    serry_combine_function *inner; /* parts to a part */
    serry_widen_function *widen;   /* a source to a part; NULL: it is one already */
    const serry_user_op *user;     /* NULL: predefined */
    serry_dtype dtype;
    size_t size; /* bytes of an element */
    size_t from; /* of one of a source: more where those are parts already */
} plan;

static const void *at(const void *vector, size_t bytes)
{
    return (const char *)vector + bytes;
}

/* ---- predefined reductions ---------------------------------------------------------------- */

static void combine_part(const plan *p, void *part, const void *const *source, int n, size_t skip,
                         size_t count);

/* As combine_part, for n >= 5. Parts have `span` sources each, all but the last. As span is a power
 * of two and the parts are 2 to 4, one pass over them continues the tree by two levels. */
static void combine_parts(const plan *p, void *result, const void *const *source, int n,
                          size_t skip, size_t count)
{
    _Alignas(64) char part[4][SERRY_BLOCK_BYTES];
    const void *input[4];
    int span = n > 8 ? 8 : 4, parts = 0;
    while (span * 4 < n)
        span *= 4;
    for (int first = 0; first < n; first += span, parts++) {
        int members = n - first < span ? n - first : span;
        input[parts] = part[parts];
        if (members == 1 && p->widen == NULL)
            input[parts] = at(source[first], skip);
        else
            combine_part(p, part[parts], source + first, members, skip, count);
    }
    p->inner(result, input, parts, count);
}

/* Combine n vectors (2 or more, or one that is to be widened) of at most a block into one part,
 * from `skip` bytes into them. */
static void combine_part(const plan *p, void *part, const void *const *source, int n, size_t skip,
                         size_t count)
{
    const void *input[8];
    if (n == 1) {
        p->widen(part, at(source[0], skip), count);
    } else if (serry_one_pass(n)) {
        for (int i = 0; i < n; i++)
            input[i] = at(source[i], skip);
        p->leaf(part, input, n, count);
    } else {
        combine_parts(p, part, source, n, skip, count);
    }
}

/* n >= 2 vectors of any length, block by block. A divisor of 1 divides nothing. */
static void reduce_blocks(const plan *p, const serry_type_kernels *kernels, char *result,
                          const void *const *source, int n, size_t count, int divisor)
{
    _Alignas(64) float wide[SERRY_BLOCK_BYTES / sizeof(float)];
    size_t block = SERRY_BLOCK_BYTES / (kernels->narrow != NULL ? sizeof(float) : p->size);
    for (size_t done = 0; done < count; done += block) {
        size_t now = count - done < block ? count - done : block;
        char *out = result + done * p->size;
        void *part = kernels->narrow != NULL ? (void *)wide : (void *)out;
        combine_part(p, part, source, n, done * p->from, now);
        if (divisor > 1)
            kernels->divide(part, now, divisor);
        if (kernels->narrow != NULL)
            kernels->narrow(out, wide, now);
    }
}

/* ---- user reductions ---------------------------------------------------------------------- */

/* Combine n >= 1 vectors of at most a block into `accumulator`, from `skip` bytes into them. */
static void user_block(const plan *p, void *accumulator, const void *const *source, int n,
                       size_t skip, size_t count)
{
    if (n == 1) {
        memcpy(accumulator, at(source[0], skip), count * p->size);
        return;
    }
    _Alignas(64) char part[SERRY_BLOCK_BYTES];
    const void *right = part;
    int left = 1;
    while (left * 2 < n)
        left *= 2;
    user_block(p, accumulator, source, left, skip, count);
    if (n - left == 1)
        right = at(source[left], skip);
    else
        user_block(p, part, source + left, n - left, skip, count);
    p->user->function(accumulator, right, count, p->dtype, p->user->argument);
}

/* The result may be a source that is needed after the accumulator has been begun. */
static void reduce_user(const plan *p, char *result, const void *const *source, int n, size_t count)
{
    _Alignas(64) char accumulator[SERRY_BLOCK_BYTES];
    size_t block = SERRY_BLOCK_BYTES / p->size;
    for (size_t done = 0; done < count; done += block) {
        size_t now = count - done < block ? count - done : block;
        user_block(p, accumulator, source, n, done * p->size, now);
        memcpy(result + done * p->size, accumulator, now * p->size);
    }
}

/* ---- both --------------------------------------------------------------------------------- */

static plan plan_of(serry_dtype dtype, serry_op op)
{
    const serry_type_kernels *type = &serry_kernels_used->type[dtype];
    plan p = {.dtype = dtype, .size = serry_dtype_size(dtype), .from = serry_dtype_size(dtype)};

    if (op >= SERRY_OP_USER) {
        p.user = serry_user_op_find(op);
        return p;
    }
    p.widen = type->widen;
    p.leaf = type->widen != NULL ? type->combine_wide[op] : type->combine[op];
    p.inner =
        type->widen != NULL ? serry_kernels_used->type[SERRY_F32].combine[op] : type->combine[op];
    return p;
}

/* What one kernel does not do in one go. */
static __attribute__((noinline)) void reduce_by_plan(void *result, const void *const *source, int n,
                                                     size_t count, serry_dtype dtype, serry_op op)
{
    if (n == 1) {
        if (result != source[0])
            memcpy(result, source[0], count * serry_dtype_size(dtype));
        return;
    }
    plan p = plan_of(dtype, op);
    if (p.user != NULL)
        reduce_user(&p, result, source, n, count);
    else
        reduce_blocks(&p, &serry_kernels_used->type[dtype], result, source, n, count,
                      op == SERRY_AVG ? n : 1);
}

void serry_reduce_vectors(void *result, const void *const *source, int n, size_t count,
                          serry_dtype dtype, serry_op op)
{
    if (count == 0)
        return;
    if (op < SERRY_OPS && op != SERRY_AVG && serry_one_pass(n))
        serry_kernels_used->type[dtype].combine[op](result, source, n, count);
    else
        reduce_by_plan(result, source, n, count, dtype, op);
}

/* ---- past the caches -------------------------------------------------------------------------- */

bool serry_reduce_streams(int n, serry_dtype dtype, serry_op op)
{
    return op == SERRY_SUM && serry_one_pass(n) &&
           serry_kernels_used->type[dtype].stream_sum != NULL;
}

typedef struct two_results {
    void *result[2];
    const void *source[8];
    int n;
} two_results;

/* These vectors, `bytes` further on. */
static two_results further(void *const result[2], const void *const *source, int n, size_t bytes)
{
    two_results t = {.n = n};

    for (int i = 0; i < 2; i++)
        t.result[i] = result[i] == NULL ? NULL : (char *)result[i] + bytes;
    for (int i = 0; i < n; i++)
        t.source[i] = at(source[i], bytes);
    return t;
}

/* What is no whole line. */
static void reduce_rest(const two_results *t, size_t count, serry_dtype dtype, serry_op op)
{
    for (int i = 0; i < 2; i++)
        if (t->result[i] != NULL)
            serry_reduce_vectors(t->result[i], t->source, t->n, count, dtype, op);
}

void serry_reduce_stream(void *const result[2], const void *const *source, int n, size_t count,
                         serry_dtype dtype, serry_op op)
{
    size_t size = serry_dtype_size(dtype), line = SERRY_LINE_BYTES / size;
    size_t head = -(uintptr_t)result[0] % SERRY_LINE_BYTES / size;

    head = head < count ? head : count;
    size_t lines = (count - head) / line * line, rest = count - head - lines;
    two_results t = further(result, source, n, 0);
    reduce_rest(&t, head, dtype, op);
    t = further(result, source, n, head * size);
    serry_kernels_used->type[dtype].stream_sum(t.result, t.source, n, lines);
    t = further(result, source, n, (head + lines) * size);
    reduce_rest(&t, rest, dtype, op);
}

/* ---- in two goes ------------------------------------------------------------------------------ */

size_t serry_part_size(serry_dtype dtype, serry_op op)
{
    bool wide = op < SERRY_OPS && serry_kernels_used->type[dtype].widen != NULL;

    return wide ? sizeof(float) : serry_dtype_size(dtype);
}

void serry_reduce_part(void *part, const void *const *source, int n, size_t count,
                       serry_dtype dtype, serry_op op)
{
    plan p = plan_of(dtype, op);
    size_t to = serry_part_size(dtype, op), block = SERRY_BLOCK_BYTES / to;

    if (p.user != NULL)
        reduce_user(&p, part, source, n, count);
    else if (n == 1 && p.widen == NULL)
        memcpy(part, source[0], count * p.size);
    else
        for (size_t done = 0; done < count; done += block)
            combine_part(&p, (char *)part + done * to, source, n, done * p.from,
                         count - done < block ? count - done : block);
}

void serry_reduce_parts(void *result, const void *const *part, int parts, int n, size_t count,
                        serry_dtype dtype, serry_op op)
{
    plan p = plan_of(dtype, op);

    p.leaf = p.inner;
    p.widen = NULL;
    p.from = serry_part_size(dtype, op);
    if (p.user != NULL)
        reduce_user(&p, result, part, parts, count);
    else
        reduce_blocks(&p, &serry_kernels_used->type[dtype], result, part, parts, count,
                      op == SERRY_AVG ? n : 1);
}

bool serry_op_check(serry_op op, serry_dtype dtype)
{
    if ((unsigned)dtype >= SERRY_DTYPES)
        return false;
    if (op >= 0 && op < SERRY_OPS)
        return serry_kernels_used->type[dtype].combine[op] != NULL;
    return serry_user_op_find(op) != NULL;
}
