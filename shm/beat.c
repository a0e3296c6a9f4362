/* beat.c - see beat.h. */
#include "beat.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "slot.h"

static void give(arena_slot *slot, uint32_t giver, uint64_t next_ns)
{
    atomic_store_explicit(&slot->beat_giver, giver, memory_order_relaxed);
    atomic_store_explicit(&slot->next_beat_ns, next_ns, memory_order_release);
}

void beat_give(shm_arena *arena, int slot)
{
    uint32_t giver = (uint32_t)syscall(SYS_gettid);
    uint64_t next_ns = wait_now_ns() + BEAT_NS;

    if (slot >= 0) {
        give(&arena->slots[slot], giver, next_ns);
        return;
    }
    for (int s = 0; s < arena_slots_used(arena); s++)
        if (slot_is_alive(&arena->slots[s]))
            give(&arena->slots[s], giver, next_ns);
}

uint64_t beat_seen(const arena_slot *slot, uint64_t now_ns)
{
    uint64_t next_ns = atomic_load_explicit(&slot->next_beat_ns, memory_order_acquire);

    return next_ns < now_ns ? next_ns : now_ns;
}

uint32_t beat_giver(const arena_slot *slot)
{
    return atomic_load_explicit(&slot->beat_giver, memory_order_relaxed);
}
