/* cores.c - how many processors the affinity mask and the control groups leave to this program. */

#include "cores.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A mounted hierarchy of control groups: the group `root` of it is the directory `point`. */
struct mount {
    char *root, *point;
    bool v2;
};

/* ---- reading the two lists ---------------------------------------------------------------- */

/* Is `word` one of the words in a list with commas? */
static bool list_has(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, word, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return true;
    }
    return false;
}

/* mountinfo writes blanks and the like as "\040"; put the characters back, in place. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from != '\0'; to++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' &&
            from[2] <= '7' && from[3] >= '0' && from[3] <= '7') {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

/* "36 25 0:31 ROOT POINT OPTIONS [TAGS...] - TYPE SOURCE OPTIONS": true if groups with the cpu
 * controller are mounted there. Points into the line, which it changes. */
static bool read_mount(char *line, struct mount *mount)
{
    char *save, *word[5] = {NULL};
    char *end = strstr(line, " - ");
    if (end == NULL)
        return false;
    *end = '\0';
    word[0] = strtok_r(line, " ", &save);
    for (int i = 1; i < 5 && word[i - 1] != NULL; i++)
        word[i] = strtok_r(NULL, " ", &save);

    char *type = strtok_r(end + 3, " ", &save);
    char *source = strtok_r(NULL, " ", &save);
    char *options = strtok_r(NULL, " \n", &save);
    if (word[4] == NULL || type == NULL || source == NULL || options == NULL)
        return false;

    mount->root = word[3];
    mount->point = word[4];
    mount->v2 = strcmp(type, "cgroup2") == 0;
    unescape(mount->root);
    unescape(mount->point);
    return mount->v2 || (strcmp(type, "cgroup") == 0 && list_has(options, "cpu"));
}

/* This process's own group in a hierarchy, from "0::/path" (v2) or "4:cpu,cpuacct:/path" (v1). To
 * be freed; NULL where it has none. */
static char *own_group(const char *proc_cgroup, bool v2)
{
    FILE *file = fopen(proc_cgroup, "re");
    if (file == NULL)
        return NULL;

    char *line = NULL, *group = NULL;
    size_t room = 0;
    while (group == NULL && getline(&line, &room, file) > 0) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *path = controllers == NULL ? NULL : strchr(controllers + 1, ':');
        if (path == NULL)
            continue;
        *path++ = '\0';
        controllers++;
        if (v2 ? *controllers == '\0' : list_has(controllers, "cpu"))
            group = strdup(path);
    }
    free(line);
    fclose(file);
    return group;
}

/* ---- reading quotas ----------------------------------------------------------------------- */

/* The first line of a file in a folder; false where there is none. */
static bool read_line(const char *folder, const char *name, char *line, int size)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
        return false;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    bool read = fgets(line, size, file) != NULL;
    fclose(file);
    return read;
}

/* The limit that one group itself sets; INT_MAX for none ("max 100000" in v2, -1 in v1). */
static int quota_of_group(const char *folder, bool v2)
{
    char line[64];
    long long quota, period;
    if (v2) {
        if (!read_line(folder, "cpu.max", line, sizeof(line)) ||
            sscanf(line, "%lld %lld", &quota, &period) != 2)
            return INT_MAX;
    } else {
        if (!read_line(folder, "cpu.cfs_quota_us", line, sizeof(line)) ||
            sscanf(line, "%lld", &quota) != 1 ||
            !read_line(folder, "cpu.cfs_period_us", line, sizeof(line)) ||
            sscanf(line, "%lld", &period) != 1)
            return INT_MAX;
    }
    if (quota <= 0 || period <= 0)
        return INT_MAX;
    long long cores = quota / period + (quota % period != 0);
    return cores < INT_MAX ? (int)cores : INT_MAX;
}

/* The smallest limit from `group` up to the root of the mount. INT_MAX for a group that the mount
 * does not show: beside its root, or outside of the namespace ("/../other"). */
static int quota_below(const struct mount *mount, const char *group)
{
    size_t skip = strcmp(mount->root, "/") == 0 ? 0 : strlen(mount->root);
    if (strncmp(group, mount->root, skip) != 0 || (group[skip] != '/' && group[skip] != '\0'))
        return INT_MAX;
    group += skip;

    char folder[PATH_MAX];
    int length = snprintf(folder, sizeof(folder), "%s%s", mount->point, group);
    if (strncmp(group, "/..", 3) == 0 || length >= (int)sizeof(folder))
        return INT_MAX;

    int smallest = INT_MAX;
    size_t top = strlen(mount->point);
    while (true) {
        int quota = quota_of_group(folder, mount->v2);
        smallest = quota < smallest ? quota : smallest;
        char *last = strrchr(folder, '/');
        if (last == NULL || last < folder + top)
            return smallest;
        *last = '\0';
    }
}

/* ---- for others --------------------------------------------------------------------------- */

int serry_cores_quota(const char *proc_cgroup, const char *mounts)
{
    FILE *file = fopen(mounts, "re");
    if (file == NULL)
        return INT_MAX;

    char *line = NULL;
    size_t room = 0;
    int smallest = INT_MAX;
    while (getline(&line, &room, file) > 0) {
        struct mount mount;
        if (!read_mount(line, &mount))
            continue;
        char *group = own_group(proc_cgroup, mount.v2);
        if (group != NULL) {
            int quota = quota_below(&mount, group);
            smallest = quota < smallest ? quota : smallest;
        }
        free(group);
    }
    free(line);
    fclose(file);
    return smallest;
}

int serry_cores(const cpu_set_t *mask)
{
    int cores = CPU_COUNT(mask);
    int quota = serry_cores_quota("/proc/self/cgroup", "/proc/self/mountinfo");
    cores = quota < cores ? quota : cores;
    return cores > 1 ? cores : 1;
}
