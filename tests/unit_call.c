/* unit_call.c - tables, checks, signatures and descriptions of calls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include <serry/call.h>

#include "record.h"

#define RANKS 4
#define COUNT 8 /* f32: a block has 32 bytes */
#define BLOCK (COUNT * sizeof(float))

/* Room for two buffers of RANKS blocks. Every call below is about addresses in it; nothing reads or
 * writes them. */
static _Alignas(64) char g_room[2 * RANKS * BLOCK];
#define AT(bytes) ((void *)(g_room + (bytes)))
#define SECOND AT(RANKS *BLOCK)

static serry_call call_of(serry_kind kind)
{
    bool buffers = kind != SERRY_KIND_BARRIER;
    return (serry_call){
        .kind = kind,
        .dtype = SERRY_F32,
        .op = SERRY_SUM,
        .count = buffers ? COUNT : 0,
        .send = buffers ? g_room : NULL,
        .recv = buffers ? SECOND : NULL,
    };
}

static void expect_ok(const serry_call *call, int rank)
{
    serry_error error;
    serry_error_begin(&error, "test", 0, rank);
    int result = serry_call_check(call, rank, RANKS, &error);
    if (result != SERRY_OK)
        fail_msg("%s at rank %d: %s", serry_kind_name(call->kind), rank, error.message);
}

/* The message must hold both texts. */
static void expect_invalid(const serry_call *call, int rank, const char *what, const char *more)
{
    serry_error error;
    memset(&error, 0x5a, sizeof(error));
    assert_int_equal(serry_call_check(call, rank, RANKS, &error), SERRY_ERR_INVALID);
    assert_int_equal(error.error, SERRY_ERR_INVALID);
    assert_string_equal(error.operation, serry_kind_name(call->kind));
    assert_int_equal(error.operation_id, 0);
    assert_int_equal(error.rank, rank);
    assert_int_equal(error.peer, -1);
    assert_int_equal(serry_rank_set_count(&error.ranks), 0);
    if (strstr(error.message, what) == NULL || strstr(error.message, more) == NULL)
        fail_msg("\"%s\" does not say \"%s\" and \"%s\"", error.message, what, more);
    assert_int_equal(serry_call_check(call, rank, RANKS, NULL), SERRY_ERR_INVALID);
}

/* ---- tables ------------------------------------------------------------------------------- */

