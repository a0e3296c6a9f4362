/* heap_ranks.c - a C program under `serry run --heap`; tests/heap.sh starts it and says what is expected.
 *
 *   heap_ranks direct    collectives and messages on memory from malloc read it where it lies
 *   heap_ranks copies    the same without a heap: right, and not direct
 *   heap_ranks mixed     one member has no heap, so collectives are not direct; messages may be
 *   heap_ranks fork      a child has a copy, and can allocate; neither sees what the other writes
 *   heap_ranks kills     children are killed while they come into being, or soon after: their parent and
 *                        its memory notice nothing, and nothing is left of them
 *   heap_ranks death     rank 1 is killed: the others go on, and when it is replaced its memory is given
 *                        back
 *   heap_ranks replaced  rank 1 is killed, and what its replacement, or a spare, allocates is read where it
 *                        lies, as theirs is by it
 *   heap_ranks middle    rank 1 is killed in the middle of direct operations, again and again: each is
 *                        completed by the others, with its input
 *
 * Evidence of reading directly is the kernel's: resident pages of read-only mappings of the heap. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
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

/* ---- killed children ----------------------------------------------------------------------------- */

static long size_kib(void)
{
    FILE *status = fopen("/proc/self/status", "re");
    char line[256];
    long kib = -1;

    CHECK(status != NULL);
    while (kib < 0 && fgets(line, sizeof(line), status) != NULL)
        sscanf(line, "VmSize: %ld", &kib);
    fclose(status);
    return kib;
}

/* Until some were killed before fork had returned to them, in the handlers that give them their copy, and
 * some after. */
static void test_kills(void)
{
    const size_t held = (size_t)16 << 20;
    _Atomic int *began =
        mmap(NULL, sizeof(*began), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    unsigned char *large = malloc(held);
    int64_t *mine = numbers(3);
    int before = 0, after = 0, status;

    CHECK(began != MAP_FAILED && is_in_heap(large) && is_in_heap(mine));
    memset(large, 1, held);
    CHECK(serry_barrier(comm) == SERRY_OK);
    int64_t in_use = heap_bytes();
    long size = size_kib();
    for (long turn = 0; turn < 60 || before == 0 || after == 0; turn++) {
        struct timespec moment = {0, 20000 * (turn % 30)};
        *began = 0;
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            *began = 1;
            for (size_t i = 0; i < held; i++)
                large[i] = 2;
            pause();
        }
        nanosleep(&moment, NULL);
        CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
        *(*began ? &after : &before) += 1;
        CHECK(are_numbers(mine, 3, 1));
    }
    for (size_t i = 0; i < held; i++)
        CHECK(large[i] == 1);
    CHECK(size_kib() < size + (long)(held / 1024));
    CHECK(serry_barrier(comm) == SERRY_OK);
    CHECK(heap_bytes() < in_use + (int64_t)held); /* of all ranks */
    collectives();
    free(mine);
    free(large);
}

/* ---- replacements -------------------------------------------------------------------------------- */

/* Where in the heap's file this process's own slice begins. */
static uint64_t own_slice(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512], permissions[8];
    uint64_t offset, least = UINT64_MAX;

    CHECK(maps != NULL);
    while (fgets(line, sizeof(line), maps) != NULL)
        if (strstr(line, "memfd:serry-heap") != NULL &&
            sscanf(line, "%*s %7s %" SCNx64, permissions, &offset) == 2 &&
            strcmp(permissions, "rw-s") == 0 && offset != 0 && offset < least)
            least = offset;
    fclose(maps);
    CHECK(least != UINT64_MAX);
    return least;
}

/* Where the slice of another rank is mapped here for reading: beside others, perhaps, in one mapping. */
static uintptr_t place_of(uint64_t slice)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512], permissions[8];
    uintptr_t from, to, place = 0;
    uint64_t offset;

    CHECK(maps != NULL);
    while (fgets(line, sizeof(line), maps) != NULL)
        if (strstr(line, "memfd:serry-heap") != NULL &&
            sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %7s %" SCNx64, &from, &to, permissions,
                   &offset) == 4 &&
            strcmp(permissions, "r--s") == 0 && slice >= offset && slice - offset < to - from)
            place = from + (slice - offset);
    fclose(maps);
    return place;
}

/* Pages of it that this process has read, of those at its beginning: bit 63 of an entry says so. */
static size_t pages_read(uint64_t slice)
{
    enum { PAGES = 16384 };
    static uint64_t entry[PAGES];
    size_t page = (size_t)sysconf(_SC_PAGESIZE), read = 0;
    int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    uintptr_t place = place_of(slice);

    CHECK(file >= 0 && place != 0);
    CHECK(pread(file, entry, sizeof(entry), (off_t)(place / page * sizeof(entry[0]))) ==
          (ssize_t)sizeof(entry));
    close(file);
    for (size_t i = 0; i < PAGES; i++)
        read += entry[i] >> 63;
    return read;
}

