/* membership.c - when ranks fail, and when others take their places. */
#include <serry/serry.h>

#include "comm.h"
#include "flight.h"
#include "record.h"

int serry_set_policy(serry_comm *comm, serry_policy policy)
{
    int rc = serry_comm_check(comm, "set_policy");

    if (rc != SERRY_OK)
        return rc;
    if (policy < SERRY_REPORT || policy >= SERRY_POLICIES) {
        serry_error_begin(&comm->error, "set_policy", 0, comm->rank);
        return serry_fail(&comm->error, SERRY_ERR_INVALID,
                          "set_policy: %d is no policy; give SERRY_REPORT, SERRY_EXCLUDE, "
                          "SERRY_REVOKE or SERRY_WAIT",
                          (int)policy);
    }
    serry_comm_hold(comm);
    rc = comm->backend->set_policy(comm->member, policy, &comm->error);
    serry_comm_release(comm);
    return rc;
}

int serry_revoke(serry_comm *comm)
{
    int rc = serry_comm_check(comm, "revoke");

    return rc == SERRY_OK ? comm->backend->revoke(comm->member, &comm->error) : rc;
}

typedef struct agreement {
    serry_op op;
    uint64_t *value;
} agreement;

static int agree(serry_comm *comm, const serry_limit *limit, void *argument, serry_error *error)
{
    const agreement *a = argument;

    return comm->backend->agree(comm->member, a->op, a->value, limit, error);
}

int serry_agree(serry_comm *comm, serry_op op, uint64_t *value)
{
    int rc = serry_comm_check(comm, "agree");

    if (rc != SERRY_OK)
        return rc;
    if (value == NULL || (op != SERRY_BAND && op != SERRY_BOR)) {
        serry_error_begin(&comm->error, "agree", 0, comm->rank);
        return serry_fail(&comm->error, SERRY_ERR_INVALID,
                          "agree: %s; give SERRY_BAND or SERRY_BOR and a value",
                          value == NULL ? "the value is NULL" : "that is no way to agree");
    }
    return serry_comm_do(comm, agree, &(agreement){op, value});
}

static int shrink(serry_comm *comm, const serry_limit *limit, void *member, serry_error *error)
{
    return comm->backend->shrink(comm->member, limit, member, error);
}

int serry_shrink(serry_comm *comm, serry_comm **rest)
{
    int rc = serry_comm_check_new(comm, "shrink", 0, rest);
    serry_member *member = NULL;

    return rc == SERRY_OK ? serry_comm_derive(comm, shrink, &member, &member, rest) : rc;
}

int serry_get_failed(const serry_comm *comm, serry_rank_set *failed)
{
    int rc = serry_comm_check_set(comm, failed, "get_failed");

    if (rc != SERRY_OK)
        return rc;
    serry_comm_hold(comm);
    comm->backend->failed(comm->member, failed);
    serry_comm_release(comm);
    return SERRY_OK;
}

int serry_ack_failed(serry_comm *comm, serry_rank_set *acked)
{
    int rc = serry_comm_check(comm, "ack_failed");
    serry_rank_set failed;
    flight *f;

    if (rc == SERRY_OK)
        rc = flight_of(comm, false, &f);
    if (rc != SERRY_OK)
        return rc;
    serry_comm_hold(comm);
    comm->backend->failed(comm->member, &failed);
    for (int r = 0; r < comm->size; r++)
        if (serry_rank_set_has(&failed, r))
            flight_learn(f, r);
    serry_comm_release(comm);
    if (acked != NULL)
        *acked = failed;
    return SERRY_OK;
}

uint64_t serry_epoch(const serry_comm *comm)
{
    if (comm == NULL)
        return 0;
    serry_comm_hold(comm);
    uint64_t epoch = comm->backend->epoch(comm->member);
    serry_comm_release(comm);
    return epoch;
}

/* ---- replacements ------------------------------------------------------------------------------ */

int serry_rejoin(const serry_config *config, serry_comm **comm)
{
    serry_config entering = SERRY_CONFIG_INIT;

    if (comm != NULL && *comm != NULL) {
        int rc = serry_finalize(comm);
        if (rc != SERRY_OK)
            return rc;
    }
    if (config != NULL)
        entering = *config;
    if (entering.entry == SERRY_ENTRY_ENVIRONMENT)
        entering.entry = SERRY_ENTRY_REPLACEMENT;
    return serry_init(&entering, comm);
}

typedef struct regaining {
    int index;
    serry_member *member;
} regaining;

static int regain(serry_comm *comm, const serry_limit *limit, void *argument, serry_error *error)
{
    regaining *r = argument;

    return comm->backend->regain(comm->member, r->index, limit, &r->member, error);
}

int serry_rejoin_part(serry_comm *comm, int index, serry_comm **part)
{
    int rc = serry_comm_check_new(comm, "rejoin_part", 0, part);
    regaining r = {index, NULL};

    if (rc != SERRY_OK)
        return rc;
    if (index < 0 || comm->backend->regain == NULL) {
        serry_error_begin(&comm->error, "rejoin_part", 0, comm->rank);
        if (index < 0)
            return serry_fail(&comm->error, SERRY_ERR_INVALID,
                              "rejoin_part: %d is no number of a communicator; give 0 or more",
                              index);
        return serry_fail(&comm->error, SERRY_ERR_UNSUPPORTED,
                          "rejoin_part: backend %s has no replacements", comm->backend->name);
    }
    return serry_comm_derive(comm, regain, &r, &r.member, part);
}

int serry_comm_meet(serry_comm *comm)
{
    uint64_t votes;
    int repeat;

    return comm->backend->meet(comm->member, 0, &comm->limit, &votes, &repeat, &comm->error);
}

/* ---- an end from outside ----------------------------------------------------------------------- */

static serry_token *token_of(void *argument)
{
    return ((serry_comm *)argument)->token;
}

int serry_set_token(serry_comm *comm, serry_token *token)
{
    int rc = serry_comm_check(comm, "set_token");

    if (rc != SERRY_OK)
        return rc;
    serry_token_release(&comm->token);
    comm->token = token == NULL ? NULL : serry_token_retain(token);
    comm->limit.token = token == NULL ? NULL : token_of;
    comm->limit.argument = comm;
    return SERRY_OK;
}
