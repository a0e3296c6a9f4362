/* cases.c - see cases.h. */
#include "cases.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define GUARD 64u   /* bytes before and after what is received */
#define MARGIN 256u /* bytes of a buffer beyond the largest case: guards and alignment */

/* ---- datasets and groups -------------------------------------------------------------------- */

static size_t vector_bytes(serry_dtype dtype, size_t length)
{
    return (length * reference_size(dtype) + 63) / 64 * 64;
}

size_t dataset_bytes(serry_dtype dtype, int size, size_t length)
{
    return (size_t)(size + 1) * vector_bytes(dtype, length);
}

static unsigned char *vector_at(const dataset *data, int number)
{
    return data->memory + (size_t)number * vector_bytes(data->dtype, data->length);
}

const unsigned char *dataset_input(const dataset *data, int rank)
{
    return vector_at(data, rank);
}

const unsigned char *dataset_combined(const dataset *data)
{
    return vector_at(data, data->size);
}

void dataset_prepare(test_rank *self, dataset *data)
{
    const void *source[SERRY_MAX_RANKS];
    size_t element = reference_size(data->dtype);
    size_t part = data->length / (size_t)self->size + 1;
    size_t first =
        part * (size_t)self->rank < data->length ? part * (size_t)self->rank : data->length;
    size_t count = data->length - first < part ? data->length - first : part;

    test_meet(self); /* nobody uses the old one any more */
    reference_fill(vector_at(data, self->rank), 0, data->length, data->dtype, data->op, data->seed,
                   self->rank);
    test_meet(self);
    for (int r = 0; r < self->size; r++)
        source[r] = dataset_input(data, r) + first * element;
    reference_combine(vector_at(data, data->size) + first * element, source, self->size, count,
                      data->dtype, data->op);
    test_meet(self);
}

void group_world(test_rank *self, const dataset *data, group *world)
{
    *world = (group){.comm = self->comm,
                     .rank = self->rank,
                     .size = self->size,
                     .combined = dataset_combined(data)};
    for (int r = 0; r < self->size; r++)
        world->member[r] = r;
}

/* ---- buffers -------------------------------------------------------------------------------- */

static size_t page_up(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page * page;
}

