/* channel.h - messages between two members of a group. */
#ifndef SHM_CHANNEL_H
#define SHM_CHANNEL_H

#include "extent.h"
#include "operation.h"
#include "word.h"

/* As put, settled, withdraw, peek, take and listen in serry/backend.h. */
int channel_put(shm_member *m, int dest, const serry_envelope *envelope, const void *data,
                uint64_t *ticket, serry_error *error);
int channel_settled(shm_member *m, int dest, uint64_t ticket, serry_error *error);
int channel_withdraw(shm_member *m, int dest, uint64_t ticket);
int channel_peek(shm_member *m, int source, serry_envelope *envelope, serry_error *error);
int channel_take(shm_member *m, int source, void *data, serry_error *error);
void channel_listen(shm_member *m, serry_interest *interest);

/* m->group has replaced `old`: take what is on its way between ranks that stay along, before others
 * look for it. */
void channel_move(shm_member *m, const shm_group *old);

/* Free the private part. */
void channel_free(shm_member *m);

/* ---- for channel.c, channel_take.c and channel_box.c ------------------------------------------- */

enum { CHANNEL_BOXES = 8 };                    /* of one channel */
#define CHANNEL_BOX_BYTES (UINT64_C(16) << 20) /* in its boxes; or one, if that is larger */

/* Memory for one message that is too large for the ring. */
typedef struct channel_box {
    uint64_t offset;  /* in the arena; 0: there is none */
    uint64_t bytes;   /* whole pages */
    uint64_t message; /* the last one that was in it: free when that is taken */
} channel_box;

/* The sender's side. Private. */
typedef struct channel_out {
    channel *shared;
    uint64_t offset;             /* of that, in the arena */
    uint64_t sent, taken;        /* messages; taken: as last seen */
    uint64_t written, freed;     /* bytes of the ring, counted from the beginning */
    uint64_t end[CHANNEL_LINES]; /* `written` after the message in that line */
    channel_box box[CHANNEL_BOXES];
} channel_out;

/* The receiver's side. Private. */
typedef struct channel_in {
    channel *shared; /* NULL: not found yet */
    uint64_t taken;
    bool looked; /* at the next message: it is there, and this is its line */
    bool ended;  /* there will be no more */
    uint64_t bytes, where;
    int32_t tag;
    uint16_t dtype, place;
} channel_in;

typedef struct shm_mail {
    channel_out *out[SERRY_MAX_RANKS]; /* NULL: nothing was sent there */
    channel_in *in[SERRY_MAX_RANKS];   /* NULL: nobody has looked */
} shm_mail;

/* Has this rank a say, and is there something to say it to? SERRY_OK, SERRY_ERR_EXCLUDED or
 * SERRY_ERR_REVOKED. `what` is the operation for the record. */
int channel_may(shm_member *m, const char *what, serry_error *error);

/* This rank's word is sealed. */
int channel_fail_excluded(shm_member *m, const char *what, serry_error *error);

/* The other end has failed or left: SERRY_ERR_RANK_FAILED, or SERRY_ERR_EXCLUDED if this rank was sealed before. */
int channel_fail_ended(shm_member *m, const char *what, int peer, serry_error *error);

/* What rank `peer` says in the arena cannot be. */
int channel_fail_arena(const shm_member *m, const char *what, int peer, serry_error *error);

/* Out of private memory. */
int channel_fail_memory(const shm_member *m, const char *what, serry_error *error);

/* NULL: out of memory. */
shm_mail *channel_mail(shm_member *m);

/* Is there evidence that a member has failed or left? seq_cst */
static inline bool channel_has_ended(const shm_member *m, int rank)
{
    return !group_is_settled(&m->group, rank) ||
           (atomic_load_explicit(&group_cell_of(&m->group, rank)->word, memory_order_seq_cst) &
            WORD_SEALED) != 0;
}

/* There is news for a member, which was published seq_cst: wake it if it sleeps. */
static inline void channel_ring(const shm_member *m, int rank)
{
    _Atomic uint64_t *bell = &group_mail_of(&m->group, rank)->bell;

    if (atomic_load_explicit(bell, memory_order_seq_cst) & WORD_ASLEEP)
        wait_rouse(bell);
}

/* Bytes of the ring of each channel of a group; a power of two. */
uint64_t channel_ring_bytes(int size);

/* Look how much the receiver has taken. SERRY_ERR_ARENA. */
int channel_refresh(const shm_member *m, int dest, channel_out *out, serry_error *error);

/* channel_take.c: look for the channel from `source` in a group. SERRY_ERR_AGAIN: there is none.
 * SERRY_ERR_ARENA, SERRY_ERR_NO_SPACE. Without a record. */
int channel_find(shm_member *m, const shm_group *group, int source);

/* channel_box.c: a box for the next message. SERRY_ERR_AGAIN, SERRY_ERR_NO_SPACE,
 * SERRY_ERR_RANK_FAILED, SERRY_ERR_ARENA. */
int channel_take_box(shm_member *m, int dest, channel_out *out, uint64_t bytes, uint64_t *offset,
                     serry_error *error);

/* What a channel to `dest` is recorded as. */
extent_post channel_post(const shm_member *m, int dest);

#endif
