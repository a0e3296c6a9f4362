/* hello.c - the smallest job: says who it is and what the ranks' numbers add up to.
 *
 *   hello [BASE]
 *
 * Every rank gives BASE (0 where not said) plus its rank and prints "rank R of N sum S". Ranks of
 * two jobs with different bases that met by mistake show in the sum. */
#include <stdio.h>
#include <stdlib.h>

#include <serry/serry.h>

static int complain(const char *what, int result, const serry_comm *comm)
{
    fprintf(stderr, "hello: %s: %s: %s\n", what, serry_strerror(result),
            serry_last_error(comm)->message);
    return EXIT_FAILURE;
}

int main(int count, char **arguments)
{
    serry_comm *comm;
    int result = serry_init(NULL, &comm);
    if (result != SERRY_OK)
        return complain("init", result, NULL);

    long base = count > 1 ? strtol(arguments[1], NULL, 10) : 0;
    int64_t number = base + serry_rank(comm), sum = 0;
    result = serry_allreduce(&number, &sum, 1, SERRY_I64, SERRY_SUM, comm);
    int code = EXIT_SUCCESS;
    if (result != SERRY_OK)
        code = complain("allreduce", result, comm);
    else
        printf("rank %d of %d sum %lld\n", serry_rank(comm), serry_size(comm), (long long)sum);

    result = serry_finalize(&comm);
    if (result != SERRY_OK)
        code = complain("finalize", result, NULL);
    return code;
}
