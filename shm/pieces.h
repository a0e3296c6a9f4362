/* pieces.h - a large vector divided among the members: one range for each, which it makes, piece by piece.
 * What follow.c and spread.c have in common. */
#ifndef SHM_PIECES_H
#define SHM_PIECES_H

#include "operation.h"

typedef struct range {
    int rank;
    size_t first, length; /* elements */
    size_t pieces;
} range;

/* Of m->alive[index]: a share of the vector, or where its block is gathered. */
range pieces_range(const shm_member *m, int index);

/* Where piece k of a range begins, and its elements. */
size_t pieces_at(const shm_member *m, const range *r, size_t k, size_t *first);

/* Is the member's result where its input is? */
static inline bool pieces_in_place(const shm_member *m, int rank)
{
    return m->input[rank] == m->result[rank];
}

/* The `out` buffer of a member where it makes piece k, if that goes by a buffer. */
static inline unsigned char *pieces_buffer(const shm_member *m, int rank, size_t k)
{
    return group_out(&m->group, rank, k);
}

/* Combine these elements of all inputs. */
void pieces_combine(const shm_member *m, void *to, size_t first, size_t length);

/* The same into the results of some members, past the caches, if pieces_streams() says that this can be. */
bool pieces_streams(const shm_member *m);
void pieces_stream(const shm_member *m, unsigned char *const *to, int count, size_t first,
                   size_t length);

/* This member has so many pieces ready; what that means, the algorithm says. */
static inline void pieces_say(const shm_member *m, size_t pieces)
{
    atomic_store_explicit(&m->own->pieces, (uint32_t)pieces, memory_order_seq_cst);
}

/* What the member of a range has said, which may be anything, bounded. */
size_t pieces_said(const shm_member *m, const range *r);

/* Is the word of a member sealed? */
bool pieces_sealed(const shm_member *m, int rank);

#endif
