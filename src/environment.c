/* environment.c - rank, size and job from the configuration or a launcher's variables. */

#include "environment.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "record.h"
#include "settings.h"

/* ---- processes, as /proc shows them ------------------------------------------------------- */

struct process {
    int pid, parent;
    unsigned long long start; /* clock ticks since the machine started: tells a reused pid */
    char name[64];
};

/* `pid` is a number or "self". */
static bool read_process(const char *pid, struct process *process)
{
    char text[1024];
    snprintf(text, sizeof(text), "/proc/%s/stat", pid);
    int file = open(text, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    ssize_t length = read(file, text, sizeof(text) - 1);
    close(file);
    if (length <= 0)
        return false;
    text[length] = '\0';

    /* "17 (any (name)) S 16 ...": the name ends at the last parenthesis; the start is field 22 */
    char *name = strchr(text, '('), *end = strrchr(text, ')');
    if (name == NULL || end == NULL)
        return false;
    *end = '\0';
    process->pid = atoi(text);
    snprintf(process->name, sizeof(process->name), "%s", name + 1);
#define SKIP_4 "%*s %*s %*s %*s "
    return sscanf(end + 1, " %*c %d " SKIP_4 SKIP_4 SKIP_4 SKIP_4 "%*s %llu", &process->parent,
                  &process->start) == 2;
#undef SKIP_4
}

/* The nearest ancestor whose name holds `part`; "" finds the parent. */
static bool find_ancestor(const char *part, struct process *ancestor)
{
    if (!read_process("self", ancestor))
        return false;
    while (ancestor->parent > 0) {
        char pid[16];
        snprintf(pid, sizeof(pid), "%d", ancestor->parent);
        if (!read_process(pid, ancestor))
            return false;
        if (strstr(ancestor->name, part) != NULL)
            return true;
    }
    return false;
}

/* A name that this process of this machine has alone, containers that share /dev/shm included:
 * pids repeat from one pid namespace to the next. Returns its length, as snprintf. */
static int name_after_process(char *name, size_t size, const char *prefix,
                              const struct process *process)
{
    struct stat pid_namespace = {0};
    stat("/proc/self/ns/pid", &pid_namespace);
    return snprintf(name, size, "%s-%llu-%d-%llu", prefix, (unsigned long long)pid_namespace.st_ino,
                    process->pid, process->start);
}

static int name_after_self(char *name, size_t size, const char *prefix)
{
    struct process self;
    if (!read_process("self", &self))
        self = (struct process){.pid = getpid()};
    return name_after_process(name, size, prefix, &self);
}

/* ---- names of jobs ------------------------------------------------------------------------ */

/* Each writes the name of the job and returns its length, as snprintf; 0: the launcher does not
 * tell. Jobs that run at the same time must get different names, ranks of one job the same. */
typedef int job_namer(char *name, size_t size);

static const char *variable_or_empty(const char *variable)
{
    const char *value = getenv(variable);
    return value != NULL ? value : "";
}

/* The port is taken while the job lives; the run's id may be the same in all runs. Workers that are
 * started again must not meet those of the attempt before. */
static int name_from_torchrun(char *name, size_t size)
{
    if (getenv("MASTER_PORT") == NULL && getenv("TORCHELASTIC_RUN_ID") == NULL)
        return 0;
    return snprintf(name, size, "torchrun-%s-%s-%s-%s", variable_or_empty("MASTER_ADDR"),
                    variable_or_empty("MASTER_PORT"), variable_or_empty("TORCHELASTIC_RUN_ID"),
                    variable_or_empty("TORCHELASTIC_RESTART_COUNT"));
}

/* Open MPI 4 folds host name and pid of mpirun into 16 bits, so two jobs may have the same
 * namespace; its key for transports is 128 random bits. Open MPI 5 has both in the namespace. */
static int name_from_open_mpi(char *name, size_t size)
{
    const char *job = getenv("PMIX_NAMESPACE");
    if (job == NULL)
        job = getenv("OMPI_MCA_ess_base_jobid");
    if (job == NULL)
        return 0;
    return snprintf(name, size, "openmpi-%s-%s", job,
                    variable_or_empty("OMPI_MCA_orte_precondition_transports"));
}

/* No variable of hydra (MPICH, Intel MPI) differs from job to job, but each job has a process of its
 * own on the host, from which all ranks descend, however many scripts stand between. Other PMI
 * launchers: the parent, which fails (each rank then waits alone, until its timeout) where each
 * rank is started by a script of its own that does not exec; SERRY_JOB helps there. */
static int name_from_pmi(char *name, size_t size)
{
    struct process process;
    if (find_ancestor("pmi_proxy", &process) || find_ancestor("", &process))
        return name_after_process(name, size, "pmi", &process);
    return 0;
}

static int name_from_slurm(char *name, size_t size)
{
    const char *job = getenv("SLURM_JOB_ID");
    return job == NULL ? 0 : snprintf(name, size, "slurm-%s.%s", job, getenv("SLURM_STEP_ID"));
}

/* A job of one rank meets nobody, not even another of the same process. */
static int name_alone(char *name, size_t size)
{
    uint64_t random;
    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random)) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        random = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    }
    char prefix[32];
    snprintf(prefix, sizeof(prefix), "alone-%016llx", (unsigned long long)random);
    return name_after_self(name, size, prefix);
}

