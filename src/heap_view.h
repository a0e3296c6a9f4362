/* heap_view.h - what libserry_heap.so tells libserry.so. They are loaded apart, and each must work
 * without the other: so this is one function, looked up as a weak symbol, and one value.
 *
 * The heap of a job is a memfd that `serry run --heap` makes before it starts the ranks, and that all
 * processes of the job inherit. It is sparse, and divided into slices of equal size, each for one
 * process; slice 0 holds the claims (heap/claim.h). A slice is never given to a second process: others
 * may still read what a dead one has left in it. */
#ifndef SRC_HEAP_VIEW_H
#define SRC_HEAP_VIEW_H

#include <stdatomic.h>
#include <stdint.h>

#define HEAP_VIEW_VERSION 1u
#define HEAP_SLICES 4096u /* most processes that may claim one; the memfd has one slice more */

typedef struct serry_heap_view {
    uint32_t version; /* HEAP_VIEW_VERSION */
    uint32_t tag;     /* random, the same in the whole job: tells its heap from any other */
    uint32_t number;  /* of this process's slice, from 1 */
    int fd;           /* the memfd; the program may have closed it */
    uint64_t inode;   /* by which to know it again */
    uint64_t slice_bytes;
    unsigned char *base; /* of the slice, in this process */
    _Atomic uint32_t
        *joined; /* set to 1 before the slice is told to others: from then on they see to
                                 it that its memory is given back */
} serry_heap_view;

/* This process's slice, claimed now if it was not yet. NULL: it has none, and its memory is private. */
const serry_heap_view *serry_heap_view_get(void) __attribute__((weak, visibility("default")));

#endif
