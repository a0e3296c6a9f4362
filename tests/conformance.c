/* conformance.c - every operation, type, reduction, size, kind of memory and way of calling, bit
 * for bit against the reference, on every rank.
 *
 * conformance --kind threads|processes --size N [--quick]
 * conformance --large          a few hundred MiB, process ranks
 *
 * --quick makes fewer calls for each size (one way of calling after the other instead of all). */
#include "conformance.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BLOCKS (4 * MIB + 64 * KIB) /* bytes of a buffer of one block for each rank */

static serry_kind_of_rank g_kind = SERRY_PROCESSES;
static int g_size = 2;
static bool g_quick;
serry_op g_user;

/* ---- the list ------------------------------------------------------------------------------- */

/* Elements: those in so many bytes, and some more. Around every boundary inside the library: the
 * cache line, the small buffer, the large one, several large ones. */
static const struct size_row {
    size_t bytes;
    int more;
} k_sizes[] = {
    {0, 0},         {0, 1},        {0, 7},        {8, 0},         {16, 0},        {16, 1},
    {64, -1},       {64, 0},       {64, 1},       {KIB, -1},      {KIB, 0},       {KIB, 1},
    {4 * KIB, -1},  {4 * KIB, 0},  {4 * KIB, 1},  {8 * KIB, -1},  {8 * KIB, 0},   {8 * KIB, 1},
    {16 * KIB, -1}, {16 * KIB, 0}, {16 * KIB, 1}, {32 * KIB, -1}, {32 * KIB, 0},  {32 * KIB, 1},
    {64 * KIB, -1}, {64 * KIB, 0}, {64 * KIB, 1}, {128 * KIB, 0}, {128 * KIB, 1}, {300 * KIB, 0},
    {MIB, 1},
};
#define SIZES (sizeof(k_sizes) / sizeof(k_sizes[0]))
#define SMALL_SIZES 12 /* of them, for all types and reductions */
#define ONE_LARGE 28   /* of them, likewise: several buffers */

/* Where one rank is in the list. */
typedef struct lister {
    test_rank *self;
    buffers buffers;
    dataset data;
    group world;
    unsigned turn;
    unsigned cases;
    bool broken; /* a call returned an error: the ranks no longer agree */
} lister;

/* How many of the ways of calling are left out: one in `stride` is made, another at each case. */
static unsigned stride_of(const lister *l, size_t bytes)
{
    size_t work = bytes * (size_t)l->self->size;
    unsigned stride = work <= 64 * KIB ? 1 : work <= 512 * KIB ? 4 : 9;
    if (l->self->size > 8)
        stride *= 2;
    if (l->data.op != SERRY_SUM)
        stride *= 2;
    if (g_quick)
        stride *= 15;
    return stride;
}

/* One kind and count, called in all the ways that stride_of leaves in. */
static void list_ways(lister *l, serry_kind kind, size_t count)
{
    size_t bytes = count * reference_size(l->data.dtype);
    size_t blocks = case_has_blocks(kind) ? (size_t)l->self->size : 1;
    unsigned places = (unsigned)case_places(kind);
    unsigned roots = (unsigned)case_roots(kind, l->self->size);
    unsigned ways = places * roots * MEMORIES;
    unsigned stride = stride_of(l, bytes * blocks);

    if (bytes * blocks > MOST_BLOCKS || (count + 1) * blocks + CASE_SHIFTS > l->data.length)
        return;
    if (stride > ways)
        stride = ways;
    l->cases++;
    for (unsigned way = 0; way < ways && !l->broken; way++) {
        if ((way + l->cases) % stride != 0)
            continue;
        op_case c = {.kind = kind, .count = count, .turn = l->turn++};
        c.memory = (memory_choice)(way % MEMORIES);
        c.place = (place_choice)(way / MEMORIES % places);
        c.root = way / MEMORIES / places == 0 ? 0 : l->self->size - 1;
        l->broken = !case_run(l->self, &l->buffers, &l->world, &l->data, &c);
    }
}

/* One kind and size. Where there is a block for each rank, boundaries lie at the size of a block
 * and at the size of all. */
static void list_size(lister *l, serry_kind kind, const struct size_row *size)
{
    size_t element = reference_size(l->data.dtype), ranks = (size_t)l->self->size;
    size_t count = size->bytes / element, part = count / ranks;

    if (count > 0 || size->more >= 0)
        list_ways(l, kind, count + (size_t)size->more);
    if (case_has_blocks(kind) && ranks > 1 && part > 0)
        list_ways(l, kind, part + (size_t)size->more);
}

