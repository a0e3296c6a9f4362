/* chaos.h - ranks that die, stop and are replaced at random moments while they work, and every result of
 * theirs compared.
 *
 * A controller (chaos.c, chaos_faults.c) runs one job after another. The ranks of a job draw the same
 * sequence of operations from the seed: operation `index` is a pure function of seed, job and index,
 * so everybody knows what everybody contributes. After each call a rank computes the right result
 * from the participants that it was told, and logs the outcome on the board, where it must be the
 * same for all.
 *
 * A replacement does not know where the others are. So whatever it meets, its first call is a sync:
 * an allgather of what everybody knows, of a size that no random operation has. The others call one
 * too, after every error that says that somebody has joined: RANK_JOINED under report, RANK_MISMATCH
 * under exclude and wait (the newcomer's sync met their operation), and every 16 operations.
 *
 *   chaos.c            options, jobs, summary
 *   chaos_faults.c     kills, stops, replacements
 *   chaos_watch.c      where everybody is, and what is left behind
 *   chaos_board.c      what ranks log, and comparing it
 *   chaos_rank.c       the life of a rank
 *   chaos_parts.c      its life in parts of the world: split, revoke, agree, shrink
 *   chaos_standing.c   in a part that outlives deaths: replacements take their places there, too
 *   chaos_requests.c   operations that are started together
 *   chaos_messages.c   messages, also beside those
 *   chaos_account.c    which outcomes are right, and who is a member after them
 *   chaos_operation.c  one random collective call and its result */
#ifndef TEST_CHAOS_H
#define TEST_CHAOS_H

#include "harness.h"
#include "reference.h"

enum { CHAOS_RANKS = 16, CHAOS_ENTRIES = 256, CHAOS_DATA = 8 };
enum { CHAOS_COLOUR = 8 };                     /* shift: in the key of a call in a part */
enum { CHAOS_ELEMENTS = 24576 };               /* most that a call moves, all blocks together */
enum { CHAOS_LENGTH = CHAOS_ELEMENTS + 8192 }; /* of an input, from which calls take stretches */
enum {
    CHAOS_MIXED = SERRY_POLICIES,
    CHAOS_POLICIES
}; /* beside the policies: all of them in turn */

/* ---- the board: shared by the controller and all ranks ------------------------------------------ */

/* How a call has ended for a rank. Written by it, read by the others at any time: `key` is 0 while
 * the rest changes. */
typedef struct chaos_entry {
    _Atomic uint64_t key; /* of the call */
    _Atomic int64_t code;
    _Atomic uint64_t incarnation; /* of the rank that has logged it */
    _Atomic uint64_t ranks;       /* who took part, or the ranks at fault */
    _Atomic uint64_t epoch, hash;
} chaos_entry;

/* A rank of the job: one process after another. Incarnations count from 1. */
typedef struct chaos_seat {
    /* by the controller */
    _Atomic unsigned incarnation; /* of the process that is this rank now */
    _Atomic unsigned doomed;      /* the last one that has been, or will be, killed */
    _Atomic unsigned countdown;   /* it kills itself at the so manyth place from now; 0: no */
    /* by the process */
    _Atomic unsigned admitted; /* the last one that has joined */
    _Atomic unsigned elder;    /* the last one that knows all that the others know */
    _Atomic uint64_t calls;
    char where[160];
    chaos_entry entry[CHAOS_ENTRIES];
} chaos_seat;

typedef struct chaos_board {
    _Atomic int stop;   /* the ranks shall end, by the next sync */
    _Atomic int ending; /* they do: nobody joins any more */
    _Atomic int failed; /* somebody has found a fault, and has said which */
    _Atomic uint64_t operations, errors, timeouts, parts, shrinks; /* of all ranks */
    _Atomic uint64_t failures, joins, silent; /* told to the lowest member: see chaos_account.c */
    _Atomic uint64_t regained, lost; /* places in the standing part: see chaos_standing.c */
    _Atomic uint64_t otherwise;      /* see chaos_log */
    _Atomic uint64_t without_arena;  /* ranks that got no memory from serry_alloc */
    _Atomic uint64_t epoch;
    chaos_seat seat[CHAOS_RANKS];
} chaos_board;

