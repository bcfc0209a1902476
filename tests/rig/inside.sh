# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# inside.sh HERE BIN OUT ARGUMENT... - runs on the emulated host of command_runs_as_here.
set -u
here=$1 bin=$2 out=$3
shift 3
# shellcheck source=tests/rig/lib-inside.sh
. "$here/lib-inside.sh"

echo 'on stdout'
echo 'on stderr' >&2
same "arguments" "$#:$1:$2:$3:$4" "4:an argument::"$'new\nline:*'
same "odd characters of a variable" "$ODD" $'two\nlines $HOME "x" \\'
same "a variable that is empty" "${EMPTY-unset}" ''
same "a variable that is long" "${#LONG}" 4096
same "a variable that no shell would name so" "$(env | grep -c '^foo.bar=baz$')" 1
same "working directory" "$PWD" "$out/odd \$folder, \"name\""
same "a file of the host" "$(cat file)" here
same "PATH finds this program" "$(command -v ibv_devinfo)" /usr/bin/ibv_devinfo
same "TMPDIR" "$TMPDIR" /run/tmp
same "TMPDIR is memory" "$(stat -f -c %T "$TMPDIR")" tmpfs
same "memlock" "$(ulimit -l)" unlimited
same "stdin is empty" "$(cat)" ''
echo changed >file
: >"$out/new"
same "what was written" "$(cat file)" changed
echo kept >"$out/kept/file"

same "hosts" "$RIG_HOSTS $RIG_HOST" "1 0"
same "IPv4 addresses" "$(ip -4 -br addr show dev eth0 scope global | awk '{ print $3 }')" "$RIG_ADDR/24"
same "IPv6 addresses" "$(ip -6 -br addr show dev eth0 scope global | awk '{ print $3 }')" "$RIG_ADDR6/64"
same "the peer of a lonely host" "$RIG_PEER $RIG_PEER6" "$RIG_ADDR $RIG_ADDR6"
same "RoCE MTU at 9000" "$(ibv_devinfo -d rxe0 | awk '/active_mtu/ { print $2 }')" 4096
same "port" "$(ibv_devinfo -d rxe0 | awk '/state/ { print $2 }')" PORT_ACTIVE
same "clock" "$(cut -c 1-3 /sys/devices/system/clocksource/clocksource0/current_clocksource)" tsc
/run/rig/barrier alone || wrong "a barrier stops a lonely host"
ibv_rc_pingpong -g 1 -n 100 >"$TMPDIR/pong" 2>&1 &
server=$!
until ss -ltn | grep -q :18515; do kill -0 $server || break; sleep 0.05; done
ibv_rc_pingpong -g 1 -n 100 "$RIG_ADDR" >"$TMPDIR/ping" 2>&1 || wrong "no RC traffic: $(cat "$TMPDIR/ping")"
wait $server || wrong "no RC traffic: $(cat "$TMPDIR/pong")"
ip link add veth0 type veth peer name veth1 || wrong "a module does not load when it is asked for"
same "KVM's paging is its own" "$(cat /sys/module/kvm_amd/parameters/npt)" N
"$bin/rig-kvm" || wrong "/dev/kvm runs no guest"

verdict
for ((i = 0; i < 20000; i++)); do echo "line $i"; done # all of it must come out
sleep 1000 & # and what is left running must not hold it up
exit 7
