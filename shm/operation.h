/* operation.h - one collective call of one rank on its way: contribute, decide, combine, look again.
 *
 * A call is a row of steps. Each step has this rank do some work, publish the step in its word, and
 * wait until the step is decided for every member; what then happens is a function of the words and
 * of what the others published, the same for all. Algorithms say what the work is and what follows
 * from a decision; publishing, waiting, timeouts and failures are here alone. */
#ifndef SHM_OPERATION_H
#define SHM_OPERATION_H

#include <serry/call.h>

#include "copy.h"
#include "fill.h"
#include "flow.h"
#include "group.h"
#include "room.h"
#include "signature.h"
#include "team.h"
#include "wait.h"
#include "word.h"

typedef struct shm_member shm_member;

enum { OPERATION_DONE = 0, OPERATION_GOES_ON = 1 }; /* beside the negative error codes */

typedef struct algorithm {
    const char *name;

    /* This rank's part of the step that is published next (member->step + 1): reads what the others
     * published in the step before, writes what they may read after this one. */
    void (*work)(shm_member *m);

    /* The step is decided; m->absent are the members that are sealed below it. Returns
     * OPERATION_GOES_ON (m->algorithm says with what), OPERATION_DONE with the result handed out,
     * or an error with nothing handed out. */
    int (*decided)(shm_member *m);
} algorithm;

/* Replacements have joined, which is to be told; results are there already: see batch.c; a call that has
 * not begun, m->call, waits for a meeting, and keeps its turn when it runs out of time there. */
enum { NEWS_JOINED = 1u, NEWS_AHEAD = 2u, NEWS_AWAITED = 4u };

/* Has a member looked whether it would see the ends of all others? See writes.h. */
enum { SEEN_UNKNOWN = 0, SEEN_ALL, SEEN_NOT };

/* The last decision found members absent, which is to be forgotten; there are blocks: see levels.c. */
enum { RARE_ABSENT = 1u, RARE_LEVELS = 2u };

enum { OPERATION_STREAMED = 16384 }; /* bytes in a piece; no small operation has so many */

enum { OPERATION_MANY = 128 }; /* calls that may share a step, beside the first one */

/* A rank's membership in a group. Private memory of one thread. */
struct shm_member {
    shm_group group;
    pthread_mutex_t view; /* held to replace the group, and by other threads that look at it */
    group_cell *own;
    wait_plan plan;
    uint64_t step;       /* the last one this rank has published */
    uint64_t operations; /* completed: the sequence number of the last one */

    /* members not known to have failed or left: the same on all ranks between operations */
    int alive_count;
    uint16_t alive[SERRY_MAX_RANKS]; /* ascending */
    serry_rank_set alive_set;
    serry_policy policy;
    serry_rank_set absent; /* of those: sealed below the step that was decided last */
    int absent_count;
    unsigned rare; /* RARE_ bits: what comes before the words of a step are looked at */

    /* the operation that is open: begun, and not ended by a result */
    bool open;      /* or dropped */
    bool excluded;  /* for good: this rank must not write again what others may still read */
    bool published; /* the current step is published, its decision is not known yet */
    bool passed;    /* a step of the operation has been decided */
    bool dropped;   /* under SERRY_WAIT: it found members missing, and waits for replacements */
    bool deaf;      /* to meetings, until operation deaf_until ends: see meeting.c */
    bool met;       /* in the control cells: a mismatch was with members that meet */
    unsigned news;  /* NEWS_ bits: what the next operation does first */
    uint64_t deaf_until;
    uint32_t hears; /* the least enum group_call that ends a wait of its */
    bool whole;     /* the group is the job's world */
    uint32_t parts; /* how many have been made of it: the same on all ranks */
    bool asks;      /* for a place in a part: see regain.c; a call that is polled goes on */
    uint64_t epoch; /* changes of membership */
    serry_rank_set joined;
    unsigned variant;           /* of the algorithms: see choose.c */
    const algorithm *algorithm; /* of the current step */
    serry_call call;
    flow flow;
    uint64_t signature;
    size_t element;   /* bytes */
    bool streams;     /* a large one, of more than the caches keep */
    bool past_caches; /* each large one, by VARIANT_STREAM */
    bool crowded;     /* a large one: all members say that there are more ranks than cores */
    int team;         /* threads that share the work of a large one; 1 or less: none do */
    bool heavy;       /* one of these two: copies are more than memcpy */
    bool teams;       /* some member has one, in a large operation: the same on all */
    bool ahead;       /* inputs may be in rooms before the first step is published */
    bool waited;      /* a large one has waited for somebody: it may read the clock */
    fill_way fill;    /* how what others read is copied best */
    bool lent;        /* it has told where its result is: others may write there */
    int seen;         /* SEEN_: the same as long as the group is the same */
    wait_limit limit;
    serry_error *error; /* of the caller, during a run */

