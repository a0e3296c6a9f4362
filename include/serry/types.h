/* types.h - the values a caller holds: element types, reductions, sets of ranks, configuration. */
#ifndef SERRY_TYPES_H
#define SERRY_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SERRY_MAX_RANKS 256u                      /* largest world size */
#define SERRY_MAX_COUNT ((UINT64_C(1) << 34) - 1) /* largest element count of one call */

/* A communicator: a rank's membership in a group of ranks. Made by serry_init() and its kin, given
 * back with serry_finalize(). One thread at a time may use it. */
typedef struct serry_comm serry_comm;

/* Element types. 16-bit floats accumulate in 32 bits. */
typedef enum serry_dtype {
    SERRY_F32 = 0,
    SERRY_F64,
    SERRY_F16,  /* IEEE binary16 */
    SERRY_BF16, /* upper half of a binary32 */
    SERRY_I8,
    SERRY_I16,
    SERRY_I32,
    SERRY_I64,
    SERRY_U8,
    SERRY_U16,
    SERRY_U32,
    SERRY_U64,
    SERRY_DTYPES /* how many there are */
} serry_dtype;

/* Reductions. Values from SERRY_OP_USER on come from serry_op_create(). */
typedef int32_t serry_op;
enum {
    SERRY_SUM = 0,
    SERRY_PROD,
    SERRY_MIN, /* NaN if any contribution is NaN; -0 is less than +0 */
    SERRY_MAX, /* likewise */
    SERRY_AVG, /* sum divided by the number of ranks that took part; integers truncate to zero */
    SERRY_BAND,
    SERRY_BOR,
    SERRY_BXOR,
    SERRY_OPS,           /* how many are predefined */
    SERRY_OP_USER = 2048 /* first value that serry_op_create() may give */
};

/* Passed as `send`: the input lies where the output goes, as in MPI. */
#define SERRY_IN_PLACE ((const void *)(intptr_t)-1)

/* Passed as the colour to serry_split(): this rank joins no new group. */
#define SERRY_UNDEFINED (-1)

/* What the ranks of a job are. All ranks of a job must be of one kind. */
typedef enum serry_kind_of_rank {
    SERRY_PROCESSES = 0, /* each rank is a process */
    SERRY_THREADS        /* each rank is a thread of one process */
} serry_kind_of_rank;

/* What an operation does in which a rank newly does not take part, because it has failed or left.
 * All ranks of a communicator must have the same policy; it is compared with the call. */
typedef enum serry_policy {
    SERRY_REPORT =
        0,         /* SERRY_ERR_RANK_FAILED on all survivors, once; the next one goes on without */
    SERRY_EXCLUDE, /* goes on among the survivors without an error; see serry_participants() */
    SERRY_REVOKE,  /* revokes the communicator: SERRY_ERR_REVOKED from then on */
    SERRY_WAIT,    /* waits for a replacement, until the timeout; see serry_rejoin(), for parts
                      serry_rejoin_part() */
    SERRY_POLICIES /* how many there are */
} serry_policy;

/* How a rank comes into its job. */
typedef enum serry_entry {
    SERRY_ENTRY_ENVIRONMENT = 0, /* SERRY_ENTRY (start, replacement, spare), or at the start */
    SERRY_ENTRY_START,           /* with all others */
    SERRY_ENTRY_REPLACEMENT,     /* later, in the place of a failed rank of the same number */
    SERRY_ENTRY_SPARE            /* waits until any rank fails, and takes its number and place */
} serry_entry;

/* Who drives operations that were started (request.h) while nobody waits for them. */
typedef enum serry_progress {
    SERRY_PROGRESS_ENVIRONMENT = 0, /* SERRY_PROGRESS (thread, thread:CPU, caller), or the thread */
    SERRY_PROGRESS_THREAD,          /* a thread of the library, one per process */
    SERRY_PROGRESS_CALLER           /* whoever waits, tests, or makes a synchronous call */
} serry_progress;

/* Who copies and reduces in large operations of a rank that owns several cores: docs/reductions.md. */
typedef enum serry_team {
    SERRY_TEAM_ENVIRONMENT = 0, /* SERRY_TEAM (none, openmp), or none */
    SERRY_TEAM_NONE,            /* the thread that calls, or the progress thread, alone */
    SERRY_TEAM_OPENMP           /* it and an OpenMP team: OMP_NUM_THREADS says how many */
} serry_team;

/* What carries the collectives of a communicator: backend.h. */
struct serry_backend;

/* A set of ranks of one communicator. */
typedef struct serry_rank_set {
    uint64_t bits[SERRY_MAX_RANKS / 64];
} serry_rank_set;

/**
 * Tell whether a rank is in a set. Any thread, any time.
 *
 * @param rank  Any number; what is no rank is in no set.
 * @return true or false
 */
static inline bool serry_rank_set_has(const serry_rank_set *set, int rank)
{
    return rank >= 0 && (unsigned)rank < SERRY_MAX_RANKS &&
           ((set->bits[rank / 64] >> (rank % 64)) & 1u) != 0;
}

/* How to join a job. Start from SERRY_CONFIG_INIT, then set what you know; a field left alone is
 * found in the environment (see serry_init) or takes its default. */
typedef struct serry_config {
    size_t bytes;            /* sizeof(serry_config): set by SERRY_CONFIG_INIT */
    int rank;                /* this rank, from 0; -1: from the environment */
    int size;                /* world size, 1 to SERRY_MAX_RANKS; -1: from the environment */
    const char *job;         /* names the job among all jobs of this user; NULL: environment */
    serry_kind_of_rank kind; /* processes, or threads of this process */
    int timeout_ms;          /* of each operation and of serry_init; < 0: none;
                                0: SERRY_TIMEOUT_MS or 300000 */
    size_t pool_bytes; /* room for serry_alloc, and for what large operations on private memory
                                stage, over all ranks; 0: SERRY_POOL or half of the machine's memory.
                                Address space only, until allocated */
    int policy;        /* a serry_policy; -1: SERRY_POLICY (report, exclude, revoke, wait)
                                or SERRY_REPORT */
    serry_entry entry; /* how this rank comes into its job */
    const struct serry_backend *backend; /* outlives the communicators; NULL: SERRY_BACKEND (shm,
                                            socket, self) or serry_backend_shm */
    serry_progress progress;             /* who drives operations that were started */
    int progress_cpu; /* where its thread runs; -1: anywhere. The first communicator of a process
                         that needs the thread decides */
    serry_team team;  /* who copies and reduces; the same for all thread ranks of a job */
} serry_config;

// clang-format off
#define SERRY_CONFIG_INIT {sizeof(serry_config), -1, -1, NULL, SERRY_PROCESSES, 0, 0, -1, SERRY_ENTRY_ENVIRONMENT, NULL, SERRY_PROGRESS_ENVIRONMENT, -1, SERRY_TEAM_ENVIRONMENT}
// clang-format on

/* A user-defined reduction: accumulator[i] = accumulator[i] (op) next[i] for i in [0, count).
 * Called on pieces of the vectors, with contributions in the order of docs/reductions.md. Must be
 * a pure function of its inputs and must not call serry. */
typedef void (*serry_reduce_function)(void *accumulator, const void *next, size_t count,
                                      serry_dtype dtype, void *argument);

#ifdef __cplusplus
}
#endif
#endif
