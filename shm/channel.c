/* channel.c - messages from one member to another: a ring of lines for each pair that talks.
 *
 *   sender                                          receiver
 *   (1) writes the data, then the line        +---> waits for `number` to be the next one
 *   (2) number = n, seq_cst  -----------------+     copies the data
 *   (3) looks at the receiver's bell                taken = n, seq_cst; looks at the sender's bell
 *       line n % 64, and what it held in the ring or in a box, is written again when taken >= n
 *
 * The line of a message says where its data is: in the line (up to 40 bytes), in the ring of bytes that
 * follows the lines, in a box (channel_box.c), or where the sender has it. Each line has one writer, and
 * a message exists from (2) on, whole. So a sender that is killed anywhere leaves nothing half.
 *
 * The last of the four is a ticket: memory that the receiver reaches is not copied by the sender, which
 * must leave it alone until `taken` says that it may not. Such a message is sent completely only then.
 * So where the sender has failed or left before, the receiver passes over it. A sender that lives takes
 * it back (channel_withdraw) before its caller may write there, whatever the error is, so what the receiver
 * has claimed, copied and still has is whole, also where the sender has been sealed meanwhile.
 *
 * Evidence is the seal of the other's word for operations. A receiver that finds no message and then a
 * seal looks for a message once more: who publishes looks at its own word afterwards (seq_cst on both
 * sides), so either the sender learns that it is excluded, or the receiver finds the message. From then on
 * nothing comes from there, whatever a sealed sleeper may still write.
 *
 * The bell: who is about to sleep sets its asleep bit, then looks for everything once more. Who has news
 * publishes, then looks at the bell: so one of both sees the other. Rung by put, by take, by every seal of
 * a member, and by the calls of a group.
 *
 * A channel is made by its sender, at its first message, and found by the receiver through the
 * sender's group_mail. The sender, the receiver and the communicator are on record with its memory
 * (layout.h, arena_extent), and that of boxes. It is given back when both ends are done with it: they
 * have left the communicator, or met without the other, or are gone. So messages can be received
 * after their sender has died or left, and a stopped rank that wakes up finds its memory where it
 * was. When a group is replaced, ranks that stay keep their channels and say where they are in the new
 * group; what was under way from or to a rank that is replaced is lost. */
#include "channel.h"

#include <stdlib.h>
#include <string.h>

#include "extent.h"
#include "heap.h"
#include "record.h"
#include "word.h"

#define COLD __attribute__((cold, noinline))
#define KIB 1024u
#define NAP_NS UINT64_C(100000000) /* a rank that is killed rings no bells */

_Static_assert((CHANNEL_LINES & (CHANNEL_LINES - 1)) == 0, "a power of two");

/* ---- why not ----------------------------------------------------------------------------------- */

COLD int channel_fail_excluded(shm_member *m, const char *what, serry_error *error)
{
    m->excluded = true;
    serry_error_begin(error, what, 0, m->group.rank);
    return serry_fail(
        error, SERRY_ERR_EXCLUDED,
        "the other ranks went on without rank %d, which was taken for failed; nothing "
        "was handed out",
        m->group.rank);
}

static COLD int fail_revoked(const shm_member *m, const char *what, serry_error *error)
{
    serry_error_begin(error, what, 0, m->group.rank);
    return serry_fail(error, SERRY_ERR_REVOKED,
                      "the communicator was revoked; only shrink, agree, get_failed and finalize "
                      "work on it");
}

static COLD void blame(const shm_member *m, const char *what, int peer, serry_error *error)
{
    serry_error_begin(error, what, 0, m->group.rank);
    if (error != NULL) {
        error->peer = peer;
        serry_rank_set_add(&error->ranks, peer);
    }
}

static bool is_sealed(const shm_member *m)
{
    return (atomic_load_explicit(&m->own->word, memory_order_seq_cst) & WORD_SEALED) != 0;
}

COLD int channel_fail_ended(shm_member *m, const char *what, int peer, serry_error *error)
{
    if (is_sealed(m)) /* looked at after the other one's word */
        return channel_fail_excluded(m, what, error);
    blame(m, what, peer, error);
    return serry_fail(error, SERRY_ERR_RANK_FAILED, "%s: rank %d has left or failed", what, peer);
}

COLD int channel_fail_arena(const shm_member *m, const char *what, int peer, serry_error *error)
{
    blame(m, what, peer, error);
    return serry_fail(error, SERRY_ERR_ARENA, "%s: the channel to rank %d is not what it should be",
                      what, peer);
}

