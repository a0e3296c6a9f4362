/* ft_chain.c - from one backend of a chain to the next, with mock backends. */
#include "ft_mock.h"

#include <string.h>
#include <unistd.h>

static chain c; /* of the running test */
static mock m[3];

/* A chain of three; SERRY_ERR_SYSTEM moves to the next backend. */
static int open_three(void **state)
{
    (void)state;
    mock_make(&m[0], "first");
    mock_make(&m[1], "second");
    mock_make(&m[2], "third");
    chain_begin(&c, &m[0], &m[1], &m[2]);
    assert_int_equal(chain_open(&c), SERRY_OK);
    assert_int_equal(serry_recovery_set_strategy(serry_ft_recovery(c.comm), SERRY_ERR_SYSTEM,
                                                 SERRY_FALLBACK_BACKEND),
                     SERRY_OK);
    return 0;
}

static int close_three(void **state)
{
    (void)state;
    chain_close(&c);
    return 0;
}

static void the_same_operation_goes_on_by_the_next_backend(void **state)
{
    (void)state;
    assert_string_equal(c.backend->name, "FT_first");
    assert_int_equal(serry_set_policy(c.comm, SERRY_EXCLUDE), SERRY_OK);
    assert_int_equal(chain_sum(&c), SERRY_OK);
    m[0].run[1] = SERRY_ERR_SYSTEM;
    m[0].gone = (serry_rank_set){{4}};
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_ptr_equal(serry_ft_carrier(c.comm), &m[1].table);
    assert_int_equal(serry_ft_operation(c.comm), 2);
    assert_int_equal(m[0].runs, 2);
    assert_int_equal(m[0].meets, 1);
    assert_int_equal(m[0].closes, 0); /* its memory is in use */
    assert_int_equal(m[1].runs, 1);
    assert_int_equal(m[1].opens, 1);
    assert_int_equal(m[1].job.rank, 0);
    assert_int_equal(m[1].job.size, 3);
    assert_int_equal(m[1].job.policy, SERRY_EXCLUDE);
    assert_int_equal(m[1].job.entry, SERRY_ENTRY_START);
    assert_int_equal(m[1].job.absent.bits[0], 4);
    assert_memory_equal(m[1].job.name, "mock#", 5);
    assert_int_equal(chain_sum(&c), SERRY_OK); /* it stays there */
    assert_int_equal(m[0].runs, 2);
    m[1].run[2] = SERRY_ERR_SYSTEM;
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_ptr_equal(serry_ft_carrier(c.comm), &m[2].table);
    assert_string_not_equal(m[1].job.name, m[2].job.name);
    m[2].run[1] = SERRY_ERR_SYSTEM; /* the end of the chain */
    assert_int_equal(chain_sum(&c), SERRY_ERR_SYSTEM);
    assert_int_equal(chain_sum(&c), SERRY_OK);
}

static void a_backend_that_lets_nobody_in_is_skipped(void **state)
{
    (void)state;
    m[0].run[0] = SERRY_ERR_SYSTEM;
    m[1].open[0] = SERRY_ERR_NO_SPACE;
    /* The mock agrees on what this rank says: 1, not all are in. */
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_ptr_equal(serry_ft_carrier(c.comm), &m[2].table);
    assert_int_equal(m[1].opens, 1);
    serry_error errors[8];
    assert_int_equal(serry_recovery_history(serry_ft_recovery(c.comm), errors, 8), 2);
    assert_string_equal(errors[1].operation, "init");
    assert_string_equal(serry_error_context_get(&errors[1], "Backend"), "second");
}

static void nobody_is_let_in_anywhere(void **state)
{
    (void)state;
    m[0].run[0] = SERRY_ERR_SYSTEM;
    m[1].open[0] = SERRY_ERR_NO_SPACE;
    m[2].open[0] = SERRY_ERR_RANK_FAILED;
    assert_int_equal(chain_sum(&c), SERRY_ERR_SYSTEM);
    assert_ptr_equal(serry_ft_carrier(c.comm), &m[0].table);
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m[0].runs, 2);
}

