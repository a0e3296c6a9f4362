/* faulty_rules.c - which rules of a faulty backend act now, and what they do. */
#include "backend/faulty.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "record.h"
#include "token.h"

#define NS_PER_MS UINT64_C(1000000)
#define NAP_MS 1000

/* A number in [0, 1) that follows from these four alone: the finaliser of splitmix64. */
static double draw(uint64_t seed, int rank, uint64_t attempt, size_t rule)
{
    const uint64_t parts[] = {(uint64_t)rank, attempt, rule};
    uint64_t z = seed;

    for (size_t i = 0; i < 3; i++) {
        z += parts[i] + UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        z ^= z >> 31;
    }
    return (double)(z >> 11) * 0x1p-53;
}

static bool applies(const faulty_rule *rule, const faulty_moment *moment)
{
    if (rule->kind[0] == '\0' ? moment->named_only : strcmp(rule->kind, moment->kind) != 0)
        return false;
    return (rule->rank < 0 || rule->rank == moment->rank) &&
           (rule->op == 0 || rule->op == moment->op) &&
           (rule->times == 0 || atomic_load(&rule->fired[moment->rank]) < rule->times);
}

/* For ever where ms < 0. SERRY_OK after that time, else what has ended the waiting. */
static int hold_up(const serry_limit *limit, int ms)
{
    serry_token *token = limit->token == NULL ? NULL : limit->token(limit->argument);
    uint64_t now = serry_token_now_ns();
    uint64_t end = ms < 0 ? UINT64_MAX : now + (uint64_t)ms * NS_PER_MS;
    uint64_t deadline =
        limit->timeout_ms < 0 ? UINT64_MAX : now + (uint64_t)limit->timeout_ms * NS_PER_MS;
    uint64_t until = end < deadline ? end : deadline;

    while (now < until) {
        uint64_t left = (until - now - 1) / NS_PER_MS + 1;
        int nap = left < NAP_MS ? (int)left : NAP_MS;
        if (token == NULL) {
            nanosleep(&(struct timespec){nap / 1000, nap % 1000 * (long)NS_PER_MS}, NULL);
        } else {
            serry_token_status status = serry_token_sleep(token, nap);
            if (status != SERRY_TOKEN_RUNNING)
                return (int)status;
        }
        now = serry_token_now_ns();
    }
    return end <= deadline ? SERRY_OK : SERRY_ERR_TIMEOUT;
}

/* The same for a call that is polled. */
static int hold_up_polled(const serry_limit *limit, faulty_hold *hold, int ms)
{
    serry_token *token = limit->token == NULL ? NULL : limit->token(limit->argument);
    serry_token_status status = token == NULL ? SERRY_TOKEN_RUNNING : serry_token_state(token);
    uint64_t now_ns = serry_token_now_ns();

    if (!hold->active) {
        hold->active = true;
        hold->end_ns = ms < 0 ? UINT64_MAX : now_ns + (uint64_t)ms * NS_PER_MS;
        hold->deadline_ns =
            limit->timeout_ms < 0 ? UINT64_MAX : now_ns + (uint64_t)limit->timeout_ms * NS_PER_MS;
    }
    uint64_t until_ns = hold->end_ns < hold->deadline_ns ? hold->end_ns : hold->deadline_ns;
    if (status == SERRY_TOKEN_RUNNING && now_ns < until_ns) {
        uint64_t token_ns = token == NULL ? UINT64_MAX : serry_token_deadline(token);
        uint64_t look_ns =
            now_ns + NAP_MS * NS_PER_MS; /* a token that is cancelled rouses nobody here */
        until_ns = token_ns < until_ns ? token_ns : until_ns;
        *limit->poll = (serry_interest){.sleep = limit->poll->sleep,
                                        .at_ns = look_ns < until_ns ? look_ns : until_ns};
        return SERRY_ERR_AGAIN;
    }
    hold->active = false;
    if (status != SERRY_TOKEN_RUNNING)
        return (int)status;
    return hold->end_ns <= hold->deadline_ns ? SERRY_OK : SERRY_ERR_TIMEOUT;
}

static int hold(const faulty_moment *moment, int ms)
{
    return moment->limit->poll != NULL ? hold_up_polled(moment->limit, moment->hold, ms)
                                       : hold_up(moment->limit, ms);
}

static int fail(const faulty_rule *rule, const faulty_moment *moment, int code, serry_error *error)
{
    serry_error_begin(error, moment->kind, moment->op, moment->rank);
    serry_fail(error, code, "made on purpose, by the rule \"%s\"", rule->text);
    if (code == SERRY_ERR_SYSTEM)
        error->system_error = EIO;
    return code;
}

static int act(const faulty_rule *rule, const faulty_moment *moment, bool *corrupt,
               serry_error *error)
{
    int rc = SERRY_OK;

    switch (rule->fault) {
    case SERRY_FAULT_FAIL:
        rc = rule->value;
        break;
    case SERRY_FAULT_DELAY:
        rc = hold(moment, rule->value);
        break;
    case SERRY_FAULT_HANG:
        rc = hold(moment, -1);
        break;
    case SERRY_FAULT_CORRUPT:
        *corrupt = true;
        break;
    case SERRY_FAULT_DROP:
        return FAULTY_DROPPED;
    case SERRY_FAULT_KILL:
    default:
        raise(SIGKILL);
    }
    return rc == SERRY_OK || rc == SERRY_ERR_AGAIN ? rc : fail(rule, moment, rc, error);
}

int faulty_strike(faulty_table *table, const faulty_moment *moment, bool *corrupt,
                  serry_error *error)
{
    faulty_hold *held = moment->limit->poll != NULL ? moment->hold : NULL;
    bool goes_on = held != NULL && held->active;
    uint64_t attempt =
        goes_on ? held->attempt : atomic_fetch_add(&table->attempts[moment->rank], 1);

    for (size_t i = goes_on ? held->rule : 0; i < table->rules; i++) {
        faulty_rule *rule = &table->rule[i];
        if (!goes_on &&
            (!applies(rule, moment) || draw(table->seed, moment->rank, attempt, i) >= rule->chance))
            continue;
        if (!goes_on)
            atomic_fetch_add(&rule->fired[moment->rank], 1);
        goes_on = false;
        int rc = act(rule, moment, corrupt, error);
        if (rc == SERRY_ERR_AGAIN) {
            held->rule = i;
            held->attempt = attempt;
        }
        if (rc != SERRY_OK)
            return rc;
    }
    return SERRY_OK;
}
