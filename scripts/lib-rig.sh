# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2034
#
# lib-rig.sh - Debian's own kernel in an emulated machine; sourced by soft-roce and linux-ram.
#
# The kernel package is downloaded and unpacked, never installed, into a cache that holds it,
# vmlinux and base.cpio (static busybox and the modules). A run adds a second, small archive
# with its own /init: the kernel unpacks both, so nothing cached goes stale when a script
# changes. Delete the cache to get a newer kernel. Nothing here needs root or /dev/kvm.

rig_lib=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
rig_name=$(basename "$0")
rig_cache=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/godwit/soft-roce

# What an /init loads, or the kernel asks for (its /sbin/modprobe finds those of this list).
rig_modules=(virtio_pci virtio_console 9pnet_virtio 9p overlay
    virtio_net crc32_generic crc32-pclmul rdma_rxe rdma_cm rdma_ucm ib_uverbs
    veth dummy sch_netem tls kvm_amd)
# Another list is another kernel folder; the number is that of the folder's layout.
rig_kernel_dir=$rig_cache/kernel-2-$(printf '%s\n' "${rig_modules[@]}" | cksum | cut -d ' ' -f 1)

# Machine flags both scripts share. tb-size: room for translated code, in MiB. setpriv: the
# machine dies with the script that started it, however that ended.
rig_qemu=(setpriv --pdeathsig KILL qemu-system-x86_64 -nodefaults -display none -monitor none
    -no-reboot -accel "tcg,thread=multi,tb-size=512" -cpu max -smp 2)
# tsc=reliable: else every look at the clock is an exit to the emulated HPET, which a program
# that polls makes millions of. The rest is what the kernel would try out at every boot.
rig_cmdline="console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check"
rig_cmdline+=" lpj=5000000 cryptomgr.notests rcupdate.rcu_expedited=1 audit=0 apparmor=0"
rig_cmdline+=" initcall_blacklist=init_blk_tracer,crypto_kdf108_init"

rig_die() { # STATUS SENTENCE...
    local status=$1
    shift
    printf '%s: %s\n' "$rig_name" "$*" >&2
    exit "$status"
}

# Exits 2, with the line that mends it, unless every package of packages-rig is there.
rig_need_packages() {
    local package _ missing=() wanted=() here
    PATH=$PATH:/usr/sbin:/sbin
    type apt-get dpkg-query >/dev/null 2>&1 ||
        rig_die 2 "needs Debian's apt-get and dpkg: the machine runs Debian's kernel"
    while read -r package _; do
        case $package in '' | '#'*) continue ;; esac
        wanted+=("$package")
    done <"$rig_lib/packages-rig"
    here=$(dpkg-query -W -f '${Package}:${db:Status-Status} ' "${wanted[@]}" 2>/dev/null)
    for package in "${wanted[@]}"; do
        [[ " $here" == *" $package:installed "* ]] || missing+=("$package")
    done
    ((${#missing[@]} == 0)) ||
        rig_die 2 "missing: ${missing[*]}. Install with: apt-get install --no-install-recommends ${missing[*]}"
}

# Fills $rig_kernel_dir once; a second caller waits for the first.
rig_kernel() {
    [[ -e $rig_kernel_dir/base.cpio ]] && return
    mkdir -p "$rig_cache" 2>/dev/null
    [[ -w $rig_cache ]] ||
        rig_die 2 "cannot write to the cache $rig_cache (XDG_CACHE_HOME names another folder)"
    (
        flock 9
        [[ -e $rig_kernel_dir/base.cpio ]] || rig_kernel_fetch
    ) 9>"$rig_cache/lock"
    [[ -e $rig_kernel_dir/base.cpio ]] || exit 2
}

rig_kernel_fetch() {
    local package version work=$rig_cache/unpack modules module file log
    package=$(apt-cache depends linux-image-amd64 2>/dev/null |
        sed -n 's/.*Depends: \(linux-image-[0-9].*-amd64\)$/\1/p' | head -n 1)
    [[ $package ]] || rig_die 2 "apt-cache knows no linux-image-amd64 (run apt-get update; Debian on amd64 only)"
    version=${package#linux-image-}
    printf '%s: fetching %s into %s\n' "$rig_name" "$package" "$rig_cache" >&2
    rm -rf "$work"
    modules=$work/root/lib/modules/$version
    mkdir -p "$work/root/bin" "$modules"
    log=$work/log
    # Does nothing if the package lies there already.
    (cd "$rig_cache" && apt-get download "$package") >"$log" 2>&1 ||
        rig_die 2 "apt-get download $package failed: $(tail -n 1 "$log")"
    if ! dpkg -x "$rig_cache/$package"_*.deb "$work/package" || ! depmod -b "$work/package" "$version"; then
        rig_die 2 "cannot unpack $package"
    fi

    for module in "${rig_modules[@]}"; do
        modprobe -d "$work/package" -S "$version" --show-depends "$module" >>"$work/insmod" 2>"$log" ||
            rig_die 2 "$package has no module $module: $(tail -n 1 "$log")"
    done
    sed -n 's/^insmod \([^ ]*\).*/\1/p' "$work/insmod" | sort -u | while read -r file; do
        cp "$file" "$modules/"
    done
    depmod -b "$work/root" "$version" 2>"$log" || rig_die 2 "depmod: $(tail -n 1 "$log")"
    rm "$modules"/*.bin "$modules/modules.symbols" # busybox reads none of them
    cp "$(type -P busybox)" "$work/root/bin/busybox"
    mkdir "$work/kernel"
    # Not compressed: unpacking gzip under emulation costs more than reading the file.
    (cd "$work/root" && find . | cpio -o -H newc --quiet) >"$work/kernel/base.cpio" || exit 2
    rig_vmlinux "$work/package/boot/vmlinuz-$version" >"$work/kernel/vmlinux" ||
        rig_die 2 "$package: the kernel image is not xz inside a bzImage"
    printf '%s\n' "$version" >"$work/kernel/version"
    mv "$work/kernel" "$rig_kernel_dir" && rm -rf "$work"
}

# The ELF kernel inside a bzImage; emulated, it would take two seconds to unpack itself. The
# offsets are those of the kernel's Documentation/arch/x86/boot.rst: setup_sects,
# payload_offset, payload_length. The payload ends in its unpacked size, 4 bytes.
rig_vmlinux() { # FILE
    local file=$1 setup_sects offset bytes
    field() { od -An -j "$1" -N "$2" -t "u$2" "$file" | tr -d ' '; }
    setup_sects=$(field 497 1)
    offset=$(field 584 4)
    bytes=$(field 588 4)
    tail -c "+$(((setup_sects + 1) * 512 + offset + 1))" "$file" | head -c "$((bytes - 4))" | xz -dc
}

# rig_initramfs OUT <INIT - the cached archive and, behind it, one with /init from stdin.
rig_initramfs() {
    local out=$1 work
    work=$(mktemp -d "$(dirname "$out")/init.XXXXXX")
    cat >"$work/init"
    chmod 755 "$work/init"
    cp "$rig_kernel_dir/base.cpio" "$out"
    (cd "$work" && echo init | cpio -o -H newc --quiet) >>"$out"
    rm -rf "$work"
}

# The first lines of every /init: busybox's commands, the kernel's file systems.
rig_init_head() {
    cat <<'INIT'
#!/bin/busybox sh
# /init of the emulated machine: process 1.
/bin/busybox mkdir -p /proc /sys /dev /tmp /host /rig /layer /root /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount9p() { mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$3" "$1" "$2"; }
INIT
}
