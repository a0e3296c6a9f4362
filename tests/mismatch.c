/* mismatch.c - ranks that make different calls, and calls that are wrong in themselves.
 *
 * Different calls: SERRY_ERR_RANK_MISMATCH on all ranks, naming two of them and both calls; inputs
 * and outputs as before; the next operation succeeds. A call with a wrong argument:
 * SERRY_ERR_INVALID for that rank, which has contributed nothing, so that the right call afterwards
 * succeeds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

#define BUFFER_BYTES ((size_t)4 << 20)

static serry_op g_mine, g_theirs; /* two reductions of one's own */

static void add_bytes(void *accumulator, const void *next, size_t count, serry_dtype dtype,
                      void *argument)
{
    (void)argument;
    unsigned char *to = accumulator;
    const unsigned char *from = next;
    for (size_t i = 0; i < count * serry_dtype_size(dtype); i++)
        to[i] = (unsigned char)(to[i] + from[i]);
}

/* ---- buffers -------------------------------------------------------------------------------- */

typedef struct pair {
    unsigned char *send, *recv;
} pair;

static void pair_fill(const test_rank *self, pair *p)
{
    memset(p->send, 0x10 + self->rank, BUFFER_BYTES);
    memset(p->recv, 0x80 + self->rank, BUFFER_BYTES);
}

static bool is_all(const unsigned char *bytes, int value)
{
    return bytes[0] == value && memcmp(bytes, bytes + 1, BUFFER_BYTES - 1) == 0;
}

static void pair_check(test_rank *self, const pair *p, const char *what)
{
    if (!is_all(p->send, 0x10 + self->rank))
        test_failed(self, "%s: the input has changed", what);
    if (!is_all(p->recv, 0x80 + self->rank))
        test_failed(self, "%s: the output was touched", what);
}

static bool pair_open(test_rank *self, pair *p, bool arena)
{
    p->send = arena ? serry_alloc(self->comm, BUFFER_BYTES) : malloc(BUFFER_BYTES);
    p->recv = arena ? serry_alloc(self->comm, BUFFER_BYTES) : malloc(BUFFER_BYTES);
    if (!CHECK(self, p->send != NULL && p->recv != NULL))
        return false;
    pair_fill(self, p);
    return true;
}

static void pair_close(test_rank *self, pair *p, bool arena)
{
    if (arena) {
        serry_free(self->comm, p->send);
        serry_free(self->comm, p->recv);
    } else {
        free(p->send);
        free(p->recv);
    }
}

/* An operation that must succeed, on all ranks. */
static void next_operation(test_rank *self, const char *after)
{
    uint64_t mine[2] = {1, (uint64_t)self->rank}, sum[2] = {0};
    uint64_t n = (uint64_t)self->size;
    if (test_expect(self, SERRY_OK, serry_allreduce(mine, sum, 2, SERRY_U64, SERRY_SUM, self->comm),
                    self->comm, "the allreduce after: %s", after) &&
        (sum[0] != n || sum[1] != n * (n - 1) / 2))
        test_failed(self, "wrong sum after: %s", after);
}

/* ---- different calls ------------------------------------------------------------------------ */

#define REDUCING(kind, count, dtype, op)                                                           \
    {                                                                                              \
        SERRY_KIND_##kind, SERRY_##dtype, op, 0, count, NULL, NULL                                 \
    }
#define ROOTED(kind, count, dtype, root)                                                           \
    {                                                                                              \
        SERRY_KIND_##kind, SERRY_##dtype, SERRY_SUM, root, count, NULL, NULL                       \
    }
#define MOVING(kind, count, dtype) ROOTED(kind, count, dtype, 0)
#define BARRIER                                                                                    \
    {                                                                                              \
        SERRY_KIND_BARRIER, SERRY_U8, SERRY_SUM, 0, 0, NULL, NULL                                  \
    }

enum { MINE = -1, THEIRS = -2 }; /* stand for g_mine and g_theirs */