/* Every rank reads every other one's vector in that one's slice. */
static void expect_all_direct(void)
{
    int rank = serry_rank(comm), size = serry_size(comm);
    int64_t *mine = numbers(7 * rank), *all = malloc((size_t)size * COUNT * sizeof(*all));
    uint64_t slice[SERRY_MAX_RANKS], own = own_slice();

    CHECK(serry_allgather(&own, slice, 1, SERRY_U64, comm) == SERRY_OK);
    CHECK(all != NULL && is_in_heap(mine));
    CHECK(serry_allgather(mine, all, COUNT, SERRY_I64, comm) == SERRY_OK);
    for (int r = 0; r < size; r++) {
        CHECK(are_numbers(all + (size_t)r * COUNT, 7 * r, 1));
        CHECK(r == rank ||
              pages_read(slice[r]) >= COUNT * sizeof(*mine) / (size_t)sysconf(_SC_PAGESIZE));
    }
    CHECK(serry_barrier(comm) == SERRY_OK);
    free(all);
    free(mine);
}

static bool is_first(void)
{
    return strcmp(getenv("SERRY_ENTRY"), "start") == 0;
}

/* Rank 1 has died: wait until it is replaced. */
static void await_replacement(void)
{
    int64_t one = 1, sum;

    for (int rc = SERRY_OK; rc != SERRY_ERR_RANK_JOINED;) {
        rc = serry_allreduce(&one, &sum, 1, SERRY_I64, SERRY_SUM, comm);
        CHECK(rc == SERRY_OK || rc == SERRY_ERR_RANK_FAILED || rc == SERRY_ERR_RANK_JOINED);
    }
}

static void test_replaced(void)
{
    if (is_first()) {
        expect_all_direct();
        if (serry_rank(comm) == 1)
            raise(SIGKILL);
        await_replacement();
    }
    for (int turn = 0; turn < 3; turn++)
        expect_all_direct();
    messages();
}

/* ---- killed in the middle ------------------------------------------------------------------------ */

enum { SUMS, SUMS_IN_PLACE, GATHERS, SCATTERS, WAYS, PLACES = 3 };

static void die(int number)
{
    (void)number;
    kill(getpid(), SIGKILL);
}

/* Whoever writes into this page of the result dies of it. */
static void build_wall(void *result, size_t bytes, int place)
{
    struct sigaction action = {.sa_handler = die};
    size_t page = (size_t)sysconf(_SC_PAGESIZE), at = bytes / PLACES * (size_t)place;
    unsigned char *wall = (unsigned char *)result + at;

    wall += (page - (uintptr_t)wall % page) % page;
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0 && mprotect(wall, page, PROT_READ) == 0);
}

/* One operation, which rank 1 does not survive. */
static void one_death(int way, int place)
{
    int rank = serry_rank(comm), size = serry_size(comm);
    size_t elements = COUNT * (way == GATHERS ? (size_t)size : 1);
    int64_t *mine = malloc((size_t)size * COUNT * sizeof(*mine));
    int64_t *result = way == SUMS_IN_PLACE ? mine : malloc(elements * sizeof(*result));
    int rc;

    CHECK(mine != NULL && result != NULL && is_in_heap(mine) && is_in_heap(result));
    for (size_t i = 0; i < COUNT * (size_t)size; i++)
        mine[i] = 100 * rank + (int64_t)i;
    if (rank == 1)
        build_wall(result, elements * sizeof(*result), place);
    if (way == GATHERS)
        rc = serry_allgather(mine, result, COUNT, SERRY_I64, comm);
    else if (way == SCATTERS)
        rc = serry_reduce_scatter(mine, result, COUNT, SERRY_I64, SERRY_SUM, comm);
    else
        rc = serry_allreduce(mine, result, COUNT, SERRY_I64, SERRY_SUM, comm);
    CHECK(rank != 1 && rc == SERRY_OK);
    for (int r = 0; r < size && way == GATHERS; r++)
        CHECK(are_numbers(result + (size_t)r * COUNT, 100 * r, 1));
    if (way != GATHERS)
        CHECK(are_numbers(
            result, 50 * size * (size - 1) + (way == SCATTERS ? (int64_t)COUNT * rank * size : 0),
            size));
    CHECK(resident_kib("r--s", NULL, NULL) > 0);
    if (result != mine)
        free(result);
    free(mine);
}

static void test_middle(void)
{
    int32_t trial = 0;

    while (true) {
        CHECK(serry_broadcast(&trial, 1, SERRY_I32, 0, comm) == SERRY_OK);
        if (trial == WAYS * PLACES)
            break;
        one_death(trial / PLACES, trial % PLACES);
        await_replacement();
        trial++;
    }
    collectives();
}

int main(int count, char **arguments)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {{"direct", test_direct},     {"copies", test_copies}, {"mixed", test_mixed},
                 {"fork", test_fork},         {"kills", test_kills},   {"death", test_death},
                 {"replaced", test_replaced}, {"middle", test_middle}};

    CHECK(serry_init(NULL, &comm) == SERRY_OK);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        if (count > 1 && strcmp(arguments[1], tests[i].name) == 0)
            tests[i].run();
    CHECK(serry_finalize(&comm) == SERRY_OK);
    return 0;
}
