/* ft_mock.c - see ft_mock.h. */
#include "ft_mock.h"

#include <string.h>

static mock *mock_of(const serry_member *member)
{
    return (mock *)(uintptr_t)member;
}

static int answer(const int *answers, unsigned asked, const char *operation, serry_error *error)
{
    int code = asked < MOCK_ANSWERS ? answers[asked] : SERRY_OK;
    if (code < 0)
        serry_error_make(error, code, operation, 77, 5, "the mock says so, number %u", asked);
    return code;
}

static int sleep_if(int code, mock *m, const serry_limit *limit, serry_error *error)
{
    if (code != MOCK_SLEEP)
        return code;
    serry_token *token = limit->token(limit->argument);
    assert_ptr_equal(token, limit->token(limit->argument));
    if (m->extended != NULL)
        assert_true(serry_timeouts_extend(m->extended, m->extend, 60000) > 0);
    m->extended = NULL;
    atomic_store(&m->asleep, true);
    int timeout_ms = limit->timeout_ms < 0 ? 60000 : limit->timeout_ms;
    code = (int)serry_token_sleep(token, timeout_ms);
    atomic_store(&m->asleep, false);
    if (code == SERRY_OK)
        code = SERRY_ERR_TIMEOUT;
    return serry_error_make(error, code, "?", 0, 0, "the mock's sleep has ended");
}

static int mock_open(const serry_backend *backend, const serry_job *job, serry_member **member,
                     serry_error *error)
{
    mock *m = (mock *)(uintptr_t)backend->context;
    int code = answer(m->open, m->opens++, "init", error);
    m->job = *job;
    m->policy = job->policy;
    *member = code == SERRY_OK ? (serry_member *)(void *)m : NULL;
    return code;
}

static int mock_close(serry_member *member, serry_error *error)
{
    (void)error;
    mock_of(member)->closes++;
    return SERRY_OK;
}

static void mock_forget(serry_member *member)
{
    (void)member;
}

static int mock_run(serry_member *member, const serry_call *call, const serry_limit *limit,
                    serry_error *error)
{
    mock *m = mock_of(member);
    if (m->token_at_once)
        limit->token(limit->argument);
    int code = answer(m->run, m->runs++, "mocked", error);
    code = sleep_if(code, m, limit, error);
    if (code == SERRY_OK && call->recv != NULL && call->send != NULL)
        memcpy(call->recv, call->send, call->count * serry_dtype_size(call->dtype));
    return code;
}

static int mock_split(serry_member *member, int colour, int key, const serry_limit *limit,
                      serry_member **part, serry_error *error)
{
    (void)key, (void)limit, (void)error;
    *part = colour < 0 ? NULL : member;
    return SERRY_OK;
}

static int mock_set_policy(serry_member *member, serry_policy policy, serry_error *error)
{
    (void)error;
    mock_of(member)->policy = policy;
    return SERRY_OK;
}

static int mock_set_variant(serry_member *member, unsigned variant, serry_error *error)
{
    mock *m = mock_of(member);
    m->variant_calls++;
    if (variant >= m->variants)
        return serry_error_make(error, SERRY_ERR_UNSUPPORTED, "set_variant", 0, 0, "none");
    m->variant = variant;
    return SERRY_OK;
}

static void mock_failed(const serry_member *member, serry_rank_set *failed)
{
    *failed = mock_of(member)->gone;
}

static int mock_revoke(serry_member *member, serry_error *error)
{
    (void)error;
    mock_of(member)->revokes++;
    return SERRY_OK;
}

static int mock_agree(serry_member *member, serry_op op, uint64_t *value, const serry_limit *limit,
                      serry_error *error)
{
    mock *m = mock_of(member);
    (void)op, (void)value, (void)limit;
    return answer(m->agree, m->agrees++, "agree", error);
}

static int mock_shrink(serry_member *member, const serry_limit *limit, serry_member **rest,
                       serry_error *error)
{
    (void)limit, (void)error;
    *rest = member;
    return SERRY_OK;
}

static int mock_meet(serry_member *member, uint64_t vote, const serry_limit *limit, uint64_t *votes,
                     int *repeat, serry_error *error)
{
    mock *m = mock_of(member);
    unsigned at = m->meets++;
    assert_true(at < MOCK_ANSWERS);
    m->vote[at] = vote;
    m->timeout_ms[at] = limit->timeout_ms;
    int code = sleep_if(m->meet[at].code, m, limit, error);
    *votes = vote | m->meet[at].votes;
    *repeat = m->meet[at].repeat;
    m->epoch += m->joins == m->meets;
    if (code < 0 && m->meet[at].code != MOCK_SLEEP)
        serry_error_make(error, code, "meet", 77, 5, "the mock says so to a meeting");
    return code;
}

static void *mock_alloc(serry_member *member, size_t bytes, serry_error *error)
{
    (void)bytes, (void)error;
    return mock_of(member);
}

static int mock_free(serry_member *member, void *memory, serry_error *error)
{
    if (memory != mock_of(member))
        return serry_error_make(error, SERRY_ERR_INVALID, "free", 0, 0, "not mine");
    mock_of(member)->frees++;
    return SERRY_OK;
}

static int mock_rank(const serry_member *member)
{
    return mock_of(member)->rank;
}

