/* info.c - `serry info`: what this machine offers to ranks. */
#include <hwloc.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <serry/serry.h>

#include "tool.h"

enum { LABEL_WIDTH = 22 };

/* What docker gives a container that asks for nothing is 64 MiB; training wants more. */
static const uint64_t k_shm_small = UINT64_C(1) << 30;

static const char k_doc[] = "Show what this machine offers to ranks: processors, caches and NUMA "
                            "nodes, shared memory, what "
                            "the kernel has and permits, and limits."
                            "\v"
                            "Example:\n"
                            "  serry info";

/* A line of the table. An empty label continues the line above. */
static void row(const char *label, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void row(const char *label, const char *format, ...)
{
    va_list arguments;

    printf("%-*s ", LABEL_WIDTH, label);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

static const char *plural(unsigned count)
{
    return count == 1 ? "" : "s";
}

/* "32 KiB", "1.5 MiB"; writes into text and returns it. */
static const char *bytes_text(uint64_t bytes, char *text, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 1024 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1024;
        unit++;
    }
    snprintf(text, size, "%.*f %s", value < 10 && value > (double)(int)value ? 1 : 0, value,
             units[unit]);
    return text;
}

/* ---- processors -------------------------------------------------------------------------- */

static void show_affinity(void)
{
    cpu_set_t mask;

    if (sched_getaffinity(0, sizeof mask, &mask) != 0)
        row("processors usable", "cannot be read");
    else
        row("processors usable", "%d (affinity mask of this process)", CPU_COUNT(&mask));
}

static void show_objects(hwloc_topology_t topology)
{
    int packages = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PACKAGE);
    int cores = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
    int threads = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU);

    if (packages > 0)
        row("packages", "%d", packages);
    if (cores > 0)
        row("cores", "%d", cores);
    row("hardware threads", "%d", threads);
}

static void show_nodes(hwloc_topology_t topology)
{
    int nodes = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE);

    for (int i = 0; i < nodes; i++) {
        hwloc_obj_t node = hwloc_get_obj_by_type(topology, HWLOC_OBJ_NUMANODE, (unsigned)i);
        int cores = hwloc_get_nbobjs_inside_cpuset_by_type(topology, node->cpuset, HWLOC_OBJ_CORE);
        char label[32], memory[32];

        snprintf(label, sizeof label, "NUMA node %u", node->os_index);
        row(label, "%d core%s, %s", cores, plural((unsigned)cores),
            bytes_text(node->attr->numanode.local_memory, memory, sizeof memory));
    }
}

/* Two caches of one level stand in one line if size and number of sharers agree. */
static bool alike(hwloc_obj_t a, hwloc_obj_t b)
{
    return a->attr->cache.size == b->attr->cache.size &&
           hwloc_bitmap_weight(a->cpuset) == hwloc_bitmap_weight(b->cpuset);
}

/* One line for each sort of cache of a level; machines with large and small cores have two. */
static void show_cache_level(hwloc_topology_t topology, hwloc_obj_type_t type)
{
    int caches = hwloc_get_nbobjs_by_type(topology, type);

    for (int i = 0; i < caches; i++) {
        hwloc_obj_t cache = hwloc_get_obj_by_type(topology, type, (unsigned)i);
        int sharers = hwloc_bitmap_weight(cache->cpuset);
        unsigned same = 0;
        bool shown = false;
        char label[32], name[16], size[32];

        for (int j = 0; j < caches; j++) {
            hwloc_obj_t other = hwloc_get_obj_by_type(topology, type, (unsigned)j);

            shown = shown || (j < i && alike(cache, other));
            same += alike(cache, other);
        }
        if (shown)
            continue;
        hwloc_obj_type_snprintf(name, sizeof name, cache, 0);
        snprintf(label, sizeof label, "cache %s", name);
        row(label, "%u x %s, each for %d hardware thread%s", same,
            bytes_text(cache->attr->cache.size, size, sizeof size), sharers,
            plural((unsigned)sharers));
    }
}

