/* run_signals.c - `serry run` and its processes: signals, the terminal, and that nothing stays
 * behind, whoever is killed. */
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <linux/close_range.h>
#include <unistd.h>

#include "launched.h"

/* A rank that notes its pid and sleeps until it is ended. */
#define SLEEPER "echo $$ > $DIR/rank$RANK; exec sleep 1000"

/* A rank with children: one in its process group, one (and its own child) that has left it. */
#define PARENT                                                                                     \
    "sleep 1000 & echo $! > $DIR/child$RANK\n"                                                     \
    "setsid sh -c 'sleep 1000 & echo $! > $DIR/far$RANK; echo $$ > $DIR/away$RANK; wait' &\n"      \
    "echo $PPID > $DIR/guardian$RANK; echo $$ > $DIR/rank$RANK; "

/* A rank that notes each signal and goes on until the file `stop` is there. */
#define LISTENER                                                                                   \
    "for s in INT TERM HUP QUIT USR1 USR2; do trap \"echo $s >> $DIR/got$RANK\" $s; done\n"        \
    "echo $$ > $DIR/rank$RANK; while [ ! -e $DIR/stop ]; do sleep 0.02; done"

static void assert_lives(pid_t pid)
{
    char state = process_state(pid);

    assert_true(state != 0 && state != 'Z');
}

/* Wait until all processes of PARENT's ranks have noted their pids. */
static void await_family(int ranks, pid_t (*family)[4])
{
    for (int i = 0; i < ranks; i++) {
        family[i][0] = await_pid("rank", i);
        family[i][1] = await_pid("child", i);
        family[i][2] = await_pid("far", i);
        family[i][3] = await_pid("away", i);
    }
}

static void await_family_gone(int ranks, pid_t (*family)[4])
{
    for (int i = 0; i < ranks; i++)
        for (int j = 0; j < 4; j++)
            await_gone(family[i][j]);
}

/* ---- signals ----------------------------------------------------------------------------- */

/* Promise: what the launcher gets, every rank gets, once. SIGINT and SIGTERM: one of them a job,
 * as the second asks for more. */
static void signals_reach_every_rank_once(void **state)
{
    static const struct {
        int number;
        const char *line;
    } signals[] = {{SIGHUP, "HUP\n"},   {SIGQUIT, "QUIT\n"}, {SIGUSR1, "USR1\n"},
                   {SIGUSR2, "USR2\n"}, {SIGINT, "INT\n"},   {SIGTERM, "TERM\n"}};

    (void)state;
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        launched command;
        char name[16], *text;

        launched_start(&command, NULL, "run", "-n", "3", "sh", "-c",
                       "rm -f $DIR/got$RANK; " LISTENER "; rm $DIR/rank$RANK", NULL);
        for (int rank = 0; rank < 3; rank++)
            await_pid("rank", rank);
        kill(command.pid, signals[i].number);
        for (int rank = 0; rank < 3; rank++) {
            snprintf(name, sizeof name, "got%d", rank);
            text = await_lines(name, 1);
            assert_string_equal(text, signals[i].line);
            free(text);
        }
        make_file("stop");
        assert_int_equal(launched_end(&command), 0);
        launched_free(&command);
        remove_file("stop");
    }
}

/* Promise: a signal that ranks do not catch ends them, and the launcher tells. */
static void uncaught_signal_ends_the_ranks(void **state)
{
    launched command;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "2", "sh", "-c", SLEEPER, NULL);
    await_pid("rank", 0);
    await_pid("rank", 1);
    kill(command.pid, SIGTERM);
    assert_int_equal(launched_end(&command), 128 + SIGTERM);
    launched_free(&command);
}

/* Promise: SIGUSR1 is for the program: its children, who know nothing of it, are left alone. */
static void user_signal_spares_the_children_of_a_rank(void **state)
{
    const char *script = "sleep 1000 & echo $! > $DIR/child$RANK; " LISTENER;
    launched command;
    pid_t child;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "1", "sh", "-c", script, NULL);
    child = await_pid("child", 0);
    await_pid("rank", 0);
    kill(command.pid, SIGUSR1);
    free(await_lines("got0", 1));
    assert_lives(child);
    make_file("stop");
    assert_int_equal(launched_end(&command), 0);
    await_gone(child);
    launched_free(&command);
}

/* Fault:  ranks ignore SIGINT and SIGTERM.
 * Expect: after the second one they are killed when the grace time is over. */
