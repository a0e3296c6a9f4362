/* ft_tries.c - one operation, from its first attempt to its end.
 *
 * An attempt is the call itself or, where a meeting is open, the next part of that. Its error goes
 * to the recovery manager, and what that decides is done: again, to a meeting, or out to the
 * caller. */
#include "ft_member.h"

#include <inttypes.h>

#include "record.h"

#define COLD __attribute__((cold, noinline))

/* How long an operation that is out of time, or was cancelled, waits for the others to give it up
 * as well. They are there at once if they wait in it. */
#define GRACE_MS 100

/* ---- attempts --------------------------------------------------------------------------------- */

static int wrap(ft_member *m, serry_member *made, serry_error *error)
{
    ft_carrier *carrier = ft_carrier_of(m);
    serry_job job = m->job;

    job.rank = carrier->backend->rank(made);
    job.size = carrier->backend->size(made);
    if (job.policy == SERRY_WAIT)
        job.policy = SERRY_REPORT;
    ft_carrier *c = ft_carrier_new(carrier->backend, made, carrier->at, error);
    if (c == NULL)
        return error->error;
    ft_member *part = ft_member_new(m->table, &job, m, error);
    if (part == NULL) {
        ft_carrier_close(c);
        return error->error;
    }
    part->variant = m->variant;
    part->door = c;
    atomic_store(&part->carrier, c);
    ft_aim(part);
    *m->operation.made = (serry_member *)(void *)part;
    return SERRY_OK;
}

static int call(ft_member *m, serry_error *error)
{
    const ft_operation *o = &m->operation;
    const ft_carrier *c = ft_carrier_of(m);
    serry_member *made = NULL;
    int rc;

    switch (o->what) {
    case FT_RUN:
        return c->backend->run(c->member, &o->call, &m->limit, error);
    case FT_AGREE:
        return c->backend->agree(c->member, o->op, o->value, &m->limit, error);
    case FT_SPLIT:
        rc = c->backend->split(c->member, o->colour, o->key, &m->limit, &made, error);
        break;
    case FT_SHRINK:
    default:
        rc = c->backend->shrink(c->member, &m->limit, &made, error);
    }
    return rc == SERRY_OK && made != NULL ? wrap(m, made, error) : rc;
}

/* The operation itself, unless something comes first. */
static int look_and_call(ft_member *m, serry_error *error)
{
    int rc = ft_has_moved(m) ? ft_look(m, error) : SERRY_OK;

    return rc == SERRY_OK ? call(m, error) : rc;
}

static bool is_pause(int rc)
{
    return rc == SERRY_ERR_TIMEOUT || rc == SERRY_ERR_CANCELLED;
}

/* It waits for the others to give the operation up as well. */
static bool gives_up(const ft_member *m)
{
    return m->stage == FT_STAGE_VOTE && ft_votes_to_abort(m) && !m->told && !m->paying;
}

/* *met: it was a part of a meeting. */
static int attempt(ft_member *m, bool *met, serry_error *error)
{
    const serry_limit grace = {GRACE_MS, NULL, NULL, m->limit.poll};
    bool goes_on = m->polled;
    bool in_grace, pays = m->stage == FT_STAGE_NONE && !m->open && !goes_on && m->debts > 0;
    int rc;

    m->polled = false;
    if (pays) {
        m->paying = true;
        ft_vote(m, SERRY_ABORT);
    }
    in_grace = gives_up(m) && is_pause(m->error.error);
    *met = m->stage != FT_STAGE_NONE;
    if (!goes_on)
        ft_limit_begin(m);
    do {
        rc = m->stage == FT_STAGE_NONE ? look_and_call(m, error)
                                       : ft_meet(m, in_grace ? &grace : &m->limit, error);
    } while (rc == SERRY_ERR_TIMEOUT && !in_grace && ft_limit_goes_on(m));
    m->polled = rc == SERRY_ERR_AGAIN;
    if (!m->polled)
        ft_limit_end(m);
    return rc;
}

/* ---- the end of an operation ------------------------------------------------------------------ */

static int end(ft_member *m, int rc, bool open)
{
    if (m->failed)
        serry_recovery_end(m->recovery, ft_id(m), m->operation.name);
    m->failed = m->voted = m->finishing = m->looked = false;
    m->open = open;
    return rc;
}

static const char *strategy_name(serry_strategy strategy)
{
    static const char *const names[SERRY_STRATEGIES] = {"RETRY", "FALLBACK_BACKEND",
                                                        "DIFFERENT_ALGORITHM", "ABORT"};
    return names[strategy];
}

/* The record as the carrier has filled it, in the terms of this operation. It goes into the
 * history. */
