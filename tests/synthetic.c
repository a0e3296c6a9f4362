/* synthetic.c - see synthetic.h. */
#include "synthetic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

hwloc_topology_t synthetic_load(const char *description)
{
    hwloc_topology_t topology;

    assert_int_equal(hwloc_topology_init(&topology), 0);
    if (description != NULL)
        assert_int_equal(hwloc_topology_set_synthetic(topology, description), 0);
    assert_int_equal(hwloc_topology_load(topology), 0);
    return topology;
}

static hwloc_obj_t node_of(hwloc_topology_t topology, unsigned cpu)
{
    hwloc_obj_t node = NULL;

    while ((node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node)) != NULL)
        if (hwloc_bitmap_isset(node->cpuset, cpu))
            return node;
    return NULL;
}

static hwloc_obj_t cache_of(hwloc_topology_t topology, unsigned cpu)
{
    hwloc_obj_t pu = hwloc_get_pu_obj_by_os_index(topology, cpu);

    return hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_L3CACHE, pu);
}

uint32_t synthetic_domain(hwloc_topology_t topology, unsigned cpu)
{
    hwloc_obj_t cache = cache_of(topology, cpu), node = node_of(topology, cpu);
    hwloc_bitmap_t both = hwloc_bitmap_alloc_full();
    uint32_t domain = 0;

    if (cache != NULL)
        hwloc_bitmap_and(both, both, cache->cpuset);
    if (node != NULL)
        hwloc_bitmap_and(both, both, node->cpuset);
    if (cache != NULL || node != NULL)
        domain = (uint32_t)hwloc_bitmap_first(both) + 1;
    hwloc_bitmap_free(both);
    return domain;
}

void synthetic_domains(const char *description, uint32_t *domain, int cpus)
{
    hwloc_topology_t topology = synthetic_load(description);

    assert_int_equal(hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU), cpus);
    for (int cpu = 0; cpu < cpus; cpu++)
        domain[cpu] = synthetic_domain(topology, (unsigned)cpu);
    hwloc_topology_destroy(topology);
}

/* ---- files ------------------------------------------------------------------------------------ */

/* Makes the folders on its way; text NULL: the last one is a folder, too. */
static void put(const char *folder, const char *name, const char *text)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/%s%s", folder, name, text == NULL ? "/" : "");
    for (char *slash = path + strlen(folder) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = text == NULL ? NULL : fopen(path, "w");
    assert_true(text == NULL || file != NULL);
    if (file != NULL) {
        fprintf(file, "%s\n", text);
        fclose(file);
    }
}

/* A cache of level `index`. */
static void put_cache(const char *folder, unsigned cpu, unsigned index, const char *cpus)
{
    char name[128], level[16];

    snprintf(level, sizeof(level), "%u", index + 1);
    snprintf(name, sizeof(name), "cpu/cpu%u/cache/index%u/level", cpu, index);
    put(folder, name, level);
    snprintf(name, sizeof(name), "cpu/cpu%u/cache/index%u/shared_cpu_list", cpu, index);
    put(folder, name, cpus);
}

static void put_cpu(hwloc_topology_t topology, const char *folder, unsigned cpu)
{
    hwloc_obj_t cache = cache_of(topology, cpu), node = node_of(topology, cpu);
    char cpus[1024], name[128];

    snprintf(cpus, sizeof(cpus), "%u", cpu);
    put_cache(folder, cpu, 0, cpus);
    put_cache(folder, cpu, 1, cpus);
    if (cache != NULL) {
        hwloc_bitmap_list_snprintf(cpus, sizeof(cpus), cache->cpuset);
        put_cache(folder, cpu, 2, cpus);
    }
    if (node == NULL)
        return;
    hwloc_bitmap_list_snprintf(cpus, sizeof(cpus), node->cpuset);
    snprintf(name, sizeof(name), "node/node%u/cpulist", node->os_index);
    put(folder, name, cpus);
    snprintf(name, sizeof(name), "cpu/cpu%u/node%u", cpu, node->os_index);
    put(folder, name, NULL);
}

void synthetic_write(hwloc_topology_t topology, const char *folder)
{
    hwloc_obj_t pu = NULL;

    while ((pu = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PU, pu)) != NULL)
        put_cpu(topology, folder, pu->os_index);
}
