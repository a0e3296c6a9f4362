/* levels.c - small operations, and the steps of large ones, of many members in several domains (of a cache
 * and a NUMA node, see src/locality.h). What moves a large one's data in blocks is in blocks.c.
 *
 * In the usual way each member reads the line of every other one: of 128 members in 8 domains, 127 lines,
 * 112 from far away. Here the members are divided into blocks, of the same power of two, in the order of
 * their numbers. The first member of a block reads the words of the block as everybody does, and tells
 * what it has seen in its digest: that all of the block have published the step, and of a small operation
 * with which call, and their inputs combined. Members of other blocks read the digest instead of the words:
 *
 *   members    0   1   2   3  |  4   5   6   7        two blocks, in two domains
 *   words      o   o   o   o     o   o   o   o        each reads those of its own block,
 *   digests    D <-+---+---+     D <-+---+---+        and the digest of the other one
 *
 * Words alone decide, as ever. A digest is a fact about words that have reached a step, and a word never
 * goes back; so who sees the fact needs not see the words, and who does not see it in time reads the words.
 * Nobody ever waits for a digest but for a moment. So it does not matter whether the first member of a
 * block dies, or is stopped, or has other plans; and no digest says that a member is absent.
 *
 * A block is combined as everybody would combine its inputs: in the tree of docs/reductions.md, the
 * members of a block are a subtree, whole. Where they lie in several domains, everybody reads the words of
 * that block, and its inputs. In the first step of a large operation all read all words, as each tells
 * something of its own there.
 *
 * A digest lives by the rule of the two buffers, though it is written after its owner's word: others
 * read it before they publish the next step, and it is written again when all have published that.
 * docs/model/levels.pml checks all this, and docs/scaling.md says what it is for. */
#include <sched.h>

#include "lines.h"
#include "operation.h"
#include "reduce/reduce.h"
#include "word.h"

enum { HANDFUL = 8 }; /* of so many members, each reads all words */

/* ---- blocks ------------------------------------------------------------------------------------- */

/* What a line costs that lies in another domain, in lines of the own one: docs/scaling.md. */
enum { NEAR = 1, FAR = 3 };

typedef struct domains {
    uint32_t of[SERRY_MAX_RANKS]; /* each member; 0: unknown */
    int count;                    /* members */
} domains;

static void find_domains(const shm_member *m, domains *d)
{
    const arena_slot *slots = m->group.arena->slots;

    d->count = m->alive_count;
    for (int i = 0; i < d->count; i++)
        d->of[i] = slots[m->group.header->slot[m->alive[i]] % SHM_SLOTS].domain;
}

static int block_end(int count, int span, int block)
{
    int end = (block + 1) * span;

    return end < count ? end : count;
}

/* Are members first..end-1 in one domain? */
static bool are_near(const domains *d, int first, int end)
{
    bool near = d->of[first] != 0;

    for (int i = first + 1; i < end; i++)
        near &= d->of[i] == d->of[first];
    return near;
}

static unsigned distance(const domains *d, int a, int b)
{
    return d->of[a] != 0 && d->of[a] == d->of[b] ? NEAR : FAR;
}

/* What all that a block publishes costs all members, where blocks have `span` members. */
static unsigned block_cost(const domains *d, int span, int first, int end)
{
    bool told = span > 1 && end - first > 1 && are_near(d, first, end);
    unsigned cost = 0;

    for (int reader = 0; reader < d->count; reader++) {
        bool outside = reader < first || reader >= end;
        int read = told && outside ? first + 1 : end;
        for (int i = first; i < read; i++)
            cost += i == reader ? 0 : distance(d, reader, i);
    }
    return cost;
}

static unsigned cost(const domains *d, int span)
{
    unsigned sum = 0;

    for (int first = 0; first < d->count; first += span)
        sum += block_cost(d, span, first, block_end(d->count, span, first / span));
    return sum;
}

/* The cheapest span; 0: no blocks. */
static int choose_span(const domains *d)
{
    unsigned least = cost(d, 1);
    int best = 0;

    if (d->count <= HANDFUL || are_near(d, 0, d->count))
        return 0;
    for (int span = 2; span < d->count; span *= 2) {
        unsigned c = cost(d, span);
        if (c < least || (c == least && best != 0)) {
            least = c;
            best = span;
        }
    }
    return best;
}

/* ---- blocks of large operations: see blocks.c ---------------------------------------------------- */

#define WHOLE ((uint64_t)1 << 20) /* a vector that comes from another domain */
enum { MOST_SLICES = 4 };         /* that a member of a small last block makes */

/* The members first..end-1 share one vector of each of them: so many vectors come from other domains. */
static uint64_t inner_cost(const domains *d, int first, int end)
{
    uint64_t far = 0;

    for (int i = first; i < end; i++)
        for (int j = first; j < end; j++)
            far += i != j && distance(d, i, j) == FAR;
    return far * WHOLE / (uint64_t)(end - first);
}

