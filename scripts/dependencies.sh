#!/usr/bin/env bash
# Install the Debian packages that a job of the Makefile needs and that are missing.
#
#   scripts/dependencies.sh GROUP...      GROUP: build test demo bench clang format
#
# Does nothing, and needs no network, where nothing is missing. Elsewhere than on Debian and its kin
# it only says what is needed, since it cannot tell what is there.
set -euo pipefail

declare -A group=(
    [build]="gcc libc6-dev make cmake pkg-config libhwloc-dev"
    [test]="libcmocka-dev openmpi-bin mpich procps spin util-linux libjemalloc-dev python3-numpy"
    [demo]="gnuplot-nox"
    [bench]="openmpi-bin libopenmpi-dev mpich libmpich-dev libgloo-dev g++ gnuplot-nox valgrind"
    [clang]="clang"
    [format]="clang-format"
)

wanted=()
for name in "$@"; do
    if [ -z "${group[$name]:-}" ]; then
        echo "dependencies.sh: there is no group '$name'; there are: ${!group[*]}" >&2
        exit 2
    fi
    for package in ${group[$name]}; do
        case " ${wanted[*]:-} " in
        *" $package "*) ;;
        *) wanted+=("$package") ;;
        esac
    done
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "This is not a Debian system, so packages are not installed by themselves." \
        "Needed, under their names in Debian: ${wanted[*]}" >&2
    exit 0
fi

missing=()
for package in "${wanted[@]}"; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

by_hand() {
    echo "Install them as root and try again:" >&2
    echo "    apt-get update && apt-get install ${missing[*]}" >&2
    exit 1
}

# With a terminal sudo may ask for a password; without one it would wait for ever.
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "Packages are missing, and this is neither root nor is there sudo: ${missing[*]}" >&2
        by_hand
    fi
    as_root=(sudo)
    [ -t 0 ] || as_root=(sudo -n)
    if ! "${as_root[@]}" true; then
        echo "Packages are missing, and sudo does not let this user install: ${missing[*]}" >&2
        by_hand
    fi
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT

apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq \
        -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@" >>"$log" 2>&1 </dev/null
}
install() {
    apt install -y --no-install-recommends "${missing[@]}"
}

echo "Installing ${missing[*]} (from the network; this may take a minute or two)"
# Package lists that are missing or out of date show as a failure of the first attempt.
if ! install && ! { apt update && install; }; then
    cat "$log" >&2
    echo "These packages could not be installed: ${missing[*]}" >&2
    by_hand
fi
