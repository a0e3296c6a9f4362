/* unit_environment.c - rank, size and job from the configuration and from the
 * variables of each launcher. Every test starts with none of the variables set. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "environment.h"
#include "record.h"
#include "refused.h"

static int forget_variables(void **state)
{
    (void)state;
    char variables[] =
        "SERRY_RANK SERRY_SIZE SERRY_JOB SERRY_TIMEOUT_MS SERRY_POOL RANK WORLD_SIZE "
        "LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT TORCHELASTIC_RUN_ID "
        "TORCHELASTIC_RESTART_COUNT OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE "
        "OMPI_COMM_WORLD_LOCAL_SIZE PMIX_NAMESPACE OMPI_MCA_ess_base_jobid "
        "OMPI_MCA_orte_precondition_transports PMI_RANK PMI_SIZE MPI_LOCALRANKID "
        "MPI_LOCALNRANKS SLURM_PROCID SLURM_NTASKS SLURM_NNODES SLURM_JOB_ID SLURM_STEP_ID";
    char *save;
    for (char *name = strtok_r(variables, " ", &save); name != NULL;
         name = strtok_r(NULL, " ", &save))
        unsetenv(name);
    return 0;
}

/* Sets variables from "NAME=value NAME=value". */
static void set(const char *text)
{
    char copy[512], *save;
    snprintf(copy, sizeof(copy), "%s", text);
    for (char *word = strtok_r(copy, " ", &save); word != NULL; word = strtok_r(NULL, " ", &save)) {
        char *value = strchr(word, '=');
        *value++ = '\0';
        setenv(word, value, 1);
    }
}

static serry_job expect_job(const serry_config *config, int rank, int size)
{
    serry_job job;
    serry_error error;
    serry_error_begin(&error, "init", 0, -1);
    if (serry_environment_job(config, &job, &error) != SERRY_OK)
        fail_msg("%s", error.message);
    assert_int_equal(job.rank, rank);
    assert_int_equal(job.size, size);
    assert_int_equal(job.kind, config != NULL ? config->kind : SERRY_PROCESSES);
    assert_true(strlen(job.name) > 0);
    return job;
}

static serry_config config_of(int rank, int size)
{
    serry_config config = SERRY_CONFIG_INIT;
    config.rank = rank;
    config.size = size;
    return config;
}

/* ---- alone -------------------------------------------------------------------------------- */

static void a_program_started_alone_is_a_job_of_its_own(void **state)
{
    (void)state;
    serry_job one = expect_job(NULL, 0, 1), two = expect_job(NULL, 0, 1);
    assert_string_not_equal(one.name, two.name);
    set("SERRY_JOB=mine");
    assert_string_equal(expect_job(NULL, 0, 1).name, "mine");
}

/* ---- variables of serry ------------------------------------------------------------------- */

static void plain_variables_are_enough(void **state)
{
    (void)state;
    set("SERRY_RANK=3 SERRY_SIZE=4 SERRY_JOB=mine");
    assert_string_equal(expect_job(NULL, 3, 4).name, "mine");
    set("SERRY_RANK=255 SERRY_SIZE=256");
    expect_job(NULL, 255, 256);

    unsetenv("SERRY_JOB"); /* several ranks need a name to meet by */
    set("SERRY_RANK=0 SERRY_SIZE=2");
    expect_invalid(NULL, "rank 0 of 2", "job name", "SERRY_JOB");
    set("SERRY_RANK=0 SERRY_SIZE=1");
    expect_job(NULL, 0, 1);
}

static void half_a_pair_is_an_error(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"SERRY_RANK", "SERRY_SIZE"},
        {"RANK", "WORLD_SIZE"},
        {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
        {"PMI_RANK", "PMI_SIZE"},
        {"SLURM_PROCID", "SLURM_NTASKS"},
    };
    set("SLURM_STEP_ID=0");
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        for (int j = 0; j < 2; j++) {
            setenv(pairs[i][j], "1", 1);
            expect_invalid(NULL, pairs[i][j], pairs[i][1 - j], "not set");
            unsetenv(pairs[i][j]);
        }
    }
}

static void numbers_must_be_numbers(void **state)
{
    (void)state;
    static const char *const junk[] = {"",
                                       " ",
                                       "3x",
                                       "x",
                                       "1 ",
                                       " 1",
                                       "+1",
                                       "-1",
                                       "-",
                                       "0x1",
                                       "1.0",
                                       "2147483648",
                                       "99999999999999999999"};
    for (size_t i = 0; i < sizeof(junk) / sizeof(junk[0]); i++) {
        set("SERRY_RANK=0 SERRY_JOB=mine");
        expect_junk(NULL, "SERRY_SIZE", junk[i], "from 1 to");
        set("SERRY_SIZE=4");
        expect_junk(NULL, "SERRY_RANK", junk[i], "from 0 to 3, as SERRY_SIZE is 4");
    }
}

