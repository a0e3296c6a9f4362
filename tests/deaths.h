/* deaths.h - what the tests of dying ranks share: ways to end, and what the survivors must see. */
#ifndef TEST_DEATHS_H
#define TEST_DEATHS_H

#include "harness.h"

#define DEATHS_LARGE ((size_t)120000) /* elements of 8 bytes: several chunks of every algorithm */

/* ---- ends ----------------------------------------------------------------------------------- */

/* This rank ends here, without a word: a process by SIGKILL, a thread by pthread_exit. A thread's
 * communicators stay behind: the world's goes to the orphans by itself. */
_Noreturn void death_now(test_rank *self);

/* The thread sanitizer does not know that the kernel puts the end of a thread before whatever the
 * others learn of it: where that matters, before several steps without the dead in one call, they
 * wait until so many threads of the run have said that they end. Elsewhere this does nothing. */
void await_ends(test_rank *self, unsigned ends);

/* The process gets SIGKILL in so many microseconds, wherever it is then. */
void death_in(test_rank *self, unsigned us);

/* Wait for the end that death_in has ordered. */
_Noreturn void death_await(void);

/* A communicator of a thread rank that will not finalize it: orphans_free() does. */
void orphan(serry_comm *comm);

/* After test_join: free what ended threads have left behind. */
void orphans_free(void);

/* The rank has ended in a way that the harness does not know and the test has checked. */
void death_forgive(test_run *run, int rank);

/* test_join, orphans_free, check that exactly the ranks in `dead` (ended by -1) died of SIGKILL (if
 * they are processes), test_end. */
void deaths_end(test_run *run, serry_kind_of_rank kind, int size, const int *dead);

/* A whole run; `dead` as in deaths_end. */
void run_deaths(serry_kind_of_rank kind, int size, test_body body, void *argument, const int *dead);

/* ---- what survivors see --------------------------------------------------------------------- */

bool is_one_of(const int *ranks, int rank);

/* The call gave SERRY_ERR_RANK_FAILED, and the record names exactly `dead` (ended by -1), in its
 * fields and in words. */
bool expect_failed(test_rank *self, const serry_comm *comm, int rc, const int *dead,
                   const char *what);

/* All ranks of `comm` but `dead` come here: small and large operations, on private and on arena
 * memory, give the right sums, and the library says that exactly these took part. */
void expect_goes_on(test_rank *self, serry_comm *comm, const int *dead);

/* Do exactly the ranks of `comm` that are not in `dead` take part, as the library says? */
void expect_participants(test_rank *self, const serry_comm *comm, const int *dead);

/* Wait until the library has found out about all of `dead`, without any operation. */
void await_known(test_rank *self, const serry_comm *comm, const int *dead);

/* ---- processes and chance ------------------------------------------------------------------- */

/* The letter that /proc has for a process ('S', 'T', 'Z', ...); 0: there is none. */
char process_state(pid_t pid);

/* Threads of this process. */
int thread_count(void);

/* CPU time of this process with all its threads, or of one thread (RUSAGE_SELF, RUSAGE_THREAD). */
double cpu_seconds(int whose);

/* A sequence for one purpose, from the seed of the program. */
uint64_t chance_begin(uint64_t purpose);

/* The next number of a sequence, below `limit`. */
unsigned chance(uint64_t *sequence, unsigned limit);

/* Microseconds, from 1 to 2^(powers + 1), short ones as likely as long ones. */
unsigned chance_us(uint64_t *sequence, unsigned powers);

#endif
