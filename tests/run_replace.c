/* run_replace.c - `serry run` when ranks fail: replacements, spares, losses that are tolerated, and
 * failures that end all. The ranks are tests/worker.c, which says how they are told what to do. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launched.h"

enum { EXIT_TOLD = 5 }; /* of a worker */

static const char *worker(void)
{
    return getenv("SERRY_WORKER");
}

/* Wait until `count` processes have been this rank, one after the other. The newest one's line, which
 * the caller frees. */
static char *await_line(int rank, int count)
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

static pid_t await_member(int rank, int count)
{
    char *line = await_line(rank, count);
    pid_t pid = (pid_t)atoi(line);

    free(line);
    assert_true(pid > 1);
    return pid;
}

static void await_job(int ranks)
{
    for (int rank = 0; rank < ranks; rank++)
        await_member(rank, 1);
}

/* The end, with this code and these sentences on stderr; *out may be NULL. */
static void expect_end(launched *command, int code, char **out, const char *const *says)
{
    int got = launched_end(command);
    char *err = launched_err(command);

    if (got != code)
        fail_msg("exit code %d, not %d:\n%s", got, code, err);
    for (; *says != NULL; says++)
        assert_contains(err, *says);
    if (out != NULL)
        *out = launched_out(command);
    free(err);
    launched_free(command);
}

#define SAYS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* ---- replacements ------------------------------------------------------------------------ */

/* Fault:  rank 2 of 4 is killed.
 * Expect: a replacement joins the running job, and the job succeeds. */
static void killed_rank_is_replaced_and_the_job_succeeds(void **state)
{
    launched command;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "4", "--respawn", "1", worker(), NULL);
    await_job(4);
    kill(await_member(2, 1), SIGKILL);
    await_member(2, 2);
    make_file("stop");
    expect_end(&command, 0, NULL,
               SAYS("serry run: rank 2 was killed by signal 9 (Killed) after ",
                    " s; it was replaced\n",
                    "serry run: all 4 ranks ended well, counting those that were replaced\n"));
}

/* Fault:  rank 0, which has the input, is killed under --tag and --bind.
 * Expect: its replacement has its variables, cores and tag, but no input. */
static void replacement_has_the_place_of_its_rank(void **state)
{
    char *first, *second, *out, entry[2][32], rank[2][8], cores[2][32], input[2][64];
    launched_how how = LAUNCHED_HOW_INIT;
    launched command;

    (void)state;
    how.input = "text\n";
    launched_start(&command, &how, "run", "-n", "2", "--respawn=3", "--tag", "--bind=core",
                   worker(), NULL);
    await_job(2);
    first = await_line(0, 1);
    kill(await_member(0, 1), SIGKILL);
    second = await_line(0, 2);
    make_file("stop");
    expect_end(&command, 0, &out, SAYS("rank 0 was killed by signal 9"));
    assert_int_equal(sscanf(first, "%*d %31s %7s %31s %63s", entry[0], rank[0], cores[0], input[0]),
                     4);
    assert_int_equal(
        sscanf(second, "%*d %31s %7s %31s %63s", entry[1], rank[1], cores[1], input[1]), 4);
    assert_string_equal(entry[0], "start");
    assert_string_equal(entry[1], "replacement");
    assert_string_equal(rank[1], "0");
    assert_string_equal(cores[1], cores[0]);
    assert_string_not_equal(input[0], "/dev/null");
    assert_string_equal(input[1], "/dev/null");
    assert_contains(out, "[0] start as rank 0\n");
    assert_contains(out, "[0] replacement as rank 0\n");
    free(first);
    free(second);
    free(out);
}

/* Fault:  rank 1 fails with an exit code; so does its replacement, and no other is allowed.
 * Expect: that code; the others go on without it. */
static void replacements_run_out(void **state)
{
    launched command;
    pid_t last;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "3", "--respawn", "1", worker(), NULL);
    await_job(3);
    make_file("exit1");
    last = await_member(1, 2);
    make_file("exit1");
    await_reaped(last);
    make_file("stop");
    expect_end(&command, EXIT_TOLD, NULL,
               SAYS("serry run: rank 1 ended with exit code 5 after ", " s; it was replaced\n",
                    "serry run: the replacement of rank 1 ended with exit code 5 after ",
                    " s; no more than 1 may be replaced\n",
                    "serry run: 2 of 3 ranks ended well; the exit code, 5, is due to rank 1\n"));
}

/* Fault:  both ranks of a job are killed, one after the other, ten times.
 * Expect: each time a replacement comes, and in the end there is nobody left of the first. */
