/* endings.c - a process that ends, or becomes another program, with requests in flight ends at once, and is
 * a dead rank to the others; one that finalizes its communicator is one that has left. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "deaths.h"

enum { SIZE = 3, ENDS = 1, MANY = 64, BLOCK = 30000, TAG = 5 };
enum { FLAG_STARTED, FLAG_GONE }; /* flags of a run */

typedef enum ending { BY_EXIT, BY_EXIT_AT_ONCE, BY_EXEC, BY_FINALIZE, ENDINGS } ending;

static const char *const k_endings[ENDINGS] = {"exit", "_exit", "exec", "finalize"};

/* What the one that ends has begun: operations that the others have not come to, a receive of what nobody
 * sends, and a large message that nobody takes. */
typedef struct begun {
    serry_request *request[MANY], *receive, *send;
    int64_t in[MANY], out[MANY], room, *block;
} begun;

static bool begin(begun *b, serry_comm *comm)
{
    b->block = serry_alloc(comm, BLOCK * sizeof(*b->block));
    bool well = b->block != NULL;

    for (size_t i = 0; i < MANY; i++) {
        b->in[i] = (int64_t)i;
        well = well && serry_iallreduce(&b->in[i], &b->out[i], 1, SERRY_I64, SERRY_SUM, comm,
                                        &b->request[i]) == SERRY_OK;
    }
    return well &&
           serry_irecv(&b->room, 1, SERRY_I64, 0, TAG, NULL, comm, &b->receive) == SERRY_OK &&
           serry_isend(b->block, BLOCK, SERRY_I64, 0, TAG, comm, &b->send) == SERRY_OK;
}

static bool has_ended_with(serry_request **request, int wanted)
{
    bool well = serry_wait(request, -1) == wanted && serry_request_error(*request)->error == wanted;

    serry_request_free(request);
    return well && *request == NULL;
}

/* The first operation is open, and those behind it with it. */
static bool finalize(begun *b, serry_comm *comm)
{
    bool well = serry_finalize(&comm) == SERRY_OK;

    for (size_t i = 0; i < MANY; i++)
        well = has_ended_with(&b->request[i], i == 0 ? SERRY_ERR_CANCELLED : SERRY_ERR_PENDING) &&
               well;
    return has_ended_with(&b->receive, SERRY_ERR_CANCELLED) &&
           has_ended_with(&b->send, SERRY_ERR_CANCELLED) && well;
}

static _Noreturn void child(test_rank *self, ending how)
{
    static begun b;
    serry_comm *comm;

    if (test_init(self, 0, &comm) != SERRY_OK || !begin(&b, comm))
        _exit(2);
    test_raise(self, FLAG_STARTED);
    switch (how) {
    case BY_EXIT:
        exit(0);
    case BY_EXEC:
        execl("/bin/true", "true", (char *)NULL);
        _exit(3);
    case BY_FINALIZE:
        _exit(finalize(&b, comm) ? 0 : 4);
    case BY_EXIT_AT_ONCE:
    default:
        _exit(0);
    }
}

/* The first operations may have what it had contributed; then they tell of its end, once. */
static void expect_end_is_told(test_rank *self, serry_comm *comm)
{
    static const int gone[] = {ENDS, -1};
    int64_t in = 1, out = 0, room;
    int rc, done = 0;

    do {
        rc = serry_allreduce(&in, &out, 1, SERRY_I64, SERRY_SUM, comm);
        done++;
    } while (rc == SERRY_OK && done <= MANY);
    expect_failed(self, comm, rc, gone, "after its end");
    expect_goes_on(self, comm, gone);
    rc = serry_recv(&room, 1, SERRY_I64, ENDS, TAG, NULL, comm);
    expect_failed(self, comm, rc, gone, "a receive of what nobody has the data of");
}

static void body(test_rank *self)
{
    ending how = *(const ending *)self->argument;

    if (self->rank == ENDS) {
        pid_t pid = fork();
        if (pid == 0)
            child(self, how);
        int status = -1;
        CHECK(self, pid > 0 && waitpid(pid, &status, 0) == pid);
        if (status != 0)
            test_failed(self, "by %s: it ended with wait status %#x", k_endings[how],
                        (unsigned)status);
        test_raise(self, FLAG_GONE);
        return;
    }
    if (!test_expect(self, SERRY_OK, test_init(self, 0, &self->comm), NULL, "serry_init"))
        return;
    test_await(self, FLAG_GONE, 1);
    CHECK(self, test_flag(self->run, FLAG_STARTED) == 1);
    expect_end_is_told(self, self->comm);
    CHECK(self, serry_finalize(&self->comm) == SERRY_OK);
}

static void one(ending how)
{
    test_options options = {.kind = SERRY_PROCESSES, .size = SIZE, .body_joins = true};

    test_end(test_start(&options, body, &how));
}

static void exit_with_requests_in_flight(void **state)
{
    (void)state;
    one(BY_EXIT);
    one(BY_EXIT_AT_ONCE);
}

static void exec_with_requests_in_flight(void **state)
{
    (void)state;
    one(BY_EXEC);
}

static void finalize_with_requests_in_flight(void **state)
{
    (void)state;
    one(BY_FINALIZE);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_with_requests_in_flight),
        cmocka_unit_test(exec_with_requests_in_flight),
        cmocka_unit_test(finalize_with_requests_in_flight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
