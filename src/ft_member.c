/* ft_member.c - a rank's membership in the chain: joining and leaving. */
#include "ft_member.h"

#include <stdio.h>
#include <stdlib.h>

#include "record.h"

/* ---- carriers --------------------------------------------------------------------------------- */

ft_carrier *ft_carrier_new(const serry_backend *backend, serry_member *member, size_t at,
                           serry_error *error)
{
    ft_carrier *c = malloc(sizeof(*c));
    serry_error ignored;

    if (c == NULL) {
        serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory for a communicator");
        backend->close(member, &ignored);
        return NULL;
    }
    *c = (ft_carrier){backend, member, at, 0, NULL};
    return c;
}

void ft_carrier_close(ft_carrier *c)
{
    serry_error ignored;

    c->backend->close(c->member, &ignored);
    free(c);
}

int ft_join(ft_member *m, size_t at, const serry_job *job, serry_member **joining,
            ft_carrier **joined, serry_error *error)
{
    const serry_backend *backend = m->table->chain[at];
    serry_decision decision;
    serry_member *member;

    *joining = NULL;
    *joined = NULL;
    serry_error_begin(error, "init", 0, job->rank);
    int rc = backend->open(backend, job, &member, error);
    if (rc == SERRY_ERR_AGAIN) {
        *joining = member;
        return rc;
    }
    if (rc == SERRY_OK) {
        *joined = ft_carrier_new(backend, member, at, error);
        return *joined == NULL ? error->error : SERRY_OK;
    }
    serry_error_context_set(error, "Backend", "%s", backend->name);
    serry_recovery_handle(m->recovery, error, &decision);
    serry_recovery_end(m->recovery, 0, error->operation);
    return rc;
}

void ft_leave_next(ft_member *m)
{
    serry_error ignored;

    if (m->move.joining != NULL)
        m->table->chain[m->move.target]->close(m->move.joining, &ignored);
    if (m->move.joined != NULL)
        ft_carrier_close(m->move.joined);
    m->move.joining = NULL;
    m->move.joined = NULL;
}

/* ---- members ---------------------------------------------------------------------------------- */

/* Strategies are set code by code: that is all that can be read. */
static void inherit_strategies(ft_member *m, const ft_member *parent)
{
    static const int codes[] = {
#define SERRY_X(name, value, scope, severity, group, text) value,
        SERRY_ERROR_MAP(SERRY_X)
#undef SERRY_X
    };

    for (size_t i = 0; i < SERRY_ERROR_CODES; i++)
        serry_recovery_set_strategy(m->recovery, codes[i],
                                    serry_recovery_strategy(parent->recovery, codes[i]));
}

static int leave_it(serry_member *member, const serry_call *call, const serry_limit *limit,
                    serry_error *error)
{
    (void)member, (void)call, (void)limit, (void)error;
    return FT_AGAIN;
}

static int look_first(serry_member *member, const serry_call *call, const serry_limit *limit,
                      serry_error *error)
{
    ft_member *m = ft_own(member);
    const ft_carrier *c = ft_carrier_of(m);

    return ft_must_look(m) ? FT_AGAIN : c->backend->run(c->member, call, limit, error);
}

void ft_aim(ft_member *m)
{
    const ft_carrier *c = ft_carrier_of(m);
    bool moved = ft_has_moved(m);

    m->first.run[0] = m->open || m->polled ? leave_it : moved ? look_first : c->backend->run;
    m->first.run[1] = leave_it;
    m->first.member = moved ? (serry_member *)(void *)m : c->member;
    m->first.step = !m->polled && (!m->open || m->told);
}

static void member_free(ft_member *m)
{
    serry_timeouts_destroy(&m->timeouts);
    serry_recovery_destroy(&m->recovery);
    free(m);
}

