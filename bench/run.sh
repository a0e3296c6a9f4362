#!/usr/bin/env bash
# Measure serry beside Open MPI and MPICH and what the machine allows, all in one run.
#
#   bench/run.sh BUILD_DIR
#
# Writes bench-output/ (or $SERRY_BENCH_OUT): cells.csv, ratios.csv, cost.csv, deaths.csv, table.txt,
# log.txt, and prints the table. Takes as many rounds as fit into $SERRY_BENCH_SECONDS (300), at least one; in each
# every library is run once, in the next round in reverse order. Exit code 1: a result was wrong, or
# serry failed. docs/bench.md explains what is printed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "${1:?usage: bench/run.sh BUILD_DIR}" && pwd)
out=${SERRY_BENCH_OUT:-bench-output}
seconds=${SERRY_BENCH_SECONDS:-300}
cores=$(lscpu -p=CORE,SOCKET | grep -v '^#' | sort -u | wc -l) # not their hyperthreads
[ "$cores" -le "$(nproc)" ] || cores=$(nproc)                   # that we may use
crowds="4 8 32" # numbers of ranks, beside 2
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

fail() {
    echo "bench: $*" >&2
    exit 1
}
for program in tools/serry bench/bench_collectives bench/bench_limits bench/bench_cost bench/bench_deaths; do
    [ -x "$build/$program" ] || fail "$build/$program is not there; build it first: make"
done
case $seconds in
'' | *[!0-9]*) fail "SERRY_BENCH_SECONDS is '$seconds'; give a whole number of seconds" ;;
esac
mkdir -p "$out"
log=$out/log.txt
: >"$log"
piece=$(mktemp)
trap 'rm -f "$piece"' EXIT
trap 'exit 130' INT TERM # a launcher that ends in order after ^C must not let us go on

# ---- the peers -----------------------------------------------------------------------------------

notes=()
peers=()
for mpi in openmpi mpich; do
    if ! command -v "mpicc.$mpi" >/dev/null || ! command -v "mpirun.$mpi" >/dev/null; then
        notes+=("$mpi is not installed and was left out")
    elif ! "mpicc.$mpi" -std=gnu11 -O2 -D_GNU_SOURCE "$here/mpi.c" "$here/common.c" \
        "$here/cells.c" -o "$build/bench/mpi.$mpi" >>"$log" 2>&1; then
        notes+=("$mpi could not be used (see $log) and was left out")
    else
        peers+=("$mpi")
    fi
done
has() {
    case " ${peers[*]:-} " in
    *" $1 "*) ;;
    *) return 1 ;;
    esac
}

# ---- one step: a library, a number of ranks, a set of cells ----------------------------------------

# Sets `command`. A rank has a core of its own as long as there are enough.
command_of() {
    local library=$1 ranks=$2 cells=$3 bound=1
    [ "$ranks" -le "$cores" ] || bound=0
    local options=(--name "$library")
    case $cells in
    small) options+=(--seconds 0.04 --sizes '8,1K,16K') ;;
    large) options+=(--seconds 0.04 --sizes '256K,1M,16M,64M'
        --ops 'allreduce,allreduce_in_place,broadcast,reduce,allgather,reduce_scatter') ;;
    middle) options+=(--seconds 0.04 --sizes '256K,1M'
        --ops 'allreduce,allreduce_in_place,broadcast,reduce,allgather,reduce_scatter') ;;
    few) options+=(--seconds 0.1 --sizes '8,1K' --ops 'barrier,allreduce') ;;
    esac

    local ours=("$build/bench/bench_collectives" "${options[@]}")
    local launch=("$build/tools/serry" run -n "$ranks")
    local openmpi=(mpirun.openmpi -np "$ranks")
    local mpich=(mpirun.mpich -np "$ranks")
    if [ $bound = 1 ]; then
        launch+=(--bind core)
        openmpi+=(--bind-to core)
        mpich+=(-bind-to core)
    else
        openmpi+=(--oversubscribe --bind-to none --mca mpi_yield_when_idle 1)
    fi
    case $library in
    limit) command=("$build/bench/bench_limits" "${options[@]}") ;;
    serry) command=("${launch[@]}" "${ours[@]}") ;;
    serry_arena) command=("${launch[@]}" "${ours[@]}" --arena) ;;
    serry_threads) command=("${ours[@]}" --threads "$ranks") ;;
    openmpi) command=("${openmpi[@]}" "$build/bench/mpi.openmpi" "${options[@]}") ;;
    openmpi_sm) command=("${openmpi[@]}" --mca coll_sm_priority 100
        "$build/bench/mpi.openmpi" "${options[@]}") ;;
    openmpi_copy) command=("${openmpi[@]}" --mca btl_vader_single_copy_mechanism none
        "$build/bench/mpi.openmpi" "${options[@]}") ;;
    mpich) command=("${mpich[@]}" "$build/bench/mpi.mpich" "${options[@]}") ;;
    esac
}

