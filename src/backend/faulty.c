/* faulty.c - the table of a faulty backend: everything goes to the one inside, after the rules. */
#include "backend/faulty.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "record.h"

typedef struct faulty_member {
    faulty_table *table;
    const serry_backend *inner;
    serry_member *member;
    int world;           /* its rank in the job */
    uint64_t operations; /* that have ended */

    /* a call that is open: the inner backend must get the same one again */
    bool open, corrupted;
    serry_call call, corrupt; /* the caller's, and what was made of it */

    /* what the inner backend gets for a limit: the caller's token is asked for once */
    const serry_limit *given;
    serry_limit limit;
    serry_token *token;
    bool asked;
    faulty_hold hold;
    bool controls; /* agree or shrink has been polled, and goes on */
} faulty_member;

static faulty_member *own(serry_member *member)
{
    return (faulty_member *)(void *)member;
}

static const faulty_member *own_const(const serry_member *member)
{
    return (const faulty_member *)(const void *)member;
}

/* ---- joining and leaving ---------------------------------------------------------------------- */

/* Takes the inner member over, also where there is no memory. world < 0: as the inner one says. */
static serry_member *member_new(faulty_table *table, serry_member *inner, int world,
                                serry_error *error)
{
    faulty_member *f = calloc(1, sizeof(*f));
    serry_error ignored;

    if (f == NULL) {
        table->inner->close(inner, &ignored);
        serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory for a communicator");
        return NULL;
    }
    f->table = table;
    f->inner = table->inner;
    f->member = inner;
    f->world = world >= 0 ? world : f->inner->rank(inner);
    return (serry_member *)(void *)f;
}

static int faulty_open(const serry_backend *backend, const serry_job *job, serry_member **member,
                       serry_error *error)
{
    faulty_table *table = (faulty_table *)(uintptr_t)backend->context; // NOLINT
    serry_limit limit = {job->timeout_ms, NULL, NULL, NULL};
    faulty_moment moment = {job->rank, "open", true, 1, &limit, NULL};
    serry_job inner_job = *job;
    serry_member *inner;
    bool corrupt;
    int rc = SERRY_OK;

    *member = NULL;
    if (job->joining != NULL) { /* it was struck, or not, when it began */
        inner_job.joining = own(job->joining)->member;
        free(own(job->joining));
    } else if (job->rank >= 0) {
        rc = faulty_strike(table, &moment, &corrupt, error);
    }
    if (rc < 0)
        return rc;
    rc = table->inner->open(table->inner, &inner_job, &inner, error);
    if (rc != SERRY_OK && rc != SERRY_ERR_AGAIN)
        return rc;
    *member = member_new(table, inner, rc == SERRY_OK ? -1 : job->rank, error);
    return *member == NULL ? error->error : rc;
}

static int faulty_close(serry_member *member, serry_error *error)
{
    faulty_member *f = own(member);
    int rc = f->inner->close(f->member, error);

    if (rc == SERRY_OK)
        free(f);
    return rc;
}

static void faulty_forget(serry_member *member)
{
    faulty_member *f = own(member);

    f->inner->forget(f->member);
    free(f);
}

/* ---- operations ------------------------------------------------------------------------------- */

static serry_token *ask(void *member)
{
    faulty_member *f = member;

    if (!f->asked)
        f->token = f->given->token(f->given->argument);
    f->asked = true;
    return f->token;
}

static void take_limit(faulty_member *f, const serry_limit *given)
{
    f->given = given;
    f->asked = false;
    f->limit = (serry_limit){given->timeout_ms, given->token == NULL ? NULL : ask, f, given->poll};
    if (given->poll == NULL || given->poll->begins) { /* what was held up before was given up */
        f->hold.active = false;
        f->controls = false;
    }
}

static int strike(faulty_member *f, const char *kind, bool named_only, bool *corrupt,
                  serry_error *error)
{
    faulty_moment moment = {f->world, kind, named_only, f->operations + 1, &f->limit, &f->hold};

    *corrupt = false;
    return faulty_strike(f->table, &moment, corrupt, error);
}

