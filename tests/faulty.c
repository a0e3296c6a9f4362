/* faulty.c - the backend that makes errors on purpose: its script, and each of its faults on
 * ranks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <serry/faulty.h>
#include <serry/timeout.h>

#include "harness.h"

#define VICTIM 1
#define SHORT_MS 150

/* ---- one rank alone ------------------------------------------------------------------------- */

static serry_backend *make(const char *script, uint64_t seed)
{
    serry_backend *backend = NULL;
    if (serry_faulty_create(&serry_backend_self, script, seed, &backend) != SERRY_OK)
        fail_msg("%s: %s", script, serry_last_error(NULL)->message);
    return backend;
}

static int join_alone(const serry_backend *backend, serry_comm **comm)
{
    serry_config config = SERRY_CONFIG_INIT;
    config.rank = 0;
    config.size = 1;
    config.job = "alone";
    config.backend = backend;
    return serry_init(&config, comm);
}

static int sum(serry_comm *comm)
{
    uint64_t one = 1, got = 0;
    int code = serry_allreduce(&one, &got, 1, SERRY_U64, SERRY_SUM, comm);
    assert_int_equal(got, code == SERRY_OK);
    return code;
}

static void bad_scripts_are_refused(void **state)
{
    (void)state;
    static const char *const scripts[] = {"fail",
                                          "fail=",
                                          "fail=SOMEHOW",
                                          "fail=SYSTEM delay=3",
                                          "rank=1",
                                          "rank=256 hang",
                                          "rank=-1 hang",
                                          "rank= hang",
                                          "op=0 hang",
                                          "op=x hang",
                                          "times=0 hang",
                                          "p=2 hang",
                                          "p=-0.1 hang",
                                          "p= hang",
                                          "kind=sum hang",
                                          "kind=meet hang",
                                          "delay hang",
                                          "delay=-1",
                                          "hang=3",
                                          "corrupt=1",
                                          "what=1 hang",
                                          "hang hang",
                                          "hang; rank=1 boom",
                                          "kill; ; drop=1",
                                          "delay=99999999999999999999"};
    serry_backend *backend;
    for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
        assert_int_equal(serry_faulty_create(&serry_backend_self, scripts[i], 1, &backend),
                         SERRY_ERR_INVALID);
        assert_null(backend);
        assert_non_null(strstr(serry_last_error(NULL)->message, "faulty_create"));
    }
    char many[8 * (SERRY_FAULTY_RULES + 1)] = "";
    for (unsigned i = 0; i <= SERRY_FAULTY_RULES; i++)
        strcat(many, "hang;");
    assert_int_equal(serry_faulty_create(&serry_backend_self, many, 1, &backend),
                     SERRY_ERR_INVALID);
    assert_int_equal(serry_faulty_create(NULL, "", 1, &backend), SERRY_ERR_INVALID);
    assert_int_equal(serry_faulty_create(&serry_backend_self, NULL, 1, &backend),
                     SERRY_ERR_INVALID);
}

static void without_rules_nothing_fails(void **state)
{
    (void)state;
    static const char *const scripts[] = {"",
                                          " ; \n ;;",
                                          "rank=3 kill",
                                          "op=1000 hang",
                                          "kind=scatter fail=SYSTEM",
                                          "p=0 kill",
                                          "kind=open rank=2 fail=SYSTEM"};
    for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
        serry_backend *backend = make(scripts[i], 1);
        serry_comm *comm;
        assert_string_equal(backend->name, "faulty(self)");
        assert_int_equal(join_alone(backend, &comm), SERRY_OK);
        for (int n = 0; n < 50; n++)
            assert_int_equal(sum(comm), SERRY_OK);
        assert_int_equal(serry_finalize(&comm), SERRY_OK);
        for (int fault = 0; fault < SERRY_FAULTS; fault++)
            assert_int_equal(serry_faulty_fired(backend, (serry_fault)fault), 0);
        serry_faulty_destroy(&backend);
        assert_null(backend);
    }
}

