/* chaos_operation.c - one random collective call, and what it must have done to the buffers; see
 * chaos.h. */
#include "chaos.h"
#include "cases.h"

#include <string.h>

enum { GUARD = 64, HURRY_MS = 1, NOBODY = 0, EVERYBODY, ROOT, OTHERS };

/* Who sends and receives, and whether one block for each rank or one. */
static const struct shape {
    serry_kind kind;
    int sends, receives;
    bool send_blocks, recv_blocks, rooted, reduces;
} shapes[] = {
    {.kind = SERRY_KIND_BARRIER},
    {SERRY_KIND_BROADCAST, ROOT, OTHERS, .rooted = true},
    {SERRY_KIND_REDUCE, EVERYBODY, ROOT, .rooted = true, .reduces = true},
    {SERRY_KIND_ALLREDUCE, EVERYBODY, EVERYBODY, .reduces = true},
    {SERRY_KIND_ALLREDUCE, EVERYBODY, EVERYBODY, .reduces = true}, /* more often */
    {SERRY_KIND_ALLGATHER, EVERYBODY, EVERYBODY, .recv_blocks = true},
    {SERRY_KIND_REDUCE_SCATTER, EVERYBODY, EVERYBODY, .send_blocks = true, .reduces = true},
    {SERRY_KIND_GATHER, EVERYBODY, ROOT, .recv_blocks = true, .rooted = true},
    {SERRY_KIND_SCATTER, ROOT, EVERYBODY, .send_blocks = true, .rooted = true},
    {SERRY_KIND_ALLTOALL, EVERYBODY, EVERYBODY, .send_blocks = true, .recv_blocks = true},
};
enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

static const struct shape *shape_of(serry_kind kind)
{
    size_t i = 0;

    while (shapes[i].kind != kind)
        i++;
    return &shapes[i];
}

/* ---- drawing ------------------------------------------------------------------------------------ */

void chaos_draw(const chaos_job *job, uint64_t *sequence, int size, chaos_operation *op)
{
    static const size_t most[] = {3, 3, 64, 600, 600, 4000, 4000, CHAOS_ELEMENTS};
    const struct shape *shape = &shapes[chaos_chance(sequence, SHAPES)];
    bool blocks = shape->send_blocks || shape->recv_blocks;
    size_t elements = chaos_chance(sequence, most[chaos_chance(sequence, 8)] + 1);

    *op = (chaos_operation){.kind = shape->kind};
    op->data = &job->data[chaos_chance(sequence, CHAOS_DATA)];
    op->count = shape->kind == SERRY_KIND_BARRIER ? 0 : blocks ? elements / (size_t)size : elements;
    op->shift = chaos_chance(sequence, CHAOS_LENGTH - CHAOS_ELEMENTS);
    op->root = shape->rooted ? (int)chaos_chance(sequence, (uint64_t)size) : 0;
    op->memory = (int)chaos_chance(sequence, MEMORIES);
    op->in_place = chaos_chance(sequence, 3) == 0;
}

/* ---- as one rank makes it ----------------------------------------------------------------------- */

typedef struct plan {
    const struct shape *shape;
    bool sends, receives, in_place;
    size_t element, send_count, recv_count; /* elements in the buffers, 0 where none is needed */
    unsigned char *send, *recv;
    serry_call call;
} plan;

static bool is_one_of(int who, const chaos_group *g, const chaos_operation *op)
{
    return who == EVERYBODY || (who == ROOT && g->rank == op->root) ||
           (who == OTHERS && g->rank != op->root);
}

static const unsigned char *input_of(const chaos_group *g, const chaos_operation *op, int rank,
                                     size_t first)
{
    const chaos_data *data = op->data;
    size_t at = (size_t)g->world[rank] * CHAOS_LENGTH + op->shift + first;

    return data->memory + at * reference_size(data->dtype);
}

