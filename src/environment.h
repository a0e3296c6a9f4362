/* environment.h - who am I: rank, size and job from the configuration or a launcher's variables. */
#ifndef SERRY_ENVIRONMENT_H
#define SERRY_ENVIRONMENT_H

#include <serry/backend.h>

/* Complete a configuration (NULL: empty) into a job. Looks, in this order, in the configuration,
 * SERRY_RANK/SIZE/JOB, torchrun's, Open MPI's, PMI's and Slurm's variables; a source is taken whole:
 * its rank and size come from one place. Nothing anywhere: rank 0 of 1, a job of its own name.
 * SERRY_ERR_INVALID names the variable, its value and what was expected. */
int serry_environment_job(const serry_config *config, serry_job *job, serry_error *error);

#endif
