/* self.c - one rank, alone: what it sends is what it gets. */
#include <serry/backend.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "record.h"
#include "sleep.h"
#include "token.h"

#define MESSAGES_MOST (UINT64_C(64) << 20) /* so much may lie in a member, or one message */
#define MESSAGE_COST UINT64_C(64)          /* of one beside its data */

typedef struct block {
    void *memory;
    size_t bytes;
    struct block *next;
} block;

/* What the communicators of one job share: memory that was given out. */
typedef struct self_job {
    pthread_mutex_t lock;
    unsigned members;
    block *blocks;
} self_job;

/* A message to itself. */
typedef struct letter {
    struct letter *next;
    serry_envelope envelope;
    _Alignas(16) unsigned char data[];
} letter;

typedef struct self_member {
    self_job *job;
    _Atomic uint64_t operations;
    _Atomic uint32_t
        revoked;           /* 1: it is; a futex word, for who waits for a message. By any thread */
    letter *first, **last; /* messages that were not taken, */
    uint64_t cost;         /* and what they cost */
} self_member;

static self_member *own(serry_member *member)
{
    return (self_member *)(void *)member;
}

static const self_member *own_const(const serry_member *member)
{
    return (const self_member *)(const void *)member;
}

/* ---- joining and leaving ---------------------------------------------------------------------- */

static serry_member *member_new(self_job *job, serry_error *error)
{
    self_member *m = calloc(1, sizeof(*m));

    if (m == NULL) {
        serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory for a communicator");
        return NULL;
    }
    m->job = job;
    m->last = &m->first;
    pthread_mutex_lock(&job->lock);
    job->members++;
    pthread_mutex_unlock(&job->lock);
    return (serry_member *)(void *)m;
}

static int self_open(const serry_backend *backend, const serry_job *job, serry_member **member,
                     serry_error *error)
{
    (void)backend;
    *member = NULL;
    if (job->size != 1)
        return serry_fail(error, SERRY_ERR_UNSUPPORTED,
                          "backend self is for one rank alone, but the job has %d; use shm",
                          job->size);
    if (job->entry != SERRY_ENTRY_START)
        return serry_fail(error, SERRY_ERR_UNSUPPORTED,
                          "backend self is for one rank alone, which nobody can replace");
    self_job *made = calloc(1, sizeof(*made));
    if (made == NULL)
        return serry_fail(error, SERRY_ERR_NO_SPACE, "out of memory for a communicator");
    pthread_mutex_init(&made->lock, NULL);
    *member = member_new(made, error);
    if (*member != NULL)
        return SERRY_OK;
    pthread_mutex_destroy(&made->lock);
    free(made);
    return error->error;
}

static void member_free(self_member *m)
{
    while (m->first != NULL) {
        letter *next = m->first->next;
        free(m->first);
        m->first = next;
    }
    free(m);
}

static int self_close(serry_member *member, serry_error *error)
{
    self_job *job = own(member)->job;
    (void)error;

    member_free(own(member));
    pthread_mutex_lock(&job->lock);
    bool last = --job->members == 0;
    pthread_mutex_unlock(&job->lock);
    if (!last)
        return SERRY_OK;
    while (job->blocks != NULL) {
        block *next = job->blocks->next;
        munmap(job->blocks->memory, job->blocks->bytes);
        free(job->blocks);
        job->blocks = next;
    }
    pthread_mutex_destroy(&job->lock);
    free(job);
    return SERRY_OK;
}

/* The job stays: another thread of the parent may have had its lock at the fork. */
static void self_forget(serry_member *member)
{
    member_free(own(member));
}

/* ---- operations ------------------------------------------------------------------------------- */

static int fail_revoked(const char *operation, serry_error *error)
{
    serry_error_begin(error, operation, 0, 0);
    return serry_fail(error, SERRY_ERR_REVOKED,
                      "the communicator was revoked; only shrink, agree, get_failed and finalize "
                      "work on it");
}

static int self_run(serry_member *member, const serry_call *call, const serry_limit *limit,
                    serry_error *error)
{
    self_member *m = own(member);
    (void)limit;

    if (atomic_load_explicit(&m->revoked, memory_order_relaxed))
        return fail_revoked(serry_kind_name(call->kind), error);
    if (call->send != NULL && call->recv != NULL && call->send != call->recv && call->count > 0)
        memcpy(call->recv, call->send, call->count * serry_dtype_size(call->dtype));
    atomic_fetch_add_explicit(&m->operations, 1, memory_order_relaxed);
    return SERRY_OK;
}