static const struct difference {
    const char *name;
    serry_call most, odd; /* what most ranks call, and one of them */
} k_differences[] = {
    {"kind, no data", BARRIER, REDUCING(ALLREDUCE, 0, F32, SERRY_SUM)},
    {"kind, small", REDUCING(ALLREDUCE, 10, F32, SERRY_SUM), BARRIER},
    {"kind, small too", MOVING(ALLGATHER, 4, I16), MOVING(ALLTOALL, 4, I16)},
    {"kind, large", REDUCING(ALLREDUCE, 60000, F32, SERRY_SUM), MOVING(BROADCAST, 60000, F32)},
    {"kind, large and none", MOVING(ALLTOALL, 60000, F64), BARRIER},
    {"kind, large too", REDUCING(REDUCE_SCATTER, 60000, F32, SERRY_SUM),
     REDUCING(REDUCE, 60000, F32, SERRY_SUM)},
    {"count", REDUCING(ALLREDUCE, 10, F32, SERRY_SUM), REDUCING(ALLREDUCE, 11, F32, SERRY_SUM)},
    {"count, none", MOVING(BROADCAST, 0, U8), MOVING(BROADCAST, 1, U8)},
    {"count, small and large", REDUCING(ALLREDUCE, 1, F64, SERRY_SUM),
     REDUCING(ALLREDUCE, 100000, F64, SERRY_SUM)},
    {"count, large and small", MOVING(GATHER, 70000, U8), MOVING(GATHER, 3, U8)},
    {"count, large", REDUCING(ALLREDUCE, 100000, F32, SERRY_SUM),
     REDUCING(ALLREDUCE, 100001, F32, SERRY_SUM)},
    {"type", REDUCING(ALLREDUCE, 10, F32, SERRY_SUM), REDUCING(ALLREDUCE, 10, I32, SERRY_SUM)},
    {"type, large", REDUCING(REDUCE_SCATTER, 70000, F16, SERRY_SUM),
     REDUCING(REDUCE_SCATTER, 70000, BF16, SERRY_SUM)},
    {"type, nothing reduced", MOVING(SCATTER, 100, U64), MOVING(SCATTER, 100, I64)},
    {"reduction", REDUCING(ALLREDUCE, 10, F32, SERRY_SUM), REDUCING(ALLREDUCE, 10, F32, SERRY_MAX)},
    {"reduction, large", REDUCING(REDUCE, 200000, F32, SERRY_AVG),
     REDUCING(REDUCE, 200000, F32, SERRY_SUM)},
    {"name of the reduction", REDUCING(ALLREDUCE, 10, U8, MINE),
     REDUCING(ALLREDUCE, 10, U8, THEIRS)},
    {"name of the reduction, large", REDUCING(ALLREDUCE, 300000, U8, MINE),
     REDUCING(ALLREDUCE, 300000, U8, THEIRS)},
    {"root", ROOTED(BROADCAST, 10, F32, 0), ROOTED(BROADCAST, 10, F32, 1)},
    {"root of reduce", ROOTED(REDUCE, 10, F32, 1), ROOTED(REDUCE, 10, F32, 0)},
    {"root, no data", ROOTED(GATHER, 0, U8, 0), ROOTED(GATHER, 0, U8, 1)},
    {"root, large", ROOTED(BROADCAST, 500000, F32, 1), ROOTED(BROADCAST, 500000, F32, 0)},
};
#define DIFFERENCES (sizeof(k_differences) / sizeof(k_differences[0]))

static serry_call prepared(const serry_call *call, const pair *p)
{
    serry_call c = *call;
    c.send = p->send;
    c.recv = p->recv;
    if (c.op == MINE || c.op == THEIRS)
        c.op = c.op == MINE ? g_mine : g_theirs;
    return c;
}

