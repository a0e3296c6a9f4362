/* error.c - names, texts and scopes of errors; filling in error records. */

#include "record.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- what a code means -------------------------------------------------------------------- */

const char *serry_strerror(int error)
{
    switch (error) {
    case SERRY_OK:
        return "success";
#define SERRY_X(name, value, scope, text)                                                          \
    case value:                                                                                    \
        return text;
        SERRY_ERROR_MAP(SERRY_X)
#undef SERRY_X
    default:
        return "unknown serry error";
    }
}

const char *serry_error_name(int error)
{
    switch (error) {
    case SERRY_OK:
        return "SERRY_OK";
#define SERRY_X(name, value, scope, text)                                                          \
    case value:                                                                                    \
        return "SERRY_" #name;
        SERRY_ERROR_MAP(SERRY_X)
#undef SERRY_X
    default:
        return "unknown serry error";
    }
}

serry_scope serry_error_scope(int error)
{
    switch (error) {
    case SERRY_OK:
        return SERRY_SCOPE_CALL;
#define SERRY_X(name, value, scope, text)                                                          \
    case value:                                                                                    \
        return SERRY_SCOPE_##scope;
        SERRY_ERROR_MAP(SERRY_X)
#undef SERRY_X
    default:
        return SERRY_SCOPE_LOST;
    }
}

/* ---- records ------------------------------------------------------------------------------ */

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* End a text that was cut in "...", behind the last whole character of UTF-8. */
static void mark_cut(char *text, size_t size)
{
    size_t end = size - sizeof("...");
    while (end > 0 && ((unsigned char)text[end] & 0xc0u) == 0x80u)
        end--;
    memcpy(text + end, "...", sizeof("..."));
}

/* The arguments may point into the record's old message, so the new one is made beside it. */
static void write_message(serry_error *error, const char *suffix, const char *format, va_list list)
{
    char text[sizeof(error->message)];
    int written = vsnprintf(text, sizeof(text), format, list);
    size_t length = written < 0 ? 0 : (size_t)written;
    text[length < sizeof(text) ? length : sizeof(text) - 1] = '\0';

    if (length < sizeof(text))
        length += (size_t)snprintf(text + length, sizeof(text) - length, "%s", suffix);
    if (length >= sizeof(text))
        mark_cut(text, sizeof(text));
    memcpy(error->message, text, sizeof(text));
}

static void stamp(serry_error *error, int code, int system_error)
{
    error->error = code;
    error->system_error = system_error;
    error->monotonic_ns = (uint64_t)clock_ns(CLOCK_MONOTONIC);
    error->wall_ns = clock_ns(CLOCK_REALTIME);
}

int serry_fail(serry_error *error, int code, const char *format, ...)
{
    if (error == NULL)
        return code;

    va_list list;
    va_start(list, format);
    write_message(error, "", format, list);
    va_end(list);
    stamp(error, code, 0);
    return code;
}

int serry_fail_errno(serry_error *error, int system_error, const char *format, ...)
{
    if (error == NULL)
        return SERRY_ERR_SYSTEM;

    char buffer[128], suffix[160];
    const char *reason = strerror_r(system_error, buffer, sizeof(buffer));
    snprintf(suffix, sizeof(suffix), ": %s", reason);

    va_list list;
    va_start(list, format);
    write_message(error, suffix, format, list);
    va_end(list);
    stamp(error, SERRY_ERR_SYSTEM, system_error);
    return SERRY_ERR_SYSTEM;
}

void serry_error_begin(serry_error *error, const char *operation, uint64_t operation_id, int rank)
{
    memset(error, 0, sizeof(*error));
    error->operation = operation;
    error->operation_id = operation_id;
    error->rank = rank;
    error->peer = -1;
}

serry_error *serry_error_of_thread(void)
{
    static _Thread_local serry_error record = {.operation = "none", .rank = -1, .peer = -1};
    return &record;
}

/* ---- sets of ranks ------------------------------------------------------------------------ */

void serry_rank_set_add(serry_rank_set *set, int rank)
{
    set->bits[rank / 64] |= UINT64_C(1) << (rank % 64);
}

int serry_rank_set_count(const serry_rank_set *set)
{
    int count = 0;
    for (size_t i = 0; i < SERRY_MAX_RANKS / 64; i++)
        count += __builtin_popcountll(set->bits[i]);
    return count;
}

/* An empty set is "none". A text that has no room for a single rank is cut. */
char *serry_rank_set_text(const serry_rank_set *set, char *text, size_t size)
{
    char all[SERRY_MAX_RANKS * sizeof("255,")]; /* "1, 3, 5" */
    size_t end[SERRY_MAX_RANKS + 1] = {0};      /* its length after so many ranks */
    int last = -1, n = 0;
    for (int rank = 0; rank < (int)SERRY_MAX_RANKS; rank++) {
        if (!serry_rank_set_has(set, rank))
            continue;
        int more = snprintf(all + end[n], sizeof(all) - end[n], n == 0 ? "%d" : ", %d", rank);
        end[n + 1] = end[n] + (size_t)more;
        last = rank;
        n++;
    }
    if (n < 2) {
        snprintf(text, size, "%s", n == 0 ? "none" : all);
        return text;
    }

    char tail[32];
    int shown = n - 1;
    int tail_length = snprintf(tail, sizeof(tail), " and %d", last);
    while (shown > 1 && end[shown] + (size_t)tail_length >= size) {
        shown--;
        tail_length = snprintf(tail, sizeof(tail), " and %d more", n - shown);
    }
    snprintf(text, size, "%.*s%s", (int)end[shown], all, tail);
    return text;
}
