/* run_command.c - `serry run` and its kin as a user meets them: variables, arguments, exit codes,
 * messages. Tagged output is in run_output.c, signals and processes are in run_signals.c. */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <serry/serry.h>

#include "launched.h"

/* Run a script in N ranks; *out and *err are the caller's to free, and may be NULL. */
static int run_script(const char *ranks, const char *script, char **out, char **err)
{
    launched command;
    int code;

    launched_start(&command, NULL, "run", "-n", ranks, "sh", "-c", script, NULL);
    code = launched_end(&command);
    if (out != NULL)
        *out = launched_out(&command);
    if (err != NULL)
        *err = launched_err(&command);
    launched_free(&command);
    return code;
}

/* ---- variables and arguments ------------------------------------------------------------- */

/* Promise: serry's and torchrun's variables, right for each rank; a key and a port for all. */
static void ranks_find_serrys_and_torchruns_variables(void **state)
{
    const char *script = "echo $SERRY_RANK/$SERRY_SIZE $RANK/$WORLD_SIZE "
                         "$LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR > $DIR/rank$RANK; "
                         "echo $SERRY_JOB $MASTER_PORT";
    char *out, *text, name[16], expected[64], key[64], other_key[64];
    int port, other_port;

    (void)state;
    assert_int_equal(run_script("3", script, &out, NULL), 0);
    for (int rank = 0; rank < 3; rank++) {
        snprintf(name, sizeof name, "rank%d", rank);
        snprintf(expected, sizeof expected, "%d/3 %d/3 %d/3 127.0.0.1\n", rank, rank, rank);
        text = await_lines(name, 1);
        assert_string_equal(text, expected);
        free(text);
    }
    assert_int_equal(sscanf(out, "%63s %d", key, &port), 2);
    assert_int_equal(occurrences(out, key), 3);
    assert_int_equal(strlen(key), 32);
    assert_int_equal(strspn(key, "0123456789abcdef"), 32);
    assert_in_range(port, 1, 65535);
    free(out);

    assert_int_equal(run_script("1", script, &out, NULL), 0);
    assert_int_equal(sscanf(out, "%63s %d", other_key, &other_port), 2);
    assert_string_not_equal(key, other_key);
    free(out);
}

/* Promise: after PROGRAM nothing is serry's, whatever it looks like; nothing is expanded. */
static void arguments_of_the_program_are_left_alone(void **state)
{
    const char *expected = "<a b><-n><7><--tag><--><--help><*><>";
    launched command;
    char *out;

    (void)state;
    launched_start(&command, NULL, "run", "-n1", "printf", "<%s>", "a b", "-n", "7", "--tag", "--",
                   "--help", "*", "", NULL);
    expect_end(&command, 0, &out, NULL);
    assert_string_equal(out, expected);
    free(out);
}

/* Promise: `--` ends serry's options. */
static void double_dash_ends_the_options(void **state)
{
    launched command;
    char *out;

    (void)state;
    launched_start(&command, NULL, "run", "--ranks=2", "--", "echo", "--", "x", NULL);
    expect_end(&command, 0, &out, NULL);
    assert_string_equal(out, "-- x\n-- x\n");
    free(out);
}

/* Promise: rank 0 reads the launcher's input, the others an empty one. */
static void input_goes_to_rank_0_alone(void **state)
{
    launched_how how = LAUNCHED_HOW_INIT;
    launched command;
    char *out;

    (void)state;
    how.input = "one line\n";
    launched_start(&command, &how, "run", "-n", "4", "--tag", "cat", NULL);
    expect_end(&command, 0, &out, NULL);
    assert_string_equal(out, "[0] one line\n");
    free(out);
}

static void keep_one_processor(void)
{
    cpu_set_t all, one;
    size_t cpu = 0;

    sched_getaffinity(0, sizeof all, &all);
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
}

