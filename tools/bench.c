/* bench.c - `serry bench`: the command line, and what is done in which order. */
#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <serry/types.h>

#include "bench.h"
#include "tool.h"

static const char k_operations[] =
    "barrier,allreduce,allreduce_in_place,broadcast,reduce,allgather,"
    "reduce_scatter,send_recv,overlap,cost,deaths,instructions";

static const char k_doc[] =
    "Time serry beside other libraries and beside what this machine can do, and print a table."
    "\v"
    "Operations: barrier, allreduce, allreduce_in_place, broadcast, reduce, allgather, "
    "reduce_scatter; send_recv, a message there and back; overlap, an allreduce behind a "
    "computation; cost, the memory of ranks and the time to start and end them; deaths, the time "
    "from a kill to the survivors' next operation; instructions, how many a small call takes "
    "(needs valgrind).\n"
    "\n"
    "Peers: openmpi, mpich, gloo, gomp and pthread, as far as they are installed, and limit, what "
    "two cores can do. `none' is serry alone.\n"
    "\n"
    "Examples:\n"
    "  serry bench\n"
    "  serry bench --ops barrier,allreduce --sizes 8,64K,1M --seconds 20\n"
    "  serry bench --ranks 4,32 --peers openmpi,mpich --csv cells.csv --plot latency.svg\n"
    "\n"
    "Nothing else should run meanwhile. serry-bench(1) explains the table.";

enum {
    OPTION_RANKS = 512,
    OPTION_OPS,
    OPTION_SIZES,
    OPTION_THREADS,
    OPTION_PROCS,
    OPTION_PEERS,
    OPTION_CSV,
    OPTION_PLOT,
    OPTION_SECONDS
};

static const struct argp_option k_options[] = {
    {"ranks", OPTION_RANKS, "LIST", 0, "numbers of ranks; without it 2,4,8,32", 0},
    {"ops", OPTION_OPS, "LIST", 0, "operations; without it all", 0},
    {"sizes", OPTION_SIZES, "LIST", 0,
     "sizes in bytes; without it 8,1K,16K,256K,1M,16M,64M, and with more than two ranks 8,1K,1M, "
     "of "
     "allreduce alone unless there is --ops",
     0},
    {"threads", OPTION_THREADS, NULL, 0, "of serry only the thread ranks", 0},
    {"procs", OPTION_PROCS, NULL, 0, "of serry only the process ranks", 0},
    {"peers", OPTION_PEERS, "LIST", 0, "whom to compare with; without it all that are installed",
     0},
    {"csv", OPTION_CSV, "FILE", 0, "write every slice to FILE, whose name ends in .csv", 0},
    {"plot", OPTION_PLOT, "FILE", 0,
     "draw latency over size: NAME-OPERATION.svg for a FILE of NAME.svg (needs gnuplot)", 0},
    {"seconds", OPTION_SECONDS, "S", 0, "time for all cells together; without it 220", 0},
    {NULL, 0, NULL, 0, NULL, 0}};

/* ---- lists --------------------------------------------------------------------------------- */

bool bench_listed(const char *list, const char *name)
{
    size_t length = strlen(name);

    if (list == NULL)
        return true;
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return true;
    }
    return false;
}

/* Are all names of a list among the known ones? */
static void check_names(struct argp_state *state, const char *option, const char *list,
                        const char *known)
{
    char name[64];

    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        snprintf(name, sizeof name, "%.*s", (int)strcspn(at, ","), at);
        if (name[0] == '\0' || !bench_listed(known, name))
            argp_error(state, "%s: there is no '%s'; there are: %s", option, name, known);
    }
}

/* "8", "16K" or "64M", up to a comma or the end; 0: it is none, or not a whole number of f32. */
static size_t parse_size(const char *text, const char **end)
{
    char *after;

    errno = 0;
    unsigned long value = strtoul(text, &after, 10);
    unsigned long unit = *after == 'K' ? 1ul << 10 : *after == 'M' ? 1ul << 20 : 1;
    *end = after + (unit > 1);
    if (errno != 0 || *text == '-' || after == text || (**end != ',' && **end != '\0') ||
        value > (1ul << 32) / unit || value * unit % sizeof(float) != 0)
        return 0;
    return value * unit;
}

static int compare_sizes(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;

    return (x > y) - (x < y);
}

static void parse_sizes(struct argp_state *state, const char *text, bench_options *options)
{
    options->size_count = 0;
    options->sizes_given = true;
    for (const char *at = text, *end; at != NULL; at = *end == ',' ? end + 1 : NULL) {
        size_t size = parse_size(at, &end);
        if (size == 0 || options->size_count == BENCH_SIZES_MAX)
            argp_error(state,
                       "--sizes: '%s' is not a list of up to %d sizes such as 8,16K,1M, each a "
                       "multiple of 4 and at most 4096M",
                       text, BENCH_SIZES_MAX);
        options->sizes[options->size_count++] = size;
    }
    qsort(options->sizes, (size_t)options->size_count, sizeof *options->sizes, compare_sizes);
}

static void parse_ranks(struct argp_state *state, const char *text, bench_options *options)
{
    char *end;

    options->rank_count = 0;
    for (const char *at = text; at != NULL; at = *end == ',' ? end + 1 : NULL) {
        long ranks = strtol(at, &end, 10);
        if (end == at || (*end != ',' && *end != '\0') || ranks < 2 ||
            ranks > (long)SERRY_MAX_RANKS || options->rank_count == BENCH_RANKS_MAX)
            argp_error(state, "--ranks: '%s' is not a list of up to %d numbers from 2 to %d", text,
                       BENCH_RANKS_MAX, (int)SERRY_MAX_RANKS);
        options->ranks[options->rank_count++] = (int)ranks;
    }
}