/* Is this size in the list, or in the short one of all types and reductions? */
static bool in_list(unsigned i, serry_op op, bool all_sizes)
{
    bool large = !g_quick || op == SERRY_SUM || op == g_user;
    return all_sizes || i < SMALL_SIZES || (i == ONE_LARGE && large);
}

/* Make the dataset of a type and reduction and go through the sizes. */
static void list_dataset(lister *l, shared *s, serry_dtype dtype, serry_op op, bool all_sizes)
{
    size_t element = reference_size(dtype);
    size_t blocks = l->self->size <= 4 ? (size_t)l->self->size : 2;
    size_t most = all_sizes                           ? MOST_BLOCKS
                  : in_list(ONE_LARGE, op, all_sizes) ? (blocks + 1) * 130 * KIB
                                                      : (blocks + 1) * 10 * KIB;

    l->data = (dataset){.dtype = dtype,
                        .op = op,
                        .size = l->self->size,
                        .memory = s->memory,
                        .length = most / element + CASE_SHIFTS,
                        .seed = reference_random(test_seed(), dtype, (uint64_t)op)};
    dataset_prepare(l->self, &l->data);
    group_world(l->self, &l->data, &l->world);
    for (unsigned i = 0; i < SIZES; i++)
        for (serry_kind kind = SERRY_KIND_BARRIER; kind <= SERRY_KIND_ALLTOALL; kind++)
            if (in_list(i, op, all_sizes) && (kind != SERRY_KIND_BARRIER || i == 0) &&
                (op == SERRY_SUM || case_reduces(kind)))
                list_size(l, kind, &k_sizes[i]);
}

static bool lister_open(lister *l, test_rank *self)
{
    *l = (lister){.self = self};
    return buffers_open(self, &l->buffers, MOST_BLOCKS);
}

static void body_types(test_rank *self)
{
    lister l;
    if (!lister_open(&l, self))
        return;
    for (serry_dtype dtype = SERRY_F32; dtype < SERRY_DTYPES; dtype++)
        for (serry_op op = SERRY_SUM; op <= SERRY_OPS; op++)
            if (!l.broken && (op == SERRY_OPS || reference_valid(op, dtype)))
                list_dataset(&l, self->argument, dtype, op == SERRY_OPS ? g_user : op, false);
    buffers_close(self, &l.buffers);
}

static void body_sizes(test_rank *self)
{
    static const serry_dtype k_dtypes[] = {SERRY_F32, SERRY_BF16, SERRY_I8, SERRY_F64};
    lister l;
    if (!lister_open(&l, self))
        return;
    for (size_t i = 0; i < sizeof(k_dtypes) / sizeof(k_dtypes[0]); i++)
        if (!l.broken)
            list_dataset(&l, self->argument, k_dtypes[i], SERRY_SUM, true);
    buffers_close(self, &l.buffers);
}

/* ---- the same bits again -------------------------------------------------------------------- */

/* Twice the same call, then the other memory, then everybody's result beside rank 0's: not even the
 * bits of a NaN may differ. */
static void body_same_bits(test_rank *self)
{
    static const size_t k_counts[] = {1, 7, 31, 257, 5003, 70001};
    shared *s = self->argument;
    lister l;
    if (!lister_open(&l, self))
        return;
    l.data = (dataset){.dtype = SERRY_F32,
                       .op = SERRY_SUM,
                       .seed = test_seed(),
                       .length = 80000,
                       .size = self->size,
                       .memory = s->memory};
    dataset_prepare(self, &l.data);
    group_world(self, &l.data, &l.world);
    unsigned char *first = s->memory + dataset_bytes(SERRY_F32, self->size, l.data.length);

    for (size_t i = 0; i < sizeof(k_counts) / sizeof(k_counts[0]) && !l.broken; i++)
        for (unsigned again = 0; again < 6 && !l.broken; again++) {
            op_case c = {.kind = SERRY_KIND_ALLREDUCE,
                         .count = k_counts[i],
                         .turn = 4 + 2 * CASE_SHIFTS * (again % 2), /* the same data */
                         .memory = (memory_choice)(again / 2 % MEMORIES),
                         .place = (place_choice)(again / 2 % PLACES)};
            size_t bytes;
            l.broken = !case_run(self, &l.buffers, &l.world, &l.data, &c);
            const unsigned char *result = case_result(&l.buffers, &l.world, &l.data, &c, &bytes);
            if (self->rank == 0 && again == 0)
                memcpy(first, result, bytes);
            test_meet(self);
            size_t at = reference_differ(result, first, c.count, SERRY_F32, false);
            if (at < c.count)
                test_failed(self,
                            "allreduce of %zu f32, call %u: element %zu has other bits (%#llx)"
                            " than in rank 0's first call (%#llx)",
                            c.count, again, at,
                            (unsigned long long)reference_bits(result, at, SERRY_F32),
                            (unsigned long long)reference_bits(first, at, SERRY_F32));
            test_meet(self);
        }
    buffers_close(self, &l.buffers);
}

