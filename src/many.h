/* many.h - lists of buffers as one operation. */
#ifndef SERRY_MANY_H
#define SERRY_MANY_H

#include "comm.h"
#include "guard.h"

typedef struct many many;

/* With the flight's turn, where there is a flight: its operation has ended like this. `begun`: its turn had
 * come, so it may be open. Unpacks, and frees or keeps it. */
void many_end(serry_comm *comm, many *m, bool begun, int rc, serry_error *error);

/* guard_start for its buffers: those of the call are ours. */
int many_guard(const many *m, guard *g, int rank, serry_error *error);

/* The communicator's member is about to be closed; and: it has been, or not. */
void many_close(serry_comm *comm);
void many_closed(serry_comm *comm, bool well);

/* ---- collective.c ------------------------------------------------------------------------------- */

/* Both call many_end with `list`, but not where nothing was started. NULL: nothing to end. */
int serry_comm_run(serry_comm *comm, const serry_call *call, many *list);
int serry_comm_start(serry_comm *comm, const serry_call *call, many *list, serry_request **request);

#endif
