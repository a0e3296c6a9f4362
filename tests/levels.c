/* levels.c - operations by blocks on machines that are not there: the results, and how many cache lines
 * come from other domains, by blocks and without.
 *
 * Ranks are threads, as many as the machine has cores; each stands where hwloc has the core of its
 * number. This program has its own build of what reads lines (shm/lines.h), which counts them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cases.h"
#include "comm.h"
#include "lines.h"
#include "synthetic.h"

#define LENGTH (1024 + CASE_SHIFTS) /* elements of a dataset */

static serry_op g_user;

/* ---- counting --------------------------------------------------------------------------------- */

static _Thread_local struct {
    size_t near, far;
} g_lines;

static uint32_t *domain_of(const shm_group *g, int rank)
{
    return &g->arena->slots[g->header->slot[rank]].domain;
}

void lines_read(const shm_member *m, int owner, size_t lines)
{
    const shm_group *g = &m->group;
    bool near = *domain_of(g, g->rank) == *domain_of(g, owner);

    if (owner == g->rank)
        return;
    g_lines.near += near ? lines : 0;
    g_lines.far += near ? 0 : lines;
}

/* ---- a machine -------------------------------------------------------------------------------- */

typedef struct machine {
    const char *description;
    int cores;
    int span;              /* that is to be chosen */
    int large_span;        /* in large operations */
    bool even;             /* a block there is a domain */
    uint32_t *domain;      /* of each core */
    unsigned char *memory; /* of a dataset */
} machine;

static double g_slice_lines; /* of large operations by blocks, where no member has several */

static shm_member *member_of(const test_rank *self)
{
    return (shm_member *)(void *)self->comm->member;
}

/* Each is bound to its core, and there are as many cores as ranks; nobody gives up waiting. */
static void take_place(test_rank *self)
{
    const machine *place = self->argument;
    shm_member *m = member_of(self);

    test_meet(self); /* all have joined */
    *domain_of(&m->group, self->rank) = place->domain[self->rank];
    if (self->rank == 0)
        g_slice_lines = (double)m->group.chunk_bytes / 2 / SHM_LINE;
    test_meet(self);
    m->plan = (wait_plan){.pauses = 1, .yields = UINT32_MAX};
    levels_plan(m);
    CHECK(self, m->levels.span == place->span);
    CHECK(self, m->levels.large_span == place->large_span);
}

/* Until levels_plan. */
static void be_flat(shm_member *m)
{
    m->levels.span = 0;
    m->rare &= ~(unsigned)RARE_LEVELS;
}

/* ---- lines ------------------------------------------------------------------------------------ */

enum { BARRIER, ONE, SIXTY_FOUR, CALLS };

static const struct {
    const char *name;
    size_t count; /* of doubles */
    size_t lines; /* that a member publishes */
} k_calls[CALLS] = {{"barrier", 0, 1}, {"allreduce of 8 B", 1, 1}, {"allreduce of 512 B", 64, 9}};

static size_t far_ranks(const test_rank *self)
{
    const machine *place = self->argument;
    size_t far = 0;

    for (int r = 0; r < self->size; r++)
        far += place->domain[r] != place->domain[self->rank];
    return far;
}

/* In a block of one domain one line tells of all to those outside. */
static size_t far_in_block(const test_rank *self, int first, int end)
{
    const uint32_t *domain = ((const machine *)self->argument)->domain;
    bool told = end - first > 1 && (self->rank < first || self->rank >= end);
    size_t far = 0;

    for (int r = first; r < end; r++)
        told &= domain[r] == domain[first];
    for (int r = first; r < (told ? first + 1 : end); r++)
        far += domain[r] != domain[self->rank];
    return far;
}

static size_t far_by_blocks(const test_rank *self)
{
    const machine *place = self->argument;
    size_t far = 0;

    for (int first = 0; first < self->size; first += place->span) {
        int end = first + place->span;
        far += far_in_block(self, first, end < self->size ? end : self->size);
    }
    return far;
}

/* Lines from other domains that this rank reads in one call. */
static size_t lines_of_call(test_rank *self, int call)
{
    double input[64], sum[64];
    size_t count = k_calls[call].count;
    size_t before = g_lines.far;

    for (size_t i = 0; i < count; i++)
        input[i] = self->rank + (double)i;
    if (call == BARRIER)
        EXPECT_OK(self, serry_barrier(self->comm));
    else
        EXPECT_OK(self, serry_allreduce(input, sum, count, SERRY_F64, SERRY_SUM, self->comm));
    for (size_t i = 0; i < count; i++)
        CHECK(self, sum[i] == self->size * (self->size - 1) / 2 + self->size * (double)i);
    return g_lines.far - before;
}

