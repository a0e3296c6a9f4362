/* guard.c - builds with assertions notice that a buffer of a running request is touched, and that two
 * requests would share one wrongly; they take nothing else for that. */
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

enum { MANY = 64, COUNT = 1000, TAG = 3, LATE = 1 };
enum { FLAG_TOUCHED }; /* flags of a run */

static void fill(int32_t *numbers, size_t count, int rank)
{
    for (size_t i = 0; i < count; i++)
        numbers[i] = (int32_t)i + rank;
}

/* That it is refused at the start, in plain words, and that nothing was started. */
static void expect_refused(test_rank *self, int rc, serry_request *const *request,
                           const char *running)
{
    const char *message = serry_last_error(self->comm)->message;
    char who[32];

    snprintf(who, sizeof(who), "running %s of rank %d", running, self->rank);
    if (test_expect(self, SERRY_ERR_INVALID, rc, self->comm, "beside a running %s", running) &&
        strstr(message, who) == NULL)
        test_failed(self, "it does not say '%s': %s", who, message);
    CHECK(self, *request == NULL);
}

/* ---- a send buffer is changed ------------------------------------------------------------------ */

/* All but the late one wait for it, so the operation is under way when rank 0 changes its input. */
static void body_change(test_rank *self)
{
    static _Thread_local int32_t send[COUNT], recv[COUNT];
    serry_request *request;

    fill(send, COUNT, self->rank);
    if (self->rank == LATE)
        test_await(self, FLAG_TOUCHED, 1);
    EXPECT_OK(self,
              serry_iallreduce(send, recv, COUNT, SERRY_I32, SERRY_SUM, self->comm, &request));
    if (self->rank == 0) {
        send[COUNT - 1]++;
        test_raise(self, FLAG_TOUCHED);
    }
    int rc = serry_wait(&request, -1);
    if (self->rank == 0) {
        const serry_error *error = serry_request_error(request);
        CHECK(self, rc == SERRY_ERR_INVALID && error->error == SERRY_ERR_INVALID);
        CHECK(self, strstr(error->message, "allreduce: the send buffer of rank 0 ") != NULL);
        CHECK(self, strstr(error->message, "until the request has ended") != NULL);
        serry_request_free(&request);
    } else {
        test_expect(self, SERRY_OK, rc, self->comm, "where nothing was changed");
    }
    EXPECT_OK(self, serry_barrier(self->comm)); /* the communicator is as before */
}

/* An error that tells of something else stays what it is. */
static void body_change_and_cancel(test_rank *self)
{
    static _Thread_local int32_t send[COUNT], recv[COUNT];
    serry_request *request;

    fill(send, COUNT, self->rank);
    if (self->rank == 0) {
        EXPECT_OK(self,
                  serry_iallreduce(send, recv, COUNT, SERRY_I32, SERRY_SUM, self->comm, &request));
        send[0]++;
        EXPECT_OK(self, serry_cancel(request));
        CHECK(self, serry_wait(&request, -1) == SERRY_ERR_CANCELLED);
        serry_request_free(&request);
        send[0]--;
    }
    test_meet(self);
    EXPECT_OK(self, serry_allreduce(send, recv, COUNT, SERRY_I32, SERRY_SUM, self->comm));
}

static void body_change_message(test_rank *self)
{
    /* Too many for their way, so the last of them has not been copied yet. */
    static _Thread_local int32_t send[MANY * 4][COUNT], recv[COUNT];
    serry_request *request[MANY * 4];

    if (self->rank == 0) {
        for (size_t i = 0; i < (size_t)MANY * 4; i++)
            EXPECT_OK(self,
                      serry_isend(send[i], COUNT, SERRY_I32, 1, TAG, self->comm, &request[i]));
        send[MANY * 4 - 1][0]++;
    }
    test_meet(self);
    if (self->rank != 0) {
        for (size_t i = 0; i < (size_t)MANY * 4; i++)
            EXPECT_OK(self, serry_recv(recv, COUNT, SERRY_I32, 0, TAG, NULL, self->comm));
        return;
    }
    for (size_t i = 0; i < (size_t)MANY * 4 - 1; i++)
        EXPECT_OK(self, serry_wait(&request[i], -1));
    CHECK(self, serry_wait(&request[MANY * 4 - 1], -1) == SERRY_ERR_INVALID);
    serry_request_free(&request[MANY * 4 - 1]);
}