ft_member *ft_member_new(const ft_table *table, const serry_job *job, const ft_member *parent,
                         serry_error *error)
{
    serry_recovery_config recovery = table->config.recovery;
    ft_member *m = calloc(1, sizeof(*m));

    recovery.seed += (uint64_t)job->rank;
    if (m == NULL ||
        serry_timeouts_create(table->config.timeout_ms != 0 ? table->config.timeout_ms
                                                            : job->timeout_ms,
                              &m->timeouts) != SERRY_OK ||
        serry_recovery_create(&recovery, &m->recovery) != SERRY_OK) {
        if (m != NULL)
            member_free(m);
        serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory for a communicator");
        return NULL;
    }
    m->table = table;
    m->thread = parent != NULL ? parent->thread : pthread_self();
    m->job = *job;
    m->job.absent = (serry_rank_set){{0}};
    m->limit = (serry_limit){-1, ft_limit_token, m, NULL};
    if (parent != NULL)
        inherit_strategies(m, parent);
    return m;
}

/* Is it worth trying the next backend? All ranks of a job fail to join alike. */
static bool is_refused(int rc)
{
    return rc == SERRY_ERR_NO_SPACE || rc == SERRY_ERR_UNSUPPORTED || rc == SERRY_ERR_SYSTEM ||
           rc == SERRY_ERR_LAYOUT || rc == SERRY_ERR_ARENA;
}

static ft_carrier *join_first(ft_member *m, const serry_job *job, serry_error *error)
{
    serry_member *none;
    ft_carrier *c;

    ft_join(m, 0, job, &none, &c, error);
    for (size_t at = 1; at < m->table->config.count && c == NULL && is_refused(error->error) &&
                        job->entry == SERRY_ENTRY_START;
         at++) {
        serry_job next = *job;
        snprintf(next.name, sizeof(next.name), "%.*s#%u", (int)sizeof(next.name) - 3, job->name,
                 (unsigned)at % 10);
        ft_join(m, at, &next, &none, &c, error);
    }
    return c;
}

/* A replacement has come in by the first backend: the job may be at another one. */
static int follow(ft_member *m, int timeout_ms, serry_error *error)
{
    const serry_limit limit = {timeout_ms, NULL, NULL, NULL};
    const ft_carrier *c = m->door;

    return c->backend->told == NULL ? SERRY_OK
                                    : ft_follow(m, c->backend->told(c->member), &limit, error);
}

int ft_open(const serry_backend *backend, const serry_job *job, serry_member **member,
            serry_error *error)
{
    ft_member *m = ft_member_new(backend->context, job, NULL, error);

    *member = NULL;
    if (m == NULL)
        return error->error;
    ft_carrier *c = join_first(m, job, error);
    if (c == NULL) {
        member_free(m);
        return error->error;
    }
    m->job.rank = c->backend->rank(c->member); /* of a spare, only known now */
    m->job.entry = SERRY_ENTRY_START;
    m->door = c;
    atomic_store(&m->carrier, c);
    if (job->entry != SERRY_ENTRY_START && follow(m, job->timeout_ms, error) != SERRY_OK) {
        ft_carrier_close(c);
        member_free(m);
        return error->error;
    }
    ft_aim(m);
    *member = (serry_member *)(void *)m;
    return SERRY_OK;
}

/* What keeps one carrier from being closed, keeps all: the newest is asked. */
int ft_close(serry_member *member, serry_error *error)
{
    ft_member *m = ft_own(member);
    ft_carrier *c = ft_carrier_of(m), *older = c->older;
    int rc = c->backend->close(c->member, error);

    if (rc != SERRY_OK)
        return rc;
    free(c);
    for (c = older; c != NULL; c = older) {
        older = c->older;
        ft_carrier_close(c);
    }
    ft_leave_next(m);
    ft_limit_end(m); /* of an attempt that was polled, and given up */
    member_free(m);
    return SERRY_OK;
}

/* The timeouts stay: another thread of the parent may have had their lock at the fork. */
void ft_forget(serry_member *member)
{
    ft_member *m = ft_own(member);
    ft_carrier *older;

    for (ft_carrier *c = ft_carrier_of(m); c != NULL; c = older) {
        older = c->older;
        c->backend->forget(c->member);
        free(c);
    }
    if (m->move.joining != NULL)
        m->table->chain[m->move.target]->forget(m->move.joining);
    if (m->move.joined != NULL) {
        m->move.joined->backend->forget(m->move.joined->member);
        free(m->move.joined);
    }
    serry_recovery_destroy(&m->recovery);
    free(m);
}