# "library ranks cells" each, those of one set together, so that what is compared is near in time.
steps=()
add_steps() { # RANKS CELLS LIBRARY...
    local ranks=$1 cells=$2 library
    shift 2
    for library in "$@"; do
        steps+=("$library $ranks $cells")
    done
}
plan() {
    local limit=() openmpi=() variants=() mpich=() ranks
    [ "$cores" -lt 2 ] || limit=(limit)
    if has openmpi; then
        openmpi=(openmpi)
        variants=(openmpi_sm openmpi_copy)
    fi
    ! has mpich || mpich=(mpich)
    add_steps 2 small "${limit[@]}" serry serry_arena serry_threads "${openmpi[@]}" \
        "${variants[@]}" "${mpich[@]}"
    add_steps 2 middle "${variants[@]}"
    add_steps 2 large "${limit[@]}" serry serry_arena serry_threads "${openmpi[@]}" "${mpich[@]}"
    for ranks in $crowds; do
        add_steps "$ranks" few serry serry_threads "${openmpi[@]}" "${mpich[@]}"
    done
}

declare -A broken=() # steps that failed; they are not tried again
serry_failed=0
run_step() { # ROUND STEP
    local library ranks cells command=() rc=0
    read -r library ranks cells <<<"$2"
    [ -z "${broken[$2]:-}" ] || return 0
    command_of "$library" "$ranks" "$cells"
    echo "== round $1: ${command[*]}" >>"$log"
    timeout --foreground -k 5 100 "${command[@]}" >"$piece" 2>>"$log" </dev/null || rc=$?
    if [ $rc -eq 0 ]; then
        sed "s/^/$1,/" "$piece" >>"$out/cells.csv"
        return
    fi
    broken[$2]=1
    notes+=("$library with $ranks ranks failed (exit code $rc, see $log): $cells cells left out")
    case $library in serry*) serry_failed=1 ;; esac
}

# ---- progress ------------------------------------------------------------------------------------

round_seconds=0 # of a round, on average so far
say_progress() { # ROUND WHAT: on a terminal in place, elsewhere once a round
    local left=$((seconds - SECONDS)) rounds='?'
    if [ $round_seconds -gt 0 ]; then
        rounds=$(($1 + (seconds - round_began) / round_seconds - 1))
        [ "$rounds" -ge "$1" ] || rounds=$1
        left=$((round_began + (rounds - $1 + 1) * round_seconds - SECONDS))
    fi
    [ $left -gt 0 ] || left=0
    local text
    text=$(printf 'round %s of %s, %s; about %d min %02d s left' "$1" "$rounds" "$2" \
        $((left / 60)) $((left % 60)))
    if [ -t 2 ]; then
        printf '\r\033[K%s' "$text" >&2
    elif [ "$2" = begins ]; then
        echo "$text" >&2
    fi
}

# ---- conditions ----------------------------------------------------------------------------------

