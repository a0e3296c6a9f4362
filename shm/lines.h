/* lines.h - counts the cache lines of others that a rank reads, in the tests' own build: see
 * tests/levels.c. Elsewhere there is nothing of it. */
#ifndef SHM_LINES_H
#define SHM_LINES_H

#include "operation.h"

#ifdef SERRY_COUNT_LINES
/* This rank needs so many lines that rank `owner` has written in this step. Looking at one again while it
 * waits is not told. */
void lines_read(const shm_member *m, int owner, size_t lines);
#else
static inline void lines_read(const shm_member *m, int owner, size_t lines)
{
    (void)m, (void)owner, (void)lines;
}
#endif

/* Lines of `bytes` of data, if they are not beside a word. */
static inline size_t lines_of(size_t bytes, size_t beside)
{
    return bytes <= beside ? 0 : (bytes + SHM_LINE - 1) / SHM_LINE;
}

#endif
