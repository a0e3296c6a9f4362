/* meeting.c - all living members stop, find out where they stand, and go on together: in a new group,
 * with replacements of those that failed, or with the operation that some had all but completed.
 *
 * A meeting is called by setting the group's call (group_call_all). Operations end with
 * SERRY_ERR_MEETING when they wait or when they begin, and stay as they are. Each member comes with
 *
 *   n        how many operations it has completed
 *   begun    it has published a step of operation n+1
 *   passed   such a step has been decided for it: it went on to the next, or found members missing
 *   dropped  under SERRY_WAIT: it found members missing, and waits
 *
 * and all give that to each other on the control words, so who gives is a pure function of those
 * words, and everybody who gives decides alike. Let m be the greatest n + passed: the last operation
 * that one of them has been decided about.
 *
 *   n + begun < m   This member has not contributed to m, so it must be sealed: it is excluded.
 *   n < m           m is open here. All have contributed to it, so it completes: run it again and
 *                   hear no meeting until it has ended (SERRY_FINISH). Who has completed it comes
 *                   again at once, the others at their next operation. Where somebody has dropped m,
 *                   all have, or will: it counts as not begun.
 *   else            m+1 is open, or not begun. Somebody who gives nothing may have completed it and
 *                   left. He did before his control word was sealed, so now everybody who has it open
 *                   can see that it is decided. In the next exchange they say so: if one does, all
 *                   finish it as above. (Where he did so without this one, which only slept, this
 *                   one's word is sealed: it looks before it goes on.) Otherwise nobody is past its
 *                   first step, no output was touched: all drop it, and the group is replaced
 *                   (SERRY_REPEAT).
 *
 * Who waits in an exchange may wait for one who has completed the operation that is open here, because
 * all had contributed by then, and who waits on another communicator for the first. So a member that
 * finds its open operation decided does not wait for positions: it finishes the operation (SERRY_FINISH),
 * leaves the exchange open, and goes on with it at its next operation. What it gave is old by then, and
 * all others follow from what it gave, so:
 *
 *   FINISH     is "again" for who has finished it already.
 *   REPLACE    Who has moved since says so in the next exchange, like who sees that its operation is
 *              decided, and who has said so need not wait there either. Who left before all positions
 *              were given saw a decision that all others see when they are given; so who has not said
 *              so does not wait for one that left.
 *
 * Replacing is done as in split.c: in the second exchange the first giver has made the new group and
 * tells where; each gives memory to its region and tells in a third that it has. If the set of givers
 * shrinks between two exchanges, all begin again. In the new group the ranks are the same, and steps
 * begin at 1. Present in it is who was present in the old one, and the replacements; who did not come
 * is sealed in it from the beginning, so that the next operation finds it missing and does what the
 * policy says.
 *
 * serry_agree and serry_shrink use the same control words. A member that meets, and one that agrees,
 * find a mismatch, alike: who agrees tries again, who meets puts the meeting off. Nobody hears of it
 * until the operation after the last that one who met has completed is over: the same one for all, or
 * some would meet while others wait for them in it. */
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "record.h"
#include "regroup.h"
#include "word.h"

enum { PHASE_POSITIONS = 1, PHASE_MEMORY, PHASE_READY };

enum { LEFT_OPEN = OPERATION_GOES_ON + 1 }; /* of an exchange: this member finishes its operation */

#define LOOK_NS 2000000 /* in an exchange, between two looks at the operation that is open */

#define DECIDED UINT64_C(1) /* beside an offset, which is one of a page */

enum { POSITION_PASSED = 1, POSITION_BEGUN = 2, POSITION_DROPPED = 4, POSITION_SHIFT = 3 };

/* ---- positions --------------------------------------------------------------------------------- */

static uint64_t position(const shm_member *m)
{
    bool begun = m->open && (m->published || m->passed), passed = m->open && m->passed;

    return m->operations << POSITION_SHIFT | (m->dropped ? POSITION_DROPPED : 0) |
           (begun ? POSITION_BEGUN : 0) | (passed ? POSITION_PASSED : 0);
}

static uint64_t completed(uint64_t position)
{
    return position >> POSITION_SHIFT;
}

static uint64_t reached(uint64_t position)
{
    return completed(position) + (position & POSITION_BEGUN ? 1 : 0);
}

static uint64_t decided(uint64_t position)
{
    bool counts = (position & POSITION_PASSED) != 0 && (position & POSITION_DROPPED) == 0;

    return completed(position) + (counts ? 1 : 0);
}