static void types_have_sizes_and_names(void **state)
{
    (void)state;
    static const struct {
        serry_dtype dtype;
        size_t size;
        const char *name;
    } cases[] = {
        {SERRY_F32, 4, "f32"},     {SERRY_F64, 8, "f64"},
        {SERRY_F16, 2, "f16"},     {SERRY_I8, 1, "i8"},
        {SERRY_BF16, 2, "bf16"},   {SERRY_I16, 2, "i16"},
        {SERRY_I32, 4, "i32"},     {SERRY_I64, 8, "i64"},
        {SERRY_U8, 1, "u8"},       {SERRY_U16, 2, "u16"},
        {SERRY_U32, 4, "u32"},     {SERRY_U64, 8, "u64"},
        {SERRY_DTYPES, 0, "?"},    {(serry_dtype)0x7fffffff, 0, "?"},
        {(serry_dtype)-1, 0, "?"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(serry_dtype_size(cases[i].dtype), cases[i].size);
        assert_string_equal(serry_dtype_name(cases[i].dtype), cases[i].name);
    }
}

static void kinds_have_names(void **state)
{
    (void)state;
    assert_string_equal(serry_kind_name(SERRY_KIND_BARRIER), "barrier");
    assert_string_equal(serry_kind_name(SERRY_KIND_REDUCE_SCATTER), "reduce_scatter");
    assert_string_equal(serry_kind_name(SERRY_KIND_SPLIT), "split");
    assert_string_equal(serry_kind_name(SERRY_KINDS), "?");
    assert_string_equal(serry_kind_name((serry_kind)-1), "?");
}

/* ---- checks: what is well formed ---------------------------------------------------------- */

static void every_kind_with_two_buffers_is_well_formed(void **state)
{
    (void)state;
    for (int kind = 0; kind < SERRY_KINDS; kind++) {
        serry_call call = call_of((serry_kind)kind);
        for (int rank = 0; rank < RANKS; rank++)
            expect_ok(&call, rank);
    }
}

static void a_rank_may_leave_out_what_it_neither_gives_nor_gets(void **state)
{
    (void)state;
    static const struct {
        serry_kind kind;
        bool send_at_root, recv_at_root, send_elsewhere, recv_elsewhere;
    } cases[] = {
        {SERRY_KIND_BROADCAST, true, false, false, true},
        {SERRY_KIND_SCATTER, true, true, false, true},
        {SERRY_KIND_REDUCE, true, true, true, false},
        {SERRY_KIND_GATHER, true, true, true, false},
        {SERRY_KIND_ALLREDUCE, true, true, true, true},
        {SERRY_KIND_ALLGATHER, true, true, true, true},
        {SERRY_KIND_REDUCE_SCATTER, true, true, true, true},
        {SERRY_KIND_ALLTOALL, true, true, true, true},
        {SERRY_KIND_SPLIT, true, true, true, true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        serry_call call = call_of(cases[i].kind);
        bool rooted = !cases[i].send_elsewhere || !cases[i].recv_elsewhere;
        call.root = rooted ? 2 : 0;
        for (int rank = 0; rank < RANKS; rank++) {
            bool root = rank == call.root;
            serry_call half = call;
            half.send = NULL;
            if (root ? cases[i].send_at_root : cases[i].send_elsewhere)
                expect_invalid(&half, rank,
                               call.kind == SERRY_KIND_BROADCAST ? "buffer is NULL"
                                                                 : "send is NULL",
                               serry_kind_name(call.kind));
            else
                expect_ok(&half, rank);
            half = call;
            half.recv = NULL;
            if (root ? cases[i].recv_at_root : cases[i].recv_elsewhere)
                expect_invalid(&half, rank,
                               call.kind == SERRY_KIND_BROADCAST ? "buffer is NULL"
                                                                 : "recv is NULL",
                               serry_kind_name(call.kind));
            else
                expect_ok(&half, rank);
        }
    }
}

static void without_elements_pointers_do_not_matter(void **state)
{
    (void)state;
    for (int kind = 0; kind < SERRY_KINDS; kind++) {
        serry_call call = call_of((serry_kind)kind);
        call.count = 0;
        call.send = call.recv = NULL;
        expect_ok(&call, 1);
        call.send = call.recv = AT(1);
        expect_ok(&call, 1);
    }
}

static void in_place_is_where_the_block_lies(void **state)
{
    (void)state;
    static const serry_kind same[] = {SERRY_KIND_REDUCE, SERRY_KIND_ALLREDUCE,
                                      SERRY_KIND_REDUCE_SCATTER, SERRY_KIND_ALLTOALL};
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        for (int rank = 0; rank < RANKS; rank++) {
            serry_call call = call_of(same[i]);
            call.recv = g_room;
            expect_ok(&call, rank);
        }
    }

    for (int rank = 0; rank < RANKS; rank++) {
        serry_call call = call_of(SERRY_KIND_ALLGATHER);
        call.recv = g_room;
        for (int block = 0; block < RANKS; block++) {
            call.send = AT((size_t)block * BLOCK);
            if (block == rank)
                expect_ok(&call, rank);
            else
                expect_invalid(&call, rank, "overlap", "own block in recv");
        }

        call.kind = SERRY_KIND_GATHER;
        call.root = rank;
        call.send = AT((size_t)rank * BLOCK);
        expect_ok(&call, rank);

        call.kind = SERRY_KIND_SCATTER;
        call.send = g_room;
        for (int block = 0; block < RANKS; block++) {
            call.recv = AT((size_t)block * BLOCK);
            if (block == rank)
                expect_ok(&call, rank);
            else
                expect_invalid(&call, rank, "overlap", "own block in send");
        }
    }
}

/* ---- checks: what is not ------------------------------------------------------------------ */

static void overlaps_are_found_to_the_byte(void **state)
{
    (void)state;
    serry_call call = call_of(SERRY_KIND_ALLREDUCE);
    call.dtype = SERRY_U8;
    call.count = 16;
    static const struct {
        int distance; /* of recv from send, bytes */
        bool apart;
    } cases[] = {{-17, true}, {-16, true}, {-15, false}, {-1, false},
                 {1, false},  {15, false}, {16, true},   {17, true}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        call.send = AT(32);
        call.recv = g_room + 32 + cases[i].distance;
        if (cases[i].apart)
            expect_ok(&call, 0);
        else
            expect_invalid(&call, 0, "overlap", "send must equal recv");
    }

    /* recv is four blocks long, send one */
    call.kind = SERRY_KIND_ALLGATHER;
    call.recv = AT(16);
    call.send = AT(16 + 4 * 16 - 1);
    expect_invalid(&call, 0, "overlap", "16 bytes");
    call.send = AT(16 + 4 * 16);
    expect_ok(&call, 0);
    call.send = AT(1);
    expect_invalid(&call, 0, "overlap", "64 bytes");
    call.send = AT(0);
    expect_ok(&call, 0);
}

static void values_out_of_range_are_named(void **state)
{
    (void)state;
    serry_call call = call_of(SERRY_KIND_ALLREDUCE);
    call.kind = SERRY_KINDS;
    expect_invalid(&call, 0, "11", "kind");
    call.kind = (serry_kind)-1;
    expect_invalid(&call, 0, "-1", "kind");

    call = call_of(SERRY_KIND_ALLREDUCE);
    call.dtype = SERRY_DTYPES;
    expect_invalid(&call, 0, "12", "element type");
    call.dtype = (serry_dtype)-1;
    expect_invalid(&call, 0, "-1", "element type");

    call = call_of(SERRY_KIND_ALLREDUCE);
    static const serry_op ops[] = {-1, SERRY_OPS, SERRY_OP_USER - 1, SERRY_OP_USER + 5, INT32_MAX};
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        call.op = ops[i];
        expect_invalid(&call, 0, "allreduce: reduction", "f32");
    }
    call.op = SERRY_BXOR;
    expect_invalid(&call, 0, "bxor", "integers");
    call.dtype = SERRY_U32;
    expect_ok(&call, 0);

    call = call_of(SERRY_KIND_BROADCAST);
    call.root = RANKS;
    expect_invalid(&call, 0, "root 4", "0 to 3");
    call.root = -1;
    expect_invalid(&call, 0, "root -1", "0 to 3");
}

