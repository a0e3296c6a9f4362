/* crash_step.c - see crash_step.h. */
#include "crash_step.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash_ranks.h"
#include "crash_snap.h"
#include "extent.h"
#include "group.h"
#include "slot.h"
#include "word.h"
#include "writes.h"

/* The core that this thread is on just now, or all that it may use. */
static void pin(pid_t pid, bool on)
{
    static cpu_set_t all, one;

    if (CPU_COUNT(&all) == 0) {
        sched_getaffinity(0, sizeof(all), &all);
        CPU_SET((size_t)sched_getcpu(), &one);
    }
    sched_setaffinity(pid, sizeof(cpu_set_t), on ? &one : &all);
}

/* ---- in the victim ---------------------------------------------------------------------------- */

void step_begin(test_rank *self)
{
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    test_mine(self)->number[STEP_THREAD] = (double)syscall(SYS_gettid);
    test_raise(self, CRASH_TRACED);
    raise(SIGSTOP);
    test_raise(self, CRASH_BEGUN);
}

void step_end(test_rank *self)
{
    test_raise(self, CRASH_DONE);
}

/* ---- in the tracer ---------------------------------------------------------------------------- */

/* By which signal it is stopped; 0: it has ended. */
static int await_signal(const stepper *s)
{
    int status;
    siginfo_t ended;

    if (waitid(P_PID, (id_t)s->pid, &ended, WSTOPPED | WEXITED | WNOWAIT | __WALL) != 0 ||
        ended.si_code == CLD_EXITED || ended.si_code == CLD_KILLED || ended.si_code == CLD_DUMPED)
        return 0; /* left for the harness to reap */
    return waitpid(s->pid, &status, __WALL) == s->pid && WIFSTOPPED(status) ? WSTOPSIG(status) : 0;
}

/* Stopped at the next instruction? False: it has ended, or a signal has come that nobody sent. */
static bool await_stop(const stepper *s, int wanted)
{
    return await_signal(s) == wanted;
}

/* The thread that is to be stepped; 0: its process has ended before there was one. */
static pid_t await_thread(test_run *run, int rank)
{
    const test_report *report = test_report_of(run, rank);
    siginfo_t ended = {0};

    while (test_flag(run, CRASH_TRACED) == 0) {
        if (waitid(P_PID, (id_t)report->pid, &ended, WEXITED | WNOHANG | WNOWAIT) != 0 ||
            ended.si_pid != 0)
            return 0;
        usleep(50);
    }
    return (pid_t)report->number[STEP_THREAD];
}

bool step_attach(stepper *s, test_run *run, int rank)
{
    char path[64];
    size_t length;
    void *head;

    memset(s, 0, sizeof(*s));
    s->run = run;
    s->rank = rank;
    s->memory = -1;
    s->pid = await_thread(run, rank);
    if (s->pid == 0 || !await_stop(s, SIGSTOP))
        return false;
    pin(0, true);
    pin(s->pid, true);
    ptrace(PTRACE_SETOPTIONS, s->pid, NULL, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD);
    snprintf(path, sizeof(path), "/proc/%d/mem", (int)s->pid);
    s->memory = open(path, O_RDONLY | O_CLOEXEC);
    if (syscall(SYS_get_robust_list, s->pid, &head, &length) == 0)
        s->list = (uintptr_t)head;
    s->look_for_arena = true;
    while (test_flag(run, CRASH_BEGUN) == 0) {
        if (ptrace(PTRACE_SINGLESTEP, s->pid, NULL, NULL) != 0 || !await_stop(s, SIGTRAP))
            return false;
    }
    snap_has_changed(s);
    return s->memory >= 0;
}

/* ---- the processor ---------------------------------------------------------------------------- */

#if defined(__x86_64__)

/* Is the next instruction a system call that somebody else may notice? Waiting is none: how often it
 * happens is chance. */
