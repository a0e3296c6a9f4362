/* choose.c - which algorithm for this call. The answer depends only on what is equal on all ranks:
 * the call, the group, and (after the first step of a large call) where the members' inputs lie. */
#include "operation.h"
#include "record.h"
#include "word.h"

const algorithm *choose_first(const shm_member *m)
{
    size_t blocks = m->flow.send_n ? (size_t)m->group.size : 1;
    size_t most = m->variant == 0 ? m->group.small_bytes : 0;

    return blocks * m->call.count * m->element <= most ? &algorithm_small : &algorithm_enter;
}

/* ---- the first step of a large call: who is there, what do they call, where is their input? ---- */

static size_t input_bytes(const shm_member *m)
{
    size_t blocks = m->flow.send_n ? (size_t)m->group.size : 1;

    return blocks * m->call.count * m->element;
}

static void enter(shm_member *m)
{
    uint64_t step = m->step + 1;
    group_input *input = &m->own->input[step & 1];
    const shm_arena *arena = m->group.arena;
    uintptr_t address = (uintptr_t)m->call.send, base = (uintptr_t)arena->base;

    m->own->signature[step & 1] = m->signature;
    *input = (group_input){0};
    if (!operation_gives(m))
        return;
    if (arena->kind == SERRY_THREADS) {
        input->address = address;
        input->direct = 1;
    } else if (address >= base && arena_in_pool(arena, address - base, input_bytes(m)) != NULL) {
        input->address = address - base;
        input->direct = 1;
    }
}

/* Where this rank can read the whole input of rank r; NULL: nowhere, it comes through copies. False:
 * rank r says what cannot be. */
static bool resolve(const shm_member *m, int r, const unsigned char **input)
{
    const group_input *said = &group_cell_of(&m->group, r)->input[m->step & 1];
    const shm_arena *arena = m->group.arena;

    *input = NULL;
    if (r == m->group.rank) { /* for itself; the others may need copies */
        *input = m->call.send;
        return true;
    }
    if (!said->direct)
        return true;
    if (arena->kind == SERRY_THREADS)
        *input =
            (const unsigned char *)(uintptr_t)said->address; // NOLINT(performance-no-int-to-ptr)
    else
        *input = arena_in_pool(arena, said->address, input_bytes(m));
    return *input != NULL;
}

static int fail_input(shm_member *m, int rank)
{
    if (!word_second_look(&m->own->word))
        return operation_fail_excluded(m);
    operation_error(m);
    m->error->peer = rank;
    return serry_fail(m->error, SERRY_ERR_ARENA,
                      "rank %d says that its input lies outside the arena", rank);
}

static int enter_decided(shm_member *m)
{
    int rc = operation_judge(m);

    for (int i = 0; i < m->alive_count && rc == SERRY_OK; i++)
        if (!resolve(m, m->alive[i], &m->input[m->alive[i]]))
            rc = fail_input(m, m->alive[i]);
    if (rc != SERRY_OK)
        return rc;
    m->algorithm = choose_next(m);
    /* Before any pointer of the others is followed: are they still of this operation? */
    return word_second_look(&m->own->word) ? OPERATION_GOES_ON : operation_fail_excluded(m);
}

const algorithm algorithm_enter = {"enter", enter, enter_decided};

/* Direct where every input that somebody needs can be read where it lies. */
const algorithm *choose_next(shm_member *m)
{
    bool direct = m->variant == 0;

    for (int i = 0; i < m->alive_count; i++) {
        int r = m->alive[i];
        if (!m->flow.from_root || r == m->call.root)
            direct &=
                group_cell_of(&m->group, r)->input[m->step & 1].direct == 1 || m->alive_count == 1;
    }
    m->turn = 0;
    m->first = m->length = m->out_first = m->out_length = 0;
    m->worker_count = m->alive_count;
    for (int i = 0; i < m->alive_count; i++)
        m->worker[i] = m->alive[i];
    if (!direct) {
        /* All inputs of others come through copies, then: only those obey the rule of the two buffers
         * to the end of the operation. */
        for (int i = 0; i < m->alive_count; i++)
            if (m->alive[i] != m->group.rank)
                m->input[m->alive[i]] = NULL;
        return &algorithm_staged;
    }
    return m->flow.combine && !m->flow.send_n ? &algorithm_direct_share : &algorithm_direct_pull;
}