static void ranks_and_sizes_have_bounds(void **state)
{
    (void)state;
    set("SERRY_SIZE=4 SERRY_JOB=mine");
    expect_junk(NULL, "SERRY_RANK", "4", "0 to 3");
    expect_junk(NULL, "SERRY_SIZE", "0", "from 1");
    set("SERRY_SIZE=257");
    expect_invalid(NULL, "SERRY_SIZE", "257", "at most 256");
}

/* ---- launchers ---------------------------------------------------------------------------- */

static void torchrun_is_understood(void **state)
{
    (void)state;
    set("RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=localhost "
        "MASTER_PORT=29500 TORCHELASTIC_RUN_ID=none TORCHELASTIC_RESTART_COUNT=0");
    serry_job job = expect_job(NULL, 1, 2);
    set("RANK=0 LOCAL_RANK=0");
    assert_string_equal(expect_job(NULL, 0, 2).name, job.name);

    static const char *const others[] = {"MASTER_PORT=29501", "TORCHELASTIC_RUN_ID=x",
                                         "TORCHELASTIC_RESTART_COUNT=1"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        set(others[i]);
        serry_job other = expect_job(NULL, 0, 2);
        assert_string_not_equal(other.name, job.name);
        job = other;
    }

    unsetenv("MASTER_PORT");
    unsetenv("TORCHELASTIC_RUN_ID");
    set("RANK=1");
    expect_invalid(NULL, "rank 1 of 2", "job name", "SERRY_JOB");
    set("SERRY_JOB=mine");
    assert_string_equal(expect_job(NULL, 1, 2).name, "mine");
}

static void open_mpi_is_understood(void **state)
{
    (void)state;
    set("OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=3 OMPI_COMM_WORLD_LOCAL_SIZE=3");
    expect_invalid(NULL, "rank 2 of 3", "job name", "SERRY_JOB");
    set("OMPI_MCA_ess_base_jobid=77");
    serry_job one = expect_job(NULL, 2, 3);
    set("PMIX_NAMESPACE=78");
    serry_job two = expect_job(NULL, 2, 3);
    set("OMPI_MCA_orte_precondition_transports=12-34");
    serry_job three = expect_job(NULL, 2, 3);
    assert_string_not_equal(one.name, two.name);
    assert_string_not_equal(two.name, three.name);
}

static void slurm_is_understood(void **state)
{
    (void)state;
    set("SLURM_PROCID=1 SLURM_NTASKS=4 SLURM_NNODES=1 SLURM_JOB_ID=100 SLURM_STEP_ID=0");
    serry_job one = expect_job(NULL, 1, 4);
    set("SLURM_STEP_ID=1");
    assert_string_not_equal(expect_job(NULL, 1, 4).name, one.name);

    unsetenv("SLURM_STEP_ID"); /* a program of the batch script, not of a step, is alone */
    set("SLURM_PROCID=0 SLURM_NNODES=2");
    expect_job(NULL, 0, 1);
}

static void ranks_on_several_hosts_are_an_error(void **state)
{
    (void)state;
    set("RANK=1 WORLD_SIZE=4 LOCAL_WORLD_SIZE=2 MASTER_PORT=1");
    expect_invalid(NULL, "WORLD_SIZE is 4", "LOCAL_WORLD_SIZE is 2", "several hosts");
    set("WORLD_SIZE=1024 LOCAL_WORLD_SIZE=8"); /* the cause, rather than the size */
    expect_invalid(NULL, "WORLD_SIZE is 1024", "LOCAL_WORLD_SIZE is 8", "several hosts");
    set("WORLD_SIZE=4 LOCAL_WORLD_SIZE=many");
    expect_invalid(NULL, "LOCAL_WORLD_SIZE", "\"many\"", "whole number");
    forget_variables(NULL);

    set("OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=3 OMPI_COMM_WORLD_LOCAL_SIZE=1");
    expect_invalid(NULL, "OMPI_COMM_WORLD_SIZE is 3", "OMPI_COMM_WORLD_LOCAL_SIZE is 1", "hosts");
    forget_variables(NULL);

    set("PMI_RANK=2 PMI_SIZE=3 MPI_LOCALNRANKS=2");
    expect_invalid(NULL, "PMI_SIZE is 3", "MPI_LOCALNRANKS is 2", "several hosts");
    set("MPI_LOCALNRANKS=3 SLURM_NNODES=2"); /* an allocation of two, all ranks on one */
    expect_job(NULL, 2, 3);
    unsetenv("MPI_LOCALNRANKS");
    expect_invalid(NULL, "PMI_SIZE is 3", "SLURM_NNODES is 2", "several hosts");
    forget_variables(NULL);

    set("SLURM_PROCID=1 SLURM_NTASKS=4 SLURM_NNODES=2 SLURM_JOB_ID=100 SLURM_STEP_ID=0");
    expect_invalid(NULL, "SLURM_NTASKS is 4", "SLURM_NNODES is 2", "several hosts");
}

