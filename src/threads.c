/* threads.c - ranks as threads of this process: start them, wait for them. */
#include <serry/serry.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "record.h"

typedef enum team_state { TEAM_FORMING, TEAM_GO, TEAM_DISBANDED } team_state;

/* Nobody joins before all threads are there: one that could not be made would be waited for. */
typedef struct team {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    team_state state;
    int ranks;
    char job[64];
    int (*body)(serry_comm *comm, void *argument);
    void *argument;
} team;

typedef struct team_member {
    team *team;
    int rank;
    int result;
    bool joined;
    serry_error error; /* why it could not join */
    pthread_t thread;
} team_member;

static bool wait_for_team(team *t)
{
    pthread_mutex_lock(&t->lock);
    while (t->state == TEAM_FORMING)
        pthread_cond_wait(&t->changed, &t->lock);
    bool go = t->state == TEAM_GO;
    pthread_mutex_unlock(&t->lock);
    return go;
}

static void set_state(team *t, team_state state)
{
    pthread_mutex_lock(&t->lock);
    t->state = state;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

static void *rank_main(void *argument)
{
    team_member *member = argument;
    team *t = member->team;
    serry_config config = SERRY_CONFIG_INIT;
    serry_comm *comm;

    if (!wait_for_team(t))
        return NULL;
    config.rank = member->rank;
    config.size = t->ranks;
    config.job = t->job;
    config.kind = SERRY_THREADS;
    member->result = serry_init(&config, &comm);
    if (member->result != SERRY_OK) {
        member->error = *serry_last_error(NULL);
        return NULL;
    }
    member->joined = true;
    member->result = t->body(comm, t->argument);
    serry_finalize(&comm);
    return NULL;
}

/* Start all, or none. */
static int run_team(team *t, team_member *members, serry_error *error)
{
    int started = 0, rc = 0;

    for (; started < t->ranks && rc == 0; started += rc == 0) {
        members[started].team = t;
        members[started].rank = started;
        rc = pthread_create(&members[started].thread, NULL, rank_main, &members[started]);
    }
    set_state(t, rc == 0 ? TEAM_GO : TEAM_DISBANDED);
    for (int i = 0; i < started; i++)
        pthread_join(members[i].thread, NULL);
    if (rc != 0)
        return serry_fail_errno(error, rc, "run_threads: only %d of %d threads could be started",
                                started, t->ranks);
    for (int i = 0; i < t->ranks; i++) {
        if (members[i].result == 0)
            continue;
        if (!members[i].joined)
            *error = members[i].error;
        return members[i].result;
    }
    return SERRY_OK;
}

int serry_run_threads(int ranks, int (*body)(serry_comm *comm, void *argument), void *argument)
{
    static atomic_uint teams;
    serry_error *error = serry_error_of_thread();
    team t = {.state = TEAM_FORMING, .ranks = ranks, .body = body, .argument = argument};

    serry_error_begin(error, "run_threads", 0, -1);
    if (ranks < 1 || ranks > (int)SERRY_MAX_RANKS || body == NULL)
        return serry_fail(error, SERRY_ERR_INVALID,
                          "run_threads: %d ranks, function %s; give 1 to "
                          "%u ranks and a function",
                          ranks, body == NULL ? "NULL" : "given", SERRY_MAX_RANKS);
    team_member *members = calloc((size_t)ranks, sizeof(*members));
    if (members == NULL)
        return serry_fail(error, SERRY_ERR_NO_SPACE, "run_threads: out of memory");
    snprintf(t.job, sizeof(t.job), "threads of process %d, team %u", (int)getpid(),
             atomic_fetch_add(&teams, 1));
    pthread_mutex_init(&t.lock, NULL);
    pthread_cond_init(&t.changed, NULL);
    int rc = run_team(&t, members, error);
    pthread_cond_destroy(&t.changed);
    pthread_mutex_destroy(&t.lock);
    free(members);
    return rc;
}
