# table.awk - the table of bench/run.sh, from its CSV files.
#
#   awk -v cores=N -v ratios=FILE -f table.awk cells.csv cost.csv deaths.csv
#
# A cell is operation, ranks and bytes. The time of a library in a cell is the median over the rounds
# of each round's median. A ratio is taken within each round, and then the median over the rounds; the
# best peer of a cell is the one with the least time. Exits with 1 if a result was wrong.

BEGIN {
    FS = ","
    split("barrier allreduce allreduce_in_place broadcast reduce allgather reduce_scatter", operations, " ")
    count_ours = split("serry serry_arena serry_threads", ours, " ")
    count_peers = split("openmpi openmpi_sm openmpi_copy mpich", peers, " ")
    count_sizes = split("8 1024 16384 262144 1048576 16777216 67108864", sizes, " ")
    count_crowds = split("4 8 32", crowds, " ")
    upper["serry"] = upper["serry_arena"] = upper["serry_threads"] = "serry"
    lower["serry"] = "private"; lower["serry_arena"] = "arena"; lower["serry_threads"] = "threads"
    upper["openmpi"] = upper["openmpi_sm"] = upper["openmpi_copy"] = "Open MPI"
    lower["openmpi_sm"] = "sm"; lower["openmpi_copy"] = "copy"; lower["mpich"] = "MPICH"
    lower["limit"] = "bare"
    SLOWER = 1.005 # what is printed as more than 1.00
    lost = ""
}

/^#/ || $1 == "round" || $1 == "kind" || $1 == "what" { next }

FILENAME ~ /deaths.csv$/ {
    touched[$3] = $4
    for (i = 5; i <= 7; i++)
        death[$1, $3, i] = $i
    next
}
FILENAME ~ /cost.csv$/ {
    cost[$1, $2] = $3 + $4
    if ($1 == "processes")
        arena[$2] = $5
    next
}

{
    cell = $3 SUBSEP $4 SUBSEP $5
    times[$2, cell] = times[$2, cell] " " $8
    back_to_back[$2, cell] = back_to_back[$2, cell] " " $10
    time_in[$2, cell, $1] = $8
    wrong[$2, $3] += $11
    if ($11 > 0)
        wrongs += $11
    if ($1 > rounds)
        rounds = $1
}

# ---- numbers -----------------------------------------------------------------------------------

# The median of a list with blanks, "" if it is empty; also sets least and most.
function median(list, value, n, i, k, v) {
    n = split(list, value, " ")
    if (n == 0)
        return ""
    for (i = 2; i <= n; i++) {
        v = value[i] + 0
        for (k = i - 1; k >= 1 && value[k] + 0 > v; k--)
            value[k + 1] = value[k]
        value[k + 1] = v
    }
    least = value[1]
    most = value[n]
    return n % 2 ? value[(n + 1) / 2] + 0 : (value[n / 2] + value[n / 2 + 1]) / 2
}

function time_of(library, cell) {
    return median(times[library, cell])
}

# Sets least and most, too.
function ratio(library, other, cell, list, r) {
    list = ""
    for (r = 1; r <= rounds; r++)
        if (((library, cell, r) in time_in) && time_in[other, cell, r] > 0)
            list = list " " time_in[library, cell, r] / time_in[other, cell, r]
    return median(list)
}

function best_peer(cell, i, t, best, best_time) {
    best = ""
    for (i = 1; i <= count_peers; i++) {
        t = time_of(peers[i], cell)
        if (t != "" && (best == "" || t < best_time)) {
            best = peers[i]
            best_time = t
        }
    }
    return best
}

# ---- how things are written --------------------------------------------------------------------

function size_name(bytes) {
    if (bytes == 0)
        return ""
    if (bytes >= 1048576)
        return bytes / 1048576 " MiB"
    return bytes >= 1024 ? bytes / 1024 " KiB" : bytes " B"
}

function number(x) { # three digits or so
    if (x == "")
        return "-"
    return sprintf(x < 10 ? "%.2f" : x < 100 ? "%.1f" : "%.0f", x)
}

