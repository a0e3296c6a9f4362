/* worker.c - a program that lives with failures, for the tests of `serry run`.
 *
 *   worker
 *
 * Its ranks sum over all of them, again and again, until the file `stop` is in the folder $DIR; then all
 * end with 0 at the same sum. Ranks that fail or join in between change nothing. Each process that is in
 * the job adds a line to the file memberR, R being its rank: its pid, its entry, RANK, its processors,
 * and what its standard input is.
 *
 * It does what these files tell it, if they are there:
 *   early        rank 1 is killed before it joins
 *   exitR        rank R removes it and exits with 5
 *   slow         replacements and spares add their pids to the file `waiting`, and wait until `slow` is
 *                gone before they join */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <serry/serry.h>

enum { EXIT_TOLD = 5, EXIT_NOT_NEEDED, EXIT_NOT_IN, EXIT_BROKEN };

static const char *path_of(const char *name, int number)
{
    static char path[256];
    char digits[16] = "";

    if (number >= 0)
        snprintf(digits, sizeof digits, "%d", number);
    snprintf(path, sizeof path, "%s/%s%s", getenv("DIR"), name, digits);
    return path;
}

static bool is_there(const char *name)
{
    return access(path_of(name, -1), F_OK) == 0;
}

static FILE *append_to(const char *name, int number)
{
    FILE *file = fopen(path_of(name, number), "ae");

    if (file == NULL)
        exit(EXIT_BROKEN);
    return file;
}

/* The first 64 processors that this process may use, as bits. */
static unsigned long long processors(void)
{
    unsigned long long bits = 0;
    cpu_set_t set;

    sched_getaffinity(0, sizeof set, &set);
    for (size_t cpu = 0; cpu < 64; cpu++)
        bits |= (unsigned long long)(CPU_ISSET(cpu, &set) != 0) << cpu;
    return bits;
}

/* The line on stdout is left open: a replacement's must not go on with it. */
static void say_who(const serry_comm *comm)
{
    FILE *file = append_to("member", serry_rank(comm));
    const char *rank = getenv("RANK");
    char input[64] = "";

    if (readlink("/proc/self/fd/0", input, sizeof input - 1) < 0)
        exit(EXIT_BROKEN);
    fprintf(file, "%d %s %s %llx %s\n", getpid(), getenv("SERRY_ENTRY"), rank != NULL ? rank : "-",
            processors(), input);
    fclose(file);
    printf("%s as rank %d", getenv("SERRY_ENTRY"), serry_rank(comm));
    fflush(stdout);
}

static void wait_if_told(void)
{
    FILE *file;

    if (!is_there("slow"))
        return;
    file = append_to("waiting", -1);
    fprintf(file, "%d\n", getpid());
    fclose(file);
    while (is_there("slow"))
        usleep(5000);
}

static int complain(const char *what, int result, int code)
{
    fprintf(stderr, "worker: %s: %s: %s\n", what, serry_strerror(result),
            serry_last_error(NULL)->message);
    return code;
}

static int work(serry_comm *comm)
{
    for (;;) {
        int64_t stop = is_there("stop");

        if (unlink(path_of("exit", serry_rank(comm))) == 0)
            _exit(EXIT_TOLD); /* in the midst of its work */
        int result = serry_allreduce(SERRY_IN_PLACE, &stop, 1, SERRY_I64, SERRY_SUM, comm);
        if (result == SERRY_OK && stop > 0)
            return EXIT_SUCCESS;
        if (result != SERRY_OK && result != SERRY_ERR_RANK_FAILED &&
            result != SERRY_ERR_RANK_JOINED)
            return complain("allreduce", result, EXIT_BROKEN);
        usleep(1000);
    }
}

int main(void)
{
    bool first = strcmp(getenv("SERRY_ENTRY"), "start") == 0;
    serry_comm *comm;

    if (first && is_there("early") && strcmp(getenv("SERRY_RANK"), "1") == 0)
        raise(SIGKILL);
    if (!first)
        wait_if_told();
    int result = serry_init(NULL, &comm);
    if (result == SERRY_ERR_CANCELLED)
        return EXIT_NOT_NEEDED;
    if (result != SERRY_OK)
        return complain("init", result, EXIT_NOT_IN);
    say_who(comm);
    int code = work(comm);
    if (code == EXIT_SUCCESS)
        serry_finalize(&comm);
    return code;
}