enum verdict { VERDICT_EXCLUDED, VERDICT_FINISH, VERDICT_AGAIN, VERDICT_REPLACE };

/* *last: the latest operation that one of them has been decided about. */
static enum verdict judge(const shm_member *m, uint64_t *last)
{
    const shm_member *c = m->control;
    const uint64_t *all = m->meeting.all;
    bool finish = false, dropped = false;

    *last = 0;
    for (int i = 0; i < c->alive_count; i++) {
        uint64_t p = all[2 * c->alive[i]];
        *last = decided(p) > *last ? decided(p) : *last;
    }
    for (int i = 0; i < c->alive_count; i++) {
        uint64_t p = all[2 * c->alive[i]];
        dropped |= (p & POSITION_DROPPED) != 0 && completed(p) + 1 == *last;
        finish |= completed(p) < *last && reached(p) >= *last;
    }
    if (reached(m->meeting.given) < *last)
        return VERDICT_EXCLUDED;
    if (finish && !dropped)
        return m->operations < *last ? VERDICT_FINISH : VERDICT_AGAIN;
    return VERDICT_REPLACE;
}

static void begin(shm_member *m)
{
    m->meeting.phase = PHASE_POSITIONS;
    m->meeting.given = m->meeting.own[0] = position(m);
    m->meeting.own[1] = m->meeting.vote;
    m->meeting.code = SERRY_OK;
    m->meeting.offset = 0;
    m->meeting.made = false; /* what an error left behind goes with the arena */
    serry_error_begin(&m->meeting.error, "meet", m->operations + 1, m->group.rank);
}

/* Once all positions are known. */
static void take_down(shm_member *m)
{
    const shm_member *c = m->control;

    m->meeting.votes = m->meeting.until = 0;
    for (int i = 0; i < c->alive_count; i++) {
        const uint64_t *gave = &m->meeting.all[2 * c->alive[i]];
        m->meeting.votes |= gave[1];
        if (completed(gave[0]) >= m->meeting.until)
            m->meeting.until = completed(gave[0]) + 1;
    }
}

/* Is the operation that this member has open decided for all, by now? */
static bool sees_decided(const shm_member *m)
{
    bool open = m->open && m->published;

    for (int i = 0; i < m->alive_count && open; i++) {
        const _Atomic uint64_t *word = &group_cell_of(&m->group, m->alive[i])->word;
        open = word_decided(atomic_load_explicit(word, memory_order_acquire), m->step);
    }
    return open;
}

/* Has it been decided about since it gave its position, or could it be? */
static bool has_moved(const shm_member *m)
{
    return sees_decided(m) || position(m) != m->meeting.given;
}

/* ---- exchanges --------------------------------------------------------------------------------- */

/* Members that meet, and are in different phases, must not take each other's words for their own. */
static serry_call call_of(int phase)
{
    return (serry_call){.kind = SERRY_KIND_MEET, .dtype = SERRY_U64, .root = phase, .count = 2};
}

/* Whoever polls may sleep as long as doze. */
static void hurry(serry_interest *interest)
{
    uint64_t soon = wait_now_ns() + LOOK_NS;

    if (interest->at_ns > soon)
        interest->at_ns = soon;
}

/* Until the word changes, but not for long. */
static void doze(const serry_interest *interest)
{
    const struct timespec most = {0, LOOK_NS};

    syscall(SYS_futex, interest->word, FUTEX_WAIT, interest->value, &most, NULL, 0);
}

/* Poll the exchange, and look at the open operation before each time: where that is decided and the
 * exchange is not yet, leave. */
static int run_and_look(shm_member *m, const serry_call *call, serry_error *error)
{
    wait_limit *limit = &m->control->limit;
    const serry_limit *given = limit->given;
    serry_limit polled = *given;
    serry_interest interest = {.sleep = true};
    bool leaves;
    int rc;

    if (given->poll == NULL)
        polled.poll = &interest;
    limit->given = &polled;
    do {
        leaves = sees_decided(m);
        rc = operation_run(m->control, call, error);
        if (rc != SERRY_ERR_AGAIN || leaves || given->poll != NULL)
            break;
        doze(&interest);
    } while (true);
    limit->given = given;
    if (rc != SERRY_ERR_AGAIN)
        return rc;
    hurry(polled.poll);
    return leaves ? LEFT_OPEN : rc;
}

