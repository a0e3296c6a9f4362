/* arena.c - memory from serry_alloc, and what happens where shared memory is short. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "reference.h"

#define KIB 1024u
#define MIB (1024u * KIB)
#define PAGE 4096u

/* ---- memory from serry_alloc ---------------------------------------------------------------- */

static bool is_filled(const unsigned char *memory, size_t bytes, int value)
{
    return memory[0] == value && memcmp(memory, memory + 1, bytes - 1) == 0;
}

/* Zeroed and page-aligned, or reported and NULL. */
static unsigned char *allocated(test_rank *self, size_t bytes)
{
    unsigned char *memory = serry_alloc(self->comm, bytes);
    if (memory == NULL) {
        test_failed(self, "serry_alloc(%zu): %s", bytes, serry_last_error(self->comm)->message);
        return NULL;
    }
    if ((uintptr_t)memory % PAGE != 0)
        test_failed(self, "serry_alloc(%zu) gave %p, which is not page-aligned", bytes,
                    (void *)memory);
    if (bytes > 0 && !is_filled(memory, bytes, 0))
        test_failed(self, "serry_alloc(%zu) gave memory that is not zero", bytes);
    return memory;
}

/* Each rank fills its own, sends from it, gives it back and gets it zeroed again. */
static void body_allocate(test_rank *self)
{
    static const size_t k_sizes[] = {1, 100, PAGE - 1, PAGE, PAGE + 1, 100 * KIB, MIB, 5 * MIB};
    enum { SIZES = sizeof(k_sizes) / sizeof(k_sizes[0]) };
    unsigned char *memory[SIZES];
    for (int round = 0; round < 3; round++) {
        uint8_t sum = 0;
        for (int i = 0; i < SIZES; i++)
            if ((memory[i] = allocated(self, k_sizes[i])) == NULL)
                return;
        for (int i = 0; i < SIZES; i++)
            memset(memory[i], 16 * (i + 1) + self->rank, k_sizes[i]);
        EXPECT_OK(self, serry_barrier(self->comm));
        for (int i = 0; i < SIZES; i++)
            if (!is_filled(memory[i], k_sizes[i], 16 * (i + 1) + self->rank))
                test_failed(self, "the memory of %zu bytes was changed by others", k_sizes[i]);
        EXPECT_OK(self,
                  serry_allreduce(memory[7], memory[6], MIB, SERRY_U8, SERRY_SUM, self->comm));
        for (int r = 0; r < self->size; r++)
            sum = (uint8_t)(sum + 16 * 8 + r);
        CHECK(self, is_filled(memory[6], MIB, sum));
        for (int i = 0; i < SIZES; i++)
            serry_free(self->comm, memory[(i + round) % SIZES]);
    }
    serry_free(self->comm, NULL);
    serry_free(self->comm, serry_alloc(self->comm, 0));
}

/* ---- allocations in a random order ---------------------------------------------------------- */

#define HELD 100

typedef struct holding {
    unsigned char *memory;
    size_t bytes;
    int value;
} holding;

static void body_random(test_rank *self)
{
    holding held[HELD] = {{NULL, 0, 0}};
    for (uint64_t step = 0; step < 1500; step++) {
        uint64_t r = reference_random(test_seed(), 50 + (uint64_t)self->rank, step);
        holding *p = &held[r % HELD];
        if (p->memory != NULL) {
            if (!is_filled(p->memory, p->bytes, p->value))
                test_failed(self, "step %llu: %zu bytes were changed by others",
                            (unsigned long long)step, p->bytes);
            serry_free(self->comm, p->memory);
            p->memory = NULL;
        } else {
            p->bytes = (size_t)((r >> 8) % (UINT64_C(1) << (8 + (r >> 32) % 10))) + 1;
            p->value = (int)(r >> 40 & 127) + 1;
            if ((p->memory = allocated(self, p->bytes)) == NULL)
                return;
            memset(p->memory, p->value, p->bytes);
        }
    }
    EXPECT_OK(self, serry_barrier(self->comm)); /* the rest goes with the communicator */
}

/* ---- exhaustion ----------------------------------------------------------------------------- */

