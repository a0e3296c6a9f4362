/* many.c - lists of buffers as one operation: all are done or none is. */
#include <stdlib.h>
#include <string.h>

#include "harness.h"

enum { MOST = 12, SHORT_MS = 50, LATE = 1 };
enum { FLAG_GIVEN_UP, FLAG_DONE }; /* flags of a run */

/* Lengths of the lists that are tried: nothing, small ones, and ones that go through many chunks. */
static const struct shape {
    const char *name;
    size_t number, count[MOST];
} k_shapes[] = {
    {"no buffer", 0, {0}},
    {"an empty one", 1, {0}},
    {"one", 1, {3}},
    {"small ones", 5, {1, 0, 7, 2, 1}},
    {"of all sizes", 7, {1, 5000, 3, 0, 70000, 64, 1}},
    {"large", 3, {300000, 1, 250000}},
};
#define SHAPES (sizeof(k_shapes) / sizeof(k_shapes[0]))

typedef struct list {
    const struct shape *shape;
    serry_buffer buffer[MOST];
} list;

static int32_t value(int rank, size_t buffer, size_t i)
{
    return (int32_t)(buffer * 1000 + i % 1000) * (rank + 1);
}

static void list_fill(const test_rank *self, list *l)
{
    for (size_t b = 0; b < l->shape->number; b++)
        for (size_t i = 0; i < l->shape->count[b]; i++)
            ((int32_t *)l->buffer[b].data)[i] = value(self->rank, b, i);
}

static void list_make(const test_rank *self, list *l, const struct shape *shape)
{
    l->shape = shape;
    for (size_t b = 0; b < shape->number; b++)
        l->buffer[b] =
            (serry_buffer){malloc(shape->count[b] * sizeof(int32_t) + 1), shape->count[b]};
    list_fill(self, l);
}

static void list_free(list *l)
{
    for (size_t b = 0; b < l->shape->number; b++)
        free(l->buffer[b].data);
}

/* Each element is `factor` times that of rank 0; factor 0: that of this rank. */
static void expect_list(test_rank *self, const list *l, int factor)
{
    int wanted = factor == 0 ? self->rank + 1 : factor;

    for (size_t b = 0; b < l->shape->number; b++)
        for (size_t i = 0; i < l->shape->count[b]; i++)
            if (((int32_t *)l->buffer[b].data)[i] != value(0, b, i) * wanted) {
                test_failed(self, "%s: element %zu of buffer %zu is not what it must be",
                            l->shape->name, i, b);
                return;
            }
}

static int sum_of_all(const test_rank *self)
{
    return self->size * (self->size + 1) / 2;
}

static void body_lists(test_rank *self)
{
    for (size_t s = 0; s < SHAPES; s++) {
        int root = (int)s % self->size;
        serry_request *request[2];
        list l, other;
        list_make(self, &l, &k_shapes[s]);
        list_make(self, &other, &k_shapes[s]);
        size_t n = l.shape->number;
        EXPECT_OK(self, serry_allreduce_many(l.buffer, n, SERRY_I32, SERRY_SUM, self->comm));
        expect_list(self, &l, sum_of_all(self));
        list_fill(self, &l);
        EXPECT_OK(self, serry_broadcast_many(l.buffer, n, SERRY_I32, root, self->comm));
        expect_list(self, &l, root + 1);
        list_fill(self, &l);
        EXPECT_OK(self, serry_iallreduce_many(l.buffer, n, SERRY_I32, SERRY_SUM, self->comm,
                                              &request[0]));
        EXPECT_OK(self,
                  serry_ibroadcast_many(other.buffer, n, SERRY_I32, root, self->comm, &request[1]));
        EXPECT_OK(self, serry_barrier(self->comm));
        EXPECT_OK(self, serry_wait_all(request, 2, -1));
        expect_list(self, &l, sum_of_all(self));
        expect_list(self, &other, root + 1);
        list_free(&l);
        list_free(&other);
    }
}

/* The same number of elements in all, divided otherwise. */
static void body_mismatch(test_rank *self)
{
    static const struct shape one = {"one way", 3, {10, 20, 30}},
                              two = {"another", 3, {20, 10, 30}};
    list l;

    list_make(self, &l, self->rank == LATE ? &two : &one);
    test_expect(self, SERRY_ERR_RANK_MISMATCH,
                serry_allreduce_many(l.buffer, 3, SERRY_I32, SERRY_SUM, self->comm), self->comm,
                "lists that differ");
    CHECK(self, strstr(serry_last_error(self->comm)->message, "checksum") != NULL);
    expect_list(self, &l, 0);
    list_free(&l);
    list_make(self, &l, &one);
    EXPECT_OK(self, serry_allreduce_many(l.buffer, 3, SERRY_I32, SERRY_SUM, self->comm));
    expect_list(self, &l, sum_of_all(self));
    list_free(&l);
}