/* ---- a buffer of a list is changed -------------------------------------------------------------- */

/* What was sent is what it held at the start; nothing is put over the change. */
static void body_change_list(test_rank *self)
{
    static _Thread_local int32_t a[COUNT], b[COUNT];
    const serry_buffer list[] = {{a, COUNT}, {NULL, 0}, {b, COUNT}};
    serry_request *request;

    fill(a, COUNT, self->rank);
    fill(b, COUNT, self->rank);
    if (self->rank == LATE)
        test_await(self, FLAG_TOUCHED, 1);
    EXPECT_OK(self, serry_iallreduce_many(list, 3, SERRY_I32, SERRY_SUM, self->comm, &request));
    if (self->rank == 0) {
        b[COUNT - 1] = 77;
        test_raise(self, FLAG_TOUCHED);
    }
    int rc = serry_wait(&request, -1);
    if (self->rank == 0) {
        const serry_error *error = serry_request_error(request);
        CHECK(self, rc == SERRY_ERR_INVALID && error->error == SERRY_ERR_INVALID);
        CHECK(self,
              strstr(error->message, "allreduce_many: a buffer of the list of rank 0 ") != NULL);
        CHECK(self, a[0] == 0 && b[0] == 0 && b[COUNT - 1] == 77);
        serry_request_free(&request);
    } else {
        test_expect(self, SERRY_OK, rc, self->comm, "where nothing was changed");
        for (int i = 0; i < COUNT; i++)
            CHECK(self, a[i] == self->size * i + self->size * (self->size - 1) / 2 && b[i] == a[i]);
    }
    EXPECT_OK(self, serry_barrier(self->comm)); /* the communicator is as before */
}

/* Of a broadcast the root alone gives anything. */
static void body_change_broadcast(test_rank *self)
{
    static _Thread_local int32_t a[COUNT];
    const serry_buffer list[] = {{a, COUNT / 2}, {a + COUNT / 2, COUNT / 2}};
    serry_request *request;

    fill(a, COUNT, self->rank);
    if (self->rank != 1) /* the root has it behind it, or not: neither tells what others change */
        test_await(self, FLAG_TOUCHED, 1);
    EXPECT_OK(self, serry_ibroadcast_many(list, 2, SERRY_I32, 0, self->comm, &request));
    if (self->rank == 1) {
        a[0] = a[COUNT - 1] = 77;
        test_raise(self, FLAG_TOUCHED);
    }
    EXPECT_OK(self, serry_wait(&request, -1));
    CHECK(self, a[0] == 0 && a[COUNT - 1] == COUNT - 1);
}

/* Cancelled, it says so, whatever was changed. A start that is refused leaves what is open as it is. */
static void body_change_list_and_cancel(test_rank *self)
{
    static _Thread_local int32_t a[COUNT];
    const serry_buffer list[] = {{a, COUNT - 1}, {a + COUNT - 1, 1}};
    serry_request *request, *receive;

    fill(a, COUNT, self->rank);
    if (self->rank == 0) {
        EXPECT_OK(self, serry_iallreduce_many(list, 2, SERRY_I32, SERRY_SUM, self->comm, &request));
        a[0] += 5;
        EXPECT_OK(self, serry_cancel(request));
        CHECK(self, serry_wait(&request, -1) == SERRY_ERR_CANCELLED);
        serry_request_free(&request);
        a[0] -= 5;
        EXPECT_OK(self, serry_irecv(a, 1, SERRY_I32, 0, TAG, NULL, self->comm, &receive));
        expect_refused(self,
                       serry_iallreduce_many(list, 2, SERRY_I32, SERRY_SUM, self->comm, &request),
                       &request, "irecv");
        EXPECT_OK(self, serry_cancel(receive));
        serry_request_free(&receive);
    }
    test_meet(self);
    EXPECT_OK(self, serry_iallreduce_many(list, 2, SERRY_I32, SERRY_SUM, self->comm, &request));
    EXPECT_OK(self, serry_wait(&request, -1));
    CHECK(self, a[0] == 1 && a[COUNT - 1] == 2 * (COUNT - 1) + 1);
}

/* ---- buffers overlap --------------------------------------------------------------------------- */

