/* slot.c - see slot.h. */
#include "slot.h"

#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include "locality.h"
#include "process.h"

uint64_t slot_pid_namespace(void)
{
    struct stat st;

    return stat("/proc/self/ns/pid", &st) == 0 ? (uint64_t)st.st_ino : 0;
}

void slot_sign_in(arena_slot *slot)
{
    cpu_set_t cpus;

    slot->pid = (uint32_t)getpid();
    slot->pid_namespace = slot_pid_namespace();
    slot->start_ticks = process_start_ticks(slot->pid);
    if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0) {
        for (size_t cpu = 0; cpu < SHM_CPU_WORDS * 64 && cpu < CPU_SETSIZE; cpu++)
            if (CPU_ISSET(cpu, &cpus))
                slot->cpus[cpu / 64] |= UINT64_C(1) << (cpu % 64);
        slot->domain = serry_locality(&cpus, "/sys/devices/system");
    }
    atomic_store_explicit(&slot->state, SLOT_ALIVE, memory_order_seq_cst);
}

void slot_begin_dead(arena_slot *slot)
{
    atomic_store_explicit(&slot->state, SLOT_DEAD, memory_order_relaxed);
}

bool slot_is_alive(const arena_slot *slot)
{
    return atomic_load_explicit(&slot->state, memory_order_acquire) == SLOT_ALIVE;
}

bool slot_is_free(const arena_slot *slot)
{
    return atomic_load_explicit(&slot->state, memory_order_acquire) == SLOT_FREE;
}

bool slot_process_is_gone(const arena_slot *slot)
{
    return slot->pid_namespace == slot_pid_namespace() &&
           process_activity(slot->pid, slot->start_ticks) == SERRY_GONE;
}

bool slot_can_be_seen(const arena_slot *slot)
{
    return slot->start_ticks != 0 && slot->pid_namespace != 0 &&
           slot->pid_namespace == slot_pid_namespace();
}

/* The threads of a process run on for a moment when its life lock has told already. What a thread rank
 * leaves behind, another thread of its process may still finalize. An absent rank never was. */
bool slot_is_gone(const arena_slot *slot, serry_kind_of_rank kind)
{
    if (slot_is_dead(slot) && slot->pid == 0)
        return true;
    return kind == SERRY_PROCESSES && slot_is_dead(slot) && slot_process_is_gone(slot);
}

static bool move(arena_slot *slot, uint32_t from, uint32_t to)
{
    return atomic_compare_exchange_strong_explicit(&slot->state, &from, to, memory_order_seq_cst,
                                                   memory_order_seq_cst);
}

void slot_leave(arena_slot *slot)
{
    move(slot, SLOT_ALIVE, SLOT_LEFT);
}

bool slot_bury(arena_slot *slot)
{
    return move(slot, SLOT_ALIVE, SLOT_DEAD) || slot_is_dead(slot);
}

bool slot_has_left(const arena_slot *slot)
{
    return atomic_load_explicit(&slot->state, memory_order_seq_cst) == SLOT_LEFT;
}

bool slot_is_dead(const arena_slot *slot)
{
    return atomic_load_explicit(&slot->state, memory_order_seq_cst) == SLOT_DEAD;
}
