/* chaos_faults.c - the controller's part: it starts ranks, kills, stops and replaces them; see chaos.h.
 *
 * At least one rank always lives that knows all that the others know, unless a job is to end by a
 * massacre. Faults begin when all have joined: a death while the first ones join ends a job. */
#include "chaos.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define US UINT64_C(1000)

enum {
    COUNTDOWN_MOST = 40,
    COUNTDOWN_US = 30000,
    CALM_US = 50000
}; /* it kills itself until then, or is killed */

uint64_t chaos_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static uint64_t in_us(chaos_control *c, unsigned least, unsigned most)
{
    return chaos_now() + chaos_power(&c->sequence, least, most) * US;
}

static bool lives(const chaos_control *c, int rank)
{
    return c->process[rank].pid != 0;
}

int chaos_living(const chaos_control *c)
{
    int count = 0;

    for (int r = 0; r < c->job.size; r++)
        count += lives(c, r);
    return count;
}

/* ---- beginnings --------------------------------------------------------------------------------- */

static void spawn(chaos_control *c, int rank)
{
    chaos_seat *seat = &c->job.board->seat[rank];
    chaos_process *p = &c->process[rank];
    pid_t parent = getpid();

    seat->countdown = 0;
    unsigned incarnation = atomic_fetch_add(&seat->incarnation, 1) + 1;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            chaos_live(&c->job, rank, incarnation);
        exit(0);
    }
    *p = (chaos_process){.pid = pid, .born_ns = chaos_now()};
    if (pid < 0) {
        perror("chaos: fork");
        atomic_fetch_add(&c->job.board->failed, 1);
        p->pid = 0;
    }
}

void chaos_start(chaos_control *c)
{
    memset(c->job.board, 0, sizeof(*c->job.board));
    memset(c->process, 0, sizeof(c->process));
    c->respawns = 0;
    c->massacre = false;
    c->calls = 0;
    c->progress_ns = chaos_now();
    c->kill_ns = c->stop_ns = 0;
    for (int r = 0; r < c->job.size; r++)
        spawn(c, r);
}

/* ---- ends --------------------------------------------------------------------------------------- */

static bool is_doomed(const chaos_control *c, int rank)
{
    const chaos_seat *seat = &c->job.board->seat[rank];

    return seat->doomed >= seat->incarnation;
}

/* May it die? Another one must live on that knows everything. */
static bool is_spare(const chaos_control *c, int rank)
{
    const chaos_seat *seat = c->job.board->seat;

    for (int r = 0; r < c->job.size; r++)
        if (r != rank && lives(c, r) && !is_doomed(c, r) && seat[r].elder == seat[r].incarnation)
            return true;
    return c->massacre || c->job.board->ending;
}

/* Noted before the others can learn of it. */
static void doom(chaos_control *c, int rank)
{
    chaos_seat *seat = &c->job.board->seat[rank];

    if (is_doomed(c, rank))
        return;
    seat->doomed = seat->incarnation;
    c->totals.kills++;
    c->totals.at_join += seat->admitted != seat->incarnation;
}

static void kill_now(chaos_control *c, int rank)
{
    doom(c, rank);
    kill(c->process[rank].pid, SIGKILL);
    c->process[rank].kill_ns = 0;
}

/* At a place that it comes to, or soon. */
static void order_end(chaos_control *c, int rank)
{
    chaos_seat *seat = &c->job.board->seat[rank];

    doom(c, rank);
    seat->countdown = 1 + (unsigned)chaos_chance(&c->sequence, COUNTDOWN_MOST);
    c->process[rank].kill_ns = chaos_now() + COUNTDOWN_US * US;
}

/* Where nobody gets on, faults wait: a job must not die of too many of them. */
static bool is_calm(const chaos_control *c)
{
    return chaos_now() - c->progress_ns > CALM_US * US && !c->massacre;
}