/* Private memory that ends at a page which nobody may touch. */
static unsigned char *fenced(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *memory = mmap(NULL, page_up(bytes) + page, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    mprotect(memory + page_up(bytes), page, PROT_NONE);
    return memory;
}

bool buffers_open(test_rank *self, buffers *b, size_t bytes)
{
    b->bytes = page_up(bytes + MARGIN);
    b->private_send = fenced(b->bytes);
    b->private_recv = fenced(b->bytes);
    b->arena_send = serry_alloc(self->comm, b->bytes);
    b->arena_recv = serry_alloc(self->comm, b->bytes);
    if (b->private_send != NULL && b->private_recv != NULL && b->arena_send != NULL &&
        b->arena_recv != NULL)
        return true;
    test_failed(self, "no buffers of %zu bytes: %s", b->bytes,
                serry_last_error(self->comm)->message);
    return false;
}

void buffers_close(test_rank *self, buffers *b)
{
    size_t fence = (size_t)sysconf(_SC_PAGESIZE);
    munmap(b->private_send, b->bytes + fence);
    munmap(b->private_recv, b->bytes + fence);
    serry_free(self->comm, b->arena_send);
    serry_free(self->comm, b->arena_recv);
}

/* ---- what a kind of operation moves --------------------------------------------------------- */

enum { NOBODY, EVERYBODY, ROOT, OTHERS }; /* who sends or receives */

static const struct shape {
    int sends, receives;
    bool send_blocks, recv_blocks; /* one block for each rank, else one */
    bool rooted, reduces;
    int places;
} k_shape[] = {
    [SERRY_KIND_BARRIER] = {.places = 1},
    [SERRY_KIND_BROADCAST] = {ROOT, OTHERS, .rooted = true, .places = 1},
    [SERRY_KIND_REDUCE] = {EVERYBODY, ROOT, .rooted = true, .reduces = true, .places = 2},
    [SERRY_KIND_ALLREDUCE] = {EVERYBODY, EVERYBODY, .reduces = true, .places = 3},
    [SERRY_KIND_ALLGATHER] = {EVERYBODY, EVERYBODY, .recv_blocks = true, .places = 3},
    [SERRY_KIND_REDUCE_SCATTER] = {EVERYBODY, EVERYBODY, .send_blocks = true, .reduces = true,
                                   .places = 3},
    [SERRY_KIND_GATHER] = {EVERYBODY, ROOT, .recv_blocks = true, .rooted = true, .places = 2},
    [SERRY_KIND_SCATTER] = {ROOT, EVERYBODY, .send_blocks = true, .rooted = true, .places = 2},
    [SERRY_KIND_ALLTOALL] = {EVERYBODY, EVERYBODY, .send_blocks = true, .recv_blocks = true,
                             .places = 3},
};

int case_places(serry_kind kind)
{
    return k_shape[kind].places;
}

int case_roots(serry_kind kind, int size)
{
    return k_shape[kind].rooted && size > 1 ? 2 : 1;
}

bool case_has_blocks(serry_kind kind)
{
    return k_shape[kind].send_blocks || k_shape[kind].recv_blocks;
}

bool case_reduces(serry_kind kind)
{
    return k_shape[kind].reduces;
}

/* A case as one rank carries it out. */
typedef struct plan {
    bool sends, receives, in_place;
    size_t send_count, recv_count; /* elements, 0 where it does not send or receive */
    size_t shift;                  /* first element used of the inputs */
    unsigned char *send, *recv;    /* the real places */
    unsigned char fill;            /* of recv and its guards, before the call */
    serry_call call;
} plan;

static bool is_one_of(int who, const group *g, const op_case *c)
{
    return who == EVERYBODY || (who == ROOT && g->rank == c->root) ||
           (who == OTHERS && g->rank != c->root);
}

static bool calls_in_place(const struct shape *shape, const group *g, const op_case *c)
{
    if (c->place == PLACE_APART || shape->places == 1)
        return false;
    if (shape->rooted)
        return g->rank == c->root;
    return c->place == PLACE_IN || g->rank % 2 == 1;
}

static void choose_buffers(plan *p, const buffers *b, const group *g, const op_case *c,
                           size_t element)
{
    bool both = c->memory == MEMORY_ARENA || (c->memory == MEMORY_MIXED && g->rank % 2 == 0);
    size_t aside = c->turn % 3 == 0 ? 0 : c->turn % 7 * element;
    size_t recv_bytes = p->recv_count * element;

    if (both || c->memory == MEMORY_SEND)
        p->send = b->arena_send + aside;
    else /* to the end, where the fence is */
        p->send = b->private_send + b->bytes - p->send_count * element;
    if (both || c->memory == MEMORY_RECV)
        p->recv = b->arena_recv + GUARD + aside;
    else if (c->turn % 2 == 0)
        p->recv = b->private_recv + GUARD + aside;
    else
        p->recv = b->private_recv + (b->bytes - GUARD - recv_bytes) / element * element;
}

/* What is passed: NULL or nonsense where a rank neither sends nor receives. */
static void choose_arguments(plan *p, const group *g, const op_case *c, size_t element)
{
    bool null = c->turn % 2 == 0;
    size_t own = (size_t)g->rank * c->count * element;

    p->call.send = p->sends && p->send_count > 0 ? p->send : null ? NULL : p->send;
    p->call.recv = p->receives && p->recv_count > 0 ? p->recv : null ? NULL : p->recv;
    if (c->kind == SERRY_KIND_BROADCAST) {
        p->call.recv = c->count > 0 || !null ? p->recv : NULL;
    } else if (p->in_place && c->kind == SERRY_KIND_SCATTER) {
        p->call.recv = (void *)(uintptr_t)SERRY_IN_PLACE;
        p->recv = p->send + own;
    } else if (p->in_place) {
        p->call.send = SERRY_IN_PLACE;
        p->send = c->kind == SERRY_KIND_ALLGATHER || c->kind == SERRY_KIND_GATHER ? p->recv + own
                                                                                  : p->recv;
    }
}

static plan plan_of(const buffers *b, const group *g, const dataset *data, const op_case *c)
{
    const struct shape *shape = &k_shape[c->kind];
    size_t element = reference_size(data->dtype), n = (size_t)g->size;
    plan p = {.fill = (unsigned char)(0xa0 + c->turn % 8)};

    p.sends = is_one_of(shape->sends, g, c);
    p.receives = is_one_of(shape->receives, g, c);
    p.in_place = calls_in_place(shape, g, c);
    p.send_count = p.sends ? c->count * (shape->send_blocks ? n : 1) : 0;
    p.recv_count = p.receives ? c->count * (shape->recv_blocks ? n : 1) : 0;
    if (c->kind == SERRY_KIND_BROADCAST) /* one buffer, written or not */
        p.recv_count = c->count;
    if (p.in_place && p.recv_count < p.send_count && c->kind != SERRY_KIND_SCATTER)
        p.recv_count = p.send_count;
    p.shift = c->turn * 37u % CASE_SHIFTS;
    choose_buffers(&p, b, g, c, element);
    p.call = (serry_call){
        c->kind, data->dtype, shape->reduces ? data->op : SERRY_SUM, c->root, c->count, NULL, NULL};
    choose_arguments(&p, g, c, element);
    if (c->kind == SERRY_KIND_BROADCAST)
        p.send = p.recv;
    return p;
}

/* ---- comparing ------------------------------------------------------------------------------ */

static void complain(test_rank *self, const group *g, const dataset *data, const op_case *c,
                     const char *what, const char *detail)
{
    static const char *const k_memory[] = {"private", "arena", "mixed", "arena send", "arena recv"};
    static const char *const k_place[] = {"apart", "in place", "odd ranks in place"};
    test_failed(
        self, "%s: %s(count=%zu, %s, %s, root %d) rank %d of %d, memory %s, %s, turn %u: %s", what,
        serry_kind_name(c->kind), c->count, serry_dtype_name(data->dtype), serry_op_name(data->op),
        c->root, g->rank, g->size, k_memory[c->memory], k_place[c->place], c->turn, detail);
}

/* Compare `count` elements at element `at` of a buffer with what is wanted. */
static void compare(test_rank *self, const group *g, const dataset *data, const op_case *c,
                    const char *what, const unsigned char *buffer, size_t at,
                    const unsigned char *wanted, size_t count, bool nan_is_nan)
{
    size_t element = reference_size(data->dtype);
    const unsigned char *got = buffer + at * element;
    size_t i = reference_differ(got, wanted, count, data->dtype, nan_is_nan);
    if (i == count)
        return;
    char detail[160];
    snprintf(detail, sizeof(detail), "element %zu is %#llx, wanted %#llx", at + i,
             (unsigned long long)reference_bits(got, i, data->dtype),
             (unsigned long long)reference_bits(wanted, i, data->dtype));
    complain(self, g, data, c, what, detail);
}

static void compare_guard(test_rank *self, const group *g, const dataset *data, const op_case *c,
                          const char *what, const unsigned char *from, size_t bytes,
                          unsigned char fill)
{
    for (size_t i = 0; i < bytes; i++)
        if (from[i] != fill) {
            char detail[160];
            snprintf(detail, sizeof(detail), "byte %zu of %zu is %#x, wanted %#x", i, bytes,
                     (unsigned)from[i], (unsigned)fill);
            complain(self, g, data, c, what, detail);
            return;
        }
}

static const unsigned char *input(const group *g, const dataset *data, int member, size_t first)
{
    return dataset_input(data, g->member[member]) + first * reference_size(data->dtype);
}

/* Where this rank gets blocks of several ranks, each is compared by itself. */
static void compare_result(test_rank *self, const group *g, const dataset *data, const op_case *c,
                           const plan *p)
{
    size_t own = (size_t)g->rank * c->count;
    bool nan_is_nan = data->op < SERRY_OP_USER;
    const unsigned char *combined = g->combined + p->shift * reference_size(data->dtype);

    switch (c->kind) {
    case SERRY_KIND_BROADCAST:
        compare(self, g, data, c, "result", p->recv, 0, input(g, data, c->root, p->shift), c->count,
                false);
        break;
    case SERRY_KIND_REDUCE:
    case SERRY_KIND_ALLREDUCE:
        compare(self, g, data, c, "result", p->recv, 0, combined, c->count, nan_is_nan);
        break;
    case SERRY_KIND_REDUCE_SCATTER:
        compare(self, g, data, c, "result", p->recv, 0,
                combined + own * reference_size(data->dtype), c->count, nan_is_nan);
        break;
    case SERRY_KIND_SCATTER:
        compare(self, g, data, c, "result", p->recv, 0, input(g, data, c->root, p->shift + own),
                c->count, false);
        break;
    case SERRY_KIND_ALLGATHER:
    case SERRY_KIND_GATHER:
        for (int r = 0; r < g->size; r++)
            compare(self, g, data, c, "result", p->recv, (size_t)r * c->count,
                    input(g, data, r, p->shift), c->count, false);
        break;
    case SERRY_KIND_ALLTOALL:
        for (int r = 0; r < g->size; r++)
            compare(self, g, data, c, "result", p->recv, (size_t)r * c->count,
                    input(g, data, r, p->shift + own), c->count, false);
        break;
    default:
        break;
    }
}

/* A rank that receives nothing still has guards: all of its buffer. */
static void compare_all(test_rank *self, const group *g, const dataset *data, const op_case *c,
                        const plan *p, bool guarded)
{
    size_t bytes = p->recv_count * reference_size(data->dtype);
    if (p->receives || c->kind == SERRY_KIND_BROADCAST)
        compare_result(self, g, data, c, p);
    if (guarded) {
        compare_guard(self, g, data, c, "written before the output", p->recv - GUARD, GUARD,
                      p->fill);
        compare_guard(self, g, data, c, "written behind the output", p->recv + bytes, GUARD,
                      p->fill);
    }
    if (p->sends && (!p->in_place || c->kind == SERRY_KIND_SCATTER))
        compare(self, g, data, c, "input changed", p->send, 0, input(g, data, g->rank, p->shift),
                p->send_count, false);
}

/* In place, a scatter's own block lies in what is sent. */
static bool is_guarded(const plan *p, const op_case *c)
{
    return !(p->in_place && c->kind == SERRY_KIND_SCATTER);
}

/* Fill the buffers as they must be before the call. */
static void prepare(test_rank *self, const plan *p, const group *g, const dataset *data,
                    const op_case *c)
{
    size_t element = reference_size(data->dtype);

    test_at(self, "%s count %zu %s %s root %d memory %d place %d turn %u", serry_kind_name(c->kind),
            c->count, serry_dtype_name(data->dtype), serry_op_name(data->op), c->root,
            (int)c->memory, (int)c->place, c->turn);
    if (is_guarded(p, c))
        memset(p->recv - GUARD, p->fill, p->recv_count * element + 2 * GUARD);
    if (p->send_count > 0)
        memcpy(p->send, input(g, data, g->rank, p->shift), p->send_count * element);
}

bool case_run(test_rank *self, const buffers *b, const group *g, const dataset *data,
              const op_case *c)
{
    plan p = plan_of(b, g, data, c);

    prepare(self, &p, g, data, c);
    int result = test_call(&p.call, g->comm);
    if (result != SERRY_OK) {
        complain(self, g, data, c, serry_error_name(result), serry_last_error(g->comm)->message);
        return false;
    }
    compare_all(self, g, data, c, &p, is_guarded(&p, c));
    return true;
}

bool case_start(test_rank *self, const buffers *b, const group *g, const dataset *data,
                const op_case *c, serry_request **request)
{
    plan p = plan_of(b, g, data, c);

    prepare(self, &p, g, data, c);
    int result = test_call_apart(&p.call, g->comm, request);
    if (result != SERRY_OK)
        complain(self, g, data, c, serry_error_name(result), serry_last_error(g->comm)->message);
    return result == SERRY_OK;
}

bool case_finish(test_rank *self, const buffers *b, const group *g, const dataset *data,
                 const op_case *c, serry_request **request)
{
    plan p = plan_of(b, g, data, c);
    int result = serry_wait(request, -1);

    if (result != SERRY_OK) {
        complain(self, g, data, c, serry_error_name(result),
                 serry_request_error(*request)->message);
        serry_request_free(request);
        return false;
    }
    CHECK(self, *request == NULL);
    compare_all(self, g, data, c, &p, is_guarded(&p, c));
    return true;
}

const unsigned char *case_result(const buffers *b, const group *g, const dataset *data,
                                 const op_case *c, size_t *bytes)
{
    plan p = plan_of(b, g, data, c);
    size_t blocks = k_shape[c->kind].recv_blocks ? (size_t)g->size : 1;
    *bytes = p.receives ? c->count * blocks * reference_size(data->dtype) : 0;
    return p.recv;
}
