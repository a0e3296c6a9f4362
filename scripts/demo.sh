#!/bin/sh
# demo.sh - the whole demonstration: train with process ranks, train again with thread ranks, show
# that both end with the same bits, and draw the loss curve.
#
#   scripts/demo.sh BUILD
#
# BUILD is the folder that serry was built in. Results go to ./demo-output, or to the folder that
# SERRY_DEMO_OUT names.
set -eu

ranks=4

fail()
{
    echo "demo: $*" >&2
    exit 1
}

headline()
{
    printf '\n== %s\n\n' "$*"
}

# The hash in a result.txt.
hash_of()
{
    sed -n 's/^parameters *\(0x[0-9a-f]*\).*/\1/p' "$1"
}

[ $# -eq 1 ] || fail "usage: scripts/demo.sh BUILD (the folder that serry was built in)"
serry=$1/tools/serry
train=$1/examples/train
plot=$(dirname "$0")/plot_curve.gp
out=${SERRY_DEMO_OUT:-demo-output}
for program in "$serry" "$train"; do
    [ -x "$program" ] || fail "$program is not there; build it first: cmake --build $1"
done
command -v gnuplot >/dev/null || fail "gnuplot is missing; install it: apt-get install gnuplot-nox"
mkdir -p "$out" || fail "cannot make the folder $out; name another one in SERRY_DEMO_OUT"
rm -rf "$out/processes" "$out/threads" "$out/curve.svg" "$out/curve.png"

headline "1 of 4  $ranks process ranks train together: serry run -n $ranks train"
"$serry" run -n "$ranks" "$train" --out "$out/processes" || fail "the training failed"

headline "2 of 4  the same with $ranks thread ranks: train --threads $ranks"
"$train" --threads "$ranks" --out "$out/threads" || fail "the training with thread ranks failed"

headline "3 of 4  are they the same?"
processes=$(hash_of "$out/processes/result.txt")
threads=$(hash_of "$out/threads/result.txt")
echo "parameters of the process ranks  $processes"
echo "parameters of the thread ranks   $threads"
if [ -z "$processes" ] || [ "$processes" != "$threads" ]; then
    fail "they differ, and they must not: serry adds in one order for both kinds of ranks"
fi
echo "bit-identical: all parameters of the two runs"

headline "4 of 4  the loss curve"
seconds=$(sed -n 's/^time *\([0-9.]*\) s.*/\1/p' "$out/processes/result.txt")
gnuplot -c "$plot" "$out/processes/curve.csv" "$out/curve" \
    "A language model trained by $ranks ranks" \
    "$ranks process ranks on $(nproc) cores, $seconds s" || fail "gnuplot could not draw the curve"
echo "picture    $out/curve.svg and $out/curve.png"
echo "numbers    $out/processes/curve.csv"
echo "sample     $out/processes/sample.txt"
