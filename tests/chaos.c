/* chaos.c - the random end-to-end test of fault tolerance; chaos.h says how it works.
 *
 *   chaos [--ranks N] [--seconds S] [--seed X] [--policy report|exclude|wait|mixed] [--no-stops]
 *         [--patience S]
 *
 * On a terminal it prints a line each second. Exit code 0: all was right. */
#include "chaos.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SECOND UINT64_C(1000000000)

enum { JOB_RESPAWNS = 1500, TICK_NS = 200000 };

/* The arena must not grow with the number of replacements. A rank needs about 2 MiB: its buffers, its
 * part of the world, and of the group that replaces it; and there are parts. */
#define ARENA_MOST (UINT64_C(6) << 20)

typedef struct options {
    int ranks, policy;
    double seconds, patience;
    bool stops;
} options;

static const struct option k_options[] = {{"ranks", required_argument, NULL, 'n'},
                                          {"seconds", required_argument, NULL, 's'},
                                          {"seed", required_argument, NULL, 'x'},
                                          {"policy", required_argument, NULL, 'p'},
                                          {"patience", required_argument, NULL, 'w'},
                                          {"no-stops", no_argument, NULL, 'c'},
                                          {NULL, 0, NULL, 0}};

static int policy_named(const char *name)
{
    static const char *const names[CHAOS_POLICIES] = {[SERRY_REPORT] = "report",
                                                      [SERRY_EXCLUDE] = "exclude",
                                                      [SERRY_REVOKE] = "",
                                                      [SERRY_WAIT] = "wait",
                                                      [CHAOS_MIXED] = "mixed"};

    for (int i = 0; i < CHAOS_POLICIES; i++)
        if (strcmp(name, names[i]) == 0 && name[0] != 0)
            return i;
    return -1;
}

static bool parse(int argc, char **argv, options *o)
{
    int letter;

    while ((letter = getopt_long(argc, argv, "", k_options, NULL)) != -1)
        switch (letter) {
        case 'n':
            o->ranks = atoi(optarg);
            break;
        case 's':
            o->seconds = atof(optarg);
            break;
        case 'x':
            setenv("SERRY_TEST_SEED", optarg, 1);
            break;
        case 'p':
            o->policy = policy_named(optarg);
            break;
        case 'w':
            o->patience = atof(optarg);
            break;
        case 'c':
            o->stops = false;
            break;
        default:
            return false;
        }
    return optind == argc && o->ranks >= 2 && o->ranks <= CHAOS_RANKS && o->policy >= 0 &&
           o->seconds > 0;
}

/* ---- inputs ------------------------------------------------------------------------------------- */

static void prepare(chaos_job *job)
{
    static const struct {
        serry_dtype dtype;
        serry_op op;
    } kinds[CHAOS_DATA] = {{SERRY_I64, SERRY_SUM},     {SERRY_F32, SERRY_SUM},
                           {SERRY_F64, SERRY_AVG},     {SERRY_BF16, SERRY_SUM},
                           {SERRY_I32, SERRY_MIN},     {SERRY_U8, SERRY_BXOR},
                           {SERRY_U32, SERRY_OP_USER}, {SERRY_F16, SERRY_MAX}};

    for (int i = 0; i < CHAOS_DATA; i++) {
        chaos_data *d = &job->data[i];
        size_t bytes = CHAOS_LENGTH * reference_size(kinds[i].dtype);
        d->dtype = kinds[i].dtype;
        d->op = kinds[i].op;
        d->memory = test_shared(bytes * (size_t)job->size);
        for (int r = 0; r < job->size; r++)
            reference_fill(d->memory + bytes * (size_t)r, 0, CHAOS_LENGTH, d->dtype, d->op,
                           test_seed() + (uint64_t)i, r);
    }
}

/* ---- one job ------------------------------------------------------------------------------------ */

/* For the figures of all jobs: those of the board are the job's. */
typedef struct sums {
    uint64_t operations, errors, timeouts, parts, shrinks, failures, joins, silent, otherwise;
    uint64_t regained, lost, without_arena, epochs;
} sums;

static void add(sums *s, const chaos_board *b)
{
    s->operations += b->operations;
    s->errors += b->errors;
    s->timeouts += b->timeouts;
    s->parts += b->parts;
    s->shrinks += b->shrinks;
    s->failures += b->failures;
    s->joins += b->joins;
    s->silent += b->silent;
    s->regained += b->regained;
    s->lost += b->lost;
    s->otherwise += b->otherwise;
    s->without_arena += b->without_arena;
    s->epochs += b->epoch;
}

static void print_line(const chaos_control *c, double at, const sums *before)
{
    sums s = *before;

    add(&s, c->job.board);
    printf("%6.1f s: %llu calls ended well, %llu with errors; %llu kills, %llu stops, %llu "
           "replacements, %llu epochs, arena %.1f MiB, job %llu\n",
           at, (unsigned long long)s.operations, (unsigned long long)s.errors,
           (unsigned long long)c->totals.kills, (unsigned long long)c->totals.stops,
           (unsigned long long)c->totals.respawns, (unsigned long long)s.epochs,
           (double)chaos_arena_bytes(c) / (1 << 20), (unsigned long long)c->totals.jobs);
    fflush(stdout);
}

static void measure(chaos_control *c)
{
    uint64_t bytes = chaos_arena_bytes(c);

    if (bytes > c->totals.arena_most) {
        c->totals.arena_most = bytes;
        c->totals.arena_respawns = c->respawns;
    }
}