static void choose_buffers(const chaos_rank *self, const chaos_group *g, const chaos_operation *op,
                           plan *p)
{
    bool arena = self->arena_send != NULL && self->arena_recv != NULL;
    bool both = op->memory == MEMORY_ARENA || (op->memory == MEMORY_MIXED && g->rank % 2 == 0);

    p->send = arena && (both || op->memory == MEMORY_SEND) ? self->arena_send : self->private_send;
    p->recv = arena && (both || op->memory == MEMORY_RECV) ? self->arena_recv : self->private_recv;
    p->recv += GUARD;
}

static plan plan_of(const chaos_rank *self, const chaos_group *g, const chaos_operation *op)
{
    const struct shape *shape = shape_of(op->kind);
    size_t all = op->count * (size_t)g->size;
    plan p = {.shape = shape, .element = reference_size(op->data->dtype)};

    p.sends = is_one_of(shape->sends, g, op);
    p.receives = is_one_of(shape->receives, g, op);
    p.in_place = op->in_place && p.sends && p.receives;
    p.send_count = !p.sends ? 0 : shape->send_blocks ? all : op->count;
    p.recv_count = !p.receives ? 0 : shape->recv_blocks ? all : op->count;
    if (p.in_place && op->kind == SERRY_KIND_REDUCE_SCATTER)
        p.recv_count = all;
    choose_buffers(self, g, op, &p);
    serry_op reduction = op->data->op == SERRY_OP_USER ? self->user_op : op->data->op;
    p.call = (serry_call){.kind = op->kind,
                          .dtype = op->data->dtype,
                          .op = shape->reduces ? reduction : SERRY_SUM,
                          .root = op->root,
                          .count = op->count,
                          .send = p.sends ? p.send : NULL,
                          .recv = p.receives ? p.recv : NULL};
    if (op->kind == SERRY_KIND_BROADCAST)
        p.call.recv = p.sends ? p.send : p.recv;
    else if (p.in_place && op->kind == SERRY_KIND_SCATTER)
        p.call.recv = (void *)(uintptr_t)SERRY_IN_PLACE;
    else if (p.in_place)
        p.call.send = SERRY_IN_PLACE;
    return p;
}

/* Where, in the receive buffer, the input lies. */
static size_t place_of_input(const chaos_group *g, const chaos_operation *op, const plan *p)
{
    return p->shape->recv_blocks && !p->shape->send_blocks ? (size_t)g->rank * op->count : 0;
}

static void fill(chaos_rank *self, const chaos_group *g, const chaos_operation *op, const plan *p)
{
    const unsigned char *input = input_of(g, op, g->rank, 0);
    size_t bytes = p->recv_count * p->element + 2 * (size_t)GUARD;

    memset(p->recv - GUARD, (int)(0x80 | (op->shift & 0x7f)), bytes);
    if (p->in_place && op->kind != SERRY_KIND_SCATTER)
        memcpy(p->recv + place_of_input(g, op, p) * p->element, input, p->send_count * p->element);
    else if (p->sends)
        memcpy(p->send, input, p->send_count * p->element);
    memcpy(self->shadow, p->recv - GUARD, bytes);
}

/* ---- what must have come of it ------------------------------------------------------------------ */

static void combine(const chaos_group *g, const chaos_operation *op, size_t first,
                    unsigned char *to)
{
    const void *source[CHAOS_RANKS];
    int n = 0;

    for (int r = 0; r < g->size; r++)
        if ((g->members >> r & 1) != 0)
            source[n++] = input_of(g, op, r, first);
    reference_combine(to, source, n, op->count, op->data->dtype, op->data->op);
}

/* Into the shadow: what the receive buffer must be after a success. */
static void overlay(chaos_rank *self, const chaos_group *g, const chaos_operation *op,
                    const plan *p)
{
    unsigned char *to = self->shadow + GUARD;
    size_t own = p->shape->send_blocks ? (size_t)g->rank * op->count : 0;

    if (!p->receives || (p->in_place && op->kind == SERRY_KIND_SCATTER))
        return;
    if (p->shape->reduces) {
        combine(g, op, own, to);
        return;
    }
    for (int r = 0; r < g->size; r++) {
        if (p->shape->recv_blocks ? (g->members >> r & 1) == 0 : r != op->root)
            continue;
        size_t block = p->shape->recv_blocks ? (size_t)r * op->count : 0;
        memcpy(to + block * p->element, input_of(g, op, r, own), op->count * p->element);
    }
}