static void every_rank_may_be_replaced_again_and_again(void **state)
{
    launched command;
    char *out;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "2", "--respawn", "10", "--tag", worker(), NULL);
    await_job(2);
    for (int i = 0; i < 10; i++) {
        kill(await_member(i % 2, i / 2 + 1), SIGKILL);
        await_member(i % 2, i / 2 + 2);
    }
    make_file("stop");
    expect_end(&command, 0, &out, SAYS("serry run: ... and 2 more processes failed\n"));
    assert_int_equal(occurrences(out, "[0] replacement as rank 0\n"), 5);
    assert_int_equal(occurrences(out, "[1] replacement as rank 1\n"), 5);
    free(out);
}

/* Fault:  rank 1 is killed before it joins, so that the job never comes up.
 * Expect: no replacement, which would wait for nobody; the exit code tells of rank 1. */
static void rank_that_fails_before_the_job_is_up_is_not_replaced(void **state)
{
    launched command;
    char *out;

    (void)state;
    make_file("early");
    setenv("SERRY_TIMEOUT_MS", "6000", 1); /* the others wait so long for rank 1 */
    launched_start(&command, NULL, "run", "-n", "3", "--respawn", "9", worker(), NULL);
    unsetenv("SERRY_TIMEOUT_MS");
    expect_end(&command, 128 + SIGKILL, &out,
               SAYS("serry run: rank 1 was killed by signal 9 (Killed) after ",
                    " s; nobody was in the job who could let another in\n",
                    "still missing rank 1 of 3",
                    "serry run: 0 of 3 ranks ended well; the exit code, 137, is due to rank 1\n"));
    assert_string_equal(out, "");
    free(out);
}

/* Fault:  all others end well before the replacement comes to join.
 * Expect: it waits no longer than the library's timeout; the lost rank is told. */
static void replacement_that_comes_too_late_does_not_wait_for_ever(void **state)
{
    launched command;

    (void)state;
    make_file("slow");
    setenv("SERRY_TIMEOUT_MS", "2000", 1);
    launched_start(&command, NULL, "run", "-n", "3", "--respawn", "1", worker(), NULL);
    unsetenv("SERRY_TIMEOUT_MS");
    await_job(3);
    kill(await_member(2, 1), SIGKILL);
    free(await_lines("waiting", 1));
    make_file("stop");
    await_reaped(await_member(0, 1));
    await_reaped(await_member(1, 1));
    remove_file("slow");
    expect_end(&command, 128 + SIGKILL, NULL,
               SAYS("serry run: rank 2 was killed by signal 9 (Killed) after ",
                    "serry run: 2 of 3 ranks ended well; the exit code, 137, is due to rank 2\n"));
}

/* Fault:  the launcher is told to end, or the timeout strikes, and all ranks die of SIGTERM.
 * Expect: nobody is replaced. */
static void ranks_that_were_to_end_are_not_replaced(void **state)
{
    launched command;
    char *out;

    launched_start(&command, NULL, "run", "-n", "3", "--respawn", "9", worker(), NULL);
    await_job(3);
    kill(command.pid, SIGTERM);
    expect_end(&command, 128 + SIGTERM, &out, SAYS("was killed by signal 15"));
    assert_null(strstr(out, "replacement"));
    free(out);
    launched_teardown(state);
    launched_setup(state);

    launched_start(&command, NULL, "run", "-n", "3", "--respawn=9", "--spares=2", "--timeout=1",
                   worker(), NULL);
    expect_end(&command, 124, &out, SAYS("the timeout of 1 s passed while 3 of 3 ranks ran"));
    assert_null(strstr(out, "spare"));
    free(out);
}

/* Fault:  the launcher is killed while a replacement has not joined yet.
 * Expect: nothing stays. Orphans of the killed processes come to this one, so that it sees them. */
static void launcher_killed_while_a_replacement_waits_leaves_no_process(void **state)
{
    launched command;
    char *text;
    pid_t waiting;

    (void)state;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    make_file("slow");
    launched_start(&command, NULL, "run", "-n", "3", "--respawn=2", "--tag", worker(), NULL);
    await_job(3);
    kill(await_member(1, 1), SIGKILL);
    text = await_lines("waiting", 1);
    waiting = (pid_t)atoi(text);
    free(text);
    assert_int_not_equal(process_state(waiting), 0);
    kill(command.pid, SIGKILL);
    assert_int_equal(launched_end(&command), 1000 + SIGKILL);
    while (wait(NULL) > 0) /* the guardian and what it leaves; the watchdog bounds it */
        ;
    assert_int_equal(process_state(waiting), 0);
    launched_free(&command);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}