/* The others give up and go on when the late one is done, with the same call. */
static void body_late(test_rank *self)
{
    const struct shape *shape = self->argument;
    list l;
    size_t n = shape->number;

    list_make(self, &l, shape);
    if (self->rank == LATE) {
        test_await(self, FLAG_GIVEN_UP, (unsigned)self->size - 1);
    } else {
        EXPECT_OK(self, serry_set_timeout(self->comm, SHORT_MS));
        test_expect(self, SERRY_ERR_TIMEOUT,
                    serry_allreduce_many(l.buffer, n, SERRY_I32, SERRY_SUM, self->comm), self->comm,
                    "without the late one");
        expect_list(self, &l, 0);
        test_expect(self, SERRY_ERR_PENDING,
                    serry_allreduce_many(l.buffer, n - 1, SERRY_I32, SERRY_SUM, self->comm),
                    self->comm, "another list");
        EXPECT_OK(self, serry_set_timeout(self->comm, 60000));
        test_raise(self, FLAG_GIVEN_UP);
    }
    EXPECT_OK(self, serry_allreduce_many(l.buffer, n, SERRY_I32, SERRY_SUM, self->comm));
    expect_list(self, &l, sum_of_all(self));
    list_free(&l);
}

/* Left open, and the communicator is finalized: nothing is lost, and the other one has its result. */
static void body_leaves(test_rank *self)
{
    list l;

    list_make(self, &l, self->argument);
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == LATE) {
        test_await(self, FLAG_DONE, (unsigned)self->size - 1);
    } else {
        EXPECT_OK(self, serry_set_timeout(self->comm, SHORT_MS));
        test_expect(
            self, SERRY_ERR_TIMEOUT,
            serry_allreduce_many(l.buffer, l.shape->number, SERRY_I32, SERRY_SUM, self->comm),
            self->comm, "without the late one");
        CHECK(self, serry_finalize(&self->comm) == SERRY_OK);
        test_raise(self, FLAG_DONE);
        list_free(&l);
        return;
    }
    EXPECT_OK(self,
              serry_allreduce_many(l.buffer, l.shape->number, SERRY_I32, SERRY_SUM, self->comm));
    expect_list(self, &l, sum_of_all(self));
    list_free(&l);
}

/* Double what list_fill has put there. */
static void list_double(list *l)
{
    for (size_t b = 0; b < l->shape->number; b++)
        for (size_t i = 0; i < l->shape->count[b]; i++)
            ((int32_t *)l->buffer[b].data)[i] *= 2;
}

static int sum(test_rank *self, const list *l)
{
    return serry_allreduce_many(l->buffer, l->shape->number, SERRY_I32, SERRY_SUM, self->comm);
}

static void expect_left(test_rank *self, serry_request **request, int code, const char *which)
{
    test_expect(self, code, serry_wait(request, -1), NULL, "the wait for the %s list", which);
    serry_request_free(request);
}

/* By a token of its own: as a request, or as a call that waits behind the first one. */
static void leave_second(test_rank *self, list *l, bool apart)
{
    serry_request *request;
    serry_timeouts *timeouts;
    serry_token *token;

    EXPECT_OK(self, serry_timeouts_create(-1, &timeouts));
    EXPECT_OK(self, serry_timeouts_start(timeouts, 1, SHORT_MS, &token));
    EXPECT_OK(self, serry_set_token(self->comm, token));
    serry_token_release(&token);
    if (apart) {
        EXPECT_OK(self, serry_iallreduce_many(l->buffer, l->shape->number, SERRY_I32, SERRY_SUM,
                                              self->comm, &request));
        expect_left(self, &request, SERRY_ERR_TIMEOUT, "second");
    } else {
        test_expect(self, SERRY_ERR_TIMEOUT, sum(self, l), self->comm, "the second list");
    }
    EXPECT_OK(self, serry_set_token(self->comm, NULL));
    serry_timeouts_destroy(&timeouts);
}

