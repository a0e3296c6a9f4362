/* absent.c - ranks that had failed before the backend was turned to: they do not come, nobody waits
 * for them, and they count as failed from the beginning. So it is when a chain of backends falls
 * back after a death (ft_fallback.c). */
#include <stdio.h>
#include <string.h>

#include "comm.h"
#include "deaths.h"
#include "record.h"

/* A job: who is absent, and what one rank was told instead. */
typedef struct job {
    const serry_backend *inner;
    serry_backend table; /* as inner, but for open */
    serry_rank_set absent;
    int misled; /* -1: nobody */
    serry_rank_set told;
    int timeout_ms;
    const int *gone;       /* the absent, as a list that -1 ends */
    const int *gone_later; /* and with them those that fail meanwhile */
} job;

static const job *job_of(const test_rank *self)
{
    return self->argument;
}

static int open_absent(const serry_backend *backend, const serry_job *given, serry_member **member,
                       serry_error *error)
{
    const job *j = backend->context;
    serry_job told = *given;

    if (given->entry == SERRY_ENTRY_START)
        told.absent = given->rank == j->misled ? j->told : j->absent;
    return j->inner->open(j->inner, &told, member, error);
}

static bool is_absent(const test_rank *self)
{
    return serry_rank_set_has(&job_of(self)->absent, self->rank);
}

static int join(test_rank *self, serry_entry entry)
{
    serry_config config = test_config(self, job_of(self)->timeout_ms);

    config.entry = entry;
    config.backend = &job_of(self)->table;
    return serry_init(&config, &self->comm);
}

static bool come(test_rank *self)
{
    return test_expect(self, SERRY_OK, join(self, SERRY_ENTRY_START), NULL, "serry_init");
}

static const serry_backend *const k_backends[] = {&serry_backend_shm, &serry_backend_socket};

enum { SHM, SOCKET, BACKENDS };

static job job_with(int backend, const int *gone)
{
    job j = {.inner = k_backends[backend],
             .table = *k_backends[backend],
             .misled = -1,
             .timeout_ms = 60000,
             .gone = gone};

    for (const int *r = gone; *r >= 0; r++)
        serry_rank_set_add(&j.absent, *r);
    j.table.open = open_absent;
    return j;
}

static void run(job *j, serry_kind_of_rank kind, int size, test_body body, const int *dead)
{
    test_options options = {.kind = kind, .size = size, .body_joins = true};

    j->table.context = j;
    deaths_end(test_start(&options, body, j), kind, size, dead);
}

static const int k_nobody[] = {-1}, k_first_and_third[] = {0, 2, -1};

/* ---- from the beginning --------------------------------------------------------------------- */

static void body_calls(test_rank *self)
{
    const int *gone = job_of(self)->gone;
    serry_comm *part;
    serry_rank_set failed;
    serry_vitals vitals;
    serry_error error;
    uint64_t bits = UINT64_C(1) << self->rank;

    if (is_absent(self) || !come(self))
        return;
    int living = self->size - serry_rank_set_count(&job_of(self)->absent);
    CHECK(self, serry_size(self->comm) == self->size && serry_live(self->comm) == living);
    EXPECT_OK(self, serry_get_failed(self->comm, &failed));
    CHECK(self, test_ranks_are(&failed, gone));
    for (const int *r = gone; *r >= 0; r++) {
        EXPECT_OK(self, self->comm->backend->vitals(self->comm->member, *r, &vitals, &error));
        CHECK(self, vitals.failed && vitals.activity == SERRY_GONE);
    }
    expect_goes_on(self, self->comm, gone); /* the first operation, too, has nothing to report */
    EXPECT_OK(self, serry_agree(self->comm, SERRY_BOR, &bits));
    CHECK(self, __builtin_popcountll(bits) == living);
    EXPECT_OK(self, serry_split(self->comm, 0, self->rank, &part));
    CHECK(self, serry_size(part) == living);
    expect_goes_on(self, part, k_nobody);
    EXPECT_OK(self, serry_finalize(&part));
    EXPECT_OK(self, serry_shrink(self->comm, &part));
    CHECK(self, serry_size(part) == living);
    expect_goes_on(self, part, k_nobody);
    EXPECT_OK(self, serry_finalize(&part));
    expect_goes_on(self, self->comm, gone);
    EXPECT_OK(self, serry_finalize(&self->comm));
}

static void absent_ranks_are_not_waited_for(void **state)
{
    (void)state;
    static const int k_last[] = {2, -1}, k_all_but_one[] = {0, 1, 3, -1};
    for (int backend = SHM; backend < BACKENDS; backend++)
        for (int kind = SERRY_PROCESSES; kind <= SERRY_THREADS; kind++) {
            job j = job_with(backend, k_first_and_third);
            run(&j, (serry_kind_of_rank)kind, 4, body_calls, k_nobody);
            run(&j, (serry_kind_of_rank)kind, 6, body_calls, k_nobody);
            j = job_with(backend, k_last);
            run(&j, (serry_kind_of_rank)kind, 3, body_calls, k_nobody);
            j = job_with(backend, k_all_but_one);
            run(&j, (serry_kind_of_rank)kind, 4, body_calls, k_nobody);
        }
}

/* ---- and then -------------------------------------------------------------------------------- */

/* Fault:  the first rank that is there, which has made the arena, is killed.
 * Expect: one error, which names it alone; then the others go on. */
