/* no_messages.h - what a backend without messages has in their place. */
#ifndef SERRY_NO_MESSAGES_H
#define SERRY_NO_MESSAGES_H

#include <serry/backend.h>

int no_put(serry_member *member, int dest, const serry_envelope *envelope, const void *data,
           uint64_t *ticket, serry_error *error);
int no_settled(serry_member *member, int dest, uint64_t ticket, serry_error *error);
int no_withdraw(serry_member *member, int dest, uint64_t ticket);
int no_peek(serry_member *member, int source, serry_envelope *envelope, serry_error *error);
int no_take(serry_member *member, int source, void *data, serry_error *error);
void no_listen(serry_member *member, serry_interest *interest);

#endif
