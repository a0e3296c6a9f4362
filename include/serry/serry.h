/**
 * serry.h - collectives between the ranks of one machine.
 *
 * Ranks are processes, or threads of one process, that attach to one shared-memory arena. Where
 * nothing else is said a function returns SERRY_OK (0) or a negative serry_error_code, and
 * serry_last_error() has the whole story. The library prints nothing and never ends the program.
 *
 * Common to all functions of this header:
 * - One thread at a time on a communicator, but for serry_revoke(), which any thread may call at
 *   any time; different communicators from different threads at once.
 * - SERRY_ERR_EXCLUDED, _LAYOUT, _ARENA: this rank has lost the communicator, and can only
 *   finalize it.
 * - In the child of a fork a communicator of the parent is lost: what would use it returns
 *   SERRY_ERR_FORKED, at once, and the parent notices nothing. The child can finalize it, and join
 *   a job of its own.
 * - Not async-signal-safe.
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

/**
 * Tell the version of the library at run time, which may differ from SERRY_VERSION, that of the
 * header.
 *
 * @return "0.1.0" and the like; constant, never freed. Any thread, any time.
 */
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
 * @retval SERRY_ERR_ARENA        What another process says of the job's arena cannot be right.
 * @retval SERRY_ERR_UNSUPPORTED  The backend cannot do it: replacements, spares, SERRY_WAIT. Or a
 *                                team is asked for, and libgomp cannot be loaded.
 * @retval SERRY_ERR_CANCELLED    The job has ended without need of this spare or replacement.
 * @retval SERRY_ERR_SYSTEM       A system call failed; the record has its errno.
 *
 * The record of an error is that of the thread (serry_last_error(NULL)).
 *
 * A thread rank (config->kind = SERRY_THREADS) calls this in its own thread, for instance inside
 * `#pragma omp parallel`. A process may hold several jobs at once, under different names.
 */
int serry_init(const serry_config *config, serry_comm **comm);

/**
 * Leave a communicator and free it. Does not wait for the others; operations that this rank has
 * completed stay complete for them, and later ones find it gone. Requests that run end with
 * SERRY_ERR_CANCELLED, or SERRY_ERR_PENDING behind the first operation, and stay the caller's to
 * give back.
 *
 * Call it for each communicator, the world's last: with that one, memory from serry_alloc() goes.
 * In a child after fork it frees private memory only.
 *
 * @param[in,out] comm  Set to NULL where SERRY_OK is returned. NULL in it is allowed.
 * @retval SERRY_ERR_INVALID  A thread rank leaves in the thread that joined: its last communicator
 *                            was to be freed by another one while that thread runs. Nothing has
 *                            changed.
 */
int serry_finalize(serry_comm **comm);

/**
 * Tell which rank of the communicator this one is. It never changes.
 *
 * @return From 0; -1 for NULL. In the child of a fork as in the parent.
 */
int serry_rank(const serry_comm *comm);

/**
 * Tell how many ranks the communicator was made with, those that have failed since included.
 *
 * @return 1 to SERRY_MAX_RANKS; -1 for NULL. In the child of a fork as in the parent.
 */
int serry_size(const serry_comm *comm);

/**
 * Count the ranks that take part, as far as the operations of this rank have met: a failure that
 * no operation has met yet is not counted (serry_get_failed() tells it), a replacement is from
 * when it was admitted.
 *
 * @return 0 to serry_size(); -1 for NULL. In the child of a fork as in the parent when it forked.
 */
int serry_live(const serry_comm *comm);

/**
 * Tell which ranks took part in the last completed operation.
 *
 * @param[out] ranks  See serry_rank_set_has().
 * @retval SERRY_ERR_INVALID, SERRY_ERR_FORKED  `ranks` is as before; the record is that of the
 *         thread (serry_last_error(NULL)).
 */
int serry_participants(const serry_comm *comm, serry_rank_set *ranks);

