/* health_fake.h - a backend that says of its ranks what a test wants, and what a monitor of their
 * health makes of it. */
#ifndef TEST_HEALTH_FAKE_H
#define TEST_HEALTH_FAKE_H

#include "harness.h"

#include <serry/health.h>

enum { FAKE_SIZE = 4, FAKE_OWN = 0, FAKE_CHANGES = 32 };

/* At most half a timeout, so that no status can be left out however late a look is. */
enum { PERIOD_MS = 10, TIMEOUT_MS = 60 };

/* What the backend shall say, and what it was asked. Set while no monitor runs, or by functions. */
typedef struct fake_backend {
    int rc;                         /* of vitals */
    bool well[FAKE_SIZE];           /* shows at each look that it lives */
    serry_vitals vitals[FAKE_SIZE]; /* else */
    int exclude_rc, excluded[FAKE_SIZE];
    serry_exclusion how;
} fake_backend;

extern fake_backend fake;
extern serry_comm fake_comm;

void fake_well(int rank, bool well);
void fake_says(int rank, serry_vitals vitals);

/* cmocka's setup: all is as at first, and all ranks are well, or nothing is said about anybody. */
int fake_all_well(void **state);
int fake_says_nothing(void **state);

/* What was told since. */
typedef struct fake_change {
    int rank;
    serry_rank_status before, after;
    serry_health_report report;
} fake_change;

extern fake_change fake_changes[FAKE_CHANGES];
extern _Atomic int fake_change_count;

/* An expected row of changes, ended by rank -1. */
void assert_changes(const fake_change *wanted);

/* A monitor that notes all changes. */
serry_health_config fake_config(void);
serry_health *fake_watch(const serry_health_config *config);

/* Look by hand until a rank is so; the watchdog ends what never happens. */
void look_until(serry_health *health, int rank, serry_rank_status wanted);

/* Look by hand, again and again. */
void look_for(serry_health *health, unsigned ms);

#endif
