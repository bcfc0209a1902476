#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""migrate.py BIN RESULTS PREFIX - runs on emulated hosts: whole migrations of a writing guest over `rdma:`, by
the command, with 1 and 4 page endpoints, over IPv4 and IPv6, and over libfabric's verbs. On one host both sides are here; on two, host 1
receives, host 0 sends and judges. A line for each in RESULTS/rows, as scripts/results.py reads them; exit
status 0 says only that all were judged.

Judged are the documents of both sides: completed, memory proved by the guest and equal by digest, the
wire and the endpoints that were asked for, not one byte copied in user space."""
import json
import os
import subprocess
import sys
import time

HOSTS, HOST = int(os.environ["RIG_HOSTS"]), int(os.environ["RIG_HOST"])
SHARED = os.environ["RIG_SHARED"]
LIMIT_S = 240
VERBS = "ofi:verbs;ofi_rxm"
os.environ.update(FI_OFI_RXM_USE_SRX="1", FI_UNIVERSE_SIZE="16")  # which it needs, and over soft-RoCE
# A loaded machine stops an emulated one for seconds. Whether rounds converge is no question here.
SET = ["--connect-timeout", "30", "--set", "x-peer-timeout=30000", "--set", "x-stall-action=switch",
       "--set", "x-stripe-size=2M"]


def address(family):
    """Of the target, as a URI has it."""
    name = "RIG_PEER" if HOST == 0 else "RIG_ADDR"
    return os.environ[name] if family == 4 else f"[{os.environ[name + '6']}]"


def receive(godwit, uri, name):
    """The target; what it says is in a file, which tells the other host when it listens."""
    with open(f"{SHARED}/{name}.said", "w", encoding="utf-8") as said:
        return subprocess.Popen([godwit, "receive", uri, "--json", f"{SHARED}/{name}.target", "--quiet"],
                                stdin=subprocess.DEVNULL, stdout=said, stderr=said)


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


def send(godwit, uri, name, channels):
    argv = [godwit, "send", uri, "--ram", "32M", "--dirty-rate", "8M", "--warmup", "0.2", "--digest", "--json",
            f"{SHARED}/{name}.source", "--set", f"multifd-channels={channels}", "--quiet"] + SET
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"send: status {done.returncode}: {' '.join(done.stderr.split())[-600:]}")


def judge(name, wire, channels):
    """What is wrong with the two documents, as one sentence; none if nothing is."""
    source, target = (json.loads(read(f"{SHARED}/{name}.{side}")) for side in ("source", "target"))
    wrong = []
    for side, found in ("source", source), ("target", target):
        for what, is_so in (("status", found["status"] == "completed"), ("verified", found["guest"]["verified"]),
                            ("wire", found["wire"]["name"] == wire),
                            ("endpoints", found["wire"]["endpoints"] == channels),
                            ("copied-bytes", found["wire"]["copied-bytes"] == 0)):
            if not is_so:
                wrong.append(f"{what} of the {side}")
    if not source["guest"]["digest"] or source["guest"]["digest"] != target["guest"]["digest"]:
        wrong.append("digest")
    if source["guest"]["writes"] == 0:
        wrong.append("a guest that writes")
    return ", ".join(wrong)


def migrate(godwit, wire, family, channels, name):
    uri = f"{wire}:{address(family)}:4444"
    target = receive(godwit, uri, name) if HOST == HOSTS - 1 else None
    try:
        if HOST == 0:
            await_listening(name, target)
            send(godwit, uri, name, channels)
        if target:
            target.wait(LIMIT_S)
    finally:
        if target and target.poll() is None:
            target.kill()
            target.wait()
        # The target's document is there once its process has ended, whichever host that was on.
        subprocess.run(["/run/rig/barrier", name], check=True)
    return judge(name, wire, channels) if HOST == 0 else ""


def main():
    binaries, results, prefix = sys.argv[1:]
    cases = [(f"ipv{family}_{channels}_endpoints", "rdma", family, channels) for family in (4, 6) for channels in (1, 4)]
    for case, wire, family, channels in cases + [("verbs_of_ofi", VERBS, 4, 2)]:
        name = f"{prefix}_{case}"
        try:
            wrong = migrate(f"{binaries}/godwit", wire, family, channels, name)
        except (RuntimeError, OSError, ValueError, KeyError, subprocess.SubprocessError) as why:
            wrong = str(why)
        if HOST != 0:
            continue
        row = f"failed rig.{name}: {wrong}" if wrong else f"passed rig.{name}"
        print(row)
        with open(f"{results}/rows", "a", encoding="utf-8") as rows:
            rows.write(row + "\n")


if __name__ == "__main__":
    main()
