#!/usr/bin/env bash
# `serry bench`: its files and exit codes, what it says of wrong arguments, what becomes of a worker that
# dies and of workers whose command dies, and that workers sleep between their slices.
#
#   tests/bench.sh CASE SERRY FOLDER      FOLDER has the workers
set -uo pipefail
case=${1:?usage: bench.sh CASE SERRY FOLDER}
serry=${2:?usage: bench.sh CASE SERRY FOLDER}
workers=${3:?usage: bench.sh CASE SERRY FOLDER}
failed=0

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

fail() {
    echo "bench: $*" >&2
    failed=1
}

# count LIBRARY OPERATION RANKS BYTES: slices in the CSV file.
count() {
    awk -F, -v l="$1" -v o="$2" -v r="$3" -v b="$4" \
        '$2 == l && $3 == o && $4 == r && $5 == b { n++ } END { print n + 0 }' "$folder/cells.csv"
}

# Every cell that was asked for has slices of every kind of ranks, with times and right results.
files() {
    "$serry" bench --ranks 2,3 --ops barrier,allreduce --sizes 4K,8 --peers none --seconds 1 \
        --csv "$folder/cells.csv" --plot "$folder/plot.svg" >"$folder/table" ||
        fail "exit code $?"
    cat "$folder/table"
    local ranks library cell
    for ranks in 2 3; do
        for library in serry serry_threads; do
            for cell in 'barrier 0' 'allreduce 8' 'allreduce 4096'; do
                read -r operation bytes <<<"$cell"
                [ "$(count $library "$operation" $ranks "$bytes")" -ge 1 ] ||
                    fail "no slice of $library, $cell, $ranks ranks"
            done
        done
    done
    [ "$(count serry_arena allreduce 2 4096)" -ge 1 ] || fail "no slice of arena memory"
    [ "$(count serry_wrapped allreduce 2 8)" -ge 1 ] || fail "no slice of the wrapped library"
    awk -F, '/^#/ || $1 == "slice" { next }
        NF != 11 || !($7 > 0) || $7 > $8 || $8 > $9 || $6 < 1 || $11 != 0 { print; bad = 1 }
        END { exit bad }' "$folder/cells.csv" || fail "these lines are not right"
    grep -q 'Wrong results: 0' "$folder/table" || fail "the table does not tell of wrong results"
    if command -v gnuplot >/dev/null; then
        grep -q serry_arena "$folder/plot-allreduce.svg" || fail "there is no plot"
    fi
}

# Only the ranks that were asked for.
kinds() {
    "$serry" bench --ranks 2 --ops barrier --peers none --seconds 0.2 --threads \
        --csv "$folder/cells.csv" >/dev/null || fail "--threads: exit code $?"
    [ "$(count serry_threads barrier 2 0)" -ge 1 ] || fail "--threads: no slice"
    [ "$(count serry barrier 2 0)" -eq 0 ] || fail "--threads: slices of processes"
    "$serry" bench --ranks 2 --ops barrier --peers none --seconds 0.2 --procs \
        --csv "$folder/cells.csv" >/dev/null || fail "--procs: exit code $?"
    [ "$(count serry barrier 2 0)" -ge 1 ] || fail "--procs: no slice"
    [ "$(count serry_threads barrier 2 0)" -eq 0 ] || fail "--procs: slices of threads"
}

# refused TEXT ARGUMENT...: exit code 125, and the message has the text.
refused() {
    local text=$1 said code
    shift
    said=$("$serry" bench "$@" 2>&1)
    code=$?
    [ $code -eq 125 ] || fail "$*: exit code $code"
    case $said in
    *"$text"*) ;;
    *) fail "$*: said '$said' rather than '$text'" ;;
    esac
}