static void second_request_to_end_kills_after_a_grace_time(void **state)
{
    const char *script = "trap '' INT TERM; echo $$ > $DIR/rank$RANK; while :; do sleep 1; done";
    launched command;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "2", "sh", "-c", script, NULL);
    await_pid("rank", 0);
    await_pid("rank", 1);
    kill(command.pid, SIGINT);
    kill(command.pid, SIGTERM);
    expect_end(&command, 128 + SIGKILL, NULL, SAYS("asked to end a second time"));
}

static void ignore_hangup(void)
{
    signal(SIGHUP, SIG_IGN);
}

/* Promise: under nohup a SIGHUP does nothing, neither to the launcher nor to the ranks. */
static void ignored_hangup_stays_ignored(void **state)
{
    launched_how how = LAUNCHED_HOW_INIT;
    launched command;

    (void)state;
    how.prepare = ignore_hangup;
    launched_start(&command, &how, "run", "-n", "1", "sh", "-c",
                   "echo $$ > $DIR/rank$RANK; while [ ! -e $DIR/stop ]; do sleep 0.02; done", NULL);
    await_pid("rank", 0);
    kill(command.pid, SIGHUP);
    make_file("stop");
    assert_int_equal(launched_end(&command), 0);
    launched_free(&command);
}

/* Promise: SIGTSTP stops ranks and launcher, SIGCONT continues both. */
static void stop_and_continue_reach_the_ranks(void **state)
{
    launched command;
    pid_t rank;
    int status;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "1", "sh", "-c", SLEEPER, NULL);
    rank = await_pid("rank", 0);
    kill(command.pid, SIGTSTP);
    assert_int_equal(waitpid(command.pid, &status, WUNTRACED), command.pid);
    assert_true(WIFSTOPPED(status));
    await_state(rank, 'T');
    kill(command.pid, SIGCONT);
    await_state(rank, 'S');
    kill(command.pid, SIGTERM);
    assert_int_equal(launched_end(&command), 128 + SIGTERM);
    launched_free(&command);
}

static void be_a_bad_parent(void)
{
    sigset_t mask;

    signal(SIGCHLD, SIG_IGN);
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR2);
    sigaddset(&mask, SIGCHLD);
    sigprocmask(SIG_SETMASK, &mask, NULL);
}

/* Fault:  the launcher's parent ignored SIGCHLD and blocked signals.
 * Expect: exit codes all the same; ranks get the mask that the launcher got. */
static void ignored_and_blocked_sigchld_loses_no_exit_code(void **state)
{
    launched_how how = LAUNCHED_HOW_INIT;
    launched command;
    char *out;

    (void)state;
    how.prepare = be_a_bad_parent;
    launched_start(&command, &how, "run", "-n", "2", "grep", "-h", "SigBlk", "/proc/self/status",
                   "/no/such/file", NULL);
    expect_end(&command, 2, &out, NULL);
    assert_int_equal(occurrences(out, "SigBlk:\t0000000000010800\n"), 2);
    free(out);
}

/* The classic signals that any of the ranks ignores. The C library keeps 32 and 33 for itself, and some
 * programs that may have started this one leave them ignored. */
static unsigned long long ignored_signals(const char *out)
{
    unsigned long long all = 0;

    for (const char *at = strstr(out, "SigIgn:"); at != NULL; at = strstr(at + 1, "SigIgn:"))
        all |= strtoull(at + strlen("SigIgn:"), NULL, 16);
    return all & 0x7fffffff;
}

/* Promise: a rank finds its standard streams, no mask, default signals, and nothing else. */
static void ranks_start_with_a_clean_slate(void **state)
{
    static const char *const tags[] = {"--bind=none", "--tag"};
    const char *script = "ls -x /proc/$$/fd; exec grep -E 'Sig(Blk|Ign)' /proc/self/status";

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        launched command;
        char *out;

        launched_start(&command, NULL, "run", "-n", "3", tags[i], "sh", "-c", script, NULL);
        expect_end(&command, 0, &out, NULL);
        assert_int_equal(occurrences(out, "0  1  2\n"), 3);
        assert_int_equal(occurrences(out, "SigBlk:\t0000000000000000\n"), 3);
        assert_int_equal(occurrences(out, "SigIgn:"), 3);
        assert_int_equal(ignored_signals(out), 0);
        free(out);
    }
}

/* ---- the terminal ------------------------------------------------------------------------ */

