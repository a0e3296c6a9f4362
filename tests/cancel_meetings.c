/* cancel_meetings.c - a split, a shrink or an agreement is cancelled while requests are under way, so that
 * it is polled: behind an operation that is not over, and in its own wait for the others. What is under way
 * is not disturbed, and the same call again succeeds. */
#include <pthread.h>

#include "driven.h"

#include <serry/timeout.h>

enum { RANKS = 3, CANCELLER = 0, ID = 7, TAG = 5, AFTER_MS = 5 };
enum { FLAG_CANCELLED }; /* raised once in a turn */

typedef enum what { SPLIT, SHRINK, AGREE, WHATS } what;

static const char *const k_names[] = {"split", "shrink", "agree"};

/* `bits`: to agree on. The same call again is one with the same buffer. */
static int do_it(test_rank *self, what it, uint64_t *bits)
{
    serry_comm *part = NULL;
    int64_t one = 1, sum = 0;
    int rc;

    switch (it) {
    case SPLIT:
        rc = serry_split(self->comm, 0, 0, &part);
        break;
    case SHRINK:
        rc = serry_shrink(self->comm, &part);
        break;
    case AGREE:
    default:
        rc = serry_agree(self->comm, SERRY_BOR, bits);
        CHECK(self, *bits == (rc == SERRY_OK ? 7u : UINT64_C(1) << self->rank));
        return rc;
    }
    CHECK(self, (rc == SERRY_OK) == (part != NULL));
    if (part == NULL)
        return rc;
    test_expect(self, SERRY_OK, serry_allreduce(&one, &sum, 1, SERRY_I64, SERRY_SUM, part), part,
                "a sum in the part");
    CHECK(self, sum == RANKS);
    test_expect(self, SERRY_OK, serry_finalize(&part), NULL, "finalize of the part");
    return rc;
}

/* ---- who cancels -------------------------------------------------------------------------------- */

static void *cancel_soon(void *timeouts)
{
    test_sleep_ms(AFTER_MS);
    serry_timeouts_cancel(timeouts, ID);
    return NULL;
}

static void cancelled(test_rank *self, what it, uint64_t *bits)
{
    serry_timeouts *timeouts;
    serry_token *token;
    pthread_t thread;

    if (!CHECK(self, serry_timeouts_create(-1, &timeouts) == SERRY_OK) ||
        !CHECK(self, serry_timeouts_start(timeouts, ID, -1, &token) == SERRY_OK))
        return;
    EXPECT_OK(self, serry_set_token(self->comm, token));
    CHECK(self, pthread_create(&thread, NULL, cancel_soon, timeouts) == 0);
    test_expect(self, SERRY_ERR_CANCELLED, do_it(self, it, bits), self->comm, "%s", k_names[it]);
    pthread_join(thread, NULL);
    EXPECT_OK(self, serry_set_token(self->comm, NULL));
    serry_token_release(&token);
    serry_timeouts_destroy(&timeouts);
}

/* ---- a turn ------------------------------------------------------------------------------------- */

static void one_turn(test_rank *self, what it, bool behind, unsigned number)
{
    int next = (self->rank + 1) % RANKS, from = (self->rank + RANKS - 1) % RANKS, got = -1;
    uint64_t bits = UINT64_C(1) << self->rank;
    int64_t one = 1, sum = 0;
    serry_request *receive = NULL, *operation = NULL;

    test_at(self, "%s%s", k_names[it], behind ? " behind an operation" : "");
    EXPECT_OK(self, serry_irecv(&got, 1, SERRY_I32, from, TAG, NULL, self->comm, &receive));
    if (self->rank != CANCELLER)
        test_await(self, FLAG_CANCELLED, number + 1);
    if (behind)
        EXPECT_OK(self,
                  serry_iallreduce(&one, &sum, 1, SERRY_I64, SERRY_SUM, self->comm, &operation));
    if (self->rank == CANCELLER) {
        cancelled(self, it, &bits);
        CHECK(self, serry_request_error(receive)->error == SERRY_OK && got == -1);
        CHECK(self, serry_request_error(operation)->error == SERRY_OK && sum == 0);
        test_raise(self, FLAG_CANCELLED);
    }
    EXPECT_OK(self, do_it(self, it, &bits));
    EXPECT_OK(self, serry_wait(&operation, -1));
    CHECK(self, sum == (behind ? RANKS : 0));
    EXPECT_OK(self, serry_send(&self->rank, 1, SERRY_I32, next, TAG, self->comm));
    EXPECT_OK(self, serry_wait(&receive, -1));
    CHECK(self, got == from);
    test_meet(self);
}

static void all_turns(test_rank *self)
{
    unsigned number = 0;

    for (what it = SPLIT; it < WHATS; it++)
        for (int behind = 0; behind < 2 && test_mine(self)->failures == 0; behind++)
            one_turn(self, it, behind != 0, number++);
}

int main(void)
{
    return run_cancelled(RANKS, all_turns);
}
