/* process.c - see process.h. */
#include "process.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct process_stat {
    char state; /* man 5 proc */
    long threads;
    unsigned long long start_ticks;
} process_stat;

/* The command name may hold anything, so fields are counted from its end: state is the 3rd. */
static bool read_stat(const char *path, process_stat *stat)
{
    char line[1024];
    FILE *file = fopen(path, "re");

    if (file == NULL)
        return false;
    const char *at = fgets(line, sizeof(line), file) != NULL ? strrchr(line, ')') : NULL;
    fclose(file);
    if (at == NULL || sscanf(at + 1, " %c", &stat->state) != 1)
        return false;
    for (int field = 2; at != NULL && field < 20; field++)
        at = strchr(at + 1, ' ');
    return at != NULL && sscanf(at, " %ld %*s %llu", &stat->threads, &stat->start_ticks) == 2;
}

uint64_t process_start_ticks(uint32_t pid)
{
    char path[32];
    process_stat stat;

    snprintf(path, sizeof(path), "/proc/%u/stat", pid);
    return read_stat(path, &stat) ? stat.start_ticks : 0;
}

/* /proc may have been mounted in another PID namespace, where numbers are others' */
static bool proc_is_ours(void)
{
    char self[16] = "";

    return readlink("/proc/self", self, sizeof(self) - 1) > 0 && atoi(self) == (int)getpid();
}

serry_activity process_activity(uint32_t pid, uint64_t start_ticks)
{
    char path[32];
    process_stat stat;

    if (start_ticks == 0 || !proc_is_ours())
        return SERRY_UNKNOWN;
    snprintf(path, sizeof(path), "/proc/%u/stat", pid);
    if (!read_stat(path, &stat))
        return access(path, F_OK) == 0 ? SERRY_UNKNOWN : SERRY_GONE;
    if (stat.start_ticks != start_ticks)
        return SERRY_GONE;
    switch (stat.state) {
    case 'Z': /* the first thread may have ended alone */
        return stat.threads > 1 ? SERRY_COMPUTING : SERRY_GONE;
    case 'X':
        return SERRY_GONE;
    case 'T':
        return SERRY_STOPPED;
    case 't':
        return SERRY_TRACED;
    case 'D': /* the older freezer shows itself like this, too */
        return SERRY_FROZEN;
    default:
        return SERRY_COMPUTING;
    }
}

/* Of the unified hierarchy: "0::/its/path". */
static bool find_group(uint32_t pid, char *group, size_t size)
{
    char path[32];
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%u/cgroup", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    while (!found && fgets(group, (int)size, file) != NULL)
        found = strncmp(group, "0::/", 4) == 0;
    fclose(file);
    if (found)
        memmove(group, group + 3, strcspn(group + 3, "\n") + 1);
    group[strcspn(group, "\n")] = 0;
    return found;
}

static bool says_frozen(const char *mount, const char *group)
{
    char path[1100], line[64];
    bool frozen = false;

    snprintf(path, sizeof(path), "%s%s/cgroup.events", mount, group);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    while (!frozen && fgets(line, sizeof(line), file) != NULL)
        frozen = strcmp(line, "frozen 1\n") == 0;
    fclose(file);
    return frozen;
}

serry_activity process_delay(uint32_t pid, uint32_t thread)
{
    char path[64], group[1024];
    process_stat stat;

    snprintf(path, sizeof(path), "/proc/%u/task/%u/stat", pid, thread);
    if (read_stat(path, &stat) && stat.state == 'R')
        return SERRY_STARVED;
    if (find_group(pid, group, sizeof(group)) &&
        (says_frozen("/sys/fs/cgroup", group) || says_frozen("/sys/fs/cgroup/unified", group)))
        return SERRY_FROZEN;
    return SERRY_COMPUTING;
}