/* numbers: of each call, flat and by blocks. */
static void body_lines(test_rank *self)
{
    const machine *place = self->argument;
    double *number = test_mine(self)->number;

    take_place(self);
    for (int call = 0; call < CALLS; call++) {
        test_meet(self);
        be_flat(member_of(self));
        number[2 * call] = (double)lines_of_call(self, call);
        CHECK(self, (size_t)number[2 * call] == far_ranks(self) * k_calls[call].lines);
        test_meet(self);
        levels_plan(member_of(self));
        number[2 * call + 1] = (double)lines_of_call(self, call);
        if (place->span != 0)
            CHECK(self, (size_t)number[2 * call + 1] == far_by_blocks(self) * k_calls[call].lines);
        else
            CHECK(self, number[2 * call + 1] == number[2 * call]);
    }
}

static void tell_lines(test_run *run, const machine *place)
{
    for (int call = 0; call < CALLS; call++) {
        double flat = 0, blocks = 0;
        for (int r = 0; r < place->cores; r++) {
            flat += test_report_of(run, r)->number[2 * call];
            blocks += test_report_of(run, r)->number[2 * call + 1];
        }
        print_message("%s: %s: %.0f lines from other domains, by blocks %.0f\n", place->description,
                      k_calls[call].name, flat, blocks);
        assert_true(place->span == 0 || blocks < flat);
    }
}

/* ---- lines of large operations ------------------------------------------------------------------ */

enum { LARGE_ALLREDUCE, LARGE_IN_PLACE, LARGE_REDUCE, LARGE_BROADCAST, LARGE_CALLS };
static const char *const k_large_calls[] = {"allreduce", "allreduce in place", "reduce",
                                            "broadcast"};

/* Lines of a vector: as many for each rank, in whole slices and pieces. */
static size_t large_lines(const machine *place)
{
    return (size_t)place->cores * 64;
}

static int call_large(test_rank *self, int call, double *input, double *result, size_t count)
{
    int last = self->size - 1;

    switch (call) {
    case LARGE_ALLREDUCE:
        return serry_allreduce(input, result, count, SERRY_F64, SERRY_SUM, self->comm);
    case LARGE_IN_PLACE:
        return serry_allreduce(SERRY_IN_PLACE, input, count, SERRY_F64, SERRY_SUM, self->comm);
    case LARGE_REDUCE:
        return serry_reduce(input, result, count, SERRY_F64, SERRY_SUM, last, self->comm);
    default:
        return serry_broadcast(input, count, SERRY_F64, last, self->comm);
    }
}

static void check_large(test_rank *self, int call, const double *got, size_t count)
{
    double last = self->size - 1, wrong = 0;

    for (size_t i = 0; i < count; i++) {
        double sum = self->size * last / 2 + self->size * (double)i;
        wrong += got[i] != (call == LARGE_BROADCAST ? last + (double)i : sum);
    }
    CHECK(self, wrong == 0 || (call == LARGE_REDUCE && self->rank != self->size - 1));
}

/* numbers: lines from other domains in each call, flat and by blocks. */
static void body_large_lines(test_rank *self)
{
    const machine *place = self->argument;
    size_t count = large_lines(place) * 8;
    double *input = malloc(count * sizeof(*input)), *result = calloc(count, sizeof(*result));

    take_place(self);
    for (int i = 0; i < 2 * LARGE_CALLS; i++) {
        int call = i / 2;
        test_meet(self);
        EXPECT_OK(self, test_set_variant(self->comm, i % 2 ? VARIANT_CHOOSE : VARIANT_SHARE));
        for (size_t e = 0; e < count; e++)
            input[e] = self->rank + (double)e;
        test_meet(self);
        g_lines.far = 0;
        EXPECT_OK(self, call_large(self, call, input, result, count));
        test_mine(self)->number[i] = (double)g_lines.far;
        check_large(self, call, call == LARGE_IN_PLACE || call == LARGE_BROADCAST ? input : result,
                    count);
    }
    free(input);
    free(result);
}

/* All words of the first step, and digests of each other one, read by all. */
static double step_lines(const machine *place, double steps)
{
    double ranks = place->cores, others = ranks - place->large_span;

    return ranks * (others + steps * others / place->span);
}

/* Of data and steps, in all: docs/scaling.md. */
static double flat_lines(const machine *place, int call)
{
    double ranks = place->cores, k = place->large_span, lines = (double)large_lines(place);
    double copied = call == LARGE_BROADCAST ? 0 : call == LARGE_REDUCE ? lines / ranks : lines;

    return (ranks - k) * (lines + copied) + step_lines(place, 1);
}

