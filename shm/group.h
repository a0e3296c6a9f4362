/* group.h - a communicator's part of the arena: where each member's words and buffers lie. */
#ifndef SHM_GROUP_H
#define SHM_GROUP_H

#include "arena.h"

/* One member's view of a group. Constant after group_open. */
typedef struct shm_group {
    shm_arena *arena; /* held */
    uint64_t offset;  /* of the group in the arena */
    group_header *header;
    unsigned char *regions; /* of rank 0; the others follow */
    size_t region_bytes;
    size_t small_bytes, chunk_bytes;
    int rank, size;
    unsigned char
        *cells; /* the cell in use of rank 0, from which the others are as far as regions */
} shm_group;

/* Bytes of a group of `size` members. */
uint64_t group_bytes(int size);

/* What a new group begins with. */
typedef struct group_plan {
    int size;
    uint16_t slot[SERRY_MAX_RANKS]; /* of each member */
    serry_rank_set present;         /* members not known to have failed or left */
    serry_rank_set joined;          /* those of them that come as replacements */
    serry_policy policy;
    unsigned variant;
    uint32_t communicator;                    /* whose group it replaces; 0: a new one's */
    uint32_t parent, ordinal, version, parts; /* as in group_header */
    uint16_t origin[SERRY_MAX_RANKS];
    uint64_t operations, epoch, votes;
} group_plan;

/* A member that is present. */
void group_plan_member(group_plan *plan, int rank, int slot);

/* Bytes of its header, which the first member reserves and fills. The memory must be zero. */
#define GROUP_HEADER_BYTES SHM_PAGE
void group_format(shm_arena *arena, uint64_t offset, const group_plan *plan);

/* A member gives memory to its own region and touches it first. SERRY_ERR_NO_SPACE. */
int group_settle(shm_arena *arena, uint64_t offset, int size, int rank, serry_error *error);

/* Take part in a group that has been formatted; holds the arena. SERRY_ERR_ARENA where the header
 * cannot be right. */
int group_open(shm_group *group, shm_arena *arena, uint64_t offset, int size, int rank,
               serry_error *error);

/* The same group seen through its control cells, which carry SHM_INLINE bytes. Holds nothing. */
shm_group group_control(const shm_group *group);

/* The same, as somebody sees it who is no member. False: there is none. */
bool group_view(shm_arena *arena, uint64_t offset, shm_group *group);

/* Call all members, those that wait included. A greater call stays. */
void group_call_all(const shm_group *group, enum group_call call);

/* The same, by somebody who is no member: while the group cannot be given back. */
void group_call_at(shm_arena *arena, uint64_t offset, enum group_call call);

static inline enum group_call group_called(const shm_group *g)
{
    return atomic_load_explicit(&g->header->call, memory_order_relaxed);
}

/* Let all members that sleep on their bells look again. */
void group_ring_all(const shm_group *group);

/* Has the region of a member memory? */
static inline bool group_is_settled(const shm_group *g, int rank)
{
    return atomic_load_explicit(&g->header->settled[rank], memory_order_seq_cst) != 0;
}

static inline enum group_left group_has_left(const group_header *header, int rank)
{
    return atomic_load_explicit(&header->left[rank], memory_order_seq_cst);
}

/* Freeze the word of the member that is rank `slot` of the job, if there is one, and wake who sleeps
 * on it, or waits for messages. Nothing happens where there is no group yet. */
void group_seal_slot(shm_arena *arena, uint64_t offset, int slot);

/* Freeze the words of a member. */
void group_seal_member(const shm_group *group, int rank);

/* After a group was made: who died, or left, before it could be found there is sealed now. A death
 * that is found later is sealed in all groups there are. Both sides first write (settled; the slot's
 * state), then look at what the other writes, seq_cst, so one of them sees it. */
void group_seal_dead(const shm_group *group);

/* Leave: the word is sealed, so that the others know at their next operation, and no more messages will
 * be touched; who is the last gives the memory back. Drops the arena. */
void group_close(shm_group *group);

/* A member, or somebody for it, will not touch a group that it never entered. */
void group_abandon(shm_arena *arena, uint64_t offset, int rank);

/* The same without the seal: all members leave for another group. */
void group_leave(shm_group *group);

static inline unsigned char *group_region(const shm_group *g, int rank)
{
    return g->regions + (size_t)rank * g->region_bytes;
}

static inline group_cell *group_cell_of(const shm_group *g, int rank)
{
    return (group_cell *)(void *)(g->cells + (size_t)rank * g->region_bytes);
}

/* Whole lines at the end of a region, which begins with a page. */
static inline size_t group_mail_bytes(int size)
{
    size_t lines = ((size_t)size * sizeof(uint64_t) + SHM_LINE - 1) / SHM_LINE;

    return offsetof(group_mail, channel) + lines * SHM_LINE;
}

static inline group_mail *group_mail_of(const shm_group *g, int rank)
{
    return (group_mail *)(void *)(group_region(g, rank) + g->region_bytes -
                                  group_mail_bytes(g->size));
}

static inline size_t group_small_stride(const shm_group *g)
{
    return g->small_bytes + sizeof(group_batch);
}

static inline group_digest *group_digest_of(const shm_group *g, int rank, uint64_t step)
{
    return (group_digest *)(void *)group_mail_of(g, rank) - 2 + (step & 1);
}

/* The buffers of a member, after its cells: small, in (staged input), out (staged results). */
static inline unsigned char *group_small(const shm_group *g, int rank, uint64_t step)
{
    return group_region(g, rank) + CELLS * sizeof(group_cell) + (step & 1) * group_small_stride(g);
}

static inline unsigned char *group_in(const shm_group *g, int rank, uint64_t step)
{
    return group_region(g, rank) + CELLS * sizeof(group_cell) + 2 * group_small_stride(g) +
           (step & 1) * g->chunk_bytes;
}

static inline unsigned char *group_out(const shm_group *g, int rank, uint64_t step)
{
    return group_region(g, rank) + CELLS * sizeof(group_cell) + 2 * group_small_stride(g) +
           2 * g->chunk_bytes + (step & 1) * g->chunk_bytes;
}

#endif