    /* progress of a large operation, in elements of the vector (of each block, where there are
     * several): see staged.c and direct.c */
    size_t turn;                  /* staged: number of the step within the operation */
    size_t first, length;         /* direct: the chunk that is being combined */
    size_t out_first, out_length; /* direct: the chunk that is copied out next; length 0: none */
    int worker_count;             /* direct: who combines slices */
    uint16_t worker[SERRY_MAX_RANKS];

    /* where the members' inputs are */
    const unsigned char *input[SERRY_MAX_RANKS];  /* whole ones; NULL: staged through copies */
    const unsigned char *source[SERRY_MAX_RANKS]; /* the piece that is read now */
    size_t stride[SERRY_MAX_RANKS];               /* bytes between two blocks there */

    /* where the members' results are, if they can be read there, and how far this rank has copied
     * each member's range, by its index: see follow.c and spread.c */
    unsigned char *result[SERRY_MAX_RANKS];
    size_t copied[SERRY_MAX_RANKS];
    serry_rank_set lost; /* whose ranges were not whole */

    /* where they stage what others take in the end */
    shm_room room;                               /* this rank's */
    const unsigned char *rooms[SERRY_MAX_RANKS]; /* all, during an operation that uses them */

    struct {
        bool forced; /* by VARIANT_LEVELS */
        int span;    /* members of a block, but of the last one; 0: there are no blocks */
        int blocks;
        bool near[SERRY_MAX_RANKS]; /* the members of a block are in one domain */
        bool told[SERRY_MAX_RANKS]; /* it was a digest that decided the block, not its words */
        int large_span;             /* members of a block in large operations; 0: none */
    } levels;                       /* see levels.c and blocks.c */

    unsigned char *scratch; /* results of small operations until they are handed out */
    unsigned char *staging; /* the same for large ones, mapped at need */
    size_t staging_bytes;

    struct {
        int phase; /* 0: no meeting is open */
        uint64_t own[2], all[2 * SERRY_MAX_RANKS];
        uint64_t given;        /* this rank's position, in the last exchange of them */
        uint64_t until;        /* the operation after the last that one of them had completed */
        uint64_t vote, votes;  /* this rank's, and all */
        int alive_count;       /* members that gave their positions */
        bool made;             /* the new group, by this member */
        serry_rank_set givers; /* of positions */
        uint64_t offset;       /* of the new group */
        int code;
        serry_error error;
    } meeting; /* see meeting.c */

    shm_member *control; /* this rank in the control cells of the group; NULL: it is that itself, */
    shm_member *owner;   /* of this one */

    struct shm_batch *batch; /* calls that share a step: see batch.c. NULL: there never were any */
    struct shm_mail *mail;   /* this rank's side of its channels: see channel.h. NULL: none yet */

    struct {
        int phase; /* 0: no split is open */
        int colour, key;
        uint64_t group;                            /* in which it was begun: its offset */
        uint64_t own[2], all[2 * SERRY_MAX_RANKS]; /* what the phases exchange */
        int alive_count;                           /* members that knew the colours */
        int size, rank;                            /* of the part */
        uint16_t member[SERRY_MAX_RANKS];          /* its members' ranks here, in its order */
        uint64_t offset;                           /* of the part's group in the arena */
        int code;                                  /* why there is none; SERRY_OK: there is */
        serry_error error;                         /* of this rank's own part in that */
    } split;                                       /* see split.c */
    struct arena_joining *joining; /* NULL; else it is no member yet, and nothing else is set */
};

/* Get memory for operations of m->group, and enter it. SERRY_ERR_NO_SPACE. */
int operation_setup(shm_member *m, serry_error *error);
void operation_enter_group(
    shm_member *m); /* another one of the same size: its first step is next */
void operation_cleanup(shm_member *m);

/* Carry out a call within m->limit, or go on with it where it is open. Returns what serry.h
 * promises. */
int operation_run(shm_member *m, const serry_call *call, serry_error *error);

/* As run_many in serry/backend.h. */
int operation_run_many(shm_member *m, const serry_call *const *calls, int count, int *done,
                       serry_error *error);

