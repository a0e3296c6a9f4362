/* backend_self.c - a job of one rank: every operation, in every way of calling, and what it
 * refuses. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <serry/backend.h>

#include "harness.h"

#define COUNT 1000u

static serry_comm *join(void)
{
    serry_config config = SERRY_CONFIG_INIT;
    serry_comm *comm = NULL;
    config.rank = 0;
    config.size = 1;
    config.job = "alone";
    config.backend = &serry_backend_self;
    assert_int_equal(serry_init(&config, &comm), SERRY_OK);
    return comm;
}

static void every_operation_gives_what_was_sent(void **state)
{
    (void)state;
    serry_comm *comm = join();
    uint32_t send[COUNT], recv[COUNT];
    for (uint32_t i = 0; i < COUNT; i++)
        send[i] = 3 * i + 1;
    for (serry_kind kind = SERRY_KIND_BARRIER; kind <= SERRY_KIND_ALLTOALL; kind++)
        for (serry_op op = SERRY_SUM; op < SERRY_OPS; op++) {
            bool barrier = kind == SERRY_KIND_BARRIER, broadcast = kind == SERRY_KIND_BROADCAST;
            serry_call call = {kind, SERRY_U32, op, 0, barrier ? 0 : COUNT, send, recv};
            memset(recv, 0xab, sizeof(recv));
            assert_int_equal(test_call(&call, comm), SERRY_OK);
            if (!barrier && !broadcast)
                assert_memory_equal(recv, send, sizeof(send));
            call.recv = send; /* in place */
            call.send = broadcast ? send : SERRY_IN_PLACE;
            if (kind == SERRY_KIND_SCATTER) {
                call.send = send;
                call.recv = (void *)(uintptr_t)SERRY_IN_PLACE;
            }
            assert_int_equal(test_call(&call, comm), SERRY_OK);
            assert_int_equal(send[COUNT - 1], 3 * (COUNT - 1) + 1);
            call.count = 0;
            call.send = call.recv = NULL;
            assert_int_equal(test_call(&call, comm), SERRY_OK);
        }
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
}

static void it_knows_itself(void **state)
{
    (void)state;
    serry_comm *comm = join();
    serry_rank_set ranks;
    uint64_t value = 9;
    assert_int_equal(serry_rank(comm), 0);
    assert_int_equal(serry_size(comm), 1);
    assert_int_equal(serry_live(comm), 1);
    assert_int_equal(serry_epoch(comm), 0);
    assert_int_equal(serry_participants(comm, &ranks), SERRY_OK);
    assert_true(ranks.bits[0] == 1 && ranks.bits[1] == 0);
    assert_int_equal(serry_get_failed(comm, &ranks), SERRY_OK);
    assert_true(ranks.bits[0] == 0);
    assert_int_equal(serry_set_policy(comm, SERRY_EXCLUDE), SERRY_OK);
    assert_int_equal(serry_agree(comm, SERRY_BAND, &value), SERRY_OK);
    assert_int_equal(value, 9);
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
}

static void parts_and_revocation(void **state)
{
    (void)state;
    serry_comm *comm = join(), *part, *copy, *rest;
    uint64_t one = 1, got = 0;
    assert_int_equal(serry_split(comm, 7, 0, &part), SERRY_OK);
    assert_int_equal(serry_dup(part, &copy), SERRY_OK);
    assert_int_equal(serry_revoke(part), SERRY_OK);
    assert_int_equal(serry_barrier(part), SERRY_ERR_REVOKED);
    assert_int_equal(serry_split(part, 7, 0, &rest), SERRY_ERR_REVOKED);
    assert_int_equal(serry_agree(part, SERRY_BOR, &one), SERRY_OK);
    assert_int_equal(serry_shrink(part, &rest), SERRY_OK);
    assert_int_equal(serry_allreduce(&one, &got, 1, SERRY_U64, SERRY_AVG, rest), SERRY_OK);
    assert_int_equal(got, 1);
    assert_int_equal(serry_finalize(&rest), SERRY_OK);
    assert_int_equal(serry_barrier(copy), SERRY_OK);
    assert_int_equal(serry_split(comm, SERRY_UNDEFINED, 0, &rest), SERRY_OK);
    assert_null(rest);
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
    assert_int_equal(serry_finalize(&part), SERRY_OK);
    assert_int_equal(serry_finalize(&copy), SERRY_OK);
}

