/* socket.c - the socket backend's table, and what its members do together; see socket.h. Slow: its
 * only promise is to be right where there is no shared memory. */
#include "socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "record.h"

/* serry_member is what the floor above calls a socket_member. */
static socket_member *own(serry_member *member)
{
    return (socket_member *)(void *)member;
}

static const socket_member *own_const(const serry_member *member)
{
    return (const socket_member *)(const void *)member;
}

/* A member, locked. Its state changes under who only asks, too: by what the others have written. */
static socket_member *enter(const serry_member *member)
{
    socket_member *m = (socket_member *)(uintptr_t)member;

    pthread_mutex_lock(&m->mesh->lock);
    return m;
}

static int leave(socket_member *m, int rc)
{
    pthread_mutex_unlock(&m->mesh->lock);
    return rc;
}

static int unsupported(serry_error *error, const char *operation, int rank, const char *what)
{
    serry_error_begin(error, operation, 0, rank);
    return serry_fail(error, SERRY_ERR_UNSUPPORTED, "%s: the socket backend has no %s", operation,
                      what);
}

/* ---- operations -------------------------------------------------------------------------------- */

static int socket_run(serry_member *member, const serry_call *call, const serry_limit *limit,
                      serry_error *error)
{
    socket_member *m = enter(member);

    return leave(m, stream_run(m, &m->stream[WORK], call, limit, error));
}

/* Some agree, or shrink, and others meet, as all of them learn alike. That meeting is over: those
 * who called it go back to what they did, and call another one if that does not help. */
static bool has_met(socket_member *m, const stream *s, int rc)
{
    if (rc != SERRY_ERR_RANK_MISMATCH || s->which != CONTROL || s->decision.id == 0)
        return false;
    m->meetings++;
    return true;
}

/* Others were on their way to a meeting, and will come: once more. */
static int run_unless_met(socket_member *m, stream *s, const serry_call *call,
                          const serry_limit *limit, serry_error *error)
{
    int rc;

    do {
        rc = stream_run(m, s, call, limit, error);
    } while (has_met(m, s, rc));
    return rc;
}

static int socket_agree(serry_member *member, serry_op op, uint64_t *value,
                        const serry_limit *limit, serry_error *error)
{
    const serry_call call = {.kind = SERRY_KIND_ALLREDUCE,
                             .dtype = SERRY_U64,
                             .op = op,
                             .count = 1,
                             .send = value,
                             .recv = value};
    socket_member *m = enter(member);

    return leave(m, run_unless_met(m, &m->stream[CONTROL], &call, limit, error));
}

static int socket_revoke(serry_member *member, serry_error *error)
{
    socket_member *m = enter(member);
    (void)error;

    member_revoke(m);
    return leave(m, SERRY_OK);
}

/* ---- new groups -------------------------------------------------------------------------------- */

static int divide(socket_member *m, stream *s, int colour, int key, const serry_limit *limit,
                  serry_member **part, serry_error *error)
{
    const serry_call call = {
        .kind = SERRY_KIND_SPLIT, .dtype = SERRY_U64, .count = 3, .send = m->own, .recv = m->all};
    socket_member *made = NULL;

    m->own[0] = (uint64_t)(int64_t)colour;
    m->own[1] = (uint64_t)(int64_t)key;
    int rc = run_unless_met(m, s, &call, limit, error);
    if (rc == SERRY_OK && colour >= 0)
        rc = member_make_part(m, s, colour, &made, error);
    *part = (serry_member *)(void *)made;
    return rc;
}

static int socket_split(serry_member *member, int colour, int key, const serry_limit *limit,
                        serry_member **part, serry_error *error)
{
    socket_member *m = enter(member);
    stream *s = &m->stream[WORK];

    *part = NULL;
    if (s->open && s->call.kind == SERRY_KIND_SPLIT && (m->colour != colour || m->key != key)) {
        serry_error_begin(error, "split", s->done + 1, m->rank);
        return leave(m, serry_fail(error, SERRY_ERR_PENDING,
                                   "an earlier split(colour %d, key %d) is still open; repeat that "
                                   "call",
                                   m->colour, m->key));
    }
    m->colour = colour;
    m->key = key;
    return leave(m, divide(m, s, colour, key, limit, part, error));
}

static int socket_shrink(serry_member *member, const serry_limit *limit, serry_member **rest,
                         serry_error *error)
{
    socket_member *m = enter(member);

    return leave(m, divide(m, &m->stream[CONTROL], 0, m->rank, limit, rest, error));
}

/* ---- meetings ---------------------------------------------------------------------------------- */

