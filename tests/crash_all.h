/* crash_all.h - `crash GROUP --all`: every instruction, which takes weeks on one core. So it can be divided among
 * several processes or machines, tells how far it is, and goes on after it was ended.
 *
 *   CRASH_SHARE=k/n      the kth of n shares (from 1): every nth point
 *   CRASH_PROGRESS=FILE  how far each scenario is; what FILE says is done is not done again, unless
 *                        this program was built anew since
 *
 * A point is a number of changes and the instructions since (crash_step.h), which means the same in
 * every run; its number in one record does not. */
#ifndef TEST_CRASH_ALL_H
#define TEST_CRASH_ALL_H

#include "crash_trial.h"

/* Read the environment. False: it is wrong, which is told. */
bool all_begin(void);

/* A plan has been recorded: its points of this share, less those that are done, belong to the
 * work. */
void all_add(const plan *p);

/* All have been added: tell how much there is to do. */
void all_start(void);

/* Try them. Stops after a few faults; earlier ones, which the file tells of, are counted too. */
void all_try(plan *p);

#endif