static void body_overlap(test_rank *self)
{
    static _Thread_local int32_t a[COUNT], c[COUNT];
    serry_comm *comm = self->comm;
    serry_request *first, *other;

    fill(a, COUNT, self->rank);
    EXPECT_OK(self, serry_irecv(c, COUNT, SERRY_I32, self->rank, TAG, NULL, comm, &first));
    expect_refused(self, serry_irecv(c, COUNT, SERRY_I32, self->rank, TAG, NULL, comm, &other),
                   &other, "irecv");
    expect_refused(self, serry_isend(c + COUNT - 1, 1, SERRY_I32, self->rank, TAG, comm, &other),
                   &other, "irecv");
    expect_refused(self, serry_iallreduce(a, c + 10, 1, SERRY_I32, SERRY_SUM, comm, &other), &other,
                   "irecv");
    expect_refused(self, serry_ibroadcast(c, COUNT, SERRY_I32, 0, comm, &other), &other, "irecv");
    EXPECT_OK(self, serry_isend(a, COUNT, SERRY_I32, self->rank, TAG, comm, &other));
    EXPECT_OK(self, serry_wait(&other, -1));
    EXPECT_OK(self, serry_wait(&first, -1));
    CHECK(self, memcmp(a, c, sizeof(a)) == 0);
}

/* What a call has depends on its kind and on this rank: of a gather the root gets all blocks. */
static void body_overlap_calls(test_rank *self)
{
    static _Thread_local int32_t a[COUNT], b[8 * COUNT];
    serry_comm *comm = self->comm;
    int32_t *last = b + (size_t)(self->size - 1) * COUNT;
    serry_request *first, *other;

    fill(a, COUNT, self->rank);
    if (self->rank == LATE)
        test_await(self, FLAG_TOUCHED, 1);
    EXPECT_OK(self, serry_igather(a, b, COUNT, SERRY_I32, 0, comm, &first));
    if (self->rank == 0) {
        expect_refused(self,
                       serry_iallreduce(SERRY_IN_PLACE, last + COUNT - 1, 1, SERRY_I32, SERRY_SUM,
                                        comm, &other),
                       &other, "gather");
        expect_refused(self, serry_iallgather(last, b + 7 * COUNT, 1, SERRY_I32, comm, &other),
                       &other, "gather");
        test_raise(self, FLAG_TOUCHED);
    }
    EXPECT_OK(self, serry_wait(&first, -1));
    if (self->rank == 0)
        CHECK(self, last[COUNT - 1] == COUNT - 1 + self->size - 1);
}

/* Each buffer of a list counts, and what lies between them does not. */
static void body_overlap_lists(test_rank *self)
{
    static _Thread_local int32_t a[3 * COUNT], b[COUNT];
    const serry_buffer list[] = {{a, COUNT}, {a + (size_t)2 * COUNT, COUNT}};
    const serry_buffer others[] = {{b, COUNT}, {a + (size_t)3 * COUNT - 1, 1}};
    serry_comm *comm = self->comm;
    serry_request *first, *other, *receive;

    fill(a, 3 * (size_t)COUNT, self->rank);
    if (self->rank == LATE)
        test_await(self, FLAG_TOUCHED, 1);
    EXPECT_OK(self, serry_iallreduce_many(list, 2, SERRY_I32, SERRY_SUM, comm, &first));
    if (self->rank == 0) {
        expect_refused(self, serry_iallreduce_many(others, 2, SERRY_I32, SERRY_SUM, comm, &other),
                       &other, "allreduce_many");
        expect_refused(self, serry_ibroadcast_many(others, 2, SERRY_I32, 0, comm, &other), &other,
                       "allreduce_many");
        expect_refused(self, serry_isend(a, 1, SERRY_I32, 0, TAG, comm, &other), &other,
                       "allreduce_many");
        EXPECT_OK(self, serry_irecv(b, 1, SERRY_I32, 0, TAG, NULL, comm, &receive));
        expect_refused(self, serry_ibroadcast_many(others, 1, SERRY_I32, 0, comm, &other), &other,
                       "irecv");
        EXPECT_OK(self, serry_isend(a + COUNT, 1, SERRY_I32, 0, TAG, comm, &other));
        EXPECT_OK(self, serry_wait(&other, -1));
        EXPECT_OK(self, serry_wait(&receive, -1));
        test_raise(self, FLAG_TOUCHED);
    }
    EXPECT_OK(self, serry_wait(&first, -1));
    CHECK(self, a[0] == self->size * (self->size - 1) / 2 && a[COUNT] == COUNT + self->rank);
}