static void an_operation_fails_so_often(void **state)
{
    (void)state;
    serry_backend *backend = make("op=3 kind=allreduce fail=SYSTEM times=2\nop=4 fail=NO_SPACE", 1);
    serry_comm *comm;
    assert_int_equal(join_alone(backend, &comm), SERRY_OK);
    assert_int_equal(serry_barrier(comm), SERRY_OK);
    assert_int_equal(sum(comm), SERRY_OK);
    assert_int_equal(sum(comm), SERRY_ERR_SYSTEM);
    const serry_error *error = serry_last_error(comm);
    assert_int_equal(error->system_error, EIO);
    assert_int_equal(error->operation_id, 3);
    assert_string_equal(error->operation, "allreduce");
    assert_non_null(strstr(error->message, "op=3 kind=allreduce fail=SYSTEM times=2"));
    assert_int_equal(sum(comm), SERRY_ERR_SYSTEM);
    assert_int_equal(sum(comm), SERRY_OK);
    assert_int_equal(serry_barrier(comm), SERRY_ERR_NO_SPACE);
    assert_int_equal(serry_barrier(comm), SERRY_OK);
    assert_int_equal(serry_faulty_fired(backend, SERRY_FAULT_FAIL), 3);
    assert_int_equal(serry_faulty_fired(backend, SERRY_FAULT_DELAY), 0);
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
    serry_faulty_destroy(&backend);
}

static void every_kind_can_be_struck(void **state)
{
    (void)state;
    serry_backend *backend = make("kind=open fail=UNSUPPORTED; kind=split fail=NO_SPACE;"
                                  "kind=agree fail=SYSTEM; kind=shrink fail=TIMEOUT;"
                                  "kind=alloc fail=NO_SPACE; kind=gather fail=REVOKED",
                                  1);
    serry_comm *comm, *part;
    uint64_t value = 1;
    assert_int_equal(join_alone(backend, &comm), SERRY_ERR_UNSUPPORTED);
    assert_null(comm);
    assert_int_equal(join_alone(backend, &comm), SERRY_OK);
    assert_int_equal(serry_split(comm, 0, 0, &part), SERRY_ERR_NO_SPACE);
    assert_int_equal(serry_agree(comm, SERRY_BOR, &value), SERRY_ERR_SYSTEM);
    assert_int_equal(serry_shrink(comm, &part), SERRY_ERR_TIMEOUT);
    assert_null(part);
    assert_null(serry_alloc(comm, 1));
    assert_int_equal(serry_last_error(comm)->error, SERRY_ERR_NO_SPACE);
    assert_int_equal(serry_gather(&value, &value, 0, SERRY_U64, 0, comm), SERRY_ERR_REVOKED);
    assert_int_equal(serry_faulty_fired(backend, SERRY_FAULT_FAIL), 6);
    assert_int_equal(serry_split(comm, 0, 0, &part), SERRY_OK);
    assert_int_equal(serry_agree(part, SERRY_BOR, &value), SERRY_OK);
    assert_non_null(serry_alloc(comm, 1));
    assert_int_equal(serry_finalize(&part), SERRY_OK);
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
    serry_faulty_destroy(&backend);
}

/* Which of so many operations fail. */
static uint64_t pattern(const char *script, uint64_t seed)
{
    serry_backend *backend = make(script, seed);
    serry_comm *comm;
    uint64_t failed = 0;
    assert_int_equal(join_alone(backend, &comm), SERRY_OK);
    for (int i = 0; i < 64; i++)
        failed |= (uint64_t)(sum(comm) != SERRY_OK) << i;
    assert_int_equal(serry_faulty_fired(backend, SERRY_FAULT_FAIL), __builtin_popcountll(failed));
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
    serry_faulty_destroy(&backend);
    return failed;
}

static void chance_follows_from_the_seed(void **state)
{
    (void)state;
    uint64_t seed = test_seed(), failed = pattern("p=0.5 fail=SYSTEM", seed);
    assert_true(failed == pattern("p=0.5 fail=SYSTEM", seed));
    assert_true(failed != pattern("p=0.5 fail=SYSTEM", seed + 1));
    assert_true(pattern("p=1 fail=SYSTEM", seed) == UINT64_MAX);
    assert_true(pattern("p=1 times=3 fail=SYSTEM", seed) == 7);
    uint64_t first = failed & (0 - failed), rest = failed - first;
    assert_true(pattern("p=0.5 times=2 fail=SYSTEM", seed) == (first | (rest & (0 - rest))));
}