/* Promise: rank 0 can read from the terminal; Ctrl-C there comes to every rank once. */
static void interrupt_at_a_terminal_is_delivered_once(void **state)
{
    const char *script = "trap 'echo INT >> $DIR/got$RANK' INT; echo $$ > $DIR/rank$RANK\n"
                         "[ $RANK = 0 ] && read line && echo $line > $DIR/line\n"
                         "while [ ! -e $DIR/stop ]; do sleep 0.02; done";
    launched_how how = LAUNCHED_HOW_INIT;
    launched command;
    int near, far;
    char *text;

    (void)state;
    assert_int_equal(openpty(&near, &far, NULL, NULL, NULL), 0);
    how.in = far;
    how.terminal = true;
    launched_start(&command, &how, "run", "-n", "2", "sh", "-c", script, NULL);
    await_pid("rank", 0);
    await_pid("rank", 1);
    assert_int_equal(write(near, "typed\n", 6), 6);
    text = await_lines("line", 1);
    assert_string_equal(text, "typed\n");
    free(text);
    assert_int_equal(write(near, "\003", 1), 1);
    free(await_lines("got0", 1));
    free(await_lines("got1", 1));
    make_file("stop");
    assert_int_equal(launched_end(&command), 0);
    text = await_lines("got0", 1);
    assert_string_equal(text, "INT\n");
    free(text);
    text = await_lines("got1", 1);
    assert_string_equal(text, "INT\n");
    free(text);
    close(near);
    close(far);
    launched_free(&command);
}

/* ---- nothing stays behind ---------------------------------------------------------------- */

/* Fault:  the launcher gets SIGKILL in mid-run, without and with --tag.
 * Expect: ranks, their children, and those that left the process group, are gone. */
static void killed_launcher_leaves_no_process(void **state)
{
    static const char *const tags[] = {"--bind=none", "--tag"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        pid_t family[3][4], guardian;
        launched command;

        launched_start(&command, NULL, "run", "-n", "3", tags[i], "sh", "-c", PARENT "wait; exit 0",
                       NULL);
        await_family(3, family);
        guardian = await_pid("guardian", 0);
        kill(command.pid, SIGKILL);
        assert_int_equal(launched_end(&command), 1000 + SIGKILL);
        await_family_gone(3, family);
        await_gone(guardian);
        launched_free(&command);
        launched_teardown(state);
        launched_setup(state);
    }
}

/* Fault:  the guardian gets SIGKILL in mid-run.
 * Expect: the same, before the launcher ends; it says what happened. */
static void killed_guardian_leaves_no_process(void **state)
{
    pid_t family[3][4];
    launched command;
    char *err;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "3", "--tag", "sh", "-c", PARENT "wait; exit 0",
                   NULL);
    await_family(3, family);
    kill(await_pid("guardian", 0), SIGKILL);
    assert_int_equal(launched_end(&command), 125);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 4; j++)
            assert_int_equal(process_state(family[i][j]), 0);
    err = launched_err(&command);
    assert_contains(err, "the guardian process was killed by signal 9");
    free(err);
    launched_free(&command);
}

/* Fault:  the guardian is killed; the launcher's process had a child before it became `serry run`.
 * Expect: that child is none of our business. */
static void killed_guardian_spares_foreign_children(void **state)
{
    const char *script = "sleep 1000 & echo $! > $DIR/foreign0; "
                         "exec \"$SERRY_COMMAND\" run -n 1 sh -c "
                         "'echo $PPID > $DIR/guardian0; sleep 1000'";
    launched command;
    pid_t foreign;

    (void)state;
    launched_start_shell(&command, script);
    foreign = await_pid("foreign", 0);
    kill(await_pid("guardian", 0), SIGKILL);
    assert_int_equal(launched_end(&command), 125);
    assert_lives(foreign);
    kill(foreign, SIGKILL);
    launched_free(&command);
}

/* Fault:  guardian and launcher are both killed, so that neither can clean up after the other.
 * Expect: the kernel ends the ranks. */
static void killed_guardian_and_launcher_leave_no_rank(void **state)
{
    launched command;
    pid_t rank[3];

    (void)state;
    launched_start(&command, NULL, "run", "-n", "3", "sh", "-c",
                   "echo $PPID > $DIR/guardian$RANK; " SLEEPER, NULL);
    for (int i = 0; i < 3; i++)
        rank[i] = await_pid("rank", i);
    kill(command.pid, SIGSTOP);
    await_state(command.pid, 'T');
    kill(await_pid("guardian", 0), SIGKILL);
    for (int i = 0; i < 3; i++)
        await_gone(rank[i]);
    kill(command.pid, SIGKILL);
    assert_int_equal(launched_end(&command), 1000 + SIGKILL);
    launched_free(&command);
}

