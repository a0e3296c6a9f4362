/* crash_collective.c - the collective of a crash trial: its buffers, and what must be in them at the
 * end, whoever took part. */
#include <stdlib.h>
#include <string.h>

#include "crash_ranks.h"

#define UNTOUCHED INT64_C(0x5a5a5a5a5a5a5a5a)
#define SMALL_BYTES ((size_t)8 << 10) /* with more, members get rooms at their first operation */

static int64_t given(int rank, size_t index)
{
    return (int64_t)(rank + 1) * 1000003 + (int64_t)index * 7919;
}

static size_t blocks_sent(const crash_scenario *s)
{
    return s->kind == SERRY_KIND_REDUCE_SCATTER || s->kind == SERRY_KIND_SCATTER ||
                   s->kind == SERRY_KIND_ALLTOALL
               ? (size_t)s->size
               : 1;
}

static size_t blocks_received(const crash_scenario *s)
{
    return s->kind == SERRY_KIND_ALLGATHER || s->kind == SERRY_KIND_GATHER ||
                   s->kind == SERRY_KIND_ALLTOALL
               ? (size_t)s->size
               : 1;
}

static int64_t *take(crash_actor *a, size_t elements)
{
    size_t bytes = (elements == 0 ? 1 : elements) * sizeof(int64_t);
    void *memory = a->scenario->arena ? serry_alloc(a->comm, bytes) : malloc(bytes);

    CHECK(a->self, memory != NULL);
    return memory;
}

static void give(crash_actor *a, void *memory)
{
    if (a->scenario->arena)
        serry_free(a->comm, memory);
    else
        free(memory);
}

/* In a reduction at a root, that alone can be. */
static bool is_in_place(const crash_actor *a)
{
    const crash_scenario *s = a->scenario;

    return s->in_place && (s->kind != SERRY_KIND_REDUCE || a->self->rank == s->root);
}

/* In place, everything lies in recv; an allgather's own block at its place there. */
static int64_t *input_of(crash_actor *a)
{
    const crash_scenario *s = a->scenario;

    if (!is_in_place(a))
        return a->send;
    return a->recv + (s->kind == SERRY_KIND_ALLGATHER ? (size_t)a->self->rank * s->count : 0);
}

static void fill(crash_actor *a)
{
    const crash_scenario *s = a->scenario;
    int rank = a->self->rank;

    for (size_t i = 0; i < a->received; i++)
        a->recv[i] = UNTOUCHED;
    for (size_t i = 0; i < a->sent; i++)
        input_of(a)[i] = given(rank, i);
    if (s->kind == SERRY_KIND_BROADCAST && rank == s->root)
        memcpy(a->recv, a->send, s->count * sizeof(*a->send));
}

/* Before the section, with other numbers: what a member then finds where nobody has written is no right
 * one. */
static void make_rooms(crash_actor *a)
{
    const crash_scenario *s = a->scenario;
    int64_t *input = s->kind == SERRY_KIND_BROADCAST ? a->recv : input_of(a);

    for (size_t i = 0; i < a->sent; i++)
        input[i] = ~input[i];
    EXPECT_OK(a->self, test_call(&a->call, a->comm));
    fill(a);
}

void crash_collective_prepare(crash_actor *a)
{
    const crash_scenario *s = a->scenario;

    a->sent = blocks_sent(s) * s->count;
    a->received = blocks_received(s) * s->count;
    if (is_in_place(a) && a->received < a->sent)
        a->received = a->sent;
    a->recv = take(a, a->received);
    a->send = is_in_place(a) ? NULL : take(a, a->sent);
    a->many = take(a, 2 * CRASH_MANY);
    if (a->recv == NULL || (a->send == NULL && !is_in_place(a)))
        return;
    fill(a);
    a->call = (serry_call){.kind = s->kind,
                           .dtype = SERRY_I64,
                           .op = SERRY_SUM,
                           .root = s->root,
                           .count = s->count,
                           .send = is_in_place(a) ? SERRY_IN_PLACE : a->send,
                           .recv = a->recv};
    if (s->first || s->count * sizeof(*a->recv) <= SMALL_BYTES)
        return;
    make_rooms(a);
}

void crash_collective_release(crash_actor *a)
{
    if (a->send != NULL)
        give(a, a->send);
    if (a->recv != NULL)
        give(a, a->recv);
    if (a->many != NULL)
        give(a, a->many);
}

