/* ft_jobs.h - jobs whose ranks are carried by a chain of backends that fail on purpose. */
#ifndef TEST_FT_JOBS_H
#define TEST_FT_JOBS_H

#include <serry/faulty.h>
#include <serry/ft.h>

#include "vectors.h"

#define JOB_CHAIN 3

typedef struct ft_job {
    const serry_backend *inner[JOB_CHAIN]; /* NULL: shm */
    const char *script[JOB_CHAIN]; /* of the faulty backend around it; NULL: the chain's end */
    int max_retries;               /* 0: as by default */
    int timeout_ms;                /* of operations; 0: a minute */
    serry_strategy system;         /* the strategy after SERRY_ERR_SYSTEM; 0: SERRY_RETRY */
    const void *more;              /* for the body */

    serry_backend *faulty[JOB_CHAIN], *backend;
} ft_job;

/* A run of `body` with this job as its argument; `killed` is a rank that a rule kills, or -1. */
void ft_job_run(ft_job *job, serry_kind_of_rank kind, int size, int killed, test_body body);

/* In a body: join and leave; self->comm is the communicator. */
bool ft_job_open(test_rank *self);
void ft_job_close(test_rank *self);

/* One call on vectors, which must return `wanted` and have its result or (not SERRY_OK) have
 * changed nothing. */
void ft_job_call(test_rank *self, vectors *v, serry_kind kind, size_t count, int wanted);

#endif
