/* crash_ranks.c - see crash_ranks.h. */
#include "crash_ranks.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "crash_step.h"

/* With so many operations large ones have used each of the two buffers of what they use. */
enum { GOOD = 5 };

/* ---- what the survivors must have alike ------------------------------------------------------- */

void crash_note(crash_actor *a, const char *what, int rc, int64_t value)
{
    crash_log *log = &a->trial->log[a->self->rank];
    const uint64_t prime = UINT64_C(0x100000001b3);

    if (log->entries < sizeof(log->entry) / sizeof(log->entry[0]))
        log->entry[log->entries] = (crash_entry){what, rc, value};
    log->entries++;
    log->hash = (log->hash ^ (uint64_t)(int64_t)rc) * prime;
    log->hash = (log->hash ^ (uint64_t)value) * prime;
}

static void print_log(int rank, const crash_log *log)
{
    unsigned most = sizeof(log->entry) / sizeof(log->entry[0]);

    fprintf(stderr, "  rank %d: %u operations:", rank, log->entries);
    for (unsigned i = 0; i < log->entries && i < most; i++)
        fprintf(stderr, " %s %s %llx;", log->entry[i].what, serry_error_name(log->entry[i].rc),
                (unsigned long long)log->entry[i].value);
    fprintf(stderr, "\n");
}

static bool is_survivor(const crash_trial *trial, int rank)
{
    return (trial->gone >> rank & 1) == 0 && !trial->log[rank].outside;
}

/* A sleeper that has completed the section has done so with the result of all. */
static bool sleeper_agrees(const crash_trial *trial, int survivor)
{
    const crash_log *own = &trial->log[trial->scenario->victim], *other = &trial->log[survivor];

    return own->entries == 0 ||
           (other->entry[0].rc == own->entry[0].rc && other->entry[0].value == own->entry[0].value);
}

bool crash_logs_agree(const crash_trial *trial)
{
    int first = -1;
    bool agree = true;

    for (int r = 0; r < trial->scenario->size; r++) {
        if (!is_survivor(trial, r))
            continue;
        first = first < 0 ? r : first;
        agree = agree && trial->log[r].entries == trial->log[first].entries &&
                trial->log[r].hash == trial->log[first].hash;
    }
    if (trial->sealed)
        agree = agree && sleeper_agrees(trial, first);
    for (int r = 0; r < trial->scenario->size && !agree; r++)
        print_log(r, &trial->log[r]);
    return agree;
}

bool crash_has_fired(const crash_actor *a)
{
    return test_flag(a->self->run, CRASH_FIRED) != 0;
}

/* ---- going on --------------------------------------------------------------------------------- */

/* Everybody's number is a bit of the first sum, which so tells who took part. The last one tells who
 * has seen the fault strike. For a newcomer the section of the others may be the first of its
 * own turns (crash_sum): nobody says so then, or it would count one more than they. */
static int sum_few(crash_actor *a, serry_comm *comm, int64_t turn, int64_t *mask, bool counts,
                   bool *fired)
{
    int64_t value[4] = {INT64_C(1) << a->self->rank, 1000 * (a->self->rank + 1), turn,
                        counts && crash_has_fired(a)};
    int64_t sum[4], tags = 0, members = 0;
    int rc = serry_allreduce(value, sum, 4, SERRY_I64, SERRY_SUM, comm);

    if (rc != SERRY_OK)
        return rc;
    *mask = sum[0];
    for (int r = 0; r < a->self->size; r++) {
        tags += sum[0] >> r & 1 ? 1000 * (r + 1) : 0;
        members += sum[0] >> r & 1;
    }
    *fired = sum[3] == members;
    if (sum[1] != tags || sum[2] != members * turn)
        test_failed(a->self, "wrong sums in turn %lld: %llx, %lld, %lld", (long long)turn,
                    (unsigned long long)sum[0], (long long)sum[1], (long long)sum[2]);
    return rc;
}

int crash_sum(crash_actor *a, serry_comm *comm, int64_t turn, int64_t *mask)
{
    bool unused;

    return sum_few(a, comm, turn, mask, false, &unused);
}

void crash_await_strike(crash_actor *a, serry_comm *comm)
{
    int64_t mask;

    for (bool fired = false; !fired; usleep(300)) {
        int rc = sum_few(a, comm, 0, &mask, true, &fired);
        if (!test_expect(a->self, SERRY_OK, rc, comm, "waiting for the fault"))
            return;
    }
}

