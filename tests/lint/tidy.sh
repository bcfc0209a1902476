#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# tidy.sh RUN_CLANG_TIDY SOURCE BUILD - what clang-tidy finds, without its talk.
set -u -o pipefail
cd "$2" || exit 1
root=$(printf '%s' "$2" | sed 's/[][\.*^$+?(){}|]/\\&/g')
"$1" -quiet -p "$3" -j "$(nproc)" "^$root/(core|ram|control|transport|devices|tools)/.*\.c$" 2>&1 |
    sed -E 's,\x1b\[[0-9;]*m,,g' |
    grep -vE '^(\[.*\] )?(/[^ ]*)?clang-tidy|^[0-9]+ warnings? (and [0-9]+ errors? )?generated|^$'
exit "${PIPESTATUS[0]}"
