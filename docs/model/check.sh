#!/usr/bin/env bash
# Check the models with spin: each holds, and each of its mutations is caught.
#
#   docs/model/check.sh quick|all [MODEL]     MODEL: uniform steps revoke regroup
#
# quick takes seconds; all adds the larger forms of README.md (up to 3 GiB, half an hour). Needs spin and a C
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
# set, model, what must come of it (holds, assertion, hang), how it is searched, flags. `exact` keeps
# every state; `bits` keeps a few bits of each, so it may overlook some.
forms() {
    cat <<'END'
quick uniform assertion exact -DDEATHS=1 -DNOSEAL_CHECK
quick uniform assertion exact -DDEATHS=1 -DNO_RECHECK
quick uniform holds exact -DOPS=2
quick steps assertion exact -DPLAIN_STORE
quick steps assertion exact -DEXCLUDE -DCHUNKS=2 -DNO_RECHECK
quick steps assertion exact -DNO_DROP
quick steps assertion exact -DCHUNKS=2 -DONE_BUFFER
quick steps holds exact -DDEATHS=0
quick steps holds exact
quick steps holds exact -DEXCLUDE -DDEATHS=2
quick steps assertion exact -DDIRECT -DPLAIN_STORE
quick steps assertion exact -DDIRECT -DEXCLUDE -DNO_RECHECK
quick steps assertion exact -DDIRECT -DNO_NEW_SLICES
quick steps assertion exact -DDIRECT -DEARLY_COPY
quick steps assertion exact -DDIRECT -DSCRIBBLE
quick steps holds exact -DDIRECT -DDEATHS=0
quick steps holds exact -DDIRECT
quick steps holds exact -DDIRECT -DDEATHS=2
quick steps holds exact -DDIRECT -DEXCLUDE -DCHUNKS=2
quick revoke hang exact -DDEATHS=0 -DNO_SECOND_LOOK
quick revoke hang exact -DDEATHS=0 -DNO_CLEAR
quick revoke hang exact -DDEATHS=0 -DNO_TAKE_BACK
quick revoke assertion exact -DONE_ROW
quick revoke assertion exact -DFLAG_STOPS_CONTROL
quick revoke holds exact -DDEATHS=0
quick revoke holds exact -DN=2 -DOPS=2 -DAGREES=2 -DDEATHS=2
quick regroup assertion exact -DOPS=1 -DLEAST
quick regroup assertion exact -DOPS=1 -DSTEPS=1 -DLEAST
quick regroup assertion exact -DREPORT -DGIVERS
quick regroup assertion exact -DSTEPS=1 -DDEATHS=0 -DNO_FAREWELL
quick regroup assertion exact -DNO_RESTART
quick regroup hang exact -DNO_SETTLE
quick regroup hang exact -DNO_SEAL_DEAD
quick regroup holds exact -DDEATHS=0
quick regroup holds exact -DN=2
quick regroup holds exact -DN=2 -DDEATHS=2
quick regroup holds exact -DN=2 -DDEATHS=2 -DSTEPS=1 -DREPORT
all uniform holds exact -DSTALLS=2
all steps holds exact -DEXCLUDE -DCHUNKS=3
all steps holds exact -DEXCLUDE -DCHUNKS=3 -DDEATHS=2
all steps holds exact -DDIRECT -DEXCLUDE -DCHUNKS=3 -DDEATHS=2
all revoke holds exact -DAGREES=2 -DDEATHS=0
all revoke holds exact
all regroup holds exact
all regroup holds exact -DSTEPS=1 -DREPORT
all regroup holds exact -DN=2 -DSTALLS=1
all regroup holds exact -DN=2 -DSTALLS=1 -DSTEPS=1 -DREPORT
all regroup holds exact -DN=2 -DSTALLS=1 -DDEATHS=2
all regroup holds bits -DSTALLS=1 -DDEATHS=0
all regroup holds bits -DDEATHS=2
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
while read -r which model expected search flags; do
    [ "$which" = quick ] || [ "$set" = all ] || continue
    [ -z "$only" ] || [ "$model" = "$only" ] || continue
    options=(-DCOLLAPSE) width=22
    [ "$search" = exact ] || options=(-DBITSTATE) width=34
    [ "$expected" = holds ] && options+=(-O1) || options+=(-O0) # soon found, slower to compile
    checked=$((checked + 1))
    cp "$here/$model.pml" .
    # shellcheck disable=SC2086
    if ! spin -a $flags "$model.pml" >said 2>&1 ||
        ! "$compiler" -w -DSAFETY "${options[@]}" -o pan pan.c >>said 2>&1; then
        cat said
        exit 1
    fi
    ./pan -m500000 "-w$width" >found 2>&1 || true
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
