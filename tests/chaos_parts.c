/* chaos_parts.c - parts of the world: a rank splits, works, revokes, agrees, shrinks; see chaos.h.
 *
 * Replacements do not come into parts, so a part only loses members. */
#include "chaos.h"

#include <string.h>

enum { CALLS_MOST = 6, REST_CALLS = 3, KEY_REST = 32, KEY_COLOUR = 8 /* shift */ };

static int colour_of(const chaos_rank *self, int rank, uint64_t colours)
{
    uint64_t sequence = chaos_mix(self->job->seed + 2, self->index);
    uint64_t odd = chaos_chance(&sequence, 4);

    return odd == 0 && rank % 4 == 3 ? SERRY_UNDEFINED : rank % (int)colours;
}

/* Who took part and gave the same colour, in the order of the keys. */
static void fill_part(const chaos_rank *self, chaos_group *part, uint64_t colours, bool backwards)
{
    const chaos_group *w = &self->world;
    int own = colour_of(self, self->rank, colours);

    *part = (chaos_group){.comm = part->comm, .policy = SERRY_REPORT};
    for (int i = 0; i < w->size; i++) {
        int r = backwards ? w->size - 1 - i : i;
        if ((w->members >> r & 1) == 0 || colour_of(self, r, colours) != own)
            continue;
        if (r == self->rank)
            part->rank = part->size;
        part->world[part->size] = r;
        part->incarnation[part->size++] = w->incarnation[r];
    }
    part->members = (UINT64_C(1) << part->size) - 1;
}

/* ---- what is left ------------------------------------------------------------------------------- */

/* Who is in a group that shrink has made: they tell each other. The old order is kept. */
static void ask_names(chaos_rank *self, chaos_group *rest, const chaos_group *old)
{
    uint64_t own = (uint64_t)old->rank, all[CHAOS_RANKS];
    serry_rank_set set = {{0}};
    int code;

    memset(all, 0xff, sizeof(all));
    do {
        code = serry_allgather(&own, all, 1, SERRY_U64, rest->comm);
        if (code == SERRY_ERR_RANK_FAILED)
            rest->members &= ~serry_last_error(rest->comm)->ranks.bits[0];
    } while (code == SERRY_ERR_RANK_FAILED);
    if (code != SERRY_OK)
        chaos_fail(self, "allgather after shrink: %s", serry_last_error(rest->comm)->message);
    serry_participants(rest->comm, &set);
    if (set.bits[0] != rest->members)
        chaos_fail(self, "%#llx took part after shrink, not %#llx", (unsigned long long)set.bits[0],
                   (unsigned long long)rest->members);
    for (int r = 0, last = -1; r < rest->size; r++) {
        if ((rest->members >> r & 1) == 0)
            continue;
        if ((int)all[r] <= last || (int)all[r] >= old->size)
            chaos_fail(self, "rank %d after shrink was rank %d", r, (int)all[r]);
        last = (int)all[r];
        rest->world[r] = old->world[last];
        rest->incarnation[r] = old->incarnation[last];
    }
    rest->epoch = serry_epoch(rest->comm);
}

void chaos_recover(chaos_rank *self, chaos_group *g, uint64_t *sequence, uint64_t key, bool revoked)
{
    chaos_group rest = {.policy = SERRY_REPORT};
    chaos_operation op;
    int code;

    key |= KEY_REST;
    chaos_at(self, "call %#llx: shrink, %d ranks", (unsigned long long)key, g->size);
    chaos_place(self->seat);
    chaos_hurry(self, g->comm);
    do {
        code = serry_shrink(g->comm, &rest.comm);
    } while (chaos_again(self, g->comm, code));
    chaos_place(self->seat);
    if (code != SERRY_OK)
        chaos_fail(self, "shrink: %s", serry_last_error(g->comm)->message);
    atomic_fetch_add(&self->board->shrinks, 1);
    rest.size = serry_size(rest.comm);
    rest.rank = serry_rank(rest.comm);
    rest.members = (UINT64_C(1) << rest.size) - 1;
    serry_set_timeout(rest.comm, -1);
    serry_set_policy(rest.comm, SERRY_REPORT);
    chaos_log(self, key, SERRY_OK, (uint64_t)rest.size, revoked, 0, false);
    chaos_at(self, "call %#llx: after shrink, %d of %d ranks", (unsigned long long)key, rest.size,
             g->size);
    ask_names(self, &rest, g);
    for (int i = 0; i < REST_CALLS; i++) {
        chaos_draw(self->job, sequence, rest.size, &op);
        chaos_run(self, &rest, &op, key + 1 + (unsigned)i);
    }
    chaos_at(self, "finalize after shrink");
    chaos_place(self->seat);
    if (serry_finalize(&rest.comm) != SERRY_OK)
        chaos_fail(self, "finalize after shrink");
}

