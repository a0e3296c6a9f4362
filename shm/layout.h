/* layout.h - every byte that several ranks see.
 *
 *   arena   +--------------------+ 0
 *           | arena_header       |   one page: what the arena is; the lock of the extents
 *           +--------------------+ extents_offset
 *           | arena_extent [..]  |   who holds which pages of the pool
 *           +--------------------+ world_offset
 *           | first world group  |
 *           +--------------------+ slots_offset
 *           | arena_slot [..]    |   one per process or thread that ever joined: who it is
 *           +--------------------+ pool_offset
 *           | pool of pages      |   serry_alloc's memory; all other groups
 *           +--------------------+ total_bytes
 *
 *   group   +--------------------+ 0
 *           | group_header       |   one page
 *           +--------------------+ one page
 *           | region of rank 0   |   touched first by rank 0, so its pages lie near it
 *           | region of rank 1   |
 *           | ...                |
 *
 *   region  | group_cell [2] | (small, group_batch)[2] | in[2] | out[2] | group_digest [2] |
 *           | group_mail |     whole pages
 *
 *   channel | header | line [64] | ring |     an extent of the pool, one for each pair that talks
 *
 * Offsets, never pointers, fixed-width types, one writer a field unless it says otherwise. "Plain"
 * fields are published by an atomic that the comment names.
 *
 * The rule of the two buffers, for everything in a region that exists twice: what a rank writes
 * before it publishes step s lies in number s & 1. Others may read it once s is decided, and until
 * they themselves publish step s + 1. The owner writes there again only after step s + 1 is decided
 * (for step s + 2), when everybody has published s + 1 and so is done reading. A rank that slept
 * through that finds its word sealed when it looks again, and returns nothing. */
#ifndef SHM_LAYOUT_H
#define SHM_LAYOUT_H

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <serry/types.h>

#define SHM_LINE 64u
#define SHM_PAGE 4096u
#define SHM_SLOTS 4096u   /* ranks of the job, and all replacements and spares that ever come */
#define SHM_EXTENTS 4096u /* most extents taken at a time, over all ranks */
#define SHM_INLINE 16u    /* bytes of a contribution that travel beside the publication word */
#define SHM_PART 40u      /* bytes of a combined input that travel beside a digest's step */
#define SHM_CPU_WORDS 16u /* affinity masks of 1024 CPUs */

typedef struct arena_header {
    /* line 0: written by the creator before it hands out the segment, then constant */
    _Alignas(SHM_LINE) _Atomic uint64_t layout; /* SHM_LAYOUT, stored last with release; readers
                                                   load it first with acquire. 0: not finished */
    uint64_t total_bytes;                       /* plain, published by layout, as all below */
    uint64_t key[2];                            /* random; tells this arena from any other */
    uint32_t ranks;
    uint32_t kind; /* serry_kind_of_rank */
    uint64_t slots_offset;
    uint64_t extents_offset;
    /* line 1: the same */
    _Alignas(SHM_LINE) uint64_t world_offset;
    uint64_t pool_offset;
    uint64_t pool_bytes;
    /* line 2: any rank, to change the extents; never on the way of an operation */
    _Alignas(SHM_LINE) pthread_mutex_t extents_lock; /* robust, process-shared */
    _Atomic uint32_t extents_used; /* entries from here on have never been taken: relaxed, by the
                                      lock's holder, before the entry's state; only ever greater */
    /* line 3: replacements. Any rank, rarely, seq_cst */
    _Alignas(SHM_LINE) _Atomic uint64_t world; /* offset of the group that is the world now; by its
                                                  members when they enter it, all the same value */
    _Atomic uint32_t slots;                    /* how many are in use; a newcomer adds one */
    _Atomic uint32_t deaths;                   /* futex word of spares; grows with each death */
    _Atomic uint32_t communicators;            /* how many have been made: numbers them */
    /* lines 4 on: by newcomers, compare and swap: the slot, plus 1, of the one that wants to be this
     * rank; it is dead or has its place already where it no longer counts */
    _Alignas(SHM_LINE) _Atomic uint32_t applicant[SERRY_MAX_RANKS];
    /* the slot of each rank of the job now; as world */
    _Alignas(SHM_LINE) _Atomic uint32_t holder[SERRY_MAX_RANKS];
} arena_header;

enum slot_state { SLOT_FREE = 0, SLOT_ALIVE, SLOT_LEFT, SLOT_DEAD }; /* moved by slot.c alone */

/* Who somebody is, and whether he lives. The first ranks have the slots of their numbers; a replacement
 * takes a slot that nobody has had: a dead one's may still be written by its last threads. */
