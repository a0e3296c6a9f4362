/* host.h - the first rank's side of the rendezvous, and what both sides share. For rendezvous.c and host.c. */
#ifndef SHM_HOST_H
#define SHM_HOST_H

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "message.h"

enum { STRANGERS = 16 }; /* connections beyond the guests that may wait to be looked at */

typedef struct connection {
    int fd;   /* -1: closed */
    int rank; /* -1: has not said hello */
} connection;

struct rendezvous {
    const serry_job *job;
    wait_limit *limit;
    int host;        /* its rank */
    uint64_t key[2]; /* hash of user and job name */
    int listener;    /* host; -1: none */
    bool told;       /* the others know of the failure */
    bool polled;     /* nothing waits: SERRY_ERR_AGAIN instead */
    bool second;     /* somebody else is the host of this job already */
    int connections;
    connection connection[SERRY_MAX_RANKS + STRANGERS];
    connection *guest[SERRY_MAX_RANKS]; /* host: by rank; NULL: not there */
    bool ready[SERRY_MAX_RANKS];        /* host: has done its part */
};

/* ---- of both sides ---------------------------------------------------------------------------- */

/* A message of this rank. */
void rendezvous_fill(const rendezvous *r, message *m, uint32_t type);

/* A message that says why this rank fails. */
void rendezvous_fill_failure(const rendezvous *r, message *m, const serry_error *error);

/* poll() until something is there or the limit has passed (then 0). */
int rendezvous_poll(struct pollfd *fds, nfds_t count, wait_limit *limit);

/* The same for who may be polled. SERRY_OK: something is there. SERRY_ERR_AGAIN, SERRY_ERR_TIMEOUT. */
int rendezvous_await(rendezvous *r, struct pollfd *fds, nfds_t count, wait_limit *limit);

/* The other side has sent a failure: make it this rank's own. */
int rendezvous_fail_as_told(const message *m, serry_error *error);

/* A rank's connection has ended before its time. */
int rendezvous_fail_gone(int rank, serry_error *error);

/* ---- of the host ------------------------------------------------------------------------------ */

/* SERRY_ERR_INVALID, without a record: somebody else listens for this job. */
int host_listen(rendezvous *r, serry_error *error);

/* Wait for the hellos of all guests. */
int host_gather(rendezvous *r, serry_error *error);

/* Wait until all are ready, and let them go. */
int host_ready(rendezvous *r, serry_error *error);

/* All that are there have been told of a failure: tell those that come within a while, too, and let
 * everybody read it. */
void host_farewell(rendezvous *r, const serry_error *error);

#endif
