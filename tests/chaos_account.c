/* chaos_account.c - which outcomes of a call are right, and who is a member after them.
 *
 *   report   every death is told once, by RANK_FAILED, every replacement once, by RANK_JOINED; where
 *            both fall between two operations, the replacement alone is told (`silent` counts that)
 *   exclude  members only ever disappear, or are new
 *   wait     all members take part; new ones only come
 *
 * Nobody may be missing who has not been ordered to die. */
#include "chaos.h"

static uint64_t bit(int rank)
{
    return UINT64_C(1) << rank;
}

static void expect(chaos_rank *self, const chaos_group *g, bool right, const char *what, int code,
                   uint64_t ranks)
{
    if (!right)
        chaos_fail(self, "%s: %s, ranks %#llx, members %#llx, policy %d, epoch %llu after %llu: %s",
                   what, serry_error_name(code), (unsigned long long)ranks,
                   (unsigned long long)g->members, (int)g->policy,
                   (unsigned long long)serry_epoch(g->comm), (unsigned long long)g->epoch,
                   code == SERRY_OK ? "" : serry_last_error(g->comm)->message);
}

/* They are missing: have they been ordered to die? */
static void lose(chaos_rank *self, chaos_group *g, uint64_t lost, int code)
{
    for (int r = 0; r < g->size; r++)
        if ((lost & bit(r)) != 0 && g->incarnation[r] != 0)
            expect(self, g, chaos_is_doomed(self->board, g->world[r], g->incarnation[r]),
                   "a living rank is missing", code, bit(r));
    g->members &= ~lost;
    if (g->members != 0 && g->rank == __builtin_ctzll(g->members))
        atomic_fetch_add(&self->board->failures, (unsigned)__builtin_popcountll(lost));
}

static uint64_t account_success(chaos_rank *self, chaos_group *g, uint64_t ranks,
                                uint64_t newcomers)
{
    uint64_t expected = g->members | newcomers;

    expect(self, g, (ranks & bit(g->rank)) != 0, "took no part itself", SERRY_OK, ranks);
    expect(self, g, (ranks & ~expected) == 0, "a rank from nowhere", SERRY_OK, ranks);
    if (g->policy != SERRY_EXCLUDE)
        expect(self, g, (g->members & ~ranks) == 0, "somebody is missing", SERRY_OK, ranks);
    lose(self, g, g->members & ~ranks, SERRY_OK);
    g->members = ranks;
    return ranks;
}

/* A dead root is told under exclude, too, but who else has died is not. */
static void lose_silently(chaos_rank *self, chaos_group *g)
{
    serry_rank_set set;

    serry_participants(g->comm, &set);
    lose(self, g, g->members & ~set.bits[0], SERRY_ERR_RANK_FAILED);
}

static uint64_t account_failed(chaos_rank *self, chaos_group *g, const serry_error *error, int root)
{
    uint64_t ranks = error->ranks.bits[0];

    expect(self, g, ranks != 0 && error->peer == __builtin_ctzll(ranks), "nobody is named",
           SERRY_ERR_RANK_FAILED, ranks);
    if (g->policy == SERRY_EXCLUDE)
        lose_silently(self, g);
    if (root >= 0 && ranks == bit(root) && (g->members & bit(root)) == 0)
        return ranks; /* known for long */
    expect(self, g, (ranks & ~g->members) == 0, "told twice", SERRY_ERR_RANK_FAILED, ranks);
    if (g->policy != SERRY_REPORT)
        expect(self, g, root >= 0 && ranks == bit(root), "told, but not under report",
               SERRY_ERR_RANK_FAILED, ranks);
    lose(self, g, ranks, SERRY_ERR_RANK_FAILED);
    return ranks;
}

