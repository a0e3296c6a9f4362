/* settings.h - what a job may be told beside who is who; and how variables are read. */
#ifndef SERRY_SETTINGS_H
#define SERRY_SETTINGS_H

#include <serry/backend.h>

/* Timeout, pool, policy and team, each from the configuration, its variable or its default. */
int serry_settings_find(const serry_config *config, serry_job *job, serry_error *error);

/* How the rank comes into the job. */
int serry_settings_find_entry(const serry_config *config, serry_job *job, serry_error *error);

/* What carries the job; config may be NULL. */
int serry_settings_find_backend(const serry_config *config, const serry_backend **backend,
                                serry_error *error);

/* Who makes progress; config may be NULL. */
int serry_settings_find_progress(const serry_config *config, struct serry_comm *comm,
                                 serry_error *error);

/* Is a variable set, to anything? NULL is not. */
bool serry_is_set(const char *variable);

/* The number that `text` starts with, digits with nothing before them but a minus; *rest is what
 * follows. False where there is none or it does not fit. */
bool serry_read_number(const char *text, long long *number, const char **rest);

/* A variable that is set and must be a whole number in [low, high]; `why` explains the bounds. */
int serry_read_variable(const char *variable, int low, int high, const char *why, int *value,
                        serry_error *error);

#endif
