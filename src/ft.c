/* ft.c - the table of the fault-tolerant wrapper, and what goes straight through to the backend
 * that carries it. ft_member.h says where the rest is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm.h"
#include "ft_member.h"
#include "record.h"

/* ---- operations ------------------------------------------------------------------------------- */

/* Without a failure there is one branch here, on what the call has come to. */
static int ft_run(serry_member *member, const serry_call *call, const serry_limit *limit,
                  serry_error *error)
{
    ft_member *m = ft_own(member);

    m->given = limit;
    m->limit.poll = limit->poll;
    ft_count(m);
    int rc = m->first.run[limit->token != NULL](m->first.member, call, &m->limit, error);
    return __builtin_expect(rc | (m->asked != NULL), 0) ? ft_run_slowly(m, call, rc, error)
                                                        : SERRY_OK;
}

static int start(ft_member *m, const ft_operation *operation, const serry_limit *limit,
                 serry_error *error)
{
    m->given = limit;
    m->limit.poll = limit->poll;
    ft_count(m);
    return ft_start(m, operation, error);
}

static int ft_split(serry_member *member, int colour, int key, const serry_limit *limit,
                    serry_member **part, serry_error *error)
{
    ft_operation operation = {
        .what = FT_SPLIT, .name = "split", .colour = colour, .key = key, .made = part};

    *part = NULL;
    return start(ft_own(member), &operation, limit, error);
}

static int ft_agree(serry_member *member, serry_op op, uint64_t *value, const serry_limit *limit,
                    serry_error *error)
{
    ft_operation operation = {.what = FT_AGREE, .name = "agree", .op = op, .value = value};

    return start(ft_own(member), &operation, limit, error);
}

static int ft_shrink(serry_member *member, const serry_limit *limit, serry_member **rest,
                     serry_error *error)
{
    ft_operation operation = {.what = FT_SHRINK, .name = "shrink", .made = rest};

    *rest = NULL;
    return start(ft_own(member), &operation, limit, error);
}

/* ---- straight through ------------------------------------------------------------------------- */

static int ft_meeting(serry_member *member, uint64_t vote, const serry_limit *limit,
                      uint64_t *votes, int *repeat, serry_error *error)
{
    ft_carrier *c = ft_carrier_of(ft_own(member));

    return c->backend->meet(c->member, vote, limit, votes, repeat, error);
}

static int ft_set_policy(serry_member *member, serry_policy policy, serry_error *error)
{
    ft_member *m = ft_own(member);
    ft_carrier *c = ft_carrier_of(m);
    serry_policy there = ft_has_moved(m) ? ft_policy_there(policy) : policy;
    int rc = c->backend->set_policy(c->member, there, error);

    if (rc == SERRY_OK)
        m->job.policy = policy;
    return rc;
}

static int ft_set_variant(serry_member *member, unsigned variant, serry_error *error)
{
    ft_carrier *c = ft_carrier_of(ft_own(member));
    int rc = c->backend->set_variant(c->member, variant, error);

    if (rc == SERRY_OK)
        ft_own(member)->variant = variant;
    return rc;
}

static void ft_failed(const serry_member *member, serry_rank_set *failed)
{
    ft_carrier *c = ft_carrier_of(ft_own_const(member));

    c->backend->failed(c->member, failed);
}

/* Either this thread sees the backend that is being moved to, or the one that moves sees
 * `revoked`. */
static int ft_revoke(serry_member *member, serry_error *error)
{
    atomic_store(&ft_own(member)->revoked, true);
    ft_carrier *c = atomic_load(&ft_own(member)->carrier);

    return c->backend->revoke(c->member, error);
}

static void *ft_alloc(serry_member *member, size_t bytes, serry_error *error)
{
    ft_carrier *c = ft_carrier_of(ft_own(member));

    return c->backend->alloc(c->member, bytes, error);
}

static int ft_free(serry_member *member, void *memory, serry_error *error)
{
    int rc = SERRY_ERR_INVALID;

    for (ft_carrier *c = ft_carrier_of(ft_own(member)); c != NULL && rc != SERRY_OK; c = c->older)
        rc = c->backend->free(c->member, memory, error);
    return rc;
}

static int ft_rank(const serry_member *member)
{
    return ft_own_const(member)->job.rank;
}

static int ft_size(const serry_member *member)
{
    return ft_own_const(member)->job.size;
}

static int ft_live(const serry_member *member)
{
    ft_carrier *c = ft_carrier_of(ft_own_const(member));

    return c->backend->live(c->member);
}

static void ft_participants(const serry_member *member, serry_rank_set *ranks)
{
    ft_carrier *c = ft_carrier_of(ft_own_const(member));

    c->backend->participants(c->member, ranks);
}

static uint64_t ft_epoch(const serry_member *member)
{
    ft_carrier *c = ft_carrier_of(ft_own_const(member));

    return ft_own_const(member)->epoch + c->backend->epoch(c->member);
}

static uint64_t ft_incarnation(const serry_member *member, int rank)
{
    const ft_carrier *c = ft_carrier_of(ft_own_const(member));
    uint64_t there = c->backend->incarnation == NULL ? 0 : c->backend->incarnation(c->member, rank);

    return there << 32 | (uint32_t)c->number; /* one that has moved is another one */
}