static void kill_some(chaos_control *c)
{
    uint64_t most = chaos_chance(&c->sequence, 4) != 0 ? 1 : (uint64_t)c->job.size;
    uint64_t count = c->massacre ? CHAOS_RANKS : 1 + chaos_chance(&c->sequence, most);

    for (uint64_t i = 0; i < count; i++) {
        int r = c->massacre ? (int)i : (int)chaos_chance(&c->sequence, (uint64_t)c->job.size);
        if (r >= c->job.size || !lives(c, r) || (!c->massacre && is_doomed(c, r)) ||
            !is_spare(c, r))
            continue;
        if (!c->massacre && chaos_chance(&c->sequence, 2) == 0)
            order_end(c, r);
        else
            kill_now(c, r);
    }
    c->kill_ns = chaos_chance(&c->sequence, 3) == 0 ? in_us(c, 3, 11) : in_us(c, 9, 16);
}

void chaos_kill_all(chaos_control *c)
{
    for (int r = 0; r < c->job.size; r++)
        if (lives(c, r))
            kill(c->process[r].pid, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
}

static void stop_some(chaos_control *c)
{
    int r = (int)chaos_chance(&c->sequence, (uint64_t)c->job.size);
    chaos_process *p = &c->process[r];

    if (lives(c, r) && p->go_on_ns == 0) {
        kill(p->pid, SIGSTOP);
        p->go_on_ns = in_us(c, 3, 16);
        c->totals.stops++;
    }
    c->stop_ns = in_us(c, 8, 17);
}

/* ---- what has ended ----------------------------------------------------------------------------- */

static bool bury(chaos_control *c, int rank, int status)
{
    const chaos_board *board = c->job.board;
    chaos_process *p = &c->process[rank];
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && is_doomed(c, rank);

    *p = (chaos_process){.pid = 0};
    if (!killed && !(WIFEXITED(status) && WEXITSTATUS(status) == 0 && board->ending)) {
        fprintf(stderr, "FAULT: rank %d ended with wait status %#x at: %s\n", rank,
                (unsigned)status, board->seat[rank].where);
        return false;
    }
    p->spawn_ns = chaos_chance(&c->sequence, 3) == 0 ? chaos_now() : in_us(c, 6, 16);
    return true;
}

static bool reap(chaos_control *c)
{
    bool good = true;
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (int r = 0; r < c->job.size; r++)
            if (c->process[r].pid == pid) {
                good &= bury(c, r, status);
                break;
            }
    return good;
}

/* ---- what is due -------------------------------------------------------------------------------- */

static void replace(chaos_control *c, int rank)
{
    spawn(c, rank);
    c->totals.respawns++;
    c->respawns++;
    if (!is_calm(c) && chaos_chance(&c->sequence, 4) == 0) /* on its way in, as like as not */
        c->process[rank].kill_ns = in_us(c, 4, 14);
}

static void tick_rank(chaos_control *c, int rank, uint64_t now)
{
    chaos_process *p = &c->process[rank];
    bool closed = c->job.board->ending || c->massacre;

    if (lives(c, rank) && p->go_on_ns != 0 && now >= p->go_on_ns) {
        kill(p->pid, SIGCONT);
        p->go_on_ns = 0;
    }
    if (lives(c, rank) && p->kill_ns != 0 && now >= p->kill_ns) {
        if (is_doomed(c, rank) || is_spare(c, rank))
            kill_now(c, rank);
        p->kill_ns = 0;
    }
    if (!lives(c, rank) && !closed && p->spawn_ns != 0 && now >= p->spawn_ns)
        replace(c, rank);
}

/* Those that wait at the door of a job that has ended wait for ever. */
static void send_away(chaos_control *c)
{
    const chaos_seat *seat = c->job.board->seat;

    for (int r = 0; r < c->job.size; r++)
        if (lives(c, r) && seat[r].admitted == seat[r].incarnation)
            return;
    for (int r = 0; r < c->job.size; r++)
        if (lives(c, r))
            kill_now(c, r);
}

static bool all_have_joined(const chaos_control *c)
{
    for (int r = 0; r < c->job.size; r++)
        if (c->job.board->seat[r].admitted == 0)
            return false;
    return true;
}

bool chaos_tick(chaos_control *c)
{
    uint64_t now = chaos_now();

    if (!reap(c) || c->job.board->failed)
        return false;
    for (int r = 0; r < c->job.size; r++)
        tick_rank(c, r, now);
    if (!all_have_joined(c))
        return true;
    if (now >= c->kill_ns && !is_calm(c))
        kill_some(c);
    if (c->stops && now >= c->stop_ns && !is_calm(c))
        stop_some(c);
    if (c->job.board->ending || c->massacre)
        send_away(c);
    return true;
}
