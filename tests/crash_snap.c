/* crash_snap.c - see crash_snap.h. */
#include "crash_snap.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crash_ranks.h"
#include "extent.h"
#include "group.h"
#include "word.h"

/* How much of each is compared. Of a buffer its beginning is enough: nothing in it counts before
 * the word moves. */
enum { BUFFER_BYTES = 128, EXTENTS_SEEN = 12, GROUPS_SEEN = 5, LINES_SEEN = 8, LIST_BYTES = 24 };

/* A segment without a name: see segment.c. */
static bool is_segment(const char *target)
{
    return strncmp(target, "/dev/shm/#", 10) == 0 || strncmp(target, "/memfd:serry", 12) == 0;
}

static void map_segment(stepper *s, int fd)
{
    struct stat st;

    if (fstat(fd, &st) != 0 || st.st_size == 0)
        return;
    void *base =
        mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED)
        return;
    s->arena = base;
    s->bytes = (size_t)st.st_size;
}

static void find_arena(stepper *s)
{
    char path[64], target[128];
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)s->pid);
    DIR *fds = opendir(path);

    s->look_for_arena = false;
    for (struct dirent *e; fds != NULL && s->arena == NULL && (e = readdir(fds)) != NULL;) {
        ssize_t length = readlinkat(dirfd(fds), e->d_name, target, sizeof(target) - 1);
        target[length > 0 ? length : 0] = 0;
        if (!is_segment(target))
            continue;
        int fd = openat(dirfd(fds), e->d_name, O_RDWR | O_CLOEXEC);
        if (fd >= 0) {
            map_segment(s, fd);
            close(fd);
        }
    }
    if (fds != NULL)
        closedir(fds);
}

static void *snap(stepper *s, const void *from, size_t bytes)
{
    unsigned char *to = s->now + s->length;

    if (s->length + bytes > sizeof(s->now)) {
        fprintf(stderr, "crash: the snapshot is too small\n");
        abort();
    }
    memcpy(to, from, bytes);
    s->length += bytes;
    return to;
}

/* The cells, without the bits that others set in the words, the beginnings of the buffers,
 * and the digests. */
static void snap_region(stepper *s, const group_header *h, const unsigned char *region)
{
    const unsigned char *start = region;
    group_cell *cells = snap(s, region, CELLS * sizeof(group_cell));

    for (int i = 0; i < CELLS; i++) {
        uint64_t word;
        memcpy(&word, &cells[i].word, sizeof(word));
        word &= ~(WORD_SEALED | WORD_ASLEEP);
        memcpy((void *)&cells[i].word, &word, sizeof(word));
    }
    region += CELLS * sizeof(group_cell);
    for (int i = 0; i < 6; i++) {
        snap(s, region, BUFFER_BYTES);
        region += i < 2 ? h->small_bytes : h->chunk_bytes;
    }
    snap(s, start + h->region_bytes - group_mail_bytes((int)h->size) - 2 * sizeof(group_digest),
         2 * sizeof(group_digest));
}

/* The channels that it says it has. What the others say to it is no change of its own. */
static void snap_mail(stepper *s, const group_header *h, const unsigned char *region)
{
    const group_mail *mail =
        (const void *)(region + h->region_bytes - group_mail_bytes((int)h->size));

    snap(s, (const void *)mail->channel, h->size * sizeof(mail->channel[0]));
}

/* Of a sender all but what the receiver writes, of a receiver that alone. */
static void snap_channel(stepper *s, const arena_extent *e, const unsigned char *at)
{
    const channel *shared = (const void *)at;

    if (e->dest == s->rank)
        snap(s, (const void *)&shared->taken, sizeof(shared->taken));
    for (int i = 0; i < LINES_SEEN && e->dest == s->rank; i++) {
        channel_line *line = snap(s, &shared->line[i], sizeof(*line));
        uint32_t claim = line->place == PLACE_SENDER ? atomic_load(&line->claim) : CLAIM_OFFERED;
        memset((void *)line, 0, sizeof(*line));
        memcpy((void *)line, &claim, sizeof(claim));
    }
    if (e->source != s->rank)
        return;
    snap(s, shared, offsetof(channel, taken));
    for (int i = 0; i < LINES_SEEN; i++) {
        channel_line *line = snap(s, &shared->line[i], sizeof(*line));
        if (line->place == PLACE_SENDER)
            memset((void *)&line->claim, 0, sizeof(line->claim));
    }
    snap(s, shared + 1, BUFFER_BYTES);
}

