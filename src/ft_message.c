/* ft_message.c - messages through the chain of backends.
 *
 * A message goes to the backend that carries when it is sent, and is received from there, also when this
 * rank has moved on since: all carriers are kept to the end. The receiver looks at the newest carrier
 * first, then at the older ones, and takes the message of the oldest that has one. Whoever has sent it by a
 * newer one had put all that came before into the older ones by then, so order is kept; but not where the
 * older backend queues what it could not hand on yet, as socket does.
 *
 * A ticket has the number of its carrier in its upper bits. */
#include "ft_member.h"

#include "token.h"

#define NUMBER_SHIFT 48
#define NAP_NS UINT64_C(2000000) /* older carriers ring other bells */

static ft_carrier *carrier_at(serry_member *member, uint64_t ticket)
{
    ft_carrier *c = ft_carrier_of(ft_own(member));

    while (c->older != NULL && c->number != ticket >> NUMBER_SHIFT)
        c = c->older;
    return c;
}

static uint64_t ticket_of(uint64_t ticket)
{
    return ticket & ((UINT64_C(1) << NUMBER_SHIFT) - 1);
}

int ft_put(serry_member *member, int dest, const serry_envelope *envelope, const void *data,
           uint64_t *ticket, serry_error *error)
{
    ft_carrier *c = ft_carrier_of(ft_own(member));
    int rc = c->backend->put(c->member, dest, envelope, data, ticket, error);

    if (*ticket != 0)
        *ticket |= (uint64_t)c->number << NUMBER_SHIFT;
    return rc;
}

int ft_settled(serry_member *member, int dest, uint64_t ticket, serry_error *error)
{
    ft_carrier *c = carrier_at(member, ticket);

    return c->backend->settled(c->member, dest, ticket_of(ticket), error);
}

int ft_withdraw(serry_member *member, int dest, uint64_t ticket)
{
    ft_carrier *c = carrier_at(member, ticket);

    return c->backend->withdraw(c->member, dest, ticket_of(ticket));
}

/* What the newest carrier says counts, unless an older one has a message. */
static ft_carrier *find(serry_member *member, int source, serry_envelope *envelope, int *rc,
                        serry_error *error)
{
    ft_carrier *c = ft_carrier_of(ft_own(member)), *found = c;

    *rc = c->backend->peek(c->member, source, envelope, error);
    for (c = c->older; c != NULL; c = c->older) {
        serry_envelope older;
        serry_error ignored;
        if (c->backend->peek(c->member, source, &older, &ignored) != SERRY_OK)
            continue;
        *rc = SERRY_OK;
        *envelope = older;
        found = c;
    }
    return found;
}

int ft_peek(serry_member *member, int source, serry_envelope *envelope, serry_error *error)
{
    int rc;

    find(member, source, envelope, &rc, error);
    return rc;
}

int ft_take(serry_member *member, int source, void *data, serry_error *error)
{
    serry_envelope envelope;
    int rc;
    ft_carrier *c = find(member, source, &envelope, &rc, error);

    if (rc != SERRY_OK)
        return rc == SERRY_HAS_LEFT ? SERRY_ERR_RANK_FAILED : rc;
    return c->backend->take(c->member, source, data, error);
}

void ft_listen(serry_member *member, serry_interest *interest)
{
    ft_carrier *c = ft_carrier_of(ft_own(member));

    c->backend->listen(c->member, interest);
    if (c->older == NULL)
        return;
    uint64_t soon_ns = serry_token_now_ns() + NAP_NS;
    if (interest->at_ns == 0 || interest->at_ns > soon_ns)
        interest->at_ns = soon_ns;
}