static double block_lines(const machine *place, int call, double chunks)
{
    double ranks = place->cores, k = place->large_span, lines = (double)large_lines(place);
    double pieces = call == LARGE_BROADCAST ? 0 : lines;
    double slices = call == LARGE_REDUCE ? lines * k / ranks : lines;
    double steps = chunks + (call == LARGE_BROADCAST ? 0 : 2);

    return (ranks / k - 1) * (pieces + slices) + step_lines(place, steps);
}

/* As blocks.c divides the vector. */
static double chunks_of(const machine *place)
{
    return ceil((double)large_lines(place) / (g_slice_lines * place->large_span));
}

static void tell_large_lines(test_run *run, const machine *place)
{
    for (int call = 0; call < LARGE_CALLS && place->large_span != 0; call++) {
        double flat = 0, blocks = 0;
        for (int r = 0; r < place->cores; r++) {
            flat += test_report_of(run, r)->number[2 * call];
            blocks += test_report_of(run, r)->number[2 * call + 1];
        }
        print_message("%s: %s of %zu KiB: %.0f lines from other domains, by blocks %.0f\n",
                      place->description, k_large_calls[call], large_lines(place) / 16, flat,
                      blocks);
        assert_true(blocks < flat);
        if (!place->even)
            continue;
        assert_true(flat == flat_lines(place, call));
        assert_true(blocks == block_lines(place, call, chunks_of(place)));
    }
}

/* ---- results ---------------------------------------------------------------------------------- */

static const struct {
    serry_dtype dtype;
    serry_op op; /* SERRY_OPS: the user-defined one */
} k_sets[] = {
    {SERRY_F32, SERRY_SUM}, {SERRY_F16, SERRY_SUM}, {SERRY_BF16, SERRY_AVG},
    {SERRY_I32, SERRY_AVG}, {SERRY_F64, SERRY_MIN}, {SERRY_U16, SERRY_OPS},
};

/* Around what travels in a line, and a digest; and around the small buffers. */
static const size_t k_counts[] = {1, 5, 10, 11, 100, 256, 512};

static bool run_cases(test_rank *self, const buffers *b, const group *world, const dataset *data)
{
    unsigned turn = 0;

    for (serry_kind kind = SERRY_KIND_BARRIER; kind <= SERRY_KIND_ALLTOALL; kind++)
        for (size_t i = 0; i < sizeof(k_counts) / sizeof(k_counts[0]); i++) {
            size_t blocks = case_has_blocks(kind) ? (size_t)self->size : 1;
            op_case c = {.kind = kind,
                         .count = kind == SERRY_KIND_BARRIER ? 0 : k_counts[i],
                         .root =
                             i % 2 == 0 || case_roots(kind, self->size) == 1 ? 0 : self->size - 1,
                         .memory = (memory_choice)(turn % MEMORIES),
                         .place = (place_choice)(turn % PLACES),
                         .turn = turn};
            turn++;
            if (k_counts[i] * blocks <= LENGTH - CASE_SHIFTS && !case_run(self, b, world, data, &c))
                return false;
        }
    return true;
}

/* Direct, and copied: of one chunk, and on all but the largest machines of several. */
static bool run_large_cases(test_rank *self, const buffers *b, const group *world,
                            const dataset *data)
{
    static const serry_kind kinds[] = {SERRY_KIND_ALLREDUCE, SERRY_KIND_REDUCE,
                                       SERRY_KIND_BROADCAST};
    size_t most = data->length - CASE_SHIFTS, least = BLOCKS_BYTES / serry_dtype_size(data->dtype);
    bool goes_on = true;

    for (unsigned turn = 0; turn < 12 && goes_on; turn++) {
        op_case c = {.kind = kinds[turn % 3],
                     .count = turn % 2 ? most - turn : least + turn,
                     .root = turn % 3 == 0 ? 0 : (int)(turn * 5) % self->size,
                     .place = (place_choice)(turn % PLACES),
                     .turn = turn};
        EXPECT_OK(self, test_set_variant(self->comm, turn < 6 ? VARIANT_CHOOSE : VARIANT_COPY));
        goes_on = c.count > most || case_run(self, b, world, data, &c);
    }
    EXPECT_OK(self, test_set_variant(self->comm, VARIANT_CHOOSE));
    return goes_on;
}

typedef bool run_list(test_rank *self, const buffers *b, const group *world, const dataset *data);