conditions() {
    local cpu commit crowded=''
    cpu=$(lscpu | sed -n 's/^Model name: *//p' | head -n 1)
    commit=$(git -C "$here" rev-parse --short HEAD 2>/dev/null || echo unknown)
    [ -z "$(git -C "$here" status --porcelain 2>/dev/null)" ] || commit="$commit with changes"
    for ranks in 2 $crowds; do
        [ "$ranks" -le "$cores" ] || crowded="$crowded $ranks"
    done
    echo "# serry $("$build/tools/serry" --version | sed 's/[^0-9]*//'), commit $commit, $(date '+%F %H:%M')"
    echo "# ${cpu:-unknown processor}, $cores cores, $(uname -sr), load $(cut -d' ' -f1 /proc/loadavg) before the run"
    echo "#$(has openmpi && mpirun.openmpi --version | sed -n '1s/.*) / Open MPI /p' || true)," \
        "$(has mpich && mpirun.mpich --version | sed -n 's/^ *Version: */MPICH /p' || true)"
    [ -z "$crowded" ] || echo "# OVERSUBSCRIBED, more ranks than cores:$crowded"
}

# Seconds that all processors have worked since the machine started.
busy_seconds() {
    awk -v tick="$(getconf CLK_TCK)" '$1 == "cpu" { print ($2 + $3 + $4 + $7 + $8) / tick }' /proc/stat
}

# Percent of the processors' time that went to other programs: they disturb the measurement.
# Reads the output of `times`, which tells only the shell that runs it.
disturbance() { # BUSY_SECONDS_BEFORE
    awk -v busy="$(busy_seconds)" -v before="$1" -v total="$((SECONDS * $(nproc --all)))" '
        { for (i = 1; i <= 2; i++) { split($i, part, /[ms]/); own += part[1] * 60 + part[2] } }
        END { others = busy - before - own; printf "%.0f", (others > 0 ? others / total * 100 : 0) }'
}

# ---- the run -------------------------------------------------------------------------------------

plan
busy_before=$(busy_seconds)
conditions >"$out/conditions.txt"
cat "$out/conditions.txt"
{
    cat "$out/conditions.txt"
    echo "round,library,operation,ranks,bytes,calls,min_us,median_us,p99_us,back_to_back_us,wrong"
} >"$out/cells.csv"

[ ! -t 2 ] || printf 'memory and start of ranks' >&2
cat "$out/conditions.txt" >"$out/cost.csv"
if ! timeout --foreground -k 5 100 "$build/bench/bench_cost" >>"$out/cost.csv" 2>>"$log"; then
    notes+=("bench_cost failed (see $log): memory and start of ranks are incomplete")
    serry_failed=1
fi

[ ! -t 2 ] || printf '\r\033[Kdeaths of ranks' >&2
sed -n '/^#/p' "$out/cost.csv" >"$out/deaths.csv"
if ! timeout --foreground -k 5 200 "$build/bench/bench_deaths" 1000 >>"$out/deaths.csv" 2>>"$log" ||
    ! timeout --foreground -k 5 200 "$build/bench/bench_deaths" 15 1024 >>"$out/deaths.csv" 2>>"$log"; then
    notes+=("bench_deaths failed (see $log): the times after a death are incomplete")
    serry_failed=1
fi

round=0
rounds_began=$SECONDS
while [ $round -eq 0 ] || [ $((SECONDS + round_seconds)) -le "$seconds" ]; do
    round=$((round + 1))
    round_began=$SECONDS
    say_progress $round begins
    for ((i = 0; i < ${#steps[@]}; i++)); do
        step=${steps[$((round % 2 == 1 ? i : ${#steps[@]} - 1 - i))]}
        say_progress $round "${step% *} ranks"
        run_step $round "$step"
    done
    round_seconds=$(((SECONDS - rounds_began) / round))
done
[ ! -t 2 ] || printf '\r\033[K' >&2

times >"$piece"
disturbed=$(disturbance "$busy_before" <"$piece")
{
    cat "$out/conditions.txt"
    echo "# rounds: $round, in $SECONDS s; other programs worked for $disturbed % of the processors' time"
    for note in ${notes[@]+"${notes[@]}"}; do
        echo "# note: $note"
    done
} >"$out/table.txt"
rm "$out/conditions.txt"
rc=0
LC_ALL=C awk -v cores="$cores" -v ratios="$out/ratios.csv" -f "$here/table.awk" "$out/cells.csv" \
    "$out/cost.csv" "$out/deaths.csv" >>"$out/table.txt" || rc=$?
sed '/^# rounds:/,$!d' "$out/table.txt"
[ $rc -eq 0 ] && [ $serry_failed -eq 0 ]