wrong() {
    refused "there is no 'allredcue'; there are: barrier,allreduce" --ops barrier,allredcue
    refused "--ops: there is no ''" --ops ''
    refused "there is no 'lam'; there are: openmpi,mpich" --peers lam
    refused "'8,7' is not a list" --sizes 8,7
    refused "is not a list" --sizes 8,,16
    refused "is not a list" --sizes 5000M
    refused "'1' is not a list of up to 8 numbers from 2 to 256" --ranks 1
    refused "is not a list" --ranks 2,257
    refused "'0' is not a number above 0" --seconds 0
    refused "'1s' is not a number" --seconds 1s
    refused "does not end in .csv" --csv cells.txt
    refused "does not end in .svg" --plot plot.png
    refused "give neither for both" --threads --procs
    refused "'barrier' was given" barrier
    refused "cannot write $folder/none/cells.csv" --csv "$folder/none/cells.csv"
}

# A worker that is killed is a note above the table and exit code 1; the others go on.
death() {
    "$serry" bench --ranks 2 --ops barrier --peers none --seconds 3 --csv "$folder/cells.csv" \
        >"$folder/table" 2>&1 &
    local bench=$! victim='' code
    while kill -0 $bench 2>/dev/null && [ -z "$victim" ]; do
        victim=$(pgrep -f "^[^ ]*/bench_serry --socket @serry-bench-$bench-.*--arena" | head -n 1)
        sleep 0.05
    done
    [ -n "$victim" ] && kill -9 "$victim"
    wait $bench
    code=$?
    cat "$folder/table"
    [ $code -eq 1 ] || fail "exit code $code"
    grep -q '# note: serry_arena with 2 ranks' "$folder/table" || fail "there is no note"
    [ "$(count serry barrier 2 0)" -ge 1 ] || fail "the others did not go on"
}

# When the command is killed, its workers end by themselves.
orphans() {
    "$serry" bench --ranks 2 --ops barrier --peers none --seconds 100 >"$folder/table" 2>&1 &
    local bench=$!
    until pgrep -f "/bench_serry --socket @serry-bench-$bench-" >/dev/null; do
        kill -0 $bench 2>/dev/null || break
        sleep 0.05
    done
    kill -9 $bench || fail "it has ended before it was killed: $(cat "$folder/table")"
    wait $bench
    while pgrep -f "/bench_serry --socket @serry-bench-$bench-" >/dev/null; do
        sleep 0.05 # the watchdog is ctest's
    done
}

# ticks PID: processor time of a process and its threads.
ticks() {
    sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'
}

sleep_between() {
    coproc worker { exec "$workers/bench_serry" --threads 2; }
    local pid=$worker_PID line before spent
    read -r line <&"${worker[0]}"
    case $line in 'has barrier '*) ;; *) fail "said '$line'" ;; esac
    echo "allreduce 1024 0.1 1" >&"${worker[1]}"
    read -r line <&"${worker[0]}"
    case $line in 'ok '*' 0') ;; *) fail "said '$line'" ;; esac
    before=$(ticks "$pid")
    sleep 1
    spent=$(($(ticks "$pid") - before))
    [ $spent -le 5 ] || fail "used $spent ticks of processor time while it had nothing to do"
    echo "allreduce 7 0.1 1" >&"${worker[1]}"
    read -r line <&"${worker[0]}"
    case $line in 'no: '*) ;; *) fail "said '$line' to an order that it cannot carry out" ;; esac
    eval "exec ${worker[1]}>&-"
    wait "$pid" || fail "the worker's exit code is $?"
}

# Each call takes some, and an allreduce more than a barrier.
instructions() {
    command -v valgrind >/dev/null || exit 77
    local counted
    counted=$("$workers/bench_instructions") || fail "exit code $?"
    echo "$counted"
    awk -F, 'NR > 1 { n[NR] = $2 } END { exit !(NR == 4 && n[2] > 0 && n[2] < n[3] && n[2] < n[4]) }' \
        <<<"$counted" || fail "these numbers are not right"
}

case $case in
files | kinds | wrong | death | orphans | sleep_between | instructions) $case ;;
*) fail "there is no case '$case'" ;;
esac
exit $failed
