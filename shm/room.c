/* room.c - see room.h. Off the way of operations, but for room_offer and room_begun, which cost large
 * ones a few instructions while nobody is lost. */
#include "room.h"

#include "extent.h"
#include "operation.h"
#include "slot.h"

/* A larger one is given back when it is not needed. */
#define ROOM_KEPT ((uint64_t)64 << 20)
#define ROOM_UNIT ((uint64_t)64 << 10)

static uint32_t own_slot(const shm_member *m)
{
    return m->group.header->slot[m->group.rank];
}

/* Nobody reads it; or: somebody may, so it stays until the communicator has no member any more. */
static void let_go(shm_member *m, uint64_t offset)
{
    uint64_t bytes;

    if (m->room.lost_count == 0)
        extent_give(m->group.arena, own_slot(m), offset, &bytes);
    else
        extent_entrust(m->group.arena, own_slot(m), offset, m->group.header->communicator);
}

uint64_t room_front(const shm_member *m)
{
    return m->group.size <= ROOM_FEW ? 2 * ROOM_AHEAD : 0;
}

size_t room_ahead(const shm_member *m)
{
    return m->operations % 2 == 0 ? 2 * ROOM_AHEAD : ROOM_AHEAD;
}

void room_reserve(shm_member *m, uint64_t bytes)
{
    shm_room *room = &m->room;
    uint64_t wanted = (bytes + ROOM_UNIT - 1) / ROOM_UNIT * ROOM_UNIT, offset;

    if (bytes == 0 || (bytes <= room->bytes && (room->bytes <= ROOM_KEPT || bytes > ROOM_KEPT)))
        return;
    if (room->memory != NULL && room->outgrown == 0)
        room->outgrown = room->offset;
    else if (room->memory != NULL)
        let_go(m, room->offset); /* no operation has used it */
    room->memory = NULL;
    room->bytes = 0;
    if (extent_take(m->group.arena, own_slot(m), room_front(m) + wanted, true, &offset, NULL) !=
        SERRY_OK)
        return;
    room->memory = m->group.arena->base + offset + room_front(m);
    room->offset = offset;
    room->bytes = wanted;
}

/* A member that was lost: gone, or has it closed this communicator alone? */
static bool is_over(const shm_group *g, uint32_t lost)
{
    const arena_slot *slot = &g->arena->slots[lost];
    bool over = slot_has_left(slot) || slot_is_gone(slot, g->arena->kind);

    for (int r = 0; r < g->size && !over; r++)
        over = g->header->slot[r] == lost && group_has_left(g->header, r) != GROUP_STAYS;
    return over;
}

/* Forget those that cannot read any more. */
static void look_for_lost(shm_member *m)
{
    shm_room *room = &m->room;

    for (uint32_t s = 0; s < SHM_SLOTS && room->lost_count != 0; s++) {
        uint64_t bit = UINT64_C(1) << (s % 64);
        if ((room->lost[s / 64] & bit) == 0 || !is_over(&m->group, s))
            continue;
        room->lost[s / 64] &= ~bit;
        room->lost_count--;
    }
}

uint64_t room_offer(shm_member *m, uint64_t bytes)
{
    if (__builtin_expect(m->room.lost_count != 0, 0))
        look_for_lost(m);
    if (bytes > m->room.bytes || m->room.lost_count != 0)
        return 0;
    return m->room.memory == NULL ? 0 : m->room.offset + room_front(m);
}

void room_begun(shm_member *m)
{
    if (__builtin_expect(m->room.outgrown != 0, 0)) {
        let_go(m, m->room.outgrown);
        m->room.outgrown = 0;
    }
}

void room_lose(shm_member *m, int rank)
{
    shm_room *room = &m->room;

    if (room->memory == NULL && room->outgrown == 0)
        return; /* it has never read here */
    uint32_t slot = m->group.header->slot[rank] % SHM_SLOTS;
    uint64_t bit = UINT64_C(1) << (slot % 64);
    room->lost_count += (room->lost[slot / 64] & bit) == 0;
    room->lost[slot / 64] |= bit;
}

void room_close(shm_member *m)
{
    shm_room *room = &m->room;

    if (room->outgrown != 0)
        extent_entrust(m->group.arena, own_slot(m), room->outgrown, m->group.header->communicator);
    if (room->memory != NULL)
        extent_entrust(m->group.arena, own_slot(m), room->offset, m->group.header->communicator);
    *room = (shm_room){0};
}
