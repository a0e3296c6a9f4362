#!/usr/bin/env bash
# Has every exported function a man page that names it and shows how it is declared? And do all
# pages come out of groff without a warning, those written by hand (PAGE) too?
#
#   tests/man_pages.sh MAP MAN3_DIR [PAGE...]
#
# Where there is no groff, only the first is looked at, and that is said.
set -euo pipefail
map=$1 man3=$(cd "$2" && pwd)
shift 2

failed=0
fail() {
    echo "man pages: $*" >&2
    failed=1
}

exported=$(grep -oE '^ +serry_[a-z0-9_]+;' "$map" | tr -d ' ;')
[ -n "$exported" ] || fail "there are no names in $map"
for name in $exported; do
    page=$man3/$name.3
    if [ ! -s "$page" ]; then
        fail "$name has none"
        continue
    fi
    target=$(sed -n 's/^\.so man3\///p' "$page")
    [ -z "$target" ] || page=$man3/$target
    sed -n '/^\.SH NAME/,/^\.SH SYNOPSIS/p' "$page" | grep -qwF -- "$name" ||
        fail "${page##*/} does not name $name"
    sed -n '/^\.SH SYNOPSIS/,/^\.SH [^S]/p' "$page" | grep -qE -- "\b$name(\(|;)" ||
        fail "${page##*/} does not show how $name is declared"
    grep -q '^\.SH "DESCRIPTION"' "$page" || fail "${page##*/} says nothing about $name"
    grep -qF -- "\\fB$name\\fR" "$man3/serry.3" || fail "serry.3 does not list $name"
done

if command -v groff >/dev/null; then
    # pages that refer to others say man3/NAME.3
    said=$(cd "$man3/.." && groff -man -Tutf8 -ww man3/*.3 2>&1 >/dev/null) ||
        fail "groff gives up on the functions' pages"
    for page in "$@"; do
        said+=$(groff -mdoc -Tutf8 -ww "$page" 2>&1 >/dev/null) || fail "groff gives up on $page"
    done
    [ -z "$said" ] || fail "groff says: $said"
else
    echo "man pages: there is no groff to print them with" >&2
fi
exit $failed
