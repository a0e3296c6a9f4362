/* extent.c - see extent.h. First fit over a short table; a robust lock orders the writers.
 *
 * A rank may be killed while it holds the lock: the next one gets EOWNERDEAD and finds every entry
 * either free or taken (layout.h), so it only has to declare the lock consistent. What may be lost
 * is one extent without a user; it goes with the arena. */
#include "extent.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "heap.h"
#include "lifeline.h"
#include "record.h"
#include "segment.h"
#include "slot.h"
#include "wait.h"
#include "word.h"

#define KIB 1024
#define LOCK_NS UINT64_C(10000000000) /* a rank that holds the lock this long is stopped */
#define LOCK_BRIEFLY_NS UINT64_C(20000000)

typedef struct run {
    uint32_t page, pages;
} run;

int extent_init(arena_header *header, serry_error *error)
{
    return lifeline_init(&header->extents_lock, error);
}

/* A holder that is killed gives the lock up, one that is stopped does not. Nobody holds it for more
 * than a look through the table, so waiting for it is naps. */
static int lock_within(shm_arena *arena, uint64_t ns, serry_error *error)
{
    const struct timespec nap = {0, 20000};
    uint64_t until = wait_now_ns() + ns;
    int rc;

    while ((rc = pthread_mutex_trylock(&arena->header->extents_lock)) == EBUSY &&
           wait_now_ns() < until)
        nanosleep(&nap, NULL);
    if (rc == EOWNERDEAD)
        rc = pthread_mutex_consistent(&arena->header->extents_lock);
    if (rc == 0)
        return SERRY_OK;
    return serry_fail_errno(error, rc,
                            "cannot lock the pool of the arena; a rank that holds its lock "
                            "may be stopped");
}

static int lock(shm_arena *arena, serry_error *error)
{
    return lock_within(arena, LOCK_NS, error);
}

static void unlock(shm_arena *arena)
{
    pthread_mutex_unlock(&arena->header->extents_lock);
}

static bool is_taken(const arena_extent *e)
{
    return atomic_load_explicit(&e->state, memory_order_acquire) != EXTENT_FREE;
}

/* Entries to look through. */
static uint32_t used(const shm_arena *arena)
{
    uint32_t count = atomic_load_explicit(&arena->header->extents_used, memory_order_relaxed);

    return count < SHM_EXTENTS ? count : SHM_EXTENTS;
}

static int by_page(const void *a, const void *b)
{
    uint32_t x = ((const run *)a)->page, y = ((const run *)b)->page;

    return (x > y) - (x < y);
}

/* First page of `pages` free pages in a row; UINT32_MAX: no such run. *entry is a free place in the
 * table, NULL where it is full. */
static uint32_t find_gap(shm_arena *arena, uint64_t pages, arena_extent **entry)
{
    run taken[SHM_EXTENTS];
    size_t count = 0;
    uint64_t next = 0, limit = arena->header->pool_bytes / SHM_PAGE;

    *entry = NULL;
    for (uint32_t i = 0; i < used(arena); i++) {
        arena_extent *e = &arena->extents[i];
        if (is_taken(e))
            taken[count++] = (run){e->page, e->pages};
        else if (*entry == NULL)
            *entry = e;
    }
    if (*entry == NULL && used(arena) < SHM_EXTENTS)
        *entry = &arena->extents[used(arena)];
    qsort(taken, count, sizeof(taken[0]), by_page);
    for (size_t i = 0; i < count; i++) {
        if (taken[i].page >= next && taken[i].page - next >= pages)
            return (uint32_t)next;
        if ((uint64_t)taken[i].page + taken[i].pages > next)
            next = (uint64_t)taken[i].page + taken[i].pages;
    }
    return next <= limit && limit - next >= pages ? (uint32_t)next : UINT32_MAX;
}

