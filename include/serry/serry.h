/**
 * serry.h - collectives between the ranks of one machine.
 *
 * Ranks are processes, or threads of one process, that attach to one shared-memory arena. Every
 * function returns SERRY_OK (0) or a negative serry_error_code; serry_last_error() has the whole
 * story. The library prints nothing and never ends the program.
 *
 * Common to all collectives:
 * - All ranks of the communicator make the same call: kind, count, type, reduction and root are
 *   compared every time, and SERRY_ERR_RANK_MISMATCH on all ranks names two that differ.
 * - Counts are elements. 0 is allowed and acts as a barrier; pointers may then be NULL.
 * - Results have the same bits on every rank and in every run (docs/reductions.md has the order).
 * - What a rank wrote to shared memory before the call is visible to every rank that got SERRY_OK.
 * - Buffers must not overlap each other except through SERRY_IN_PLACE, and must not be touched by
 *   other threads during the call. Memory from serry_alloc() saves a copy.
 * - SERRY_ERR_INVALID, _UNSUPPORTED, _NO_SPACE: this rank contributed nothing; nothing has changed.
 * - SERRY_ERR_RANK_MISMATCH, _RANK_FAILED: on all ranks alike; inputs intact, outputs untouched;
 *   the communicator goes on with the next operation (after a failure: among the survivors).
 * - SERRY_ERR_RANK_JOINED: as RANK_FAILED; the communicator goes on with the rank that has joined.
 * - SERRY_ERR_TIMEOUT, _CANCELLED: the operation stays open. The same call again goes on; any other
 *   returns SERRY_ERR_PENDING. Inputs intact and outputs untouched, except where docs/protocol.md
 *   says that a large operation on arena memory (or between threads) had already begun to write.
 * - SERRY_ERR_EXCLUDED, _FORKED, _LAYOUT, _ARENA: this rank has lost the communicator.
 * - One thread at a time on a communicator; different communicators from different threads at once.
 * - Not async-signal-safe. In the child of a fork every call returns SERRY_ERR_FORKED, at once.
 */
#ifndef SERRY_SERRY_H
#define SERRY_SERRY_H

#include <serry/call.h>
#include <serry/error.h>
#include <serry/message.h>
#include <serry/request.h>
#include <serry/timeout.h>
#include <serry/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SERRY_VERSION_MAJOR 0
#define SERRY_VERSION_MINOR 1
#define SERRY_VERSION_PATCH 0
#define SERRY_VERSION "0.1.0"

/* The version of the library at run time, as SERRY_VERSION. */
const char *serry_version(void);

/* ---- joining and leaving ---------------------------------------------------------------- */

/**
 * Join a job; returns when all its ranks have joined.
 *
 * @param config     What this rank knows; NULL: everything from the environment. Rank, size and job
 *                   are looked for in the configuration, in SERRY_RANK, SERRY_SIZE and SERRY_JOB,
 *                   and in the variables of torchrun, Open MPI, PMI launchers and Slurm. A program
 *                   started alone becomes rank 0 of 1.
 * @param[out] comm  The world communicator; NULL unless SERRY_OK is returned. Owned by the caller,
 *                   given back with serry_finalize().
 * @retval SERRY_ERR_INVALID      Rank, size or job missing or contradictory; ranks on several hosts;
 *                                thread and process ranks in one job; two ranks of one number.
 * @retval SERRY_ERR_NO_SPACE     No shared memory to be had; the message names sizes and the option.
 * @retval SERRY_ERR_TIMEOUT      Not all ranks came; the record names the missing.
 * @retval SERRY_ERR_RANK_FAILED  A rank ended while joining.
 * @retval SERRY_ERR_LAYOUT       A rank runs an incompatible build.
 *
 * A thread rank (config->kind = SERRY_THREADS) calls this in its own thread, for instance inside
 * `#pragma omp parallel`. A process may hold several jobs at once, under different names.
 */
int serry_init(const serry_config *config, serry_comm **comm);

/**
 * Leave: frees the communicator and sets it to NULL; *comm NULL is allowed. Does not wait for the
 * others; operations that this rank has completed stay complete for them, and later ones find it
 * gone. Call it for each communicator, the world's last; in a child after fork it frees private
 * memory only. A thread rank leaves in the thread that joined: SERRY_ERR_INVALID, and nothing changes,
 * where another one frees its last communicator while that thread runs.
 */
int serry_finalize(serry_comm **comm);

/* This rank, from 0; -1 for NULL. */
int serry_rank(const serry_comm *comm);

/* Number of ranks the communicator was made with; -1 for NULL. */
int serry_size(const serry_comm *comm);

/* Number of ranks that this rank does not know to have failed or left; -1 for NULL. */
int serry_live(const serry_comm *comm);

/* The ranks that took part in the last completed operation. */
int serry_participants(const serry_comm *comm, serry_rank_set *ranks);

