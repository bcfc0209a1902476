#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""faults.py BIN RESULTS [all | NAME...] - runs on two emulated hosts: what breaks a migration over `rdma:` while memory is
sent, or keeps it from beginning. Host 1 receives, host 0 sends and judges: the status, the code and the phase of the
error, its words and its hint, and a guest that goes on here with all its writes. Then what was broken is mended, and the same
migration is tried again: it completes. Afterwards, and in between, both hosts hold what they held before: queue pairs,
memory regions and whatever else the kernel counts, pinned pages, processes. Without more arguments, the quick ones alone.

The source's error must come within 2 s of the blow. A machine that is loaded stops an emulated one, for seconds even; so each
host watches its own clock meanwhile, and STILL_TIMES what it stood still is allowed besides; and it is judged with `all` only.

A line for each fault in RESULTS/rows, as scripts/results.py reads them, and on stdout with that time. Exit status 0
says only that all were judged."""
import json
import os
import signal
import subprocess
import sys
import threading
import time

HOST = int(os.environ["RIG_HOST"])
SHARED = os.environ["RIG_SHARED"]
PORT = 4444
LIMIT_S = 120
NOTICED_S = 2.0
SLACK_S = 0.5  # a time-out of 2 s ends a little after them; this script looks now and then, in emulation
STILL_TIMES = 3  # what waits for a machine that stood still waits longer than that
GAP_S = 0.05  # who sleeps for 5 ms and wakes after so long was stopped
SET = ["--set", "x-stall-action=switch", "--set", "x-stripe-size=2M"]
UNPRIVILEGED = ["setpriv", "--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock"]

RXE_GONE, RXE_BACK = ["rdma link delete rxe0"], ["rdma link add rxe0 type rxe netdev eth0"]
# A link that goes down under traffic leaves rxe's connection manager mute (its GSI queue pair sends nothing any
# more, whoever asks: Linux 6.1) until the device is made anew.
LINK_DOWN, LINK_UP = ["ip link set dev eth0 down"], ["ip link set dev eth0 up"] + RXE_GONE + RXE_BACK


# Whoever must not be found out by its silence alone.
PATIENT = ["--set", "x-peer-timeout=20000"]
HASTY = ["--set", "x-connect-timeout=1500"]


class Fault:
    """@at: the host that is struck. @before: struck before anything is sent, else once pages move.
    @blow: commands ({pid}: the target's, which then is there already), or a signal to the target. @errors: (code, words
    of the message) that the source may end with. @prefix: of the command at that host. @says: what the target says then."""

    def __init__(self, name, at, blow, mend, errors, before=False, prefix=(), settings=(), says="", quick=False):
        self.name, self.at, self.blow, self.mend = name, at, blow, mend
        self.errors, self.before, self.prefix = errors, before, list(prefix)
        self.settings, self.says, self.quick = list(settings), says, quick
        self.needs_target = isinstance(blow, list) and any("{pid}" in command for command in blow)


NO_LOCK = ["prlimit", "--memlock=0"] + UNPRIVILEGED
FAULTS = (
    Fault("target_is_killed", 1, signal.SIGKILL, [], (("peer-lost", "closed the connection"),), settings=PATIENT,
          quick=True),
    Fault("target_is_stopped", 1, signal.SIGSTOP, [], (("peer-silent", "has been silent"),)),
    # Not at the target: its network card reads no more, the wire between the machines fills up, and the other
    # machine's kernel may stand still in its driver, commands and all.
    # The device is closed before its port is said to be down.
    Fault("link_down_at_the_source", 0, LINK_DOWN, LINK_UP,
          (("link-down", "the port of rxe0"), ("link-down", "did not leave the device")), settings=PATIENT),
    Fault("device_deleted_at_the_target", 1, RXE_GONE, RXE_BACK, (("peer-lost", "closed the connection"),),
          settings=PATIENT),
    Fault("device_deleted_at_the_source", 0, RXE_GONE, RXE_BACK, (("device-lost", "the device rxe0 was removed"),),
          settings=PATIENT, quick=True),
    Fault("no_device_at_the_source", 0, RXE_GONE, RXE_BACK, (("unsupported", "no RDMA device"),), before=True),
    Fault("no_device_at_the_target", 1, RXE_GONE, RXE_BACK, (("timeout", "nothing came in time"), ("connect", "")),
          before=True, settings=HASTY, says="there is no RDMA device on this host [unsupported]"),
    Fault("port_down_at_the_source", 0, LINK_DOWN, LINK_UP, (("link-down", "the port of rxe0 is down"),),
          before=True, quick=True),
    Fault("port_down_at_the_target", 1, LINK_DOWN, LINK_UP, (("timeout", "nothing came in time"), ("connect", "")),
          before=True, settings=HASTY, says="warning: listener: the port of rxe0 is down"),
    Fault("nothing_may_be_locked_at_the_source", 0, [], [], (("limit", "the limit is 0"),), before=True, prefix=NO_LOCK),
    Fault("nothing_may_be_locked_at_the_target", 1, [], [], (("connect", "nobody listens there"),), before=True,
          prefix=NO_LOCK, settings=HASTY, says="the limit is 0 KiB"),
    # It listens, and then may not serve: the source hears why.
    Fault("locked_memory_is_taken_from_the_target", 1, ["prlimit --memlock=0 --pid {pid}"], [],
          (("limit", "refused by the peer"),), before=True, prefix=UNPRIVILEGED, quick=True),
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


def run_all(commands, pid=0):
    for command in commands:
        subprocess.run(command.format(pid=pid).split(), check=True, capture_output=True, text=True)


def events(path):
    return [json.loads(line) for line in read(path).splitlines() if line.endswith("}")]


class Watch:
    """How long this host stood still, from now on."""

    def __init__(self):
        self.still, self.is_over = 0.0, False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.is_over:
            began = time.monotonic()
            time.sleep(0.005)
            gap = time.monotonic() - began
            if gap > GAP_S:
                self.still += gap

    def again(self):
        self.still = 0.0

    def end(self):
        self.is_over = True
        self.thread.join()
        return self.still


# ---- what a host holds ------------------------------------------------------------------------------------


def processes():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "godwit":
                found.append(pid)
        except OSError:
            pass  # the kernel's own, or it has just ended
    return found


def held():
    """All that a migration takes from the kernel. A device that was made anew holds what one that was always there does."""
    rdma = json.loads(subprocess.run(["rdma", "-j", "resource", "show"], check=True, capture_output=True).stdout)
    found = {f"{device['ifname']} {kind}": count for device in rdma for kind, count in device.items()
             if kind not in ("ifindex", "ifname")}
    pages = dict(line.split() for line in read("/proc/vmstat").splitlines())
    found["pinned pages"] = int(pages["nr_foll_pin_acquired"]) - int(pages["nr_foll_pin_released"])
    found["locked pages"] = int(pages["nr_mlock"])
    found["processes"] = len(processes())
    return found


def leaked(before):
    """What is held besides, once all that ends has had its time; "": nothing."""
    try:
        await_that("everything to be given back", lambda: held() == before, 20)
    except RuntimeError:
        now = held()
        return ", ".join(f"{what}: {now.get(what)}, not {before.get(what)}" for what in sorted(now | before)
                         if now.get(what) != before.get(what))
    return ""


# ---- host 1 -----------------------------------------------------------------------------------------------


def start_target(godwit, name, prefix=()):
    with open(f"{SHARED}/{name}.said", "w", encoding="utf-8") as said:
        target = subprocess.Popen(
            [*prefix, godwit, "receive", f"rdma:{os.environ['RIG_ADDR']}:{PORT}"],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    await_that("the target to listen",
               lambda: "listening on" in read(f"{SHARED}/{name}.said") or target.poll() is not None)
    return target


def strike(fault, target):
    """The blow has fallen when its commands are over."""
    if isinstance(fault.blow, list):
        run_all(fault.blow, target.pid if target else 0)
        write(f"{fault.name}.struck", repr(time.time()))
    else:
        write(f"{fault.name}.struck", repr(time.time()))
        target.send_signal(fault.blow)


def end_target(target):
    target.kill()
    target.wait()


def receive(godwit, fault):
    before, is_ours = held(), fault.at == 1
    if is_ours and fault.before and not fault.needs_target:
        strike(fault, None)
    target = start_target(godwit, fault.name, fault.prefix if is_ours else ())
    if fault.needs_target:
        strike(fault, target)
    barrier(f"{fault.name}.listens")
    watch = Watch()
    if is_ours and not fault.before:
        await_that("pages to move", lambda: os.path.exists(f"{SHARED}/{fault.name}.moves"), LIMIT_S)
        watch.again()
        strike(fault, target)
    await_that("the other host's verdict", lambda: os.path.exists(f"{SHARED}/{fault.name}.noticed"), LIMIT_S)
    write(f"{fault.name}.still", repr(watch.end()))
    barrier(f"{fault.name}.over")
    end_target(target)
    if is_ours:
        run_all(fault.mend)
    lost = leaked(before)
    target = start_target(godwit, f"{fault.name}.again")
    barrier(f"{fault.name}.mended")
    barrier(f"{fault.name}.done")
    end_target(target)
    write(f"{fault.name}.leaked", lost or leaked(before))
    barrier(f"{fault.name}.given_back")


# ---- host 0 -----------------------------------------------------------------------------------------------


def sending(godwit, name, prefix, more):
    return prefix + [godwit, "send", f"rdma:{os.environ['RIG_PEER']}:{PORT}", "--ram", "32M", "--dirty-rate", "4M",
                     "--warmup", "0.1", "--json", f"{SHARED}/{name}.json", "--quiet"] + SET + more


def send_broken(godwit, fault):
    """What is wrong with it; the time from the blow to the error: of a source that begins after it, from its beginning."""
    path = f"{os.environ['TMPDIR']}/{fault.name}.events"
    if fault.before and fault.at == 0:
        strike(fault, None)
    watch = Watch()
    with open(f"{SHARED}/{fault.name}.stderr", "w", encoding="utf-8") as said:
        source = subprocess.Popen(
            sending(godwit, fault.name, fault.prefix if fault.at == 0 else [],
                    ["--events", path, "--set", "max-bandwidth=4M"] + fault.settings),
            stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    if not fault.before:
        await_that("pages to move", lambda: any(e["status"] == "active" for e in events(path)), LIMIT_S)
        watch.again()
        if fault.at == 0:
            strike(fault, None)
        else:
            write(f"{fault.name}.moves", "")
            await_that("the blow", lambda: os.path.exists(f"{SHARED}/{fault.name}.struck"))
    await_that("an error", lambda: source.poll() is not None or any(e["error"] for e in events(path)), LIMIT_S)
    noticed = time.time()
    still = watch.end()
    write(f"{fault.name}.noticed", "")
    source.wait(LIMIT_S)
    if fault.before:
        took = next((e["time-ms"] / 1000 for e in events(path) if e["error"]), 0.0)
    else:
        took = noticed - float(read(f"{SHARED}/{fault.name}.struck"))
    return judge(fault, source.returncode), took, still


def judge_time(fault, took, still):
    """Only of a fault that has its own time: one that keeps a connection from being made has the connect time-out. And
    only where all are asked for: beside other tests time says nothing."""
    if "all" not in sys.argv or took <= NOTICED_S + SLACK_S + STILL_TIMES * still or fault.settings == HASTY:
        return ""
    return f"noticed after {took:.1f} s, and the hosts stood still for {still:.2f} s only"


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
    target = read(f"{SHARED}/{fault.name}.said")
    if fault.says not in target:
        wrong.append(f"the target says: {' '.join(target.split())}")
    return "; ".join(wrong)


def send_again(godwit, fault):
    name = f"{fault.name}.again"
    done = subprocess.run(sending(godwit, name, [], ["--set", "x-peer-timeout=30000"]), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=LIMIT_S, check=False)
    return "" if done.returncode == 0 else f"the retry: status {done.returncode}: {' '.join(done.stderr.split())}"


def send(godwit, fault):
    before = held()
    barrier(f"{fault.name}.listens")
    took, still = 0.0, 0.0
    try:
        wrong, took, still = send_broken(godwit, fault)
    finally:
        write(f"{fault.name}.noticed", "")
        barrier(f"{fault.name}.over")
    if fault.at == 1:  # else the other host has no part in it
        still = max(still, float(read(f"{SHARED}/{fault.name}.still")))
    wrong = wrong or judge_time(fault, took, still)
    if fault.at == 0:
        run_all(fault.mend)
    lost = leaked(before)
    barrier(f"{fault.name}.mended")
    wrong = wrong or send_again(godwit, fault)
    barrier(f"{fault.name}.done")
    lost = lost or leaked(before)
    barrier(f"{fault.name}.given_back")
    there = read(f"{SHARED}/{fault.name}.leaked")
    wrong = wrong or (lost and f"left here: {lost}") or (there and f"left at the target: {there}")
    found = json.loads(read(f"{SHARED}/{fault.name}.json") or "{}")
    return wrong, took, still, found.get("error") or {}


def main():
    binaries, results, *asked = sys.argv[1:]
    godwit = f"{binaries}/godwit"
    for fault in FAULTS:
        if not (fault.name in asked or "all" in asked or (fault.quick and not asked)):
            continue
        if HOST == 1:
            receive(godwit, fault)
            continue
        wrong, took, still, error = send(godwit, fault)
        row = f"failed rig.fault_{fault.name}: {wrong}" if wrong else f"passed rig.fault_{fault.name}"
        print(f"{row} [{error.get('code')}, {error.get('phase')}, after {took * 1000:.0f} ms, {still * 1000:.0f} of them "
              f"at a stand: {error.get('message')}; hint: {error.get('hint')}; peer: {error.get('peer')}]", flush=True)
        with open(f"{results}/rows", "a", encoding="utf-8") as rows:
            rows.write(row + "\n")


if __name__ == "__main__":
    main()
