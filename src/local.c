/* local.c - see local.h. */
#include "local.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void serry_local_key(const char *job, uint64_t key[2])
{
    const uint64_t prime = UINT64_C(0x100000001b3);

    key[0] = UINT64_C(0xcbf29ce484222325) ^ geteuid();
    key[1] = UINT64_C(0x9ae16a3b2f90404f) ^ geteuid();
    for (const char *c = job; *c; c++) {
        key[0] = (key[0] ^ (unsigned char)*c) * prime;
        key[1] = ((key[1] << 7 | key[1] >> 57) ^ (unsigned char)*c) * prime;
    }
}

socklen_t serry_local_address(const uint64_t key[2], const char *part, struct sockaddr_un *address)
{
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    int length = snprintf(address->sun_path + 1, sizeof(address->sun_path) - 1,
                          "serry/%u/%016" PRIx64 "%016" PRIx64 "%s", (unsigned)geteuid(), key[0],
                          key[1], part);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

bool serry_local_same_user(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}
