#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Records what a stock QEMU writes when it migrates a machine that never ran: record.py SCENE DIR.

The stream goes to DIR/stream. Where the machine's memory is a file, that is DIR/ram, and block
"ram0" of the stream must equal it. `record.py --list` prints the scenes. Exits 77 where there is no
qemu-system-x86_64. The machine is stopped throughout (-S) unless a scene says that it runs.
"""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

PATIENCE_S = 120
QEMU = os.environ.get("GODWIT_QEMU", "qemu-system-x86_64")

PC = ["-M", "pc-i440fx-7.2,accel=tcg"]
Q35 = ["-M", "q35,accel=tcg"]
MICROVM = ["-M", "microvm,accel=tcg"]
DISK = ["-blockdev", "driver=null-co,size=1048576,read-zeroes=on,node-name={0}"]


def disk(name):
    return [word.format(name) for word in DISK]


def file_ram(size, machine):
    """RAM in a file, private: what the guest changes shows in the stream only."""
    backend = f"memory-backend-file,id=ram0,size={size},mem-path={{dir}}/ram,share=on"
    return ["-m", size, "-object", backend, "-M", f"{machine},accel=tcg,memory-backend=ram0"]


MANY = [
    *disk("d0"), *disk("d1"), *disk("d2"), *disk("d3"),
    "-device", "virtio-blk-pci,drive=d0",
    "-netdev", "hubport,id=n0,hubid=0", "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01",
    "-netdev", "hubport,id=n1,hubid=1", "-device", "e1000,netdev=n1",
    "-device", "qemu-xhci,id=xhci", "-device", "usb-tablet,bus=xhci.0", "-device", "usb-kbd,bus=xhci.0",
    "-device", "usb-storage,bus=xhci.0,drive=d1",
    "-device", "virtio-scsi-pci,id=scsi", "-device", "scsi-hd,bus=scsi.0,drive=d2",
    "-device", "lsi53c895a,id=lsi", "-device", "scsi-hd,bus=lsi.0,drive=d3",
    "-audiodev", "none,id=a0", "-device", "intel-hda", "-device", "hda-duplex,audiodev=a0",
    "-device", "AC97,audiodev=a0",
    "-device", "virtio-rng-pci", "-device", "virtio-balloon-pci", "-device", "virtio-serial-pci",
]

MICROVM_MANY = [
    *disk("d0"), "-device", "virtio-blk-device,drive=d0",
    "-netdev", "hubport,id=n0,hubid=0", "-device", "virtio-net-device,netdev=n0",
]

# name: (words of the command line, capabilities, parameters, what else)
SCENES = {
    "pc": (PC + ["-m", "16M", "-nodefaults"], {}, {}, {}),
    "pc-defaults": (PC + ["-m", "64M"], {}, {}, {}),
    "q35": (Q35 + ["-m", "64M"], {}, {}, {}),
    "microvm": (MICROVM + ["-m", "32M"], {}, {}, {}),
    "microvm-blk": (MICROVM + ["-m", "32M", *MICROVM_MANY], {}, {}, {}),
    "pc-many": (PC + ["-m", "64M", "-smp", "2"] + MANY, {}, {}, {}),
    "q35-many": (Q35 + ["-m", "96M", "-smp", "2"] + MANY, {}, {}, {}),
    "uuid": (PC + ["-m", "16M", "-nodefaults", "-uuid", "00112233-4455-6677-8899-aabbccddeeff"],
             {"validate-uuid": True}, {}, {}),
    "return-path": (PC + ["-m", "16M", "-nodefaults"], {"return-path": True}, {}, {"peer": "pong"}),
    "postcopy-advised": (PC + ["-m", "16M", "-nodefaults"], {"postcopy-ram": True}, {},
                         {"peer": "pong"}),
    "ignore-shared": (file_ram("16M", "pc-i440fx-7.2") + ["-nodefaults"], {"x-ignore-shared": True},
                      {}, {}),
    "no-footers": (["-M", "pc-i440fx-2.3,accel=tcg", "-m", "16M", "-nodefaults"], {}, {}, {}),
    "no-footers-many": (["-M", "pc-i440fx-2.3,accel=tcg", "-m", "64M", *MANY], {}, {}, {}),
    "no-description": (["-M", "pc-i440fx-7.2,accel=tcg,suppress-vmdesc=on", "-m", "16M",
                        "-nodefaults"], {}, {}, {}),
    "neither": (["-M", "pc-i440fx-2.3,accel=tcg,suppress-vmdesc=on", "-m", "16M", "-nodefaults"],
                {}, {}, {}),
    "ram-16m": (file_ram("16M", "pc-i440fx-7.2"), {}, {}, {"fill": 1}),
    "ram-64m": (file_ram("64M", "q35"), {}, {}, {"fill": 2}),
    "ram-256m": (file_ram("256M", "pc-i440fx-7.2") + MANY, {}, {}, {"fill": 3}),
    "ram-microvm": (file_ram("48M", "microvm") + MICROVM_MANY, {}, {}, {"fill": 4}),
    "ram-microvm-runs": (file_ram("48M", "microvm") + MICROVM_MANY, {}, {}, {"fill": 5, "runs": True}),
    "compress": (file_ram("16M", "pc-i440fx-7.2"), {"compress": True}, {}, {"fill": 1}),
    "xbzrle": (file_ram("16M", "pc-i440fx-7.2") + ["-nodefaults", "-gdb",
                                                   "unix:{dir}/gdb,server=on,wait=off"],
               {"xbzrle": True, "pause-before-switchover": True}, {"max-bandwidth": 400000, "downtime-limit": 1}, {"scribble": 12}),
    "background-snapshot": (PC + ["-m", "16M", "-nodefaults"], {"background-snapshot": True}, {},
                            {"runs": True}),
    "running": (PC + ["-m", "32M"], {}, {}, {"runs": True}),
    "postcopy": (PC + ["-m", "16M", "-nodefaults"], {"postcopy-ram": True},
                 {"max-bandwidth": 40000}, {"peer": "pong", "postcopy": True}),
    "postcopy-huge": (["-M", "pc-i440fx-7.2,accel=tcg,memory-backend=ram0", "-m", "16M", "-nodefaults",
                       "-object", "memory-backend-memfd,id=ram0,size=16M,hugetlb=on,hugetlbsize=2M"],
                      {"postcopy-ram": True}, {"max-bandwidth": 40000},
                      {"peer": "pong", "postcopy": True}),  # wants 8 huge pages
    "e1000": (PC + ["-m", "16M", "-nodefaults", "-netdev", "hubport,id=n0,hubid=0", "-device",
                    "e1000,netdev=n0"], {}, {}, {}),
    "e1000-plain": (PC + ["-m", "16M", "-nodefaults", "-netdev", "hubport,id=n0,hubid=0", "-device",
                          "e1000,netdev=n0,mitigation=off,extra_mac_registers=off"], {}, {}, {}),
    "multifd": (PC + ["-m", "16M", "-nodefaults"], {"multifd": True}, {}, {"peer": "multifd"}),
}


class Monitor:
    def __init__(self, path, child):
        self.socket = socket.socket(socket.AF_UNIX)
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError:
                if child.poll() is not None:
                    sys.exit("the machine did not start")
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        self.file = self.socket.makefile("rw")
        json.loads(self.file.readline())
        self("qmp_capabilities")

    def __call__(self, command, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if "error" in answer:
                sys.exit(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]


def fill(path, seed):
    """A third of the pages zero, a third of one byte, a third noise; the same for one seed."""
    state = seed
    with open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        for at in range(0, size, 4096):
            state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
            kind = (state >> 40) % 3
            if kind == 0:
                continue
            page = bytes([1 + (state >> 50) % 255]) * 4096
            if kind == 2:
                page = (state | 1).to_bytes(8, "little") * 512
            file.seek(at)
            file.write(page)


class Debugger:
    """Writes the stopped guest's memory, as a debugger does: QEMU marks it dirty."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self("Qqemu.PhyMemMode:1")

    def __call__(self, text):
        self.socket.sendall(b"$%s#%02x" % (text.encode(), sum(text.encode()) % 256))
        answer = b""
        while not (len(answer) > 3 and answer[-3:-2] == b"#"):
            answer += self.socket.recv(4096)
        self.socket.sendall(b"+")
        if b"$OK" not in answer:
            sys.exit(f"{text}: {answer}")

    def write(self, address, data):
        self(f"M{address:x},{len(data):x}:{data.hex()}")


