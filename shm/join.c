/* join.c - see arena.h: how an arena is made, mapped, held and left. joining.c says in what order. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "arena.h"
#include "cores.h"
#include "crash.h"
#include "extent.h"
#include "group.h"
#include "heap.h"
#include "lifeline.h"
#include "local.h"
#include "message.h"
#include "monitor.h"
#include "openmp.h"
#include "record.h"
#include "rendezvous.h"
#include "segment.h"
#include "slot.h"
#include "word.h"

/* Arenas that are mapped in this process: thread ranks find the one that another thread has mapped. */
static pthread_mutex_t arenas_lock = PTHREAD_MUTEX_INITIALIZER;
static shm_arena *arenas;

/* The child of a fork has no mapping (segment_map), must not hold the memory by a descriptor, and
 * may join jobs of its own. */
static void before_fork(void)
{
    pthread_mutex_lock(&arenas_lock);
}

static void parent_after_fork(void)
{
    pthread_mutex_unlock(&arenas_lock);
}

static void child_after_fork(void)
{
    crash_forget_all();
    while (arenas != NULL) {
        shm_arena *next = arenas->next;
        close(arenas->fd);
        monitor_forget(arenas->monitor);
        heap_forget(arenas->heap);
        free(arenas);
        arenas = next;
    }
    pthread_mutex_unlock(&arenas_lock);
}

static void watch(void)
{
    pthread_atfork(before_fork, parent_after_fork, child_after_fork);
}

void arena_watch_forks(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, watch);
}

static uint64_t whole_pages(uint64_t bytes)
{
    return (bytes + SHM_PAGE - 1) / SHM_PAGE * SHM_PAGE;
}

void arena_hold(shm_arena *arena, int slot)
{
    pthread_mutex_lock(&arenas_lock);
    arena->members++;
    arena->members_of[slot]++;
    pthread_mutex_unlock(&arenas_lock);
}

bool arena_is_last(shm_arena *arena, int slot)
{
    pthread_mutex_lock(&arenas_lock);
    bool last = arena->members_of[slot] == 1;
    pthread_mutex_unlock(&arenas_lock);
    return last;
}

static void unmap(shm_arena *arena)
{
    if (arena->monitor != NULL)
        monitor_stop(arena->monitor);
    if (arena->base != NULL)
        munmap(arena->base, arena->bytes);
    heap_close(arena->heap);
    close(arena->fd);
    free(arena);
}

/* In this order: first the others must know that it is no failure. */
static void leave(shm_arena *arena, int slot)
{
    if (arena->slots == NULL)
        return;
    slot_leave(&arena->slots[slot]);
    if (arena->kind == SERRY_THREADS)
        lifeline_let_go(&arena->slots[slot].life);
    else
        crash_forget(&arena->slots[slot]);
}

void arena_drop(shm_arena *arena, int slot)
{
    pthread_mutex_lock(&arenas_lock);
    if (slot >= 0 && --arena->members_of[slot] == 0)
        leave(arena, slot);
    bool last = --arena->members == 0;
    if (last) {
        shm_arena **at = &arenas;
        while (*at != arena)
            at = &(*at)->next;
        *at = arena->next;
    }
    pthread_mutex_unlock(&arenas_lock);
    if (last)
        unmap(arena);
}

/* Map a segment and put it on the list. Takes over fd, also on failure. */
static shm_arena *map_new(const serry_job *job, const arena_ticket *ticket, int fd,
                          serry_error *error)
{
    shm_arena *arena = calloc(1, sizeof(*arena));

    if (arena == NULL) {
        close(fd);
        serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory while joining the job");
        return NULL;
    }
    arena->fd = fd;
    arena->kind = job->kind;
    arena->bytes = ticket->total_bytes;
    serry_local_key(job->name, arena->job);
    memcpy(arena->key, ticket->key, sizeof(arena->key));
    arena->base = segment_map(fd, arena->bytes, error);
    if (arena->base == NULL) {
        unmap(arena);
        return NULL;
    }
    arena->header = (arena_header *)(void *)arena->base;
    arena->heap = job->kind == SERRY_PROCESSES ? heap_open() : NULL;
    arena->next = arenas;
    arenas = arena;
    return arena;
}

/* The mapping of a segment in this process, or a new one, held once more. Takes over fd. */
static shm_arena *map_or_find(const serry_job *job, const arena_ticket *ticket, int fd,
                              serry_error *error)
{
    pthread_mutex_lock(&arenas_lock);
    shm_arena *arena = job->kind == SERRY_THREADS ? arenas : NULL;
    while (arena != NULL && memcmp(arena->key, ticket->key, sizeof(arena->key)) != 0)
        arena = arena->next;
    if (arena != NULL)
        close(fd);
    else
        arena = map_new(job, ticket, fd, error);
    if (arena != NULL)
        arena->members++;
    pthread_mutex_unlock(&arenas_lock);
    return arena;
}