/* ---- barrier -------------------------------------------------------------------------------- */

static void body_barrier(test_rank *self)
{
    shared *s = self->argument;
    for (long round = 1; round <= 200; round++) {
        atomic_fetch_add(&s->arrivals, 1);
        if (!EXPECT_OK(self, serry_barrier(self->comm)))
            return;
        if (atomic_load(&s->arrivals) < round * self->size) {
            test_failed(self, "left barrier %ld before all had come", round);
            return;
        }
    }
}

/* ---- the tests ------------------------------------------------------------------------------ */

static void run_shared(serry_kind_of_rank kind, int size, test_body body)
{
    size_t bytes = sizeof(shared) + 2 * dataset_bytes(SERRY_F64, size, MOST_BLOCKS / 8 + 4 * KIB);
    shared *s = test_shared(bytes);
    run_ranks(kind, size, body, s);
    test_unshare(s, bytes);
}

#define TEST(name)                                                                                 \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        run_shared(g_kind, g_size, body_##name);                                                   \
    }
TEST(types)
TEST(sizes)
TEST(same_bits)
TEST(barrier)
TEST(sequence)
TEST(started)
TEST(mixed)
TEST(parts)
TEST(many_parts)
TEST(two_at_once)

static void test_large_2(void **state)
{
    (void)state;
    run_shared(SERRY_PROCESSES, 2, body_large);
}

static void test_large_4(void **state)
{
    (void)state;
    run_shared(SERRY_PROCESSES, 4, body_large);
}

static int run_group(bool large)
{
    const struct CMUnitTest list[] = {
        cmocka_unit_test(test_types),      cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_same_bits),  cmocka_unit_test(test_barrier),
        cmocka_unit_test(test_sequence),   cmocka_unit_test(test_parts),
        cmocka_unit_test(test_many_parts), cmocka_unit_test(test_two_at_once),
        cmocka_unit_test(test_started),    cmocka_unit_test(test_mixed),
    };
    const struct CMUnitTest large_ones[] = {
        cmocka_unit_test(test_large_2),
        cmocka_unit_test(test_large_4),
    };
    return large ? cmocka_run_group_tests_name("conformance, large", large_ones, NULL, NULL)
                 : cmocka_run_group_tests_name("conformance", list, NULL, NULL);
}

static int usage(const char *program)
{
    fprintf(stderr,
            "usage: %s --kind threads|processes --size N [--quick]\n"
            "       %s --large\n",
            program, program);
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option k_options[] = {
        {"kind", required_argument, NULL, 'k'},
        {"size", required_argument, NULL, 's'},
        {"quick", no_argument, NULL, 'q'},
        {"large", no_argument, NULL, 'l'},
        {NULL, 0, NULL, 0},
    };
    bool large = false;
    for (int option; (option = getopt_long(argc, argv, "", k_options, NULL)) != -1;)
        if (option == 'k')
            g_kind = strcmp(optarg, "threads") == 0 ? SERRY_THREADS : SERRY_PROCESSES;
        else if (option == 's')
            g_size = atoi(optarg);
        else if (option == 'q')
            g_quick = true;
        else if (option == 'l')
            large = true;
        else
            return usage(argv[0]);
    if (optind != argc || g_size < 1 || g_size > (int)SERRY_MAX_RANKS)
        return usage(argv[0]);
    if (serry_op_create("compose", reference_user, NULL, &g_user) != SERRY_OK) {
        fprintf(stderr, "serry_op_create: %s\n", serry_last_error(NULL)->message);
        return 1;
    }
    int failed = run_group(large);
    serry_op_free(&g_user);
    return failed;
}