typedef struct arena_slot {
    /* line 0: the rank writes it before it reports ready; all but state is constant from then on.
     * Read by monitors, and for messages. */
    _Alignas(SHM_LINE) _Atomic uint32_t state; /* enum slot_state; see slot.h for who moves it */
    uint32_t pid;                              /* plain, published by state, as all below */
    uint64_t pid_namespace;                    /* in which pid means something */
    uint64_t start_ticks;                      /* with pid, tells the process from a later one */
    _Atomic uint64_t invited;                  /* of a newcomer: the world group that it is a member
                                                  of; by any other member, from 0, seq_cst */
    _Atomic uint64_t next_beat_ns;             /* CLOCK_MONOTONIC; by the process's monitor thread
                                                  several times a second, release: see beat.h */
    _Atomic uint32_t beat_giver;               /* that thread, relaxed */
    uint32_t domain; /* plain, published by state: of its processors, see locality.h; 0: unknown */
    _Atomic uint64_t asks; /* of a replacement: the part where it wants its place,
                                                  see regain.h; by itself, seq_cst. 0: none. Futex
                                                  word: its lower half */
    _Atomic uint64_t
        heap; /* which slice of which heap is this rank's, see heap.h; 0: none. By itself,
                              published by state; 0 again, by any rank under extents_lock, when the
                              rank is gone and its slice is empty */
    /* line 1: the rank holds it for life; the monitors of the others look at its word, set the
     * waiters bit there and sleep on it: see lifeline.h */
    _Alignas(SHM_LINE) pthread_mutex_t life;
    /* lines 2 and 3: as line 0 */
    _Alignas(SHM_LINE) uint64_t cpus[SHM_CPU_WORDS]; /* affinity mask */
} arena_slot;

/* Bits. The two others are of messages: the rank at that end will touch them no more. */
enum extent_state {
    EXTENT_FREE = 0,
    EXTENT_TAKEN = 1,
    EXTENT_SOURCE_DONE = 2,
    EXTENT_DEST_DONE = 4
};

/* One run of pages of the pool. Written under extents_lock. A rank that dies while it takes or
 * gives back leaves it free or taken, never half: the state is stored last when taking (release)
 * and is all that is stored afterwards, so there is nothing to repair. */
typedef struct arena_extent {
    uint32_t page;          /* plain, from pool_offset; published by state */
    uint32_t pages;         /* plain, likewise */
    uint32_t owner;         /* plain, likewise: a slot, or one of those below */
    _Atomic uint32_t state; /* enum extent_state; release by the lock's holder */
    uint32_t communicator;  /* plain, likewise: of messages, and of what is entrusted to one */
    uint16_t source, dest;  /* plain, likewise: of messages, slots */
} arena_extent;

#define EXTENT_OF_GROUP UINT32_MAX              /* given back by the last member that leaves */
#define EXTENT_OF_MESSAGES (UINT32_MAX - 1)     /* given back when both ends are done with it */
#define EXTENT_OF_COMMUNICATOR (UINT32_MAX - 2) /* see extent_entrust */

/* What all members are called to, instead of going on with their operations. */
enum group_call {
    GROUP_CALL_NONE = 0,
    GROUP_CALL_MEETING, /* see meeting.c; the group is replaced afterwards */
    GROUP_CALL_REVOKED, /* for ever */
    GROUP_CALLS         /* greater than all: "hears nothing" */
};

#define GROUP_NOBODY UINT16_MAX

/* Who touches a group no more. */
enum group_left {
    GROUP_STAYS = 0,
    GROUP_LEFT, /* a member, for good or for the next group */
    GROUP_NEVER /* one that has not come: if it was a replacement, others may have the place, or it
                   again */
};

