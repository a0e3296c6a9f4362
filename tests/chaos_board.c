/* chaos_board.c - what ranks leave on the board, and comparing it; see chaos.h. */
#include "chaos.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- chance ------------------------------------------------------------------------------------- */

uint64_t chaos_mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a ^ b * UINT64_C(0xd1342543de82ef95)) + UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9); /* splitmix64 */
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint64_t chaos_chance(uint64_t *sequence, uint64_t limit)
{
    *sequence = chaos_mix(*sequence, 1);
    return *sequence % limit;
}

uint64_t chaos_power(uint64_t *sequence, unsigned least, unsigned most)
{
    unsigned power = least + (unsigned)chaos_chance(sequence, most - least + 1);

    return (UINT64_C(1) << power) + chaos_chance(sequence, UINT64_C(1) << power);
}

uint64_t chaos_hash(const void *memory, size_t bytes)
{
    uint64_t hash = bytes, word;
    size_t i = 0;

    for (; i + sizeof(word) <= bytes; i += sizeof(word)) {
        memcpy(&word, (const char *)memory + i, sizeof(word));
        hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 32;
    }
    word = 0;
    memcpy(&word, (const char *)memory + i, bytes - i);
    return chaos_mix(hash, word);
}

/* ---- words -------------------------------------------------------------------------------------- */

void chaos_at(chaos_rank *self, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(self->seat->where, sizeof(self->seat->where), format, arguments);
    va_end(arguments);
}

_Noreturn void chaos_fail(chaos_rank *self, const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    fprintf(stderr, "FAULT: rank %d, incarnation %u, process %d, at: %s\n  %s\n", self->rank,
            self->incarnation, (int)getpid(), self->seat->where, text);
    atomic_fetch_add(&self->board->failed, 1);
    for (;;)
        pause();
}

/* ---- places to die ------------------------------------------------------------------------------ */

void chaos_place(chaos_seat *seat)
{
    unsigned left = atomic_load_explicit(&seat->countdown, memory_order_relaxed);

    if (left != 0 && atomic_fetch_sub(&seat->countdown, 1) == 1)
        raise(SIGKILL);
}

bool chaos_is_doomed(const chaos_board *board, int rank, unsigned incarnation)
{
    return atomic_load(&board->seat[rank].doomed) >= incarnation;
}

/* ---- outcomes ----------------------------------------------------------------------------------- */

typedef struct outcome {
    int64_t code;
    uint64_t ranks, epoch, hash;
} outcome;

static bool read_entry(chaos_entry *e, uint64_t key, outcome *o, unsigned *incarnation)
{
    if (atomic_load(&e->key) != key)
        return false;
    *o = (outcome){e->code, e->ranks, e->epoch, e->hash};
    *incarnation = (unsigned)e->incarnation;
    return atomic_load(&e->key) == key;
}

static void write_entry(chaos_entry *e, uint64_t key, const outcome *o, unsigned incarnation)
{
    atomic_store(&e->key, 0);
    e->code = o->code;
    e->incarnation = incarnation;
    e->ranks = o->ranks;
    e->epoch = o->epoch;
    e->hash = o->hash;
    atomic_store(&e->key, key);
}

static bool agree(const outcome *a, const outcome *b, bool revocable)
{
    if (revocable && (a->code == SERRY_ERR_REVOKED || b->code == SERRY_ERR_REVOKED))
        return true;
    return a->code == b->code && a->ranks == b->ranks && a->epoch == b->epoch && a->hash == b->hash;
}

/* A rank that has been killed may have completed a call that the survivors then dropped and made
 * anew. That is counted only. */
void chaos_log(chaos_rank *self, uint64_t key, int code, uint64_t ranks, uint64_t epoch,
               uint64_t hash, bool revocable)
{
    const outcome own = {code, ranks, epoch, hash};
    size_t at = chaos_mix(key, 2) % CHAOS_ENTRIES;
    outcome other;
    unsigned incarnation;

    write_entry(&self->seat->entry[at], key, &own, self->incarnation);
    for (int r = 0; r < self->job->size; r++) {
        if (!read_entry(&self->board->seat[r].entry[at], key, &other, &incarnation) ||
            agree(&own, &other, revocable))
            continue;
        if (chaos_is_doomed(self->board, r, incarnation))
            atomic_fetch_add(&self->board->otherwise, 1);
        else
            chaos_fail(self,
                       "call %#llx: %s, ranks %#llx, epoch %llu, hash %#llx here; rank %d "
                       "(incarnation %u) has %s, ranks %#llx, epoch %llu, hash %#llx",
                       (unsigned long long)key, serry_error_name(code), (unsigned long long)ranks,
                       (unsigned long long)epoch, (unsigned long long)hash, r, incarnation,
                       serry_error_name((int)other.code), (unsigned long long)other.ranks,
                       (unsigned long long)other.epoch, (unsigned long long)other.hash);
    }
    atomic_fetch_add(&self->seat->calls, 1);
    atomic_fetch_add(code == SERRY_OK ? &self->board->operations : &self->board->errors, 1);
}
