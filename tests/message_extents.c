/* message_extents.c - memory of messages that were under way from or to a rank that was killed goes back to
 * the pool: when the others have finalized the communicator, or met without it. Counted in the arena's
 * own table. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm.h"
#include "deaths.h"
#include "harness.h"
#include "operation.h"
#include "slot.h"

enum { RANKS = 4, DEAD = 1, TAG = 3, KILLS = 12 };
enum { FLAG_SENT, FLAG_SEEN, FLAG_OVER }; /* flags of a run */

/* In the line, the ring, a box, and from the arena; several of each, so that there are several boxes. */
static const size_t k_bytes[] = {8, 1000, 100000, 300000, 40, 90000, 2000, 120000};
enum { MESSAGES = sizeof(k_bytes) / sizeof(k_bytes[0]), LARGEST = 300000 };

/* ---- counting ----------------------------------------------------------------------------------- */

static shm_member *member_of(const serry_comm *comm)
{
    return (shm_member *)(void *)comm->member;
}

static uint32_t communicator_of(const serry_comm *comm)
{
    return member_of(comm)->group.header->communicator;
}

static int slot_of(const serry_comm *comm, int rank)
{
    return member_of(comm)->group.header->slot[rank];
}

/* Extents for messages of a communicator; from or to a slot, where that is not -1. */
static unsigned count(const serry_comm *comm, uint32_t communicator, int slot)
{
    const shm_arena *arena = member_of(comm)->group.arena;
    unsigned found = 0;

    for (unsigned i = 0; i < SHM_EXTENTS; i++) {
        const arena_extent *e = &arena->extents[i];
        bool taken = atomic_load(&e->state) != EXTENT_FREE && e->owner == EXTENT_OF_MESSAGES;
        found += taken && e->communicator == communicator &&
                 (slot < 0 || e->source == slot || e->dest == slot);
    }
    return found;
}

/* ---- traffic ------------------------------------------------------------------------------------ */

typedef struct traffic {
    serry_comm *comm;
    unsigned char *memory[2]; /* private, and of the arena */
    unsigned number;
} traffic;

static void start_traffic(test_rank *self, serry_comm *comm, traffic *t)
{
    *t = (traffic){.comm = comm, .memory = {malloc(LARGEST), serry_alloc(self->comm, LARGEST)}};
    CHECK(self, t->memory[1] != NULL);
    memset(t->memory[0], 1, LARGEST);
    memset(t->memory[1], 1, LARGEST);
}

/* To each of the others a message of each kind, which goes on unseen. */
static void send_to_all(test_rank *self, traffic *t)
{
    for (int to = 0; to < serry_size(t->comm); to++)
        for (int i = 0; i < MESSAGES && to != serry_rank(t->comm); i++) {
            serry_request *request = NULL;
            int rc =
                serry_isend(t->memory[i % 2], k_bytes[i], SERRY_U8, to, TAG, t->comm, &request);
            test_expect(self, SERRY_OK, rc, t->comm, "isend");
            serry_request_free(&request);
            t->number++;
        }
}

/* A few of what has come; the rest stays where it is. */
static void receive_some(test_rank *self, const traffic *t, int from, int most)
{
    static unsigned char room[LARGEST];
    serry_status status;
    int found = 1;

    for (int i = 0; i < most && found; i++) {
        int rc = serry_iprobe(from, TAG, &found, &status, t->comm);
        if (rc == SERRY_OK && found)
            rc = serry_recv(room, LARGEST, SERRY_U8, from, TAG, NULL, t->comm);
        if (rc != SERRY_OK) {
            CHECK(self, rc == SERRY_ERR_RANK_FAILED);
            return;
        }
    }
}

/* Everything that was sent before. */
static void receive_all(test_rank *self, const traffic *t, int from)
{
    static unsigned char room[LARGEST];
    serry_status status;

    for (int i = 0; i < MESSAGES; i++) {
        EXPECT_OK(self, serry_recv(room, LARGEST, SERRY_U8, from, TAG, &status, t->comm));
        CHECK(self, status.count == k_bytes[i] && room[0] == 1 && room[k_bytes[i] - 1] == 1);
    }
}

/* Until then its memory may be in use. */
static void await_gone(const serry_comm *comm)
{
    const shm_arena *arena = member_of(comm)->group.arena;

    while (!slot_is_gone(&arena->slots[slot_of(comm, DEAD)], arena->kind))
        test_sleep_ms(1);
}

/* ---- a part that is finalized ------------------------------------------------------------------- */