static void memory(void **state)
{
    (void)state;
    serry_comm *comm = join(), *part;
    assert_int_equal(serry_dup(comm, &part), SERRY_OK);
    unsigned char *first = serry_alloc(comm, 10000), *second = serry_alloc(part, 0);
    assert_true(first != NULL && (uintptr_t)first % 4096 == 0);
    assert_true(second != NULL && (uintptr_t)second % 4096 == 0 && second != first);
    for (size_t i = 0; i < 10000; i++)
        assert_int_equal(first[i], 0);
    first[9999] = 1;
    serry_free(part, first);
    serry_free(comm, first); /* twice: nothing happens but the record */
    assert_int_equal(serry_last_error(comm)->error, SERRY_ERR_INVALID);
    assert_null(serry_alloc(comm, SIZE_MAX));
    assert_int_equal(serry_last_error(comm)->error, SERRY_ERR_NO_SPACE);
    assert_null(serry_alloc(comm, SIZE_MAX / 2));
    assert_int_equal(serry_finalize(&part), SERRY_OK);
    second[0] = 1; /* the world is still there */
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
}

/* ---- messages to itself ------------------------------------------------------------------------- */

static void messages_come_whole_and_in_order(void **state)
{
    static const size_t sizes[] = {0, 1, 40, 5000, (size_t)3 << 20};
    enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };
    serry_comm *comm = join();
    unsigned char *out = malloc(sizes[SIZES - 1]), *in = malloc(sizes[SIZES - 1]);
    serry_request *request[2 * SIZES];
    serry_status status;
    int found;

    (void)state;
    assert_int_equal(serry_iprobe(0, SERRY_ANY_TAG, &found, &status, comm), SERRY_OK);
    assert_int_equal(found, 0);
    for (size_t i = 0; i < 2 * SIZES; i++) { /* each twice, under two tags */
        memset(out, (int)i + 1, sizes[i / 2]);
        assert_int_equal(
            serry_isend(out, sizes[i / 2], SERRY_U8, 0, (int)(i % 2), comm, &request[i]), SERRY_OK);
        assert_int_equal(serry_wait(&request[i], -1), SERRY_OK);
    }
    for (size_t i = 0; i < 2 * SIZES; i++) { /* first all of tag 1 */
        size_t n = i < SIZES ? 2 * i + 1 : 2 * (i - SIZES), bytes = sizes[n / 2];
        int source = i % 2 == 0 ? 0 : SERRY_ANY_SOURCE, tag = i < SIZES ? 1 : SERRY_ANY_TAG;
        if (bytes != 0) {
            assert_int_equal(serry_recv(in, bytes - 1, SERRY_U8, source, tag, &status, comm),
                             SERRY_ERR_TOO_SMALL);
            assert_int_equal(status.count, bytes);
        }
        assert_int_equal(serry_recv(in, bytes, SERRY_U8, source, tag, &status, comm), SERRY_OK);
        assert_true(status.source == 0 && status.tag == (int)(n % 2) && status.count == bytes);
        for (size_t k = 0; k < bytes; k++)
            if (in[k] != n + 1)
                fail_msg("byte %zu of message %zu is %d", k, n, in[k]);
    }
    free(out);
    free(in);
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
}

/* What is not received lies in memory of its own, of which there is a most. */
static void a_send_waits_for_room(void **state)
{
    const size_t bytes = (size_t)40 << 20;
    serry_comm *comm = join();
    unsigned char *data = malloc(bytes);
    serry_request *request[3];
    int done;

    (void)state;
    memset(data, 1, bytes);
    for (int i = 0; i < 3; i++)
        assert_int_equal(serry_isend(data, bytes, SERRY_U8, 0, i, comm, &request[i]), SERRY_OK);
    assert_int_equal(serry_wait(&request[0], -1), SERRY_OK);
    assert_int_equal(serry_test(&request[1], &done), SERRY_OK);
    assert_int_equal(done, 0);
    assert_int_equal(serry_cancel(request[1]), SERRY_OK);
    assert_int_equal(serry_wait(&request[1], -1), SERRY_ERR_CANCELLED);
    serry_request_free(&request[1]);
    assert_int_equal(serry_recv(data, bytes, SERRY_U8, 0, 0, NULL, comm), SERRY_OK);
    assert_int_equal(serry_recv(data, bytes, SERRY_U8, 0, 2, NULL, comm), SERRY_OK);
    assert_int_equal(serry_wait(&request[2], -1), SERRY_OK);
    assert_int_equal(serry_iprobe(0, SERRY_ANY_TAG, &done, NULL, comm), SERRY_OK);
    assert_int_equal(done, 0);
    free(data);
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
}

