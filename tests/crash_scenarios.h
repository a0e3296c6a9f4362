/* crash_scenarios.h - the faults that crash.c tries. */
#ifndef TEST_CRASH_SCENARIOS_H
#define TEST_CRASH_SCENARIOS_H

#include "crash_ranks.h"

extern const crash_scenario crash_collectives[];
extern const size_t crash_collectives_count;

extern const crash_scenario crash_recoveries[];
extern const size_t crash_recoveries_count;

extern const crash_scenario crash_memberships[];
extern const size_t crash_memberships_count;

extern const crash_scenario crash_replacements[];
extern const size_t crash_replacements_count;

extern const crash_scenario crash_parts[];
extern const size_t crash_parts_count;

extern const crash_scenario crash_held_parts[];
extern const size_t crash_held_parts_count;

extern const crash_scenario crash_messages[];
extern const size_t crash_messages_count;

extern const crash_scenario crash_requests[];
extern const size_t crash_requests_count;

extern const crash_scenario crash_progress[];
extern const size_t crash_progress_count;

#endif
