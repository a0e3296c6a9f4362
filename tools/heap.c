/* heap.c - `serry run --heap`: the memory that the ranks' large allocations lie in, made before they
 * start, and the variables by which they find it.
 *
 * A memfd that every process of the job inherits: it has no name, and the kernel frees it with the last
 * of them. It is sparse, so its size is addresses, not memory: a slice is as large as twice what the
 * machine (or the control group) has, or less where all slices together would not fit into an address
 * space. What libserry_heap.so makes of it stands in heap/claim.h. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <serry/serry.h>

#include "tool.h"

#define JEMALLOC "libjemalloc.so.2" /* the loader knows where */
#define LIBRARY "libserry_heap.so"

enum { SLICES = 4096 + 1, DESCRIPTOR_FROM = 100 }; /* programs use low descriptors as they like */

static const uint64_t k_slice_least = UINT64_C(1) << 30, k_all_most = UINT64_C(1) << 45;

/* ---- how much ----------------------------------------------------------------------------------- */

/* A number in a file; UINT64_MAX: it says "max", or cannot be read. */
static uint64_t number_in(const char *path, const char *format)
{
    uint64_t number = UINT64_MAX;
    FILE *file = fopen(path, "re");

    if (file != NULL && fscanf(file, format, &number) != 1)
        number = UINT64_MAX;
    if (file != NULL)
        fclose(file);
    return number;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t slice_bytes(const run_options *options)
{
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t processes = (uint64_t)(options->ranks + options->spares);
    uint64_t bytes = k_slice_least;

    memory = smaller(memory, number_in("/sys/fs/cgroup/memory.max", "%" SCNu64));
    memory = smaller(memory, number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes", "%" SCNu64));
    while (bytes / 2 < memory && bytes * processes < k_all_most)
        bytes *= 2;
    return bytes;
}

/* ---- the memory ---------------------------------------------------------------------------------- */

/* With strict accounting a page that cannot be had is SIGBUS at its first touch. */
static bool may_be_sparse(uint64_t bytes)
{
    struct rlimit limit;

    if (number_in("/proc/sys/vm/overcommit_memory", "%" SCNu64) == 2) {
        run_say("--heap needs memory that is given at first touch, but vm.overcommit_memory is 2 "
                "here; set it to 0, or do without --heap");
        return false;
    }
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        limit.rlim_cur < bytes) {
        run_say("--heap needs a sparse file, but the file size limit is %" PRIu64
                " KiB; raise it (ulimit -f unlimited)",
                (uint64_t)limit.rlim_cur / 1024);
        return false;
    }
    return true;
}

/* The descriptor, or -1. */
static int make_memory(uint64_t bytes)
{
    int fd = memfd_create("serry-heap", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD, DESCRIPTOR_FROM);

    if (high < 0 && fd >= 0)
        high = fcntl(fd, F_DUPFD, STDERR_FILENO + 1);
    if (high < 0 || fchmod(high, 0600) != 0 || ftruncate(high, (off_t)bytes) != 0 ||
        fcntl(high, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        run_say("cannot make the memory for --heap: %s", strerror(errno));
        run_close(&high);
    }
    run_close(&fd);
    return high;
}

/* ---- the variables ------------------------------------------------------------------------------- */

/* What stands there already keeps its place: others' libraries come first, and a later option wins. */
static bool join_variable(const char *name, const char *first, const char *separator,
                          const char *second)
{
    char *text;

    if (asprintf(&text, "%s%s%s", first, *first != 0 && *second != 0 ? separator : "", second) < 0)
        return false;
    bool done = setenv(name, text, 1) == 0;
    free(text);
    return done;
}

static const char *variable(const char *name)
{
    const char *text = getenv(name);

    return text == NULL ? "" : text;
}

static bool export_heap(int fd, uint64_t slice, uint64_t threshold, const char *library)
{
    char text[128], preload[4200];
    struct stat st;
    uint32_t tag;

    if (fstat(fd, &st) != 0 || getrandom(&tag, sizeof tag, 0) != (ssize_t)sizeof tag)
        return false;
    snprintf(text, sizeof text, "1:%d:%" PRIu64 ":%" PRIu64 ":%" PRIu32, fd, (uint64_t)st.st_ino,
             slice, tag);
    if (setenv("SERRY_HEAP", text, 1) != 0)
        return false;
    snprintf(text, sizeof text, "oversize_threshold:%" PRIu64, threshold);
    snprintf(preload, sizeof preload, JEMALLOC ":%s", library);
    return join_variable("MALLOC_CONF", text, ",", variable("MALLOC_CONF")) &&
           join_variable("LD_PRELOAD", variable("LD_PRELOAD"), ":", preload);
}

/* ---- the libraries ------------------------------------------------------------------------------- */

/* Beside libserry.so. */
static bool find_library(char *path, size_t size)
{
    Dl_info info;
    const char *end;

    if (dladdr((const void *)(uintptr_t)serry_version, &info) == 0 || info.dli_fname == NULL)
        return false;
    end = strrchr(info.dli_fname, '/');
    if (end == NULL)
        snprintf(path, size, LIBRARY);
    else
        snprintf(path, size, "%.*s/" LIBRARY, (int)(end - info.dli_fname), info.dli_fname);
    if (access(path, R_OK) == 0 && strpbrk(path, ": ") == NULL)
        return true;
    run_say("--heap needs " LIBRARY " at %s, a path without spaces and colons; it is built where "
            "jemalloc is (Debian: libjemalloc-dev)",
            path);
    return false;
}

/* A loader that cannot preload something says so on every program's stderr, and goes on. So this command
 * is started once as a trial. */
static bool try_preload(void)
{
    char said[512];
    ssize_t length = 0, got;
    int ends[2];
    pid_t pid = -1;

    if (pipe2(ends, O_CLOEXEC) == 0 && (pid = fork()) == 0) {
        int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);

        dup2(nothing, STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        execl("/proc/self/exe", "serry", "version", (char *)NULL);
        _exit(TOOL_EXIT_FAILED);
    }
    if (pid < 0) {
        run_say("cannot start: %s", strerror(errno));
        return false;
    }
    run_close(&ends[1]);
    while ((got = read(ends[0], said + length, sizeof said - 1 - (size_t)length)) > 0)
        length += got;
    run_close(&ends[0]);
    waitpid(pid, NULL, 0);
    said[length] = '\0';
    said[strcspn(said, "\n")] = '\0';
    if (length > 0)
        run_say("--heap needs jemalloc (Debian: libjemalloc2), which cannot be loaded: %s", said);
    return length == 0;
}

bool run_heap_make(const run_options *options)
{
    uint64_t slice = slice_bytes(options);
    char library[4096];
    int fd;

    if (!find_library(library, sizeof library) || !may_be_sparse(slice * SLICES))
        return false;
    fd = make_memory(slice * SLICES);
    if (fd < 0)
        return false;
    if (!export_heap(fd, slice, options->heap_threshold, library)) {
        run_say("cannot prepare --heap: %s", strerror(errno));
        return false;
    }
    return try_preload();
}
