/* crash.c - see crash.h. */
#include "crash.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lifeline.h"
#include "slot.h"

enum { JOBS_MOST = 32 };

static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGSYS, SIGTRAP, SIGQUIT};
enum { SIGNALS = sizeof(signals) / sizeof(signals[0]) };

static pthread_mutex_t lock =
    PTHREAD_MUTEX_INITIALIZER; /* of the installation, not of the handler */
static _Atomic(arena_slot *) slots[JOBS_MOST];
static bool installed[SIGNALS];

/* Does the instruction that caused the signal run again on return, and cause it again? */
static bool runs_again(int number)
{
    return number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL;
}

/* Async-signal-safe: atomics and one system call for each job. */
static void handle(int number, siginfo_t *info, void *context)
{
    (void)context;
    int before = errno;

    for (int i = 0; i < JOBS_MOST; i++) {
        arena_slot *slot = atomic_load_explicit(&slots[i], memory_order_acquire);
        if (slot != NULL && slot_bury(slot))
            lifeline_pass_on(&slot->life);
    }
    signal(number, SIG_DFL);
    errno = before;
    if (info->si_code <= 0 || !runs_again(number))
        raise(number);
}

static void install(void)
{
    struct sigaction ours = {.sa_flags = SA_SIGINFO | SA_ONSTACK}, now;
    const char *wish = getenv("SERRY_SIGNALS");

    if (wish != NULL && strcmp(wish, "0") == 0)
        return;
    ours.sa_sigaction = handle;
    sigemptyset(&ours.sa_mask);
    for (int i = 0; i < SIGNALS; i++)
        if (!installed[i] && sigaction(signals[i], NULL, &now) == 0 &&
            (now.sa_flags & SA_SIGINFO) == 0 && now.sa_handler == SIG_DFL)
            installed[i] = sigaction(signals[i], &ours, NULL) == 0;
}

static void uninstall(void)
{
    struct sigaction now;

    for (int i = 0; i < SIGNALS; i++) {
        if (installed[i] && sigaction(signals[i], NULL, &now) == 0 &&
            (now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == handle)
            signal(signals[i], SIG_DFL);
        installed[i] = false;
    }
}

static bool replace(arena_slot *from, arena_slot *to)
{
    for (int i = 0; i < JOBS_MOST; i++) {
        if (atomic_load_explicit(&slots[i], memory_order_relaxed) != from)
            continue;
        atomic_store_explicit(&slots[i], to, memory_order_release);
        return true;
    }
    return false;
}

static bool is_empty(void)
{
    for (int i = 0; i < JOBS_MOST; i++)
        if (atomic_load_explicit(&slots[i], memory_order_relaxed) != NULL)
            return false;
    return true;
}

void crash_mark(arena_slot *slot)
{
    pthread_mutex_lock(&lock);
    if (replace(NULL, slot))
        install();
    pthread_mutex_unlock(&lock);
}

void crash_forget(arena_slot *slot)
{
    pthread_mutex_lock(&lock);
    if (replace(slot, NULL) && is_empty())
        uninstall();
    pthread_mutex_unlock(&lock);
}

void crash_forget_all(void)
{
    for (int i = 0; i < JOBS_MOST; i++)
        atomic_store_explicit(&slots[i], NULL, memory_order_release);
}