static serry_decision record(ft_member *m, int rc, serry_error *error)
{
    serry_strategy strategy = serry_recovery_strategy(m->recovery, rc);
    serry_decision decision;

    if (error->error != rc) {
        serry_error_begin(error, m->operation.name, 0, m->job.rank);
        serry_fail(error, rc, "%s: %s", m->operation.name, serry_strerror(rc));
    }
    error->operation = m->operation.name;
    error->operation_id = ft_id(m);
    error->rank = m->job.rank;
    serry_error_context_set(error, "RetryCount", "%" PRId64, m->attempts);
    serry_error_context_set(error, "Backend", "%s", ft_carrier_of(m)->backend->name);
    serry_error_context_set(error, "Strategy", "%s", strategy_name(strategy));
    serry_recovery_handle(m->recovery, error, &decision);
    m->attempts = decision.attempts;
    m->failed = true;
    return decision;
}

/* All give the operation up; this rank may have had no error of its own, or another one. */
static int aborted(ft_member *m, serry_error *error)
{
    int code = ft_aborted_code(m), by = ft_aborted_by(m);

    if (m->vote != 0 && m->error.error == code) {
        *error = m->error;
        return end(m, code, false);
    }
    serry_error_begin(error, m->operation.name, ft_id(m), m->job.rank);
    if (by >= 0) {
        error->peer = by;
        serry_rank_set_add(&error->ranks, by);
        serry_fail(error, code, "rank %d had an error, and all ranks have given %s up: %s", by,
                   m->operation.name, serry_strerror(code));
    } else {
        serry_fail(error, code, "several ranks had errors, and all have given %s up: %s",
                   m->operation.name, serry_strerror(code));
    }
    record(m, code, error);
    return end(m, code, false);
}

/* The caller gets the error although not all have come to the meeting. */
static int tell(ft_member *m, serry_error *error)
{
    serry_error_context_set(error, "Meeting", "open");
    m->error = *error;
    end(m, error->error, false);
    if (m->told || m->paying) {
        m->debts++;
    } else {
        m->told = true;
        m->old = m->operation;
        m->old_id = ft_id(m);
    }
    m->open = m->told;
    return error->error;
}

/* ---- what follows an error -------------------------------------------------------------------- */

/* Comes to all ranks at the same operation. */
static bool is_common(int rc)
{
    return rc == SERRY_ERR_RANK_MISMATCH || rc == SERRY_ERR_RANK_FAILED ||
           rc == SERRY_ERR_RANK_JOINED;
}

/* Is the error a matter for all ranks? `retry`: this rank has attempts left. */
static bool concerns_all(const ft_member *m, int rc, serry_strategy strategy)
{
    if (m->operation.what == FT_AGREE || m->operation.what == FT_SHRINK)
        return false;
    return strategy != SERRY_ABORT ||
           !(is_common(rc) || rc == SERRY_ERR_INVALID || rc == SERRY_ERR_PENDING);
}

static bool is_final(int rc)
{
    return rc == SERRY_ERR_REVOKED || serry_error_scope(rc) == SERRY_SCOPE_LOST;
}

/* A meeting has ended with an error. */
static int meeting_failed(ft_member *m, int rc, serry_error *error)
{
    if (m->vote != 0 && !m->told && !m->paying && !is_final(rc))
        *error = m->error; /* why it was called says more */
    else
        record(m, rc, error);
    m->told = m->paying = false;
    m->debts = 0;
    m->vote = 0;
    return end(m, error->error, is_pause(error->error));
}

/* Returns FT_AGAIN after a pause of *delay_ms, or what the caller gets. */
static COLD int react(ft_member *m, int rc, int *delay_ms, serry_error *error)
{
    bool in_meeting = m->stage != FT_STAGE_NONE;

    *delay_ms = 0;
    if (gives_up(m)) {
        *error = m->error;
        return tell(m, error);
    }
    serry_decision decision = record(m, rc, error);
    if (is_final(rc))
        return end(m, rc, false);
    if (decision.retry && (in_meeting || decision.strategy == SERRY_RETRY)) {
        *delay_ms = decision.delay_ms;
        return FT_AGAIN;
    }
    if (in_meeting)
        return tell(m, error);
    serry_strategy wanted = decision.retry ? decision.strategy : SERRY_ABORT;
    if (!concerns_all(m, rc, decision.strategy) || (wanted == SERRY_ABORT && m->voted))
        return end(m, rc, is_pause(rc));
    m->error = *error;
    ft_vote(m, wanted);
    return FT_AGAIN;
}

/* ---- from beginning to end -------------------------------------------------------------------- */

static bool is_same(const ft_operation *a, const ft_operation *b)
{
    return a->what == b->what && a->call.kind == b->call.kind && a->call.dtype == b->call.dtype &&
           a->call.op == b->call.op && a->call.root == b->call.root &&
           a->call.count == b->call.count && a->call.send == b->call.send &&
           a->call.recv == b->call.recv && a->colour == b->colour && a->key == b->key &&
           a->op == b->op && a->value == b->value;
}

static int pending(ft_member *m, serry_error *error)
{
    serry_error_begin(error, m->operation.name, ft_id(m), m->job.rank);
    return serry_fail(error, SERRY_ERR_PENDING,
                      "an earlier %s is still open; repeat that call, with the same buffers, until "
                      "it ends",
                      m->operation.name);
}