static int64_t sum_over(const serry_rank_set *set, int size, size_t index)
{
    int64_t sum = 0;

    for (int r = 0; r < size; r++)
        sum += serry_rank_set_has(set, r) ? given(r, index) : 0;
    return sum;
}

/* What element i of recv must be, given who took part. */
static int64_t wanted(const crash_actor *a, const serry_rank_set *set, size_t i)
{
    const crash_scenario *s = a->scenario;
    size_t rank = (size_t)a->self->rank;
    int from = (int)(i / s->count);

    switch (s->kind) {
    case SERRY_KIND_ALLREDUCE:
        return sum_over(set, s->size, i);
    case SERRY_KIND_REDUCE:
        return a->self->rank == s->root ? sum_over(set, s->size, i) : UNTOUCHED;
    case SERRY_KIND_REDUCE_SCATTER: /* in place, what follows the result is left as it was */
        return i < s->count ? sum_over(set, s->size, rank * s->count + i) : given((int)rank, i);
    case SERRY_KIND_BROADCAST:
        return given(s->root, i);
    case SERRY_KIND_SCATTER:
        return given(s->root, rank * s->count + i);
    case SERRY_KIND_GATHER:
        if (a->self->rank != s->root)
            return UNTOUCHED; /* fall through */
    case SERRY_KIND_ALLGATHER:
        return serry_rank_set_has(set, from) ? given(from, i % s->count) : UNTOUCHED;
    case SERRY_KIND_ALLTOALL:
        return serry_rank_set_has(set, from) ? given(from, rank * s->count + i % s->count)
                                             : UNTOUCHED;
    default:
        return UNTOUCHED;
    }
}

static void check_result(crash_actor *a, const serry_rank_set *set)
{
    for (size_t i = 0; i < a->received; i++) {
        int64_t want = wanted(a, set, i);
        if (a->recv[i] == want)
            continue;
        test_failed(a->self, "%s: element %zu is %lld, not %lld, with participants %llx",
                    a->scenario->name, i, (long long)a->recv[i], (long long)want,
                    (unsigned long long)set->bits[0]);
        return;
    }
}

/* After an error: buffers as they were. */
static void check_intact(crash_actor *a)
{
    const crash_scenario *s = a->scenario;
    size_t first = s->kind == SERRY_KIND_ALLGATHER ? (size_t)a->self->rank * s->count : 0;
    bool root = s->kind == SERRY_KIND_BROADCAST && a->self->rank == s->root;

    for (size_t i = 0; i < a->received; i++) {
        bool own = is_in_place(a) && i >= first && i - first < a->sent;
        int64_t want = own    ? given(a->self->rank, i - first)
                       : root ? given(a->self->rank, i)
                              : UNTOUCHED;
        if (a->recv[i] == want)
            continue;
        test_failed(a->self, "%s: it failed, but element %zu is %lld, not %lld", s->name, i,
                    (long long)a->recv[i], (long long)want);
        return;
    }
}

static void check_input(crash_actor *a)
{
    for (size_t i = 0; i < a->sent && a->send != NULL; i++)
        if (a->send[i] != given(a->self->rank, i)) {
            test_failed(a->self, "%s: the input has changed at element %zu", a->scenario->name, i);
            return;
        }
}

void crash_collective_judge(crash_actor *a, int rc)
{
    serry_rank_set set = {{0}};

    serry_participants(a->comm, &set);
    crash_note(a, "the collective", rc, (int64_t)set.bits[0]);
    if (rc == SERRY_OK)
        check_result(a, &set);
    else
        check_intact(a);
    check_input(a);
}

/* A large operation on arena memory may have begun to write. */
void crash_collective_excluded(crash_actor *a)
{
    if (a->scenario->arena)
        return;
    check_intact(a);
    check_input(a);
}

static uint64_t print_over(uint64_t print, const int64_t *element, size_t count)
{
    for (size_t i = 0; i < count && element != NULL; i++)
        print = (print ^ (uint64_t)element[i]) * UINT64_C(0x100000001b3);
    return print;
}

uint64_t crash_collective_print(const crash_actor *a)
{
    return print_over(print_over(1, a->recv, a->received), a->send, a->sent);
}
