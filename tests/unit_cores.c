/* unit_cores.c - quotas of control groups, in trees of files made for each test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cores.h"

/* The folder of a test. Its files "cgroup" and "mountinfo" stand for those of /proc/self; what is
 * mounted lies in folders beside them. */
static char g_folder[] = "/tmp/serry-cores-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    memset(g_folder + strlen(g_folder) - 6, 'X', 6);
    return mkdtemp(g_folder) == NULL;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status, (void)type, (void)where;
    return remove(path);
}

static int remove_folder(void **state)
{
    (void)state;
    return nftw(g_folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* Writes a file below the folder and makes the folders on its way. Every '@' in the text stands for
 * the folder. */
static void put(const char *name, const char *text)
{
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", g_folder, name);
    for (char *slash = path + strlen(g_folder) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (; *text != '\0'; text++) {
        if (*text == '@')
            fputs(g_folder, file);
        else
            fputc(*text, file);
    }
    fclose(file);
}

static int quota(void)
{
    char cgroup[PATH_MAX], mountinfo[PATH_MAX];
    snprintf(cgroup, sizeof(cgroup), "%s/cgroup", g_folder);
    snprintf(mountinfo, sizeof(mountinfo), "%s/mountinfo", g_folder);
    return serry_cores_quota(cgroup, mountinfo);
}

#define V2_MOUNT "30 23 0:26 / @/v2 rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1_MOUNT "33 30 0:30 / @/v1 rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n"

/* ---- version 2 ---------------------------------------------------------------------------- */

static void v2_quota_of_the_own_group(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int cores;
    } cases[] = {
        {"200000 100000\n", 2},   {"100000 100000\n", 1}, {"150000 100000\n", 2},
        {"50000 100000\n", 1},    {"100001 100000\n", 2}, {"max 100000\n", INT_MAX},
        {"6400000 100000\n", 64}, {"30000 10000\n", 3},   {"9000000000000000 1\n", INT_MAX},
        {"junk\n", INT_MAX},      {"", INT_MAX},          {"100000 0\n", INT_MAX},
    };
    put("cgroup", "0::/user/job\n");
    put("mountinfo", "23 1 8:1 / / rw - ext4 /dev/sda1 rw\n" V2_MOUNT);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        put("v2/user/job/cpu.max", cases[i].text);
        assert_int_equal(quota(), cases[i].cores);
    }
}

static void v2_smallest_quota_on_the_way_up(void **state)
{
    (void)state;
    put("cgroup", "0::/a/b/c\n");
    put("mountinfo", V2_MOUNT);
    put("v2/a/b/c/cpu.max", "max 100000\n");
    assert_int_equal(quota(), INT_MAX);
    put("v2/a/cpu.max", "300000 100000\n");
    assert_int_equal(quota(), 3);
    put("v2/a/b/cpu.max", "500000 100000\n");
    assert_int_equal(quota(), 3);
    put("v2/cpu.max", "200000 100000\n"); /* a container's root has one */
    assert_int_equal(quota(), 2);
    put("cpu.max", "100000 100000\n"); /* above the mount: none of ours */
    put("v2/a/b/c/d/cpu.max", "100000 100000\n");
    put("v2/a/x/cpu.max", "100000 100000\n");
    assert_int_equal(quota(), 2);
}

static void v2_in_a_container_the_mount_is_the_group(void **state)
{
    (void)state;
    put("cgroup", "0::/\n");
    put("mountinfo", V2_MOUNT);
    put("v2/cpu.max", "400000 100000\n");
    assert_int_equal(quota(), 4);
}

static void v2_mount_of_a_part_of_the_tree(void **state)
{
    (void)state;
    put("mountinfo", "30 23 0:26 /docker/abc @/v2 rw - cgroup2 cgroup2 rw\n");
    put("v2/cpu.max", "400000 100000\n");
    put("v2/sub/cpu.max", "300000 100000\n");
    put("cgroup", "0::/docker/abc\n");
    assert_int_equal(quota(), 4);
    put("cgroup", "0::/docker/abc/sub\n");
    assert_int_equal(quota(), 3);
    put("cgroup", "0::/docker/abcd\n"); /* another group, not shown here */
    assert_int_equal(quota(), INT_MAX);
    put("cgroup", "0::/\n");
    assert_int_equal(quota(), INT_MAX);
}

static void v2_groups_outside_of_the_namespace(void **state)
{
    (void)state;
    put("cgroup", "0::/../other\n");
    put("mountinfo", V2_MOUNT);
    put("v2/cpu.max", "400000 100000\n");
    put("other/cpu.max", "100000 100000\n");
    assert_int_equal(quota(), INT_MAX);
    put("mountinfo", "30 23 0:26 /.. @/v2 rw - cgroup2 cgroup2 rw\n");
    put("v2/other/cpu.max", "300000 100000\n");
    assert_int_equal(quota(), 3);
}

static void v2_mount_points_may_hold_blanks(void **state)
{
    (void)state;
    put("cgroup", "0::/job one\n");
    put("mountinfo", "30 23 0:26 / @/v\\0402 rw - cgroup2 cgroup2 rw\n");
    put("v 2/job one/cpu.max", "200000 100000\n");
    assert_int_equal(quota(), 2);
}

/* ---- version 1 ---------------------------------------------------------------------------- */

static void v1_quota_and_period(void **state)
{
    (void)state;
    put("cgroup", "5:cpuset:/set\n4:cpu,cpuacct:/user/job\n1:name=systemd:/x\n");
    put("mountinfo", V1_MOUNT "34 30 0:31 / @/cpuset rw - cgroup cgroup rw,cpuset\n");
    put("v1/user/job/cpu.cfs_quota_us", "-1\n");
    put("v1/user/job/cpu.cfs_period_us", "100000\n");
    assert_int_equal(quota(), INT_MAX);
    put("v1/user/job/cpu.cfs_quota_us", "250000\n");
    assert_int_equal(quota(), 3);
    put("v1/user/cpu.cfs_quota_us", "20000\n");
    assert_int_equal(quota(), 3); /* no period, no limit */
    put("v1/user/cpu.cfs_period_us", "10000\n");
    assert_int_equal(quota(), 2);
    put("cpuset/set/cpu.cfs_quota_us", "100000\n");
    put("cpuset/set/cpu.cfs_period_us", "100000\n");
    assert_int_equal(quota(), 2);
}

static void v1_controllers_are_whole_words(void **state)
{
    (void)state;
    put("cgroup", "3:cpuacct:/a\n2:cpuset:/a\n1:cpu:/b\n");
    put("mountinfo", "33 30 0:30 / @/acct rw - cgroup cgroup rw,cpuacct\n"
                     "34 30 0:31 / @/cpu rw - cgroup cgroup rw,cpu\n");
    put("acct/a/cpu.cfs_quota_us", "100000\n");
    put("acct/a/cpu.cfs_period_us", "100000\n");
    put("cpu/b/cpu.cfs_quota_us", "300000\n");
    put("cpu/b/cpu.cfs_period_us", "100000\n");
    put("cpu/a/cpu.cfs_quota_us", "100000\n");
    put("cpu/a/cpu.cfs_period_us", "100000\n");
    assert_int_equal(quota(), 3);
}

static void v1_in_a_container_without_a_namespace(void **state)
{
    (void)state;
    put("cgroup", "4:cpu,cpuacct:/docker/abc\n");
    put("mountinfo", "33 30 0:30 /docker/abc @/v1 ro master:9 - cgroup cgroup rw,cpu,cpuacct\n");
    put("v1/cpu.cfs_quota_us", "200000\n");
    put("v1/cpu.cfs_period_us", "100000\n");
    assert_int_equal(quota(), 2);
}

/* ---- both, or neither --------------------------------------------------------------------- */

static void hybrid_trees_give_the_smaller(void **state)
{
    (void)state;
    put("cgroup", "4:cpu,cpuacct:/one\n0::/two\n");
    put("mountinfo", V1_MOUNT V2_MOUNT);
    put("v1/one/cpu.cfs_quota_us", "500000\n");
    put("v1/one/cpu.cfs_period_us", "100000\n");
    assert_int_equal(quota(), 5);
    put("v2/two/cpu.max", "300000 100000\n");
    assert_int_equal(quota(), 3);
    put("v1/one/cpu.cfs_quota_us", "200000\n");
    assert_int_equal(quota(), 2);
}

static void what_cannot_be_read_sets_no_limit(void **state)
{
    (void)state;
    assert_int_equal(quota(), INT_MAX);
    put("mountinfo", V2_MOUNT);
    assert_int_equal(quota(), INT_MAX);
    put("cgroup", "");
    assert_int_equal(quota(), INT_MAX);
    put("cgroup", "0::/gone\n");
    assert_int_equal(quota(), INT_MAX);
    put("cgroup", "0\n:\n::\n");
    put("mountinfo", "\n30\n30 23 0:26 /\n - \n - cgroup2\n30 23 0:26 / @ - cgroup2 c\nx x x x x - "
                     "cgroup2 cgroup2 rw");
    assert_int_equal(quota(), INT_MAX);
}

static void cores_are_those_of_the_mask_at_most(void **state)
{
    (void)state;
    cpu_set_t none, all;
    CPU_ZERO(&none);
    assert_int_equal(serry_cores(&none), 1);
    assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
    assert_in_range(serry_cores(&all), 1, CPU_COUNT(&all));

    int limit = serry_cores_quota("/proc/self/cgroup", "/proc/self/mountinfo");
    assert_int_equal(serry_cores(&all), limit < CPU_COUNT(&all) ? limit : CPU_COUNT(&all));
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        CASE(v2_quota_of_the_own_group),
        CASE(v2_smallest_quota_on_the_way_up),
        CASE(v2_in_a_container_the_mount_is_the_group),
        CASE(v2_mount_of_a_part_of_the_tree),
        CASE(v2_groups_outside_of_the_namespace),
        CASE(v2_mount_points_may_hold_blanks),
        CASE(v1_quota_and_period),
        CASE(v1_controllers_are_whole_words),
        CASE(v1_in_a_container_without_a_namespace),
        CASE(hybrid_trees_give_the_smaller),
        CASE(what_cannot_be_read_sets_no_limit),
        CASE(cores_are_those_of_the_mask_at_most),
    };
    return cmocka_run_group_tests_name("cores", tests, NULL, NULL);
}