/* The meeting was about the operation that the caller was told of. */
static int settle_old(ft_member *m, int rc, serry_error *error)
{
    m->told = m->open = false;
    if (rc == FT_ABORTED)
        return FT_AGAIN;
    end(m, rc, true);
    atomic_store_explicit(&m->operation_id, m->old_id, memory_order_relaxed);
    if (is_same(&m->old, &m->operation))
        return FT_AGAIN;
    m->operation = m->old;
    return pending(m, error);
}

/* A meeting has ended. FT_AGAIN: the operation can be tried, or the next meeting follows. */
static int settle(ft_member *m, int rc, serry_error *error)
{
    bool finishes = rc == FT_FINISH;

    if (m->told) {
        rc = settle_old(m, rc, error);
    } else if (m->paying) {
        m->paying = false;
        m->debts--;
        rc = FT_AGAIN;
    } else if (rc == FT_ABORTED) {
        rc = aborted(m, error);
    } else {
        m->voted |= ft_votes_to_abort(m); /* others had it all but completed, so it completes */
        rc = FT_AGAIN;
    }
    m->finishing = finishes;
    m->vote = 0;
    return rc;
}

/* What follows an attempt that has returned `rc`: FT_AGAIN after a pause, or what the caller
 * gets. */
static int follow(ft_member *m, int rc, bool met, int *delay_ms, serry_error *error)
{
    if (met && m->stage == FT_STAGE_NONE)
        return rc < 0 ? meeting_failed(m, rc, error) : settle(m, rc, error);
    if (rc == SERRY_OK)
        return end(m, SERRY_OK, false);
    if (rc == SERRY_ERR_MEETING && !met) {
        m->stage = FT_STAGE_VOTE;
        m->vote = 0;
        return FT_AGAIN;
    }
    if (rc == SERRY_ERR_RANK_FAILED && !met && ft_waits_for_replacement(m)) {
        m->finishing = false;
        return FT_AGAIN;
    }
    return react(m, rc, delay_ms, error);
}

static int cancelled(ft_member *m, serry_error *error)
{
    return serry_error_make(error, SERRY_ERR_CANCELLED, m->operation.name, ft_id(m), m->job.rank,
                            "%s was cancelled between two attempts", m->operation.name);
}

/* The pause that is due, or under way. FT_AGAIN: it is over, or there was none. */
static int pause_between(ft_member *m, int delay_ms, serry_error *error)
{
    int rc = m->pause_ns != 0 ? ft_limit_pause_on(m) : ft_limit_pause(m, delay_ms);

    m->polled = rc == SERRY_ERR_AGAIN;
    return rc == SERRY_OK ? FT_AGAIN : rc == SERRY_ERR_AGAIN ? rc : cancelled(m, error);
}

/* The operation to its end, or until it would have to wait where it is polled. `rc` is what an attempt has
 * returned; FT_AGAIN: none has been made. */
static COLD int try(ft_member *m, int rc, serry_error *error)
{
    if (m->pause_ns != 0)
        rc = pause_between(m, 0, error);
    for (;;) {
        int delay_ms = 0;
        bool met = false;

        if (rc == FT_AGAIN)
            rc = attempt(m, &met, error);
        if (rc == SERRY_ERR_AGAIN)
            return rc;
        rc = follow(m, rc, met, &delay_ms, error);
        if (rc != FT_AGAIN)
            return rc;
        rc = pause_between(m, delay_ms, error);
    }
}

/* Is it another request than the one that was polled last, which was given up? */
static bool begins(const ft_member *m)
{
    return m->limit.poll == NULL || m->limit.poll->begins;
}

/* An operation that is open keeps its number; what it has made goes where this call wants it. */
static int go_on(ft_member *m, const ft_operation *operation, int rc, serry_error *error)
{
    if ((m->open || m->polled) && !m->told && !is_same(&m->operation, operation))
        return pending(m, error);
    if (m->polled && begins(m)) { /* the attempt stays open; its time is over */
        ft_limit_end(m);
        m->polled = false;
        m->pause_ns = 0;
        m->open = true;
    }
    m->operation = *operation;
    if (!m->polled)
        m->attempts = 0;
    rc = try(m, rc, error);
    ft_aim(m);
    return rc;
}

int ft_start(ft_member *m, const ft_operation *operation, serry_error *error)
{
    return go_on(m, operation, FT_AGAIN, error);
}

int ft_run_slowly(ft_member *m, const serry_call *call, int rc, serry_error *error)
{
    ft_operation operation = {.what = FT_RUN, .name = serry_kind_name(call->kind), .call = *call};

    if (rc == SERRY_ERR_AGAIN) {
        m->operation = operation;
        m->attempts = 0;
        m->polled = true;
        ft_aim(m);
        return rc;
    }
    if (rc != FT_AGAIN)
        ft_limit_end(m);
    return rc == SERRY_OK ? SERRY_OK : go_on(m, &operation, rc, error);
}
