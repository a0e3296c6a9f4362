/* refused.c - see refused.h. */
#include "refused.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "environment.h"
#include "record.h"

void expect_invalid(const serry_config *config, const char *a, const char *b, const char *c)
{
    serry_job job;
    serry_error error;
    serry_error_begin(&error, "init", 0, -1);
    assert_int_equal(serry_environment_job(config, &job, &error), SERRY_ERR_INVALID);
    assert_int_equal(error.error, SERRY_ERR_INVALID);
    assert_string_equal(error.operation, "init");
    if (strstr(error.message, a) == NULL || strstr(error.message, b) == NULL ||
        strstr(error.message, c) == NULL)
        fail_msg("\"%s\" does not say \"%s\", \"%s\" and \"%s\"", error.message, a, b, c);
}

void expect_junk(const serry_config *config, const char *variable, const char *junk,
                 const char *expected)
{
    char quoted[64];
    snprintf(quoted, sizeof(quoted), "\"%s\"", junk);
    setenv(variable, junk, 1);
    expect_invalid(config, variable, quoted, expected);
}