/* Promise: ranks are bound within the processors that the launcher was given. */
static void binding_stays_within_the_launchers_processors(void **state)
{
    static const char *const kinds[] = {"core", "numa", "none"};
    launched_how how = LAUNCHED_HOW_INIT;

    (void)state;
    how.prepare = keep_one_processor;
    for (size_t i = 0; i < 3; i++) {
        launched command;
        char *out, first[64];

        launched_start(&command, &how, "run", "-n", "3", "--bind", kinds[i], "grep",
                       "Cpus_allowed_list:", "/proc/self/status", NULL);
        expect_end(&command, 0, &out, NULL);
        assert_int_equal(sscanf(out, "Cpus_allowed_list: %63s", first), 1);
        assert_int_equal(strspn(first, "0123456789"), strlen(first));
        assert_int_equal(occurrences(out, first), 3);
        free(out);
    }
}

/* Promise: as many ranks as there are cores get one each; the warning tells how many there are. */
static void ranks_are_bound_to_all_cores_in_turn(void **state)
{
    char list[256][64], *out, *err;
    int cores, lines = 0, different = 0;
    launched command;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "256", "--bind", "core", "grep",
                   "Cpus_allowed_list:", "/proc/self/status", NULL);
    assert_int_equal(launched_end(&command), 0);
    out = launched_out(&command);
    err = launched_err(&command);
    for (const char *line = out; *line != '\0'; line = strchr(line, '\n') + 1) {
        bool known = false;

        assert_int_equal(sscanf(line, "Cpus_allowed_list: %63s", list[different]), 1);
        for (int i = 0; i < different; i++)
            known = known || strcmp(list[i], list[different]) == 0;
        different += !known;
        lines++;
    }
    assert_int_equal(lines, 256);
    if (*err != '\0') { /* none where there are 256 cores */
        assert_int_equal(sscanf(err, "serry run: warning: 256 ranks on %d core", &cores), 1);
        assert_int_equal(different, cores);
    }
    free(out);
    free(err);
    launched_free(&command);
}

static void simulate_two_cores(void)
{
    setenv("HWLOC_SYNTHETIC", "numa:1 core:2 pu:1", 1);
}

/* Fault:  more ranks than cores under --bind core.
 * Expect: a warning, and the ranks run. */
static void more_ranks_than_cores_is_a_warning(void **state)
{
    launched_how how = LAUNCHED_HOW_INIT;
    launched command;

    (void)state;
    how.prepare = simulate_two_cores;
    launched_start(&command, &how, "run", "-n", "3", "--bind", "core", "true", NULL);
    expect_end(&command, 0, NULL, SAYS("warning: 3 ranks on 2 cores"));
}

/* ---- exit codes -------------------------------------------------------------------------- */

static void success_is_0_and_silent(void **state)
{
    char *out, *err;

    (void)state;
    assert_int_equal(run_script("4", "exit 0", &out, &err), 0);
    assert_string_equal(out, "");
    assert_string_equal(err, "");
    free(out);
    free(err);
}

/* Fault:  rank 1 exits with 3, and later rank 0 with 5.
 * Expect: 3, and a sentence about rank 1. */
static void first_failing_rank_gives_the_exit_code(void **state)
{
    const char *script = "case $RANK in\n"
                         "1) echo $$ > $DIR/pid1; exit 3;;\n"
                         "0) while [ ! -e $DIR/go ]; do sleep 0.02; done; exit 5;;\n"
                         "esac";
    launched command;
    char *err;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "3", "sh", "-c", script, NULL);
    await_reaped(await_pid("pid", 1));
    make_file("go");
    assert_int_equal(launched_end(&command), 3);
    err = launched_err(&command);
    assert_contains(err, "serry run: rank 1 ended with exit code 3 after ");
    assert_contains(err, " s; 1 other rank failed too, 1 ended well\n");
    free(err);
    launched_free(&command);
}

/* Fault:  rank 2 of 4 is killed.
 * Expect: the others go on to their end; 137; the signal in words. */
static void killed_rank_gives_128_plus_signal_and_the_others_go_on(void **state)
{
    const char *script = "if [ $RANK = 2 ]; then echo $$ > $DIR/pid2; kill -9 $$; fi\n"
                         "while [ ! -e $DIR/go ]; do sleep 0.02; done; echo rank $RANK is well";
    launched command;
    char *out, *err;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "4", "sh", "-c", script, NULL);
    await_reaped(await_pid("pid", 2));
    make_file("go");
    assert_int_equal(launched_end(&command), 128 + SIGKILL);
    out = launched_out(&command);
    err = launched_err(&command);
    assert_int_equal(occurrences(out, "is well"), 3);
    assert_contains(err, "serry run: rank 2 was killed by signal 9 (Killed) after ");
    assert_contains(err, " s; 3 other ranks ended well\n");
    free(out);
    free(err);
    launched_free(&command);
}

