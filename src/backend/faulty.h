/* faulty.h - the rules of a faulty backend. */
#ifndef SERRY_FAULTY_RULES_H
#define SERRY_FAULTY_RULES_H

#include <stdatomic.h>

#include <serry/faulty.h>

typedef struct faulty_rule {
    char text[96]; /* as it was written, cut, for messages */
    int rank;      /* -1: every one */
    uint64_t op;   /* 0: every one */
    char kind[16]; /* "": every collective, and split */
    double chance;
    uint32_t times; /* 0: without end */
    serry_fault fault;
    int value; /* the code, or milliseconds */
    _Atomic uint32_t fired[SERRY_MAX_RANKS];
} faulty_rule;

typedef struct faulty_table {
    serry_backend table; /* its context is this */
    char name[64];
    const serry_backend *inner;
    uint64_t seed;
    _Atomic uint64_t attempts[SERRY_MAX_RANKS]; /* of each rank, for which chances were drawn */
    size_t rules;
    faulty_rule rule[SERRY_FAULTY_RULES];
} faulty_table;

/* A delay or hang of a call that is polled, between two polls. */
typedef struct faulty_hold {
    bool active;
    size_t rule;      /* that holds it up */
    uint64_t attempt; /* number of the call */
    uint64_t end_ns, deadline_ns;
} faulty_hold;

/* Where a rank stands when the rules are looked at. */
typedef struct faulty_moment {
    int rank; /* in the job */
    const char *kind;
    bool named_only; /* only rules that name this kind */
    uint64_t op;
    const serry_limit *limit; /* how long it may be held up */
    faulty_hold *hold;        /* where limit says to poll; else not looked at */
} faulty_moment;

enum { FAULTY_DROPPED = 1 }; /* beside the error codes */

/* faulty_script.c: from text to rules. SERRY_ERR_INVALID. */
int faulty_read(faulty_table *table, const char *script, serry_error *error);

/**
 * faulty_rules.c: let the rules act.
 *
 * @param[out] corrupt  Go on with another call than the caller's.
 * @return SERRY_OK: go on. FAULTY_DROPPED: return SERRY_OK at once. An error: return that.
 *         SERRY_ERR_AGAIN: it is held up, and is polled; the next strike of the same call goes on.
 */
int faulty_strike(faulty_table *table, const faulty_moment *moment, bool *corrupt,
                  serry_error *error);

#endif
