/* comm.h - what a communicator is, for the files of this floor. */
#ifndef SERRY_COMM_H
#define SERRY_COMM_H

#include <serry/backend.h>

/* Memory that lists of buffers are packed into: see many.c. */
typedef struct pack {
    void *memory;
    size_t bytes;
    bool in_arena;
} pack;

struct serry_comm {
    const serry_backend *backend;
    serry_member *member;
    int rank, size;
    serry_limit limit;  /* of each of its operations */
    serry_token *token; /* what limit.token gives; NULL: none. A reference */
    unsigned forks;     /* serry_forks when it was made */
    serry_progress progress;
    int progress_cpu;      /* -1: any */
    struct flight *flight; /* what is under way; NULL: nothing ever was */
    struct many *open;     /* lists whose operations were left open */
    pack pack;             /* one that is free */
    bool closed;           /* there is no member any more */
    serry_error error;     /* the last one; SERRY_OK: none yet */
};

/* How many forks lie between the first process of this program and this one. */
extern unsigned serry_forks;

/* May this communicator be used here? */
static inline bool serry_comm_is_usable(const serry_comm *comm)
{
    return __builtin_expect(comm != NULL && comm->forks == serry_forks, 1);
}

/* The same: SERRY_OK, or SERRY_ERR_INVALID for NULL (told in the thread's record), or
 * SERRY_ERR_FORKED. */
int serry_comm_check(serry_comm *comm, const char *operation);

/* May `part` be filled with a new communicator? Sets *part to NULL. */
int serry_comm_check_new(serry_comm *comm, const char *operation, int colour, serry_comm **part);

/* May `ranks` be filled in from a const communicator? Its error goes to the thread's record. */
int serry_comm_check_set(const serry_comm *comm, const serry_rank_set *ranks,
                         const char *operation);

/* Have the backend's member to oneself for a moment: what is under way must not drive it meanwhile. In
 * the child of a fork nothing is under way, whoever had the turn before. */
void serry_comm_hold(const serry_comm *comm);
void serry_comm_release(const serry_comm *comm);

/* Something that has its place in the order of the communicator's operations. Waits; returns its
 * result, with the communicator's record filled unless it is SERRY_OK. */
typedef int (*serry_comm_function)(serry_comm *comm, const serry_limit *limit, void *argument,
                                   serry_error *error);
int serry_comm_do(serry_comm *comm, serry_comm_function function, void *argument);

/* The same of something that puts a member into *member (NULL: this rank has none): *part becomes a
 * communicator with it. */
int serry_comm_derive(serry_comm *comm, serry_comm_function function, void *argument,
                      serry_member *const *member, serry_comm **part);

/* After SERRY_ERR_MEETING from the backend: go there, as somebody who has nothing to vote for. Then
 * the call is to be repeated. */
int serry_comm_meet(serry_comm *comm);

#endif