/* ---- what is right is not refused -------------------------------------------------------------- */

/* The root only reads, so it may give the same twice; and where one has ended the next may go on. */
static void body_right_lists(test_rank *self)
{
    static _Thread_local int32_t a[COUNT], b[COUNT];
    serry_buffer one = {a, COUNT}, two = {self->rank == 0 ? a : b, COUNT};
    serry_request *request[2];

    fill(a, COUNT, self->rank);
    EXPECT_OK(self, serry_ibroadcast_many(&one, 1, SERRY_I32, 0, self->comm, &request[0]));
    EXPECT_OK(self, serry_ibroadcast_many(&two, 1, SERRY_I32, 0, self->comm, &request[1]));
    EXPECT_OK(self, serry_wait_all(request, 2, -1));
    CHECK(self, a[COUNT - 1] == COUNT - 1 && (self->rank == 0 || b[COUNT - 1] == COUNT - 1));
    for (int i = 0; i < 2; i++) {
        EXPECT_OK(self,
                  serry_iallreduce_many(&one, 1, SERRY_I32, SERRY_SUM, self->comm, &request[0]));
        EXPECT_OK(self, serry_wait(&request[0], -1));
    }
    CHECK(self, a[1] == self->size * self->size);
}

/* Many read the same; each writes elsewhere, side by side. In place is no change. */
static void body_right(test_rank *self)
{
    static _Thread_local int32_t a[COUNT], b[MANY][COUNT];
    serry_request *request[MANY];

    fill(a, COUNT, self->rank);
    for (size_t i = 0; i < MANY; i++)
        EXPECT_OK(self,
                  serry_iallreduce(a, b[i], COUNT, SERRY_I32, SERRY_MAX, self->comm, &request[i]));
    EXPECT_OK(self, serry_wait_all(request, MANY, -1));
    for (size_t i = 0; i < MANY; i++) {
        CHECK(self, b[i][COUNT - 1] == COUNT - 1 + self->size - 1);
        EXPECT_OK(self, serry_iallreduce(SERRY_IN_PLACE, b[i], COUNT, SERRY_I32, SERRY_SUM,
                                         self->comm, &request[i]));
    }
    EXPECT_OK(self, serry_wait_all(request, MANY, -1));
    for (size_t i = 0; i < MANY; i++)
        CHECK(self, b[i][0] == self->size * (self->size - 1));
}

typedef struct chain {
    test_rank *self;
    int32_t a[COUNT], b[COUNT];
    serry_request *next; /* started by the callback */
} chain;

static void start_next(int result, const serry_error *error, void *argument)
{
    chain *c = argument;

    CHECK(c->self, result == SERRY_OK && error == NULL);
    test_expect(c->self, SERRY_OK,
                serry_iallreduce(c->a, c->b, COUNT, SERRY_I32, SERRY_SUM, c->self->comm, &c->next),
                c->self->comm, "on the same buffers, from the callback");
}

/* A request that has ended gives its buffers back before its callback. */
static void body_again(test_rank *self)
{
    static _Thread_local chain c;
    serry_request *request;

    c.self = self;
    fill(c.a, COUNT, self->rank);
    EXPECT_OK(self, serry_iallreduce(c.a, c.b, COUNT, SERRY_I32, SERRY_SUM, self->comm, &request));
    EXPECT_OK(self, serry_on_completion(request, start_next, &c));
    EXPECT_OK(self, serry_wait(&request, -1));
    EXPECT_OK(self, serry_wait(&c.next, -1));
    CHECK(self, c.b[0] == self->size * (self->size - 1) / 2);
}

