/* ft_admit.c - replacements, once the job has moved to another backend than its first: what a member
 * does before an operation. ft_meet.c says how they come in.
 *
 * The backends moved to know nothing of replacements. So what a policy does when one comes, and that
 * SERRY_WAIT waits for one, is done here. Backends are told SERRY_REPORT where it is SERRY_WAIT: an
 * operation that finds ranks missing then ends alike on all, and all wait before they make it again. */
#include "ft_member.h"

#include "record.h"
#include "token.h"

enum { NAP_MS = 5 }; /* between two looks at the first backend, where nobody wakes this rank */

serry_policy ft_policy_there(serry_policy policy)
{
    return policy == SERRY_WAIT ? SERRY_REPORT : policy;
}

bool ft_newcomer_calls(const ft_member *m)
{
    const ft_carrier *door = m->door;

    return ft_has_moved(m) && door->backend->told != NULL && !m->shut &&
           m->job.policy != SERRY_REVOKE &&
           door->backend->called(door->member) == SERRY_ERR_MEETING;
}

/* As of the last operation, so the same on all. */
static bool are_missing(const ft_member *m)
{
    const ft_carrier *c = ft_carrier_of(m);

    return c->backend->live(c->member) < m->job.size;
}

bool ft_waits_for_replacement(const ft_member *m)
{
    return ft_has_moved(m) && m->job.policy == SERRY_WAIT && are_missing(m);
}

bool ft_must_look(const ft_member *m)
{
    return m->news || ft_waits_for_replacement(m) || ft_newcomer_calls(m);
}

/* ---- news ------------------------------------------------------------------------------------- */

static bool is_empty(const serry_rank_set *set)
{
    return serry_rank_set_count(set) == 0;
}

void ft_admitted(ft_member *m)
{
    const serry_rank_set *sets = m->move.sets;

    m->joined = m->lost = (serry_rank_set){{0}};
    for (size_t i = 0; i < sizeof(m->lost.bits) / sizeof(m->lost.bits[0]); i++) {
        m->joined.bits[i] = sets[FT_SET_JOINED].bits[i] & ~sets[FT_SET_ABSENT].bits[i];
        m->lost.bits[i] = sets[FT_SET_BEFORE].bits[i] & sets[FT_SET_ABSENT].bits[i];
    }
    m->epoch = m->move.epoch + !is_empty(&m->joined) + !is_empty(&m->lost);
    if (m->move.newcomer)
        m->joined = (serry_rank_set){{0}};
    m->news = !is_empty(&m->joined) || !is_empty(&m->lost);
}

static int tell(ft_member *m, serry_rank_set *ranks, int code, serry_error *error)
{
    char text[128];
    int first = 0;

    while (!serry_rank_set_has(ranks, first))
        first++;
    serry_error_begin(error, m->operation.name, ft_id(m), m->job.rank);
    error->peer = first;
    error->ranks = *ranks;
    *ranks = (serry_rank_set){{0}};
    m->news = !is_empty(&m->lost);
    serry_rank_set_text(&error->ranks, text, sizeof(text));
    if (code == SERRY_ERR_RANK_JOINED)
        return serry_fail(error, code,
                          "a replacement of rank %s has joined; nothing was done, and the next "
                          "operation is one with it",
                          text);
    return serry_fail(error, code,
                      "rank %s left or failed before %s; nothing was done, and the next operation "
                      "goes on among the others",
                      text, m->operation.name);
}

/* By policy, as a backend does it that knows of replacements. */
static int tell_news(ft_member *m, serry_error *error)
{
    ft_carrier *c = ft_carrier_of(m);

    if (m->job.policy == SERRY_REPORT && !is_empty(&m->joined))
        return tell(m, &m->joined, SERRY_ERR_RANK_JOINED, error);
    if (m->job.policy == SERRY_REPORT && !is_empty(&m->lost))
        return tell(m, &m->lost, SERRY_ERR_RANK_FAILED, error);
    m->news = false;
    if (m->job.policy == SERRY_REVOKE && !is_empty(&m->lost))
        c->backend->revoke(c->member, error);
    return SERRY_OK;
}

/* ---- waiting ---------------------------------------------------------------------------------- */

static int out_of_time(const ft_member *m, int code, serry_error *error)
{
    const ft_carrier *c = ft_carrier_of(m);
    char text[128];

    serry_error_begin(error, m->operation.name, ft_id(m), m->job.rank);
    if (code == SERRY_ERR_CANCELLED)
        return serry_fail(error, code,
                          "%s was cancelled while it waited for a replacement; it stays open, and "
                          "the same call again goes on waiting",
                          m->operation.name);
    c->backend->failed(c->member, &error->ranks);
    for (error->peer = 0; !serry_rank_set_has(&error->ranks, error->peer);)
        error->peer++;
    return serry_fail(error, code,
                      "rank %s has failed, and no replacement came to %s in time; the operation "
                      "stays open, and the same call again goes on waiting",
                      serry_rank_set_text(&error->ranks, text, sizeof(text)), m->operation.name);
}

/* SERRY_OK: the time is not over. */
static int check_time(ft_member *m)
{
    int code = (int)serry_token_state(ft_limit_token(m));

    return code == SERRY_OK && m->outer != NULL ? (int)serry_token_state(m->outer) : code;
}

static int nap(ft_member *m)
{
    serry_interest *interest = m->limit.poll;

    if (interest == NULL) {
        serry_token_sleep(ft_limit_token(m), NAP_MS);
        return SERRY_OK;
    }
    *interest = (serry_interest){.sleep = interest->sleep,
                                 .at_ns = serry_token_now_ns() + NAP_MS * UINT64_C(1000000)};
    return SERRY_ERR_AGAIN;
}

/* Until a replacement comes, or somebody calls for another reason. */
static int await_replacement(ft_member *m, serry_error *error)
{
    const ft_carrier *c = ft_carrier_of(m);
    int rc = SERRY_OK;

    while (rc == SERRY_OK) {
        int called = c->backend->called == NULL ? SERRY_OK : c->backend->called(c->member);
        if (called == SERRY_ERR_REVOKED) /* as the operation itself will tell */
            return SERRY_OK;
        if (called == SERRY_ERR_MEETING || ft_newcomer_calls(m))
            return SERRY_ERR_MEETING;
        rc = check_time(m);
        if (rc != SERRY_OK)
            return out_of_time(m, rc, error);
        rc = nap(m);
    }
    return rc;
}

/* What others have all but completed is not held up. But this rank may be ahead of them, and what it is
 * about to begin must wait all the same. */
int ft_look(ft_member *m, serry_error *error)
{
    int rc = SERRY_OK;

    if (m->operation.what == FT_AGREE || m->operation.what == FT_SHRINK)
        return SERRY_OK;
    if (!m->finishing && m->news)
        rc = tell_news(m, error);
    if (rc == SERRY_OK && !m->finishing && !m->looked && ft_newcomer_calls(m))
        return SERRY_ERR_MEETING;
    return rc == SERRY_OK && ft_waits_for_replacement(m) ? await_replacement(m, error) : rc;
}
