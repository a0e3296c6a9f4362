/* lifeline.h - a lock that each rank holds for life: the kernel tells when its holder is gone.
 *
 * The lock is a robust, process-shared mutex in the rank's slot. Nobody ever waits for it as a
 * mutex: the others look at its word, which the kernel marks when the holding thread ends in any
 * way, before it takes the thread's memory down. That word lies inside pthread_mutex_t; this file
 * is the only place that knows where. Kernel side: man 2 get_robust_list, "robust futexes". */
#ifndef SHM_LIFELINE_H
#define SHM_LIFELINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <serry/error.h>

typedef enum life {
    LIFE_HELD, /* by a living thread */
    LIFE_FREE, /* not held yet, or let go of */
    LIFE_ENDED /* its holder has ended while it held it */
} life;

/* Make a lock that nobody holds, or may look at, yet. */
int lifeline_init(pthread_mutex_t *lock, serry_error *error);

/* The calling thread takes it, for as long as it lives or until it lets go. */
int lifeline_hold(pthread_mutex_t *lock, serry_error *error);

/* The thread that holds it lets go; another thread's call changes nothing. */
void lifeline_let_go(pthread_mutex_t *lock);

/* Does another thread hold it, which lives? */
bool lifeline_is_elsewhere(pthread_mutex_t *lock);

/* What the kernel says. */
life lifeline_look(pthread_mutex_t *lock);

/* Ask to be woken when the holder ends: the futex word to sleep on, shared, and the value to sleep
 * at. False: it is not held, look again. */
bool lifeline_watch(pthread_mutex_t *lock, uint32_t **word, uint32_t *value);

/* The kernel wakes one sleeper of an ended lock; that one wakes the others. */
void lifeline_pass_on(pthread_mutex_t *lock);

/* Does this C library keep the word where this file looks for it? Decided once. */
bool lifeline_works(void);

#endif
