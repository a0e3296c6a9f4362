/* call.c - the table of kinds and types; checking, signing and describing calls. */
#include <serry/call.h>

#include <stdio.h>

#include "record.h"
#include "reduce/kernels.h"
#include "reduce/reduce.h"
#include "signature.h"

/* ---- types and kinds ---------------------------------------------------------------------- */

#define LIKELY(condition) __builtin_expect(!!(condition), 1)

static const char *const k_dtypes[SERRY_DTYPES] = {
    [SERRY_F32] = "f32", [SERRY_F64] = "f64", [SERRY_F16] = "f16", [SERRY_BF16] = "bf16",
    [SERRY_I8] = "i8",   [SERRY_I16] = "i16", [SERRY_I32] = "i32", [SERRY_I64] = "i64",
    [SERRY_U8] = "u8",   [SERRY_U16] = "u16", [SERRY_U32] = "u32", [SERRY_U64] = "u64",
};

const uint8_t serry_elements[SERRY_DTYPES] = {
    [SERRY_F32] = 4, [SERRY_F64] = 8, [SERRY_F16] = 2, [SERRY_BF16] = 2,
    [SERRY_I8] = 1,  [SERRY_I16] = 2, [SERRY_I32] = 4, [SERRY_I64] = 8,
    [SERRY_U8] = 1,  [SERRY_U16] = 2, [SERRY_U32] = 4, [SERRY_U64] = 8,
};

/* Blocks of a buffer: none, one, or one for each rank. */
enum { BLOCKS_0, BLOCKS_1, BLOCKS_N };

/* Where in one buffer this rank's block of the other lies, when a call is in place. */
enum in_place { SAME_START, SEND_IN_RECV, RECV_IN_SEND };

static const struct kind_row {
    const char *name;
    bool root, reduction;
    uint8_t send, recv;     /* BLOCKS_ */
    bool send_at_root_only; /* the root alone gives: broadcast, scatter */
    bool recv_at_root_only; /* the root alone gets: reduce, gather */
    bool recv_not_at_root;  /* the root gets nothing: broadcast */
    uint8_t in_place;       /* enum in_place */
} k_kinds[SERRY_KINDS] = {
#define BLOCKS_IS_N(blocks) (BLOCKS_##blocks == BLOCKS_N)
#define SERRY_X(name, text, root, reduction, send, recv)                                           \
    {text,                                                                                         \
     root,                                                                                         \
     reduction,                                                                                    \
     BLOCKS_##send,                                                                                \
     BLOCKS_##recv,                                                                                \
     (root) && !(reduction) && !BLOCKS_IS_N(recv),                                                 \
     (root) && ((reduction) || BLOCKS_IS_N(recv)),                                                 \
     (root) && !(reduction) && !BLOCKS_IS_N(recv) && !BLOCKS_IS_N(send),                           \
     BLOCKS_IS_N(recv) && !BLOCKS_IS_N(send) ? SEND_IN_RECV                                        \
     : (root) && BLOCKS_IS_N(send)           ? RECV_IN_SEND                                        \
                                             : SAME_START},
    SERRY_KIND_MAP(SERRY_X)
#undef SERRY_X
#undef BLOCKS_IS_N
};

size_t serry_dtype_size(serry_dtype dtype)
{
    return (unsigned)dtype < SERRY_DTYPES ? serry_elements[dtype] : 0;
}

const char *serry_dtype_name(serry_dtype dtype)
{
    return (unsigned)dtype < SERRY_DTYPES ? k_dtypes[dtype] : "?";
}

const char *serry_kind_name(serry_kind kind)
{
    return (unsigned)kind < SERRY_KINDS ? k_kinds[kind].name : "?";
}

/* ---- checking ----------------------------------------------------------------------------- */

_Static_assert(SERRY_MAX_COUNT <= SIZE_MAX / SERRY_MAX_RANKS / sizeof(uint64_t),
               "the bytes of a checked call always fit in a size_t");