/* The argument: after how many microseconds it dies; 0: when all has been sent, and nothing received. */
static void die_in_traffic(test_rank *self, traffic *t)
{
    unsigned us = *(const unsigned *)self->argument;

    if (us != 0)
        death_in(self, us);
    do {
        send_to_all(self, t);
        for (int from = 0; from < RANKS && us != 0; from++)
            receive_some(self, t, from, 4);
    } while (us != 0 && t->number < 1000);
    if (us != 0)
        death_await();
    test_await(self, FLAG_SENT, RANKS - 1);
    death_now(self);
}

static void send_until_one_is_gone(test_rank *self, traffic *t)
{
    if (self->rank == DEAD)
        die_in_traffic(self, t);
    send_to_all(self, t);
    test_raise(self, FLAG_SENT);
    test_await(self, FLAG_SENT, RANKS - 1);
    await_gone(self->comm);
}

static void body_part(test_rank *self)
{
    serry_comm *part = NULL;
    traffic t;

    EXPECT_OK(self, serry_split(self->comm, 0, 0, &part));
    uint32_t communicator = communicator_of(part);
    start_traffic(self, part, &t);
    test_meet(self);
    send_until_one_is_gone(self, &t);
    receive_some(self, &t, DEAD, self->rank);
    CHECK(self, count(self->comm, communicator, -1) > 0);
    test_raise(self, FLAG_SEEN);
    test_await(self, FLAG_SEEN, RANKS - 1);
    EXPECT_OK(self, serry_finalize(&part));
    test_raise(self, FLAG_OVER);
    test_await(self, FLAG_OVER, RANKS - 1);
    unsigned left = count(self->comm, communicator, -1);
    if (left != 0)
        test_failed(self, "%u extents are still taken", left);
    free(t.memory[0]);
}

static void nothing_is_left_when_the_others_have_finalized(void **state)
{
    static const int dead[] = {DEAD, -1};
    uint64_t sequence = chance_begin(21);
    unsigned us = 0;

    (void)state;
    for (int i = 0; i < KILLS; i++) {
        run_deaths(SERRY_PROCESSES, RANKS, body_part, &us, dead);
        us = chance_us(&sequence, 12);
    }
}

/* ---- a world that meets: what was under way between the others comes all the same ---------------- */

static bool join(test_rank *self, bool again)
{
    serry_config config = SERRY_CONFIG_INIT;

    config.rank = again ? DEAD : self->rank;
    config.size = RANKS;
    config.job = self->job;
    config.timeout_ms = 60000;
    config.pool_bytes = (size_t)64 << 20;
    config.policy = SERRY_REPORT;
    config.entry = again ? SERRY_ENTRY_REPLACEMENT : SERRY_ENTRY_START;
    int rc = again ? serry_rejoin(&config, &self->comm) : serry_init(&config, &self->comm);
    return test_expect(self, SERRY_OK, rc, NULL, "joining");
}

static void until_joined(test_rank *self)
{
    int rc;

    do {
        rc = serry_barrier(self->comm);
        usleep(500);
    } while (rc == SERRY_OK || rc == SERRY_ERR_RANK_FAILED);
    test_expect(self, SERRY_ERR_RANK_JOINED, rc, self->comm, "barrier");
}

static void body_world(test_rank *self)
{
    bool again = self->rank == RANKS;
    traffic t;

    if (again)
        test_await(self, FLAG_SEEN, RANKS - 1);
    if (!join(self, again))
        return;
    start_traffic(self, self->comm, &t);
    if (!again) {
        EXPECT_OK(self, serry_barrier(self->comm));
        send_until_one_is_gone(self, &t);
        int slot = slot_of(self->comm, DEAD);
        uint32_t communicator = communicator_of(self->comm);
        CHECK(self, count(self->comm, communicator, slot) > 0 || *(unsigned *)self->argument != 0);
        test_raise(self, FLAG_SEEN);
        until_joined(self);
        EXPECT_OK(self, serry_barrier(self->comm));
        unsigned left = count(self->comm, communicator, slot);
        if (left != 0)
            test_failed(self, "%u extents from or to the dead are still taken", left);
        for (int from = 0; from < RANKS; from++)
            if (from != DEAD && from != self->rank)
                receive_all(self, &t, from);
    } else {
        EXPECT_OK(self, serry_barrier(self->comm));
    }
    EXPECT_OK(self, serry_barrier(self->comm));
    EXPECT_OK(self, serry_finalize(&self->comm));
    free(t.memory[0]);
}

static void nothing_is_left_when_the_others_have_met(void **state)
{
    uint64_t sequence = chance_begin(22);
    unsigned us = 0;

    (void)state;
    for (int i = 0; i < KILLS; i++) {
        test_options options = {.size = RANKS + 1, .body_joins = true};
        test_end(test_start(&options, body_world, &us));
        us = chance_us(&sequence, 12);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_left_when_the_others_have_finalized),
        cmocka_unit_test(nothing_is_left_when_the_others_have_met),
    };

    test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