static int name_of_threads(char *name, size_t size)
{
    return name_after_self(name, size, "threads");
}

/* ---- launchers ---------------------------------------------------------------------------- */

static const struct source {
    const char *rank, *size;
    const char *local_size; /* ranks on this host */
    const char *hosts;      /* looked at where local_size is not set */
    const char *mark;       /* without it, this source is passed over */
    job_namer *name;
} k_sources[] = {
    {"SERRY_RANK", "SERRY_SIZE", NULL, NULL, NULL, NULL},
    {"RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", NULL, NULL, name_from_torchrun},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", NULL, NULL,
     name_from_open_mpi},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS", "SLURM_NNODES", NULL, name_from_pmi},
    /* A batch script has rank and size as well, but only srun starts a step of so many ranks:
     * a program called by the script itself is alone. */
    {"SLURM_PROCID", "SLURM_NTASKS", NULL, "SLURM_NNODES", "SLURM_STEP_ID", name_from_slurm},
};

/* The launcher that started this process, NULL where none did. */
static const struct source *find_source(void)
{
    for (size_t i = 0; i < sizeof(k_sources) / sizeof(k_sources[0]); i++) {
        const struct source *source = &k_sources[i];
        if ((serry_is_set(source->rank) || serry_is_set(source->size)) &&
            (source->mark == NULL || serry_is_set(source->mark)))
            return source;
    }
    return NULL;
}

static int check_one_host(const struct source *source, int size, serry_error *error)
{
    const char *variable = serry_is_set(source->local_size) ? source->local_size : source->hosts;
    if (!serry_is_set(variable))
        return SERRY_OK;

    int number;
    int result = serry_read_variable(variable, 1, INT_MAX, "", &number, error);
    if (result != SERRY_OK)
        return result;
    if (variable == source->hosts ? number == 1 : number == size)
        return SERRY_OK;
    return serry_fail(error, SERRY_ERR_INVALID,
                      "%s is %d and %s is %d: the ranks are on several hosts, but serry "
                      "joins ranks of one host; start all on one, or one job on each",
                      source->size, size, variable, number);
}

static int check_size(const char *what, int size, serry_error *error)
{
    if (size <= (int)SERRY_MAX_RANKS)
        return SERRY_OK;
    return serry_fail(error, SERRY_ERR_INVALID, "%s is %d, but a job has at most %u ranks", what,
                      size, SERRY_MAX_RANKS);
}

static int read_source(const struct source *source, serry_job *job, serry_error *error)
{
    if (!serry_is_set(source->rank) || !serry_is_set(source->size)) {
        const char *set = serry_is_set(source->rank) ? source->rank : source->size;
        return serry_fail(error, SERRY_ERR_INVALID,
                          "%s is \"%.40s\", but %s is not set; set both or neither", set,
                          getenv(set), set == source->rank ? source->size : source->rank);
    }

    int result = serry_read_variable(source->size, 1, INT_MAX, "", &job->size, error);
    if (result == SERRY_OK)
        result = check_one_host(source, job->size, error);
    if (result == SERRY_OK)
        result = check_size(source->size, job->size, error);
    if (result != SERRY_OK)
        return result;

    char why[80];
    snprintf(why, sizeof(why), ", as %s is %d", source->size, job->size);
    return serry_read_variable(source->rank, 0, job->size - 1, why, &job->rank, error);
}

/* ---- rank, size and job ------------------------------------------------------------------- */

/* Rank and size that the configuration gives, if any. */
static int read_config(const serry_config *config, serry_job *job, serry_error *error)
{
    if (config->rank < -1 || config->size < -1 || config->size == 0)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "rank %d and size %d in serry_config: a rank is 0 or more, a size 1 or "
                          "more, and -1 stands for the environment",
                          config->rank, config->size);
    if ((config->rank < 0) != (config->size < 0))
        return serry_fail(error, SERRY_ERR_INVALID,
                          "rank %d and size %d in serry_config: give both or neither (-1)",
                          config->rank, config->size);
    int result = check_size("size in serry_config", config->size, error);
    if (result != SERRY_OK)
        return result;
    if (config->size > 0 && config->rank >= config->size)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "rank %d of %d in serry_config: ranks go from 0 to %d", config->rank,
                          config->size, config->size - 1);
    job->rank = config->rank;
    job->size = config->size;
    return SERRY_OK;
}