static void complain(chaos_rank *self, const chaos_group *g, const chaos_operation *op, int code,
                     const char *what, size_t at)
{
    chaos_fail(self,
               "%s after %s: %s, element %zu: %s(count=%zu, %s, %s) root %d, memory %d, in place "
               "%d, size %d, rank %d, members %#llx, policy %d",
               what, serry_error_name(code), "buffers", at, serry_kind_name(op->kind), op->count,
               serry_dtype_name(op->data->dtype), serry_op_name(op->data->op), op->root, op->memory,
               (int)op->in_place, g->size, g->rank, (unsigned long long)g->members, (int)g->policy);
}

static void compare(chaos_rank *self, const chaos_group *g, const chaos_operation *op,
                    const plan *p, int code)
{
    const unsigned char *wanted = self->shadow + GUARD;
    size_t count = p->recv_count;

    if (code == SERRY_OK && p->in_place && op->kind == SERRY_KIND_REDUCE_SCATTER)
        count = op->count; /* what is behind it is nobody's */
    size_t at = reference_differ(p->recv, wanted, count, op->data->dtype, true);
    if (at < count)
        complain(self, g, op, code, "wrong output", at);
    if (memcmp(p->recv - GUARD, self->shadow, GUARD) != 0 ||
        memcmp(p->recv + p->recv_count * p->element, wanted + p->recv_count * p->element, GUARD))
        complain(self, g, op, code, "written beside the output", 0);
    if (p->sends && (!p->in_place || op->kind == SERRY_KIND_SCATTER) && p->send_count > 0 &&
        memcmp(p->send, input_of(g, op, g->rank, 0), p->send_count * p->element) != 0)
        complain(self, g, op, code, "changed input", 0);
}

/* Of results that all have alike. */
static uint64_t hash_of(const chaos_operation *op, const plan *p, int code)
{
    bool alike = op->kind == SERRY_KIND_ALLREDUCE || op->kind == SERRY_KIND_ALLGATHER;

    return alike && code == SERRY_OK && !(p->in_place && op->kind == SERRY_KIND_ALLGATHER)
               ? chaos_hash(p->recv, p->recv_count * p->element)
               : 0;
}

/* ---- making it ---------------------------------------------------------------------------------- */

void chaos_hurry(chaos_rank *self, serry_comm *comm)
{
    if (chaos_chance(&self->sequence, 8) == 0)
        serry_set_timeout(comm, HURRY_MS);
}

bool chaos_again(chaos_rank *self, serry_comm *comm, int code)
{
    if (code == SERRY_ERR_TIMEOUT) {
        atomic_fetch_add_explicit(&self->board->timeouts, 1, memory_order_relaxed);
        return true;
    }
    serry_set_timeout(comm, -1);
    return false;
}

int chaos_run(chaos_rank *self, chaos_group *g, const chaos_operation *op, uint64_t key)
{
    plan p = plan_of(self, g, op);
    int code;

    fill(self, g, op, &p);
    chaos_at(self, "call %#llx: %s, %zu elements, %s, memory %d, policy %d, %s of %d",
             (unsigned long long)key, serry_kind_name(op->kind), op->count,
             serry_dtype_name(op->data->dtype), op->memory, (int)g->policy,
             g->is_world ? "world" : "part", g->size);
    chaos_hurry(self, g->comm);
    chaos_place(self->seat);
    do {
        code = test_call(&p.call, g->comm);
    } while (chaos_again(self, g->comm, code));
    chaos_place(self->seat);
    uint64_t ranks = chaos_account(self, g, code, p.shape->rooted ? op->root : -1, 0);
    if (code == SERRY_OK)
        overlay(self, g, op, &p);
    if (code != SERRY_ERR_REVOKED || op->memory == MEMORY_PRIVATE) /* see docs/protocol.md */
        compare(self, g, op, &p, code);
    chaos_log(self, key, code, ranks, g->epoch, hash_of(op, &p, code), g->revocable);
    chaos_place(self->seat);
    return code;
}
