/* traps.c - see traps.h. */
#include "traps.h"

void trapped_sum(void *accumulator, const void *next, size_t count, serry_dtype dtype,
                 void *argument)
{
    trap *t = argument;
    int64_t *a = accumulator;
    const int64_t *b = next;

    (void)dtype;
    if (++t->calls == t->deadly)
        t->spring(t->self);
    for (size_t i = 0; i < count; i++)
        a[i] += b[i];
}
