/* heap.h - memory of a rank, beside the arena's pool, that the other ranks can read: its slice of the
 * job's heap (see heap_view.h), where `serry run --heap` made one.
 *
 *   who owns a slice   says its number in its slot, before it is seen alive
 *   who reads in it    maps it, for reading only, before it promises to: an operation that finds a member
 *                      which cannot goes through copies. It stays mapped as long as the arena
 *   a dead rank's      stays as it was while anybody may read it, and is given back by the rules of its
 *                      extents: see extent_sweep
 *
 * A place that others can read is told as one number: an offset in the arena, or, with HEAP_BIT, an
 * offset in the slice of the rank that tells it. */
#ifndef SHM_HEAP_H
#define SHM_HEAP_H

#include <stdbool.h>

#include "arena.h"

#define HEAP_BIT (UINT64_C(1) << 63)

typedef struct shm_heap shm_heap;

/* This process's view of the heap; NULL where there is none. */
shm_heap *heap_open(void);

/* Nothing in it is read any more. NULL is allowed. */
void heap_close(shm_heap *heap);

/* In the child of a fork, which has no mapping of the others' slices. */
void heap_forget(shm_heap *heap);

/* What this process's slot says: which heap, which slice. 0: none. The slice is the job's from now on. */
uint64_t heap_tell(shm_heap *heap);

/* Can this process read the slice of that slot's rank? So it is if that one has none. */
bool heap_reach(shm_arena *arena, uint32_t slot);

/* Has that slot's rank the same heap, so that it can read in ours? */
bool heap_is_shared_with(const shm_arena *arena, uint32_t slot);

/* Can others read [address, address + bytes) of this process? */
bool heap_find(const shm_arena *arena, const void *address, uint64_t bytes, uint64_t *where);

/* The place that a slot's rank tells; NULL where it is not wholly in the pool or in that one's slice, or
 * the slice is not mapped here. A slice can only be read. */
void *heap_at(const shm_arena *arena, uint32_t slot, uint64_t where, uint64_t bytes);

/* The slot's rank is gone, and nobody reads what it had: its slice is emptied. Once. */
void heap_give_back(shm_arena *arena, uint32_t slot);

#endif
