#!/bin/sh
# SPDX-License-Identifier: MIT
# count.sh [FOLDER] - how much code it takes to embed godwit: lines of the files that do, less blank lines and
# comments. Nobody else but the command around them (its options, loop and documents) may know the library.
# Exit status 1: more than 300, or somebody else does.
set -u
cd "${1:-$(dirname "$0")}" || exit 1
most=300 total=0

for file in kvm_migrate*.[ch]; do
    # No macro is expanded, no file included: what is left is code.
    lines=$(${CC:-cc} -fpreprocessed -dD -E -P -x c "$file" 2>/dev/null | grep -cv '^[[:space:]]*$')
    printf '%5d %s\n' "$lines" "$file"
    total=$((total + lines))
done
printf '%5d in all, at most %d\n' "$total" "$most"
others=$(grep -l '<godwit/' -- *.[ch] guest/*.[ch] | grep -vx -e 'kvm_migrate.*' -e kvm.c -e kvm_command.h)
if [ -n "$others" ]; then
    printf 'these know the library too: %s\n' "$others"
    exit 1
fi
[ "$total" -le "$most" ]
