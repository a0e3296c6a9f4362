/* levels.h - small operations of many members in several domains: fewer lines from far away. */
#ifndef SHM_LEVELS_H
#define SHM_LEVELS_H

#include "operation.h"

/* The members have become others, or where they are: divide them into blocks, or not. */
void levels_plan(shm_member *m);

/* VARIANT_LEVELS is chosen, or is not. */
void levels_force(shm_member *m, bool forced);

/* Is the step that was published last decided by blocks? Not where there are more ranks than cores: there
 * who tells for others would have to run once more before they can go on. */
static inline bool levels_serve(const shm_member *m)
{
    return (m->rare & RARE_LEVELS) != 0 && (m->plan.pauses != 0 || m->levels.forced) &&
           (m->algorithm == &algorithm_small || m->algorithm == &algorithm_batch);
}

/* Wait until the step is decided. As for other steps, m->absent are the members sealed below it. */
int levels_decide(shm_member *m);

#endif
