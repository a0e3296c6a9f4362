/* ft_meet.c - what all ranks do together after an error.
 *
 * One meeting gathers votes. A vote has a bit for what this rank wants, a bit for the error it has,
 * and its rank beside the rank's complement: where one rank alone has voted, these tell which. All
 * act on the votes alike.
 *
 * Moving to the next backend then takes some agreements on the old one, which is left only when all
 * have arrived:
 *
 *   ABSENT   64 ranks at a time: who has failed. These are not waited for.
 *   NAME     The lowest of the others draws a number, which makes the name of the new job.
 *            (0: that one has failed meanwhile, so ABSENT comes again.)
 *            Everybody joins the new job.
 *   CONFIRM  Has somebody not been let in? Then all leave again, and try the same backend once more
 *            if the cause may have been a rank that has failed, else the one behind it. */
#include "ft_member.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "record.h"
#include "token.h"

enum {
    VOTE_FALLBACK = 1,
    VOTE_ALGORITHM = 2,
    VOTE_ABORT = 4,
    CODES_SHIFT = 8,
    RANK_SHIFT = 40,
    COMPLEMENT_SHIFT = 48
};

_Static_assert(SERRY_ERROR_CODES <= RANK_SHIFT - CODES_SHIFT, "codes fit in their bits");
_Static_assert(SERRY_MAX_RANKS <= 1 << (COMPLEMENT_SHIFT - RANK_SHIFT), "a rank fits in its bits");

enum { MOVE_ON = 10 }; /* beside enum FT_: the next agreement follows */

/* ---- votes ------------------------------------------------------------------------------------ */

void ft_vote(ft_member *m, serry_strategy strategy)
{
    uint64_t rank = (uint64_t)m->job.rank & 0xff;
    uint64_t want = strategy == SERRY_FALLBACK_BACKEND      ? VOTE_FALLBACK
                    : strategy == SERRY_DIFFERENT_ALGORITHM ? VOTE_ALGORITHM
                                                            : VOTE_ABORT;

    m->stage = FT_STAGE_VOTE;
    m->vote = want | UINT64_C(1) << (CODES_SHIFT + serry_error_row(m->error.error)) |
              rank << RANK_SHIFT | (~rank & 0xff) << COMPLEMENT_SHIFT;
}

bool ft_votes_to_abort(const ft_member *m)
{
    return (m->vote & VOTE_ABORT) != 0;
}

int ft_aborted_code(const ft_member *m)
{
    static const int codes[SERRY_ERROR_CODES] = {
#define SERRY_X(name, value, scope, severity, group, text) value,
        SERRY_ERROR_MAP(SERRY_X)
#undef SERRY_X
    };
    size_t row = 0;

    while (row < SERRY_ERROR_CODES - 1 && (m->votes >> (CODES_SHIFT + row) & 1) == 0)
        row++;
    return codes[row];
}

int ft_aborted_by(const ft_member *m)
{
    unsigned rank = m->votes >> RANK_SHIFT & 0xff, complement = m->votes >> COMPLEMENT_SHIFT & 0xff;

    return (rank & complement) == 0 ? (int)rank : -1;
}

/* ---- moving to the next backend --------------------------------------------------------------- */

static int begin_absent(ft_member *m)
{
    ft_carrier *c = ft_carrier_of(m);
    serry_rank_set failed;

    m->stage = FT_STAGE_ABSENT;
    m->move.word = 0;
    c->backend->failed(c->member, &failed);
    m->move.value = failed.bits[0];
    return MOVE_ON;
}

static int begin_move(ft_member *m)
{
    m->move.target = ft_carrier_of(m)->at + 1;
    m->move.again = false;
    return m->move.target < m->table->config.count ? begin_absent(m) : FT_ABORTED;
}

/* The lowest rank that is not absent. */
static int lowest(const ft_member *m)
{
    int rank = 0;

    while (rank < m->job.size - 1 && serry_rank_set_has(&m->move.absent, rank))
        rank++;
    return rank;
}

static uint64_t draw(void)
{
    uint64_t number = 0;

    if (getrandom(&number, sizeof(number), GRND_NONBLOCK) != (ssize_t)sizeof(number) || number == 0)
        number = serry_token_now_ns() | 1;
    return number;
}

/* One word of the set is known. */
static int absent_decided(ft_member *m)
{
    ft_carrier *c = ft_carrier_of(m);
    serry_rank_set failed;
    int words = (m->job.size + 63) / 64;

    m->move.absent.bits[m->move.word] = m->move.value;
    if (++m->move.word < words) {
        c->backend->failed(c->member, &failed);
        m->move.value = failed.bits[m->move.word];
        return MOVE_ON;
    }
    bool more = false;
    for (int i = 0; i < words; i++)
        more |= m->move.absent.bits[i] != m->move.previous.bits[i];
    if (m->move.again && !more)
        m->move.target++;
    if (m->move.target == m->table->config.count) {
        m->stage = FT_STAGE_NONE;
        return FT_ABORTED;
    }
    m->move.previous = m->move.absent;
    m->stage = FT_STAGE_NAME;
    m->move.value = lowest(m) == m->job.rank ? draw() : 0;
    return MOVE_ON;
}

