/* backend_socket_deaths.c - ranks that die at each of their messages. To the others, all that a rank
 * does is what it sends: so these are all the moments at which it can die, one by one, with the last
 * message whole, or torn. What the ranks have seen, the victims included, must be the same. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "comm.h"
#include "deaths.h"

#define RANKS_MAX 4
#define OPERATIONS 5
#define LARGE ((size_t)60000) /* elements of 8 bytes: more than a socket takes at once */
#define PAIRS (TEST_SANITIZER ? 60 : 250)

/* ---- the end at a message ------------------------------------------------------------------- */

static test_rank *g_victim; /* NULL: this rank lives, or its time has not come */
static unsigned g_left;     /* messages until then */
static bool g_torn;

/* The first half of a message. */
static void send_half(int fd, const struct msghdr *message, int flags)
{
    struct iovec part[2];
    struct msghdr half = {.msg_iov = part};
    size_t left = 0;

    for (size_t i = 0; i < message->msg_iovlen; i++)
        left += message->msg_iov[i].iov_len;
    left /= 2;
    for (size_t i = 0; i < message->msg_iovlen && left > 0; i++) {
        part[i] = message->msg_iov[i];
        part[i].iov_len = part[i].iov_len < left ? part[i].iov_len : left;
        left -= part[i].iov_len;
        half.msg_iovlen++;
    }
    syscall(SYS_sendmsg, fd, &half, flags);
}

static _Noreturn void die(void)
{
    test_mine(g_victim)->killed = 1;
    raise(SIGKILL);
    death_await();
}

/* In place of the C library's, for the whole program. */
ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    if (g_victim != NULL && g_left-- == 0) {
        if (g_torn)
            send_half(fd, message, flags);
        die();
    }
    return syscall(SYS_sendmsg, fd, message, flags);
}

/* ---- what all must have seen ---------------------------------------------------------------- */

typedef struct outcome {
    int known; /* this rank has come so far */
    int code;
    uint64_t ranks; /* that took part, or were named */
    uint64_t sum;
} outcome;

/* Who dies in a run, at which of its messages; -1: nobody. */
typedef struct plan {
    int size;
    serry_policy policy;
    bool meets; /* one rank calls a meeting before each operation */
    bool torn;
    int at[RANKS_MAX];
    outcome of[RANKS_MAX][OPERATIONS];
} plan;

static uint64_t hash_of(const int64_t *vector, size_t count)
{
    uint64_t hash = 0;

    for (size_t i = 0; i < count; i++)
        hash = (hash ^ (uint64_t)vector[i]) * UINT64_C(0x9e3779b97f4a7c15);
    return hash;
}

static int64_t element(int rank, int n, size_t i)
{
    return (int64_t)(i % 7 + 1) << (8 * rank) | n;
}

/* The sum over those that took part, or the input. */
static void check_vector(test_rank *self, int n, int rc, uint64_t ranks, const int64_t *vector,
                         size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int64_t wanted = rc == SERRY_OK ? 0 : element(self->rank, n, i);
        for (int r = 0; r < self->size && rc == SERRY_OK; r++)
            wanted += (ranks >> r & 1) != 0 ? element(r, n, i) : 0;
        if (vector[i] != wanted) {
            test_failed(self, "operation %d, code %d, ranks %#llx: element %zu is wrong", n, rc,
                        (unsigned long long)ranks, i);
            return;
        }
    }
}

static outcome sum_up(test_rank *self, int n, int64_t *vector, size_t count)
{
    serry_rank_set took_part;

    for (size_t i = 0; i < count; i++)
        vector[i] = element(self->rank, n, i);
    int rc = serry_allreduce(SERRY_IN_PLACE, vector, count, SERRY_I64, SERRY_SUM, self->comm);
    serry_participants(self->comm, &took_part);
    check_vector(self, n, rc, took_part.bits[0], vector, count);
    if (rc == SERRY_OK)
        return (outcome){1, rc, took_part.bits[0], hash_of(vector, count)};
    if (rc != SERRY_ERR_RANK_FAILED)
        test_expect(self, SERRY_OK, rc, self->comm, "allreduce %d", n);
    return (outcome){1, rc, serry_last_error(self->comm)->ranks.bits[0], 0};
}

static outcome agree(test_rank *self)
{
    uint64_t bits = UINT64_C(1) << self->rank;

    EXPECT_OK(self, serry_agree(self->comm, SERRY_BOR, &bits));
    return (outcome){1, SERRY_OK, bits, bits};
}

static void call_meeting(test_rank *self)
{
    const serry_limit limit = {-1, NULL, NULL, NULL};
    serry_comm *comm = self->comm;
    uint64_t votes;
    int repeat;

    EXPECT_OK(self, comm->backend->meet(comm->member, 1, &limit, &votes, &repeat, &comm->error));
}

