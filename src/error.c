/* error.c - what each error code means; filling in error records and putting them in words. */

#include "record.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- what a code means -------------------------------------------------------------------- */

typedef struct code_row {
    int code;
    serry_scope scope;
    serry_severity severity;
    serry_error_class group;
    const char *name, *text;
} code_row;

static const code_row k_codes[SERRY_ERROR_CODES + 1] = {
#define SERRY_X(name, value, scope, severity, group, text)                                         \
    {value, SERRY_SCOPE_##scope, SERRY_##severity, SERRY_CLASS_##group, "SERRY_" #name, text},
    SERRY_ERROR_MAP(SERRY_X)
#undef SERRY_X
    /* every other code */
    {0, SERRY_SCOPE_LOST, SERRY_FATAL, SERRY_CLASS_ANY, "unknown serry error",
     "unknown serry error"},
};

size_t serry_error_row(int error)
{
    size_t row = 0;
    while (row < SERRY_ERROR_CODES && k_codes[row].code != error)
        row++;
    return row;
}

static const code_row *row_of(int error)
{
    return &k_codes[serry_error_row(error)];
}

const char *serry_strerror(int error)
{
    return error == SERRY_OK ? "success" : row_of(error)->text;
}

const char *serry_error_name(int error)
{
    return error == SERRY_OK ? "SERRY_OK" : row_of(error)->name;
}

serry_scope serry_error_scope(int error)
{
    return error == SERRY_OK ? SERRY_SCOPE_CALL : row_of(error)->scope;
}

serry_severity serry_error_severity(int error)
{
    return error == SERRY_OK ? SERRY_WARNING : row_of(error)->severity;
}

serry_error_class serry_error_class_of(int error)
{
    return row_of(error)->group;
}

const char *serry_severity_name(serry_severity severity)
{
    static const char *const names[SERRY_SEVERITIES] = {"Warning", "Recoverable", "Fatal"};
    return (unsigned)severity < SERRY_SEVERITIES ? names[severity] : "?";
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

/* As vsnprintf, but a text that does not fit shows it. Returns the length it has, or would have. */
static size_t write_cut(char *text, size_t size, const char *format, va_list list)
{
    int written = vsnprintf(text, size, format, list);
    size_t length = written < 0 ? 0 : (size_t)written;
    if (length >= size)
        mark_cut(text, size);
    else
        text[length] = '\0';
    return length;
}

/* The arguments may point into the record's old message, so the new one is made beside it. */
static void write_message(serry_error *error, const char *suffix, const char *format, va_list list)
{
    char text[sizeof(error->message)];
    size_t length = write_cut(text, sizeof(text), format, list);

    if (length < sizeof(text)) {
        length += (size_t)snprintf(text + length, sizeof(text) - length, "%s", suffix);
        if (length >= sizeof(text))
            mark_cut(text, sizeof(text));
    }
    memcpy(error->message, text, sizeof(text));
}

static void stamp(serry_error *error, int code, int system_error)
{
    error->error = code;
    error->severity = serry_error_severity(code);
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

int serry_error_make(serry_error *error, int code, const char *operation, uint64_t operation_id,
                     int rank, const char *format, ...)
{
    serry_error made; /* the arguments may point into the old record */
    serry_error_begin(&made, operation, operation_id, rank);

    va_list list;
    va_start(list, format);
    write_message(&made, "", format, list);
    va_end(list);
    stamp(&made, code, 0);
    *error = made;
    return code;
}

serry_error *serry_error_of_thread(void)
{
    static _Thread_local serry_error record = {.operation = "none", .rank = -1, .peer = -1};
    return &record;
}

/* ---- context ------------------------------------------------------------------------------ */

/* The pair of this key; "" finds a free one. NULL: there is none. */
static const serry_context_pair *find_pair(const serry_error *error, const char *key)
{
    for (size_t i = 0; i < SERRY_CONTEXT_PAIRS; i++)
        if (strcmp(error->context[i].key, key) == 0)
            return &error->context[i];
    return NULL;
}

int serry_error_context_set(serry_error *error, const char *key, const char *format, ...)
{
    size_t length = strlen(key);
    if (length == 0 || length >= sizeof(error->context[0].key))
        return SERRY_ERR_INVALID;
    const serry_context_pair *found = find_pair(error, key);
    if (found == NULL)
        found = find_pair(error, "");
    if (found == NULL)
        return SERRY_ERR_NO_SPACE;

    serry_context_pair pair; /* the arguments may point into the old value */
    memcpy(pair.key, key, length + 1);
    va_list list;
    va_start(list, format);
    write_cut(pair.value, sizeof(pair.value), format, list);
    va_end(list);
    error->context[found - error->context] = pair;
    return SERRY_OK;
}

const char *serry_error_context_get(const serry_error *error, const char *key)
{
    const serry_context_pair *pair = *key == '\0' ? NULL : find_pair(error, key);
    return pair == NULL ? NULL : pair->value;
}

/* ---- a record in one line ----------------------------------------------------------------- */

char *serry_error_text(const serry_error *error, char *text, size_t size)
{
    time_t seconds = (time_t)(error->wall_ns / 1000000000);
    int ms = (int)(error->wall_ns / 1000000 % 1000);
    struct tm local = {0};
    localtime_r(&seconds, &local);
    char rank[16] = "N/A";
    if (error->rank >= 0)
        snprintf(rank, sizeof(rank), "%d", error->rank);

    snprintf(text, size, "[%02d:%02d:%02d.%03d] %s (Rank: %s): %s - %s", local.tm_hour,
             local.tm_min, local.tm_sec, ms, error->operation, rank,
             serry_severity_name(serry_error_severity(error->error)),
             error->message[0] != '\0' ? error->message : serry_strerror(error->error));
    if (size > 0)
        for (char *at = text; (at = strpbrk(at, "\r\n")) != NULL;)
            *at = ' ';
    return text;
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