static int sum_many(crash_actor *a, serry_comm *comm, int64_t turn, int64_t *mask)
{
    static int64_t memory[2 * CRASH_MANY];
    int64_t *value = a->many != NULL ? a->many : memory, *sum = value + CRASH_MANY;

    for (size_t i = 0; i < CRASH_MANY; i++) {
        value[i] = (INT64_C(1) << a->self->rank) * ((int64_t)i + turn);
        sum[i] = -1;
    }
    int rc = serry_allreduce(value, sum, CRASH_MANY, SERRY_I64, SERRY_SUM, comm);
    if (rc == SERRY_OK)
        *mask = sum[1] / (1 + turn);
    for (size_t i = 0; i < CRASH_MANY; i++) {
        int64_t want = rc == SERRY_OK ? *mask * ((int64_t)i + turn) : -1;
        if (sum[i] != want) {
            test_failed(a->self, "turn %lld: %s, and element %zu is %lld, not %lld",
                        (long long)turn, serry_error_name(rc), i, (long long)sum[i],
                        (long long)want);
            break;
        }
    }
    return rc;
}

static unsigned count_bits(unsigned set)
{
    return (unsigned)__builtin_popcount(set);
}

bool crash_may_fail(crash_actor *a, const serry_comm *comm, const char *what, int rc)
{
    unsigned *losses = comm == a->part ? &a->part_losses : &a->losses;
    unsigned most = a->scenario->joins ? (unsigned)a->self->size : count_bits(a->trial->gone);

    if (rc == SERRY_ERR_RANK_FAILED && a->scenario->policy == SERRY_REPORT && ++*losses <= most)
        return true;
    return test_expect(a->self, SERRY_OK, rc, comm, "%s, after %u losses", what, *losses);
}

/* A newcomer's first turn is the first one with it for all: where that is told; where it is not, all
 * turns must be the same. */
static bool has_joined(const crash_actor *a, int rc)
{
    return rc == SERRY_ERR_RANK_JOINED && a->scenario->newcomers > 0 &&
           a->scenario->policy == SERRY_REPORT;
}

void crash_go_on(crash_actor *a, serry_comm *comm, const char *what)
{
    const crash_scenario *s = a->scenario;
    unsigned all = (1u << a->self->size) - 1, apart = comm == a->part && s->apart ? 1 : 0;
    unsigned wanted = all & ~a->trial->gone & ~apart;
    bool same = s->newcomers > 0 && s->policy != SERRY_REPORT, fired = false;
    int64_t mask = 0, turn = 0;

    for (int good = 0; good < GOOD; turn += !same) {
        test_at(a->self, "%s: %s, operation %lld after it", s->name, what, (long long)turn);
        int rc = turn % 2 == 0 ? sum_few(a, comm, turn, &mask, true, &fired)
                               : sum_many(a, comm, turn, &mask);
        crash_note(a, what, rc, rc == SERRY_OK ? mask : 0);
        if (has_joined(a, rc))
            turn = -1;
        else if (rc != SERRY_OK && !crash_may_fail(a, comm, what, rc))
            return;
        bool complete = s->joins ? ((unsigned)mask & ~wanted) == 0 : (unsigned)mask == wanted;
        good = rc == SERRY_OK && complete && fired ? good + 1 : 0;
        if (!fired && s->newcomers > 0)
            usleep(300);
    }
}

/* ---- the body --------------------------------------------------------------------------------- */

/* The last rank dies; the others go on when they know. */
static void fall(crash_actor *a)
{
    serry_rank_set failed;
    int last = a->scenario->size - 1;

    if (a->self->rank == last) {
        test_mine(a->self)->killed = 1;
        raise(SIGKILL);
    }
    do
        serry_get_failed(a->comm, &failed);
    while (!serry_rank_set_has(&failed, last) && usleep(200) == 0);
}

int crash_join(crash_actor *a, int rank, serry_entry entry)
{
    serry_config config = SERRY_CONFIG_INIT;

    config.rank = rank;
    config.size = a->scenario->size;
    config.job = a->self->job;
    config.timeout_ms = a->trial->unknown ? CRASH_UNKNOWN_MS : CRASH_TIMEOUT_MS;
    config.pool_bytes = (size_t)64 << 20;
    config.policy = (int)a->scenario->policy;
    config.entry = entry;
    config.progress = a->scenario->progress;
    int rc = serry_init(&config, &a->self->comm);
    a->comm = a->self->comm;
    if (rc == SERRY_OK && a->scenario->variant != 0)
        return test_set_variant(a->comm, a->scenario->variant);
    return rc == SERRY_OK ? test_force_variant(a->comm) : rc;
}