static void check_no_space(test_rank *self, const char *what, const char *size, const char *option)
{
    const serry_error *record = serry_last_error(self->comm);
    CHECK(self, record->error == SERRY_ERR_NO_SPACE);
    if (strstr(record->message, size) == NULL || strstr(record->message, option) == NULL)
        test_failed(self, "%s: the message does not have %s and %s: %s", what, size, option,
                    record->message);
}

/* Runs with a pool of 8 MiB. One rank at a time, so that each can count what there is. */
static void body_exhaust(test_rank *self)
{
    unsigned char *piece[16];
    int first = 0;
    CHECK(self, serry_alloc(self->comm, SIZE_MAX) == NULL);
    CHECK(self, serry_last_error(self->comm)->error == SERRY_ERR_NO_SPACE);
    CHECK(self, serry_alloc(self->comm, 64 * (size_t)MIB) == NULL);
    check_no_space(self, "64 MiB of 8", "65536", "SERRY_POOL");
    check_no_space(self, "64 MiB of 8", "8192", "pool_bytes");
    for (int turn = 0; turn < self->size; turn++) {
        EXPECT_OK(self, serry_barrier(self->comm));
        for (int again = 0; again < 2 && turn == self->rank; again++) {
            int count = 0;
            while (count < 16 && (piece[count] = serry_alloc(self->comm, MIB)) != NULL)
                count++;
            check_no_space(self, "1 MiB of a full pool", "1024", "SERRY_POOL");
            CHECK(self, count == 8 && (again == 0 || count == first));
            first = count;
            while (count > 0)
                serry_free(self->comm, piece[--count]);
        }
    }
    EXPECT_OK(self, serry_barrier(self->comm));
}

/* More pieces than the arena can keep account of. */
static void body_many(test_rank *self)
{
    enum { MOST = 5000 };
    unsigned char **piece = calloc(MOST, sizeof(*piece));
    int count = 0;
    if (self->rank == 0) {
        while (count < MOST && (piece[count] = serry_alloc(self->comm, 1)) != NULL)
            piece[count++][0] = 1;
        CHECK(self, count >= 1000);
        CHECK(self, count == MOST || serry_last_error(self->comm)->error == SERRY_ERR_NO_SPACE);
    }
    while (count > 0)
        serry_free(self->comm, piece[--count]);
    EXPECT_OK(self, serry_barrier(self->comm));
    serry_free(self->comm, allocated(self, 100));
    EXPECT_OK(self, serry_barrier(self->comm));
    free(piece);
}

/* ---- pointers that are not ours ------------------------------------------------------------- */

static void body_foreign(test_rank *self)
{
    char stack[64] = {0};
    void *heap = malloc(100);
    unsigned char *mine = allocated(self, 10 * PAGE), *other = allocated(self, PAGE);
    if (mine == NULL || other == NULL)
        return;
    memset(mine, 7, 10 * PAGE);
    void *foreign[] = {stack,
                       heap,
                       mine + 1,
                       mine + PAGE,
                       mine + 10 * PAGE - 1,
                       &self,
                       (void *)(uintptr_t)4096,
                       (void *)(uintptr_t)SERRY_IN_PLACE};
    for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++)
        serry_free(self->comm, foreign[i]);
    serry_free(self->comm, other);
    serry_free(self->comm, other); /* twice */
    unsigned char *next = allocated(self, 3 * PAGE);
    CHECK(self, next + 3 * PAGE <= mine || next >= mine + 10 * PAGE);
    memset(next, 9, 3 * PAGE);
    CHECK(self, is_filled(mine, 10 * PAGE, 7));
    EXPECT_OK(self, serry_barrier(self->comm));
    serry_free(self->comm, next);
    serry_free(self->comm, mine);
    free(heap);
}

/* A child after fork has the memory too, and nothing it does to it as memory is lost. */
static void body_fork_shares(test_rank *self)
{
    unsigned char *memory = allocated(self, 2 * PAGE);
    int status = -1;
    if (memory == NULL)
        return;
    memory[0] = 3;
    pid_t pid = fork();
    if (pid == 0) {
        bool seen = memory[0] == 3;
        memory[PAGE] = 5;
        _exit(seen ? 0 : 1);
    }
    CHECK(self, waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(self, memory[PAGE] == 5);
    EXPECT_OK(self, serry_barrier(self->comm));
}

/* ---- where /dev/shm is small ---------------------------------------------------------------- */

static bool write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return done;
}

