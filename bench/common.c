/* common.c - see common.h. */
#include "common.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    PAUSES_BEFORE_YIELD = 64, /* where ranks share cores */
    CALLS_MIN = 2,
    LEAD_IN = 8,            /* the first eighth of the calls does not count */
    BACK_TO_BACK_MIN = 100, /* with fewer calls there is no time for it */
    BACK_TO_BACK_MAX = 1000
};

#define BEGIN_NS UINT64_C(60000000000) /* ranks that have not begun by then will not */

/* ---- clock, cores ------------------------------------------------------------------------- */

uint64_t bench_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Hyperthreads of one core list each other; the first speaks for the core. */
static bool first_of_core(int cpu)
{
    char path[96];
    int first = cpu;

    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
             cpu);
    FILE *file = fopen(path, "r");
    if (file != NULL) {
        if (fscanf(file, "%d", &first) != 1)
            first = cpu;
        fclose(file);
    }
    return first == cpu;
}

int bench_core(int n)
{
    cpu_set_t mask;

    if (sched_getaffinity(0, sizeof(mask), &mask) != 0)
        return -1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET((size_t)cpu, &mask) && first_of_core(cpu) && n-- == 0)
            return cpu;
    return -1;
}

void bench_bind(int cpu)
{
    cpu_set_t mask;

    CPU_ZERO(&mask);
    CPU_SET((size_t)cpu, &mask);
    sched_setaffinity(0, sizeof(mask), &mask);
}

/* ---- beginning and meeting ---------------------------------------------------------------- */

void *bench_map_shared(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED) {
        perror("bench: no memory that ranks can share");
        exit(1);
    }
    return memory;
}

size_t bench_shared_bytes(int ranks)
{
    return sizeof(bench_shared) + (size_t)ranks * BENCH_CALLS_MAX * sizeof(uint64_t);
}

static void tell_cpus(bench_shared *shared)
{
    cpu_set_t mask;

    if (sched_getaffinity(0, sizeof(mask), &mask) != 0)
        return;
    for (size_t cpu = 0; cpu < BENCH_CPU_WORDS * 64 && cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &mask))
            atomic_fetch_or(&shared->cpus[cpu / 64], UINT64_C(1) << (cpu % 64));
}

static int count_cpus(const bench_shared *shared)
{
    int cpus = 0;

    for (int i = 0; i < BENCH_CPU_WORDS; i++)
        cpus += __builtin_popcountll(atomic_load(&shared->cpus[i]));
    return cpus;
}

int bench_begin(bench *b, bench_shared *shared, int rank, int ranks)
{
    uint64_t deadline_ns = bench_now_ns() + BEGIN_NS;

    *b = (bench){.shared = shared, .rank = rank, .ranks = ranks};
    memset(shared->ns[rank], 0, sizeof(shared->ns[rank])); /* no page fault while we measure */
    tell_cpus(shared);
    atomic_fetch_add(&shared->present, 1);
    while (atomic_load(&shared->present) < (uint32_t)ranks) {
        if (bench_now_ns() > deadline_ns) {
            fprintf(stderr, "bench: rank %d waited in vain for the other ranks to begin\n", rank);
            return -1;
        }
        usleep(200);
    }
    b->crowded = ranks > count_cpus(shared);
    return 0;
}

/* Where rank 0 keeps the memory: a file without a name, which vanishes with its last user. */
struct ticket {
    int32_t pid, fd; /* fd < 0: rank 0 has failed and said so */
};

static struct ticket make_memory(size_t bytes)
{
    struct ticket ticket = {(int32_t)getpid(), memfd_create("bench", MFD_CLOEXEC)};

    if (ticket.fd >= 0 && ftruncate(ticket.fd, (off_t)bytes) != 0) {
        close(ticket.fd);
        ticket.fd = -1;
    }
    if (ticket.fd < 0)
        perror("bench: cannot make memory for the measurements");
    return ticket;
}

