#!/usr/bin/env bash
# Configure and build one preset of CMakePresets.json into build/PRESET.
#
#   scripts/build.sh PRESET [TARGET...]   no target: everything
#
# Prints warnings and errors as they come, one line at the end, and on a terminal how far it is.
# SERRY_WERROR=ON in the environment makes warnings errors in the release build, too.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:?usage: scripts/build.sh PRESET [TARGET...]}
shift
unset MAKEFLAGS MFLAGS MAKELEVEL DESTDIR # a make that called this is none of cmake's business

build=build/$preset
log=$build/configure.log
options=()
[ "$preset" != release ] || options=("-DSERRY_WERROR=${SERRY_WERROR:-OFF}")
mkdir -p "$build"
if ! cmake --preset "$preset" "${options[@]}" >"$log" 2>&1; then
    cat "$log" >&2
    echo "Configuring $build failed; 'make clean' removes what an earlier tree left there" >&2
    exit 1
fi
grep -A 3 '^CMake .*Warning' "$log" >&2 || true

# Shows "[ 42%] Building ..." in place on a terminal and drops it elsewhere; passes on the rest.
progress() {
    local line columns=$((${COLUMNS:-80} - 1)) clear=''
    [ ! -t 1 ] || clear=$'\r\033[K'
    while IFS= read -r line; do
        case $line in
        '['*'%]'*) [ -z "$clear" ] || printf '%s%s' "$clear" "${line:0:columns}" ;;
        'Consolidate compiler'* | 'Scanning dependencies'*) ;;
        *) printf '%s%s\n' "$clear" "$line" ;;
        esac
    done
    printf '%s' "$clear"
}

targets=()
[ $# -eq 0 ] || targets=(--target "$@")
if ! cmake --build "$build" --parallel "${JOBS:-$(nproc)}" "${targets[@]}" 2>&1 | progress; then
    echo "Building $build failed" >&2
    exit 1
fi
echo "Built $build in $SECONDS s"
