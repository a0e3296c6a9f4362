/* run_spares.c - `serry run` with spares, losses that are tolerated, and failures that end all. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers.h"

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

/* The job succeeds, and nothing is said. */
static void expect_silent_success(launched *command)
{
    char *err;

    assert_int_equal(launched_end(command), 0);
    err = launched_err(command);
    assert_string_equal(err, "");
    free(err);
    launched_free(command);
}

/* Promise: a spare that was not needed counts for nothing, whatever its exit code. */
static void spare_that_was_not_needed_counts_for_nothing(void **state)
{
    launched command;
    char *spares;

    (void)state;
    make_file("slow");
    launched_start(&command, NULL, "run", "-n", "2", "--spares", "2", worker(), NULL);
    await_job(2);
    spares = await_lines("waiting", 2);
    remove_file("slow");
    await_attached((pid_t)atoi(spares)); /* so that it is the library that tells them */
    await_attached((pid_t)atoi(strchr(spares, '\n') + 1));
    make_file("stop");
    expect_silent_success(&command);
    free(spares);
}

/* Fault:  spares that do not listen when the job has ended.
 * Expect: they are killed after the grace time. */
static void spares_that_stay_are_ended(void **state)
{
    const char *script = "[ $SERRY_ENTRY = spare ] && exec sleep 1000; exit 0";
    launched command;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "2", "--spares=2", "sh", "-c", script, NULL);
    expect_silent_success(&command);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
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

    return cmocka_run_group_tests_name("run_spares", tests, workers_are_there, NULL);
}
