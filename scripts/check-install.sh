#!/usr/bin/env bash
# Prove that what is installed can be used: install a build into a temporary prefix, look at what is
# there, and build tests/install outside the tree in every way that a user may choose.
#
#   scripts/check-install.sh BUILD_DIR
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "${1:?usage: scripts/check-install.sh BUILD_DIR}" && pwd)
cc=${CC:-cc}
warnings=(-std=gnu11 -Wall -Wextra -Wconversion -Wshadow -Werror)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix
fail() {
    echo "check-install: $*" >&2
    exit 1
}
step() {
    echo "   $*"
}
quiet() { # COMMAND...: its output matters only if it fails
    "$@" >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        fail "this failed: $*"
    }
}

quiet env -u DESTDIR cmake --install "$build" --prefix "$prefix"
step "installed into a temporary prefix"
# Nothing may depend on where it was installed first.
mv "$prefix" "$work/moved"
prefix=$work/moved
lib=$(dirname "$(find "$prefix" -name libserry.so)")
export PKG_CONFIG_PATH=$lib/pkgconfig

pages=0
for page in "$here"/docs/man/*.[17]; do
    [ -e "$page" ] || fail "docs/man has no man pages"
    [ -e "$prefix/share/man/man${page##*.}/${page##*/}" ] ||
        fail "the man page ${page##*/} was not installed"
    pages=$((pages + 1))
done
"$here/tests/man_pages.sh" "$here/libserry.map" "$prefix/share/man/man3" "$here"/docs/man/*.[17]
functions=("$prefix"/share/man/man3/*.3)
step "man pages: $pages, and ${#functions[@]} of what the headers declare"

"$here/tests/exports.sh" "$lib/libserry.so.0" "$prefix/include" "$cc"
step "libserry.so.0 exports what the public headers declare, and nothing else"

others=$(ldd "$lib/libserry.so.0" |
    grep -vE '^\s*(statically linked|linux-vdso|libc\.so\.6|/lib.*/ld-linux)' || true)
[ -z "$others" ] || fail "libserry.so.0 needs more than libc: $others"
step "libserry.so.0 needs libc alone"

for header in "$prefix"/include/serry/*.h; do
    echo "#include <serry/${header##*/}>" >"$work/one.c"
    "$cc" "${warnings[@]}" -I "$prefix/include" -fsyntax-only "$work/one.c" ||
        fail "${header##*/} does not stand alone in C"
    if command -v clang >/dev/null; then
        clang -x c++ -std=c++11 -Wall -Wextra -Wshadow -Werror -I "$prefix/include" \
            -fsyntax-only "$work/one.c" || fail "${header##*/} does not stand alone in C++"
    fi
done
step "each header stands alone"

cp -r "$here/tests/install" "$work/outside"
cd "$work/outside"
run() { # WHAT COMMAND...: the program must say that it works
    local what=$1 said
    shift
    said=$("$@") || fail "$what: the program failed: $said"
    step "$what: $said"
}
read -ra flags < <(pkg-config --cflags --libs serry)
"$cc" "${warnings[@]}" program.c "${flags[@]}" -o dynamic
run "pkg-config" env LD_LIBRARY_PATH="$lib" ./dynamic
read -ra flags < <(pkg-config --static --cflags --libs serry)
"$cc" "${warnings[@]}" -static program.c "${flags[@]}" -o static
run "pkg-config --static" ./static

quiet cmake -S . -B cmake -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc"
quiet cmake --build cmake
run "find_package, serry::serry" cmake/program
run "find_package, serry::serry_static" cmake/program_static

version=$(pkg-config --modversion serry)
said=$("$prefix/bin/serry" version) || fail "'serry version' failed"
case $said in
*"$version"*) step "serry version: $said" ;;
*) fail "'serry version' says '$said', but serry.pc has $version" ;;
esac

said=$("$prefix/bin/serry" bench --ranks 2 --ops barrier --peers none --seconds 0.2 2>&1) ||
    fail "'serry bench' failed: $said"
case $said in
*'Wrong results: 0'*) step "serry bench: finds its workers" ;;
*) fail "'serry bench' says '$said'" ;;
esac
