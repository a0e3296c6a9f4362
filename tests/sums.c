/* sums.c - see sums.h. */
#include "sums.h"

int64_t sum_of_ranks(const test_rank *self)
{
    return (int64_t)self->size * (self->size + 1) / 2;
}

serry_request *start_sum(test_rank *self, int64_t *in, int64_t *out)
{
    serry_request *request = NULL;

    *in = self->rank + 1;
    *out = -1;
    EXPECT_OK(self, serry_iallreduce(in, out, 1, SERRY_I64, SERRY_SUM, self->comm, &request));
    return request;
}

void sums_on_all(int least, test_body body)
{
    for (int size = least; size <= 4; size++) {
        run_ranks(SERRY_THREADS, size, body, NULL);
        if (!TEST_TSAN)
            run_ranks(SERRY_PROCESSES, size, body, NULL);
    }
}