/* Inputs of all ranks for one type and reduction, made before the first job. */
typedef struct chaos_data {
    serry_dtype dtype;
    serry_op op;           /* SERRY_OP_USER: the ranks' own */
    unsigned char *memory; /* CHAOS_LENGTH elements a rank */
} chaos_data;

typedef struct chaos_job {
    uint64_t seed; /* of this job: changes with each */
    char name[64];
    int size;
    int policy; /* a serry_policy, or CHAOS_MIXED */
    chaos_board *board;
    chaos_data data[CHAOS_DATA];
} chaos_job;

/* ---- a rank ------------------------------------------------------------------------------------- */

/* A communicator as the test knows it: ranks in it count from 0. */
typedef struct chaos_group {
    serry_comm *comm;
    int size, rank;
    serry_policy policy;
    bool is_world;
    bool is_standing;                  /* replacements take their places in it */
    bool revocable;                    /* a call may return SERRY_ERR_REVOKED */
    uint64_t members;                  /* not known to have failed */
    uint64_t epoch;                    /* after the last call */
    int world[CHAOS_RANKS];            /* their ranks in the world */
    unsigned incarnation[CHAOS_RANKS]; /* 0: not known yet */
} chaos_group;

/* What is known of the parts of the world. */
typedef enum chaos_fact {
    FACT_BORN,    /* operation that made the standing part, plus 1; 0: there is none */
    FACT_RANKS,   /* who took part in that, */
    FACT_ORDINAL, /* and how many parts there had been before */
    FACT_PARTS,   /* how many there have been up to now */
    FACTS
} chaos_fact;

typedef struct chaos_rank {
    const chaos_job *job;
    chaos_board *board;
    chaos_seat *seat;
    int rank;
    unsigned incarnation;
    uint64_t sequence; /* its own chance */
    serry_op user_op;
    chaos_group world;
    chaos_group standing; /* no comm: this rank is not in it */
    unsigned char *private_send, *private_recv, *arena_send, *arena_recv, *shadow;

    /* all elders have the same */
    uint64_t index; /* of the operation that comes next */
    uint64_t call;  /* number of the next call on the world; an operation may take several */
    uint64_t state; /* made of all outcomes so far */
    uint64_t facts[FACTS];
    uint64_t newcomers, holders; /* in the last sync: who was new, who was in the standing part */
} chaos_rank;

typedef struct chaos_operation {
    serry_kind kind;
    const chaos_data *data;
    size_t count, shift; /* elements; the stretch of the inputs */
    int root;
    int memory; /* a memory_choice of cases.h */
    bool in_place;
} chaos_operation;

/* chaos_board.c */

/* Numbers below `limit`, from a sequence. */
uint64_t chaos_chance(uint64_t *sequence, uint64_t limit);

/* 2^n and a bit, for n in [least, most]: short ones as likely as long ones. */
uint64_t chaos_power(uint64_t *sequence, unsigned least, unsigned most);
uint64_t chaos_mix(uint64_t a, uint64_t b);
uint64_t chaos_hash(const void *memory, size_t bytes);

