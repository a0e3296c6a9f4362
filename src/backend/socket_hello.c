/* socket_hello.c - what ranks tell each other first, and why a start fails; see socket_join.c. */
#include "socket_joining.h"

#include <unistd.h>

#include "record.h"

#define VERSION 2 /* of the frames; grows with every change of them */

/* ---- failures ---------------------------------------------------------------------------------- */

static void blame(joining *j, int rank)
{
    if (j->error.peer < 0)
        j->error.peer = rank;
    serry_rank_set_add(&j->error.ranks, rank);
}

int joining_fail_gone(joining *j, int rank)
{
    blame(j, rank);
    return serry_fail(&j->error, SERRY_ERR_RANK_FAILED, "rank %d ended while the job was starting",
                      rank);
}

int joining_fail_twice(joining *j, int rank)
{
    blame(j, rank);
    return serry_fail(&j->error, SERRY_ERR_INVALID,
                      "job \"%s\": two ranks say that they are rank %d of %d; give each its own "
                      "number, and each job its own name",
                      j->job.name, rank, j->job.size);
}

int joining_fail_timeout(joining *j)
{
    char text[256];

    for (int r = 0; r < j->job.size; r++)
        if (joining_expects(j, r) && r != j->job.rank &&
            (j->phase != JOINING_MEETS ? j->job.rank == j->host && !j->ready[r] : !j->met[r]))
            blame(j, r);
    if (j->error.peer < 0)
        return serry_fail(&j->error, SERRY_ERR_TIMEOUT,
                          "job \"%s\" did not start within %d ms: this rank waits for rank %d, "
                          "which waits for others",
                          j->job.name, j->job.timeout_ms, j->host);
    return serry_fail(&j->error, SERRY_ERR_TIMEOUT,
                      "job \"%s\" did not start within %d ms: still missing rank %s of %d",
                      j->job.name, j->job.timeout_ms,
                      serry_rank_set_text(&j->error.ranks, text, sizeof(text)), j->job.size);
}

int joining_fail_lost(joining *j)
{
    return serry_fail(&j->error, SERRY_ERR_EXCLUDED,
                      "rank %d has cut its connections, for want of memory or because its thread "
                      "has ended",
                      j->job.rank);
}

int joining_fail_as_told(joining *j, const frame *head, const body *b)
{
    bool is_text = b != NULL && b->bytes > 0 && b->data[b->bytes - 1] == 0;

    j->error.peer = head->who[0];
    j->error.ranks = head->wrong;
    return serry_fail(&j->error, head->code < 0 ? head->code : SERRY_ERR_ARENA, "%s",
                      is_text ? (const char *)b->data : "another rank could not join");
}

/* ---- hello ------------------------------------------------------------------------------------- */

static const char *kind_text(int kind)
{
    return kind == SERRY_THREADS ? "threads" : "processes";
}

void joining_say_hello(joining *j, int to)
{
    const serry_job *job = &j->job;
    const frame hello = {.type = FRAME_HELLO,
                         .number = VERSION,
                         .code = (int32_t)job->kind,
                         .signature = {j->key[0], j->key[1]},
                         .who = {job->rank, job->size},
                         .id = (uint64_t)getpid()};

    mesh_send(j->mesh, to, &hello, NULL);
}

int joining_check_hello(joining *j, const frame *head)
{
    const serry_job *job = &j->job;
    int rank = head->who[0];
    serry_error *error = &j->error;

    blame(j, rank);
    if (head->number != VERSION)
        return serry_fail(error, SERRY_ERR_LAYOUT,
                          "rank %d runs another build of serry than rank %d; use one library for "
                          "all ranks of job \"%s\"",
                          rank, job->rank, job->name);
    if (head->code != (int32_t)job->kind)
        return serry_fail(
            error, SERRY_ERR_INVALID,
            "job \"%s\" mixes kinds of ranks: rank %d joined as one of %s, rank %d as "
            "one of %s; all ranks must be of one kind",
            job->name, job->rank, kind_text((int)job->kind), rank, kind_text(head->code));
    if (job->kind == SERRY_THREADS && head->id != (uint64_t)getpid())
        return serry_fail(error, SERRY_ERR_INVALID,
                          "job \"%s\" has thread ranks in two processes (%d and %d); thread ranks "
                          "share one process",
                          job->name, (int)getpid(), (int)head->id);
    if (head->who[1] != job->size)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "job \"%s\": rank %d was told a world size of %d, rank %d one of %d",
                          job->name, job->rank, job->size, rank, head->who[1]);
    error->peer = -1;
    error->ranks = (serry_rank_set){{0}};
    return SERRY_OK;
}
