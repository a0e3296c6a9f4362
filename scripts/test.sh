#!/usr/bin/env bash
# Build one preset and run its tests.
#
#   scripts/test.sh PRESET [CTEST-ARGUMENT...]      for instance: scripts/test.sh asan -L quick
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:?usage: scripts/test.sh PRESET [CTEST-ARGUMENT...]}
shift
scripts/build.sh "$preset"

# The thread sanitizer of today's compilers cannot start where addresses are random in more bits
# than it expects, which is the default of newer kernels.
launch=()
if [ "$preset" = tsan ] && setarch -R true 2>/dev/null; then
    launch=(setarch -R)
fi
exec "${launch[@]}" ctest --preset "$preset" "$@"
