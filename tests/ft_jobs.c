/* ft_jobs.c - see ft_jobs.h. */
#include "ft_jobs.h"

void ft_job_run(ft_job *job, serry_kind_of_rank kind, int size, int killed, test_body body)
{
    serry_ft_config config = SERRY_FT_CONFIG_INIT;
    test_options options = {.kind = kind, .size = size, .body_joins = true};
    const serry_backend *chain[JOB_CHAIN];
    size_t count = 0;
    for (; count < JOB_CHAIN && job->script[count] != NULL; count++) {
        const serry_backend *inner = job->inner[count];
        assert_int_equal(serry_faulty_create(inner != NULL ? inner : &serry_backend_shm,
                                             job->script[count], test_seed(), &job->faulty[count]),
                         SERRY_OK);
        chain[count] = job->faulty[count];
    }
    config.chain = chain;
    config.count = count;
    config.recovery.retry_delay_ms = 1;
    config.recovery.jitter = 0.5;
    if (job->max_retries != 0)
        config.recovery.max_retries = job->max_retries;
    assert_int_equal(serry_ft_create(&config, &job->backend), SERRY_OK);
    test_run *run = test_start(&options, body, job);
    if (killed >= 0)
        test_report_of(run, killed)->killed = 1;
    test_end(run);
    serry_ft_destroy(&job->backend);
    for (size_t i = 0; i < count; i++)
        serry_faulty_destroy(&job->faulty[i]);
}

bool ft_job_open(test_rank *self)
{
    const ft_job *job = self->argument;
    serry_config config = test_config(self, job->timeout_ms != 0 ? job->timeout_ms : 60000);
    config.backend = job->backend;
    if (!test_expect(self, SERRY_OK, serry_init(&config, &self->comm), NULL, "serry_init"))
        return false;
    return CHECK(self, serry_recovery_set_strategy(serry_ft_recovery(self->comm), SERRY_ERR_SYSTEM,
                                                   job->system) == SERRY_OK);
}

void ft_job_close(test_rank *self)
{
    test_expect(self, SERRY_OK, serry_finalize(&self->comm), NULL, "serry_finalize");
}

void ft_job_call(test_rank *self, vectors *v, serry_kind kind, size_t count, int wanted)
{
    serry_call c = {kind, SERRY_U64, SERRY_SUM, 0, count, v->send, v->recv};
    vectors_fill(self, v, &c);
    test_at(self, "%s of %zu", serry_kind_name(kind), count);
    test_expect(self, wanted, test_call(&c, self->comm), self->comm, "%s of %zu",
                serry_kind_name(kind), count);
    vectors_check(self, v, &c, wanted == SERRY_OK);
}
