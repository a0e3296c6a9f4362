/* unit_settings.c - timeout, pool, policy, entry, backend and progress from the configuration and from the
 * variables. Every test starts with none of the variables set. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm.h"
#include "environment.h"
#include "record.h"
#include "refused.h"
#include "settings.h"

#define MIB ((size_t)1 << 20)

static int forget_variables(void **state)
{
    static const char *const variables[] = {
        "SERRY_RANK",    "SERRY_SIZE", "SERRY_JOB",        "SERRY_POLICY",   "SERRY_ENTRY",
        "SERRY_BACKEND", "SERRY_POOL", "SERRY_TIMEOUT_MS", "SERRY_PROGRESS", "SERRY_TEAM"};
    (void)state;
    for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
        unsetenv(variables[i]);
    return 0;
}

/* A program that was started alone, unless the variables say something else. */
static serry_job job_of(const serry_config *config)
{
    serry_job job;
    serry_error error;
    serry_error_begin(&error, "init", 0, -1);
    if (serry_environment_job(config, &job, &error) != SERRY_OK)
        fail_msg("%s", error.message);
    return job;
}

/* ---- timeout and pool --------------------------------------------------------------------- */

static void timeouts_come_from_configuration_variable_or_default(void **state)
{
    (void)state;
    serry_config config = SERRY_CONFIG_INIT;
    assert_int_equal(job_of(&config).timeout_ms, 300000);
    setenv("SERRY_TIMEOUT_MS", "250", 1);
    assert_int_equal(job_of(&config).timeout_ms, 250);
    setenv("SERRY_TIMEOUT_MS", "-1", 1);
    assert_true(job_of(&config).timeout_ms < 0);

    static const char *const junk[] = {"0", "", "1s", "-2", "2147483648"};
    for (size_t i = 0; i < sizeof(junk) / sizeof(junk[0]); i++)
        expect_junk(&config, "SERRY_TIMEOUT_MS", junk[i], "milliseconds");
    config.timeout_ms = 7;
    assert_int_equal(job_of(&config).timeout_ms, 7);
    config.timeout_ms = -5;
    assert_true(job_of(&config).timeout_ms < 0);
}

static void pools_come_from_configuration_variable_or_memory(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bytes;
    } cases[] = {
        {"1", 2 * MIB},     {"2097152", 2 * MIB}, {"2097153", 4 * MIB},
        {"1K", 2 * MIB},    {"3M", 4 * MIB},      {"512M", 512 * MIB},
        {"2G", 2048 * MIB}, {"1T", MIB * MIB},    {"2049K", 4 * MIB},
    };
    serry_config config = SERRY_CONFIG_INIT;
    size_t half = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE) / 2;
    size_t pool = job_of(&config).pool_bytes;
    assert_true(pool >= half && pool < half + 2 * MIB && pool % (2 * MIB) == 0);

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        setenv("SERRY_POOL", cases[i].text, 1);
        assert_int_equal(job_of(&config).pool_bytes, cases[i].bytes);
    }
    static const char *const junk[] = {
        "",         "0", "0G", "-1", "M", "1MB", "1 M", "1m", "1P", "1.5G", "9223372036854775807K",
        "99999999T"};
    for (size_t i = 0; i < sizeof(junk) / sizeof(junk[0]); i++)
        expect_junk(&config, "SERRY_POOL", junk[i], "512M");
    config.pool_bytes = 5 * MIB;
    assert_int_equal(job_of(&config).pool_bytes, 6 * MIB);
    config.pool_bytes = SIZE_MAX;
    expect_invalid(&config, "pool", "SERRY_POOL", "smaller");
}

/* ---- policy, entry, backend ----------------------------------------------------------------- */