/* Two lists of the same lengths: the second is left, then the first. Both are made again. */
static void body_two_left(test_rank *self)
{
    list first, second;
    serry_request *request;

    for (int apart = 0; apart < 2; apart++) {
        list_make(self, &first, self->argument);
        list_make(self, &second, self->argument);
        list_double(&second);
        if (self->rank == LATE) {
            test_await(self, FLAG_GIVEN_UP, (unsigned)(self->size - 1) * (unsigned)(apart + 1));
        } else {
            EXPECT_OK(self, serry_iallreduce_many(first.buffer, first.shape->number, SERRY_I32,
                                                  SERRY_SUM, self->comm, &request));
            leave_second(self, &second, apart);
            EXPECT_OK(self, serry_cancel(request));
            expect_left(self, &request, SERRY_ERR_CANCELLED, "first");
            test_raise(self, FLAG_GIVEN_UP);
        }
        EXPECT_OK(self, sum(self, &first));
        EXPECT_OK(self, sum(self, &second));
        expect_list(self, &first, sum_of_all(self));
        expect_list(self, &second, 2 * sum_of_all(self));
        list_free(&first);
        list_free(&second);
    }
}

static void body_bad(test_rank *self)
{
    int32_t x = 7;
    serry_buffer buffers[2] = {{&x, 1}, {NULL, 1}};

    test_expect(self, SERRY_ERR_INVALID,
                serry_allreduce_many(buffers, 2, SERRY_I32, SERRY_SUM, self->comm), self->comm,
                "NULL in a list");
    CHECK(self, strstr(serry_last_error(self->comm)->message, "buffer 1 of the list") != NULL);
    test_expect(self, SERRY_ERR_INVALID,
                serry_allreduce_many(NULL, 1, SERRY_I32, SERRY_SUM, self->comm), self->comm,
                "no list");
    test_expect(self, SERRY_ERR_INVALID,
                serry_broadcast_many(buffers, 1, SERRY_I32, self->size, self->comm), self->comm,
                "no such root");
    test_expect(self, SERRY_ERR_INVALID,
                serry_iallreduce_many(buffers, 1, SERRY_I32, SERRY_SUM, self->comm, NULL),
                self->comm, "no place for the request");
    buffers[0].count = SIZE_MAX;
    test_expect(self, SERRY_ERR_INVALID,
                serry_allreduce_many(buffers, 1, SERRY_I32, SERRY_SUM, self->comm), self->comm,
                "too many elements");
    CHECK(self, x == 7);
    EXPECT_OK(self, serry_barrier(self->comm));
}

/* ---- the tests ----------------------------------------------------------------------------------- */

static void on_all(int least, test_body body, const void *argument)
{
    static const int sizes[] = {1, 2, 3, 4, 7};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        if (sizes[i] < least)
            continue;
        run_ranks(SERRY_THREADS, sizes[i], body, (void *)(uintptr_t)argument);
        if (!TEST_TSAN)
            run_ranks(SERRY_PROCESSES, sizes[i], body, (void *)(uintptr_t)argument);
    }
}

static void lists_of_all_lengths(void **state)
{
    (void)state;
    on_all(1, body_lists, NULL);
}

static void lists_that_are_divided_otherwise_are_a_mismatch(void **state)
{
    (void)state;
    on_all(2, body_mismatch, NULL);
}

static void a_list_left_open_by_a_timeout_is_gone_on_with(void **state)
{
    (void)state;
    for (size_t s = 3; s < SHAPES; s++)
        run_ranks(SERRY_PROCESSES, 3, body_late, (void *)(uintptr_t)&k_shapes[s]);
    run_ranks(SERRY_THREADS, 3, body_late, (void *)(uintptr_t)&k_shapes[4]);
}

static void two_lists_left_the_second_first(void **state)
{
    (void)state;
    for (size_t s = 3; s < SHAPES; s++) {
        run_ranks(SERRY_THREADS, 3, body_two_left, (void *)(uintptr_t)&k_shapes[s]);
        if (!TEST_TSAN)
            run_ranks(SERRY_PROCESSES, 3, body_two_left, (void *)(uintptr_t)&k_shapes[s]);
    }
}

static void a_list_left_open_and_finalized(void **state)
{
    (void)state;
    for (size_t s = 3; s < 5; s++)
        run_ranks(SERRY_PROCESSES, 3, body_leaves, (void *)(uintptr_t)&k_shapes[s]);
}

static void bad_lists_change_nothing(void **state)
{
    (void)state;
    on_all(1, body_bad, NULL);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_of_all_lengths),
        cmocka_unit_test(lists_that_are_divided_otherwise_are_a_mismatch),
        cmocka_unit_test(a_list_left_open_by_a_timeout_is_gone_on_with),
        cmocka_unit_test(two_lists_left_the_second_first),
        cmocka_unit_test(a_list_left_open_and_finalized),
        cmocka_unit_test(bad_lists_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