/**
 * Run `body` as `ranks` thread ranks of this process and wait for all to return. Any thread may
 * call it, and several at once: each call makes a job of its own.
 *
 * @param ranks     1 to SERRY_MAX_RANKS.
 * @param body      Gets the rank's communicator, which the library frees when it returns.
 * @param argument  Passed on to it, the same to all.
 * @return SERRY_OK if all bodies returned 0, else what the lowest rank that failed returned (or the
 *         serry error that kept it from starting).
 * @retval SERRY_ERR_INVALID   No such number of ranks, or no body; nothing was started.
 * @retval SERRY_ERR_NO_SPACE  Out of memory; nothing was started.
 * @retval SERRY_ERR_SYSTEM    Not all threads could be started; no body has run.
 */
int serry_run_threads(int ranks, int (*body)(serry_comm *comm, void *argument), void *argument);

/**
 * Divide a communicator: ranks with the same colour form a new one, ordered by key, then by rank.
 * Collective among the living ranks, with the policy of this communicator. The new one begins with
 * its timeout and policy (serry_set_policy() has the exception), without its token.
 *
 * @param colour     0 or more, or SERRY_UNDEFINED: this rank joins no new one.
 * @param key        Any number.
 * @param[out] part  The new communicator, given back with serry_finalize(); NULL unless SERRY_OK
 *                   is returned, and for SERRY_UNDEFINED.
 * @retval SERRY_ERR_INVALID    A bad argument; this rank contributed nothing.
 * @retval SERRY_ERR_NO_SPACE   No memory for the new one, here or on another rank. Ranks that had
 *                              theirs may have got SERRY_OK.
 * @retval SERRY_ERR_TIMEOUT, SERRY_ERR_CANCELLED  Stays open: the same call again goes on, any
 *         other returns SERRY_ERR_PENDING.
 * @retval SERRY_ERR_RANK_FAILED, SERRY_ERR_RANK_JOINED, SERRY_ERR_RANK_MISMATCH, SERRY_ERR_REVOKED
 *         On all ranks alike, as of a collective; nobody has a new one.
 * @retval SERRY_ERR_PENDING  Another operation is open; nothing has changed.
 */
int serry_split(serry_comm *comm, int colour, int key, serry_comm **part);

/**
 * Make a second communicator of the same ranks, independent of the first. Collective: a split in
 * which all have one colour, with its errors. Ranks that have failed are not in it, so its ranks
 * may be numbered anew.
 *
 * @param[out] copy  The new communicator, given back with serry_finalize(); NULL unless SERRY_OK
 *                   is returned.
 * @retval SERRY_ERR_INVALID, SERRY_ERR_NO_SPACE, SERRY_ERR_TIMEOUT, SERRY_ERR_CANCELLED,
 *         SERRY_ERR_PENDING, SERRY_ERR_RANK_FAILED, SERRY_ERR_RANK_JOINED, SERRY_ERR_RANK_MISMATCH,
 *         SERRY_ERR_REVOKED
 */
int serry_dup(serry_comm *comm, serry_comm **copy);

/**
 * Set the timeout of each operation, from the next one on. Local; ranks may differ.
 *
 * @param timeout_ms  Milliseconds that an operation may wait; < 0: without end.
 * @retval SERRY_ERR_INVALID  It is 0; nothing has changed.
 */
int serry_set_timeout(serry_comm *comm, int timeout_ms);

/* ---- when ranks fail ------------------------------------------------------------------------
 *
 * A rank that is killed, crashes or leaves is found out by the others within a fraction of a
 * millisecond. Every operation either completes on all survivors with one result, or on none, with
 * their inputs intact; the policy says which. */

/**
 * Set what the operations of this communicator do when a rank is missing, from the next one on.
 * Not collective, but all ranks must set the same policy at the same operation: it is compared
 * with the call. Communicators made from this one start with it, or with SERRY_REPORT in place of
 * SERRY_WAIT: to wait in those, set it there.
 *
 * @retval SERRY_ERR_INVALID      An unknown policy; nothing has changed.
 * @retval SERRY_ERR_UNSUPPORTED  The backend (socket) has no replacements to wait for; nothing has
 *                                changed.
 */
int serry_set_policy(serry_comm *comm, serry_policy policy);

/**
 * Tell which ranks are known to have failed or left by now, those that no operation has met yet
 * included. Local. Works on a revoked communicator.
 *
 * @param[out] failed  See serry_rank_set_has().
 * @retval SERRY_ERR_INVALID, SERRY_ERR_FORKED  `failed` is as before; the record is that of the
 *         thread (serry_last_error(NULL)).
 */
