/* socket_joining.h - a rank on its way into a mesh: what is shared by the two files that bring it there. */
#ifndef SERRY_SOCKET_JOINING_H
#define SERRY_SOCKET_JOINING_H

#include "socket.h"

#define STRANGERS 64 /* connections that have not said hello */

/* What it does, one after the other. A failure goes to the farewell. */
typedef enum joining_phase { JOINING_MEETS, JOINING_WAITS, JOINING_FAREWELL } joining_phase;

/* By one thread at a time, but perhaps by another one at each poll. */
struct joining {
    mesh *mesh;
    serry_job job;
    serry_error error; /* why it fails */
    joining_phase phase;
    uint64_t key[2]; /* hash of user and job name */
    uint64_t began_ns, deadline_ns;
    uint64_t farewell_ns; /* the end of it */
    int host;
    int listener; /* -1: none */
    int strangers;
    mesh_link stranger[STRANGERS];
    bool met[SERRY_MAX_RANKS];   /* has said hello */
    bool ready[SERRY_MAX_RANKS]; /* host: has all its links */
    bool go;
};

static inline bool joining_expects(const joining *j, int rank)
{
    return rank >= 0 && rank < j->job.size && !serry_rank_set_has(&j->job.absent, rank);
}

/* ---- socket_hello.c ----------------------------------------------------------------------------- */

void joining_say_hello(joining *j, int to);

/* Is it one of this job? SERRY_OK, or why it makes the start fail. */
int joining_check_hello(joining *j, const frame *head);

/* Each fills the record, and returns the code. */
int joining_fail_gone(joining *j, int rank);
int joining_fail_twice(joining *j, int rank);
int joining_fail_timeout(joining *j);
int joining_fail_lost(joining *j);
int joining_fail_as_told(joining *j, const frame *head, const body *b);

#endif
