/**
 * request.h - operations that are started and finished apart. Included by serry.h.
 *
 * Each collective has an i-form with the same arguments and a request: it returns at once, and the
 * operation goes on while the caller does something else. It is the same operation, not another
 * kind: what one rank starts with serry_iallreduce another may call as serry_allreduce.
 *
 * - The operations of a communicator are done in the order in which they were started or called,
 *   synchronous ones included. Start any number; a request costs some hundred bytes.
 * - Buffers belong to the library from the start until the request has ended: the input must not be
 *   changed, the output not be looked at. Builds with assertions check: a request whose input was changed
 *   ends with SERRY_ERR_INVALID, and one that would write into a buffer of a running request, or read what
 *   that writes, is not started. Lists of buffers are not checked.
 * - Who makes progress: by default a thread of the library, one per process, and whoever waits or
 *   tests does the work himself. With SERRY_PROGRESS_CALLER there is no such thread: then operations go
 *   on only inside serry_wait, serry_test, their kin, and synchronous calls.
 * - The timeout (serry_set_timeout) and token (serry_set_token) of the communicator at the start
 *   count for the operation, the timeout from when it is the first of its communicator. An operation
 *   that ends with SERRY_ERR_TIMEOUT or SERRY_ERR_CANCELLED stays open, as a synchronous one: the
 *   same call again, in either form, goes on with it. The ones started after it end with
 *   SERRY_ERR_PENDING. They may have been contributed to already: make the same calls again, in the same
 *   order and with the same input.
 *
 * A request is one of three: running, ended well, ended with an error. serry_wait and serry_test give
 * back a request that has ended well and set the pointer to NULL. One that has ended with an error
 * stays, so that its record can be read (serry_request_error); waiting again returns the same error
 * at once; give it back with serry_request_free. All functions may be called by any thread, one at a
 * time on a request, but for serry_cancel, which may come while another waits; those that start
 * operations, by one thread at a time on a communicator. In the child of a fork a parent's request is
 * SERRY_ERR_FORKED, and can be freed. serry_finalize ends those that run with SERRY_ERR_CANCELLED, or
 * SERRY_ERR_PENDING behind one such operation.
 */
#ifndef SERRY_REQUEST_H
#define SERRY_REQUEST_H

#include <serry/error.h>
#include <serry/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An operation that was started. */
typedef struct serry_request serry_request;

/* Called once when a request has ended: by the thread that ended it, which may be the library's own.
 * It may start operations and give them completions, and do nothing else with this communicator or its
 * requests: it must not wait, test, cancel, give one back, send, receive, or finalize. `error` is NULL where result is SERRY_OK, and valid during the call only. */
typedef void (*serry_completion)(int result, const serry_error *error, void *argument);

/* ---- starting: as the function without the i, but buffers stay the library's --------------------
 *
 * *request is NULL unless SERRY_OK is returned; else nothing was started, and the communicator's
 * record (serry_last_error) says why: SERRY_ERR_INVALID, _NO_SPACE, _SYSTEM (no progress thread could
 * be started), _FORKED. */

int serry_ibarrier(serry_comm *comm, serry_request **request);
int serry_ibroadcast(void *buffer, size_t count, serry_dtype dtype, int root, serry_comm *comm,
                     serry_request **request);
int serry_ireduce(const void *send, void *recv, size_t count, serry_dtype dtype, serry_op op,
                  int root, serry_comm *comm, serry_request **request);
int serry_iallreduce(const void *send, void *recv, size_t count, serry_dtype dtype, serry_op op,
                     serry_comm *comm, serry_request **request);
int serry_iallgather(const void *send, void *recv, size_t count, serry_dtype dtype,
                     serry_comm *comm, serry_request **request);
int serry_ireduce_scatter(const void *send, void *recv, size_t count, serry_dtype dtype,
                          serry_op op, serry_comm *comm, serry_request **request);
int serry_igather(const void *send, void *recv, size_t count, serry_dtype dtype, int root,
                  serry_comm *comm, serry_request **request);
