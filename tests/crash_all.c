/* crash_all.c - every instruction, and how far it is.
 *
 * The file of CRASH_PROGRESS has a line for each piece of work done, and the last one of a scenario
 * counts. It is read once and only ever added to. */
#include "crash_all.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deaths.h"

enum { NOTES_MOST = 1000 };

/* Between two lines about the same scenario, on the terminal and in the file. */
static const double told_every_s = 60, kept_every_s = 5;

/* Which program, and how far one scenario is: all points before `next` are done. */
#define NOTE_WRITE "%016" PRIx64 "\t%u/%u\t%s\t%s\t%u\t%u\t%u\t%u\t%u\n"
#define NOTE_READ "%" SCNx64 "\t%u/%u\t%31[^\t]\t%79[^\t]\t%u\t%u\t%u\t%u\t%u"

typedef struct note {
    char group[32], scenario[80];
    crash_point next;
    unsigned points, trials, faults;
} note;

static struct {
    unsigned share, shares;
    uint64_t program;
    FILE *file; /* NULL: none */
    note notes[NOTES_MOST];
    unsigned count;

    uint64_t points, mine, left, done; /* there are; of this share; to do when it began; done now */
    double began;
} all = {.share = 1, .shares = 1};

/* ---- what is done ----------------------------------------------------------------------------- */

static note *note_of(const char *group, const char *scenario)
{
    for (unsigned i = 0; i < all.count; i++)
        if (strcmp(all.notes[i].group, group) == 0 && strcmp(all.notes[i].scenario, scenario) == 0)
            return &all.notes[i];
    note *n = &all.notes[all.count < NOTES_MOST ? all.count++ : NOTES_MOST - 1];
    memset(n, 0, sizeof(*n));
    snprintf(n->group, sizeof(n->group), "%s", group);
    snprintf(n->scenario, sizeof(n->scenario), "%s", scenario);
    return n;
}

static uint64_t checksum_of_program(void)
{
    FILE *program = fopen("/proc/self/exe", "re");
    uint64_t sum = 14695981039346656037u;

    for (int byte; program != NULL && (byte = getc(program)) != EOF;)
        sum = (sum ^ (unsigned)byte) * 1099511628211u;
    if (program != NULL)
        fclose(program);
    return sum;
}

/* Lines that were cut off when the machine stopped are passed over. */
static void read_notes(void)
{
    char line[256];
    unsigned share, shares;
    uint64_t program;
    note n;

    while (fgets(line, sizeof(line), all.file) != NULL)
        if (sscanf(line, NOTE_READ, &program, &share, &shares, n.group, n.scenario, &n.next.changes,
                   &n.next.after, &n.points, &n.trials, &n.faults) == 10 &&
            program == all.program && share == all.share && shares == all.shares)
            *note_of(n.group, n.scenario) = n;
}

static void write_note(const note *n)
{
    if (all.file == NULL)
        return;
    fprintf(all.file, NOTE_WRITE, all.program, all.share, all.shares, n->group, n->scenario,
            n->next.changes, n->next.after, n->points, n->trials, n->faults);
    fflush(all.file);
}

bool all_begin(void)
{
    const char *share = getenv("CRASH_SHARE"), *path = getenv("CRASH_PROGRESS");
    char behind;

    if (share != NULL && (sscanf(share, "%u/%u%c", &all.share, &all.shares, &behind) != 2 ||
                          all.share < 1 || all.share > all.shares)) {
        fprintf(stderr, "CRASH_SHARE is \"%s\"; give k/n, with k from 1 to n\n", share);
        return false;
    }
    if (path == NULL)
        return true;
    all.program = checksum_of_program();
    all.file = fopen(path, "a+e");
    if (all.file == NULL) {
        perror(path);
        return false;
    }
    read_notes();
    return true;
}

/* ---- what there is to do ---------------------------------------------------------------------- */

static bool is_mine(crash_point point)
{
    return (point.changes + point.after) % all.shares == all.share - 1;
}

static bool is_done(const note *n, crash_point point)
{
    return point.changes < n->next.changes ||
           (point.changes == n->next.changes && point.after < n->next.after);
}

void all_add(const plan *p)
{
    const note *n = note_of(p->group, p->scenario.name);

    for (unsigned c = 0; c <= p->changes; c++)
        for (unsigned after = 0; after < plan_gap(p, c); after++) {
            crash_point point = {c, after};
            all.points++;
            all.mine += is_mine(point);
            all.left += is_mine(point) && !is_done(n, point);
        }
}

void all_start(void)
{
    print_message("%" PRIu64 " points, %" PRIu64 " in share %u/%u, %" PRIu64 " left of these\n",
                  all.points, all.mine, all.share, all.shares, all.left);
    all.began = test_now();
}

/* ---- doing it --------------------------------------------------------------------------------- */

static void tell(const plan *p, const note *n)
{
    double each = (test_now() - all.began) / (double)all.done;
    uint64_t left = all.left > all.done ? all.left - all.done : 0;

    print_message("%s: %s: %u points, %u trials, %u faults; in all %" PRIu64 " of %" PRIu64
                  " points (%.2f %%), %.1f h left\n",
                  p->group, p->scenario.name, n->points, n->trials, n->faults,
                  all.mine - (all.left - all.done), all.mine,
                  100 * (double)(all.mine - (all.left - all.done)) / (double)all.mine,
                  each * (double)left / 3600);
}

/* Its numbers are the point's own, whatever was tried before. */
static void draw_second(plan *p, crash_point point)
{
    uint64_t sequence = chance_begin((uint64_t)point.changes << 32 | point.after);

    plan_draw_second(p, &sequence);
}

static void try_point(plan *p, note *n, crash_point point)
{
    unsigned trials = p->trials, faults = p->faults;

    if (p->fault == PLAN_KILL_TWO)
        draw_second(p, point);
    plan_try(p, point);
    all.done++;
    n->next = (crash_point){point.changes, point.after + 1};
    n->points++;
    n->trials += p->trials - trials;
    n->faults += p->faults - faults;
}

void all_try(plan *p)
{
    note *n = note_of(p->group, p->scenario.name);
    double told = test_now(), kept = told;
    unsigned earlier = n->faults;

    for (unsigned c = 0; c <= p->changes && p->faults < PLAN_FAULTS_MOST; c++)
        for (unsigned after = 0; after < plan_gap(p, c) && p->faults < PLAN_FAULTS_MOST; after++) {
            crash_point point = {c, after};
            if (!is_mine(point) || is_done(n, point))
                continue;
            try_point(p, n, point);
            if (test_now() - kept > kept_every_s) {
                write_note(n);
                kept = test_now();
            }
            if (test_now() - told > told_every_s) {
                tell(p, n);
                told = test_now();
            }
        }
    if (p->points > 0) {
        write_note(n);
        tell(p, n);
    }
    p->faults += earlier;
}
