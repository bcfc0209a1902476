#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# hosts.sh SOURCE BIN RESULTS [all] - runs on both emulated hosts: whole migrations from one to the other, then
# faults. Exit status: 0 everything was judged, whatever came out.
set -u
source=$1 bin=$2 results=$3
python3 "$source/tests/rig/migrate.py" "$bin" "$results" two_hosts || exit
exec python3 "$source/tests/rig/faults.py" "$bin" "$results" "${@:4}"