def scribble(debugger, turn):
    """A few bytes in each of 64 pages: others in each turn, some at a page's end."""
    for page in range(64):
        data = bytes((turn * 7 + page * 3 + i) % 256 for i in range(1 + (turn + page) % 200))
        offset = (turn * 613 + page * 97) % (4096 - len(data))
        debugger.write(0x100000 + page * 4096 + offset, data)
        if page % 5 == 0:
            debugger.write(0x100000 + page * 4096 + 4095, bytes([turn % 256]))


def answer_pings(listener, path):
    """Play the other side: keep what comes, answer each ping of the main channel."""
    connection, _ = listener.accept()
    with open(path, "wb") as out, open(path + ".back", "wb") as back:
        def say(data):
            try:
                connection.sendall(data)
            except OSError:
                return
            back.write(data)

        said, seen, shut = 0, b"", False
        connection.settimeout(2)
        while True:
            try:
                data = connection.recv(1 << 20)
            except socket.timeout:
                if not shut:
                    say(bytes.fromhex("0001000400000000"))
                    shut = True
                continue
            if not data:
                return
            out.write(data)
            seen = (seen + data)[-(1 << 20) - 16:]
            for value in range(said + 1, 5):
                if bytes.fromhex("08000200040000000%d" % value) in seen:
                    say(bytes.fromhex("00020004") + value.to_bytes(4, "big"))
                    said = value