static void values_that_a_kind_has_not_must_be_zero(void **state)
{
    (void)state;
    serry_call call = call_of(SERRY_KIND_ALLREDUCE);
    call.root = 1;
    expect_invalid(&call, 0, "no root", "allreduce");

    call = call_of(SERRY_KIND_ALLGATHER);
    call.op = SERRY_MAX;
    expect_invalid(&call, 0, "no reduction", "allgather");

    call = call_of(SERRY_KIND_BARRIER);
    call.count = 1;
    expect_invalid(&call, 0, "no elements", "barrier");
}

static void counts_have_a_limit(void **state)
{
    (void)state;
    /* No such buffer exists; only that it would not leave the address space matters here. */
    serry_call call = call_of(SERRY_KIND_ALLTOALL);
    call.dtype = SERRY_U64;
    call.send = call.recv = (void *)(uintptr_t)4096;
    call.count = SERRY_MAX_COUNT;
    expect_ok(&call, 0);
    call.count++;
    expect_invalid(&call, 0, "17179869184", "17179869183 elements");
    call.count = (size_t)-1;
    expect_invalid(&call, 0, "18446744073709551615", "negative");
}

static void buffers_must_be_memory(void **state)
{
    (void)state;
    static const serry_dtype types[] = {SERRY_U8, SERRY_F16, SERRY_F32, SERRY_F64};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        size_t element = serry_dtype_size(types[i]);
        serry_call call = call_of(SERRY_KIND_ALLREDUCE);
        call.dtype = types[i];
        call.count = 1;
        expect_ok(&call, 0);
        call.send = AT(element);
        expect_ok(&call, 0);
        if (element > 1) {
            call.send = AT(element / 2);
            expect_invalid(&call, 0, "send", "multiple of");
            call.send = g_room;
            call.recv = (char *)SECOND + 1;
            expect_invalid(&call, 0, "recv", "multiple of");
        }

        call = call_of(SERRY_KIND_ALLREDUCE);
        call.dtype = types[i];
        call.count = 1;
        call.send = SERRY_IN_PLACE;
        expect_invalid(&call, 0, "send is SERRY_IN_PLACE", "buffer");
        call.recv = (void *)(uintptr_t)SERRY_IN_PLACE;
        expect_invalid(&call, 0, "send is SERRY_IN_PLACE", "buffer");

        call.send = g_room;
        call.recv = (void *)(UINTPTR_MAX - 63);
        call.count = 65 / element + 1;
        expect_invalid(&call, 0, "recv", "end of memory");
    }
}

