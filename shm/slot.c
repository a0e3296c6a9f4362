/* slot.c - see slot.h. */
#include "slot.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct process_stat {
    char state; /* 'Z': it has ended, and its parent has not looked yet */
    long threads;
    unsigned long long start_ticks;
} process_stat;

/* False: there is no such process, or it cannot be seen. */
static bool read_stat(uint32_t pid, process_stat *stat)
{
    char path[32], line[1024];

    snprintf(path, sizeof(path), "/proc/%u/stat", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    /* The command name may hold anything, so fields are counted from its end: the state is the 3rd,
     * threads the 20th, starttime the 22nd. */
    const char *at = fgets(line, sizeof(line), file) != NULL ? strrchr(line, ')') : NULL;
    fclose(file);
    if (at == NULL || sscanf(at + 1, " %c", &stat->state) != 1)
        return false;
    for (int field = 2; at != NULL && field < 20; field++)
        at = strchr(at + 1, ' ');
    return at != NULL && sscanf(at, " %ld %*s %llu", &stat->threads, &stat->start_ticks) == 2;
}

uint64_t slot_start_ticks(uint32_t pid)
{
    process_stat stat;

    return read_stat(pid, &stat) ? stat.start_ticks : 0;
}

/* With all its threads. */
static bool has_ended(const arena_slot *slot)
{
    process_stat stat;

    if (!read_stat(slot->pid, &stat))
        return access("/proc/self/stat", R_OK) == 0;
    return stat.start_ticks != slot->start_ticks || (stat.state == 'Z' && stat.threads <= 1);
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
    atomic_store_explicit(&slot->state, SLOT_ALIVE, memory_order_seq_cst);
}

bool slot_is_alive(const arena_slot *slot)
{
    return atomic_load_explicit(&slot->state, memory_order_acquire) == SLOT_ALIVE;
}

bool slot_is_free(const arena_slot *slot)
{
    return atomic_load_explicit(&slot->state, memory_order_acquire) == SLOT_FREE;
}

/* The threads of a process run on for a moment when its life lock has told already. What a thread rank
 * leaves behind, another thread of its process may still finalize. */
bool slot_is_gone(const arena_slot *slot, serry_kind_of_rank kind)
{
    return kind == SERRY_PROCESSES && slot_is_dead(slot) &&
           slot->pid_namespace == slot_pid_namespace() && has_ended(slot);
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
