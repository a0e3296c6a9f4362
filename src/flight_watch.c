/* flight_watch.c - a token that is cancelled is felt at once by whoever is to drive its request, also where
 * that stands behind others, and nobody waits for it.
 *
 * A token is looked at whenever its request is driven, so a watch is only needed where all who might do
 * that sleep. It is left by the one who is about to, before it looks a last time, and taken away when the
 * request ends: most requests have ended by then, and never have one. */
#include "flight.h"

static void watch_all(flight *f, const request_queue *q)
{
    for (serry_request *r = q->first; r != NULL; r = r->next)
        if (r->token != NULL && !r->watching)
            r->watching =
                serry_token_watch(r->token, &r->watch, flight_rouse, f) == SERRY_TOKEN_RUNNING;
}

void flight_watch(flight *f)
{
    watch_all(f, &f->calls);
    watch_all(f, &f->sends);
    watch_all(f, &f->receives);
}

void flight_unwatch(serry_request *r)
{
    if (!r->watching)
        return;
    serry_token_unwatch(r->token, &r->watch);
    r->watching = false;
}
