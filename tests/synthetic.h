/* synthetic.h - machines that are not there: topologies of hwloc, from a description or this machine's
 * own, and what the kernel of such a machine would show. */
#ifndef TEST_SYNTHETIC_H
#define TEST_SYNTHETIC_H

#include <hwloc.h>
#include <stdint.h>

/* As in lstopo --input; NULL: this machine. Fails the test where hwloc cannot make it. */
hwloc_topology_t synthetic_load(const char *description);

/* As serry_locality: of one processor, by hwloc's account. */
uint32_t synthetic_domain(hwloc_topology_t topology, unsigned cpu);

/* The same of processors 0..cpus-1 of a description that has so many. */
void synthetic_domains(const char *description, uint32_t *domain, int cpus);

/* Lay the files of /sys/devices/system out below `folder` that tell of caches and NUMA nodes. */
void synthetic_write(hwloc_topology_t topology, const char *folder);

#endif
