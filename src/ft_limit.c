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
    m->limit.timeout_ms = m->outer != NULL ? ms_until(serry_token_deadline(m->outer)) : -1;
}

void ft_limit_end(ft_member *m)
{
    if (m->watching)
        serry_token_unwatch(m->outer, &m->watch);
    m->watching = false;
    if (m->token != NULL)
        serry_timeouts_end(m->timeouts, ft_id(m));
    serry_token_release(&m->token);
    m->asked = NULL;
    m->outer = NULL;
    m->limit.timeout_ms = -1;
}

bool ft_limit_goes_on(const ft_member *m)
{
    return m->outer != NULL && serry_token_state(m->outer) == SERRY_TOKEN_RUNNING &&
           (m->asked == NULL || serry_token_state(m->asked) == SERRY_TOKEN_RUNNING);
}

bool ft_limit_pause(ft_member *m, int delay_ms)
{
    if (delay_ms <= 0)
        return true;
    ft_limit_begin(m);
    serry_token_status status = serry_token_sleep(ft_limit_token(m), delay_ms);
    ft_limit_end(m);
    return status != SERRY_TOKEN_CANCELLED;
}
