#!/usr/bin/env bash
# Fit the cost model of docs/scaling.md to a run of `serry bench`, and say what it predicts.
#
#   bench/scaling.sh CELLS.csv [FAR [FAR_GBPS [NET_US [NET_GBPS]]]]
#
# CELLS.csv is what `serry bench --csv` (make bench) has written on a quiet machine. What a machine with one
# domain cannot tell is given: how much dearer a line from another domain is (3), the bandwidth into a domain
# in GB/s (100), latency and bandwidth of the network between nodes (2 us, 12.5 GB/s).
set -euo pipefail
cells=${1:?usage: bench/scaling.sh CELLS.csv [FAR [FAR_GBPS [NET_US [NET_GBPS]]]]}
awk -F, -v far="${2:-3}" -v far_gbps="${3:-100}" -v net_us="${4:-2}" -v net_gbps="${5:-12.5}" '
# ---- the medians over the slices, in us: by library, operation and bytes, of two ranks. A round trip is
# shorter than reading the clock, so what counts is the mean of many.
$1 == "slice" { # the conditions of the run come first
    for (i = 1; i <= NF; i++)
        column[$i] = i
    next
}
("ranks" in column) && $column["ranks"] == 2 {
    key = $column["library"] "," $column["operation"] "," $column["bytes"]
    many = $column["operation"] == "round_trip" && $column["back_to_back_us"] != ""
    found[key] = found[key] " " $column[many ? "back_to_back_us" : "median_us"]
}
function time_of(key,    list, n, i, j, t) {
    n = split(found[key], list, " ")
    if (n == 0) {
        print "scaling.sh: there is no cell " key " of two ranks" > "/dev/stderr"
        failed = 1
        exit 1
    }
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && list[j] + 0 < list[j - 1] + 0; j--) {
            t = list[j]; list[j] = list[j - 1]; list[j - 1] = t
        }
    return n % 2 ? list[(n + 1) / 2] + 0 : (list[n / 2] + list[n / 2 + 1]) / 2
}

