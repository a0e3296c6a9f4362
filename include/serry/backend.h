/* backend.h - what carries collectives: a table of functions, the contract on each member.
 *
 * Everything above (serry.h) speaks to a backend through this table alone; everything below it is
 * the backend's own business. A new backend is a new table. */
#ifndef SERRY_BACKEND_H
#define SERRY_BACKEND_H

#include <serry/call.h>
#include <serry/error.h>
#include <serry/timeout.h>
#include <serry/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SERRY_JOB_NAME_MAX 256 /* with the final 0 */

/* A rank's membership in a group, as the backend sees it. Opaque here. */
typedef struct serry_member serry_member;

struct serry_interest;

/* A job as one rank knows it, complete: what serry_init() found in configuration and environment. */
typedef struct serry_job {
    char name[SERRY_JOB_NAME_MAX];
    int rank; /* -1: a spare, which is told its number when it is needed */
    int size;
    serry_kind_of_rank kind;
    int timeout_ms;    /* < 0: none */
    size_t pool_bytes; /* room for alloc over all ranks */
    serry_policy policy;
    serry_team team;       /* not SERRY_TEAM_ENVIRONMENT */
    serry_entry entry;     /* not SERRY_ENTRY_ENVIRONMENT */
    serry_rank_set absent; /* ranks that had failed before this backend was turned to: they will not
                              come, and count as failed from the beginning. Usually none */

    /* NULL; or who else has failed by now, as some other backend knows: while a rank waits for the
     * others to join, it looks now and then, and does not wait for these. */
    void (*failed)(const void *argument, serry_rank_set *failed);
    const void *argument;

    /* NULL: wait for the others. Else a backend that can returns SERRY_ERR_AGAIN from `open` where it
     * would have to, with this filled in as by a call that is polled, and something in *member that can
     * only be given up (close, forget), or gone on with: by `open` with the same job, but with it in
     * `joining`, polled or not, by one thread at a time. That of a thread rank begins in its thread. */
    struct serry_interest *poll;
    serry_member *joining; /* NULL: begin */
} serry_job;

/* What a call that may not wait would wait for. `sleep` is the caller's: it is about to sleep, so
 * whoever makes `word` differ from `value` must wake it. Then it polls once more, and if that again
 * returns SERRY_ERR_AGAIN, it sleeps while *word is `value`. */
typedef struct serry_interest {
    bool sleep;
    bool begins; /* the caller's: the first poll of a call, whose time begins */
    void (*rouse)(
        void *sleeper); /* the caller's; NULL: none. From any thread, while the call is open:
                                     poll again now, for another reason than `word` */
    void *sleeper;
    uint32_t *word; /* a futex, not private; NULL: there is nothing but the time */
    uint32_t value;
    uint64_t at_ns; /* CLOCK_MONOTONIC: poll again then, at the latest; only when about to sleep */
    uint32_t pauses, yields; /* before sleeping it is worth to poll so often with a pause between,
                                and so often with a yield; 0: sleep at once */
    uint32_t looks;  /* the caller's: it would poll so often again, with a pause between, and do
                                nothing else; so the call may look as often before it returns. 0 mostly */
    uint32_t looked; /* so often it has */
} serry_interest;

/* How long a call may wait. An operation that finds everything in place never asks. */
typedef struct serry_limit {
    int timeout_ms; /* < 0: none */

    /* NULL, or called once by a call that must wait, before it sleeps: gives the token whose end
     * (expired or cancelled) ends the wait, or NULL. The caller's; valid until the call returns. */
    serry_token *(*token)(void *argument);
    void *argument;

    /* NULL: wait. Else the call never blocks: where it would have to wait, it returns
     * SERRY_ERR_AGAIN, open as after a timeout, without a record, and with this filled in. The
     * timeout counts from the first such return of the call. */
    serry_interest *poll;
} serry_limit;

/* A message on its way between two members. */
typedef struct serry_envelope {
    int tag;
    serry_dtype dtype;
    uint64_t bytes;
} serry_envelope;

/* What a rank does, as far as others can tell. */
typedef enum serry_activity {
    SERRY_UNKNOWN = 0, /* the system does not say */
    SERRY_COMPUTING,   /* outside operations, or working in one */
    SERRY_WAITING,     /* in an operation, for others */
    SERRY_STARVED,     /* wants to run, but the machine is too busy */
    SERRY_STOPPED,     /* SIGSTOP and its kin */
    SERRY_TRACED,      /* stopped by a debugger */
    SERRY_FROZEN,      /* by its control group, or in an uninterruptible sleep */
    SERRY_GONE         /* it has failed or left */
} serry_activity;

/* How a member is: what a backend can tell about it. */
typedef struct serry_vitals {
    uint64_t alive_ns;       /* its process last showed that it lives: CLOCK_MONOTONIC; 0: never */
    uint64_t progress;       /* grows with the rank's own operations on this communicator */
    uint64_t operation;      /* number of the operation that it waits in; 0: none */
    serry_activity activity; /* now */
    bool failed;             /* there is evidence: it has failed or left */
} serry_vitals;