/* Where all stand: m->all has of each what it has completed, whether it is in the next one, and its
 * vote.
 *
 * If one is ahead, the others have contributed to the operation that it has completed, and hold its
 * decision. If all are in the same operation, it only needs to go on. Else nobody can have completed
 * it: a decision needs the reports of all. Its number is not used again, so that whatever comes for
 * it later is known to be late. */
static void conclude(socket_member *m, uint64_t *votes, int *repeat)
{
    stream *work = &m->stream[WORK];
    const serry_rank_set *alive = &m->stream[CONTROL].alive;
    bool same = true, all_in = true;

    *votes = 0;
    for (int r = 0; r < m->size; r++) {
        const uint64_t *said = &m->all[3 * r];
        if (!serry_rank_set_has(alive, r))
            continue;
        same &= said[0] == work->done;
        all_in &= said[1] != 0;
        *votes |= said[2];
    }
    m->meetings++;
    *repeat = same && !all_in ? SERRY_REPEAT : SERRY_FINISH;
    if (*repeat == SERRY_REPEAT)
        stream_end(m, work);
}

static int socket_meet(serry_member *member, uint64_t vote, const serry_limit *limit,
                       uint64_t *votes, int *repeat, serry_error *error)
{
    socket_member *m = enter(member);
    stream *s = &m->stream[CONTROL], *work = &m->stream[WORK];
    const serry_call call = {
        .kind = SERRY_KIND_MEET, .dtype = SERRY_U64, .count = 3, .send = m->own, .recv = m->all};

    if (!s->open) {
        m->own[0] = work->done;
        m->own[1] = work->open;
        m->own[2] = vote;
        m->called = m->meetings + 1;
        member_tell(m, FRAME_MEET, NULL, m->called);
    }
    int rc = stream_run(m, s, &call, limit, error);
    if (rc == SERRY_OK)
        conclude(m, votes, repeat);
    if (has_met(m, s, rc)) {
        *votes = 0;
        *repeat = SERRY_FINISH;
        rc = SERRY_OK;
    }
    if (rc != SERRY_ERR_TIMEOUT && rc != SERRY_ERR_CANCELLED && rc != SERRY_ERR_AGAIN)
        work->awaited = false;
    return leave(m, rc);
}

static int socket_called(serry_member *member)
{
    socket_member *m = enter(member);

    mesh_pump(m->mesh);
    return leave(m, m->revoked                ? SERRY_ERR_REVOKED
                    : m->called > m->meetings ? SERRY_ERR_MEETING
                                              : SERRY_OK);
}

/* ---- settings ---------------------------------------------------------------------------------- */

static int socket_set_policy(serry_member *member, serry_policy policy, serry_error *error)
{
    if (policy == SERRY_WAIT)
        return unsupported(error, "set_policy", own(member)->rank, "replacements to wait for");
    own(member)->policy = policy;
    return SERRY_OK;
}

static int socket_set_variant(serry_member *member, unsigned variant, serry_error *error)
{
    if (variant == 0)
        return SERRY_OK;
    return unsupported(error, "set_variant", own(member)->rank, "second algorithm");
}

/* ---- messages: socket_message.c ---------------------------------------------------------------- */

static int socket_put(serry_member *member, int dest, const serry_envelope *envelope,
                      const void *data, uint64_t *ticket, serry_error *error)
{
    socket_member *m = enter(member);

    return leave(m, message_put(m, dest, envelope, data, ticket, error));
}

static int socket_settled(serry_member *member, int dest, uint64_t ticket, serry_error *error)
{
    socket_member *m = enter(member);

    return leave(m, message_settled(m, dest, ticket, error));
}

static int socket_withdraw(serry_member *member, int dest, uint64_t ticket)
{
    socket_member *m = enter(member);

    return leave(m, message_withdraw(m, dest, ticket));
}

static int socket_peek(serry_member *member, int source, serry_envelope *envelope,
                       serry_error *error)
{
    socket_member *m = enter(member);

    return leave(m, message_peek(m, source, envelope, error));
}

static int socket_take(serry_member *member, int source, void *data, serry_error *error)
{
    socket_member *m = enter(member);

    return leave(m, message_take(m, source, data, error));
}

static void socket_listen(serry_member *member, serry_interest *interest)
{
    socket_member *m = enter(member);

    message_listen(m, interest);
    leave(m, SERRY_OK);
}

/* ---- memory ------------------------------------------------------------------------------------ */