/* ---- spares ------------------------------------------------------------------------------ */

/* Fault:  rank 2 is killed, and a spare is there.
 * Expect: it takes the place, finds no number in its environment, and the job succeeds. */
static void spare_takes_over(void **state)
{
    launched command;
    char *line, *out, rank[8];

    (void)state;
    launched_start(&command, NULL, "run", "-n", "3", "--spares", "1", "--tag", worker(), NULL);
    await_job(3);
    kill(await_member(2, 1), SIGKILL);
    line = await_line(2, 2);
    make_file("stop");
    expect_end(&command, 0, &out,
               SAYS("serry run: rank 2 was killed by signal 9 (Killed) after ",
                    " s; a spare was there to take its place\n",
                    "serry run: all 3 ranks ended well, counting those that were replaced\n"));
    assert_int_equal(sscanf(line, "%*d spare %7s", rank), 1);
    assert_string_equal(rank, "-");
    assert_contains(out, "[spare 0] spare as rank 2\n");
    free(line);
    free(out);
}

/* Promise: a spare that was not needed counts for nothing, whatever its exit code. */
static void spare_that_was_not_needed_counts_for_nothing(void **state)
{
    launched command;
    char *err;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "2", "--spares", "2", worker(), NULL);
    await_job(2);
    make_file("stop");
    assert_int_equal(launched_end(&command), 0);
    err = launched_err(&command);
    assert_string_equal(err, "");
    free(err);
    launched_free(&command);
}

/* Fault:  spares that do not listen when the job has ended.
 * Expect: they are killed after the grace time. */
static void spares_that_stay_are_ended(void **state)
{
    const char *script = "[ $SERRY_ENTRY = spare ] && exec sleep 1000; exit 0";
    launched command;
    char *err;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "2", "--spares=2", "sh", "-c", script, NULL);
    assert_int_equal(launched_end(&command), 0);
    err = launched_err(&command);
    assert_string_equal(err, "");
    free(err);
    launched_free(&command);
}

/* Fault:  more ranks fail than there are spares.
 * Expect: the exit code of the first that was lost for good. */
static void spares_run_out(void **state)
{
    launched command;
    pid_t last;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "3", "--spares", "1", worker(), NULL);
    await_job(3);
    kill(await_member(2, 1), SIGKILL);
    await_member(2, 2);
    last = await_member(1, 1);
    make_file("exit1");
    await_reaped(last);
    make_file("stop");
    expect_end(&command, EXIT_TOLD, NULL,
               SAYS("rank 2 was killed by signal 9", " s; a spare was there to take its place\n",
                    "rank 1 ended with exit code 5 after ", " s; no spare was left\n",
                    "serry run: 2 of 3 ranks ended well; the exit code, 5, is due to rank 1\n"));
}

/* Fault:  a rank and all four spares after it are killed; there is one spare at a time.
 * Expect: --respawn starts new spares. */
static void spares_are_started_anew(void **state)
{
    launched command;
    pid_t last;
    char *out;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "3", "--spares=1", "--respawn=3", "--tag", worker(),
                   NULL);
    await_job(3);
    for (int i = 1; i <= 4; i++) {
        kill(await_member(0, i), SIGKILL);
        await_member(0, i + 1);
    }
    last = await_member(0, 5);
    kill(last, SIGKILL);
    await_reaped(last);
    make_file("stop");
    expect_end(&command, 128 + SIGKILL, &out,
               SAYS(" s; another spare was started\n", "serry run: spare 0 was killed",
                    "serry run: spare 3 was killed", " s; no spare was left\n",
                    "serry run: 2 of 3 ranks ended well; the exit code, 137, is due to rank 0\n"));
    for (int i = 0; i < 4; i++) {
        char line[64];

        snprintf(line, sizeof line, "[spare %d] spare as rank 0\n", i);
        assert_contains(out, line);
    }
    free(out);
}

/* ---- losses and ends --------------------------------------------------------------------- */

/* Fault:  one rank is lost, then another; so many are tolerated.
 * Expect: 0 for two, and the first one's code for one. */
static void losses_are_tolerated_up_to_a_number(void **state)
{
    static const struct {
        const char *option, *says;
        int code;
    } cases[] = {{"--tolerate=2", "2 lost are tolerated, so the exit code is 0\n", 0},
                 {"--tolerate=1", "the exit code, 137, is due to rank 2\n", 128 + SIGKILL}};

    for (size_t i = 0; i < 2; i++) {
        launched command;
        pid_t second;

        launched_start(&command, NULL, "run", "-n", "3", cases[i].option, worker(), NULL);
        await_job(3);
        kill(await_member(2, 1), SIGKILL);
        await_reaped(await_member(2, 1));
        second = await_member(0, 1);
        make_file("exit0");
        await_reaped(second);
        make_file("stop");
        expect_end(&command, cases[i].code, NULL,
                   SAYS("rank 2 was killed by signal 9", "rank 0 ended with exit code 5",
                        "serry run: 1 of 3 ranks ended well; ", cases[i].says));
        launched_teardown(state);
        launched_setup(state);
    }
}

