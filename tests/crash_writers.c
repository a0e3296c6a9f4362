/* crash_writers.c - a process that is killed while its threads are writing into its own arena memory,
 * in system calls that the kernel lets them finish: they write on when the others have long been told
 * of the death and go on. Nothing that they write may matter. */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "comm.h"
#include "harness.h"
#include "operation.h"

/* When nobody has been seen to write late after TRIALS, they go on, up to TRIALS_MOST. */
enum { RANKS = 4, VICTIM = 1, WRITERS = 3, TRIALS = 30, TRIALS_MOST = 300, PIECES = 512 };
enum { WRITING }; /* flag of a run */

#define OLD_BYTES                                                                                  \
    ((size_t)32 << 20)           /* of the victim; written in one system call, for milliseconds */
#define ELEMENTS ((size_t)50000) /* several chunks */

/* What the ranks of a run share. */
typedef struct outside {
    uint64_t old_offset; /* in the arena: the victim's memory from an operation before */
    int late;            /* it changed after the victim's death was known */
} outside;

static shm_member *member_of(const serry_comm *comm)
{
    return (shm_member *)(void *)comm->member;
}

static unsigned char *arena_of(const serry_comm *comm)
{
    return member_of(comm)->group.arena->base;
}

/* ---- the writers ------------------------------------------------------------------------------ */

enum { GARBAGE = 1 << 16 }; /* bytes of a piece of it */

typedef struct writer {
    test_rank *self;
    int file; /* of what is written */
    struct iovec piece[PIECES];
    int pieces;
} writer;

/* Not what was written the time before. By the bare system call: the sanitizers' wrapper of preadv is
 * at work on its own for longer than the kernel writes. */
static void *write_on(void *argument)
{
    const writer *w = argument;
    long from = 0;

    test_raise(w->self, WRITING);
    while (syscall(SYS_preadv, w->file, w->piece, w->pieces, from, 0) >= 0)
        from ^= GARBAGE;
    return NULL;
}

/* Bytes that no rank contributes, other ones in each piece. */
static int make_garbage(void)
{
    int file = memfd_create("garbage", MFD_CLOEXEC);
    static unsigned char piece[GARBAGE];

    for (size_t done = 0; done <= OLD_BYTES; done += GARBAGE) {
        memset(piece, (int)(done / GARBAGE % 2) ^ 0xa5, GARBAGE);
        if (write(file, piece, GARBAGE) != GARBAGE)
            return -1;
    }
    return file;
}

static void start_writer(writer *w)
{
    pthread_t thread;

    CHECK(w->self, pthread_create(&thread, NULL, write_on, w) == 0);
}

/* Buffers of this rank's region that the next operation, a direct one, does not use. */
static void write_buffers(writer *w, const shm_group *g)
{
    for (w->pieces = 0; w->pieces < PIECES; w->pieces++) {
        uint64_t step = (uint64_t)w->pieces / 2;
        bool small = w->pieces % 2 == 0;
        w->piece[w->pieces] = (struct iovec){
            small ? group_small(g, g->rank, step) : group_in(g, g->rank, step),
            small ? g->small_bytes : g->chunk_bytes,
        };
    }
    start_writer(w);
}

/* All of a region: of a communicator that is not used any more. */
static void write_region(writer *w, const shm_group *g)
{
    size_t cells = CELLS * sizeof(group_cell);

    for (w->pieces = 0; w->pieces < PIECES; w->pieces++)
        w->piece[w->pieces] =
            (struct iovec){group_region(g, g->rank) + cells, g->region_bytes - cells};
    start_writer(w);
}

static void write_memory(writer *w, void *memory, size_t bytes)
{
    w->piece[0] = (struct iovec){memory, bytes};
    w->pieces = 1;
    start_writer(w);
}

/* ---- the ranks -------------------------------------------------------------------------------- */

static void fill(int64_t *vector, int rank, int64_t salt)
{
    for (size_t i = 0; i < ELEMENTS; i++)
        vector[i] = (int64_t)(i * 16) + rank + salt;
}

static void expect_sum(test_rank *self, const int64_t *vector, unsigned ranks, int64_t salt)
{
    for (size_t i = 0; i < ELEMENTS; i++) {
        int64_t wanted = 0;
        for (int r = 0; r < RANKS; r++)
            wanted += ranks >> r & 1 ? (int64_t)(i * 16) + r + salt : 0;
        if (vector[i] != wanted) {
            test_failed(self, "element %zu is %lld, not %lld, with ranks %x, salt %lld", i,
                        (long long)vector[i], (long long)wanted, ranks, (long long)salt);
            return;
        }
    }
}

static int deadly_call;

/* The victim dies in the middle of a slice. */
static void sum_or_die(void *accumulator, const void *next, size_t count, serry_dtype dtype,
                       void *argument)
{
    test_rank *self = argument;
    int64_t *a = accumulator;
    const int64_t *b = next;

    (void)dtype;
    if (self->rank == VICTIM && --deadly_call == 0) {
        test_mine(self)->killed = 1;
        kill(getpid(), SIGKILL);
    }
    for (size_t i = 0; i < count; i++)
        a[i] += b[i];
}

static uint64_t look_at(const serry_comm *comm, uint64_t offset)
{
    uint64_t sum = 0;

    for (size_t at = 0; at < OLD_BYTES; at += 4096)
        sum = sum * 31 + *(volatile uint64_t *)(void *)(arena_of(comm) + offset + at);
    return sum;
}

/* Does anybody write there still, now that the death is known? Looks until somebody does or the last
 * thread of the victim has ended. */
