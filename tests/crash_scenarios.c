/* crash_scenarios.c - collectives: each algorithm, each role. */
#include "crash_scenarios.h"

#include "operation.h"

#define LARGE 1032   /* elements of 8 bytes, just too many for the small operations */
#define PIECES 12400 /* more than two pieces of 16 KiB in the range of each of three ranks */
#define CHUNKS 17000 /* three chunks, of which two are on their way at a time */

#define CALL(KIND, COUNT) .kind = SERRY_KIND_##KIND, .count = (COUNT)

const crash_scenario crash_collectives[] = {
    {"barrier", 2, 1, CALL(BARRIER, 0)},
    {"barrier, 4 ranks", 4, 0, CALL(BARRIER, 0)},
    {"allreduce in one cache line", 3, 1, CALL(ALLREDUCE, 2)},
    {"small allreduce", 4, 2, CALL(ALLREDUCE, 5)},
    {"small allreduce, excluding", 3, 0, SERRY_EXCLUDE, CALL(ALLREDUCE, 5), .in_place = true},
    {"allreduce by blocks, the victim tells", 3, 0, SERRY_EXCLUDE, CALL(ALLREDUCE, 2),
     .variant = VARIANT_LEVELS},
    {"small allreduce by blocks, the victim tells", 4, 2, CALL(ALLREDUCE, 5),
     .variant = VARIANT_LEVELS},
    {"small allreduce by blocks, the victim is told", 3, 1, CALL(ALLREDUCE, 6),
     .variant = VARIANT_LEVELS},
    {"barrier by blocks", 4, 0, CALL(BARRIER, 0), .variant = VARIANT_LEVELS},
    {"small broadcast by the victim", 3, 1, CALL(BROADCAST, 5), .root = 1},
    {"small alltoall", 3, 1, CALL(ALLTOALL, 3)},
    {"staged allreduce", 3, 1, CALL(ALLREDUCE, LARGE)},
    {"staged allreduce, the first one", 3, 1, CALL(ALLREDUCE, LARGE), .first = true},
    {"staged allgather, the first one, excluding", 3, 1, SERRY_EXCLUDE, CALL(ALLGATHER, LARGE),
     .first = true},
    {"staged allreduce, excluding", 3, 0, SERRY_EXCLUDE, CALL(ALLREDUCE, LARGE)},
    {"staged allreduce in place", 2, 1, CALL(ALLREDUCE, LARGE), .in_place = true},
    {"staged broadcast by the victim", 3, 1, CALL(BROADCAST, LARGE), .root = 1},
    {"staged broadcast to the victim", 3, 1, CALL(BROADCAST, LARGE), .root = 2},
    {"pipelined allreduce", 3, 1, CALL(ALLREDUCE, CHUNKS)},
    {"pipelined allreduce, two ranks", 2, 0, CALL(ALLREDUCE, CHUNKS)},
    {"pipelined allreduce in place, excluding", 3, 0, SERRY_EXCLUDE, CALL(ALLREDUCE, CHUNKS),
     .in_place = true},
    {"pipelined reduce of arena memory", 3, 1, CALL(REDUCE, 2 * CHUNKS), .arena = true,
     .variant = VARIANT_SHARE},
    {"staged allgather", 2, 1, CALL(ALLGATHER, LARGE)},
    {"staged reduce_scatter", 3, 1, CALL(REDUCE_SCATTER, LARGE / 3 + 1)},
    {"staged gather at the victim", 2, 1, CALL(GATHER, LARGE), .root = 1},
    {"direct allreduce", 3, 1, CALL(ALLREDUCE, LARGE), .arena = true, .variant = VARIANT_SHARE},
    {"direct allreduce in place", 3, 1, CALL(ALLREDUCE, LARGE), .arena = true, .in_place = true,
     .variant = VARIANT_SHARE},
    {"direct allreduce in place, excluding", 4, 0, SERRY_EXCLUDE, CALL(ALLREDUCE, LARGE),
     .arena = true, .in_place = true, .variant = VARIANT_SHARE},
    {"following allreduce", 3, 1, CALL(ALLREDUCE, CHUNKS), .arena = true,
     .variant = VARIANT_FOLLOW},
    {"following allreduce, excluding", 3, 0, SERRY_EXCLUDE, CALL(ALLREDUCE, CHUNKS), .arena = true,
     .variant = VARIANT_FOLLOW},
    {"following allreduce in place", 3, 1, CALL(ALLREDUCE, CHUNKS), .arena = true, .in_place = true,
     .variant = VARIANT_FOLLOW},
    {"following allreduce in place, by the first, excluding", 3, 0, SERRY_EXCLUDE,
     CALL(ALLREDUCE, CHUNKS), .arena = true, .in_place = true, .variant = VARIANT_FOLLOW},
    {"spreading allreduce", 3, 1, CALL(ALLREDUCE, LARGE), .arena = true},
    {"spreading allreduce of several pieces, excluding", 3, 0, SERRY_EXCLUDE,
     CALL(ALLREDUCE, PIECES), .arena = true},
    {"spreading allreduce in place", 2, 1, CALL(ALLREDUCE, LARGE), .arena = true, .in_place = true},
    {"spreading allreduce in place, of several pieces", 3, 1, CALL(ALLREDUCE, PIECES),
     .arena = true, .in_place = true},
    {"spreading allreduce in place, of several pieces, by the first, excluding", 3, 0,
     SERRY_EXCLUDE, CALL(ALLREDUCE, PIECES), .arena = true, .in_place = true},
    {"spreading reduce at the victim", 3, 1, CALL(REDUCE, LARGE), .root = 1, .arena = true},
    {"spreading reduce in place, beside the root", 3, 0, CALL(REDUCE, PIECES), .root = 1,
     .arena = true, .in_place = true},
    {"direct reduce at the victim", 3, 1, CALL(REDUCE, LARGE), .root = 1, .arena = true,
     .variant = VARIANT_SHARE},
    {"direct broadcast by the victim", 3, 1, CALL(BROADCAST, LARGE), .root = 1, .arena = true},
    {"spreading allgather of several pieces", 3, 1, CALL(ALLGATHER, 5 * LARGE), .arena = true},
    {"spreading allgather in place, excluding", 3, 0, SERRY_EXCLUDE, CALL(ALLGATHER, LARGE),
     .arena = true, .in_place = true},
    {"spreading gather", 3, 0, CALL(GATHER, LARGE), .root = 1, .arena = true},
    {"direct allgather in place", 3, 1, CALL(ALLGATHER, LARGE), .arena = true, .in_place = true,
     .variant = VARIANT_SHARE},
    {"direct reduce_scatter in place", 3, 1, CALL(REDUCE_SCATTER, LARGE / 3 + 1), .arena = true,
     .in_place = true},
};

