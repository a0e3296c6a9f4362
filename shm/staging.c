/* staging.c - the room where a large result waits until it may be handed out: private memory of the
 * communicator, mapped before the operation contributes anything, touched only if it is needed. */
#include <sys/mman.h>

#include "operation.h"
#include "record.h"

#define KEPT_BYTES ((size_t)64 << 20) /* a larger room is given back when a smaller one will do */

void staging_trim(shm_member *m)
{
    if (m->staging != NULL)
        munmap(m->staging, m->staging_bytes);
    m->staging = NULL;
    m->staging_bytes = 0;
}

int staging_reserve(shm_member *m, size_t bytes)
{
    if (bytes <= m->staging_bytes && (m->staging_bytes <= KEPT_BYTES || bytes > KEPT_BYTES))
        return SERRY_OK;
    staging_trim(m);
    if (bytes == 0)
        return SERRY_OK;
    void *room = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) {
        operation_error(m);
        return serry_fail(m->error, SERRY_ERR_NO_SPACE,
                          "no address space for the %zu bytes in which the result of a large "
                          "operation waits until it is sure; make it in smaller pieces",
                          bytes);
    }
    madvise(room, bytes, MADV_HUGEPAGE);
    m->staging = room;
    m->staging_bytes = bytes;
    return SERRY_OK;
}
