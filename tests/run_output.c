/* run_output.c - `serry run --tag`: whose line is whose, whatever the ranks write. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "launched.h"

/* Promise: stdout stays stdout, stderr stays stderr, and what is no whole line comes out too. */
static void tagged_streams_stay_apart(void **state)
{
    const char *script = "echo out; echo err >&2; echo; printf rest";
    launched command;
    char *out, *err;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "1", "--tag", "sh", "-c", script, NULL);
    assert_int_equal(launched_end(&command), 0);
    out = launched_out(&command);
    err = launched_err(&command);
    assert_string_equal(out, "[0] out\n[0] \n[0] rest\n");
    assert_string_equal(err, "[0] err\n");
    free(out);
    free(err);
    launched_free(&command);
}

/* One line "[R] I xxxx..." of the test below: x is rank R's own letter. Returns R. */
static int check_line(const char *line, int *next)
{
    int rank, number, used = 0;
    size_t length;

    assert_int_equal(sscanf(line, "[%d] %d %n", &rank, &number, &used), 2);
    assert_in_range(rank, 0, 7);
    assert_int_equal(number, next[rank]++);
    length = strcspn(line + used, "\n");
    assert_int_equal(length, (size_t)(number * 37 % 3000 + 1));
    for (size_t i = 0; i < length; i++)
        assert_int_equal(line[(size_t)used + i], 'a' + rank);
    return rank;
}

/* Fault:  8 ranks write 200 lines each, of up to 3000 bytes, a few bytes at a time.
 * Expect: every line is one rank's, whole, and each rank's lines are in order. */
static void tagged_lines_never_mix_under_load(void **state)
{
    const char *program = "BEGIN { c = sprintf(\"%c\", 97 + ENVIRON[\"SERRY_RANK\"])\n"
                          "for (i = 0; i < 200; i++) {\n"
                          "    printf \"%d \", i\n"
                          "    for (n = i * 37 % 3000 + 1; n > 0; n--) {\n"
                          "        printf \"%s\", c; if (n % 500 == 0) fflush() }\n"
                          "    printf \"\\n\" } }";
    launched command;
    int next[8] = {0};
    char *out, *err;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "8", "--tag", "awk", program, NULL);
    assert_int_equal(launched_end(&command), 0);
    out = launched_out(&command);
    err = launched_err(&command);
    assert_string_equal(err, "");
    for (const char *line = out; *line != '\0'; line = strchr(line, '\n') + 1)
        check_line(line, next);
    for (int rank = 0; rank < 8; rank++)
        assert_int_equal(next[rank], 200);
    free(out);
    free(err);
    launched_free(&command);
}

/* Fault:  100000 bytes without an end of line.
 * Expect: all of them, in pieces, each tagged; a line as long as the bound gets no empty one. */
static void tagged_endless_line_is_split(void **state)
{
    const char *script = "head -c 100000 /dev/zero | tr '\\0' x; echo;"
                         "head -c 16384 /dev/zero | tr '\\0' y; echo; echo z";
    launched command;
    char *out;
    size_t count[128] = {0};

    (void)state;
    launched_start(&command, NULL, "run", "-n", "1", "--tag", "sh", "-c", script, NULL);
    expect_end(&command, 0, &out, NULL);
    for (const char *line = out; *line != '\0'; line = strchr(line, '\n') + 1) {
        assert_memory_equal(line, "[0] ", 4);
        assert_int_not_equal(line[4], '\n');
        assert_true(strcspn(line, "\n") < 20000);
    }
    for (const char *c = out; *c != '\0'; c++)
        count[*c & 127]++;
    assert_int_equal(count['x'], 100000);
    assert_int_equal(count['y'], 16384);
    assert_contains(out, "[0] z\n");
    free(out);
}

/* Fault:  whoever reads the tagged output goes away.
 * Expect: the ranks see a broken pipe, as they would without --tag, and all ends. */
static void tagged_output_that_nobody_reads_ends_the_ranks(void **state)
{
    launched_how how = LAUNCHED_HOW_INIT;
    launched command;
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    how.out = ends[1];
    launched_start(&command, &how, "run", "-n", "3", "--tag", "yes", NULL);
    close(ends[1]);
    assert_int_equal(read(ends[0], &(char){0}, 1), 1);
    close(ends[0]);
    assert_int_equal(launched_end(&command), 128 + SIGPIPE);
    launched_free(&command);
}

static void limit_descriptors(void)
{
    const struct rlimit limit = {1024, 1024};

    setrlimit(RLIMIT_NOFILE, &limit);
}

/* Promise: 256 tagged ranks get by with 1024 descriptors. */
static void tagged_256_ranks_within_1024_descriptors(void **state)
{
    launched_how how = LAUNCHED_HOW_INIT;
    launched command;
    char *out;

    (void)state;
    how.prepare = limit_descriptors;
    launched_start(&command, &how, "run", "-n", "256", "--tag", "echo", "here", NULL);
    expect_end(&command, 0, &out, NULL);
    assert_int_equal(occurrences(out, "] here\n"), 256);
    assert_contains(out, "[255] here\n");
    free(out);
}

static void limit_descriptors_too_much(void)
{
    const struct rlimit limit = {64, 64};

    setrlimit(RLIMIT_NOFILE, &limit);
}

/* Fault:  no descriptors left in the middle of starting.
 * Expect: 125, the reason, what to do, and no rank that was started before runs on. */
static void too_few_descriptors_is_said_with_what_to_do(void **state)
{
    launched_how how = LAUNCHED_HOW_INIT;
    launched command;

    (void)state;
    how.prepare = limit_descriptors_too_much;
    launched_start(&command, &how, "run", "-n", "64", "--tag", "sleep", "1000", NULL);
    expect_end(&command, 125, NULL, SAYS("Too many open files", "ulimit -n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(tagged_streams_stay_apart),
        TEST(tagged_lines_never_mix_under_load),
        TEST(tagged_endless_line_is_split),
        TEST(tagged_output_that_nobody_reads_ends_the_ranks),
        TEST(tagged_256_ranks_within_1024_descriptors),
        TEST(too_few_descriptors_is_said_with_what_to_do),
    };

    return cmocka_run_group_tests_name("run_output", tests, NULL, NULL);
}