static int exchange(shm_member *m, bool may_leave, serry_error *error)
{
    shm_member *c = m->control;
    serry_call call = call_of(m->meeting.phase);
    bool positions = m->meeting.phase == PHASE_POSITIONS,
         said = m->meeting.phase == PHASE_MEMORY && (m->meeting.own[0] & DECIDED) != 0;
    int rc;

    call.send = m->meeting.own;
    call.recv = m->meeting.all;
    /* Who has said that he is ready goes where the others go: none of them may be kept from it. */
    c->hears = m->meeting.phase == PHASE_READY ? GROUP_CALLS : GROUP_CALL_REVOKED;
    if (may_leave && m->open && m->published && (positions || said))
        rc = run_and_look(m, &call, error);
    else
        rc = operation_run(c, &call, error);
    c->hears = GROUP_CALLS;
    return rc;
}

/* ---- putting it off ---------------------------------------------------------------------------- */

/* Up to the end of that operation. */
static void be_deaf(shm_member *m, uint64_t until)
{
    if (until <= m->operations)
        return;
    m->deaf = true;
    m->deaf_until = until;
    m->hears = GROUP_CALL_REVOKED;
}

/* Nobody comes out of the meeting with anything changed. */
static int put_off(shm_member *m, uint64_t until, int *repeat)
{
    m->meeting.phase = 0;
    be_deaf(m, until);
    *repeat = SERRY_FINISH;
    return SERRY_OK;
}

/* It goes on at the next operation. */
static int leave_open(shm_member *m, int *repeat)
{
    be_deaf(m, m->operations + 1);
    *repeat = SERRY_FINISH;
    return LEFT_OPEN;
}

/* The positions of those that met in this exchange; past the first one, all had known them all. */
static uint64_t met_until(const shm_member *c, uint64_t known)
{
    const serry_call call = call_of(PHASE_POSITIONS);
    uint64_t signature = operation_signature(c, &call), until = 0;

    for (int i = 0; i < c->alive_count; i++) {
        const group_cell *cell = group_cell_of(&c->group, c->alive[i]);
        uint64_t gave = completed(cell->data[c->step & 1][0]) + 1;
        if (cell->signature[c->step & 1] == signature && gave > until)
            until = gave;
    }
    return until > 0 ? until : known;
}

void meeting_put_off(shm_member *control)
{
    shm_member *m = control->owner;

    be_deaf(m, met_until(control, m->meeting.until));
}

/* ---- the meeting ------------------------------------------------------------------------------- */

static bool is_maker(const shm_member *m)
{
    return m->control->alive[0] == m->group.rank;
}

static void abandon(shm_member *m)
{
    if (m->meeting.phase < PHASE_READY)
        regroup_unmake(m);
    else
        regroup_abandon(m);
}

/* After all it was decided. Who has not contributed to it is sealed. */
static int finish_first(shm_member *m, int *repeat, serry_error *error)
{
    regroup_unmake(m);
    if (m->open)
        return put_off(m, m->operations + 1, repeat);
    if (!has_moved(m)) {
        m->error = error;
        return operation_fail_excluded(m);
    }
    begin(m);
    return OPERATION_GOES_ON;
}

static void say(shm_member *m, uint64_t first, int code)
{
    m->meeting.own[0] = first;
    m->meeting.own[1] = (uint64_t)(int64_t)code;
}

/* All stand at the same operation, as far as their positions tell. */
static int replace(shm_member *m, serry_error *error)
{
    bool moved = has_moved(m);

    if (!word_second_look(&m->own->word)) {
        m->error = error;
        return operation_fail_excluded(m);
    }
    m->meeting.alive_count = m->control->alive_count;
    m->meeting.givers = m->control->alive_set;
    m->meeting.phase = PHASE_MEMORY;
    m->meeting.offset = 0;
    m->meeting.code = is_maker(m) && !moved ? regroup_make(m) : SERRY_OK;
    say(m, m->meeting.offset | (moved ? DECIDED : 0), m->meeting.code);
    return OPERATION_GOES_ON;
}

static int judged(shm_member *m, int *repeat, serry_error *error)
{
    uint64_t last;

    take_down(m);
    switch (judge(m, &last)) {
    case VERDICT_EXCLUDED:
        m->error = error;
        return operation_fail_excluded(m);
    case VERDICT_FINISH:
        return put_off(m, last, repeat);
    case VERDICT_AGAIN:
        begin(m);
        return OPERATION_GOES_ON;
    case VERDICT_REPLACE:
    default:
        return replace(m, error);
    }
}