static bool is_channel(const arena_extent *e, const unsigned char *at)
{
    const channel *shared = (const void *)at;

    return e->pages == (sizeof(*shared) + shared->ring_bytes + SHM_PAGE - 1) / SHM_PAGE &&
           shared->communicator == e->communicator;
}

static void snap_messages(stepper *s, const arena_extent *e, const unsigned char *at)
{
    if (is_channel(e, at))
        snap_channel(s, e, at);
    else if (e->source == s->rank)
        snap(s, at, BUFFER_BYTES);
}

static void snap_group(stepper *s, uint64_t offset)
{
    const group_header *h = (const group_header *)(const void *)(s->arena + offset);

    snap(s, h, offsetof(group_header, slot));
    if (atomic_load(&h->formatted) == 0)
        return;
    for (uint32_t i = 0; i < h->size; i++)
        if (h->slot[i] == s->rank) {
            snap(s, (const void *)&h->settled[i], 1);
            snap(s, (const void *)&h->left[i], 1);
            if (atomic_load(&h->settled[i]) != 0) {
                const unsigned char *region =
                    s->arena + offset + SHM_PAGE + (size_t)i * h->region_bytes;
                snap_region(s, h, region);
                snap_mail(s, h, region);
            }
        }
}

static void snap_pool(stepper *s, const arena_header *h)
{
    const arena_extent *e = (const arena_extent *)(const void *)(s->arena + h->extents_offset);
    int groups = 1;

    snap(s, e, EXTENTS_SEEN * sizeof(*e));
    for (int i = 0; i < EXTENTS_SEEN; i++, e++) {
        uint64_t offset = h->pool_offset + (uint64_t)e->page * SHM_PAGE;
        if ((atomic_load(&e->state) & EXTENT_TAKEN) == 0)
            continue;
        if (e->owner == EXTENT_OF_GROUP && groups++ < GROUPS_SEEN)
            snap_group(s, offset);
        else if (e->owner == EXTENT_OF_MESSAGES)
            snap_messages(s, e, s->arena + offset);
        else if (e->owner == (uint32_t)s->rank)
            snap(s, s->arena + offset, BUFFER_BYTES);
    }
}

static void snapshot(stepper *s)
{
    s->length = 0;
    if (pread(s->memory, snap(s, s->now, LIST_BYTES), LIST_BYTES, (off_t)s->list) != LIST_BYTES)
        s->length = 0;
    if (s->arena == NULL)
        return;
    const arena_header *h = (const arena_header *)(const void *)s->arena;
    snap(s, h, offsetof(arena_header, applicant));
    snap(s, (const void *)h->applicant, CRASH_RANKS * sizeof(h->applicant[0]));
    snap(s, (const void *)h->holder, CRASH_RANKS * sizeof(h->holder[0]));
    if (atomic_load(&h->layout) == 0)
        return;
    const arena_slot *slots = (const arena_slot *)(const void *)(s->arena + h->slots_offset);
    snap(s, &slots[s->rank], offsetof(arena_slot, invited));
    snap(s, (const void *)&slots[s->rank].asks, sizeof(slots->asks));
    snap_group(s, h->world_offset);
    snap_pool(s, h);
}

bool snap_has_changed(stepper *s)
{
    size_t before = s->length;

    if (s->look_for_arena && s->arena == NULL)
        find_arena(s);
    snapshot(s);
    if (before == s->length && memcmp(s->seen, s->now, before) == 0)
        return false;
    memcpy(s->seen, s->now, s->length);
    return true;
}
