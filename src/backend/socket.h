/* socket.h - the parts of the socket backend, for its own files.
 *
 *   socket.c            the table, and the life of a member
 *   socket_join.c       from a job to a mesh
 *   socket_mesh.c       frames between ranks, and waiting for them
 *   socket_process.c    all meshes of this process
 *   socket_stream.c     one operation after the other, each with one outcome for all
 *   socket_hub.c        the part of the rank that decides
 *   socket_result.c     what a rank gives to an operation, and gets from it
 *   socket_member.c     groups, and what members tell each other outside of operations
 *   socket_message.c    messages from one member to another
 *   socket_failure.c    what an operation tells when it ends without a result
 *
 * One lock for each mesh guards all that hangs on it. It is free only while a thread waits.
 *
 * Nobody can sleep on links and futexes at once. So who waits in a call sleeps in poll(2), but who only
 * polls (serry_limit.poll, listen) takes naps: never longer than an eighth of the time in which nothing
 * has come, within 0.2 and 10 ms. What comes is thus felt late by an eighth at most, or by 0.2 ms, and
 * a request that nothing happens to costs a hundred looks a second. */
#ifndef SERRY_SOCKET_H
#define SERRY_SOCKET_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include <serry/backend.h>

/* ---- frames --------------------------------------------------------------------------------- */

enum frame_type {
    FRAME_HELLO = 1, /* joining: who I am */
    FRAME_READY,     /* to the host: I have all my links */
    FRAME_GO,        /* from the host: so have all */
    FRAME_FAILED,    /* this rank does not join: why */
    FRAME_REPORT,    /* in an operation, to the hub: my contribution, and which decision I hold */
    FRAME_DECISION,  /* from the hub: who takes part, and the result, not yet to be handed out */
    FRAME_COMMIT,    /* from the hub: all that live hold it; hand it out */
    FRAME_WAITING,   /* to all: I have waited for a while in this operation */
    FRAME_REVOKE,    /* to all, and passed on: the group is revoked */
    FRAME_MEET,      /* to all: come to the meeting of this number */
    FRAME_LEFT,      /* to all: I have closed this group */
    FRAME_MESSAGE,   /* a message for a receive; */
    FRAME_VERDICT,   /* on the message before, where that could not decide itself */
    FRAME_TAKEN,     /* to a sender: how much of its messages was taken */
    FRAME_TYPES
};

/* What stands before the bytes of every message; unused fields are 0. */
typedef struct frame {
    uint32_t type;
    int32_t code;          /* DECISION, FAILED: how it ends. HELLO: kind of rank. MESSAGE, VERDICT:
                              enum verdict */
    uint64_t stream;       /* STREAMS * number of the group + which of its streams */
    uint64_t number;       /* of the operation; HELLO: version. MESSAGE: what it counts. TAKEN: the
                              sum of that */
    uint64_t ballot;       /* DECISION, COMMIT: the hub that made it, from 1. REPORT: of the
                              decision that is held; 0: none */
    uint64_t signature[2]; /* REPORT: of the call. DECISION: the two that differ. HELLO: the job */
    int32_t who[2];        /* DECISION: whose they are. HELLO: rank and size. FAILED: peer. MESSAGE:
                              tag and element type */
    uint64_t id;           /* DECISION: of a split, a number for new groups; of a mismatch, 1 where
                              a member meets. HELLO: process */
    uint64_t bytes;        /* that follow */
    serry_rank_set ranks;  /* DECISION: who takes part */
    serry_rank_set wrong;  /* DECISION, FAILED: ranks at fault */
} frame;

/* The bytes behind a frame. Counted references. */
typedef struct body {
    size_t bytes;
    unsigned refs;
    _Alignas(16) unsigned char data[];
} body;

/* ---- mesh ----------------------------------------------------------------------------------- */

typedef struct outgoing {
    struct outgoing *next;
    frame head;
    body *body;
} outgoing;

/* The connection to one rank. What a peer has written before its end is read before its end. */
typedef struct mesh_link {
    int fd;                 /* -1: its end was read, or there is none */
    bool mute;              /* it reads no more */
    frame head;             /* what is being read, */
    body *in;               /* and its body; */
    size_t got;             /* bytes of both that are there */
    outgoing *first, *last; /* what is being written; */
    size_t put;             /* bytes of the first that are gone */
    uint64_t queued,
        written;  /* frames so far; written: the peer gets them even if this rank dies */
    uint64_t cut; /* number of the first frame that was dropped; 0: none was */
} mesh_link;

