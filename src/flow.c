/* flow.c - see flow.h. */
#include "flow.h"

const flow serry_flows[SERRY_KINDS] = {
    [SERRY_KIND_BARRIER] = {.combine = false},
    [SERRY_KIND_BROADCAST] = {.from_root = true},
    [SERRY_KIND_REDUCE] = {.combine = true, .to_root = true},
    [SERRY_KIND_ALLREDUCE] = {.combine = true},
    [SERRY_KIND_ALLGATHER] = {.recv_n = true},
    [SERRY_KIND_REDUCE_SCATTER] = {.combine = true, .send_n = true},
    [SERRY_KIND_GATHER] = {.to_root = true, .recv_n = true},
    [SERRY_KIND_SCATTER] = {.from_root = true, .send_n = true},
    [SERRY_KIND_ALLTOALL] = {.send_n = true, .recv_n = true},
    [SERRY_KIND_SPLIT] = {.recv_n = true},
    [SERRY_KIND_MEET] = {.recv_n = true},
};
