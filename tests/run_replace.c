/* run_replace.c - `serry run --respawn`: ranks that fail are replaced, as often as was asked for. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "workers.h"

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
    };

    return cmocka_run_group_tests_name("run_replace", tests, workers_are_there, NULL);
}