int serry_get_failed(const serry_comm *comm, serry_rank_set *failed);

/**
 * Acknowledge all failures that are known by now: receives from any source do not report them any
 * more. Local. Collectives report each failure once, acknowledged or not: what they do must be the
 * same on all ranks.
 *
 * @param[out] acked  All that are acknowledged now; may be NULL.
 * @retval SERRY_ERR_NO_SPACE  No memory to note it.
 */
int serry_ack_failed(serry_comm *comm, serry_rank_set *acked);

/**
 * Count the changes of membership that this rank has met on the communicator: each operation that
 * finds ranks missing, and each that admits replacements, is one. The same on all ranks after an
 * operation.
 *
 * @return From 0; 0 for NULL. In the child of a fork as in the parent when it forked.
 */
uint64_t serry_epoch(const serry_comm *comm);

/**
 * End every operation of this communicator on all ranks, those that wait now included, with
 * SERRY_ERR_REVOKED; only agree, shrink, get_failed and finalize work on it from then on. Not
 * collective: one rank is enough, and it is for ever. An operation that is being revoked may still
 * complete on some ranks. Any thread may call it, at any time, but not while the communicator is
 * finalized.
 */
int serry_revoke(serry_comm *comm);

/**
 * Agree on 64 bits among the survivors: op is SERRY_BAND or SERRY_BOR. Collective among the living
 * ranks, works on a revoked communicator, and whoever dies meanwhile, all that return SERRY_OK have
 * the same value. Not bound to a policy.
 *
 * @param[in,out] value  This rank's bits; the combination of all where SERRY_OK is returned, else
 *                       as before.
 * @retval SERRY_ERR_INVALID  Another op, or no value; this rank contributed nothing.
 * @retval SERRY_ERR_TIMEOUT, SERRY_ERR_CANCELLED  Stays open: the same call again goes on.
 */
int serry_agree(serry_comm *comm, serry_op op, uint64_t *value);

/**
 * Make a new communicator of the survivors, dense, in the old order. Collective among the living
 * ranks, works on a revoked communicator; whoever dies meanwhile is left out, or found missing by
 * the first operation of the new one. The old one stays, to be finalized. The new one begins as
 * after serry_split().
 *
 * @param[out] rest  The new communicator, given back with serry_finalize(); NULL unless SERRY_OK
 *                   is returned.
 * @retval SERRY_ERR_NO_SPACE  No memory.
 * @retval SERRY_ERR_TIMEOUT, SERRY_ERR_CANCELLED  Stays open: the same call again goes on.
 */
int serry_shrink(serry_comm *comm, serry_comm **rest);

/**
 * Join a running job in the place of a rank that has failed: as serry_init with the entry
 * SERRY_ENTRY_REPLACEMENT, or what `config` or the environment says. Where *comm holds a
 * communicator (one that this rank has lost by SERRY_ERR_EXCLUDED), it is finalized first.
 *
 * Waits until the rank of that number is known to have failed, then until the others come to an
 * operation on the world communicator: the replacement takes part from that operation on. Under
 * SERRY_REPORT that one returns SERRY_ERR_RANK_JOINED on all the others, naming it, with inputs
 * intact: the moment to send it what it must know, by a broadcast for instance. Under SERRY_EXCLUDE
 * and SERRY_WAIT it completes as if nothing had been, so the replacement's first call must be the
 * same one. Into communicators that were made from the world's it gets by serry_rejoin_part().
 *
 * @param config        As for serry_init().
 * @param[in,out] comm  NULL, or a communicator; then as for serry_init().
 * @retval SERRY_ERR_INVALID  Another replacement waits for the same place, or nobody has failed.
 * @retval SERRY_ERR_TIMEOUT  The others did not come to an operation, or the rank still lives.
 * @retval SERRY_ERR_NO_SPACE, SERRY_ERR_RANK_FAILED, SERRY_ERR_LAYOUT  As of serry_init().
 */
int serry_rejoin(const serry_config *config, serry_comm **comm);