static void an_agreement_on_the_way_is_out_of_time(void **state)
{
    (void)state;
    m[0].run[0] = SERRY_ERR_SYSTEM;
    m[0].agree[1] = SERRY_ERR_TIMEOUT;
    m[0].agree[3] = SERRY_ERR_TIMEOUT;
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m[0].agrees, 5);
    assert_int_equal(m[1].opens, 1);
    assert_ptr_equal(serry_ft_carrier(c.comm), &m[1].table);
}

static void the_way_is_left_and_gone_on_with(void **state)
{
    (void)state;
    uint64_t send = 42, recv = 7;
    m[0].run[0] = SERRY_ERR_SYSTEM;
    for (int i = 2; i < 5; i++)
        m[0].agree[i] = SERRY_ERR_TIMEOUT;
    assert_int_equal(serry_allreduce(&send, &recv, 1, SERRY_U64, SERRY_SUM, c.comm),
                     SERRY_ERR_TIMEOUT);
    assert_int_equal(m[1].opens, 1);
    assert_int_equal(serry_barrier(c.comm), SERRY_ERR_PENDING);
    assert_int_equal(serry_allreduce(&send, &recv, 1, SERRY_U64, SERRY_SUM, c.comm), SERRY_OK);
    assert_int_equal(m[1].opens, 1);
    assert_int_equal(recv, 42);
    assert_int_equal(serry_ft_operation(c.comm), 1);
    assert_int_equal(m[0].agrees, 6);
    chain_close(&c);

    open_three(state); /* or it is left for good */
    m[0].run[0] = SERRY_ERR_SYSTEM;
    for (int i = 2; i < 5; i++)
        m[0].agree[i] = SERRY_ERR_TIMEOUT;
    assert_int_equal(chain_sum(&c), SERRY_ERR_TIMEOUT);
    assert_int_equal(m[1].opens, 1);
}

static void joining_tries_the_chain(void **state)
{
    (void)state;
    static const int codes[] = {SERRY_ERR_NO_SPACE, SERRY_ERR_UNSUPPORTED, SERRY_ERR_SYSTEM,
                                SERRY_ERR_LAYOUT, SERRY_ERR_ARENA};
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        mock_make(&m[0], "first");
        mock_make(&m[1], "second");
        m[0].open[0] = codes[i];
        chain_begin(&c, &m[0], &m[1], NULL);
        assert_int_equal(chain_open(&c), SERRY_OK);
        assert_ptr_equal(serry_ft_carrier(c.comm), &m[1].table);
        assert_string_equal(m[0].job.name, "mock");
        assert_string_equal(m[1].job.name, "mock#1");
        assert_int_equal(serry_recovery_history(serry_ft_recovery(c.comm), NULL, 0), 1);
        assert_int_equal(chain_sum(&c), SERRY_OK);
        chain_close(&c);
    }
}

static void joining_fails_where_it_is_nobodys_fault(void **state)
{
    (void)state;
    mock_make(&m[0], "first");
    mock_make(&m[1], "second");
    m[0].open[0] = SERRY_ERR_TIMEOUT;
    chain_begin(&c, &m[0], &m[1], NULL);
    assert_int_equal(chain_open(&c), SERRY_ERR_TIMEOUT);
    assert_null(c.comm);
    assert_int_equal(m[1].opens, 0);
    assert_int_equal(serry_last_error(NULL)->error, SERRY_ERR_TIMEOUT);
    serry_ft_destroy(&c.backend);

    m[0].open[1] = SERRY_ERR_NO_SPACE;
    m[1].open[0] = SERRY_ERR_SYSTEM;
    assert_int_equal(chain_open(&c), SERRY_ERR_SYSTEM);
    assert_int_equal(m[1].opens, 1);
    serry_ft_destroy(&c.backend);
}