static void waits_end_by_the_limit(void **state)
{
    (void)state;
    serry_backend *backend = make("op=1 hang times=2; op=1 delay=100; op=2 delay=60000", 1);
    serry_timeouts *timeouts;
    serry_token *token;
    serry_comm *comm;
    assert_int_equal(join_alone(backend, &comm), SERRY_OK);
    assert_int_equal(serry_set_timeout(comm, SHORT_MS), SERRY_OK);
    double before = test_now();
    assert_int_equal(sum(comm), SERRY_ERR_TIMEOUT);
    assert_true(test_now() - before >= 0.001 * SHORT_MS);
    assert_int_equal(serry_set_timeout(comm, -1), SERRY_OK);
    assert_int_equal(serry_timeouts_create(0, &timeouts), SERRY_OK);
    assert_int_equal(serry_timeouts_start(timeouts, 1, SHORT_MS, &token), SERRY_OK);
    assert_int_equal(serry_set_token(comm, token), SERRY_OK);
    serry_token_release(&token);
    assert_int_equal(sum(comm), SERRY_ERR_TIMEOUT);
    assert_int_equal(serry_timeouts_start(timeouts, 1, 0, &token), SERRY_OK);
    assert_int_equal(serry_set_token(comm, token), SERRY_OK);
    serry_token_release(&token);
    before = test_now();
    assert_int_equal(sum(comm), SERRY_OK);
    assert_true(test_now() - before >= 0.1);
    serry_timeouts_cancel(timeouts, 1);
    assert_int_equal(sum(comm), SERRY_ERR_CANCELLED);
    assert_int_equal(serry_faulty_fired(backend, SERRY_FAULT_HANG), 2);
    assert_int_equal(serry_faulty_fired(backend, SERRY_FAULT_DELAY), 2);
    serry_timeouts_destroy(&timeouts);
    assert_int_equal(serry_finalize(&comm), SERRY_OK);
    serry_faulty_destroy(&backend);
}

/* ---- several ranks -------------------------------------------------------------------------- */

typedef struct plan {
    const char *script;
    serry_fault fault;
    int victims, others; /* what the third operation returns */
    serry_backend *backend;
} plan;

static bool open_faulty(test_rank *self, const plan *p, serry_comm **comm)
{
    serry_config config = test_config(self, 60000);
    config.backend = p->backend;
    return test_expect(self, SERRY_OK, serry_init(&config, comm), NULL, "serry_init");
}

static int sum_of(test_rank *self, serry_comm *comm)
{
    uint64_t send[2] = {1, (uint64_t)self->rank}, recv[2] = {7, 7};
    int code = serry_allreduce(send, recv, 2, SERRY_U64, SERRY_SUM, comm);
    if (code == SERRY_OK && recv[0] != 7)
        CHECK(self, recv[0] == (uint64_t)serry_live(comm));
    return code;
}

static void body_fault(test_rank *self)
{
    const plan *p = self->argument;
    serry_comm *comm;
    if (!open_faulty(self, p, &comm))
        return;
    bool victim = self->rank == VICTIM;
    test_expect(self, SERRY_OK, sum_of(self, comm), comm, "the first");
    test_expect(self, SERRY_OK, serry_barrier(comm), comm, "the second");
    if (p->fault == SERRY_FAULT_HANG && victim)
        serry_set_timeout(comm, SHORT_MS);
    test_raise(self, 0);
    test_await(self, 0, (unsigned)self->size);
    test_expect(self, victim ? p->victims : p->others, sum_of(self, comm), comm, "the third");
    if (p->fault == SERRY_FAULT_HANG && victim) {
        serry_set_timeout(comm, 60000);
        test_expect(self, SERRY_OK, sum_of(self, comm), comm, "the third again");
    }
    if (p->fault == SERRY_FAULT_DROP && !victim) /* with the victim's fourth */
        CHECK(self, sum_of(self, comm) == SERRY_OK);
    if (p->fault == SERRY_FAULT_DROP && victim)
        CHECK(self, sum_of(self, comm) == SERRY_OK && sum_of(self, comm) == SERRY_OK);
    test_expect(self, SERRY_OK, sum_of(self, comm), comm, "the next one");
    CHECK(self, !victim || serry_faulty_fired(p->backend, p->fault) == 1);
    test_expect(self, SERRY_OK, serry_barrier(comm), comm, "the last");
    serry_finalize(&comm);
}