/* The record of a mismatch on this rank: rank `odd` differs from all others. */
static void check_record(test_rank *self, const char *name, const serry_call *most,
                         const serry_call *different, int odd)
{
    const serry_error *record = serry_last_error(self->comm);
    char words[2][128];
    int others = 0;
    serry_signature_describe(serry_call_signature(most), words[0], sizeof(words[0]));
    serry_signature_describe(serry_call_signature(different), words[1], sizeof(words[1]));
    for (int r = 0; r < self->size; r++)
        others += r != odd && test_names_rank(record->message, r);
    if (strstr(record->message, words[0]) == NULL || strstr(record->message, words[1]) == NULL)
        test_failed(self, "%s: the message does not say %s and %s: %s", name, words[0], words[1],
                    record->message);
    if (others != 1 || !test_names_rank(record->message, odd))
        test_failed(self, "%s: the message does not name rank %d and one other: %s", name, odd,
                    record->message);
    if (record->error != SERRY_ERR_RANK_MISMATCH || record->rank != self->rank ||
        !serry_rank_set_has(&record->ranks, record->peer) || record->operation_id == 0)
        test_failed(self, "%s: record of error %d, rank %d, peer %d, operation %llu", name,
                    record->error, record->rank, record->peer,
                    (unsigned long long)record->operation_id);
}

static void body_differences(test_rank *self)
{
    bool arena = *(const bool *)self->argument;
    pair p;
    if (!pair_open(self, &p, arena))
        return;
    for (size_t i = 0; i < DIFFERENCES; i++)
        for (int odd = 0; odd < self->size; odd += self->size - 1) {
            const struct difference *d = &k_differences[i];
            serry_call most = prepared(&d->most, &p), different = prepared(&d->odd, &p);
            test_at(self, "%s, rank %d differs", d->name, odd);
            if (test_expect(self, SERRY_ERR_RANK_MISMATCH,
                            test_call(self->rank == odd ? &different : &most, self->comm),
                            self->comm, "%s, rank %d differs", d->name, odd))
                check_record(self, d->name, &most, &different, odd);
            pair_check(self, &p, d->name);
            next_operation(self, d->name);
        }
    pair_close(self, &p, arena);
}

/* Everybody calls something else. */
static void body_all_different(test_rank *self)
{
    pair p;
    if (!pair_open(self, &p, false))
        return;
    for (size_t least = 1; least <= 100000; least *= 100) {
        test_expect(self, SERRY_ERR_RANK_MISMATCH,
                    serry_allreduce(p.send, p.recv, least + (size_t)self->rank, SERRY_F32,
                                    SERRY_SUM, self->comm),
                    self->comm, "count %zu and more", least);
        pair_check(self, &p, "all different");
        next_operation(self, "all different");
    }
    pair_close(self, &p, false);
}

/* One rank divides the communicator, the others go on with it; then the other way round. */
static void body_split(test_rank *self)
{
    for (int divider = 0; divider < 2; divider++) {
        serry_comm *part = self->comm; /* must become NULL */
        bool mine = (self->rank == 1) == (divider == 0);
        int result = mine ? serry_split(self->comm, 0, 0, &part) : serry_barrier(self->comm);
        test_at(self, "split and barrier, way %d", divider);
        test_expect(self, SERRY_ERR_RANK_MISMATCH, result, self->comm, "split and barrier");
        CHECK(self, !mine || part == NULL);
        const char *message = serry_last_error(self->comm)->message;
        CHECK(self, strstr(message, "split") != NULL && strstr(message, "barrier") != NULL);
        CHECK(self, test_names_rank(message, 1));
        next_operation(self, "split and barrier");
    }
}

/* Process ranks that make their reductions in another order still mean the same by a name. */
static void body_order_of_making(test_rank *self)
{
    static const char *const k_names[] = {"alpha", "beta"};
    serry_op op[2];
    uint8_t one = 1, sum = 0;
    for (int i = 0; i < 2; i++) {
        int which = (i + self->rank) % 2;
        test_expect(self, SERRY_OK, serry_op_create(k_names[which], add_bytes, NULL, &op[which]),
                    NULL, "serry_op_create");
    }
    for (int i = 0; i < 2; i++) {
        EXPECT_OK(self, serry_allreduce(&one, &sum, 1, SERRY_U8, op[i], self->comm));
        CHECK(self, sum == self->size);
    }
    test_expect(self, SERRY_ERR_RANK_MISMATCH,
                serry_allreduce(&one, &sum, 1, SERRY_U8, op[self->rank % 2], self->comm),
                self->comm, "alpha and beta");
    CHECK(self, strstr(serry_last_error(self->comm)->message, "alpha") != NULL &&
                    strstr(serry_last_error(self->comm)->message, "beta") != NULL);
    serry_op_free(&op[0]);
    serry_op_free(&op[1]);
}

