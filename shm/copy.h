/* copy.h - copying what will not stay in the caches anyway. */
#ifndef SHM_COPY_H
#define SHM_COPY_H

#include <stddef.h>

/* From here on an operation's data are more than what the caches keep until somebody reads them: then it
 * costs less not to fetch the lines that are overwritten. Measured, with a reader behind: at 4 MiB that
 * takes 1.1 to 2 times as long as memcpy, at 16 MiB and 64 MiB 0.8 to 0.9. */
#define COPY_STREAM_BYTES ((size_t)8 << 20)

/* As memcpy, past the caches. What was written is there for whoever sees a later release. */
void copy_stream(void *dest, const void *source, size_t bytes);

#endif
