/* ft_meet.c - what all ranks do together after an error.
 *
 * One meeting gathers votes. A vote has a bit for what this rank wants, a bit for the error it has,
 * and its rank beside the rank's complement: where one rank alone has voted, these tell which. All
 * act on the votes alike.
 *
 * Moving to the next backend then takes some agreements on the old one, which is left only when all
 * have arrived:
 *
 *   SETS     64 ranks at a time: who has failed. These are not waited for.
 *   NAME     The lowest of the others draws a number, which makes the name of the new job.
 *            (0: that one has failed meanwhile, so SETS comes again.)
 *            Everybody joins the new job.
 *   CONFIRM  Has somebody not been let in? Then all leave again, and try the same backend once more
 *            if the cause may have been a rank that has failed, else the one behind it.
 *
 * A replacement comes in by the first backend, of which all are members to the end. Once the job has
 * moved, nobody would come to an operation there, so all look before each operation whether they are
 * called to a meeting there (ft_admit.c). Who sees it votes for ADMIT on the backend that carries, so
 * that all go at the same operation:
 *
 *   ADMIT    A meeting on the first backend, which lets the replacement in, and whose votes tell it
 *            where the job is. If nobody has come in, all go on as they were.
 *            Else all move, as above, with it: agreeing on the first backend, to a new job on the same
 *            backend as before. SETS also tells who the replacements are, and who took part in the
 *            last operation: what is missing of these was never told.
 *
 * Who dies in any of this is missing in the next agreement, as anywhere. If the replacement does not
 * reach the new job for another reason, the others stay where they were. */
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
    VOTE_ADMIT = 8, /* of the meeting that lets replacements in: as below */
    CODES_SHIFT = 8,
    RANK_SHIFT = 40,
    COMPLEMENT_SHIFT = 48
};

_Static_assert(SERRY_ERROR_CODES <= RANK_SHIFT - CODES_SHIFT, "codes fit in their bits");
_Static_assert(SERRY_MAX_RANKS <= 1 << (COMPLEMENT_SHIFT - RANK_SHIFT), "a rank fits in its bits");

/* In a vote for ADMIT on the first backend, where all give the same: beside VOTE_ADMIT, what a
 * replacement must know. */
enum { PLACE_SHIFT = 4, POLICY_SHIFT = 8, EPOCH_SHIFT = 16 };

_Static_assert(SERRY_FT_CHAIN_MAX <= 1 << (POLICY_SHIFT - PLACE_SHIFT), "a place fits in its bits");
_Static_assert(SERRY_POLICIES <= 1 << (EPOCH_SHIFT - POLICY_SHIFT), "a policy fits in its bits");

#define NAP_NS UINT64_C(2000000) /* between two looks whether the right thread polls */

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

/* ---- moving to another backend ---------------------------------------------------------------- */

/* What this rank knows of one word of a set. */
static uint64_t own_word(const ft_member *m)
{
    const ft_carrier *c = m->move.set == FT_SET_ABSENT ? m->move.over : ft_carrier_of(m);
    serry_rank_set set = {{0}};

    if (m->move.set == FT_SET_ABSENT)
        c->backend->failed(c->member, &set);
    else if (m->move.set == FT_SET_JOINED && m->move.newcomer)
        serry_rank_set_add(&set, m->job.rank);
    else if (m->move.set == FT_SET_BEFORE && !m->move.newcomer)
        c->backend->participants(c->member, &set);
    return set.bits[m->move.word];
}

static int begin_sets(ft_member *m)
{
    m->stage = FT_STAGE_SETS;
    m->move.set = FT_SET_ABSENT;
    m->move.word = 0;
    m->move.value = own_word(m);
    return MOVE_ON;
}

static int begin_move(ft_member *m, ft_carrier *over, size_t target, bool admits)
{
    m->move.over = over;
    m->move.target = target;
    m->move.admits = admits;
    m->move.again = false;
    return target < m->table->config.count ? begin_sets(m) : FT_ABORTED;
}

static int fall_back(ft_member *m)
{
    ft_carrier *c = ft_carrier_of(m);

    return begin_move(m, c, c->at + 1, false);
}