def keep_all(listener, path, count):
    """The main channel to @path, the others to @path.1 ..."""
    import threading

    def keep(connection, name):
        with open(name, "wb") as out:
            while True:
                data = connection.recv(1 << 20)
                if not data:
                    return
                out.write(data)

    for i in range(count):
        connection, _ = listener.accept()
        name = path if i == 0 else f"{path}.{i}"
        threading.Thread(target=keep, args=(connection, name)).start()


def record(name, folder):
    words, capabilities, parameters, more = SCENES[name]
    words = [word.replace("{dir}", folder) for word in words]
    path = os.path.join(folder, "stream")
    monitor_path = os.path.join(folder, "qmp")
    command = [QEMU, "-S", "-display", "none", "-serial", "none", "-monitor", "none",
               "-qmp", f"unix:{monitor_path},server=on,wait=off", *words]
    if shutil.which(QEMU) is None:
        print(f"{QEMU} is not installed")
        sys.exit(77)
    os.makedirs(folder, exist_ok=True)
    child = subprocess.Popen(command, start_new_session=True)
    import threading
    try:
        monitor = Monitor(monitor_path, child)
        if more.get("fill"):
            fill(os.path.join(folder, "ram"), more["fill"])
        if capabilities:
            monitor("migrate-set-capabilities",
                    capabilities=[{"capability": c, "state": s} for c, s in capabilities.items()])
        if parameters:
            monitor("migrate-set-parameters", **parameters)
        if more.get("runs"):
            monitor("cont")
        if more.get("scribble"):
            debugger = Debugger(os.path.join(folder, "gdb"))
            scribble(debugger, 0)
        thread = None
        if "peer" in more:
            socket_path = os.path.join(folder, "peer")
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(socket_path)
            listener.listen(8)
            if more["peer"] == "multifd":
                thread = threading.Thread(target=keep_all, args=(listener, path, 3))
            else:
                thread = threading.Thread(target=answer_pings, args=(listener, path))
            thread.start()
            uri = f"unix:{socket_path}"
        else:
            uri = f"exec:cat >{path}"
        monitor("migrate", uri=uri)
        if more.get("postcopy"):
            time.sleep(1)
            monitor("migrate-start-postcopy")
            time.sleep(1)
            monitor("migrate-set-parameters", **{"max-bandwidth": 1 << 30, "max-postcopy-bandwidth": 1 << 30})
        until, passes, told = time.monotonic() + PATIENCE_S, 0, False
        while True:
            state = monitor("query-migrate")
            if state["status"] in ("completed", "failed"):
                break
            if state["status"] == "pre-switchover":  # what was written until now is sent, what comes later not
                monitor("migrate-continue", state="pre-switchover")
                more = {}
            passes += 1
            rounds = state.get("ram", {}).get("dirty-sync-count", 0)
            if rounds < more.get("scribble", 0):
                scribble(debugger, passes)
            if (more.get("runs") and passes == 100) or ("scribble" in more and rounds >= more["scribble"] and not told):
                told = True
                monitor("stop")
                monitor("migrate-set-parameters", **{"max-bandwidth": 1 << 30, "downtime-limit": 300})
            if time.monotonic() > until:
                sys.exit(f"{name}: still {state['status']}")
            time.sleep(0.05)
        if state["status"] != "completed":
            sys.exit(f"{name}: {state}")
        with open(os.path.join(folder, "state.json"), "w") as out:
            json.dump(state, out)
        monitor("quit")
        child.wait(PATIENCE_S)
        if thread:
            thread.join(PATIENCE_S)
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