enum fault {
    BAD_KIND,
    BAD_DTYPE,
    BAD_OP,
    BAD_ROOT,
    BAD_COUNT,
    BAD_SEND,
    BAD_RECV,
    BAD_OVERLAP,
};

/* What a call means for one rank: the buffer it reads and the one it writes, 0 bytes for none. */
struct extent {
    uintptr_t send, recv;
    size_t send_bytes, recv_bytes;
    size_t element;
    uintptr_t in_place; /* send - recv where the call is in place */
};

static inline size_t bytes_of(int blocks, size_t block, int size)
{
    return blocks == BLOCKS_N ? (size_t)size * block : blocks == BLOCKS_1 ? block : 0;
}

static inline struct extent extent_of(const serry_call *call, const struct kind_row *kind, int rank,
                                      int size)
{
    struct extent extent = {.element = signature_element(call->dtype)};
    size_t block = call->count * extent.element;
    bool root = rank == call->root;

    if (!kind->send_at_root_only || root) {
        extent.send = (uintptr_t)call->send;
        extent.send_bytes = bytes_of(kind->send, block, size);
    }
    if (root ? !kind->recv_not_at_root : !kind->recv_at_root_only) {
        extent.recv = (uintptr_t)call->recv;
        extent.recv_bytes = bytes_of(kind->recv, block, size);
    }
    if (kind->in_place == SEND_IN_RECV)
        extent.in_place = (size_t)rank * block;
    else if (kind->in_place == RECV_IN_SEND)
        extent.in_place = 0 - (size_t)rank * block;
    return extent;
}

/* Can [start, start + bytes) be memory with elements in it? Every empty range can. SERRY_IN_PLACE
 * cannot: a range that starts at the highest address has no end. */
static inline bool is_buffer(uintptr_t start, size_t bytes, size_t element)
{
    return bytes == 0 ||
           (start != 0 && (start & (element - 1)) == 0 && start <= UINTPTR_MAX - bytes);
}

/* Two ranges overlap if one starts within the other; those of a call in place may, empty ones
 * cannot. */
static inline bool may_share(const struct extent *extent)
{
    uintptr_t ahead = extent->send - extent->recv;
    return extent->send_bytes == 0 || extent->recv_bytes == 0 || ahead == extent->in_place ||
           (ahead >= extent->recv_bytes && 0 - ahead >= extent->send_bytes);
}

static int fault_of_buffer(const serry_call *call, const char *name, const void *buffer,
                           size_t bytes, int rank, serry_error *error)
{
    const char *kind = serry_kind_name(call->kind);
    size_t element = serry_dtype_size(call->dtype);
    if (call->kind == SERRY_KIND_BROADCAST)
        name = "buffer"; /* as its one argument is called */
    if (buffer == NULL)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "%s: %s is NULL, but rank %d needs %zu bytes there; only with a count "
                          "of 0 it may be NULL",
                          kind, name, rank, bytes);
    if (buffer == SERRY_IN_PLACE)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "%s: %s is SERRY_IN_PLACE, which rank %d cannot say here; give it a "
                          "buffer of %zu bytes",
                          kind, name, rank, bytes);
    if ((uintptr_t)buffer % element != 0)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "%s: %s at %p is not aligned for %s; its address must be a multiple "
                          "of %zu",
                          kind, name, buffer, serry_dtype_name(call->dtype), element);
    return serry_fail(error, SERRY_ERR_INVALID,
                      "%s: %s at %p with %zu bytes goes past the end of memory; check the pointer "
                      "and the count",
                      kind, name, buffer, bytes);
}

static int fault_of_overlap(const serry_call *call, int rank, int size, serry_error *error)
{
    static const char *const k_how[] = {
        [SAME_START] = "send must equal recv",
        [SEND_IN_RECV] = "send must be this rank's own block in recv",
        [RECV_IN_SEND] = "recv must be this rank's own block in send",
    };
    const struct kind_row *kind = &k_kinds[call->kind];
    struct extent extent = extent_of(call, kind, rank, size);
    return serry_fail(error, SERRY_ERR_INVALID,
                      "%s: send (%zu bytes at %p) and recv (%zu bytes at %p) overlap; keep them "
                      "apart, or make the call in place: then %s",
                      kind->name, extent.send_bytes, call->send, extent.recv_bytes, call->recv,
                      k_how[kind->in_place]);
}