static void show_topology(void)
{
    hwloc_topology_t topology;

    if (hwloc_topology_init(&topology) != 0)
        return;
    if (hwloc_topology_load(topology) != 0) {
        row("cores", "hwloc cannot read this machine's topology");
    } else {
        if (!hwloc_topology_is_thissystem(topology))
            row("machine shown", "a simulated one: hwloc was told so in the environment");
        show_objects(topology);
        show_nodes(topology);
        for (int type = HWLOC_OBJ_L1CACHE; type <= HWLOC_OBJ_L5CACHE; type++)
            show_cache_level(topology, (hwloc_obj_type_t)type);
    }
    hwloc_topology_destroy(topology);
}

/* ---- memory and limits ------------------------------------------------------------------- */

static void show_shm(void)
{
    struct statvfs shm;
    char size[32], used[32], room[32];
    uint64_t total, available;

    if (statvfs("/dev/shm", &shm) != 0) {
        row("/dev/shm", "not there; the arena is a memfd then");
        return;
    }
    total = (uint64_t)shm.f_blocks * shm.f_frsize;
    available = (uint64_t)shm.f_bavail * shm.f_frsize;
    row("/dev/shm", "%s, %s used, %s free", bytes_text(total, size, sizeof size),
        bytes_text(total - (uint64_t)shm.f_bfree * shm.f_frsize, used, sizeof used),
        bytes_text(available, room, sizeof room));
    if (total < k_shm_small) {
        row("", "small: in a container give --shm-size=8g (docker, podman),");
        row("", "elsewhere mount -o remount,size=8G /dev/shm");
    }
}

/* "always within_size [never]": the word in brackets holds. */
static void show_huge_pages(void)
{
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "re");
    char text[128] = "", *word;

    if (file != NULL) {
        if (fgets(text, sizeof text, file) == NULL)
            text[0] = '\0';
        fclose(file);
    }
    word = strchr(text, '[');
    if (word == NULL) {
        row("huge pages for shm", "this kernel does not say");
        return;
    }
    word[strcspn(word, "]")] = '\0';
    row("huge pages for shm", "%s (transparent_hugepage/shmem_enabled)", word + 1);
}

static const char *limit_text(rlim_t limit, char *text, size_t size)
{
    if (limit == RLIM_INFINITY)
        snprintf(text, size, "unlimited");
    else
        snprintf(text, size, "%llu", (unsigned long long)limit);
    return text;
}

static void show_limit(const char *label, __rlimit_resource_t resource, const char *option)
{
    struct rlimit limit;
    char soft[32], hard[32];

    if (getrlimit(resource, &limit) != 0)
        return;
    row(label, "%s, can be raised to %s (ulimit %s)", limit_text(limit.rlim_cur, soft, sizeof soft),
        limit_text(limit.rlim_max, hard, sizeof hard), option);
}

/* ---- all --------------------------------------------------------------------------------- */

static void show_feature(const char *label, char *(*probe)(char *text, size_t size))
{
    char text[160];

    row(label, "%s", probe(text, sizeof text));
}

int tool_info(int argc, char **argv)
{
    struct utsname system;

    tool_no_arguments(argc, argv, k_doc);
    row("serry", "%s", serry_version());
    if (uname(&system) == 0) {
        row("kernel", "%s %s", system.sysname, system.release);
        row("machine", "%s", system.machine);
    }
    show_affinity();
    show_topology();
    show_shm();
    show_huge_pages();
    show_feature("memfd", info_probe_memfd);
    show_feature("process descriptors", info_probe_pidfd);
    show_feature("futex_waitv", info_probe_futex_waitv);
    show_feature("process_vm_readv", info_probe_vm_readv);
    show_limit("open files", RLIMIT_NOFILE, "-n");
    show_limit("processes", RLIMIT_NPROC, "-u");
    return 0;
}