/* Each source in turn covers all that come after it. */
static void sources_have_an_order(void **state)
{
    (void)state;
    set("SLURM_PROCID=5 SLURM_NTASKS=6 SLURM_JOB_ID=1 SLURM_STEP_ID=1");
    expect_job(NULL, 5, 6);
    set("PMI_RANK=4 PMI_SIZE=5");
    expect_job(NULL, 4, 5);
    set("OMPI_COMM_WORLD_RANK=3 OMPI_COMM_WORLD_SIZE=4 PMIX_NAMESPACE=1");
    expect_job(NULL, 3, 4);
    set("RANK=2 WORLD_SIZE=3 MASTER_PORT=1");
    expect_job(NULL, 2, 3);
    set("SERRY_RANK=1 SERRY_SIZE=2 SERRY_JOB=mine");
    assert_string_equal(expect_job(NULL, 1, 2).name, "mine");
    serry_config config = config_of(0, 1);
    config.job = "other";
    assert_string_equal(expect_job(&config, 0, 1).name, "other");
}

/* ---- launchers that give no name: the processes tell -------------------------------------- */

/* A child that calls itself `comm` (NULL: keeps its name) and starts `depth` more below it; the
 * last of them sends the name of its job. */
static void start_descendant(const char *comm, int depth, int to)
{
    if (fork() != 0)
        return;
    if (comm != NULL)
        prctl(PR_SET_NAME, comm);
    if (depth > 0) {
        start_descendant(NULL, depth - 1, to);
        wait(NULL);
        _exit(0);
    }
    serry_job job;
    memset(&job, 0, sizeof(job));
    serry_environment_job(NULL, &job, NULL);
    _exit(write(to, job.name, sizeof(job.name)) == sizeof(job.name) ? 0 : 1);
}

static void job_name_of_descendant(const char *comm, int depth, char *name)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    start_descendant(comm, depth, ends[1]);
    assert_int_equal(read(ends[0], name, SERRY_JOB_NAME_MAX), SERRY_JOB_NAME_MAX);
    close(ends[0]);
    close(ends[1]);
    wait(NULL);
    assert_true(strlen(name) > 0);
}

static void ranks_of_hydra_find_their_proxy(void **state)
{
    (void)state;
    char one[SERRY_JOB_NAME_MAX], two[SERRY_JOB_NAME_MAX], me[32], before[32];
    set("PMI_RANK=0 PMI_SIZE=2 MPI_LOCALNRANKS=2");

    /* Two proxies are two jobs, whatever stands between a proxy and its rank. */
    job_name_of_descendant("hydra_pmi_proxy", 1, one);
    job_name_of_descendant("hydra_pmi_proxy", 3, two);
    assert_string_not_equal(one, two);

    /* This process as the proxy, of ranks that it starts in different ways. A name with blanks and
     * parentheses does not mislead. */
    prctl(PR_GET_NAME, before);
    prctl(PR_SET_NAME, "hydra_pmi_proxy");
    job_name_of_descendant("a) R 1 (b", 0, one);
    job_name_of_descendant(") ) )", 2, two);
    prctl(PR_SET_NAME, before);
    assert_string_equal(one, two);
    snprintf(me, sizeof(me), "-%d-", getpid());
    assert_non_null(strstr(one, me));
}

static void ranks_of_other_pmi_launchers_share_a_parent(void **state)
{
    (void)state;
    char one[SERRY_JOB_NAME_MAX], two[SERRY_JOB_NAME_MAX];
    set("PMI_RANK=0 PMI_SIZE=2");
    job_name_of_descendant(NULL, 0, one);
    job_name_of_descendant(NULL, 0, two);
    assert_string_equal(one, two);
    job_name_of_descendant(NULL, 1, two);
    assert_string_not_equal(one, two);
}

/* ---- configuration ------------------------------------------------------------------------ */