/* Another call, which reads and writes no more than the caller's. The root, which these kinds do
 * not have, is compared all the same: so two ranks never make the same one. */
static serry_call other_call(const serry_call *call, int rank)
{
    bool has_root = call->root != 0 || call->kind == SERRY_KIND_BROADCAST ||
                    call->kind == SERRY_KIND_REDUCE || call->kind == SERRY_KIND_GATHER ||
                    call->kind == SERRY_KIND_SCATTER;
    serry_call other = *call;

    if (call->count > 0 && !has_root) {
        other.count--;
    } else {
        other.kind = call->kind == SERRY_KIND_BARRIER ? SERRY_KIND_ALLREDUCE : SERRY_KIND_BARRIER;
        other.op = SERRY_SUM;
        other.count = 0;
    }
    other.root = (int)SERRY_MAX_RANKS - 1 - rank;
    return other;
}

static bool is_same(const serry_call *a, const serry_call *b)
{
    return a->kind == b->kind && a->dtype == b->dtype && a->op == b->op && a->root == b->root &&
           a->count == b->count && a->send == b->send && a->recv == b->recv;
}

static bool is_pause(int rc)
{
    return rc == SERRY_ERR_TIMEOUT || rc == SERRY_ERR_CANCELLED || rc == SERRY_ERR_MEETING ||
           rc == SERRY_ERR_AGAIN;
}

static int ended(faulty_member *f, int rc)
{
    f->open = is_pause(rc) || (f->open && rc == SERRY_ERR_PENDING);
    f->operations += rc == SERRY_OK || rc == SERRY_ERR_RANK_MISMATCH ||
                     rc == SERRY_ERR_RANK_FAILED || rc == SERRY_ERR_RANK_JOINED;
    return rc;
}

static int faulty_run(serry_member *member, const serry_call *call, const serry_limit *limit,
                      serry_error *error)
{
    faulty_member *f = own(member);
    int rc;

    take_limit(f, limit);
    if (!f->open) {
        rc = strike(f, serry_kind_name(call->kind), false, &f->corrupted, error);
        if (rc != SERRY_OK)
            return rc == FAULTY_DROPPED ? SERRY_OK : rc;
        f->corrupted = f->corrupted && f->inner->live(f->member) > 1;
        f->call = *call;
        f->corrupt = f->corrupted ? other_call(call, f->inner->rank(f->member)) : *call;
    }
    if (is_same(call, &f->call))
        call = &f->corrupt;
    return ended(f, f->inner->run(f->member, call, &f->limit, error));
}

static int faulty_split(serry_member *member, int colour, int key, const serry_limit *limit,
                        serry_member **part, serry_error *error)
{
    faulty_member *f = own(member);
    serry_member *inner;
    bool corrupt;

    *part = NULL;
    take_limit(f, limit);
    int rc = f->open ? SERRY_OK : strike(f, "split", false, &corrupt, error);
    if (rc != SERRY_OK)
        return rc == FAULTY_DROPPED ? SERRY_OK : rc;
    rc = ended(f, f->inner->split(f->member, colour, key, &f->limit, &inner, error));
    if (rc != SERRY_OK || inner == NULL)
        return rc;
    *part = member_new(f->table, inner, f->world, error);
    return *part == NULL ? error->error : SERRY_OK;
}

static int faulty_agree(serry_member *member, serry_op op, uint64_t *value,
                        const serry_limit *limit, serry_error *error)
{
    faulty_member *f = own(member);
    bool corrupt;

    take_limit(f, limit);
    int rc = f->controls ? SERRY_OK : strike(f, "agree", true, &corrupt, error);
    if (rc != SERRY_OK)
        return rc == FAULTY_DROPPED ? SERRY_OK : rc;
    rc = f->inner->agree(f->member, op, value, &f->limit, error);
    f->controls = rc == SERRY_ERR_AGAIN;
    return rc;
}

