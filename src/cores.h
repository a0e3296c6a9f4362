/* cores.h - how many processors this program may really use. */
#ifndef SERRY_CORES_H
#define SERRY_CORES_H

#include <sched.h>

/* CPUs that the control groups of this process allow, rounded up: the smallest quota/period on the
 * way from its own group to the root, of cgroup v2 (cpu.max) and v1 (cpu.cfs_quota_us,
 * cpu.cfs_period_us). INT_MAX where there is no limit or none can be read. `proc_cgroup` is
 * "/proc/self/cgroup" and `mounts` "/proc/self/mountinfo" but in tests, which bring their own. */
int serry_cores_quota(const char *proc_cgroup, const char *mounts);

/* CPUs in a mask, bounded by the quota of this process; at least 1. */
int serry_cores(const cpu_set_t *mask);

#endif
