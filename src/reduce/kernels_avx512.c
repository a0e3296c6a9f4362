/* kernels_avx512.c - kernels for x86-64 with AVX-512 F, BW, DQ, VL; compiled with -mavx512f
 * -mavx512bw -mavx512dq -mavx512vl -mf16c -mprefer-vector-width=512. */
#if defined(__x86_64__)
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) ||                   \
    !defined(__AVX512VL__) || !defined(__F16C__)
#error "compile this file with -mavx512f -mavx512bw -mavx512dq -mavx512vl -mf16c"
#endif
#define KERNELS_NAME "avx512"
#define KERNELS_TABLE serry_kernels_avx512
#include "kernels.inc"
#else
typedef int serry_kernels_avx512_not_here;
#endif
