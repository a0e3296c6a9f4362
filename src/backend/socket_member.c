/* socket_member.c - groups, and what their members tell each other outside of operations; see
 * socket.h.
 *
 * All groups of a job share its links; a frame names its group. One that comes before this rank has
 * made the group is kept. A group that is closed here is kept, without its memory, until all others
 * have closed it too, or failed: then nothing can come for it any more. */
#include <stdlib.h>

#include "record.h"
#include "socket.h"

static void free_parts(socket_member *m)
{
    for (int i = 0; i < STREAMS; i++)
        stream_cleanup(m, &m->stream[i]);
    message_cleanup(m);
    free(m->all);
    m->all = NULL;
}

static void member_free(socket_member *m)
{
    for (socket_member **at = &m->mesh->members; *at != NULL; at = &(*at)->next)
        if (*at == m) {
            *at = m->next;
            break;
        }
    free_parts(m);
    free(m->at);
    free(m->gone);
    free(m->left);
    free(m);
}

/* What has come for this group before it was made. */
static void take_early(socket_member *m)
{
    early **at = &m->mesh->early;

    while (*at != NULL) {
        early *e = *at;
        if (e->head.stream / STREAMS != m->id) {
            at = &e->next;
            continue;
        }
        *at = e->next;
        member_take(m->mesh, e->from, &e->head, e->body);
        free(e);
    }
}

socket_member *member_make(mesh *mesh_of_job, uint64_t id, int size, int rank, const uint16_t *at)
{
    socket_member *m = calloc(1, sizeof(*m));
    size_t ranks = (size_t)size;

    if (m == NULL)
        return NULL;
    m->mesh = mesh_of_job;
    m->id = id;
    m->size = size;
    m->rank = rank;
    m->at = calloc(ranks, sizeof(*m->at));
    m->gone = calloc(ranks, sizeof(*m->gone));
    m->left = calloc(ranks, sizeof(*m->left));
    m->all = calloc(3 * ranks, sizeof(*m->all));
    bool enough =
        message_setup(m) && m->at != NULL && m->gone != NULL && m->left != NULL && m->all != NULL;
    for (int i = 0; i < STREAMS; i++) {
        m->stream[i].peer = calloc(ranks, sizeof(*m->stream[i].peer));
        enough &= m->stream[i].peer != NULL;
        stream_setup(m, &m->stream[i], i);
    }
    if (!enough) {
        member_free(m);
        return NULL;
    }
    for (int r = 0; r < size; r++) {
        m->at[r] = at[r];
        m->gone[r] = r != rank && m->mesh->link[at[r]].fd < 0;
    }
    m->next = m->mesh->members;
    m->mesh->members = m;
    take_early(m);
    return m;
}

void member_tell(socket_member *m, uint32_t type, const stream *s, uint64_t number)
{
    const frame head = {.type = type,
                        .stream = m->id * STREAMS + (s == NULL ? 0 : (uint64_t)s->which),
                        .number = number};

    for (int r = 0; r < m->size; r++)
        if (r != m->rank && !m->gone[r])
            mesh_send(m->mesh, m->at[r], &head, NULL);
}

/* The order in the new group: by key, then by rank. */
static bool before(const socket_member *m, int a, int b)
{
    int64_t key_a = (int64_t)m->all[3 * a + 1], key_b = (int64_t)m->all[3 * b + 1];

    return key_a != key_b ? key_a < key_b : a < b;
}

int member_make_part(socket_member *m, const stream *s, int colour, socket_member **part,
                     serry_error *error)
{
    uint16_t order[SERRY_MAX_RANKS], at[SERRY_MAX_RANKS] = {0};
    int size = 0, rank = 0, first = -1;

    for (int r = 0; r < m->size; r++) {
        int i = size;
        if (!serry_rank_set_has(&s->alive, r) || (int64_t)m->all[3 * r] != colour)
            continue;
        first = first < 0 ? r : first;
        for (; i > 0 && before(m, r, order[i - 1]); i--)
            order[i] = order[i - 1];
        order[i] = (uint16_t)r;
        size++;
    }
    for (int i = 0; i < size; i++) {
        at[i] = m->at[order[i]];
        rank = order[i] == m->rank ? i : rank;
    }
    uint64_t id = s->decision.id + (uint64_t)first;
    *part = member_make(m->mesh, id, size, rank, at);
    if (*part != NULL) {
        (*part)->policy = m->policy;
        return SERRY_OK;
    }
    const frame left = {.type = FRAME_LEFT, .stream = id * STREAMS};
    for (int i = 0; i < size; i++)
        mesh_send(m->mesh, at[i], &left, NULL);
    serry_error_begin(error, "split", s->done, m->rank);
    return serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory for a communicator");
}

