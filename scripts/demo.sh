#!/bin/sh
# demo.sh - the whole demonstration: train with process ranks, train again with thread ranks, show
# that both end with the same bits, and that sums which overlap with the computation change none; train
# once more and kill a rank in the middle; draw both curves.
#
#   scripts/demo.sh BUILD
#
# BUILD is the folder that serry was built in. Results go to ./demo-output, or to the folder that
# SERRY_DEMO_OUT names.
set -eu

ranks=4
short=300 # steps of the training with --overlap, and of the one that it is compared with
victim=2
kill_step=900
absence=3 # seconds until the replacement comes, so that the picture shows both moments

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

# compare NAME HASH NAME HASH: fails unless both are there and equal.
compare()
{
    printf 'parameters %-24s %s\n' "$1" "$2" "$3" "$4"
    if [ -z "$2" ] || [ "$2" != "$4" ]; then
        fail "they differ, and they must not: serry adds in one order, whoever and whenever it is"
    fi
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
rm -rf "$out/processes" "$out/threads" "$out/short" "$out/overlap" "$out/killed" "$out/curve.svg" "$out/curve.png" \
    "$out/killed.svg" "$out/killed.png"

headline "1 of 6  $ranks process ranks train together: serry run -n $ranks train"
"$serry" run -n "$ranks" "$train" --out "$out/processes" || fail "the training failed"

headline "2 of 6  the same with $ranks thread ranks: train --threads $ranks"
"$train" --threads "$ranks" --out "$out/threads" || fail "the training with thread ranks failed"

headline "3 of 6  are they the same?"
compare "of the process ranks" "$(hash_of "$out/processes/result.txt")" \
    "of the thread ranks" "$(hash_of "$out/threads/result.txt")"
echo "bit-identical: all parameters of the two runs"

headline "4 of 6  $short steps, and again with sums while the gradient is computed: train --overlap"
"$serry" run -n "$ranks" "$train" --quiet --steps "$short" --out "$out/short" >/dev/null ||
    fail "the short training failed"
"$serry" run -n "$ranks" "$train" --quiet --steps "$short" --overlap --out "$out/overlap" \
    >/dev/null || fail "the training with --overlap failed"
compare "without --overlap" "$(hash_of "$out/short/result.txt")" \
    "with --overlap" "$(hash_of "$out/overlap/result.txt")"
echo "bit-identical: all parameters of the two runs"

headline "5 of 6  kill -9 for rank $victim in step $kill_step, a replacement $absence s later: serry run --respawn 1"
# The replacement is the same command line; only SERRY_ENTRY says what it is.
"$serry" run -n "$ranks" --respawn 1 sh -c \
    '[ "${SERRY_ENTRY:-}" != replacement ] || sleep "$1"; shift; exec "$@"' sh "$absence" \
    "$train" --out "$out/killed" --kill "$victim:$kill_step" || fail "the training did not survive"
for event in died joined; do
    grep -q ",$event,$victim\$" "$out/killed/events.csv" || fail "no rank has $event: see $out/killed"
done

headline "6 of 6  the loss curves"
seconds=$(sed -n 's/^time *\([0-9.]*\) s.*/\1/p' "$out/processes/result.txt")
gnuplot -c "$plot" "$out/processes/curve.csv" "$out/curve" \
    "A language model trained by $ranks ranks" \
    "$ranks process ranks on $(nproc) cores, $seconds s" "" || fail "gnuplot could not draw the curve"
gnuplot -c "$plot" "$out/killed/curve.csv" "$out/killed" "The same, with a death in the middle" \
    "rank $victim of $ranks killed with -9 in step $kill_step, and replaced" "$out/killed/events.csv" ||
    fail "gnuplot could not draw the second curve"
echo "pictures   $out/curve.svg and $out/killed.svg (and .png)"
echo "numbers    $out/processes/curve.csv"
echo "sample     $out/processes/sample.txt"