static void policies_come_from_configuration_variable_or_default(void **state)
{
    (void)state;
    static const char *const names[SERRY_POLICIES] = {"report", "exclude", "revoke", "wait"};
    serry_config config = SERRY_CONFIG_INIT;

    assert_int_equal(job_of(&config).policy, SERRY_REPORT);
    for (int i = 0; i < SERRY_POLICIES; i++) {
        setenv("SERRY_POLICY", names[i], 1);
        assert_int_equal(job_of(&config).policy, i);
        assert_int_equal(job_of(NULL).policy, i);
    }
    config.policy = SERRY_EXCLUDE;
    assert_int_equal(job_of(&config).policy, SERRY_EXCLUDE);
    config.policy = SERRY_POLICIES;
    expect_invalid(&config, "policy", "4", "SERRY_WAIT");
    config.policy = -1;
    setenv("SERRY_POLICY", "Report", 1);
    expect_invalid(&config, "SERRY_POLICY", "\"Report\"", "report, exclude, revoke, wait");
    setenv("SERRY_POLICY", "", 1);
    expect_invalid(&config, "SERRY_POLICY", "\"\"", "report");
}

static void entries_come_from_configuration_variable_or_default(void **state)
{
    (void)state;
    static const char *const names[] = {"start", "replacement", "spare"};
    serry_config config = SERRY_CONFIG_INIT;

    assert_int_equal(job_of(&config).entry, SERRY_ENTRY_START);
    setenv("SERRY_JOB", "job", 1);
    setenv("SERRY_SIZE", "3", 1);
    setenv("SERRY_RANK", "1", 1);
    for (int i = 0; i < 3; i++) {
        setenv("SERRY_ENTRY", names[i], 1);
        assert_int_equal(job_of(&config).entry, SERRY_ENTRY_START + i);
    }
    config.entry = SERRY_ENTRY_START;
    assert_int_equal(job_of(&config).entry, SERRY_ENTRY_START);
    config.entry = (serry_entry)(SERRY_ENTRY_SPARE + 1);
    expect_invalid(&config, "entry", "4", "");
    config.entry = SERRY_ENTRY_ENVIRONMENT;
    setenv("SERRY_ENTRY", "late", 1);
    expect_invalid(&config, "SERRY_ENTRY", "\"late\"", "start, replacement, spare");
}

static void a_spare_has_a_size_and_no_number(void **state)
{
    (void)state;
    serry_config config = SERRY_CONFIG_INIT;
    serry_job job;

    config.entry = SERRY_ENTRY_SPARE;
    config.job = "job";
    expect_invalid(&config, "spare", "size", "SERRY_SIZE");
    setenv("SERRY_SIZE", "5", 1);
    job = job_of(&config);
    assert_int_equal(job.rank, -1);
    assert_int_equal(job.size, 5);
    config.size = 7;
    assert_int_equal(job_of(&config).size, 7);
    config.size = -1;
    setenv("SERRY_SIZE", "many", 1);
    expect_invalid(&config, "SERRY_SIZE", "many", "whole number");
}

static void backends_come_from_configuration_variable_or_default(void **state)
{
    (void)state;
    static const char *const names[] = {"shm", "socket", "self"};
    const serry_backend *const backends[] = {&serry_backend_shm, &serry_backend_socket,
                                             &serry_backend_self};
    serry_config config = SERRY_CONFIG_INIT;
    const serry_backend *backend;
    serry_error error;

    serry_error_begin(&error, "init", 0, -1);
    assert_int_equal(serry_settings_find_backend(NULL, &backend, &error), SERRY_OK);
    assert_ptr_equal(backend, &serry_backend_shm);
    for (int i = 0; i < 3; i++) {
        setenv("SERRY_BACKEND", names[i], 1);
        assert_int_equal(serry_settings_find_backend(&config, &backend, &error), SERRY_OK);
        assert_ptr_equal(backend, backends[i]);
    }
    config.backend = &serry_backend_shm;
    assert_int_equal(serry_settings_find_backend(&config, &backend, &error), SERRY_OK);
    assert_ptr_equal(backend, &serry_backend_shm);
    setenv("SERRY_BACKEND", "tcp", 1);
    assert_int_equal(serry_settings_find_backend(NULL, &backend, &error), SERRY_ERR_INVALID);
    assert_non_null(strstr(error.message, "shm, socket, self"));
}

