/* bench.h - what the files of `serry bench` share.
 *
 *   subject    a library with its settings: one column of the table       bench_subjects.c
 *   worker     the processes of a subject at one number of ranks. They stay up for the whole run and
 *              sleep but for their slices; bench/worker.h has what is said to them   bench_worker.c
 *   cell       one operation at one size and number of ranks             bench_plan.c
 *   slice      some milliseconds in which one worker is timed in one cell. The slices of all workers
 *              in a cell follow each other, so that a machine that changes its speed from one second to
 *              the next changes it for all of them; what is compared is within a slice  bench_measure.c
 */
#ifndef SERRY_BENCH_H
#define SERRY_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

enum { BENCH_SIZES_MAX = 16, BENCH_RANKS_MAX = 8, BENCH_ALIASES = 4, BENCH_NOTE_MAX = 200 };
enum { BENCH_SLICES_MAX = 512 }; /* of a cell */

/* ---- what is asked for: bench.c ------------------------------------------------------------- */

typedef struct bench_options {
    const char *operations; /* names with commas; NULL: all */
    const char *peers;      /* likewise; "none": serry alone */
    int ranks[BENCH_RANKS_MAX], rank_count;
    size_t sizes[BENCH_SIZES_MAX]; /* in ascending order */
    int size_count;
    bool sizes_given;
    bool threads, processes; /* which of serry's ranks */
    const char *csv, *plot;  /* files; NULL: none */
    double seconds;          /* for all cells together */
} bench_options;

/* Is the name one of a list with commas? NULL lists all. */
bool bench_listed(const char *list, const char *name);

/* ---- subjects: bench_subjects.c ------------------------------------------------------------- */

typedef enum bench_role {
    BENCH_OURS,
    BENCH_PEER,
    BENCH_LIMIT,  /* no library, but what the machine can do */
    BENCH_VARIANT /* of ours, compared with the one that it varies, in some cells */
} bench_role;

typedef enum bench_launcher {
    BENCH_BY_SERRY,
    BENCH_BY_OPENMPI,
    BENCH_BY_MPICH,
    BENCH_BY_ITSELF /* is told the number of ranks */
} bench_launcher;

/* In cells of this operation and these sizes the worker is asked for another operation. */
typedef struct bench_alias {
    const char *cell, *operation; /* NULL: the end of the list */
    size_t least, most;           /* bytes */
} bench_alias;

typedef struct bench_subject {
    const char *name;    /* in files, and below the table */
    const char *peer;    /* the name for --peers; NULL: it belongs to serry */
    const char *heading; /* of its column */
    bench_role role;
    bench_launcher launcher;
    bool threads;           /* its ranks are threads of one process */
    bool crowd;             /* takes part with more than two ranks */
    bool beside;            /* ranks on one core, the library's own thread on another */
    const char *program;    /* in the folder of workers */
    const char *launch[4];  /* options of the launcher */
    const char *options[3]; /* of the worker */
    size_t most;            /* bytes; 0: no matter */
    bench_alias aliases[BENCH_ALIASES];
    bool aliases_only; /* takes part in no other cells */
} bench_subject;

extern const bench_subject bench_subjects[];
extern const size_t bench_subject_count;

/* The operation that it is asked for in such a cell; NULL: it takes no part. */
const char *bench_asked_for(const bench_subject *subject, const char *cell, size_t bytes);

/* The names that --peers knows, with commas. */
void bench_peer_names(char *text, size_t size);

/* ---- cells: bench_plan.c -------------------------------------------------------------------- */

/* What came of one worker's slice. */
typedef struct bench_sample {
    unsigned calls;                        /* 0: nothing; the times are not valid then */
    double min, median, p99, back_to_back; /* us */
    unsigned long long wrong;              /* elements */
} bench_sample;

typedef struct bench_cell {
    const char *operation;
    int ranks;
    size_t bytes;
    int slices;             /* done */
    int per_pass;           /* slices at a time */
    bench_sample **samples; /* [worker][slice]; NULL: it takes no part */
} bench_cell;

typedef struct bench_worker {
    const bench_subject *subject;
    int ranks;
    size_t send, recv; /* bytes that it needs */
    pid_t pid;         /* leads a process group; 0: not running */
    int log;           /* what it says on stderr; -1: none */
    FILE *in, *out;    /* NULL: not running */
    char *has;         /* the operations that it knows: " barrier allreduce ... " */
} bench_worker;

