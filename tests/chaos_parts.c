/* chaos_parts.c - parts of the world: a rank splits, works, revokes, agrees, shrinks; see chaos.h.
 *
 * Nobody is replaced meanwhile, so these parts only lose members; chaos_standing.c has another one. */
#include "chaos.h"

#include <string.h>

enum { CALLS_MOST = 6, REST_CALLS = 3, KEY_REST = 32 };

/* How the world is divided by an operation. */
typedef struct division {
    uint64_t colours, odd;
    bool backwards;
} division;

static division divide(const chaos_rank *self, uint64_t index)
{
    static const uint64_t colours[] = {1, 1, 2, 3};
    uint64_t sequence = chaos_mix(self->job->seed + 2, index);
    division d = {colours[chaos_chance(&sequence, 4)], chaos_chance(&sequence, 4), false};

    d.backwards = chaos_chance(&sequence, 2) == 0;
    return d;
}

int chaos_colour(const chaos_rank *self, int rank, uint64_t index)
{
    division d = divide(self, index);

    return d.odd == 0 && rank % 4 == 3 ? SERRY_UNDEFINED : rank % (int)d.colours;
}

/* Who took part and gave the same colour, in the order of the keys. */
void chaos_fill_part(const chaos_rank *self, chaos_group *part, uint64_t ranks, uint64_t index)
{
    const chaos_group *w = &self->world;
    bool backwards = divide(self, index).backwards;
    int own = chaos_colour(self, self->rank, index);

    *part = (chaos_group){.comm = part->comm, .policy = SERRY_REPORT};
    for (int i = 0; i < w->size; i++) {
        int r = backwards ? w->size - 1 - i : i;
        if ((ranks >> r & 1) == 0 || chaos_colour(self, r, index) != own)
            continue;
        if (r == self->rank)
            part->rank = part->size;
        part->world[part->size] = r;
        part->incarnation[part->size++] = w->incarnation[r];
    }
    part->members = (UINT64_C(1) << part->size) - 1;
}

int chaos_split(chaos_rank *self, chaos_group *part)
{
    chaos_group *w = &self->world;
    uint64_t key = (self->call + 1) << 16;
    bool backwards = divide(self, self->index).backwards;
    int colour = chaos_colour(self, self->rank, self->index), code;

    part->comm = NULL;
    chaos_at(self, "call %#llx: split, colour %d, policy %d", (unsigned long long)key, colour,
             (int)w->policy);
    chaos_place(self->seat);
    chaos_hurry(self, w->comm);
    do {
        code = serry_split(w->comm, colour, backwards ? -self->rank : self->rank, &part->comm);
    } while (chaos_again(self, w->comm, code));
    chaos_place(self->seat);
    uint64_t ranks = chaos_account(self, w, code, -1, 0);
    chaos_log(self, key, code, ranks, w->epoch, 0, false);
    self->facts[FACT_PARTS] += code == SERRY_OK;
    if ((part->comm != NULL) != (code == SERRY_OK && colour >= 0))
        chaos_fail(self, "split gave %p", (void *)part->comm);
    if (part->comm == NULL)
        return code;
    atomic_fetch_add(&self->board->parts, 1);
    chaos_fill_part(self, part, w->members, self->index);
    chaos_check_part(self, part);
    return code;
}

void chaos_check_part(chaos_rank *self, const chaos_group *part)
{
    serry_set_timeout(part->comm, -1);
    if (serry_size(part->comm) != part->size || serry_rank(part->comm) != part->rank)
        chaos_fail(self, "rank %d of %d in a part, not %d of %d", serry_rank(part->comm),
                   serry_size(part->comm), part->rank, part->size);
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
    chaos_group part;
    int colour = chaos_colour(self, self->rank, self->index), code = chaos_split(self, &part);
    uint64_t key = (self->call + 1) << 16 | (uint64_t)(colour + 1) << CHAOS_COLOUR;

    if (part.comm == NULL)
        return code;
    work_in_part(self, &part, sequence, key);
    chaos_at(self, "finalize of a part");
    chaos_place(self->seat);
    if (serry_finalize(&part.comm) != SERRY_OK)
        chaos_fail(self, "finalize of a part");
    return code;
}