static void memory_stays_with_its_backend(void **state)
{
    (void)state;
    void *old = serry_alloc(c.comm, 10), *lost = serry_alloc(c.comm, 10);
    assert_ptr_equal(old, &m[0]);
    m[0].run[0] = SERRY_ERR_SYSTEM;
    assert_int_equal(chain_sum(&c), SERRY_OK);
    void *new = serry_alloc(c.comm, 10);
    assert_ptr_equal(new, &m[1]);
    serry_free(c.comm, old);
    assert_int_equal(m[0].frees, 1);
    serry_free(c.comm, new);
    assert_int_equal(m[1].frees, 1);
    assert_ptr_equal(lost, &m[0]);
}

static void a_communicator_that_is_revoked_stays_so(void **state)
{
    (void)state;
    assert_int_equal(serry_revoke(c.comm), SERRY_OK);
    m[0].run[0] = SERRY_ERR_SYSTEM; /* had it begun before */
    chain_sum(&c);
    assert_int_equal(m[0].revokes, 1);
    assert_int_equal(m[1].revokes, 1);
}

static void epochs_go_on(void **state)
{
    (void)state;
    m[0].epoch = 3;
    assert_int_equal(serry_epoch(c.comm), 3);
    m[0].run[0] = SERRY_ERR_SYSTEM;
    assert_int_equal(chain_sum(&c), SERRY_OK);
    m[1].epoch = 1;
    assert_int_equal(serry_epoch(c.comm), 4);
}

static void the_last_algorithm_is_followed_by_the_next_backend(void **state)
{
    (void)state;
    m[0].variants = 2;
    assert_int_equal(serry_recovery_set_strategy(serry_ft_recovery(c.comm), SERRY_ERR_NO_SPACE,
                                                 SERRY_FALLBACK_BACKEND),
                     SERRY_OK);
    assert_int_equal(serry_recovery_set_strategy(serry_ft_recovery(c.comm), SERRY_ERR_SYSTEM,
                                                 SERRY_DIFFERENT_ALGORITHM),
                     SERRY_OK);
    m[0].run[0] = m[0].run[1] = SERRY_ERR_SYSTEM;
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m[0].variant, 1);
    assert_ptr_equal(serry_ft_carrier(c.comm), &m[1].table);
}

/* It was not in the meeting that admitted it, so there is another one. */
static void a_replacement_is_taken_along(void **state)
{
    (void)state;
    m[0].run[0] = SERRY_ERR_SYSTEM;
    m[0].joins = 1;
    assert_int_equal(chain_sum(&c), SERRY_OK);
    assert_int_equal(m[0].meets, 2);
    assert_int_equal(m[0].vote[0], m[0].vote[1]);
    assert_ptr_equal(serry_ft_carrier(c.comm), &m[1].table);
}

#define THREE(name) cmocka_unit_test_setup_teardown(name, open_three, close_three)

int main(void)
{
    const struct CMUnitTest k_tests[] = {
        THREE(the_same_operation_goes_on_by_the_next_backend),
        THREE(a_backend_that_lets_nobody_in_is_skipped),
        THREE(nobody_is_let_in_anywhere),
        THREE(an_agreement_on_the_way_is_out_of_time),
        THREE(the_way_is_left_and_gone_on_with),
        cmocka_unit_test(joining_tries_the_chain),
        cmocka_unit_test(joining_fails_where_it_is_nobodys_fault),
        THREE(memory_stays_with_its_backend),
        THREE(a_communicator_that_is_revoked_stays_so),
        THREE(epochs_go_on),
        THREE(the_last_algorithm_is_followed_by_the_next_backend),
        THREE(a_replacement_is_taken_along),
    };
    alarm(120);
    return cmocka_run_group_tests(k_tests, NULL, NULL);
}