/* Before this rank leaves an operation that is open with its buffers: waits, within m->limit, until nobody
 * writes there any more. */
int operation_leave(shm_member *m);

bool operation_is_same(const serry_call *a, const serry_call *b);

/* split.c: a member of the group of those with the same colour; three operations, any of which a
 * timeout may leave open, for the same call to go on with. */
int split_run(shm_member *m, int colour, int key, shm_member **part, serry_error *error);

/* meeting.c: as `meet` in serry/backend.h. */
int meeting_run(shm_member *m, uint64_t vote, uint64_t *votes, int *repeat, serry_error *error);

/* Before the control words are used for something else: the exchange that is open there ends, by a
 * revocation, or by going where the others went. */
int meeting_clear(shm_member *m, serry_error *error);

/* After a mismatch with members that meet, for who did not: they put it off, and so does this one. */
void meeting_put_off(shm_member *control);

/* backend.c: a member of a group that has been formatted and settled. */
shm_member *member_new(shm_arena *arena, uint64_t offset, int size, int rank, wait_plan plan,
                       serry_error *error);

/* open.c: serry_backend.open. */
int member_open(const serry_backend *backend, const serry_job *job, serry_member **member,
                serry_error *error);

/* ---- for the algorithms ---------------------------------------------------------------------- */

/* The policy rides in the top bits of the signature, above the count. */
enum { OPERATION_POLICY_SHIFT = 62 };

static inline uint64_t operation_signature(const shm_member *m, const serry_call *call)
{
    return signature_of(call) | (uint64_t)m->policy << OPERATION_POLICY_SHIFT;
}

/* failure.c: start a new record about the operation that is open; and fill it, each returning the
 * code in its name. */
void operation_error(shm_member *m);
int operation_fail_revoked(shm_member *m);
int operation_fail_absent(shm_member *m); /* forgets the absent */
int operation_fail_joined(shm_member *m);
int operation_fail_meeting(shm_member *m);
int operation_fail_mismatch(shm_member *m);
int operation_fail_root(shm_member *m);
int operation_fail_timeout(shm_member *m);
int operation_fail_cancelled(shm_member *m);
int operation_fail_pending(shm_member *m);

/* From now on those that the last decision found absent count as failed. They are the same on all
 * ranks, at the same operation. */
void operation_forget_absent(shm_member *m);

/* Have all members published the same call? */
static inline bool operation_is_alike(const shm_member *m)
{
    bool same = true;

    for (int i = 0; i < m->alive_count; i++)
        same &= group_cell_of(&m->group, m->alive[i])->signature[m->step & 1] == m->signature;
    return same;
}

/* Is the root among them, where there is one? */
static inline bool operation_has_root(const shm_member *m)
{
    return !(m->flow.from_root || m->flow.to_root) ||
           serry_rank_set_has(&m->alive_set, m->call.root);
}

/* In the first decision of a call: do all members take part (or may they be missing), with the same
 * call, and the root among them? SERRY_OK, or the error that all ranks get alike. */
int operation_judge(shm_member *m);

/* Members are missing that this operation cannot do without. What all survivors do alike, as the
 * policy says: the operation goes on from its beginning without them, or returns an error. */
int operation_without_absent(shm_member *m);

/* The result is handed out, made from what lay in others' own memory until the step that was decided
 * last: was this rank taken for failed meanwhile, or has a revocation let somebody leave with that
 * memory? */
int operation_handed_out(shm_member *m);

/* This rank's word is sealed: the others went on without it. */
int operation_fail_excluded(shm_member *m);

/* Does this rank give, does it get? */
static inline bool operation_gives(const shm_member *m)
{
    return !m->flow.from_root || m->call.root == m->group.rank;
}

/* The same of any member. */
static inline bool operation_gets_at(const shm_member *m, int rank)
{
    bool root = m->call.root == rank;

    return m->flow.to_root ? root : !(root && m->call.kind == SERRY_KIND_BROADCAST);
}

static inline bool operation_gets(const shm_member *m)
{
    return operation_gets_at(m, m->group.rank);
}

/* This rank's place among the members. */
static inline int operation_index(const shm_member *m)
{
    int mine = 0;

    while (m->alive[mine] != m->group.rank)
        mine++;
    return mine;
}

/* What this rank gets of `count` elements: from m->source into `dest`, blocks `dest_stride` bytes
 * apart. Combines, or copies, as the kind says. */
void operation_pull(shm_member *m, unsigned char *dest, size_t dest_stride, size_t count);

