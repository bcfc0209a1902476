#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# wires.sh SOURCE BIN RESULTS - runs on an emulated host: of each suite the tests that are named after the
# wire, then whole migrations. What came out is in RESULTS, as scripts/results.py reads it: <suite>.xml as
# googletest writes it, for each line of `suites`, and lines of `rows`.
# Exit status: 0 everything was judged, whatever came out.
set -u
source=$1 bin=$2 results=$3

export GODWIT=$bin/godwit GODWIT_SOURCE=$source
export LSAN_OPTIONS=suppressions=$source/tests/lsan.supp # as tests/programs.cmake sets it: libfabric leaks
export FI_OFI_RXM_USE_SRX=1 FI_UNIVERSE_SIZE=16 # what verbs;ofi_rxm needs, and over soft-RoCE
# By default it makes and registers some 100 MB for an endpoint, which takes an emulated machine seconds.
export FI_OFI_RXM_BUFFER_SIZE=8704 FI_OFI_RXM_MSG_RX_SIZE=32 FI_OFI_RXM_MSG_TX_SIZE=32
run() { # SUITE NAME FILTER SECONDS
    echo "$2" >>"$results/suites"
    # One that hangs must not take the rest with it: it has no results, which counts as a failure.
    timeout -k 5 "$4" "$bin/$1" --gtest_filter="$3" --gtest_output="xml:$results/$2.xml" >"$results/$2.log" 2>&1
}
# Without --rig: no filters around rdma, which are tested around tcp; what takes seconds to notice that a peer is gone
# over one address family; a gibibyte of device state beside a disk, not alone.
wanted='*rdma*-vfio.a_gibibyte*rdma*' patience=900 large=
wires='*/rdma4:*/rdma6:rdma.*:wire.puts_and_messages_keep_their_order/ofi_rdma:wire.revoke_stops_puts/ofi_rdma'
wires="$wires-wire.close_with_puts*/rdma6:wire.every_put_completes*/rdma6"
if [ -n "${GODWIT_TEST_RIG:-}" ]; then # a gibibyte of device state takes minutes: by itself
    large='vfio_disk.*gibibyte*rdma*'
    [ -z "${GODWIT_TEST_FULL:-}" ] || large="$large:vfio.a_gibibyte*rdma*" patience=1800 # every cell over rdma
    wanted="*rdma*-$large" wires='*rdma*'
fi
run contract rig-contract "$wires" $patience
run rules rig-rules "$wanted" $patience
# Soft-dirty bits, which not every kernel has: this one does.
soft='dirty.reports*/soft*:dirty.copy*/soft*:dirty.released*/soft*:dirty.system_calls*/soft*:dirty.block_that_was*/soft*'
[ -z "${GODWIT_TEST_RIG:-}" ] || soft='dirty.*/soft*'
run unit-ram rig-dirty "$soft" $patience
run e2e rig-e2e "$wanted" $patience
[ -z "$large" ] || GODWIT_TEST_FULL=1 run e2e rig-gibibyte "$large" 3600
# A real guest, by KVM in emulation: here it is no excuse that there is none, or that its dirty ring is not sound,
# which on other hosts it may not be. A thousand rounds and guests that move take minutes, so only --rig asks for them.
guests='tracking.ring_that_fills*:guest.arrives_by_the_dirty_ring*'
[ -z "${GODWIT_TEST_RIG:-}" ] ||
    guests='tracking.*:guest.arrives_by_the_dirty_ring*:guest.arrives_whole*rdma*:guest.goes_*:guest.takes_*:refused.*'
echo rig-kvm >>"$results/suites"
GODWIT=$bin/godwit-kvm GODWIT_TEST_KVM=1 GODWIT_TEST_RING=1 timeout -k 5 900 \
    sh "$source/tests/kvm/with_kvm.sh" "$bin/kvm" --gtest_filter="$guests" \
    --gtest_output="xml:$results/rig-kvm.xml" >"$results/rig-kvm.log" 2>&1
exec python3 "$source/tests/rig/migrate.py" "$bin" "$results" one_host
