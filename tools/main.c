/* main.c - the command `serry`: finds the subcommand and hands over to it. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <serry/serry.h>

#include "tool.h"

typedef struct command {
    const char *name;
    int (*run)(int argc, char **argv);
} command;

static const command k_commands[] = {
    {"run", tool_run},
    {"bench", tool_bench},
    {"info", tool_info},
    {"version", tool_version},
};

/* What the command line of `serry` itself says: a subcommand, and the rest for it. */
typedef struct invocation {
    const command *command;
    int argc;
    char **argv;
} invocation;

static const char k_doc[] =
    "Start ranks that do collectives over the shared memory of this machine, and look at what the "
    "machine offers them."
    "\v"
    "Commands:\n"
    "  run      start N ranks of a program and see them to their end\n"
    "  bench    time collectives, beside other libraries and what the machine can do\n"
    "  info     cores, caches, NUMA nodes, shared memory, what the kernel permits\n"
    "  version  the version of this command and of its library\n"
    "\n"
    "Examples:\n"
    "  serry run -n 4 ./train corpus.txt\n"
    "  serry run -n 2 --bind core --tag python3 train.py --epochs 3\n"
    "  serry info\n"
    "\n"
    "`serry COMMAND --help' explains a command; so do serry(1), serry-run(1), "
    "serry-bench(1), serry-info(1).";

static void print_version(FILE *stream)
{
    fprintf(stream, "serry %s", SERRY_VERSION);
    if (strcmp(serry_version(), SERRY_VERSION) != 0)
        fprintf(stream, " (with library %s)", serry_version());
    fputc('\n', stream);
}

static void print_version_for_argp(FILE *stream, struct argp_state *state)
{
    (void)state;
    print_version(stream);
}

static void take_command(invocation *call, struct argp_state *state, const char *name)
{
    for (size_t i = 0; i < sizeof k_commands / sizeof *k_commands; i++)
        if (strcmp(name, k_commands[i].name) == 0)
            call->command = &k_commands[i];
    if (call->command == NULL)
        argp_error(state, "there is no command '%s'; there are: run, bench, info, version", name);
    call->argv = state->argv + state->next - 1;
    call->argc = state->argc - state->next + 1;
    state->next = state->argc;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    switch (key) {
    case ARGP_KEY_ARG:
        take_command(state->input, state, text);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "which command? There are: run, bench, info, version");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_nothing(int key, char *text, struct argp_state *state)
{
    if (key != ARGP_KEY_ARG)
        return ARGP_ERR_UNKNOWN;
    argp_error(state, "takes no arguments, but '%s' was given", text);
    return 0;
}

void tool_no_arguments(int argc, char **argv, const char *what)
{
    const struct argp parser = {NULL, parse_nothing, NULL, what, NULL, NULL, NULL};
    argp_parse(&parser, argc, argv, 0, NULL, NULL);
}

int tool_version(int argc, char **argv)
{
    tool_no_arguments(argc, argv,
                      "Print the version of this command, and of its library if it "
                      "is another.");
    print_version(stdout);
    return 0;
}

/* Output that could not be written is a failure of the command, not something to be silent about. */
static int finish_output(int code)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    perror("serry: cannot write to standard output");
    return TOOL_EXIT_FAILED;
}

int main(int argc, char **argv)
{
    const struct argp parser = {NULL, parse, "COMMAND [ARG...]", k_doc, NULL, NULL, NULL};
    invocation call = {NULL, 0, NULL};
    char name[32];

    argp_err_exit_status = TOOL_EXIT_FAILED;
    argp_program_version_hook = print_version_for_argp;
    argp_parse(&parser, argc, argv, ARGP_IN_ORDER, NULL, &call);
    snprintf(name, sizeof name, "serry %s", call.command->name);
    call.argv[0] = name; /* what messages and help of the subcommand begin with */
    return finish_output(call.command->run(call.argc, call.argv));
}