/* A frame for a group that this rank has not made yet. */
typedef struct early {
    struct early *next;
    int from;
    frame head;
    body *body;
} early;

typedef struct socket_member socket_member;
typedef struct joining joining; /* socket_joining.h */

/* A rank's connections to all others of its job. */
typedef struct mesh {
    pthread_mutex_t lock;
    pthread_cond_t turned; /* something was read */
    bool polling;          /* a thread is waiting on the links for all */
    bool lost;             /* this rank has cut its links: nothing works any more */
    bool naps;             /* somebody may sleep on `news` */
    _Atomic uint32_t news; /* futex word: grows when something was read, if somebody may sleep */
    uint64_t news_ns;      /* when something was read last, or somebody began to poll */
    int wake;              /* an eventfd that ends the wait */
    int rank, size;
    serry_kind_of_rank kind;
    mesh_link *link; /* by rank in the job */
    socket_member *members;
    early *early;
    uint64_t groups; /* numbers that this rank, as hub, has given to new groups */
    struct memory {
        struct memory *next;
        void *start;
        size_t bytes;
    } * memory;          /* from alloc */
    joining *joining;    /* NULL, or this rank is on its way into it */
    struct mesh *next;   /* of this process: see fork */
    struct mesh *beside; /* of this thread, where it is a thread rank: see its end */
    pthread_t thread;    /* that has joined; */
    bool ended;          /* it has ended; */
    bool freed;          /* or it runs, and has nothing here any more but this. Both by g_ends */
} mesh;

/* NULL: no memory or no descriptor; told in the record. */
mesh *mesh_new(const serry_job *job, serry_error *error);

/* Cut all links and free everything. Not locked, and nobody waits. */
void mesh_free(mesh *m);

/* socket_process.c: from mesh_new to mesh_free, a mesh is one of this process's, and of its thread's. */
void mesh_enlist(mesh *m);

/* False: it stays one of a thread that runs, and which cannot end before mesh_leave. */
bool mesh_delist(mesh *m);

/* All but the mesh itself has been freed: its thread does that. */
void mesh_leave(mesh *m);

/* Queue a frame, with a reference of its own to the body, and write what goes at once. */
void mesh_send(mesh *m, int to, const frame *head, body *b);

/* The peer has all that was sent before this number of frames was queued, or its end is near. */
bool mesh_has_written(const mesh *m, int to, uint64_t queued);

/* The peer can never get it. */
bool mesh_has_dropped(const mesh *m, int to, uint64_t queued);

/* The frame of this number, to change it before anything of it is written. NULL: it is too late. */
outgoing *mesh_find_queued(const mesh *m, int to, uint64_t queued);

/* Read a frame. 1: here it is, the body the caller's; 0: not yet; -1: the end. */
int mesh_read(mesh_link *l, frame *head, body **b);

/* Close a connection and drop what is queued. */
void mesh_close_link(mesh_link *l);

/* Write and read what goes without waiting. */
void mesh_pump(mesh *m);

/* The same with one peer. */
void mesh_pump_link(mesh *m, int peer);

/* The same, but wait for something, or until the time has come. Gives up the lock meanwhile. */
void mesh_wait(mesh *m, uint64_t until_ns);

/* In place of that: say what to wait for, and until when at the latest. */
void mesh_nap(mesh *m, uint64_t until_ns, serry_interest *interest);

/* Something has happened to this rank's members: all its threads that wait look again. */
void mesh_rouse(mesh *m);

/* End the wait of all, from any thread, without the lock. */
void mesh_wake(mesh *m);

/* No memory to go on with, or a peer that makes no sense: cut the links, so that to all others this
 * rank has failed. */
void mesh_lose(mesh *m);

