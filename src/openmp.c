/* openmp.c - see openmp.h.
 *
 * fork. A child has the calling thread alone, but libgomp's notes about a team that is not there, and waits
 * for ever when it calls for it. So a thread ends its team before it forks; the child may then use OpenMP
 * as if its parent never had. Teams that others made in the parent, the program itself or a library, are
 * none of ours to end: in a child that finds libgomp there already, serry has no teams. exec makes all
 * this good. */
#include "openmp.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "comm.h"
#include "record.h"

/* TSan does not see that libgomp's barriers order anything. */
#if defined(__SANITIZE_THREAD__)
#define WITHOUT_TEAMS true
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WITHOUT_TEAMS true
#endif
#endif
#ifndef WITHOUT_TEAMS
#define WITHOUT_TEAMS false
#endif

#define LIBRARY "libgomp.so.1"
#define FORKED_NO_EXEC 0x40u /* PF_FORKNOEXEC of the kernel */

enum { PAUSE_HARD = 2 }; /* omp_pause_hard */

/* Written once, by load(), before anybody has a team. */
static struct {
    bool usable;
    unsigned forks; /* serry_forks then */
    const char *why;
    void (*parallel)(void (*body)(void *), void *argument, unsigned threads, unsigned flags);
    int (*number)(void); /* of a thread in its team */
    int (*size)(void);
    int (*most)(void); /* that a parallel region would have here */
    int (*pause)(int kind);
} openmp;

static _Thread_local bool has_team;  /* made here, and not ended */
static _Thread_local int processors; /* that this thread may use; 0: not asked yet */

/* ---- loading ----------------------------------------------------------------------------------- */

/* Is this the child of a fork that has not become another program? Where nobody can tell, it is. */
static bool is_forked(void)
{
    char text[512];
    unsigned flags;
    int file = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, text, sizeof(text) - 1);

    if (file >= 0)
        close(file);
    if (length <= 0)
        return true;
    text[length] = '\0';
    const char *end =
        strrchr(text, ')'); /* of the name; the flags are the seventh word behind it */
    return end == NULL || sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) != 1 ||
           (flags & FORKED_NO_EXEC) != 0;
}

static bool find(void *library, const char *name, void *function)
{
    void *found = dlsym(library, name);

    memcpy(function, &found, sizeof(found));
    return found != NULL;
}

static const char *load_library(void)
{
    if (getauxval(AT_BASE) == 0) /* no dynamic loader: the library would bring a second C library */
        return "the program is linked statically, and cannot load " LIBRARY;
    bool was_there = dlopen(LIBRARY, RTLD_LAZY | RTLD_NOLOAD) != NULL;
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return LIBRARY " cannot be loaded; install it (Debian: libgomp1)";
    if (!find(library, "GOMP_parallel", &openmp.parallel) ||
        !find(library, "omp_get_thread_num", &openmp.number) ||
        !find(library, "omp_get_num_threads", &openmp.size) ||
        !find(library, "omp_get_max_threads", &openmp.most) ||
        !find(library, "omp_pause_resource_all", &openmp.pause))
        return LIBRARY " is older than that of gcc 9";
    openmp.usable = !(was_there && is_forked());
    return NULL;
}

static void load(void)
{
    openmp.forks = serry_forks;
    openmp.why = load_library();
    if (openmp.usable)
        pthread_atfork(openmp_end, NULL, NULL);
}

int openmp_load(serry_error *error)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    if (WITHOUT_TEAMS)
        return SERRY_OK;
    pthread_once(&once, load);
    if (openmp.why == NULL)
        return SERRY_OK;
    return serry_fail(error, SERRY_ERR_UNSUPPORTED,
                      "an OpenMP team is asked for (SERRY_TEAM, or team in serry_config), but %s",
                      openmp.why);
}

/* ---- teams ------------------------------------------------------------------------------------- */

static bool is_usable(void)
{
    return openmp.usable && openmp.forks == serry_forks;
}

int openmp_threads(int cores)
{
    if (!is_usable())
        return 1;
    int most = openmp.most();
    if (getenv("OMP_NUM_THREADS") == NULL && cores < most)
        most = cores;
    return most > 1 ? most : 1;
}

/* Waking others on the one processor that this thread has to itself gains nothing. */
static bool is_bound(void)
{
    cpu_set_t mask;

    if (processors == 0)
        processors =
            sched_getaffinity(0, sizeof(mask), &mask) == 0 ? CPU_COUNT(&mask) : CPU_SETSIZE;
    return processors == 1;
}

/* Rounding, subnormal numbers, traps: without the flags that say what has happened. */
#if defined(__SSE2__)
#define FLAGS 0x3fu

static unsigned get_mode(void)
{
    return __builtin_ia32_stmxcsr();
}

static void set_mode(unsigned mode)
{
    __builtin_ia32_ldmxcsr(mode);
}
#elif defined(__aarch64__)
#define FLAGS 0u

static unsigned get_mode(void)
{
    unsigned long mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return (unsigned)mode;
}

static void set_mode(unsigned mode)
{
    __asm__ volatile("msr fpcr, %0" : : "r"((unsigned long)mode));
}
#endif

typedef struct region {
    openmp_part *part;
    void *work;
    unsigned mode;
} region;

static void work_in_team(void *argument)
{
    const region *r = argument;
    unsigned own = get_mode();

    if (((own ^ r->mode) & ~FLAGS) != 0)
        set_mode((r->mode & ~FLAGS) | (own & FLAGS));
    r->part(r->work, openmp.number(), openmp.size());
    if (((own ^ r->mode) & ~FLAGS) != 0)
        set_mode(own);
}

void openmp_run(int threads, openmp_part *part, void *work)
{
    region r = {part, work, get_mode()};

    if (threads < 2 || !is_usable() || is_bound()) {
        part(work, 0, 1);
        return;
    }
    has_team = true;
    openmp.parallel(work_in_team, &r, (unsigned)threads, 0);
}

void openmp_end(void)
{
    if (has_team) /* inside of a parallel region of the program it stays */
        openmp.pause(PAUSE_HARD);
    has_team = false;
}