static void progress_comes_from_configuration_variable_or_default(void **state)
{
    static const struct {
        const char *text; /* NULL: not set */
        serry_progress progress;
        int cpu;
    } right[] = {{NULL, SERRY_PROGRESS_THREAD, -1},
                 {"thread", SERRY_PROGRESS_THREAD, -1},
                 {"thread:3", SERRY_PROGRESS_THREAD, 3},
                 {"caller", SERRY_PROGRESS_CALLER, -1}};
    static const char *const wrong[] = {"Thread",       "thread:",  "thread:-1", "thread:1x",
                                        "thread:99999", "caller:1", "none"};
    serry_config config = SERRY_CONFIG_INIT;
    serry_error error;
    serry_comm comm;
    (void)state;

    for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
        if (right[i].text != NULL)
            setenv("SERRY_PROGRESS", right[i].text, 1);
        assert_int_equal(serry_settings_find_progress(NULL, &comm, &error), SERRY_OK);
        assert_int_equal(comm.progress, right[i].progress);
        assert_int_equal(comm.progress_cpu, right[i].cpu);
    }
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        setenv("SERRY_PROGRESS", wrong[i], 1);
        serry_error_begin(&error, "init", 0, -1);
        assert_int_equal(serry_settings_find_progress(NULL, &comm, &error), SERRY_ERR_INVALID);
        assert_non_null(strstr(error.message, wrong[i]));
        assert_non_null(strstr(error.message, "thread, thread:CPU"));
    }
    config.progress = SERRY_PROGRESS_CALLER; /* counts more than what the variable says */
    assert_int_equal(serry_settings_find_progress(&config, &comm, &error), SERRY_OK);
    assert_int_equal(comm.progress, SERRY_PROGRESS_CALLER);
    config.progress = (serry_progress)7;
    serry_error_begin(&error, "init", 0, -1);
    assert_int_equal(serry_settings_find_progress(&config, &comm, &error), SERRY_ERR_INVALID);
    assert_non_null(strstr(error.message, "7"));
}

static void the_team_comes_from_configuration_variable_or_default(void **state)
{
    static const char *const wrong[] = {"", "OpenMP", "4", "openmp "};
    serry_config config = SERRY_CONFIG_INIT;
    (void)state;

    assert_int_equal(job_of(&config).team, SERRY_TEAM_NONE);
    setenv("SERRY_TEAM", "openmp", 1);
    assert_int_equal(job_of(&config).team, SERRY_TEAM_OPENMP);
    setenv("SERRY_TEAM", "none", 1);
    assert_int_equal(job_of(&config).team, SERRY_TEAM_NONE);
    config.team = SERRY_TEAM_OPENMP; /* counts more than what the variable says */
    assert_int_equal(job_of(&config).team, SERRY_TEAM_OPENMP);
    config.team = (serry_team)3;
    expect_invalid(&config, "team", "3", "none");
    config.team = SERRY_TEAM_ENVIRONMENT;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        expect_junk(&config, "SERRY_TEAM", wrong[i], "none, openmp");
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, forget_variables, forget_variables)
    const struct CMUnitTest tests[] = {
        CASE(timeouts_come_from_configuration_variable_or_default),
        CASE(pools_come_from_configuration_variable_or_memory),
        CASE(policies_come_from_configuration_variable_or_default),
        CASE(entries_come_from_configuration_variable_or_default),
        CASE(a_spare_has_a_size_and_no_number),
        CASE(backends_come_from_configuration_variable_or_default),
        CASE(progress_comes_from_configuration_variable_or_default),
        CASE(the_team_comes_from_configuration_variable_or_default),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
