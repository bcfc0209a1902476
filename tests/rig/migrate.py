#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""migrate.py BIN RESULTS SET - runs on emulated hosts: whole migrations over `rdma:`, by the command. On one
host both sides are here; on two, host 1 receives, host 0 sends and judges. A line for each in RESULTS/rows, as
scripts/results.py reads them, and on stdout with its figures; exit status 0 says only that all were judged. SET:

one_host   a writing guest, with 1 and 4 page endpoints, over IPv4 and IPv6, and over libfabric's verbs; idle ones
           of each kind of memory, which are made to go through a second round.
two_hosts  the writing ones. Without GODWIT_TEST_RIG each pair of endpoints and address family is on one host or on two.
netem      those of two_hosts where the wire delays and loses, all pairs.

Judged are the documents of both sides: completed, memory proved by the guest and equal by digest, the wire and
the endpoints that were asked for, not one byte copied in user space. Of one-sided wires besides:

registered      something, at either side, and no more than its memory in whole chunks.
control         what the source said in its first round: 20 messages for each GiB, or begun GiB, of the guest. A
                heartbeat for each second of it comes on top: emulation makes a round long, and is no business of it.
chunks          ready before an endpoint had nothing else to send: at least 95 of 100 where there are CHUNKS_MANY of
                them. Where there are few, all of them belong to the beginning, when nothing can be ready. Told, and
                judged with GODWIT_TEST_RIG set only: it is a matter of time, and a loaded machine has others to do.
