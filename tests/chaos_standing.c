/* chaos_standing.c - a part of the world that outlives its members; see chaos.h.
 *
 * There is one at a time: an operation makes it, later ones work in it, one leaves it. After each sync
 * with newcomers those whose ranks have a place in it ask for that, and the others work in it until all
 * newcomers have come or are known to have failed. What all say then is the same for all, so all stop
 * together. A part all of whose members have died is lost: who asks for a place there gets none, and is
 * without it like those that were never in it. */
#include "chaos.h"

#include <string.h>

enum { CALLS_MOST = 6, LEAVE_ONCE_IN = 12, KEY_REGAINED = 0xff };

static uint64_t bit(int rank)
{
    return UINT64_C(1) << rank;
}

static uint64_t key_in_part(const chaos_rank *self)
{
    int colour = chaos_colour(self, self->rank, self->facts[FACT_BORN] - 1);

    return (self->call + 1) << 16 | (uint64_t)(colour + 1) << CHAOS_COLOUR;
}

/* The others' policy: a newcomer does not set it. */
static serry_policy policy_of(const chaos_rank *self)
{
    uint64_t sequence = chaos_mix(self->job->seed + 5, self->facts[FACT_BORN]);

    return chaos_chance(&sequence, 2) == 0 ? SERRY_REPORT : SERRY_EXCLUDE;
}

/* ---- its life ----------------------------------------------------------------------------------- */

/* When most are there: who is not has no place in it, nor have its replacements. */
static int make(chaos_rank *self)
{
    chaos_group *g = &self->standing;
    uint64_t ordinal = self->facts[FACT_PARTS];

    if (__builtin_popcountll(self->world.members) * 4 < self->world.size * 3)
        return SERRY_OK;
    int code = chaos_split(self, g);
    if (code != SERRY_OK)
        return code;
    self->facts[FACT_BORN] = self->index + 1;
    self->facts[FACT_RANKS] = self->holders = self->world.members;
    self->facts[FACT_ORDINAL] = ordinal;
    if (g->comm == NULL)
        return code;
    g->is_standing = true;
    g->policy = policy_of(self);
    g->epoch = serry_epoch(g->comm);
    if (serry_set_policy(g->comm, g->policy) != SERRY_OK)
        chaos_fail(self, "set_policy of a part: %s", serry_last_error(g->comm)->message);
    return code;
}

static void work(chaos_rank *self, uint64_t *sequence)
{
    chaos_group *g = &self->standing;
    int calls = 1 + (int)chaos_chance(sequence, CALLS_MOST);

    for (int i = 0; i < calls && g->comm != NULL; i++) {
        uint64_t own = chaos_mix(*sequence, (uint64_t)i);
        chaos_operation op;
        chaos_draw(self->job, &own, g->size, &op);
        chaos_run(self, g, &op, key_in_part(self) + 1 + (unsigned)i);
    }
}

void chaos_leave_standing(chaos_rank *self)
{
    self->facts[FACT_BORN] = 0;
    chaos_at(self, "finalize of the standing part");
    chaos_place(self->seat);
    if (serry_finalize(&self->standing.comm) != SERRY_OK)
        chaos_fail(self, "finalize of the standing part");
}

int chaos_stand(chaos_rank *self, uint64_t *sequence)
{
    if (self->facts[FACT_BORN] == 0)
        return make(self);
    if (chaos_chance(sequence, LEAVE_ONCE_IN) == 0)
        chaos_leave_standing(self);
    else
        work(self, sequence);
    return SERRY_OK;
}

/* ---- the newcomer ------------------------------------------------------------------------------- */

static bool has_place(const chaos_rank *self)
{
    return (self->facts[FACT_RANKS] & bit(self->rank)) != 0 &&
           chaos_colour(self, self->rank, self->facts[FACT_BORN] - 1) >= 0;
}

/* Are all gone that had the part in the last sync? */
static bool is_lost(const chaos_rank *self, const chaos_group *g)
{
    for (int p = 0; p < g->size; p++) {
        int r = g->world[p];
        if ((self->holders & bit(r)) != 0 &&
            !chaos_is_doomed(self->board, r, self->world.incarnation[r]))
            return false;
    }
    return true;
}

/* With its time over from the beginning: it gives up as soon as it has asked. */
static int ask_in_vain(chaos_rank *self, int ordinal, serry_comm **part)
{
    serry_comm *world = self->world.comm;
    serry_timeouts *timeouts = NULL;
    serry_token *token = NULL;

    if (serry_timeouts_create(0, &timeouts) != SERRY_OK ||
        serry_timeouts_start(timeouts, 1, 0, &token) != SERRY_OK ||
        serry_set_token(world, token) != SERRY_OK)
        chaos_fail(self, "no token");
    serry_timeouts_cancel_all(timeouts);
    int code = serry_rejoin_part(world, ordinal, part);
    serry_set_token(world, NULL);
    serry_token_release(&token);
    serry_timeouts_destroy(&timeouts);
    return code;
}

