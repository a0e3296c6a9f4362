#!/usr/bin/env bash
# `train --overlap`, which sums a part of the gradient while the rest is computed, ends with the same
# bits as without: with process ranks, with thread ranks, with fewer windows than ranks, with several
# rounds of windows in a step, after a rank was killed in the middle of a step; and it takes in a
# replacement.
#
#   tests/train_overlap.sh TRAIN SERRY TEXT
set -uo pipefail
train=${1:?usage: train_overlap.sh TRAIN SERRY TEXT}
serry=${2:?usage: train_overlap.sh TRAIN SERRY TEXT}
text=${3:?usage: train_overlap.sh TRAIN SERRY TEXT}
options=(--steps 30 --hidden 40)
killed=12 # in this step
failed=0

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export SERRY_TIMEOUT_MS=60000

fail() {
    echo "train_overlap: $*" >&2
    failed=1
}

# hash_of COMMAND...: the hash of the parameters that it prints at the end.
hash_of() {
    "$@" --quiet "$text" | sed -n 's/^parameters *\(0x[0-9a-f]*\).*/\1/p'
}

# same WHAT COMMAND...: with and without --overlap.
same() {
    local what=$1 without with
    shift
    without=$(hash_of "$@")
    with=$(hash_of "$@" --overlap)
    echo "$what: $without without, $with with --overlap"
    [ -n "$without" ] || fail "$what: the training without --overlap failed"
    [ "$without" = "$with" ] || fail "$what: other bits with --overlap"
}

same "4 process ranks" "$serry" run -n 4 "$train" "${options[@]}"
same "3 thread ranks" "$train" --threads 3 "${options[@]}"
same "caller's progress" env SERRY_PROGRESS=caller "$train" --threads 3 "${options[@]}"
same "4 ranks, 3 windows" "$serry" run -n 4 "$train" "${options[@]}" --batch 3
same "2 ranks, 3 rounds" "$serry" run -n 2 "$train" "${options[@]}" --batch 330
same "a rank killed" "$serry" run -n 4 --tolerate 1 "$train" "${options[@]}" --kill "2:$killed"

# When it comes depends on time, so what the bits are does, too; the ranks compare theirs. It may find
# that all is over only if the training is too short for it.
if ! "$serry" run -n 4 --respawn 1 "$train" --overlap --steps 1500 --hidden 40 --out "$folder/run" \
    --kill "2:$killed" --quiet "$text" >/dev/null; then
    fail "a replacement: the training failed"
fi
for event in died joined compared; do
    grep -q ",$event," "$folder/run/events.csv" || fail "a replacement: no rank has $event"
done
exit "$failed"
