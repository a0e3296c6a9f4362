/* recovery.c - what to do about an error, and what went wrong so far.
 *
 * Three separate memories, all of fixed size and under one lock: the attempts of operations that
 * have failed and not ended, the ring of the last records, and the counters. */
#include <serry/recovery.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "record.h"

#define UNSET SERRY_STRATEGIES
#define OTHER_KINDS (SERRY_RECOVERY_KINDS - 1) /* the place of all kinds that came too late */

/* An operation that has failed and not ended. */
typedef struct failing {
    uint64_t operation_id;
    const char *operation;
    int64_t attempts;
    uint64_t latest; /* number of its last error, of all errors */
} failing;

typedef struct counters {
    uint64_t by_severity[SERRY_SEVERITIES];
    uint64_t by_row[SERRY_ERROR_CODES + 1]; /* as serry_error_row counts them */
    struct {
        const char *operation; /* NULL: the place is free, or OTHER_KINDS */
        uint64_t count;
    } by_operation[SERRY_RECOVERY_KINDS];
} counters;

struct serry_recovery {
    serry_recovery_config config;
    pthread_mutex_t lock; /* of all that follows */
    serry_strategy of_row[SERRY_ERROR_CODES], of_class[SERRY_ERROR_CLASSES];
    failing failing[SERRY_RECOVERY_OPEN]; /* the first `open`, in no order */
    size_t open;
    uint64_t handled; /* errors so far; not forgotten by clear */
    serry_error *ring;
    size_t kept, next; /* records in the ring; the place of the next one */
    counters counters;
};

/* ---- life --------------------------------------------------------------------------------- */

static bool is_valid(const serry_recovery_config *config)
{
    /* a NaN is in no range */
    return config->bytes == sizeof(*config) && config->max_retries >= 0 &&
           config->retry_delay_ms >= 0 && config->backoff >= 1.0 && config->max_delay_ms >= 0 &&
           config->jitter >= 0.0 && config->jitter <= 1.0;
}

static void set_default_strategies(serry_recovery *recovery)
{
    for (size_t i = 0; i < SERRY_ERROR_CODES; i++)
        recovery->of_row[i] = UNSET;
    for (size_t i = 0; i < SERRY_ERROR_CLASSES; i++)
        recovery->of_class[i] = UNSET;
    recovery->of_class[SERRY_CLASS_TIMEOUT] = SERRY_RETRY;
    recovery->of_class[SERRY_CLASS_MISMATCH] = SERRY_ABORT;
    recovery->of_class[SERRY_CLASS_IO] = SERRY_RETRY;
    recovery->of_class[SERRY_CLASS_ANY] = SERRY_ABORT;
}

int serry_recovery_create(const serry_recovery_config *config, serry_recovery **recovery)
{
    static const serry_recovery_config defaults = SERRY_RECOVERY_CONFIG_INIT;
    *recovery = NULL;
    if (config == NULL)
        config = &defaults;
    if (!is_valid(config))
        return SERRY_ERR_INVALID;
    if (config->history > SIZE_MAX / sizeof(serry_error))
        return SERRY_ERR_NO_SPACE;

    serry_recovery *new = calloc(1, sizeof(*new));
    if (new == NULL)
        return SERRY_ERR_NO_SPACE;
    if (config->history > 0) {
        new->ring = calloc(config->history, sizeof(serry_error));
        if (new->ring == NULL) {
            free(new);
            return SERRY_ERR_NO_SPACE;
        }
    }
    new->config = *config;
    set_default_strategies(new);
    pthread_mutex_init(&new->lock, NULL);
    *recovery = new;
    return SERRY_OK;
}

void serry_recovery_destroy(serry_recovery **recovery)
{
    serry_recovery *old = *recovery;
    *recovery = NULL;
    if (old == NULL)
        return;
    pthread_mutex_destroy(&old->lock);
    free(old->ring);
    free(old);
}

int serry_recovery_max_retries(const serry_recovery *recovery)
{
    return recovery->config.max_retries;
}

/* ---- strategies --------------------------------------------------------------------------- */

static bool is_strategy(serry_strategy strategy)
{
    return (unsigned)strategy < SERRY_STRATEGIES;
}

int serry_recovery_set_strategy(serry_recovery *recovery, int error, serry_strategy strategy)
{
    size_t row = serry_error_row(error);
    if (row == SERRY_ERROR_CODES || !is_strategy(strategy))
        return SERRY_ERR_INVALID;

    pthread_mutex_lock(&recovery->lock);
    recovery->of_row[row] = strategy;
    pthread_mutex_unlock(&recovery->lock);
    return SERRY_OK;
}

