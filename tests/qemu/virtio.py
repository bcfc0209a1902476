#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Records virtio devices with live queues: virtio.py SCENE DIR, virtio.py --list.

A stock QEMU runs a machine whose CPU halts at once, by a firmware of its own: this script is its guest, writes registers and
memory, and so sets up rings, has requests carried out, and leaves others where they are. Then the machine
migrates, to DIR/stream. Exits 77 where there is no qemu-system-x86_64.
"""
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from record import PATIENCE_S, QEMU, Monitor  # noqa: E402

RING = 0x100000  # where the guest's rings and buffers are: 64 KiB for each queue
MMIO_LAST = 0xFEB02E00
MMIO_BEFORE = 0xFEB02C00
DISK = ["-blockdev", "driver=null-co,size=1048576,read-zeroes=on,node-name=d0"]
BAD_DISK = ["-blockdev", "driver=blkdebug,node-name=d0,image.driver=null-co,image.size=1048576,"
            "image.read-zeroes=on,inject-error.0.event=none,inject-error.0.iotype=read,"
            "inject-error.0.sector=64,inject-error.0.errno=5"]
MICROVM = ["-M", "microvm,accel=tcg", "-m", "16M", "-nodefaults"]
PC = ["-M", "pc-i440fx-7.2,accel=tcg", "-m", "16M", "-nodefaults"]
Q35 = ["-M", "q35,accel=tcg", "-m", "16M", "-nodefaults"]
HUB = ["-netdev", "hubport,id=n0,hubid=0"]


class Guest:
    """The other end of QEMU's qtest socket: what a CPU would do, one access at a time."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rw")

    def __call__(self, text):
        self.file.write(text + "\n")
        self.file.flush()
        while True:
            words = self.file.readline().split()
            if not words:
                sys.exit(f"{text}: the machine ended")
            if words[0] == "OK":
                return int(words[1], 0) if len(words) > 1 and words[1].startswith("0x") else 0
            if words[0] == "FAIL":
                sys.exit(f"{text}: {words}")

    def write(self, address, data):
        self(f"write 0x{address:x} 0x{len(data):x} 0x{data.hex()}")

    def read16(self, address):
        return self(f"readw 0x{address:x}")


class Mmio:
    """Registers of virtio-mmio."""

    def __init__(self, guest, base, modern):
        self.guest, self.base, self.modern = guest, base, modern

    def put(self, offset, value):
        self.guest(f"writel 0x{self.base + offset:x} 0x{value:x}")

    def get(self, offset):
        return self.guest(f"readl 0x{self.base + offset:x}")

    def begin(self, wanted):
        self.put(0x70, 0)
        self.put(0x70, 3)
        if not self.modern:
            self.put(0x28, 4096)
        taken = 0
        for half in range(2 if self.modern else 1):
            self.put(0x14, half)
            offered = self.get(0x10)
            self.put(0x24, half)
            self.put(0x20, offered & (wanted >> 32 * half) & 0xFFFFFFFF)
            taken |= (offered & (wanted >> 32 * half)) << 32 * half
        if self.modern:
            self.put(0x70, 0xB)
        return taken

    def queue(self, n, num, desc, avail, used):
        self.put(0x30, n)
        self.put(0x38, num)
        if not self.modern:
            self.put(0x3C, 4096)
            self.put(0x40, desc >> 12)
            return
        for offset, value in ((0x80, desc), (0x90, avail), (0xA0, used)):
            self.put(offset, value & 0xFFFFFFFF)
            self.put(offset + 4, value >> 32)
        self.put(0x44, 1)

    def ready(self):
        self.put(0x70, 0xF if self.modern else 7)

    def kick(self, n):
        self.put(0x50, n)

    def config(self, offset):
        return self.get(0x100 + offset)


