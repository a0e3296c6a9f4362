/* call.h - one operation is one value: what is checked, carried, compared, printed and repeated. */
#ifndef SERRY_CALL_H
#define SERRY_CALL_H

#include <serry/error.h>
#include <serry/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The kinds of operation. X(NAME, "text", has a root, has a reduction, send blocks, receive blocks)
 * where blocks is 0 (none), 1 (count elements) or N (count elements per rank). One list makes the
 * enum and the table that everything else looks into. */
#define SERRY_KIND_MAP(X)                                                                          \
    X(BARRIER, "barrier", 0, 0, 0, 0)                                                              \
    X(BROADCAST, "broadcast", 1, 0, 1, 1)                                                          \
    X(REDUCE, "reduce", 1, 1, 1, 1)                                                                \
    X(ALLREDUCE, "allreduce", 0, 1, 1, 1)                                                          \
    X(ALLGATHER, "allgather", 0, 0, 1, N)                                                          \
    X(REDUCE_SCATTER, "reduce_scatter", 0, 1, N, 1)                                                \
    X(GATHER, "gather", 1, 0, 1, N)                                                                \
    X(SCATTER, "scatter", 1, 0, N, 1)                                                              \
    X(ALLTOALL, "alltoall", 0, 0, N, N)                                                            \
    X(SPLIT, "split", 0, 0, 1, N)                                                                  \
    X(MEET, "meet", 0, 0, 1, N)

// clang-format off
typedef enum serry_kind {
#define SERRY_X(name, text, root, reduction, send, recv) SERRY_KIND_##name,
    SERRY_KIND_MAP(SERRY_X)
#undef SERRY_X
    SERRY_KINDS
} serry_kind;
// clang-format on

#define SERRY_LIST_BITS 34

/* One collective call of one rank. Buffers are the caller's, and stay the caller's. */
typedef struct serry_call {
    serry_kind kind;
    serry_dtype dtype;
    serry_op op;      /* SERRY_SUM where the kind has no reduction */
    int root;         /* 0 where the kind has no root */
    size_t count;     /* elements; per rank where the kind says so */
    const void *send; /* NULL where this rank gives nothing; equals recv where in place */
    void *recv;       /* NULL where this rank gets nothing */
    uint64_t list; /* of a list of buffers, as one: SERRY_LIST_BITS of a checksum of their lengths,
                         compared with the count; else 0 */
} serry_call;

/* ---- types, reductions and kinds ----------------------------------------------------------
 *
 * Any thread, any time; texts are constant. */

/**
 * Tell the size of one element of a type.
 *
 * @return Bytes; 0 for no type.
 */
size_t serry_dtype_size(serry_dtype dtype);

/**
 * Tell the name of an element type.
 *
 * @return "f32" and its kin; "?" for no type. Never NULL.
 */
const char *serry_dtype_name(serry_dtype dtype);

/**
 * Tell the name of a reduction.
 *
 * @return "sum" and its kin, or the name given to serry_op_create(), which may be kept; "?" for
 *         none. Never
 *         NULL.
 */
const char *serry_op_name(serry_op op);

/**
 * Tell the name of a kind of operation.
 *
 * @return "allreduce" and its kin; "?" for no kind. Never NULL.
 */
const char *serry_kind_name(serry_kind kind);

/* ---- calls --------------------------------------------------------------------------------
 *
 * Any thread, any time; nothing is kept of the arguments. */

/**
 * Check whether a call is well formed for a rank.
 *
 * @param rank        The rank that makes it, 0 to `size` - 1.
 * @param size        The world size of the communicator.
 * @param[out] error  Filled with what is wrong and what to do, unless SERRY_OK is returned; may be
 *                    NULL.
 * @retval SERRY_ERR_INVALID  It is not.
 */
int serry_call_check(const serry_call *call, int rank, int size, serry_error *error);

/**
 * Put all of a call that must be equal on all ranks in one number: count (34 bits), reduction
 * (12), root (8), type (4), kind (4). Two checked calls agree if and only if their signatures are
 * equal (lists of buffers: if their checksums are).
 *
 * @param call  One that serry_call_check() has found well formed.
 * @return The signature. Its two bits on top are 0, and the backend's to use.
 */
uint64_t serry_call_signature(const serry_call *call);

/**
 * Find the kind of operation in a signature.
 *
 * @return It need not be below SERRY_KINDS where the signature is not of a checked call.
 */
serry_kind serry_signature_kind(uint64_t signature);

/**
 * Put a signature in words: "allreduce(count=10, f32, sum)". Any 64 bits are described; what
 * stands for no kind, type or reduction becomes "?".
 *
 * @param[out] text  Cut to `size` bytes with the final 0.
 */
void serry_signature_describe(uint64_t signature, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
