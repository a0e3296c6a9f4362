#!/usr/bin/env bash
# Ranks find each other under every launcher, and two jobs at once do not meet.
#
#   tests/launchers.sh HELLO SERRY
#
# HELLO is tests/hello.c, SERRY the command. A launcher that is not installed is skipped and named;
# plain variables need none, so there is always something to test.
# shellcheck disable=SC2317 # the launchers are called through try
set -uo pipefail
hello=${1:?usage: launchers.sh HELLO SERRY}
serry=${2:?usage: launchers.sh HELLO SERRY}
ranks=4
failed=0

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Whatever started this script is not what is tested; and a job that fails to meet ends soon.
unset SERRY_RANK SERRY_SIZE SERRY_JOB RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR \
    MASTER_PORT TORCHELASTIC_RUN_ID TORCHELASTIC_RESTART_COUNT
for variable in $(compgen -e | grep -E '^(OMPI|PMIX|PMI|MPI|HYDI|SLURM)_'); do
    unset "$variable"
done
export SERRY_TIMEOUT_MS=20000

# ---- launchers: each starts one job of so many ranks, which runs HELLO with the base $1 --------

serry_run() {
    "$serry" run -n "$ranks" "$hello" "$1"
}

wait_for() {
    local pid code=0
    for pid; do
        wait "$pid" || code=$?
    done
    return "$code"
}

plain_variables() {
    local rank pids=()
    for ((rank = 0; rank < ranks; rank++)); do
        SERRY_RANK=$rank SERRY_SIZE=$ranks SERRY_JOB=launchers-$$-$1 "$hello" "$1" &
        pids+=($!)
    done
    wait_for "${pids[@]}"
}

torchrun_variables() {
    local rank pids=()
    for ((rank = 0; rank < ranks; rank++)); do
        RANK=$rank WORLD_SIZE=$ranks LOCAL_RANK=$rank LOCAL_WORLD_SIZE=$ranks \
            MASTER_ADDR=127.0.0.1 MASTER_PORT=$((29500 + $1)) TORCHELASTIC_RUN_ID=launchers-$$ \
            "$hello" "$1" &
        pids+=($!)
    done
    wait_for "${pids[@]}"
}

open_mpi() {
    local root=()
    [ "$(id -u)" != 0 ] || root=(--allow-run-as-root)
    "$openmpi" "${root[@]}" --oversubscribe -np "$ranks" "$hello" "$1"
}

mpich() {
    "$hydra" -np "$ranks" "$hello" "$1"
}

# The ranks are not children of the launcher here: a shell stands between.
mpich_by_script() {
    # shellcheck disable=SC2016
    "$hydra" -np "$ranks" sh -c '"$0" "$1"; exit $?' "$hello" "$1"
}

# The first of the commands $2... whose version says $1.
find_launcher() {
    local word=$1 command
    shift
    for command; do
        if "$command" --version 2>&1 | grep -q "$word"; then
            echo "$command"
            return
        fi
    done
}

# ---- one job, then two at once -----------------------------------------------------------------

# check NAME BASE CODE: what the job of this base has left in the folder.
check() {
    local name=$1 base=$2 code=$3 rank
    for ((rank = 0; rank < ranks; rank++)); do
        echo "rank $rank of $ranks sum $((ranks * base + ranks * (ranks - 1) / 2))"
    done >"$folder/expected"
    if [ "$code" = 0 ] && sort "$folder/out$base" | cmp -s - "$folder/expected"; then
        return
    fi
    echo "FAILED: $name, base $base, exit code $code; expected"
    sed 's/^/    /' "$folder/expected"
    echo "  but the output was"
    sed 's/^/    /' "$folder/out$base" "$folder/err$base"
    failed=1
}

# try NAME FUNCTION
try() {
    local name=$1 start=$2 pids=() base code
    $start 0 >"$folder/out0" 2>"$folder/err0"
    check "$name" 0 $?
    for base in 1 2; do
        $start $base >"$folder/out$base" 2>"$folder/err$base" &
        pids+=($!)
    done
    for base in 1 2; do
        wait "${pids[base - 1]}"
        code=$?
        check "$name, two jobs at once" $base $code
    done
    echo "tested: $name"
}

skip() {
    echo "skipped: $1 is not installed"
}

openmpi=$(find_launcher 'Open MPI\|OpenRTE\|open-mpi' mpirun.openmpi mpirun mpiexec)
hydra=$(find_launcher HYDRA mpirun.mpich mpiexec.hydra mpirun mpiexec)

try "serry run" serry_run
try "plain variables" plain_variables
try "torchrun's variables" torchrun_variables
if [ -n "$openmpi" ]; then try "Open MPI" open_mpi; else skip "Open MPI"; fi
if [ -n "$hydra" ]; then
    try "MPICH" mpich
    try "MPICH, through a script" mpich_by_script
else
    skip "MPICH"
fi
exit $failed
