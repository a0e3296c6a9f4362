/* team.h - what a rank copies and reduces, shared by its OpenMP team, if it has one (src/openmp.h).
 *
 * What is written so is written again by others only when the rank has left or says that it is done (writes.h),
 * which it does not while its team works, or its whole process is gone (slot_is_gone). A lock that the calling thread holds says nothing about the
 * team: when the process is killed, other threads of it may run for a moment longer than that one. */
#ifndef SHM_TEAM_H
#define SHM_TEAM_H

#include <serry/types.h>

/* Operations on less than this have no team. Its threads sleep some milliseconds after the last one, and
 * waking them takes as long (30 to 50 us) as they can save: two cores move this much in about 100 us. */
#define TEAM_OPERATION_BYTES ((size_t)1 << 20)

/* What each thread must have to do: calling the team together and waiting for the last one costs about
 * 1 us while it is awake, in which a core copies this much. */
#define TEAM_PIECE_BYTES ((size_t)16 << 10)

/* As memcpy, or as copy_stream; as serry_reduce_vectors, with the result past the caches or not. By up to `threads`; a reduction that the caller
 * has made (serry_op_create) by the calling thread alone. The same bits whatever the number. */
void team_copy(int threads, void *dest, const void *source, size_t bytes, bool stream);
void team_reduce(int threads, void *result, const void *const *source, int n, size_t count,
                 serry_dtype dtype, serry_op op, bool stream);

#endif
