/* no_messages.c - see no_messages.h. */
#include "no_messages.h"

#include "record.h"

static int refuse(serry_error *error)
{
    return serry_fail(error, SERRY_ERR_UNSUPPORTED, "this backend does not carry messages");
}

int no_put(serry_member *member, int dest, const serry_envelope *envelope, const void *data,
           uint64_t *ticket, serry_error *error)
{
    (void)member, (void)dest, (void)envelope, (void)data;
    *ticket = 0;
    return refuse(error);
}

int no_settled(serry_member *member, int dest, uint64_t ticket, serry_error *error)
{
    (void)member, (void)dest, (void)ticket;
    return refuse(error);
}

int no_withdraw(serry_member *member, int dest, uint64_t ticket)
{
    (void)member, (void)dest, (void)ticket;
    return SERRY_OK; /* there are no tickets */
}

int no_peek(serry_member *member, int source, serry_envelope *envelope, serry_error *error)
{
    (void)member, (void)source, (void)envelope;
    return refuse(error);
}

int no_take(serry_member *member, int source, void *data, serry_error *error)
{
    (void)member, (void)source, (void)data;
    return refuse(error);
}

void no_listen(serry_member *member, serry_interest *interest)
{
    (void)member;
    interest->word = NULL;
}
