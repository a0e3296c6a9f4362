/* ft_joining.c - a request is on its way to the next backend of the chain, and one rank does not join it
 * yet: what else the others have under way goes on, and so does the request, cancelled or not. */
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ft_jobs.h"

#include <serry/backend.h>

enum { RANKS = 3, CANCELLER = 0, LATE = 2, ID = 6, CODE = 64, NAP_NS = 1000000 };
enum {
    FLAG_JOINS,
    FLAG_DONE
}; /* raised once by each rank in a run: all but the late one; by all */

typedef enum how { GOES_ON, CANCELLED, BY_TOKEN, SYNCHRONOUS, FORKED, FINALIZED, HOWS } how;

static const char *const k_hows[] = {"goes on",
                                     "is cancelled",
                                     "is cancelled by its token",
                                     "is gone on with by a call",
                                     "is seen by a child",
                                     "is ended by finalize"};

/* ---- a backend that tells, and lets one join late ------------------------------------------------ */

static serry_backend g_late;        /* the next of the chain: */
static const serry_backend *g_real; /* this one, told of */
static _Atomic(test_rank *) g_self; /* one of this process */
static atomic_bool g_joins[RANKS];

/* A call that is not polled waits, for what never comes if others wait in their calls likewise. */
static bool is_late(const serry_job *job)
{
    test_rank *self = atomic_load(&g_self);

    if (job->rank != LATE || test_flag(self->run, FLAG_DONE) == RANKS)
        return false;
    if (job->poll == NULL)
        test_await(self, FLAG_DONE, RANKS);
    return job->poll != NULL;
}

static int open_late(const serry_backend *backend, const serry_job *job, serry_member **member,
                     serry_error *error)
{
    static char not_yet; /* what the late one goes on with */
    serry_job with = *job;

    (void)backend;
    if (job->rank != LATE && !atomic_exchange(&g_joins[job->rank], true))
        test_raise(atomic_load(&g_self), FLAG_JOINS);
    if (is_late(job)) {
        *job->poll = (serry_interest){.sleep = job->poll->sleep,
                                      .at_ns = (uint64_t)(test_now() * 1e9) + NAP_NS};
        *member = (serry_member *)(void *)&not_yet;
        return SERRY_ERR_AGAIN;
    }
    if (with.joining == (serry_member *)(void *)&not_yet)
        with.joining = NULL;
    return g_real->open(g_real, &with, member, error);
}

/* A thread rank begins in its thread. */
static void await_joining(test_rank *self, serry_request **request)
{
    int done = 0;

    while (self->kind == SERRY_THREADS && self->rank != LATE && !atomic_load(&g_joins[self->rank]))
        if (!EXPECT_OK(self, serry_test(request, &done)) || !CHECK(self, done == 0))
            return;
    test_await(self, FLAG_JOINS, RANKS - 1);
}

/* ---- another communicator ----------------------------------------------------------------------- */

static bool join_other(test_rank *self, serry_comm **other)
{
    serry_config config = SERRY_CONFIG_INIT;
    char name[CODE];

    snprintf(name, sizeof(name), "%.50s_other", self->job);
    config.rank = self->rank;
    config.size = self->size;
    config.job = name;
    config.kind = self->kind;
    config.timeout_ms = 60000;
    config.backend = &serry_backend_shm;
    return test_expect(self, SERRY_OK, serry_init(&config, other), NULL, "serry_init of another");
}

static void has_ended(int result, const serry_error *error, void *ended)
{
    (void)error;
    if (result == SERRY_OK)
        sem_post(ended);
}

/* A sum there, by the progress thread alone but for the late one. */
static void sum_there(test_rank *self, serry_comm *other)
{
    int64_t one = 1, sum = 0;
    serry_request *request;
    sem_t ended;

    sem_init(&ended, 0, 0);
    if (self->rank == LATE) {
        test_expect(self, SERRY_OK, serry_allreduce(&one, &sum, 1, SERRY_I64, SERRY_SUM, other),
                    other, "a sum there");
    } else {
        test_expect(self, SERRY_OK,
                    serry_iallreduce(&one, &sum, 1, SERRY_I64, SERRY_SUM, other, &request), other,
                    "the start of a sum there");
        test_expect(self, SERRY_OK, serry_on_completion(request, has_ended, &ended), other,
                    "its end");
        while (sem_wait(&ended) != 0)
            ;
        test_expect(self, SERRY_OK, serry_wait(&request, -1), other, "a sum there");
    }
    CHECK(self, sum == RANKS);
    sem_destroy(&ended);
}

/* ---- what becomes of the request ---------------------------------------------------------------- */

static int start(test_rank *self, const int64_t *in, int64_t *out, serry_request **request)
{
    return serry_iallreduce(in, out, 1, SERRY_I64, SERRY_SUM, self->comm, request);
}

static void expect_cancelled(test_rank *self, serry_request **request, const char *says)
{
    test_expect(self, SERRY_ERR_CANCELLED, serry_wait(request, -1), NULL, "the wait for it");
    const serry_error *error = serry_request_error(*request);
    if (error->error != SERRY_ERR_CANCELLED || strstr(error->message, says) == NULL)
        test_failed(self, "it does not say '%s': %s", says, error->message);
    serry_request_free(request);
}

static void cancel_by_token(test_rank *self, serry_timeouts *timeouts, serry_request **request)
{
    serry_timeouts_cancel(timeouts, ID);
    expect_cancelled(self, request, "was cancelled while this rank joined");
    EXPECT_OK(self, serry_set_token(self->comm, NULL));
    serry_timeouts_destroy(&timeouts);
}

