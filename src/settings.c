/* settings.c - what a job may be told beside who is who: timeout, pool, policy, team, entry, backend. */
#include "settings.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm.h"
#include "openmp.h"
#include "record.h"

#define DEFAULT_TIMEOUT_MS 300000
#define POOL_UNIT ((size_t)2 << 20) /* a pool is a whole number of huge pages */

/* ---- numbers ------------------------------------------------------------------------------ */

/* The number that `text` starts with, digits with nothing before them but a minus; *rest is what
 * follows. False where there is none or it does not fit. */
bool serry_read_number(const char *text, long long *number, const char **rest)
{
    const char *digits = text + (*text == '-');
    if (*digits < '0' || *digits > '9')
        return false;

    char *end;
    errno = 0;
    *number = strtoll(text, &end, 10);
    *rest = end;
    return errno == 0;
}

/* A variable that is set and must be a whole number in [low, high]; `why` explains the bounds. */
int serry_read_variable(const char *variable, int low, int high, const char *why, int *value,
                        serry_error *error)
{
    const char *text = getenv(variable), *rest;
    long long number;
    if (serry_read_number(text, &number, &rest) && *rest == '\0' && number >= low &&
        number <= high) {
        *value = (int)number;
        return SERRY_OK;
    }
    return serry_fail(error, SERRY_ERR_INVALID,
                      "%s is \"%.40s\", but must be a whole number from %d to %d%s", variable, text,
                      low, high, why);
}

bool serry_is_set(const char *variable)
{
    return variable != NULL && getenv(variable) != NULL;
}

/* A variable that holds one of `count` words; *value is its place among them. */
static int read_word(const char *variable, const char *const *words, int count, int *value,
                     serry_error *error)
{
    const char *text = getenv(variable);
    char list[128] = "";
    for (int i = 0; i < count; i++) {
        if (strcmp(text, words[i]) == 0) {
            *value = i;
            return SERRY_OK;
        }
        size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%s", i == 0 ? "" : ", ", words[i]);
    }
    return serry_fail(error, SERRY_ERR_INVALID, "%s is \"%.40s\", but must be one of: %s", variable,
                      text, list);
}

/* ---- timeout and pool --------------------------------------------------------------------- */

static int find_timeout(const serry_config *config, serry_job *job, serry_error *error)
{
    job->timeout_ms = config->timeout_ms != 0 ? config->timeout_ms : DEFAULT_TIMEOUT_MS;
    if (config->timeout_ms != 0 || !serry_is_set("SERRY_TIMEOUT_MS"))
        return SERRY_OK;

    int timeout_ms;
    int result = serry_read_variable("SERRY_TIMEOUT_MS", -1, INT_MAX,
                                     ", in milliseconds; -1 for none", &timeout_ms, error);
    if (result != SERRY_OK)
        return result;
    if (timeout_ms == 0)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "SERRY_TIMEOUT_MS is \"0\", which leaves no time for anything; give "
                          "milliseconds, or -1 for no timeout");
    job->timeout_ms = timeout_ms;
    return SERRY_OK;
}

/* "512M": a number and at most one of K, M, G and T, powers of 1024; at least 1 byte. */
static bool read_bytes(const char *text, size_t *bytes)
{
    static const char k_units[] = "KMGT";
    const char *rest;
    long long number;
    if (!serry_read_number(text, &number, &rest) || number < 1)
        return false;

    unsigned shift = 0;
    if (*rest != '\0') {
        const char *unit = strchr(k_units, *rest);
        if (unit == NULL || rest[1] != '\0')
            return false;
        shift = 10 * (unsigned)(unit - k_units + 1);
    }
    if (number > LLONG_MAX >> shift)
        return false;
    *bytes = (size_t)number << shift;
    return true;
}

static int find_pool(const serry_config *config, serry_job *job, serry_error *error)
{
    size_t bytes = config->pool_bytes;
    if (bytes == 0 && serry_is_set("SERRY_POOL")) {
        if (!read_bytes(getenv("SERRY_POOL"), &bytes))
            return serry_fail(error, SERRY_ERR_INVALID,
                              "SERRY_POOL is \"%.40s\", but must be a number of bytes, or one with "
                              "K, M, G or T behind it, such as 512M",
                              getenv("SERRY_POOL"));
    } else if (bytes == 0) {
        bytes = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE) / 2;
    }
    if (bytes > SIZE_MAX - POOL_UNIT)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "a pool of %zu bytes is more than there are addresses; give "
                          "serry_config.pool_bytes, or SERRY_POOL, a smaller number",
                          bytes);
    job->pool_bytes = (bytes + POOL_UNIT - 1) / POOL_UNIT * POOL_UNIT;
    return SERRY_OK;
}

/* ---- policy, team, entry, backend ---------------------------------------------------------- */