static void a_configuration_of_another_version_is_refused(void **state)
{
    (void)state;
    serry_config config = SERRY_CONFIG_INIT;
    config.bytes = sizeof(config) + 8;
    expect_invalid(&config, "serry_config has", "SERRY_CONFIG_INIT", "headers");
    memset(&config, 0, sizeof(config));
    expect_invalid(&config, "serry_config has 0 bytes", "SERRY_CONFIG_INIT", "headers");
}

static void the_configuration_gives_rank_and_size_or_neither(void **state)
{
    (void)state;
    set("SERRY_RANK=1 SERRY_SIZE=2 SERRY_JOB=mine");
    static const struct {
        int rank, size;
        const char *says;
    } cases[] = {
        {0, -1, "both or neither"}, {-1, 4, "both or neither"},  {-2, 4, "a rank is 0 or more"},
        {0, 0, "a size 1 or more"}, {0, -2, "a size 1 or more"}, {4, 4, "ranks go from 0 to 3"},
        {0, 257, "at most 256"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        serry_config config = config_of(cases[i].rank, cases[i].size);
        expect_invalid(&config, "serry_config", cases[i].says, "");
    }
    serry_config config = config_of(2, 3);
    assert_string_equal(expect_job(&config, 2, 3).name, "mine");
    config = config_of(-1, -1);
    config.job = "other";
    assert_string_equal(expect_job(&config, 1, 2).name, "other");

    unsetenv("SERRY_JOB");
    config = config_of(2, 3);
    expect_invalid(&config, "rank 2 of 3", "job name", "SERRY_JOB");
    config = config_of(0, 1);
    expect_job(&config, 0, 1);
}

static void job_names_have_a_length(void **state)
{
    (void)state;
    char name[SERRY_JOB_NAME_MAX + 1];
    memset(name, 'n', sizeof(name));
    serry_config config = config_of(0, 2);
    config.job = name;
    name[SERRY_JOB_NAME_MAX] = '\0';
    expect_invalid(&config, "job name in serry_config", "256 bytes", "1 to 255");
    name[SERRY_JOB_NAME_MAX - 1] = '\0';
    assert_string_equal(expect_job(&config, 0, 2).name, name);
    config.job = "";
    expect_invalid(&config, "job name in serry_config", "0 bytes", "1 to 255");

    set("SERRY_RANK=0 SERRY_SIZE=2 SERRY_JOB=");
    expect_invalid(NULL, "job name in SERRY_JOB", "0 bytes", "1 to 255");
    forget_variables(NULL);

    set("RANK=0 WORLD_SIZE=2 MASTER_PORT=1");
    setenv("MASTER_ADDR", name, 1);
    expect_invalid(NULL, "launcher's variables", "torchrun-nnn", "SERRY_JOB");
}

static void thread_ranks_are_numbered_by_the_program(void **state)
{
    (void)state;
    set("SERRY_RANK=1 SERRY_SIZE=2 SERRY_JOB=mine RANK=1 WORLD_SIZE=2");
    serry_config config = config_of(-1, -1);
    config.kind = SERRY_THREADS;
    expect_invalid(&config, "thread ranks", "rank and size", "serry_config");

    /* Ranks of one process meet, under a name that is not the processes'. */
    config = config_of(0, 3);
    config.kind = SERRY_THREADS;
    serry_job one = expect_job(&config, 0, 3);
    config.rank = 2;
    assert_string_equal(expect_job(&config, 2, 3).name, one.name);
    assert_string_not_equal(one.name, "mine");
    config.job = "named";
    assert_string_equal(expect_job(&config, 2, 3).name, "named");

    config.kind = (serry_kind_of_rank)2;
    expect_invalid(&config, "kind is 2", "SERRY_PROCESSES", "SERRY_THREADS");
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, forget_variables, forget_variables)
    const struct CMUnitTest tests[] = {
        CASE(a_program_started_alone_is_a_job_of_its_own),
        CASE(plain_variables_are_enough),
        CASE(half_a_pair_is_an_error),
        CASE(numbers_must_be_numbers),
        CASE(ranks_and_sizes_have_bounds),
        CASE(torchrun_is_understood),
        CASE(open_mpi_is_understood),
        CASE(slurm_is_understood),
        CASE(ranks_on_several_hosts_are_an_error),
        CASE(sources_have_an_order),
        CASE(ranks_of_hydra_find_their_proxy),
        CASE(ranks_of_other_pmi_launchers_share_a_parent),
        CASE(a_configuration_of_another_version_is_refused),
        CASE(the_configuration_gives_rank_and_size_or_neither),
        CASE(job_names_have_a_length),
        CASE(thread_ranks_are_numbered_by_the_program),
    };
    return cmocka_run_group_tests_name("environment", tests, NULL, NULL);
}