/* ---- the command line ----------------------------------------------------------------------- */

static void check_ending(struct argp_state *state, const char *option, const char *name,
                         const char *ending)
{
    size_t length = strlen(name), needed = strlen(ending);

    if (length <= needed || strcmp(name + length - needed, ending) != 0)
        argp_error(state, "%s: '%s' does not end in %s", option, name, ending);
}

static void parse_peers(struct argp_state *state, const char *value, bench_options *options)
{
    char names[256];

    bench_peer_names(names, sizeof names);
    strcat(names, ",none");
    check_names(state, "--peers", value, names);
    options->peers = value;
}

static void parse_seconds(struct argp_state *state, const char *value, bench_options *options)
{
    char *end;

    options->seconds = strtod(value, &end);
    if (end == value || *end != '\0' || !(options->seconds > 0 && options->seconds <= 86400))
        argp_error(state, "--seconds: '%s' is not a number above 0 and up to 86400", value);
}

static error_t parse(int key, char *value, struct argp_state *state)
{
    bench_options *options = state->input;

    switch (key) {
    case OPTION_RANKS:
        parse_ranks(state, value, options);
        return 0;
    case OPTION_OPS:
        check_names(state, "--ops", value, k_operations);
        options->operations = value;
        return 0;
    case OPTION_SIZES:
        parse_sizes(state, value, options);
        return 0;
    case OPTION_THREADS:
        options->threads = true;
        return 0;
    case OPTION_PROCS:
        options->processes = true;
        return 0;
    case OPTION_PEERS:
        parse_peers(state, value, options);
        return 0;
    case OPTION_CSV:
        check_ending(state, "--csv", value, ".csv");
        options->csv = value;
        return 0;
    case OPTION_PLOT:
        check_ending(state, "--plot", value, ".svg");
        options->plot = value;
        return 0;
    case OPTION_SECONDS:
        parse_seconds(state, value, options);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "takes options alone, but '%s' was given", value);
        return 0;
    case ARGP_KEY_END:
        if (options->threads && options->processes)
            argp_error(state,
                       "--threads and --procs together leave nothing; give neither for both");
        if (!options->threads && !options->processes)
            options->threads = options->processes = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- in order ------------------------------------------------------------------------------- */

/* Files are written to before the minutes of measuring, so that it is not in vain. */
static bool can_write(const char *name)
{
    FILE *file = name != NULL ? fopen(name, "w") : NULL;

    if (name != NULL && file == NULL) {
        fprintf(stderr, "serry bench: cannot write %s: %s\n", name, strerror(errno));
        return false;
    }
    if (file != NULL)
        fclose(file);
    return true;
}

/* Those that are no cells. */
static void run_others(bench_run *run)
{
    if (run->instructions && !bench_is_in_path("valgrind")) {
        bench_note(run, "valgrind is not installed: instructions are not counted");
    } else if (run->instructions) {
        bench_progress(-1, 0, "counting instructions");
        run->instructions_csv = bench_output_of(run, "bench_instructions", NULL, NULL);
    }
    if (run->cost) {
        bench_progress(-1, 0, "memory and start of ranks");
        run->cost_csv = bench_output_of(run, "bench_cost", NULL, NULL);
    }
    if (run->deaths) {
        bench_progress(-1, 0, "deaths of ranks");
        run->deaths_csv = bench_output_of(run, "bench_deaths", "1000", NULL);
        char *more = bench_output_of(run, "bench_deaths", "15", "1024");
        char *both = NULL;
        if (run->deaths_csv != NULL && more != NULL &&
            asprintf(&both, "%s%s", run->deaths_csv, strchr(more, '\n') + 1) > 0) {
            free(run->deaths_csv);
            run->deaths_csv = both;
        }
        free(more);
    }
}

static int bench(bench_run *run)
{
    if (!can_write(run->options.csv))
        return TOOL_EXIT_FAILED;
    if (!bench_listen(run)) {
        fprintf(stderr, "serry bench: cannot listen for workers: %s\n", strerror(errno));
        return TOOL_EXIT_FAILED;
    }
    bench_plan(run);
    bench_print_conditions(run, stdout);
    fflush(stdout);
    run_others(run);
    bench_measure(run);
    bench_progress_end();
    bool written = bench_write_csv(run) && bench_write_plots(run);
    bench_print_tables(run);
    bench_print_remarks(run);
    if (!written)
        return TOOL_EXIT_FAILED;
    return run->failed || bench_wrong(run) > 0;
}

int tool_bench(int argc, char **argv)
{
    const struct argp parser = {k_options, parse, NULL, k_doc, NULL, NULL, NULL};
    bench_run run = {.options = {.ranks = {2, 4, 8, 32},
                                 .rank_count = 4,
                                 .sizes = {8, 1 << 10, 1 << 14, 1 << 18, 1 << 20, 1 << 24, 1 << 26},
                                 .size_count = 7,
                                 .seconds = 220}};

    argp_parse(&parser, argc, argv, 0, NULL, &run.options);
    char *folder = bench_find_folder();
    if (folder == NULL) {
        fprintf(stderr, "serry bench: its workers were not installed with it (bench_serry in the "
                        "folder libexec/serry); build and install all of serry\n");
        return TOOL_EXIT_FAILED;
    }
    run.folder = folder;
    int code = bench(&run);
    bench_plan_free(&run);
    free(folder);
    return code;
}
