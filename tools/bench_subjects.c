/* bench_subjects.c - who takes part in `serry bench`, and how each is started. */
#include <stdio.h>
#include <string.h>

#include "bench.h"

#define ALL_SIZES 0, SIZE_MAX

/* Open MPI's settings are the best that were found for two ranks: its shared-memory collectives for
 * barriers, copying twice instead of through the kernel for some tens of KiB. */
const bench_subject bench_subjects[] = {
    {.name = "serry",
     .heading = "private",
     .role = BENCH_OURS,
     .launcher = BENCH_BY_SERRY,
     .crowd = true,
     .program = "bench_serry"},
    {.name = "serry_arena",
     .heading = "arena",
     .role = BENCH_OURS,
     .launcher = BENCH_BY_SERRY,
     .program = "bench_serry",
     .options = {"--arena"}},
    {.name = "serry_threads",
     .heading = "threads",
     .role = BENCH_OURS,
     .launcher = BENCH_BY_ITSELF,
     .threads = true,
     .crowd = true,
     .program = "bench_serry"},

    {.name = "openmpi",
     .peer = "openmpi",
     .heading = "openmpi",
     .role = BENCH_PEER,
     .launcher = BENCH_BY_OPENMPI,
     .crowd = true,
     .program = "bench_openmpi"},
    {.name = "openmpi_sm",
     .peer = "openmpi",
     .heading = "  with sm",
     .role = BENCH_PEER,
     .launcher = BENCH_BY_OPENMPI,
     .program = "bench_openmpi",
     .launch = {"--mca", "coll_sm_priority", "100"}},
    {.name = "openmpi_copy",
     .peer = "openmpi",
     .heading = "with copy",
     .role = BENCH_PEER,
     .launcher = BENCH_BY_OPENMPI,
     .program = "bench_openmpi",
     .launch = {"--mca", "btl_vader_single_copy_mechanism", "none"}},
    {.name = "mpich",
     .peer = "mpich",
     .heading = "mpich",
     .role = BENCH_PEER,
     .launcher = BENCH_BY_MPICH,
     .crowd = true,
     .program = "bench_mpich"},
    {.name = "gloo",
     .peer = "gloo",
     .heading = "gloo",
     .role = BENCH_PEER,
     .launcher = BENCH_BY_ITSELF,
     .crowd = true,
     .program = "bench_gloo"},
    {.name = "gomp",
     .peer = "gomp",
     .heading = "gomp",
     .role = BENCH_PEER,
     .launcher = BENCH_BY_ITSELF,
     .threads = true,
     .crowd = true,
     .program = "bench_threads",
     .options = {"--openmp"},
     .most = 16 << 10},
    {.name = "pthread",
     .peer = "pthread",
     .heading = "pthread",
     .role = BENCH_PEER,
     .launcher = BENCH_BY_ITSELF,
     .threads = true,
     .crowd = true,
     .program = "bench_threads",
     .most = 1}, /* barriers alone */

    {.name = "limit",
     .peer = "limit",
     .heading = "limit",
     .role = BENCH_LIMIT,
     .launcher = BENCH_BY_ITSELF,
     .program = "bench_limits",
     /* Up to a line, data can travel with the flag. */
     .aliases = {{"allreduce", "barrier", 0, 64},
                 {"allreduce", "allreduce_in_place", 65, SIZE_MAX},
                 {"broadcast", "cross_copy", 16 << 10, SIZE_MAX},
                 {"allgather", "cross_copy", 16 << 10, SIZE_MAX}}},

    {.name = "serry_wrapped",
     .role = BENCH_VARIANT,
     .launcher = BENCH_BY_SERRY,
     .program = "bench_serry",
     .options = {"--wrapped"},
     .aliases = {{"allreduce", "allreduce", 8, 8}, {"barrier", "barrier", ALL_SIZES}},
     .aliases_only = true},
    {.name = "serry_watched",
     .role = BENCH_VARIANT,
     .launcher = BENCH_BY_SERRY,
     .program = "bench_serry",
     .options = {"--watched"},
     .aliases = {{"allreduce", "allreduce", 8, 8}, {"barrier", "barrier", ALL_SIZES}},
     .aliases_only = true},
    {.name = "serry_async",
     .role = BENCH_VARIANT,
     .launcher = BENCH_BY_SERRY,
     .program = "bench_serry",
     .options = {"--async"},
     .aliases = {{"allreduce", "iallreduce", 8, 8}, {"send_recv", "isend_irecv", ALL_SIZES}},
     .aliases_only = true},
    {.name = "serry_f16",
     .role = BENCH_VARIANT,
     .launcher = BENCH_BY_SERRY,
     .program = "bench_serry",
     .aliases = {{"allreduce", "allreduce_f16", 8, 16 << 20}},
     .aliases_only = true},
    {.name = "serry_bf16",
     .role = BENCH_VARIANT,
     .launcher = BENCH_BY_SERRY,
     .program = "bench_serry",
     .aliases = {{"allreduce", "allreduce_bf16", 8, 16 << 20}},
     .aliases_only = true},
    {.name = "overlap",
     .role = BENCH_VARIANT,
     .launcher = BENCH_BY_SERRY,
     .beside = true,
     .program = "bench_serry",
     .options = {"--async"},
     .aliases = {{"overlap", "overlap", ALL_SIZES}},
     .aliases_only = true},
    {.name = "overlap_compute",
     .role = BENCH_VARIANT,
     .launcher = BENCH_BY_SERRY,
     .beside = true,
     .program = "bench_serry",
     .options = {"--async"},
     .aliases = {{"overlap", "compute", ALL_SIZES}},
     .aliases_only = true},
    {.name = "overlap_allreduce",
     .role = BENCH_VARIANT,
     .launcher = BENCH_BY_SERRY,
     .beside = true,
     .program = "bench_serry",
     .options = {"--async"},
     .aliases = {{"overlap", "iallreduce", ALL_SIZES}},
     .aliases_only = true},
};

const size_t bench_subject_count = sizeof bench_subjects / sizeof *bench_subjects;

const char *bench_asked_for(const bench_subject *subject, const char *cell, size_t bytes)
{
    if (subject->most > 0 && bytes > subject->most)
        return NULL;
    for (int i = 0; i < BENCH_ALIASES && subject->aliases[i].cell != NULL; i++) {
        const bench_alias *alias = &subject->aliases[i];
        if (strcmp(alias->cell, cell) == 0 && bytes >= alias->least && bytes <= alias->most)
            return alias->operation;
    }
    return subject->aliases_only ? NULL : cell;
}

void bench_peer_names(char *text, size_t size)
{
    const char *last = "";
    size_t length = 0;

    text[0] = '\0';
    for (size_t i = 0; i < bench_subject_count; i++) {
        const char *peer = bench_subjects[i].peer;
        if (peer == NULL || strcmp(peer, last) == 0)
            continue;
        length += (size_t)snprintf(text + length, size - length, "%s%s", *last ? "," : "", peer);
        last = peer;
    }
}
