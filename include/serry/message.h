/**
 * message.h - messages from one rank to another. Included by serry.h.
 *
 * - A message goes from one rank of a communicator to one rank of it (also to itself), with a tag of
 *   0 or more. Messages of one pair and tag come in the order in which they were sent.
 * - Small messages are copied on the way, so that serry_send returns before they are received.
 *   Large ones from arena memory (serry_alloc), and any large ones between threads, are copied
 *   once, by the receiver: then serry_send returns when it has them.
 * - Messages and collectives do not disturb each other. They do not change who counts as failed, and
 *   policies do not apply to them.
 * - A receive from a rank that has failed or left gets everything that rank had sent completely,
 *   then SERRY_ERR_RANK_FAILED. A receive from any source gets SERRY_ERR_RANK_FAILED once for each
 *   rank that fails (not for one that leaves, nor for those that serry_ack_failed has
 *   acknowledged), when there is no message for it; and always when nobody is left who could send.
 *   Sending to a rank that has failed or left is SERRY_ERR_RANK_FAILED.
 * - A failed receive leaves its buffer as it was, unless the send was taken back (cancelled, out of
 *   time) or this rank excluded just while the message was copied. After SERRY_ERR_TIMEOUT and
 *   SERRY_ERR_CANCELLED nothing is open: nothing was received, or, of a send, nothing was sent.
 * - They wait as long as serry_set_timeout() says, and until the token of serry_set_token() trips.
 * - Buffers are the caller's, aligned for their elements, and not to be touched by others until
 *   the function returns, or the request has ended.
 * - One thread at a time on a communicator. In the child of a fork SERRY_ERR_FORKED. Not
 *   async-signal-safe.
 */
#ifndef SERRY_MESSAGE_H
#define SERRY_MESSAGE_H

#include <serry/request.h>
#include <serry/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* In place of a rank or a tag in a receive or a probe: whichever comes. */
#define SERRY_ANY_SOURCE (-1)
#define SERRY_ANY_TAG (-1)

/* What was received, or is there to be. */
typedef struct serry_status {
    int source; /* who sent it: a rank of the communicator */
    int tag;
    serry_dtype dtype;
    size_t count; /* elements */
} serry_status;

/**
 * Send `count` elements to a rank.
 *
 * @param buffer  May be NULL where count is 0.
 * @param count   Elements, 0 to SERRY_MAX_COUNT.
 * @param dest    A rank of the communicator; this one is allowed.
 * @param tag     0 or more.
 * @retval SERRY_ERR_RANK_FAILED  `dest` has failed or left.
 * @retval SERRY_ERR_NO_SPACE     No memory to keep it in; the message names sizes and the option.
 * @retval SERRY_ERR_INVALID      A bad argument.
 * @retval SERRY_ERR_TIMEOUT, SERRY_ERR_CANCELLED, SERRY_ERR_REVOKED
 * @retval SERRY_ERR_EXCLUDED, SERRY_ERR_FORKED, SERRY_ERR_ARENA  This rank has lost the
 *         communicator.
 */
int serry_send(const void *buffer, size_t count, serry_dtype dtype, int dest, int tag,
               serry_comm *comm);

/**
 * Receive a message of up to `count` elements.
 *
 * @param[out] buffer  Room for `count` elements; of a shorter message the rest stays as it is.
 * @param count        Elements, 0 to SERRY_MAX_COUNT.
 * @param dtype        As it was sent.
 * @param source       A rank of the communicator, or SERRY_ANY_SOURCE: whichever comes.
 * @param tag          0 or more, or SERRY_ANY_TAG: whichever comes.
 * @param[out] status  Filled on success, and by SERRY_ERR_TOO_SMALL; may be NULL.
 * @retval SERRY_ERR_TOO_SMALL      The next message is larger. It stays the next one.
 * @retval SERRY_ERR_RANK_MISMATCH  It has another element type. It stays the next one.
 * @retval SERRY_ERR_RANK_FAILED    As said at the head of this header.
 * @retval SERRY_ERR_INVALID        A bad argument.
 * @retval SERRY_ERR_TIMEOUT, SERRY_ERR_CANCELLED, SERRY_ERR_REVOKED
 * @retval SERRY_ERR_EXCLUDED, SERRY_ERR_FORKED, SERRY_ERR_ARENA  This rank has lost the
 *         communicator.
 */
int serry_recv(void *buffer, size_t count, serry_dtype dtype, int source, int tag,
               serry_status *status, serry_comm *comm);

/**
 * Wait until a message is there that a receive would get, and tell which; it stays there.
 * serry_recv() with its source and tag gets it, if no other receive comes first.
 *
 * @param source, tag  As for serry_recv().
 * @param[out] status  Its source, tag, type and count; may be NULL.
 * @return SERRY_OK, or an error as of serry_recv(), but for SERRY_ERR_TOO_SMALL and
 *         SERRY_ERR_RANK_MISMATCH.
 */
int serry_probe(int source, int tag, serry_status *status, serry_comm *comm);

/**
 * Tell whether a message is there that a receive would get; it stays there. Never blocks.
 *
 * @param source, tag  As for serry_recv().
 * @param[out] found   1: it is there, or a receive would end at once with the error that is
 *                     returned. 0: not.
 * @param[out] status  Its source, tag, type and count, where there is one; may be NULL.
 * @return As of serry_probe(); SERRY_OK where there is none.
 */
int serry_iprobe(int source, int tag, int *found, serry_status *status, serry_comm *comm);

/**
 * Start a send or a receive, as serry_send() and serry_recv(), whose errors it has when the
 * request ends.
 *
 * @param[out] status   Filled when the request ends; must stay in place until then. May be NULL.
 * @param[out] request  The operation (request.h); NULL unless SERRY_OK is returned. Then nothing was
 *                      started, and the communicator's record (serry_last_error) says why.
 * @retval SERRY_ERR_INVALID   A bad argument; or, in builds with assertions, a buffer that a
 *                             running request uses.
 * @retval SERRY_ERR_NO_SPACE  No memory for the request.
 * @retval SERRY_ERR_SYSTEM    No progress thread could be started.
 * @retval SERRY_ERR_FORKED    The communicator is the parent's.
 */
int serry_isend(const void *buffer, size_t count, serry_dtype dtype, int dest, int tag,
                serry_comm *comm, serry_request **request);
int serry_irecv(void *buffer, size_t count, serry_dtype dtype, int source, int tag,
                serry_status *status, serry_comm *comm, serry_request **request);

#ifdef __cplusplus
}
#endif
#endif