/* ---- signatures --------------------------------------------------------------------------- */

static void calls_agree_if_all_that_must_be_equal_is(void **state)
{
    (void)state;
    serry_call call = call_of(SERRY_KIND_REDUCE);
    call.root = 3;
    uint64_t signature = serry_call_signature(&call);

    serry_call other = call;
    other.send = other.recv = NULL;
    assert_true(serry_call_signature(&other) == signature);

    other = call, other.kind = SERRY_KIND_BROADCAST;
    assert_true(serry_call_signature(&other) != signature);
    other = call, other.dtype = SERRY_I32;
    assert_true(serry_call_signature(&other) != signature);
    other = call, other.op = SERRY_MAX;
    assert_true(serry_call_signature(&other) != signature);
    other = call, other.root = 2;
    assert_true(serry_call_signature(&other) != signature);
    other = call, other.count++;
    assert_true(serry_call_signature(&other) != signature);
}

static void the_largest_values_keep_to_their_bits(void **state)
{
    (void)state;
    serry_call largest = {.kind = (serry_kind)15,
                          .dtype = (serry_dtype)15,
                          .op = 4095,
                          .root = 255,
                          .count = SERRY_MAX_COUNT};
    assert_true(serry_call_signature(&largest) == UINT64_MAX >> 2);
    serry_call one = largest;
    one.count = 0;
    assert_true(serry_call_signature(&one) == (UINT64_C(1) << 28) - 1);
}

static void signatures_in_words(void **state)
{
    (void)state;
    static const struct {
        serry_call call;
        const char *text;
    } cases[] = {
        {{.kind = SERRY_KIND_ALLREDUCE, .count = 10}, "allreduce(count=10, f32, sum)"},
        {{.kind = SERRY_KIND_BROADCAST, .dtype = SERRY_U8, .count = 3, .root = 2},
         "broadcast(count=3, u8, root 2)"},
        {{.kind = SERRY_KIND_REDUCE, .dtype = SERRY_BF16, .op = SERRY_AVG, .root = 255},
         "reduce(count=0, bf16, avg, root 255)"},
        {{.kind = SERRY_KIND_ALLTOALL, .dtype = SERRY_I64, .count = SERRY_MAX_COUNT},
         "alltoall(count=17179869183, i64)"},
        {{.kind = SERRY_KIND_BARRIER}, "barrier()"},
        {{.kind = SERRY_KIND_SPLIT, .count = 2}, "split()"},
        {{.kind = SERRY_KIND_ALLREDUCE, .dtype = (serry_dtype)15, .op = 4095, .count = 1},
         "allreduce(count=1, ?, ?)"},
        {{.kind = (serry_kind)15}, "?()"},
    };
    char text[128];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        serry_signature_describe(serry_call_signature(&cases[i].call), text, sizeof(text));
        assert_string_equal(text, cases[i].text);
    }

    serry_signature_describe(serry_call_signature(&cases[0].call), text, 10);
    assert_string_equal(text, "allreduce");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_have_sizes_and_names),
        cmocka_unit_test(kinds_have_names),
        cmocka_unit_test(every_kind_with_two_buffers_is_well_formed),
        cmocka_unit_test(a_rank_may_leave_out_what_it_neither_gives_nor_gets),
        cmocka_unit_test(without_elements_pointers_do_not_matter),
        cmocka_unit_test(in_place_is_where_the_block_lies),
        cmocka_unit_test(overlaps_are_found_to_the_byte),
        cmocka_unit_test(values_out_of_range_are_named),
        cmocka_unit_test(values_that_a_kind_has_not_must_be_zero),
        cmocka_unit_test(counts_have_a_limit),
        cmocka_unit_test(buffers_must_be_memory),
        cmocka_unit_test(calls_agree_if_all_that_must_be_equal_is),
        cmocka_unit_test(the_largest_values_keep_to_their_bits),
        cmocka_unit_test(signatures_in_words),
    };
    return cmocka_run_group_tests_name("call", tests, NULL, NULL);
}
