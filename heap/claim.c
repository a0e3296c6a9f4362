/* claim.c - see claim.h. */
#include "claim.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* What `serry run` says of the heap. */
static struct {
    int fd;
    uint64_t inode, slice_bytes;
    uint32_t tag;
} job;

bool claim_is_heap(int fd, uint64_t inode, uint64_t slice_bytes)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
           (st.st_mode & 0077) == 0 && (uint64_t)st.st_ino == inode &&
           (uint64_t)st.st_size == slice_bytes * (HEAP_SLICES + 1) && seals >= 0 &&
           (seals & F_SEAL_SHRINK) != 0;
}

bool claim_find_heap(void)
{
    const char *text = getenv("SERRY_HEAP");
    int end = 0;

    if (text == NULL ||
        sscanf(text, "1:%d:%" SCNu64 ":%" SCNu64 ":%" SCNu32 "%n", &job.fd, &job.inode,
               &job.slice_bytes, &job.tag, &end) != 4 ||
        text[end] != 0)
        return false;
    return job.slice_bytes >= sizeof(claims) && job.slice_bytes <= UINT64_C(1) << 48 &&
           claim_is_heap(job.fd, job.inode, job.slice_bytes);
}

/* ---- processes --------------------------------------------------------------------------------- */

static uint64_t own_namespace(void)
{
    struct stat st;

    return stat("/proc/self/ns/pid", &st) == 0 ? (uint64_t)st.st_ino : 0;
}

/* Field 22 of a stat line, "PID (NAME) STATE ...", where a name may hold anything; 0: there is no such
 * process. Nothing here may allocate: this runs inside of malloc. */
static uint64_t start_ticks_of(uint32_t pid)
{
    char path[32], text[1024];
    const char *at;
    uint64_t ticks = 0;

    snprintf(path, sizeof(path), "/proc/%" PRIu32 "/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t length = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[length > 0 ? length : 0] = 0;
    at = strrchr(text, ')');
    for (int field = 2; at != NULL && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (at != NULL)
        ticks = strtoull(at, NULL, 10);
    return ticks;
}

/* ---- slices ------------------------------------------------------------------------------------ */

/* The owner is gone, or has become this process by exec. */
static bool is_over(const claim *c, const claim *own)
{
    if (atomic_load_explicit(&c->state, memory_order_acquire) != CLAIM_HELD || c == own ||
        c->pid_namespace != own->pid_namespace ||
        atomic_load_explicit(&c->joined, memory_order_seq_cst) != 0)
        return false;
    if (c->pid == own->pid)
        return true;
    return start_ticks_of(c->pid) != c->start_ticks;
}

/* A sweeper that is killed between the two leaves it to the next. */
static void sweep(claims *all, uint32_t count, const claim *own)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!is_over(&all->claim[i], own))
            continue;
        fallocate(job.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)((i + 1) * job.slice_bytes), (off_t)job.slice_bytes);
        atomic_store_explicit(&all->claim[i].state, CLAIM_GIVEN_BACK, memory_order_release);
    }
}

static claim *take(claims *all, uint32_t *number)
{
    uint32_t seen = atomic_load_explicit(&all->next, memory_order_relaxed);

    do {
        if (seen >= HEAP_SLICES)
            return NULL;
    } while (!atomic_compare_exchange_weak_explicit(&all->next, &seen, seen + 1,
                                                    memory_order_relaxed, memory_order_relaxed));
    claim *c = &all->claim[seen];
    *number = seen + 1;
    c->pid = (uint32_t)getpid();
    c->pid_namespace = own_namespace();
    c->start_ticks = start_ticks_of(c->pid);
    if (c->pid_namespace == 0 || c->start_ticks == 0)
        return NULL; /* no /proc: others could not tell when it is over */
    atomic_store_explicit(&c->state, CLAIM_HELD, memory_order_release);
    sweep(all, seen, c);
    return c;
}

bool claim_slice(serry_heap_view *view)
{
    claims *all = mmap(NULL, sizeof(*all), PROT_READ | PROT_WRITE, MAP_SHARED, job.fd, 0);

    if (all == MAP_FAILED)
        return false;
    madvise(all, sizeof(*all), MADV_DONTFORK); /* a child has no slice */
    claim *own = take(all, &view->number);
    void *base = MAP_FAILED;
    if (own != NULL)
        base = mmap(NULL, job.slice_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                    job.fd, (off_t)(view->number * job.slice_bytes));
    if (base == MAP_FAILED) {
        munmap(all, sizeof(*all));
        return false;
    }
    madvise(base, job.slice_bytes, MADV_DONTDUMP); /* what is in use is made part of dumps again */
    view->version = HEAP_VIEW_VERSION;
    view->tag = job.tag;
    view->fd = job.fd;
    view->inode = job.inode;
    view->slice_bytes = job.slice_bytes;
    view->base = base;
    view->joined = &own->joined;
    return true;
}
