/* segment.c - see segment.h.
 *
 * The segment never has a name, so that no kill at any instruction can leave one behind, and nobody
 * can guess one: O_TMPFILE with O_EXCL makes a file of /dev/shm that can never be linked into it.
 * The kernel frees it with the last mapping or descriptor. */
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "record.h"

#define SHM_DIRECTORY "/dev/shm"
#define KIB UINT64_C(1024)

enum memory { MEMORY_AUTO, MEMORY_SHM, MEMORY_MEMFD };

static int choose_memory(enum memory *memory, serry_error *error)
{
    const char *text = getenv("SERRY_MEMORY");

    if (text == NULL || *text == 0 || strcmp(text, "auto") == 0)
        *memory = MEMORY_AUTO;
    else if (strcmp(text, "shm") == 0)
        *memory = MEMORY_SHM;
    else if (strcmp(text, "memfd") == 0)
        *memory = MEMORY_MEMFD;
    else
        return serry_fail(error, SERRY_ERR_INVALID,
                          "SERRY_MEMORY is \"%s\"; it must be auto, shm or memfd", text);
    return SERRY_OK;
}

static uint64_t free_bytes(int fd)
{
    struct statvfs fs;

    if (fstatvfs(fd, &fs) != 0)
        return 0;
    if (fs.f_blocks == 0) /* a memfd, or a tmpfs without a limit */
        return UINT64_MAX;
    return (uint64_t)fs.f_bavail * fs.f_frsize;
}

static int no_space(uint64_t needed, uint64_t available, const char *what, serry_error *error)
{
    return serry_fail(error, SERRY_ERR_NO_SPACE,
                      "%s needs %" PRIu64 " KiB, but " SHM_DIRECTORY " has only %" PRIu64
                      " KiB free; enlarge it (mount -o remount,size=..., docker run "
                      "--shm-size=...) or let serry use other memory with SERRY_MEMORY=memfd",
                      what, (needed + KIB - 1) / KIB, available / KIB);
}

/* A file size limit would be a signal, not an error. */
static int check_file_limit(uint64_t bytes, serry_error *error)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        limit.rlim_cur < bytes)
        return serry_fail(error, SERRY_ERR_NO_SPACE,
                          "the arena is a file of %" PRIu64 " KiB, but the file size limit of this "
                          "process is %" PRIu64
                          " KiB; raise it (ulimit -f) or set SERRY_POOL lower",
                          bytes / KIB, (uint64_t)limit.rlim_cur / KIB);
    return SERRY_OK;
}

static int set_size(int fd, uint64_t bytes, serry_error *error)
{
    int rc;

    do
        rc = ftruncate(fd, (off_t)bytes);
    while (rc != 0 && errno == EINTR);
    if (rc != 0)
        return serry_fail_errno(error, errno, "cannot make an arena of %" PRIu64 " KiB",
                                bytes / KIB);
    return SERRY_OK;
}

static int create_memfd(uint64_t bytes, int *fd, serry_error *error)
{
    int file = memfd_create("serry", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (file < 0)
        return serry_fail_errno(error, errno, "cannot make a memfd for the arena");
    fchmod(file, 0600);
    int rc = set_size(file, bytes, error);
    if (rc == SERRY_OK && fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        rc = serry_fail_errno(error, errno, "cannot fix the size of the arena's memfd");
    if (rc == SERRY_OK)
        *fd = file;
    else
        close(file);
    return rc;
}

/* An unnamed file of /dev/shm; *fd stays -1 where memory is to be looked for elsewhere. */
static int create_shm(uint64_t bytes, uint64_t needed, bool must, int *fd, serry_error *error)
{
    int file = open(SHM_DIRECTORY, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
    int rc = SERRY_OK;

    if (file < 0 && must)
        return serry_fail_errno(error, errno,
                                "cannot make a file in " SHM_DIRECTORY
                                "; let serry use other memory with SERRY_MEMORY=memfd");
    if (file < 0)
        return SERRY_OK;
    bool fits = free_bytes(file) >= needed;
    if (!fits && must)
        rc = no_space(needed, free_bytes(file), "the arena", error);
    else if (fits)
        rc = set_size(file, bytes, error);
    if (fits && rc == SERRY_OK)
        *fd = file;
    else
        close(file);
    return rc;
}

int segment_create(uint64_t bytes, uint64_t needed, uint64_t wanted, int *fd, serry_error *error)
{
    enum memory memory = MEMORY_AUTO;
    int rc = choose_memory(&memory, error);

    *fd = -1;
    if (rc == SERRY_OK)
        rc = check_file_limit(bytes, error);
    if (rc == SERRY_OK && memory != MEMORY_MEMFD)
        rc = create_shm(bytes, memory == MEMORY_SHM ? needed : wanted, memory == MEMORY_SHM, fd,
                        error);
    if (rc == SERRY_OK && *fd < 0)
        rc = create_memfd(bytes, fd, error);
    return rc;
}

int segment_check(int fd, uint64_t bytes, serry_error *error)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return serry_fail_errno(error, errno, "cannot look at the arena's descriptor");
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 0077) != 0 ||
        (uint64_t)st.st_size != bytes)
        return serry_fail(error, SERRY_ERR_ARENA,
                          "rank 0 sent a descriptor that is no arena of this user (owner %u, mode "
                          "%o, %lld bytes, expected %" PRIu64 ")",
                          (unsigned)st.st_uid, (unsigned)st.st_mode, (long long)st.st_size, bytes);
    return SERRY_OK;
}

int segment_reserve(int fd, uint64_t offset, uint64_t bytes, const char *what, serry_error *error)
{
    int rc;

    do
        rc = posix_fallocate(fd, (off_t)offset, (off_t)bytes);
    while (rc == EINTR);
    if (rc == ENOSPC || rc == ENOMEM)
        return no_space(bytes, free_bytes(fd), what, error);
    if (rc != 0)
        return serry_fail_errno(error, rc, "cannot reserve %" PRIu64 " KiB for %s", bytes / KIB,
                                what);
    return SERRY_OK;
}

void segment_release(int fd, uint64_t offset, uint64_t bytes)
{
    while (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes) !=
               0 &&
           errno == EINTR)
        ;
}

unsigned char *segment_map(int fd, uint64_t bytes, serry_error *error)
{
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);

    if (base == MAP_FAILED) {
        serry_fail_errno(error, errno,
                         "cannot map an arena of %" PRIu64 " KiB; a lower SERRY_POOL may help",
                         bytes / KIB);
        return NULL;
    }
    madvise(base, bytes, MADV_DONTFORK);
    madvise(base, bytes, MADV_DONTDUMP); /* most of it is empty, and would still be dumped */
    return base;
}
