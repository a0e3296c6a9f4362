/* channel_take.c - the receiver's side of a channel: see channel.c. */
#include "channel.h"

#include <stdlib.h>
#include <string.h>

#include "heap.h"
#include "slot.h"
#include "word.h"

/* The channel that `source` says it has to this rank; NULL: that cannot be. */
static channel *check(const shm_member *m, int source, uint64_t offset)
{
    const group_header *header = m->group.header;
    uint64_t ring = channel_ring_bytes(m->group.size);
    channel *shared = arena_in_pool(m->group.arena, offset, sizeof(channel) + ring);

    if (shared == NULL || offset % SHM_PAGE != 0 || shared->ring_bytes != ring ||
        shared->communicator != header->communicator || shared->source != header->slot[source] ||
        shared->dest != header->slot[m->group.rank])
        return NULL;
    return shared;
}

static channel_in *side_of(shm_member *m, int source)
{
    shm_mail *mail = channel_mail(m);

    if (mail != NULL && mail->in[source] == NULL)
        mail->in[source] = calloc(1, sizeof(*mail->in[source]));
    return mail == NULL ? NULL : mail->in[source];
}

int channel_find(shm_member *m, const shm_group *group, int source)
{
    if (!group_is_settled(group, source))
        return SERRY_ERR_AGAIN;
    uint64_t offset = atomic_load_explicit(&group_mail_of(group, source)->channel[group->rank],
                                           memory_order_seq_cst);
    if (offset == 0)
        return SERRY_ERR_AGAIN;
    channel_in *in = side_of(m, source);
    if (in == NULL)
        return SERRY_ERR_NO_SPACE;
    if (in->shared == NULL)
        in->shared = check(m, source, offset);
    return in->shared == NULL ? SERRY_ERR_ARENA : SERRY_OK;
}

static const channel_line *next_line(const channel_in *in)
{
    return &in->shared->line[in->taken % CHANNEL_LINES];
}

static uint32_t slot_of(const shm_member *m, int source)
{
    return m->group.header->slot[source] % SHM_SLOTS;
}

/* Where the data of the next message is; NULL: it says what cannot be. */
static const void *data_of(const shm_member *m, int source, const channel_in *in)
{
    const shm_arena *arena = m->group.arena;
    uint64_t ring = channel_ring_bytes(m->group.size);

    switch (in->place) {
    case PLACE_LINE:
        return in->bytes <= CHANNEL_INLINE ? next_line(in)->data : NULL;
    case PLACE_RING:
        if (in->bytes > ring || in->where > ring - in->bytes)
            return NULL;
        return (const unsigned char *)(in->shared + 1) + in->where;
    case PLACE_SENDER:
        if (arena->kind == SERRY_THREADS)
            return (const void *)(uintptr_t)in->where; // NOLINT(performance-no-int-to-ptr)
        return heap_at(arena, slot_of(m, source), in->where, in->bytes);
    case PLACE_BOX:
        return arena_in_pool(arena, in->where, in->bytes);
    default:
        return NULL;
    }
}

/* The receiver has done with the next message. */
static void advance(const shm_member *m, int source, channel_in *in)
{
    in->looked = false;
    in->taken++;
    atomic_store_explicit(&in->shared->taken, in->taken, memory_order_seq_cst);
    if (group_is_settled(&m->group, source))
        channel_ring(m, source);
}

/* Is the next message there? SERRY_OK, SERRY_ERR_AGAIN, SERRY_ERR_ARENA, SERRY_ERR_NO_SPACE, without a
 * record. */