typedef struct group_header {
    /* line 0: written by the group's first rank before it says where the group is, then constant */
    _Alignas(SHM_LINE) uint64_t bytes; /* of the whole group; plain, published by formatted, as are
                                          all that are not atomic */
    _Atomic uint32_t formatted;        /* 0, then 1: release when the rest stands, acquire by
                                          monitors, who may come earlier, and by members */
    uint32_t size;                     /* members */
    uint32_t small_bytes;              /* of one small buffer, without its group_batch */
    uint32_t chunk_bytes;              /* of one in or out buffer */
    uint32_t region_bytes;             /* of one rank's region */
    _Atomic uint32_t call;             /* enum group_call; any member (a meeting: newcomers, too),
                                          only ever greater, seq_cst: every member reads it in every
                                          operation, so it shares a line that nobody else writes */
    uint32_t policy, variant;   /* serry_policy, algorithms: a replacement starts with them */
    uint32_t communicator;      /* its number, which a group keeps that replaces another */
    uint32_t parent;            /* number of the communicator that it is a part of; the world: 0 */
    uint32_t ordinal;           /* how many parts of that one had been made before */
    uint32_t version;           /* how many groups of this communicator there were before */
    uint32_t parts;             /* how many parts have been made of this one */
    uint64_t operations, epoch; /* what members start with */
    uint64_t votes;             /* of the meeting that has made it; 0: there was none */
    serry_rank_set present;     /* who is not known to have failed or left */
    serry_rank_set joined;      /* of these: replacements, which were not in the group before */
    /* then: as line 0 */
    _Alignas(SHM_LINE) uint16_t slot[SERRY_MAX_RANKS]; /* each member's */
    uint16_t
        origin[SERRY_MAX_RANKS]; /* its rank in the parent; GROUP_NOBODY: it has left for good */
    /* by members, once, seq_cst: they have entered it, so replacements may */
    _Alignas(SHM_LINE) _Atomic uint32_t entered;
    /* each once, by its member (or for it by the maker of the group): seq_cst when its region has
     * memory, seq_cst by monitors, who must not touch it before: see group_seal_dead */
    _Alignas(SHM_LINE) _Atomic uint8_t settled[SERRY_MAX_RANKS];
    /* enum group_left: each by its member, once, when it touches nothing any more, or for one that does
     * not come; read by those that leave, seq_cst: where all have left, or are gone, the memory is
     * given back */
    _Alignas(SHM_LINE) _Atomic uint8_t left[SERRY_MAX_RANKS];
} group_header;

/* Where a member's input for a large operation lies, if others can read it there, and its room. */
typedef struct group_input {
    _Alignas(
        SHM_LINE) uint64_t address; /* plain, published by word: place as in heap.h (processes) or
                                            pointer (threads); meaningful if direct */
    uint32_t direct;                /* plain, likewise: 1 or 0 */
    uint32_t reaches;               /* plain, likewise: 1 where this member can read in the heaps of
                                       all that it knows to be alive, else 0 */
    uint64_t room;                  /* plain, likewise: offset of its room, see room.h; 0: none */
    uint64_t result;                /* plain, likewise: place of its result; meaningful if lends */
    uint32_t crowded; /* plain, likewise: 1 where it finds more ranks than cores, else 0 */
    uint32_t lends;   /* plain, likewise: 1 where the others can read that, else 0 */
    uint32_t team;    /* plain, likewise: 1 where a team works for this member, else 0 */
    uint32_t
        ahead; /* plain, likewise: 1 where its input is in its room already, see room.h, else 0 */
    uint32_t sees; /* plain, likewise: 1 where it would see each member's end, and seals nobody that
                         lives, see writes.h, else 0 */
} group_input;

/* Behind each small buffer: by its member where calls share the step, plain, published by its word,
 * two-buffer rule. In any other step the number of an older one stands here. See batch.c. */
typedef struct group_batch {
    _Alignas(SHM_LINE) uint64_t step;
    uint32_t count; /* calls that go with the first one */
} group_batch;

/* Two per member of a group: one for its operations, and one for those that must work when these
 * cannot any more (agree, shrink), with steps of their own. */
enum { CELL_OPERATIONS, CELL_CONTROL, CELLS };

typedef struct group_cell {
    /* line 0: the member writes; the others read it and set bits of word, see word.h. With up to
     * SHM_INLINE bytes of data, the whole contribution travels in this one line. */
    _Alignas(SHM_LINE) _Atomic uint64_t word; /* futex word: its lower half */
    uint64_t signature[2];                    /* plain, published by word, two-buffer rule */
    uint64_t data[2][SHM_INLINE / 8];         /* plain, likewise */
    /* lines 1 and 2 */
    group_input input[2]; /* plain, likewise */
    /* line 3: number of the operation that the member waits in, or has last waited in: relaxed, by
     * the member when it must wait; read by vitals.c */
    _Alignas(SHM_LINE) _Atomic uint64_t operation;
    /* and how many pieces of its range it has ready, by the member, seq_cst; read by all others: see
     * follow.c and spread.c. 0 from when it enters a large operation, published by word */
    _Atomic uint32_t pieces;
    /* 1 while it writes into others' memory, else 0: by the member, seq_cst; read by others when it is
     * sealed, or when they leave: see writes.h. That it is killed there leaves it 1 */
    _Atomic uint32_t writes;
    pthread_mutex_t
        writer; /* robust; held meanwhile by the thread that writes, and by no other; others
                               look at its word, which the kernel marks when that thread ends */
} group_cell;

/* What the first member of a block tells of all of it: see levels.c. Two of them, behind the out
 * buffers; two-buffer rule, but written after the member's own word, when it has seen the words of the
 * block. A member reads those of other blocks; in most groups nobody writes or reads any. */
