#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# check.sh SOURCE [DEFINES...] - model-check the handover exhaustively: prints the states counted, or the
# trail to what went wrong. Exit 77 where spin is missing.
set -eu
source=$1
shift
command -v spin >/dev/null || { echo "spin is not installed: the model is not checked" && exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
spin -a "$@" "$source/tests/model/handover.pml" >spin.log 2>&1 || { cat spin.log && exit 1; }
cc -O0 -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 -DNOBOUNDCHECK -w -o pan pan.c
./pan -m3000000 -w24 >pan.log 2>&1 || true
grep -E 'errors:|states, stored' pan.log || true
if ! grep -q 'errors: 0' pan.log || grep -qE 'search depth too small|out of memory|truncated' pan.log; then
    grep -E 'assertion|invalid end' pan.log || cat pan.log
    spin "$@" -t -p -g "$source/tests/model/handover.pml" 2>/dev/null | tail -n "${TRAIL:-120}" || true
    exit 1
fi
