/* ft_moved.h - jobs that have moved to another backend of their chain, and replacements for them.
 *
 * Four ranks fall back from shm to sockets, a rank dies, and another process or thread takes its place:
 * it comes in by shm, and finds the others at the sockets. Runs have more harness ranks than the job
 * has: those from RANKS on are newcomers. Where somebody is to die in the middle of the admission, the
 * backends in its chain count what is asked of them, and kill it at one of these. */
#ifndef TEST_FT_MOVED_H
#define TEST_FT_MOVED_H

#include "deaths.h"

#include <serry/ft.h>

enum { RANKS = 4, BYSTANDER = 1 };
enum { FLAG_DEAD, FLAG_IN, FLAG_DONE };

/* What a run is about: the argument of its ranks. */
typedef struct scene {
    int victim;
    serry_policy policy;
    int rounds;       /* newcomers, one after the other */
    const char *step; /* who dies does so at this, */
    int at;           /* the at'th time */
    unsigned us;      /* or, unless 0, so many microseconds after it has begun to come in */
} scene;

static inline const scene *moved_scene_of(const test_rank *self)
{
    return self->argument;
}

/* Nobody; for lists of who is dead. */
extern const int k_none[];

/* A run with so many newcomers; in one of processes, `dead` are killed. */
void moved_run(serry_kind_of_rank kind, scene *s, int newcomers, test_body body, const int *dead);

/* ---- in a body: joining and leaving ---------------------------------------------------------- */

/* This rank's chain: shm, where rank 1 fails once, then sockets. */
typedef struct chain {
    serry_backend shm, socket, *faulty, *ft;
} chain;

/* The first `length` backends of it; NULL: reported. */
chain *moved_chain(test_rank *self, size_t length);
void moved_chain_free(chain *c);

int moved_enter(test_rank *self, const chain *c, int rank, serry_entry entry);

/* The job starts on shm, and moves. */
bool moved_start(test_rank *self);

/* A replacement of the victim comes in. */
bool moved_replace(test_rank *self);

void moved_leave(test_rank *self);

/* From here on this process dies where the scene says. */
void moved_arm(test_rank *self);

/* From here on this process cannot join the sockets any more. */
void moved_refuse(void);

/* It was not struck so far. */
void moved_die(const test_rank *self);

/* ---- in a body: operations -------------------------------------------------------------------- */

/* Sum over whoever takes part: of bits that tell who did. */
int moved_sum(test_rank *self, uint64_t *who);
bool moved_sum_is(test_rank *self, uint64_t wanted);

/* As expect_failed, of a sum. */
bool moved_expect_death(test_rank *self, int rc, const int *dead);

/* All is well among all but `dead`, ranks of the job that nobody has replaced. */
void moved_goes_on(test_rank *self, const int *dead);

/* Operations go on among `others` until the replacement of `who` is announced. */
bool moved_until_joined(test_rank *self, uint64_t others, const int *who);

#endif