static void *socket_alloc(serry_member *member, size_t bytes, serry_error *error)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = bytes == 0 ? page : bytes;
    struct memory *memory = malloc(sizeof(*memory));
    void *start = MAP_FAILED;

    whole = (whole + page - 1) / page * page;
    if (memory != NULL && whole >= bytes)
        start = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) {
        free(memory);
        serry_error_begin(error, "alloc", 0, own(member)->rank);
        serry_fail(error, SERRY_ERR_NO_SPACE, "alloc: the system has no %zu bytes of memory",
                   bytes);
        return NULL;
    }
    socket_member *m = enter(member);
    *memory = (struct memory){m->mesh->memory, start, whole};
    m->mesh->memory = memory;
    leave(m, SERRY_OK);
    return start;
}

static int socket_free(serry_member *member, void *memory, serry_error *error)
{
    socket_member *m = enter(member);

    for (struct memory **at = &m->mesh->memory; *at != NULL; at = &(*at)->next)
        if ((*at)->start == memory) {
            struct memory *found = *at;
            *at = found->next;
            munmap(found->start, found->bytes);
            free(found);
            return leave(m, SERRY_OK);
        }
    serry_error_begin(error, "free", 0, m->rank);
    return leave(m, serry_fail(error, SERRY_ERR_INVALID,
                               "%p is not memory that this rank got from serry_alloc", memory));
}

/* ---- questions --------------------------------------------------------------------------------- */

static bool has_failed(const socket_member *m, int rank)
{
    return m->gone[rank] || !serry_rank_set_has(&m->stream[WORK].alive, rank);
}

static void socket_failed(const serry_member *member, serry_rank_set *failed)
{
    socket_member *m = enter(member);

    mesh_pump(m->mesh);
    *failed = (serry_rank_set){{0}};
    for (int r = 0; r < m->size; r++)
        if (has_failed(m, r))
            serry_rank_set_add(failed, r);
    leave(m, SERRY_OK);
}

static int socket_rank(const serry_member *member)
{
    return own_const(member)->rank;
}

static int socket_size(const serry_member *member)
{
    return own_const(member)->size;
}

static int socket_live(const serry_member *member)
{
    return own_const(member)->stream[WORK].alive_count;
}

static void socket_participants(const serry_member *member, serry_rank_set *ranks)
{
    *ranks = own_const(member)->stream[WORK].alive;
}

static uint64_t socket_epoch(const serry_member *member)
{
    return own_const(member)->stream[WORK].epoch;
}

static int socket_vitals(serry_member *member, int rank, serry_vitals *vitals, serry_error *error)
{
    socket_member *m = enter(member);

    *vitals = (serry_vitals){.activity = SERRY_UNKNOWN};
    if (rank < 0 || rank >= m->size) {
        serry_error_begin(error, "vitals", 0, m->rank);
        return leave(m, serry_fail(error, SERRY_ERR_INVALID, "vitals: there is no rank %d", rank));
    }
    mesh_pump(m->mesh);
    const stream *work = &m->stream[WORK];
    const struct stream_peer *peer = &work->peer[rank];
    vitals->failed = has_failed(m, rank);
    vitals->activity = vitals->failed ? SERRY_GONE : SERRY_UNKNOWN;
    vitals->progress = rank == m->rank                     ? work->done
                       : peer->waits > peer->report.number ? peer->waits
                                                           : peer->report.number;
    return leave(m, SERRY_OK);
}

/* ---- not here ---------------------------------------------------------------------------------- */

static int socket_exclude(serry_member *member, int rank, serry_exclusion how, serry_error *error)
{
    (void)rank, (void)how;
    return unsupported(error, "exclude", own(member)->rank, "means to exclude a rank that lives");
}

const serry_backend serry_backend_socket = {
    .name = "socket",
    .open = socket_open,
    .close = socket_close,
    .forget = socket_forget,
    .run = socket_run,
    .split = socket_split,
    .set_policy = socket_set_policy,
    .set_variant = socket_set_variant,
    .failed = socket_failed,
    .revoke = socket_revoke,
    .agree = socket_agree,
    .shrink = socket_shrink,
    .meet = socket_meet,
    .called = socket_called,
    .put = socket_put,
    .settled = socket_settled,
    .withdraw = socket_withdraw,
    .peek = socket_peek,
    .take = socket_take,
    .listen = socket_listen,
    .alloc = socket_alloc,
    .free = socket_free,
    .rank = socket_rank,
    .size = socket_size,
    .live = socket_live,
    .participants = socket_participants,
    .epoch = socket_epoch,
    .vitals = socket_vitals,
    .exclude = socket_exclude,
};