static int faulty_shrink(serry_member *member, const serry_limit *limit, serry_member **rest,
                         serry_error *error)
{
    faulty_member *f = own(member);
    serry_member *inner;
    bool corrupt;

    *rest = NULL;
    take_limit(f, limit);
    int rc = f->controls ? SERRY_OK : strike(f, "shrink", true, &corrupt, error);
    if (rc < 0)
        return rc;
    rc = f->inner->shrink(f->member, &f->limit, &inner, error);
    f->controls = rc == SERRY_ERR_AGAIN;
    if (rc != SERRY_OK)
        return rc;
    *rest = member_new(f->table, inner, f->world, error);
    return *rest == NULL ? error->error : SERRY_OK;
}

/* Where the open call was dropped, it may be struck again when it comes again. */
static int faulty_meet(serry_member *member, uint64_t vote, const serry_limit *limit,
                       uint64_t *votes, int *repeat, serry_error *error)
{
    faulty_member *f = own(member);
    int rc = f->inner->meet(f->member, vote, limit, votes, repeat, error);

    if (rc == SERRY_OK && *repeat == SERRY_REPEAT)
        f->open = false;
    return rc;
}

static int faulty_called(serry_member *member)
{
    return own(member)->inner->called(own(member)->member);
}

static uint64_t faulty_told(const serry_member *member)
{
    return own_const(member)->inner->told(own_const(member)->member);
}

static void *faulty_alloc(serry_member *member, size_t bytes, serry_error *error)
{
    static const serry_limit none = {-1, NULL, NULL, NULL};
    faulty_member *f = own(member);
    bool corrupt;

    take_limit(f, &none);
    return strike(f, "alloc", true, &corrupt, error) < 0 ? NULL
                                                         : f->inner->alloc(f->member, bytes, error);
}

/* ---- messages: straight through ------------------------------------------------------------------ */

static int faulty_put(serry_member *member, int dest, const serry_envelope *envelope,
                      const void *data, uint64_t *ticket, serry_error *error)
{
    return own(member)->inner->put(own(member)->member, dest, envelope, data, ticket, error);
}

static int faulty_settled(serry_member *member, int dest, uint64_t ticket, serry_error *error)
{
    return own(member)->inner->settled(own(member)->member, dest, ticket, error);
}

static int faulty_withdraw(serry_member *member, int dest, uint64_t ticket)
{
    return own(member)->inner->withdraw(own(member)->member, dest, ticket);
}

static int faulty_peek(serry_member *member, int source, serry_envelope *envelope,
                       serry_error *error)
{
    return own(member)->inner->peek(own(member)->member, source, envelope, error);
}

static int faulty_take(serry_member *member, int source, void *data, serry_error *error)
{
    return own(member)->inner->take(own(member)->member, source, data, error);
}

static void faulty_listen(serry_member *member, serry_interest *interest)
{
    own(member)->inner->listen(own(member)->member, interest);
}

/* ---- the rest, likewise ------------------------------------------------------------------------- */

static int faulty_free(serry_member *member, void *memory, serry_error *error)
{
    return own(member)->inner->free(own(member)->member, memory, error);
}

static int faulty_set_policy(serry_member *member, serry_policy policy, serry_error *error)
{
    return own(member)->inner->set_policy(own(member)->member, policy, error);
}

static int faulty_set_variant(serry_member *member, unsigned variant, serry_error *error)
{
    return own(member)->inner->set_variant(own(member)->member, variant, error);
}

static void faulty_failed(const serry_member *member, serry_rank_set *failed)
{
    own_const(member)->inner->failed(own_const(member)->member, failed);
}

static int faulty_revoke(serry_member *member, serry_error *error)
{
    return own(member)->inner->revoke(own(member)->member, error);
}

static int faulty_rank(const serry_member *member)
{
    return own_const(member)->inner->rank(own_const(member)->member);
}

static int faulty_size(const serry_member *member)
{
    return own_const(member)->inner->size(own_const(member)->member);
}

static int faulty_live(const serry_member *member)
{
    return own_const(member)->inner->live(own_const(member)->member);
}

