/* ft_moved.c - see ft_moved.h. */
#include "ft_moved.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <serry/faulty.h>

const int k_none[] = {-1};

/* ---- a chain that kills ------------------------------------------------------------------------ */

/* Of this process: where it dies. */
static const char *g_step = "";
static int g_left;

static void reach(const char *step)
{
    if (strcmp(step, g_step) == 0 && --g_left == 0)
        raise(SIGKILL);
}

static int agree_killing(serry_member *member, serry_op op, uint64_t *value,
                         const serry_limit *limit, serry_error *error)
{
    reach("agree");
    return serry_backend_shm.agree(member, op, value, limit, error);
}

static int meet_killing(serry_member *member, uint64_t vote, const serry_limit *limit,
                        uint64_t *votes, int *repeat, serry_error *error)
{
    reach("meet");
    return serry_backend_shm.meet(member, vote, limit, votes, repeat, error);
}

static int open_killing(const serry_backend *backend, const serry_job *job, serry_member **member,
                        serry_error *error)
{
    (void)backend;
    reach("open");
    if (strcmp(g_step, "refuse") == 0)
        return serry_error_make(error, SERRY_ERR_NO_SPACE, "init", 0, job->rank, "on purpose");
    int rc = serry_backend_socket.open(&serry_backend_socket, job, member, error);
    reach("opened");
    return rc;
}

/* By harness rank. What an ended thread has left behind is freed after the run, and needs its chain. */
static chain g_chain[RANKS + 3];

chain *moved_chain(test_rank *self, size_t length)
{
    serry_ft_config config = SERRY_FT_CONFIG_INIT;
    chain *c = &g_chain[self->rank];

    c->shm = serry_backend_shm;
    c->shm.agree = agree_killing;
    c->shm.meet = meet_killing;
    c->socket = serry_backend_socket;
    c->socket.open = open_killing;
    if (!CHECK(self, serry_faulty_create(&c->shm, "rank=1 op=2 fail=SYSTEM", test_seed(),
                                         &c->faulty) == SERRY_OK))
        return NULL;
    const serry_backend *const backends[] = {c->faulty, &c->socket};
    config.chain = backends;
    config.count = length;
    config.recovery.retry_delay_ms = 1;
    return CHECK(self, serry_ft_create(&config, &c->ft) == SERRY_OK) ? c : NULL;
}

void moved_chain_free(chain *c)
{
    serry_ft_destroy(&c->ft);
    serry_faulty_destroy(&c->faulty);
}

int moved_enter(test_rank *self, const chain *c, int rank, serry_entry entry)
{
    serry_config config = SERRY_CONFIG_INIT;

    config.rank = entry == SERRY_ENTRY_SPARE ? -1 : rank;
    config.size = RANKS;
    config.job = self->job;
    config.kind = self->kind;
    config.timeout_ms = 60000;
    config.policy = (int)moved_scene_of(self)->policy;
    config.entry = entry;
    config.backend = c->ft;
    int rc = serry_init(&config, &self->comm);
    if (rc == SERRY_OK)
        serry_recovery_set_strategy(serry_ft_recovery(self->comm), SERRY_ERR_SYSTEM,
                                    SERRY_FALLBACK_BACKEND);
    return rc;
}

void moved_leave(test_rank *self)
{
    EXPECT_OK(self, serry_finalize(&self->comm));
    moved_chain_free(&g_chain[self->rank]);
}

/* ---- what all do ------------------------------------------------------------------------------- */

int moved_sum(test_rank *self, uint64_t *who)
{
    uint64_t own = UINT64_C(1) << serry_rank(self->comm);
    const serry_call call = {.kind = SERRY_KIND_ALLREDUCE,
                             .dtype = SERRY_U64,
                             .op = SERRY_SUM,
                             .count = 1,
                             .send = &own,
                             .recv = who};

    *who = 0;
    return test_call(&call, self->comm);
}

bool moved_sum_is(test_rank *self, uint64_t wanted)
{
    uint64_t who;

    return test_expect(self, SERRY_OK, moved_sum(self, &who), self->comm, "sum") &&
           (who == wanted || (test_failed(self, "sum over %llx, not %llx", (unsigned long long)who,
                                          (unsigned long long)wanted),
                              false));
}

bool moved_expect_death(test_rank *self, int rc, const int *dead)
{
    const serry_error *record = test_record_of(self->comm);

    return test_expect(self, SERRY_ERR_RANK_FAILED, rc, self->comm, "sum") &&
           CHECK(self, test_ranks_are(&record->ranks, dead) && record->peer == dead[0]) &&
           CHECK(self, test_names_rank(record->message, dead[0]));
}

void moved_goes_on(test_rank *self, const int *dead)
{
    int root = 0;

    while (is_one_of(dead, root))
        root++;
    expect_goes_on(self, self->comm, dead);
    uint64_t epoch = serry_epoch(self->comm);
    EXPECT_OK(self, serry_broadcast(&epoch, 1, SERRY_U64, root, self->comm));
    CHECK(self, serry_epoch(self->comm) == epoch);
    CHECK(self, strcmp(serry_ft_carrier(self->comm)->name, "socket") == 0);
    EXPECT_OK(self, serry_barrier(self->comm)); /* until here nobody leaves */
}

bool moved_start(test_rank *self)
{
    const chain *c = moved_chain(self, 2);

    if (c == NULL ||
        !test_expect(self, SERRY_OK, moved_enter(self, c, self->rank, SERRY_ENTRY_START), NULL,
                     "init"))
        return false;
    for (int i = 0; i < 3; i++)
        moved_sum_is(self, (1 << RANKS) - 1);
    return CHECK(self, serry_ft_carrier(self->comm) == &c->socket);
}

bool moved_replace(test_rank *self)
{
    const chain *c = moved_chain(self, 2);
    int victim = moved_scene_of(self)->victim;

    return c != NULL &&
           test_expect(self, SERRY_OK, moved_enter(self, c, victim, SERRY_ENTRY_REPLACEMENT), NULL,
                       "rejoin") &&
           CHECK(self, serry_rank(self->comm) == victim);
}

bool moved_until_joined(test_rank *self, uint64_t others, const int *who)
{
    uint64_t got;
    int rc;

    test_at(self, "waiting for the newcomer");
    while ((rc = moved_sum(self, &got)) == SERRY_OK && got == others)
        usleep(1000);
    return test_expect(self, SERRY_ERR_RANK_JOINED, rc, self->comm, "sum") &&
           CHECK(self, test_ranks_are(&test_record_of(self->comm)->ranks, who)) &&
           CHECK(self, test_names_rank(test_record_of(self->comm)->message, who[0])) &&
           CHECK(self, got == 0);
}

void moved_run(serry_kind_of_rank kind, scene *s, int newcomers, test_body body, const int *dead)
{
    test_options options = {.kind = kind, .size = RANKS + newcomers, .body_joins = true};

    deaths_end(test_start(&options, body, s), kind, RANKS + newcomers,
               kind == SERRY_PROCESSES ? dead : k_none);
    for (size_t i = 0; i < sizeof(g_chain) / sizeof(g_chain[0]); i++)
        moved_chain_free(&g_chain[i]);
}

void moved_arm(test_rank *self)
{
    const scene *s = moved_scene_of(self);

    test_mine(self)->killed = 1;
    if (s->us != 0) {
        death_in(self, s->us);
        return;
    }
    g_step = s->step;
    g_left = s->at;
}

void moved_refuse(void)
{
    g_step = "refuse";
}

void moved_die(const test_rank *self)
{
    if (moved_scene_of(self)->us != 0)
        death_await();
    raise(SIGKILL);
}
