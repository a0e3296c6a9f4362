/* conformance_parts.c - communicators made from others, and two at once; see conformance.h. */
#include "conformance.h"

#include <pthread.h>
#include <stdlib.h>

/* ---- communicators made from others --------------------------------------------------------- */

#define PART_LENGTH 24000u /* elements of the dataset of the groups */
#define PARTS 5

/* The group that a split of `from` must give this rank; size 0: none. Checks it against `comm`. */
static void group_split(test_rank *self, const group *from, serry_comm *comm, const int *colours,
                        const int *keys, group *part)
{
    *part = (group){.comm = comm};
    int mine = colours[from->rank];
    int order[SERRY_MAX_RANKS];
    for (int r = 0; r < from->size && mine != SERRY_UNDEFINED; r++) {
        if (colours[r] != mine)
            continue;
        int at = part->size++;
        for (; at > 0 && keys[order[at - 1]] > keys[r]; at--)
            order[at] = order[at - 1];
        order[at] = r;
    }
    for (int i = 0; i < part->size; i++) {
        part->member[i] = from->member[order[i]];
        if (order[i] == from->rank)
            part->rank = i;
    }
    if (part->size == 0)
        CHECK(self, comm == NULL);
    else if (serry_rank(comm) != part->rank || serry_size(comm) != part->size ||
             serry_live(comm) != part->size)
        test_failed(self, "split: rank %d of %d (live %d), wanted rank %d of %d", serry_rank(comm),
                    serry_size(comm), serry_live(comm), part->rank, part->size);
}

/* Every rank knows what all give, so that it can tell who will be where. */
static bool split(test_rank *self, const group *from, const int *colours, const int *keys,
                  group *part)
{
    serry_comm *comm = NULL;
    test_at(self, "serry_split");
    if (!test_expect(self, SERRY_OK,
                     serry_split(from->comm, colours[from->rank], keys[from->rank], &comm),
                     from->comm, "serry_split"))
        return false;
    group_split(self, from, comm, colours, keys, part);
    return true;
}

/* part[0]: the world. 1: by parity, in reverse. 2: a dup. 3: all but rank 0. 4: halves of 1. */
static bool make_parts(test_rank *self, group part[PARTS])
{
    int colours[PARTS][SERRY_MAX_RANKS], keys[PARTS][SERRY_MAX_RANKS];
    for (int r = 0; r < self->size; r++) {
        colours[1][r] = r % 2;
        keys[1][r] = -r;
        colours[3][r] = r == 0 ? SERRY_UNDEFINED : 7;
        keys[3][r] = 5;
    }
    if (!split(self, &part[0], colours[1], keys[1], &part[1]))
        return false;
    part[2] = part[0];
    if (!EXPECT_OK(self, serry_dup(self->comm, &part[2].comm)) ||
        !split(self, &part[0], colours[3], keys[3], &part[3]))
        return false;
    CHECK(self, serry_rank(part[2].comm) == self->rank && serry_size(part[2].comm) == self->size);
    for (int r = 0; r < part[1].size; r++) {
        colours[4][r] = r < (part[1].size + 1) / 2;
        keys[4][r] = 0;
    }
    return split(self, &part[1], colours[4], keys[4], &part[4]);
}

/* One case of the short list for groups; counts stay small enough for a block for each rank. */
static op_case part_case(const group *g, unsigned turn)
{
    static const size_t k_counts[] = {0, 1, 2, 17, 300, 1200, 20000};
    op_case c = {.kind = (serry_kind)(turn % (SERRY_KIND_ALLTOALL + 1)), .turn = turn};
    size_t blocks = case_has_blocks(c.kind) ? (size_t)g->size : 1;
    size_t most = (PART_LENGTH - CASE_SHIFTS) / blocks;
    c.count = k_counts[turn / 9 % (sizeof(k_counts) / sizeof(k_counts[0]))];
    if (c.count > most)
        c.count = most;
    if (c.kind == SERRY_KIND_BARRIER)
        c.count = 0;
    if (case_roots(c.kind, g->size) > 1)
        c.root = (int)turn % g->size;
    c.memory = (memory_choice)(turn % MEMORIES);
    c.place = (place_choice)(turn / 2 % PLACES);
    return c;
}

