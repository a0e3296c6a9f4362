/* kernels_baseline.c - kernels for every processor of the architecture. */
#if defined(__aarch64__)
#define KERNELS_NAME "neon"
#else
#define KERNELS_NAME "baseline"
#endif
#define KERNELS_TABLE serry_kernels_baseline
#include "kernels.inc"