/* ---- in a part ---------------------------------------------------------------------------------- */

static void work_in_part(chaos_rank *self, chaos_group *part, uint64_t *sequence, uint64_t key)
{
    static const serry_policy policies[] = {SERRY_REPORT, SERRY_EXCLUDE, SERRY_REVOKE};
    int calls = 1 + (int)chaos_chance(sequence, CALLS_MOST), code = SERRY_OK;
    uint64_t revoke_at = chaos_chance(sequence, 2 * CALLS_MOST);
    int revoker = (int)chaos_chance(sequence, (uint64_t)part->size);
    bool any;

    part->policy = policies[chaos_chance(sequence, 3)];
    part->revocable = part->policy == SERRY_REVOKE || revoke_at < (uint64_t)calls;
    part->epoch = serry_epoch(part->comm);
    if (serry_set_policy(part->comm, part->policy) != SERRY_OK)
        chaos_fail(self, "set_policy of a part: %s", serry_last_error(part->comm)->message);
    for (int i = 0; i < calls && code != SERRY_ERR_REVOKED; i++) {
        uint64_t own = chaos_mix(*sequence, (uint64_t)i);
        chaos_operation op;
        if (revoke_at == (uint64_t)i && revoker == part->rank)
            serry_revoke(part->comm);
        chaos_draw(self->job, &own, part->size, &op);
        code = chaos_run(self, part, &op, key + 1 + (unsigned)i);
    }
    chaos_at(self, "call %#llx: agree in a part of %d", (unsigned long long)key, part->size);
    chaos_place(self->seat);
    uint64_t ranks = chaos_agreed(self, part, code == SERRY_ERR_REVOKED, &any);
    chaos_log(self, key + KEY_REST - 1, SERRY_OK, ranks, any, 0, false);
    if (any || chaos_chance(sequence, 4) == 0)
        chaos_recover(self, part, sequence, key, any);
}

int chaos_part(chaos_rank *self, uint64_t *sequence)
{
    chaos_group *w = &self->world, part = {.comm = NULL};
    uint64_t key = (self->call + 1) << 16, colours = 1 + chaos_chance(sequence, 3);
    bool backwards = chaos_chance(sequence, 2) == 0;
    int colour = colour_of(self, self->rank, colours), code;

    chaos_at(self, "call %#llx: split, colour %d, policy %d", (unsigned long long)key, colour,
             (int)w->policy);
    chaos_place(self->seat);
    chaos_hurry(self, w->comm);
    do {
        code = serry_split(w->comm, colour, backwards ? -self->rank : self->rank, &part.comm);
    } while (chaos_again(self, w->comm, code));
    chaos_place(self->seat);
    uint64_t ranks = chaos_account(self, w, code, -1, 0);
    chaos_log(self, key, code, ranks, w->epoch, 0, false);
    if ((part.comm != NULL) != (code == SERRY_OK && colour >= 0))
        chaos_fail(self, "split gave %p", (void *)part.comm);
    if (part.comm == NULL)
        return code;
    atomic_fetch_add(&self->board->parts, 1);
    fill_part(self, &part, colours, backwards);
    serry_set_timeout(part.comm, -1);
    if (serry_size(part.comm) != part.size || serry_rank(part.comm) != part.rank)
        chaos_fail(self, "rank %d of %d in a part, not %d of %d", serry_rank(part.comm),
                   serry_size(part.comm), part.rank, part.size);
    work_in_part(self, &part, sequence, key | (uint64_t)(colour + 1) << KEY_COLOUR);
    chaos_at(self, "finalize of a part");
    chaos_place(self->seat);
    if (serry_finalize(&part.comm) != SERRY_OK)
        chaos_fail(self, "finalize of a part");
    return code;
}