/* A spare has no number yet. */
static int find_size_of_spare(const serry_config *config, serry_job *job, serry_error *error)
{
    job->rank = -1;
    job->size = config->size;
    if (config->size > 0)
        return check_size("size in serry_config", config->size, error);
    if (!serry_is_set("SERRY_SIZE"))
        return serry_fail(
            error, SERRY_ERR_INVALID,
            "a spare must be told the size of its job, in serry_config or SERRY_SIZE");
    return serry_read_variable("SERRY_SIZE", 1, (int)SERRY_MAX_RANKS, "", &job->size, error);
}

/* Sets *source to the launcher that was believed, if any. */
static int find_rank(const serry_config *config, const struct source **source, serry_job *job,
                     serry_error *error)
{
    *source = NULL;
    if (job->entry == SERRY_ENTRY_SPARE)
        return find_size_of_spare(config, job, error);
    int result = read_config(config, job, error);
    if (result != SERRY_OK || job->size > 0)
        return result;
    if (config->kind == SERRY_THREADS)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "thread ranks need rank and size in serry_config; a launcher's variables "
                          "number processes");
    *source = find_source();
    if (*source != NULL)
        return read_source(*source, job, error);
    job->rank = 0;
    job->size = 1;
    return SERRY_OK;
}

static int copy_name(const char *from, const char *what, serry_job *job, serry_error *error)
{
    size_t length = strlen(from);
    if (length == 0 || length >= sizeof(job->name))
        return serry_fail(error, SERRY_ERR_INVALID,
                          "the job name in %s has %zu bytes, but must have 1 to %zu", what, length,
                          sizeof(job->name) - 1);
    memcpy(job->name, from, length + 1);
    return SERRY_OK;
}

/* SERRY_JOB names a job of processes: thread ranks cannot join it, each process would bring its own
 * rank 0. */
static int find_job(const serry_config *config, const struct source *source, serry_job *job,
                    serry_error *error)
{
    if (config->job != NULL)
        return copy_name(config->job, "serry_config", job, error);
    if (job->kind == SERRY_PROCESSES && serry_is_set("SERRY_JOB"))
        return copy_name(getenv("SERRY_JOB"), "SERRY_JOB", job, error);

    int length = 0;
    if (job->kind == SERRY_THREADS)
        length = name_of_threads(job->name, sizeof(job->name));
    else if (source != NULL && source->name != NULL)
        length = source->name(job->name, sizeof(job->name));
    if (length == 0 && job->size == 1)
        length = name_alone(job->name, sizeof(job->name));

    if (length <= 0)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "rank %d of %d knows no job name; give all ranks of the job the same "
                          "name in SERRY_JOB or serry_config, another for every job",
                          job->rank, job->size);
    if ((size_t)length >= sizeof(job->name))
        return serry_fail(error, SERRY_ERR_INVALID,
                          "the job name from the launcher's variables, %.40s..., has %d bytes, but "
                          "may have %zu; give a shorter one in SERRY_JOB",
                          job->name, length, sizeof(job->name) - 1);
    return SERRY_OK;
}

/* ---- all of it ---------------------------------------------------------------------------- */

int serry_environment_job(const serry_config *config, serry_job *job, serry_error *error)
{
    static const serry_config k_empty = SERRY_CONFIG_INIT;
    if (config == NULL)
        config = &k_empty;
    if (config->bytes != sizeof(*config))
        return serry_fail(error, SERRY_ERR_INVALID,
                          "serry_config has %zu bytes in the program, but %zu in the library; "
                          "start from SERRY_CONFIG_INIT and build against this library's headers",
                          config->bytes, sizeof(*config));
    if (config->kind != SERRY_PROCESSES && config->kind != SERRY_THREADS)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "kind is %d in serry_config, but must be SERRY_PROCESSES or "
                          "SERRY_THREADS",
                          (int)config->kind);

    memset(job, 0, sizeof(*job));
    job->kind = config->kind;
    const struct source *source;
    int result = serry_settings_find_entry(config, job, error);
    if (result == SERRY_OK)
        result = find_rank(config, &source, job, error);
    if (result == SERRY_OK)
        result = find_job(config, source, job, error);
    return result == SERRY_OK ? serry_settings_find(config, job, error) : result;
}
