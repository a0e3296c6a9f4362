/**
 * message.h - messages from one rank to another. Included by serry.h.
 *
 * - A message goes from one rank of a communicator to one rank of it (also to itself), with a tag of
 *   0 or more. Messages of one pair and tag come in the order in which they were sent.
 * - Small messages are copied on the way, so that serry_send returns before they are received. Large
 *   ones from arena memory (serry_alloc), and any large ones between threads, are copied once, by the
 *   receiver: then serry_send returns when it has them.
 * - Messages and collectives do not disturb each other. They do not change who counts as failed, and
 *   policies do not apply to them.
 * - A receive from a rank that has failed or left gets everything that rank had sent completely, then
 *   SERRY_ERR_RANK_FAILED. A receive from any source gets SERRY_ERR_RANK_FAILED once for each rank
 *   that fails (not for one that leaves, nor for those that serry_ack_failed has acknowledged), when
 *   there is no message for it; and always when nobody is left who could send. Sending to a rank that
 *   has failed or left is SERRY_ERR_RANK_FAILED.
 * - A failed receive leaves its buffer as it was, unless the send was taken back (cancelled, out of
 *   time) or this rank excluded just while the message was copied. After SERRY_ERR_TIMEOUT and
 *   SERRY_ERR_CANCELLED nothing is open: nothing was received, or, of a send, nothing was sent.
 */
#ifndef SERRY_MESSAGE_H
#define SERRY_MESSAGE_H

#include <serry/request.h>
#include <serry/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SERRY_ANY_SOURCE (-1)
#define SERRY_ANY_TAG (-1)

/* What was received, or is there to be. */
typedef struct serry_status {
    int source;
    int tag;
    serry_dtype dtype;
    size_t count; /* elements */
} serry_status;

/**
 * Send `count` elements to `dest`.
 *
 * @retval SERRY_ERR_RANK_FAILED  `dest` has failed or left.
 * @retval SERRY_ERR_NO_SPACE     No memory to keep it in; the message names sizes and the option.
 * @retval SERRY_ERR_TIMEOUT, SERRY_ERR_CANCELLED, SERRY_ERR_REVOKED, SERRY_ERR_INVALID
 */
int serry_send(const void *buffer, size_t count, serry_dtype dtype, int dest, int tag,
               serry_comm *comm);

/**
 * Receive a message of up to `count` elements.
 *
 * @param source, tag  SERRY_ANY_SOURCE, SERRY_ANY_TAG: whichever comes.
 * @param[out] status  Filled on success, and by SERRY_ERR_TOO_SMALL; may be NULL.
 * @retval SERRY_ERR_TOO_SMALL      The next message is larger. It stays the next one.
 * @retval SERRY_ERR_RANK_MISMATCH  It has another element type. It stays the next one.
 * @retval SERRY_ERR_RANK_FAILED, SERRY_ERR_TIMEOUT, SERRY_ERR_CANCELLED, SERRY_ERR_REVOKED,
 *         SERRY_ERR_INVALID
 */
int serry_recv(void *buffer, size_t count, serry_dtype dtype, int source, int tag,
               serry_status *status, serry_comm *comm);

/* Wait until a message is there that such a receive would get, and tell which; it stays there. */
int serry_probe(int source, int tag, serry_status *status, serry_comm *comm);

/* Is one there? Never blocks. *found is 1 or 0. */
int serry_iprobe(int source, int tag, int *found, serry_status *status, serry_comm *comm);

/* The i-forms: request.h. `status` is filled when the request ends. */
int serry_isend(const void *buffer, size_t count, serry_dtype dtype, int dest, int tag,
                serry_comm *comm, serry_request **request);
int serry_irecv(void *buffer, size_t count, serry_dtype dtype, int source, int tag,
                serry_status *status, serry_comm *comm, serry_request **request);

#ifdef __cplusplus
}
#endif
#endif
