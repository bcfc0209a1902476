#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# check.sh PART SOURCE BIN - one part of what scripts/soft-roce promises.
# shellcheck disable=SC2016 # what stands in single quotes is expanded inside
# Exit status: 0 it holds; 77 something is missing here, unless GODWIT_TEST_RIG is set; else it does not hold.
set -u
part=$1 source=$2 bin=$3
soft_roce=$source/scripts/soft-roce
here=$source/tests/rig

die() {
    printf 'rig.%s: %s\n' "$part" "$*" >&2
    for file in "$out"/*; do
        [ ! -f "$file" ] || { printf '%s\n' "-- ${file##*/}" && tail -n 40 "$file"; } >&2
    done
    exit 1
}

# expect WHAT FILE REGEXP - a whole line of FILE.
expect() {
    grep -qxE -e "$3" "$2" || die "$1: no line '$3' in ${2##*/}"
}

# run STATUS ARGUMENT... - soft-roce with these; its output is in $out/stdout and $out/stderr.
run() {
    local want=$1 status
    shift
    "$soft_roce" "$@" >"$out/stdout" 2>"$out/stderr" </dev/null
    status=$?
    ((status == want)) || die "exit status $status, not $want"
}

refuses() { # SENTENCE ARGUMENT...
    local sentence=$1
    shift
    run 2 "$@"
    grep -qF -e "$sentence" "$out/stderr" || die "'$*' is not refused with '$sentence'"
    [ ! -s "$out/stdout" ] || die "'$*' talks on stdout"
}

part_refuses_what_cannot_work() {
    refuses "no COMMAND" --hosts 1
    refuses "no COMMAND" --
    refuses "--frob is not an option" --frob -- true
    refuses "--mtu wants a value" --mtu
    refuses "--hosts 3 is neither 1 nor 2" --hosts 3 -- true
    refuses "--mtu 100 is not in" --mtu 100 -- true
    refuses "--mtu 9k is not in" --mtu 9k -- true
    refuses "--memory lots is not" --memory lots -- true
    refuses "--share $out/none: no such folder" --share "$out/none" -- true
    refuses "--netem needs --hosts 2" --netem 'delay 1ms' -- true
    refuses "--netem dalay 1ms: " --hosts 2 --netem 'dalay 1ms' -- true
    refuses "--netem loss many: " --hosts 2 --netem 'loss many' -- true
    run 0 --help
    expect help "$out/stdout" 'usage: soft-roce .*'
    # What a run that was killed has left goes; not what another has, or what has another's name.
    local tmp=$out/tmp lock
    mkdir -p "$tmp"/soft-roce.{killed,living,others}
    touch "$tmp"/soft-roce.{killed,living}/lock
    exec {lock}>"$tmp/soft-roce.living/lock"
    flock "$lock"
    TMPDIR=$tmp run 125 --memory 9999999 -- true
    [ "$(ls -A "$tmp")" = "soft-roce.living"$'\n'"soft-roce.others" ] || die "left is: $(ls -A "$tmp")"
    exec {lock}>&-
    grep -q 'machine 0 died' "$out/stderr" || die "a machine that cannot start is not told"
}

# The text of inside.sh says what the command must find.
part_command_runs_as_here() {
    local folder=$out/'odd $folder, "name"'
    mkdir "$folder" "$out/kept"
    echo here >"$folder/file"
    cd "$folder" || die "no folder"
    ODD=$'two\nlines $HOME "x" \\' EMPTY='' LONG=$(printf '%04096d' 7) TMPDIR=$out \
        run 7 --share "$out/kept" -- env foo.bar=baz bash "$here/inside.sh" "$here" "$bin" "$out" \
        'an argument' '' $'new\nline' '*'
    expect "stdout and stderr are apart" "$out/stdout" 'on stdout'
    expect "stdout and stderr are apart" "$out/stderr" 'on stderr'
    ! grep -q 'on stderr' "$out/stdout" || die "stderr is mixed into stdout"
    expect "all that was asked is so" "$out/stdout" 'inside: ok'
    [ "$(wc -l <"$out/stdout")" = 20002 ] || die "output was lost: $(wc -l <"$out/stdout") lines"
    [ "$(cat "$folder/file")" = here ] || die "what is written inside is found outside"
    [ ! -e "$out/new" ] || die "what is made inside is found outside"
    [ "$(cat "$out/kept/file")" = kept ] || die "--share keeps nothing"
}

