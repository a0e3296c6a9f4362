/* bind.c - where each rank may run: one core each, or the cores of one NUMA node each. */
#include <errno.h>
#include <hwloc.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

struct run_binding {
    hwloc_topology_t topology;
    int places;              /* cores or nodes that this process may use, at least 1 */
    hwloc_cpuset_t *cpusets; /* one per place */
};

static bool load_topology(hwloc_topology_t *topology)
{
    if (hwloc_topology_init(topology) != 0)
        return false;
    if (hwloc_topology_load(*topology) == 0)
        return true;
    hwloc_topology_destroy(*topology);
    return false;
}

/* The processors given to this process; a simulated machine gives all of them. */
static hwloc_cpuset_t own_cpuset(hwloc_topology_t topology)
{
    hwloc_cpuset_t set = hwloc_bitmap_alloc();

    if (set != NULL &&
        (hwloc_get_cpubind(topology, set, HWLOC_CPUBIND_PROCESS) != 0 || hwloc_bitmap_iszero(set)))
        hwloc_bitmap_copy(set, hwloc_topology_get_allowed_cpuset(topology));
    return set;
}

/* Keep, of each object of a kind, the processors that are ours; objects with none are no place. */
static bool collect_places(run_binding *binding, hwloc_obj_type_t type, hwloc_const_cpuset_t own)
{
    int depth = hwloc_get_type_or_below_depth(binding->topology, type);
    unsigned objects = hwloc_get_nbobjs_by_depth(binding->topology, depth);

    binding->cpusets = calloc(objects, sizeof(hwloc_cpuset_t));
    for (unsigned i = 0; binding->cpusets != NULL && i < objects; i++) {
        hwloc_obj_t object = hwloc_get_obj_by_depth(binding->topology, depth, i);
        hwloc_cpuset_t set = hwloc_bitmap_alloc();

        if (set == NULL)
            return false;
        hwloc_bitmap_and(set, object->cpuset, own);
        if (hwloc_bitmap_iszero(set))
            hwloc_bitmap_free(set);
        else
            binding->cpusets[binding->places++] = set;
    }
    return binding->places > 0;
}

static bool find_places(run_binding *binding, run_bind kind)
{
    hwloc_cpuset_t own = own_cpuset(binding->topology);
    bool found =
        own != NULL &&
        collect_places(binding, kind == RUN_BIND_CORE ? HWLOC_OBJ_CORE : HWLOC_OBJ_NUMANODE, own);

    hwloc_bitmap_free(own);
    return found;
}

bool run_binding_make(run_bind kind, int ranks, run_binding **result)
{
    run_binding *binding;

    *result = NULL;
    if (kind == RUN_BIND_NONE)
        return true;
    binding = calloc(1, sizeof *binding);
    if (binding == NULL || !load_topology(&binding->topology)) {
        free(binding);
        run_say("cannot learn this machine's cores from hwloc; use --bind none");
        return false;
    }
    if (!find_places(binding, kind)) {
        run_binding_free(binding);
        run_say("hwloc finds no cores that may be used here; use --bind none");
        return false;
    }
    if (kind == RUN_BIND_CORE && ranks > binding->places)
        run_say("warning: %d ranks on %d %s: ranks share cores and will be slow", ranks,
                binding->places, binding->places == 1 ? "core" : "cores");
    *result = binding;
    return true;
}

void run_binding_free(run_binding *binding)
{
    if (binding == NULL)
        return;
    for (int i = 0; i < binding->places; i++)
        hwloc_bitmap_free(binding->cpusets[i]);
    free(binding->cpusets);
    hwloc_topology_destroy(binding->topology);
    free(binding);
}

int run_binding_apply(const run_binding *binding, int rank)
{
    hwloc_const_cpuset_t set = binding->cpusets[rank % binding->places];

    return hwloc_set_cpubind(binding->topology, set, HWLOC_CPUBIND_PROCESS) == 0 ? 0 : errno;
}