/**
 * Run `body` as `ranks` thread ranks of this process and wait for all to return.
 *
 * @param ranks  1 to SERRY_MAX_RANKS.
 * @param body   Gets the rank's communicator, which the library frees when it returns.
 * @return SERRY_OK if all bodies returned 0, else what the lowest rank that failed returned (or the
 *         serry error that kept it from starting).
 */
int serry_run_threads(int ranks, int (*body)(serry_comm *comm, void *argument), void *argument);

/**
 * Divide a communicator: ranks with the same colour form a new one, ordered by key, then by rank.
 * Collective. A colour of SERRY_UNDEFINED gives *part = NULL.
 */
int serry_split(serry_comm *comm, int colour, int key, serry_comm **part);

/* A second communicator of the same ranks, independent of the first. Collective. */
int serry_dup(serry_comm *comm, serry_comm **copy);

/* Timeout of each operation from now on, in milliseconds; < 0: none. 0 is SERRY_ERR_INVALID. */
int serry_set_timeout(serry_comm *comm, int timeout_ms);

/* ---- when ranks fail ------------------------------------------------------------------------
 *
 * A rank that is killed, crashes or leaves is found out by the others within a fraction of a
 * millisecond. Every operation either completes on all survivors with one result, or on none, with
 * their inputs intact; the policy says which. */

/**
 * What the operations of this communicator do when a rank is missing, from the next one on. Not
 * collective, but all ranks must set the same policy at the same operation: it is compared with the
 * call. Communicators made from this one start with it, or with SERRY_REPORT in place of SERRY_WAIT: to
 * wait in those, set it there. SERRY_ERR_INVALID for an unknown policy.
 */
int serry_set_policy(serry_comm *comm, serry_policy policy);

/* The ranks that are known to have failed or left by now; a later operation may not have met them
 * yet. Local. */
int serry_get_failed(const serry_comm *comm, serry_rank_set *failed);

/**
 * Acknowledge all failures that are known by now, and fill `acked` (NULL is allowed) with all that
 * have been acknowledged so far. Local. Collectives report each failure once, acknowledged or not:
 * what they do must be the same on all ranks.
 */
int serry_ack_failed(serry_comm *comm, serry_rank_set *acked);

/* How many changes of membership this rank has met on the communicator: each operation that finds
 * ranks missing, and each that admits replacements, counts one. The same on all ranks after an
 * operation. 0 for NULL. */
uint64_t serry_epoch(const serry_comm *comm);

/**
 * End every operation of this communicator on all ranks, those that wait now included, with
 * SERRY_ERR_REVOKED; only agree, shrink, get_failed and finalize work on it from then on. Not
 * collective: one rank is enough, and it is for ever. An operation that is being revoked may still
 * complete on some ranks.
 */
int serry_revoke(serry_comm *comm);

/**
 * Agree on 64 bits among the survivors: op is SERRY_BAND or SERRY_BOR. Collective among the living
 * ranks, works on a revoked communicator, and whoever dies meanwhile, all that return SERRY_OK have
 * the same value.
 *
 * @param[in,out] value  This rank's bits; the combination of all.
 * @retval SERRY_ERR_TIMEOUT  Stays open: the same call again goes on.
 */
int serry_agree(serry_comm *comm, serry_op op, uint64_t *value);

/**
 * A new communicator of the survivors, dense, in the old order. Collective among the living ranks,
 * works on a revoked communicator; whoever dies meanwhile is left out, or found missing by the first
 * operation of the new one.
 */
int serry_shrink(serry_comm *comm, serry_comm **rest);

/**
 * Join a running job in the place of a rank that has failed: as serry_init with the entry
 * SERRY_ENTRY_REPLACEMENT, or what `config` or the environment says. Where *comm holds a communicator
 * (one that this rank has lost by SERRY_ERR_EXCLUDED), it is finalized first.
 *
 * Waits until the rank of that number is known to have failed, then until the others come to an
 * operation on the world communicator: the replacement takes part from that operation on. Under
 * SERRY_REPORT that one returns SERRY_ERR_RANK_JOINED on all the others, naming it, with inputs
 * intact: the moment to send it what it must know, by a broadcast for instance. Under SERRY_EXCLUDE
 * and SERRY_WAIT it completes as if nothing had been, so the replacement's first call must be the
 * same one. Into communicators that were made from the world's it gets by serry_rejoin_part().
 *
 * @param comm  As for serry_init; must hold NULL or a communicator.
 * @retval SERRY_ERR_INVALID  Another replacement waits for the same place, or nobody has failed.
 * @retval SERRY_ERR_TIMEOUT  The others did not come to an operation, or the rank still lives.
 */
int serry_rejoin(const serry_config *config, serry_comm **comm);