/* What is held so far without a slot is from now on held for this one. */
static void hold_for(shm_arena *arena, int slot)
{
    pthread_mutex_lock(&arenas_lock);
    arena->members_of[slot]++;
    pthread_mutex_unlock(&arenas_lock);
}

static void locate(shm_arena *arena)
{
    arena->slots = (arena_slot *)(void *)(arena->base + arena->header->slots_offset);
    arena->extents = (arena_extent *)(void *)(arena->base + arena->header->extents_offset);
}

/* ---- the first rank makes it ------------------------------------------------------------------ */

#define POOL_WANTED (UINT64_C(1) << 30) /* where /dev/shm has less for the pool, a memfd has more */

typedef struct arena_plan {
    uint64_t slots, extents, world, pool, total;
} arena_plan;

static arena_plan plan_arena(const serry_job *job)
{
    arena_plan p;

    p.extents = SHM_PAGE;
    p.world = p.extents + whole_pages(SHM_EXTENTS * sizeof(arena_extent));
    p.slots = p.world + group_bytes(job->size);
    p.pool = p.slots + whole_pages(SHM_SLOTS * sizeof(arena_slot));
    p.total = p.pool + whole_pages(job->pool_bytes);
    return p;
}

/* The members of the world, and who is none any more from the beginning. */
static void fill(shm_arena *arena, const serry_job *job)
{
    arena_header *header = arena->header;
    group_plan world = {.size = job->size, .policy = job->policy};

    for (int i = 0; i < job->size; i++) {
        world.slot[i] = (uint16_t)i;
        if (serry_rank_set_has(&job->absent, i))
            slot_begin_dead(&arena->slots[i]);
        else
            group_plan_member(&world, i, i);
        atomic_store_explicit(&header->holder[i], (uint32_t)i, memory_order_relaxed);
    }
    group_format(arena, header->world_offset, &world);
}

static int format(shm_arena *arena, const serry_job *job, const arena_plan *p, serry_error *error)
{
    arena_header *header = arena->header;
    uint64_t slots = (uint64_t)job->size * sizeof(arena_slot);
    int rc = segment_reserve(arena->fd, 0, p->world + GROUP_HEADER_BYTES, "the arena", error);

    if (rc == SERRY_OK)
        rc = segment_reserve(arena->fd, p->slots, whole_pages(slots), "the arena", error);
    if (rc == SERRY_OK)
        rc = extent_init(header, error);
    if (rc != SERRY_OK)
        return rc;
    header->total_bytes = p->total;
    memcpy(header->key, arena->key, sizeof(header->key));
    header->ranks = (uint32_t)job->size;
    header->kind = job->kind;
    header->slots_offset = p->slots;
    header->extents_offset = p->extents;
    header->world_offset = p->world;
    header->pool_offset = p->pool;
    header->pool_bytes = p->total - p->pool;
    locate(arena);
    fill(arena, job);
    atomic_store_explicit(&header->slots, (uint32_t)job->size, memory_order_relaxed);
    atomic_store_explicit(&header->world, p->world, memory_order_relaxed);
    atomic_store_explicit(&header->layout, SHM_LAYOUT, memory_order_release);
    return SERRY_OK;
}

shm_arena *arena_make(const serry_job *job, arena_ticket *ticket, serry_error *error)
{
    arena_plan plan = plan_arena(job);
    uint64_t pool = plan.total - plan.pool;
    uint64_t needed = plan.slots + whole_pages((uint64_t)job->size * sizeof(arena_slot));
    uint64_t wanted = needed + (pool < POOL_WANTED ? pool : POOL_WANTED);
    shm_arena *arena = NULL;
    int fd;

    ticket->total_bytes = plan.total;
    if (getrandom(ticket->key, sizeof(ticket->key), 0) != (ssize_t)sizeof(ticket->key)) {
        serry_fail_errno(error, errno, "cannot get random bytes for the arena's key");
        return NULL;
    }
    if (segment_create(plan.total, needed, wanted, &fd, error) != SERRY_OK)
        return NULL;
    pthread_mutex_lock(&arenas_lock);
    arena = map_new(job, ticket, fd, error);
    if (arena != NULL)
        arena->members++;
    pthread_mutex_unlock(&arenas_lock);
    if (arena != NULL && format(arena, job, &plan, error) != SERRY_OK) {
        arena_drop(arena, -1);
        return NULL;
    }
    return arena;
}

