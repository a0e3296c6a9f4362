/* local.h - how the ranks of a job find each other on this machine: abstract sockets, which have no file
 * to leave behind. Used on every floor, knows none. */
#ifndef SERRY_LOCAL_H
#define SERRY_LOCAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

/* What stands for a job among all jobs of this machine: a hash of user and name. */
void serry_local_key(const char *job, uint64_t key[2]);

/* An abstract socket of the job: `part` tells one from another. Returns the address's length. */
socklen_t serry_local_address(const uint64_t key[2], const char *part, struct sockaddr_un *address);

/* Does the other side of a connection run under this process's user id? */
bool serry_local_same_user(int fd);

#endif