COLD int channel_fail_memory(const shm_member *m, const char *what, serry_error *error)
{
    serry_error_begin(error, what, 0, m->group.rank);
    return serry_fail(error, SERRY_ERR_NO_SPACE, "%s: out of memory for messages", what);
}

int channel_may(shm_member *m, const char *what, serry_error *error)
{
    if (__builtin_expect(m->excluded || is_sealed(m), 0))
        return channel_fail_excluded(m, what, error);
    if (__builtin_expect(group_called(&m->group) == GROUP_CALL_REVOKED, 0))
        return fail_revoked(m, what, error);
    return SERRY_OK;
}

/* ---- making it --------------------------------------------------------------------------------- */

shm_mail *channel_mail(shm_member *m)
{
    if (m->mail == NULL)
        m->mail = calloc(1, sizeof(*m->mail));
    return m->mail;
}

/* All pairs of a large group together need not take more than those of a small one. */
uint64_t channel_ring_bytes(int size)
{
    return size <= 8 ? 64 * KIB : size <= 16 ? 32 * KIB : size <= 32 ? 16 * KIB : 8 * KIB;
}

extent_post channel_post(const shm_member *m, int dest)
{
    const group_header *header = m->group.header;

    return (extent_post){header->communicator, header->slot[m->group.rank], header->slot[dest]};
}

static COLD int make_channel(shm_member *m, int dest, channel_out *out, serry_error *error)
{
    extent_post post = channel_post(m, dest);
    uint64_t ring = channel_ring_bytes(m->group.size);
    serry_error failed;

    serry_error_begin(&failed, "send", 0, m->group.rank);
    int rc = extent_take_post(m->group.arena, &post, &group_cell_of(&m->group, dest)->word,
                              sizeof(channel) + ring, &out->offset, &failed);
    if (rc == SERRY_ERR_RANK_FAILED)
        return channel_fail_ended(m, "send", dest, error);
    if (rc != SERRY_OK) {
        if (rc != SERRY_ERR_AGAIN && error != NULL)
            *error = failed;
        return rc;
    }
    channel *shared = (channel *)(void *)(m->group.arena->base + out->offset);
    shared->ring_bytes = ring;
    shared->communicator = post.communicator;
    shared->source = post.source;
    shared->dest = post.dest;
    atomic_store_explicit(&group_mail_of(&m->group, m->group.rank)->channel[dest], out->offset,
                          memory_order_seq_cst);
    out->shared = shared;
    return SERRY_OK;
}

static COLD int open_channel(shm_member *m, int dest, serry_error *error)
{
    shm_mail *mail = channel_mail(m);

    if (mail != NULL && mail->out[dest] == NULL)
        mail->out[dest] = calloc(1, sizeof(*mail->out[dest]));
    if (mail == NULL || mail->out[dest] == NULL)
        return channel_fail_memory(m, "send", error);
    if (mail->out[dest]->shared != NULL)
        return SERRY_OK;
    return make_channel(m, dest, mail->out[dest], error);
}

/* ---- sending ----------------------------------------------------------------------------------- */

int channel_refresh(const shm_member *m, int dest, channel_out *out, serry_error *error)
{
    uint64_t taken = atomic_load_explicit(&out->shared->taken, memory_order_seq_cst);

    if (taken < out->taken || taken > out->sent)
        return channel_fail_arena(m, "send", dest, error);
    if (taken != out->taken) /* else its place may be that of the message which is being put */
        out->freed = out->end[(taken - 1) % CHANNEL_LINES];
    out->taken = taken;
    return SERRY_OK;
}

/* A piece of the ring that does not wrap. Bytes are at most half of it, so there is always one when all
 * is taken. */
static int find_room(const shm_member *m, int dest, channel_out *out, uint64_t bytes, uint64_t *at,
                     serry_error *error)
{
    uint64_t ring = channel_ring_bytes(m->group.size), mask = ring - 1;

    bytes = (bytes + SHM_LINE - 1) / SHM_LINE * SHM_LINE;
    *at = out->written;
    if ((*at & mask) + bytes > ring)
        *at = (*at | mask) + 1;
    if (*at + bytes - out->freed > ring) {
        int rc = channel_refresh(m, dest, out, error);
        if (rc != SERRY_OK)
            return rc;
        if (*at + bytes - out->freed > ring)
            return SERRY_ERR_AGAIN;
    }
    out->end[out->sent % CHANNEL_LINES] = *at + bytes; /* counts when it is sent */
    *at &= mask;
    return SERRY_OK;
}

