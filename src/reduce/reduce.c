/* reduce.c - walks the tree of docs/reductions.md and hands its passes to the kernels. */
#include "reduce.h"

#include <serry/call.h>
#include <string.h>

#include "kernels.h"
#include "user.h"

/* One reduction, as everybody on the way down sees it. */
typedef struct plan {
    serry_combine_function *combine;
    serry_widen_function *widen; /* NULL: sources are combined as they are */
    const serry_user_op *user;   /* NULL: predefined */
    serry_dtype dtype;
    size_t size; /* bytes of an element */
} plan;

static const void *at(const void *vector, size_t bytes)
{
    return (const char *)vector + bytes;
}

/* ---- predefined reductions ---------------------------------------------------------------- */

/* Combine n >= 2 vectors of at most a block into `result` (binary32 where the plan widens), from
 * `skip` bytes into the sources. The parts hold a power of SERRY_FAN sources each, all but the last:
 * one pass over the parts then continues the binary tree by two levels. */
static void combine_block(const plan *p, void *result, const void *const *source, int n,
                          size_t skip, size_t count)
{
    _Alignas(64) char part[SERRY_FAN][SERRY_BLOCK_BYTES];
    const void *input[SERRY_FAN];
    int span = 1, parts = 0;
    while (span * SERRY_FAN < n)
        span *= SERRY_FAN;
    for (int first = 0; first < n; first += span, parts++) {
        int members = n - first < span ? n - first : span;
        input[parts] = part[parts];
        if (members > 1)
            combine_block(p, part[parts], source + first, members, skip, count);
        else if (p->widen != NULL)
            p->widen((float *)(void *)part[parts], at(source[first], skip), count);
        else
            input[parts] = at(source[first], skip);
    }
    p->combine(result, input, parts, count);
}

/* n >= 2 vectors of any length, block by block. A divisor of 1 divides nothing. */
static void reduce_blocks(const plan *p, char *result, const void *const *source, int n,
                          size_t count, int divisor)
{
    _Alignas(64) float wide[SERRY_BLOCK_BYTES / sizeof(float)];
    const serry_kernels *kernels = serry_kernels_used;
    size_t block = SERRY_BLOCK_BYTES / (p->widen != NULL ? sizeof(float) : p->size);
    for (size_t done = 0; done < count; done += block) {
        size_t now = count - done < block ? count - done : block;
        char *out = result + done * p->size;
        void *sum = p->widen != NULL ? (void *)wide : (void *)out;
        combine_block(p, sum, source, n, done * p->size, now);
        if (divisor > 1)
            kernels->divide[p->dtype](sum, now, divisor);
        if (p->widen != NULL)
            kernels->narrow[p->dtype](out, wide, now);
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

static void reduce_user(const plan *p, char *result, const void *const *source, int n,
                        size_t count)
{
    size_t block = SERRY_BLOCK_BYTES / p->size;
    for (size_t done = 0; done < count; done += block) {
        size_t now = count - done < block ? count - done : block;
        user_block(p, result + done * p->size, source, n, done * p->size, now);
    }
}

/* ---- both --------------------------------------------------------------------------------- */

void serry_reduce_vectors(void *result, const void *const *source, int n, size_t count,
                          serry_dtype dtype, serry_op op)
{
    if (count == 0)
        return;
    if (n == 1) {
        memcpy(result, source[0], count * serry_dtype_size(dtype));
        return;
    }
    plan p = {.dtype = dtype};
    if (op >= SERRY_OP_USER) {
        p.user = serry_user_op_find(op);
        p.size = serry_dtype_size(dtype);
        reduce_user(&p, result, source, n, count);
        return;
    }
    p.combine = serry_kernels_used->combine[dtype][op];
    p.widen = serry_kernels_used->widen[dtype];
    if (n <= SERRY_FAN && p.widen == NULL && op != SERRY_AVG) {
        p.combine(result, source, n, count);
        return;
    }
    p.size = serry_dtype_size(dtype);
    reduce_blocks(&p, result, source, n, count, op == SERRY_AVG ? n : 1);
}

bool serry_op_check(serry_op op, serry_dtype dtype)
{
    if ((unsigned)dtype >= SERRY_DTYPES)
        return false;
    if (op >= 0 && op < SERRY_OPS)
        return serry_kernels_used->combine[dtype][op] != NULL;
    return serry_user_op_find(op) != NULL;
}
