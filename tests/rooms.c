/* rooms.c - large operations on private memory of processes, and what becomes of the rooms in which they
 * stage: see shm/room.h. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "comm.h"
#include "harness.h"
#include "operation.h"
#include "word.h"

#define VICTIM 1
#define RANKS 3
#define COUNT ((size_t)140000) /* for a team as well */
#define PAGE ((size_t)4096)

enum { COPYING, GO_ON, SEALED }; /* flags of a run */

static shm_member *member_of(serry_comm *comm)
{
    return (shm_member *)(void *)comm->member;
}

static int sum(serry_comm *comm, size_t count, int64_t own, int64_t *result)
{
    int64_t *vector = malloc(count * sizeof(*vector));

    for (size_t i = 0; i < count; i++)
        vector[i] = own + (int64_t)i;
    int rc = serry_allreduce(vector, result, count, SERRY_I64, SERRY_SUM, comm);
    free(vector);
    return rc;
}

static void expect_sum(test_rank *self, serry_comm *comm, size_t count, int64_t own, int64_t wanted,
                       int64_t ranks)
{
    int64_t *result = calloc(count, sizeof(*result));
    int rc = sum(comm, count, own, result);

    test_expect(self, SERRY_OK, rc, comm, "allreduce of %zu", count);
    for (size_t i = 0; i < count; i++)
        if (result[i] != wanted + ranks * (int64_t)i) {
            test_failed(self, "element %zu of %zu is %lld, not %lld", i, count,
                        (long long)result[i], (long long)(wanted + ranks * (int64_t)i));
            break;
        }
    free(result);
}

/* Extents that are members' rooms, or were. */
static int count_rooms(serry_comm *comm)
{
    const shm_arena *arena = member_of(comm)->group.arena;
    int count = 0;

    for (size_t i = 0; i < SHM_EXTENTS; i++) {
        const arena_extent *e = &arena->extents[i];
        count += atomic_load(&e->state) != EXTENT_FREE &&
                 (e->owner < SHM_SLOTS || e->owner == EXTENT_OF_COMMUNICATOR);
    }
    return count;
}

/* ---- sealed while it copies ------------------------------------------------------------------- */

static test_rank *g_self;
static unsigned char *g_wall; /* a page of the victim's result that cannot be written at first */

/* The library's own handler is not asked: it would take this for the end of the process. */
static void hit_the_wall(int number)
{
    (void)number;
    test_raise(g_self, COPYING);
    test_await(g_self, GO_ON, RANKS - 1);
    mprotect(g_wall, PAGE, PROT_READ | PROT_WRITE);
}

static void copy_slowly(test_rank *self)
{
    struct sigaction action = {.sa_handler = hit_the_wall}, before;
    size_t bytes = (COUNT * sizeof(int64_t) + PAGE - 1) / PAGE * PAGE;
    int64_t *result = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    g_self = self;
    g_wall = (unsigned char *)result + bytes / 2 / PAGE * PAGE;
    mprotect(g_wall, PAGE, PROT_NONE);
    sigaction(SIGSEGV, &action, &before);
    EXPECT_OK(self, sum(self->comm, COUNT, self->rank, result));
    sigaction(SIGSEGV, &before, NULL);
    for (size_t i = 0; i < COUNT; i++)
        if (result[i] != 3 + RANKS * (int64_t)i) {
            test_failed(self, "element %zu is %lld", i, (long long)result[i]);
            break;
        }
    test_expect(self, SERRY_ERR_EXCLUDED, sum(self->comm, COUNT, 1000, result), self->comm,
                "the next one");
    munmap(result, bytes);
}

/* When it is in the middle of its copy. */
static void seal_victim(test_rank *self)
{
    _Atomic uint64_t *word = &group_cell_of(&member_of(self->comm)->group, VICTIM)->word;

    test_at(self, "waiting for rank %d to be in the middle of its copy", VICTIM);
    test_await(self, COPYING, 1);
    if (self->rank == 0) {
        if (word_seal(word) & WORD_ASLEEP)
            wait_wake(word);
        test_raise(self, SEALED);
    }
    test_await(self, SEALED, 1);
}

/* Fault:  rank 1 has published the last step of a sum and is stopped in the middle of copying the
 *         result; it is sealed, and the others make three more of the same size.
 * Expect: theirs are right, through other memory; when rank 1 wakes it has the result of the one that
 *         it took part in, and is told that it is excluded by the next. */
static void body_sealed_while_copying(test_rank *self)
{
    EXPECT_OK(self, serry_set_policy(self->comm, SERRY_EXCLUDE));
    if (self->rank == VICTIM) {
        copy_slowly(self);
        return;
    }
    expect_sum(self, self->comm, COUNT, self->rank, 3, RANKS);
    CHECK(self, member_of(self->comm)->algorithm == &algorithm_slices);
    seal_victim(self);
    for (int i = 1; i <= 3; i++) {
        expect_sum(self, self->comm, COUNT, -100 * i, -200 * i, RANKS - 1);
        CHECK(self, member_of(self->comm)->algorithm == &algorithm_staged);
    }
    test_raise(self, GO_ON);
}