/* As operation_pull, in a large operation. */
void operation_pull_large(shm_member *m, unsigned char *dest, size_t dest_stride, size_t count);

/* As memcpy, between buffers of an operation: past the caches, if it has more than they keep, and by the
 * team: see team.h. */
static inline void operation_copy(const shm_member *m, void *dest, const void *source, size_t bytes)
{
    if (__builtin_expect(m->heavy && bytes >= OPERATION_STREAMED, 0))
        team_copy(m->team, dest, source, bytes, m->streams);
    else
        copy_short(dest, source, bytes);
}

/* The same in a large operation, for what others read next: through the caches. */
static inline void operation_fill(const shm_member *m, void *dest, const void *source, size_t bytes)
{
    team_copy(m->team, dest, source, bytes, false);
}

/* The same into memory of the rank's own that others have read before. */
static inline void operation_copy_in(shm_member *m, void *dest, const void *source, size_t bytes)
{
    if (m->team > 1 ||
        m->plan.pauses == 0) /* several threads, or ranks, at once: times tell nothing */
        operation_fill(m, dest, source, bytes);
    else
        fill_copy(&m->fill, dest, source, bytes, m->waited);
}

/* Combine `count` elements of a vector of each member, in a large operation. */
static inline void operation_reduce(const shm_member *m, void *result, const void *const *vector,
                                    size_t count)
{
    team_reduce(m->team, result, vector, m->alive_count, count, m->call.dtype, m->call.op, false);
}

/* The same where the result is not read at once: past the caches, if the operation has more than they keep. */
static inline void operation_reduce_out(const shm_member *m, void *result,
                                        const void *const *vector, size_t count)
{
    team_reduce(m->team, result, vector, m->alive_count, count, m->call.dtype, m->call.op,
                m->streams);
}

/* Hand a result out that lies in `from` as it shall lie in the receive buffer; the blocks of absent
 * ranks stay as they are. */
void operation_commit(shm_member *m, const unsigned char *from);

/* Bytes that a rank which gives brings. */
static inline size_t operation_input_bytes(const shm_member *m)
{
    size_t blocks = m->flow.send_n ? (size_t)m->group.size : 1;

    return blocks * m->call.count * m->element;
}

/* Bytes that this rank gets in the end, absent ranks' included. */
size_t operation_result_bytes(const shm_member *m);

/* A slice of `length` elements for number `index` of `count` workers: whole cache lines each. */
void operation_slice(const shm_member *m, size_t length, int index, int count, size_t *first,
                     size_t *elements);

/* The step that was published last, for rank r: waits, and notes it if it is absent. */
int operation_decide(shm_member *m, int r);

/* The same, where it has just been seen not to have reached that step. */
int operation_await(shm_member *m, int r);

/* Does a call begin now, with nobody calling and nothing to do first? */
static inline bool operation_is_usual(const shm_member *m)
{
    return __builtin_expect(
        group_called(&m->group) < m->hears && !m->open && !m->excluded && m->news == 0, 1);
}

/* As operation_run, step by step. */
int operation_run_any(shm_member *m, const serry_call *call);

/* From wherever the operation stands to its end, or to a timeout, after which it stands there. */
int operation_go_on(shm_member *m);

/* Waiting has ended without a decision, or nothing could be handed out. */
int operation_stop(shm_member *m, int rc);

/* The operation is over, with a result or an error. */
static inline int operation_end(shm_member *m, int rc)
{
    m->open = m->dropped = false;
    m->operations++;
    if (__builtin_expect(m->deaf, 0) && m->operations >= m->deaf_until) {
        m->deaf = false;
        m->hears = GROUP_CALL_MEETING;
    }
    return rc;
}

/* choose.c: the first step of a call, and what follows once all inputs are known. Variant 0 chooses,
 * variant 1 sends everything through copies, variant 2 through copies that need no room; variants 3,
 * 4 and 5 choose, but large operations throughout, where memory allows follow.c, spread.c or direct.c. Apart from
 * these, for tests: as variant 0, but with blocks of two members wherever there are three; as variant 4, but past
 * the caches, whatever the size; and as variant 1, but by slices.c, in small parts, whatever is combined. */