typedef struct group_digest {
    _Alignas(SHM_LINE) _Atomic uint64_t step; /* all of the block have published that step: release,
                                                 acquire */
    uint64_t signature; /* plain, published by step, as all here: of the call of all of them */
    uint64_t members;   /* how many they are */
    uint64_t part[SHM_PART / 8]; /* their inputs combined; a larger part lies in out */
} group_digest;

/* At the end of a region: see channel.c. */
typedef struct group_mail {
    /* line 0: the member sets the asleep bit (word.h) before it sleeps here; whoever has news for it
     * takes the bit away, seq_cst, and wakes. Futex word: its lower half. Nothing else is in it. */
    _Alignas(SHM_LINE) _Atomic uint64_t bell;
    /* lines 1 on, one for each member: by this one, once, seq_cst when it stands: offset in the arena of
     * its channel to that member; 0: there is none. Read by that member, which checks it. */
    _Alignas(SHM_LINE) _Atomic uint64_t channel[];
} group_mail;

/* ---- messages: see channel.c -------------------------------------------------------------------- */

enum { CHANNEL_LINES = 64 }; /* messages that may be on their way at a time */
#define CHANNEL_INLINE 40u   /* bytes of a message that travel in its line */

/* Where the data of a message is. */
enum channel_place {
    PLACE_LINE = 1, /* here */
    PLACE_RING,     /* at this offset in the ring */
    PLACE_BOX,      /* at this offset in the arena, in an extent of the sender */
    PLACE_SENDER    /* where the sender has it: place as in heap.h (processes), address (threads) */
};

/* Who may touch data that the sender still has. Between threads a message that is being read cannot be
 * withdrawn, since its memory may be gone afterwards; between processes it can, since arena memory is
 * always there: then whoever reads finds out when it has done, and throws it away.
 *
 *   OFFERED --> READING --> READ        by the receiver
 *      +-----------+------> WITHDRAWN   by the sender */
enum channel_claim { CLAIM_OFFERED = 0, CLAIM_READING, CLAIM_READ, CLAIM_WITHDRAWN };

/* One message. By the sender, when the message that was here before is taken. */
typedef struct channel_line {
    _Alignas(SHM_LINE) _Atomic uint64_t number; /* of the message, from 1: stored last, seq_cst; the
                                                   receiver waits for it to be the next one */
    uint64_t bytes;                             /* plain, published by number, as all below */
    int32_t tag;
    uint16_t dtype;
    uint16_t place; /* enum channel_place */
    union {
        struct {
            uint64_t where;
            /* enum channel_claim, of PLACE_SENDER: by both ends, compare and swap, acq_rel */
            _Atomic uint32_t claim;
        };
        unsigned char data[CHANNEL_INLINE];
    };
} channel_line;

typedef struct channel {
    /* line 0: by the sender before it says where the channel is, then constant */
    _Alignas(SHM_LINE) uint64_t
        ring_bytes;        /* plain, published by group_mail.channel, as all here */
    uint32_t communicator; /* its number */
    uint16_t source, dest; /* slots */
    /* line 1: by the receiver, seq_cst, when it has the data of that many messages; read by the sender
     * when it has no room, and for messages whose data is its own */
    _Alignas(SHM_LINE) _Atomic uint64_t taken;
    /* lines 2 on: number n is in line (n - 1) % CHANNEL_LINES */
    channel_line line[CHANNEL_LINES];
    /* then: the ring. Bytes that a line tells of are plain, published by its number; the sender writes
     * there again when that message is taken. */
} channel;

/* Sizes enter by themselves; bump the leading number when a meaning changes. */
#define SHM_LAYOUT                                                                                 \
    ((UINT64_C(8) << 56) | ((uint64_t)sizeof(arena_header) << 40) |                                \
     ((uint64_t)sizeof(arena_slot) << 28) | ((uint64_t)sizeof(group_header) << 16) |               \
     (uint64_t)sizeof(group_cell))

_Static_assert(offsetof(group_cell, input) == SHM_LINE, "word, signatures and data share a line");
_Static_assert(sizeof(group_cell) == 4 * SHM_LINE, "a line for each kind of traffic");
_Static_assert(sizeof(group_digest) == SHM_LINE, "a digest is one line");
_Static_assert(sizeof(channel_line) == SHM_LINE, "a small message is one line");
_Static_assert(sizeof(group_header) <= SHM_PAGE && sizeof(arena_header) <= SHM_PAGE, "one page");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && ATOMIC_LLONG_LOCK_FREE == 2 &&
                   ATOMIC_INT_LOCK_FREE == 2,
               "an atomic with a hidden lock works in one process only");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the futex word is the lower half");

#endif