static int take_locked(shm_arena *arena, uint32_t owner, const extent_post *post, uint64_t pages,
                       uint64_t *offset, serry_error *error)
{
    arena_extent *entry;
    uint32_t page = find_gap(arena, pages, &entry);

    if (entry == NULL)
        return serry_fail(
            error, SERRY_ERR_NO_SPACE,
            "the arena holds %u allocations, and that is the most; allocate fewer and "
            "larger pieces",
            SHM_EXTENTS);
    if (page == UINT32_MAX)
        return serry_fail(error, SERRY_ERR_NO_SPACE,
                          "no %" PRIu64 " KiB in a row are free in the arena's pool of %" PRIu64
                          " KiB; give it more with SERRY_POOL (or pool_bytes)",
                          pages * SHM_PAGE / KIB, arena->header->pool_bytes / KIB);
    *offset = arena->header->pool_offset + (uint64_t)page * SHM_PAGE;
    if (owner == EXTENT_OF_GROUP) {
        int rc = segment_reserve(arena->fd, *offset, SHM_PAGE, "a new communicator", error);
        if (rc != SERRY_OK)
            return rc;
    }
    if ((uint32_t)(entry - arena->extents) == used(arena))
        atomic_store_explicit(&arena->header->extents_used, used(arena) + 1, memory_order_relaxed);
    entry->page = page;
    entry->pages = (uint32_t)pages;
    entry->owner = owner;
    if (post != NULL) {
        entry->communicator = post->communicator;
        entry->source = post->source;
        entry->dest = post->dest;
    }
    atomic_store_explicit(&entry->state, EXTENT_TAKEN, memory_order_release);
    return SERRY_OK;
}

static int reserve_or_give(shm_arena *arena, uint32_t owner, uint64_t offset, uint64_t bytes,
                           serry_error *error)
{
    int rc = segment_reserve(arena->fd, offset, bytes, "the allocation", error);

    if (rc != SERRY_OK)
        extent_give(arena, owner, offset, &bytes);
    return rc;
}

int extent_take(shm_arena *arena, uint32_t owner, uint64_t bytes, bool reserve, uint64_t *offset,
                serry_error *error)
{
    uint64_t pages = bytes / SHM_PAGE + (bytes % SHM_PAGE != 0);
    int rc = lock(arena, error);

    if (rc != SERRY_OK)
        return rc;
    pages = pages == 0 ? 1 : pages;
    rc = take_locked(arena, owner, NULL, pages, offset, error);
    unlock(arena);
    if (rc != SERRY_OK || !reserve)
        return rc;
    return reserve_or_give(arena, owner, *offset, pages * SHM_PAGE, error);
}

/* Whoever leaves seals its word before it looks for messages, under the lock, so one of both sees the
 * other. */
int extent_take_post(shm_arena *arena, const extent_post *post, const _Atomic uint64_t *dest,
                     uint64_t bytes, uint64_t *offset, serry_error *error)
{
    uint64_t pages = bytes / SHM_PAGE + (bytes % SHM_PAGE != 0);
    int rc = SERRY_ERR_RANK_FAILED;

    if (lock_within(arena, LOCK_BRIEFLY_NS, NULL) != SERRY_OK)
        return SERRY_ERR_AGAIN;
    if ((atomic_load_explicit(dest, memory_order_seq_cst) & WORD_SEALED) == 0)
        rc = take_locked(arena, EXTENT_OF_MESSAGES, post, pages, offset, error);
    unlock(arena);
    if (rc != SERRY_OK)
        return rc;
    return reserve_or_give(arena, EXTENT_OF_MESSAGES, *offset, pages * SHM_PAGE, error);
}

static bool is_among(const uint16_t *slots, int count, uint32_t slot)
{
    for (int i = 0; i < count; i++)
        if (slots[i] == slot)
            return true;
    return false;
}

