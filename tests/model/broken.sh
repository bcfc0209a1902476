#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# broken.sh SOURCE - is the model awake? Each line of the handover's table that is broken here must make
# check.sh fail. Exit 77 where spin is missing.
set -eu
source=$1
command -v spin >/dev/null || { echo "spin is not installed: the model is not checked" && exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/core" "$work/tests/model"
cp "$source/tests/model/handover.pml" "$work/tests/model/"
missed=0

broken() { # WHAT OLD NEW
    sed "s/^GW_$2\$/GW_$3/" "$source/core/handover.def" >"$work/core/handover.def"
    if cmp -s "$source/core/handover.def" "$work/core/handover.def"; then
        echo "$1: the line to break is not there" && missed=1
    elif TRAIL=0 "$source/tests/model/check.sh" "$work" -DBREAKS=2 -DCONNS=3 -DCRASHES >"$work/log" 2>&1; then
        echo "$1: NOT FOUND" && missed=1
    else
        echo "$1: found ($(grep -m1 -oE 'assertion violated .*|invalid end.*' "$work/log" || tail -1 "$work/log"))"
    fi
}

broken "the source resumes on link loss after COMMIT" \
    "SOURCE(COMMITTED, LINK_LOST,       ASKING,    RECONNECT)" \
    "SOURCE(COMMITTED, LINK_LOST,       RETAKING,  CALL_RETAKE)"
broken "an unknown session is taken for VOID" \
    "SOURCE(ASKING,    SAID_UNKNOWN,    ASKING,    RECONNECT)" \
    "SOURCE(ASKING,    SAID_UNKNOWN,    RETAKING,  CALL_RETAKE)"
broken "a settle time-out is taken for VOID" \
    "SOURCE(ASKING,    SETTLE_TIMEOUT,  UNKNOWN,   TELL_UNKNOWN)" \
    "SOURCE(ASKING,    SETTLE_TIMEOUT,  RETAKING,  CALL_RETAKE)"
broken "the hold time-out runs the guest" \
    "TARGET(HOLDING,     HOLD_TIMEOUT,    VOIDED,      SET_VOID)" \
    "TARGET(HOLDING,     HOLD_TIMEOUT,    STARTING,    SET_RUNNING | CALL_RUN)"
broken "an ABORT does not void" \
    "TARGET(PREPARED,    ABORTED,         VOIDED,      SET_VOID | SAY_OUTCOME)" \
    "TARGET(PREPARED,    ABORTED,         ACQUIRING,   CALL_ACQUIRE)"
broken "a late ASK makes an outcome anew" \
    "TARGET(RUNNING,     ASKED,           RUNNING,     SAY_OUTCOME)" \
    "TARGET(RUNNING,     ASKED,           VOIDED,      SET_VOID | SAY_OUTCOME)"
broken "a guest that was declined starts all the same" \
    "TARGET(ACQUIRING,   ACQUIRE_FAILED,  DECLINED,    SET_DECLINED | SAY_OUTCOME)" \
    "TARGET(ACQUIRING,   ACQUIRE_FAILED,  STARTING,    SET_DECLINED | SAY_OUTCOME | CALL_RUN)"
broken "the source goes on by itself when nobody answers" \
    "SOURCE(UNKNOWN,   LINK_LOST,       UNKNOWN,   RECONNECT)" \
    "SOURCE(UNKNOWN,   LINK_LOST,       RETAKING,  CALL_RETAKE)"
exit $missed
