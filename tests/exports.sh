#!/usr/bin/env bash
# Does the shared library export exactly what the public headers declare?
#
#   tests/exports.sh LIBRARY INCLUDE_DIR CC
set -euo pipefail
library=$1 include=$(cd "$2" && pwd) cc=$3

exported=$(nm -D --defined-only "$library" |
    awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort)
# Declarations lie outside braces; a type of function has its name followed by ')'.
declared=$(cd "$include/serry" && printf '#include <serry/%s>\n' *.h |
    "$cc" -E -P -x c -I "$include" - |
    grep -v 'static inline' |
    grep -oE '^[a-z_].*\bserry_[a-z0-9_]+\(|^extern const serry_backend serry_[a-z_]+;' |
    grep -oE 'serry_[a-z0-9_]+(\(|;)$' | tr -d '(;' | sort -u)
difference=$(diff <(echo "$declared") <(echo "$exported") || true)
if [ -n "$difference" ]; then
    echo "declared in the headers (<) and exported by ${library##*/} (>) differ:" >&2
    echo "$difference" | grep '^[<>]' >&2
    exit 1
fi