/**
 * Take the place of this rank's predecessor in a communicator that it had got from this one, by
 * serry_split(), serry_dup() or serry_shrink(), and had not finalized. For replacements, where the
 * others go on with the old communicator in place of a new split. Works on communicators that were got
 * by this function as well.
 *
 * Waits until the others come to an operation on that communicator, or wait in one under SERRY_WAIT: the
 * rank takes part from that operation on, which otherwise is as on the world communicator: under
 * SERRY_REPORT it returns SERRY_ERR_RANK_JOINED on all the others, else it completes.
 *
 * @param index      Which one: the number of splits, dups and shrinks of this communicator, of all ranks
 *                   together, that came before the one that made it.
 * @param[out] part  The communicator, or NULL.
 * @retval SERRY_ERR_INVALID    There is no such communicator: the message says how many there are, or
 *                              who has left it.
 * @retval SERRY_ERR_REVOKED    It was revoked.
 * @retval SERRY_ERR_TIMEOUT    The others did not come to an operation on it. It can be tried again.
 * @retval SERRY_ERR_CANCELLED  Likewise.
 */
int serry_rejoin_part(serry_comm *comm, int index, serry_comm **part);

/**
 * Let a token end the operations of this communicator, from the next one on: those that wait when it
 * is cancelled, by any thread, return SERRY_ERR_CANCELLED at once, and when its time is over
 * SERRY_ERR_TIMEOUT, with the operation left open as after a timeout. NULL: no token any more. The
 * communicator keeps a reference. A token that has tripped does not disturb operations that need not
 * wait. Communicators made from this one have none.
 */
int serry_set_token(serry_comm *comm, serry_token *token);

/* ---- memory in the arena ------------------------------------------------------------------ */

/**
 * Memory in the arena, zeroed and page-aligned: collectives that send from it copy nothing.
 *
 * @return NULL on failure (serry_last_error() says why: SERRY_ERR_NO_SPACE names sizes and the
 *         option to give). Local to this rank; not collective. Give it back with serry_free(), or
 *         with the world's finalize at the latest. A child after fork shares it with its parent.
 */
void *serry_alloc(serry_comm *comm, size_t bytes);

/* Give memory from serry_alloc() back; NULL is allowed, a foreign pointer changes nothing. */
void serry_free(serry_comm *comm, void *memory);

/* ---- collectives -------------------------------------------------------------------------- */

/* Wait until all ranks have come. */
int serry_barrier(serry_comm *comm);

/* `count` elements from the root's buffer to everybody's. */
int serry_broadcast(void *buffer, size_t count, serry_dtype dtype, int root, serry_comm *comm);

/* Combine `count` elements of all ranks into the root's recv (ignored elsewhere). Root may pass
 * send = SERRY_IN_PLACE. */
int serry_reduce(const void *send, void *recv, size_t count, serry_dtype dtype, serry_op op,
                 int root, serry_comm *comm);

/* Combine `count` elements of all ranks; every rank gets the result. */
int serry_allreduce(const void *send, void *recv, size_t count, serry_dtype dtype, serry_op op,
                    serry_comm *comm);

/* `count` elements from each rank; every rank gets size * count, in rank order. In place: this
 * rank's block already lies in its place in recv. */
int serry_allgather(const void *send, void *recv, size_t count, serry_dtype dtype,
                    serry_comm *comm);

/* Each rank sends size * count elements; rank r gets the combination of the blocks number r. In
 * place: the input is the size * count elements at recv, the result its first count. */
int serry_reduce_scatter(const void *send, void *recv, size_t count, serry_dtype dtype, serry_op op,
                         serry_comm *comm);

/* `count` elements from each rank to the root's recv, size * count, in rank order. Root may pass
 * send = SERRY_IN_PLACE: its block already lies in its place. */
int serry_gather(const void *send, void *recv, size_t count, serry_dtype dtype, int root,
                 serry_comm *comm);

/* Block r of the root's size * count elements to rank r's recv. Root may pass recv =
 * (void *)SERRY_IN_PLACE: its block stays where it is. */
int serry_scatter(const void *send, void *recv, size_t count, serry_dtype dtype, int root,
                  serry_comm *comm);

/* Block j of rank i's send goes to block i of rank j's recv; size * count elements each. */
int serry_alltoall(const void *send, void *recv, size_t count, serry_dtype dtype, serry_comm *comm);

/* ---- user-defined reductions -------------------------------------------------------------- */

/**
 * Make a reduction of one's own, for all communicators of this process.
 *
 * @param name      1 to 31 characters; stands in messages and must be the same on all ranks: it is
 *                  what mismatch detection compares.
 * @param function  See serry_reduce_function. Need not be commutative; is assumed associative.
 * @param argument  Passed on to it.
 * @param[out] op   The reduction; give it back with serry_op_free(), after the last use.
 * @retval SERRY_ERR_INVALID  A bad argument, or the name (or its 11-bit hash) is taken.
 */
int serry_op_create(const char *name, serry_reduce_function function, void *argument, serry_op *op);

/* Give a reduction back and set *op to -1. */
int serry_op_free(serry_op *op);

#ifdef __cplusplus
}
#endif
#endif
