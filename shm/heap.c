/* heap.c - see heap.h. */
#include "heap.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "heap_view.h"
#include "segment.h"

#define NUMBER_BITS 32

struct shm_heap {
    const serry_heap_view *own;
    int fd;
    /* by slice number, mapped at need, by any thread: compare and swap, acq_rel */
    unsigned char *_Atomic slice[HEAP_SLICES + 1];
};

shm_heap *heap_open(void)
{
    const serry_heap_view *view = serry_heap_view_get == NULL ? NULL : serry_heap_view_get();
    struct stat st;

    if (view == NULL || view->version != HEAP_VIEW_VERSION)
        return NULL;
    int fd = fcntl(view->fd, F_DUPFD_CLOEXEC, 0);
    shm_heap *heap = fd < 0 ? NULL : calloc(1, sizeof(*heap));
    if (heap == NULL || fstat(fd, &st) != 0 || (uint64_t)st.st_ino != view->inode ||
        segment_check(fd, view->slice_bytes * (HEAP_SLICES + 1), NULL) != SERRY_OK) {
        free(heap);
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    heap->own = view;
    heap->fd = fd;
    return heap;
}

void heap_forget(shm_heap *heap)
{
    if (heap != NULL)
        close(heap->fd);
    free(heap);
}

void heap_close(shm_heap *heap)
{
    for (uint32_t i = 1; heap != NULL && i <= HEAP_SLICES; i++) {
        unsigned char *slice = atomic_load_explicit(&heap->slice[i], memory_order_acquire);
        if (slice != NULL)
            munmap(slice, heap->own->slice_bytes);
    }
    heap_forget(heap);
}

uint64_t heap_tell(shm_heap *heap)
{
    if (heap == NULL)
        return 0;
    atomic_store_explicit(heap->own->joined, 1, memory_order_seq_cst);
    return (uint64_t)heap->own->tag << NUMBER_BITS | heap->own->number;
}

/* The slice of that slot's rank; 0: none, or one of another heap. */
static uint32_t number_of(const shm_arena *arena, uint32_t slot)
{
    uint64_t said = atomic_load_explicit(&arena->slots[slot].heap, memory_order_relaxed);
    uint32_t number = (uint32_t)said;

    if (arena->heap == NULL || said >> NUMBER_BITS != arena->heap->own->tag || number > HEAP_SLICES)
        return 0;
    return number;
}

/* For reading only: a rank writes nothing but its own memory. */
static bool map_slice(shm_heap *heap, uint32_t number)
{
    uint64_t bytes = heap->own->slice_bytes;
    unsigned char *none = NULL;
    void *slice =
        mmap(NULL, bytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, heap->fd, (off_t)(number * bytes));

    if (slice == MAP_FAILED)
        return false;
    madvise(slice, bytes, MADV_DONTFORK);
    madvise(slice, bytes, MADV_DONTDUMP);
    if (!atomic_compare_exchange_strong_explicit(&heap->slice[number], &none, slice,
                                                 memory_order_acq_rel, memory_order_acquire))
        munmap(slice, bytes); /* another thread was faster */
    return true;
}

bool heap_reach(shm_arena *arena, uint32_t slot)
{
    uint32_t number = number_of(arena, slot);

    if (number == 0)
        return atomic_load_explicit(&arena->slots[slot].heap, memory_order_relaxed) == 0;
    return atomic_load_explicit(&arena->heap->slice[number], memory_order_acquire) != NULL ||
           map_slice(arena->heap, number);
}

bool heap_is_shared_with(const shm_arena *arena, uint32_t slot)
{
    return number_of(arena, slot) != 0;
}

static bool is_within(uint64_t offset, uint64_t bytes, uint64_t limit)
{
    return bytes <= limit && offset <= limit - bytes;
}

bool heap_find(const shm_arena *arena, const void *address, uint64_t bytes, uint64_t *where)
{
    uintptr_t at = (uintptr_t)address, base = (uintptr_t)arena->base;

    if (at >= base && arena_in_pool(arena, at - base, bytes) != NULL) {
        *where = at - base;
        return true;
    }
    if (arena->heap == NULL)
        return false;
    base = (uintptr_t)arena->heap->own->base;
    *where = (at - base) | HEAP_BIT;
    return at >= base && is_within(at - base, bytes, arena->heap->own->slice_bytes);
}

void *heap_at(const shm_arena *arena, uint32_t slot, uint64_t where, uint64_t bytes)
{
    uint32_t number;

    if ((where & HEAP_BIT) == 0)
        return arena_in_pool(arena, where, bytes);
    number = number_of(arena, slot);
    where &= ~HEAP_BIT;
    if (number == 0 || !is_within(where, bytes, arena->heap->own->slice_bytes))
        return NULL;
    unsigned char *slice = atomic_load_explicit(&arena->heap->slice[number], memory_order_acquire);
    return slice == NULL ? NULL : slice + where;
}

void heap_give_back(shm_arena *arena, uint32_t slot)
{
    uint32_t number = number_of(arena, slot);

    if (number == 0)
        return;
    segment_release(arena->heap->fd, number * arena->heap->own->slice_bytes,
                    arena->heap->own->slice_bytes);
    atomic_store_explicit(&arena->slots[slot].heap, 0, memory_order_relaxed);
}
