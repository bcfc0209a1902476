#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes a recorded stream small: shrink.py STREAM OUT. Each page that is sent as it is, firmware mostly,
becomes a zero page; everything else stays byte for byte. OUT is compressed by gzip."""
import gzip
import sys


def shrink(data):
    out, at = bytearray(), 8
    if data[at] == 7:
        at += 5 + int.from_bytes(data[at + 1:at + 5], "big")
        while data[at] == 5:
            name = data[at + 2:at + 2 + data[at + 1]]
            at += 2 + len(name) + 4
            if name.endswith(b"uuid"):
                at += 16
            else:
                count = int.from_bytes(data[at:at + 4], "big")
                at += 4
                for _ in range(count):
                    at += 1 + data[at]
    shared = b"x-ignore-shared" in data[:at]
    sizes = 0
    out += data[:at]
    while True:
        kind, begin = data[at], at
        if kind == 8:
            at += 5 + int.from_bytes(data[at + 3:at + 5], "big")
            if data[begin + 1:begin + 5] == b"\0\3\0\x10":  # advice
                sizes = int.from_bytes(data[begin + 5:begin + 13], "big")
            if data[begin + 1:begin + 3] == b"\0\7":  # a package
                at += int.from_bytes(data[at - 4:at], "big")
        elif kind in (1, 2, 3):
            at += 5
            if kind == 1:
                at += 1 + data[at] + 8
            out += data[begin:at]
            begin = at = records(data, at, out, sizes, shared)
        else:
            break
        out += data[begin:at]
    return bytes(out + data[at:])


def records(data, at, out, sizes, shared):
    while True:
        word = int.from_bytes(data[at:at + 8], "big")
        flags, begin = word & 0xfff, at
        at += 8
        if flags == 4:
            total = word - 4
            while total:
                at += 1 + data[at]
                total -= int.from_bytes(data[at:at + 8], "big")
                at += 16 if shared else 8
                page = int.from_bytes(data[at:at + 8], "big")  # of what is behind the block, if it is said
                at += 8 if page & sizes and page & (page - 1) == 0 else 0
        elif flags == 0x10:
            if data[at] == 0x7e:
                at += 5
            out += data[begin:at]
            return at
        else:
            if not flags & 0x20:
                at += 1 + data[at]
            if flags & 8:
                out += (word - 8 + 2).to_bytes(8, "big") + data[begin + 8:at] + b"\0"
                at += 4096
                continue
            at += 1 if flags & 2 else 3 + int.from_bytes(data[at + 1:at + 3], "big")
        out += data[begin:at]


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as source:
        small = shrink(source.read())
    with open(sys.argv[2], "wb") as target:
        target.write(gzip.compress(small, 9, mtime=0))
