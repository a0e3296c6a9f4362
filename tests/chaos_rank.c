/* chaos_rank.c - the life of a rank: it joins, syncs, works, and leaves; see chaos.h. */
#include "chaos.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SYNC_EVERY = 16, BLOCK = 96, SYNC_WORDS = 4, STATE_WORDS = 3000 };
enum { MEMORY_BYTES = CHAOS_ELEMENTS * 8 + 256 };

/* What a rank says in a sync. */
enum { SAYS_ELDER = 1, SAYS_STOP = 2, SAYS_STANDS = 4, SAYS_INCARNATION = 8 /* shift */ };

/* A call on the world is over: the state is made of all of them. */
static void note(chaos_rank *self, int code, uint64_t ranks, uint64_t hash)
{
    self->state = chaos_mix(self->state, chaos_mix(ranks, hash) + (uint64_t)(unsigned)code);
    self->call++;
    if (self->world.rank == __builtin_ctzll(self->world.members))
        atomic_store(&self->board->epoch, self->world.epoch);
}

static uint64_t key_of(const chaos_rank *self)
{
    return (self->call + 1) << 16;
}

static bool is_elder(const chaos_rank *self)
{
    return self->seat->elder == self->incarnation;
}

/* The policy changes every BLOCK operations. */
static void set_policy(chaos_rank *self)
{
    static const serry_policy turns[] = {SERRY_REPORT, SERRY_EXCLUDE, SERRY_REPORT, SERRY_WAIT};
    const chaos_job *job = self->job;
    uint64_t turn = chaos_mix(job->seed, self->index / BLOCK) % 4;
    serry_policy policy = job->policy == CHAOS_MIXED ? turns[turn] : (serry_policy)job->policy;

    self->world.policy = policy;
    if (serry_set_policy(self->world.comm, policy) != SERRY_OK)
        chaos_fail(self, "set_policy: %s", serry_last_error(self->world.comm)->message);
}

/* ---- syncs -------------------------------------------------------------------------------------- */

/* Compares what the elders say, and takes it over. Returns who is new. */
static uint64_t learn(chaos_rank *self, uint64_t ranks, const uint64_t (*said)[SYNC_WORDS],
                      bool *stop)
{
    const uint64_t *told = NULL;
    uint64_t newcomers = 0;

    *stop = false;
    self->holders = 0;
    for (int r = 0; r < self->world.size; r++) {
        if ((ranks >> r & 1) == 0)
            continue;
        if ((said[r][0] & SAYS_STANDS) != 0)
            self->holders |= UINT64_C(1) << r;
        self->world.incarnation[r] = (unsigned)(said[r][0] >> SAYS_INCARNATION);
        if ((said[r][0] & SAYS_ELDER) == 0) {
            newcomers |= UINT64_C(1) << r;
            continue;
        }
        *stop |= (said[r][0] & SAYS_STOP) != 0;
        if (told != NULL && memcmp(told + 1, said[r] + 1, (SYNC_WORDS - 1) * sizeof(*told)) != 0)
            chaos_fail(self,
                       "elders differ: rank %d is at operation %llu, call %llu, state %#llx, and "
                       "another at %llu, %llu, %#llx",
                       r, (unsigned long long)said[r][1], (unsigned long long)said[r][2],
                       (unsigned long long)said[r][3], (unsigned long long)told[1],
                       (unsigned long long)told[2], (unsigned long long)told[3]);
        told = said[r];
    }
    if (told == NULL)
        chaos_fail(self, "no elder is left; ranks %#llx", (unsigned long long)ranks);
    self->index = told[1];
    self->call = told[2];
    self->state = told[3];
    return newcomers;
}

static void check_untouched(chaos_rank *self, uint64_t ranks, const uint64_t (*said)[SYNC_WORDS])
{
    for (int r = 0; r < self->world.size; r++)
        for (int i = 0; i < SYNC_WORDS && (ranks >> r & 1) == 0; i++)
            if (said[r][i] != UINT64_MAX)
                chaos_fail(self, "a sync wrote into the block of rank %d, which took no part", r);
}