/* Put in words what serry_call_check() has found; apart from it, to keep it short when all is
 * well. */
static __attribute__((cold, noinline)) int refuse(const serry_call *call, int rank, int size,
                                                  enum fault fault, serry_error *error)
{
    const char *kind = serry_kind_name(call->kind);
    if (error != NULL)
        serry_error_begin(error, kind, 0, rank);
    switch (fault) {
    case BAD_KIND:
        return serry_fail(error, SERRY_ERR_INVALID, "%d is no kind of operation; see serry_kind",
                          (int)call->kind);
    case BAD_DTYPE:
        return serry_fail(error, SERRY_ERR_INVALID, "%s: %d is no element type; see serry_dtype",
                          kind, (int)call->dtype);
    case BAD_OP:
        if (!k_kinds[call->kind].reduction)
            return serry_fail(error, SERRY_ERR_INVALID,
                              "%s has no reduction; give SERRY_SUM, not %d", kind, (int)call->op);
        return serry_fail(error, SERRY_ERR_INVALID,
                          "%s: reduction %s (%d) cannot be applied to %s; bitwise reductions need "
                          "integers, and reductions of one's own must not be freed yet",
                          kind, serry_op_name(call->op), (int)call->op,
                          serry_dtype_name(call->dtype));
    case BAD_ROOT:
        if (!k_kinds[call->kind].root)
            return serry_fail(error, SERRY_ERR_INVALID, "%s has no root; give 0, not %d", kind,
                              call->root);
        return serry_fail(error, SERRY_ERR_INVALID,
                          "%s: root %d is not a rank of this communicator; its ranks are 0 to %d",
                          kind, call->root, size - 1);
    case BAD_COUNT:
        if (k_kinds[call->kind].send == BLOCKS_0)
            return serry_fail(error, SERRY_ERR_INVALID, "%s has no elements; give 0, not %zu", kind,
                              call->count);
        return serry_fail(error, SERRY_ERR_INVALID,
                          "%s: a count of %zu is more than one call can take (%llu elements); "
                          "was a negative number passed? Else divide the call",
                          kind, call->count, (unsigned long long)SERRY_MAX_COUNT);
    case BAD_SEND:
        return fault_of_buffer(call, "send", call->send,
                               extent_of(call, &k_kinds[call->kind], rank, size).send_bytes, rank,
                               error);
    case BAD_RECV:
        return fault_of_buffer(call, "recv", call->recv,
                               extent_of(call, &k_kinds[call->kind], rank, size).recv_bytes, rank,
                               error);
    case BAD_OVERLAP:
    default:
        return fault_of_overlap(call, rank, size, error);
    }
}

/* As serry_op_check, of a type that is one: mostly without a call. */
static inline bool op_applies(serry_op op, serry_dtype dtype)
{
    if (LIKELY((unsigned)op < SERRY_OPS))
        return serry_kernels_used->type[dtype].combine[op] != NULL;
    return serry_op_check(op, dtype);
}