static void *revoke_soon(void *comm)
{
    test_sleep_ms(20);
    serry_revoke(comm);
    return NULL;
}

static void receives_end_by_time_cancellation_and_revocation(void **state)
{
    serry_comm *comm = join();
    serry_request *request;
    pthread_t thread;
    int got = 7;

    (void)state;
    assert_int_equal(serry_set_timeout(comm, 20), SERRY_OK);
    assert_int_equal(serry_recv(&got, 1, SERRY_I32, 0, 1, NULL, comm), SERRY_ERR_TIMEOUT);
    assert_int_equal(serry_set_timeout(comm, -1), SERRY_OK);
    assert_int_equal(serry_irecv(&got, 1, SERRY_I32, 0, 1, NULL, comm, &request), SERRY_OK);
    assert_int_equal(serry_cancel(request), SERRY_OK);
    assert_int_equal(serry_wait(&request, -1), SERRY_ERR_CANCELLED);
    serry_request_free(&request);
    assert_int_equal(pthread_create(&thread, NULL, revoke_soon, comm), 0);
    assert_int_equal(serry_recv(&got, 1, SERRY_I32, SERRY_ANY_SOURCE, 1, NULL, comm),
                     SERRY_ERR_REVOKED);
    pthread_join(thread, NULL);
    assert_int_equal(serry_send(&got, 1, SERRY_I32, 0, 1, comm), SERRY_ERR_REVOKED);
    assert_int_equal(serry_send(&got, 1, SERRY_I32, 1, 1, comm), SERRY_ERR_INVALID);
    assert_int_equal(got, 7);
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
}

/* ---- by polling --------------------------------------------------------------------------------- */

/* There is nobody to wait for, so nothing is ever SERRY_ERR_AGAIN but what has not been sent. */
static void polls_end_at_once(void **state)
{
    const serry_backend *self = &serry_backend_self;
    serry_job job = {.name = "alone", .size = 1, .entry = SERRY_ENTRY_START, .timeout_ms = 1000};
    serry_interest interest = {.begins = true, .sleep = true};
    serry_limit limit = {1000, NULL, NULL, &interest};
    serry_call barrier = {.kind = SERRY_KIND_BARRIER, .dtype = SERRY_U8};
    serry_envelope envelope = {3, SERRY_U8, 5}, seen;
    serry_member *member, *part, *rest;
    uint64_t votes, value = 9, ticket = 1;
    serry_error error;
    char got[5];
    int repeat;

    (void)state;
    assert_int_equal(self->open(self, &job, &member, &error), SERRY_OK);
    assert_int_equal(self->run(member, &barrier, &limit, &error), SERRY_OK);
    assert_int_equal(self->split(member, 0, 0, &limit, &part, &error), SERRY_OK);
    assert_int_equal(self->shrink(member, &limit, &rest, &error), SERRY_OK);
    assert_int_equal(self->agree(member, SERRY_BAND, &value, &limit, &error), SERRY_OK);
    assert_int_equal(value, 9);
    assert_int_equal(self->meet(member, 6, &limit, &votes, &repeat, &error), SERRY_OK);
    assert_int_equal(self->peek(member, 0, &seen, &error), SERRY_ERR_AGAIN);
    assert_int_equal(self->take(member, 0, got, &error), SERRY_ERR_AGAIN);
    self->listen(member, &interest);
    assert_true(interest.word != NULL && *interest.word == interest.value);
    assert_int_equal(self->put(member, 0, &envelope, "five", &ticket, &error), SERRY_OK);
    assert_int_equal(ticket, 0);
    assert_int_equal(self->peek(part, 0, &seen, &error), SERRY_ERR_AGAIN); /* not its */
    assert_int_equal(self->peek(member, 0, &seen, &error), SERRY_OK);
    assert_true(seen.tag == 3 && seen.dtype == SERRY_U8 && seen.bytes == 5);
    assert_int_equal(self->take(member, 0, got, &error), SERRY_OK);
    assert_string_equal(got, "five");
    assert_int_equal(self->put(member, 0, &envelope, "left", &ticket, &error), SERRY_OK);
    assert_int_equal(self->revoke(member, &error), SERRY_OK);
    assert_true(*interest.word != interest.value);
    assert_int_equal(self->take(member, 0, got, &error), SERRY_ERR_REVOKED);
    assert_int_equal(self->close(part, &error), SERRY_OK);
    assert_int_equal(self->close(rest, &error), SERRY_OK);
    assert_int_equal(self->close(member, &error), SERRY_OK); /* and frees what was left */
}

