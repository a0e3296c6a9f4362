/* user.c - names of reductions, and the registry of those that callers made.
 *
 * The value of a user reduction is a hash of its name, so that processes that know nothing of each
 * other get the same value for the same name, and mismatch detection can compare values alone. */
#include "user.h"

#include <pthread.h>
#include <serry/serry.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "record.h"

enum { NAME_MAX_BYTES = 32, VALUES = 2048 };

/* One per name ever used. It stays after serry_op_free(), for the name to come back: so whoever
 * holds a name from serry_op_name() may keep it. */
typedef struct entry {
    serry_user_op op; /* op.name is `name`; the rest is written while not in `live` */
    char name[NAME_MAX_BYTES];
    struct entry *next;
} entry;

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static entry *entries;                /* under registry_lock */
static _Atomic(entry *) live[VALUES]; /* by value - SERRY_OP_USER; stored under registry_lock with
                                         release, after the entry is complete; acquire by all */

static const char *const predefined[SERRY_OPS] = {
    [SERRY_SUM] = "sum", [SERRY_PROD] = "prod", [SERRY_MIN] = "min", [SERRY_MAX] = "max",
    [SERRY_AVG] = "avg", [SERRY_BAND] = "band", [SERRY_BOR] = "bor", [SERRY_BXOR] = "bxor",
};

/* 11 bits of the name, from FNV-1a folded. Part of what ranks agree on: never change it. */
static unsigned hash_name(const char *name)
{
    uint32_t hash = UINT32_C(2166136261);
    for (const char *c = name; *c != '\0'; c++)
        hash = (hash ^ (unsigned char)*c) * UINT32_C(16777619);
    return (hash ^ (hash >> 11) ^ (hash >> 22)) % VALUES;
}

static bool is_predefined(const char *name)
{
    for (int op = 0; op < SERRY_OPS; op++)
        if (strcmp(name, predefined[op]) == 0)
            return true;
    return false;
}

const serry_user_op *serry_user_op_find(serry_op op)
{
    if (op < SERRY_OP_USER || op >= SERRY_OP_USER + VALUES)
        return NULL;
    /* pairs with the release stores in serry_op_create() and serry_op_free() */
    const entry *found = atomic_load_explicit(&live[op - SERRY_OP_USER], memory_order_acquire);
    return found != NULL ? &found->op : NULL;
}

const char *serry_op_name(serry_op op)
{
    if (op >= 0 && op < SERRY_OPS)
        return predefined[op];
    const serry_user_op *found = serry_user_op_find(op);
    return found != NULL ? found->name : "?";
}

/* The entry of a name, made if need be; NULL without memory. registry_lock is held. */
static entry *entry_of(const char *name)
{
    for (entry *old = entries; old != NULL; old = old->next)
        if (strcmp(old->name, name) == 0)
            return old;
    entry *made = calloc(1, sizeof(*made));
    if (made == NULL)
        return NULL;
    memcpy(made->name, name, strlen(name) + 1);
    made->op.name = made->name;
    made->next = entries;
    entries = made;
    return made;
}

/* As serry_op_create, with checked arguments and registry_lock held. */
static int create_locked(const char *name, serry_reduce_function function, void *argument,
                         serry_op *op, serry_error *error)
{
    unsigned value = hash_name(name);
    const entry *holder = atomic_load_explicit(&live[value], memory_order_relaxed);
    if (holder != NULL && strcmp(holder->name, name) == 0)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "a reduction named \"%s\" exists already; free it first, or choose "
                          "another name",
                          name);
    if (holder != NULL)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "the name \"%s\" has the same 11-bit hash as the existing reduction "
                          "\"%s\"; choose another name on all ranks",
                          name, holder->name);
    entry *made = entry_of(name);
    if (made == NULL)
        return serry_fail(error, SERRY_ERR_NO_SPACE, "no memory for the reduction \"%s\"", name);
    made->op.function = function;
    made->op.argument = argument;
    atomic_store_explicit(&live[value], made, memory_order_release);
    *op = SERRY_OP_USER + (serry_op)value;
    return SERRY_OK;
}

int serry_op_create(const char *name, serry_reduce_function function, void *argument, serry_op *op)
{
    serry_error *error = serry_error_of_thread();
    serry_error_begin(error, "op_create", 0, -1);
    if (op == NULL)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "op is NULL; give the address of the serry_op to be filled in");
    *op = -1;
    if (name == NULL || name[0] == '\0' || strnlen(name, NAME_MAX_BYTES) == NAME_MAX_BYTES)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "the name of a reduction must have 1 to %d characters",
                          NAME_MAX_BYTES - 1);
    if (is_predefined(name))
        return serry_fail(error, SERRY_ERR_INVALID,
                          "\"%s\" names a predefined reduction; choose another name", name);
    if (function == NULL)
        return serry_fail(error, SERRY_ERR_INVALID, "the reduction \"%s\" was given no function",
                          name);
    pthread_mutex_lock(&registry_lock);
    int result = create_locked(name, function, argument, op, error);
    pthread_mutex_unlock(&registry_lock);
    return result;
}

int serry_op_free(serry_op *op)
{
    serry_error *error = serry_error_of_thread();
    serry_error_begin(error, "op_free", 0, -1);
    if (op == NULL)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "op is NULL; give the address of the reduction to be freed");
    pthread_mutex_lock(&registry_lock);
    bool found = serry_user_op_find(*op) != NULL;
    if (found)
        atomic_store_explicit(&live[*op - SERRY_OP_USER], NULL, memory_order_release);
    pthread_mutex_unlock(&registry_lock);
    if (!found)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "%d is not a reduction made by serry_op_create(), or it was freed "
                          "before",
                          (int)*op);
    *op = -1;
    return SERRY_OK;
}