static int look(shm_member *m, int source)
{
    channel_in *in = m->mail == NULL ? NULL : m->mail->in[source];

    if (in == NULL || in->shared == NULL) {
        int rc = channel_find(m, &m->group, source);
        if (rc != SERRY_OK)
            return rc;
        in = m->mail->in[source];
    }
    for (;;) {
        const channel_line *line = next_line(in);
        if (atomic_load_explicit(&line->number, memory_order_seq_cst) != in->taken + 1)
            return SERRY_ERR_AGAIN;
        in->bytes = line->bytes;
        in->tag = line->tag;
        in->dtype = line->dtype;
        in->place = line->place;
        in->where = line->where;
        if (in->place != PLACE_SENDER ||
            (!channel_has_ended(m, source) &&
             atomic_load_explicit(&next_line(in)->claim, memory_order_acquire) == CLAIM_OFFERED))
            break;
        advance(m, source, in); /* never sent completely, or withdrawn */
    }
    if (in->place == PLACE_SENDER && m->group.arena->kind == SERRY_PROCESSES &&
        (in->where & HEAP_BIT) != 0 && !heap_reach(m->group.arena, slot_of(m, source)))
        return SERRY_ERR_NO_SPACE;
    if (in->dtype >= SERRY_DTYPES || data_of(m, source, in) == NULL)
        return SERRY_ERR_ARENA;
    in->looked = true;
    return SERRY_OK;
}

static int fail(const shm_member *m, int source, int rc, serry_error *error)
{
    if (rc == SERRY_ERR_ARENA)
        return channel_fail_arena(m, "receive", source, error);
    return rc == SERRY_ERR_NO_SPACE ? channel_fail_memory(m, "receive", error) : rc;
}

/* Nothing is there. Is it that nothing will come? */
static int look_last(shm_member *m, int source)
{
    if (!channel_has_ended(m, source))
        return SERRY_ERR_AGAIN;
    int rc = look(m, source);
    if (rc != SERRY_ERR_AGAIN)
        return rc;
    channel_in *in = side_of(m, source);
    if (in == NULL)
        return SERRY_ERR_NO_SPACE;
    in->ended = true;
    return SERRY_ERR_RANK_FAILED;
}

/* The slot of a rank that has failed is dead before its words are sealed. */
static int tell_end(shm_member *m, int source, serry_error *error)
{
    const arena_slot *slot = &m->group.arena->slots[m->group.header->slot[source] % SHM_SLOTS];
    int rc = channel_fail_ended(m, "receive", source, error);

    return rc == SERRY_ERR_EXCLUDED || slot_is_dead(slot) ? rc : SERRY_HAS_LEFT;
}

int channel_peek(shm_member *m, int source, serry_envelope *envelope, serry_error *error)
{
    channel_in *in = m->mail == NULL ? NULL : m->mail->in[source];
    int rc = channel_may(m, "receive", error);

    if (rc != SERRY_OK)
        return rc;
    if (in != NULL && in->ended)
        return tell_end(m, source, error);
    if (in == NULL || !in->looked) {
        rc = look(m, source);
        if (rc == SERRY_ERR_AGAIN)
            rc = look_last(m, source);
        if (rc == SERRY_ERR_RANK_FAILED)
            return tell_end(m, source, error);
        if (rc != SERRY_OK)
            return fail(m, source, rc, error);
        in = m->mail->in[source];
    }
    *envelope = (serry_envelope){in->tag, (serry_dtype)in->dtype, in->bytes};
    return SERRY_OK;
}

static bool claim(const channel_in *in, uint32_t from, uint32_t to)
{
    return in->place != PLACE_SENDER || atomic_compare_exchange_strong_explicit(
                                            &in->shared->line[in->taken % CHANNEL_LINES].claim,
                                            &from, to, memory_order_acq_rel, memory_order_acquire);
}

int channel_take(shm_member *m, int source, void *data, serry_error *error)
{
    serry_envelope envelope;
    int rc = channel_peek(m, source, &envelope, error);

    if (rc != SERRY_OK)
        return rc == SERRY_HAS_LEFT ? SERRY_ERR_RANK_FAILED : rc;
    channel_in *in = m->mail->in[source];
    bool mine = claim(in, CLAIM_OFFERED, CLAIM_READING);
    if (mine && data != NULL && in->bytes != 0)
        memcpy(data, data_of(m, source, in), in->bytes);
    if (!mine || !claim(in, CLAIM_READING, CLAIM_READ)) {
        advance(m, source, in);
        return SERRY_ERR_AGAIN; /* withdrawn */
    }
    /* What is the sender's may have changed since it heard that this rank is sealed. All else stays
     * until it is taken, and is handed out whole: a sealed rank hears with its next call. */
    if (in->place == PLACE_SENDER && !word_second_look(&m->own->word))
        return channel_fail_excluded(m, "receive", error);
    advance(m, source, in);
    return SERRY_OK;
}
