/* kernels_avx2.c - kernels for x86-64 with AVX2 and F16C; compiled with -mavx2 -mf16c. */
#if defined(__x86_64__)
#if !defined(__AVX2__) || !defined(__F16C__)
#error "compile this file with -mavx2 -mf16c"
#endif
#define KERNELS_NAME "avx2"
#define KERNELS_TABLE serry_kernels_avx2
#include "kernels.inc"
#else
typedef int serry_kernels_avx2_not_here;
#endif
