#!/usr/bin/env bash
# Programs that know nothing of the heap, under `serry run --heap`.
#
#   tests/heap.sh CASE SERRY PROGRAM LIBRARY      see below, and heap_ranks.c
set -euo pipefail
what=$1 serry=$2 program=$3 library=$4
here=$(cd "$(dirname "$0")" && pwd)
heap=$(dirname "$library")/libserry_heap.so

fail() {
    echo "heap.sh: $*" >&2
    exit 1
}
python=/usr/bin/python3
if [ "$what" = numpy ] && ! $python -c 'import numpy' 2>/dev/null; then
    echo "skipped: there is no NumPy for $python (Debian: python3-numpy)"
    exit 77
fi

case $what in
direct | fork | kills)
    "$serry" run -n 3 --heap --timeout 100 "$program" "$what"
    ;;
death)
    "$serry" run -n 3 --heap --respawn 1 --timeout 100 "$program" death
    ;;
replaced)
    "$serry" run -n 3 --heap --respawn 1 --timeout 100 "$program" replaced
    ;;
spare)
    "$serry" run -n 3 --heap --spares 1 --timeout 100 "$program" replaced
    ;;
middle)
    "$serry" run -n 3 --heap --respawn 12 --timeout 140 "$program" middle
    ;;
copies) # without --heap
    "$serry" run -n 3 --timeout 100 "$program" copies
    ;;
mixed) # rank 1 has no heap
    "$serry" run -n 3 --heap --timeout 100 sh -c \
        '[ $RANK != 1 ] || unset SERRY_HEAP; exec "$0" mixed' "$program"
    ;;
plain) # preloaded by hand: jemalloc, and nothing else
    said=$(LD_PRELOAD="libjemalloc.so.2 $heap" $python -c '
x = bytearray(10**7)
print(len(x), "memfd" in open("/proc/self/maps").read())' 2>&1)
    [ "$said" = "10000000 False" ] || fail "preloaded by hand it said: $said"
    ;;
shell) # what programs before it leave in the heap is given back
    "$serry" run -n 1 --heap --timeout 100 sh -c '
        eat="import os; x = bytearray(1 << 27); x[::4096] = b\"x\" * (1 << 15); os.kill(os.getpid(), 9)"
        '"$python"' -c "$eat" || :
        '"$python"' -c "
import os
x = bytearray(10**6)
fd = int(os.environ[\"SERRY_HEAP\"].split(\":\")[1])
assert os.fstat(fd).st_blocks * 512 < 1 << 26, os.fstat(fd).st_blocks"'
    ;;
numpy)
    "$serry" run -n 2 --heap --timeout 140 $python "$here/heap.py" "$library"
    ;;
*)
    fail "there is no case $what"
    ;;
esac
