/* kernels.c - which kernel sets this processor can run, and the choice at load time. */
#include "kernels.h"

#include "reduce.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* Correct before the constructor has run, too: every set gives the same bits. */
const serry_kernels *serry_kernels_used = &serry_kernels_baseline;

#if defined(__x86_64__)
/* Half conversions have no name in clang's __builtin_cpu_supports. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && has_f16c();
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

int serry_kernels_list(const serry_kernels *list[3])
{
    int sets = 0;
    list[sets++] = &serry_kernels_baseline;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (has_avx2()) {
        list[sets++] = &serry_kernels_avx2;
        if (has_avx512())
            list[sets++] = &serry_kernels_avx512;
    }
#endif
    return sets;
}

__attribute__((constructor)) static void choose_kernels(void)
{
    const serry_kernels *list[3];
    serry_kernels_used = list[serry_kernels_list(list) - 1];
}

const char *serry_reduce_kernels(void)
{
    return serry_kernels_used->name;
}