/* ---- wrong arguments ------------------------------------------------------------------------ */

enum buffer_choice { GOOD, NOTHING, IN_PLACE, CROOKED, OVERLAPPING }; /* at the wrong rank */

static const struct fault {
    const char *name;
    const char *word; /* the message has it */
    serry_call call;  /* a root of 1000 stands for the size */
    int send, recv;   /* enum buffer_choice */
} k_faults[] = {
    {"count too large", "count", MOVING(BROADCAST, SERRY_MAX_COUNT + 1, U8), GOOD, GOOD},
    {"count too large", "count", REDUCING(ALLREDUCE, SIZE_MAX, F64, SERRY_SUM), GOOD, GOOD},
    {"no type",
     "type",
     {SERRY_KIND_ALLREDUCE, SERRY_DTYPES, SERRY_SUM, 0, 4, NULL, NULL},
     GOOD,
     GOOD},
    {"negative type",
     "type",
     {SERRY_KIND_ALLGATHER, (serry_dtype)-1, SERRY_SUM, 0, 4, NULL, NULL},
     GOOD,
     GOOD},
    {"no reduction", "reduction", REDUCING(ALLREDUCE, 4, F32, SERRY_OPS), GOOD, GOOD},
    {"negative reduction", "reduction", REDUCING(REDUCE, 4, F32, -7), GOOD, GOOD},
    {"no such reduction", "reduction", REDUCING(REDUCE_SCATTER, 4, F32, SERRY_OP_USER + 2048), GOOD,
     GOOD},
    {"bits of a float", "reduction", REDUCING(ALLREDUCE, 4, F16, SERRY_BXOR), GOOD, GOOD},
    {"root below", "root", ROOTED(BROADCAST, 4, F32, -1), GOOD, GOOD},
    {"root above", "root", ROOTED(REDUCE, 4, F32, 1000), GOOD, GOOD},
    {"root above", "root", ROOTED(GATHER, 0, F32, 1000), GOOD, GOOD},
    {"root above", "root", ROOTED(SCATTER, 4, F32, 1000), GOOD, GOOD},
    {"send NULL", "send", REDUCING(ALLREDUCE, 4, F32, SERRY_SUM), NOTHING, GOOD},
    {"send NULL", "send", MOVING(ALLTOALL, 70000, F32), NOTHING, GOOD},
    {"recv NULL", "recv", REDUCING(ALLREDUCE, 4, F32, SERRY_SUM), GOOD, NOTHING},
    {"recv NULL", "recv", MOVING(ALLGATHER, 70000, U8), GOOD, NOTHING},
    {"buffer NULL", "NULL", MOVING(BROADCAST, 4, F32), NOTHING, NOTHING},
    {"buffer in place", "IN_PLACE", MOVING(BROADCAST, 4, F32), GOOD, IN_PLACE},
    {"in place, not the root", "send", ROOTED(REDUCE, 4, F32, 1), IN_PLACE, GOOD},
    {"in place, not the root", "send", ROOTED(GATHER, 4, F32, 1), IN_PLACE, GOOD},
    {"in place, not the root", "recv", ROOTED(SCATTER, 4, F32, 1), GOOD, IN_PLACE},
    {"send crooked", "send", REDUCING(ALLREDUCE, 4, F64, SERRY_SUM), CROOKED, GOOD},
    {"recv crooked", "recv", MOVING(SCATTER, 4, U16), GOOD, CROOKED},
    {"overlap", "overlap", REDUCING(ALLREDUCE, 1000, F32, SERRY_SUM), GOOD, OVERLAPPING},
    {"overlap", "overlap", MOVING(ALLTOALL, 1000, F32), GOOD, OVERLAPPING},
};
#define FAULTS (sizeof(k_faults) / sizeof(k_faults[0]))

