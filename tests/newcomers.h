/* newcomers.h - jobs of four in which a process or thread takes the place of a rank that has failed.
 *
 * Runs have more harness ranks than the job has: those from RANKS on are newcomers. */
#ifndef TEST_NEWCOMERS_H
#define TEST_NEWCOMERS_H

#include "deaths.h"

enum { RANKS = 4, VICTIM = 2 };

/* For lists of who is dead. */
extern const int k_none[], k_victim[];

/* A run with so many newcomers; in one of processes, `dead` are killed. */
void run_newcomers(serry_kind_of_rank kind, int newcomers, test_body body, void *argument,
                   const int *dead);

/* ---- in a body ---------------------------------------------------------------------------------- */

/* How a rank joins the run's job, whatever its number in the run. */
serry_config config_of(const test_rank *self, int rank, serry_policy policy, serry_entry entry);

/* The job starts. */
bool join(test_rank *self, int rank, serry_policy policy);

/* A replacement comes in. */
bool rejoin(test_rank *self, int rank, serry_policy policy);

#endif
