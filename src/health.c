/* health.c - see serry/health.h. What a backend says about a rank becomes silence, and silence
 * becomes a status.
 *
 * Three locks, taken in this order: `life` by who starts and stops the thread, `turn` by who looks and
 * tells, so that changes are told one by one, and `lock` for the data, never held while somebody
 * else's function is called. */
#include <serry/health.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "comm.h"
#include "record.h"

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

typedef struct patient {
    serry_health_report report; /* but for the times */
    uint64_t sign_ns;           /* the last sign of life, by the clock */
    uint64_t updated_ns;        /* by hand */
    uint64_t silent_ns;         /* since that sign, as far as it was seen */
    uint64_t mute_ns;           /* the same, from anew whenever it was seen to be starved */
    uint64_t idle_ns;
} patient;

struct serry_health {
    const serry_backend *backend;
    serry_member *member;
    int rank, size;
    unsigned forks; /* serry_forks when it was made */
    serry_health_config config;
    uint64_t period_ns, timeout_ns;

    pthread_mutex_t life, turn, lock;
    bool running; /* under life */
    pthread_t thread;
    pthread_cond_t end; /* with lock */
    bool ends;          /* under lock, as all below */
    bool telling;       /* on_change is being called */
    pthread_t teller;   /* by this thread */
    uint64_t looked_ns;
    patient patients[];
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* ---- judging ------------------------------------------------------------------------------------ */

/* Time that this look may count, from the one before. Under lock. */
static uint64_t seen_since(serry_health *h, uint64_t now)
{
    uint64_t gap = now - h->looked_ns;

    h->looked_ns = now;
    return gap < 2 * h->period_ns ? gap : 2 * h->period_ns;
}

static void count_silence(patient *p, const serry_vitals *vitals, uint64_t now, uint64_t elapsed)
{
    uint64_t sign = vitals->alive_ns > p->updated_ns ? vitals->alive_ns : p->updated_ns;

    if (sign > p->sign_ns) {
        uint64_t since = sign < now ? now - sign : 0;
        p->sign_ns = sign;
        p->silent_ns = p->mute_ns = since < elapsed ? since : elapsed;
    } else {
        p->silent_ns += elapsed;
        p->mute_ns += elapsed;
        if (vitals->activity == SERRY_STARVED && p->report.status != SERRY_FAILED)
            p->mute_ns = 0; /* it wants to run: that is no way to be dead */
    }
    p->idle_ns = vitals->progress == p->report.progress ? p->idle_ns + elapsed : 0;
}

static void judge(const serry_health *h, patient *p, const serry_vitals *vitals)
{
    serry_health_report *report = &p->report;

    report->activity = vitals->activity;
    report->evidence = vitals->failed;
    report->operation = vitals->operation;
    report->progress = vitals->progress;
    if (report->evidence || p->mute_ns > 2 * h->timeout_ns)
        report->status = SERRY_FAILED;
    else if (p->silent_ns > h->timeout_ns)
        report->status = SERRY_UNRESPONSIVE;
    else
        report->status = SERRY_HEALTHY;
    if (report->status == SERRY_HEALTHY) {
        report->exclusion = SERRY_EXCLUSION_NONE;
        report->exclusion_error = SERRY_OK;
    }
}

/* Under turn. Returns the status before. */
static serry_rank_status examine(serry_health *h, int rank, uint64_t now, uint64_t elapsed)
{
    serry_vitals vitals = {0};
    serry_error error;
    patient *p = &h->patients[rank];

    if (h->backend->vitals(h->member, rank, &vitals, &error) != SERRY_OK)
        vitals = (serry_vitals){.progress = p->report.progress};
    pthread_mutex_lock(&h->lock);
    serry_rank_status before = p->report.status;
    count_silence(p, &vitals, now, elapsed);
    judge(h, p, &vitals);
    pthread_mutex_unlock(&h->lock);
    return before;
}

/* ---- changes ------------------------------------------------------------------------------------ */

/* A rank is given up without evidence: as configured. Under turn. */
static void exclude(serry_health *h, int rank)
{
    serry_exclusion how = h->config.exclusion;
    serry_error error;

    if (how == SERRY_EXCLUSION_NONE)
        return;
    int rc = h->backend->exclude(h->member, rank, how, &error);
    pthread_mutex_lock(&h->lock);
    h->patients[rank].report.exclusion = how;
    h->patients[rank].report.exclusion_error = rc;
    pthread_mutex_unlock(&h->lock);
}

/* Under lock. */
static serry_health_report report_of(const patient *p)
{
    serry_health_report report = p->report;

    report.silent_ms = (int64_t)(p->silent_ns / NS_PER_MS);
    report.idle_ms = (int64_t)(p->idle_ns / NS_PER_MS);
    return report;
}

/* Under turn. */
static void tell(serry_health *h, int rank, serry_rank_status before)
{
    if (h->config.on_change == NULL)
        return;
    pthread_mutex_lock(&h->lock);
    serry_health_report report = report_of(&h->patients[rank]);
    h->telling = true;
    h->teller = pthread_self();
    pthread_mutex_unlock(&h->lock);

    h->config.on_change(rank, before, report.status, &report, h->config.argument);

    pthread_mutex_lock(&h->lock);
    h->telling = false;
    pthread_mutex_unlock(&h->lock);
}

/* All are judged before anybody is told: who is told and asks for others gets answers of one look. */
static void look(serry_health *h)
{
    serry_rank_status before[SERRY_MAX_RANKS];

    pthread_mutex_lock(&h->turn);
    pthread_mutex_lock(&h->lock);
    uint64_t now = now_ns(), elapsed = seen_since(h, now);
    pthread_mutex_unlock(&h->lock);
    for (int r = 0; r < h->size; r++)
        before[r] = r == h->rank ? SERRY_HEALTHY : examine(h, r, now, elapsed);
    for (int r = 0; r < h->size; r++) {
        const serry_health_report *report = &h->patients[r].report; /* written under turn */
        if (report->status == before[r])
            continue;
        if (report->status == SERRY_FAILED && !report->evidence)
            exclude(h, r);
        tell(h, r, before[r]);
    }
    pthread_mutex_unlock(&h->turn);
}

/* ---- life --------------------------------------------------------------------------------------- */

static bool is_valid(const serry_health_config *config)
{
    return config->bytes == sizeof(*config) && config->period_ms > 0 &&
           config->heartbeat_timeout_ms > 0 && (unsigned)config->exclusion <= SERRY_EXCLUSION_SEAL;
}

static void init_locks(serry_health *h)
{
    pthread_condattr_t attributes;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&h->end, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&h->life, NULL);
    pthread_mutex_init(&h->turn, NULL);
    pthread_mutex_init(&h->lock, NULL);
}