static void *chosen(int choice, void *good, void *other)
{
    switch (choice) {
    case NOTHING:
        return NULL;
    case IN_PLACE:
        return (void *)(uintptr_t)SERRY_IN_PLACE;
    case CROOKED:
        return (char *)good + 1;
    case OVERLAPPING:
        return (char *)other + 64;
    default:
        return good;
    }
}

static void make_fault(test_rank *self, const struct fault *f, const pair *p)
{
    serry_call c = prepared(&f->call, p);
    c.send = chosen(f->send, p->send, p->recv);
    c.recv = chosen(f->recv, p->recv, p->send);
    if (c.root == 1000)
        c.root = self->size;
    test_expect(self, SERRY_ERR_INVALID, test_call(&c, self->comm), self->comm, "%s of %s", f->name,
                serry_kind_name(c.kind));
    const serry_error *record = serry_last_error(self->comm);
    if (strstr(record->message, f->word) == NULL)
        test_failed(self, "%s of %s: the message does not say \"%s\": %s", f->name,
                    serry_kind_name(c.kind), f->word, record->message);
    if (record->error != SERRY_ERR_INVALID || record->rank != self->rank || record->peer != -1 ||
        strcmp(record->operation, serry_kind_name(c.kind)) != 0)
        test_failed(self, "%s of %s: record of error %d, operation %s, rank %d, peer %d", f->name,
                    serry_kind_name(c.kind), record->error, record->operation, record->rank,
                    record->peer);
}

/* Rank 0 gets it wrong first; meanwhile the others wait in the right call. */
static void body_faults(test_rank *self)
{
    pair p;
    if (!pair_open(self, &p, false))
        return;
    for (size_t i = 0; i < FAULTS; i++) {
        test_at(self, "%s of %s", k_faults[i].name, serry_kind_name(k_faults[i].call.kind));
        if (self->rank == 0) {
            make_fault(self, &k_faults[i], &p);
            pair_check(self, &p, k_faults[i].name);
        }
        next_operation(self, k_faults[i].name);
    }
    pair_close(self, &p, false);
}

/* What is not a collective with buffers. */
static void body_other_faults(test_rank *self)
{
    serry_comm *part = self->comm;
    if (self->rank == 0) {
        test_expect(self, SERRY_ERR_INVALID, serry_split(self->comm, -2, 0, &part), self->comm,
                    "colour -2");
        CHECK(self, part == NULL);
        CHECK(self, strstr(serry_last_error(self->comm)->message, "colour") != NULL);
        test_expect(self, SERRY_ERR_INVALID, serry_split(self->comm, 0, 0, NULL), self->comm,
                    "split to nowhere");
        test_expect(self, SERRY_ERR_INVALID, serry_dup(self->comm, NULL), self->comm,
                    "dup to nowhere");
        test_expect(self, SERRY_ERR_INVALID, serry_participants(self->comm, NULL), self->comm,
                    "participants to nowhere");
    }
    next_operation(self, "wrong split and dup");
}

/* ---- the tests ------------------------------------------------------------------------------ */

static const int k_world_sizes[] = {2, 3, 7};

static void run_all(serry_kind_of_rank kind, test_body body, bool arena)
{
    for (size_t i = 0; i < sizeof(k_world_sizes) / sizeof(k_world_sizes[0]); i++)
        run_ranks(kind, k_world_sizes[i], body, &arena);
}

static void test_differences(void **state)
{
    (void)state;
    run_all(SERRY_THREADS, body_differences, false);
    run_all(SERRY_THREADS, body_differences, true);
}

static void test_differences_of_processes(void **state)
{
    (void)state;
    run_all(SERRY_PROCESSES, body_differences, false);
    run_all(SERRY_PROCESSES, body_differences, true);
}

static void test_all_different(void **state)
{
    (void)state;
    run_all(SERRY_THREADS, body_all_different, false);
    run_all(SERRY_PROCESSES, body_all_different, false);
}

static void test_split(void **state)
{
    (void)state;
    run_all(SERRY_THREADS, body_split, false);
    run_all(SERRY_PROCESSES, body_split, false);
}

static void test_order_of_making(void **state)
{
    (void)state;
    run_all(SERRY_PROCESSES, body_order_of_making, false);
}

