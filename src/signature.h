/* signature.h - what every operation asks of its call, without a call of a function: bytes of an element,
 * and the signature.
 *
 *   63     62 61     28 27     16 15    8 7     4 3    0
 *   +--------+---------+---------+-------+-------+------+
 *   | policy | count   | op      | root  | dtype | kind |     the policy is the backend's
 *   +--------+---------+---------+-------+-------+------+ */
#ifndef SERRY_SIGNATURE_H
#define SERRY_SIGNATURE_H

#include <serry/call.h>

/* The first bit of each. */
enum {
    SIGNATURE_KIND = 0,
    SIGNATURE_DTYPE = 4,
    SIGNATURE_ROOT = 8,
    SIGNATURE_OP = 16,
    SIGNATURE_COUNT = 28,
};

extern const uint8_t serry_elements[SERRY_DTYPES];

/* As serry_dtype_size(), of a type that is one. */
static inline size_t signature_element(serry_dtype dtype)
{
    return serry_elements[dtype];
}

/* As serry_call_signature(). */
static inline uint64_t signature_of(const serry_call *call)
{
    return (uint64_t)call->kind << SIGNATURE_KIND | (uint64_t)call->dtype << SIGNATURE_DTYPE |
           (uint64_t)call->root << SIGNATURE_ROOT | (uint64_t)call->op << SIGNATURE_OP |
           ((uint64_t)call->count ^ call->list) << SIGNATURE_COUNT;
}

#endif