# The ratio of one of ours to the best peer, marked where the peer is faster. Also for the CSV file.
function ratio_text(library, cell, best, part, r) {
    if (best == "" || time_of(library, cell) == "")
        return "-"
    r = ratio(library, best, cell)
    split(cell, part, SUBSEP)
    printf "%s,%s,%s,%s,%s,%.3f,%.3f,%.3f\n", part[1], part[2], part[3], library, best, r, least, \
        most >ratios
    compared++
    if (r >= SLOWER) {
        lost = lost sprintf("\n  %-14s %-19s %-8s %s ranks: %.2f x %s (rounds: %.2f to %.2f)", library, \
            part[1], size_name(part[3]), part[2], r, best, least, most)
        losses++
    }
    return sprintf("%.2f%s", r, r >= SLOWER ? "!" : " ")
}

# ---- the parts of the table --------------------------------------------------------------------

# Columns: times of `left`, times of `right`, ratios of `left`; lists of libraries.
function print_heading(left, right, l, r, i, row, name) {
    split(left, l, " ")
    split(right, r, " ")
    for (row = 1; row <= 2; row++) {
        printf "%-29s", row == 1 ? "" : "operation"
        for (i = 1; i in l; i++)
            printf " %8s", row == 1 ? upper[l[i]] : lower[l[i]]
        printf " |"
        for (i = 1; i in r; i++)
            printf " %8s", row == 1 ? upper[r[i]] : lower[r[i]]
        printf " |"
        for (i = 1; i in l; i++)
            printf " %7s", row == 1 ? upper[l[i]] : lower[l[i]]
        print row == 1 ? "" : "   best peer"
    }
}

function print_cell(label, cell, left, right, l, r, i, best) {
    split(left, l, " ")
    split(right, r, " ")
    best = best_peer(cell)
    printf "%-29s", label
    for (i = 1; i in l; i++)
        printf " %8s", number(time_of(l[i], cell))
    printf " |"
    for (i = 1; i in r; i++)
        printf " %8s", number(time_of(r[i], cell))
    printf " |"
    for (i = 1; i in l; i++)
        printf " %7s", ratio_text(l[i], cell, best)
    print "   " best
}

function print_two_ranks(i, k, op, cell, left, right) {
    left = "serry serry_arena serry_threads"
    right = "openmpi openmpi_sm openmpi_copy mpich limit"
    printf "\nTwo ranks%s: time of a call in us; ratio to the best peer (! = the peer is faster)\n", \
        cores < 2 ? ", OVERSUBSCRIBED" : ", a core each"
    print_heading(left, right)
    for (i = 1; i in operations; i++) {
        op = operations[i]
        for (k = 1; k <= (op == "barrier" ? 1 : count_sizes); k++) {
            cell = op SUBSEP 2 SUBSEP (op == "barrier" ? 0 : sizes[k])
            print_cell(sprintf("%-20s %8s", op, op == "barrier" ? "" : size_name(sizes[k])), cell, \
                left, right)
        }
    }
}

function print_crowds(i, k, cell, left, right) {
    left = "serry serry_threads"
    right = "openmpi mpich"
    printf "\nMore ranks: time of a call in us; ratio to the best peer (! = the peer is faster)\n"
    print_heading(left, right)
    for (i = 1; i <= count_crowds; i++)
        for (k = 1; k <= 3; k++) {
            cell = (k == 1 ? "barrier" : "allreduce") SUBSEP crowds[i] SUBSEP \
                (k == 1 ? 0 : k == 2 ? 8 : 1024)
            print_cell(sprintf("%-9s %-5s %2d ranks%s", k == 1 ? "barrier" : "allreduce", \
                k == 1 ? "" : k == 2 ? "8 B" : "1 KiB", crowds[i], crowds[i] > cores ? " (O)" : ""), \
                cell, left, right)
        }
    if (crowds[count_crowds] > cores)
        print "(O) = OVERSUBSCRIBED, more ranks than cores"
}

