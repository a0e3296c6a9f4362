/* heap_ranks.c - a C program under `serry run --heap`; tests/heap.sh starts it and says what is expected.
 *
 *   heap_ranks direct    collectives and messages on memory from malloc read it where it lies
 *   heap_ranks copies    the same without a heap: right, and not direct
 *   heap_ranks mixed     one member has no heap, so collectives are not direct; messages may be
 *   heap_ranks fork      a child has a copy, and can allocate; neither sees what the other writes
 *   heap_ranks death     rank 1 is killed: the others go on, and when it is replaced its memory is given
 *                        back
 *
 * Evidence of reading directly is the kernel's: resident pages of read-only mappings of the heap. */
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <serry/serry.h>

#define COUNT ((size_t)1 << 18)

static serry_comm *comm;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "rank %s, line %d: %s (%s)\n", getenv("SERRY_RANK"), __LINE__,         \
                    #condition, serry_last_error(comm)->message);                                  \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* Resident KiB of mappings of the heap with such permissions; *has: one of them has this address. */
static long resident_kib(const char *permissions, const void *address, bool *has)
{
    FILE *maps = fopen("/proc/self/smaps", "re");
    char line[512], found[8];
    uintptr_t from, to;
    bool inside = false;
    long kib, sum = 0;

    CHECK(maps != NULL);
    while (fgets(line, sizeof(line), maps) != NULL) {
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %7s", &from, &to, found) == 3) {
            inside = strstr(line, "memfd:serry-heap") != NULL && strcmp(found, permissions) == 0;
            if (inside && has != NULL && (uintptr_t)address >= from && (uintptr_t)address < to)
                *has = true;
        } else if (inside && sscanf(line, "Rss: %ld", &kib) == 1) {
            sum += kib;
        }
    }
    fclose(maps);
    return sum;
}

static bool is_in_heap(const void *address)
{
    bool has = false;

    resident_kib("rw-s", address, &has);
    return has;
}

static int64_t *numbers(int64_t base)
{
    int64_t *memory = malloc(COUNT * sizeof(*memory));

    CHECK(memory != NULL);
    for (size_t i = 0; i < COUNT; i++)
        memory[i] = base + (int64_t)i;
    return memory;
}

static bool are_numbers(const int64_t *memory, int64_t base, int64_t factor)
{
    for (size_t i = 0; i < COUNT; i++)
        if (memory[i] != base + factor * (int64_t)i)
            return false;
    return true;
}

static void collectives(void)
{
    int rank = serry_rank(comm), size = serry_size(comm);
    int64_t *mine = numbers(100 * rank), *sum = numbers(0);
    int64_t *all = malloc((size_t)size * COUNT * sizeof(*all));

    CHECK(serry_allreduce(mine, sum, COUNT, SERRY_I64, SERRY_SUM, comm) == SERRY_OK);
    CHECK(are_numbers(sum, 50 * size * (size - 1), size));
    CHECK(all != NULL && serry_allgather(mine, all, COUNT, SERRY_I64, comm) == SERRY_OK);
    for (int r = 0; r < size; r++)
        CHECK(are_numbers(all + (size_t)r * COUNT, 100 * r, 1));
    CHECK(serry_allreduce(SERRY_IN_PLACE, mine, COUNT, SERRY_I64, SERRY_SUM, comm) == SERRY_OK);
    CHECK(are_numbers(mine, 50 * size * (size - 1), size));
    free(all);
    free(sum);
    free(mine);
}

/* Around the ring, freed and written anew at once. */
static void messages(void)
{
    int rank = serry_rank(comm), size = serry_size(comm);

    for (int turn = 0; turn < 3; turn++) {
        int64_t *mine = numbers(rank + 10 * turn), *got = numbers(0);
        serry_request *request;
        int from = (rank + size - 1) % size;
        CHECK(serry_isend(mine, COUNT, SERRY_I64, (rank + 1) % size, 5, comm, &request) ==
              SERRY_OK);
        CHECK(serry_recv(got, COUNT, SERRY_I64, from, 5, NULL, comm) == SERRY_OK);
        CHECK(serry_wait(&request, -1) == SERRY_OK);
        CHECK(are_numbers(got, from + 10 * turn, 1));
        free(mine);
        free(got);
    }
}

static void test_direct(void)
{
    int64_t *large = numbers(0);
    char *small = malloc(1000);

    CHECK(is_in_heap(large) && !is_in_heap(small));
    collectives();
    CHECK(resident_kib("r--s", NULL, NULL) >= (long)(COUNT * sizeof(int64_t) / 1024));
    messages();
    free(small);
    free(large);
}

static void test_copies(void)
{
    collectives();
    messages();
    CHECK(resident_kib("r--s", NULL, NULL) == 0);
}

static void test_mixed(void)
{
    collectives();
    CHECK(resident_kib("r--s", NULL, NULL) == 0);
    messages();
}

static void test_fork(void)
{
    int64_t *mine = numbers(3);
    int status, go[2];
    char byte;

    CHECK(is_in_heap(mine) && pipe(go) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(read(go[0], &byte, 1) == 1);
        CHECK(are_numbers(mine, 3, 1) && !is_in_heap(mine));
        memset(mine, 1, COUNT * sizeof(*mine));
        free(mine);
        CHECK(are_numbers(numbers(4), 4, 1));
        _exit(0);
    }
    memset(mine, 2, COUNT * sizeof(*mine));
    CHECK(write(go[1], "x", 1) == 1);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    for (size_t i = 0; i < COUNT; i++)
        CHECK(mine[i] == INT64_C(0x0202020202020202));
    free(mine);
    collectives();
}

/* Bytes of the heap that have memory, in all slices. */
static int64_t heap_bytes(void)
{
    struct stat st;

    CHECK(fstat((int)strtol(strchr(getenv("SERRY_HEAP"), ':') + 1, NULL, 10), &st) == 0);
    return (int64_t)st.st_blocks * 512;
}

/* Its 64 MiB are given back when a replacement has made the old group nobody's. */
static void test_death(void)
{
    const size_t held = (size_t)64 << 20;
    const char *entry = getenv("SERRY_ENTRY");

    if (serry_rank(comm) == 1 && strcmp(entry, "start") == 0) {
        memset(malloc(held), 1, held);
        CHECK(serry_barrier(comm) == SERRY_OK);
        raise(SIGKILL);
    }
    if (strcmp(entry, "start") == 0) {
        CHECK(serry_barrier(comm) == SERRY_OK);
        CHECK(heap_bytes() > (int64_t)held);
        int64_t one = 1, sum;
        for (int rc = SERRY_OK; rc != SERRY_ERR_RANK_JOINED;)
            rc = serry_allreduce(&one, &sum, 1, SERRY_I64, SERRY_SUM, comm);
    }
    collectives();
    CHECK(heap_bytes() < (int64_t)held);
}

int main(int count, char **arguments)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {{"direct", test_direct},
                 {"copies", test_copies},
                 {"mixed", test_mixed},
                 {"fork", test_fork},
                 {"death", test_death}};

    CHECK(serry_init(NULL, &comm) == SERRY_OK);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        if (count > 1 && strcmp(arguments[1], tests[i].name) == 0)
            tests[i].run();
    CHECK(serry_finalize(&comm) == SERRY_OK);
    return 0;
}