/* A mount namespace of our own; without the right to it, in a user namespace. */
static bool own_namespace(void)
{
    char map[64];
    uid_t uid = geteuid();
    if (unshare(CLONE_NEWNS) == 0)
        return true;
    snprintf(map, sizeof(map), "%u %u 1", (unsigned)uid, (unsigned)uid);
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && write_file("/proc/self/uid_map", map);
}

/* This process and its children get a /dev/shm of their own of this size ("size=1m"). */
static bool small_shm(const char *size)
{
    return own_namespace() && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", "/dev/shm", "tmpfs", 0, size) == 0;
}

#define NOT_PERMITTED 77

/* Run the body on four process ranks with such a /dev/shm; skips where that is forbidden. */
static void run_with_shm(const char *size, const char *memory, test_body body)
{
    int status = -1;
    test_seed();
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        test_options options = {
            .kind = SERRY_PROCESSES, .size = 4, .body_joins = true, .timeout_ms = 30000};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (!small_shm(size))
            _exit(NOT_PERMITTED);
        if (memory != NULL)
            setenv("SERRY_MEMORY", memory, 1);
        else
            unsetenv("SERRY_MEMORY");
        _exit(test_end_count(test_start(&options, body, NULL)) == 0 ? 0 : 1);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_PERMITTED) {
        print_message("skipped: no mount namespace may be made here, so /dev/shm stays large\n");
        skip();
    }
    assert_int_equal(status, 0);
}

static void use(test_rank *self, serry_comm *comm)
{
    enum { COUNT = 100000 };
    uint32_t *send = malloc(COUNT * sizeof(*send)), *recv = malloc(COUNT * sizeof(*recv));
    size_t wrong = 0;
    for (uint32_t i = 0; i < COUNT; i++)
        send[i] = i + (uint32_t)self->rank;
    test_expect(self, SERRY_OK, serry_allreduce(send, recv, COUNT, SERRY_U32, SERRY_SUM, comm),
                comm, "allreduce");
    for (uint32_t i = 0; i < COUNT; i++)
        wrong +=
            recv[i] != (uint32_t)self->size * i + (uint32_t)(self->size * (self->size - 1) / 2);
    CHECK(self, wrong == 0);
    free(send);
    free(recv);
}

/* All goes, although /dev/shm has only 1 MB. */
static void body_works(test_rank *self)
{
    if (!test_expect(self, SERRY_OK, test_init(self, 30000, &self->comm), NULL, "serry_init"))
        return;
    unsigned char *memory = allocated(self, 3 * MIB);
    if (memory != NULL)
        memset(memory, 1, 3 * MIB);
    use(self, self->comm);
    serry_finalize(&self->comm);
}

/* SERRY_MEMORY=shm and too little of it: SERRY_ERR_NO_SPACE at joining or at allocating. */
static void body_refused(test_rank *self)
{
    int result = test_init(self, 30000, &self->comm);
    const char *message = serry_last_error(self->comm)->message;
    if (result == SERRY_OK) {
        unsigned char *memory = serry_alloc(self->comm, 3 * MIB);
        if (CHECK(self, memory == NULL))
            CHECK(self, serry_last_error(self->comm)->error == SERRY_ERR_NO_SPACE);
        use(self, self->comm);
    } else {
        test_expect(self, SERRY_ERR_NO_SPACE, result, NULL, "serry_init");
    }
    test_mine(self)->number[0] = result;
    size_t sizes = 0;
    for (const char *at = strstr(message, "KiB"); at != NULL; at = strstr(at + 1, "KiB"))
        sizes++;
    if (sizes < 2 || strstr(message, "SERRY_MEMORY=memfd") == NULL ||
        strstr(message, "--shm-size") == NULL)
        test_failed(self, "the message lacks sizes or options: %s", message);
    serry_finalize(&self->comm);
}