/* Fault:  PROGRAM cannot be executed, in all 4 ranks alike.
 * Expect: 127 or 126, and one line that says why. */
static void program_that_cannot_run_is_said_once(void **state)
{
    static const struct {
        const char *program, *says;
        int code;
    } cases[] = {
        {"no-such-program-here", "there is no such program in PATH", 127},
        {"./no-such-program-here", "there is no such file", 127},
        {"/etc/passwd/x", "there is no such file", 127},
        {"/etc/passwd", "Permission denied", 126},
        {"/tmp", "Permission denied", 126},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        launched command;
        char *err;

        launched_start(&command, NULL, "run", "-n", "4", "--tag", cases[i].program, "x", NULL);
        assert_int_equal(launched_end(&command), cases[i].code);
        err = launched_err(&command);
        assert_contains(err, cases[i].says);
        assert_contains(err, cases[i].program);
        assert_int_equal(occurrences(err, "\n"), 1);
        free(err);
        launched_free(&command);
    }
}

/* Fault:  a script whose interpreter does not exist; execve says "no such file" of the script.
 * Expect: 127, and the interpreter is blamed. */
static void missing_interpreter_is_named_as_the_cause(void **state)
{
    const char *script = "printf '#!/no/such/shell\\n' > $DIR/x; chmod +x $DIR/x; "
                         "exec \"$SERRY_COMMAND\" run -n 2 $DIR/x";
    launched command;

    (void)state;
    launched_start_shell(&command, script);
    expect_end(&command, 127, NULL, SAYS("interpreter"));
}

/* Fault:  two of three ranks never end, one of them as it is stopped.
 * Expect: SIGTERM after --timeout, which both may act upon; 124. */
static void timeout_asks_the_ranks_to_end_and_gives_124(void **state)
{
    const char *script = "trap 'echo asked; exit 0' TERM; [ $RANK = 0 ] && exit 0\n"
                         "[ $RANK = 1 ] && kill -STOP $$\n"
                         "while :; do sleep 0.02; done";
    launched command;
    char *out, *err;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "3", "--timeout", "0.7", "sh", "-c", script, NULL);
    assert_int_equal(launched_end(&command), 124);
    out = launched_out(&command);
    err = launched_err(&command);
    assert_string_equal(out, "asked\nasked\n");
    assert_contains(err, "serry run: the timeout of 0.7 s passed while 2 of 3 ranks ran; they were "
                         "ended\n");
    free(out);
    free(err);
    launched_free(&command);
}

/* Fault:  ranks ignore SIGTERM, one is stopped.
 * Expect: they are killed after the grace time. */
static void timeout_kills_ranks_that_do_not_listen(void **state)
{
    const char *script = "trap '' TERM; [ $RANK = 0 ] && kill -STOP $$; while :; do sleep 1; done";
    launched command;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "2", "--timeout", "0.1", "sh", "-c", script, NULL);
    assert_int_equal(launched_end(&command), 124);
    launched_free(&command);
}

/* ---- usage ------------------------------------------------------------------------------- */