class Pci:
    """The version 1 registers of virtio-pci, behind its fourth BAR; MSI-X behind the first."""
    BAR4 = 0xE0000000
    BAR1 = 0xE0100000

    def __init__(self, guest, slot, vectors):
        self.guest, self.slot, self.vectors = guest, slot, vectors
        self.put_config(0x14, self.BAR1)
        self.put_config(0x20, self.BAR4)
        self.put_config(0x24, 0)
        self.put_config(0x04, 0x7)
        for i in range(vectors):  # each vector's address and data, not masked
            at = self.BAR1 + 16 * i
            for word, value in enumerate((0xFEE00000, 0, 0x4000 + i, 0)):
                guest(f"writel 0x{at + 4 * word:x} 0x{value:x}")
        msix = self.capability(0x11)
        self.put_config(msix, (self.get_config(msix) & 0xFFFF) | 0x80000000)

    def select(self, offset):
        self.guest(f"outl 0xcf8 0x{0x80000000 | self.slot << 11 | offset:x}")

    def get_config(self, offset):
        self.select(offset)
        return self.guest("inl 0xcfc")

    def put_config(self, offset, value):
        self.select(offset)
        self.guest(f"outl 0xcfc 0x{value:x}")

    def capability(self, number):
        at = self.get_config(0x34) & 0xFC
        while at:
            head = self.get_config(at)
            if head & 0xFF == number:
                return at
            at = head >> 8 & 0xFC
        sys.exit("no such capability")

    def put(self, size, offset, value):
        self.guest(f"write{size} 0x{self.BAR4 + offset:x} 0x{value:x}")

    def begin(self, wanted):
        self.put("b", 0x14, 0)
        self.put("b", 0x14, 3)
        taken = 0
        for half in range(2):
            self.put("l", 0x00, half)
            offered = self.guest(f"readl 0x{self.BAR4 + 4:x}")
            self.put("l", 0x08, half)
            self.put("l", 0x0C, offered & (wanted >> 32 * half) & 0xFFFFFFFF)
            taken |= (offered & (wanted >> 32 * half)) << 32 * half
        self.put("b", 0x14, 0xB)
        self.put("w", 0x10, 0)  # the configuration's vector
        return taken

    def queue(self, n, num, desc, avail, used):
        self.put("w", 0x16, n)
        self.put("w", 0x18, num)
        self.put("w", 0x1A, min(n + 1, self.vectors - 1))
        for offset, value in ((0x20, desc), (0x28, avail), (0x30, used)):
            self.put("l", offset, value & 0xFFFFFFFF)
            self.put("l", offset + 4, value >> 32)
        self.put("w", 0x1C, 1)

    def ready(self):
        self.put("b", 0x14, 0xF)

    def kick(self, n):
        self.put("w", 0x3000 + 4 * n, n)

    def config(self, offset):
        return self.guest(f"readl 0x{self.BAR4 + 0x2000 + offset:x}")


class Ring:
    """A split ring of a queue; desc, avail and used as a legacy guest has them too."""

    def __init__(self, device, guest, n, num):
        self.device, self.guest, self.n, self.num = device, guest, n, num
        self.desc = RING + n * 0x10000
        self.avail = self.desc + 16 * num
        self.used = (self.avail + 4 + 2 * num + 4095) & ~4095
        self.buffers = self.desc + 0x4000
        self.free, self.index = 0, 0
        device.queue(n, num, self.desc, self.avail, self.used)

    def offer(self, outs, ins):
        """One request: bytes that the device reads, and sizes of what it writes."""
        head = self.free
        parts = [(o, 0) for o in outs] + [(bytes(size), 2) for size in ins]
        for i, (data, flag) in enumerate(parts):
            at = self.buffers + 0x200 * self.free
            self.guest.write(at, data)
            more = i + 1 < len(parts)
            self.guest.write(self.desc + 16 * self.free,
                             struct.pack("<QIHH", at, len(data), flag | (1 if more else 0),
                                         self.free + 1 if more else 0))
            self.free += 1
        self.guest.write(self.avail + 4 + 2 * (self.index % self.num), struct.pack("<H", head))
        self.index += 1
        self.guest.write(self.avail + 2, struct.pack("<H", self.index))

    def kick(self):
        self.device.kick(self.n)

    def wait(self, count):
        until = time.monotonic() + PATIENCE_S
        while self.guest.read16(self.used + 2) != count:
            if time.monotonic() > until:
                sys.exit(f"used index is {self.guest.read16(self.used + 2)}, not {count}")


