#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a program built against include/godwit/ relies on, held against tests/data/api.txt.

    api.py [--root TREE] [--update]

Kept are prototypes, members of structures, values of enumerations, typedefs and plain macros. What was there
stays, in its place; the whole, an enumeration, and a structure that begins with its own size may grow, at
their ends. Whoever means to change
more runs it with --update, and says in CHANGELOG.md what users have to do. Exits 1 if something changed.
"""
import argparse
import os
import re
import sys

SNAPSHOT = "tests/data/api.txt"


def words(text):
    return " ".join(text.split())


def without_comments(text):
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.S)


def bodies(text, keyword):
    """(name, body) of each `keyword gw_name { body }`."""
    for found in re.finditer(keyword + r"\s+(gw_\w+)\s*\{", text):
        at, depth = found.end(), 1
        while depth:
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
        yield found.group(1), text[found.end() : at - 1]


def split(body, mark):
    """Pieces between marks that are in no bracket."""
    pieces, depth, piece = [], 0, ""
    for c in body:
        depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(c, 0)
        if c == mark and depth == 0:
            pieces.append(words(piece))
            piece = ""
        else:
            piece += c
    return [p for p in pieces + [words(piece)] if p]


def items(text):
    """{name of the item: its parts, in order} of one header."""
    found = {}
    lines = re.sub(r"\\\n", " ", text)
    for name, value in re.findall(r"^#\s*define[ \t]+(GW_[A-Z0-9_]+)[ \t]+([^\n(][^\n]*)$", lines, flags=re.M):
        if not name.endswith("_H"):
            found["macro " + name] = [words(value)]
    code = re.sub(r"^\s*#[^\n]*$", "", lines, flags=re.M)
    for name, body in bodies(code, "struct"):
        found["struct " + name] = split(body, ";")
    for name, body in bodies(code, "enum"):
        found["enum " + name] = split(body, ",")
    for prototype in re.findall(r"GW_API\s([^;{]+);", code):
        name = re.search(r"(gw_\w+)\s*\(", prototype)
        found["function " + (name.group(1) if name else words(prototype))] = [words(prototype)]
    for typedef in re.findall(r"typedef\s([^;{]+);", code):
        name = re.search(r"(gw_\w+_fn)\b", typedef)
        found["typedef " + (name.group(1) if name else words(typedef))] = [words(typedef)]
    return found


def api(root):
    found = {}
    folder = os.path.join(root, "include/godwit")
    for name in sorted(os.listdir(folder)):
        if name.endswith(".h") and name != "version.h":
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                found.update(items(without_comments(f.read())))
    return found


def write(path, found):
    with open(path, "w", encoding="utf-8") as f:
        f.write("What programs rely on: tests/lint/api.py writes and reads it.\n")
        for name in sorted(found):
            f.write(name + "\n" + "".join(f"    {part}\n" for part in found[name]))


def read(path):
    found, name = {}, None
    with open(path, encoding="utf-8") as f:
        for line in f.read().splitlines()[1:]:
            if line.startswith("    "):
                found[name].append(line[4:])
            else:
                name = line
                found[name] = []
    return found


def changes(before, now):
    for name, parts in before.items():
        if name not in now:
            yield f"{name} is gone"
            continue
        kept = now[name][: len(parts)]
        if name.startswith("struct ") and parts[0] != "size_t struct_bytes" and len(now[name]) > len(parts):
            yield f"{name}: '{now[name][len(parts)]}' is new, and nobody can tell: it has no struct_bytes"
            continue
        # The count of an enumeration is its last, and moves.
        if name.startswith("enum ") and parts and parts[-1].endswith("_COUNT_"):
            parts, kept = parts[:-1], now[name][: len(parts) - 1]
        for was, is_now in zip(parts, kept + [None] * (len(parts) - len(kept))):
            if was != is_now:
                yield f"{name}: '{was}' became '{is_now}'" if is_now else f"{name}: '{was}' is gone"
                break


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=".")
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    path = os.path.join(options.root, SNAPSHOT)
    now = api(options.root)
    if options.update:
        write(path, now)
        return 0
    found = list(changes(read(path), now))
    for line in found:
        print(f"include/godwit: {line}")
    if found:
        print("Is that meant? tests/lint/api.py --update, and a line for users in CHANGELOG.md")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