static int self_split(serry_member *member, int colour, int key, const serry_limit *limit,
                      serry_member **part, serry_error *error)
{
    (void)key, (void)limit;
    *part = NULL;
    if (atomic_load_explicit(&own(member)->revoked, memory_order_relaxed))
        return fail_revoked("split", error);
    if (colour < 0)
        return SERRY_OK;
    serry_error_begin(error, "split", 0, 0);
    *part = member_new(own(member)->job, error);
    return *part == NULL ? error->error : SERRY_OK;
}

static int self_shrink(serry_member *member, const serry_limit *limit, serry_member **rest,
                       serry_error *error)
{
    (void)limit;
    serry_error_begin(error, "shrink", 0, 0);
    *rest = member_new(own(member)->job, error);
    return *rest == NULL ? error->error : SERRY_OK;
}

static int self_agree(serry_member *member, serry_op op, uint64_t *value, const serry_limit *limit,
                      serry_error *error)
{
    (void)member, (void)op, (void)value, (void)limit, (void)error;
    return SERRY_OK;
}

static int self_meet(serry_member *member, uint64_t vote, const serry_limit *limit, uint64_t *votes,
                     int *repeat, serry_error *error)
{
    (void)member, (void)limit, (void)error;
    *votes = vote;
    *repeat = SERRY_REPEAT;
    return SERRY_OK;
}

static int self_set_policy(serry_member *member, serry_policy policy, serry_error *error)
{
    (void)member, (void)policy, (void)error;
    return SERRY_OK;
}

static int self_set_variant(serry_member *member, unsigned variant, serry_error *error)
{
    (void)member;
    if (variant == 0)
        return SERRY_OK;
    serry_error_begin(error, "set_variant", 0, 0);
    return serry_fail(error, SERRY_ERR_UNSUPPORTED, "there is no algorithm number %u", variant);
}

static int self_revoke(serry_member *member, serry_error *error)
{
    (void)error;
    atomic_store_explicit(&own(member)->revoked, 1, memory_order_relaxed);
    sleep_wake(&own(member)->revoked);
    return SERRY_OK;
}

/* ---- messages to itself ------------------------------------------------------------------------ */

static int check_rank(int rank, const char *operation, serry_error *error)
{
    if (rank == 0)
        return SERRY_OK;
    serry_error_begin(error, operation, 0, 0);
    return serry_fail(error, SERRY_ERR_INVALID, "%s: there is no rank %d, only rank 0", operation,
                      rank);
}

static int check_message(const self_member *m, int rank, const char *operation, serry_error *error)
{
    if (atomic_load_explicit(&m->revoked, memory_order_relaxed))
        return fail_revoked(operation, error);
    return check_rank(rank, operation, error);
}

/* It is received as soon as it is sent, so there are no tickets. */
static int self_put(serry_member *member, int dest, const serry_envelope *envelope,
                    const void *data, uint64_t *ticket, serry_error *error)
{
    self_member *m = own(member);
    uint64_t cost = envelope->bytes + MESSAGE_COST;
    int rc = check_message(m, dest, "send", error);

    *ticket = 0;
    if (rc != SERRY_OK)
        return rc;
    if (m->first != NULL && m->cost + cost > MESSAGES_MOST)
        return SERRY_ERR_AGAIN;
    letter *l = malloc(sizeof(*l) + (size_t)envelope->bytes);
    if (l == NULL) {
        serry_error_begin(error, "send", 0, 0);
        return serry_fail(error, SERRY_ERR_NO_SPACE,
                          "send: no memory for a copy of a message of %zu bytes",
                          (size_t)envelope->bytes);
    }
    l->next = NULL;
    l->envelope = *envelope;
    if (envelope->bytes != 0)
        memcpy(l->data, data, (size_t)envelope->bytes);
    *m->last = l;
    m->last = &l->next;
    m->cost += cost;
    return SERRY_OK;
}

static int self_settled(serry_member *member, int dest, uint64_t ticket, serry_error *error)
{
    (void)member, (void)ticket;
    return check_rank(dest, "send", error);
}

static int self_withdraw(serry_member *member, int dest, uint64_t ticket)
{
    (void)member, (void)dest, (void)ticket;
    return SERRY_ERR_AGAIN; /* it has been received */
}

static int self_peek(serry_member *member, int source, serry_envelope *envelope, serry_error *error)
{
    const self_member *m = own(member);
    int rc = check_message(m, source, "receive", error);

    if (rc != SERRY_OK)
        return rc;
    if (m->first == NULL)
        return SERRY_ERR_AGAIN;
    *envelope = m->first->envelope;
    return SERRY_OK;
}

