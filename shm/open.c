/* open.c - from a job to a member of its world, see joining.c and newcomer.c. */
#include <stdlib.h>

#include "arena.h"
#include "group.h"
#include "operation.h"
#include "record.h"

/* Begin, or go on. SERRY_ERR_AGAIN: *member goes on. */
static int join(const serry_job *job, shm_arena **arena, wait_plan *plan, serry_member **member,
                serry_error *error)
{
    shm_member *half =
        job->joining != NULL ? (shm_member *)(void *)job->joining : calloc(1, sizeof(*half));

    if (half == NULL)
        return serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory for a communicator");
    if (half->joining == NULL)
        half->joining = arena_begin_to_join(job, error);
    int rc = half->joining == NULL ? error->error
                                   : arena_join(half->joining, job->poll, arena, plan, error);
    if (rc == SERRY_ERR_AGAIN)
        *member = (serry_member *)(void *)half;
    else
        free(half);
    return rc;
}

int member_open(const serry_backend *backend, const serry_job *job, serry_member **member,
                serry_error *error)
{
    bool late = job->entry == SERRY_ENTRY_REPLACEMENT || job->entry == SERRY_ENTRY_SPARE;
    arena_entry entry = {job->rank, job->rank, 0};
    wait_plan plan;
    shm_arena *arena = NULL;
    int rc = SERRY_OK;

    (void)backend;
    *member = NULL;
    if (!late)
        rc = join(job, &arena, &plan, member, error);
    else if ((arena = arena_join_late(job, &plan, &entry, error)) == NULL)
        rc = error->error;
    if (rc != SERRY_OK)
        return rc;
    if (!late)
        entry.world = arena->header->world_offset;
    shm_member *m = member_new(arena, entry.world, job->size, entry.rank, plan, error);
    if (m != NULL) {
        m->whole = true;
        group_seal_dead(&m->group); /* who died while this rank entered */
    }
    arena_drop(arena, entry.slot); /* the member holds it now */
    *member = (serry_member *)(void *)m;
    return m == NULL ? error->error : SERRY_OK;
}
