/* record.h - filling in error records; used on every floor, knows none. */
#ifndef SERRY_RECORD_H
#define SERRY_RECORD_H

#include <serry/error.h>

/* Fill `error` with a code and a message (printf's format), stamp both clocks, and return the code.
 * Keeps operation, operation_id, rank, peer and ranks, which the caller may have set; see
 * serry_error_begin. `error` may be NULL: then only the code is returned. */
int serry_fail(serry_error *error, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As serry_fail with SERRY_ERR_SYSTEM, keeps errno in the record and appends its text. */
int serry_fail_errno(serry_error *error, int system_error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Empty a record and say whose it is. `operation` must be a string literal. */
void serry_error_begin(serry_error *error, const char *operation, uint64_t operation_id, int rank);

/* The place of a code in SERRY_ERROR_MAP; SERRY_ERROR_CODES for a code that it does not have. */
size_t serry_error_row(int error);

/* The record of this thread for calls without a communicator. Never NULL. */
serry_error *serry_error_of_thread(void);

void serry_rank_set_add(serry_rank_set *set, int rank);
int serry_rank_set_count(const serry_rank_set *set);

/* "1, 3 and 5", or "1, 3, 5 and 12 more" when it would not fit; returns text. */
char *serry_rank_set_text(const serry_rank_set *set, char *text, size_t size);

#endif