static int sync_once(chaos_rank *self, uint64_t *newcomers, bool *stop)
{
    chaos_group *w = &self->world;
    bool elder = is_elder(self);
    uint64_t said[CHAOS_RANKS][SYNC_WORDS], ranks;
    uint64_t says = (elder ? SAYS_ELDER : 0) | (self->board->stop ? SAYS_STOP : 0) |
                    (self->standing.comm != NULL ? SAYS_STANDS : 0);
    uint64_t own[SYNC_WORDS] = {says | (uint64_t)self->incarnation << SAYS_INCARNATION, self->index,
                                self->call, self->state};
    serry_rank_set set;
    int code;

    memset(said, 0xff, sizeof(said));
    chaos_at(self, "call %#llx: sync, %s, policy %d", (unsigned long long)key_of(self),
             elder ? "elder" : "new", (int)w->policy);
    chaos_hurry(self, w->comm);
    chaos_place(self->seat);
    do {
        code = serry_allgather(own, said, SYNC_WORDS, SERRY_U64, w->comm);
    } while (chaos_again(self, w->comm, code));
    chaos_place(self->seat);
    *newcomers = 0;
    if (code == SERRY_OK) {
        serry_participants(w->comm, &set);
        *newcomers = learn(self, set.bits[0], (const uint64_t(*)[SYNC_WORDS])said, stop);
        if (!elder) {
            w->members = set.bits[0];
            set_policy(self);
        }
    }
    if (!elder && code != SERRY_OK) /* it does not know what is right yet */
        return code;
    ranks = chaos_account(self, w, code, -1, *newcomers);
    check_untouched(self, code == SERRY_OK ? ranks : 0, (const uint64_t(*)[SYNC_WORDS])said);
    chaos_log(self, key_of(self), code, ranks, w->epoch, 0, false);
    note(self, code, ranks, 0);
    return code;
}

/* What is known of the parts, and much else. */
static uint64_t word_of_lesson(const chaos_rank *self, size_t i)
{
    return i < FACTS ? self->facts[i] : chaos_mix(self->state, i);
}

/* The newcomers get something large from the lowest elder. */
static int teach(chaos_rank *self, int root)
{
    chaos_group *w = &self->world;
    static uint64_t lesson[STATE_WORDS];
    int code;

    for (size_t i = 0; i < STATE_WORDS; i++)
        lesson[i] = w->rank == root ? word_of_lesson(self, i) : 0;
    chaos_at(self, "call %#llx: broadcast of the state from rank %d, policy %d",
             (unsigned long long)key_of(self), root, (int)w->policy);
    chaos_place(self->seat);
    chaos_hurry(self, w->comm);
    do {
        code = serry_broadcast(lesson, STATE_WORDS, SERRY_U64, root, w->comm);
    } while (chaos_again(self, w->comm, code));
    chaos_place(self->seat);
    uint64_t ranks = chaos_account(self, w, code, root, 0);
    if (code == SERRY_OK && !is_elder(self))
        memcpy(self->facts, lesson, sizeof(self->facts));
    for (size_t i = 0; i < STATE_WORDS; i++)
        if (lesson[i] != (code == SERRY_OK || w->rank == root ? word_of_lesson(self, i) : 0))
            chaos_fail(self, "word %zu of the state is wrong after %s", i, serry_error_name(code));
    chaos_log(self, key_of(self), code, ranks, w->epoch, 0, false);
    note(self, code, ranks, 0);
    return code;
}

/* Until all that are there know the same. True: this was the last one. */
static bool sync_all(chaos_rank *self)
{
    bool stop = false;

    for (;;) {
        if (sync_once(self, &self->newcomers, &stop) != SERRY_OK)
            continue;
        if (self->newcomers == 0 ||
            teach(self, __builtin_ctzll(self->world.members & ~self->newcomers)) == SERRY_OK)
            break;
    }
    self->seat->elder = self->incarnation;
    return stop;
}