/**
 * Take the place of this rank's predecessor in a communicator that it had got from this one, by
 * serry_split(), serry_dup() or serry_shrink(), and had not finalized. For replacements, where the
 * others go on with the old communicator in place of a new split. Works on communicators that were
 * got by this function as well.
 *
 * Waits until the others come to an operation on that communicator, or wait in one under
 * SERRY_WAIT: the rank takes part from that operation on, which otherwise is as on the world
 * communicator: under SERRY_REPORT it returns SERRY_ERR_RANK_JOINED on all the others, else it
 * completes.
 *
 * @param index      Which one: the number of splits, dups and shrinks of this communicator, of all
 *                   ranks together, that came before the one that made it.
 * @param[out] part  The communicator, or NULL.
 * @retval SERRY_ERR_INVALID    There is no such communicator: the message says how many there are,
 *                              or who has left it.
 * @retval SERRY_ERR_UNSUPPORTED  The backend has no replacements.
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
 *
 * @param token  From serry_timeouts_start(); cancelled by serry_timeouts_cancel().
 */
int serry_set_token(serry_comm *comm, serry_token *token);

/* ---- memory in the arena ------------------------------------------------------------------ */

/**
 * Allocate memory in the arena, zeroed and page-aligned: large collectives and messages that send
 * from it copy nothing before the others read it. Local to this rank; not collective. Give it back
 * with serry_free(), or with the world's finalize at the latest. A child after fork shares it with
 * its parent.
 *
 * @param bytes  0 gives memory as well.
 * @return NULL on failure (serry_last_error() says why: SERRY_ERR_NO_SPACE names sizes and the
 *         option to give).
 */
void *serry_alloc(serry_comm *comm, size_t bytes);

/**
 * Give memory from serry_alloc() back. No operation may be using it.
 *
 * @param comm    Any communicator of the job of which it was got, on the rank that got it.
 * @param memory  NULL is allowed, anything else that is not such memory changes nothing; then
 *                serry_last_error() says SERRY_ERR_INVALID.
 */
void serry_free(serry_comm *comm, void *memory);

/* ---- collectives --------------------------------------------------------------------------
 *
 * All ranks of the communicator make the same call: kind, count, type, reduction and root are
 * compared every time.
 *
 * - Results have the same bits on every rank and in every run (docs/reductions.md has the order).
 * - What a rank wrote to shared memory before the call is visible to every rank that got SERRY_OK.
 * - Buffers are the caller's, aligned for their elements. They must not overlap each other except
 *   through SERRY_IN_PLACE, and must not be touched by other threads during the call. Memory from
 *   serry_alloc() saves a copy. A buffer on a side where this rank gives or gets nothing is not
 *   looked at.
 * - Where an operation ends with an error, its inputs are intact and its outputs untouched. The
 *   one exception: after SERRY_ERR_TIMEOUT, _CANCELLED, _REVOKED or _EXCLUDED a large operation on
 *   arena memory (or between threads) may have begun to write, as docs/protocol.md says.
 *
 * @param count  Elements, 0 to SERRY_MAX_COUNT. 0 acts as a barrier; pointers may then be NULL.
 * @param dtype  Their type.
 * @param op     A predefined reduction (bitwise ones need integers), or one from serry_op_create().
 * @param root   A rank of the communicator, the same on all.
 *
 * @retval SERRY_ERR_INVALID, SERRY_ERR_UNSUPPORTED, SERRY_ERR_NO_SPACE  This rank contributed
 *         nothing; nothing has changed. The others wait for its next call.
 * @retval SERRY_ERR_RANK_MISMATCH  On all ranks alike; the record names two that made different
 *         calls. The communicator goes on with the next operation.
 * @retval SERRY_ERR_RANK_FAILED  On all survivors alike, by policy; the record names who. The
 *         communicator goes on with the next operation, among the survivors.
 * @retval SERRY_ERR_RANK_JOINED  Likewise; it goes on with the rank that has joined.
 * @retval SERRY_ERR_TIMEOUT, SERRY_ERR_CANCELLED  The operation stays open; after a timeout the
 *         record names who is missing. The same call again goes on with it; any other returns
 *         SERRY_ERR_PENDING. Until it ends, by that call, a revocation or serry_finalize(), its
 *         buffers must stay: on arena memory, and between threads, the others may read and write
 *         there.
 * @retval SERRY_ERR_PENDING  Another operation is open; nothing has changed.
 * @retval SERRY_ERR_REVOKED  The communicator was revoked, and stays so.
 * @retval SERRY_ERR_EXCLUDED, SERRY_ERR_FORKED, SERRY_ERR_LAYOUT, SERRY_ERR_ARENA  This rank has
 *         lost the communicator. */