static uint64_t account_joined(chaos_rank *self, chaos_group *g, const serry_error *error)
{
    uint64_t ranks = error->ranks.bits[0], silent = ranks & g->members;

    expect(self, g, (g->is_world || g->is_standing) && g->policy == SERRY_REPORT && ranks != 0,
           "nobody can have joined", SERRY_ERR_RANK_JOINED, ranks);
    lose(self, g, silent, SERRY_ERR_RANK_JOINED);
    g->members |= ranks;
    if (g->is_world && g->rank == __builtin_ctzll(g->members & ~ranks)) {
        atomic_fetch_add(&self->board->joins, (unsigned)__builtin_popcountll(ranks));
        atomic_fetch_add(&self->board->silent, (unsigned)__builtin_popcountll(silent));
    }
    for (int r = 0; r < g->size; r++)
        if ((ranks & bit(r)) != 0)
            g->incarnation[r] = 0;
    return ranks;
}

uint64_t chaos_account(chaos_rank *self, chaos_group *g, int code, int root, uint64_t newcomers)
{
    uint64_t ranks = 0, epoch = serry_epoch(g->comm);
    serry_rank_set set;

    expect(self, g, epoch >= g->epoch, "the epoch has gone back", code, 0);
    switch (code) {
    case SERRY_OK:
        serry_participants(g->comm, &set);
        ranks = account_success(self, g, set.bits[0], newcomers);
        break;
    case SERRY_ERR_RANK_FAILED:
        ranks = account_failed(self, g, serry_last_error(g->comm), root);
        break;
    case SERRY_ERR_RANK_JOINED:
        ranks = account_joined(self, g, serry_last_error(g->comm));
        break;
    case SERRY_ERR_RANK_MISMATCH: /* with the first call of a newcomer */
        expect(self, g, g->is_world && g->policy != SERRY_REPORT && epoch > g->epoch,
               "all make the same calls", code, 0);
        break;
    default:
        expect(self, g, code == SERRY_ERR_REVOKED && g->revocable, "unexpected", code, 0);
    }
    g->epoch = epoch;
    return ranks;
}

/* Requests behind one that a newcomer came to meet its first call. */
uint64_t chaos_account_request(chaos_rank *self, chaos_group *g, int code, const serry_error *error,
                               uint64_t ranks, bool *met)
{
    switch (code) {
    case SERRY_OK:
        return account_success(self, g, ranks, 0);
    case SERRY_ERR_RANK_FAILED:
        expect(self, g, g->policy == SERRY_REPORT, "told, but not under report", code, 0);
        return account_failed(self, g, error, -1);
    case SERRY_ERR_RANK_JOINED:
        *met = true;
        return account_joined(self, g, error);
    default:
        if (code != SERRY_ERR_RANK_MISMATCH || (g->policy == SERRY_REPORT && !*met))
            chaos_fail(self, "request: unexpected: %s (%s)", serry_error_name(code),
                       error->message);
        *met = true;
        return 0;
    }
}

/* Agree on who is there, and whether any has the flag. */
uint64_t chaos_agreed(chaos_rank *self, chaos_group *g, bool flag, bool *any)
{
    const uint64_t top = UINT64_C(1) << 63, common = UINT64_C(0xabcd) << 32;
    bool inverted = (self->index & 1) != 0;
    uint64_t value = common | bit(g->rank) | (flag ? top : 0);
    int code;

    value = inverted ? ~value : value;
    chaos_hurry(self, g->comm);
    do {
        code = serry_agree(g->comm, inverted ? SERRY_BAND : SERRY_BOR, &value);
    } while (chaos_again(self, g->comm, code));
    expect(self, g, code == SERRY_OK, "agree", code, 0);
    value = inverted ? ~value : value;
    *any = (value & top) != 0;
    value &= ~top;
    expect(self, g, (value & ~UINT64_C(0xffffffff)) == common && (value & bit(g->rank)) != 0,
           "wrong bits agreed on", code, value);
    value &= ~common;
    if (!g->revocable) /* else it may agree before it dies, having missed the last operation */
        expect(self, g, (value & ~g->members) == 0, "a rank from nowhere agrees", code, value);
    for (int r = 0; r < g->size; r++)
        if ((g->members & ~value & bit(r)) != 0 && g->incarnation[r] != 0)
            expect(self, g, chaos_is_doomed(self->board, g->world[r], g->incarnation[r]),
                   "agreed without a living rank", code, value);
    return value;
}
