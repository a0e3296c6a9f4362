/* ft_mock.h - a backend that answers as a test tells it to, and counts what it is asked. One rank,
 * no other one exists. */
#ifndef TEST_FT_MOCK_H
#define TEST_FT_MOCK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <serry/ft.h>

#define MOCK_ANSWERS 16

/* Beside error codes, in mock.run and mock.meet: ask for the token and sleep until it ends. */
enum { MOCK_SLEEP = 1000 };

typedef struct mock {
    serry_backend table;
    int rank, size;

    /* what it answers: codes one after the other, SERRY_OK when they are used up */
    int open[MOCK_ANSWERS], run[MOCK_ANSWERS], agree[MOCK_ANSWERS];
    struct {
        int code;
        uint64_t votes; /* of the others */
        int repeat;
    } meet[MOCK_ANSWERS];
    unsigned variants;        /* how many algorithms it has */
    serry_timeouts *extended; /* the first sleep gives these a minute more, under number `extend` */
    uint64_t extend;
    bool token_at_once;  /* asks for the token in every run */
    serry_rank_set gone; /* members that have failed */
    uint64_t joins;      /* the meeting of this number, from 1, admits a replacement; 0: none */

    /* what it was asked */
    unsigned opens, closes, meets, agrees, frees, revokes;
    atomic_uint runs;
    unsigned variant, variant_calls;
    uint64_t epoch;
    uint64_t vote[MOCK_ANSWERS]; /* given to each meeting */
    int timeout_ms[MOCK_ANSWERS];
    serry_job job; /* of the last open */
    serry_policy policy;
    atomic_bool asleep;
} mock;

/* Empty answers, rank 0 of 3, one algorithm. */
void mock_make(mock *m, const char *name);

/* A chain around mocks, and a communicator that it carries. Retries do not pause. */
typedef struct chain {
    mock *mocks[4];
    size_t count;
    serry_recovery_config recovery;
    int timeout_ms; /* of the communicator; 0: a minute */
    serry_backend *backend;
    serry_comm *comm;
} chain;

void chain_begin(chain *c, mock *first, mock *second, mock *third);
int chain_open(chain *c);
void chain_close(chain *c);

/* chain_begin and chain_open around one mock. */
void chain_one(chain *c, mock *m);

/* In an array of answers: so many of the same. */
void mock_answer_all(int *answers, int code, int times);

/* How another rank votes that has this error and wants this strategy. */
uint64_t mock_vote(int rank, int code, serry_strategy strategy);

/* The strategy of an error. */
void chain_set(chain *c, int code, serry_strategy strategy);

/* How many errors the history holds; `errors` is NULL or has room for CHAIN_HISTORY. */
#define CHAIN_HISTORY 64
size_t chain_history(const chain *c, serry_error *errors);

void assert_context(const serry_error *error, const char *key, const char *value);

/* An allreduce of one element, which must arrive if the call says so. */
int chain_sum(chain *c);

#endif