/* ---- every rank ------------------------------------------------------------------------------ */

/* Trust nothing before it has been compared. */
static int check(shm_arena *arena, const serry_job *job, const arena_ticket *ticket,
                 serry_error *error)
{
    const arena_header *h = arena->header;
    arena_plan p = plan_arena(job);

    if (atomic_load_explicit(&h->layout, memory_order_acquire) != SHM_LAYOUT)
        return serry_fail(error, SERRY_ERR_LAYOUT,
                          "the arena of job \"%s\" was made by an "
                          "incompatible build of serry",
                          job->name);
    if (h->total_bytes != ticket->total_bytes || h->ranks != (uint32_t)job->size ||
        h->kind != (uint32_t)job->kind || memcmp(h->key, ticket->key, sizeof(h->key)) != 0 ||
        h->slots_offset != p.slots || h->extents_offset != p.extents ||
        h->world_offset != p.world || h->pool_offset != p.pool || h->total_bytes < p.pool ||
        h->pool_bytes != h->total_bytes - p.pool)
        return serry_fail(error, SERRY_ERR_ARENA,
                          "the arena of job \"%s\" is not what its first rank says "
                          "it made",
                          job->name);
    return SERRY_OK;
}

/* Processors that the living ranks may use together. */
static int all_cores(const shm_arena *arena, int *living)
{
    cpu_set_t all;

    *living = 0;
    CPU_ZERO(&all);
    for (int s = 0; s < arena_slots_used(arena); s++) {
        if (!slot_is_alive(&arena->slots[s]))
            continue;
        ++*living;
        for (size_t w = 0; w < SHM_CPU_WORDS; w++)
            for (uint64_t bits = arena->slots[s].cpus[w]; bits != 0; bits &= bits - 1)
                CPU_SET(w * 64 + (size_t)__builtin_ctzll(bits), &all);
    }
    return serry_cores(&all);
}

/* Ranks that are bound each to a core of its own have together as many cores as ranks. */
wait_plan arena_plan_waiting(const shm_arena *arena)
{
    int living, cores = all_cores(arena, &living);

    return wait_plan_for(living, cores);
}

/* Bound ranks have their own cores, others an equal part of those that all may use. */
void arena_choose_team(shm_arena *arena, const serry_job *job)
{
    cpu_set_t own;
    int living, share;

    if (job->team != SERRY_TEAM_OPENMP)
        return;
    share = all_cores(arena, &living) / job->size; /* some may have left again by now */
    if (sched_getaffinity(0, sizeof(own), &own) == 0 && serry_cores(&own) < share)
        share = serry_cores(&own);
    atomic_store_explicit(&arena->team, openmp_threads(share), memory_order_relaxed);
}

/* One monitor a process: among thread ranks the first one that comes here starts it. */
static int have_monitor(shm_arena *arena, int slot, serry_error *error)
{
    pthread_mutex_lock(&arenas_lock);
    if (arena->monitor == NULL)
        arena->monitor = monitor_start(arena, arena->kind == SERRY_THREADS ? -1 : slot, error);
    pthread_mutex_unlock(&arenas_lock);
    return arena->monitor == NULL ? error->error : SERRY_OK;
}

int arena_sign_in(shm_arena *arena, int number, bool alone, serry_error *error)
{
    arena_slot *slot = &arena->slots[number];
    int rc = lifeline_init(&slot->life, error);

    if (rc == SERRY_OK && arena->kind == SERRY_THREADS)
        rc = lifeline_hold(&slot->life, error);
    if (rc == SERRY_OK && !alone)
        rc = have_monitor(arena, number, error);
    if (rc != SERRY_OK)
        return rc;
    atomic_store_explicit(&slot->heap, heap_tell(arena->heap), memory_order_relaxed);
    slot_sign_in(slot);
    hold_for(arena, number);
    if (arena->kind == SERRY_PROCESSES)
        crash_mark(slot);
    return SERRY_OK;
}

shm_arena *arena_map(const serry_job *job, const arena_ticket *ticket, int fd, serry_error *error)
{
    if (segment_check(fd, ticket->total_bytes, error) != SERRY_OK) {
        close(fd);
        return NULL;
    }
    shm_arena *arena = map_or_find(job, ticket, fd, error);
    if (arena != NULL && check(arena, job, ticket, error) != SERRY_OK) {
        arena_drop(arena, -1);
        return NULL;
    }
    if (arena != NULL && arena->slots == NULL) /* else another thread has done it */
        locate(arena);
    return arena;
}
