/* slice.c - see slice.h.
 *
 * Fork: a child would share the slice with its parent, and write into its memory. So before the fork the
 * parent copies what is in use into private memory, which the child, before it runs on, moves to where
 * the slice was; the parent drops it. All of it is copied at once, other than in a usual fork.
 *
 *   parent   copy = private copy of the slice   fork   unmap copy
 *   child                                              copy moves over the slice: from now on all its
 *                                                      memory is private
 *
 * Where there is no room for the copy the child cannot go on, and there is nobody to tell: it ends as if
 * the kernel had found no memory for it. vfork and posix_spawn share all memory anyway, until exec. */
#include "slice.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "claim.h"

/* This process's slice. `state` is written last when claiming. */
enum slice_state { UNCLAIMED = 0, CLAIMING, CLAIMED, NONE };

static serry_heap_view view;
static _Atomic int state;   /* enum slice_state; release */
static _Atomic size_t used; /* bytes cut from its beginning; relaxed: nothing else hangs on it */

static __thread unsigned char *copy; /* between the handlers of this thread's fork */
static __thread size_t copied;

/* Claimed at the first need: most processes of a job that are no ranks have none. While one thread is at
 * it, others have to do without. */
static bool have(void)
{
    int seen = atomic_load_explicit(&state, memory_order_acquire);

    if (__builtin_expect(seen == CLAIMED, 1))
        return true;
    if (seen != UNCLAIMED ||
        !atomic_compare_exchange_strong_explicit(&state, &seen, CLAIMING, memory_order_acquire,
                                                 memory_order_acquire))
        return false;
    bool claimed = claim_slice(&view);
    atomic_store_explicit(&state, claimed ? CLAIMED : NONE, memory_order_release);
    return claimed;
}

const serry_heap_view *serry_heap_view_get(void)
{
    return slice_watch_forks() && have() ? &view : NULL;
}

bool slice_has(const void *address)
{
    return atomic_load_explicit(&state, memory_order_acquire) == CLAIMED &&
           (uintptr_t)address - (uintptr_t)view.base < view.slice_bytes;
}

void *slice_cut(void *at, size_t bytes, size_t alignment)
{
    if (!have())
        return NULL;
    size_t seen = atomic_load_explicit(&used, memory_order_relaxed), start;
    uintptr_t base = (uintptr_t)view.base;

    do {
        start = ((base + seen + alignment - 1) & ~(uintptr_t)(alignment - 1)) - base;
        if (start > view.slice_bytes || bytes > view.slice_bytes - start ||
            (at != NULL && at != view.base + start))
            return NULL;
    } while (!atomic_compare_exchange_weak_explicit(&used, &seen, start + bytes,
                                                    memory_order_relaxed, memory_order_relaxed));
    madvise(view.base + start, bytes, MADV_DODUMP);
    return view.base + start;
}

/* ---- fork -------------------------------------------------------------------------------------- */

/* Holes stay holes. False: the descriptor is not what it was, or memory is short. */
static bool copy_data(unsigned char *to, size_t bytes)
{
    off_t start = (off_t)(view.number * view.slice_bytes), end = start + (off_t)bytes, at = start;

    while (at < end && (at = lseek(view.fd, at, SEEK_DATA)) >= 0 && at < end) {
        off_t hole = lseek(view.fd, at, SEEK_HOLE);
        if (hole < 0)
            return false;
        hole = hole < end ? hole : end;
        for (ssize_t got; at < hole; at += got)
            if ((got = pread(view.fd, to + (at - start), (size_t)(hole - at), at)) <= 0)
                return false;
    }
    return true;
}

static void before_fork(void)
{
    copy = NULL;
    copied = atomic_load_explicit(&used, memory_order_relaxed);
    if (atomic_load_explicit(&state, memory_order_acquire) != CLAIMED || copied == 0)
        return;
    copy = mmap(NULL, copied, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                -1, 0);
    if (copy == MAP_FAILED) {
        copy = NULL;
        return;
    }
    if (claim_is_heap(view.fd, view.inode, view.slice_bytes) && copy_data(copy, copied))
        return;
    __builtin_memcpy(copy, view.base, copied); /* the program has closed it */
}

static void parent_after_fork(void)
{
    if (copy != NULL)
        munmap(copy, copied);
    copy = NULL;
}

/* Private memory where the slice was: the copy, and zeroes for what other threads have cut between the
 * copy and the fork. The rest is given up. */
static bool replace(size_t now)
{
    if (copied != 0 && (copy == NULL || mremap(copy, copied, copied, MREMAP_MAYMOVE | MREMAP_FIXED,
                                               view.base) == MAP_FAILED))
        return false;
    if (now > copied &&
        mmap(view.base + copied, now - copied, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        return false;
    return munmap(view.base + now, view.slice_bytes - now) == 0;
}

static void child_after_fork(void)
{
    int seen = atomic_load_explicit(&state, memory_order_acquire);

    atomic_store_explicit(&state, NONE, memory_order_release);
    if (seen == CLAIMED && !replace(atomic_load_explicit(&used, memory_order_relaxed)))
        kill(getpid(), SIGKILL);
    copy = NULL;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool watched;

static void watch(void)
{
    watched =
        claim_find_heap() && pthread_atfork(before_fork, parent_after_fork, child_after_fork) == 0;
}

bool slice_watch_forks(void)
{
    pthread_once(&once, watch);
    return watched;
}