/* Say what is wrong, and wait for the end of the test. */
_Noreturn void chaos_fail(chaos_rank *self, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void chaos_at(chaos_rank *self, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A place where a rank may have been told to kill itself. */
void chaos_place(chaos_seat *seat);

/* Log how a call has ended, and compare it with what the others have logged. `revocable`: some may
 * find the communicator revoked. */
void chaos_log(chaos_rank *self, uint64_t key, int code, uint64_t ranks, uint64_t epoch,
               uint64_t hash, bool revocable);

/* Has the process been ordered to die? */
bool chaos_is_doomed(const chaos_board *board, int rank, unsigned incarnation);

/* chaos_account.c */

/* Is the outcome of a call right? Updates who is a member; returns the ranks to log. `root` < 0: the
 * call has none. `newcomers`: those that this call has shown to be new. */
uint64_t chaos_account(chaos_rank *self, chaos_group *g, int code, int root, uint64_t newcomers);
uint64_t chaos_agreed(chaos_rank *self, chaos_group *g, bool flag, bool *any);

/* Likewise of one of several requests, with its own record, and who took part by its result. `met`: one of
 * them has met a newcomer. */
uint64_t chaos_account_request(chaos_rank *self, chaos_group *g, int code, const serry_error *error,
                               uint64_t ranks, bool *met);

/* chaos_operation.c */
void chaos_draw(const chaos_job *job, uint64_t *sequence, int size, chaos_operation *op);

/* Make the call, again after each timeout; check buffers, account, log under `key`. */
int chaos_run(chaos_rank *self, chaos_group *g, const chaos_operation *op, uint64_t key);

/* Some calls have hardly any time, and are repeated: before and after. */
void chaos_hurry(chaos_rank *self, serry_comm *comm);
bool chaos_again(chaos_rank *self, serry_comm *comm, int code);

/* chaos_requests.c */

/* Several operations on the world started together, and what has become of them. Keys from `key` on. */
int chaos_requests(chaos_rank *self, uint64_t *sequence, uint64_t key);

/* chaos_messages.c */

/* All send to some of the others, and receive. Keys from `key` on. */
int chaos_messages(chaos_rank *self, uint64_t *sequence, uint64_t key);

/* chaos_parts.c */

/* Split the world, and work in the part. */
int chaos_part(chaos_rank *self, uint64_t *sequence);

/* Split the world, as operation self->index does. part->comm is NULL where there is none. */
int chaos_split(chaos_rank *self, chaos_group *part);

/* The colour of a rank when that operation splits the world; what this rank's part is then, where
 * those ranks take part; and whether the library says the same. */
int chaos_colour(const chaos_rank *self, int rank, uint64_t index);
void chaos_fill_part(const chaos_rank *self, chaos_group *part, uint64_t ranks, uint64_t index);
void chaos_check_part(chaos_rank *self, const chaos_group *part);

/* Agree, shrink, work in what is left, and leave it. */
void chaos_recover(chaos_rank *self, chaos_group *g, uint64_t *sequence, uint64_t key,
                   bool revoked);

/* chaos_standing.c */

/* Make the standing part, work in it, or leave it. */
int chaos_stand(chaos_rank *self, uint64_t *sequence);

/* After a sync with newcomers: they take their places in it. */
void chaos_regain(chaos_rank *self);
void chaos_leave_standing(chaos_rank *self);

/* chaos_rank.c */
void chaos_live(const chaos_job *job, int rank, unsigned incarnation);

/* ---- the controller ----------------------------------------------------------------------------- */

typedef struct chaos_totals {
    uint64_t jobs, massacres, kills, stops, respawns, at_join;
    uint64_t arena_most;     /* bytes */
    uint64_t arena_respawns; /* replacements in that job until then */
} chaos_totals;

typedef struct chaos_process {
    pid_t pid; /* 0: none */
    uint64_t born_ns;
    uint64_t spawn_ns, kill_ns, go_on_ns; /* when something is to happen to it; 0: never */
} chaos_process;

typedef struct chaos_control {
    chaos_job job;
    chaos_process process[CHAOS_RANKS];
    chaos_totals totals;
    uint64_t sequence;
    bool stops;
    uint64_t patience_ns;        /* of the watchdog */
    uint64_t kill_ns, stop_ns;   /* the next ones */
    uint64_t calls, progress_ns; /* for the watchdog */
    uint64_t respawns;           /* in this job */
    bool massacre;
} chaos_control;

/* chaos_faults.c */
uint64_t chaos_now(void);
void chaos_start(chaos_control *c);

/* What is due now. False: something is wrong, and has been said. */
bool chaos_tick(chaos_control *c);
int chaos_living(const chaos_control *c);
void chaos_kill_all(chaos_control *c);

/* chaos_watch.c */
void chaos_describe(const chaos_control *c);
uint64_t chaos_arena_bytes(const chaos_control *c);
size_t chaos_files(void);

#endif
