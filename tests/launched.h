/* launched.h - what the tests of the command share: starting it, reading what it wrote, and seeing
 * that processes are gone. The command's path is in SERRY_COMMAND. Every test has a folder of its
 * own, which the ranks find in $DIR, and a watchdog; nothing else bounds its time. */
#ifndef TEST_LAUNCHED_H
#define TEST_LAUNCHED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* cmocka.h needs the headers above. */
#include <cmocka.h>

/* The command while it runs, and what came of it. */
typedef struct launched {
    pid_t pid;
    int out, err; /* its stdout and stderr: files without a name */
    int status;   /* valid after launched_end */
} launched;

/* How to start it, where the default will not do. */
typedef struct launched_how {
    const char *input;     /* what stands in its stdin; NULL: nothing */
    int in;                /* its stdin itself; -1: a file with `input` */
    bool terminal;         /* `in` is a terminal, to be in the foreground of */
    int out;               /* its stdout; -1: a file that launched_out() reads */
    void (*prepare)(void); /* called in the new process before exec; may be NULL */
} launched_how;

#define LAUNCHED_HOW_INIT                                                                          \
    {                                                                                              \
        .in = -1, .out = -1                                                                        \
    }

/* For each test: a new folder and the watchdog; and away with both. */
int launched_setup(void **state);
int launched_teardown(void **state);
#define TEST(name) cmocka_unit_test_setup_teardown(name, launched_setup, launched_teardown)

/* Start `serry` with these arguments; the last is NULL. Nothing is inherited but the environment:
 * default signals, no mask, descriptors 0 to 2, a process group of its own. `how` may be NULL. */
void launched_start(launched *command, const launched_how *how, ...) __attribute__((sentinel));

/* Start a program that will become or start `serry`; its path is in $SERRY_COMMAND. */
void launched_start_shell(launched *command, const char *script);

/* Wait for its end. Returns its exit code; 1000 + signal if it was killed. */
int launched_end(launched *command);

/* What it wrote so far; the caller frees. */
char *launched_out(const launched *command);
char *launched_err(const launched *command);

/* Close what launched_end left open. */
void launched_free(launched *command);

/* All of it: the end, with this exit code and these sentences on stderr. What it wrote to stdout goes to
 * *out, which the caller frees. `out` and `says` may be NULL. */
void expect_end(launched *command, int code, char **out, const char *const *says);

#define SAYS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* A file of the test's folder: its text when it holds at least `lines` lines (the caller frees). */
char *await_lines(const char *name, int lines);

/* The number in a file of the test's folder, as soon as it is there: "rank", 2 is in "rank2". */
pid_t await_pid(const char *name, int number);

/* Make a file of the test's folder, empty; and remove one. */
void make_file(const char *name);
void remove_file(const char *name);

/* The state of a process as in /proc ('R', 'S', 'T', 'Z', ...); 0: there is none. */
char process_state(pid_t pid);

/* Wait until it has ended (a zombie has), or was even reaped, or has a certain state. */
void await_gone(pid_t pid);
void await_reaped(pid_t pid);
void await_state(pid_t pid, char state);

/* How often one text stands in another. */
int occurrences(const char *text, const char *what);

void assert_contains(const char *text, const char *what);

#endif
