/* comm.h - what a communicator is, for the files of this floor. */
#ifndef SERRY_COMM_H
#define SERRY_COMM_H

#include <serry/backend.h>

struct serry_comm {
    const serry_backend *backend;
    serry_member *member;
    int rank, size;
    int timeout_ms;
    unsigned forks;    /* serry_forks when it was made */
    serry_error error; /* the last one; SERRY_OK: none yet */
};

/* How many forks lie between the first process of this program and this one. */
extern unsigned serry_forks;

/* May this communicator be used here? SERRY_OK, or SERRY_ERR_INVALID for NULL (told in the thread's
 * record), or SERRY_ERR_FORKED. */
int serry_comm_check(serry_comm *comm, const char *operation);

#endif
