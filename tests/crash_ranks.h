/* crash_ranks.h - what the ranks of a crash trial do: a section in which one of them is stopped at
 * an instruction, and operations afterwards that show what that has left behind. */
#ifndef TEST_CRASH_RANKS_H
#define TEST_CRASH_RANKS_H

#include <pthread.h>

#include "harness.h"

#define CRASH_RANKS 6             /* newcomers included */
#define CRASH_MANY ((size_t)1100) /* elements of 8 bytes: more than the small operations carry */

/* Of each operation: a hang is told with the names of those that it waits for. */
#define CRASH_TIMEOUT_MS 60000

/* Of joining, where the others wait for one that they have never heard of. */
#define CRASH_UNKNOWN_MS 500

typedef struct crash_actor crash_actor;

/* One fault: what is called when it strikes, and by whom. */
typedef struct crash_scenario {
    const char *name;
    int size, victim;
    serry_policy policy;

    /* the collective, where there is no section */
    serry_kind kind;
    size_t count;
    int root;
    bool arena, in_place;
    unsigned variant; /* of the algorithms, as in shm/operation.h; 0: as the harness has it */
    bool first;       /* large operation of its members: they get their rooms in it */

    bool fallen;   /* the last rank has been killed before, and all know */
    int newcomers; /* harness ranks from `size` on: the first takes the place of the fallen rank, the
                      second that of the victim, which may be the first */
    bool apart;    /* rank 0 is not in the part, where the ranks have one before the section */
    bool joins;    /* the section is serry_init itself */
    unsigned requests;       /* started at a time, by the section; */
    bool mixed;              /* of sums every other one a message instead */
    serry_progress progress; /* as in the configuration */
    unsigned points;         /* about so many are tried, by chance; 0: all, of a short section */
    bool awake;              /* no sleeper: it leaves, or revokes when it wakes up */
    bool elsewhere;          /* the section itself begins and ends the steps, in another thread */

    void (*prepare)(crash_actor *a);       /* all members, before anybody falls; NULL: nothing */
    void (*ready)(crash_actor *a);         /* all ranks, then, right before the section; likewise */
    int (*section)(crash_actor *a);        /* NULL: the collective */
    void (*judge)(crash_actor *a, int rc); /* the survivors, after it; NULL: of the collective */
} crash_scenario;

/* What the survivors must have alike. */
typedef struct crash_entry {
    const char *what;
    int rc;
    int64_t value;
} crash_entry;

typedef struct crash_log {
    bool outside;     /* this rank has not got into the job, or is not in the part */
    unsigned entries; /* written, of which the first few are kept */
    uint64_t hash;    /* of all */
    crash_entry entry[20];
} crash_log;

/* Shared by all processes of a trial. */
typedef struct crash_trial {
    const crash_scenario *scenario;
    bool sealed;          /* the victim is sealed and goes on later, instead of being killed */
    bool held;            /* the victim is stopped for a while, and goes on with all others */
    _Atomic bool unknown; /* not all need have heard of the victim, which joins: they may wait
                             for it. By the record at first, then as the run has been */
    unsigned gone;        /* who will be missing, as bits */
    crash_log log[CRASH_RANKS];
} crash_trial;

/* One rank. */
struct crash_actor {
    test_rank *self;
    crash_trial *trial;
    const crash_scenario *scenario;
    serry_comm *comm; /* in which it goes on */
    serry_comm *part;
    serry_call call;
    int64_t *send, *recv;
    int64_t *many; /* of operations afterwards: in the arena, if these are there; NULL: anywhere */
    size_t sent, received;    /* elements */
    unsigned losses;          /* RANK_FAILED so far: in the world, */
    unsigned part_losses;     /* and in the part */
    uint64_t bits;            /* to agree on */
    serry_timeouts *timeouts; /* of a section that is cancelled, */
    pthread_t canceller;      /* by this thread */
};

/* Has the fault struck? */
bool crash_has_fired(const crash_actor *a);

/* The body of every rank; the argument is the crash_trial. */
void crash_body(test_rank *self);

/* Do the survivors' logs agree? Prints where they do not. */
bool crash_logs_agree(const crash_trial *trial);

/* ---- for sections ----------------------------------------------------------------------------- */

void crash_note(crash_actor *a, const char *what, int rc, int64_t value);

/* The section gave RANK_FAILED, as it may: once for each who is gone, with the policy to report. */
bool crash_may_fail(crash_actor *a, const serry_comm *comm, const char *what, int rc);

/* Operations in a communicator until some in a row have succeeded without those who are gone. */
void crash_go_on(crash_actor *a, serry_comm *comm, const char *what);

/* Buffers of the collective, and what its end must have left in them. crash_collective.c */
void crash_collective_prepare(crash_actor *a);
void crash_collective_judge(crash_actor *a, int rc);
void crash_collective_excluded(crash_actor *a);

/* A number for what lies in its buffers. */
uint64_t crash_collective_print(const crash_actor *a);
void crash_collective_release(crash_actor *a);

/* Does it come into a running job? */
bool crash_is_newcomer(const crash_actor *a);

/* Wait until a newcomer has called all members of the communicator to meet, where a member is the
 * victim: its section is that meeting then. */
void crash_await_call(const crash_actor *a, const serry_comm *comm);

/* Join the job as this rank of it. */
int crash_join(crash_actor *a, int rank, serry_entry entry);

/* The first sum of crash_go_on, in which all take part: as bits, into *mask. It is none of those that
 * must succeed. */
int crash_sum(crash_actor *a, serry_comm *comm, int64_t turn, int64_t *mask);

/* Such sums until all who take part have seen the fault strike. */
void crash_await_strike(crash_actor *a, serry_comm *comm);

#endif
