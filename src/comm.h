/* comm.h - what a communicator is, for the files of this floor. */
#ifndef SERRY_COMM_H
#define SERRY_COMM_H

#include <serry/backend.h>

struct serry_comm {
    const serry_backend *backend;
    serry_member *member;
    int rank, size;
    serry_limit limit;    /* of each of its operations */
    serry_token *token;   /* what limit.token gives; NULL: none. A reference */
    serry_rank_set acked; /* failures that the caller has acknowledged */
    unsigned forks;       /* serry_forks when it was made */
    serry_error error;    /* the last one; SERRY_OK: none yet */
};

/* How many forks lie between the first process of this program and this one. */
extern unsigned serry_forks;

/* May this communicator be used here? SERRY_OK, or SERRY_ERR_INVALID for NULL (told in the thread's
 * record), or SERRY_ERR_FORKED. */
int serry_comm_check(serry_comm *comm, const char *operation);

/* A new communicator without a member yet; NULL: no memory,
 * told in its record. */
serry_comm *serry_comm_new(const serry_backend *backend, const serry_limit *limit,
                           serry_error *error);

/* Give it its member. */
void serry_comm_adopt(serry_comm *comm, serry_member *member);

/* May `part` be filled with a new communicator? Sets *part to NULL. */
int serry_comm_check_new(serry_comm *comm, const char *operation, int colour, serry_comm **part);

/* May `ranks` be filled in from a const communicator? Its error goes to the thread's record. */
int serry_comm_check_set(const serry_comm *comm, const serry_rank_set *ranks,
                         const char *operation);

/* After SERRY_ERR_MEETING from the backend: go there, as somebody who has nothing to vote for. Then
 * the call is to be repeated. */
int serry_comm_meet(serry_comm *comm);

#endif
