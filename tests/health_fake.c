/* health_fake.c - see health_fake.h. */
#include "health_fake.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "comm.h"

/* ---- the backend -------------------------------------------------------------------------------- */

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER; /* of fake, while a monitor runs */
fake_backend fake;

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static int fake_vitals(serry_member *member, int rank, serry_vitals *vitals, serry_error *error)
{
    (void)member, (void)error;
    pthread_mutex_lock(&g_lock);
    *vitals = fake.vitals[rank];
    if (fake.well[rank])
        vitals->alive_ns = now_ns();
    int rc = fake.rc;
    pthread_mutex_unlock(&g_lock);
    return rc;
}

static int fake_exclude(serry_member *member, int rank, serry_exclusion how, serry_error *error)
{
    (void)member, (void)error;
    pthread_mutex_lock(&g_lock);
    fake.excluded[rank]++;
    fake.how = how;
    int rc = fake.exclude_rc;
    pthread_mutex_unlock(&g_lock);
    return rc;
}

static const serry_backend table = {.name = "fake", .vitals = fake_vitals, .exclude = fake_exclude};
serry_comm fake_comm = {.backend = &table, .rank = FAKE_OWN, .size = FAKE_SIZE};

void fake_well(int rank, bool well)
{
    pthread_mutex_lock(&g_lock);
    fake.well[rank] = well;
    pthread_mutex_unlock(&g_lock);
}

void fake_says(int rank, serry_vitals vitals)
{
    pthread_mutex_lock(&g_lock);
    fake.vitals[rank] = vitals;
    pthread_mutex_unlock(&g_lock);
}

/* ---- what was told ------------------------------------------------------------------------------ */

fake_change fake_changes[FAKE_CHANGES];
_Atomic int fake_change_count;

static void note(int rank, serry_rank_status before, serry_rank_status after,
                 const serry_health_report *report, void *argument)
{
    int count = atomic_load(&fake_change_count);

    if (argument != &fake_changes || count >= FAKE_CHANGES)
        abort();
    fake_changes[count] = (fake_change){rank, before, after, *report};
    atomic_store(&fake_change_count, count + 1);
}

void assert_changes(const fake_change *wanted)
{
    int count = 0;

    for (; wanted[count].rank >= 0; count++) {
        assert_true(count < atomic_load(&fake_change_count));
        assert_int_equal(fake_changes[count].rank, wanted[count].rank);
        assert_int_equal(fake_changes[count].before, wanted[count].before);
        assert_int_equal(fake_changes[count].after, wanted[count].after);
        assert_int_equal(fake_changes[count].report.status, wanted[count].after);
    }
    assert_int_equal(atomic_load(&fake_change_count), count);
}

serry_health_config fake_config(void)
{
    serry_health_config c = SERRY_HEALTH_CONFIG_INIT;

    c.period_ms = PERIOD_MS;
    c.heartbeat_timeout_ms = TIMEOUT_MS;
    c.on_change = note;
    c.argument = &fake_changes;
    return c;
}

serry_health *fake_watch(const serry_health_config *c)
{
    serry_health *health;

    assert_int_equal(serry_health_create(&fake_comm, c, &health), SERRY_OK);
    return health;
}

int fake_all_well(void **state)
{
    (void)state;
    memset(&fake, 0, sizeof(fake));
    for (int r = 0; r < FAKE_SIZE; r++)
        fake.well[r] = true;
    atomic_store(&fake_change_count, 0);
    return 0;
}

int fake_says_nothing(void **state)
{
    fake_all_well(state);
    fake.rc = SERRY_ERR_UNSUPPORTED;
    return 0;
}

void look_until(serry_health *health, int rank, serry_rank_status wanted)
{
    do {
        test_sleep_ms(PERIOD_MS);
        assert_int_equal(serry_health_check(health), SERRY_OK);
    } while (serry_health_status(health, rank, NULL) != wanted);
}

void look_for(serry_health *health, unsigned ms)
{
    for (double end = test_now() + ms / 1000.0; test_now() < end;) {
        test_sleep_ms(PERIOD_MS);
        assert_int_equal(serry_health_check(health), SERRY_OK);
    }
}