static void test_faults(void **state)
{
    (void)state;
    run_all(SERRY_THREADS, body_faults, false);
    run_all(SERRY_PROCESSES, body_faults, false);
    run_all(SERRY_PROCESSES, body_other_faults, false);
}

/* No communicator at all: the record is that of the thread. */
static void test_no_communicator(void **state)
{
    (void)state;
    float x = 0;
    serry_comm *part = NULL;
    for (int kind = SERRY_KIND_BARRIER; kind <= SERRY_KIND_ALLTOALL; kind++) {
        serry_call c = {(serry_kind)kind, SERRY_F32, SERRY_SUM, 0, 1, &x, &x};
        assert_int_equal(test_call(&c, NULL), SERRY_ERR_INVALID);
        assert_int_equal(serry_last_error(NULL)->error, SERRY_ERR_INVALID);
        assert_non_null(strstr(serry_last_error(NULL)->message, serry_kind_name(c.kind)));
        assert_non_null(strstr(serry_last_error(NULL)->message, "communicator"));
    }
    assert_int_equal(serry_split(NULL, 0, 0, &part), SERRY_ERR_INVALID);
    assert_int_equal(serry_dup(NULL, &part), SERRY_ERR_INVALID);
    assert_int_equal(serry_set_timeout(NULL, 1), SERRY_ERR_INVALID);
    assert_null(serry_alloc(NULL, 1));
    serry_free(NULL, NULL);
    assert_int_equal(serry_finalize(&part), SERRY_OK);
    assert_int_equal(serry_rank(NULL), -1);
    assert_int_equal(serry_size(NULL), -1);
    assert_int_equal(serry_live(NULL), -1);
}

static void refused_op(const char *name, serry_reduce_function function, const char *word)
{
    serry_op op = 5;
    assert_int_equal(serry_op_create(name, function, NULL, &op), SERRY_ERR_INVALID);
    if (strstr(serry_last_error(NULL)->message, word) == NULL)
        fail_msg("the message does not say \"%s\": %s", word, serry_last_error(NULL)->message);
}

static void test_reductions_refused(void **state)
{
    (void)state;
    serry_op op = 5;
    refused_op(NULL, add_bytes, "name");
    refused_op("", add_bytes, "name");
    refused_op("a name of thirty-two characters.", add_bytes, "name");
    refused_op("nothing", NULL, "function");
    refused_op("mine", add_bytes, "mine");
    assert_int_equal(serry_op_create("x", add_bytes, NULL, NULL), SERRY_ERR_INVALID);
    assert_int_equal(serry_op_create("a name of thirty-one characters", add_bytes, NULL, &op),
                     SERRY_OK);
    assert_true(op >= SERRY_OP_USER);
    assert_string_equal(serry_op_name(op), "a name of thirty-one characters");
    assert_int_equal(serry_op_free(&op), SERRY_OK);
    assert_int_equal(op, -1);
    assert_int_equal(serry_op_create("a name of thirty-one characters", add_bytes, NULL, &op),
                     SERRY_OK);
    assert_int_equal(serry_op_free(&op), SERRY_OK);
}

int main(void)
{
    const struct CMUnitTest k_tests[] = {
        cmocka_unit_test(test_differences),     cmocka_unit_test(test_differences_of_processes),
        cmocka_unit_test(test_all_different),   cmocka_unit_test(test_split),
        cmocka_unit_test(test_order_of_making), cmocka_unit_test(test_faults),
        cmocka_unit_test(test_no_communicator), cmocka_unit_test(test_reductions_refused),
    };
    if (serry_op_create("mine", add_bytes, NULL, &g_mine) != SERRY_OK ||
        serry_op_create("theirs", add_bytes, NULL, &g_theirs) != SERRY_OK) {
        fprintf(stderr, "serry_op_create: %s\n", serry_last_error(NULL)->message);
        return 1;
    }
    int failed = cmocka_run_group_tests(k_tests, NULL, NULL);
    serry_op_free(&g_mine);
    serry_op_free(&g_theirs);
    return failed;
}