/* Can the receiver read it where it is? */
static bool is_reachable(const shm_member *m, int dest, const void *data, uint64_t bytes,
                         uint64_t *where)
{
    const shm_arena *arena = m->group.arena;

    if (dest == m->group.rank)
        return false;
    if (arena->kind == SERRY_THREADS) {
        *where = (uintptr_t)data;
        return true;
    }
    return heap_find(arena, data, bytes, where) &&
           ((*where & HEAP_BIT) == 0 ||
            heap_is_shared_with(arena, m->group.header->slot[dest] % SHM_SLOTS));
}

/* What does not fit into the line. */
static int place_large(shm_member *m, int dest, channel_out *out, uint64_t bytes, const void *data,
                       channel_line *line, serry_error *error)
{
    unsigned char *to = NULL;
    uint64_t where;
    int rc = SERRY_OK;

    if (bytes <= channel_ring_bytes(m->group.size) / 2) {
        rc = find_room(m, dest, out, bytes, &where, error);
        to = (unsigned char *)(out->shared + 1);
        line->place = PLACE_RING;
    } else if (is_reachable(m, dest, data, bytes, &where)) {
        line->place = PLACE_SENDER;
        atomic_store_explicit(&line->claim, CLAIM_OFFERED, memory_order_relaxed);
    } else {
        rc = channel_take_box(m, dest, out, bytes, &where, error);
        to = m->group.arena->base;
        line->place = PLACE_BOX;
    }
    if (rc != SERRY_OK)
        return rc;
    if (to != NULL)
        memcpy(to + where, data, bytes);
    line->where = where;
    return SERRY_OK;
}

/* All that is written here is the sender's alone until the number stands. */
static int place(shm_member *m, int dest, channel_out *out, const serry_envelope *envelope,
                 const void *data, serry_error *error)
{
    channel_line *line = &out->shared->line[out->sent % CHANNEL_LINES];
    int rc = SERRY_OK;

    out->end[out->sent % CHANNEL_LINES] = out->written;
    line->bytes = envelope->bytes;
    line->tag = envelope->tag;
    line->dtype = (uint16_t)envelope->dtype;
    if (envelope->bytes <= CHANNEL_INLINE) {
        line->place = PLACE_LINE;
        if (envelope->bytes != 0)
            memcpy(line->data, data, envelope->bytes);
    } else {
        rc = place_large(m, dest, out, envelope->bytes, data, line, error);
    }
    return rc;
}

/* A line is free? */
static int find_line(const shm_member *m, int dest, channel_out *out, serry_error *error)
{
    if (__builtin_expect(out->sent - out->taken < CHANNEL_LINES, 1))
        return SERRY_OK;
    int rc = channel_refresh(m, dest, out, error);
    if (rc == SERRY_OK && out->sent - out->taken >= CHANNEL_LINES)
        rc = SERRY_ERR_AGAIN;
    return rc;
}

int channel_put(shm_member *m, int dest, const serry_envelope *envelope, const void *data,
                uint64_t *ticket, serry_error *error)
{
    int rc = channel_may(m, "send", error);

    *ticket = 0;
    if (rc != SERRY_OK)
        return rc;
    if (channel_has_ended(m, dest))
        return channel_fail_ended(m, "send", dest, error);
    if (m->mail == NULL || m->mail->out[dest] == NULL || m->mail->out[dest]->shared == NULL)
        rc = open_channel(m, dest, error);
    if (rc != SERRY_OK)
        return rc;
    channel_out *out = m->mail->out[dest];
    rc = find_line(m, dest, out, error);
    if (rc == SERRY_OK)
        rc = place(m, dest, out, envelope, data, error);
    if (rc != SERRY_OK)
        return rc;

    channel_line *line = &out->shared->line[out->sent % CHANNEL_LINES];
    out->written = out->end[out->sent++ % CHANNEL_LINES];
    if (line->place == PLACE_SENDER)
        *ticket = out->sent;
    atomic_store_explicit(&line->number, out->sent, memory_order_seq_cst);
    if (__builtin_expect(is_sealed(m), 0) && *ticket == 0)
        return channel_fail_excluded(m, "send", error);
    channel_ring(m, dest);
    return SERRY_OK; /* and a sealed one hears when it asks whether it is settled */
}

