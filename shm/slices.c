/* slices.c - large operations that combine, on private memory of processes: allreduce, reduce,
 * reduce_scatter.
 *
 * The vector is divided into ranges, one for each member, which combines it: for all, or in
 * reduce_scatter for itself. Of every other's range each member copies one part after the other into its
 * `in` buffer; its own it reads where it lies. What it combines it stages: in its room, for all to copy
 * from when the last step is decided, or in private memory where nobody else needs it.
 *
 *   turn        0        1        2           ...  T-1        T          then
 *   copy in     part 0   part 1   part 2           part T-1
 *   combine              part 0   part 1           part T-2   part T-1
 *   copy out                                                             all ranges
 *
 * with a published step after each turn (but turn T of reduce_scatter). Until the last of them is
 * decided a death leaves everybody's buffers as they were; afterwards all lies in rooms, which outlive
 * their ranks, and may be copied from for as long as it takes: see room.h.
 *
 * Where there are more ranks than cores, a turn costs each of them a switch, which is more than what a cache
 * saves. So parts are larger, and copied into the room, behind the result: twice, for one turn and the
 * next. */
#include "operation.h"
#include "word.h"

/* A part, in its room; of all members together, so that many of them do not fill the caches and the pool. */
#define CROWDED_BYTES ((size_t)1 << 20)
#define CROWDED_TOTAL ((size_t)16 << 20)

void slices_range(const shm_member *m, int index, size_t *first, size_t *length)
{
    if (!m->flow.send_n) {
        operation_slice(m, m->call.count, index, m->alive_count, first, length);
        return;
    }
    *first = m->alive[index] * m->call.count;
    *length = m->call.count;
}

/* What a member copies in at a time, in bytes. */
static size_t in_bytes(const shm_member *m, bool crowded)
{
    size_t all = (operation_input_bytes(m) + SHM_LINE - 1) / SHM_LINE * SHM_LINE;
    size_t most = CROWDED_TOTAL / (size_t)m->group.size / SHM_LINE * SHM_LINE;

    if (!crowded)
        return m->group.chunk_bytes;
    most = most < CROWDED_BYTES ? most : CROWDED_BYTES;
    return all < most ? all : most;
}

static size_t result_bytes(const shm_member *m, int index)
{
    size_t first, length;

    if (m->flow.send_n)
        return 0;
    slices_range(m, index, &first, &length);
    return (length * m->element + SHM_LINE - 1) / SHM_LINE * SHM_LINE;
}

size_t slices_room(const shm_member *m, int index, bool crowded)
{
    return result_bytes(m, index) + (crowded ? 2 * in_bytes(m, crowded) : 0);
}

/* In a member's room, where it copies in for the step. */
static size_t in_room(const shm_member *m, int index, uint64_t step)
{
    return result_bytes(m, index) + (step & 1) * in_bytes(m, true);
}

static const unsigned char *in_of(const shm_member *m, int index, uint64_t step)
{
    int rank = m->alive[index];

    return m->crowded ? m->rooms[rank] + in_room(m, index, step) : group_in(&m->group, rank, step);
}

static unsigned char *own_in(const shm_member *m, int mine, uint64_t step)
{
    return m->crowded ? m->room.memory + in_room(m, mine, step)
                      : group_in(&m->group, m->group.rank, step);
}

/* Elements of each range in a part: there is room for one of each of the others. */
static size_t part_length(const shm_member *m)
{
    size_t others = m->alive_count > 1 ? (size_t)m->alive_count - 1 : 1;
    size_t length = in_bytes(m, m->crowded) / others / m->element, line = SHM_LINE / m->element;

    return length > line ? length / line * line : length;
}

static size_t part_count(const shm_member *m)
{
    size_t first, length; /* the first range is the longest */

    slices_range(m, 0, &first, &length);
    return (length + part_length(m) - 1) / part_length(m);
}

/* Where part t of a range begins, and its elements; 0 where that range is over. */
static size_t part_of(const shm_member *m, int index, size_t t, size_t *first)
{
    size_t length, done = t * part_length(m);

    slices_range(m, index, first, &length);
    *first += done;
    if (done >= length)
        return 0;
    return length - done < part_length(m) ? length - done : part_length(m);
}

/* In the `in` buffer of member `owner`, the range of member `of`. */
static size_t place_of(const shm_member *m, int owner, int of)
{
    return (size_t)(of < owner ? of : of - 1) * part_length(m) * m->element;
}

static void copy_in(shm_member *m, size_t t)
{
    const unsigned char *send = m->call.send;
    int mine = operation_index(m);
    unsigned char *in = own_in(m, mine, m->step + 1);

    for (int i = 0; i < m->alive_count; i++) {
        size_t first, length = i == mine ? 0 : part_of(m, i, t, &first);
        if (length != 0)
            operation_fill(m, in + place_of(m, mine, i), send + first * m->element,
                           length * m->element);
    }
}

/* Part t of this rank's own range, of all inputs. `out`, which nobody reads here and which is as large as
 * `in`, keeps it in the cache until it is whole. */
static void combine(shm_member *m, size_t t)
{
    const void *vector[SERRY_MAX_RANKS];
    unsigned char *to = m->flow.send_n ? m->staging : m->room.memory;
    unsigned char *out = group_out(&m->group, m->group.rank, m->step);
    int mine = operation_index(m);
    size_t first, length = part_of(m, mine, t, &first);

    for (int i = 0; i < m->alive_count; i++)
        vector[i] = in_of(m, i, m->step) + place_of(m, i, mine);
    vector[mine] = (const unsigned char *)m->call.send + first * m->element;
    if (length == 0)
        return;
    to += t * part_length(m) * m->element;
    bool by_out = m->streams && !m->crowded;
    operation_reduce(m, by_out ? out : to, vector, length);
    if (by_out)
        team_copy(m->team, to, out, length * m->element, true);
}

static void work(shm_member *m)
{
    size_t t = m->turn;

    if (t < part_count(m))
        copy_in(m, t);
    if (t >= 1)
        combine(m, t - 1);
}

static void copy_out(shm_member *m)
{
    unsigned char *recv = m->call.recv;

    for (int i = 0; i < m->alive_count && operation_gets(m); i++) {
        size_t first, length;
        slices_range(m, i, &first, &length);
        if (length != 0)
            operation_copy(m, recv + first * m->element, m->rooms[m->alive[i]],
                           length * m->element);
    }
}

static int decided(shm_member *m)
{
    size_t last = m->flow.send_n ? part_count(m) - 1 : part_count(m);

    if (m->absent_count != 0)
        return operation_without_absent(m);
    if (m->turn++ < last)
        return OPERATION_GOES_ON;
    if (m->flow.send_n)
        combine(m, last);
    if (!word_second_look(&m->own->word))
        return operation_fail_excluded(m);
    if (m->flow.send_n)
        operation_commit(m, m->staging);
    else
        copy_out(m);
    return OPERATION_DONE;
}

const algorithm algorithm_slices = {"slices", work, decided};