static int name_decided(ft_member *m)
{
    serry_job job = m->job;
    serry_error refused;

    if (m->move.value == 0)
        return begin_absent(m);
    snprintf(job.name, sizeof(job.name), "%.*s#%016" PRIx64, (int)sizeof(job.name) - 18,
             m->job.name, m->move.value);
    job.entry = SERRY_ENTRY_START;
    job.absent = m->move.absent;
    job.timeout_ms = m->given->timeout_ms;
    m->move.joined = ft_join(m, m->move.target, &job, &refused);
    m->stage = FT_STAGE_CONFIRM;
    m->move.value = m->move.joined == NULL;
    return MOVE_ON;
}

static int confirm_decided(ft_member *m)
{
    ft_carrier *old = ft_carrier_of(m), *next = m->move.joined;
    serry_error ignored;

    m->move.joined = NULL;
    if (m->move.value != 0) {
        if (next != NULL)
            ft_carrier_close(next);
        m->move.again = true;
        return begin_absent(m);
    }
    next->older = old;
    m->epoch += old->backend->epoch(old->member);
    m->variant = 0;
    m->stage = FT_STAGE_NONE;
    atomic_store(&m->carrier, next);
    if (atomic_load(&m->revoked)) /* on the old one, while this one came */
        next->backend->revoke(next->member, &ignored);
    return FT_AGAIN;
}

static int move_together(ft_member *m, const serry_limit *limit, serry_error *error)
{
    ft_carrier *c = ft_carrier_of(m);
    int rc;

    do {
        rc = c->backend->agree(c->member, SERRY_BOR, &m->move.value, limit, error);
        if (rc != SERRY_OK)
            return rc;
        rc = m->stage == FT_STAGE_ABSENT ? absent_decided(m)
             : m->stage == FT_STAGE_NAME ? name_decided(m)
                                         : confirm_decided(m);
    } while (rc == MOVE_ON);
    return rc;
}

/* ---- the meeting ------------------------------------------------------------------------------ */

static bool use_variant(ft_member *m, unsigned variant)
{
    ft_carrier *c = ft_carrier_of(m);
    serry_error refused;

    if (c->backend->set_variant(c->member, variant, &refused) != SERRY_OK)
        return false;
    m->variant = variant;
    return true;
}

static int act(ft_member *m)
{
    m->stage = FT_STAGE_NONE;
    if (m->votes & VOTE_ABORT)
        return FT_ABORTED;
    if (m->votes & VOTE_FALLBACK)
        return begin_move(m);
    if (m->votes & VOTE_ALGORITHM)
        return use_variant(m, m->variant + 1) ? FT_AGAIN : begin_move(m);
    return FT_AGAIN;
}

/* A replacement that is admitted by the meeting was not in it: it uses the first algorithm, so all
 * do, and the others vote again, with it. */
static int vote_together(ft_member *m, const serry_limit *limit, serry_error *error)
{
    ft_carrier *c = ft_carrier_of(m);
    bool joined;
    int repeat;

    do {
        if (!m->voting)
            m->voting_from = c->backend->epoch(c->member);
        int rc = c->backend->meet(c->member, m->vote, limit, &m->votes, &repeat, error);
        m->voting = rc == SERRY_ERR_AGAIN;
        if (rc != SERRY_OK)
            return rc;
        if (repeat == SERRY_FINISH) {
            m->stage = FT_STAGE_NONE;
            return FT_FINISH;
        }
        joined = c->backend->epoch(c->member) != m->voting_from;
        if (joined && m->variant != 0)
            use_variant(m, 0);
    } while (joined && (m->votes & (VOTE_FALLBACK | VOTE_ALGORITHM)) && !(m->votes & VOTE_ABORT));
    return act(m);
}

int ft_meet(ft_member *m, const serry_limit *limit, serry_error *error)
{
    int rc = m->stage == FT_STAGE_VOTE ? vote_together(m, limit, error) : MOVE_ON;

    if (rc == MOVE_ON)
        rc = move_together(m, limit, error);
    if (rc < 0 && rc != SERRY_ERR_TIMEOUT && rc != SERRY_ERR_CANCELLED && rc != SERRY_ERR_AGAIN) {
        m->stage = FT_STAGE_NONE;
        if (m->move.joined != NULL)
            ft_carrier_close(m->move.joined);
        m->move.joined = NULL;
    }
    return rc;
}