static void faulty_participants(const serry_member *member, serry_rank_set *ranks)
{
    own_const(member)->inner->participants(own_const(member)->member, ranks);
}

static uint64_t faulty_epoch(const serry_member *member)
{
    return own_const(member)->inner->epoch(own_const(member)->member);
}

static uint64_t faulty_incarnation(const serry_member *member, int rank)
{
    return own_const(member)->inner->incarnation(own_const(member)->member, rank);
}

static int faulty_vitals(serry_member *member, int rank, serry_vitals *vitals, serry_error *error)
{
    return own(member)->inner->vitals(own(member)->member, rank, vitals, error);
}

static int faulty_exclude(serry_member *member, int rank, serry_exclusion how, serry_error *error)
{
    return own(member)->inner->exclude(own(member)->member, rank, how, error);
}

static void faulty_may_seal(serry_member *member)
{
    if (own(member)->inner->may_seal != NULL)
        own(member)->inner->may_seal(own(member)->member);
}

static const serry_backend functions = {
    .open = faulty_open,
    .close = faulty_close,
    .forget = faulty_forget,
    .run = faulty_run,
    .split = faulty_split,
    .set_policy = faulty_set_policy,
    .set_variant = faulty_set_variant,
    .failed = faulty_failed,
    .revoke = faulty_revoke,
    .agree = faulty_agree,
    .shrink = faulty_shrink,
    .meet = faulty_meet,
    .put = faulty_put,
    .settled = faulty_settled,
    .withdraw = faulty_withdraw,
    .peek = faulty_peek,
    .take = faulty_take,
    .listen = faulty_listen,
    .alloc = faulty_alloc,
    .free = faulty_free,
    .rank = faulty_rank,
    .size = faulty_size,
    .live = faulty_live,
    .participants = faulty_participants,
    .epoch = faulty_epoch,
    .vitals = faulty_vitals,
    .exclude = faulty_exclude,
    .may_seal = faulty_may_seal,
};

/* ---- making one ------------------------------------------------------------------------------- */

int serry_faulty_create(const serry_backend *inner, const char *script, uint64_t seed,
                        serry_backend **backend)
{
    serry_error *error = serry_error_of_thread();

    serry_error_begin(error, "faulty_create", 0, -1);
    *backend = NULL;
    if (inner == NULL || script == NULL)
        return serry_fail(error, SERRY_ERR_INVALID, "faulty_create: %s is NULL",
                          inner == NULL ? "the backend" : "the script");
    faulty_table *table = calloc(1, sizeof(*table));
    if (table == NULL)
        return serry_fail(error, SERRY_ERR_NO_SPACE, "faulty_create: out of memory");
    int rc = faulty_read(table, script, error);
    if (rc != SERRY_OK) {
        free(table);
        return rc;
    }
    snprintf(table->name, sizeof(table->name), "faulty(%s)", inner->name);
    table->inner = inner;
    table->seed = seed;
    table->table = functions;
    table->table.name = table->name;
    table->table.context = table;
    if (inner->called != NULL)
        table->table.called = faulty_called;
    if (inner->incarnation != NULL)
        table->table.incarnation = faulty_incarnation;
    if (inner->told != NULL)
        table->table.told = faulty_told;
    *backend = &table->table;
    return SERRY_OK;
}

void serry_faulty_destroy(serry_backend **backend)
{
    serry_backend *old = *backend;

    *backend = NULL;
    if (old != NULL)
        free((void *)(uintptr_t)old->context); // NOLINT(performance-no-int-to-ptr)
}

uint64_t serry_faulty_fired(const serry_backend *backend, serry_fault fault)
{
    const faulty_table *table = backend->context;
    uint64_t fired = 0;

    for (size_t i = 0; i < table->rules; i++)
        for (size_t r = 0; r < SERRY_MAX_RANKS && table->rule[i].fault == fault; r++)
            fired += atomic_load(&table->rule[i].fired[r]);
    return fired;
}