static void vitals_and_what_cannot_be(void **state)
{
    (void)state;
    const serry_backend *self = &serry_backend_self;
    serry_job job = {.name = "alone", .size = 1, .entry = SERRY_ENTRY_START, .timeout_ms = 1000};
    serry_limit limit = {1000, NULL, NULL, NULL};
    serry_call barrier = {.kind = SERRY_KIND_BARRIER, .dtype = SERRY_U8};
    serry_member *member;
    serry_vitals vitals;
    serry_error error;
    uint64_t votes;
    int repeat;
    assert_int_equal(self->open(self, &job, &member, &error), SERRY_OK);
    assert_int_equal(self->run(member, &barrier, &limit, &error), SERRY_OK);
    assert_int_equal(self->vitals(member, 0, &vitals, &error), SERRY_OK);
    assert_true(vitals.progress == 1 && vitals.alive_ns > 0 && !vitals.failed);
    assert_int_equal(self->vitals(member, 1, &vitals, &error), SERRY_ERR_INVALID);
    assert_int_equal(self->exclude(member, 0, SERRY_EXCLUSION_SEAL, &error), SERRY_ERR_UNSUPPORTED);
    assert_int_equal(self->exclude(member, 3, SERRY_EXCLUSION_SEAL, &error), SERRY_ERR_INVALID);
    assert_int_equal(self->set_variant(member, 0, &error), SERRY_OK);
    assert_int_equal(self->set_variant(member, 1, &error), SERRY_ERR_UNSUPPORTED);
    assert_int_equal(self->meet(member, 6, &limit, &votes, &repeat, &error), SERRY_OK);
    assert_true(votes == 6 && repeat == SERRY_REPEAT);
    assert_int_equal(self->close(member, &error), SERRY_OK);
}

static void more_ranks_than_one_are_refused(void **state)
{
    (void)state;
    serry_config config = SERRY_CONFIG_INIT;
    serry_comm *comm;
    config.rank = 1;
    config.size = 2;
    config.job = "alone";
    config.backend = &serry_backend_self;
    assert_int_equal(serry_init(&config, &comm), SERRY_ERR_UNSUPPORTED);
    assert_non_null(strstr(serry_last_error(NULL)->message, "one rank alone"));
    config.rank = 0;
    config.size = 1;
    config.entry = SERRY_ENTRY_REPLACEMENT;
    assert_int_equal(serry_init(&config, &comm), SERRY_ERR_UNSUPPORTED);
}

static void the_environment_can_ask_for_it(void **state)
{
    (void)state;
    serry_comm *comm;
    setenv("SERRY_BACKEND", "self", 1);
    assert_int_equal(serry_init(NULL, &comm), SERRY_OK);
    assert_int_equal(serry_barrier(comm), SERRY_OK);
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
    unsetenv("SERRY_BACKEND");
}

int main(void)
{
    const struct CMUnitTest k_tests[] = {
        cmocka_unit_test(every_operation_gives_what_was_sent),
        cmocka_unit_test(it_knows_itself),
        cmocka_unit_test(parts_and_revocation),
        cmocka_unit_test(memory),
        cmocka_unit_test(messages_come_whole_and_in_order),
        cmocka_unit_test(a_send_waits_for_room),
        cmocka_unit_test(receives_end_by_time_cancellation_and_revocation),
        cmocka_unit_test(polls_end_at_once),
        cmocka_unit_test(vitals_and_what_cannot_be),
        cmocka_unit_test(more_ranks_than_one_are_refused),
        cmocka_unit_test(the_environment_can_ask_for_it),
    };
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
