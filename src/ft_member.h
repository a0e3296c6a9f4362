/* ft_member.h - one rank behind the fault-tolerant wrapper, for the files that make it up.
 *
 * ft.c         the table, and what goes straight through
 * ft_member.c  joining and leaving
 * ft_limit.c   the timeout of an attempt, made only when it has to wait
 * ft_tries.c   attempts at one operation until it ends
 * ft_message.c messages, through the backend that carries
 * ft_meet.c    what all ranks do together: give up, change the algorithm, move to the next
 *              backend
 * ft_admit.c   replacements, once the job has moved */
#ifndef SERRY_FT_MEMBER_H
#define SERRY_FT_MEMBER_H

#include <pthread.h>
#include <stdatomic.h>

#include <serry/ft.h>

typedef struct ft_table {
    serry_backend table; /* its context is this */
    char name[64];
    serry_ft_config config;
    const serry_backend *chain[SERRY_FT_CHAIN_MAX];
} ft_table;

/* A membership in one backend of the chain. Older ones are kept until the end: their memory is in
 * use, and replacements come in by the oldest. */
typedef struct ft_carrier {
    const serry_backend *backend;
    serry_member *member;
    size_t at;     /* place in the chain */
    size_t number; /* of this rank's carriers, from 0 */
    struct ft_carrier *older;
} ft_carrier;

/* As in serry_backend. */
typedef int (*ft_runner)(serry_member *member, const serry_call *call, const serry_limit *limit,
                         serry_error *error);

typedef enum ft_what { FT_RUN, FT_SPLIT, FT_AGREE, FT_SHRINK } ft_what;

/* What the caller asked for, and each attempt repeats. */
typedef struct ft_operation {
    ft_what what;
    const char *name;
    serry_call call;     /* FT_RUN */
    int colour, key;     /* FT_SPLIT */
    serry_op op;         /* FT_AGREE */
    uint64_t *value;     /* FT_AGREE: the caller's */
    serry_member **made; /* FT_SPLIT, FT_SHRINK: the caller's */
} ft_operation;

/* What comes next, where it is not an attempt at the operation itself. Each is a collective that
 * may be left open by a timeout; see ft_meet.c. */
typedef enum ft_stage {
    FT_STAGE_NONE,
    FT_STAGE_VOTE,
    FT_STAGE_ADMIT,
    FT_STAGE_SETS,
    FT_STAGE_NAME,
    FT_STAGE_JOIN, /* nothing to agree on: this rank has to join */
    FT_STAGE_CONFIRM
} ft_stage;

/* Sets of ranks that all learn before they move: each gives what it knows, in this order. A fallback
 * only needs the first. */
typedef enum ft_set {
    FT_SET_ABSENT, /* have failed */
    FT_SET_JOINED, /* are replacements that have just come */
    FT_SET_BEFORE, /* took part in the last operation */
    FT_SETS
} ft_set;

