/* writes.c - see writes.h. */
#include "writes.h"

#include <time.h>

#include "extent.h"
#include "lifeline.h"
#include "operation.h"
#include "process.h"
#include "slot.h"
#include "word.h"

enum { WRITES_NOTHING = 0, WRITES_OTHERS = 1 };

enum { PAUSES = 1000, STUCK_LOOKS = 100 };
#define LOOK_NS UINT64_C(50000) /* between two looks: the end of a process takes some of these */
#define STUCK_NS 1000000L

static _Atomic uint32_t *writes_of(const shm_member *m, int rank)
{
    return &group_cell_of(&m->group, rank)->writes;
}

static const arena_slot *slot_of(const shm_member *m, int rank)
{
    return &m->group.arena->slots[m->group.header->slot[rank] % SHM_SLOTS];
}

bool writes_can_be_seen(shm_member *m)
{
    const shm_arena *arena = m->group.arena;

    if (m->seen == SEEN_UNKNOWN) {
        const arena_slot *own = slot_of(m, m->group.rank);
        bool threads = arena->kind == SERRY_THREADS;
        bool all = threads || process_activity(own->pid, own->start_ticks) != SERRY_UNKNOWN;
        for (int i = 0; i < m->alive_count && !threads && all; i++)
            all = slot_can_be_seen(slot_of(m, m->alive[i]));
        m->seen = all ? SEEN_ALL : SEEN_NOT;
    }
    return m->seen == SEEN_ALL;
}

/* Without a lock the second witness is left. */
void writes_init(const shm_member *m)
{
    (void)lifeline_init(&m->own->writer, NULL);
}

bool writes_enter(const shm_member *m)
{
    return lifeline_hold(&m->own->writer, NULL) == SERRY_OK;
}

void writes_leave(const shm_member *m, bool entered)
{
    if (entered)
        pthread_mutex_unlock(&m->own->writer);
}

bool writes_begin(const shm_member *m)
{
    atomic_store_explicit(writes_of(m, m->group.rank), WRITES_OTHERS, memory_order_seq_cst);
    if ((atomic_load_explicit(&m->own->word, memory_order_seq_cst) & WORD_SEALED) == 0 &&
        atomic_load_explicit(&m->group.header->call, memory_order_seq_cst) != GROUP_CALL_REVOKED)
        return true;
    writes_end(m);
    return false;
}

void writes_end(const shm_member *m)
{
    atomic_store_explicit(writes_of(m, m->group.rank), WRITES_NOTHING, memory_order_release);
}

bool writes_now(const shm_member *m, int rank)
{
    return atomic_load_explicit(writes_of(m, rank), memory_order_seq_cst) == WRITES_OTHERS;
}

/* ---- waiting ------------------------------------------------------------------------------------- */

static bool is_over(const shm_member *m, int rank)
{
    pthread_mutex_t *lock = &group_cell_of(&m->group, rank)->writer;

    return !writes_now(m, rank) || (!m->teams && lifeline_look(lock) == LIFE_ENDED) ||
           slot_is_gone(slot_of(m, rank), m->group.arena->kind);
}

/* What was seen before, for one of these reasons, comes before what is seen of `writes` from now on. */
static void keep_order(const shm_member *m, int rank)
{
    (void)atomic_load_explicit(&m->own->word, memory_order_seq_cst);
    (void)atomic_load_explicit(&group_cell_of(&m->group, rank)->word, memory_order_seq_cst);
    (void)atomic_load_explicit(&m->group.header->call, memory_order_seq_cst);
}

/* Why not to wait any longer; SERRY_ERR_AGAIN: go on. */
static int look(shm_member *m, int rank)
{
    wait_limit *limit = &m->limit;
    int code;

    if (is_over(m, rank))
        return SERRY_OK;
    wait_ask(limit);
    if (limit->token != NULL && (code = (int)serry_token_state(limit->token)) != SERRY_OK)
        return code;
    return wait_expired(limit) ? SERRY_ERR_TIMEOUT : SERRY_ERR_AGAIN;
}

static void pause_shortly(long ns)
{
    struct timespec moment = {0, ns};

    nanosleep(&moment, NULL);
}

int writes_await(shm_member *m, int rank)
{
    int code;

    keep_order(m, rank);
    for (int i = 0; i < PAUSES && writes_now(m, rank); i++)
        wait_relax();
    while ((code = look(m, rank)) == SERRY_ERR_AGAIN) {
        serry_interest *interest = m->limit.given->poll;
        if (interest == NULL) {
            pause_shortly((long)LOOK_NS);
            continue;
        }
        *interest = (serry_interest){.sleep = interest->sleep, .at_ns = wait_now_ns() + LOOK_NS};
        m->limit.polled = true;
        break;
    }
    return code;
}

int writes_await_all(shm_member *m)
{
    int code = SERRY_OK;

    for (int r = 0; r < m->group.size && code == SERRY_OK; r++)
        if (r != m->group.rank && group_is_settled(&m->group, r))
            code = writes_await(m, r);
    return code;
}

/* ---- of a slot ----------------------------------------------------------------------------------- */

typedef struct search {
    int slot;
    bool found;
} search;

static void look_in_group(shm_arena *arena, uint64_t offset, void *argument)
{
    search *s = argument;
    shm_group group;

    if (!group_view(arena, offset, &group))
        return;
    for (int r = 0; r < group.size; r++)
        if (group.header->slot[r] == s->slot && group_is_settled(&group, r))
            s->found |= atomic_load_explicit(&group_cell_of(&group, r)->writes,
                                             memory_order_seq_cst) == WRITES_OTHERS;
}

bool writes_by(shm_arena *arena, int slot)
{
    search s = {slot, false};

    look_in_group(arena, arena->header->world_offset, &s);
    extent_each_group(arena, look_in_group, &s);
    return s.found;
}

bool writes_stuck(shm_arena *arena, int slot)
{
    int looks = 0;

    while (writes_by(arena, slot) && ++looks < STUCK_LOOKS)
        pause_shortly(STUCK_NS);
    return looks == STUCK_LOOKS;
}