/* The child is refused, gives its copies back, and nobody notices. */
static void fork_there(test_rank *self, serry_request *request)
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        int64_t one = 1, sum;
        if (serry_wait(&request, -1) != SERRY_ERR_FORKED ||
            serry_allreduce(&one, &sum, 1, SERRY_I64, SERRY_SUM, self->comm) != SERRY_ERR_FORKED)
            _exit(2);
        serry_request_free(&request);
        _exit(serry_finalize(&self->comm) == SERRY_OK && request == NULL ? 0 : 1);
    }
    CHECK(self, child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

static void treat(test_rank *self, how it, serry_timeouts *timeouts, const int64_t *in,
                  int64_t *out, serry_request **request)
{
    if (it == CANCELLED || it == SYNCHRONOUS) {
        EXPECT_OK(self, serry_cancel(*request));
        expect_cancelled(self, request, "was cancelled");
    }
    if (it == BY_TOKEN)
        cancel_by_token(self, timeouts, request);
    if (it == FORKED)
        fork_there(self, *request);
    if (it == CANCELLED || it == BY_TOKEN)
        EXPECT_OK(self, start(self, in, out, request));
    test_raise(self, FLAG_DONE);
    if (it == SYNCHRONOUS)
        EXPECT_OK(self, serry_allreduce(in, out, 1, SERRY_I64, SERRY_SUM, self->comm));
}

static serry_timeouts *give_token(test_rank *self)
{
    serry_timeouts *timeouts;
    serry_token *token;

    EXPECT_OK(self, serry_timeouts_create(-1, &timeouts));
    EXPECT_OK(self, serry_timeouts_start(timeouts, ID, -1, &token));
    EXPECT_OK(self, serry_set_token(self->comm, token));
    serry_token_release(&token);
    return timeouts;
}

/* The others are told that it has failed there, before or after their sum. */
static void finalize_early(test_rank *self, serry_comm **other, serry_request **request)
{
    EXPECT_OK(self, serry_finalize(&self->comm));
    expect_cancelled(self, request, "was finalized");
    test_raise(self, FLAG_DONE);
    test_expect(self, SERRY_OK, serry_finalize(other), NULL, "finalize of the other one");
}

static void expect_moved(test_rank *self, const ft_job *job)
{
    const serry_backend *now = serry_ft_carrier(self->comm);
    int64_t one = 1, sum = 0;

    CHECK(self, now == job->faulty[1]);
    EXPECT_OK(self, serry_allreduce(&one, &sum, 1, SERRY_I64, SERRY_SUM, self->comm));
    CHECK(self, sum == RANKS);
}

static void body(test_rank *self)
{
    const ft_job *job = self->argument;
    how it = self->rank == CANCELLER ? *(const how *)job->more : GOES_ON;
    bool loses = *(const how *)job->more == FINALIZED;
    int64_t in = INT64_C(1) << 8 * self->rank, out = 0;
    serry_timeouts *timeouts = NULL;
    serry_request *request;
    serry_comm *other;

    atomic_store(&g_self, self);
    if (!ft_job_open(self) || !join_other(self, &other))
        return;
    if (it == BY_TOKEN)
        timeouts = give_token(self);
    EXPECT_OK(self, start(self, &in, &out, &request));
    await_joining(self, &request);
    sum_there(self, other);
    if (it == FINALIZED) {
        finalize_early(self, &other, &request);
        return;
    }
    treat(self, it, timeouts, &in, &out, &request);
    int rc = serry_wait(&request, -1);
    if (loses) {
        CHECK(self, rc == SERRY_OK || rc == SERRY_ERR_RANK_FAILED);
        serry_request_free(&request);
    } else {
        test_expect(self, SERRY_OK, rc, self->comm, "the request");
        CHECK(self, out == 0x010101);
        expect_moved(self, job);
    }
    test_expect(self, SERRY_OK, serry_finalize(&other), NULL, "finalize of the other one");
    ft_job_close(self);
}

static void one_on(const serry_backend *next, how it)
{
    ft_job job = {.inner = {&serry_backend_shm, &g_late},
                  .script = {"rank=1 op=1 fail=SYSTEM", ""},
                  .system = SERRY_FALLBACK_BACKEND,
                  .more = &it};

    g_real = next;
    g_late = *next;
    g_late.open = open_late;
    printf("%s: one %s\n", next->name, k_hows[it]);
    for (int kind = 0; kind < 2; kind++) {
        for (int r = 0; r < RANKS; r++)
            atomic_store(&g_joins[r], false);
        if (kind == 0 ? it != FORKED : !TEST_TSAN)
            ft_job_run(&job, kind == 0 ? SERRY_THREADS : SERRY_PROCESSES, RANKS, -1, body);
    }
}

static void one(how it)
{
    one_on(&serry_backend_socket, it);
    one_on(&serry_backend_shm, it);
}

static void others_go_on_meanwhile(void **state)
{
    (void)state;
    one(GOES_ON);
}

static void it_is_cancelled_and_made_again(void **state)
{
    (void)state;
    one(CANCELLED);
    one(BY_TOKEN);
    one(SYNCHRONOUS);
}

static void its_process_forks(void **state)
{
    (void)state;
    one(FORKED);
}

static void its_communicator_is_finalized(void **state)
{
    (void)state;
    one(FINALIZED);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_go_on_meanwhile),
        cmocka_unit_test(it_is_cancelled_and_made_again),
        cmocka_unit_test(its_process_forks),
        cmocka_unit_test(its_communicator_is_finalized),
    };

    test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