static bool at_system_call(stepper *s)
{
    struct user_regs_struct regs;
    unsigned char code[2];

    if (ptrace(PTRACE_GETREGS, s->pid, NULL, &regs) != 0)
        return false;
    s->address = regs.rip;
    s->call = -1;
    if (pread(s->memory, code, sizeof(code), (off_t)regs.rip) != (ssize_t)sizeof(code) ||
        code[0] != 0x0f || code[1] != 0x05)
        return false;
    if (regs.rax != SYS_sched_yield && regs.rax != SYS_futex && regs.rax != SYS_futex_waitv &&
        regs.rax != SYS_clock_nanosleep && regs.rax != SYS_poll)
        s->call = (long)regs.rax;
    return s->call >= 0;
}

/* Which system call it has stopped at the beginning of. */
static long call_begun(const stepper *s)
{
    struct user_regs_struct regs;

    return ptrace(PTRACE_GETREGS, s->pid, NULL, &regs) == 0 ? (long)regs.orig_rax : -1;
}

/* Up to two breakpoints of the processor, which are the traced thread's alone; 0: none. */
static bool set_breakpoints(const stepper *s, uint64_t first, uint64_t second)
{
    uint64_t control = first != 0 ? 1 | 1 << 2 : 0;

    return ptrace(PTRACE_POKEUSER, s->pid, offsetof(struct user, u_debugreg[0]), first) == 0 &&
           ptrace(PTRACE_POKEUSER, s->pid, offsetof(struct user, u_debugreg[1]), second) == 0 &&
           ptrace(PTRACE_POKEUSER, s->pid, offsetof(struct user, u_debugreg[7]), control) == 0;
}

#else

static bool at_system_call(stepper *s)
{
    (void)s;
    return false;
}

static long call_begun(const stepper *s)
{
    (void)s;
    return -1;
}

static bool set_breakpoints(const stepper *s, uint64_t first, uint64_t second)
{
    (void)s, (void)first, (void)second;
    return false;
}

#endif

/* ---- steps ------------------------------------------------------------------------------------ */

static void count_call(stepper *s, long call)
{
    s->sent += call == SYS_sendmsg;
    s->met += call == SYS_accept4;
}

step_outcome step_once(stepper *s)
{
    bool called = at_system_call(s);

    if (test_flag(s->run, CRASH_DONE) != 0)
        return STEP_ENDED;
    if (called)
        count_call(s, s->call);
    if (ptrace(PTRACE_SINGLESTEP, s->pid, NULL, NULL) != 0 || !await_stop(s, SIGTRAP))
        return STEP_LOST;
    s->steps++;
    s->at.after++;
    s->look_for_arena |= called;
    if (!snap_has_changed(s) && !called)
        return STEP_QUIET;
    s->at.changes++;
    s->at.after = 0;
    return STEP_CHANGED;
}

/* To the next breakpoint. Stopped at the beginning and at the end of each system call on the way. */
static bool run_on(stepper *s)
{
    bool inside = false;
    int signal;

    do {
        if (ptrace(PTRACE_SYSCALL, s->pid, NULL, NULL) != 0)
            return false;
        signal = await_signal(s);
        if (signal == (SIGTRAP | 0x80) && (inside = !inside))
            count_call(s, call_begun(s));
    } while (signal == (SIGTRAP | 0x80));
    return signal == SIGTRAP;
}

/* How the run to the breakpoints ends; they are gone then. */
static step_outcome run_to(stepper *s, uint64_t address, unsigned pass)
{
    step_outcome outcome = STEP_CHANGED;

    at_system_call(s);
    for (unsigned passed = s->address == address; passed < pass && outcome == STEP_CHANGED;
         passed++) {
        if (!run_on(s))
            return STEP_LOST;
        at_system_call(s);
        if (s->address == (uintptr_t)step_end)
            outcome = STEP_ENDED;
    }
    set_breakpoints(s, 0, 0);
    return outcome;
}

step_outcome step_leap(stepper *s, uint64_t address, unsigned pass, crash_point point)
{
    if (!set_breakpoints(s, address, (uintptr_t)step_end))
        return STEP_QUIET;
    step_outcome outcome = run_to(s, address, pass);
    s->look_for_arena = true;
    if (outcome == STEP_CHANGED) {
        snap_has_changed(s);
        s->at = point;
    }
    return outcome;
}