void extent_end_posts(shm_arena *arena, uint32_t communicator, uint32_t slot, const uint16_t *stay,
                      int stays)
{
    if (lock(arena, NULL) != SERRY_OK)
        return; /* the end of the job, or of the slot's rank, will do */
    for (uint32_t i = 0; i < used(arena); i++) {
        arena_extent *e = &arena->extents[i];
        uint32_t done = 0;
        if (!is_taken(e) || e->owner != EXTENT_OF_MESSAGES || e->communicator != communicator)
            continue;
        if (e->source == slot && !is_among(stay, stays, e->dest))
            done |= EXTENT_SOURCE_DONE;
        if (e->dest == slot && !is_among(stay, stays, e->source))
            done |= EXTENT_DEST_DONE;
        atomic_fetch_or_explicit(&e->state, done, memory_order_release);
    }
    unlock(arena);
}

/* The memory goes first: nobody else can take the pages until the entry is free. */
static void give(shm_arena *arena, arena_extent *e)
{
    segment_release(arena->fd, arena->header->pool_offset + (uint64_t)e->page * SHM_PAGE,
                    (uint64_t)e->pages * SHM_PAGE);
    atomic_store_explicit(&e->state, EXTENT_FREE, memory_order_release);
}

#define ANY_PAGE UINT64_MAX

/* An extent of `owner`, at that page of the pool. Call with the lock held. */
static arena_extent *find(shm_arena *arena, uint32_t owner, uint64_t page)
{
    for (uint32_t i = 0; i < used(arena); i++) {
        arena_extent *e = &arena->extents[i];
        if (is_taken(e) && e->owner == owner && (page == ANY_PAGE || e->page == page))
            return e;
    }
    return NULL;
}

static bool give_one(shm_arena *arena, uint32_t owner, uint64_t page, uint64_t *bytes)
{
    if (lock(arena, NULL) != SERRY_OK)
        return false;
    arena_extent *found = find(arena, owner, page);
    if (found != NULL)
        *bytes = (uint64_t)found->pages * SHM_PAGE;
    if (found != NULL && owner == EXTENT_OF_GROUP)
        give(arena, found); /* while nobody visits it */
    unlock(arena);
    if (found != NULL && owner != EXTENT_OF_GROUP)
        give(arena, found); /* may take long; only its owner gives it */
    return found != NULL;
}

bool extent_give(shm_arena *arena, uint32_t owner, uint64_t offset, uint64_t *bytes)
{
    if (offset < arena->header->pool_offset || offset % SHM_PAGE != 0)
        return false;
    return give_one(arena, owner, (offset - arena->header->pool_offset) / SHM_PAGE, bytes);
}

void extent_entrust(shm_arena *arena, uint32_t owner, uint64_t offset, uint32_t communicator)
{
    if (lock(arena, NULL) != SERRY_OK)
        return; /* it is given back with its owner's others */
    arena_extent *e = find(arena, owner, (offset - arena->header->pool_offset) / SHM_PAGE);
    if (e != NULL) {
        e->communicator = communicator;
        e->owner = EXTENT_OF_COMMUNICATOR;
    }
    unlock(arena);
}

void extent_give_all(shm_arena *arena, uint32_t owner)
{
    uint64_t bytes;

    while (give_one(arena, owner, ANY_PAGE, &bytes))
        ;
}

static uint64_t offset_of(const shm_arena *arena, const arena_extent *e)
{
    return arena->header->pool_offset + (uint64_t)e->page * SHM_PAGE;
}

static bool is_group(const arena_extent *e)
{
    return is_taken(e) && e->owner == EXTENT_OF_GROUP;
}

/* Is a slot a member of any group? The first world is in no extent. */
static bool is_member(shm_arena *arena, uint32_t slot, const extent_judge *judge)
{
    if (judge->has_member(arena, arena->header->world_offset, slot))
        return true;
    for (uint32_t i = 0; i < used(arena); i++)
        if (is_group(&arena->extents[i]) &&
            judge->has_member(arena, offset_of(arena, &arena->extents[i]), slot))
            return true;
    return false;
}

/* Has a communicator a group that somebody may use? */
static bool is_used(shm_arena *arena, uint32_t communicator, const extent_judge *judge)
{
    uint64_t world = arena->header->world_offset;

    if (judge->is_of(arena, world, communicator) && !judge->is_unused(arena, world))
        return true;
    for (uint32_t i = 0; i < used(arena); i++)
        if (is_group(&arena->extents[i]) &&
            judge->is_of(arena, offset_of(arena, &arena->extents[i]), communicator))
            return true; /* the unused ones have been given back */
    return false;
}

