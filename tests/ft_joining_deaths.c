/* ft_joining_deaths.c - a rank is killed on its way to the next backend of the chain, at each point of that:
 * the others get there without it, and their request has ended alike. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "ft_jobs.h"

#include <serry/backend.h>

enum { RANKS = 4, LATE = 2, ATTEMPTS = 3, NAP_NS = 1000000, NAP_US = 1000, LOOKS = 60000 };
enum {
    FLAG_WAITS,
    FLAG_COMES,
    FLAG_DIES,
    FLAG_DONE
}; /* the victim, LATE, the victim, the others */

/* Where it is killed. */
typedef enum point {
    BEGINS, /* before anything */
    WAITS,  /* while LATE has not come */
    HEIR,   /* there, and a child of it lives on, with copies of all that it had open */
    ALL_COME,
    JOINED, /* it has joined, and nobody knows */
    POINTS
} point;

static const char *const k_points[] = {"as it begins", "while it waits",
                                       "while it waits, survived by a child", "when all have come",
                                       "when it has joined"};

typedef struct death {
    int victim;
    point at;
} death;

static const serry_backend *g_real;
static serry_backend g_next; /* it, with the death in it */
static test_rank *g_self;    /* of this process */

static const death *death_of(const test_rank *self)
{
    return ((const ft_job *)self->argument)->more;
}

static bool flag(int which, unsigned value)
{
    return test_flag(g_self->run, which) >= value;
}

static void live_on(void)
{
    for (int i = 0; i < LOOKS && !flag(FLAG_DONE, RANKS - 1); i++)
        usleep(NAP_US);
    _exit(0);
}

static void die(void)
{
    if (death_of(g_self)->at == HEIR && fork() == 0)
        live_on();
    test_raise(g_self, FLAG_DIES);
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static int open_victim(const serry_job *job, serry_member **member, serry_error *error)
{
    static bool waits;
    point at = death_of(g_self)->at;
    bool all = flag(FLAG_COMES, 1);

    if (at == BEGINS)
        die();
    int rc = g_real->open(g_real, job, member, error);
    if (rc == SERRY_ERR_AGAIN && !waits)
        test_raise(g_self, FLAG_WAITS);
    waits = true;
    if (at == WAITS || at == HEIR || rc != SERRY_ERR_AGAIN || (at == ALL_COME && all))
        die();
    return rc;
}

/* Until the victim is where it is to die, or dead. */
static bool is_late(void)
{
    point at = death_of(g_self)->at;

    return at == ALL_COME || at == JOINED ? !flag(FLAG_WAITS, 1) : !flag(FLAG_DIES, 1);
}

static int open_next(const serry_backend *backend, const serry_job *job, serry_member **member,
                     serry_error *error)
{
    static char not_yet; /* what the late one goes on with */
    serry_job with = *job;

    (void)backend;
    if (with.joining == (serry_member *)(void *)&not_yet)
        with.joining = NULL;
    if (job->rank == death_of(g_self)->victim)
        return open_victim(&with, member, error);
    if (job->rank == LATE && job->poll != NULL && is_late()) {
        *job->poll = (serry_interest){.sleep = job->poll->sleep,
                                      .at_ns = (uint64_t)(test_now() * 1e9) + NAP_NS};
        *member = (serry_member *)(void *)&not_yet;
        return SERRY_ERR_AGAIN;
    }
    if (job->rank == LATE && !flag(FLAG_COMES, 1))
        test_raise(g_self, FLAG_COMES);
    return g_real->open(g_real, &with, member, error);
}

/* Of this rank, and of all that live: one that tells of the death may come first. */
static void expect_alike(test_rank *self, int mine)
{
    int64_t given[2] = {mine, -mine}, least[2] = {0, 0};
    int rc = SERRY_ERR_RANK_FAILED;

    for (int i = 0; i < ATTEMPTS && rc == SERRY_ERR_RANK_FAILED; i++)
        rc = serry_allreduce(given, least, 2, SERRY_I64, SERRY_MIN, self->comm);
    test_expect(self, SERRY_OK, rc, self->comm, "an operation among the others");
    CHECK(self, least[0] == mine && least[1] == -mine);
}

static void body(test_rank *self)
{
    const ft_job *job = self->argument;
    int64_t one = 1, sum = 0;
    serry_request *request;

    g_self = self;
    if (!ft_job_open(self))
        return;
    EXPECT_OK(self, serry_iallreduce(&one, &sum, 1, SERRY_I64, SERRY_SUM, self->comm, &request));
    int rc = serry_wait(&request, -1);
    if (rc != SERRY_OK && rc != SERRY_ERR_RANK_FAILED)
        test_expect(self, SERRY_OK, rc, NULL, "the request");
    CHECK(self, sum == (rc == SERRY_OK ? RANKS - 1 : 0));
    serry_request_free(&request);
    expect_alike(self, rc);
    CHECK(self, serry_ft_carrier(self->comm) == job->faulty[1]);
    test_raise(self, FLAG_DONE);
    ft_job_close(self);
}

static void on(const serry_backend *next)
{
    for (int victim = 0; victim < LATE; victim++)
        for (int at = 0; at < POINTS; at++) {
            const death d = {victim, (point)at};
            ft_job job = {.inner = {&serry_backend_shm, &g_next},
                          .script = {"rank=3 op=1 fail=SYSTEM", ""},
                          .system = SERRY_FALLBACK_BACKEND,
                          .more = &d};
            printf("%s: rank %d is killed %s\n", next->name, victim, k_points[at]);
            fflush(stdout);
            g_real = next;
            g_next = *next;
            g_next.open = open_next;
            ft_job_run(&job, SERRY_PROCESSES, RANKS, victim, body);
        }
}

static void killed_on_the_way_to_sockets(void **state)
{
    (void)state;
    on(&serry_backend_socket);
}

static void killed_on_the_way_to_another_shm(void **state)
{
    (void)state;
    on(&serry_backend_shm);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_on_the_way_to_sockets),
        cmocka_unit_test(killed_on_the_way_to_another_shm),
    };

    test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