/* One vector that each block has is shared by all blocks. */
static uint64_t outer_cost(const domains *d, int span)
{
    int blocks = (d->count + span - 1) / span;
    uint64_t far = 0;

    for (int i = 0; i < d->count; i++)
        for (int b = 0; b < blocks; b++) {
            int members = block_end(d->count, span, b) - b * span;
            far += b != i / span && distance(d, i, b * span + i % span % members) == FAR;
        }
    return far * WHOLE / (uint64_t)span / (uint64_t)blocks;
}

/* Inputs in a block, parts among them, slices among them, and the result in a block. */
static uint64_t large_cost(const domains *d, int span)
{
    uint64_t cost = 2 * outer_cost(d, span);

    for (int first = 0; first < d->count; first += span)
        cost += 2 * inner_cost(d, first, block_end(d->count, span, first / span));
    return cost;
}

/* The largest span of those with the least cost; 0: no blocks. */
static int choose_large_span(const domains *d)
{
    uint64_t least = 2 * inner_cost(d, 0, d->count);
    int best = 0;

    for (int span = 2; span < d->count; span *= 2) {
        int last = d->count - (d->count - 1) / span * span;
        uint64_t c = last * MOST_SLICES < span ? UINT64_MAX : large_cost(d, span);
        if (c < least || (c == least && best != 0)) {
            least = c;
            best = span;
        }
    }
    return best;
}

void levels_plan(shm_member *m)
{
    domains d;
    int span = 0;

    m->rare &= ~(unsigned)RARE_LEVELS;
    m->levels.span = m->levels.large_span = 0;
    if (m->group.cells != m->group.regions) /* agreements are rare */
        return;
    find_domains(m, &d);
    if (m->levels.forced) {
        for (int i = 0; i < d.count; i++)
            d.of[i] = (uint32_t)i / 2 + 1;
        span = m->levels.large_span = d.count > 2 ? 2 : 0;
    } else if (d.count > HANDFUL) {
        span = choose_span(&d);
        m->levels.large_span = choose_large_span(&d);
    }
    if (span == 0)
        return;
    m->rare |= RARE_LEVELS;
    m->levels.span = span;
    m->levels.blocks = (d.count + span - 1) / span;
    for (int b = 0; b < m->levels.blocks; b++)
        m->levels.near[b] = are_near(&d, b * span, block_end(d.count, span, b));
}

void levels_force(shm_member *m, bool forced)
{
    m->levels.forced = forced;
    levels_plan(m);
}

static int first_of(const shm_member *m, int block)
{
    return block * m->levels.span;
}

static int end_of(const shm_member *m, int block)
{
    return block_end(m->alive_count, m->levels.span, block);
}

/* Has the block a digest? One member alone has its word. */
static bool has_digest(const shm_member *m, int block)
{
    return m->levels.near[block] && end_of(m, block) - first_of(m, block) > 1;
}

static group_digest *digest_of(const shm_member *m, int block)
{
    return group_digest_of(&m->group, m->alive[first_of(m, block)], m->step);
}

/* ---- data --------------------------------------------------------------------------------------- */

/* Bytes of a block's inputs combined; 0: a digest does not carry them. */
static size_t part_bytes(const shm_member *m)
{
    size_t bytes = m->call.count * serry_part_size(m->call.dtype, m->call.op);

    return m->flow.combine && !m->flow.send_n && bytes <= m->group.small_bytes ? bytes : 0;
}

static unsigned char *part_of(const shm_member *m, int block)
{
    if (part_bytes(m) <= SHM_PART)
        return (unsigned char *)digest_of(m, block)->part;
    return group_out(&m->group, m->alive[first_of(m, block)], m->step);
}

/* The inputs of a block combined, from where small.c has put them. */
static void combine_block(const shm_member *m, int block, unsigned char *part)
{
    const void *vector[SERRY_MAX_RANKS];
    size_t bytes = m->call.count * m->element;
    int first = first_of(m, block), n = end_of(m, block) - first;

    for (int i = 0; i < n; i++) {
        int r = m->alive[first + i];
        vector[i] = bytes <= SHM_INLINE
                        ? (const void *)group_cell_of(&m->group, r)->data[m->step & 1]
                        : group_small(&m->group, r, m->step);
        lines_read(m, r, lines_of(bytes, SHM_INLINE));
    }
    serry_reduce_part(part, vector, n, m->call.count, m->call.dtype, m->call.op);
}