static void run_fault(plan *p, serry_kind_of_rank kind)
{
    test_options options = {.kind = kind, .size = 3, .body_joins = true};
    assert_int_equal(serry_faulty_create(&serry_backend_shm, p->script, 1, &p->backend), SERRY_OK);
    test_run *run = test_start(&options, body_fault, p);
    if (p->fault == SERRY_FAULT_KILL)
        test_report_of(run, VICTIM)->killed = 1;
    test_end(run);
    serry_faulty_destroy(&p->backend);
}

static void each_fault_on_ranks(void **state)
{
    (void)state;
    static plan plans[] = {
        {.script = "rank=1 op=3 corrupt",
         .fault = SERRY_FAULT_CORRUPT,
         .victims = SERRY_ERR_RANK_MISMATCH,
         .others = SERRY_ERR_RANK_MISMATCH},
        {.script = "rank=1 op=3 hang", .fault = SERRY_FAULT_HANG, .victims = SERRY_ERR_TIMEOUT},
        {.script = "rank=1 op=3 delay=50", .fault = SERRY_FAULT_DELAY},
        {.script = "rank=1 op=3 drop", .fault = SERRY_FAULT_DROP},
        {.script = "rank=1 op=3 kill", .fault = SERRY_FAULT_KILL, .others = SERRY_ERR_RANK_FAILED},
    };
    for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
        run_fault(&plans[i], SERRY_PROCESSES);
        if (plans[i].fault != SERRY_FAULT_KILL)
            run_fault(&plans[i], SERRY_THREADS);
    }
}

/* Rules speak of ranks of the job, also in parts, where the numbers are others. */
static void body_parts(test_rank *self)
{
    const plan *p = self->argument;
    serry_comm *comm, *part;
    if (!open_faulty(self, p, &comm))
        return;
    test_expect(self, SERRY_OK, serry_split(comm, self->rank % 2, -self->rank, &part), comm,
                "split");
    bool victim = self->rank == VICTIM;
    CHECK(self, serry_rank(part) == (self->rank < 2 ? 1 : 0));
    test_expect(self, SERRY_OK, serry_barrier(part), part, "barrier");
    if (victim)
        test_expect(self, SERRY_ERR_SYSTEM, serry_alltoall(NULL, NULL, 0, SERRY_U8, part), part,
                    "alltoall");
    test_expect(self, SERRY_OK, serry_alltoall(NULL, NULL, 0, SERRY_U8, part), part, "alltoall");
    serry_finalize(&part);
    serry_finalize(&comm);
}

static void rules_go_by_the_rank_of_the_job(void **state)
{
    (void)state;
    plan p = {0};
    for (int kind = 0; kind < 2; kind++) {
        test_options options = {.kind = (serry_kind_of_rank)kind, .size = 4, .body_joins = true};
        assert_int_equal(serry_faulty_create(&serry_backend_shm, "rank=1 kind=alltoall fail=SYSTEM",
                                             1, &p.backend),
                         SERRY_OK);
        test_end(test_start(&options, body_parts, &p));
        serry_faulty_destroy(&p.backend);
    }
}

int main(void)
{
    const struct CMUnitTest k_tests[] = {
        cmocka_unit_test(bad_scripts_are_refused),
        cmocka_unit_test(without_rules_nothing_fails),
        cmocka_unit_test(an_operation_fails_so_often),
        cmocka_unit_test(every_kind_can_be_struck),
        cmocka_unit_test(chance_follows_from_the_seed),
        cmocka_unit_test(waits_end_by_the_limit),
        cmocka_unit_test(each_fault_on_ranks),
        cmocka_unit_test(rules_go_by_the_rank_of_the_job),
    };
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