const size_t crash_collectives_count = sizeof(crash_collectives) / sizeof(crash_collectives[0]);

/* What a rank does about the death of another one. */
const crash_scenario crash_recoveries[] = {
    {"small allreduce that reports a loss", 4, 1, CALL(ALLREDUCE, 5), .fallen = true},
    {"small allreduce that excludes", 4, 0, SERRY_EXCLUDE, CALL(ALLREDUCE, 5), .fallen = true},
    {"small allreduce by blocks that reports a loss", 4, 0, CALL(ALLREDUCE, 5), .fallen = true,
     .variant = VARIANT_LEVELS},
    {"staged allreduce that reports a loss", 4, 1, CALL(ALLREDUCE, LARGE), .fallen = true},
    {"staged allreduce that excludes", 4, 1, SERRY_EXCLUDE, CALL(ALLREDUCE, LARGE), .fallen = true},
    {"direct allreduce that excludes", 4, 1, SERRY_EXCLUDE, CALL(ALLREDUCE, LARGE), .arena = true,
     .in_place = true, .fallen = true, .variant = VARIANT_SHARE},
    {"spreading allreduce in place that excludes", 4, 1, SERRY_EXCLUDE, CALL(ALLREDUCE, PIECES),
     .arena = true, .in_place = true, .fallen = true},
    {"staged allgather that excludes", 3, 1, SERRY_EXCLUDE, CALL(ALLGATHER, LARGE), .fallen = true},
    {"broadcast without its root", 4, 1, SERRY_EXCLUDE, CALL(BROADCAST, LARGE), .root = 3,
     .fallen = true},
};

const size_t crash_recoveries_count = sizeof(crash_recoveries) / sizeof(crash_recoveries[0]);
