/* conformance_sequence.c - calls of all kinds in a random order; see conformance.h. */
#include "conformance.h"

#define SEQUENCE_BYTES (256u * KIB) /* of a buffer */

static const struct {
    serry_dtype dtype;
    serry_op op; /* SERRY_OPS: the user-defined one */
} k_sequence[] = {
    {SERRY_F32, SERRY_SUM},  {SERRY_BF16, SERRY_AVG}, {SERRY_I8, SERRY_SUM},
    {SERRY_F64, SERRY_SUM},  {SERRY_F16, SERRY_MAX},  {SERRY_U16, SERRY_OPS},
    {SERRY_I64, SERRY_BXOR}, {SERRY_U32, SERRY_AVG},
};
#define SEQUENCE_SETS (sizeof(k_sequence) / sizeof(k_sequence[0]))

/* Step number `step`, the same on all ranks: all is drawn from the seed. */
static op_case random_case(uint64_t step, size_t bytes, int size, size_t *set)
{
    uint64_t seed = test_seed();
    op_case c = {.kind = (serry_kind)(reference_random(seed, 1, step) % (SERRY_KIND_ALLTOALL + 1))};
    size_t blocks = case_has_blocks(c.kind) ? (size_t)size : 1;
    size_t most = bytes / 8 / blocks;
    uint64_t bits = reference_random(seed, 2, step) % 20;

    c.count = (size_t)(reference_random(seed, 3, step) % (UINT64_C(1) << bits)) % most;
    if (c.kind == SERRY_KIND_BARRIER)
        c.count = 0;
    if (case_roots(c.kind, size) > 1)
        c.root = (int)(reference_random(seed, 4, step) % (uint64_t)size);
    c.memory = (memory_choice)(reference_random(seed, 5, step) % MEMORIES);
    c.place = (place_choice)(reference_random(seed, 6, step) % PLACES);
    c.turn = (unsigned)reference_random(seed, 7, step);
    *set = (size_t)(reference_random(seed, 8, step) % SEQUENCE_SETS);
    return c;
}

/* A dataset of each kind, one behind the other. */
static void prepare_sets(test_rank *self, dataset *data, group *world)
{
    shared *s = self->argument;
    unsigned char *memory = s->memory;

    for (size_t i = 0; i < SEQUENCE_SETS; i++) {
        serry_op op = k_sequence[i].op == SERRY_OPS ? g_user : k_sequence[i].op;
        data[i] = (dataset){.dtype = k_sequence[i].dtype,
                            .op = op,
                            .seed = test_seed() + i,
                            .size = self->size,
                            .memory = memory};
        data[i].length = SEQUENCE_BYTES / reference_size(data[i].dtype) + CASE_SHIFTS;
        memory += dataset_bytes(data[i].dtype, self->size, data[i].length);
        dataset_prepare(self, &data[i]);
        group_world(self, &data[i], &world[i]);
    }
}

static void be_late(const test_rank *self, uint64_t step)
{
    uint64_t late = reference_random(test_seed(), 100 + (uint64_t)self->rank, step);

    if (late % 64 == 0)
        test_sleep_ms((unsigned)(late >> 8) % 3);
}

void body_sequence(test_rank *self)
{
    dataset data[SEQUENCE_SETS];
    group world[SEQUENCE_SETS];
    buffers b;

    if (!buffers_open(self, &b, SEQUENCE_BYTES))
        return;
    prepare_sets(self, data, world);
    for (uint64_t step = 0; step < 500; step++) {
        size_t set;
        op_case c = random_case(step, SEQUENCE_BYTES, self->size, &set);
        be_late(self, step);
        if (!case_run(self, &b, &world[set], &data[set], &c))
            break;
    }
    buffers_close(self, &b);
}

/* ---- started and finished apart ---------------------------------------------------------------- */

#define FLIGHT_MOST 64
#define FLIGHT_STEPS 512u

/* One request and its own buffers. */
typedef struct started {
    serry_request *request;
    buffers buffers;
    op_case c;
    size_t set;
} started;

/* `flight` requests are under way at once: each is finished just before its buffers are needed again.
 * Some steps are synchronous, in the order of the others. */
static bool fly(test_rank *self, started *slots, size_t flight, size_t bytes, const dataset *data,
                const group *world)
{
    bool ok = true;

    for (uint64_t step = 0; ok && step < FLIGHT_STEPS + flight; step++) {
        started *s = &slots[step % flight];
        if (step >= flight && s->request != NULL)
            ok = case_finish(self, &s->buffers, &world[s->set], &data[s->set], &s->c, &s->request);
        if (!ok || step >= FLIGHT_STEPS)
            continue;
        be_late(self, step);
        s->c = random_case(step + flight * 1000, bytes, self->size, &s->set);
        ok = step % 16 == 15
                 ? case_run(self, &s->buffers, &world[s->set], &data[s->set], &s->c)
                 : case_start(self, &s->buffers, &world[s->set], &data[s->set], &s->c, &s->request);
    }
    for (size_t i = 0; i < flight; i++) {
        serry_cancel(slots[i].request);
        serry_request_free(&slots[i].request);
    }
    return ok;
}

void body_started(test_rank *self)
{
    static const struct {
        size_t flight, bytes;
    } k_flights[] = {{1, SEQUENCE_BYTES}, {2, SEQUENCE_BYTES}, {FLIGHT_MOST, 16 * KIB}};
    dataset data[SEQUENCE_SETS];
    group world[SEQUENCE_SETS];
    bool ok = true;

    prepare_sets(self, data, world);
    for (size_t i = 0; i < sizeof(k_flights) / sizeof(k_flights[0]) && ok; i++) {
        started slots[FLIGHT_MOST] = {0};
        size_t flight = k_flights[i].flight;
        for (size_t j = 0; j < flight; j++)
            ok &= buffers_open(self, &slots[j].buffers, k_flights[i].bytes);
        ok = ok && fly(self, slots, flight, k_flights[i].bytes, data, world);
        for (size_t j = 0; j < flight; j++)
            buffers_close(self, &slots[j].buffers);
    }
}