int serry_recovery_set_class_strategy(serry_recovery *recovery, serry_error_class error_class,
                                      serry_strategy strategy)
{
    if ((unsigned)error_class >= SERRY_ERROR_CLASSES || !is_strategy(strategy))
        return SERRY_ERR_INVALID;

    pthread_mutex_lock(&recovery->lock);
    recovery->of_class[error_class] = strategy;
    pthread_mutex_unlock(&recovery->lock);
    return SERRY_OK;
}

/* Under the lock. */
static serry_strategy strategy_for(const serry_recovery *recovery, int error)
{
    size_t row = serry_error_row(error);
    serry_error_class error_class = serry_error_class_of(error);

    if (row < SERRY_ERROR_CODES && recovery->of_row[row] != UNSET)
        return recovery->of_row[row];
    if (recovery->of_class[error_class] != UNSET)
        return recovery->of_class[error_class];
    return recovery->of_class[SERRY_CLASS_ANY];
}

serry_strategy serry_recovery_strategy(serry_recovery *recovery, int error)
{
    pthread_mutex_lock(&recovery->lock);
    serry_strategy strategy = strategy_for(recovery, error);
    pthread_mutex_unlock(&recovery->lock);
    return strategy;
}

/* ---- attempts ----------------------------------------------------------------------------- */

static failing *find_failing(serry_recovery *recovery, uint64_t operation_id, const char *operation)
{
    for (size_t i = 0; i < recovery->open; i++) {
        failing *f = &recovery->failing[i];
        if (f->operation_id == operation_id && strcmp(f->operation, operation) == 0)
            return f;
    }
    return NULL;
}

/* A place for one more; where all are taken, that of the operation that has been quiet longest. */
static failing *new_failing(serry_recovery *recovery)
{
    if (recovery->open < SERRY_RECOVERY_OPEN)
        return &recovery->failing[recovery->open++];
    failing *quiet = &recovery->failing[0];
    for (size_t i = 1; i < SERRY_RECOVERY_OPEN; i++)
        if (recovery->failing[i].latest < quiet->latest)
            quiet = &recovery->failing[i];
    return quiet;
}

/* One more failed attempt; how many that makes. */
static int64_t count_attempt(serry_recovery *recovery, const serry_error *error)
{
    failing *f = find_failing(recovery, error->operation_id, error->operation);
    if (f == NULL) {
        f = new_failing(recovery);
        *f = (failing){error->operation_id, error->operation, 0, 0};
    }
    f->latest = recovery->handled;
    return ++f->attempts;
}

void serry_recovery_end(serry_recovery *recovery, uint64_t operation_id, const char *operation)
{
    pthread_mutex_lock(&recovery->lock);
    failing *f = find_failing(recovery, operation_id, operation);
    if (f != NULL)
        *f = recovery->failing[--recovery->open];
    pthread_mutex_unlock(&recovery->lock);
}

/* ---- the decision ------------------------------------------------------------------------- */

/* A number in [0, 1) that follows from seed, operation and attempt alone, so that pauses do not
 * depend on which thread comes first. The mixing is the finaliser of splitmix64. */
static double chance(uint64_t seed, uint64_t operation_id, int64_t attempt)
{
    uint64_t z = seed;
    const uint64_t parts[2] = {operation_id, (uint64_t)attempt};
    for (size_t i = 0; i < 2; i++) {
        z += parts[i] + UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        z ^= z >> 31;
    }
    return (double)(z >> 11) * 0x1p-53;
}

static int delay_ms(const serry_recovery_config *config, uint64_t operation_id, int64_t attempt)
{
    if (config->retry_delay_ms == 0)
        return 0;
    double delay = config->retry_delay_ms;
    double longest = config->max_delay_ms > delay ? config->max_delay_ms : delay;
    for (int64_t i = 1; i < attempt && config->backoff > 1.0 && delay < longest; i++)
        delay *= config->backoff;
    if (delay > longest)
        delay = longest;
    return (int)(delay * (1.0 - config->jitter * chance(config->seed, operation_id, attempt)));
}

/* Under the lock. */
static serry_decision decide(serry_recovery *recovery, const serry_error *error)
{
    serry_decision decision = {.strategy = strategy_for(recovery, error->error)};
    decision.attempts = count_attempt(recovery, error);
    decision.retry =
        decision.strategy != SERRY_ABORT && decision.attempts <= recovery->config.max_retries;
    if (decision.retry && decision.strategy == SERRY_RETRY)
        decision.delay_ms = delay_ms(&recovery->config, error->operation_id, decision.attempts);
    return decision;
}

/* ---- history and counters ----------------------------------------------------------------- */

static void keep(serry_recovery *recovery, const serry_error *error)
{
    size_t capacity = recovery->config.history;
    if (capacity == 0)
        return;
    recovery->ring[recovery->next] = *error;
    recovery->next = (recovery->next + 1) % capacity;
    recovery->kept += recovery->kept < capacity;
}

