/* ft_limit.c - the timeout of an attempt. Starting one costs an allocation and a lock, so it is
 * done when the carrier asks for the token, which is when it is about to sleep.
 *
 * A caller may have a token of its own (serry_set_token). Its cancellation is passed on by a watch;
 * its expiry, which calls nobody, by the plain timeout of the limit. */
#include "ft_member.h"

#include "token.h"

/* For want of memory: an attempt that has to wait ends at once rather than never. */
static serry_token expired = {
    .deadline_ns = TOKEN_EXPIRED, .references = 1, .lock = PTHREAD_MUTEX_INITIALIZER};

static int timeout_of(const ft_member *m)
{
    int timeout_ms =
        m->table->config.timeout_ms != 0 ? m->table->config.timeout_ms : m->given->timeout_ms;

    return timeout_ms == 0 ? 1 : timeout_ms; /* there, 0 is for ever */
}

static void cancel_own(void *member)
{
    ft_member *m = member;

    serry_timeouts_cancel(m->timeouts, ft_id(m));
}

static serry_token *start(ft_member *m)
{
    if (serry_timeouts_start(m->timeouts, ft_id(m), timeout_of(m), &m->token) != SERRY_OK)
        return &expired;
    const serry_interest *interest = m->limit.poll;
    if (interest != NULL && interest->rouse != NULL)
        m->own_watching = serry_token_watch(m->token, &m->own_watch, interest->rouse,
                                            interest->sleeper) == SERRY_TOKEN_RUNNING;
    if (m->outer == NULL)
        return m->token;
    m->watching = serry_token_watch(m->outer, &m->watch, cancel_own, m) == SERRY_TOKEN_RUNNING;
    return m->watching ? m->token : m->outer;
}

serry_token *ft_limit_token(void *member)
{
    ft_member *m = member;

    if (m->asked == NULL)
        m->asked = start(m);
    return m->asked;
}

/* Rounded up, so that the wait does not end before its time. */
static int ms_until(uint64_t deadline_ns)
{
    uint64_t now_ns = serry_token_now_ns();

    if (deadline_ns == SERRY_NO_DEADLINE)
        return -1;
    if (deadline_ns <= now_ns)
        return 0;
    uint64_t ms = (deadline_ns - now_ns + 999999) / 1000000;
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

void ft_limit_begin(ft_member *m)
{
    m->outer = m->given->token != NULL ? m->given->token(m->given->argument) : NULL;
    if (m->outer != NULL)
        serry_token_retain(m->outer); /* a request that is polled may end before this does */
    m->limit.timeout_ms = m->outer != NULL ? ms_until(serry_token_deadline(m->outer)) : -1;
}

void ft_limit_end(ft_member *m)
{
    if (m->watching)
        serry_token_unwatch(m->outer, &m->watch);
    m->watching = false;
    if (m->own_watching)
        serry_token_unwatch(m->token, &m->own_watch);
    m->own_watching = false;
    if (m->token != NULL)
        serry_timeouts_end(m->timeouts, ft_id(m));
    serry_token_release(&m->token);
    serry_token_release(&m->outer);
    m->asked = NULL;
    m->limit.timeout_ms = -1;
}

bool ft_limit_goes_on(const ft_member *m)
{
    return m->outer != NULL && serry_token_state(m->outer) == SERRY_TOKEN_RUNNING &&
           (m->asked == NULL || serry_token_state(m->asked) == SERRY_TOKEN_RUNNING);
}

/* One poll of a pause. */
static int poll_pause(ft_member *m)
{
    serry_interest *interest = m->limit.poll;
    serry_token *token = ft_limit_token(m);
    serry_token_status status = serry_token_state(token);
    uint64_t deadline_ns = serry_token_deadline(token);

    if (status != SERRY_TOKEN_RUNNING || serry_token_now_ns() >= m->pause_ns)
        return status == SERRY_TOKEN_CANCELLED ? SERRY_ERR_CANCELLED : SERRY_OK;
    *interest = (serry_interest){.sleep = interest->sleep,
                                 .at_ns = m->pause_ns < deadline_ns ? m->pause_ns : deadline_ns};
    return SERRY_ERR_AGAIN;
}

int ft_limit_pause_on(ft_member *m)
{
    int rc;

    if (m->limit.poll != NULL) {
        rc = poll_pause(m);
    } else {
        uint64_t now_ns = serry_token_now_ns();
        int left_ms = m->pause_ns > now_ns ? (int)((m->pause_ns - now_ns + 999999) / 1000000) : 0;
        rc = serry_token_sleep(ft_limit_token(m), left_ms) == SERRY_TOKEN_CANCELLED
                 ? SERRY_ERR_CANCELLED
                 : SERRY_OK;
    }
    if (rc == SERRY_ERR_AGAIN)
        return rc;
    m->pause_ns = 0;
    ft_limit_end(m);
    return rc;
}

int ft_limit_pause(ft_member *m, int delay_ms)
{
    if (delay_ms <= 0)
        return SERRY_OK;
    m->pause_ns = serry_token_now_ns() + (uint64_t)delay_ms * 1000000;
    ft_limit_begin(m);
    return ft_limit_pause_on(m);
}