/* What runs in the parent of a fork does not run in the child. */
static void body_fork(test_rank *self)
{
    static int32_t a[COUNT];
    serry_request *request, *other;

    EXPECT_OK(self,
              serry_irecv(a, COUNT, SERRY_I32, 1 - self->rank, TAG, NULL, self->comm, &request));
    pid_t child = fork();
    if (child == 0) {
        serry_config config = SERRY_CONFIG_INIT;
        serry_comm *comm;
        char job[64];
        test_job_name(job, sizeof(job));
        config.rank = 0;
        config.size = 1;
        config.job = job;
        bool well = serry_init(&config, &comm) == SERRY_OK &&
                    serry_irecv(a, COUNT, SERRY_I32, 0, TAG, NULL, comm, &other) == SERRY_OK &&
                    serry_cancel(other) == SERRY_OK;
        serry_request_free(&other);
        serry_request_free(&request);
        _exit(well && serry_finalize(&comm) == SERRY_OK ? 0 : 1);
    }
    int status = -1;
    CHECK(self, child > 0 && waitpid(child, &status, 0) == child && status == 0);
    EXPECT_OK(self, serry_send(NULL, 0, SERRY_I32, 1 - self->rank, TAG, self->comm));
    EXPECT_OK(self, serry_wait(&request, -1));
}

/* ---- between threads --------------------------------------------------------------------------- */

static int32_t common[COUNT];

static void body_common(test_rank *self)
{
    serry_request *request;

    if (self->rank == 0)
        EXPECT_OK(self, serry_irecv(common, COUNT, SERRY_I32, 0, TAG, NULL, self->comm, &request));
    test_meet(self);
    if (self->rank == 1) {
        CHECK(self, serry_irecv(common, COUNT, SERRY_I32, 1, TAG, NULL, self->comm, &request) ==
                        SERRY_ERR_INVALID);
        CHECK(self, strstr(serry_last_error(self->comm)->message, "of rank 0") != NULL);
    }
    test_meet(self);
    if (self->rank != 0)
        return;
    EXPECT_OK(self, serry_send(NULL, 0, SERRY_I32, 0, TAG, self->comm));
    EXPECT_OK(self, serry_wait(&request, -1));
}

/* ---- tests ------------------------------------------------------------------------------------- */

static void on_both(int size, test_body body)
{
    run_ranks(SERRY_THREADS, size, body, NULL);
    if (!TEST_TSAN)
        run_ranks(SERRY_PROCESSES, size, body, NULL);
}

/* The change that these make is a race with who reads, so it is not for the thread sanitizer. */
static void a_changed_send_buffer_is_noticed(void **state)
{
    (void)state;
    if (!TEST_TSAN)
        on_both(3, body_change);
}

static void a_changed_message_is_noticed(void **state)
{
    (void)state;
    if (!TEST_TSAN)
        on_both(2, body_change_message);
}

static void a_changed_list_is_noticed(void **state)
{
    (void)state;
    if (TEST_TSAN)
        return;
    on_both(3, body_change_list);
    on_both(3, body_change_broadcast);
}

static void another_error_stays(void **state)
{
    (void)state;
    if (TEST_TSAN)
        return;
    on_both(2, body_change_and_cancel);
    on_both(2, body_change_list_and_cancel);
}

static void shared_buffers_are_refused(void **state)
{
    (void)state;
    on_both(2, body_overlap);
    on_both(4, body_overlap_calls);
    on_both(2, body_overlap_lists);
}

static void threads_that_share_a_buffer_are_refused(void **state)
{
    (void)state;
    run_ranks(SERRY_THREADS, 2, body_common, NULL);
}

static void what_is_right_is_not_refused(void **state)
{
    (void)state;
    on_both(3, body_right);
    on_both(3, body_right_lists);
    on_both(2, body_again);
}

static void a_child_has_nothing_under_way(void **state)
{
    (void)state;
    if (!TEST_TSAN)
        run_ranks(SERRY_PROCESSES, 2, body_fork, NULL);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_changed_send_buffer_is_noticed),
        cmocka_unit_test(a_changed_message_is_noticed),
        cmocka_unit_test(a_changed_list_is_noticed),
        cmocka_unit_test(another_error_stays),
        cmocka_unit_test(shared_buffers_are_refused),
        cmocka_unit_test(threads_that_share_a_buffer_are_refused),
        cmocka_unit_test(what_is_right_is_not_refused),
        cmocka_unit_test(a_child_has_nothing_under_way),
    };
#ifdef NDEBUG
    puts("skipped: this build has no assertions, so it does not look after buffers");
    return 77;
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}
