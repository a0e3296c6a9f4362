/* conformance_large.c - a few hundred MiB of private memory; see conformance.h. */
#include "conformance.h"

#include <stdlib.h>
#include <string.h>

#define LARGE_COUNT ((size_t)64 * MIB) /* f32: 256 MiB */

/* Inputs repeat after so many elements, which saves most of the arithmetic. It is a prime: what lands in the
 * wrong place, by chunks of any algorithm, is something else there. */
#define LARGE_PERIOD ((size_t)1000003)

static void fill_large(test_rank *self, float *to)
{
    reference_fill(to, 0, LARGE_PERIOD, SERRY_F32, SERRY_SUM, test_seed(), self->rank);
    for (size_t at = LARGE_PERIOD; at < LARGE_COUNT; at++)
        to[at] = to[at - LARGE_PERIOD];
}

static uint64_t hash_of(const float *values)
{
    uint64_t hash = 0, two;
    for (size_t i = 0; i < LARGE_COUNT; i += 2) {
        memcpy(&two, values + i, sizeof(two));
        hash = (hash ^ two) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 32;
    }
    return hash;
}

/* This rank's periods of the sum beside the reference; the hash is for all of it. */
static void check_large_sum(test_rank *self, const float *result)
{
    float *input = malloc((size_t)(self->size + 1) * LARGE_PERIOD * sizeof(float));
    float *wanted = input + (size_t)self->size * LARGE_PERIOD;
    const void *source[SERRY_MAX_RANKS];

    for (int r = 0; r < self->size; r++) {
        float *of_rank = input + (size_t)r * LARGE_PERIOD;
        reference_fill(of_rank, 0, LARGE_PERIOD, SERRY_F32, SERRY_SUM, test_seed(), r);
        source[r] = of_rank;
    }
    reference_combine(wanted, source, self->size, LARGE_PERIOD, SERRY_F32, SERRY_SUM);
    for (size_t n = (size_t)self->rank; n * LARGE_PERIOD < LARGE_COUNT; n += (size_t)self->size) {
        size_t at = n * LARGE_PERIOD, left = LARGE_COUNT - at;
        size_t count = left < LARGE_PERIOD ? left : LARGE_PERIOD;
        size_t i = reference_differ(result + at, wanted, count, SERRY_F32, true);
        if (i < count) {
            test_failed(self, "large allreduce: element %zu is %#llx, wanted %#llx", at + i,
                        (unsigned long long)reference_bits(result, at + i, SERRY_F32),
                        (unsigned long long)reference_bits(wanted, i, SERRY_F32));
            break;
        }
    }
    free(input);
}

void body_large(test_rank *self)
{
    uint64_t *hash = ((shared *)self->argument)->hash;
    float *send = malloc(LARGE_COUNT * sizeof(float)), *recv = send;
    test_at(self, "filling");
    fill_large(self, send);
    if (self->size == 2)
        recv = malloc(LARGE_COUNT * sizeof(float));

    test_at(self, "large allreduce");
    EXPECT_OK(self, serry_allreduce(recv == send ? SERRY_IN_PLACE : send, recv, LARGE_COUNT,
                                    SERRY_F32, SERRY_SUM, self->comm));
    test_at(self, "checking");
    check_large_sum(self, recv);
    hash[self->rank] = hash_of(recv);
    test_meet(self);
    CHECK(self, hash[self->rank] == hash[0]);
    test_meet(self);

    test_at(self, "large broadcast");
    EXPECT_OK(self, serry_broadcast(recv, LARGE_COUNT, SERRY_F32, self->size - 1, self->comm));
    CHECK(self, hash_of(recv) == hash[self->size - 1]);
    test_meet(self);
    recv[(size_t)self->rank] = 1; /* and of something that is not the same everywhere before */
    if (self->rank == 0)
        memset(recv, 0x5a, LARGE_COUNT * sizeof(float));
    hash[self->rank] = hash_of(recv);
    test_at(self, "second large broadcast");
    EXPECT_OK(self, serry_broadcast(recv, LARGE_COUNT, SERRY_F32, 0, self->comm));
    CHECK(self, hash_of(recv) == hash[0]);
    if (recv != send)
        free(recv);
    free(send);
}