static int mock_size(const serry_member *member)
{
    return mock_of(member)->size;
}

static void mock_participants(const serry_member *member, serry_rank_set *ranks)
{
    (void)member;
    *ranks = (serry_rank_set){{7}};
}

static uint64_t mock_epoch(const serry_member *member)
{
    return mock_of(member)->epoch;
}

static int mock_vitals(serry_member *member, int rank, serry_vitals *vitals, serry_error *error)
{
    (void)member, (void)error;
    *vitals = (serry_vitals){.progress = (uint64_t)rank};
    return SERRY_OK;
}

static int mock_exclude(serry_member *member, int rank, serry_exclusion how, serry_error *error)
{
    (void)member, (void)rank, (void)how;
    return serry_error_make(error, SERRY_ERR_UNSUPPORTED, "exclude", 0, 0, "not here");
}

void mock_make(mock *m, const char *name)
{
    *m = (mock){.size = 3, .variants = 1};
    m->table = (serry_backend){
        .name = name,
        .context = m,
        .open = mock_open,
        .close = mock_close,
        .forget = mock_forget,
        .run = mock_run,
        .split = mock_split,
        .set_policy = mock_set_policy,
        .set_variant = mock_set_variant,
        .failed = mock_failed,
        .revoke = mock_revoke,
        .agree = mock_agree,
        .shrink = mock_shrink,
        .meet = mock_meet,
        .alloc = mock_alloc,
        .free = mock_free,
        .rank = mock_rank,
        .size = mock_size,
        .live = mock_size,
        .participants = mock_participants,
        .epoch = mock_epoch,
        .vitals = mock_vitals,
        .exclude = mock_exclude,
    };
}

/* ---- chains --------------------------------------------------------------------------------- */

void chain_begin(chain *c, mock *first, mock *second, mock *third)
{
    *c = (chain){.mocks = {first, second, third}, .recovery = SERRY_RECOVERY_CONFIG_INIT};
    c->recovery.retry_delay_ms = 0;
    while (c->count < 3 && c->mocks[c->count] != NULL)
        c->count++;
}

int chain_open(chain *c)
{
    const serry_backend *backends[4];
    serry_ft_config config = SERRY_FT_CONFIG_INIT;
    serry_config job = SERRY_CONFIG_INIT;
    for (size_t i = 0; i < c->count; i++)
        backends[i] = &c->mocks[i]->table;
    config.chain = backends;
    config.count = c->count;
    config.recovery = c->recovery;
    assert_int_equal(serry_ft_create(&config, &c->backend), SERRY_OK);
    job.rank = c->mocks[0]->rank;
    job.size = c->mocks[0]->size;
    job.job = "mock";
    job.timeout_ms = c->timeout_ms != 0 ? c->timeout_ms : 60000;
    job.backend = c->backend;
    return serry_init(&job, &c->comm);
}

void chain_close(chain *c)
{
    assert_int_equal(serry_finalize(&c->comm), SERRY_OK);
    serry_ft_destroy(&c->backend);
    assert_null(c->backend);
    for (size_t i = 0; i < c->count; i++) {
        unsigned refused = 0;
        for (unsigned j = 0; j < c->mocks[i]->opens && j < MOCK_ANSWERS; j++)
            refused += c->mocks[i]->open[j] != SERRY_OK;
        assert_int_equal(c->mocks[i]->closes, c->mocks[i]->opens - refused);
    }
}

void chain_one(chain *c, mock *m)
{
    mock_make(m, "mock");
    chain_begin(c, m, NULL, NULL);
    assert_int_equal(chain_open(c), SERRY_OK);
}

int chain_sum(chain *c)
{
    uint64_t send = 42, recv = 7;
    int code = serry_allreduce(&send, &recv, 1, SERRY_U64, SERRY_SUM, c->comm);
    assert_int_equal(recv, code == SERRY_OK ? 42 : 7);
    return code;
}

/* ---- questions ------------------------------------------------------------------------------ */

void mock_answer_all(int *answers, int code, int times)
{
    for (int i = 0; i < times; i++)
        answers[i] = code;
}

void chain_set(chain *c, int code, serry_strategy strategy)
{
    assert_int_equal(serry_recovery_set_strategy(serry_ft_recovery(c->comm), code, strategy),
                     SERRY_OK);
}

size_t chain_history(const chain *c, serry_error *errors)
{
    return serry_recovery_history(serry_ft_recovery(c->comm), errors,
                                  errors == NULL ? 0 : CHAIN_HISTORY);
}

void assert_context(const serry_error *error, const char *key, const char *value)
{
    const char *found = serry_error_context_get(error, key);
    assert_non_null(found);
    assert_string_equal(found, value);
}

uint64_t mock_vote(int rank, int code, serry_strategy strategy)
{
    chain c;
    mock m;
    mock_make(&m, "other");
    m.rank = rank;
    m.run[0] = code;
    chain_begin(&c, &m, NULL, NULL);
    assert_int_equal(chain_open(&c), SERRY_OK);
    chain_set(&c, code, strategy);
    assert_int_equal(chain_sum(&c), code);
    assert_int_equal(m.meets, 1);
    chain_close(&c);
    return m.vote[0];
}