part_two_hosts_meet() {
    run 3 --hosts 2 --mtu 1500 --netem 'delay 20ms loss 0.1%' -- bash "$here/inside_two.sh" "$here"
    local host
    for host in 0 1; do
        expect "lines say whose they are" "$out/stdout" "$host: stdout of $host"
        expect "lines say whose they are" "$out/stderr" "$host: stderr of $host"
        expect "all that was asked is so" "$out/stdout" "$host: inside: ok"
    done
    ! grep -qvE '^[01]: ' "$out/stdout" || die "a line without its host"
    # One host ends with 0 and the other waits for it in vain: told, and the status is the other's.
    run 1 --hosts 2 -- bash -c '[ "$RIG_HOST" = 0 ] || /run/rig/barrier never'
}

# godwit doctor says what is broken in there, and what it prints as the fix mends it.
part_doctor_finds_and_mends() {
    run 0 -- bash "$here/inside_doctor.sh" "$here" "$bin"
    expect "all that was asked is so" "$out/stdout" 'inside: ok'
}

# As a user who owns nothing but a copy of the scripts; the kernel comes from this user's cache.
part_unprivileged_user() {
    local cache=${XDG_CACHE_HOME:-$HOME/.cache}/godwit/soft-roce user=()
    mkdir -p "$out/cache/godwit"
    cp -r "$source/scripts" "$out/scripts"
    if [ "$(id -u)" = 0 ]; then
        cp -r "$cache" "$out/cache/godwit/"
        chown -R 65534:65534 "$out"
        user=(setpriv --reuid 65534 --regid 65534 --clear-groups)
        cache=$out/cache
    else
        cache=${cache%/godwit/soft-roce}
    fi
    soft_roce=$out/scripts/soft-roce
    cd "$out" || die "no folder"
    "${user[@]}" env "XDG_CACHE_HOME=$cache" TMPDIR=/tmp "$soft_roce" -- \
        bash -c 'echo "$(id -u) $(ibv_devices | grep -c rxe0) $PWD"; echo new >/etc/made && cat /etc/made' \
        >"$out/stdout" 2>"$out/stderr" || die "exit status $?"
    expect "it is root inside, with rxe0" "$out/stdout" "0 1 $out"
    expect "it may write everywhere" "$out/stdout" new
}

# Waits until a file has a line; whoever writes it may take long, so the deadline is generous.
await() { # FILE LINE
    local tries
    for ((tries = 0; tries < 2400; tries++)); do
        grep -qxF -e "$2" "$1" 2>/dev/null && return
        sleep 0.1
    done
    die "'$2' never came"
}

# The machines of a session, by field 6 of proc(5)'s stat; comm, field 2, is cut to 15 bytes.
machines_of() { # SESSION
    awk -v session="$1" '$2 == "(qemu-system-x86)" && $6 == session { print $1 }' \
        /proc/[0-9]*/stat 2>/dev/null
}

part_two_rigs_at_once_and_a_signal() {
    local tries machines
    mkdir "$out/tmp" "$out/kept"
    TMPDIR=$out/tmp setsid "$soft_roce" --hosts 2 --share "$out/kept" -- \
        bash -c '/run/rig/barrier up; echo up; until [ -e "$1" ]; do sleep 0.1; done
            busybox ping -c 1 $RIG_PEER >/dev/null && echo met; sleep 1000' bash "$out/kept/ping" \
        >"$out/first" 2>&1 &
    first=$!
    await "$out/first" '0: up'
    await "$out/first" '1: up'
    run 0 --hosts 2 -- /run/rig/barrier up
    : >"$out/kept/ping"
    await "$out/first" '0: met' # and the first pair still has its wire
    await "$out/first" '1: met'
    mapfile -t machines < <(machines_of "$first")
    ((${#machines[@]} == 2)) || die "${#machines[@]} machines run, not 2"
    kill -TERM "$first"
    wait "$first"
    (($? == 143)) || die "the signal is not the exit status"
    [ -z "$(machines_of "$first")" ] || die "a machine lives on"
    [ -z "$(ls -A "$out/tmp")" ] || die "a folder is left: $(ls "$out/tmp")"
}

first='' # a rig that runs meanwhile
out=$(mktemp -d "${TMPDIR:-/tmp}/rig-test.XXXXXX") || exit 1
trap '[ -z "$first" ] || { kill "$first"; wait "$first"; } 2>/dev/null; cd / && rm -rf "$out"' EXIT
# What is missing is told before anything is started; whoever asks first fetches the kernel.
# shellcheck source=scripts/lib-rig.sh
if ! sentence=$(. "$source/scripts/lib-rig.sh" && rig_need_packages 2>&1 && rig_kernel 2>&1); then
    sentence=${sentence##*$'\n'}
    printf 'skipped: %s\n' "${sentence#*: }"
    [ -z "${GODWIT_TEST_RIG-}" ] || exit 1
    exit 77
fi
"part_$part"