/* Expect: 125, nothing on stdout, and a message that says what is wrong and where to look. */
static void bad_usage_says_what_and_how(void **state)
{
    static const struct {
        const char *arguments[6], *says;
    } cases[] = {
        {{NULL}, "run, bench, info, version"},
        {{"runn", NULL}, "there is no command 'runn'; there are: run, bench, info, version"},
        {{"run", NULL}, "how many ranks?"},
        {{"run", "true", NULL}, "how many ranks?"},
        {{"run", "-n", "2", NULL}, "which program?"},
        {{"run", "-n", NULL}, "requires an argument"},
        {{"run", "-n", "0", "true", NULL}, "from 1 to 256, not '0'"},
        {{"run", "-n", "257", "true", NULL}, "from 1 to 256, not '257'"},
        {{"run", "-n", "2x", "true", NULL}, "from 1 to 256, not '2x'"},
        {{"run", "-n", "99999999999999999999", NULL}, "from 1 to 256"},
        {{"run", "-n1", "--bind=disk", "true", NULL}, "core, numa or none, not 'disk'"},
        {{"run", "-n1", "--timeout=0", "true", NULL}, "more than 0 (0.5, 60), not '0'"},
        {{"run", "-n1", "--timeout=nan", "true", NULL}, "more than 0"},
        {{"run", "-n1", "--timeout=1h", "true", NULL}, "not '1h'"},
        {{"run", "-n1", "--nonsense", "true", NULL}, "--nonsense"},
        {{"run", "-n2", "--respawn=-1", "true", NULL}, "from 0 to 1000, not '-1'"},
        {{"run", "-n2", "--spares=257", "true", NULL}, "from 0 to 256, not '257'"},
        {{"run", "-n2", "--tolerate=few", "true", NULL}, "--tolerate wants a number"},
        {{"run", "-n2", "--tolerate=2", "true", NULL}, "would leave none"},
        {{"run", "-n1", "--respawn=1", "true", NULL}, "--respawn needs at least 2 ranks"},
        {{"run", "-n1", "--spares=1", "true", NULL}, "--spares needs at least 2 ranks"},
        {{"run", "-n2", "--kill-on-failure", "--tolerate=1", "true"}, "give one of them"},
        {{"version", "x", NULL}, "takes no arguments, but 'x' was given"},
        {{"info", "x", NULL}, "takes no arguments, but 'x' was given"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const *a = cases[i].arguments;
        launched command;
        char *out;

        launched_start(&command, NULL, a[0], a[1], a[2], a[3], a[4], NULL);
        expect_end(&command, 125, &out, SAYS(cases[i].says, "--help'"));
        assert_string_equal(out, "");
        free(out);
    }
}

/* Expect: 0, and text on stdout that has what a reader looks for. */
static void help_version_and_info_answer(void **state)
{
    static const struct {
        const char *arguments[3], *says[4];
    } cases[] = {
        {{"--help", NULL}, {"Commands:", "Examples:", "serry run -n 4"}},
        {{"run", "--help", NULL}, {"--timeout=S", "--respawn=K", "Exit code:", "Examples:"}},
        {{"info", "--help", NULL}, {"Example:"}},
        {{"version", NULL}, {"serry " SERRY_VERSION}},
        {{"--version", NULL}, {"serry " SERRY_VERSION}},
        {{"info", NULL}, {"processors usable", "/dev/shm", "futex_waitv", "process_vm_readv"}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        launched command;
        char *out;

        launched_start(&command, NULL, cases[i].arguments[0], cases[i].arguments[1], NULL);
        expect_end(&command, 0, &out, NULL);
        for (size_t j = 0; j < 4 && cases[i].says[j] != NULL; j++)
            assert_contains(out, cases[i].says[j]);
        free(out);
    }
}

/* Fault:  stdout is a full device.
 * Expect: `serry version` says so and fails. */
static void output_that_cannot_be_written_is_a_failure(void **state)
{
    launched command;

    (void)state;
    launched_start_shell(&command, "exec \"$SERRY_COMMAND\" version > /dev/full");
    expect_end(&command, 125, NULL, SAYS("cannot write"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(ranks_find_serrys_and_torchruns_variables),
        TEST(arguments_of_the_program_are_left_alone),
        TEST(double_dash_ends_the_options),
        TEST(input_goes_to_rank_0_alone),
        TEST(binding_stays_within_the_launchers_processors),
        TEST(ranks_are_bound_to_all_cores_in_turn),
        TEST(more_ranks_than_cores_is_a_warning),
        TEST(success_is_0_and_silent),
        TEST(first_failing_rank_gives_the_exit_code),
        TEST(killed_rank_gives_128_plus_signal_and_the_others_go_on),
        TEST(program_that_cannot_run_is_said_once),
        TEST(missing_interpreter_is_named_as_the_cause),
        TEST(timeout_asks_the_ranks_to_end_and_gives_124),
        TEST(timeout_kills_ranks_that_do_not_listen),
        TEST(bad_usage_says_what_and_how),
        TEST(help_version_and_info_answer),
        TEST(output_that_cannot_be_written_is_a_failure),
    };

    return cmocka_run_group_tests_name("run_command", tests, NULL, NULL);
}