static int self_take(serry_member *member, int source, void *data, serry_error *error)
{
    self_member *m = own(member);
    serry_envelope envelope;
    int rc = self_peek(member, source, &envelope, error);

    if (rc != SERRY_OK)
        return rc;
    letter *l = m->first;
    if (data != NULL && envelope.bytes != 0)
        memcpy(data, l->data, (size_t)envelope.bytes);
    m->first = l->next;
    if (m->first == NULL)
        m->last = &m->first;
    m->cost -= envelope.bytes + MESSAGE_COST;
    free(l);
    return SERRY_OK;
}

/* Whatever is sent, this rank sends itself, and looks then. Only revocation comes from elsewhere. */
static void self_listen(serry_member *member, serry_interest *interest)
{
    interest->word = (uint32_t *)(void *)&own(member)->revoked;
    interest->value = 0;
    interest->at_ns = 0;
    interest->pauses = interest->yields = 0;
}

/* ---- memory ----------------------------------------------------------------------------------- */

static void *self_alloc(serry_member *member, size_t bytes, serry_error *error)
{
    self_job *job = own(member)->job;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    block *b = malloc(sizeof(*b));
    void *memory = MAP_FAILED;

    if (b != NULL && bytes <= SIZE_MAX - page) {
        b->bytes = (bytes + (bytes == 0) + page - 1) / page * page;
        memory = mmap(NULL, b->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    }
    if (memory == MAP_FAILED) {
        free(b);
        serry_error_begin(error, "alloc", 0, 0);
        serry_fail(error, SERRY_ERR_NO_SPACE, "the system has no %zu bytes to give", bytes);
        return NULL;
    }
    b->memory = memory;
    pthread_mutex_lock(&job->lock);
    b->next = job->blocks;
    job->blocks = b;
    pthread_mutex_unlock(&job->lock);
    return memory;
}

static int self_free(serry_member *member, void *memory, serry_error *error)
{
    self_job *job = own(member)->job;

    pthread_mutex_lock(&job->lock);
    block **at = &job->blocks, *b;
    while (*at != NULL && (*at)->memory != memory)
        at = &(*at)->next;
    b = *at;
    if (b != NULL)
        *at = b->next;
    pthread_mutex_unlock(&job->lock);
    if (b == NULL) {
        serry_error_begin(error, "free", 0, 0);
        return serry_fail(error, SERRY_ERR_INVALID,
                          "%p is not memory that this rank got from serry_alloc", memory);
    }
    munmap(b->memory, b->bytes);
    free(b);
    return SERRY_OK;
}

/* ---- questions -------------------------------------------------------------------------------- */

static int self_rank(const serry_member *member)
{
    (void)member;
    return 0;
}

static int self_size(const serry_member *member)
{
    (void)member;
    return 1;
}

static void self_failed(const serry_member *member, serry_rank_set *failed)
{
    (void)member;
    *failed = (serry_rank_set){{0}};
}

static void self_participants(const serry_member *member, serry_rank_set *ranks)
{
    (void)member;
    *ranks = (serry_rank_set){{1}};
}

static uint64_t self_epoch(const serry_member *member)
{
    (void)member;
    return 0;
}

static int self_vitals(serry_member *member, int rank, serry_vitals *vitals, serry_error *error)
{
    *vitals = (serry_vitals){
        .alive_ns = serry_token_now_ns(),
        .progress = atomic_load_explicit(&own_const(member)->operations, memory_order_relaxed),
        .activity = SERRY_COMPUTING};
    return check_rank(rank, "vitals", error);
}

static int self_exclude(serry_member *member, int rank, serry_exclusion how, serry_error *error)
{
    int rc = check_rank(rank, "exclude", error);
    (void)member, (void)how;

    if (rc != SERRY_OK)
        return rc;
    serry_error_begin(error, "exclude", 0, 0);
    return serry_fail(error, SERRY_ERR_UNSUPPORTED, "a rank that is alone cannot be excluded");
}

const serry_backend serry_backend_self = {
    .name = "self",
    .open = self_open,
    .close = self_close,
    .forget = self_forget,
    .run = self_run,
    .split = self_split,
    .set_policy = self_set_policy,
    .set_variant = self_set_variant,
    .failed = self_failed,
    .revoke = self_revoke,
    .agree = self_agree,
    .shrink = self_shrink,
    .meet = self_meet,
    .put = self_put,
    .settled = self_settled,
    .withdraw = self_withdraw,
    .peek = self_peek,
    .take = self_take,
    .listen = self_listen,
    .alloc = self_alloc,
    .free = self_free,
    .rank = self_rank,
    .size = self_size,
    .live = self_size,
    .participants = self_participants,
    .epoch = self_epoch,
    .vitals = self_vitals,
    .exclude = self_exclude,
};
