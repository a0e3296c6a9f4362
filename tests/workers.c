/* workers.c - see workers.h. */
#include "workers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const char *worker(void)
{
    return getenv("SERRY_WORKER");
}

int workers_are_there(void **state)
{
    (void)state;
    if (worker() != NULL)
        return 0;
    fprintf(stderr, "needs the path of tests/worker.c's program in SERRY_WORKER\n");
    return -1;
}

char *await_line(int rank, int count)
{
    char name[32], *text, *line;

    snprintf(name, sizeof name, "member%d", rank);
    text = await_lines(name, count);
    assert_int_equal(occurrences(text, "\n"), count);
    line = text;
    for (int i = 1; i < count; i++)
        line = strchr(line, '\n') + 1;
    line = strdup(line);
    free(text);
    return line;
}

pid_t await_member(int rank, int count)
{
    char *line = await_line(rank, count);
    pid_t pid = (pid_t)atoi(line);

    free(line);
    assert_true(pid > 1);
    return pid;
}

void await_job(int ranks)
{
    for (int rank = 0; rank < ranks; rank++)
        await_member(rank, 1);
}

void await_attached(pid_t pid)
{
    char path[64];
    struct stat tasks;

    snprintf(path, sizeof path, "/proc/%d/task", pid);
    do
        assert_int_equal(stat(path, &tasks), 0);
    while (tasks.st_nlink < 2 + 2); /* with . and .., two threads */
}
