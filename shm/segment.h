/* segment.h - shared memory without a name: made, handed over as a descriptor, checked, mapped. */
#ifndef SHM_SEGMENT_H
#define SHM_SEGMENT_H

#include <stddef.h>
#include <stdint.h>

#include <serry/error.h>

/**
 * Make a segment of `bytes`, owned by this user, mode 0600, with no name in any file system: an
 * unnamed file of /dev/shm, or a memfd where /dev/shm has less than `wanted` bytes free, or as
 * SERRY_MEMORY=shm|memfd|auto says; shm needs `needed` bytes free at least. Nothing is reserved yet,
 * see segment_reserve.
 *
 * @param[out] fd  A close-on-exec descriptor, the caller's to close.
 * @retval SERRY_ERR_NO_SPACE  With the size needed, the size free and the option to give.
 * @retval SERRY_ERR_INVALID (SERRY_MEMORY), SERRY_ERR_SYSTEM
 */
int segment_create(uint64_t bytes, uint64_t needed, uint64_t wanted, int *fd, serry_error *error);

/* Does this descriptor bear a segment of ours: a regular file of this user, mode 0600, of exactly
 * `bytes`? SERRY_ERR_ARENA if not. */
int segment_check(int fd, uint64_t bytes, serry_error *error);

/* Give memory to [offset, offset + bytes), so that touching it can never be SIGBUS. `what` names it
 * in the message. SERRY_ERR_NO_SPACE. */
int segment_reserve(int fd, uint64_t offset, uint64_t bytes, const char *what, serry_error *error);

/* Take the memory back; the range reads as zero when it is reserved again. */
void segment_release(int fd, uint64_t offset, uint64_t bytes);

/* Map it, not to be inherited by fork. NULL on failure. */
unsigned char *segment_map(int fd, uint64_t bytes, serry_error *error);

#endif
