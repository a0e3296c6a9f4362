#!/usr/bin/env bash
# Check the models with spin: each holds, and each of its mutations is caught.
#
#   docs/model/check.sh quick|all [MODEL]     MODEL: uniform levels steps blocks spread revoke meeting
#
# quick takes seconds; all adds the larger forms of README.md (up to 2 GiB, a quarter of an hour). Needs spin and a C
# compiler ($CC, else cc), and exits with 77 where one is missing.
set -euo pipefail
set=${1:?usage: check.sh quick|all [MODEL]}
only=${2:-}
here=$(cd "$(dirname "$0")" && pwd)
compiler=${CC:-cc}
for tool in spin "$compiler"; do
    if ! command -v "$tool" >/dev/null; then
        echo "skipped: there is no $tool"
        exit 77
    fi
done

# A hang that a further death would end shows only where no further death may come: so each form is
# searched with fewer deaths too.
#
# set, model, what must come of it (holds, assertion, hang), flags
forms() {
    cat <<'END'
quick uniform assertion -DDEATHS=1 -DNOSEAL_CHECK
quick uniform assertion -DDEATHS=1 -DNO_RECHECK
quick uniform holds -DOPS=2
quick levels assertion -DOPS=2 -DDEATHS=0 -DTELL_EARLY
quick levels assertion -DOPS=2 -DDEATHS=0 -DTELL_ABSENT
quick levels assertion -DOPS=2 -DDEATHS=0 -DTELL_FIRST
quick levels hang -DOPS=2 -DDEATHS=0 -DWAIT_FOR_DIGEST
quick levels assertion -DDEATHS=0 -DONE_BUFFER
quick levels assertion -DDEATHS=0 -DNO_RECHECK
quick levels holds -DDEATHS=0
quick levels holds -DOPS=2
quick steps assertion -DPLAIN_STORE
quick steps assertion -DEXCLUDE -DCHUNKS=2 -DNO_RECHECK
quick steps assertion -DNO_DROP
quick steps assertion -DCHUNKS=2 -DONE_BUFFER
quick steps holds -DDEATHS=0
quick steps holds
quick steps holds -DEXCLUDE -DDEATHS=2
quick steps assertion -DDIRECT -DPLAIN_STORE
quick steps assertion -DDIRECT -DEXCLUDE -DNO_RECHECK
quick steps assertion -DDIRECT -DNO_NEW_SLICES
quick steps assertion -DDIRECT -DEARLY_COPY
quick steps assertion -DDIRECT -DSCRIBBLE
quick steps holds -DDIRECT -DDEATHS=0
quick steps holds -DDIRECT
quick steps holds -DDIRECT -DDEATHS=2
quick steps holds -DDIRECT -DEXCLUDE -DCHUNKS=2
quick blocks assertion -DSTALLS=0 -DLATE_START
quick blocks assertion -DN=2 -DCHUNKS=3 -DEARLY_START
quick blocks assertion -DSTALLS=0 -DEARLY_COPY
quick blocks assertion -DONE_BUFFER
quick blocks assertion -DDEATHS=0 -DNO_RECHECK
quick blocks holds -DDEATHS=0
quick blocks holds
quick blocks holds -DN=2 -DCHUNKS=3 -DDEATHS=2
quick spread assertion -DSTALLS=0 -DNO_WAIT
quick spread assertion -DKILLS=0 -DNO_LOOK
quick spread assertion -DKILLS=0 -DLATE_LOOK
quick spread assertion -DKILLS=0 -DNO_TARGET
quick spread assertion -DREVOKES=1 -DKILLS=0 -DSTALLS=0 -DNO_LEAVE
quick spread assertion -DSTALLS=0 -DNO_BUFFER
quick spread assertion -DSTALLS=0 -DONE_BUFFER
quick spread assertion -DN=3 -DPIECES=1 -DSTALLS=0 -DNO_STEP
quick spread holds -DSTALLS=0
quick spread holds -DKILLS=0
quick spread holds
quick spread holds -DREVOKES=1 -DSTALLS=0
quick revoke hang -DDEATHS=0 -DNO_SECOND_LOOK
quick revoke hang -DDEATHS=0 -DNO_CLEAR
quick revoke hang -DDEATHS=0 -DNO_TAKE_BACK
quick revoke assertion -DONE_ROW
quick revoke assertion -DFLAG_STOPS_CONTROL
quick revoke holds -DDEATHS=0
quick revoke holds -DN=2 -DOPS=2 -DAGREES=2 -DDEATHS=2
quick meeting assertion -DDEATHS=0 -DNO_PASSED
quick meeting assertion -DN=2 -DREPORT -DGIVERS
quick meeting assertion -DSTEPS=1 -DDEATHS=0 -DNO_DECIDED
quick meeting assertion -DN=2 -DDEATHS=0 -DSTALLS=1 -DNO_LAST_LOOK
quick meeting assertion -DOPS=1 -DSTEPS=1 -DWAIT -DDROPPED_OUT
quick meeting assertion -DN=2 -DNO_RESTART
quick meeting hang -DN=2 -DNO_SETTLE
quick meeting hang -DN=2 -DDEATHS=0 -DLEAVES=1 -DNO_SEAL_MISSING
quick meeting hang -DN=2 -DNO_SEAL_DEAD
quick meeting hang -DN=2 -DLEAVES=1 -DINVITE_FIRST
quick meeting assertion -DN=2 -DDEATHS=0 -DCALLS=1 -DSTEPS=1 -DREPORT -DCOUNT_LATE
quick meeting hang -DN=2 -DDEATHS=0 -DAGREE -DAGREE_BLIND
quick meeting hang -DN=2 -DDEATHS=0 -DPART -DSTAY
quick meeting hang -DDEATHS=0 -DPART -DFINISH_TWICE
quick meeting assertion -DN=2 -DDEATHS=0 -DSTALLS=1 -DPART -DSTALE
quick meeting assertion -DN=2 -DDEATHS=0 -DSTALLS=1 -DPART -DLEAVE_UNSAID
quick meeting holds -DDEATHS=0
quick meeting holds -DDEATHS=0 -DAGREE
quick meeting holds -DN=2 -DDEATHS=0 -DLEAVES=1
quick meeting holds -DN=2 -DDEATHS=0 -DCALLS=1 -DSTEPS=1 -DREPORT
quick meeting holds -DN=2 -DDEATHS=0 -DSTALLS=1
quick meeting holds -DN=2
quick meeting holds -DN=2 -DSTEPS=1 -DREPORT
quick meeting holds -DN=2 -DAGREE
quick meeting holds -DDEATHS=0 -DPART
quick meeting holds -DDEATHS=0 -DPART -DAGREE
quick meeting holds -DN=2 -DPART
all uniform holds -DSTALLS=2
all levels holds
all levels holds -DDEATHS=0 -DNO_TELLERS_LOOK
all levels holds -DN=4 -DOPS=1 -DDEATHS=0
all steps holds -DEXCLUDE -DCHUNKS=3
all steps holds -DEXCLUDE -DCHUNKS=3 -DDEATHS=2
all steps holds -DDIRECT -DEXCLUDE -DCHUNKS=3 -DDEATHS=2
all blocks holds -DCHUNKS=3 -DDEATHS=2
all spread holds -DN=3 -DPIECES=1 -DSTALLS=0
all spread holds -DN=3 -DPIECES=1 -DKILLS=0
all spread holds -DREVOKES=1
all revoke holds -DAGREES=2 -DDEATHS=0
all revoke holds
all meeting hang -DSTEPS=1 -DPART -DSTAY_SAID
all meeting holds -DN=2 -DDEATHS=0 -DSTALLS=1 -DPART
all meeting holds -DSTEPS=1 -DPART
all meeting holds -DN=2 -DSTAGED -DWAIT
all meeting holds -DN=2 -DLEAVES=1
all meeting holds -DN=2 -DCALLS=1 -DSTEPS=1 -DREPORT
all meeting holds -DN=2 -DSTALLS=1
all meeting holds -DN=2 -DSTALLS=1 -DSTEPS=1 -DREPORT
all meeting holds -DN=2 -DDEATHS=2
all meeting holds
all meeting holds -DSTEPS=1 -DREPORT
all meeting holds -DSTEPS=1 -DAGREE
all meeting holds -DOPS=1 -DSTEPS=1 -DWAIT
all meeting holds -DOPS=1 -DSTAGED
END
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# What came of it: holds, assertion, hang, or something that is no answer.
outcome() {
    if grep -q "max search depth too small" found; then
        echo "search too deep"
    elif grep -q "assertion violated" found; then
        echo assertion
    elif grep -q "invalid end state" found && grep -q "errors: 1" found; then
        echo hang
    elif grep -q "errors: 0" found; then
        echo holds
    else
        echo "no answer"
    fi
}

checked=0 wrong=0
while read -r which model expected flags; do
    [ "$which" = quick ] || [ "$set" = all ] || continue
    [ -z "$only" ] || [ "$model" = "$only" ] || continue
    case $which-$expected in # most forms are searched before they would be compiled better
    all-*) effort='-O1 -DCOLLAPSE' ;;
    quick-holds) effort=-Og ;;
    *) effort=-O0 ;;
    esac
    checked=$((checked + 1))
    cp "$here/$model.pml" .
    # shellcheck disable=SC2086
    if ! spin -a $flags "$model.pml" >said 2>&1 ||
        ! "$compiler" -w -DSAFETY $effort -o pan pan.c >>said 2>&1; then
        cat said
        exit 1
    fi
    ./pan -m500000 -w22 >found 2>&1 || true
    got=$(outcome)
    states=$(awk '/states, stored/ { print $1 }' found)
    printf '%-8s %-9s %10s states  %s\n' "$model" "$got" "${states:-?}" "$flags"
    if [ "$got" != "$expected" ]; then
        echo "    expected: $expected"
        grep -E "^pan|errors" found || true
        wrong=$((wrong + 1))
    fi
done < <(forms)
if [ "$checked" -eq 0 ]; then
    echo "there is no model '$only'" >&2
    exit 2
fi
[ "$wrong" -eq 0 ]