static void body_death(test_rank *self)
{
    static const int k_dead[] = {1, -1};

    if (is_absent(self) || !come(self))
        return;
    EXPECT_OK(self, serry_barrier(self->comm));
    if (self->rank == 1)
        death_now(self);
    await_known(self, self->comm, job_of(self)->gone_later);
    expect_failed(self, self->comm, serry_barrier(self->comm), k_dead, "barrier");
    CHECK(self, serry_live(self->comm) == 2);
    expect_goes_on(self, self->comm, job_of(self)->gone_later);
    EXPECT_OK(self, serry_finalize(&self->comm));
}

static void a_later_death_is_told_of_alone(void **state)
{
    (void)state;
    static const int k_gone_later[] = {0, 1, 2, -1}, k_dead[] = {1, -1};
    for (int backend = SHM; backend < BACKENDS; backend++) {
        job j = job_with(backend, k_first_and_third);
        j.gone_later = k_gone_later;
        run(&j, SERRY_PROCESSES, 5, body_death, k_dead);
    }
}

/* The absent ranks come after all, one after the other, as replacements. */
static void body_replaced(test_rank *self)
{
    static const int k_third[] = {2, -1};
    const int *const gone[] = {k_third, k_nobody};
    int rc;

    if (is_absent(self)) {
        test_await(self, self->rank, 1);
        if (!test_expect(self, SERRY_OK, join(self, SERRY_ENTRY_REPLACEMENT), NULL, "serry_init"))
            return;
    } else if (!come(self)) {
        return;
    }
    for (int i = self->rank == 2; i < 2; i++) {
        if (!is_absent(self) && self->rank == 1)
            test_raise(self, 2 * i);
        while (self->rank != 2 * i && (rc = serry_barrier(self->comm)) != SERRY_ERR_RANK_JOINED)
            if (!test_expect(self, SERRY_OK, rc, self->comm, "barrier"))
                return;
        expect_goes_on(self, self->comm, gone[i]);
    }
    CHECK(self, serry_live(self->comm) == self->size);
    EXPECT_OK(self, serry_finalize(&self->comm));
}

static void absent_ranks_can_be_replaced(void **state)
{
    (void)state;
    job j = job_with(SHM, k_first_and_third);
    run(&j, SERRY_PROCESSES, 4, body_replaced, k_nobody);
}

/* ---- what does not fit ----------------------------------------------------------------------- */

/* All that come get this error, with this in its message. */
typedef struct refusal {
    job j;
    int wanted;
    const char *said;
    int only; /* who comes; -1: all that are there */
    const int *ranks;
} refusal;

static void body_refused(test_rank *self)
{
    const refusal *r = self->argument;
    const serry_error *error;

    if ((is_absent(self) && self->rank != r->j.misled) || (r->only >= 0 && self->rank != r->only))
        return;
    test_expect(self, r->wanted, join(self, SERRY_ENTRY_START), NULL, "serry_init");
    error = serry_last_error(NULL);
    if (strstr(error->message, r->said) == NULL)
        test_failed(self, "\"%s\" does not say \"%s\"", error->message, r->said);
    if (r->ranks != NULL)
        CHECK(self, test_ranks_are(&error->ranks, r->ranks));
}

static void refused(refusal *r, int size)
{
    test_options options = {.size = size, .body_joins = true};

    r->j.table.context = &r->j;
    test_end(test_start(&options, body_refused, r));
}

static void all_must_be_told_the_same(void **state)
{
    (void)state;
    refusal r = {job_with(SHM, k_first_and_third), SERRY_ERR_INVALID,
                 "was told that ranks {0 and 2} are absent, rank 3 that {2} are", -1, NULL};
    r.j.misled = 3;
    serry_rank_set_add(&r.j.told, 2);
    refused(&r, 5);

    r.j.misled = 0; /* it comes although the others think that it has failed */
    r.said = "was told that ranks {";
    refused(&r, 5);
}

static void a_rank_cannot_be_absent_itself(void **state)
{
    (void)state;
    refusal r = {job_with(SHM, k_first_and_third), SERRY_ERR_INVALID, "one of those", 2, NULL};
    r.j.misled = 2;
    r.j.told = r.j.absent;
    refused(&r, 4);

    r.only = r.j.misled = 1;
    serry_rank_set_add(&r.j.told, 4); /* there is none */
    r.j.told.bits[0] &= ~UINT64_C(5);
    refused(&r, 4);
}

static void who_is_missing_is_not_who_is_absent(void **state)
{
    (void)state;
    static const int k_missing[] = {3, 4, -1}, k_first[] = {1, -1};
    refusal r = {job_with(SHM, k_first_and_third), SERRY_ERR_TIMEOUT,
                 "still missing rank 3 and 4 of 5", 1, k_missing};
    r.j.timeout_ms = 200;
    refused(&r, 5);

    r.said = "rank 1 did not come";
    r.only = 3;
    r.ranks = k_first;
    refused(&r, 5);
}

int main(void)
{
    const struct CMUnitTest k_tests[] = {
        cmocka_unit_test(absent_ranks_are_not_waited_for),
        cmocka_unit_test(a_later_death_is_told_of_alone),
        cmocka_unit_test(absent_ranks_can_be_replaced),
        cmocka_unit_test(all_must_be_told_the_same),
        cmocka_unit_test(a_rank_cannot_be_absent_itself),
        cmocka_unit_test(who_is_missing_is_not_who_is_absent),
    };
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
