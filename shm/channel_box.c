/* channel_box.c - memory for messages that are too large for the ring of a channel, and that the
 * receiver cannot read where the sender has them.
 *
 * A box holds one message. It is an extent of its own, with the same record as its channel, and
 * stays with the sender for further messages: pages that are warm. The boxes of a channel hold 16
 * MiB together, or one message, so this is also the most that can be on its way. */
#include "channel.h"

#include "extent.h"
#include "record.h"

static bool is_free(const channel_out *out, const channel_box *box)
{
    return box->offset != 0 && box->message <= out->taken;
}

static uint64_t bytes_of(const channel_out *out, bool busy)
{
    uint64_t bytes = 0;

    for (int i = 0; i < CHANNEL_BOXES; i++)
        if (out->box[i].offset != 0 && is_free(out, &out->box[i]) != busy)
            bytes += out->box[i].bytes;
    return bytes;
}

static void give_back(const shm_member *m, channel_box *box)
{
    uint64_t bytes;

    extent_give(m->group.arena, EXTENT_OF_MESSAGES, box->offset, &bytes);
    *box = (channel_box){0};
}

static void give_back_free(const shm_member *m, channel_out *out)
{
    for (int i = 0; i < CHANNEL_BOXES; i++)
        if (is_free(out, &out->box[i]))
            give_back(m, &out->box[i]);
}

/* The smallest that fits. */
static channel_box *find_free(channel_out *out, uint64_t bytes)
{
    channel_box *best = NULL;

    for (int i = 0; i < CHANNEL_BOXES; i++) {
        channel_box *box = &out->box[i];
        if (is_free(out, box) && box->bytes >= bytes && (best == NULL || box->bytes < best->bytes))
            best = box;
    }
    return best;
}

static channel_box *find_place(channel_out *out)
{
    for (int i = 0; i < CHANNEL_BOXES; i++)
        if (out->box[i].offset == 0)
            return &out->box[i];
    return NULL;
}

static int take_new(shm_member *m, int dest, channel_out *out, uint64_t bytes, channel_box **taken,
                    serry_error *error)
{
    extent_post post = channel_post(m, dest);
    const _Atomic uint64_t *word = &group_cell_of(&m->group, dest)->word;
    serry_error failed;
    uint64_t offset;

    serry_error_begin(&failed, "send", 0, m->group.rank);
    int rc = extent_take_post(m->group.arena, &post, word, bytes, &offset, &failed);
    if (rc == SERRY_ERR_NO_SPACE && bytes_of(out, true) != 0)
        return SERRY_ERR_AGAIN; /* when those are taken */
    if (rc == SERRY_ERR_RANK_FAILED)
        return channel_fail_ended(m, "send", dest, error);
    if (rc != SERRY_OK) {
        if (rc != SERRY_ERR_AGAIN && error != NULL)
            *error = failed;
        return rc;
    }
    *taken = find_place(out);
    **taken = (channel_box){offset, bytes, 0};
    return SERRY_OK;
}

int channel_take_box(shm_member *m, int dest, channel_out *out, uint64_t bytes, uint64_t *offset,
                     serry_error *error)
{
    int rc = channel_refresh(m, dest, out, error);
    uint64_t busy = bytes_of(out, true);

    if (rc != SERRY_OK)
        return rc;
    bytes = (bytes + SHM_PAGE - 1) / SHM_PAGE * SHM_PAGE;
    if (busy != 0 && busy + bytes > CHANNEL_BOX_BYTES)
        return SERRY_ERR_AGAIN;
    channel_box *box = find_free(out, bytes);
    if (box == NULL) {
        if (find_place(out) == NULL || busy + bytes_of(out, false) + bytes > CHANNEL_BOX_BYTES)
            give_back_free(m, out);
        if (find_place(out) == NULL)
            return SERRY_ERR_AGAIN;
        rc = take_new(m, dest, out, bytes, &box, error);
        if (rc != SERRY_OK)
            return rc;
    }
    box->message = out->sent + 1; /* put is certain to send it now */
    *offset = box->offset;
    return SERRY_OK;
}
