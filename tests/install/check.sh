#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# check.sh PART SOURCE BUILD - one part of what an installed tree must give a stranger.
# shellcheck disable=SC2046 # what pkg-config prints is to be split
# Exit status: 0 it does, 77 skipped (the reason is the last line), else it does not.
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

skip() {
    printf 'skipped: %s\n' "$*"
    exit 77
}

have_embed() {
    [ -e "$source/examples/embed.c" ] || skip "there is no examples/embed.c"
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
        share/doc/godwit/LICENSE share/doc/godwit/README.md; do
        [ -e "$usr/$file" ] || die "$file was not installed"
    done
    [ ! -e "$source/tools/godwit.c" ] || [ -x "$usr/bin/godwit" ] || die "bin/godwit was not installed"
    if grep -rIl -e "$source" -e "$root/first" "$usr"; then
        die "these files hold a path of the machine that built them"
    fi
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
    have_embed
    mkdir -p "$out"
    "$CC" -std=c17 -Wall -Wextra -Werror -D_GNU_SOURCE "$source/examples/embed.c" -o "$out/embed" \
        $(pkg-config --cflags --libs godwit)
    readelf -d "$out/embed" | grep -q 'libgodwit\.so\.0' || die "embed does not ask for libgodwit.so.0"
    LD_LIBRARY_PATH=$usr/$LIBDIR "$out/embed"
}

part_embed_static() {
    have_embed
    mkdir -p "$out"
    "$CC" -std=c17 -D_GNU_SOURCE "$source/examples/embed.c" -o "$out/embed" $(pkg-config --cflags godwit) \
        "-L$usr/$LIBDIR" -Wl,-Bstatic -lgodwit -Wl,-Bdynamic \
        $(pkg-config --static --libs godwit | sed 's/-lgodwit//')
    if readelf -d "$out/embed" | grep -q libgodwit; then
        die "embed asks for a shared libgodwit"
    fi
    "$out/embed"
}

part_cmake_package() {
    have_embed
    cmake -G Ninja -S "$source/tests/install/package" -B "$out" -DCMAKE_C_COMPILER="$CC" -DCMAKE_PREFIX_PATH="$usr" \
        -DEMBED="$source/examples/embed.c" >/dev/null
    cmake --build "$out" >/dev/null
    "$out/embed"
}

"part_$part"