# Barrier and 8-byte allreduce against two flags, the least that two cores can do.
function print_flags(barrier, cell, i, k, library, list, r) {
    barrier = "barrier" SUBSEP 2 SUBSEP 0
    if (time_of("limit", barrier) == "")
        return
    printf "\nAgainst the flag exchange of the same rounds (%.2f us)\n", time_of("limit", barrier)
    for (i = 1; i <= count_ours + count_peers; i++) {
        library = i <= count_ours ? ours[i] : peers[i - count_ours]
        printf "  %-14s", library
        for (k = 1; k <= 2; k++) {
            cell = k == 1 ? barrier : "allreduce" SUBSEP 2 SUBSEP 8
            list = ""
            for (r = 1; r <= rounds; r++)
                if (((library, cell, r) in time_in) && time_in["limit", barrier, r] > 0)
                    list = list " " time_in[library, cell, r] / time_in["limit", barrier, r]
            printf "   %s %5s", k == 1 ? "barrier" : "allreduce 8 B", number(median(list))
        }
        print ""
    }
}

function bandwidth(operation, bytes, t) {
    t = time_of("limit", operation SUBSEP 2 SUBSEP bytes)
    return t > 0 ? sprintf("%.1f", bytes / t / 1000) : "-"
}

function print_limits(k, trip) {
    trip = "round_trip" SUBSEP 2 SUBSEP 0
    if (time_of("limit", trip) == "")
        return
    printf "\nWhat two cores can do: a cache line there and back in %.0f ns, flags exchanged in %.0f ns (back to back)\n", \
        median(back_to_back["limit", trip]) * 1000, \
        median(back_to_back["limit", "barrier" SUBSEP 2 SUBSEP 0]) * 1000
    printf "  %8s   %s   %s\n", "size", "memcpy GB/s per core", "from the other core's memory GB/s per core"
    for (k = 3; k <= count_sizes; k++)
        printf "  %8s   %20s   %42s\n", size_name(sizes[k]), bandwidth("copy", sizes[k]), \
            bandwidth("cross_copy", sizes[k])
}

# Times from kill -9 on, of rank 3 of 4, which the others wait for asleep.
function print_deaths(whats, names, mib, i) {
    split("first all next joined", whats, " ")
    names["first"] = "first survivor told"
    names["all"] = "all survivors told"
    names["next"] = "next operation done"
    names["joined"] = "a replacement, start to admission"
    for (mib in touched) {
        printf "\nkill -9 of one of 4 ranks, %d kills%s\n%36s %9s %8s %8s\n", \
            touched[mib], (mib + 0 ? ", " mib " MiB touched by each rank" : ""), "us,", "median", "p99", "max"
        for (i = 1; i <= 4; i++)
            printf "  %-34s %9.0f %8.0f %8.0f\n", names[whats[i]], death[whats[i], mib, 5], \
                death[whats[i], mib, 6], death[whats[i], mib, 7]
    }
}

function print_costs(kinds, sizes_of_cost, count, i, k, n) {
    count = split("2 16 64 256", sizes_of_cost, " ")
    split("processes threads", kinds, " ")
    printf "\nWhat ranks cost\n  %-34s", ""
    for (i = 1; i <= count; i++)
        printf " %6d ranks", sizes_of_cost[i]
    printf "\n  %-34s", "memory of the arena, KiB"
    for (i = 1; i <= count; i++) {
        n = sizes_of_cost[i]
        printf " %12s", n in arena ? sprintf("%.0f", arena[n] / 1024) : "-"
    }
    for (k = 1; k <= 2; k++) {
        printf "\n  %-34s", "init and finalize, " kinds[k] ", ms"
        for (i = 1; i <= count; i++) {
            n = sizes_of_cost[i]
            printf " %12s", (kinds[k], n) in cost ? number(cost[kinds[k], n] / 1000) : "-"
        }
    }
    print ""
}

function print_wrong(key, part) {
    printf "Wrong results: %d\n", wrongs
    for (key in wrong)
        if (wrong[key] > 0) {
            split(key, part, SUBSEP)
            printf "  %s, %s: %d\n", part[1], part[2], wrong[key]
        }
}

END {
    print "operation,ranks,bytes,library,best_peer,ratio,ratio_min,ratio_max" >ratios
    print_two_ranks()
    print_crowds()
    print_flags()
    print_limits()
    print_costs()
    print_deaths()
    printf "\nserry is slower than the best peer in %d of %d comparisons%s%s\n", losses, compared, \
        losses ? ":" : "", lost
    print_wrong()
    exit wrongs > 0
}
