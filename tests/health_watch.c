/* health_watch.c - see health_watch.h. */
#include "health_watch.h"

#include "comm.h"

static void note(int rank, serry_rank_status before, serry_rank_status after,
                 const serry_health_report *report, void *argument)
{
    story *s = argument;
    char text[SERRY_HEALTH_TEXT_MAX];
    int count = atomic_load(&s->count);

    (void)before;
    /* A busy machine may make any living rank unresponsive for a while. */
    if (rank != VICTIM && after == SERRY_FAILED)
        test_failed(s->self, "%s", serry_health_text(report, text, sizeof(text)));
    if (rank == VICTIM && count < 8) {
        s->after[count] = after;
        atomic_store(&s->count, count + 1);
    }
}

serry_health *watch(test_rank *self, serry_exclusion exclusion, story *s)
{
    serry_health_config config = SERRY_HEALTH_CONFIG_INIT;
    serry_health *health;

    *s = (story){.self = self};
    config.period_ms = PERIOD_MS;
    config.heartbeat_timeout_ms = TIMEOUT_MS;
    config.exclusion = exclusion;
    config.on_change = note;
    config.argument = s;
    test_expect(self, SERRY_OK, serry_health_create(self->comm, &config, &health), NULL, "create");
    test_expect(self, SERRY_OK, serry_health_start(health), NULL, "start");
    return health;
}

serry_health_report await_status(test_rank *self, serry_health *health, serry_rank_status wanted)
{
    serry_health_report report;

    test_at(self, "waiting until rank %d is %s", VICTIM, serry_rank_status_name(wanted));
    while (serry_health_status(health, VICTIM, &report) != wanted)
        test_sleep_ms(1);
    return report;
}

void await_activity(test_rank *self, serry_health *health, serry_activity wanted)
{
    serry_health_report report;

    test_at(self, "waiting for activity %d", (int)wanted);
    do
        test_sleep_ms(1);
    while (serry_health_status(health, VICTIM, &report), report.activity != wanted);
}

pid_t victim_pid(test_rank *self)
{
    return test_report_of(self->run, VICTIM)->pid;
}

int exclude(test_rank *self, int rank, serry_exclusion how)
{
    serry_error error;

    return self->comm->backend->exclude(self->comm->member, rank, how, &error);
}
