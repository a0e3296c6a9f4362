/* levels.c - operations by blocks on machines that are not there: the results, and how many cache lines
 * come from other domains, by blocks and without.
 *
 * Ranks are threads, as many as the machine has cores; each stands where hwloc has the core of its
 * number. This program has its own build of what reads lines (shm/lines.h), which counts them. */
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
    uint32_t *domain;      /* of each core */
    unsigned char *memory; /* of a dataset */
} machine;

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
    test_meet(self);
    m->plan = (wait_plan){.pauses = 1, .yields = UINT32_MAX};
    levels_plan(m);
    CHECK(self, m->levels.span == place->span);
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

static void body_results(test_rank *self)
{
    const machine *place = self->argument;
    buffers b;

    take_place(self);
    if (!buffers_open(self, &b, LENGTH * 8))
        return;
    for (size_t i = 0; i < sizeof(k_sets) / sizeof(k_sets[0]); i++) {
        group world;
        dataset data = {.dtype = k_sets[i].dtype,
                        .op = k_sets[i].op == SERRY_OPS ? g_user : k_sets[i].op,
                        .seed = test_seed() + i,
                        .length = LENGTH,
                        .size = self->size,
                        .memory = place->memory};
        dataset_prepare(self, &data);
        group_world(self, &data, &world);
        if (!run_cases(self, &b, &world, &data))
            break;
        test_meet(self);
    }
    buffers_close(self, &b);
}

/* ---- the tests -------------------------------------------------------------------------------- */

/* Two sockets with 8 cores to eight with 16, and others. Of a large domain smaller blocks are cheaper,
 * and where ranks are spread over the domains one by one there are none. */
static const machine k_machines[] = {
    {"pack:2 [numa] l3:1 core:8 pu:1", 16, .span = 8},
    {"pack:4 [numa] l3:1 core:8 pu:1", 32, .span = 8},
    {"pack:2 [numa] l3:1 core:16 pu:1", 32, .span = 8},
    {"pack:4 [numa] l3:1 core:16 pu:1", 64, .span = 16},
    {"pack:8 [numa] l3:1 core:16 pu:1", 128, .span = 16},
    {"pack:2 [numa] l3:2 core:6 pu:1", 24, .span = 2},
    {"pack:3 [numa] l3:1 core:7 pu:1", 21,
     .span = 2}, /* blocks in two domains, a last one of one */
    {"pack:3 [numa] l3:1 core:5 pu:1", 15, .span = 2},
    {"pack:2 [numa] l3:1 core:18 pu:1", 36, .span = 4}, /* the fifth block lies in both */
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
        size_t bytes = dataset_bytes(SERRY_F64, place.cores, LENGTH);
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

static void results_are_the_same_by_blocks(void **state)
{
    (void)state;
    everywhere(body_results, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fewer_lines_come_from_other_domains),
        cmocka_unit_test(results_are_the_same_by_blocks),
    };

    test_watchdog(280);
    if (serry_op_create("reference", reference_user, NULL, &g_user) != SERRY_OK)
        return 1;
    int failed = cmocka_run_group_tests_name("levels", tests, NULL, NULL);
    serry_op_free(&g_user);
    return failed;
}
