/* slices.c - large operations that combine, on private memory of processes, where each member combines a
 * part of it for all: allreduce and reduce, and reduce_scatter of so much that it is not to be kept whole.
 *
 * The vector is divided into ranges, one for each member, which combines it: for all, or in
 * reduce_scatter for itself. Of every other's range each member copies one part after the other into its
 * room; its own it reads where it lies. What it combines it stages: in its room, for all to copy
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
 * A room has the result, and behind it two parts: one for this turn and one for the next. */
#include "operation.h"
#include "word.h"

/* A part. Measured with two ranks, against 64 KiB: 0.8 to 0.9 of the time at 512 KiB to 4 MiB. The larger it
 * is, the fewer are the turns, and what another core reads it reads from the cache that both share,
 * rather than from that of the one that wrote; too large a part falls out of that. */
#define PART_BYTES ((size_t)256 << 10)

/* Where there are more ranks than cores, a turn costs each of them a switch, which is more than what a cache
 * saves. */
#define CROWDED_BYTES ((size_t)1 << 20)

enum { YIELDS_BETWEEN_PARTS = 1000 };

/* Of all members together, so that many of them do not fill the caches and the pool. */
#define PARTS_TOTAL ((size_t)16 << 20)

void slices_range(const shm_member *m, int index, size_t *first, size_t *length)
{
    if (!m->flow.send_n) {
        operation_slice(m, m->call.count, index, m->alive_count, first, length);
        return;
    }
    *first = m->alive[index] * m->call.count;
    *length = m->call.count;
}

/* What a member copies in at a time, in bytes. Tests have several turns with little. */
static size_t in_bytes(const shm_member *m, bool crowded)
{
    size_t all = (operation_input_bytes(m) + SHM_LINE - 1) / SHM_LINE * SHM_LINE;
    size_t most = PARTS_TOTAL / (size_t)m->group.size / SHM_LINE * SHM_LINE;
    size_t part = crowded ? CROWDED_BYTES : PART_BYTES;

    if (m->variant == VARIANT_SLICES)
        part = m->group.chunk_bytes;
    part = part < most ? part : most;
    return all < part ? all : part;
}

/* In a row of many short steps a sleep costs more than it saves: who is late wakes the others, and is later
 * still. So these yield for some tenths of a millisecond first. */
wait_plan slices_plan(const shm_member *m)
{
    wait_plan plan = m->plan;

    if (m->streams && plan.pauses != 0)
        plan.yields = YIELDS_BETWEEN_PARTS;
    return plan;
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
    return result_bytes(m, index) + 2 * in_bytes(m, crowded);
}

/* In a member's room, where it copies in for the step. */
static size_t in_room(const shm_member *m, int index, uint64_t step)
{
    return result_bytes(m, index) + (step & 1) * in_bytes(m, m->crowded);
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

/* In a part of member `owner`, the range of member `of`. */
static size_t place_of(const shm_member *m, int owner, int of)
{
    return (size_t)(of < owner ? of : of - 1) * part_length(m) * m->element;
}

static void copy_in(shm_member *m, size_t t)
{
    const unsigned char *send = m->call.send;
    int mine = operation_index(m);
    unsigned char *in = m->room.memory + in_room(m, mine, m->step + 1);

    for (int i = 0; i < m->alive_count; i++) {
        size_t first, length = i == mine ? 0 : part_of(m, i, t, &first);
        if (length != 0)
            operation_copy_in(m, in + place_of(m, mine, i), send + first * m->element,
                              length * m->element);
    }
}

/* Part t of this rank's own range, of all inputs. */
static void combine(shm_member *m, size_t t)
{
    const void *vector[SERRY_MAX_RANKS];
    unsigned char *to = m->flow.send_n ? m->staging : m->room.memory;
    int mine = operation_index(m);
    size_t first, length = part_of(m, mine, t, &first);

    for (int i = 0; i < m->alive_count; i++)
        vector[i] = m->rooms[m->alive[i]] + in_room(m, i, m->step) + place_of(m, i, mine);
    vector[mine] = (const unsigned char *)m->call.send + first * m->element;
    if (length != 0)
        operation_reduce_out(m, to + t * part_length(m) * m->element, vector, length);
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