static bench_shared *map_memory(struct ticket ticket, size_t bytes)
{
    char path[64];
    void *memory = MAP_FAILED;

    snprintf(path, sizeof(path), "/proc/%d/fd/%d", ticket.pid, ticket.fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
    }
    if (memory != MAP_FAILED)
        return memory;
    perror("bench: cannot reach the memory for the measurements");
    return NULL;
}

int bench_join(bench *b, int rank, int ranks, int (*share)(void *self, void *data, size_t bytes),
               void *self)
{
    size_t bytes = bench_shared_bytes(ranks);
    struct ticket ticket = {0, -1};

    if (rank == 0)
        ticket = make_memory(bytes);
    if (share(self, &ticket, sizeof(ticket)) != 0 || ticket.fd < 0)
        return -1;
    bench_shared *shared = map_memory(ticket, bytes);
    if (shared == NULL)
        return -1;
    int failed = bench_begin(b, shared, rank, ranks);
    if (rank == 0)
        close(ticket.fd);
    if (failed != 0)
        munmap(shared, bytes);
    return failed;
}

void bench_end(bench *b)
{
    munmap(b->shared, bench_shared_bytes(b->ranks));
    b->shared = NULL;
}

void bench_give_up(bench *b)
{
    atomic_store(&b->shared->failed, 1);
    atomic_fetch_add(&b->shared->orders, 1); /* those that sleep see it too */
    syscall(SYS_futex, &b->shared->orders, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

int bench_meet(bench *b)
{
    bench_shared *s = b->shared;
    uint32_t meeting = atomic_load_explicit(&s->meetings, memory_order_acquire);

    if (atomic_fetch_add_explicit(&s->arrived, 1, memory_order_acq_rel) + 1 == (uint32_t)b->ranks) {
        atomic_store_explicit(&s->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&s->meetings, meeting + 1, memory_order_release);
        return 0;
    }
    for (uint32_t i = 1; atomic_load_explicit(&s->meetings, memory_order_acquire) == meeting; i++) {
        if (i % PAUSES_BEFORE_YIELD == 0 && atomic_load_explicit(&s->failed, memory_order_relaxed))
            return -1;
        if (b->crowded && i >= PAUSES_BEFORE_YIELD)
            sched_yield();
        else
            bench_pause();
    }
    return 0;
}

/* ---- orders: between them the ranks sleep, so that others can be timed -------------------- */

void bench_give_order(bench *b, const bench_order *order)
{
    b->shared->order = *order;
    atomic_fetch_add_explicit(&b->shared->orders, 1, memory_order_release);
    syscall(SYS_futex, &b->shared->orders, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

int bench_await_order(bench *b, uint32_t number, bench_order *order)
{
    bench_shared *s = b->shared;
    uint32_t given;

    while ((given = atomic_load_explicit(&s->orders, memory_order_acquire)) < number)
        syscall(SYS_futex, &s->orders, FUTEX_WAIT, given, NULL, NULL, 0);
    if (atomic_load(&s->failed))
        return -1;
    *order = s->order;
    return 0;
}

/* ---- one cell ----------------------------------------------------------------------------- */

static void rewrite(const bench_cell *cell, uint32_t call)
{
    if (cell->rewrite != NULL)
        cell->rewrite(cell->self, call);
}

static void check(bench *b, const bench_cell *cell, uint32_t call, bool all)
{
    uint64_t wrong = cell->check != NULL ? cell->check(cell->self, call, all) : 0;

    if (wrong > 0)
        atomic_fetch_add(&b->shared->wrong, wrong);
}

static int run(bench *b, const bench_cell *cell)
{
    int failed = cell->run(cell->self);

    if (failed != 0)
        bench_give_up(b);
    return failed;
}

/* An untimed call. */
static int warm_up(bench *b, const bench_cell *cell, bool full)
{
    if (bench_meet(b) != 0)
        return -1;
    if (b->rank == 0) {
        atomic_store(&b->shared->wrong, 0);
        atomic_store(&b->shared->calls, BENCH_CALLS_MAX);
    }
    rewrite(cell, 0);
    if (bench_meet(b) != 0 || run(b, cell) != 0)
        return -1;
    check(b, cell, 0, full);
    return bench_meet(b);
}

/* Rank 0, before the meeting of a call: when the time is over it is to be the last one. */
static void look_at_clock(bench *b, uint32_t call, uint64_t end_ns)
{
    if (b->rank == 0 && call + 1 >= CALLS_MIN && bench_now_ns() >= end_ns)
        atomic_store_explicit(&b->shared->calls, call + 1, memory_order_relaxed);
}

static int timed_calls(bench *b, const bench_cell *cell, double seconds)
{
    uint64_t *ns = b->shared->ns[b->rank];
    uint64_t end_ns = bench_now_ns() + (uint64_t)(seconds * 1e9);

    /* Whoever passed the last meeting has seen what rank 0 wrote before it. */
    for (uint32_t call = 0; call < atomic_load_explicit(&b->shared->calls, memory_order_relaxed);
         call++) {
        rewrite(cell, call);
        look_at_clock(b, call, end_ns);
        if (bench_meet(b) != 0)
            return -1;
        uint64_t begun = bench_now_ns();
        int failed = run(b, cell);
        ns[call] = bench_now_ns() - begun;
        if (failed != 0)
            return -1;
        check(b, cell, call, false);
    }
    return bench_meet(b);
}

/* Mean of calls with nothing between them, us; 0: not measured. */
static int back_to_back(bench *b, const bench_cell *cell, double *mean_us)
{
    uint32_t calls = atomic_load(&b->shared->calls);

    *mean_us = 0;
    if (calls < BACK_TO_BACK_MIN)
        return 0;
    if (calls > BACK_TO_BACK_MAX)
        calls = BACK_TO_BACK_MAX;
    if (bench_meet(b) != 0)
        return -1;
    uint64_t begun = bench_now_ns();
    for (uint32_t call = 0; call < calls; call++)
        if (run(b, cell) != 0)
            return -1;
    *mean_us = (double)(bench_now_ns() - begun) / calls / 1e3;
    return bench_meet(b);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double bench_quantile(double *values, size_t n, double p)
{
    qsort(values, n, sizeof(*values), compare_doubles);
    return values[(size_t)(p * (double)(n - 1) + 0.5)];
}

/* The first of the calls bring back caches and clock rates, after a sleep in which other libraries had
 * their slices: they do not count. */
static void sum_up(const bench *b, bench_result *result)
{
    double slowest_us[BENCH_CALLS_MAX];
    uint32_t all = atomic_load(&b->shared->calls), calls = all - all / LEAD_IN;

    for (uint32_t call = 0; call < calls; call++) {
        uint64_t slowest = 0;
        for (int r = 0; r < b->ranks; r++)
            if (b->shared->ns[r][all - calls + call] > slowest)
                slowest = b->shared->ns[r][all - calls + call];
        slowest_us[call] = (double)slowest / 1e3;
    }
    result->calls = calls;
    result->median = bench_quantile(slowest_us, calls, 0.5);
    result->p99 = bench_quantile(slowest_us, calls, 0.99);
    result->min = slowest_us[0];
    result->wrong = atomic_load(&b->shared->wrong);
}

int bench_measure(bench *b, const bench_cell *cell, double seconds, bool full, bench_result *result)
{
    double back_to_back_us = 0;

    if (warm_up(b, cell, full) != 0 || timed_calls(b, cell, seconds) != 0 ||
        back_to_back(b, cell, &back_to_back_us) != 0)
        return -1;
    if (b->rank == 0) {
        sum_up(b, result);
        result->back_to_back = back_to_back_us;
    }
    return bench_meet(b);
}
