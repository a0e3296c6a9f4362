/* unit_recovery.h - what the tests of the recovery manager share. */
#ifndef TEST_UNIT_RECOVERY_H
#define TEST_UNIT_RECOVERY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <serry/recovery.h>

#define WATCHDOG_S 120 /* a test that hangs ends by SIGALRM */

/* All error codes. */
static const int k_codes[] = {
#define SERRY_X(name, value, scope, severity, group, text) value,
    SERRY_ERROR_MAP(SERRY_X)
#undef SERRY_X
};

static inline serry_recovery *create(const serry_recovery_config *config)
{
    serry_recovery *recovery = NULL;
    assert_int_equal(serry_recovery_create(config, &recovery), SERRY_OK);
    assert_non_null(recovery);
    return recovery;
}

static inline serry_error record(int code, const char *operation, uint64_t id)
{
    serry_error error;
    serry_error_make(&error, code, operation, id, 1, "number %llu", (unsigned long long)id);
    return error;
}

static inline serry_decision handle(serry_recovery *recovery, int code, const char *operation,
                                    uint64_t id)
{
    serry_error error = record(code, operation, id);
    serry_decision decision;
    assert_int_equal(serry_recovery_handle(recovery, &error, &decision), SERRY_OK);
    return decision;
}

#endif