second round    of a guest that was idle: less than a hundredth of its pages went again."""
import json
import os
import subprocess
import sys
import time

HOSTS, HOST = int(os.environ["RIG_HOSTS"]), int(os.environ["RIG_HOST"])
SHARED = os.environ["RIG_SHARED"]
LIMIT_S = 240
CHUNK_BYTES = 2 << 20
CHUNKS_MANY = 128
VERBS = "ofi:verbs;ofi_rxm"
os.environ.update(FI_OFI_RXM_USE_SRX="1", FI_UNIVERSE_SIZE="16")  # which it needs, and over soft-RoCE
# A loaded machine stops an emulated one for seconds: at 10 s of patience one migration in six ended where the wire loses.
# The price is there as well: a lost packet with nothing behind it is sent again after a second.
# Whether rounds converge is no question here.
SET = ["--connect-timeout", "30", "--set", "x-peer-timeout=30000", "--set", "x-stall-action=switch",
       "--set", "x-stripe-size=2M"]


def address(family):
    """Of the target, as a URI has it."""
    name = "RIG_PEER" if HOST == 0 else "RIG_ADDR"
    return os.environ[name] if family == 4 else f"[{os.environ[name + '6']}]"


def receive(godwit, uri, name, case):
    """The target; what it says is in a file, which tells the other host when it listens."""
    with open(f"{SHARED}/{name}.said", "w", encoding="utf-8") as said:
        argv = [godwit, "receive", uri, "--json", f"{SHARED}/{name}.target", "--quiet"] + case.target_words()
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said)


def await_listening(name, target):
    deadline = time.monotonic() + 60
    path = f"{SHARED}/{name}.said"
    while "listening on" not in read(path):
        if time.monotonic() > deadline or (target and target.poll() is not None):
            raise RuntimeError("the target does not listen: " + " ".join(read(path).split())[-600:])
        time.sleep(0.05)


def read(path):
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


class Case:
    """@idle: the guest does not write, and goes through a second round all the same."""

    def __init__(self, name, wire="rdma", family=4, channels=2, ram_mib=32, dirty="8M", idle=False, memory="anon",
                 prealloc=False):
        self.name, self.wire, self.family, self.channels = name, wire, family, channels
        self.ram_mib, self.dirty, self.idle, self.memory, self.prealloc = ram_mib, dirty, idle, memory, prealloc

    def target_words(self):
        # The guest's own table comes on top.
        return ["--prealloc", f"{self.ram_mib + 4}M"] if self.prealloc else []

    def source_words(self):
        writes = ["--dirty-rate", "0", "--set", "downtime-limit=0"] if self.idle else ["--dirty-rate", self.dirty]
        channels = ["--set", f"multifd-channels={self.channels}"]
        return ["--ram", f"{self.ram_mib}M", "--memory", self.memory] + channels + writes


ALL = ((4, 1), (4, 4), (6, 1), (6, 4))


def writing(pairs, **more):
    return [Case(f"ipv{family}_{channels}_endpoints", family=family, channels=channels, **more)
            for family, channels in pairs]


def cases(which):
    if which == "netem":
        return writing(ALL, ram_mib=8, dirty="512k")
    is_whole = os.environ.get("GODWIT_TEST_RIG")
    verbs = [Case("verbs_of_ofi", wire=VERBS)]
    if which == "two_hosts":
        return writing(ALL if is_whole else ((4, 1), (6, 4))) + verbs
    # 257 chunks where they are judged: those of the beginning, which are late, are more than 5 in 100 of CHUNKS_MANY
    # on a loaded machine.
    ram_mib = 512 if is_whole else 64
    idle = [Case("idle_anon", idle=True, ram_mib=ram_mib, prealloc=True)]
    idle += [Case(f"idle_{memory}", idle=True, memory=memory) for memory in ("memfd", "hugetlb")]
    return writing(ALL if is_whole else ((4, 4), (6, 1))) + verbs + idle


def send(godwit, uri, name, case):
    argv = [godwit, "send", uri, "--warmup", "0.2", "--digest", "--json", f"{SHARED}/{name}.source", "--quiet"]
    done = subprocess.run(argv + case.source_words() + SET, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=LIMIT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"send: status {done.returncode}: {' '.join(done.stderr.split())[-600:]}")


def judge(name, case):
    """What is wrong with the two documents, as one sentence, none if nothing is; the figures."""
    source, target = (json.loads(read(f"{SHARED}/{name}.{side}")) for side in ("source", "target"))
    wrong = []
    for side, found in ("source", source), ("target", target):
        for what, is_so in (("status", found["status"] == "completed"), ("verified", found["guest"]["verified"]),
                            ("wire", found["wire"]["name"] == case.wire),
                            ("endpoints", found["wire"]["endpoints"] == case.channels),
                            ("copied-bytes", found["wire"]["copied-bytes"] == 0)):
            if not is_so:
                wrong.append(f"{what} of the {side}")
    if not source["guest"]["digest"] or source["guest"]["digest"] != target["guest"]["digest"]:
        wrong.append("digest")
    if (source["guest"]["writes"] == 0) != case.idle:
        wrong.append("a guest that writes, or does not")
    figures, more = judge_figures(case, source, target)
    return ", ".join(wrong + more), figures


def judge_figures(case, source, target):
    wire, rounds, pages = source["wire"], source["rounds"], source["ram"]["total"] // source["ram"]["page-size"]
    first, late = rounds[0], wire["chunks-needed"] - wire["chunks-ready"]
    again = sum(later["normal"] + later["duplicate"] for later in rounds[1:])
    peaks = [found["wire"]["registered-bytes-peak"] for found in (source, target)]
    # A chunk of each of its blocks may reach past the block's end: two blocks.
    room = source["ram"]["total"] + 2 * CHUNK_BYTES
    said_max = 20 * -(-source["ram"]["total"] // (1 << 30)) + int(first["duration-ms"] / 1000) + 1
    wrong = []
    if not all(0 < peak <= room for peak in peaks):
        wrong.append(f"{peaks} bytes registered, of {room}")
    if first["control-messages"] > said_max:
        wrong.append(f"{first['control-messages']} control messages in the first round, not {said_max}")
    if os.environ.get("GODWIT_TEST_RIG") and wire["chunks-needed"] >= CHUNKS_MANY and late * 20 > wire["chunks-needed"]:
        wrong.append(f"{late} of {wire['chunks-needed']} chunks were late")
    if case.idle and (len(rounds) < 2 or again * 100 >= pages):
        wrong.append(f"{again} of {pages} pages went again in {len(rounds) - 1} more rounds")
    return (f"first round {first['duration-ms']:.0f} ms, {first['control-messages']} control messages, {late} of "
            f"{wire['chunks-needed']} chunks late, {peaks[0] >> 10} and {peaks[1] >> 10} KiB registered, {again} of "
            f"{pages} pages again"), wrong


def migrate(godwit, name, case):
    uri = f"{case.wire}:{address(case.family)}:4444"
    target = receive(godwit, uri, name, case) if HOST == HOSTS - 1 else None
    try:
        if HOST == 0:
            await_listening(name, target)
            send(godwit, uri, name, case)
        if target:
            target.wait(LIMIT_S)
    finally:
        if target and target.poll() is None:
            target.kill()
            target.wait()
        # The target's document is there once its process has ended, whichever host that was on.
        subprocess.run(["/run/rig/barrier", name], check=True)
    return judge(name, case) if HOST == 0 else ("", "")


def main():
    binaries, results, which = sys.argv[1:]
    every = cases(which)
    if any(case.memory == "hugetlb" for case in every):
        with open("/proc/sys/vm/nr_hugepages", "w", encoding="ascii") as pool:
            pool.write("40")  # of 2 MiB: both sides of a guest of 32 MiB, and its table
    for case in every:
        name, figures = f"{which}_{case.name}", ""
        try:
            wrong, figures = migrate(f"{binaries}/godwit", name, case)
        except (RuntimeError, OSError, ValueError, KeyError, subprocess.SubprocessError) as why:
            wrong = str(why)
        if HOST != 0:
            continue
        row = f"failed rig.{name}: {wrong}" if wrong else f"passed rig.{name}"
        print(f"{row} ({figures})", flush=True)
        with open(f"{results}/rows", "a", encoding="utf-8") as rows:
            rows.write(row + "\n")


if __name__ == "__main__":
    main()
