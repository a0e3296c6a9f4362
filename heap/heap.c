/* heap.c - libserry_heap.so: jemalloc, with allocations from a threshold on in the job's heap.
 *
 * jemalloc has an arena of its own for what is at least opt.oversize_threshold bytes, which `serry run`
 * sets through MALLOC_CONF. This library gives that arena hooks that get its memory from the process's
 * slice of the heap (slice.h). Smaller allocations, and jemalloc's own records, stay private.
 *
 * Whatever the hooks are asked about may lie outside the slice: what was allocated before they were set,
 * what did not fit into it, and everything in the child of a fork. That is private memory. */
#include <jemalloc/jemalloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/types.h>

#include "slice.h"

/* ---- the hooks --------------------------------------------------------------------------------- */

static bool filling; /* at the start, in its one thread: no new memory for large allocations */

/* Private memory, aligned; jemalloc never gives it back, see give_back. */
static void *map_private(size_t bytes, size_t alignment)
{
    size_t room = bytes + alignment;
    unsigned char *memory = room < bytes ? MAP_FAILED
                                         : mmap(NULL, room, PROT_READ | PROT_WRITE,
                                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED)
        return NULL;
    size_t before = (alignment - (uintptr_t)memory % alignment) % alignment;
    if (before != 0)
        munmap(memory, before);
    munmap(memory + before + bytes, alignment - before);
    return memory + before;
}

static void *get(extent_hooks_t *hooks, void *at, size_t bytes, size_t alignment, bool *zero,
                 bool *commit, unsigned arena)
{
    void *memory = NULL;

    (void)hooks;
    (void)arena;
    if (filling)
        return NULL;
    memory = slice_cut(at, bytes, alignment);
    if (memory == NULL && at == NULL)
        memory = map_private(bytes, alignment);
    if (memory == NULL)
        return NULL;
    *zero = true;
    *commit = true;
    return memory;
}

/* Refused: jemalloc keeps the addresses, has the memory purged, and uses them again. */
static bool give_back(extent_hooks_t *hooks, void *memory, size_t bytes, bool committed,
                      unsigned arena)
{
    (void)hooks;
    (void)memory;
    (void)bytes;
    (void)committed;
    (void)arena;
    return true;
}

/* The memory, for others too, is gone, and reads as zero. */
static bool purge(extent_hooks_t *hooks, void *memory, size_t bytes, size_t offset, size_t length,
                  unsigned arena)
{
    (void)hooks;
    (void)bytes;
    (void)arena;
    return madvise((unsigned char *)memory + offset, length,
                   slice_has(memory) ? MADV_REMOVE : MADV_DONTNEED) != 0;
}

static bool split(extent_hooks_t *hooks, void *memory, size_t bytes, size_t first, size_t second,
                  bool committed, unsigned arena)
{
    (void)hooks;
    (void)memory;
    (void)bytes;
    (void)first;
    (void)second;
    (void)committed;
    (void)arena;
    return false;
}

/* What is read by others must lie in the slice as a whole. */
static bool merge(extent_hooks_t *hooks, void *a, size_t a_bytes, void *b, size_t b_bytes,
                  bool committed, unsigned arena)
{
    (void)hooks;
    (void)a_bytes;
    (void)b_bytes;
    (void)committed;
    (void)arena;
    return slice_has(a) != slice_has(b);
}

enum { FILLERS = 1000 };

static extent_hooks_t k_hooks = {
    .alloc = get, .dalloc = give_back, .purge_forced = purge, .split = split, .merge = merge};

/* ---- at the start ------------------------------------------------------------------------------ */

/* Keep what is freed for a while, as other arenas do: by default this one purges all at once, and whoever
 * allocates large pieces again and again pays for page faults. */
static void keep_freed_pages(unsigned arena)
{
    ssize_t decay_ms;
    size_t size = sizeof(decay_ms), threshold = SIZE_MAX;
    char name[48];

    if (mallctl("opt.dirty_decay_ms", &decay_ms, &size, NULL, 0) != 0)
        return;
    snprintf(name, sizeof(name), "arena.%u.dirty_decay_ms", arena);
    mallctl(name, NULL, NULL, &decay_ms, sizeof(decay_ms));
    snprintf(name, sizeof(name), "arena.%u.oversize_threshold", arena);
    mallctl(name, NULL, NULL, &threshold, sizeof(threshold));
}

/* The arena for large allocations comes into being with the first of them, in private memory, of which
 * it gets more than it needs then. What is left of that is used up by allocations that are never
 * touched, nor freed, so that all later ones lie in the slice. It is 2 MiB of addresses. */
static void take_over(size_t threshold)
{
    extent_hooks_t *hooks = &k_hooks;
    void *first = mallocx(threshold, 0);
    unsigned arena;
    size_t size = sizeof(arena);
    char name[48];

    if (first != NULL && mallctl("arenas.lookup", &arena, &size, &first, sizeof(first)) == 0 &&
        arena != 0) {
        snprintf(name, sizeof(name), "arena.%u.extent_hooks", arena);
        if (mallctl(name, NULL, NULL, &hooks, sizeof(hooks)) != 0)
            return;
        keep_freed_pages(arena);
        filling = true;
        for (int i = 0; i < FILLERS && first != NULL; i++)
            first = mallocx(threshold, 0);
        filling = false;
    }
}

/* Without `serry run --heap` nothing happens: this is jemalloc then. */
__attribute__((constructor(101))) static void begin(void)
{
    size_t threshold, size = sizeof(threshold);

    if (slice_watch_forks() && mallctl("opt.oversize_threshold", &threshold, &size, NULL, 0) == 0 &&
        threshold != 0)
        take_over(threshold);
}