static int ft_vitals(serry_member *member, int rank, serry_vitals *vitals, serry_error *error)
{
    ft_carrier *c = ft_carrier_of(ft_own(member));

    return c->backend->vitals(c->member, rank, vitals, error);
}

static int ft_exclude(serry_member *member, int rank, serry_exclusion how, serry_error *error)
{
    ft_carrier *c = ft_carrier_of(ft_own(member));

    return c->backend->exclude(c->member, rank, how, error);
}

/* One that is turned to later is not told: it may refuse to seal somebody at one moment or another. */
static void ft_may_seal(serry_member *member)
{
    ft_carrier *c = ft_carrier_of(ft_own(member));

    if (c->backend->may_seal != NULL)
        c->backend->may_seal(c->member);
}

static const serry_backend functions = {
    .open = ft_open,
    .close = ft_close,
    .forget = ft_forget,
    .run = ft_run,
    .split = ft_split,
    .set_policy = ft_set_policy,
    .set_variant = ft_set_variant,
    .failed = ft_failed,
    .revoke = ft_revoke,
    .agree = ft_agree,
    .shrink = ft_shrink,
    .meet = ft_meeting,
    .put = ft_put,
    .settled = ft_settled,
    .withdraw = ft_withdraw,
    .peek = ft_peek,
    .take = ft_take,
    .listen = ft_listen,
    .alloc = ft_alloc,
    .free = ft_free,
    .rank = ft_rank,
    .size = ft_size,
    .live = ft_live,
    .participants = ft_participants,
    .epoch = ft_epoch,
    .incarnation = ft_incarnation,
    .vitals = ft_vitals,
    .exclude = ft_exclude,
    .may_seal = ft_may_seal,
};

/* ---- making one ------------------------------------------------------------------------------- */

static int check_chain(const serry_ft_config *config, serry_error *error)
{
    if (config == NULL || config->bytes != sizeof(*config))
        return serry_fail(error, SERRY_ERR_INVALID,
                          "ft_create: no configuration, or one of another version; start from "
                          "SERRY_FT_CONFIG_INIT");
    if (config->chain == NULL || config->count < 1 || config->count > SERRY_FT_CHAIN_MAX)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "ft_create: a chain of %zu backends; give 1 to %u", config->count,
                          SERRY_FT_CHAIN_MAX);
    for (size_t i = 0; i < config->count; i++)
        if (config->chain[i] == NULL || config->chain[i]->run == ft_run)
            return serry_fail(error, SERRY_ERR_INVALID,
                              "ft_create: number %zu of the chain is %s; give backends that carry "
                              "operations themselves",
                              i, config->chain[i] == NULL ? "NULL" : "a chain itself");
    return SERRY_OK;
}

int serry_ft_create(const serry_ft_config *config, serry_backend **backend)
{
    serry_error *error = serry_error_of_thread();
    serry_recovery *recovery;

    serry_error_begin(error, "ft_create", 0, -1);
    *backend = NULL;
    int rc = check_chain(config, error);
    if (rc != SERRY_OK)
        return rc;
    rc = serry_recovery_create(&config->recovery, &recovery); /* only to see whether it can be */
    serry_recovery_destroy(&recovery);
    if (rc != SERRY_OK)
        return serry_fail(error, rc,
                          "ft_create: the recovery manager refuses its configuration: %s",
                          serry_strerror(rc));
    ft_table *table = calloc(1, sizeof(*table));
    if (table == NULL)
        return serry_fail(error, SERRY_ERR_NO_SPACE, "ft_create: out of memory");
    table->config = *config;
    memcpy(table->chain, config->chain, config->count * sizeof(config->chain[0]));
    table->config.chain = table->chain;
    snprintf(table->name, sizeof(table->name), "FT_%s", table->chain[0]->name);
    table->table = functions;
    table->table.name = table->name;
    table->table.context = table;
    *backend = &table->table;
    return SERRY_OK;
}

void serry_ft_destroy(serry_backend **backend)
{
    serry_backend *old = *backend;

    *backend = NULL;
    if (old != NULL)
        free((void *)(uintptr_t)old->context); // NOLINT(performance-no-int-to-ptr)
}

/* ---- of a communicator ------------------------------------------------------------------------ */

static const ft_member *member_of(const serry_comm *comm)
{
    return comm != NULL && comm->backend->run == ft_run ? ft_own_const(comm->member) : NULL;
}

serry_timeouts *serry_ft_timeouts(const serry_comm *comm)
{
    const ft_member *m = member_of(comm);

    return m == NULL ? NULL : m->timeouts;
}

serry_recovery *serry_ft_recovery(const serry_comm *comm)
{
    const ft_member *m = member_of(comm);

    return m == NULL ? NULL : m->recovery;
}

uint64_t serry_ft_operation(const serry_comm *comm)
{
    const ft_member *m = member_of(comm);

    return m == NULL ? 0 : ft_id(m);
}

const serry_backend *serry_ft_carrier(const serry_comm *comm)
{
    const ft_member *m = member_of(comm);

    return m == NULL ? NULL : ft_carrier_of(m)->backend;
}