int serry_health_create(serry_comm *comm, const serry_health_config *config, serry_health **health)
{
    static const serry_health_config defaults = SERRY_HEALTH_CONFIG_INIT;

    *health = NULL;
    if (config == NULL)
        config = &defaults;
    if (comm == NULL || !is_valid(config))
        return SERRY_ERR_INVALID;
    if (comm->forks != serry_forks)
        return SERRY_ERR_FORKED;
    serry_health *h = calloc(1, sizeof(*h) + (size_t)comm->size * sizeof(h->patients[0]));
    if (h == NULL)
        return SERRY_ERR_NO_SPACE;
    h->backend = comm->backend;
    h->member = comm->member;
    h->rank = comm->rank;
    h->size = comm->size;
    h->forks = serry_forks;
    h->config = *config;
    h->period_ns = (uint64_t)config->period_ms * NS_PER_MS;
    h->timeout_ns = (uint64_t)config->heartbeat_timeout_ms * NS_PER_MS;
    h->looked_ns = now_ns();
    for (int r = 0; r < h->size; r++)
        h->patients[r].report.rank = r;
    h->patients[h->rank].report.activity = SERRY_COMPUTING;
    init_locks(h);
    if (config->exclusion == SERRY_EXCLUSION_SEAL && h->backend->may_seal != NULL)
        h->backend->may_seal(h->member);
    *health = h;
    return SERRY_OK;
}

/* The parent's thread is not here, and its locks may be in any state. */
static bool is_forked(const serry_health *h)
{
    return h->forks != serry_forks;
}

/* May this thread change something? */
static int check_caller(serry_health *h)
{
    if (is_forked(h))
        return SERRY_ERR_FORKED;
    pthread_mutex_lock(&h->lock);
    bool within = h->telling && pthread_equal(h->teller, pthread_self());
    pthread_mutex_unlock(&h->lock);
    return within ? SERRY_ERR_INVALID : SERRY_OK;
}

int serry_health_destroy(serry_health **health)
{
    serry_health *h = *health;

    if (h != NULL && !is_forked(h)) {
        int rc = serry_health_stop(h);
        if (rc != SERRY_OK)
            return rc;
        pthread_cond_destroy(&h->end);
        pthread_mutex_destroy(&h->lock);
        pthread_mutex_destroy(&h->turn);
        pthread_mutex_destroy(&h->life);
    }
    free(h);
    *health = NULL;
    return SERRY_OK;
}

/* ---- the thread --------------------------------------------------------------------------------- */

/* False: the period has passed. */
static bool is_to_end(serry_health *h)
{
    uint64_t until = now_ns() + h->period_ns;
    struct timespec at = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
    int rc = 0;

    pthread_mutex_lock(&h->lock);
    while (!h->ends && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&h->end, &h->lock, &at);
    bool ends = h->ends;
    pthread_mutex_unlock(&h->lock);
    return ends;
}

static void *monitor_main(void *health)
{
    do
        look(health);
    while (!is_to_end(health));
    return NULL;
}