# ---- the model: lines that one rank reads in a small operation; see docs/scaling.md
function span_of(domains, cores,    s, best, c, least) {
    least = cores - 1 + 3 * (domains - 1) * cores # as in shm/levels.c
    if (domains == 1 || domains * cores <= 8)
        return 1
    best = 1
    for (s = 2; s <= cores && cores % s == 0; s *= 2) {
        c = s - 1 + cores / s - 1 + 3 * (domains - 1) * cores / s
        if (c < least || (c == least && best > 1)) {
            least = c
            best = s
        }
    }
    return best
}
# As many near and far lines, one after the other (0) or as close together as a copy reads them (1).
function lines_us(near, away, together) {
    if (!together)
        return (near + away * far) * line
    return (away > 0 ? far : 1) * line + (near + away * far - (away > 0 ? far : 1)) * gap
}
function alone_us(bytes) { # what a rank does with what is its own
    return call + (bytes > 0 ? data : 0) + 2 * bytes / 64 * own
}
function lines_of(bytes) { # that a member publishes
    return 1 + (bytes > 16 ? bytes / 64 : 0)
}
function small_us(domains, cores, bytes, span, together,    lines, near, away, near_us) {
    lines = lines_of(bytes)
    if (span == 1)
        return alone_us(bytes) + lines_us((cores - 1) * lines, (domains - 1) * cores * lines, together)
    near = (cores / span - 1) * lines
    away = (domains - 1) * cores / span * lines
    near_us = lines_us((span - 1) * lines, 0, together)
    return alone_us(bytes) + near_us + lines_us(near, away, together)
}
function range(domains, cores, bytes, span) {
    return sprintf("%.1f to %.1f", small_us(domains, cores, bytes, span, 1),
                   small_us(domains, cores, bytes, span, 0))
}
function show_small(domains, cores, bytes,    s) {
    s = span_of(domains, cores)
    printf "| %d x %d | %d B | %d | %s | %s |\n", domains, cores, bytes, s,
           range(domains, cores, bytes, 1), range(domains, cores, bytes, s)
}
# Bytes of the buffers of a member, as in shm/group.c.
function chunk_bytes(ranks,    share) {
    share = int(16777216 / (4 * ranks) / 4096) * 4096
    return share > 65536 ? 65536 : share
}
# Bytes that enter one domain in an allreduce of `bytes`, at least, in us: divided among all ranks, and by
# blocks of one domain each (a power of two of cores), with the steps that this takes.
function show_large(domains, cores, bytes,    all, blocks, steps, s) {
    all = (cores + 1) * bytes * (1 - 1 / domains) / far_gbps / 1e3
    blocks = 2 * bytes * (1 - 1 / domains) / far_gbps / 1e3
    steps = bytes / (cores * chunk_bytes(domains * cores) / 2)
    steps = (steps == int(steps) ? steps : int(steps) + 1) + 3
    s = span_of(domains, cores)
    printf "| %d x %d | %d MiB | %.0f | %.0f | %d | %.0f to %.0f |\n", domains, cores, bytes / 1048576, all,
           blocks, steps, steps * small_us(domains, cores, 0, s, 1), steps * small_us(domains, cores, 0, s, 0)
}
function show_nodes(nodes, domains, cores,    s, rounds, low, high) {
    s = span_of(domains, cores)
    rounds = log(nodes) / log(2)
    low = 2 * small_us(domains, cores, 8, s, 1) + rounds * net_us
    high = 2 * small_us(domains, cores, 8, s, 0) + rounds * net_us
    printf "| %d nodes of %d x %d | 8 B | %.1f to %.1f |\n", nodes, domains, cores, low, high
    printf "| | 16 MiB, the network alone | %.0f |\n",
           2 * 16777216 * (1 - 1 / nodes) / net_gbps / 1e3
}
function show_check(bytes,    measured, low, high) {
    measured = time_of("serry,allreduce," bytes)
    low = small_us(1, 2, bytes, 1, 1)
    high = small_us(1, 2, bytes, 1, 0)
    printf "| allreduce %d B | %.2f to %.2f | %.2f |\n", bytes, low, high, measured
}

END {
    if (failed)
        exit 1
    line = time_of("limit,round_trip,0") / 2
    own = time_of("limit,copy,16384") / 256
    gap = time_of("limit,cross_copy,16384") / 256 - own
    gap = gap > 0 ? gap : 0
    call = time_of("serry,barrier,0") - line
    data = time_of("serry,allreduce,8") - line - call
    printf "| constant | us |\n|---|---|\n"
    printf "| line | %.3f |\n| gap | %.4f |\n| own | %.4f |\n", line, gap, own
    printf "| call | %.3f |\n| data | %.3f |\n| far (given) | %.1f lines |\n", call, data, far

    printf "\n| two ranks | predicted, us | measured |\n|---|---|---|\n"
    show_check(1024)
    if ("serry,allreduce,256" in found)
        show_check(256)
    if ("serry,allreduce,4096" in found)
        show_check(4096)

    printf "\n| domains x cores | allreduce | span | each reads all words | by blocks |\n"
    printf "|---|---|---|---|---|\n"
    show_small(2, 8, 8)
    show_small(8, 16, 8)
    show_small(2, 64, 8)
    show_small(16, 8, 8)
    show_small(2, 64, 512)

    printf "\n| domains x cores | allreduce | into a domain | by blocks | steps | which take |\n"
    printf "|---|---|---|---|---|---|\n"
    show_large(2, 8, 1048576)
    show_large(2, 64, 1048576)
    show_large(2, 64, 16777216)
    show_large(16, 8, 16777216)

    printf "\n| under MPI | allreduce | us |\n|---|---|---|\n"
    show_nodes(8, 2, 64)
}' "$cells"