/* Some give up, and ask again. */
static int ask(chaos_rank *self, int ordinal, serry_comm **part)
{
    serry_comm *world = self->world.comm;
    int code = SERRY_ERR_CANCELLED;

    chaos_place(self->seat);
    while (code == SERRY_ERR_CANCELLED && chaos_chance(&self->sequence, 3) == 0)
        code = ask_in_vain(self, ordinal, part);
    if (code != SERRY_ERR_CANCELLED)
        return code;
    chaos_hurry(self, world);
    chaos_place(self->seat);
    do {
        if (chaos_chance(&self->sequence, 4) == 0)
            serry_set_timeout(world, -1);
        code = serry_rejoin_part(world, ordinal, part);
    } while (chaos_again(self, world, code));
    chaos_place(self->seat);
    return code;
}

static void take_place(chaos_rank *self)
{
    chaos_group *g = &self->standing;
    int code = ask(self, (int)self->facts[FACT_ORDINAL], &g->comm);
    bool place = has_place(self), refused = !place || is_lost(self, g);

    if ((code != SERRY_OK || !place) && (code != SERRY_ERR_INVALID || !refused))
        chaos_fail(self, "rejoin_part: %s: %s", serry_error_name(code),
                   serry_last_error(self->world.comm)->message);
    if ((g->comm != NULL) != (code == SERRY_OK))
        chaos_fail(self, "rejoin_part gave %p", (void *)g->comm);
    if (place)
        atomic_fetch_add(code == SERRY_OK ? &self->board->regained : &self->board->lost, 1);
    if (code != SERRY_OK)
        return;
    chaos_check_part(self, g);
    memset(g->incarnation, 0, sizeof(g->incarnation));
    g->is_standing = true;
    g->policy = policy_of(self);
    g->epoch = serry_epoch(g->comm);
}

/* ---- the members -------------------------------------------------------------------------------- */

/* What each says in the part. */
typedef struct words {
    uint64_t incarnation;
    uint64_t failed; /* ranks of the world, as it knows */
} words;

/* One exchange among those that are in the part. *settled: places whose newcomers have come, or have
 * failed. */
static int exchange(chaos_rank *self, bool fresh, uint64_t *settled)
{
    chaos_group *g = &self->standing;
    words own = {.incarnation = self->incarnation}, all[CHAOS_RANKS];
    uint64_t newcomers = 0, failed = 0;
    serry_rank_set set;
    int code;

    serry_get_failed(self->world.comm, &set);
    own.failed = set.bits[0];
    chaos_hurry(self, g->comm);
    chaos_place(self->seat);
    do {
        code = serry_allgather(&own, all, sizeof(own) / 8, SERRY_U64, g->comm);
    } while (chaos_again(self, g->comm, code));
    chaos_place(self->seat);
    if (code != SERRY_OK && fresh) /* it does not know what is right yet */
        return code;
    *settled = 0;
    if (code == SERRY_OK) {
        serry_participants(g->comm, &set);
        for (int p = 0; p < g->size; p++)
            if ((set.bits[0] & bit(p)) != 0) {
                newcomers |= g->incarnation[p] != all[p].incarnation ? bit(p) : 0;
                g->incarnation[p] = (unsigned)all[p].incarnation;
                failed |= all[p].failed;
            }
        g->members = fresh ? set.bits[0] : g->members;
        for (int p = 0; p < g->size; p++)
            if ((failed & bit(g->world[p])) != 0 ||
                ((set.bits[0] & bit(p)) != 0 &&
                 g->incarnation[p] == self->world.incarnation[g->world[p]]))
                *settled |= bit(p);
    }
    chaos_account(self, g, code, -1, newcomers);
    return code;
}

static uint64_t hash_of_incarnations(const chaos_group *g)
{
    uint64_t hash = (uint64_t)g->size;

    for (int p = 0; p < g->size; p++)
        hash = chaos_mix(hash, (g->members & bit(p)) != 0 ? g->incarnation[p] : 0);
    return hash;
}

static void until_settled(chaos_rank *self, uint64_t awaited, bool fresh)
{
    chaos_group *g = &self->standing;
    uint64_t settled = 0;

    while ((awaited & ~settled) != 0)
        if (exchange(self, fresh, &settled) == SERRY_OK)
            fresh = false;
    chaos_log(self, key_in_part(self) + KEY_REGAINED, SERRY_OK, g->members, g->epoch,
              hash_of_incarnations(g), false);
}

static void await_newcomers(chaos_rank *self, bool fresh)
{
    const chaos_group *g = &self->standing;
    uint64_t awaited = 0;

    for (int p = 0; p < g->size; p++)
        awaited |= (self->newcomers & bit(g->world[p])) != 0 ? bit(p) : 0;
    if (awaited == 0)
        return;
    chaos_at(self, "call %#llx: places %#llx of the standing part",
             (unsigned long long)key_in_part(self), (unsigned long long)awaited);
    until_settled(self, awaited, fresh);
}

void chaos_regain(chaos_rank *self)
{
    bool fresh = (self->newcomers & bit(self->rank)) != 0;

    if (fresh) {
        chaos_fill_part(self, &self->standing, self->facts[FACT_RANKS], self->facts[FACT_BORN] - 1);
        chaos_at(self, "call %#llx: rejoining part %d", (unsigned long long)key_in_part(self),
                 (int)self->facts[FACT_ORDINAL]);
        take_place(self);
    }
    if (self->standing.comm != NULL)
        await_newcomers(self, fresh);
    if (self->holders == 0) /* nobody can come into it any more */
        chaos_leave_standing(self);
}