static int find_policy(const serry_config *config, serry_job *job, serry_error *error)
{
    static const char *const k_policies[SERRY_POLICIES] = {"report", "exclude", "revoke", "wait"};
    int policy = config->policy < 0 ? SERRY_REPORT : config->policy;

    if (config->policy >= SERRY_POLICIES)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "policy is %d in serry_config, but must be SERRY_REPORT, SERRY_EXCLUDE, "
                          "SERRY_REVOKE, SERRY_WAIT, or -1 for SERRY_POLICY",
                          config->policy);
    if (config->policy < 0 && serry_is_set("SERRY_POLICY")) {
        int result = read_word("SERRY_POLICY", k_policies, SERRY_POLICIES, &policy, error);
        if (result != SERRY_OK)
            return result;
    }
    job->policy = (serry_policy)policy;
    return SERRY_OK;
}

/* A team that is asked for must be possible. */
static int find_team(const serry_config *config, serry_job *job, serry_error *error)
{
    static const char *const k_teams[] = {"none", "openmp"};
    int team = 0;

    job->team = config->team;
    if (config->team < SERRY_TEAM_ENVIRONMENT || config->team > SERRY_TEAM_OPENMP)
        return serry_fail(error, SERRY_ERR_INVALID, "team is %d in serry_config, which is none",
                          (int)config->team);
    if (config->team == SERRY_TEAM_ENVIRONMENT) {
        int result = !serry_is_set("SERRY_TEAM")
                         ? SERRY_OK
                         : read_word("SERRY_TEAM", k_teams, 2, &team, error);
        if (result != SERRY_OK)
            return result;
        job->team = (serry_team)(SERRY_TEAM_NONE + team);
    }
    return job->team == SERRY_TEAM_OPENMP ? openmp_load(error) : SERRY_OK;
}

int serry_settings_find(const serry_config *config, serry_job *job, serry_error *error)
{
    int result = find_timeout(config, job, error);
    if (result == SERRY_OK)
        result = find_pool(config, job, error);
    if (result == SERRY_OK)
        result = find_policy(config, job, error);
    return result == SERRY_OK ? find_team(config, job, error) : result;
}

int serry_settings_find_entry(const serry_config *config, serry_job *job, serry_error *error)
{
    static const char *const k_entries[] = {"start", "replacement", "spare"};

    job->entry = config->entry;
    if (config->entry < SERRY_ENTRY_ENVIRONMENT || config->entry > SERRY_ENTRY_SPARE)
        return serry_fail(error, SERRY_ERR_INVALID, "entry is %d in serry_config, which is none",
                          (int)config->entry);
    if (config->entry != SERRY_ENTRY_ENVIRONMENT)
        return SERRY_OK;
    int entry = 0;
    if (serry_is_set("SERRY_ENTRY")) {
        int result = read_word("SERRY_ENTRY", k_entries, 3, &entry, error);
        if (result != SERRY_OK)
            return result;
    }
    job->entry = (serry_entry)(SERRY_ENTRY_START + entry);
    return SERRY_OK;
}

int serry_settings_find_backend(const serry_config *config, const serry_backend **backend,
                                serry_error *error)
{
    static const char *const k_names[] = {"shm", "socket", "self"};
    const serry_backend *const backends[] = {&serry_backend_shm, &serry_backend_socket,
                                             &serry_backend_self};

    *backend = &serry_backend_shm;
    if (config != NULL && config->backend != NULL) {
        *backend = config->backend;
        return SERRY_OK;
    }
    if (!serry_is_set("SERRY_BACKEND"))
        return SERRY_OK;
    int which = 0, result = read_word("SERRY_BACKEND", k_names, 3, &which, error);
    *backend = backends[which];
    return result;
}

/* "thread", "thread:CPU" or "caller". */
static bool read_progress(const char *text, serry_progress *progress, int *cpu)
{
    const char *rest = "";
    long long number;

    *progress = strcmp(text, "caller") == 0 ? SERRY_PROGRESS_CALLER : SERRY_PROGRESS_THREAD;
    if (*progress == SERRY_PROGRESS_CALLER || strcmp(text, "thread") == 0)
        return true;
    if (strncmp(text, "thread:", 7) != 0 || !serry_read_number(text + 7, &number, &rest) ||
        *rest != '\0' || number < 0 || number >= CPU_SETSIZE)
        return false;
    *cpu = (int)number;
    return true;
}

int serry_settings_find_progress(const serry_config *config, serry_comm *comm, serry_error *error)
{
    serry_progress given = config == NULL ? SERRY_PROGRESS_ENVIRONMENT : config->progress;

    comm->progress = given == SERRY_PROGRESS_ENVIRONMENT ? SERRY_PROGRESS_THREAD : given;
    comm->progress_cpu = config == NULL ? -1 : config->progress_cpu;
    if (given < SERRY_PROGRESS_ENVIRONMENT || given > SERRY_PROGRESS_CALLER ||
        comm->progress_cpu >= CPU_SETSIZE)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "serry_config has progress %d on CPU %d, which is none", (int)given,
                          comm->progress_cpu);
    if (given != SERRY_PROGRESS_ENVIRONMENT || !serry_is_set("SERRY_PROGRESS") ||
        read_progress(getenv("SERRY_PROGRESS"), &comm->progress, &comm->progress_cpu))
        return SERRY_OK;
    return serry_fail(error, SERRY_ERR_INVALID,
                      "SERRY_PROGRESS is \"%.40s\", but must be thread, thread:CPU (a number) or "
                      "caller",
                      getenv("SERRY_PROGRESS"));
}