typedef struct ft_member {
    const ft_table *table;
    ft_carrier *_Atomic carrier; /* moved by the member's thread; read by all */
    ft_carrier *door;            /* the first one, by which replacements come in */
    pthread_t thread;            /* that has joined there */
    atomic_bool revoked;
    _Atomic uint64_t operation_id;
    serry_job job; /* as of this group: to join the next backend with */
    serry_timeouts *timeouts;
    serry_recovery *recovery;
    unsigned variant;
    uint64_t epoch; /* of older carriers, together */

    /* What ft_run does first, as data, so that it has nothing to ask beforehand: the carrier's run,
     * or one that does nothing and returns FT_AGAIN, which leaves the call to ft_tries.c. See
     * ft_aim. */
    struct {
        ft_runner run[2]; /* where the caller has no token, and where it has one */
        serry_member *member;
        uint64_t step; /* 1: the next call is a new operation; 0: it belongs to the open one */
    } first;

    /* the attempt that runs */
    serry_limit limit;        /* what the carrier gets */
    const serry_limit *given; /* the caller's */
    serry_token *asked;       /* what it was given for a token; NULL: it has not had to wait yet */
    serry_token *token;       /* its timeout's. A reference, or NULL */
    serry_token *outer;       /* the caller's; NULL: it has none. A reference */
    serry_watch watch;        /* on that one */
    bool watching;
    serry_watch own_watch; /* on `token`, of a call that is polled: rouses who sleeps meanwhile */
    bool own_watching;
    bool
        polled; /* the last poll has returned SERRY_ERR_AGAIN: the attempt, or the pause, goes on */
    uint64_t pause_ns; /* end of the pause between two attempts; 0: there is none */

    ft_operation operation; /* that runs, or is open */
    bool open;              /* it has not ended, though the caller has got an error */
    int64_t attempts;       /* at it that have failed */

    /* When a call returns while a meeting is open, the caller has been told of an error that the
     * others may not know of yet. Its next call is a new operation if the meeting comes to abort
     * the old one, as it mostly does. */
    bool told;
    ft_operation old;
    uint64_t old_id;
    unsigned debts; /* operations that it was told of since: all of them are still to be aborted */
    bool paying;    /* the meeting is about one of these */

    bool failed; /* it has had an error */
    bool voted;  /* it was to be aborted once, and others had it completed */

    ft_stage stage;
    uint64_t vote, votes; /* this rank's in the meeting; what it has come to */
    bool voting;          /* a meeting has been polled; */
    uint64_t voting_from; /* the carrier's epoch before it */
    serry_error error;    /* why it was called by this rank */
    struct {
        ft_carrier *over; /* on which all agree about it */
        uint64_t value;   /* in the exchange that is open */
        ft_set set;       /* which set that is about, */
        int word;         /* and which word of it */
        serry_rank_set sets[FT_SETS];
        serry_rank_set previous; /* who was absent last time */
        bool again;              /* an attempt to move there has failed */
        bool admits;             /* it is made for a replacement; */
        bool newcomer;           /* which is this rank */
        uint64_t epoch;          /* admits: of all before */
        size_t target;           /* place in the chain */
        serry_error refused;     /* the last time that it did not let this rank in */
        serry_member *joining;   /* there, and polled: it goes on; else NULL */
        ft_carrier *joined;      /* there, by this rank; NULL: it was not let in */
    } move;

    /* where the job has moved: see ft_admit.c */
    bool finishing; /* the operation that is open completes before anybody is let in */
    bool looked;    /* a meeting has let nobody in: not before the next operation again */
    bool shut;      /* nobody can be let in any more */
    bool news;      /* the next operation tells: */
    serry_rank_set joined, lost;
} ft_member;

/* Beside the error codes. */
enum { FT_AGAIN = 1, FT_FINISH, FT_ABORTED };

static inline ft_carrier *ft_carrier_of(const ft_member *m)
{
    return atomic_load_explicit(&m->carrier, memory_order_acquire);
}

static inline uint64_t ft_id(const ft_member *m)
{
    return atomic_load_explicit(&m->operation_id, memory_order_relaxed);
}

static inline ft_member *ft_own(serry_member *member)
{
    return (ft_member *)(void *)member;
}

static inline const ft_member *ft_own_const(const serry_member *member)
{
    return (const ft_member *)(const void *)member;
}

/* ---- ft_member.c ---- */

int ft_open(const serry_backend *backend, const serry_job *job, serry_member **member,
            serry_error *error);
int ft_close(serry_member *member, serry_error *error);
void ft_forget(serry_member *member);

/* A member without a carrier yet. `parent`: whose strategies it gets; NULL: the default ones. */
ft_member *ft_member_new(const ft_table *table, const serry_job *job, const ft_member *parent,
                         serry_error *error);

/* Set m->first, by the carrier and by what is open. */
void ft_aim(ft_member *m);

/* Join number `at` of the chain. SERRY_ERR_AGAIN, where the job is polled: *joining goes on. Else NULL in
 * *joined: it failed, which is in the history. */
int ft_join(ft_member *m, size_t at, const serry_job *job, serry_member **joining,
            ft_carrier **joined, serry_error *error);

/* A move is over, or given up: leave where it was to go. */
void ft_leave_next(ft_member *m);

