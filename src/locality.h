/* locality.h - which processors are near each other. */
#ifndef SERRY_LOCALITY_H
#define SERRY_LOCALITY_H

#include <sched.h>
#include <stdint.h>

/* The number of the domain that all CPUs of `mask` lie in: those that share a third-level cache and a
 * NUMA node, as the kernel tells in `system` ("/sys/devices/system" but in tests, which bring their
 * own). The same for whoever asks on this machine, and never 0. 0: they lie in several, or the kernel
 * tells nothing. */
uint32_t serry_locality(const cpu_set_t *mask, const char *system);

#endif