/* What follows when the exchange of a phase has ended well. OPERATION_GOES_ON: with the next one. */
static int advance(shm_member *m, int *repeat, serry_error *error)
{
    const shm_member *c = m->control;
    const uint64_t *all = m->meeting.all;

    switch (m->meeting.phase) {
    case PHASE_POSITIONS:
        return judged(m, repeat, error);
    case PHASE_MEMORY:
        for (int i = 0; i < c->alive_count; i++)
            if (all[2 * c->alive[i]] & DECIDED)
                return finish_first(m, repeat, error);
        m->meeting.offset = all[2 * c->alive[0]];
        m->meeting.code = (int)(int64_t)all[2 * c->alive[0] + 1];
        if (m->meeting.code == SERRY_OK)
            m->meeting.code = regroup_settle(m);
        m->meeting.phase = PHASE_READY;
        say(m, 0, m->meeting.code);
        return OPERATION_GOES_ON;
    default:
        for (int i = 0; i < c->alive_count && m->meeting.code == SERRY_OK; i++)
            m->meeting.code = (int)(int64_t)all[2 * c->alive[i] + 1];
        return SERRY_OK;
    }
}

/* All have said that they are ready, or that they cannot be. */
static int finish(shm_member *m, int *repeat, serry_error *error)
{
    int rc = m->meeting.code == SERRY_OK ? regroup_enter(m) : m->meeting.code;

    if (rc != SERRY_OK)
        regroup_unmake(m);
    m->meeting.phase = 0;
    m->meeting.made = false;
    *repeat = SERRY_REPEAT;
    if (rc == SERRY_OK)
        return SERRY_OK;
    if (m->meeting.error.error == SERRY_OK)
        serry_fail(&m->meeting.error, rc,
                   "another rank could not get memory to go on with; give the arena more with "
                   "SERRY_POOL (or pool_bytes)");
    *error = m->meeting.error;
    return rc;
}

/* One exchange, and what follows from it. */
static int proceed(shm_member *m, bool may_leave, int *repeat, serry_error *error)
{
    const shm_member *c = m->control;
    int rc = exchange(m, may_leave, error);

    if (rc == LEFT_OPEN)
        return leave_open(m, repeat);
    if (rc == SERRY_ERR_RANK_MISMATCH && c->met) {
        abandon(m);
        m->meeting.votes = 0;
        return put_off(m, met_until(c, m->meeting.until), repeat);
    }
    if (rc != SERRY_OK)
        return rc;
    if (m->meeting.phase > PHASE_POSITIONS && c->alive_count != m->meeting.alive_count) {
        abandon(m);
        begin(m);
        return OPERATION_GOES_ON;
    }
    rc = advance(m, repeat, error);
    return rc == SERRY_OK && m->meeting.phase == PHASE_READY ? finish(m, repeat, error) : rc;
}

static int meet(shm_member *m, uint64_t vote, uint64_t *votes, int *repeat, serry_error *error)
{
    int rc;

    *votes = 0;
    m->meeting.vote = vote;
    if (m->meeting.phase == 0 && sees_decided(m))
        return put_off(m, m->operations + 1, repeat);
    if (m->meeting.phase == 0) {
        group_call_all(&m->group, GROUP_CALL_MEETING);
        begin(m);
    }
    do {
        rc = proceed(m, true, repeat, error);
    } while (rc == OPERATION_GOES_ON);
    if (rc == LEFT_OPEN)
        return SERRY_OK;
    if (rc == SERRY_OK)
        *votes = m->meeting.votes;
    else if (wait_is_over(rc)) /* SERRY_ERR_PENDING: it had not begun */
        m->meeting.phase = 0;
    return rc;
}

int meeting_run(shm_member *m, uint64_t vote, uint64_t *votes, int *repeat, serry_error *error)
{
    int rc = meet(m, vote, votes, repeat, error);

    if (wait_is_over(rc)) /* the call that waits for it begins, or fails */
        m->news &= ~(unsigned)NEWS_AWAITED;
    return rc;
}

int meeting_clear(shm_member *m, serry_error *error)
{
    shm_member *c = m->control;
    int repeat, rc;

    if (!c->open || c->call.kind != SERRY_KIND_MEET)
        return SERRY_OK;
    if (m->meeting.phase != PHASE_READY && group_called(&m->group) == GROUP_CALL_REVOKED) {
        c->open = false;
        m->meeting.phase = 0;
        return SERRY_OK;
    }
    do {
        rc = proceed(m, false, &repeat, error);
    } while (rc == OPERATION_GOES_ON && m->meeting.phase == PHASE_READY);
    if (!wait_is_over(rc))
        return rc;
    if (rc == OPERATION_GOES_ON)
        regroup_unmake(m); /* nobody knows of it */
    m->meeting.phase = 0;
    return SERRY_OK;
}