static void count(counters *c, const serry_error *error)
{
    c->by_severity[error->severity]++;
    c->by_row[serry_error_row(error->error)]++;
    size_t i = 0;
    while (i < OTHER_KINDS && c->by_operation[i].operation != NULL &&
           strcmp(c->by_operation[i].operation, error->operation) != 0)
        i++;
    if (i < OTHER_KINDS)
        c->by_operation[i].operation = error->operation;
    c->by_operation[i].count++;
}

int serry_recovery_handle(serry_recovery *recovery, const serry_error *error,
                          serry_decision *decision)
{
    *decision = (serry_decision){.strategy = SERRY_ABORT};
    if (error->error == SERRY_OK || error->operation == NULL)
        return SERRY_ERR_INVALID;
    serry_error copy = *error;
    copy.severity = serry_error_severity(copy.error);

    pthread_mutex_lock(&recovery->lock);
    recovery->handled++;
    keep(recovery, &copy);
    count(&recovery->counters, &copy);
    *decision = decide(recovery, &copy);
    pthread_mutex_unlock(&recovery->lock);

    if (recovery->config.log != NULL)
        recovery->config.log(&copy, decision, recovery->config.log_argument);
    return SERRY_OK;
}

size_t serry_recovery_history(serry_recovery *recovery, serry_error *errors, size_t capacity)
{
    pthread_mutex_lock(&recovery->lock);
    size_t kept = recovery->kept, copied = kept < capacity ? kept : capacity;
    for (size_t i = 0; i < copied; i++) {
        size_t back = copied - i; /* how far behind the next place; at most a whole ring */
        size_t at = (recovery->next + recovery->config.history - back) % recovery->config.history;
        errors[i] = recovery->ring[at];
    }
    pthread_mutex_unlock(&recovery->lock);
    return kept;
}

void serry_recovery_clear(serry_recovery *recovery)
{
    pthread_mutex_lock(&recovery->lock);
    recovery->kept = 0;
    recovery->next = 0;
    recovery->counters = (counters){0};
    pthread_mutex_unlock(&recovery->lock);
}

/* ---- statistics --------------------------------------------------------------------------- */

void serry_recovery_statistics(serry_recovery *recovery, serry_error_statistics *statistics)
{
    static const int codes[SERRY_ERROR_CODES + 1] = {
#define SERRY_X(name, value, scope, severity, group, text) value,
        SERRY_ERROR_MAP(SERRY_X)
#undef SERRY_X
            SERRY_ERROR_OTHER};

    pthread_mutex_lock(&recovery->lock);
    counters c = recovery->counters;
    pthread_mutex_unlock(&recovery->lock);

    serry_error_statistics s = {0};
    for (size_t i = 0; i < SERRY_SEVERITIES; i++) {
        s.by_severity[i] = c.by_severity[i];
        s.total += c.by_severity[i];
    }
    for (size_t i = 0; i <= SERRY_ERROR_CODES; i++)
        if (c.by_row[i] > 0) {
            s.by_type[s.types].error = codes[i];
            s.by_type[s.types++].count = c.by_row[i];
        }
    for (size_t i = 0; i < SERRY_RECOVERY_KINDS; i++)
        if (c.by_operation[i].count > 0) {
            s.by_operation[s.operations].operation = c.by_operation[i].operation;
            s.by_operation[s.operations++].count = c.by_operation[i].count;
        }
    *statistics = s;
}

typedef struct writer {
    char *text;
    size_t size, length; /* length: of the whole, also where it did not fit */
} writer;

static void add(writer *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(writer *w, const char *format, ...)
{
    size_t used = w->length < w->size ? w->length : w->size;
    va_list list;
    va_start(list, format);
    int written = vsnprintf(w->text + used, w->size - used, format, list);
    va_end(list);
    w->length += (size_t)written;
}

char *serry_error_statistics_text(const serry_error_statistics *statistics, char *text, size_t size)
{
    writer w = {text, size, 0};
    add(&w, "Total Errors: %" PRIu64 ", By Type: ", statistics->total);
    for (size_t i = 0; i < statistics->types; i++)
        add(&w, "%s%s=%" PRIu64, i == 0 ? "" : ", ", serry_error_name(statistics->by_type[i].error),
            statistics->by_type[i].count);

    add(&w, ", By Severity: ");
    const char *between = "";
    for (int i = 0; i < SERRY_SEVERITIES; i++) {
        if (statistics->by_severity[i] == 0)
            continue;
        add(&w, "%s%s=%" PRIu64, between, serry_severity_name((serry_severity)i),
            statistics->by_severity[i]);
        between = ", ";
    }
    return text;
}