def read_sector(ring, sector):
    ring.offer([struct.pack("<IIQ", 0, 0, sector)], [512, 1])


def drive_blk(guest, device, features, num=16):
    """Three requests are carried out, two more are in the ring."""
    device.begin(features)
    device.config(0)
    ring = Ring(device, guest, 0, num)
    device.ready()
    for sector in range(3):
        read_sector(ring, sector)
        ring.kick()
    ring.wait(3)
    ring.free = 0
    read_sector(ring, 5)
    read_sector(ring, 6)
    return ring


def blk_held(guest, monitor, device, features):
    """One request fails at the host: the machine stops, and the request is held."""
    ring = drive_blk(guest, device, features)
    read_sector(ring, 64)  # which fails
    ring.kick()
    until = time.monotonic() + PATIENCE_S
    while monitor("query-status")["status"] != "io-error":
        if time.monotonic() > until:
            sys.exit("the machine did not stop")
        time.sleep(0.02)


def drive_net(guest, device, features, vectors):
    """Buffers for what is received, and filters set by the control queue."""
    device.begin(features)
    rings = [Ring(device, guest, n, 16) for n in range(3)]
    device.ready()
    for _ in range(4):
        rings[0].offer([], [512])
    rings[0].kick()
    control = rings[2]
    unicast = bytes.fromhex("525400000011525400000012")
    multicast = bytes.fromhex("01005e000001")
    control.offer([bytes([1, 0]), struct.pack("<I", 2) + unicast + struct.pack("<I", 1) + multicast], [1])
    control.kick()
    control.wait(1)
    control.free = 4
    control.offer([bytes([0, 1]), bytes([1])], [1])  # all multicast
    control.kick()
    control.wait(2)
    control.free = 8
    control.offer([bytes([2, 0]), struct.pack("<H", 42)], [1])  # a VLAN
    control.kick()
    control.wait(3)


def drive_packed(guest, device, features):
    """Two requests of a packed ring are carried out, a third is not looked at."""
    if not device.begin(features) >> 34 & 1:
        sys.exit("no packed rings")
    num = 8
    desc = RING
    device.queue(0, num, desc, desc + 0x1000, desc + 0x2000)
    device.ready()

    def offer(at, sector, kick):
        parts = [(struct.pack("<IIQ", 0, 0, sector), 1), (bytes(512), 3), (bytes(1), 2)]
        for i, (data, flag) in reversed(list(enumerate(parts))):
            slot, wrap = (at + i) % num, (at + i) // num % 2 == 0
            flags = flag | (0x80 if wrap else 0x8000)
            address = desc + 0x4000 + 0x200 * (at + i)
            guest.write(address, data)
            guest.write(desc + 16 * slot, struct.pack("<QIHH", address, len(data), at, flags))
        if kick:
            device.kick(0)

    for at in (0, 3, 6):
        offer(at, at, at < 6)
        until = time.monotonic() + PATIENCE_S
        while at < 6 and guest.read16(desc + 16 * at + 14) & 0x8080 != 0x8080:
            if time.monotonic() > until:
                sys.exit("a request was not carried out")


VERSION_1 = 1 << 32
ALL_BLK = VERSION_1 | 1 << 28 | 1 << 9 | 1 << 2
PLAIN = 1 << 9

