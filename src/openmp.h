/* openmp.h - threads of OpenMP that share what one thread has to do, for ranks that own several cores.
 *
 * The runtime is libgomp. It is loaded, not linked: where nobody asks for teams, it is not there. As
 * all OpenMP, it keeps a team for each thread that has ever called for one, asleep between two calls; a
 * program of gcc that has parallel regions of its own in the same thread shares that team. */
#ifndef SERRY_OPENMP_H
#define SERRY_OPENMP_H

#include <serry/error.h>

/* Make teams possible. SERRY_ERR_UNSUPPORTED: the record says why they are not. */
int openmp_load(serry_error *error);

/* How many threads a team of the calling thread is to have, itself included: what a parallel region here
 * would get (OMP_NUM_THREADS), and no more than `cores` where that variable is not set. 1: no team,
 * because teams were not asked for, or cannot be in this process. */
int openmp_threads(int cores);

/* One part of `parts`: as many as the team has got, which may be fewer than wanted. */
typedef void openmp_part(void *work, int part, int parts);

/* Have all parts of some work done by a team of up to `threads`, and return when they are. The calling
 * thread does one; all compute in its floating-point mode. It works alone where there is no team, or
 * where it may run on one processor only. */
void openmp_run(int threads, openmp_part *part, void *work);

/* End the team of the calling thread, if openmp_run() has made one. The next call makes another. */
void openmp_end(void);

#endif