/* Made anew for each kind that is named below: what its row of the table says is then known. */
static inline __attribute__((always_inline)) int
check(const serry_call *call, const struct kind_row *kind, int rank, int size, serry_error *error)
{
    if (!LIKELY((unsigned)call->dtype < SERRY_DTYPES))
        return refuse(call, rank, size, BAD_DTYPE, error);
    if (!LIKELY(kind->reduction ? op_applies(call->op, call->dtype) : call->op == SERRY_SUM))
        return refuse(call, rank, size, BAD_OP, error);
    if (!LIKELY((unsigned)call->root < (kind->root ? (unsigned)size : 1u)))
        return refuse(call, rank, size, BAD_ROOT, error);
    if (!LIKELY(call->count <= (kind->send == BLOCKS_0 ? 0 : SERRY_MAX_COUNT)))
        return refuse(call, rank, size, BAD_COUNT, error);

    struct extent extent = extent_of(call, kind, rank, size);
    if (!LIKELY(is_buffer(extent.send, extent.send_bytes, extent.element)))
        return refuse(call, rank, size, BAD_SEND, error);
    if (!LIKELY(is_buffer(extent.recv, extent.recv_bytes, extent.element)))
        return refuse(call, rank, size, BAD_RECV, error);
    if (!LIKELY(may_share(&extent)))
        return refuse(call, rank, size, BAD_OVERLAP, error);
    return SERRY_OK;
}

static __attribute__((noinline)) int check_other(const serry_call *call, int rank, int size,
                                                 serry_error *error)
{
    if (!LIKELY((unsigned)call->kind < SERRY_KINDS))
        return refuse(call, rank, size, BAD_KIND, error);
    return check(call, &k_kinds[call->kind], rank, size, error);
}

/* A buffer on a side where this rank gives or gets nothing is not looked at. */
int serry_call_check(const serry_call *call, int rank, int size, serry_error *error)
{
    if (LIKELY(call->kind == SERRY_KIND_ALLREDUCE))
        return check(call, &k_kinds[SERRY_KIND_ALLREDUCE], rank, size, error);
    return check_other(call, rank, size, error);
}

/* ---- signing and describing --------------------------------------------------------------- */

_Static_assert(SERRY_KINDS <= 1 << (SIGNATURE_DTYPE - SIGNATURE_KIND), "a kind fits in its bits");
_Static_assert(SERRY_DTYPES <= 1 << (SIGNATURE_ROOT - SIGNATURE_DTYPE), "a type fits in its bits");
_Static_assert(SERRY_MAX_RANKS <= 1 << (SIGNATURE_OP - SIGNATURE_ROOT), "a root fits in its bits");
_Static_assert(SERRY_OP_USER * 2 <= 1 << (SIGNATURE_COUNT - SIGNATURE_OP),
               "a reduction fits in its bits");
_Static_assert(SERRY_MAX_COUNT <= UINT64_MAX >> SIGNATURE_COUNT, "a count fits in its bits");

uint64_t serry_call_signature(const serry_call *call)
{
    return signature_of(call);
}

/* The bits of a signature from `from` up to `to`. */
static int field(uint64_t signature, int from, int to)
{
    return (int)(signature >> from & ((UINT64_C(1) << (to - from)) - 1));
}

serry_kind serry_signature_kind(uint64_t signature)
{
    return (serry_kind)field(signature, SIGNATURE_KIND, SIGNATURE_DTYPE);
}

/* Any 64 bits are described; what stands for no kind, type or reduction becomes "?". */
void serry_signature_describe(uint64_t signature, char *text, size_t size)
{
    int kind = field(signature, SIGNATURE_KIND, SIGNATURE_DTYPE);
    const char *name = serry_kind_name((serry_kind)kind);
    if (kind == SERRY_KIND_BARRIER || kind == SERRY_KIND_SPLIT || kind == SERRY_KIND_MEET ||
        kind >= SERRY_KINDS) {
        snprintf(text, size, "%s()", name);
        return;
    }

    char op[48] = "", root[24] = "";
    if (k_kinds[kind].reduction)
        snprintf(op, sizeof(op), ", %s",
                 serry_op_name(field(signature, SIGNATURE_OP, SIGNATURE_COUNT)));
    if (k_kinds[kind].root)
        snprintf(root, sizeof(root), ", root %d", field(signature, SIGNATURE_ROOT, SIGNATURE_OP));
    snprintf(text, size, "%s(count=%llu, %s%s%s)", name,
             (unsigned long long)(signature >> SIGNATURE_COUNT),
             serry_dtype_name((serry_dtype)field(signature, SIGNATURE_DTYPE, SIGNATURE_ROOT)), op,
             root);
}