static inline struct timespec mesh_time(uint64_t ns)
{
    return (struct timespec){(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
}

/* NULL: no memory. */
body *body_new(size_t bytes);
body *body_retain(body *b);
void body_release(body *b);

/* socket_join.c: connect to all ranks of the job. NULL: no memory or no descriptor. */
joining *joining_begin(const serry_job *job, serry_error *error);

/* SERRY_OK: all are there. SERRY_ERR_AGAIN, where `poll` is not NULL: go on later, by any thread of the
 * process. Else it has failed. */
int joining_go_on(joining *j, serry_interest *poll, serry_error *error);

/* Free it, whatever has become of it. Its mesh, if all are there; else NULL: the links are cut. */
mesh *joining_end(joining *j, bool joined);

/* In the child of a fork: what nobody else has of it. */
void joining_in_child(joining *j);

/* ---- streams -------------------------------------------------------------------------------- */

/* Which operations: those of the group; or agree, shrink and meetings, which go on without them. */
enum { WORK, CONTROL, STREAMS };

/* What a member has told the hub. */
typedef struct report {
    uint64_t number, ballot, signature;
    body *body;
} report;

typedef struct stream {
    int which;
    uint64_t done;        /* operations that have ended here */
    serry_rank_set alive; /* members not known to be absent: the same on all after an operation */
    int alive_count;
    uint64_t epoch;

    /* the operation that is open: number done + 1 */
    bool open;
    bool awaited; /* it has not begun, but keeps its turn: it waits for a meeting */
    serry_call call;
    uint64_t signature;
    body *given;     /* what this rank contributes; NULL: nothing */
    int told;        /* the hub that has it; -1: none */
    frame decision;  /* held, not handed out: its ballot is not 0 */
    body *result;    /* of it */
    bool committed;  /* by the hub */
    bool committing; /* this rank is the hub, and the decision is written to all */
    bool announced;  /* that this rank waits */
    bool polled;     /* the last call ended with SERRY_ERR_AGAIN, and the next goes on with: */
    uint64_t deadline_ns, announce_ns;

    struct stream_peer {
        report report;
        uint64_t queued; /* frames to it, when the decision, or its commit, was sent */
        uint64_t waits;  /* number of the operation in which it says that it waits */
    } * peer;            /* by rank */
} stream;

/* ---- messages ------------------------------------------------------------------------------- */

/* What is to become of a message. */
enum verdict { VERDICT_VALID, VERDICT_WITHDRAWN, VERDICT_FOLLOWS /* in a frame of its own */ };

/* A message that has come. */
typedef struct letter {
    struct letter *next;
    serry_envelope envelope;
    uint64_t cost;
    body *body; /* NULL: it is empty */
} letter;

/* Between this member and another one. Costs are sums over all messages from the beginning. */
typedef struct mail {
    letter *first, **last; /* what has come and was not taken; */
    letter *open;          /* what came last, without its verdict */
    uint64_t taken, told;  /* cost of what was taken, or withdrawn; as the sender knows it */
    uint64_t sent, freed;  /* cost of what was sent there; of that, what was taken there */
} mail;

/* False: no memory. */
bool message_setup(socket_member *m);

void message_cleanup(socket_member *m);

/* A frame has come, from a member rank. Takes the body. */
void message_take_frame(socket_member *m, int from, const frame *head, body *b);

/* As put, settled, withdraw, peek, take and listen in serry/backend.h. Locked. */
int message_put(socket_member *m, int dest, const serry_envelope *envelope, const void *data,
                uint64_t *ticket, serry_error *error);
int message_settled(socket_member *m, int dest, uint64_t ticket, serry_error *error);
int message_withdraw(const socket_member *m, int dest, uint64_t ticket);
int message_peek(socket_member *m, int source, serry_envelope *envelope, serry_error *error);
int message_take(socket_member *m, int source, void *data, serry_error *error);
void message_listen(socket_member *m, serry_interest *interest);

/* A rank's membership in a group. */
struct socket_member {
    joining *joining; /* NULL; else it is no member yet, and nothing else is set */
    mesh *mesh;
    socket_member *next;
    uint64_t id;
    int size, rank;
    uint16_t *at; /* ranks in the job */
    bool *gone;   /* they have failed, or left the group; */
    bool *left;   /* and of those: left it */
    bool closed;  /* only kept until nobody sends to it any more */
    serry_policy policy;
    bool revoked;
    uint64_t meetings; /* that are over */
    uint64_t called;   /* number of the last one that somebody has called */
    stream stream[STREAMS];
    mail *mail;         /* by rank */
    int colour, key;    /* of the split that is open */
    uint64_t own[3];    /* what this rank gives to split, shrink and meet, */
    uint64_t *all;      /* and all that is given; 3 for each rank */
    serry_limit limit;  /* of the call */
    serry_error *error; /* of the caller, during a call */
};

/* Carry out a call on a stream, or go on with it. Locked. Returns what serry.h promises. */
int stream_run(socket_member *m, stream *s, const serry_call *call, const serry_limit *limit,
               serry_error *error);

/* A frame has come; member ranks. Takes the body. */
void stream_take(socket_member *m, stream *s, int from, const frame *head, body *b);

/* Drop the operation that is open, as the last one that has ended. */
void stream_end(socket_member *m, stream *s);

/* The stream will not be used any more. */
void stream_cleanup(socket_member *m, stream *s);

void stream_setup(socket_member *m, stream *s, int which);

/* A frame about the operation that is open. */
frame stream_frame(const socket_member *m, const stream *s, uint32_t type);

serry_policy stream_policy(const socket_member *m, const stream *s);
void stream_forget_decision(stream *s);

/* The lowest rank that lives. */
int stream_hub(const socket_member *m);

/* As the hub, go as far as it goes without waiting: to a commit that all have (s->committed). */
void hub_work(socket_member *m, stream *s);

/* Let a member hand out the decision of an operation, or all that have reported for this one. */
void hub_send_commit(const socket_member *m, const stream *s, int to, uint64_t number,
                     uint64_t ballot);
void hub_commit_to_all(socket_member *m, stream *s);

/* ---- results -------------------------------------------------------------------------------- */

bool result_gives(const serry_call *call, int rank);
bool result_gets(const serry_call *call, int rank);

/* Bytes that a rank that gives has to give. */
size_t result_given_bytes(const socket_member *m, const serry_call *call);

/* What rank `to` gets from those in the decision. NULL: no memory. */
body *result_make(const socket_member *m, const stream *s, int to);

/* Hand a result out. */
void result_hand_out(const socket_member *m, const stream *s);

/* ---- socket_open.c: as in serry/backend.h ------------------------------------------------------ */

int socket_open(const serry_backend *backend, const serry_job *job, serry_member **member,
                serry_error *error);
int socket_close(serry_member *member, serry_error *error);
void socket_forget(serry_member *member);

/* ---- members -------------------------------------------------------------------------------- */

/* A member, and all that has come for it before. `at` is copied. NULL: no memory. */
socket_member *member_make(mesh *m, uint64_t id, int size, int rank, const uint16_t *at);

/* A member of the group of those with this colour, of those that took part in the last operation:
 * it has put their colours and keys into m->all. */
int member_make_part(socket_member *m, const stream *s, int colour, socket_member **part,
                     serry_error *error);

/* Leave the group. False: it was the last, and the mesh is gone with its lock. */
bool member_leave(socket_member *m);

/* In the child of a fork. */
void member_forget(socket_member *m);

/* A frame has come over a link, or its end. */
void member_take(mesh *m, int from, const frame *head, body *b);
void member_lost(mesh *m, int from);

void member_send(const socket_member *m, int rank, const frame *head, body *b);

/* Tell all members something. */
void member_tell(socket_member *m, uint32_t type, const stream *s, uint64_t number);

void member_revoke(socket_member *m);

/* ---- failures: each fills the record, and returns the code ----------------------------------- */

enum { POLICY_SHIFT = 62 }; /* of the policy in a signature */

int failure_lost(socket_member *m, const char *operation);
int failure_revoked(socket_member *m, const stream *s);
int failure_revoked_at(socket_member *m, const char *operation, uint64_t number);
int failure_ended(socket_member *m, const char *operation, int peer);
int failure_meeting(socket_member *m, const stream *s);
int failure_pending(socket_member *m, const stream *s);
int failure_cancelled(socket_member *m, const stream *s);
int failure_timeout(socket_member *m, const stream *s);
int failure_decided(socket_member *m, const stream *s); /* as the decision says */

static inline void rank_set_remove(serry_rank_set *set, int rank)
{
    set->bits[rank / 64] &= ~(UINT64_C(1) << (rank % 64));
}

#endif
