/* unit_locality.c - which processors are near each other, compared with hwloc: on machines that are not
 * there, in trees of files made for each, and on this one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "locality.h"
#include "synthetic.h"

#define REAL "/sys/devices/system"

static char g_folder[] = "/tmp/serry-locality-XXXXXX";

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status, (void)type, (void)where;
    return remove(path);
}

static uint32_t of_one(unsigned cpu, const char *system)
{
    cpu_set_t mask;

    CPU_ZERO(&mask);
    CPU_SET(cpu, &mask);
    return serry_locality(&mask, system);
}

static uint32_t of_two(unsigned cpu, unsigned other, const char *system)
{
    cpu_set_t mask;

    CPU_ZERO(&mask);
    CPU_SET(cpu, &mask);
    CPU_SET(other, &mask);
    return serry_locality(&mask, system);
}

/* Each processor, and each with the next one. */
static void compare(hwloc_topology_t topology, const char *system)
{
    hwloc_obj_t pu = NULL, next;

    while ((pu = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PU, pu)) != NULL) {
        uint32_t domain = synthetic_domain(topology, pu->os_index);
        assert_int_equal(of_one(pu->os_index, system), domain);
        next = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PU, pu);
        if (next != NULL) {
            bool same = synthetic_domain(topology, next->os_index) == domain;
            assert_int_equal(of_two(pu->os_index, next->os_index, system), same ? domain : 0);
        }
    }
}

static void domains_are_those_of_hwloc_on_synthetic_machines(void **state)
{
    (void)state;
    static const char *const machines[] = {
        "pack:2 [numa] l3:1 core:8 pu:1",
        "pack:8 [numa] l3:1 core:16 pu:1",
        "pack:2 [numa] l3:8 core:8 pu:1",                    /* several caches a node */
        "pack:2 l3:1 group:2 [numa] core:6 pu:2",            /* several nodes a cache */
        "pack:4 [numa] core:4 pu:1",                         /* no cache that is known of */
        "pack:2 [numa] l3:1 core:4 pu:1(indexes=pack:core)", /* processors numbered across */
        "l3:1 core:4 pu:1",
    };

    for (size_t i = 0; i < sizeof(machines) / sizeof(machines[0]); i++) {
        print_message("%s\n", machines[i]);
        hwloc_topology_t topology = synthetic_load(machines[i]);
        memset(g_folder + strlen(g_folder) - 6, 'X', 6);
        assert_non_null(mkdtemp(g_folder));
        synthetic_write(topology, g_folder);
        compare(topology, g_folder);
        nftw(g_folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
        hwloc_topology_destroy(topology);
    }
}

static void domains_are_those_of_hwloc_on_this_machine(void **state)
{
    (void)state;
    if (access(REAL "/cpu/cpu0/cache", R_OK) != 0 || access(REAL "/node/node0", R_OK) != 0)
        skip();
    hwloc_topology_t topology = synthetic_load(NULL);
    compare(topology, REAL);
    hwloc_topology_destroy(topology);
}

static void domain_is_unknown_where_the_kernel_tells_nothing(void **state)
{
    (void)state;
    cpu_set_t none;

    CPU_ZERO(&none);
    assert_int_equal(of_one(0, "/nowhere"), 0);
    assert_int_equal(serry_locality(&none, REAL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(domains_are_those_of_hwloc_on_synthetic_machines),
        cmocka_unit_test(domains_are_those_of_hwloc_on_this_machine),
        cmocka_unit_test(domain_is_unknown_where_the_kernel_tells_nothing),
    };

    return cmocka_run_group_tests_name("unit_locality", tests, NULL, NULL);
}