static bool writes_late(const test_rank *self, uint64_t offset, int victim)
{
    serry_rank_set failed;
    struct pollfd ended = {.fd = victim, .events = POLLIN};

    do
        serry_get_failed(self->comm, &failed);
    while (!serry_rank_set_has(&failed, VICTIM));
    for (uint64_t before = look_at(self->comm, offset); poll(&ended, 1, 0) == 0;)
        if (look_at(self->comm, offset) != before)
            return true;
    return false;
}

/* New memory is zero, and stays so, whatever the dead one's threads still do. */
static void expect_clean_memory(test_rank *self)
{
    size_t bytes = (size_t)1 << 20;
    unsigned char *memory = serry_alloc(self->comm, bytes);

    if (!CHECK(self, memory != NULL))
        return;
    for (int round = 0; round < 20; round++)
        for (size_t i = 0; i < bytes; i += 8)
            if (*(volatile uint64_t *)(void *)(memory + i) != 0) {
                test_failed(self, "new memory is written at %zu, in round %d", i, round);
                return;
            }
    serry_free(self->comm, memory);
}

static void go_on(test_rank *self, int64_t *in_arena, unsigned ranks)
{
    int64_t *private = malloc(ELEMENTS * sizeof(*private));

    for (int64_t turn = 1; turn <= 4; turn++) {
        int64_t *vector = turn % 2 != 0 ? in_arena : private;
        fill(vector, self->rank, turn);
        EXPECT_OK(self, serry_allreduce(SERRY_IN_PLACE, vector, ELEMENTS, SERRY_I64, SERRY_SUM,
                                        self->comm));
        expect_sum(self, vector, ranks, turn);
        EXPECT_OK(self, serry_barrier(self->comm));
    }
    free(private);
}

/* The operation before: its input is the victim's again, to write into. */
static void contribute_from(test_rank *self, int64_t *old, int64_t *result)
{
    fill(old, self->rank, 7);
    EXPECT_OK(self, serry_allreduce(old, result, ELEMENTS, SERRY_I64, SERRY_SUM, self->comm));
    expect_sum(self, result, (1u << RANKS) - 1, 7);
}

static void start_writers(test_rank *self, const serry_comm *part, void *old)
{
    static writer writers[WRITERS];
    int file = make_garbage();

    CHECK(self, file >= 0);
    for (int i = 0; i < WRITERS; i++)
        writers[i] = (writer){.self = self, .file = file};
    write_memory(&writers[0], old, OLD_BYTES);
    write_buffers(&writers[1], &member_of(self->comm)->group);
    write_region(&writers[2], &member_of(part)->group);
    test_await(self, WRITING, WRITERS);
}

static void body(test_rank *self)
{
    outside *o = self->argument;
    unsigned survivors = ((1u << RANKS) - 1) & ~(1u << VICTIM);
    int64_t *vector = serry_alloc(self->comm, ELEMENTS * sizeof(*vector));
    int64_t *old =
        serry_alloc(self->comm, self->rank == VICTIM ? OLD_BYTES : ELEMENTS * sizeof(*old));
    int victim = (int)syscall(SYS_pidfd_open, test_report_of(self->run, VICTIM)->pid, 0);
    serry_comm *part;
    serry_op op;

    if (!CHECK(self, old != NULL && vector != NULL && victim >= 0) ||
        !EXPECT_OK(self, serry_split(self->comm, 0, 0, &part)))
        return;
    test_expect(self, SERRY_OK, serry_op_create("sum or die", sum_or_die, self, &op), NULL, "op");
    contribute_from(self, old, vector);
    fill(vector, self->rank, 0);
    EXPECT_OK(self, serry_barrier(part));
    test_meet(self);
    if (self->rank == VICTIM) {
        o->old_offset = (uint64_t)((unsigned char *)old - arena_of(self->comm));
        start_writers(self, part, old);
    }
    test_meet(self);
    int rc = serry_allreduce(SERRY_IN_PLACE, vector, ELEMENTS, SERRY_I64, op, self->comm);
    test_expect(self, SERRY_OK, rc, self->comm, "the operation in which the rank died");
    expect_sum(self, vector, (1u << RANKS) - 1, 0);
    if (self->rank == 0)
        o->late += writes_late(self, o->old_offset, victim);
    test_expect(self, SERRY_OK, serry_finalize(&part), NULL, "finalize of the part");
    expect_clean_memory(self);
    rc = serry_barrier(self->comm);
    test_expect(self, SERRY_ERR_RANK_FAILED, rc, self->comm, "the next operation");
    go_on(self, vector, survivors);
    serry_op_free(&op);
    close(victim);
}

static bool never_late;

static void threads_of_a_killed_rank_write_on_and_change_nothing(void **state)
{
    (void)state;
    outside *o = test_shared(sizeof(*o));
    test_options options = {.size = RANKS, .pool_bytes = (size_t)256 << 20};

    int trial = 0;
    for (; trial < TRIALS || (o->late == 0 && trial < TRIALS_MOST); trial++) {
        deadly_call = 1 + trial % 3 * 17;
        test_run *run = test_start(&options, body, o);
        test_join(run);
        assert_int_equal(test_report_of(run, VICTIM)->killed, 1);
        test_end(run);
    }
    print_message("in %d of %d trials they wrote on after the death was known\n", o->late, trial);
    never_late = o->late == 0;
    test_unshare(o, sizeof(*o));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_of_a_killed_rank_write_on_and_change_nothing),
    };

    if (cmocka_run_group_tests_name("crash_writers", tests, NULL, NULL) != 0)
        return 1;
    if (never_late)
        printf("skipped: this system ends all threads of a process before its death is known\n");
    return never_late ? 77 : 0;
}