/* Is this end of it done, or its rank gone? */
static bool is_done(shm_arena *arena, uint32_t state, uint32_t bit, uint32_t slot,
                    const extent_judge *judge)
{
    return (state & bit) != 0 || slot >= SHM_SLOTS || slot_has_left(&arena->slots[slot]) ||
           judge->is_gone(arena, slot);
}

static bool is_over(shm_arena *arena, const arena_extent *e, const extent_judge *judge)
{
    uint32_t state = atomic_load_explicit(&e->state, memory_order_relaxed);
    uint32_t both = EXTENT_SOURCE_DONE | EXTENT_DEST_DONE;

    if (!is_taken(e) || e->owner != EXTENT_OF_MESSAGES)
        return false;
    if ((state & both) == 0 && slot_is_alive(&arena->slots[e->source % SHM_SLOTS]))
        return false; /* asking after the dead is dear */
    return is_done(arena, state, EXTENT_DEST_DONE, e->dest, judge) &&
           is_done(arena, state, EXTENT_SOURCE_DONE, e->source, judge);
}

/* The slices of the job's heap, by the rule of the extents: their ranks are gone, and members of nothing.
 * One that has left in order has its heap until its process ends. */
static void give_heaps(shm_arena *arena, const extent_judge *judge)
{
    if (arena->heap == NULL)
        return;
    for (int s = 0; s < arena_slots_used(arena); s++) {
        arena_slot *slot = &arena->slots[s];
        if (atomic_load_explicit(&slot->heap, memory_order_relaxed) != 0 && !slot_is_alive(slot) &&
            slot_process_is_gone(slot) && !is_member(arena, (uint32_t)s, judge))
            heap_give_back(arena, (uint32_t)s);
    }
}

void extent_sweep(shm_arena *arena, const extent_judge *judge)
{
    if (lock(arena, NULL) != SERRY_OK)
        return;
    for (uint32_t i = 0; i < used(arena); i++)
        if (is_group(&arena->extents[i]) &&
            judge->is_unused(arena, offset_of(arena, &arena->extents[i])))
            give(arena, &arena->extents[i]);
    for (uint32_t i = 0; i < used(arena); i++) {
        arena_extent *e = &arena->extents[i];
        if (is_taken(e) && e->owner < SHM_SLOTS &&
            (judge->is_gone(arena, e->owner) || slot_has_left(&arena->slots[e->owner])) &&
            !is_member(arena, e->owner, judge))
            give(arena, e);
    }
    for (uint32_t i = 0; i < used(arena); i++) {
        arena_extent *e = &arena->extents[i];
        if (is_taken(e) && e->owner == EXTENT_OF_COMMUNICATOR &&
            !is_used(arena, e->communicator, judge))
            give(arena, e);
    }
    for (uint32_t i = 0; i < used(arena); i++)
        if (is_over(arena, &arena->extents[i], judge))
            give(arena, &arena->extents[i]);
    give_heaps(arena, judge);
    unlock(arena);
}

bool extent_locked(shm_arena *arena, void (*visit)(shm_arena *arena, void *argument),
                   void *argument)
{
    if (lock(arena, NULL) != SERRY_OK)
        return false;
    visit(arena, argument);
    unlock(arena);
    return true;
}

bool extent_each_group(shm_arena *arena,
                       void (*visit)(shm_arena *arena, uint64_t offset, void *argument),
                       void *argument)
{
    if (lock_within(arena, LOCK_BRIEFLY_NS, NULL) != SERRY_OK)
        return false;
    for (uint32_t i = 0; i < used(arena); i++) {
        const arena_extent *e = &arena->extents[i];
        if (is_taken(e) && e->owner == EXTENT_OF_GROUP)
            visit(arena, arena->header->pool_offset + (uint64_t)e->page * SHM_PAGE, argument);
    }
    unlock(arena);
    return true;
}
