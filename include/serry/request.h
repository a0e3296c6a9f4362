/**
 * request.h - operations that are started and finished apart. Included by serry.h.
 *
 * Each collective has an i-form with the same arguments and a request: it returns at once, and the
 * operation goes on while the caller does something else. It is the same operation, not another
 * kind: what one rank starts with serry_iallreduce another may call as serry_allreduce.
 *
 * - The operations of a communicator are done in the order in which they were started or called,
 *   synchronous ones included. Start any number; a request costs some hundred bytes.
 * - Buffers belong to the library from the start until the request has ended: the input must not
 *   be changed, the output not be looked at. Builds with assertions check: a request whose input
 *   was changed ends with SERRY_ERR_INVALID, and one that would write into a buffer of a running
 *   request, or read what that writes, is not started.
 * - Who makes progress: by default a thread of the library, one per process, and whoever waits or
 *   tests does the work himself. With SERRY_PROGRESS_CALLER there is no such thread: then
 *   operations go on only inside serry_wait, serry_test, their kin, and synchronous calls.
 * - The timeout (serry_set_timeout) and token (serry_set_token) of the communicator at the start
 *   count for the operation: the timeout from when it is the first of its communicator, the token
 *   also while it waits for that, and felt at once where there is a progress thread. An operation
 *   that ends with SERRY_ERR_TIMEOUT or SERRY_ERR_CANCELLED stays open, as a synchronous one: the
 *   same call again, in either form, goes on with it. The ones started after it end with
 *   SERRY_ERR_PENDING. They may have been contributed to already: make the same calls again, in the
 *   same order and with the same input.
 *
 * A request is one of three: running, ended well, ended with an error.
 *
 * - A wait or a test that finds it ended well frees it, and sets the pointer that it was given to
 *   NULL. Other copies of that pointer are dangling then.
 * - One that has ended with an error stays, so that its record can be read (serry_request_error);
 *   waiting again returns the same error at once. It is freed by serry_request_free alone.
 * - All functions may be called by any thread, one at a time on a request. The exception is
 *   serry_cancel, which may come while another thread waits. It needs the request to be alive
 *   until it returns: so the program must see to it that the other thread's wait does not succeed,
 *   and free it, before or meanwhile (by a lock, or by a token of the communicator in place of
 *   serry_cancel: serry_set_token).
 * - Those that start operations: one thread at a time on a communicator.
 * - In the child of a fork a parent's request is SERRY_ERR_FORKED, and can be freed.
 * - serry_finalize ends those that run with SERRY_ERR_CANCELLED, or SERRY_ERR_PENDING behind one
 *   such operation. They stay the caller's to free.
 */
#ifndef SERRY_REQUEST_H
#define SERRY_REQUEST_H

#include <serry/error.h>
#include <serry/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An operation that was started. Made by the i-forms; freed by the library when a wait or a test
 * has found that it ended well, else by serry_request_free(). */
typedef struct serry_request serry_request;

/* Called once when a request has ended: by the thread that ended it, which may be the library's
 * own. It may start operations and give them completions, and do nothing else with this
 * communicator or its requests: it must not wait, test, cancel, give one back, send, receive, or
 * finalize. `error` is NULL where result is SERRY_OK, and valid during the call only. */
typedef void (*serry_completion)(int result, const serry_error *error, void *argument);

/* ---- starting ------------------------------------------------------------------------------- */

/**
 * Start a collective, as the function without the i, with its arguments and, when the request
 * ends, its results and errors. Buffers are the library's until then.
 *
 * @param[out] request  The operation; NULL unless SERRY_OK is returned. Then nothing was started,
 *                      and the communicator's record (serry_last_error) says why.
 * @retval SERRY_ERR_INVALID   A bad argument; or, in builds with assertions, a buffer that a
 *                             running request uses.
 * @retval SERRY_ERR_NO_SPACE  No memory for the request.
 * @retval SERRY_ERR_SYSTEM    No progress thread could be started.
 * @retval SERRY_ERR_FORKED    The communicator is the parent's.
 */
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
 * Reduce, or broadcast, a list of buffers in place as one operation: cheaper than one for each,
 * and all are done or none is.
 *
 * Otherwise as serry_allreduce() and serry_broadcast(), and the i-forms as serry_iallreduce(); but
 * no buffer is touched unless the operation ends with SERRY_OK, for memory of any kind. They are
 * copied to and from memory of their size in the arena, which the communicator keeps for the next
 * list.
 *
 * @param buffers       The caller's, and do not overlap; the list may be changed as soon as the
 *                      function returns, the buffers when the operation has ended. Lengths must be
 *                      the same on all ranks, in the same order: they are compared by a checksum,
 *                      and SERRY_ERR_RANK_MISMATCH says that they differ.
 * @param number        How many; 0 acts as a barrier. SERRY_MAX_COUNT elements in all at most.
 * @param[out] request  The operation; NULL unless SERRY_OK is returned.
 * @retval SERRY_ERR_INVALID   A bad argument; nothing was contributed.
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
 * @param[in,out] request  NULL in it: SERRY_OK at once. Where it has ended well, it is freed, and
 *                         this set to NULL; else it stays.
 * @param timeout_ms       How long to wait; < 0: until it ends (its own timeout sees to that); 0: as
 *                         serry_test().
 * @return The request's result; its record is serry_request_error(*request). Errors of the wait
 *         itself are those below; their record is that of the thread (serry_last_error(NULL)), and
 *         serry_request_error() says SERRY_OK.
 * @retval SERRY_ERR_TIMEOUT  This time is over, and the request runs on.
 * @retval SERRY_ERR_INVALID  `request` is NULL.
 * @retval SERRY_ERR_FORKED   It is the parent's.
 */
