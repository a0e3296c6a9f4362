/* lifeline.c - see lifeline.h. */
#include "lifeline.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "record.h"

/* The word of the robust futex ABI: the holder's thread id, FUTEX_WAITERS, FUTEX_OWNER_DIED. */
static _Atomic uint32_t *word_of(pthread_mutex_t *lock)
{
    return (_Atomic uint32_t *)(void *)&lock->__data.__lock;
}

int lifeline_init(pthread_mutex_t *lock, serry_error *error)
{
    pthread_mutexattr_t attributes;
    int rc = pthread_mutexattr_init(&attributes);

    /* Of the normal type: one that compares owners could be fooled by equal thread ids in two PID
     * namespaces. */
    if (rc == 0)
        rc = pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_NORMAL);
    if (rc == 0)
        rc = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (rc == 0)
        rc = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (rc == 0)
        rc = pthread_mutex_init(lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return rc == 0 ? SERRY_OK : serry_fail_errno(error, rc, "cannot make a robust lock");
}

int lifeline_hold(pthread_mutex_t *lock, serry_error *error)
{
    int rc = pthread_mutex_trylock(lock);

    return rc == 0 ? SERRY_OK : serry_fail_errno(error, rc, "cannot take this rank's life lock");
}

static uint32_t holder_of(pthread_mutex_t *lock)
{
    return atomic_load_explicit(word_of(lock), memory_order_relaxed) & FUTEX_TID_MASK;
}

void lifeline_let_go(pthread_mutex_t *lock)
{
    if (holder_of(lock) == (uint32_t)syscall(SYS_gettid))
        pthread_mutex_unlock(lock);
}

bool lifeline_is_elsewhere(pthread_mutex_t *lock)
{
    uint32_t holder = holder_of(lock);

    return holder != 0 && holder != (uint32_t)syscall(SYS_gettid);
}

life lifeline_look(pthread_mutex_t *lock)
{
    uint32_t seen = atomic_load_explicit(word_of(lock), memory_order_acquire);

    if (seen & FUTEX_OWNER_DIED)
        return LIFE_ENDED;
    return seen & FUTEX_TID_MASK ? LIFE_HELD : LIFE_FREE;
}

bool lifeline_watch(pthread_mutex_t *lock, uint32_t **word, uint32_t *value)
{
    _Atomic uint32_t *own = word_of(lock);
    uint32_t seen = atomic_load_explicit(own, memory_order_acquire);

    do {
        if ((seen & FUTEX_OWNER_DIED) != 0 || (seen & FUTEX_TID_MASK) == 0)
            return false;
    } while ((seen & FUTEX_WAITERS) == 0 &&
             !atomic_compare_exchange_weak_explicit(own, &seen, seen | FUTEX_WAITERS,
                                                    memory_order_acq_rel, memory_order_acquire));
    *word = (uint32_t *)(void *)own;
    *value = seen | FUTEX_WAITERS;
    return true;
}

void lifeline_pass_on(pthread_mutex_t *lock)
{
    syscall(SYS_futex, word_of(lock), FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static bool works;

static void try_it(void)
{
    static pthread_mutex_t lock;

    if (lifeline_init(&lock, NULL) != SERRY_OK || lifeline_look(&lock) != LIFE_FREE)
        return;
    if (lifeline_hold(&lock, NULL) != SERRY_OK)
        return;
    works = lifeline_look(&lock) == LIFE_HELD &&
            (*word_of(&lock) & FUTEX_TID_MASK) == (uint32_t)syscall(SYS_gettid);
    pthread_mutex_unlock(&lock);
    works = works && lifeline_look(&lock) == LIFE_FREE;
    pthread_mutex_destroy(&lock);
}

bool lifeline_works(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, try_it);
    return works;
}