static void sealed_while_it_copies_a_rank_gets_what_all_got(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, body_sealed_while_copying, NULL);
}

/* ---- the same, of inputs that lay in the rooms before the first step ---------------------------- */

#define AHEAD                                                                                      \
    ((size_t)2000) /* elements: too many for a small operation, and few enough to go ahead */

static int gather(serry_comm *comm, int64_t own, int64_t *result)
{
    int64_t block[AHEAD];

    for (size_t i = 0; i < AHEAD; i++)
        block[i] = own + (int64_t)i;
    return serry_allgather(block, result, AHEAD, SERRY_I64, comm);
}

/* Of each rank r that is in it: `own` of it. */
static void expect_gathered(test_rank *self, const int64_t *result, int64_t own, int64_t each,
                            bool all)
{
    for (int r = 0; r < RANKS; r++)
        for (size_t i = 0; i < AHEAD && (all || r != VICTIM); i++)
            if (!CHECK(self, result[(size_t)r * AHEAD + i] == own + each * r + (int64_t)i))
                return;
}

static void gather_slowly(test_rank *self)
{
    struct sigaction action = {.sa_handler = hit_the_wall}, before;
    size_t bytes = (RANKS * AHEAD * sizeof(int64_t) + PAGE - 1) / PAGE * PAGE;
    int64_t *result = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    g_self = self;
    g_wall = (unsigned char *)result; /* before anything is copied */
    mprotect(g_wall, PAGE, PROT_NONE);
    sigaction(SIGSEGV, &action, &before);
    EXPECT_OK(self, gather(self->comm, 10 * self->rank, result));
    sigaction(SIGSEGV, &before, NULL);
    expect_gathered(self, result, 0, 10, true);
    test_expect(self, SERRY_ERR_EXCLUDED, gather(self->comm, 1000, result), self->comm, "the next");
    munmap(result, bytes);
}

/* Fault:  rank 1 has published the only step of an allgather and is stopped before it copies; it is sealed,
 *         and the others make four more.
 * Expect: theirs are right; when rank 1 wakes it finds in the rooms what was there. */
static void body_sealed_while_gathering(test_rank *self)
{
    static int64_t result[RANKS * AHEAD];

    EXPECT_OK(self, serry_set_policy(self->comm, SERRY_EXCLUDE));
    for (int i = 1; i <= 2; i++) {
        EXPECT_OK(self, gather(self->comm, 7 * self->rank + i, result));
        CHECK(self, member_of(self->comm)->algorithm == &algorithm_whole);
        expect_gathered(self, result, i, 7, true);
    }
    if (self->rank == VICTIM) {
        gather_slowly(self);
        return;
    }
    EXPECT_OK(self, gather(self->comm, 10 * self->rank, result));
    CHECK(self, member_of(self->comm)->ahead);
    expect_gathered(self, result, 0, 10, true);
    seal_victim(self);
    for (int i = 1; i <= 4; i++) {
        EXPECT_OK(self, gather(self->comm, -100 * i + 3 * self->rank, result));
        expect_gathered(self, result, -100 * i, 3, false);
    }
    test_raise(self, GO_ON);
}

static void sealed_before_it_copies_a_rank_finds_what_went_ahead(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, body_sealed_while_gathering, NULL);
}

/* ---- killed ----------------------------------------------------------------------------------- */

static void body_killed(test_rank *self)
{
    EXPECT_OK(self, serry_set_policy(self->comm, SERRY_EXCLUDE));
    expect_sum(self, self->comm, COUNT, self->rank, 3, RANKS);
    if (self->rank == VICTIM) {
        test_raise(self, COPYING);
        pause();
    }
    test_await(self, GO_ON, 1);
    do { /* until the kernel is done with it */
        expect_sum(self, self->comm, COUNT, 5, 10, RANKS - 1);
    } while (member_of(self->comm)->algorithm != &algorithm_whole);
    expect_sum(self, self->comm, 3 * COUNT, 7, 14, RANKS - 1);
    CHECK(self, member_of(self->comm)->algorithm == &algorithm_slices);
}

/* Fault:  a rank is killed after a sum.
 * Expect: the others' rooms are in use again as soon as it is really gone. */
static void killed_a_rank_bars_no_rooms(void **state)
{
    const test_options options = {.kind = SERRY_PROCESSES, .size = RANKS};
    (void)state;
    test_run *run = test_start(&options, body_killed, NULL);

    while (test_flag(run, COPYING) == 0)
        usleep(1000);
    test_kill(run, VICTIM);
    test_raise_in(run, GO_ON);
    test_end(run);
}

/* Fault:  all ranks but two are killed after a sum, more than 64.
 * Expect: as after one. */
enum { MANY = 68, FEW = 2 };
#define LITTLE ((size_t)4096)

