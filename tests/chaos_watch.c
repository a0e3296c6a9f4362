/* chaos_watch.c - where everybody is, when something has gone wrong, and what is left behind; see
 * chaos.h. */
#include "chaos.h"

#include <dirent.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- where they are ----------------------------------------------------------------------------- */

static void show_file(const char *directory, const char *thread, const char *name)
{
    char path[320], line[256];

    snprintf(path, sizeof(path), "%s/%s/%s", directory, thread, name);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return;
    while (fgets(line, sizeof(line), file) != NULL)
        fprintf(stderr, "      %s %s: %s%s", thread, name, line,
                strchr(line, '\n') == NULL ? "\n" : "");
    fclose(file);
}

static void show_threads(pid_t pid)
{
    char directory[64];

    snprintf(directory, sizeof(directory), "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(directory);
    for (struct dirent *e = tasks == NULL ? NULL : readdir(tasks); e != NULL; e = readdir(tasks))
        if (e->d_name[0] != '.') {
            show_file(directory, e->d_name, "wchan");
            show_file(directory, e->d_name, "stack");
        }
    if (tasks != NULL)
        closedir(tasks);
}

/* In user space too, where a debugger is at hand. */
static void show_frames(pid_t pid)
{
    char command[160];

    snprintf(command, sizeof(command),
             "command -v gdb >/dev/null && timeout 20 gdb -p %d -batch -ex 'thread apply all bt' "
             "2>/dev/null | grep -E '^(#|Thread)' >&2",
             (int)pid);
    if (system(command) != 0) // NOLINT(cert-env33-c)
        fprintf(stderr, "      (no frames)\n");
}

void chaos_describe(const chaos_control *c)
{
    for (int r = 0; r < c->job.size; r++) {
        const chaos_seat *seat = &c->job.board->seat[r];
        const chaos_process *p = &c->process[r];
        fprintf(stderr,
                "rank %d, process %d, incarnation %u (doomed %u, admitted %u, elder %u)%s: %s\n", r,
                (int)p->pid, seat->incarnation, seat->doomed, seat->admitted, seat->elder,
                p->go_on_ns != 0 ? ", stopped" : "", seat->where);
        if (p->pid == 0)
            continue;
        show_threads(p->pid);
        show_frames(p->pid);
    }
}

/* ---- what is left ------------------------------------------------------------------------------- */

static uint64_t bytes_of_arena(pid_t pid)
{
    char path[64], target[256];
    struct stat status;
    uint64_t most = 0;

    for (int fd = 3; fd < 32; fd++) { /* it is one of the first */
        snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
        ssize_t length = readlink(path, target, sizeof(target) - 1);
        target[length < 0 ? 0 : length] = 0;
        if ((strstr(target, "/dev/shm/") != NULL || strstr(target, "/memfd:") != NULL) &&
            stat(path, &status) == 0 && (uint64_t)status.st_blocks * 512 > most)
            most = (uint64_t)status.st_blocks * 512;
    }
    return most;
}

/* Memory that the arena of the job takes; 0: nobody knows. */
uint64_t chaos_arena_bytes(const chaos_control *c)
{
    for (int r = 0; r < c->job.size; r++) {
        const chaos_seat *seat = &c->job.board->seat[r];
        if (c->process[r].pid == 0 || seat->admitted != seat->incarnation)
            continue;
        uint64_t bytes = bytes_of_arena(c->process[r].pid);
        if (bytes != 0)
            return bytes;
    }
    return 0;
}

/* Files of ours in /dev/shm. */
size_t chaos_files(void)
{
    glob_t found;
    size_t count = glob("/dev/shm/*serry*", 0, NULL, &found) == 0 ? found.gl_pathc : 0;

    globfree(&found);
    return count;
}
