/* relay.c - --tag: the process that copies the ranks' output, each line with its rank before it.
 * Newcomers' outputs come to it through a queue.
 *
 * It alone writes to stdout and stderr while it lives, so lines never mix. It may block there as
 * long as it likes: the guardian, which must not, does not wait for it. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tool.h"

enum {
    LINE_MAX_BYTES = 16384, /* longer lines are split here */
    BATCH_BYTES = 65536
};

/* One stream of one rank: what it has written of a line that is not complete yet. */
typedef struct stream {
    int from, to; /* `from` is -1 once it has ended */
    char prefix[32];
    bool split; /* the line went on past the bound; its first part is out */
    size_t used;
    char line[LINE_MAX_BYTES];
} stream;

/* Complete lines on their way to one descriptor. */
typedef struct batch {
    int to;
    bool broken; /* the reader is gone */
    size_t used;
    char text[BATCH_BYTES];
} batch;

/* All bytes, or false when nobody will ever read them. */
static bool write_all(int fd, const char *text, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, text, size);

        if (written >= 0) {
            text += written;
            size -= (size_t)written;
        } else if (errno == EAGAIN) { /* somebody made our stdout non-blocking */
            struct pollfd ready = {fd, POLLOUT, 0};

            poll(&ready, 1, -1);
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

static void flush_batch(batch *out)
{
    if (!out->broken && !write_all(out->to, out->text, out->used))
        out->broken = true;
    out->used = 0;
}

static void put_line(batch *out, const stream *from, const char *text, size_t length)
{
    size_t prefix = strlen(from->prefix);

    if (out->used + prefix + length + 1 > sizeof out->text)
        flush_batch(out);
    memcpy(out->text + out->used, from->prefix, prefix);
    memcpy(out->text + out->used + prefix, text, length);
    out->used += prefix + length;
    out->text[out->used++] = '\n';
}

/* Put out the complete lines of a stream, and a part of one that has filled the room. */
static void put_lines(batch *out, stream *from)
{
    size_t begin = 0;
    const char *end;

    while ((end = memchr(from->line + begin, '\n', from->used - begin)) != NULL) {
        size_t length = (size_t)(end - from->line) - begin;

        if (length > 0 || !from->split)
            put_line(out, from, from->line + begin, length);
        from->split = false;
        begin += length + 1;
    }
    from->used -= begin;
    memmove(from->line, from->line + begin, from->used);
    if (from->used == sizeof from->line) {
        put_line(out, from, from->line, from->used);
        from->split = true;
        from->used = 0;
    }
}

/* The ranks then see a broken pipe, as if they had written there themselves. */
static void end_stream(stream *from, batch *out)
{
    if (from->used > 0)
        put_line(out, from, from->line, from->used);
    run_close(&from->from);
}

static void read_stream(stream *from, batch *out)
{
    ssize_t got = read(from->from, from->line + from->used, sizeof from->line - from->used);

    if (got < 0 && errno == EINTR)
        return;
    if (got > 0) {
        from->used += (size_t)got;
        put_lines(out, from);
    } else {
        end_stream(from, out);
    }
    flush_batch(out);
    if (out->broken)
        run_close(&from->from);
}

/* All that the relay listens to: stream i goes to batch i % 2. */
typedef struct relay {
    int queue; /* brings newcomers; -1: none will come */
    size_t count, room;
    stream **streams;
    struct pollfd *ready; /* for each stream, and the queue */
    batch *batches;
} relay;

/* ---- newcomers --------------------------------------------------------------------------- */

/* What a newcomer's two descriptors travel with. */
typedef struct label {
    run_role role;
    int number;
} label;

/* The system's way to hand over descriptors: as a control message. */
typedef union passed {
    struct cmsghdr header;
    char room[CMSG_SPACE(2 * sizeof(int))];
} passed;

bool run_relay_add(const run_job *job, const run_process *process)
{
    label who = {process->role, process->number};
    struct iovec text = {&who, sizeof who};
    passed control = {.header = {CMSG_LEN(sizeof process->output), SOL_SOCKET, SCM_RIGHTS}};
    const struct msghdr message = {.msg_iov = &text,
                                   .msg_iovlen = 1,
                                   .msg_control = &control,
                                   .msg_controllen = sizeof control};

    memcpy(CMSG_DATA(&control.header), process->output, sizeof process->output);
    return sendmsg(job->relay_queue, &message, MSG_NOSIGNAL | MSG_DONTWAIT) > 0;
}

static bool add_stream(relay *r, run_role role, int number, int from)
{
    stream *added = r->count < r->room ? calloc(1, sizeof *added) : NULL;

    if (added == NULL)
        return false;
    added->from = from;
    snprintf(added->prefix, sizeof added->prefix, role == RUN_SPARE ? "[spare %d] " : "[%d] ",
             number);
    r->streams[r->count++] = added;
    return true;
}

/* Where there is no memory, whoever writes to them sees a broken pipe. */
static bool add_streams(relay *r, run_role role, int number, const int *output)
{
    bool whole = true;

    for (int i = 0; i < 2; i++) {
        int from = output[i];

        if (whole && add_stream(r, role, number, from))
            continue;
        run_close(&from);
        r->room = r->count; /* take no more: streams go in pairs */
        whole = false;
    }
    return whole;
}

static void read_queue(relay *r)
{
    label who;
    struct iovec text = {&who, sizeof who};
    passed control;
    struct msghdr message = {.msg_iov = &text,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    int output[2];

    if (recvmsg(r->queue, &message, MSG_CMSG_CLOEXEC) <= 0) {
        run_close(&r->queue);
    } else if (CMSG_FIRSTHDR(&message) != NULL) {
        memcpy(output, CMSG_DATA(&control.header), sizeof output);
        if (!add_streams(r, who.role, who.number, output))
            run_say("not enough memory to tag the output of a newcomer");
    }
}

/* ---- the loop ---------------------------------------------------------------------------- */

/* Copy until every stream and the queue have ended. */
static void copy(relay *r)
{
    for (;;) {
        const size_t count = r->count;
        size_t open = r->queue >= 0;

        for (size_t i = 0; i < count; i++) {
            r->ready[i] = (struct pollfd){r->streams[i]->from, POLLIN, 0}; /* -1 is passed over */
            open += r->streams[i]->from >= 0;
        }
        r->ready[count] = (struct pollfd){r->queue, POLLIN, 0};
        if (open == 0)
            return;
        if (poll(r->ready, count + 1, -1) <= 0)
            continue;
        for (size_t i = 0; i < count; i++)
            if (r->ready[i].revents != 0)
                read_stream(r->streams[i], &r->batches[i % 2]);
        if (r->ready[count].revents != 0)
            read_queue(r);
    }
}

void run_relay(run_job *job, int queue)
{
    relay r = {.queue = queue, .room = 2 * (size_t)(job->count + job->options->respawn)};
    bool whole = true;

    r.streams = calloc(r.room, sizeof(stream *));
    r.ready = calloc(r.room + 1, sizeof *r.ready);
    r.batches = calloc(2, sizeof *r.batches);
    if (r.streams == NULL || r.ready == NULL || r.batches == NULL)
        whole = false;
    for (int i = 0; whole && i < job->count; i++) {
        const run_process *process = &job->processes[i];
        whole = add_streams(&r, process->role, process->number, process->output);
    }
    if (whole) {
        r.batches[0].to = STDOUT_FILENO;
        r.batches[1].to = STDERR_FILENO;
        copy(&r);
    } else {
        run_say("not enough memory to tag output"); /* the ranks see broken pipes */
    }
    for (size_t i = 0; i < r.count; i++)
        free(r.streams[i]);
    free(r.streams);
    free(r.ready);
    free(r.batches);
}
