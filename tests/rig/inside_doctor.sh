# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# inside_doctor.sh HERE BIN - runs on the emulated host: things are broken, the doctor says so, what it
# prints as the fix is run, and then it finds no fault with them.
# shellcheck disable=SC2016 # what stands in single quotes is run later
set -u
# shellcheck source=tests/rig/lib-inside.sh
. "$1/lib-inside.sh"
godwit=$2/godwit
said=$TMPDIR/said

# What the doctor, run by these words, says of it all, and of the way to $peer if that is one.
peer=''
look() {
    "$@" "$godwit" doctor ${peer:+"$peer"} >"$said"
}

# The line about a topic; the command that mends it. A topic stands in columns 9 to 32.
about() { awk -v topic="$1" -v part="$2" '
    /^[a-zN]/ { found = substr($0, 9, 24); sub(/ +$/, "", found); if (found == topic && part == "line") print }
    found == topic && part == "fix" && sub(/^ *fix: /, "")' "$said"; }
line() { about "$1" line; }
fix() { about "$1" fix; }

ok() { # TOPIC...
    local topic
    for topic; do
        [[ $(line "$topic") == ok* ]] || wrong "$topic is not ok: $(line "$topic")"
    done
}

broken() { # TOPIC FIX
    [[ $(line "$1") == "not ok"* ]] || wrong "$1 is broken, and the doctor says: $(line "$1")"
    same "the fix of $1" "$(fix "$1")" "$2"
}

mend() { # TOPIC...
    local topic
    for topic; do
        eval "$(fix "$topic")" >/dev/null || wrong "the fix of $topic fails: $(fix "$topic")"
    done
}

pages=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
look env
ok 'rdma module ib_uverbs' 'rdma module rdma_ucm' rdma_cm 'rdma devices' 'rdma device rxe0' \
    'rdma register rxe0' 'rdma port rxe0/1' 'rdma mtu rxe0/1' 'rdma gids rxe0/1' memlock 'memlock guest' kvm

# A peer over RDMA that is not there, and one that is.
for address in "$RIG_ADDR" "[$RIG_ADDR6]"; do
    peer=rdma:$address:4471
    look env && wrong "nobody listens at $peer, and the doctor finds no fault"
    ok 'rdma path' 'rdma device rxe0'
    [[ $(line peer) == "NOT OK"*"$peer"* ]] || wrong "nobody listens at $peer, and the doctor says: $(line peer)"
    grep -q "^ .* note: .*godwit receive" "$said" || wrong "it does not say what must run at $peer"
    "$godwit" receive "$peer" --quiet 2>"$TMPDIR/listener" &
    listener=$!
    until grep -q '^listening on' "$TMPDIR/listener"; do kill -0 $listener || break; sleep 0.05; done
    look env || wrong "a target listens at $peer, and the doctor says: $(grep '^NOT OK' "$said")"
    ok 'rdma path' peer
    kill $listener
    wait $listener
done
peer=''

# Root, and what depends on no device.
rdma link delete rxe0
echo 0 >$pages
rm /dev/userfaultfd
sysctl -qw net.ipv6.conf.lo.disable_ipv6=1
look env
broken 'rdma devices' 'rdma link add rxe0 type rxe netdev eth0'
broken 'hugepages 2048 KiB' "echo 512 | tee $pages"
broken 'wire tcp6' 'sysctl -w net.ipv6.conf.lo.disable_ipv6=0'
mend 'rdma devices' 'hugepages 2048 KiB' 'userfaultfd device' 'wire tcp6'

# The port's link, its MTU, its addresses. (This look also finds the above mended.)
ip link set dev eth0 mtu 1500
ip addr flush dev eth0
ip link set dev eth0 down
look env
ok 'rdma devices' 'hugepages 2048 KiB' 'userfaultfd device' 'wire tcp6'
broken 'rdma port rxe0/1' 'ip link set dev eth0 up'
broken 'rdma mtu rxe0/1' 'ip link set dev eth0 mtu 4200'
mend 'rdma port rxe0/1' 'rdma mtu rxe0/1'
look env
ok 'rdma port rxe0/1' 'rdma mtu rxe0/1'
broken 'rdma gids rxe0/1' 'ip addr add 192.168.77.1/24 dev eth0'
mend 'rdma gids rxe0/1'

# Locked memory, for root without the capability that lifts the limit, in a shell whose limit is low.
ulimit -l 1024
look setpriv --inh-caps -ipc_lock --bounding-set -ipc_lock
ok 'rdma gids rxe0/1'
broken memlock 'prlimit --pid $$ --memlock=16777216:16777216'
[[ $(line 'rdma register rxe0') == *'Cannot allocate memory' ]] || wrong "2 MiB are registered within 1 MiB"
mend memlock
same "memlock after its fix" "$(ulimit -l)" 16384

# A user who is allowed nothing: sudo is told, and what it would run is run here.
chmod 600 /dev/infiniband/uverbs0 /dev/infiniband/rdma_cm /dev/kvm /dev/userfaultfd
sysctl -qw vm.unprivileged_userfaultfd=0
nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups)
look "${nobody[@]}"
ok memlock
broken rdma_cm 'sudo chown "$(id -un)" /dev/infiniband/rdma_cm'
broken 'rdma device rxe0' 'sudo chown "$(id -un)" /dev/infiniband/uverbs0'
broken kvm 'sudo chown "$(id -un)" /dev/kvm'
broken 'userfaultfd device' 'sudo chown "$(id -un)" /dev/userfaultfd'
broken 'userfaultfd sysctl' 'sudo sysctl -w vm.unprivileged_userfaultfd=1'
sudo() { "$@"; }
id() { echo nobody; }
mend rdma_cm 'rdma device rxe0' kvm 'userfaultfd device' 'userfaultfd sysctl'
look "${nobody[@]}"
ok rdma_cm 'rdma device rxe0' 'rdma register rxe0' kvm 'userfaultfd device' 'userfaultfd sysctl' 'userfaultfd call'

verdict
((inside_wrong == 0))