static void body_script(test_rank *self)
{
    plan *p = self->argument;
    outcome *own = p->of[self->rank];
    int64_t *vector = malloc(LARGE * sizeof(*vector));

    EXPECT_OK(self, serry_set_policy(self->comm, p->policy));
    EXPECT_OK(self, serry_barrier(self->comm));
    g_torn = p->torn;
    g_left = (unsigned)p->at[self->rank];
    g_victim = p->at[self->rank] >= 0 ? self : NULL;
    for (int n = 0; n < OPERATIONS; n++) {
        test_at(self, "operation %d", n);
        if (p->meets && n % self->size == self->rank)
            call_meeting(self);
        own[n] = n == 2 ? agree(self) : sum_up(self, n, vector, n == 3 ? LARGE : 3);
    }
    g_victim = NULL;
    free(vector);
}

/* Returns how many have died. */
static int run_plan(plan *p)
{
    test_options options = {.kind = SERRY_PROCESSES, .size = p->size};
    test_run *run = test_start(&options, body_script, p);
    int dead = 0, first = -1;

    test_join(run);
    for (int r = 0; r < p->size; r++) {
        dead += test_report_of(run, r)->killed;
        if (first < 0 && !test_report_of(run, r)->killed)
            first = r;
    }
    if (test_end_count(run) != 0)
        fail_msg("victims at %d, %d, %d, %d%s%s", p->at[0], p->at[1], p->at[2], p->at[3],
                 p->torn ? ", torn" : "", p->meets ? ", meeting" : "");
    for (int r = 0; r < p->size; r++)
        for (int n = 0; n < OPERATIONS; n++)
            if (p->of[r][n].known && memcmp(&p->of[r][n], &p->of[first][n], sizeof(outcome)) != 0)
                fail_msg("victims at %d, %d, %d, %d: operation %d was another one for rank %d",
                         p->at[0], p->at[1], p->at[2], p->at[3], n, r);
    return dead;
}

static plan *new_plan(int size, int turn, bool meets)
{
    plan *p = test_shared(sizeof(*p));

    *p = (plan){.size = size, .meets = meets, .at = {-1, -1, -1, -1}};
    p->policy = turn % 2 == 0 ? SERRY_REPORT : SERRY_EXCLUDE;
    p->torn = turn / 2 % 2 != 0;
    return p;
}

/* ---- the tests ------------------------------------------------------------------------------ */

/* One victim, at each of its messages, until it has so few that it lives. Returns how many. */
static int kill_at_each(int size, int victim, int turn, bool meets)
{
    for (int at = 0;; at++) {
        plan *p = new_plan(size, turn, meets);
        p->at[victim] = at;
        int dead = run_plan(p);
        test_unshare(p, sizeof(*p));
        if (dead == 0)
            return at;
    }
}

static void kill_all_kinds(bool meets)
{
    const int sizes[] = {3, 4}, victims[] = {0, 1};

    for (int i = 0; i < 2; i++)
        for (int v = 0; v < 2; v++)
            for (int turn = 0; turn < 4; turn++) {
                if ((TEST_SANITIZER || meets) && (turn + v + i) % 2 != 0)
                    continue;
                int messages = kill_at_each(sizes[i], victims[v], turn, meets);
                print_message("rank %d of %d sends %d messages\n", victims[v], sizes[i], messages);
                assert_true(messages > OPERATIONS);
            }
}

/* Fault:  the hub, or the rank that becomes it, dies at each of its messages.
 * Expect: every operation is the same for all, also for those that died after it. */
static void killed_at_each_message(void **state)
{
    (void)state;
    kill_all_kinds(false);
}

/* Fault:  as above, while ranks call meetings.
 * Expect: the same. */
static void killed_at_each_message_around_meetings(void **state)
{
    (void)state;
    kill_all_kinds(true);
}

/* Fault:  two or three hubs in a row die at random messages.
 * Expect: the same. */
static void hubs_in_a_row_killed_at_random_messages(void **state)
{
    (void)state;
    uint64_t sequence = chance_begin(1);
    int dead = 0;

    for (int i = 0; i < PAIRS; i++) {
        plan *p = new_plan(4, (int)chance(&sequence, 4), chance(&sequence, 4) == 0);
        p->at[0] = (int)chance(&sequence, 45);
        p->at[1] = (int)chance(&sequence, 30);
        if (chance(&sequence, 3) == 0)
            p->at[2] = (int)chance(&sequence, 20);
        dead += run_plan(p);
        test_unshare(p, sizeof(*p));
    }
    print_message("%d ranks died in %d runs\n", dead, PAIRS);
    assert_true(dead > PAIRS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_at_each_message),
        cmocka_unit_test(killed_at_each_message_around_meetings),
        cmocka_unit_test(hubs_in_a_row_killed_at_random_messages),
    };

    setenv("SERRY_BACKEND", "socket", 1);
    return cmocka_run_group_tests_name("backend_socket_deaths", tests, NULL, NULL);
}