static int start_thread(serry_health *h)
{
    sigset_t all, before;

    sigfillset(&all); /* the program's signals are for its own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&h->thread, NULL, monitor_main, h);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc == 0 ? SERRY_OK : SERRY_ERR_SYSTEM;
}

int serry_health_start(serry_health *health)
{
    int rc = check_caller(health);

    if (rc != SERRY_OK)
        return rc;
    pthread_mutex_lock(&health->life);
    if (!health->running) {
        pthread_mutex_lock(&health->lock);
        health->ends = false;
        health->looked_ns = now_ns();
        pthread_mutex_unlock(&health->lock);
        rc = start_thread(health);
        health->running = rc == SERRY_OK;
    }
    pthread_mutex_unlock(&health->life);
    return rc;
}

int serry_health_stop(serry_health *health)
{
    int rc = check_caller(health);

    if (rc != SERRY_OK)
        return rc;
    pthread_mutex_lock(&health->life);
    if (health->running) {
        pthread_mutex_lock(&health->lock);
        health->ends = true;
        pthread_cond_signal(&health->end);
        pthread_mutex_unlock(&health->lock);
        pthread_join(health->thread, NULL);
        health->running = false;
    }
    pthread_mutex_unlock(&health->life);
    return SERRY_OK;
}

int serry_health_check(serry_health *health)
{
    int rc = check_caller(health);

    if (rc == SERRY_OK)
        look(health);
    return rc;
}

int serry_health_update(serry_health *health, int rank)
{
    int rc = check_caller(health);

    if (rc != SERRY_OK)
        return rc;
    if (rank < 0 || rank >= health->size)
        return SERRY_ERR_INVALID;
    patient *p = &health->patients[rank];
    pthread_mutex_lock(&health->turn);
    pthread_mutex_lock(&health->lock);
    serry_rank_status before = p->report.status;
    if (p->report.evidence) {
        rc = SERRY_ERR_RANK_FAILED;
    } else {
        p->sign_ns = p->updated_ns = now_ns();
        p->silent_ns = p->mute_ns = 0;
        p->report.status = SERRY_HEALTHY;
    }
    pthread_mutex_unlock(&health->lock);
    if (rc == SERRY_OK && before != SERRY_HEALTHY)
        tell(health, rank, before);
    pthread_mutex_unlock(&health->turn);
    return rc;
}

/* ---- questions ---------------------------------------------------------------------------------- */

serry_rank_status serry_health_status(serry_health *health, int rank, serry_health_report *report)
{
    serry_health_report copy = {.rank = rank, .status = SERRY_FAILED};

    if (!is_forked(health) && rank >= 0 && rank < health->size) {
        pthread_mutex_lock(&health->lock);
        copy = report_of(&health->patients[rank]);
        pthread_mutex_unlock(&health->lock);
    }
    if (report != NULL)
        *report = copy;
    return copy.status;
}

int serry_health_healthy(serry_health *health, serry_rank_set *ranks)
{
    serry_rank_set healthy = {{0}};

    if (!is_forked(health)) {
        pthread_mutex_lock(&health->lock);
        for (int r = 0; r < health->size; r++)
            if (health->patients[r].report.status == SERRY_HEALTHY)
                serry_rank_set_add(&healthy, r);
        pthread_mutex_unlock(&health->lock);
    }
    if (ranks != NULL)
        *ranks = healthy;
    return serry_rank_set_count(&healthy);
}

int serry_health_unresponsive(serry_health *health)
{
    return is_forked(health) ? 0 : health->size - serry_health_healthy(health, NULL);
}

/* ---- in words ----------------------------------------------------------------------------------- */

const char *serry_rank_status_name(serry_rank_status status)
{
    static const char *const names[] = {"HEALTHY", "UNRESPONSIVE", "FAILED"};

    return (unsigned)status <= SERRY_FAILED ? names[status] : "?";
}

static const char *reason(const serry_health_report *report, char *text, size_t size)
{
    static const char *const reasons[] = {"not known what it does",
                                          "computing",
                                          "waiting for others",
                                          "waiting for a core",
                                          "stopped",
                                          "stopped by a debugger",
                                          "frozen",
                                          "gone"};

    if (report->activity == SERRY_WAITING && report->operation != 0)
        snprintf(text, size, "waiting in operation %" PRIu64, report->operation);
    else
        snprintf(text, size, "%s",
                 (unsigned)report->activity <= SERRY_GONE ? reasons[report->activity] : "?");
    return text;
}

char *serry_health_text(const serry_health_report *report, char *text, size_t size)
{
    char why[48], silence[48] = "";

    if (report->status != SERRY_HEALTHY && !report->evidence)
        snprintf(silence, sizeof(silence), ", silent for %.1f s",
                 (double)report->silent_ms / 1000.0);
    snprintf(text, size, "rank %d is %s: %s%s", report->rank,
             serry_rank_status_name(report->status), reason(report, why, sizeof(why)), silence);
    return text;
}
