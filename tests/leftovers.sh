#!/usr/bin/env bash
# Nothing of ours may outlive the tests: no file in /dev/shm, no process.
#
#   tests/leftovers.sh before|after BUILD_DIR
#
# `before` notes what is there already, `after` fails if there is anything more. Ours is a file with
# "serry" in its name; a process whose program lies in the build directory, or that was started by
# one of its tests, launchers and shells included: ctest gives each SERRY_TEST_TREE=BUILD_DIR.
set -euo pipefail
when=${1:?usage: leftovers.sh before|after BUILD_DIR}
tree=$(cd "${2:?usage: leftovers.sh before|after BUILD_DIR}" && pwd)
snapshot=$tree/leftovers.before
grace_s=5 # what was killed a moment ago may still be going

# One line each: "file NAME" or "process PID START", START in ticks since boot, as PIDs come again.
list() {
    local pid stat
    find /dev/shm -maxdepth 1 -name '*serry*' -printf 'file %f\n' 2>/dev/null || true
    {
        find /proc -maxdepth 2 -path '/proc/[0-9]*/exe' -lname "$tree/*" -printf '%h\n' || true
        grep -lzxF "SERRY_TEST_TREE=$tree" /proc/[0-9]*/environ || true
    } 2>/dev/null | cut -d / -f 3 | sort -u | while read -r pid; do
        stat=$(cat "/proc/$pid/stat" 2>/dev/null) || continue
        # shellcheck disable=SC2086
        set -- ${stat##*) }
        [ "$1" = Z ] || echo "process $pid ${20}"
    done
}

case $when in
before)
    list | sort >"$snapshot"
    ;;
after)
    for ((tries = grace_s * 5; tries >= 0; tries--)); do
        left=$(comm -13 "$snapshot" <(list | sort))
        [ -n "$left" ] || exit 0
        sleep 0.2
    done
    echo "Left behind by the tests:"
    while read -r what name _; do
        case $what in
        file) ls -l "/dev/shm/$name" || true ;;
        process) ps -o pid=,ppid=,stat=,etime=,args= -p "$name" || true ;;
        esac
    done <<<"$left"
    exit 1
    ;;
*)
    echo "leftovers.sh: '$when' is neither before nor after" >&2
    exit 2
    ;;
esac