enum {
    VARIANT_CHOOSE,
    VARIANT_COPY,
    VARIANT_NO_ROOM,
    VARIANT_FOLLOW,
    VARIANT_SPREAD,
    VARIANT_SHARE,
    SHM_VARIANTS,
    VARIANT_LEVELS = 16,
    VARIANT_STREAM,
    VARIANT_SLICES,
    SHM_VARIANTS_END
};
static inline bool choose_is_small(const shm_member *m, size_t input_bytes)
{
    return input_bytes <= (m->variant == VARIANT_CHOOSE ? m->group.small_bytes : 0);
}
const algorithm *choose_first(const shm_member *m);
void choose_room(shm_member *m); /* before a large call contributes anything */
const algorithm *choose_next(shm_member *m);

/* spread.c: from so many bytes on, and up to so many members in several domains (src/locality.h). Measured
 * with two ranks, against direct.c: 0.6 of the time at 16 KiB; against follow.c 0.6 to 1.0 from 256 KiB to
 * 64 MiB, in place 0.55 to 0.8. */
#define SPREAD_BYTES ((size_t)8 << 10)
enum { SPREAD_FAR = 8 };

/* follow.c: from so many bytes on it saves more than its third step costs. Measured with two ranks, against
 * direct.c: 1.15 of the time at 16 KiB; from 32 KiB to 64 MiB 1.0 to 0.7, in place 0.85 to 0.55. */
#define FOLLOW_BYTES ((size_t)32 << 10)

/* blocks.c: from so many bytes on the lines that it saves are more than those of the words in its further steps,
 * on machines from 2 x 8 to 8 x 16 cores (docs/scaling.md). */
#define BLOCKS_BYTES ((size_t)32 << 10)

/* Bytes that a member needs in its room for that, where inputs are copied. */
size_t blocks_room(const shm_member *m);

/* slices.c: elements that number `index` of the members combines for all, in an operation on whole
 * vectors, or for itself. */
void slices_range(const shm_member *m, int index, size_t *first, size_t *length);

/* Bytes that it needs in its room for that. */
size_t slices_room(const shm_member *m, int index, bool crowded);

/* How patiently it waits. */
wait_plan slices_plan(const shm_member *m);

/* whole.c: this rank's input into the front of its room, and whether it is to be; and from there to whoever gets
 * it, when the first step is decided. See room.h. */
bool whole_may_go_ahead(const shm_member *m);
void whole_give_ahead(shm_member *m);
int whole_take_ahead(shm_member *m);

/* staging.c: private memory where a large result waits until it may be handed out. SERRY_ERR_NO_SPACE. */
int staging_reserve(shm_member *m, size_t bytes);
void staging_trim(shm_member *m);

/* small.c: after operation_judge. */
int small_hand_out(shm_member *m);

/* batch.c: a small operation begins, and so many calls may go with it. */
void batch_begin(shm_member *m, const serry_call *const *calls, int count);

/* The caller has these at hand, from now on until it asks how many of them are over. */
void batch_attend(shm_member *m, const serry_call *const *calls, int count);
int batch_done(shm_member *m);

/* With NEWS_AHEAD: this call is over; SERRY_ERR_PENDING: another one was to be made. */
int batch_hand_out_ahead(shm_member *m, const serry_call *call);
void batch_free(shm_member *m);

/* levels.c: the members have become others, or where they are: divide them into blocks, or not. */
void levels_plan(shm_member *m);

/* VARIANT_LEVELS is chosen, or is not. */
void levels_force(shm_member *m, bool forced);

/* Wait until the step that was published last is decided, by blocks; as ever, m->absent are the members that
 * are sealed below it. OPERATION_GOES_ON: it is none of those that are decided so. */
int levels_decide(shm_member *m);

extern const algorithm algorithm_small;         /* small.c */
extern const algorithm algorithm_levels;        /* levels.c */
extern const algorithm algorithm_batch;         /* batch.c */
extern const algorithm algorithm_enter;         /* choose.c */
extern const algorithm algorithm_slices;        /* slices.c */
extern const algorithm algorithm_blocks;        /* blocks.c */
extern const algorithm algorithm_blocks_copied; /* blocks.c */
extern const algorithm algorithm_whole;         /* whole.c */
extern const algorithm algorithm_staged;        /* staged.c */
extern const algorithm algorithm_direct_share;  /* direct.c */
extern const algorithm algorithm_direct_pull;   /* direct.c */
extern const algorithm algorithm_spread;        /* spread.c */
extern const algorithm algorithm_spread_lost;   /* spread.c */
extern const algorithm algorithm_follow;        /* follow.c */
extern const algorithm algorithm_follow_lost;   /* follow.c */
extern const algorithm algorithm_follow_rest;   /* follow.c */

#endif
