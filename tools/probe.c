/* probe.c - `serry info`: does the kernel have it, and may we use it? Found out by trying. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tool.h"

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449 /* on every architecture; headers older than Linux 5.16 lack it */
#endif

/* "available", or "not available" and why. */
static char *answer(int error, char *text, size_t size)
{
    if (error == 0)
        snprintf(text, size, "available");
    else if (error == ENOSYS)
        snprintf(text, size, "not available: this kernel is too old, or hides it");
    else
        snprintf(text, size, "not available: %s", strerror(error));
    return text;
}

char *info_probe_memfd(char *text, size_t size)
{
    int fd = memfd_create("serry-info", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return answer(errno, text, size);
    close(fd);
    return answer(0, text, size);
}

char *info_probe_pidfd(char *text, size_t size)
{
    int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

    if (fd < 0)
        return answer(errno, text, size);
    close(fd);
    return answer(0, text, size);
}

/* A list of no futexes is refused with EINVAL by a kernel that knows the call. */
char *info_probe_futex_waitv(char *text, size_t size)
{
    if (syscall(SYS_futex_waitv, NULL, 0, 0, NULL, 0) < 0 && errno != EINVAL)
        return answer(errno, text, size);
    return answer(0, text, size);
}

/* A child that ends with us and otherwise does nothing. */
static pid_t start_idle_child(void)
{
    pid_t parent = getpid(), pid;

    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (getppid() == parent)
            pause();
        _exit(0);
    }
    return pid;
}

/* Read one word at `word` of another process, from a third one: ranks are each other's siblings,
 * and a security policy may permit what parents do but not that. Returns 0 or errno. */
static int read_as_sibling(pid_t target, long *word)
{
    pid_t reader = fork();
    int status;

    if (reader == 0) {
        long copy;
        struct iovec local = {&copy, sizeof copy}, remote = {word, sizeof *word};

        if (process_vm_readv(target, &local, 1, &remote, 1, 0) != (ssize_t)sizeof copy)
            _exit(errno & 0x7f);
        _exit(0);
    }
    if (reader < 0 || waitpid(reader, &status, 0) != reader || !WIFEXITED(status))
        return EAGAIN;
    return WEXITSTATUS(status);
}

char *info_probe_vm_readv(char *text, size_t size)
{
    static long word = 1;
    pid_t target = start_idle_child();
    int error;

    if (target < 0)
        return answer(errno, text, size);
    error = read_as_sibling(target, &word);
    kill(target, SIGKILL);
    waitpid(target, NULL, 0);
    if (error == EPERM)
        snprintf(text, size,
                 "not permitted between ranks (see ptrace_scope in ptrace(2), or the container's "
                 "seccomp profile)");
    else
        answer(error, text, size);
    return text;
}
