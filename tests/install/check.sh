#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# check.sh PART SOURCE BUILD - one part of what an installed tree must give a stranger.
# shellcheck disable=SC2046 # what pkg-config prints is to be split
# Exit status: 0 it does, else it does not.
set -eu
part=$1 source=$2 build=$3
root=$build/install-test
usr=$root/usr
out=$root/$part
: "${CC:=cc}" "${LIBDIR:=lib}"
export PKG_CONFIG_PATH=$usr/$LIBDIR/pkgconfig

die() {
    printf 'install.%s: %s\n' "$part" "$*" >&2
    exit 1
}

# Both sides of examples/embed.c as built at $1: a machine must arrive whole; a failure must be told.
run_embed() {
    local embed=$1 target uri='' tries=0
    "$embed" receive tcp:127.0.0.1:0 2>"$out/target.log" &
    target=$!
    until uri=$(sed -n 's/^listening on //p' "$out/target.log") && [ -n "$uri" ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 300 ] || ! kill -0 "$target"; then
            die "the target does not listen: $(cat "$out/target.log")"
        fi
        sleep 0.1
    done
    if ! "$embed" send "$uri" 2>"$out/source.log"; then
        kill "$target"
        die "the source failed: $(cat "$out/source.log")"
    fi
    wait "$target" || die "the target failed: $(cat "$out/target.log")"
    if "$embed" send nowhere: 2>"$out/failure.log"; then
        die "a machine that went nowhere is taken for moved"
    fi
    grep -q '^embed: invalid: ' "$out/failure.log" || die "a failure is not told: $(cat "$out/failure.log")"
}

# The tree is installed, then moved: nothing in it may know where it was.
part_tree() {
    rm -rf "$root"
    cmake --install "$build" --prefix "$root/first" >"$build/install-test.log"
    mkdir -p "$root"
    mv "$root/first" "$usr"
    local file
    for file in include/godwit/version.h "$LIBDIR/libgodwit.so.0" "$LIBDIR/libgodwit.so" \
        "$LIBDIR/libgodwit.a" "$LIBDIR/pkgconfig/godwit.pc" "$LIBDIR/cmake/godwit/godwit-config.cmake" \
        share/doc/godwit/LICENSE share/doc/godwit/README.md share/doc/godwit/docs/embedding.md \
        share/doc/godwit/examples/embed.c; do
        [ -e "$usr/$file" ] || die "$file was not installed"
    done
    [ -x "$usr/bin/godwit" ] || die "bin/godwit was not installed"
    [ -e "$usr/share/man/man1/godwit.1" ] || die "the manual page was not installed"
    if grep -rIl -e "$source" -e "$root/first" "$usr"; then
        die "these files hold a path of the machine that built them"
    fi
}

# Documents link to what is there.
part_links() {
    local doc link
    mkdir -p "$out"
    (cd "$usr/share/doc/godwit" && grep -rHoE '\]\([^)#]+' --include='*.md' .) >"$out/links"
    grep -q 'README.md:](docs/embedding.md$' "$out/links" || die "no links were found in README.md"
    while IFS=: read -r doc link; do
        link=${link#](}
        case $link in
        http*) continue ;;
        esac
        [ -e "$usr/share/doc/godwit/$(dirname "$doc")/$link" ] || die "$doc links to $link, which was not installed"
    done <"$out/links"
}

# What the shared library exports is the public API, under its version node, and nothing else.
part_exports() {
    local lib=$usr/$LIBDIR/libgodwit.so.0 name
    [ "$(readlink "$usr/$LIBDIR/libgodwit.so")" = libgodwit.so.0 ] || die "libgodwit.so does not lead to libgodwit.so.0"
    readelf -d "$lib" | grep -q 'SONAME.*\[libgodwit\.so\.0\]' || die "the soname is not libgodwit.so.0"
    mkdir -p "$out"
    nm -D --defined-only "$lib" | awk '$3 !~ /^GODWIT_/ { print $3 }' >"$out/exported"
    grep -q '^gw_source_new@@GODWIT_0\.1$' "$out/exported" || die "gw_source_new is not exported under GODWIT_0.1"
    while IFS= read -r name; do
        name=${name%%@@*}
        grep -qw "$name" "$usr"/include/godwit/*.h || die "$name is exported, and in no public header"
    done <"$out/exported"
}

# Every public header stands alone, in C17 and in C++, with the warnings a strict user turns on.
part_headers() {
    local header name
    mkdir -p "$out"
    for header in "$usr"/include/godwit/*.h; do
        name=${header##*/}
        printf '#include <godwit/%s>\n#include <godwit/%s>\nint use(void);\nint use(void)\n{\n    return 0;\n}\n' \
            "$name" "$name" >"$out/$name.c"
        "$CC" -std=c17 -Wall -Wextra -Wpedantic -Werror $(pkg-config --cflags godwit) -c "$out/$name.c" -o "$out/$name.o"
        if command -v c++ >/dev/null; then
            c++ -x c++ -std=c++17 -Wall -Wextra -Wpedantic -Werror $(pkg-config --cflags godwit) \
                -c "$out/$name.c" -o "$out/$name.o"
        fi
    done
}

part_embed_shared() {
    mkdir -p "$out"
    "$CC" -std=c17 -Wall -Wextra -Werror -D_GNU_SOURCE "$source/examples/embed.c" -o "$out/embed" \
        $(pkg-config --cflags --libs godwit)
    readelf -d "$out/embed" | grep -q 'libgodwit\.so\.0' || die "embed does not ask for libgodwit.so.0"
    LD_LIBRARY_PATH=$usr/$LIBDIR run_embed "$out/embed"
}

part_embed_static() {
    mkdir -p "$out"
    "$CC" -std=c17 -D_GNU_SOURCE "$source/examples/embed.c" -o "$out/embed" $(pkg-config --cflags godwit) \
        "-L$usr/$LIBDIR" -Wl,-Bstatic -lgodwit -Wl,-Bdynamic \
        $(pkg-config --static --libs godwit | sed 's/-lgodwit//')
    if readelf -d "$out/embed" | grep -q libgodwit; then
        die "embed asks for a shared libgodwit"
    fi
    run_embed "$out/embed"
}

part_cmake_package() {
    cmake -G Ninja -S "$source/tests/install/package" -B "$out" -DCMAKE_C_COMPILER="$CC" -DCMAKE_PREFIX_PATH="$usr" \
        -DEMBED="$source/examples/embed.c" >/dev/null
    cmake --build "$out" >/dev/null
    run_embed "$out/embed"
}

"part_$part"
