/* cases.h - one collective call on prepared buffers, its outcome compared bit for bit with the
 * reference. */
#ifndef TEST_CASES_H
#define TEST_CASES_H

#include "harness.h"
#include "reference.h"

#define CASE_SHIFTS 512u /* calls start reading at this many different places of a dataset */

/* Inputs of all ranks and their combination, in memory that all ranks of the run share. Reductions
 * go element by element: every stretch of `combined` is the result for that stretch of inputs. */
typedef struct dataset {
    serry_dtype dtype;
    serry_op op;
    uint64_t seed;
    size_t length; /* elements a rank */
    int size;      /* ranks */
    unsigned char *memory;
} dataset;

/* A communicator and who is in it. */
typedef struct group {
    serry_comm *comm;
    int rank, size;
    int member[SERRY_MAX_RANKS];   /* their ranks in the world: whose inputs they bring */
    const unsigned char *combined; /* of their inputs */
} group;

/* Whose buffers lie in the arena. */
typedef enum memory_choice {
    MEMORY_PRIVATE, /* none */
    MEMORY_ARENA,   /* all */
    MEMORY_MIXED,   /* those of even ranks */
    MEMORY_SEND,    /* what is sent */
    MEMORY_RECV,    /* what is received */
    MEMORIES
} memory_choice;

/* Who calls in place. */
typedef enum place_choice { PLACE_APART, PLACE_IN, PLACE_ODD, PLACES } place_choice;

typedef struct op_case {
    serry_kind kind;
    size_t count;
    int root;
    memory_choice memory;
    place_choice place;
    unsigned turn; /* varies the data, the alignment and what is passed where nothing is needed */
} op_case;

/* Buffers of one rank, big enough for every case of a test. */
typedef struct buffers {
    size_t bytes;
    unsigned char *private_send, *private_recv;
    unsigned char *arena_send, *arena_recv;
} buffers;

/* Bytes of the memory of a dataset. */
size_t dataset_bytes(serry_dtype dtype, int size, size_t length);

/* Fill in inputs and combination: every rank of the run calls this; each does its part. */
void dataset_prepare(test_rank *self, dataset *data);

const unsigned char *dataset_input(const dataset *data, int rank);

/* The combination over all ranks. */
const unsigned char *dataset_combined(const dataset *data);

/* The group of all ranks of the run. */
void group_world(test_rank *self, const dataset *data, group *world);

/* Room for cases of up to `bytes` a buffer; false if a buffer cannot be had (reported). */
bool buffers_open(test_rank *self, buffers *b, size_t bytes);
void buffers_close(test_rank *self, buffers *b);

/* Has this kind anything to choose? The numbers of different places and roots that make sense. */
int case_places(serry_kind kind);
int case_roots(serry_kind kind, int size);

/* Does each rank of this kind send or receive `size` blocks of `count` elements? */
bool case_has_blocks(serry_kind kind);

bool case_reduces(serry_kind kind);

/* Make the call on this rank and compare. Reports what is wrong; false where the call returned an
 * error, so that the list cannot go on. */
bool case_run(test_rank *self, const buffers *b, const group *g, const dataset *data,
              const op_case *c);

/* The same in two parts, through the i-form: the buffers are the case's own from start to finish. */
bool case_start(test_rank *self, const buffers *b, const group *g, const dataset *data,
                const op_case *c, serry_request **request);
bool case_finish(test_rank *self, const buffers *b, const group *g, const dataset *data,
                 const op_case *c, serry_request **request);

/* What the case's call received, `bytes` of it (0: nothing); valid until the next case. */
const unsigned char *case_result(const buffers *b, const group *g, const dataset *data,
                                 const op_case *c, size_t *bytes);

#endif