/* The lowest rank that is not absent. */
static int lowest(const ft_member *m)
{
    int rank = 0;

    while (rank < m->job.size - 1 && serry_rank_set_has(&m->move.sets[FT_SET_ABSENT], rank))
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

/* There is nowhere to go. */
static int stay(ft_member *m)
{
    m->stage = FT_STAGE_NONE;
    m->looked = true;
    return m->move.admits && !m->move.newcomer ? FT_AGAIN : FT_ABORTED;
}

/* All sets are known. */
static int sets_decided(ft_member *m)
{
    const serry_rank_set *absent = &m->move.sets[FT_SET_ABSENT];
    bool more = false;

    for (int i = 0; i < (m->job.size + 63) / 64; i++)
        more |= absent->bits[i] != m->move.previous.bits[i];
    if (m->move.again && !more)
        m->move.target++;
    if (m->move.target == m->table->config.count || (m->move.again && !more && m->move.admits))
        return stay(m);
    m->move.previous = *absent;
    m->stage = FT_STAGE_NAME;
    m->move.value = lowest(m) == m->job.rank ? draw() : 0;
    return MOVE_ON;
}

/* One word of a set is known. */
static int word_decided(ft_member *m)
{
    m->move.sets[m->move.set].bits[m->move.word] = m->move.value;
    if (++m->move.word == (m->job.size + 63) / 64) {
        m->move.word = 0;
        m->move.set++;
    }
    if (m->move.set == (m->move.admits ? FT_SETS : FT_SET_JOINED))
        return sets_decided(m);
    m->move.value = own_word(m);
    return MOVE_ON;
}

static void failed_meanwhile(const void *over, serry_rank_set *failed)
{
    const ft_carrier *c = over;

    c->backend->failed(c->member, failed);
}

static int name_decided(ft_member *m)
{
    if (m->move.value == 0)
        return begin_sets(m);
    m->stage = FT_STAGE_JOIN;
    return MOVE_ON;
}

/* Where joining is polled: may it go on? */
static int check_time(ft_member *m, serry_error *error)
{
    int code = (int)serry_token_state(ft_limit_token(m));

    if (code == SERRY_OK)
        return code;
    return serry_error_make(error, code, m->operation.name, ft_id(m), m->job.rank,
                            "%s %s while this rank joined the backend %s; it stays open, and the "
                            "next call goes on with it",
                            m->operation.name,
                            code == SERRY_ERR_CANCELLED ? "was cancelled" : "ran out of time",
                            m->table->chain[m->move.target]->name);
}

/* A thread rank belongs to the thread that begins to join: another one that polls for it leaves that to it. */
static bool is_for_owner(const ft_member *m)
{
    return m->job.kind == SERRY_THREADS && m->move.joining == NULL &&
           !pthread_equal(m->thread, pthread_self());
}

static int join(ft_member *m, serry_error *error)
{
    serry_interest *poll = m->given->poll;
    serry_job job = m->job;
    int rc = poll == NULL ? SERRY_OK : check_time(m, error);

    if (rc != SERRY_OK)
        return rc;
    if (poll != NULL && is_for_owner(m)) {
        *poll = (serry_interest){.sleep = poll->sleep, .at_ns = serry_token_now_ns() + NAP_NS};
        return SERRY_ERR_AGAIN;
    }
    snprintf(job.name, sizeof(job.name), "%.*s#%016" PRIx64, (int)sizeof(job.name) - 18,
             m->job.name, m->move.value);
    job.entry = SERRY_ENTRY_START;
    job.absent = m->move.sets[FT_SET_ABSENT];
    job.timeout_ms = m->given->timeout_ms;
    job.policy = ft_policy_there(m->job.policy);
    job.failed = failed_meanwhile;
    job.argument = m->move.over;
    job.poll = poll;
    job.joining = m->move.joining;
    rc = ft_join(m, m->move.target, &job, &m->move.joining, &m->move.joined, &m->move.refused);
    if (rc == SERRY_ERR_AGAIN)
        return rc;
    m->stage = FT_STAGE_CONFIRM;
    m->move.value = m->move.joined == NULL;
    return SERRY_OK;
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
        return begin_sets(m);
    }
    next->older = old;
    next->number = old->number + 1;
    if (m->move.admits)
        ft_admitted(m);
    else
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
    const ft_carrier *c = m->move.over;
    int rc;

    do {
        rc = m->stage == FT_STAGE_JOIN ? join(m, error) : SERRY_OK;
        if (rc == SERRY_OK)
            rc = c->backend->agree(c->member, SERRY_BOR, &m->move.value, limit, error);
        if (rc != SERRY_OK)
            return rc;
        rc = m->stage == FT_STAGE_SETS   ? word_decided(m)
             : m->stage == FT_STAGE_NAME ? name_decided(m)
                                         : confirm_decided(m);
    } while (rc == MOVE_ON);
    return rc;
}

/* ---- replacements, once the job has moved ------------------------------------------------------ */

static uint64_t epoch_of(const ft_member *m)
{
    const ft_carrier *c = ft_carrier_of(m);

    return m->epoch + c->backend->epoch(c->member);
}

/* A meeting on one backend. *joined: somebody was let in. */
static int meet_on(ft_member *m, const ft_carrier *c, uint64_t vote, const serry_limit *limit,
                   int *repeat, bool *joined, serry_error *error)
{
    if (!m->voting)
        m->voting_from = c->backend->epoch(c->member);
    int rc = c->backend->meet(c->member, vote, limit, &m->votes, repeat, error);
    m->voting = rc == SERRY_ERR_AGAIN;
    *joined = rc == SERRY_OK && c->backend->epoch(c->member) != m->voting_from;
    return rc;
}

