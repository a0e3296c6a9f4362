/* guard.h - are the buffers of what was started left alone? In builds with assertions only; with NDEBUG
 * all of this is empty.
 *
 * From its start until it has ended a request's buffers are the library's. A checksum of the send buffer
 * is taken at the start and compared at the end; and a request is not started if what it writes to
 * overlaps a buffer of one that runs, or what it reads is being written by one: which of the two comes
 * first would decide what is in it. The requests of all communicators of the process are compared.
 *
 * Of a list all buffers are looked at likewise. What is given is compared also where the result goes to the
 * same place, as it goes there only at the end. */
#ifndef SERRY_GUARD_H
#define SERRY_GUARD_H

#include <serry/call.h>
#include <serry/request.h>

/* A list of buffers, as the operation has it. */
typedef struct guard_list {
    const serry_buffer *buffers; /* stays until guard_end */
    size_t number, element;      /* bytes of one element */
    bool gives, gets;            /* this rank: they are its input, its output */
} guard_list;

#ifdef NDEBUG

typedef struct guard {
} guard;

static inline int guard_start(guard *g, const char *operation, int rank, const void *send,
                              size_t send_bytes, const void *recv, size_t recv_bytes,
                              serry_error *error)
{
    (void)g, (void)operation, (void)rank, (void)send, (void)send_bytes, (void)recv;
    (void)recv_bytes, (void)error;
    return SERRY_OK;
}

static inline int guard_start_call(guard *g, const serry_call *call, int rank, int size,
                                   serry_error *error)
{
    (void)g, (void)call, (void)rank, (void)size, (void)error;
    return SERRY_OK;
}

static inline int guard_start_list(guard *g, const char *operation, int rank,
                                   const guard_list *list, serry_error *error)
{
    (void)g, (void)operation, (void)rank, (void)list, (void)error;
    return SERRY_OK;
}

static inline int guard_end(const guard *g, int rc, const serry_error *error)
{
    (void)g, (void)error;
    return rc;
}

static inline void guard_forget(void)
{
}

#else

/* Of one request. All 0: it is not guarded. */
typedef struct guard {
    struct guard *next;    /* in the list of those that run; by who has its lock */
    const char *operation; /* NULL: not in the list. This and all below is constant in it */
    int rank;
    const void *send, *recv;
    size_t send_bytes, recv_bytes; /* 0: there is none */
    guard_list list;               /* instead; number 0: there is none */
    bool is_compared;              /* nothing but the caller may write to the send buffer */
    uint64_t checksum;
} guard;

/* A request is about to start: SERRY_OK, or SERRY_ERR_INVALID with a record of what it must not do. */
int guard_start(guard *g, const char *operation, int rank, const void *send, size_t send_bytes,
                const void *recv, size_t recv_bytes, serry_error *error);
int guard_start_call(guard *g, const serry_call *call, int rank, int size, serry_error *error);
int guard_start_list(guard *g, const char *operation, int rank, const guard_list *list,
                     serry_error *error);

/* It ends with this result: that, or SERRY_ERR_INVALID with a record for one that would have ended well. */
int guard_end(guard *g, int rc, serry_error *error);

/* In the child of a fork: nothing runs. */
void guard_forget(void);

#endif
#endif