/* All inputs combined, in m->scratch, which is large enough: a result, then a part for each block. */
static void combine_all(shm_member *m)
{
    const void *part[SERRY_MAX_RANKS];

    for (int b = 0; b < m->levels.blocks; b++) {
        unsigned char *own = m->scratch + (size_t)(1 + b) * m->group.small_bytes;
        part[b] = m->levels.told[b] ? part_of(m, b) : own;
        if (m->levels.told[b])
            lines_read(m, m->alive[first_of(m, b)], lines_of(part_bytes(m), SHM_PART));
        else
            combine_block(m, b, own);
    }
    serry_reduce_parts(m->scratch, part, m->levels.blocks, m->alive_count, m->call.count,
                       m->call.dtype, m->call.op);
}

/* The step is decided, all take part, and make the same call. */
static int hand_out(shm_member *m)
{
    if (part_bytes(m) == 0)
        return small_hand_out(m);
    if (operation_gets(m))
        combine_all(m);
    if (!word_second_look(&m->own->word))
        return operation_fail_excluded(m);
    operation_commit(m, m->scratch);
    return OPERATION_DONE;
}

/* Never published: a step becomes one of these when it has been decided by digests. */
const algorithm algorithm_levels = {"levels", NULL, hand_out};

/* ---- decisions ---------------------------------------------------------------------------------- */

/* One step, which the call is published with? Else it is one of several, whose first has been all words. */
static bool is_small(const shm_member *m)
{
    return m->algorithm == &algorithm_small || m->algorithm == &algorithm_batch;
}

/* Of a block that is decided, with nobody absent. */
static bool is_alike(const shm_member *m, int block)
{
    bool same = true;

    for (int i = first_of(m, block); i < end_of(m, block) && is_small(m); i++)
        same &= group_cell_of(&m->group, m->alive[i])->signature[m->step & 1] == m->signature;
    return same;
}

/* By words. */
static int decide_block(shm_member *m, int block)
{
    int rc = SERRY_OK;

    for (int i = first_of(m, block); i < end_of(m, block) && rc == SERRY_OK; i++)
        rc = operation_decide(m, m->alive[i]);
    return rc;
}

/* The first member of a block that has published the step, all of it, tells the others. The second look
 * comes before: a sealed sleeper may have combined what had been written over. */
static void tell(shm_member *m, int block)
{
    group_digest *d = digest_of(m, block);

    if (atomic_load_explicit(&d->step, memory_order_relaxed) == m->step)
        return; /* before a timeout */
    if (is_small(m) && part_bytes(m) != 0)
        combine_block(m, block, part_of(m, block));
    if (!word_second_look(&m->own->word))
        return;
    d->signature = m->signature;
    d->members = (uint64_t)(end_of(m, block) - first_of(m, block));
    atomic_store_explicit(&d->step, m->step, memory_order_release);
}

/* Does the digest tell that all of the block make this call? Who tells of a different number of members
 * is of another mind about blocks. */
static bool is_told(const shm_member *m, int block)
{
    const group_digest *d = digest_of(m, block);

    return atomic_load_explicit(&d->step, memory_order_acquire) == m->step &&
           d->signature == m->signature &&
           d->members == (uint64_t)(end_of(m, block) - first_of(m, block));
}

/* The same, but give it a moment: as long as a wait takes before it sleeps. */
static bool await_told(const shm_member *m, int block)
{
    bool polls = m->limit.given->poll != NULL, told = is_told(m, block);

    lines_read(m, m->alive[first_of(m, block)], 1);
    for (uint32_t i = 0; i < m->plan.pauses && !told && !polls; i++) {
        wait_relax();
        told = is_told(m, block);
    }
    for (uint32_t i = 0; i < m->plan.yields && !told && !polls; i++) {
        sched_yield();
        told = is_told(m, block);
    }
    return told;
}

/* Where there are more ranks than cores, who tells for others would have to run once more before they can
 * go on. */
static bool is_by_blocks(const shm_member *m)
{
    return (m->plan.pauses != 0 || m->levels.forced) && m->algorithm != &algorithm_enter;
}

int levels_decide(shm_member *m)
{
    if (!is_by_blocks(m))
        return OPERATION_GOES_ON;
    int own = operation_index(m) / m->levels.span, rc = decide_block(m, own);
    bool all = rc == SERRY_OK && m->absent_count == 0 && is_alike(m, own);

    if (all && operation_index(m) == first_of(m, own) && has_digest(m, own))
        tell(m, own);
    for (int b = 0; b < m->levels.blocks && rc == SERRY_OK; b++) {
        m->levels.told[b] = b != own && has_digest(m, b) && await_told(m, b);
        if (b == own || m->levels.told[b])
            continue;
        rc = decide_block(m, b);
        all = all && rc == SERRY_OK && m->absent_count == 0 && is_alike(m, b);
    }
    if (all && operation_has_root(m) && m->algorithm == &algorithm_small)
        m->algorithm = &algorithm_levels;
    return rc;
}
