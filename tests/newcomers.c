/* newcomers.c - see newcomers.h. */
#include "newcomers.h"

const int k_none[] = {-1}, k_victim[] = {VICTIM, -1};

void run_newcomers(serry_kind_of_rank kind, int newcomers, test_body body, void *argument,
                   const int *dead)
{
    test_options options = {.kind = kind, .size = RANKS + newcomers, .body_joins = true};

    deaths_end(test_start(&options, body, argument), kind, RANKS + newcomers,
               kind == SERRY_PROCESSES ? dead : k_none);
}

serry_config config_of(const test_rank *self, int rank, serry_policy policy, serry_entry entry)
{
    serry_config config = test_config(self, 60000);

    config.rank = rank;
    config.size = RANKS;
    config.pool_bytes = (size_t)256 << 20;
    config.policy = (int)policy;
    config.entry = entry;
    return config;
}

bool join(test_rank *self, int rank, serry_policy policy)
{
    serry_config config = config_of(self, rank, policy, SERRY_ENTRY_START);

    return test_expect(self, SERRY_OK, serry_init(&config, &self->comm), NULL, "init");
}

bool rejoin(test_rank *self, int rank, serry_policy policy)
{
    serry_config config = config_of(self, rank, policy, SERRY_ENTRY_REPLACEMENT);

    return test_expect(self, SERRY_OK, serry_rejoin(&config, &self->comm), NULL, "rejoin");
}