/* ---- work --------------------------------------------------------------------------------------- */

/* Memory comes and goes at any time, on one rank alone. */
static void juggle(chaos_rank *self)
{
    serry_comm *comm = self->world.comm;
    size_t bytes = chaos_power(&self->sequence, 0, 18);

    if (chaos_chance(&self->sequence, 16) != 0)
        return;
    chaos_at(self, "alloc of %zu bytes", bytes);
    unsigned char *memory = serry_alloc(comm, bytes);
    chaos_place(self->seat);
    if (memory == NULL)
        atomic_fetch_add(&self->board->without_arena, 1);
    else if (memory[0] != 0 || memory[bytes - 1] != 0)
        chaos_fail(self, "memory from serry_alloc is not zero");
    else
        memory[0] = memory[bytes - 1] = 1;
    serry_free(comm, memory);
}

static int agree(chaos_rank *self)
{
    bool any;

    chaos_at(self, "call %#llx: agree", (unsigned long long)key_of(self));
    chaos_place(self->seat);
    uint64_t ranks = chaos_agreed(self, &self->world, false, &any);
    chaos_log(self, key_of(self), SERRY_OK, ranks, self->world.epoch, 0, false);
    note(self, SERRY_OK, ranks, 0);
    return SERRY_OK;
}

static int work(chaos_rank *self)
{
    uint64_t sequence = chaos_mix(self->job->seed + 1, self->index), ranks;
    chaos_operation op;
    int code;

    juggle(self);
    switch (chaos_chance(&sequence, 24)) {
    case 0:
        return agree(self);
    case 1:
        code = chaos_part(self, &sequence);
        break;
    case 2:
    case 3:
        code = chaos_requests(self, &sequence, key_of(self));
        break;
    case 4:
        code = chaos_messages(self, &sequence, key_of(self));
        break;
    case 5:
    case 6:
    case 7:
        code = chaos_stand(self, &sequence);
        break;
    default:
        chaos_draw(self->job, &sequence, self->world.size, &op);
        code = chaos_run(self, &self->world, &op, key_of(self));
    }
    ranks = self->world.members;
    note(self, code, ranks, 0);
    return code;
}

static void work_until_stopped(chaos_rank *self)
{
    bool synced = false;

    if (is_elder(self))
        set_policy(self);
    else
        self->world.policy = SERRY_POLICIES; /* nobody knows */
    for (;;) {
        if (!synced) {
            if (sync_all(self))
                return;
            set_policy(self);
            if (self->newcomers != 0 && self->facts[FACT_BORN] != 0) {
                chaos_regain(self);
                note(self, SERRY_OK, self->newcomers, self->facts[FACT_BORN]);
            }
            synced = true;
        }
        int code = work(self);
        if (code == SERRY_ERR_RANK_JOINED || code == SERRY_ERR_RANK_MISMATCH) {
            synced = false;
            continue;
        }
        self->index++;
        set_policy(self);
        synced = self->index % SYNC_EVERY != 0;
    }
}

/* ---- from the beginning to the end -------------------------------------------------------------- */

static void user_reduction(void *accumulator, const void *next, size_t count, serry_dtype dtype,
                           void *seat)
{
    chaos_place(seat);
    reference_user(accumulator, next, count, dtype, NULL);
}