static void body_many_killed(test_rank *self)
{
    int64_t all = (int64_t)MANY * (MANY - 1) / 2;

    EXPECT_OK(self, serry_set_policy(self->comm, SERRY_EXCLUDE));
    expect_sum(self, self->comm, LITTLE, self->rank, all, MANY);
    CHECK(self, member_of(self->comm)->algorithm == &algorithm_slices);
    if (self->rank >= FEW) {
        test_raise(self, COPYING);
        for (;;)
            pause();
    }
    test_await(self, GO_ON, 1);
    while (serry_live(self->comm) != FEW)
        EXPECT_OK(self, serry_barrier(self->comm));
    do {
        expect_sum(self, self->comm, LITTLE, 5, 5 * FEW, FEW);
    } while (member_of(self->comm)->algorithm != &algorithm_whole);
}

static void however_many_are_killed_they_bar_no_rooms(void **state)
{
    const test_options options = {.kind = SERRY_PROCESSES, .size = MANY};
    (void)state;
    test_run *run = test_start(&options, body_many_killed, NULL);

    while (test_flag(run, COPYING) < MANY - FEW)
        usleep(1000);
    for (int r = FEW; r < MANY; r++)
        test_kill(run, r);
    test_raise_in(run, GO_ON);
    test_end(run);
}

/* ---- given back ------------------------------------------------------------------------------- */

static void body_given_back(test_rank *self)
{
    serry_comm *part = NULL;

    for (int turn = 0; turn < 3; turn++) {
        EXPECT_OK(self, serry_split(self->comm, 0, self->rank, &part));
        for (size_t count = COUNT; count <= 4 * COUNT; count *= 2)
            expect_sum(self, part, count, self->rank, 3, RANKS);
        expect_sum(self, part, COUNT, self->rank, 3, RANKS);
        test_meet(self);
        CHECK(self, count_rooms(self->comm) == RANKS);
        test_meet(self);
        EXPECT_OK(self, serry_finalize(&part));
        test_meet(self);
        CHECK(self, count_rooms(self->comm) == 0);
        test_meet(self);
    }
}

/* Growing ones leave nothing behind, and closed communicators do not. */
static void rooms_are_given_back(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, RANKS, body_given_back, NULL);
}

/* ---- more ranks than cores --------------------------------------------------------------------- */

static void body_crowded(test_rank *self)
{
    int64_t ranks = self->size;

    for (int turn = 0; turn < 2; turn++)
        expect_sum(self, self->comm, (size_t)1 << 21, self->rank, ranks * (ranks - 1) / 2, ranks);
    CHECK(self, member_of(self->comm)->algorithm == &algorithm_slices);
}

/* Fault:  more ranks than cores, and vectors that go past the caches: parts are larger than the buffers.
 * Expect: each stays within its memory. */
static void larger_parts_stay_in_their_rooms(void **state)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    (void)state;
    run_ranks(SERRY_PROCESSES, cores < 15 ? (int)cores + 1 : 16, body_crowded, NULL);
}

/* ---- a pool without space ---------------------------------------------------------------------- */

static void body_no_space(test_rank *self)
{
    size_t count = (size_t)1 << 20;
    int64_t *all = calloc(count * RANKS, sizeof(*all));

    expect_sum(self, self->comm, count, self->rank, 3, RANKS);
    CHECK(self, member_of(self->comm)->algorithm == &algorithm_staged);
    for (size_t i = 0; i < count; i++)
        all[(size_t)self->rank * count + i] = self->rank + 1;
    EXPECT_OK(self, serry_allgather(SERRY_IN_PLACE, all, count, SERRY_I64, self->comm));
    CHECK(self, member_of(self->comm)->algorithm == &algorithm_staged);
    for (size_t i = 0; i < count * RANKS; i++)
        if (all[i] != (int64_t)(i / count) + 1) {
            test_failed(self, "element %zu is %lld", i, (long long)all[i]);
            break;
        }
    expect_sum(self, self->comm, 4096, self->rank, 3, RANKS); /* and where there is enough */
    CHECK(self, member_of(self->comm)->algorithm == &algorithm_slices);
    free(all);
}

/* Fault:  the pool has no space for rooms.
 * Expect: operations go another way, and none fails. */
static void no_space_in_the_pool_is_no_error(void **state)
{
    const test_options options = {
        .kind = SERRY_PROCESSES, .size = RANKS, .pool_bytes = (size_t)2 << 20};
    (void)state;
    test_end(test_start(&options, body_no_space, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sealed_while_it_copies_a_rank_gets_what_all_got),
        cmocka_unit_test(sealed_before_it_copies_a_rank_finds_what_went_ahead),
        cmocka_unit_test(killed_a_rank_bars_no_rooms),
        cmocka_unit_test(however_many_are_killed_they_bar_no_rooms),
        cmocka_unit_test(rooms_are_given_back),
        cmocka_unit_test(larger_parts_stay_in_their_rooms),
        cmocka_unit_test(no_space_in_the_pool_is_no_error),
    };

    return cmocka_run_group_tests_name("rooms", tests, NULL, NULL);
}