step_outcome step_to(stepper *s, crash_point to)
{
    step_outcome outcome = STEP_QUIET;

    while (outcome < STEP_ENDED &&
           (s->at.changes < to.changes || (s->at.changes == to.changes && s->at.after < to.after)))
        outcome = step_once(s);
    return outcome;
}

/* Of the locks that lie in the arena, is it the one of a rank that writes? A cell lies at the beginning of a
 * region, which is whole pages. */
static bool is_writer(uint64_t entry)
{
    uint64_t cell = entry % SHM_PAGE / sizeof(group_cell);

    return cell < CELLS &&
           entry % sizeof(group_cell) - offsetof(group_cell, writer) < sizeof(pthread_mutex_t);
}

/* struct robust_list_head: the list, which ends at itself; an offset; a lock on its way into it. */
bool step_holds_lock(const stepper *s)
{
    uint64_t head[3];

    if (pread(s->memory, head, sizeof(head), (off_t)s->list) != (ssize_t)sizeof(head))
        return true;
    return (head[0] != s->list && !is_writer(head[0])) || (head[2] != 0 && !is_writer(head[2]));
}

/* A thread that is traced is the tracer's to reap, and its process does not end before; the process is
 * left for the harness. */
bool step_kill(stepper *s)
{
    pid_t process = test_report_of(s->run, s->rank)->pid;
    siginfo_t ended;

    test_kill(s->run, s->rank);
    if (s->pid != 0 && s->pid != process)
        waitpid(s->pid, NULL, __WALL);
    bool killed = waitid(P_PID, (id_t)process, &ended, WEXITED | WNOWAIT | __WALL) == 0 &&
                  ended.si_code == CLD_KILLED;
    test_raise_in(s->run, CRASH_FIRED);
    return killed;
}

static void seal_in_group(shm_arena *arena, uint64_t offset, void *rank)
{
    group_seal_slot(arena, offset, *(const int *)rank);
}

static bool view_arena(const stepper *s, shm_arena *view)
{
    arena_header *h = (arena_header *)(void *)s->arena;

    if (h == NULL || atomic_load(&h->layout) == 0)
        return false;
    *view = (shm_arena){.fd = -1,
                        .kind = SERRY_PROCESSES,
                        .bytes = s->bytes,
                        .base = s->arena,
                        .header = h,
                        .slots = (arena_slot *)(void *)(s->arena + h->slots_offset),
                        .extents = (arena_extent *)(void *)(s->arena + h->extents_offset)};
    return true;
}

bool step_writes(const stepper *s)
{
    shm_arena view;

    return view_arena(s, &view) && writes_by(&view, s->rank);
}

bool step_seal(stepper *s)
{
    shm_arena view;

    if (!view_arena(s, &view))
        return false;
    bool buried = slot_bury(&view.slots[s->rank]);
    group_seal_slot(&view, view.header->world_offset, s->rank);
    extent_each_group(&view, seal_in_group, &s->rank);
    test_raise_in(s->run, CRASH_FIRED);
    return buried;
}

bool step_asks(const stepper *s, int slot)
{
    const arena_header *h = (arena_header *)(void *)s->arena;
    const arena_slot *slots = (arena_slot *)(void *)(s->arena + h->slots_offset);

    return atomic_load(&slots[slot].asks) != 0;
}

void step_release(stepper *s)
{
    pin(s->pid, false);
    ptrace(PTRACE_DETACH, s->pid, NULL, NULL);
}

void step_detach(stepper *s)
{
    if (s->arena != NULL)
        munmap(s->arena, s->bytes);
    if (s->memory >= 0)
        close(s->memory);
    pin(0, false);
}

bool step_possible(void)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(1);
        raise(SIGSTOP);
        _exit(0);
    }
    bool possible = pid > 0 && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) &&
                    ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0 &&
                    waitpid(pid, &status, 0) == pid && WIFSTOPPED(status);
    if (!possible)
        printf("skipped: a process may not be traced here (%s)\n", strerror(errno));
#if !defined(__x86_64__)
    possible = false; /* nor would its exclusive loads and stores ever succeed */
    printf("skipped: this test knows the registers of x86-64 only\n");
#endif
    if (pid > 0 && !WIFEXITED(status)) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    return possible;
}
