/* locality.c - see locality.h. A domain is named by the least of its CPUs. Second-level caches do not
 * count, since a core rarely shares its own with others; where the kernel knows of no third level the
 * NUMA node is the domain.
 *
 * hwloc would tell the same: it reads the same files, and all others, which takes milliseconds of each
 * rank's start and one more library in every program. The tests compare the two. */
#include "locality.h"

#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define LEAST_LEVEL 3 /* of a cache that makes a domain */

static int first_cpu(const cpu_set_t *set)
{
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET((size_t)cpu, set))
            return cpu;
    return -1;
}

/* A list as in "0-7,64-71". */
static bool read_list(const char *path, cpu_set_t *set)
{
    FILE *file = fopen(path, "re");
    int first, last;
    char next;

    if (file == NULL)
        return false;
    CPU_ZERO(set);
    do {
        if (fscanf(file, "%d", &first) != 1)
            break;
        if (fscanf(file, "-%d", &last) != 1)
            last = first;
        for (int cpu = first; cpu <= last && cpu >= 0 && cpu < CPU_SETSIZE; cpu++)
            CPU_SET((size_t)cpu, set);
    } while (fscanf(file, "%c", &next) == 1 && next == ',');
    fclose(file);
    return CPU_COUNT(set) > 0;
}

static int read_number(const char *path)
{
    FILE *file = fopen(path, "re");
    int number = -1;

    if (file != NULL && fscanf(file, "%d", &number) != 1)
        number = -1;
    if (file != NULL)
        fclose(file);
    return number;
}

/* The CPUs that share the last cache of one. */
static bool find_cache(const char *system, int cpu, cpu_set_t *set)
{
    char path[PATH_MAX];
    int level = 0, best = -1, deepest = LEAST_LEVEL - 1;

    for (int i = 0; level >= 0; i++) {
        snprintf(path, sizeof(path), "%s/cpu/cpu%d/cache/index%d/level", system, cpu, i);
        level = read_number(path);
        if (level > deepest) {
            deepest = level;
            best = i;
        }
    }
    snprintf(path, sizeof(path), "%s/cpu/cpu%d/cache/index%d/shared_cpu_list", system, cpu, best);
    return best >= 0 && read_list(path, set);
}

/* The CPUs of the NUMA node of one: its folder has an entry "node<number>". */
static bool find_node(const char *system, int cpu, cpu_set_t *set)
{
    char path[PATH_MAX];
    int node = -1;

    snprintf(path, sizeof(path), "%s/cpu/cpu%d", system, cpu);
    DIR *folder = opendir(path);
    if (folder == NULL)
        return false;
    for (struct dirent *entry; node < 0 && (entry = readdir(folder)) != NULL;)
        if (sscanf(entry->d_name, "node%d", &node) != 1)
            node = -1;
    closedir(folder);
    snprintf(path, sizeof(path), "%s/node/node%d/cpulist", system, node);
    return node >= 0 && read_list(path, set);
}

uint32_t serry_locality(const cpu_set_t *mask, const char *system)
{
    cpu_set_t domain, node, inside;
    int cpu = first_cpu(mask);

    if (cpu < 0)
        return 0;
    bool cached = find_cache(system, cpu, &domain), placed = find_node(system, cpu, &node);
    if (cached && placed)
        CPU_AND(&domain, &domain, &node);
    else if (placed)
        domain = node;
    else if (!cached)
        return 0;
    CPU_AND(&inside, mask, &domain);
    return CPU_EQUAL(&inside, mask) ? (uint32_t)first_cpu(&domain) + 1 : 0;
}