/* Fault:  rank 1 fails; rank 0 acts upon SIGTERM, rank 2 is stopped, rank 3 ignores it.
 * Expect: all end, the last by SIGKILL; the exit code is rank 1's. */
static void failure_ends_all_others(void **state)
{
    const char *script = "case $RANK in\n"
                         "[02]) trap 'echo asked; exit 0' TERM;;\n"
                         "1) while [ ! -e $DIR/go ]; do sleep 0.02; done; exit 3;;\n"
                         "3) trap '' TERM;;\n"
                         "esac\n"
                         "echo $$ > $DIR/rank$RANK; [ $RANK = 2 ] && kill -STOP $$\n"
                         "while :; do sleep 0.02; done";
    launched command;
    pid_t deaf;
    char *out;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "4", "--kill-on-failure", "sh", "-c", script, NULL);
    await_pid("rank", 0);
    await_state(await_pid("rank", 2), 'T');
    deaf = await_pid("rank", 3);
    make_file("go");
    expect_end(&command, 3, &out,
               SAYS("serry run: rank 1 ended with exit code 3 after ",
                    "serry run: the failure of rank 1 ended all others (--kill-on-failure); the "
                    "exit code is 3\n"));
    assert_string_equal(out, "asked\nasked\n");
    assert_int_equal(process_state(deaf), 0);
    free(out);
}

/* Fault:  one more rank is killed than may be replaced.
 * Expect: only that one ends all. */
static void failure_that_is_covered_ends_nobody(void **state)
{
    static const char *const ways[] = {"--respawn=1", "--spares=1"};

    for (size_t i = 0; i < 2; i++) {
        launched command;

        launched_start(&command, NULL, "run", "-n", "3", "--kill-on-failure", ways[i], worker(),
                       NULL);
        await_job(3);
        kill(await_member(1, 1), SIGKILL);
        await_member(1, 2);
        make_file("exit0");
        expect_end(&command, EXIT_TOLD, NULL,
                   SAYS("rank 1 was killed by signal 9",
                        "serry run: the failure of rank 0 ended all others (--kill-on-failure); "
                        "the exit code is 5\n"));
        launched_teardown(state);
        launched_setup(state);
    }
}

/* Fault:  a rank is killed before the job is up, with spares that cannot get in either.
 * Expect: nobody waits for the library's timeout of minutes. */
static void failure_before_the_job_is_up_ends_all_others(void **state)
{
    launched command;

    (void)state;
    make_file("early");
    launched_start(&command, NULL, "run", "-n", "3", "--kill-on-failure", "--spares=1",
                   "--respawn=1", worker(), NULL);
    expect_end(&command, 128 + SIGKILL, NULL,
               SAYS("rank 1 was killed by signal 9",
                    " s; nobody was in the job who could let another in\n",
                    "the failure of rank 1 ended all others (--kill-on-failure)"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, launched_setup, launched_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(killed_rank_is_replaced_and_the_job_succeeds),
        TEST(replacement_has_the_place_of_its_rank),
        TEST(replacements_run_out),
        TEST(every_rank_may_be_replaced_again_and_again),
        TEST(rank_that_fails_before_the_job_is_up_is_not_replaced),
        TEST(replacement_that_comes_too_late_does_not_wait_for_ever),
        TEST(ranks_that_were_to_end_are_not_replaced),
        TEST(launcher_killed_while_a_replacement_waits_leaves_no_process),
        TEST(spare_takes_over),
        TEST(spare_that_was_not_needed_counts_for_nothing),
        TEST(spares_that_stay_are_ended),
        TEST(spares_run_out),
        TEST(spares_are_started_anew),
        TEST(losses_are_tolerated_up_to_a_number),
        TEST(failure_ends_all_others),
        TEST(failure_that_is_covered_ends_nobody),
        TEST(failure_before_the_job_is_up_ends_all_others),
    };

    if (worker() == NULL) {
        fprintf(stderr, "needs the path of tests/worker.c's program in SERRY_WORKER\n");
        return 1;
    }
    return cmocka_run_group_tests_name("run_replace", tests, NULL, NULL);
}
