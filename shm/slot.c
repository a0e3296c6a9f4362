/* slot.c - see slot.h. */
#include "slot.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

uint64_t slot_start_ticks(uint32_t pid)
{
    char path[32], line[1024];
    unsigned long long ticks = 0;

    snprintf(path, sizeof(path), "/proc/%u/stat", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    /* The command name may hold anything, so fields are counted from its end: starttime is 22nd. */
    const char *at = fgets(line, sizeof(line), file) != NULL ? strrchr(line, ')') : NULL;
    fclose(file);
    for (int field = 2; at != NULL && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at != NULL && sscanf(at, " %llu", &ticks) == 1 ? ticks : 0;
}

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
    slot->start_ticks = slot_start_ticks(slot->pid);
    if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
        for (size_t cpu = 0; cpu < SHM_CPU_WORDS * 64 && cpu < CPU_SETSIZE; cpu++)
            if (CPU_ISSET(cpu, &cpus))
                slot->cpus[cpu / 64] |= UINT64_C(1) << (cpu % 64);
    atomic_store_explicit(&slot->state, SLOT_ALIVE, memory_order_release);
}

static bool move(arena_slot *slot, uint32_t from, uint32_t to)
{
    return atomic_compare_exchange_strong_explicit(&slot->state, &from, to, memory_order_acq_rel,
                                                   memory_order_acquire);
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
    return atomic_load_explicit(&slot->state, memory_order_acquire) == SLOT_LEFT;
}

bool slot_is_dead(const arena_slot *slot)
{
    return atomic_load_explicit(&slot->state, memory_order_acquire) == SLOT_DEAD;
}
