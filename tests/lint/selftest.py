#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Breaks each rule of the lint in a small tree of its own, and expects the lint to say so.

    selftest.py CHECK      a good tree passes; each bad file in it, alone, is found
"""
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SPDX = "/* SPDX-License-Identifier: MIT */\n"

GOOD = {
    "include/godwit/thing.h": SPDX + "#define GW_API __attribute__((visibility(\"default\")))\n"
    "/* not GW_API gw_in_comment(void); */\nGW_API int gw_thing_count(void);\n",
    "core/base/error.h": SPDX + "_Noreturn void gw_assert_failed(void);\n",
    "core/base/error.c": SPDX + '#include "core/base/error.h"\n#include <stdlib.h>\n'
    "void gw_assert_failed(void)\n{\n    abort();\n}\n",
    "transport/transport.h": SPDX + "int gw_wire_open(void);\n",
    "transport/ops.h": SPDX + "struct gw_ops;\n",
    "transport/wire.c": SPDX + '#include "transport/ops.h"\n#include "transport/transport.h"\n#include <sys/socket.h>\n'
    "int gw_wire_open(void)\n{\n    return socket(AF_INET, SOCK_STREAM, 0);\n}\n",
    "ram/scan.h": SPDX + "int gw_scan_next(void);\n",
    "ram/scan.c": SPDX + '#include "ram/scan.h"\n#include "transport/transport.h"\n'
    "int gw_scan_next(void)\n{\n    return gw_wire_open();\n}\n",
    "core/phase.h": SPDX + "enum gw_phase;\n",
    "control/stream.h": SPDX + "int gw_stream_read(void);\n",
    "core/thing.c": SPDX + '#include "control/stream.h"\n#include "ram/scan.h"\n#include <godwit/thing.h>\n'
    "int gw_thing_count(void)\n{\n    return gw_scan_next();\n}\n",
    "tools/godwit.c": SPDX + "#include <godwit/thing.h>\n#include <jansson.h>\n#include <stdio.h>\n",
    "tests/unit/ram/scan_test.c": SPDX + '#include "control/stream.h"\n#include "ram/scan.h"\n',
}

# check -> [(what is broken, file, content, what the finding must say)]
BAD = {
    "includes": [
        ("ram includes control", "ram/x.c", '#include "control/stream.h"\n', "may not include control/stream.h"),
        ("control includes ram", "control/x.c", '#include "ram/scan.h"\n', "may not include ram/scan.h"),
        ("ram includes ops.h", "ram/x.c", '#include "transport/ops.h"\n', "may not include transport/ops.h"),
        ("core includes ops.h", "core/x.c", '  #  include "transport/ops.h"\n', "may not include transport/ops.h"),
        ("transport includes ram", "transport/x.c", '#include "ram/scan.h"\n', "may not include ram/scan.h"),
        ("transport includes core", "transport/x.c", '#include "core/phase.h"\n', "may not include core/phase.h"),
        ("base includes ram", "core/base/x.c", '#include "ram/scan.h"\n', "may not include ram/scan.h"),
        ("a tool includes a room", "tools/x.c", '#include "ram/scan.h"\n', "may not include ram/scan.h"),
        ("a tool includes a room in angles", "tools/x.c", "#include <ram/scan.h>\n", "may not include ram/scan.h"),
        ("an example includes base", "examples/x.c", '#include "core/base/error.h"\n', "may not include"),
        ("a device includes a room", "devices/virtio/x.c", '#include "control/stream.h"\n', "may not include"),
        ("a public header includes a room", "include/godwit/x.h", '#include "ram/scan.h"\n', "may not include"),
        ("ram includes verbs", "ram/x.c", "#include <infiniband/verbs.h>\n", "belongs to transport"),
        ("core includes jansson", "core/x.c", "#include <jansson.h>\n", "belongs to control, tools"),
        ("a path is not from the root", "ram/x.c", '#include "scan.h"\n', "no path from the root"),
        ("a path climbs", "ram/x.c", '#include "../control/stream.h"\n', "no path from the root"),
        ("a public header is quoted", "ram/x.c", '#include "godwit/thing.h"\n', "is included as <godwit/thing.h>"),
    ],
    "symbols": [
        ("a socket in ram", "ram/x.c", "int socket(int, int, int);\nint gw_x(void)\n{\n    return socket(1, 1, 0);\n}\n",
         "asks for socket"),
        ("sendmsg in control", "control/x.c", "long sendmsg(int, void *, int);\nlong gw_x(void)\n{\n    return sendmsg(1, 0, 0);\n}\n",
         "asks for sendmsg"),
        ("verbs in ram", "ram/x.c", "int ibv_dereg_mr(void *);\nint gw_x(void)\n{\n    return ibv_dereg_mr(0);\n}\n",
         "asks for ibv_dereg_mr"),
        ("libfabric in core", "core/x.c", "void fi_freeinfo(void *);\nvoid gw_x(void)\n{\n    fi_freeinfo(0);\n}\n",
         "asks for fi_freeinfo"),
        ("a print", "core/x.c", "#include <stdio.h>\nvoid gw_x(int a)\n{\n    printf(\"%d\", a);\n}\n", "prints nothing"),
        ("a print to stderr", "transport/x.c", "#include <stdio.h>\nvoid gw_x(void)\n{\n    fputs(\"a\", stderr);\n}\n",
         "asks for stderr"),
        ("an exit", "ram/x.c", "#include <stdlib.h>\nvoid gw_x(void)\n{\n    exit(1);\n}\n", "asks for exit"),
        ("an assert", "ram/x.c", "#include <assert.h>\nvoid gw_x(int a)\n{\n    assert(a);\n}\n", "__assert_fail"),
        ("an abort", "core/base/x.c", "#include <stdlib.h>\nvoid gw_x(void)\n{\n    abort();\n}\n", "asks for abort"),
        ("a clock", "core/x.c", "#include <time.h>\nlong gw_x(void)\n{\n    return time(0);\n}\n", "the only clock"),
    ],
    "prefix": [
        ("a function", "ram/x.c", "int helper(void)\n{\n    return 0;\n}\n", "helper does not begin with gw_"),
        ("a variable", "core/base/x.c", "int counter;\n", "counter does not begin with gw_"),
    ],
    "exports": [
        ("undeclared", "ram/x.c", "__attribute__((visibility(\"default\"))) int gw_x(void)\n{\n    return 0;\n}\n",
         "gw_x is exported"),
        ("missing", "include/godwit/x.h", "GW_API struct gw_x *\ngw_x_new(int a,\n         int b);\n",
         "gw_x_new is declared GW_API"),
    ],
    "spdx": [
        ("a source", "ram/x.c", None, "no SPDX"),
        ("a script without a suffix", "scripts/x", "#!/bin/sh\n", "no SPDX"),
    ],
    "space": [
        ("a space at the end", "docs/x.md", "text \n", "docs/x.md:1: white space"),
        ("a carriage return", "ram/x.c", "int gw_x;\r\n", "white space"),
        ("a tab", "ram/x.c", "\tint gw_x;\n", "a tab"),
        ("no newline", "ram/x.c", "int gw_x;", "no newline"),
    ],
    "names": [("the same name twice", "ram/thing.c", "", "core/thing.c has the same name")],
    "format": [("a brace", "ram/x.c", "int gw_x(void) { return 0; }\n", "ram/x.c:2: clang-format")],
}


def write(root, files):
    for path, content in files.items():
        path = os.path.join(root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8", newline="") as f:
            f.write(content)


def build(root):
    """The objects and the library, where the lint looks for those of CMake."""
    out = os.path.join(root, "build")
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(os.path.join(out, "lib"))
    objects = []
    for room in ("base", "transport", "ram", "control", "core"):
        folder = "core/base" if room == "base" else room
        os.makedirs(os.path.join(out, "CMakeFiles", f"gw_{room}.dir", folder))
        for name in sorted(os.listdir(os.path.join(root, folder))):
            if name.endswith(".c"):
                objects.append(os.path.join(out, "CMakeFiles", f"gw_{room}.dir", folder, name + ".o"))
                source = os.path.join(root, folder, name)
                compiler = ["cc", "-w", "-O1", "-fPIC", "-fvisibility=hidden", "-D_GNU_SOURCE",
                            "-I", root, "-I", os.path.join(root, "include"), "-c", source, "-o", objects[-1]]
                if name == "thing.c":
                    compiler += ["-fvisibility=default"]
                subprocess.run(compiler, check=True)
    subprocess.run(["cc", "-shared", "-o", os.path.join(out, "lib", "libgodwit.so"), *objects], check=True)


def lint(check, root):
    command = [sys.executable, os.path.join(HERE, "lint.py"), check, "--root", root,
               "--build", os.path.join(root, "build")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout.decode()


def case(check, files):
    with tempfile.TemporaryDirectory(prefix="godwit-lint-") as root:
        write(root, GOOD)
        shutil.copy(os.path.join(HERE, "..", "..", ".clang-format"), root)
        write(root, files)
        if check in ("symbols", "prefix", "exports"):
            build(root)
        return lint(check, root)


def main():
    check = sys.argv[1]
    failed = 0
    rc, out = case(check, {})
    if rc != 0:
        print(f"FAILED: a good tree does not pass {check}:\n{out}")
        failed += 1
    for what, path, content, finding in BAD[check]:
        if content is None:
            text = "int gw_x;\n"
        elif path.startswith("scripts/") or path.endswith(".md"):
            text = content
        else:
            text = SPDX + content
        rc, out = case(check, {path: text})
        if rc != 1 or finding not in out:
            print(f"FAILED: {check}: {what}: expected '{finding}', got exit status {rc}:\n{out}")
            failed += 1
    print(f"{check}: {len(BAD[check])} broken trees tried, {failed} failure(s)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
