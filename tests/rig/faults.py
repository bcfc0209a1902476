#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""faults.py BIN RESULTS - runs on two emulated hosts: what breaks a migration over `rdma:` while memory is sent,
or keeps it from beginning. Host 1 receives, host 0 sends and judges: the status, the code and the phase of the
error, its words and its hint, and a guest that goes on here with all its writes. Then what was broken is mended, and the same
migration is tried again: it completes.

A line for each fault in RESULTS/rows, as scripts/results.py reads them, and on stdout with the time from the
blow to the source's error, which is a figure and no part of the judgement: a loaded machine stops an
emulated one for seconds. Exit status 0 says only that all were judged."""
import json
import os
import signal
import subprocess
import sys
import time

HOST = int(os.environ["RIG_HOST"])
SHARED = os.environ["RIG_SHARED"]
PORT = 4444
LIMIT_S = 120
SET = ["--set", "x-stall-action=switch", "--set", "x-stripe-size=2M"]
UNPRIVILEGED = ["setpriv", "--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock"]

RXE_GONE, RXE_BACK = ["rdma link delete rxe0"], ["rdma link add rxe0 type rxe netdev eth0"]
# A link that goes down under traffic leaves rxe's connection manager mute (its GSI queue pair sends nothing any
# more, whoever asks: Linux 6.1) until the device is made anew.
LINK_DOWN, LINK_UP = ["ip link set dev eth0 down"], ["ip link set dev eth0 up"] + RXE_GONE + RXE_BACK


class Fault:
    """@at: the host that is struck. @before: struck before anything is sent, else once pages move.
    @blow: commands, or a signal to the target. @errors: (code, words of the message) that the source may end with."""

    def __init__(self, name, at, blow, mend, errors, before=False, prefix=()):
        self.name, self.at, self.blow, self.mend = name, at, blow, mend
        self.errors, self.before, self.prefix = errors, before, list(prefix)


FAULTS = (
    # A dying process gives its memory back before its queue pairs, or after.
    Fault("target_is_killed", 1, signal.SIGKILL, [],
          (("peer-lost", "closed the connection"), ("protocol", "no longer, lent"))),
    Fault("target_is_stopped", 1, signal.SIGSTOP, [], (("peer-lost", "has been silent"),)),
    # Not at the target: its network card reads no more, the wire between the machines fills up, and the other
    # machine's kernel may stand still in its driver, commands and all.
    Fault("link_down_at_the_source", 0, LINK_DOWN, LINK_UP, (("peer-lost", "the port of rxe0 is down"),)),
    Fault("device_deleted_at_the_target", 1, RXE_GONE, RXE_BACK,
          (("peer-lost", "closed the connection"), ("protocol", "no longer, lent"))),
    Fault("device_deleted_at_the_source", 0, RXE_GONE, RXE_BACK, (("io", "the device rxe0 was removed"),)),
    Fault("no_device_at_the_source", 0, RXE_GONE, RXE_BACK, (("unsupported", "no RDMA device"),), before=True),
    Fault("port_down_at_the_start", 0, LINK_DOWN, LINK_UP, (("connect", "unreachable"),), before=True),
    Fault("nothing_may_be_locked", 0, [], [], (("limit", "the limit is 0"),), before=True,
          prefix=["prlimit", "--memlock=0"] + UNPRIVILEGED),
)


def read(path):
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def write(name, text):
    """Whole when the other host sees it."""
    path = f"{SHARED}/{name}"
    with open(f"{path}.{HOST}", "w", encoding="utf-8") as f:
        f.write(text)
    os.rename(f"{path}.{HOST}", path)


def await_that(what, is_so, limit_s=60):
    deadline = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {limit_s} s for {what}")
        time.sleep(0.005)


def barrier(name):
    subprocess.run(["/run/rig/barrier", name], check=True)


def run_all(commands):
    for command in commands:
        subprocess.run(command.split(), check=True, capture_output=True, text=True)


def events(path):
    return [json.loads(line) for line in read(path).splitlines() if line.endswith("}")]


# ---- host 1 -----------------------------------------------------------------------------------------------


def start_target(godwit, name):
    with open(f"{SHARED}/{name}.said", "w", encoding="utf-8") as said:
        target = subprocess.Popen(
            [godwit, "receive", f"rdma:{os.environ['RIG_ADDR']}:{PORT}", "--quiet"],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    await_that("the target to listen",
               lambda: "listening on" in read(f"{SHARED}/{name}.said") or target.poll() is not None)
    return target


def strike(fault, target):
    write(f"{fault.name}.struck", repr(time.time()))
    if isinstance(fault.blow, list):
        run_all(fault.blow)
    else:
        target.send_signal(fault.blow)


def receive(godwit, fault):
    target = start_target(godwit, fault.name)
    barrier(f"{fault.name}.listens")
    if fault.at == 1:
        await_that("pages to move", lambda: os.path.exists(f"{SHARED}/{fault.name}.moves"), LIMIT_S)
        strike(fault, target)
    barrier(f"{fault.name}.over")
    target.kill()
    target.wait()
    if fault.at == 1:
        run_all(fault.mend)
    target = start_target(godwit, f"{fault.name}.again")
    barrier(f"{fault.name}.mended")
    barrier(f"{fault.name}.done")
    target.kill()
    target.wait()


# ---- host 0 -----------------------------------------------------------------------------------------------


def sending(godwit, name, prefix, more):
    return prefix + [godwit, "send", f"rdma:{os.environ['RIG_PEER']}:{PORT}", "--ram", "32M", "--dirty-rate", "4M",
                     "--warmup", "0.1", "--json", f"{SHARED}/{name}.json", "--quiet"] + SET + more


def send_broken(godwit, fault):
    """What is wrong with it, and the figure."""
    path = f"{os.environ['TMPDIR']}/{fault.name}.events"
    if fault.before:
        strike(fault, None)
    with open(f"{SHARED}/{fault.name}.stderr", "w", encoding="utf-8") as said:
        source = subprocess.Popen(
            sending(godwit, fault.name, fault.prefix, ["--events", path, "--set", "max-bandwidth=4M"]),
            stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    if not fault.before:
        await_that("pages to move", lambda: any(e["status"] == "active" for e in events(path)), LIMIT_S)
        if fault.at == 0:
            strike(fault, None)
        else:
            write(f"{fault.name}.moves", "")
    await_that("an error", lambda: source.poll() is not None or any(e["error"] for e in events(path)), LIMIT_S)
    noticed = time.time()
    source.wait(LIMIT_S)
    struck = float(read(f"{SHARED}/{fault.name}.struck"))
    return judge(fault, source.returncode), noticed - struck


def judge(fault, status):
    said = " ".join(read(f"{SHARED}/{fault.name}.stderr").split())
    if status != 1:
        return f"status {status}: {said}"
    found = json.loads(read(f"{SHARED}/{fault.name}.json"))
    error, wrong = found["error"], []
    if found["status"] != "failed":
        wrong.append(f"status {found['status']}")
    if not error["hint"] or not error["phase"]:
        wrong.append(f"no hint or no phase: {said}")
    if not any(error["code"] == code and words in error["message"] for code, words in fault.errors):
        wrong.append(f"another error: {said}")
    if not found["guest"]["verified"]:
        wrong.append("the guest that stayed is not whole")
    return "; ".join(wrong)


def send_again(godwit, fault):
    name = f"{fault.name}.again"
    done = subprocess.run(sending(godwit, name, [], ["--set", "x-peer-timeout=30000"]), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=LIMIT_S, check=False)
    return "" if done.returncode == 0 else f"the retry: status {done.returncode}: {' '.join(done.stderr.split())}"


def send(godwit, fault):
    barrier(f"{fault.name}.listens")
    took = 0.0
    try:
        wrong, took = send_broken(godwit, fault)
    finally:
        barrier(f"{fault.name}.over")
    if fault.at == 0:
        run_all(fault.mend)
    barrier(f"{fault.name}.mended")
    wrong = wrong or send_again(godwit, fault)
    barrier(f"{fault.name}.done")
    found = json.loads(read(f"{SHARED}/{fault.name}.json") or "{}")
    return wrong, took, found.get("error") or {}


def main():
    binaries, results = sys.argv[1:]
    godwit = f"{binaries}/godwit"
    for fault in FAULTS:
        if HOST == 1:
            receive(godwit, fault)
            continue
        wrong, took, error = send(godwit, fault)
        row = f"failed rig.fault_{fault.name}: {wrong}" if wrong else f"passed rig.fault_{fault.name}"
        print(f"{row} [{error.get('code')}, {error.get('phase')}, after {took * 1000:.0f} ms: {error.get('message')}; "
              f"hint: {error.get('hint')}]")
        with open(f"{results}/rows", "a", encoding="utf-8") as rows:
            rows.write(row + "\n")


if __name__ == "__main__":
    main()
