/* fill.h - copies into memory that other cores have read, and will read again: through the caches, or past
 * them where that costs less.
 *
 * A line that another core has must be taken from it before it is written. Within one cache that all cores
 * share, that is cheap, and the next reader finds the line there. Between two such caches it takes so long that
 * writing to memory, for others to read it there, is faster. Measured with two ranks on a virtual machine, whose
 * host moves its cores about: a copy of 1 MiB, and another core's copy of that, through the caches 80 us or 310
 * us, past them 120 us both times. Whoever copies cannot know where it is, but it feels it: so some copies are
 * timed, in operations that have waited for somebody: of two ranks one does in each. */
#ifndef SHM_FILL_H
#define SHM_FILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What one member knows of its copies. Private memory; zero to begin with. */
typedef struct fill_way {
    uint32_t untimed; /* copies through the caches before one is timed */
    bool slow;        /* the last that was timed took long */
    uint32_t past; /* how many more go past the caches, before some are tried through them again */
    uint32_t row;  /* how many did last time */
} fill_way;

/* Smaller ones go through the caches, and tell nothing. */
#define FILL_BYTES ((size_t)16 << 10)

/* Does the next copy go past the caches? */
bool fill_goes_past(fill_way *way);

/* Is it to be timed, if it does not? */
bool fill_is_timed(fill_way *way);

/* It has been. */
void fill_judge(fill_way *way, size_t bytes, uint64_t ns);

/* As memcpy, by the calling thread. `may_time`: the operation has waited before, so that it may read the clock. */
void fill_copy(fill_way *way, void *dest, const void *source, size_t bytes, bool may_time);

#endif