/* Wait until all ranks have come. */
int serry_barrier(serry_comm *comm);

/**
 * Copy `count` elements from the root's buffer to everybody's.
 *
 * @param[in,out] buffer  Read on the root, written elsewhere.
 */
int serry_broadcast(void *buffer, size_t count, serry_dtype dtype, int root, serry_comm *comm);

/**
 * Combine `count` elements of all ranks into the root's buffer.
 *
 * @param send       `count` elements; on the root SERRY_IN_PLACE: they are at recv.
 * @param[out] recv  On the root, `count` elements; ignored elsewhere.
 */
int serry_reduce(const void *send, void *recv, size_t count, serry_dtype dtype, serry_op op,
                 int root, serry_comm *comm);

/**
 * Combine `count` elements of all ranks; every rank gets the result.
 *
 * @param send       `count` elements; SERRY_IN_PLACE: they are at recv.
 * @param[out] recv  `count` elements.
 */
int serry_allreduce(const void *send, void *recv, size_t count, serry_dtype dtype, serry_op op,
                    serry_comm *comm);

/**
 * Gather `count` elements from each rank on every rank.
 *
 * @param send       `count` elements; SERRY_IN_PLACE: they already lie in their place in recv.
 * @param[out] recv  size * count elements: a block of `count` from each rank, in rank order.
 */
int serry_allgather(const void *send, void *recv, size_t count, serry_dtype dtype,
                    serry_comm *comm);

/**
 * Combine size * count elements of all ranks; rank r gets block r of the result.
 *
 * @param send       size * count elements; SERRY_IN_PLACE: they are at recv.
 * @param[out] recv  `count` elements. In place: the first `count` of the size * count there.
 */
int serry_reduce_scatter(const void *send, void *recv, size_t count, serry_dtype dtype, serry_op op,
                         serry_comm *comm);

/**
 * Gather `count` elements from each rank on the root.
 *
 * @param send       `count` elements; on the root SERRY_IN_PLACE: they already lie in their place
 *                   in recv.
 * @param[out] recv  On the root, size * count elements, in rank order; ignored elsewhere.
 */
int serry_gather(const void *send, void *recv, size_t count, serry_dtype dtype, int root,
                 serry_comm *comm);

/**
 * Scatter the root's blocks: block r goes to rank r.
 *
 * @param send       On the root, size * count elements; ignored elsewhere.
 * @param[out] recv  `count` elements; on the root (void *)SERRY_IN_PLACE: its block stays where it
 *                   is.
 */
int serry_scatter(const void *send, void *recv, size_t count, serry_dtype dtype, int root,
                  serry_comm *comm);

/**
 * Send a block from each rank to each: block j of rank i's send goes to block i of rank j's recv.
 *
 * @param send       size * count elements; SERRY_IN_PLACE: they are at recv.
 * @param[out] recv  size * count elements.
 */
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
 *                  -1 unless SERRY_OK is returned.
 * @retval SERRY_ERR_INVALID   A bad argument, or the name (or its 11-bit hash) is taken.
 * @retval SERRY_ERR_NO_SPACE  No memory.
 *
 * Any thread, at any time; the record is that of the thread (serry_last_error(NULL)).
 */
int serry_op_create(const char *name, serry_reduce_function function, void *argument, serry_op *op);

/**
 * Give a reduction back. No operation may be using it. Any thread, at any time.
 *
 * @param[in,out] op  Set to -1 where SERRY_OK is returned.
 * @retval SERRY_ERR_INVALID  It is none that serry_op_create() made, or was given back before. The
 *                            record is that of the thread (serry_last_error(NULL)).
 */
int serry_op_free(serry_op *op);

#ifdef __cplusplus
}
#endif
#endif