void member_send(const socket_member *m, int rank, const frame *head, body *b)
{
    mesh_send(m->mesh, m->at[rank], head, b);
}

/* Everybody passes it on: whoever began may have died before all were told. */
void member_revoke(socket_member *m)
{
    if (m->revoked)
        return;
    m->revoked = true;
    member_tell(m, FRAME_REVOKE, NULL, 0);
    mesh_rouse(m->mesh);
}

/* ---- what comes -------------------------------------------------------------------------------- */

static void member_gone(socket_member *m, int rank)
{
    bool all = true;

    m->gone[rank] = true;
    for (int r = 0; r < m->size; r++)
        all &= m->gone[r] || r == m->rank;
    if (m->closed && all)
        member_free(m);
}

static int rank_in(const socket_member *m, int in_job)
{
    for (int r = 0; r < m->size; r++)
        if (m->at[r] == in_job)
            return r;
    return -1;
}

static void keep(mesh *m, int from, const frame *head, body *b)
{
    early *e = malloc(sizeof(*e)), **at = &m->early;

    if (e == NULL) {
        body_release(b);
        mesh_lose(m);
        return;
    }
    *e = (early){NULL, from, *head, b};
    while (*at != NULL)
        at = &(*at)->next;
    *at = e;
}

static void take(socket_member *m, int rank, const frame *head)
{
    switch (head->type) {
    case FRAME_LEFT:
        m->left[rank] = true;
        member_gone(m, rank);
        break;
    case FRAME_REVOKE:
        if (!m->closed)
            member_revoke(m);
        break;
    default: /* FRAME_MEET */
        if (m->called < head->number)
            m->called = head->number;
    }
}

void member_take(mesh *mesh_of_job, int from, const frame *head, body *b)
{
    socket_member *m = mesh_of_job->members;

    while (m != NULL && m->id != head->stream / STREAMS)
        m = m->next;
    if (m == NULL) {
        keep(mesh_of_job, from, head, b);
        return;
    }
    int rank = rank_in(m, from);
    bool of_stream = head->type >= FRAME_REPORT && head->type <= FRAME_WAITING;
    bool of_message = head->type >= FRAME_MESSAGE && head->type <= FRAME_TAKEN;
    bool used = rank >= 0 && !m->closed;
    if (of_stream && used) {
        stream_take(m, &m->stream[head->stream % STREAMS], rank, head, b);
        return;
    }
    if (of_message && used) {
        message_take_frame(m, rank, head, b);
        return;
    }
    body_release(b);
    if (!of_stream && !of_message && rank >= 0)
        take(m, rank, head);
}

void member_lost(mesh *mesh_of_job, int from)
{
    socket_member *next;

    for (socket_member *m = mesh_of_job->members; m != NULL; m = next) {
        int rank = rank_in(m, from);
        next = m->next;
        if (rank >= 0)
            member_gone(m, rank);
    }
}

/* ---- leaving ----------------------------------------------------------------------------------- */

static bool is_last(const socket_member *m)
{
    for (const socket_member *other = m->mesh->members; other != NULL; other = other->next)
        if (other != m && !other->closed)
            return false;
    return true;
}

static void free_all(mesh *m)
{
    while (m->members != NULL)
        member_free(m->members);
    mesh_free(m);
}

bool member_leave(socket_member *m)
{
    mesh *mesh_of_job = m->mesh;

    member_tell(m, FRAME_LEFT, NULL, 0);
    m->closed = true;
    if (is_last(m)) {
        mesh_pump(mesh_of_job);
        pthread_mutex_unlock(&mesh_of_job->lock);
        free_all(mesh_of_job);
        return false;
    }
    free_parts(m);
    for (int r = 0; r < m->size; r++)
        if (r != m->rank && !m->gone[r])
            return true;
    member_free(m);
    return true;
}

void member_forget(socket_member *m)
{
    m->closed = true;
    if (is_last(m))
        free_all(m->mesh);
    else
        free_parts(m);
}
