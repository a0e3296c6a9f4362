/**
 * faulty.h - a backend that makes errors on purpose, to try out what a program does about them.
 *
 * It carries everything through the backend that it is put around, except where a rule of its
 * script says otherwise. Rules are separated by ';' or line breaks. A rule is words: any number of
 * conditions, and one action.
 *
 *     rank=1 op=3 kind=allreduce fail=SYSTEM times=2; p=0.01 delay=5
 *
 * Conditions, all of which must hold; none: every operation of every rank.
 *   rank=N     only on this rank of the job (also in communicators made from the world's)
 *   op=N       only in this operation of the communicator: collectives are counted from 1 as they
 *              end, so an attempt that fails by a rule is made again under the same number
 *   kind=NAME  only in "allreduce" and its kin, "split", "open" (serry_init), "agree", "shrink" or
 *              "alloc"; without a kind a rule means collectives and split. Messages (message.h) go
 *              through untouched
 *   p=X        with this probability, 0 to 1; the seed and the rank's attempts alone decide
 *   times=N    so often at most on each rank, from 1. Left out: once, or with p= without end
 *
 * Actions, before this rank has contributed anything:
 *   fail=CODE  return this error, named as in error.h without "SERRY_ERR_". Codes that all ranks
 *              get alike (RANK_FAILED, ...) should be given to all
 *   delay=MS   wait so long, then go on
 *   hang       wait until the timeout or a token ends it
 *   corrupt    go on with a call that differs from everybody's: all ranks get
 *              SERRY_ERR_RANK_MISMATCH (a rank that is alone does not)
 *   drop       do nothing and return SERRY_OK: the others miss this rank
 *   kill       end this process by SIGKILL
 *
 * Rules are looked at in their order; a delay, and what corrupts, lets those behind it act as well.
 * What goes on with an operation that a timeout has left open is not struck again.
 */
#ifndef SERRY_FAULTY_H
#define SERRY_FAULTY_H

#include <serry/backend.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SERRY_FAULTY_RULES 32u /* of a script, at most */

/* The actions of rules. X(NAME, "word of the script"). */
#define SERRY_FAULT_MAP(X)                                                                         \
    X(FAIL, "fail")                                                                                \
    X(DELAY, "delay")                                                                              \
    X(HANG, "hang")                                                                                \
    X(CORRUPT, "corrupt")                                                                          \
    X(DROP, "drop")                                                                                \
    X(KILL, "kill")

typedef enum serry_fault {
#define SERRY_X(name, word) SERRY_FAULT_##name,
    SERRY_FAULT_MAP(SERRY_X)
#undef SERRY_X
        SERRY_FAULTS /* how many there are */
} serry_fault;

/**
 * Make a backend that fails by a script. Any thread.
 *
 * @param inner         What carries; outlives this one.
 * @param script        Copied. "" makes no errors.
 * @param seed          Of p=: equal seeds and equal calls of a rank give equal faults.
 * @param[out] backend  For serry_config.backend, or a chain of ft.h; named "faulty(shm)" and the
 *                      like. NULL unless SERRY_OK is returned; serry_faulty_destroy() it after the
 *                      last of its communicators.
 * @retval SERRY_ERR_INVALID   The script cannot be understood; serry_last_error(NULL) says
 *                             which word.
 * @retval SERRY_ERR_NO_SPACE  No memory.
 */
int serry_faulty_create(const serry_backend *inner, const char *script, uint64_t seed,
                        serry_backend **backend);

/**
 * Free a faulty backend, after the last of its communicators.
 *
 * @param[in,out] backend  Set to NULL. NULL in it is allowed.
 */
void serry_faulty_destroy(serry_backend **backend);

/**
 * Count how often rules with an action have struck ranks of this process. Any thread.
 *
 * @param backend  From serry_faulty_create().
 * @return From 0.
 */
uint64_t serry_faulty_fired(const serry_backend *backend, serry_fault fault);

#ifdef __cplusplus
}
#endif
#endif
