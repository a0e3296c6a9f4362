/* message.h - what the ranks of a job say to each other while it starts. */
#ifndef SHM_MESSAGE_H
#define SHM_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "rendezvous.h"

enum { MESSAGE_HELLO = 1, MESSAGE_ARENA, MESSAGE_READY, MESSAGE_GO, MESSAGE_FAILED };

/* One datagram of a SOCK_SEQPACKET connection; all fields are always filled. */
typedef struct message {
    uint32_t type;
    int32_t code; /* FAILED: a serry_error_code */
    uint64_t layout;
    uint64_t job[2];
    int32_t rank, size, kind, pid;
    int32_t peer; /* FAILED: the rank at fault; -1: none */
    uint32_t unused;
    serry_rank_set ranks;                         /* FAILED: all at fault; else: who is absent */
    arena_ticket ticket;                          /* ARENA */
    char text[sizeof((serry_error *)0)->message]; /* FAILED */
} message;

/* Send a message, with a descriptor unless fd < 0. False: the other side is gone. */
bool message_send(int to, const message *m, int fd);

/* Receive a message and, where it bears one, a descriptor (else *fd is -1). False: the other side is
 * gone or speaks another language. */
bool message_receive(int from, message *m, int *fd);

#endif
