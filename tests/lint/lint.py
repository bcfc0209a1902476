#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Room lint: what docs/style.md says about the tree that a program can check.

    lint.py CHECK [--root TREE] [--build BUILD]

Prints a line per finding, `path:line: what`, and exits 1 if there is one. tests/lint/selftest.py
breaks each rule in a tree of its own and expects the finding.
"""
import argparse
import fnmatch
import os
import re
import subprocess
import sys

# ---- the tables of docs/style.md ---------------------------------------------------------------

# Which files of the tree a room may include, besides <godwit/...> and what the system has.
ROOM_INCLUDES = {
    "include": [],
    "core/base": ["core/base/*", "gw_config.h"],
    "transport": ["transport/*", "core/base/*", "gw_config.h"],
    "ram": ["ram/*", "transport/transport.h", "core/base/*", "gw_config.h"],
    "control": ["control/*", "transport/transport.h", "core/base/*", "gw_config.h"],
    "core": ["core/*", "ram/*", "control/*", "transport/transport.h", "gw_config.h"],
    "tools": ["tools/*", "devices/*"],
    "devices": ["devices/*"],
    "examples": ["examples/*", "devices/*"],
}

# Where the headers of other people's libraries may be included. Anywhere in tests and perf.
VENDOR_ROOMS = {
    "xxhash.h": ["core/base"],
    "infiniband/*": ["transport"],
    "rdma/*": ["transport"],
    "openssl/*": ["transport"],
    "liburing*": ["transport"],
    "zstd*.h": ["ram"],
    "lz4*.h": ["ram"],
    "zlib.h": ["ram"],
    "jansson.h": ["control", "tools"],
}

# Symbols that an object of the library may not ask for, and the files that may.
FORBIDDEN_SYMBOLS = [
    (r"ibv_\w+|rdma_\w+|fi_\w+", ["transport/*"], "a wire's library belongs to transport/"),
    (
        r"socket|socketpair|connect|accept4?|bind|listen|sendmsg|sendto|send|recvmsg|recvfrom|recv"
        r"|getaddrinfo|setsockopt|getsockopt",
        ["transport/*"],
        "sockets belong to transport/",
    ),
    (
        r"stdout|stderr|v?printf|v?dprintf|__v?printf_chk|puts|putchar|perror|psignal|v?errx?|v?warnx?"
        r"|v?syslog",
        [],
        "the library prints nothing",
    ),
    (r"abort|exit|quick_exit|_Exit|__assert_fail", [], "the library ends no process"),
    (r"_exit", ["transport/*"], "the library ends no process"),
    (
        r"clock_gettime|clock_nanosleep|gettimeofday|time|timespec_get|nanosleep|usleep|sleep",
        ["core/base/clock.c"],
        "core/base/clock.c is the only clock and the only sleep",
    ),
]
# Only the object that holds what gw_assert calls may end the process, and say why.
ASSERT_SYMBOL = re.compile(r"gw_assert\w*")
ASSERT_MAY = ("abort", "stderr")

LIBRARY_ROOMS = ("core/", "ram/", "control/", "transport/")
SOURCE_NAMES = ("*.c", "*.h", "*.cc", "*.py", "*.sh", "*.cmake", "*.map", "*/CMakeLists.txt", "CMakeLists.txt")
# The spikes leave with the issue they belong to; data is somebody else's bytes.
NOT_OURS = ("tests/spike/*", "tests/data/*", "tests/fuzz/corpus/*")


class Tree:
    def __init__(self, root, build):
        self.root = os.path.abspath(root)
        self.build = build and os.path.abspath(build)
        self.findings = 0
        self._paths = None

    def say(self, path, line, what):
        print(f"{path}:{line}: {what}")
        self.findings += 1

    def paths(self):
        """Every file of the tree that git does not ignore (all of them where there is no git)."""
        if self._paths is None:
            self._paths = [p for p in sorted(self._list()) if not matches(p, NOT_OURS)]
        return self._paths

    def _list(self):
        if os.path.exists(os.path.join(self.root, ".git")):
            git = ["git", "-c", "safe.directory=*", "-C", self.root, "ls-files", "-z", "--cached", "--others",
                   "--exclude-standard"]
            done = subprocess.run(git, stdout=subprocess.PIPE, check=True)
            names = {name for name in done.stdout.decode().split("\0") if name}
            return [n for n in names if os.path.isfile(os.path.join(self.root, n))]
        found = []
        for folder, folders, names in os.walk(self.root):
            folders[:] = [f for f in folders if f not in (".git", "build")]
            found += [os.path.relpath(os.path.join(folder, n), self.root) for n in names]
        return found

    def lines(self, path):
        with open(os.path.join(self.root, path), encoding="utf-8", errors="replace", newline="\n") as f:
            return f.read().split("\n")

    def sources(self, *patterns):
        return [p for p in self.paths() if matches(p, patterns)]

    def objects(self):
        """(source, object) for every compiled source of the library."""
        folder = os.path.join(self.build, "CMakeFiles")
        known = set(self.paths())
        found = []
        for room in sorted(os.listdir(folder)):
            if not re.fullmatch(r"gw_(base|transport|ram|control|core)\.dir", room):
                continue
            for at, _, names in os.walk(os.path.join(folder, room)):
                for name in sorted(names):
                    path = os.path.join(at, name)
                    source = os.path.relpath(path, os.path.join(folder, room))[: -len(".o")]
                    # An object may outlive its source in a build folder.
                    if name.endswith(".c.o") and source in known:
                        found.append((source, path))
        return found


def matches(path, patterns):
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def room_of(path):
    if path.startswith("core/base/"):
        return "core/base"
    top = path.split("/", 1)[0]
    return top if top in ROOM_INCLUDES else None


def nm(path, *options):
    """[(letter, name)] of the symbols of an object or a library."""
    done = subprocess.run(["nm", "-P", *options, path], stdout=subprocess.PIPE, check=True)
    rows = [line.split() for line in done.stdout.decode().splitlines()]
    return [(row[1], row[0].split("@")[0]) for row in rows if len(row) >= 2 and len(row[1]) == 1]


# ---- the checks --------------------------------------------------------------------------------

INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')


def check_includes(tree):
    """A room includes only what the table of rooms allows."""
    known = set(tree.paths())
    for path in tree.sources("*.c", "*.h", "*.cc"):
        room = room_of(path)
        for number, line in enumerate(tree.lines(path), 1):
            found = INCLUDE.match(line)
            if not found:
                continue
            quote, name = found.groups()
            if quote == '"' and name not in known and name not in ("gw_config.h", "gw_commit.h"):
                tree.say(path, number, f'"{name}" is no path from the root of the tree')
            if room is None:
                continue
            if name.startswith("godwit/"):
                if quote == '"':
                    tree.say(path, number, f"a public header is included as <{name}>")
            elif quote == '"' or name in known:
                if not matches(name, ROOM_INCLUDES[room]):
                    tree.say(path, number, f"{room}/ may not include {name}")
            for pattern, rooms in VENDOR_ROOMS.items():
                if quote == "<" and matches(name, [pattern]) and room not in rooms:
                    tree.say(path, number, f"{room}/ may not include <{name}>: it belongs to {', '.join(rooms)}")


def check_symbols(tree):
    """No object of the library asks for a symbol that its room must not know."""
    for source, path in tree.objects():
        symbols = nm(path)
        asserts = any(letter == "T" and ASSERT_SYMBOL.fullmatch(name) for letter, name in symbols)
        for letter, name in symbols:
            if letter not in "Uw" or (asserts and name in ASSERT_MAY):
                continue
            for pattern, allowed, why in FORBIDDEN_SYMBOLS:
                if re.fullmatch(pattern, name) and not matches(source, allowed):
                    tree.say(source, 1, f"asks for {name}: {why}")


def check_prefix(tree):
    """Every global symbol of the library begins with gw_."""
    for source, path in tree.objects():
        for letter, name in nm(path, "--defined-only", "--extern-only"):
            # Sanitizers define symbols of their own beside ours.
            if not name.startswith(("gw_", "__odr_asan", "__asan_", "__tsan_", "__ubsan_")):
                tree.say(source, 1, f"global symbol {name} does not begin with gw_ ({letter})")


API = re.compile(r"\bGW_API\b[^;{}]*?\b(gw_\w+)\s*(?=[(;\[])")


def check_exports(tree):
    """The shared library exports what public headers mark GW_API, no more and no less."""
    declared = {}
    for path in tree.sources("include/godwit/*.h"):
        text = re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), "\n".join(tree.lines(path)), flags=re.S)
        for found in API.finditer(text):
            declared[found[1]] = (path, text.count("\n", 0, found.start()) + 1)
    library = os.path.join(tree.build, "lib", "libgodwit.so")
    exported = {name for letter, name in nm(library, "-D", "--defined-only") if letter not in "A"}
    for name in sorted(exported - declared.keys()):
        tree.say("libgodwit.so", 0, f"{name} is exported, but no public header declares it GW_API")
    for name in sorted(declared.keys() - exported):
        tree.say(*declared[name], f"{name} is declared GW_API, but the library does not export it")


def check_spdx(tree):
    """Every source says under which licence it stands."""
    for path in tree.paths():
        head = tree.lines(path)[:3]
        if matches(path, SOURCE_NAMES) or head[0].startswith("#!"):
            if not any("SPDX-License-Identifier: MIT" in line for line in head):
                tree.say(path, 1, "no SPDX-License-Identifier: MIT in the first three lines")


def check_space(tree):
    """No white space at the end of a line, no tab in a C source, a newline at the end of a file."""
    for path in tree.paths():
        with open(os.path.join(tree.root, path), "rb") as f:
            data = f.read()
        if b"\0" in data or not data:
            continue
        for number, line in enumerate(data.split(b"\n"), 1):
            if line != line.rstrip():
                tree.say(path, number, "white space at the end of the line")
            if b"\t" in line and matches(path, ("*.c", "*.h", "*.cc")):
                tree.say(path, number, "a tab")
        if not data.endswith(b"\n"):
            tree.say(path, data.count(b"\n") + 1, "no newline at the end of the file")


def check_names(tree):
    """The name of a .c is its own in the whole tree."""
    seen = {}
    for path in tree.sources("*.c"):
        name = os.path.basename(path)
        if name in seen:
            tree.say(path, 1, f"{seen[name]} has the same name")
        seen.setdefault(name, path)


def check_format(tree):
    """clang-format changes nothing."""
    paths = tree.sources("*.c", "*.h", "*.cc")
    if not paths:
        return
    command = ["clang-format", "--dry-run", "--ferror-limit=3", *paths]
    done = subprocess.run(command, cwd=tree.root, stderr=subprocess.PIPE, check=False)
    for line in done.stderr.decode(errors="replace").splitlines():
        found = re.match(r"([^:\s]+):(\d+):\d+: (warning|error): ", line)
        if found:
            tree.say(found[1], found[2], "clang-format -i changes this")
    if done.returncode and not tree.findings:
        tree.say(".clang-format", 1, f"clang-format failed: {done.stderr.decode(errors='replace')[:500]}")


CHECKS = {name[len("check_"):]: fn for name, fn in globals().items() if name.startswith("check_")}
NEED_BUILD = ("symbols", "prefix", "exports")


def main():
    parser = argparse.ArgumentParser(description="the room lint")
    parser.add_argument("check", choices=sorted(CHECKS))
    parser.add_argument("--root", default=".")
    parser.add_argument("--build")
    args = parser.parse_args()
    if args.check in NEED_BUILD and not args.build:
        parser.error(f"{args.check} looks at objects: --build is missing")
    tree = Tree(args.root, args.build)
    CHECKS[args.check](tree)
    if tree.findings:
        print(f"{args.check}: {tree.findings} finding(s). {CHECKS[args.check].__doc__}")
    return 1 if tree.findings else 0


if __name__ == "__main__":
    sys.exit(main())