static _Atomic uint32_t *claim_of(const channel_out *out, uint64_t ticket)
{
    return &out->shared->line[(ticket - 1) % CHANNEL_LINES].claim;
}

/* A receiver that is stopped before it says that it has taken it holds nobody up. */
static bool is_read(const channel_out *out, uint64_t ticket)
{
    return atomic_load_explicit(&out->shared->taken, memory_order_seq_cst) >= ticket ||
           atomic_load_explicit(claim_of(out, ticket), memory_order_acquire) == CLAIM_READ;
}

int channel_settled(shm_member *m, int dest, uint64_t ticket, serry_error *error)
{
    channel_out *out = m->mail == NULL ? NULL : m->mail->out[dest];

    if (out == NULL || out->shared == NULL) /* a replacement has its place */
        return channel_fail_ended(m, "send", dest, error);
    for (bool last = false;; last = true) {
        if (is_read(out, ticket))
            return SERRY_OK;
        int rc = channel_may(m, "send", error);
        if (rc != SERRY_OK) /* the caller gets its memory back, so nobody may read there any more */
            return channel_withdraw(m, dest, ticket) == SERRY_OK ? rc : SERRY_ERR_AGAIN;
        if (last)
            return channel_fail_ended(m, "send", dest, error);
        if (!channel_has_ended(m, dest))
            return SERRY_ERR_AGAIN;
    }
}

int channel_withdraw(shm_member *m, int dest, uint64_t ticket)
{
    const channel_out *out = m->mail == NULL ? NULL : m->mail->out[dest];

    if (out == NULL || out->shared == NULL || channel_has_ended(m, dest))
        return SERRY_OK;
    if (atomic_load_explicit(&out->shared->taken, memory_order_seq_cst) >= ticket)
        return SERRY_ERR_AGAIN;
    _Atomic uint32_t *claim = claim_of(out, ticket);
    uint32_t seen = CLAIM_OFFERED;
    while (!atomic_compare_exchange_strong_explicit(claim, &seen, CLAIM_WITHDRAWN,
                                                    memory_order_acq_rel, memory_order_acquire))
        if (seen != CLAIM_READING || m->group.arena->kind == SERRY_THREADS)
            return seen == CLAIM_WITHDRAWN ? SERRY_OK : SERRY_ERR_AGAIN;
    return SERRY_OK;
}

/* ---- waiting, moving, ending ------------------------------------------------------------------- */

void channel_listen(shm_member *m, serry_interest *interest)
{
    _Atomic uint64_t *bell = &group_mail_of(&m->group, m->group.rank)->bell;
    uint64_t seen = interest->sleep
                        ? atomic_fetch_or_explicit(bell, WORD_ASLEEP, memory_order_seq_cst)
                        : atomic_load_explicit(bell, memory_order_seq_cst);

    interest->word = (uint32_t *)(void *)bell;
    interest->value = (uint32_t)(interest->sleep ? seen | WORD_ASLEEP : seen);
    interest->at_ns = wait_now_ns() + NAP_NS;
    interest->pauses = m->plan.pauses;
    interest->yields = m->plan.yields;
}

/* Of one member that stays: where this rank's channel to it is. */
static void keep(const shm_member *m, int rank)
{
    const channel_out *out = m->mail->out[rank];

    if (out != NULL && out->shared != NULL)
        atomic_store_explicit(&group_mail_of(&m->group, m->group.rank)->channel[rank], out->offset,
                              memory_order_seq_cst);
}

static void forget(shm_mail *mail, int rank)
{
    free(mail->out[rank]);
    free(mail->in[rank]);
    mail->out[rank] = NULL;
    mail->in[rank] = NULL;
}

void channel_move(shm_member *m, const shm_group *old)
{
    const group_header *header = m->group.header;

    for (int r = 0; r < m->group.size; r++) {
        bool stays = !serry_rank_set_has(&header->joined, r);
        if (stays)
            channel_find(m, old, r);
        if (m->mail != NULL && stays)
            keep(m, r);
        else if (m->mail != NULL)
            forget(m->mail, r);
    }
    extent_end_posts(m->group.arena, header->communicator, header->slot[m->group.rank],
                     header->slot, m->group.size);
    group_ring_all(&m->group); /* who has come before found nothing */
}

void channel_free(shm_member *m)
{
    for (int r = 0; r < (int)SERRY_MAX_RANKS && m->mail != NULL; r++)
        forget(m->mail, r);
    free(m->mail);
}
