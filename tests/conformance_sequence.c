/* conformance_sequence.c - calls of all kinds in a random order; see conformance.h. */
#include "conformance.h"

#include <pthread.h>
#include <stdlib.h>

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

/* ---- all mixed, from several threads ------------------------------------------------------------- */

#define MIXERS 3
#define MIXED_STEPS 150u
#define MIXED_FLIGHT 8
#define MIXED_BYTES (16u * KIB)
#define MESSAGE_MOST 3000u /* elements: some in a line, some in the ring, some beyond */

/* A thread of a rank, with a communicator of its own. */
typedef struct mixer {
    test_rank *self;
    uint64_t number;
    pthread_t thread;
    serry_comm *comm;
    const dataset *data;
    group world[SEQUENCE_SETS];
    started slots[MIXED_FLIGHT];
    int64_t sent[MESSAGE_MOST], got[MESSAGE_MOST];
    bool ok;
} mixer;

static int64_t letter(int from, uint64_t step, size_t i)
{
    return from * INT64_C(1000003) + (int64_t)step * 101 + (int64_t)i;
}

/* A message to the next rank, and one from the rank before. */
static bool pass_on(mixer *m, uint64_t step)
{
    int rank = m->self->rank, size = m->self->size, tag = (int)(step % 7);
    int next = (rank + 1) % size, before = (rank + size - 1) % size;
    size_t count = (size_t)(reference_random(test_seed(), 20 + m->number, step) % MESSAGE_MOST);
    serry_request *request[2] = {NULL, NULL};

    for (size_t i = 0; i < count; i++)
        m->sent[i] = letter(rank, step, i);
    int rc = serry_irecv(m->got, count, SERRY_I64, before, tag, NULL, m->comm, &request[0]);
    if (rc == SERRY_OK)
        rc = serry_isend(m->sent, count, SERRY_I64, next, tag, m->comm, &request[1]);
    if (rc == SERRY_OK)
        rc = serry_wait_all(request, 2, -1);
    if (!test_expect(m->self, SERRY_OK, rc, m->comm, "message of step %llu",
                     (unsigned long long)step))
        return false;
    for (size_t i = 0; i < count; i++)
        if (!CHECK(m->self, m->got[i] == letter(before, step, i)))
            return false;
    return true;
}

static bool take_step(mixer *m, started *s, uint64_t step)
{
    s->c = random_case(step + (m->number + 1) * 100000, MIXED_BYTES, m->self->size, &s->set);
    switch (reference_random(test_seed(), 30 + m->number, step) % 4) {
    case 0:
        return case_run(m->self, &s->buffers, &m->world[s->set], &m->data[s->set], &s->c);
    case 1:
        return pass_on(m, step);
    default:
        return case_start(m->self, &s->buffers, &m->world[s->set], &m->data[s->set], &s->c,
                          &s->request);
    }
}

static void *mix(void *argument)
{
    mixer *m = argument;

    for (uint64_t step = 0; m->ok && step < MIXED_STEPS + MIXED_FLIGHT; step++) {
        started *s = &m->slots[step % MIXED_FLIGHT];
        if (s->request != NULL)
            m->ok = case_finish(m->self, &s->buffers, &m->world[s->set], &m->data[s->set], &s->c,
                                &s->request);
        if (m->ok && step < MIXED_STEPS)
            m->ok = take_step(m, s, step);
    }
    for (size_t i = 0; i < MIXED_FLIGHT; i++) {
        serry_cancel(m->slots[i].request);
        serry_request_free(&m->slots[i].request);
    }
    return NULL;
}

static bool mixer_open(test_rank *self, mixer *m, const dataset *data, const group *world)
{
    bool ok = EXPECT_OK(self, serry_dup(self->comm, &m->comm));

    m->self = self;
    m->data = data;
    for (size_t i = 0; i < SEQUENCE_SETS; i++) {
        m->world[i] = world[i];
        m->world[i].comm = m->comm;
    }
    for (size_t i = 0; i < MIXED_FLIGHT; i++)
        ok = buffers_open(self, &m->slots[i].buffers, MIXED_BYTES) && ok;
    return m->ok = ok;
}

void body_mixed(test_rank *self)
{
    mixer *mixers = calloc(MIXERS, sizeof(*mixers));
    dataset data[SEQUENCE_SETS];
    group world[SEQUENCE_SETS];

    if (!CHECK(self, mixers != NULL))
        return;
    prepare_sets(self, data, world);
    for (uint64_t i = 0; i < MIXERS; i++) {
        mixers[i].number = i;
        mixer_open(self, &mixers[i], data, world);
    }
    for (size_t i = 0; i < MIXERS; i++)
        pthread_create(&mixers[i].thread, NULL, mix, &mixers[i]);
    for (size_t i = 0; i < MIXERS; i++)
        pthread_join(mixers[i].thread, NULL);
    for (size_t i = 0; i < MIXERS; i++) {
        for (size_t j = 0; j < MIXED_FLIGHT; j++)
            buffers_close(self, &mixers[i].slots[j].buffers);
        test_expect(self, SERRY_OK, serry_finalize(&mixers[i].comm), NULL, "serry_finalize");
    }
    free(mixers);
}
