/* socket_message.c - messages from one member to another; see socket.h.
 *
 *   sender                                            receiver
 *   MESSAGE: its data, and, where it is small,  --->  a letter, the last one from there;
 *     that it is valid; else
 *   VERDICT: that it is                         --->  that letter can be received
 *                                                     take: it is copied out
 *   a window that is open again                 <---  TAKEN: the sum of what was taken
 *
 * Both are queued at once, with a copy of the data. The message is sent when the frame that decides is
 * written: then it is the receiver's, whatever becomes of this rank. Until then it has a ticket, the
 * number of that frame on its link. To withdraw it, that frame is changed: what is being written
 * cannot be taken back, but the receiver does not count it. The kernel takes so small a frame whole or
 * not at all, so there is no time in between.
 *
 * Nobody can stop to read a link, which is also that of operations. So it is the sender who stops, when
 * more lies with the receiver than a window; a rank never holds more from another one, for each group,
 * than a window and a message. The receiver tells of each quarter of a window that it has taken: a
 * sender that must wait is certain to be told. */
#include "socket.h"

#include <stdlib.h>
#include <string.h>

#include "record.h"

#define WINDOW (UINT64_C(1) << 20) /* a message may be sent while not more lies with its receiver */
#define COST UINT64_C(256)         /* of a message beside its data */
#define SMALL 8192                 /* the kernel takes such a frame whole or not at all */

/* ---- beginning and end ------------------------------------------------------------------------- */

bool message_setup(socket_member *m)
{
    m->mail = calloc((size_t)m->size, sizeof(*m->mail));
    for (int r = 0; r < m->size && m->mail != NULL; r++)
        m->mail[r].last = &m->mail[r].first;
    return m->mail != NULL;
}

static void letter_free(letter *l)
{
    body_release(l->body);
    free(l);
}

void message_cleanup(socket_member *m)
{
    for (int r = 0; r < m->size && m->mail != NULL; r++)
        while (m->mail[r].first != NULL) {
            letter *l = m->mail[r].first;
            m->mail[r].first = l->next;
            letter_free(l);
        }
    free(m->mail);
    m->mail = NULL;
}

static frame message_frame(const socket_member *m, uint32_t type)
{
    return (frame){.type = type, .stream = m->id * STREAMS};
}

/* ---- what comes -------------------------------------------------------------------------------- */

/* Takes the body. False: no memory. */
static bool add_letter(mail *box, const serry_envelope *envelope, uint64_t cost, body *b)
{
    letter *l = malloc(sizeof(*l));

    if (l == NULL) {
        body_release(b);
        return false;
    }
    *l = (letter){NULL, *envelope, cost, b};
    *box->last = l;
    box->last = &l->next;
    return true;
}

/* One message less lies here. */
static void count_taken(socket_member *m, int from, uint64_t cost)
{
    mail *box = &m->mail[from];
    frame head = message_frame(m, FRAME_TAKEN);

    box->taken += cost;
    if (from == m->rank) {
        box->freed = box->taken;
    } else if (box->taken - box->told >= WINDOW / 4 && !m->gone[from]) {
        box->told = head.number = box->taken;
        member_send(m, from, &head, NULL);
    }
}

static void take_message(socket_member *m, int from, const frame *head, body *b)
{
    mail *box = &m->mail[from];
    const serry_envelope envelope = {head->who[0], (serry_dtype)head->who[1], head->bytes};

    if (head->code == VERDICT_WITHDRAWN) {
        body_release(b);
        count_taken(m, from, head->number);
        return;
    }
    letter **place = box->last;
    if (!add_letter(box, &envelope, head->number, b))
        mesh_lose(m->mesh);
    else if (head->code == VERDICT_FOLLOWS)
        box->open = *place;
}

static void take_verdict(socket_member *m, int from, const frame *head)
{
    mail *box = &m->mail[from];
    letter *l = box->open, **place = &box->first;

    if (l == NULL) {
        mesh_lose(m->mesh); /* it cannot be */
        return;
    }
    box->open = NULL;
    if (head->code == VERDICT_VALID)
        return;
    while (*place != l)
        place = &(*place)->next;
    *place = NULL;
    box->last = place;
    count_taken(m, from, l->cost);
    letter_free(l);
}

void message_take_frame(socket_member *m, int from, const frame *head, body *b)
{
    switch (head->type) {
    case FRAME_MESSAGE:
        take_message(m, from, head, b);
        return;
    case FRAME_VERDICT:
        take_verdict(m, from, head);
        break;
    default: /* FRAME_TAKEN */
        m->mail[from].freed = head->number;
    }
    body_release(b);
}

/* ---- sending ----------------------------------------------------------------------------------- */

static int may(socket_member *m, const char *operation, serry_error *error)
{
    m->error = error;
    if (m->mesh->lost)
        return failure_lost(m, operation);
    return m->revoked ? failure_revoked_at(m, operation, 0) : SERRY_OK;
}

/* The link is at its end, even if that was not read yet. */
static bool hears_nothing(const socket_member *m, int rank)
{
    const mesh_link *l = &m->mesh->link[m->at[rank]];

    return rank != m->rank && (m->gone[rank] || l->fd < 0 || l->mute);
}

static int fail_memory(socket_member *m, uint64_t bytes)
{
    serry_error_begin(m->error, "send", 0, m->rank);
    return serry_fail(m->error, SERRY_ERR_NO_SPACE,
                      "send: no memory for a copy of a message of %zu bytes", (size_t)bytes);
}

