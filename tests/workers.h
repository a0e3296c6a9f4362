/* workers.h - what the tests of `serry run` with failing ranks share: jobs of tests/worker.c, which says how
 * they are told what to do. Its program's path is in SERRY_WORKER. */
#ifndef TEST_WORKERS_H
#define TEST_WORKERS_H

#include "launched.h"

enum { EXIT_TOLD = 5 }; /* of a worker */

const char *worker(void);

/* Before the tests. */
int workers_are_there(void **state);

/* Wait until `count` processes have been this rank, one after the other. The newest one's line, which
 * the caller frees. */
char *await_line(int rank, int count);

/* Likewise; its process. */
pid_t await_member(int rank, int count);

/* Wait until all ranks have joined. */
void await_job(int ranks);

/* Wait until a process, whether it has joined or is still to be let in, is attached to the job: the library's
 * own thread tells. */
void await_attached(pid_t pid);

#endif