static void run_sets(test_rank *self, size_t length, run_list *run)
{
    const machine *place = self->argument;
    buffers b;

    take_place(self);
    if (!buffers_open(self, &b, length * 8))
        return;
    for (size_t i = 0; i < sizeof(k_sets) / sizeof(k_sets[0]); i++) {
        group world;
        dataset data = {.dtype = k_sets[i].dtype,
                        .op = k_sets[i].op == SERRY_OPS ? g_user : k_sets[i].op,
                        .seed = test_seed() + i,
                        .length = length,
                        .size = self->size,
                        .memory = place->memory};
        dataset_prepare(self, &data);
        group_world(self, &data, &world);
        if (!run(self, &b, &world, &data))
            break;
        test_meet(self);
    }
    buffers_close(self, &b);
}

static void body_results(test_rank *self)
{
    run_sets(self, LENGTH, run_cases);
}

/* Elements of a dataset: of the smaller types just what is large enough. */
static size_t large_length(const machine *place)
{
    return CASE_SHIFTS + (place->cores > 36 ? 16500 : 70000);
}

static void body_large_results(test_rank *self)
{
    run_sets(self, large_length(self->argument), run_large_cases);
}

/* ---- the tests -------------------------------------------------------------------------------- */

/* Two sockets with 8 cores to eight with 16, and others. Of a large domain smaller blocks are cheaper,
 * and where ranks are spread over the domains one by one there are none. */
static const machine k_machines[] = {
    {"pack:2 [numa] l3:1 core:8 pu:1", 16, .span = 8, .large_span = 8, .even = true},
    {"pack:4 [numa] l3:1 core:8 pu:1", 32, .span = 8, .large_span = 8, .even = true},
    {"pack:2 [numa] l3:1 core:16 pu:1", 32, .span = 8, .large_span = 16, .even = true},
    {"pack:4 [numa] l3:1 core:16 pu:1", 64, .span = 16, .large_span = 16, .even = true},
    {"pack:8 [numa] l3:1 core:16 pu:1", 128, .span = 16, .large_span = 16, .even = true},
    {"pack:2 [numa] l3:2 core:6 pu:1", 24, .span = 2, .large_span = 4},
    {"pack:3 [numa] l3:1 core:7 pu:1", 21, /* blocks in two domains, a last one of one */
     .span = 2, .large_span = 8},
    {"pack:3 [numa] l3:1 core:5 pu:1", 15, .span = 2, .large_span = 4},
    {"pack:2 [numa] l3:1 core:18 pu:1", 36, /* the fifth block lies in both */
     .span = 4, .large_span = 16},
    {"pack:2 [numa] l3:1 core:10 pu:1(indexes=pack:core)", 20, .span = 0},
    {"pack:2 [numa] l3:1 core:4 pu:1", 8, .span = 0},
    {"pack:1 [numa] l3:1 core:16 pu:1", 16, .span = 0},
};
enum { MACHINES = sizeof(k_machines) / sizeof(k_machines[0]) };

/* Every rank of every machine. */
static void everywhere(test_body body, void (*tell)(test_run *run, const machine *place))
{
    for (size_t i = 0; i < MACHINES; i++) {
        machine place = k_machines[i];
        size_t length = body == body_large_results ? large_length(&place) : LENGTH;
        size_t bytes = dataset_bytes(SERRY_F64, place.cores, length);
        test_options options = {.kind = SERRY_THREADS, .size = place.cores};
        uint32_t domain[SERRY_MAX_RANKS];
        if (TEST_SANITIZER && place.cores > 32)
            continue;
        print_message("%s\n", place.description);
        synthetic_domains(place.description, domain, place.cores);
        place.domain = domain;
        place.memory = test_shared(bytes);
        test_run *run = test_start(&options, body, &place);
        test_join(run);
        if (tell != NULL)
            tell(run, &place);
        test_end(run);
        test_unshare(place.memory, bytes);
    }
}

static void fewer_lines_come_from_other_domains(void **state)
{
    (void)state;
    everywhere(body_lines, tell_lines);
}

static void fewer_lines_of_large_operations_come_from_other_domains(void **state)
{
    (void)state;
    everywhere(body_large_lines, tell_large_lines);
}

static void results_are_the_same_by_blocks(void **state)
{
    (void)state;
    everywhere(body_results, NULL);
}

static void results_of_large_operations_are_the_same_by_blocks(void **state)
{
    (void)state;
    everywhere(body_large_results, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fewer_lines_come_from_other_domains),
        cmocka_unit_test(fewer_lines_of_large_operations_come_from_other_domains),
        cmocka_unit_test(results_are_the_same_by_blocks),
        cmocka_unit_test(results_of_large_operations_are_the_same_by_blocks),
    };

    test_watchdog(280);
    if (serry_op_create("reference", reference_user, NULL, &g_user) != SERRY_OK)
        return 1;
    int failed = cmocka_run_group_tests_name("levels", tests, NULL, NULL);
    serry_op_free(&g_user);
    return failed;
}