/* The number of the frame that decides, or 0 where that is written. */
static uint64_t send_frames(socket_member *m, int dest, const serry_envelope *envelope,
                            uint64_t cost, body *b)
{
    frame head = message_frame(m, FRAME_MESSAGE), verdict = message_frame(m, FRAME_VERDICT);
    const mesh_link *l = &m->mesh->link[m->at[dest]];
    bool small = envelope->bytes <= SMALL;

    head.code = small ? VERDICT_VALID : VERDICT_FOLLOWS;
    head.number = cost;
    head.who[0] = envelope->tag;
    head.who[1] = (int32_t)envelope->dtype;
    member_send(m, dest, &head, b);
    if (!small)
        member_send(m, dest, &verdict, NULL);
    return l->written >= l->queued && !l->mute ? 0 : l->queued;
}

int message_put(socket_member *m, int dest, const serry_envelope *envelope, const void *data,
                uint64_t *ticket, serry_error *error)
{
    mail *box = &m->mail[dest];
    uint64_t cost = envelope->bytes + COST;
    int rc = may(m, "send", error);

    *ticket = 0;
    if (rc != SERRY_OK)
        return rc;
    if (box->sent - box->freed > WINDOW && dest != m->rank)
        mesh_pump_link(m->mesh, m->at[dest]);
    if (hears_nothing(m, dest))
        return failure_ended(m, "send", dest);
    if (box->sent - box->freed > WINDOW)
        return SERRY_ERR_AGAIN;
    body *b = envelope->bytes == 0 ? NULL : body_new((size_t)envelope->bytes);
    if (b == NULL && envelope->bytes != 0)
        return fail_memory(m, envelope->bytes);
    if (b != NULL)
        memcpy(b->data, data, b->bytes);
    if (dest == m->rank && !add_letter(box, envelope, cost, b))
        return fail_memory(m, envelope->bytes);
    box->sent += cost;
    if (dest == m->rank)
        return SERRY_OK;
    *ticket = send_frames(m, dest, envelope, cost, b);
    body_release(b);
    if (m->mesh->lost) /* for want of memory: nothing was queued */
        return failure_lost(m, "send");
    return SERRY_OK;
}

int message_settled(socket_member *m, int dest, uint64_t ticket, serry_error *error)
{
    mesh *joined = m->mesh;
    int to = m->at[dest];

    mesh_pump_link(joined, to);
    if (mesh_has_dropped(joined, to, ticket)) {
        int rc = may(m, "send", error);
        return rc != SERRY_OK ? rc : failure_ended(m, "send", dest);
    }
    if (mesh_has_written(joined, to, ticket))
        return SERRY_OK;
    int rc = may(m, "send", error);
    if (rc == SERRY_OK && hears_nothing(m, dest))
        rc = failure_ended(m, "send", dest);
    return rc == SERRY_OK ? SERRY_ERR_AGAIN : rc;
}

int message_withdraw(const socket_member *m, int dest, uint64_t ticket)
{
    const mesh *joined = m->mesh;
    int to = m->at[dest];

    if (mesh_has_dropped(joined, to, ticket))
        return SERRY_OK;
    outgoing *o = mesh_find_queued(joined, to, ticket);
    if (o == NULL)
        return SERRY_ERR_AGAIN;
    o->head.code = VERDICT_WITHDRAWN;
    o->head.bytes = 0;
    body_release(o->body);
    o->body = NULL;
    return SERRY_OK;
}

/* ---- receiving --------------------------------------------------------------------------------- */

/* NULL: there is none. */
static letter *next_letter(const mail *box)
{
    return box->first == box->open ? NULL : box->first;
}

static int tell_end(socket_member *m, int source)
{
    int rc = failure_ended(m, "receive", source);

    return m->left[source] ? SERRY_HAS_LEFT : rc;
}

int message_peek(socket_member *m, int source, serry_envelope *envelope, serry_error *error)
{
    const mail *box = &m->mail[source];
    int rc = may(m, "receive", error);

    if (rc != SERRY_OK)
        return rc;
    if (next_letter(box) == NULL && source != m->rank && !m->gone[source]) {
        mesh_pump_link(m->mesh, m->at[source]);
        rc = may(m, "receive", error); /* that may be what came */
        if (rc != SERRY_OK)
            return rc;
    }
    const letter *l = next_letter(box);
    if (l == NULL)
        return m->gone[source] ? tell_end(m, source) : SERRY_ERR_AGAIN;
    *envelope = l->envelope;
    return SERRY_OK;
}

int message_take(socket_member *m, int source, void *data, serry_error *error)
{
    serry_envelope envelope;
    mail *box = &m->mail[source];
    int rc = message_peek(m, source, &envelope, error);

    if (rc != SERRY_OK)
        return rc == SERRY_HAS_LEFT ? SERRY_ERR_RANK_FAILED : rc;
    letter *l = box->first;
    if (data != NULL && l->body != NULL)
        memcpy(data, l->body->data, l->body->bytes);
    box->first = l->next;
    if (box->first == NULL)
        box->last = &box->first;
    count_taken(m, source, l->cost);
    letter_free(l);
    return SERRY_OK;
}

void message_listen(socket_member *m, serry_interest *interest)
{
    mesh_pump(m->mesh);
    mesh_nap(m->mesh, UINT64_MAX, interest);
}
