/* harness_calls.c - making calls and reading records; see harness.h. */
#include "harness.h"

#include <stdlib.h>
#include <string.h>

#include "comm.h"

/* Of the last call that was made apart by this thread. */
static _Thread_local serry_error g_record = {.peer = -1};

static bool is_apart(void)
{
    return getenv("SERRY_TEST_APART") != NULL;
}

int test_set_variant(serry_comm *comm, unsigned variant)
{
    return comm->backend->set_variant(comm->member, variant, &comm->error);
}

int test_force_variant(serry_comm *comm)
{
    const char *variant = getenv("SERRY_TEST_VARIANT");

    if (variant == NULL)
        return SERRY_OK;
    return test_set_variant(comm, (unsigned)strtoul(variant, NULL, 10));
}

const serry_error *test_record_of(const serry_comm *comm)
{
    return is_apart() ? &g_record : serry_last_error(comm);
}

static int call_at_once(const serry_call *c, serry_comm *comm)
{
    switch (c->kind) {
    case SERRY_KIND_BARRIER:
        return serry_barrier(comm);
    case SERRY_KIND_BROADCAST:
        return serry_broadcast(c->recv, c->count, c->dtype, c->root, comm);
    case SERRY_KIND_REDUCE:
        return serry_reduce(c->send, c->recv, c->count, c->dtype, c->op, c->root, comm);
    case SERRY_KIND_ALLREDUCE:
        return serry_allreduce(c->send, c->recv, c->count, c->dtype, c->op, comm);
    case SERRY_KIND_ALLGATHER:
        return serry_allgather(c->send, c->recv, c->count, c->dtype, comm);
    case SERRY_KIND_REDUCE_SCATTER:
        return serry_reduce_scatter(c->send, c->recv, c->count, c->dtype, c->op, comm);
    case SERRY_KIND_GATHER:
        return serry_gather(c->send, c->recv, c->count, c->dtype, c->root, comm);
    case SERRY_KIND_SCATTER:
        return serry_scatter(c->send, c->recv, c->count, c->dtype, c->root, comm);
    case SERRY_KIND_ALLTOALL:
        return serry_alltoall(c->send, c->recv, c->count, c->dtype, comm);
    case SERRY_KIND_SPLIT:
    case SERRY_KIND_MEET:
    case SERRY_KINDS:
        break;
    }
    return SERRY_ERR_UNSUPPORTED;
}

int test_call_apart(const serry_call *c, serry_comm *comm, serry_request **r)
{
    switch (c->kind) {
    case SERRY_KIND_BARRIER:
        return serry_ibarrier(comm, r);
    case SERRY_KIND_BROADCAST:
        return serry_ibroadcast(c->recv, c->count, c->dtype, c->root, comm, r);
    case SERRY_KIND_REDUCE:
        return serry_ireduce(c->send, c->recv, c->count, c->dtype, c->op, c->root, comm, r);
    case SERRY_KIND_ALLREDUCE:
        return serry_iallreduce(c->send, c->recv, c->count, c->dtype, c->op, comm, r);
    case SERRY_KIND_ALLGATHER:
        return serry_iallgather(c->send, c->recv, c->count, c->dtype, comm, r);
    case SERRY_KIND_REDUCE_SCATTER:
        return serry_ireduce_scatter(c->send, c->recv, c->count, c->dtype, c->op, comm, r);
    case SERRY_KIND_GATHER:
        return serry_igather(c->send, c->recv, c->count, c->dtype, c->root, comm, r);
    case SERRY_KIND_SCATTER:
        return serry_iscatter(c->send, c->recv, c->count, c->dtype, c->root, comm, r);
    case SERRY_KIND_ALLTOALL:
        return serry_ialltoall(c->send, c->recv, c->count, c->dtype, comm, r);
    case SERRY_KIND_SPLIT:
    case SERRY_KIND_MEET:
    case SERRY_KINDS:
        break;
    }
    return SERRY_ERR_UNSUPPORTED;
}

int test_call(const serry_call *c, serry_comm *comm)
{
    serry_request *request;

    if (!is_apart())
        return call_at_once(c, comm);
    int rc = test_call_apart(c, comm, &request);
    if (rc != SERRY_OK) {
        g_record = *serry_last_error(comm);
        return rc;
    }
    rc = serry_wait(&request, -1);
    g_record = *serry_request_error(request);
    serry_request_free(&request);
    return rc;
}

bool test_ranks_are(const serry_rank_set *set, const int *ranks)
{
    serry_rank_set wanted = {{0}};
    for (; *ranks >= 0; ranks++)
        wanted.bits[*ranks / 64] |= UINT64_C(1) << (*ranks % 64);
    return memcmp(&wanted, set, sizeof(wanted)) == 0;
}

/* After the word "rank" or "ranks" comes a list: numbers, commas, spaces and "and". */
bool test_names_rank(const char *text, int rank)
{
    for (const char *at = strstr(text, "rank"); at != NULL; at = strstr(at, "rank")) {
        at += strlen("rank");
        at += *at == 's';
        while (*at == ' ' || *at == ',' || strncmp(at, "and ", 4) == 0 ||
               (*at >= '0' && *at <= '9')) {
            char *end = NULL;
            if (*at >= '0' && *at <= '9') {
                if (strtol(at, &end, 10) == rank)
                    return true;
                at = end;
            } else {
                at += *at == 'a' ? 4 : 1;
            }
        }
    }
    return false;
}
