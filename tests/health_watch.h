/* health_watch.h - one real rank watches another. */
#ifndef TEST_HEALTH_WATCH_H
#define TEST_HEALTH_WATCH_H

#include "harness.h"

#include <serry/health.h>

enum { RANKS = 3, WATCHER = 0, VICTIM = 1 };
enum { PERIOD_MS = 20, TIMEOUT_MS = 300 };

/* The changes of the victim's status. */
typedef struct story {
    test_rank *self;
    _Atomic int count;
    serry_rank_status after[8];
} story;

/* A monitor that runs. It is a fault if another rank than the victim fails. */
serry_health *watch(test_rank *self, serry_exclusion exclusion, story *s);

/* Wait until the victim is so, or does that. */
serry_health_report await_status(test_rank *self, serry_health *health, serry_rank_status wanted);
void await_activity(test_rank *self, serry_health *health, serry_activity wanted);

pid_t victim_pid(test_rank *self);

/* Exclude a rank of the world directly. */
int exclude(test_rank *self, int rank, serry_exclusion how);

#endif
