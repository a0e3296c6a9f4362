/* copy.c - see copy.h. */
#include "copy.h"

#include <stdint.h>

#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)
#include <emmintrin.h>

#define VECTOR sizeof(__m128i)
#define LINE (4 * VECTOR)

static void stream_line(unsigned char *to, const unsigned char *from)
{
    const __m128i *source = (const __m128i *)(const void *)from;
    __m128i *dest = (__m128i *)(void *)to;
    __m128i a = _mm_loadu_si128(source), b = _mm_loadu_si128(source + 1);
    __m128i c = _mm_loadu_si128(source + 2), d = _mm_loadu_si128(source + 3);

    _mm_stream_si128(dest, a);
    _mm_stream_si128(dest + 1, b);
    _mm_stream_si128(dest + 2, c);
    _mm_stream_si128(dest + 3, d);
}

void copy_stream(void *dest, const void *source, size_t bytes)
{
    unsigned char *to = dest;
    const unsigned char *from = source;
    size_t head = -(uintptr_t)to % LINE;

    head = head < bytes ? head : bytes;
    memcpy(to, from, head);
    to += head;
    from += head;
    bytes -= head;
    for (; bytes >= LINE; to += LINE, from += LINE, bytes -= LINE)
        stream_line(to, from);
    memcpy(to, from, bytes);
    _mm_sfence(); /* such stores are in no order with others */
}

#else

void copy_stream(void *dest, const void *source, size_t bytes)
{
    memcpy(dest, source, bytes);
}

#endif
