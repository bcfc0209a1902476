#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# check.sh CC SOURCE NAME - of each line of tests/compile/NAME.txt, the field left of the bar compiles
# without a warning, the one right of it does not compile.
# Exit status: 0 so it is, else it is not.
set -u
cc=$1 source=$2 name=$3
status=0 pairs=0
flags=(-std=c17 -Wall -Wextra -Wpedantic -Wcast-qual -Werror -fsyntax-only "-I$source/include")

compiles() {
    "$cc" "${flags[@]}" "-DFIELD=$1" "$source/tests/compile/$name.c" 2>&1
}

while IFS='|' read -r good bad; do
    case $good in
    '' | '#'*) continue ;;
    esac
    pairs=$((pairs + 1))
    if ! said=$(compiles "$good"); then
        printf '%s must compile, and does not:\n%s\n' "$good" "$said"
        status=1
    fi
    if said=$(compiles "$bad"); then
        printf '%s must not compile, and does\n' "$bad"
        status=1
    elif grep -q 'implicit declaration\|undeclared identifier\|undeclared here' <<<"$said" && [[ $bad != *UINT33* ]]; then
        printf '%s does not compile for another reason:\n%s\n' "$bad" "$said"
        status=1
    fi
done <"$source/tests/compile/$name.txt"
if [ "$pairs" -eq 0 ]; then
    printf 'there is nothing to compile in %s.txt\n' "$name"
    status=1
fi
exit $status