static void join(chaos_rank *self)
{
    serry_config config = SERRY_CONFIG_INIT;
    const chaos_job *job = self->job;
    serry_comm **comm = &self->world.comm;

    config.rank = self->rank;
    config.size = job->size;
    config.job = job->name;
    config.timeout_ms = -1;
    config.pool_bytes = (size_t)1 << 30;
    config.policy = job->policy == CHAOS_MIXED ? SERRY_REPORT : job->policy;
    config.progress =
        chaos_mix(job->seed, 5) % 4 == 0 ? SERRY_PROGRESS_CALLER : SERRY_PROGRESS_THREAD;
    chaos_at(self, "joining");
    int code = self->incarnation == 1 ? serry_init(&config, comm) : serry_rejoin(&config, comm);
    while (code == SERRY_ERR_CANCELLED) { /* all others have died: the job begins anew */
        chaos_at(self, "nobody is left to join");
        pause();
    }
    if (code != SERRY_OK)
        chaos_fail(self, "joining: %s: %s", serry_error_name(code),
                   serry_last_error(NULL)->message);
    self->seat->admitted = self->incarnation;
}

static void open_buffers(chaos_rank *self)
{
    self->private_send = malloc(MEMORY_BYTES);
    self->private_recv = malloc(MEMORY_BYTES);
    self->shadow = malloc(MEMORY_BYTES);
    chaos_at(self, "alloc");
    self->arena_send = serry_alloc(self->world.comm, MEMORY_BYTES);
    chaos_place(self->seat);
    self->arena_recv = serry_alloc(self->world.comm, MEMORY_BYTES);
    if (self->arena_recv == NULL)
        atomic_fetch_add(&self->board->without_arena, 1);
}

static void close_buffers(chaos_rank *self)
{
    free(self->private_send);
    free(self->private_recv);
    free(self->shadow);
    serry_free(self->world.comm, self->arena_send);
    serry_free(self->world.comm, self->arena_recv);
}

/* All that are in the last sync leave, or recover first. */
static void end(chaos_rank *self)
{
    uint64_t sequence = chaos_mix(self->job->seed, 3);
    bool recover = chaos_chance(&sequence, 2) == 0, revoke = chaos_chance(&sequence, 2) == 0;
    chaos_group *w = &self->world;

    atomic_store(&self->board->ending, 1);
    if (recover) {
        bool any;
        chaos_agreed(self, w, false, &any); /* all have completed the last sync: see serry_revoke */
        if (revoke && w->rank == __builtin_ctzll(w->members) && serry_revoke(w->comm) != SERRY_OK)
            chaos_fail(self, "revoke: %s", serry_last_error(w->comm)->message);
        chaos_recover(self, w, &sequence, key_of(self), revoke);
    }
    chaos_leave_standing(self);
    close_buffers(self);
    chaos_at(self, "finalize");
    if (serry_finalize(&w->comm) != SERRY_OK)
        chaos_fail(self, "finalize: %s", serry_last_error(w->comm)->message);
    serry_op_free(&self->user_op);
    chaos_at(self, "done");
}

void chaos_live(const chaos_job *job, int rank, unsigned incarnation)
{
    chaos_rank *self = calloc(1, sizeof(*self));

    self->job = job;
    self->board = job->board;
    self->seat = &job->board->seat[rank];
    self->rank = rank;
    self->incarnation = incarnation;
    self->sequence = chaos_mix(job->seed, (uint64_t)incarnation << 8 | (unsigned)rank);
    if (serry_op_create("chaos", user_reduction, self->seat, &self->user_op) != SERRY_OK)
        chaos_fail(self, "op_create: %s", serry_last_error(NULL)->message);
    join(self);
    self->world.size = job->size;
    self->world.rank = rank;
    self->world.is_world = true;
    for (int r = 0; r < job->size; r++) {
        self->world.world[r] = r;
        self->world.incarnation[r] = incarnation == 1 ? 1 : 0;
    }
    if (incarnation == 1) {
        self->world.members = (UINT64_C(1) << job->size) - 1;
        self->seat->elder = 1;
    }
    if (serry_rank(self->world.comm) != rank || serry_size(self->world.comm) != job->size)
        chaos_fail(self, "joined as rank %d of %d", serry_rank(self->world.comm),
                   serry_size(self->world.comm));
    self->world.epoch = serry_epoch(self->world.comm);
    open_buffers(self);
    work_until_stopped(self);
    end(self);
    free(self);
}
