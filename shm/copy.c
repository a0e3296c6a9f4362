/* copy.c - see copy.h. */
#include "copy.h"

#include <stdint.h>

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#include <immintrin.h>
#include <stdbool.h>

#define VECTOR sizeof(__m256i)
#define LINE (2 * VECTOR)

static bool has_avx;

__attribute__((constructor)) static void look_for_avx(void)
{
    __builtin_cpu_init();
    has_avx = __builtin_cpu_supports("avx") != 0;
}

/* Two stores to a line: with four, of half the size, 16 MiB took 1.1 times as long. */
__attribute__((target("avx"))) static void stream_lines(unsigned char *to,
                                                        const unsigned char *from, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += LINE) {
        const __m256i *source = (const __m256i *)(const void *)(from + at);
        __m256i *dest = (__m256i *)(void *)(to + at);
        __m256i first = _mm256_loadu_si256(source), second = _mm256_loadu_si256(source + 1);

        _mm256_stream_si256(dest, first);
        _mm256_stream_si256(dest + 1, second);
    }
}

void copy_stream(void *dest, const void *source, size_t bytes)
{
    unsigned char *to = dest;
    const unsigned char *from = source;
    size_t head = -(uintptr_t)to % LINE;

    head = has_avx && head < bytes ? head : bytes;
    memcpy(to, from, head);
    size_t lines = (bytes - head) / LINE * LINE, end = head + lines;
    stream_lines(to + head, from + head, lines);
    memcpy(to + end, from + end, bytes - end);
    _mm_sfence(); /* such stores are in no order with others */
}

#else

void copy_stream(void *dest, const void *source, size_t bytes)
{
    memcpy(dest, source, bytes);
}

#endif
