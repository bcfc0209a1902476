# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# inside_two.sh HERE - runs on both emulated hosts of two_hosts_meet: MTU 1500, 20 ms of delay.
set -u
# shellcheck source=tests/rig/lib-inside.sh
. "$1/lib-inside.sh"

echo "stdout of $RIG_HOST"
echo "stderr of $RIG_HOST" >&2
same "addresses" "$RIG_ADDR $RIG_PEER" "10.77.0.$((RIG_HOST + 1)) 10.77.0.$((2 - RIG_HOST))"
same "addresses" "$RIG_ADDR6 $RIG_PEER6" "fd77::$((RIG_HOST + 1)) fd77::$((2 - RIG_HOST))"
same "RoCE MTU at 1500" "$(ibv_devinfo -d rxe0 | awk '/active_mtu/ { print $2 }')" 1024

echo "from $RIG_HOST" >"$RIG_SHARED/$RIG_HOST"
/run/rig/barrier both || wrong "the other never came"
same "what the other wrote" "$(cat "$RIG_SHARED/$((1 - RIG_HOST))")" "from $((1 - RIG_HOST))"

# The qdisc delays each way: no echo can be back sooner, but by a clock that a busy machine makes late. (A pair
# of lost packets is no fault.)
for peer in "$RIG_PEER" "$RIG_PEER6"; do
    rtt=$(busybox ping -c 4 -i 0.2 "$peer" | sed -n 's,.*min/avg/max = \([0-9]*\)\..*,\1,p')
    ((${rtt:-0} >= 25)) || wrong "an echo of $peer came back in ${rtt:-no} ms, with 20 ms each way"
done

# RDMA, not only IP: host 0 serves.
/run/rig/barrier served
if ((RIG_HOST == 0)); then
    ibv_rc_pingpong -g 1 -n 20 >"$TMPDIR/pong" 2>&1 || wrong "no RC traffic: $(cat "$TMPDIR/pong")"
else
    tries=0
    until ibv_rc_pingpong -g 1 -n 20 "$RIG_PEER" >"$TMPDIR/pong" 2>&1; do
        # Refused while the server starts.
        if ! grep -q "Couldn't connect" "$TMPDIR/pong" || ((++tries == 100)); then
            wrong "no RC traffic: $(cat "$TMPDIR/pong")"
            break
        fi
    done
fi

verdict
# Host 1 is the first to fail; host 0 fails later, with another status.
((RIG_HOST == 1)) && exit 3
until [ -e "$RIG_SHARED/.ended1" ]; do sleep 0.1; done
sleep 2
exit 4
