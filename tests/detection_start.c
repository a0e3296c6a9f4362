/* detection_start.c - a rank is killed at a random moment while the job starts.
 *
 * Expect: each of the others gets an error that names it, or a job that works once it has reported
 * it; nobody hangs. All who have a job have the same. */
#include <string.h>

#include "deaths.h"

#define RANKS 4
#define ROUNDS (TEST_SANITIZER ? 15 : 40)
#define INIT_MS (TEST_SANITIZER ? 10000 : 2000) /* waited for where it dies before it says hello */
#define MINUTE_MS 60000

enum { COMING };                  /* flags of a run */
enum { INIT_S, MEMBERS, ERRORS }; /* numbers that ranks hand up */

typedef struct start {
    int victim;
    bool comes_last;
    unsigned us; /* from its call of serry_init to its death */
} start;

static void wait_for_turn(test_rank *self, const start *s)
{
    test_raise(self, COMING);
    if (self->rank != s->victim || !s->comes_last)
        return;
    test_await(self, COMING, RANKS);
    test_sleep_ms(50); /* the others wait in serry_init by now */
}

/* How long it takes the victim if it lives. */
static void body_rehearse(test_rank *self)
{
    wait_for_turn(self, self->argument);
    double before = test_now();
    if (test_expect(self, SERRY_OK, test_init(self, MINUTE_MS, &self->comm), NULL, "serry_init"))
        test_mine(self)->number[INIT_S] = test_now() - before;
    serry_finalize(&self->comm);
}

/* Rank 0 knows, and tells all who have reached it. Who comes when it has given up finds nobody. */
static bool joins(test_rank *self, const start *s)
{
    int rc = test_init(self, INIT_MS, &self->comm);
    const serry_error *record = serry_last_error(NULL);

    if (rc == SERRY_OK)
        return true;
    if ((rc != SERRY_ERR_RANK_FAILED && rc != SERRY_ERR_TIMEOUT) ||
        !(test_names_rank(record->message, s->victim) ||
          (!s->comes_last && test_names_rank(record->message, 0))))
        test_failed(self, "serry_init: %s, and does not name rank %d: %s", serry_error_name(rc),
                    s->victim, record->message);
    return false;
}

/* An error for each rank that is not there, or for several; then the job works. */
static void works(test_rank *self, int victim)
{
    int64_t one = 1, sum = 0;
    serry_rank_set members;
    int rc, errors = 0;

    serry_set_timeout(self->comm, MINUTE_MS);
    do {
        test_at(self, "the first operations, %d errors", errors);
        rc = serry_allreduce(&one, &sum, 1, SERRY_I64, SERRY_SUM, self->comm);
    } while (rc == SERRY_ERR_RANK_FAILED && ++errors < RANKS);
    test_expect(self, SERRY_OK, rc, self->comm, "allreduce of those who are there");
    serry_participants(self->comm, &members);
    CHECK(self, errors > 0);
    CHECK(self, !serry_rank_set_has(&members, victim) && serry_rank_set_has(&members, self->rank));
    CHECK(self, sum == serry_live(self->comm));
    test_mine(self)->number[MEMBERS] = (double)members.bits[0];
    test_mine(self)->number[ERRORS] = errors;
    EXPECT_OK(self, serry_barrier(self->comm));
    serry_finalize(&self->comm);
}

static void body_killed(test_rank *self)
{
    const start *s = self->argument;

    wait_for_turn(self, s);
    test_at(self, "serry_init, rank %d dies after %u us", s->victim, s->us);
    if (self->rank == s->victim) {
        death_in(self, s->us);
        test_init(self, MINUTE_MS, &self->comm);
        death_await();
    }
    if (joins(self, s))
        works(self, s->victim);
}

static unsigned rehearse(start *s)
{
    test_options options = {.kind = SERRY_PROCESSES, .size = RANKS, .body_joins = true};
    test_run *run = test_start(&options, body_rehearse, s);

    test_join(run);
    double seconds = test_report_of(run, s->victim)->number[INIT_S];
    test_end(run);
    return (unsigned)(1e6 * seconds);
}

/* Who has a job has the same members and has had as many errors. Returns the number of those who
 * have one; *differ counts who has another. */
static int compare(test_run *run, int victim, int *differ)
{
    const test_report *first = NULL;
    int jobs = 0;

    for (int r = 0; r < RANKS; r++) {
        const test_report *report = test_report_of(run, r);
        if (r == victim || report->number[ERRORS] == 0)
            continue;
        first = first == NULL ? report : first;
        *differ += report->number[MEMBERS] != first->number[MEMBERS] ||
                   report->number[ERRORS] != first->number[ERRORS];
        jobs++;
    }
    return jobs;
}

static void rank_killed_while_the_job_starts(void **state)
{
    (void)state;
    test_options options = {.kind = SERRY_PROCESSES, .size = RANKS, .body_joins = true};
    uint64_t sequence = chance_begin(1);
    int jobs = 0, differ = 0;

    for (int i = 0; i < ROUNDS; i++) {
        start s = {.victim = i / 2 % 2 == 0 ? 0 : 1 + (int)chance(&sequence, RANKS - 1),
                   .comes_last = i % 2 == 0};
        s.us = 1 + chance(&sequence, rehearse(&s) * 5 / 4 + 1);
        test_run *run = test_start(&options, body_killed, &s);
        test_join(run);
        jobs += compare(run, s.victim, &differ);
        deaths_end(run, options.kind, options.size, (const int[]){s.victim, -1});
        assert_int_equal(differ, 0);
    }
    print_message("%d of %d survivors of %d starts had a job\n", jobs, ROUNDS * (RANKS - 1),
                  ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rank_killed_while_the_job_starts),
    };

    return cmocka_run_group_tests_name("detection_start", tests, NULL, NULL);
}