/* The combination over the members of a group. */
static unsigned char *combine_part(const group *g, const dataset *data)
{
    const void *source[SERRY_MAX_RANKS];
    unsigned char *combined = malloc(data->length * reference_size(data->dtype));
    for (int r = 0; r < g->size; r++)
        source[r] = dataset_input(data, g->member[r]);
    reference_combine(combined, source, g->size, data->length, data->dtype, data->op);
    return combined;
}

static void use_parts(test_rank *self, const buffers *b, const dataset *data, group part[PARTS])
{
    unsigned char *combined[PARTS] = {NULL};
    for (int i = 0; i < PARTS; i++)
        if (part[i].size > 0)
            part[i].combined = combined[i] = combine_part(&part[i], data);
    bool well = true;
    for (unsigned turn = 0; turn < 9 * 7 && well; turn++)
        for (unsigned i = 0; i < PARTS && well; i++)
            if (part[i].size > 0) {
                op_case c = part_case(&part[i], turn + 4 * i);
                well = case_run(self, b, &part[i], data, &c);
            }
    for (int i = 0; i < PARTS; i++)
        free(combined[i]);
}

void body_parts(test_rank *self)
{
    shared *s = self->argument;
    dataset data = {.dtype = SERRY_F32,
                    .op = SERRY_SUM,
                    .seed = test_seed(),
                    .length = PART_LENGTH,
                    .size = self->size,
                    .memory = s->memory};
    group part[PARTS];
    buffers b;

    dataset_prepare(self, &data);
    group_world(self, &data, &part[0]);
    if (!buffers_open(self, &b, PART_LENGTH * sizeof(float)))
        return;
    if (make_parts(self, part)) {
        use_parts(self, &b, &data, part);
        for (int i = PARTS - 1; i > 0; i--)
            test_expect(self, SERRY_OK, serry_finalize(&part[i].comm), NULL, "serry_finalize");
        EXPECT_OK(self, serry_barrier(self->comm));
    }
    buffers_close(self, &b);
}

void body_many_parts(test_rank *self)
{
    for (int i = 0; i < 300; i++) {
        serry_comm *part = NULL;
        float one = 1, sum = 0;
        if (!EXPECT_OK(self, serry_split(self->comm, self->rank % 2, i, &part)))
            return;
        test_expect(self, SERRY_OK, serry_allreduce(&one, &sum, 1, SERRY_F32, SERRY_SUM, part),
                    part, "allreduce in a part");
        CHECK(self, sum == (float)serry_size(part));
        test_expect(self, SERRY_OK, serry_finalize(&part), NULL, "serry_finalize");
    }
}

/* ---- two threads of a rank, a communicator each --------------------------------------------- */

typedef struct side {
    test_rank *self;
    serry_comm *comm;
    uint64_t factor;
    bool wrong;
} side;

static void *sum_many_times(void *argument)
{
    side *s = argument;
    uint64_t n = (uint64_t)s->self->size;
    for (uint64_t i = 0; i < 300 && !s->wrong; i++) {
        uint64_t mine[3] = {s->factor * i, (uint64_t)s->self->rank, 1}, sum[3] = {0};
        s->wrong = serry_allreduce(mine, sum, 3, SERRY_U64, SERRY_SUM, s->comm) != SERRY_OK ||
                   sum[0] != s->factor * i * n || sum[1] != n * (n - 1) / 2 || sum[2] != n;
    }
    return NULL;
}

void body_two_at_once(test_rank *self)
{
    side world = {self, self->comm, 3, false}, copy = {self, NULL, 5, false};
    pthread_t thread;
    if (!EXPECT_OK(self, serry_dup(self->comm, &copy.comm)))
        return;
    pthread_create(&thread, NULL, sum_many_times, &copy);
    sum_many_times(&world);
    pthread_join(thread, NULL);
    if (world.wrong)
        test_failed(self, "wrong sum or error: %s", serry_last_error(world.comm)->message);
    if (copy.wrong)
        test_failed(self, "wrong sum or error: %s", serry_last_error(copy.comm)->message);
    test_expect(self, SERRY_OK, serry_finalize(&copy.comm), NULL, "serry_finalize");
}
