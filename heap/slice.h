/* slice.h - this process's slice of the job's heap, from which extents are cut.
 *
 * Cut from its beginning, and never joined to the rest again: jemalloc keeps extents that it does not
 * need and uses them again, and their memory is given back page by page. */
#ifndef HEAP_SLICE_H
#define HEAP_SLICE_H

#include <stdbool.h>
#include <stddef.h>

/* A piece of the slice that nobody has had: zero. NULL: there is none. Any thread. `at`: it must be
 * there; NULL: anywhere. */
void *slice_cut(void *at, size_t bytes, size_t alignment);

/* Does it lie in the slice? */
bool slice_has(const void *address);

/* Before fork, and after it in parent and child: the child gets a private copy. Registered once. */
bool slice_watch_forks(void);

#endif
