/* relay.c - --tag: the process that copies the ranks' output, each line with its rank before it.
 *
 * It alone writes to stdout and stderr while it lives, so lines never mix. It may block there as
 * long as it likes: the guardian, which must not, does not wait for it. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* Copy until every stream has ended. Stream i belongs to rank i / 2 and batch i % 2. */
static void copy(stream *streams, struct pollfd *ready, size_t count, batch *batches)
{
    for (;;) {
        size_t open = 0;

        for (size_t i = 0; i < count; i++) {
            ready[i] = (struct pollfd){streams[i].from, POLLIN, 0}; /* -1 is passed over */
            open += streams[i].from >= 0;
        }
        if (open == 0)
            return;
        if (poll(ready, count, -1) <= 0)
            continue;
        for (size_t i = 0; i < count; i++)
            if (ready[i].revents != 0)
                read_stream(&streams[i], &batches[i % 2]);
    }
}

void run_relay(run_job *job)
{
    size_t count = 2 * (size_t)job->options->ranks;
    stream *streams = calloc(count, sizeof *streams);
    struct pollfd *ready = calloc(count, sizeof *ready);
    batch *batches = calloc(2, sizeof *batches);

    if (streams == NULL || ready == NULL || batches == NULL) {
        run_say("not enough memory to tag output");
        return; /* the ranks see broken pipes */
    }
    batches[0].to = STDOUT_FILENO;
    batches[1].to = STDERR_FILENO;
    for (size_t i = 0; i < count; i++) {
        streams[i].from = job->ranks[i / 2].output[i % 2];
        snprintf(streams[i].prefix, sizeof streams[i].prefix, "[%zu] ", i / 2);
    }
    copy(streams, ready, count, batches);
    free(streams);
    free(ready);
    free(batches);
}