/* A carrier for a membership that is there. NULL: no memory, and the membership is closed. */
ft_carrier *ft_carrier_new(const serry_backend *backend, serry_member *member, size_t at,
                           serry_error *error);
void ft_carrier_close(ft_carrier *c);

/* ---- ft_limit.c ---- */

/* Before and after an attempt with m->limit. Where the caller has no token, the first can be left
 * out, and the second where m->asked is NULL. */
void ft_limit_begin(ft_member *m);
void ft_limit_end(ft_member *m);

/* serry_limit.token of the carrier. */
serry_token *ft_limit_token(void *member);

/* The attempt has ended by time: has that been put off meanwhile? */
bool ft_limit_goes_on(const ft_member *m);

/* Begin a pause between attempts, and go through it: SERRY_OK, SERRY_ERR_CANCELLED, or SERRY_ERR_AGAIN where
 * the call is polled. */
int ft_limit_pause(ft_member *m, int delay_ms);
int ft_limit_pause_on(ft_member *m);

/* ---- ft_tries.c ---- */

/* Give a call its number. */
static inline void ft_count(ft_member *m)
{
    atomic_store_explicit(&m->operation_id, ft_id(m) + m->first.step, memory_order_relaxed);
}

/* An operation that was counted, from its first attempt on; where one is open, go on with that, or
 * refuse this one. */
int ft_start(ft_member *m, const ft_operation *operation, serry_error *error);

/* As ft_start, after a first attempt that has returned `rc`; FT_AGAIN: there was none. */
int ft_run_slowly(ft_member *m, const serry_call *call, int rc, serry_error *error);

/* ---- ft_meet.c ---- */

/* Before the stage FT_STAGE_VOTE: vote for a strategy because of m->error. */
void ft_vote(ft_member *m, serry_strategy strategy);
bool ft_votes_to_abort(const ft_member *m);

/* From the stage where it stands to its end. FT_AGAIN or FT_FINISH: run the call; FT_ABORTED: all
 * give it up, m->votes says why; or an error, with the stage at none unless it can be gone on
 * with. */
int ft_meet(ft_member *m, const serry_limit *limit, serry_error *error);

/* Where all have gone to another backend, as the votes of the meeting say that has let this rank into
 * its first one: follow them. SERRY_OK where they have not, or this rank is there. */
int ft_follow(ft_member *m, uint64_t told, const serry_limit *limit, serry_error *error);

/* What m->votes tell of an operation that was aborted. */
int ft_aborted_code(const ft_member *m);
int ft_aborted_by(const ft_member *m); /* -1: several, or not known */

/* ---- ft_admit.c ---- */

static inline bool ft_has_moved(const ft_member *m)
{
    return ft_carrier_of(m) != m->door;
}

/* Does a replacement wait at the first backend, after a move to another one? */
bool ft_newcomer_calls(const ft_member *m);

/* Is there anything to do before an operation of a member that has moved? */
bool ft_must_look(const ft_member *m);

/* Do it, before an attempt at m->operation. SERRY_OK: go on with that. SERRY_ERR_MEETING: meet
 * first. */
int ft_look(ft_member *m, serry_error *error);

/* Has an attempt found ranks missing that the policy says to wait for? */
bool ft_waits_for_replacement(const ft_member *m);

/* What a backend is told, to which the job has moved. */
serry_policy ft_policy_there(serry_policy policy);

/* All are there, with the replacement: what the next operation tells. */
void ft_admitted(ft_member *m);

/* ---- ft_message.c: as in serry_backend ---- */

int ft_put(serry_member *member, int dest, const serry_envelope *envelope, const void *data,
           uint64_t *ticket, serry_error *error);
int ft_settled(serry_member *member, int dest, uint64_t ticket, serry_error *error);
int ft_withdraw(serry_member *member, int dest, uint64_t ticket);
int ft_peek(serry_member *member, int source, serry_envelope *envelope, serry_error *error);
int ft_take(serry_member *member, int source, void *data, serry_error *error);
void ft_listen(serry_member *member, serry_interest *interest);

#endif
