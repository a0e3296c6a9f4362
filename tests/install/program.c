/* program.c - a user's program: what is installed must be enough to build and run it. */
#include <serry/serry.h>

#include <stdio.h>
#include <string.h>

#define RANKS 3

static int sum_ranks(serry_comm *comm, void *argument)
{
    int64_t *sums = argument;
    int64_t one = serry_rank(comm) + 1;

    return serry_allreduce(&one, &sums[serry_rank(comm)], 1, SERRY_I64, SERRY_SUM, comm);
}

/* Started alone, a program is rank 0 of 1. */
static int join_alone(void)
{
    serry_comm *comm;
    int rc = serry_init(NULL, &comm);

    if (rc == SERRY_OK)
        rc = serry_barrier(comm);
    if (rc == SERRY_OK)
        rc = serry_finalize(&comm);
    return rc;
}

int main(void)
{
    int64_t sums[RANKS] = {0};
    int rc = serry_run_threads(RANKS, sum_ranks, sums);

    if (rc == SERRY_OK)
        rc = join_alone();
    if (rc != SERRY_OK) {
        fprintf(stderr, "%s: %s\n", serry_error_name(rc), serry_last_error(NULL)->message);
        return 1;
    }
    for (int r = 0; r < RANKS; r++) {
        if (sums[r] != RANKS * (RANKS + 1) / 2) {
            fprintf(stderr, "rank %d got %lld\n", r, (long long)sums[r]);
            return 1;
        }
    }
    if (strcmp(serry_version(), SERRY_VERSION) != 0) {
        fprintf(stderr, "headers of %s, library of %s\n", SERRY_VERSION, serry_version());
        return 1;
    }
    printf("serry %s, %d ranks agree\n", serry_version(), RANKS);
    return 0;
}