static bool goes_on_later(int rc)
{
    return rc == SERRY_ERR_TIMEOUT || rc == SERRY_ERR_CANCELLED || rc == SERRY_ERR_AGAIN;
}

static int admit_together(ft_member *m, const serry_limit *limit, serry_error *error)
{
    size_t at = ft_carrier_of(m)->at;
    bool joined;
    int repeat;

    m->move.epoch = epoch_of(m);
    uint64_t vote = VOTE_ADMIT | (uint64_t)at << PLACE_SHIFT |
                    (uint64_t)m->job.policy << POLICY_SHIFT | m->move.epoch << EPOCH_SHIFT;
    int rc = meet_on(m, m->door, vote, limit, &repeat, &joined, error);
    if (goes_on_later(rc) || serry_error_scope(rc) == SERRY_SCOPE_LOST)
        return rc;
    if (rc == SERRY_OK && joined)
        return begin_move(m, m->door, at, true);
    m->stage = FT_STAGE_NONE;
    m->shut |= rc != SERRY_OK; /* on all alike: no memory for it there */
    m->looked = true;
    return FT_AGAIN;
}

/* It has a place in the chain, and is in the first backend alone. */
static int follow_to(ft_member *m, uint64_t told, const serry_limit *limit, serry_error *error)
{
    size_t place = told >> PLACE_SHIFT & ((1 << (POLICY_SHIFT - PLACE_SHIFT)) - 1);

    m->job.policy =
        (serry_policy)(told >> POLICY_SHIFT & ((1 << (EPOCH_SHIFT - POLICY_SHIFT)) - 1));
    m->given = limit;
    m->move.newcomer = true;
    m->move.epoch = told >> EPOCH_SHIFT;
    if (place >= m->table->config.count || m->job.policy >= SERRY_POLICIES)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "the job runs on number %zu of its chain of backends, but the chain of "
                          "this replacement has only %zu; give all ranks the same",
                          place, m->table->config.count);
    begin_move(m, m->door, place, true);
    int rc = move_together(m, limit, error);
    m->move.newcomer = false;
    ft_leave_next(m);
    m->stage = FT_STAGE_NONE;
    if (rc != FT_ABORTED)
        return rc == FT_AGAIN ? SERRY_OK : rc;
    const char *name = m->table->chain[place]->name;
    if (m->move.refused.error != SERRY_OK)
        return serry_error_make(error, m->move.refused.error, "init", 0, m->job.rank,
                                "the job has moved to its backend %s, where this replacement could "
                                "not follow: %s",
                                name, m->move.refused.message);
    return serry_error_make(
        error, SERRY_ERR_SYSTEM, "init", 0, m->job.rank,
        "the job has moved to its backend %s, which another rank could not join "
        "anew for this replacement; its record says why",
        name);
}

int ft_follow(ft_member *m, uint64_t told, const serry_limit *limit, serry_error *error)
{
    return (told & VOTE_ADMIT) == 0 ? SERRY_OK : follow_to(m, told, limit, error);
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
        return fall_back(m);
    if (m->votes & VOTE_ALGORITHM)
        return use_variant(m, m->variant + 1) ? FT_AGAIN : fall_back(m);
    if ((m->votes & VOTE_ADMIT) == 0)
        return FT_AGAIN;
    m->stage = FT_STAGE_ADMIT;
    return MOVE_ON;
}

/* A replacement that is admitted by the meeting was not in it: it uses the first algorithm, so all
 * do, and the others vote again, with it. */
static int vote_together(ft_member *m, const serry_limit *limit, serry_error *error)
{
    const ft_carrier *c = ft_carrier_of(m);
    bool joined;
    int repeat;

    do {
        uint64_t vote = m->vote | (ft_newcomer_calls(m) ? VOTE_ADMIT : 0);
        int rc = meet_on(m, c, vote, limit, &repeat, &joined, error);
        if (rc != SERRY_OK)
            return rc;
        if (repeat == SERRY_FINISH) {
            m->stage = FT_STAGE_NONE;
            return FT_FINISH;
        }
        if (joined && m->variant != 0)
            use_variant(m, 0);
    } while (joined && (m->votes & (VOTE_FALLBACK | VOTE_ALGORITHM)) && !(m->votes & VOTE_ABORT));
    return act(m);
}

int ft_meet(ft_member *m, const serry_limit *limit, serry_error *error)
{
    int rc = m->stage == FT_STAGE_VOTE ? vote_together(m, limit, error) : MOVE_ON;

    if (rc == MOVE_ON && m->stage == FT_STAGE_ADMIT)
        rc = admit_together(m, limit, error);
    if (rc == MOVE_ON)
        rc = move_together(m, limit, error);
    if (rc < 0 && !goes_on_later(rc)) {
        m->stage = FT_STAGE_NONE;
        ft_leave_next(m);
    }
    return rc;
}