# name: (words of the command line, what the guest does; None: nothing)
SCENES = {
    "mmio-legacy-blk": (MICROVM + DISK + ["-device", "virtio-blk-device,drive=d0"],
                        lambda g, m: drive_blk(g, Mmio(g, MMIO_LAST, False), PLAIN)),
    "mmio-blk": (MICROVM + DISK + ["-global", "virtio-mmio.force-legacy=false", "-device",
                                   "virtio-blk-device,drive=d0"],
                 lambda g, m: drive_blk(g, Mmio(g, MMIO_LAST, True), ALL_BLK | 1 << 29)),
    "mmio-held-blk": (MICROVM + BAD_DISK + ["-device", "virtio-blk-device,drive=d0,rerror=stop"],
                      lambda g, m: blk_held(g, m, Mmio(g, MMIO_LAST, False), PLAIN)),
    "mmio-many-blk": (MICROVM + BAD_DISK + ["-global", "virtio-mmio.force-legacy=false", "-device",
                                            "virtio-blk-device,drive=d0,rerror=stop,num-queues=4"],
                      lambda g, m: blk_held(g, m, Mmio(g, MMIO_LAST, True), ALL_BLK)),
    "mmio-net": (MICROVM + HUB + ["-global", "virtio-mmio.force-legacy=false", "-device",
                                  "virtio-net-device,netdev=n0,mac=52:54:00:00:00:01"],
                 lambda g, m: drive_net(g, Mmio(g, MMIO_LAST, True), VERSION_1 | 1 << 17 | 1 << 18 | 1 << 19, 0)),
    "pci-blk": (PC + DISK + ["-device", "virtio-blk-pci,drive=d0,addr=4,num-queues=1,vectors=2"],
                lambda g, m: drive_blk(g, Pci(g, 4, 2), ALL_BLK, 256)),
    "pci-many-blk": (PC + BAD_DISK + ["-device", "virtio-blk-pci,drive=d0,addr=4,num-queues=4,vectors=5,rerror=stop"],
                     lambda g, m: blk_held(g, m, Pci(g, 4, 5), ALL_BLK)),
    "pcie-blk": (Q35 + DISK + ["-device", "pcie-root-port,id=rp,chassis=1", "-device",
                               "virtio-blk-pci,drive=d0,bus=rp,num-queues=1,vectors=2"], None),
    "pci-old-blk": (["-M", "pc-i440fx-2.3,accel=tcg", "-m", "16M", "-nodefaults"] + DISK +
                    ["-device", "virtio-blk-pci,drive=d0,addr=4"], None),
    "pci-packed-blk": (PC + DISK + ["-device", "virtio-blk-pci,drive=d0,addr=4,num-queues=1,vectors=2,packed=on"],
                       lambda g, m: drive_packed(g, Pci(g, 4, 2), ALL_BLK | 1 << 34)),
    "pci-net": (PC + HUB + ["-device", "virtio-net-pci,netdev=n0,addr=4,mac=52:54:00:00:00:01,vectors=4,romfile="],
                lambda g, m: drive_net(g, Pci(g, 4, 4), VERSION_1 | 1 << 17 | 1 << 18 | 1 << 19, 4)),
}


def record(name, folder):
    if shutil.which(QEMU) is None:
        print(f"{QEMU} is not installed")
        sys.exit(77)
    words, drive = SCENES[name]
    os.makedirs(folder, exist_ok=True)
    path = {what: os.path.join(folder, what) for what in ("qmp", "qtest", "stream")}
    firmware = os.path.join(folder, "firmware")
    with open(firmware, "wb") as out:  # cli; hlt; jmp to the hlt
        out.write(bytes(65536 - 16) + b"\xfa\xf4\xeb\xfd" + bytes(12))
    child = subprocess.Popen([QEMU, "-bios", firmware, "-display", "none", "-serial", "none", "-monitor", "none",
                              "-qmp", f"unix:{path['qmp']},server=on,wait=off", "-qtest-log", "/dev/null",
                              "-qtest", f"unix:{path['qtest']},server=on,wait=off", *words],
                             start_new_session=True)
    try:
        monitor = Monitor(path["qmp"], child)
        guest = Guest(path["qtest"])
        if drive:
            drive(guest, monitor)
        monitor("stop")
        monitor("migrate", uri=f"exec:cat >{path['stream']}")
        until = time.monotonic() + PATIENCE_S
        while (state := monitor("query-migrate"))["status"] not in ("completed", "failed"):
            if time.monotonic() > until:
                sys.exit(f"{name}: still {state['status']}")
            time.sleep(0.02)
        if state["status"] != "completed":
            sys.exit(f"{name}: {state}")
        monitor("quit")
        child.wait(PATIENCE_S)
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            child.wait()


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(SCENES))
    elif len(sys.argv) == 3 and sys.argv[1] in SCENES:
        record(sys.argv[1], os.path.abspath(sys.argv[2]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