static bool prepare(crash_actor *a)
{
    const crash_scenario *s = a->scenario;

    if (s->joins || a->self->rank >= s->size)
        return true;
    int rc = crash_join(a, a->self->rank, SERRY_ENTRY_START);
    if (!test_expect(a->self, SERRY_OK, rc, NULL, "serry_init"))
        return false;
    EXPECT_OK(a->self, serry_barrier(a->comm));
    if (s->section == NULL)
        crash_collective_prepare(a);
    if (s->prepare != NULL)
        s->prepare(a);
    return true;
}

static int section(crash_actor *a)
{
    return a->scenario->section != NULL ? a->scenario->section(a) : test_call(&a->call, a->comm);
}

/* After the section. */
static void survive(crash_actor *a, int rc)
{
    const crash_scenario *s = a->scenario;

    if (s->judge != NULL) {
        s->judge(a, rc);
    } else {
        bool rooted = s->kind == SERRY_KIND_BROADCAST || s->kind == SERRY_KIND_REDUCE ||
                      s->kind == SERRY_KIND_GATHER || s->kind == SERRY_KIND_SCATTER;
        crash_collective_judge(a, rc);
        if (rc != SERRY_OK && !(rooted && rc == SERRY_ERR_RANK_FAILED))
            crash_may_fail(a, a->comm, "the section", rc);
        else if (rc != SERRY_OK)
            a->losses += s->policy == SERRY_REPORT;
    }
    if (a->comm != NULL)
        crash_go_on(a, a->comm, "go on");
    if (!a->trial->sealed || a->comm == NULL)
        return;
    uint64_t before = crash_collective_print(a);
    test_raise(a->self, CRASH_SURVIVED);
    test_await(a->self, CRASH_WOKEN, 1);
    crash_go_on(a, a->comm, "beside the sleeper");
    if (a->part != NULL && a->part != a->comm)
        crash_go_on(a, a->part, "in the part, beside the sleeper");
    test_await(a->self, CRASH_SLEPT, 1);
    CHECK(a->self, crash_collective_print(a) == before); /* it has written nothing there */
}

/* Was it through before it was sealed? That another one has fallen may be what all are told. */
static bool is_through(const crash_actor *a, int rc)
{
    return rc == SERRY_OK || (a->scenario->fallen && rc == SERRY_ERR_RANK_FAILED);
}

/* A victim that comes to itself again: it has lost the communicator, or has been through, with what all
 * got. */
static void wake_up(crash_actor *a, int rc)
{
    if (a->scenario->section == NULL && is_through(a, rc))
        crash_collective_judge(a, rc);
    else if (rc != SERRY_OK && !has_joined(a, rc) &&
             test_expect(a->self, SERRY_ERR_EXCLUDED, rc, a->comm, "the sleeper's call"))
        crash_collective_excluded(a);
    for (int i = 0; i < 3; i++)
        test_expect(a->self, SERRY_ERR_EXCLUDED, serry_barrier(a->comm), a->comm,
                    "the sleeper's next call");
    test_raise(a->self, CRASH_SLEPT);
}

void crash_body(test_rank *self)
{
    crash_trial *trial = self->argument;
    crash_actor actor = {.self = self, .trial = trial, .scenario = trial->scenario}, *a = &actor;

    if (!prepare(a))
        return;
    test_meet(self);
    if (a->scenario->fallen && self->rank < a->scenario->size)
        fall(a);
    if (a->scenario->ready != NULL)
        a->scenario->ready(a);
    bool is_victim = self->rank == a->scenario->victim;
    test_at(self, "%s: the section", a->scenario->name);
    if (is_victim && !a->scenario->elsewhere)
        step_begin(self);
    int rc = section(a);
    if (is_victim && !a->scenario->elsewhere)
        step_end(self);
    if (!is_victim || trial->held)
        survive(a, rc);
    else if (trial->sealed)
        wake_up(a, rc);
    else
        pause();
    crash_collective_release(a);
    test_expect(self, SERRY_OK, serry_finalize(&a->part), NULL, "finalize of the part");
    test_expect(self, SERRY_OK, serry_finalize(&self->comm), NULL, "serry_finalize");
}
