/* group.c - see group.h. */
#include "group.h"

#include <sys/mman.h>

#include "extent.h"
#include "record.h"
#include "segment.h"
#include "word.h"

#define KIB 1024u
#define BUFFERS_TOTAL (16u * 1024 * KIB) /* in and out buffers of all members together, about */

static uint32_t small_bytes(int size)
{
    return size <= 8 ? 8 * KIB : size <= 32 ? 4 * KIB : KIB;
}

/* Large enough that a step costs little beside its copy, small enough to stay in a core's cache and
 * to let 256 ranks fit where containers are stingy. */
static uint32_t chunk_bytes(int size)
{
    uint32_t share = BUFFERS_TOTAL / (4 * (uint32_t)size) / SHM_PAGE * SHM_PAGE;

    return share > 64 * KIB ? 64 * KIB : share;
}

static uint32_t region_bytes(int size)
{
    uint32_t cells = CELLS * (uint32_t)sizeof(group_cell);
    uint32_t bytes = cells + 2 * small_bytes(size) + 4 * chunk_bytes(size);

    return (bytes + SHM_PAGE - 1) / SHM_PAGE * SHM_PAGE;
}

uint64_t group_bytes(int size)
{
    return GROUP_HEADER_BYTES + (uint64_t)size * region_bytes(size);
}

void group_format(shm_arena *arena, uint64_t offset, int size, const uint16_t *slot)
{
    group_header *header = (group_header *)(void *)(arena->base + offset);

    header->bytes = group_bytes(size);
    header->size = (uint32_t)size;
    header->small_bytes = small_bytes(size);
    header->chunk_bytes = chunk_bytes(size);
    header->region_bytes = region_bytes(size);
    atomic_store_explicit(&header->revoked, 0, memory_order_relaxed);
    atomic_store_explicit(&header->left, 0, memory_order_relaxed);
    for (int i = 0; i < size; i++)
        header->slot[i] = slot[i];
    atomic_store_explicit(&header->formatted, 1, memory_order_release);
}

/* The first touch decides on which NUMA node a page lies. */
static void touch(unsigned char *start, size_t bytes)
{
#ifdef MADV_POPULATE_WRITE
    if (madvise(start, bytes, MADV_POPULATE_WRITE) == 0)
        return;
#endif
    for (size_t i = 0; i < bytes; i += SHM_PAGE)
        *(volatile unsigned char *)(start + i) = 0;
}

int group_settle(shm_arena *arena, uint64_t offset, int size, int rank, serry_error *error)
{
    group_header *header = (group_header *)(void *)(arena->base + offset);
    uint64_t own = offset + GROUP_HEADER_BYTES + (uint64_t)rank * region_bytes(size);
    int rc = segment_reserve(arena->fd, own, region_bytes(size), "the buffers of this rank", error);

    if (rc != SERRY_OK)
        return rc;
    touch(arena->base + own, region_bytes(size));
    atomic_store_explicit(&header->settled[rank], 1, memory_order_release);
    return SERRY_OK;
}

int group_open(shm_group *group, shm_arena *arena, uint64_t offset, int size, int rank,
               serry_error *error)
{
    group_header *header = (group_header *)(void *)(arena->base + offset);

    if (offset % SHM_PAGE != 0 || offset > arena->bytes - group_bytes(size) ||
        atomic_load_explicit(&header->formatted, memory_order_acquire) == 0 ||
        header->bytes != group_bytes(size) || header->size != (uint32_t)size ||
        header->small_bytes != small_bytes(size) || header->chunk_bytes != chunk_bytes(size) ||
        header->region_bytes != region_bytes(size))
        return serry_fail(error, SERRY_ERR_ARENA,
                          "the new communicator's part of the arena is not "
                          "what it should be");
    arena_hold(arena, header->slot[rank]);
    *group = (shm_group){.arena = arena,
                         .offset = offset,
                         .header = header,
                         .regions = arena->base + offset + GROUP_HEADER_BYTES,
                         .region_bytes = header->region_bytes,
                         .small_bytes = header->small_bytes,
                         .chunk_bytes = header->chunk_bytes,
                         .rank = rank,
                         .size = size};
    return SERRY_OK;
}

shm_group group_control(const shm_group *group)
{
    shm_group control = *group;

    control.cell = CELL_CONTROL * sizeof(group_cell);
    control.small_bytes = SHM_INLINE;
    return control;
}

/* Sleepers look at the flag when they wake; taking the asleep bit away also stops those that are just
 * about to sleep, since the kernel compares the word first. */
void group_revoke(const shm_group *group)
{
    atomic_store_explicit(&group->header->revoked, 1, memory_order_seq_cst);
    for (int r = 0; r < group->size; r++) {
        _Atomic uint64_t *word = &group_cell_of(group, r)->word;
        if (atomic_fetch_and_explicit(word, ~WORD_ASLEEP, memory_order_seq_cst) & WORD_ASLEEP)
            wait_wake(word);
    }
}

/* All the words of a member. */
static void seal(unsigned char *region)
{
    for (int i = 0; i < CELLS; i++) {
        _Atomic uint64_t *word = &((group_cell *)(void *)region)[i].word;
        if (word_seal(word) & WORD_ASLEEP)
            wait_wake(word);
    }
}

void group_seal_slot(shm_arena *arena, uint64_t offset, int slot)
{
    const group_header *header = (const group_header *)(const void *)(arena->base + offset);

    if (atomic_load_explicit(&header->formatted, memory_order_acquire) == 0)
        return;
    int size = (int)header->size;
    if (size < 1 || size > (int)SERRY_MAX_RANKS || header->bytes != group_bytes(size) ||
        offset > arena->bytes - header->bytes)
        return;
    for (int i = 0; i < size; i++) {
        unsigned char *region =
            arena->base + offset + GROUP_HEADER_BYTES + (size_t)i * region_bytes(size);
        if (header->slot[i] == slot &&
            atomic_load_explicit(&header->settled[i], memory_order_acquire) != 0)
            seal(region);
    }
}

void group_close(shm_group *group)
{
    shm_arena *arena = group->arena;
    int slot = group->header->slot[group->rank];
    uint64_t bytes;

    seal(group_region(group, group->rank));
    if (atomic_fetch_add_explicit(&group->header->left, 1, memory_order_acq_rel) + 1 ==
        (uint32_t)group->size)
        extent_give(arena, EXTENT_OF_GROUP, group->offset, &bytes);
    arena_drop(arena, slot);
}