/* How a rank that lives is excluded. */
typedef enum serry_exclusion {
    SERRY_EXCLUSION_NONE = 0, /* not at all */
    SERRY_EXCLUSION_KILL,     /* SIGKILL to its process, then as any death */
    SERRY_EXCLUSION_SEAL      /* it may wake up later, and gets SERRY_ERR_EXCLUDED */
} serry_exclusion;

/* A backend: the functions that carry operations. Every member is set, unless it says NULL; what a
 * backend cannot do returns SERRY_ERR_UNSUPPORTED. Functions that take an error fill it unless
 * they return SERRY_OK. None prints, exits or blocks past its limit. One thread at a time on a
 * member, but for revoke, vitals and exclude, which any thread may call. */
typedef struct serry_backend {
    const char *name; /* "shm"; for messages and selection */

    const void *context; /* the backend's own, for backends that are made at run time; or NULL */

    /* Join the job and return when all its ranks have joined (or earlier: serry_job.poll); *member is NULL
     * on failure. `backend` is this table. */
    int (*open)(const struct serry_backend *backend, const serry_job *job, serry_member **member,
                serry_error *error);

    /* Leave at once and free the member. SERRY_ERR_INVALID where a thread rank's last group is closed
     * by another thread than the one that joined and still runs; then nothing has changed. */
    int (*close)(serry_member *member, serry_error *error);

    /* In the child of a fork: free the member's private memory, touch nothing shared. */
    void (*forget)(serry_member *member);

    /* Carry out one checked call; returns when this rank is done with it (DESIGN: uniform
     * completion). After SERRY_ERR_TIMEOUT, _CANCELLED and _MEETING the call is open: the same call
     * goes on with it. SERRY_ERR_MEETING: another member has called a meeting; go to `meet`. */
    int (*run)(serry_member *member, const serry_call *call, const serry_limit *limit,
               serry_error *error);

    /* Carry out the first of `count` calls, as run, and with it as many of those behind it as all
     * members give alike: small ones can share the way. *done tells how many are over, with SERRY_OK;
     * any other result is the first one's, and the same calls go on. NULL: one after the other.
     * Those behind may have been contributed with the first: where that stays open they are as well,
     * and the same calls, in order, end them. */
    int (*run_many)(serry_member *member, const serry_call *const *calls, int count, int *done,
                    const serry_limit *limit, serry_error *error);

    /* Collective: a member of the group of those who gave the same colour, ordered by key, then by
     * rank. colour < 0: *part is NULL. Open like run. */
    int (*split)(serry_member *member, int colour, int key, const serry_limit *limit,
                 serry_member **part, serry_error *error);

    /* What the next operations do when a member is missing; as serry_set_policy. */
    int (*set_policy)(serry_member *member, serry_policy policy, serry_error *error);

    /* Use algorithm number `variant` for the kinds that have several: 0 is the backend's choice,
     * SERRY_ERR_UNSUPPORTED says that there is no such number. Results are the same bits. All
     * members set it alike, between operations. */
    int (*set_variant)(serry_member *member, unsigned variant, serry_error *error);

    /* Members that are known, somewhere, to have failed or left. */
    void (*failed)(const serry_member *member, serry_rank_set *failed);

    /* End every operation of the group, on all members, with SERRY_ERR_REVOKED. */
    int (*revoke)(serry_member *member, serry_error *error);

    /* Collective among the living, also when revoked: combine 64 bits with SERRY_BAND or SERRY_BOR.
     * Open like run. */
    int (*agree)(serry_member *member, serry_op op, uint64_t *value, const serry_limit *limit,
                 serry_error *error);

    /* Collective among the living, also when revoked: a member of the group of those that live. Open
     * like run. */
    int (*shrink)(serry_member *member, const serry_limit *limit, serry_member **rest,
                  serry_error *error);

    /* As serry_rejoin_part. NULL: nobody can be replaced here. */
    int (*regain)(serry_member *member, int index, const serry_limit *limit, serry_member **part,
                  serry_error *error);

    /**
     * Meet all living members, wherever they are: between operations, or in one that cannot end
     * because somebody does not contribute. Whoever is the first calls the others by it: their run
     * returns SERRY_ERR_MEETING, when they wait or at their next call, and they come too. Each gives
     * a vote.
     *
     * SERRY_OK: *votes is the bitwise or of all votes, the same on all members, and *repeat tells
     * whether to run the same call again:
     *   SERRY_REPEAT  The operation that was open has been dropped by all, inputs intact; nobody has
     *                 completed it. It can be run again, here or elsewhere.
     *   SERRY_FINISH  All have contributed to it. Run it again, here: it completes.
     * Replacements that wait are admitted by SERRY_REPEAT; the next run tells (by policy).
     * SERRY_ERR_TIMEOUT and _CANCELLED: the meeting stays open; call meet again.
     */
    int (*meet)(serry_member *member, uint64_t vote, const serry_limit *limit, uint64_t *votes,
                int *repeat, serry_error *error);

    /* Does a meeting wait for this member? SERRY_ERR_MEETING: run would say so. SERRY_ERR_REVOKED: the
     * group is revoked. Else SERRY_OK. Does not wait. NULL: only run tells. */
    int (*called)(serry_member *member);

    /* All votes of the meeting that has admitted this member, a replacement that has just joined: what
     * the others wanted it to know. 0: there was none. NULL: nobody can be replaced here. */
    uint64_t (*told)(const serry_member *member);

    /* ---- messages between two members, in the order in which they were put. None of these waits. */

    /**
     * Send a message to `dest`.
     *
     * @param[out] ticket  0: the data may be changed. Else they must stay as they are until `settled`
     *                     says that the receiver has them.
     * @retval SERRY_ERR_AGAIN        No room now; nothing was sent.
     * @retval SERRY_ERR_RANK_FAILED  `dest` has failed or left; nothing was sent.
     */
    int (*put)(serry_member *member, int dest, const serry_envelope *envelope, const void *data,
               uint64_t *ticket, serry_error *error);

    /* SERRY_OK: the receiver has the data. SERRY_ERR_AGAIN: not yet. SERRY_ERR_RANK_FAILED: it never
     * will. */
    int (*settled)(serry_member *member, int dest, uint64_t ticket, serry_error *error);

    /* A message with a ticket shall not come. SERRY_OK: it will not, and its data may be changed.
     * SERRY_ERR_AGAIN: the receiver has it, or is just reading it; `settled` tells soon. */
    int (*withdraw)(serry_member *member, int dest, uint64_t ticket);

    /* Look at the next message from `source`. SERRY_ERR_AGAIN: there is none. SERRY_ERR_RANK_FAILED:
     * there will be none, because it has failed; what it had sent completely came before. SERRY_HAS_LEFT:
     * likewise, because it has left in order; with a record as of SERRY_ERR_RANK_FAILED. */
    int (*peek)(serry_member *member, int source, serry_envelope *envelope, serry_error *error);

    /* After SERRY_OK from peek: get its data, and have done with it. NULL: drop it.
     * SERRY_ERR_AGAIN, SERRY_ERR_RANK_FAILED: it was withdrawn, or its sender failed, while it was
     * read; what is in `data` then is nothing. */
    int (*take)(serry_member *member, int source, void *data, serry_error *error);

    /* What put, settled and peek of this member would wait for; as `poll` of a limit. */
    void (*listen)(serry_member *member, serry_interest *interest);

    /* Zeroed, page-aligned memory that every rank of the job can reach; NULL on failure. */
    void *(*alloc)(serry_member *member, size_t bytes, serry_error *error);

    /* Give memory from alloc back; anything else is left alone with SERRY_ERR_INVALID. */
    int (*free)(serry_member *member, void *memory, serry_error *error);

    int (*rank)(const serry_member *member);
    int (*size)(const serry_member *member);

    /* Members not known to have failed or left. */
    int (*live)(const serry_member *member);

    /* Who took part in the last completed operation. */
    void (*participants)(const serry_member *member, serry_rank_set *ranks);

    /* How many changes of membership this member has met: deaths and replacements. */
    uint64_t (*epoch)(const serry_member *member);

    /* A number for who has the place of a rank now, which no other that ever has it bears. NULL: nobody
     * is replaced here. */
    uint64_t (*incarnation)(const serry_member *member, int rank);

    /* How a member is. */
    int (*vitals)(serry_member *member, int rank, serry_vitals *vitals, serry_error *error);

    /* Exclude a member that lives. SERRY_ERR_UNSUPPORTED where it cannot be done this way, or not now:
     * who has stopped in the middle of writing into others' memory cannot be sealed. */
    int (*exclude)(serry_member *member, int rank, serry_exclusion how, serry_error *error);

    /* From now on this member may seal others at any time: operations in which some could not be sealed
     * are made in another way. NULL: there are none. */
    void (*may_seal)(serry_member *member);
} serry_backend;

enum { SERRY_REPEAT, SERRY_FINISH }; /* see meet */
enum { SERRY_HAS_LEFT = 1 };         /* see peek */

/* Ranks of one machine over a shared-memory arena. */
extern const serry_backend serry_backend_shm;

/* One rank, alone: every operation is a copy, or nothing. */
extern const serry_backend serry_backend_self;

/* Ranks of one machine over Unix domain sockets: slow, needs no shared memory. */
extern const serry_backend serry_backend_socket;

#ifdef __cplusplus
}
#endif
#endif