/* True while somebody gets on; a newcomer must get in, too. */
static bool gets_on(chaos_control *c)
{
    uint64_t now = chaos_now(), calls = 0;

    for (int r = 0; r < c->job.size; r++) {
        const chaos_seat *seat = &c->job.board->seat[r];
        calls += seat->calls;
        if (c->process[r].pid != 0 && seat->admitted != seat->incarnation &&
            now - c->process[r].born_ns > c->patience_ns) {
            fprintf(stderr, "WATCHDOG: rank %d does not get in\n", r);
            return false;
        }
    }
    if (calls != c->calls)
        c->progress_ns = now;
    c->calls = calls;
    if (now - c->progress_ns <= c->patience_ns)
        return true;
    fprintf(stderr, "WATCHDOG: nobody gets on\n");
    return false;
}

/* One in eight is to end by the death of all. */
static void end_job(chaos_control *c)
{
    if (chaos_chance(&c->sequence, 8) == 0) {
        c->massacre = true;
        c->kill_ns = 0;
        c->totals.massacres++;
    } else {
        c->job.board->stop = 1;
    }
}

static bool run_job(chaos_control *c, uint64_t began, double seconds, const sums *before)
{
    const struct timespec nap = {0, TICK_NS};
    uint64_t now = chaos_now(), second = now;
    uint64_t end = now + chaos_power(&c->sequence, 28, 34),
             last = began + (uint64_t)(seconds * 1e9);
    bool ending = false, interactive = isatty(STDOUT_FILENO);

    chaos_start(c);
    while (chaos_living(c) > 0 || !ending) {
        nanosleep(&nap, NULL);
        if (!chaos_tick(c) || !gets_on(c))
            return false;
        now = chaos_now();
        if (!ending && (now >= end || now >= last || c->respawns >= JOB_RESPAWNS)) {
            ending = true;
            end_job(c);
        }
        if (now < second)
            continue;
        second += SECOND / 4;
        measure(c);
        if (interactive && (second - began) / (SECOND / 4) % 4 == 0)
            print_line(c, (double)(now - began) / 1e9, before);
    }
    return true;
}

/* ---- all ---------------------------------------------------------------------------------------- */

static void print_summary(const chaos_control *c, const sums *s, double seconds)
{
    printf(
        "%d ranks, %.1f s: %llu jobs (%llu ended by the death of all)\n"
        "  %llu calls of all ranks ended well, %llu with errors, %llu times out of time; %llu "
        "parts, %llu shrinks\n"
        "  %llu kills (%llu of newcomers on their way in), %llu stops, %llu replacements, %llu "
        "epochs\n"
        "  seen by the ranks: %llu failures, %llu replacements under report (%llu without the "
        "failure before)\n"
        "  %llu newcomers took their places in a part, %llu found nobody there\n"
        "  %llu calls had ended otherwise for a rank that was killed; memory refused %llu times\n"
        "  arena: at most %.1f MiB, after %llu replacements\n",
        c->job.size, seconds, (unsigned long long)c->totals.jobs,
        (unsigned long long)c->totals.massacres, (unsigned long long)s->operations,
        (unsigned long long)s->errors, (unsigned long long)s->timeouts,
        (unsigned long long)s->parts, (unsigned long long)s->shrinks,
        (unsigned long long)c->totals.kills, (unsigned long long)c->totals.at_join,
        (unsigned long long)c->totals.stops, (unsigned long long)c->totals.respawns,
        (unsigned long long)s->epochs, (unsigned long long)s->failures,
        (unsigned long long)s->joins, (unsigned long long)s->silent,
        (unsigned long long)s->regained, (unsigned long long)s->lost,
        (unsigned long long)s->otherwise, (unsigned long long)s->without_arena,
        (double)c->totals.arena_most / (1 << 20), (unsigned long long)c->totals.arena_respawns);
}

static bool run_jobs(chaos_control *c, const options *o, sums *s)
{
    uint64_t began = chaos_now();
    bool good = true;

    while (good && (double)(chaos_now() - began) < o->seconds * 1e9) {
        c->totals.jobs++;
        c->job.seed = chaos_mix(test_seed(), c->totals.jobs);
        test_job_name(c->job.name, sizeof(c->job.name));
        good = run_job(c, began, o->seconds, s);
        add(s, c->job.board);
    }
    print_summary(c, s, (double)(chaos_now() - began) / 1e9);
    if (c->totals.arena_most > ARENA_MOST * (uint64_t)c->job.size) {
        fprintf(stderr, "FAULT: the arena grows\n");
        good = false;
    }
    return good;
}

int main(int argc, char **argv)
{
    static chaos_control c;
    options o = {.ranks = 4, .policy = CHAOS_MIXED, .seconds = 5, .patience = 60, .stops = true};
    size_t files = chaos_files();
    sums s = {0};

    if (!parse(argc, argv, &o)) {
        fprintf(stderr, "usage: chaos [--ranks N] [--seconds S] [--seed X] "
                        "[--policy report|exclude|wait|mixed] [--no-stops] [--patience S]\n");
        return 2;
    }
    c.sequence = chaos_mix(test_seed(), 4);
    c.job.size = o.ranks;
    c.job.policy = o.policy;
    c.job.board = test_shared(sizeof(*c.job.board));
    c.stops = o.stops;
    c.patience_ns = (uint64_t)(o.patience * (TEST_SANITIZER ? 4 : 1)) * SECOND;
    prepare(&c.job);
    bool good = run_jobs(&c, &o, &s);
    if (!good) {
        fprintf(stderr, "repeat: chaos --ranks %d --policy %d --seed %llu (job %llu)\n", o.ranks,
                o.policy, (unsigned long long)test_seed(), (unsigned long long)c.totals.jobs);
        chaos_describe(&c);
        chaos_kill_all(&c);
    }
    if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD || chaos_files() > files) {
        fprintf(stderr, "FAULT: processes or files are left behind\n");
        good = false;
    }
    return good ? 0 : 1;
}