int serry_wait(serry_request **request, int timeout_ms);

/**
 * Test whether a request has ended, and return its result if so. Never blocks; drives the
 * operation on.
 *
 * @param[in,out] request  As for serry_wait(). NULL in it has ended.
 * @param[out] done        1 where it has ended; else 0, with SERRY_OK.
 * @return The request's result, as of serry_wait().
 * @retval SERRY_ERR_INVALID  An argument is NULL.
 * @retval SERRY_ERR_FORKED   It is the parent's.
 */
int serry_test(serry_request **request, int *done);

/**
 * Wait until all of several requests have ended.
 *
 * @param[in,out] requests  Of any communicators; NULLs are allowed. Each that ended well is freed
 *                          and set to NULL; those that ended with an error, or still run, stay.
 * @param timeout_ms        For all together; < 0: until they end.
 * @return The first error in the order of the array, as of serry_wait(): SERRY_ERR_TIMEOUT where
 *         one still runs.
 * @retval SERRY_ERR_INVALID  `requests` is NULL, and count is not 0.
 */
int serry_wait_all(serry_request **requests, size_t count, int timeout_ms);

/**
 * Wait until any one of several requests has ended, and return its result.
 *
 * @param[in,out] requests  As for serry_wait_all(); only the one that is told has changed.
 * @param[out] index        Which one: the first in the array of those that have ended. `count`
 *                          where all are NULL (SERRY_OK) or where the time is over
 *                          (SERRY_ERR_TIMEOUT). One that ended with an error is told again each
 *                          time: free it.
 * @return The request's result, as of serry_wait().
 * @retval SERRY_ERR_TIMEOUT  No one has ended in this time; all run on.
 * @retval SERRY_ERR_INVALID  A pointer is NULL.
 * @retval SERRY_ERR_FORKED   One is the parent's.
 */
int serry_wait_any(serry_request **requests, size_t count, int timeout_ms, size_t *index);

/**
 * End a request with SERRY_ERR_CANCELLED, at once, also where another thread waits for it. One
 * that has ended stays as it is, and so does the send of a message that its receiver has begun to
 * read: that ends soon. What becomes of a collective stands at the head of this header: it stays
 * open.
 *
 * It must be alive until this returns: a wait or test of another thread that ends well frees it,
 * and to cancel it then is to use freed memory.
 *
 * @param request  NULL is allowed. It stays, to be waited for or freed.
 * @return SERRY_OK, whether it was cancelled or had ended.
 * @retval SERRY_ERR_FORKED  It is the parent's.
 */
int serry_cancel(serry_request *request);

/**
 * Have a function called when a request ends; at once, by this thread, where it has ended already.
 * One per request: the last one that was given.
 *
 * @param request   Must not have been freed by then.
 * @param function  See serry_completion.
 * @param argument  Passed on to it.
 * @retval SERRY_ERR_INVALID  `request` or `function` is NULL.
 * @retval SERRY_ERR_FORKED   It is the parent's.
 */
int serry_on_completion(serry_request *request, serry_completion function, void *argument);

/**
 * Look at the record of a request that has ended with an error.
 *
 * @return Never NULL, the library's, valid until the request is freed. `error` in it is SERRY_OK
 *         for any other request, for NULL, and where there was no memory for a record.
 */
const serry_error *serry_request_error(const serry_request *request);

/**
 * Give a request back, whatever has become of it. One that still runs goes on unseen (its buffers
 * stay the library's until the communicator is finalized).
 *
 * @param[in,out] request  Set to NULL. NULL, and NULL in it, are allowed.
 */
void serry_request_free(serry_request **request);

#ifdef __cplusplus
}
#endif
#endif