int serry_iscatter(const void *send, void *recv, size_t count, serry_dtype dtype, int root,
                   serry_comm *comm, serry_request **request);
int serry_ialltoall(const void *send, void *recv, size_t count, serry_dtype dtype, serry_comm *comm,
                    serry_request **request);

/* ---- lists of buffers --------------------------------------------------------------------------- */

/* One buffer of a list: input and output. */
typedef struct serry_buffer {
    void *data;   /* may be NULL where count is 0 */
    size_t count; /* elements */
} serry_buffer;

/**
 * Reduce, or broadcast, a list of buffers in place as one operation: cheaper than one for each, and all
 * are done or none is.
 *
 * @param buffers  `number` of them, that do not overlap; the list may be changed as soon as the function
 *                 returns. Lengths must be the same on all ranks, in the same order: they are compared
 *                 by a checksum, and SERRY_ERR_RANK_MISMATCH says that they differ.
 *
 * Otherwise as serry_allreduce and serry_broadcast, but no buffer is touched unless SERRY_OK is returned,
 * for memory of any kind. They are copied to and from memory of their size in the arena, which the
 * communicator keeps for the next list.
 * @retval SERRY_ERR_NO_SPACE  There is no memory to put them together in; nothing was contributed.
 */
int serry_allreduce_many(const serry_buffer *buffers, size_t number, serry_dtype dtype, serry_op op,
                         serry_comm *comm);
int serry_broadcast_many(const serry_buffer *buffers, size_t number, serry_dtype dtype, int root,
                         serry_comm *comm);
int serry_iallreduce_many(const serry_buffer *buffers, size_t number, serry_dtype dtype,
                          serry_op op, serry_comm *comm, serry_request **request);
int serry_ibroadcast_many(const serry_buffer *buffers, size_t number, serry_dtype dtype, int root,
                          serry_comm *comm, serry_request **request);

/* ---- finishing ---------------------------------------------------------------------------------- */

/**
 * Wait until a request has ended, and return its result.
 *
 * @param[in,out] request  NULL in it: SERRY_OK at once. Set to NULL where it has ended well.
 * @param timeout_ms       How long to wait; < 0: until it ends (its own timeout sees to that); 0: as
 *                         serry_test. When this time is over: SERRY_ERR_TIMEOUT, and the request runs on
 *                         (serry_request_error then says SERRY_OK).
 */
int serry_wait(serry_request **request, int timeout_ms);

/* Has it ended? Never blocks; drives the operation on. *done is set to 1 where it has, and its result
 * is returned as by serry_wait; else to 0, with SERRY_OK. NULL in *request has ended. */
int serry_test(serry_request **request, int *done);

/* Wait for all. Each that ended well is set to NULL. Returns the first error in the order of the
 * array, SERRY_ERR_TIMEOUT where some still run. */
int serry_wait_all(serry_request **requests, size_t count, int timeout_ms);

/* Wait for any one, and return its result: *index tells which; `count` where all are NULL (SERRY_OK)
 * or where the time is over (SERRY_ERR_TIMEOUT). */
int serry_wait_any(serry_request **requests, size_t count, int timeout_ms, size_t *index);

/* End it with SERRY_ERR_CANCELLED, at once, unless it has ended: also where another thread waits for
 * it, which must not have given it back: a wait or test that ends well does. What becomes of the operation is said above. SERRY_OK in both cases, and for NULL. */
int serry_cancel(serry_request *request);

/* Have a function called when it ends; at once, where it has ended already. One per request. */
int serry_on_completion(serry_request *request, serry_completion function, void *argument);

/* The record of a request that has ended with an error; one with SERRY_OK in it for any other. Valid
 * until the request is freed. Never NULL. */
const serry_error *serry_request_error(const serry_request *request);

/* Give a request back, whatever has become of it, and set *request to NULL. One that still runs goes
 * on unseen (its buffers stay the library's until the communicator is finalized). NULL is allowed. */
void serry_request_free(serry_request **request);

#ifdef __cplusplus
}
#endif
#endif
