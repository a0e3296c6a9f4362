/* fill.c - see fill.h. */
#include "fill.h"

#include <string.h>

#include "copy.h"
#include "layout.h"
#include "wait.h"

enum {
    UNTIMED =
        3, /* copies after a fast one: reading the clock twice takes 50 ns, the shortest copy 300 */
    SLOW_NS = 8,    /* for a line: 1 to 3 in one cache, 9 to 20 between two, 3 to 4 past them */
    ROW_LEAST = 16, /* copies past the caches; each time that it was right twice as many, */
    ROW_MOST = 128  /* so that trying the other way costs little */
};

bool fill_goes_past(fill_way *way)
{
    if (way->past == 0)
        return false;
    way->past--;
    return true;
}

bool fill_is_timed(fill_way *way)
{
    if (way->untimed == 0)
        return true;
    way->untimed--;
    return false;
}

/* One that is slow may have met a page fault or another process: it takes two, at first. After a row past the
 * caches the first one finds nothing there; the second one tells. */
void fill_judge(fill_way *way, size_t bytes, uint64_t ns)
{
    bool slow = ns > bytes / SHM_LINE * SLOW_NS;

    way->untimed = slow ? 0 : UNTIMED;
    if (!slow)
        way->row = 0;
    if (slow && way->slow) {
        way->row = way->row == 0 ? ROW_LEAST : way->row < ROW_MOST ? 2 * way->row : ROW_MOST;
        way->past = way->row;
        way->untimed = 1;
    }
    way->slow = slow;
}

void fill_copy(fill_way *way, void *dest, const void *source, size_t bytes, bool may_time)
{
    if (bytes < FILL_BYTES) {
        memcpy(dest, source, bytes);
        return;
    }
    if (fill_goes_past(way)) {
        copy_stream(dest, source, bytes);
        return;
    }
    bool timed = may_time && fill_is_timed(way);
    uint64_t begun = timed ? wait_now_ns() : 0;
    memcpy(dest, source, bytes);
    if (timed)
        fill_judge(way, bytes, wait_now_ns() - begun);
}