/* Fault:  all ranks end well, but leave processes.
 * Expect: those are gone when the launcher is. */
static void leftovers_are_gone_after_a_normal_end(void **state)
{
    static const char *const tags[] = {"--bind=none", "--tag"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        pid_t family[2][4];
        launched command;

        launched_start(&command, NULL, "run", "-n", "2", tags[i], "sh", "-c",
                       PARENT "while [ ! -e $DIR/far$RANK ]; do sleep 0.02; done", NULL);
        assert_int_equal(launched_end(&command), 0);
        await_family(2, family);
        for (int j = 0; j < 4; j++) {
            assert_int_equal(process_state(family[0][j]), 0);
            assert_int_equal(process_state(family[1][j]), 0);
        }
        launched_free(&command);
        launched_teardown(state);
        launched_setup(state);
    }
}

/* Fault:  a rank with children is killed while the others go on.
 * Expect: its children go with it at once. */
static void children_go_with_their_rank(void **state)
{
    const char *script = "sleep 1000 & echo $! > $DIR/child$RANK; echo $$ > $DIR/rank$RANK\n"
                         "while [ ! -e $DIR/stop ]; do sleep 0.02; done";
    launched command;
    pid_t child[2];

    (void)state;
    launched_start(&command, NULL, "run", "-n", "2", "sh", "-c", script, NULL);
    for (int i = 0; i < 2; i++)
        child[i] = await_pid("child", i);
    kill(await_pid("rank", 1), SIGKILL);
    await_gone(child[1]);
    assert_lives(child[0]);
    make_file("stop");
    assert_int_equal(launched_end(&command), 128 + SIGKILL);
    await_gone(child[0]);
    launched_free(&command);
}

/* Fault:  64 ranks; the launcher is killed while it may still be starting them.
 * Expect: none stays. Orphans of the killed processes come to this one, so that it sees them all. */
static void launcher_killed_while_starting_leaves_no_process(void **state)
{
    (void)state;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (int i = 0; i < 8; i++) {
        launched command;

        launched_start(&command, NULL, "run", "-n", "64", "--tag", "sleep", "1000", NULL);
        usleep((useconds_t)i * 4000);
        kill(command.pid, SIGKILL);
        launched_end(&command);
        while (wait(NULL) > 0) /* the guardian and what it leaves; the watchdog bounds it */
            ;
        launched_free(&command);
    }
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}

/* Promise: 64 ranks start, run together and end. */
static void ranks_64_run_together(void **state)
{
    const char *script = "echo here >> $DIR/all; while [ ! -e $DIR/stop ]; do sleep 0.1; done";
    launched command;

    (void)state;
    launched_start(&command, NULL, "run", "-n", "64", "sh", "-c", script, NULL);
    free(await_lines("all", 64));
    make_file("stop");
    assert_int_equal(launched_end(&command), 0);
    launched_free(&command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(signals_reach_every_rank_once),
        TEST(uncaught_signal_ends_the_ranks),
        TEST(user_signal_spares_the_children_of_a_rank),
        TEST(second_request_to_end_kills_after_a_grace_time),
        TEST(ignored_hangup_stays_ignored),
        TEST(stop_and_continue_reach_the_ranks),
        TEST(ignored_and_blocked_sigchld_loses_no_exit_code),
        TEST(ranks_start_with_a_clean_slate),
        TEST(interrupt_at_a_terminal_is_delivered_once),
        TEST(killed_launcher_leaves_no_process),
        TEST(killed_guardian_leaves_no_process),
        TEST(killed_guardian_and_launcher_leave_no_rank),
        TEST(killed_guardian_spares_foreign_children),
        TEST(leftovers_are_gone_after_a_normal_end),
        TEST(children_go_with_their_rank),
        TEST(launcher_killed_while_starting_leaves_no_process),
        TEST(ranks_64_run_together),
    };

    /* Ranks inherit what this program inherits: ignored signals, where it runs in the background, and
     * open files. */
    close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    signal(SIGINT, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    return cmocka_run_group_tests_name("run_signals", tests, NULL, NULL);
}
