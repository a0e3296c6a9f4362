/* group.c - see group.h. */
#include "group.h"

#include <sys/mman.h>

#include "extent.h"
#include "record.h"
#include "segment.h"
#include "slot.h"
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
    uint32_t small = 2 * (small_bytes(size) + (uint32_t)sizeof(group_batch));
    uint32_t bytes = cells + small + 4 * chunk_bytes(size) + 2 * (uint32_t)sizeof(group_digest) +
                     (uint32_t)group_mail_bytes(size);

    return (bytes + SHM_PAGE - 1) / SHM_PAGE * SHM_PAGE;
}

uint64_t group_bytes(int size)
{
    return GROUP_HEADER_BYTES + (uint64_t)size * region_bytes(size);
}

void group_plan_member(group_plan *plan, int rank, int slot)
{
    plan->slot[rank] = (uint16_t)slot;
    serry_rank_set_add(&plan->present, rank);
}

void group_format(shm_arena *arena, uint64_t offset, const group_plan *plan)
{
    group_header *header = (group_header *)(void *)(arena->base + offset);

    header->bytes = group_bytes(plan->size);
    header->size = (uint32_t)plan->size;
    header->small_bytes = small_bytes(plan->size);
    header->chunk_bytes = chunk_bytes(plan->size);
    header->region_bytes = region_bytes(plan->size);
    header->policy = plan->policy;
    header->variant = plan->variant;
    header->communicator = plan->communicator;
    if (plan->communicator == 0)
        header->communicator =
            1 + atomic_fetch_add_explicit(&arena->header->communicators, 1, memory_order_relaxed);
    header->operations = plan->operations;
    header->epoch = plan->epoch;
    header->votes = plan->votes;
    header->present = plan->present;
    header->joined = plan->joined;
    atomic_store_explicit(&header->call, GROUP_CALL_NONE, memory_order_relaxed);
    header->parent = plan->parent;
    header->ordinal = plan->ordinal;
    header->version = plan->version;
    header->parts = plan->parts;
    for (int i = 0; i < plan->size; i++) {
        header->slot[i] = plan->slot[i];
        header->origin[i] = plan->origin[i];
    }
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
    atomic_store_explicit(&header->settled[rank], 1, memory_order_seq_cst);
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
                         .cells = arena->base + offset + GROUP_HEADER_BYTES,
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

    control.cells += CELL_CONTROL * sizeof(group_cell);
    control.small_bytes = SHM_INLINE;
    return control;
}

/* Sleepers look at the call when they wake; taking the asleep bit away also stops those that are just
 * about to sleep, since the kernel compares the word first. */
void group_call_all(const shm_group *group, enum group_call call)
{
    uint32_t seen = atomic_load_explicit(&group->header->call, memory_order_relaxed);

    while (seen < call &&
           !atomic_compare_exchange_weak_explicit(&group->header->call, &seen, call,
                                                  memory_order_seq_cst, memory_order_relaxed))
        ;
    for (int r = 0; r < group->size; r++)
        if (group_is_settled(group, r))
            for (size_t i = 0; i < CELLS; i++)
                wait_rouse(&((group_cell *)(void *)group_region(group, r))[i].word);
    group_ring_all(group);
}

void group_ring_all(const shm_group *group)
{
    for (int r = 0; r < group->size; r++)
        if (group_is_settled(group, r))
            wait_rouse(&group_mail_of(group, r)->bell);
}

bool group_view(shm_arena *arena, uint64_t offset, shm_group *group)
{
    group_header *header = (group_header *)(void *)(arena->base + offset);

    if (offset % SHM_PAGE != 0 || offset > arena->bytes - GROUP_HEADER_BYTES ||
        atomic_load_explicit(&header->formatted, memory_order_acquire) == 0)
        return false;
    int size = (int)header->size;
    if (size < 1 || size > (int)SERRY_MAX_RANKS || header->bytes != group_bytes(size) ||
        offset > arena->bytes - header->bytes)
        return false;
    *group = (shm_group){.arena = arena,
                         .offset = offset,
                         .header = header,
                         .regions = arena->base + offset + GROUP_HEADER_BYTES,
                         .cells = arena->base + offset + GROUP_HEADER_BYTES,
                         .region_bytes = region_bytes(size),
                         .rank = -1,
                         .size = size};
    return true;
}

void group_call_at(shm_arena *arena, uint64_t offset, enum group_call call)
{
    shm_group group;

    if (group_view(arena, offset, &group))
        group_call_all(&group, call);
}

void group_seal_member(const shm_group *group, int rank)
{
    for (int i = 0; i < CELLS; i++) {
        _Atomic uint64_t *word = &((group_cell *)(void *)group_region(group, rank))[i].word;
        if (word_seal(word) & WORD_ASLEEP)
            wait_wake(word);
    }
    group_ring_all(group);
}

void group_seal_dead(const shm_group *group)
{
    for (int r = 0; r < group->size; r++) {
        arena_slot *slot = &group->arena->slots[group->header->slot[r]];
        if (group_is_settled(group, r) && (slot_is_dead(slot) || slot_has_left(slot)))
            group_seal_member(group, r);
    }
}

void group_seal_slot(shm_arena *arena, uint64_t offset, int slot)
{
    shm_group group;

    if (!group_view(arena, offset, &group))
        return;
    for (int r = 0; r < group.size; r++)
        if (group.header->slot[r] == slot && group_is_settled(&group, r))
            group_seal_member(&group, r);
}

/* Nobody will touch the group any more: all have left it, or have died and are really gone. */
static bool is_unused(shm_arena *arena, uint64_t offset)
{
    shm_group group;

    if (!group_view(arena, offset, &group))
        return false; /* it is being made */
    for (int r = 0; r < group.size; r++)
        if (group_has_left(group.header, r) == GROUP_STAYS &&
            !slot_is_gone(&arena->slots[group.header->slot[r]], arena->kind))
            return false;
    return true;
}

static bool has_member(shm_arena *arena, uint64_t offset, uint32_t slot)
{
    shm_group group;

    if (!group_view(arena, offset, &group) || is_unused(arena, offset))
        return false;
    for (int r = 0; r < group.size; r++)
        if (group.header->slot[r] == slot && serry_rank_set_has(&group.header->present, r))
            return true;
    return false;
}

static bool is_gone(shm_arena *arena, uint32_t slot)
{
    return slot_is_gone(&arena->slots[slot], arena->kind);
}

static bool is_of(shm_arena *arena, uint64_t offset, uint32_t communicator)
{
    shm_group group;

    return group_view(arena, offset, &group) && group.header->communicator == communicator;
}

void group_abandon(shm_arena *arena, uint64_t offset, int rank)
{
    group_header *header = (group_header *)(void *)(arena->base + offset);

    atomic_store_explicit(&header->left[rank], GROUP_NEVER, memory_order_seq_cst);
}

void group_leave(shm_group *group)
{
    static const extent_judge judge = {is_unused, has_member, is_gone, is_of};
    shm_arena *arena = group->arena;
    int slot = group->header->slot[group->rank];

    atomic_store_explicit(&group->header->left[group->rank], GROUP_LEFT, memory_order_seq_cst);
    extent_sweep(arena, &judge); /* this group, and others whose dead were not gone before */
    arena_drop(arena, slot);
}

void group_close(shm_group *group)
{
    const group_header *header = group->header;

    group_seal_member(group, group->rank);
    extent_end_posts(group->arena, header->communicator, header->slot[group->rank], NULL, 0);
    group_leave(group);
}
