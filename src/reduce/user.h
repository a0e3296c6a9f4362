/* user.h - reductions that callers made with serry_op_create(). */
#ifndef SERRY_REDUCE_USER_H
#define SERRY_REDUCE_USER_H

#include <serry/types.h>

/* A user reduction; constant from its creation until it is given back. */
typedef struct serry_user_op {
    const char *name;
    serry_reduce_function function;
    void *argument;
} serry_user_op;

/* The reduction with this value; NULL where there is none (or no longer). Any thread, any time;
 * takes no lock. */
const serry_user_op *serry_user_op_find(serry_op op);

#endif