/* The space is used up by others after joining: what was reserved stays good. */
static void body_filled(test_rank *self)
{
    if (!test_expect(self, SERRY_OK, test_init(self, 30000, &self->comm), NULL, "serry_init"))
        return;
    test_meet(self);
    if (self->rank == 0) {
        static char block[64 * KIB];
        int fd = open("/dev/shm/filler", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        while (write(fd, block, sizeof(block)) > 0)
            continue;
        close(fd);
    }
    test_meet(self);
    serry_comm *part = NULL;
    CHECK(self, serry_alloc(self->comm, MIB) == NULL);
    CHECK(self, serry_last_error(self->comm)->error == SERRY_ERR_NO_SPACE);
    use(self, self->comm);
    int result = serry_dup(self->comm, &part);
    if (result != SERRY_ERR_NO_SPACE || part != NULL)
        test_failed(self, "dup without space: %s", serry_error_name(result));
    use(self, self->comm);
    test_meet(self);
    if (self->rank == 0)
        unlink("/dev/shm/filler");
    test_meet(self);
    if (EXPECT_OK(self, serry_dup(self->comm, &part)))
        use(self, part);
    serry_free(self->comm, allocated(self, MIB));
    serry_finalize(&part);
    serry_finalize(&self->comm);
}

static void body_wrong_memory(test_rank *self)
{
    serry_comm *comm = NULL;
    setenv("SERRY_MEMORY", "banana", 1);
    int result = test_init(self, 2000, &comm);
    CHECK(self, result != SERRY_OK && comm == NULL);
    if (self->rank == 0) /* who makes the arena */
        CHECK(self, result == SERRY_ERR_INVALID &&
                        strstr(serry_last_error(NULL)->message, "banana") != NULL);
}

/* ---- the tests ------------------------------------------------------------------------------ */

static void test_allocate(void **state)
{
    (void)state;
    for (int size = 1; size <= 4; size += 3) {
        run_ranks(SERRY_PROCESSES, size, body_allocate, NULL);
        run_ranks(SERRY_THREADS, size, body_allocate, NULL);
    }
}

static void test_random_order(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, 4, body_random, NULL);
    run_ranks(SERRY_THREADS, 4, body_random, NULL);
}

static void test_exhaust(void **state)
{
    (void)state;
    for (serry_kind_of_rank kind = SERRY_PROCESSES; kind <= SERRY_THREADS; kind++) {
        test_options options = {.kind = kind, .size = 3, .pool_bytes = 8 * MIB};
        test_end(test_start(&options, body_exhaust, NULL));
    }
}

static void test_many(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, 2, body_many, NULL);
    run_ranks(SERRY_THREADS, 2, body_many, NULL);
}

static void test_foreign(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, 3, body_foreign, NULL);
    run_ranks(SERRY_THREADS, 3, body_foreign, NULL);
}

static void test_fork_shares(void **state)
{
    (void)state;
    run_ranks(SERRY_PROCESSES, 2, body_fork_shares, NULL);
}

static void test_small_shm(void **state)
{
    (void)state;
    run_with_shm("size=1m", NULL, body_works);
    run_with_shm("size=1m", "auto", body_works);
    run_with_shm("size=1m", "memfd", body_works);
    run_with_shm("size=64m", NULL, body_works);
}

static void test_small_shm_and_nothing_else(void **state)
{
    (void)state;
    run_with_shm("size=1m", "shm", body_refused);
    run_with_shm("size=64k", "shm", body_refused);
}

static void test_shm_filled_later(void **state)
{
    (void)state;
    run_with_shm("size=16m", "shm", body_filled);
}

static void run_with_memory(const char *memory, test_body body)
{
    test_options options = {.kind = SERRY_PROCESSES, .size = 4, .body_joins = true};
    setenv("SERRY_MEMORY", memory, 1);
    test_run *run = test_start(&options, body, NULL);
    unsetenv("SERRY_MEMORY");
    test_end(run);
}

static void test_memory_chosen(void **state)
{
    (void)state;
    run_with_memory("memfd", body_works);
    run_with_memory("shm", body_works);
    run_with_memory("auto", body_works);
    run_with_memory("banana", body_wrong_memory);
}

int main(void)
{
    const struct CMUnitTest k_tests[] = {
        cmocka_unit_test(test_allocate),         cmocka_unit_test(test_random_order),
        cmocka_unit_test(test_exhaust),          cmocka_unit_test(test_many),
        cmocka_unit_test(test_foreign),          cmocka_unit_test(test_fork_shares),
        cmocka_unit_test(test_memory_chosen),    cmocka_unit_test(test_small_shm),
        cmocka_unit_test(test_shm_filled_later), cmocka_unit_test(test_small_shm_and_nothing_else),
    };
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