typedef struct bench_run {
    bench_options options;
    const char *folder; /* of the workers' programs */
    int cores;          /* of the machine, that we may use */
    int listener;       /* where workers report */
    char address[64];   /* of that, as workers are told */
    bench_worker *workers;
    size_t worker_count;
    bench_cell *cells;
    size_t cell_count;
    bool cost, deaths, instructions; /* asked for */
    bool failed;                     /* serry has failed somewhere */
    int passes;
    double disturbance; /* share of the processors' time that went to others, 0 to 1 */
    char (*notes)[BENCH_NOTE_MAX];
    size_t note_count;
    char *cost_csv, *deaths_csv, *instructions_csv; /* what those programs printed; NULL: nothing */
} bench_run;

/* Decide on cells and workers. Where there is no memory for it, this and the next one end the program
 * after saying so. */
void bench_plan(bench_run *run);

/* Make room for the samples of the workers that have started. */
void bench_plan_samples(bench_run *run);
void bench_plan_free(bench_run *run);

/* Does the worker know the operation? false before it has started. */
bool bench_has(const bench_worker *worker, const char *operation);

/* A remark for above the table. */
void bench_note(bench_run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- workers: bench_worker.c ---------------------------------------------------------------- */

/* The folder of the workers' programs: beside the installed command, or in the build tree. NULL: there
 * is none. The caller frees. */
char *bench_find_folder(void);

/* Is there such a program among those that a shell finds? */
bool bench_is_in_path(const char *name);

/* Is the subject installed? Else `why` says what is missing. */
bool bench_is_there(const bench_run *run, const bench_subject *subject, const char **why);

/* Where workers report. False: errno says why not. */
bool bench_listen(bench_run *run);

/* Start it, and wait until it sleeps. False after a note. */
bool bench_start(bench_run *run, bench_worker *worker);

/* One slice. calls is 0 in the sample where the worker has none of it, or fails, after a note. */
bench_sample bench_ask(bench_run *run, bench_worker *worker, const char *operation, size_t bytes,
                       double seconds, bool full);

/* Let them end, and see to it. */
void bench_end(bench_run *run);

/* Run a program of the folder and return what it prints; NULL after a note. The caller frees. */
char *bench_output_of(bench_run *run, const char *program, const char *first, const char *second);

/* ---- measuring: bench_measure.c ------------------------------------------------------------- */

/* Start all workers, take slices until the time is over, end the workers. */
void bench_measure(bench_run *run);

/* What is going on, and how much of it is done (0 to 1; below 0: unknown), on a terminal alone. */
void bench_progress(double done, double seconds_left, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void bench_progress_end(void);

/* ---- figures: bench_figures.c --------------------------------------------------------------- */

/* The median of n values, which are put in order; NAN if n is 0. */
double bench_median(double *values, size_t n);

/* Median over the slices; NAN: no slice. */
double bench_time(const bench_cell *cell, size_t worker);
double bench_back_to_back(const bench_cell *cell, size_t worker);

/* Median over the slices of the ratio within each; `range` (may be NULL) gets the middle half. */
double bench_ratio(const bench_cell *cell, size_t worker, size_t other, double range[2]);

/* The peer with the least time, among those that compare: process ranks with process ranks, threads
 * with all. SIZE_MAX: none. */
size_t bench_best_peer(const bench_run *run, const bench_cell *cell, bool threads);

/* The worker of a subject at this cell's number of ranks that has samples in it; SIZE_MAX: none. */
size_t bench_worker_named(const bench_run *run, const bench_cell *cell, const char *subject);

/* The cell; NULL: there is none. */
const bench_cell *bench_cell_of(const bench_run *run, const char *operation, int ranks,
                                size_t bytes);

unsigned long long bench_wrong(const bench_run *run);

/* ---- what is written: bench_table.c, bench_files.c ------------------------------------------ */

/* "16 KiB"; "" for 0. Returns text. */
char *bench_size_text(size_t bytes, char *text, size_t size);

void bench_print_conditions(const bench_run *run, FILE *to);
void bench_print_tables(const bench_run *run);

/* The cells in which a peer is faster. */
void bench_print_losses(const bench_run *run);

/* What stands below the times: bench_remarks.c. */
void bench_print_remarks(const bench_run *run);

/* False after saying what was wrong. */
bool bench_write_csv(const bench_run *run);
bool bench_write_plots(bench_run *run);

#endif
