#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Changes a small public header, and expects api.py to find what breaks programs, and nothing else."""
import os
import subprocess
import sys
import tempfile

API = os.path.join(os.path.dirname(os.path.abspath(__file__)), "api.py")
HEADER = """/* SPDX-License-Identifier: MIT */
#ifndef GODWIT_THING_H
#define GODWIT_THING_H
#define GW_THING_MAX 7 /* things */
enum gw_thing { GW_THING_ONE, GW_THING_TWO, GW_THING_COUNT_ };
struct gw_plain { int x; };
struct gw_things {
    size_t struct_bytes;
    int (*find)(void *ctx, int x); /* the one */
    unsigned count, left;
};
typedef void gw_thing_fn(int x);
GW_API int gw_thing_count(const struct gw_things *things,
                          int x);
#endif
"""

# (what is done, old text, new text, what is said; None: nothing)
CHANGES = [
    ("nothing", "", "", None),
    ("a comment and white space change", "int (*find)(void *ctx, int x); /* the one */", "int (*find)(void *ctx,\n  int x);", None),
    ("a structure grows", "left;", "left; int more;", None),
    ("an enumeration grows", "GW_THING_TWO,", "GW_THING_TWO, GW_THING_THREE,", None),
    ("a function is added", "#endif", "GW_API void gw_thing_new(void);\n#endif", None),
    ("a function is gone", "GW_API int gw_thing_count(const struct gw_things *things,\n                          int x);\n", "",
     "function gw_thing_count is gone"),
    ("an argument changes", "things,\n                          int x", "things,\n                          long x", "became"),
    ("a member is gone", "    unsigned count, left;\n", "", "'unsigned count, left' is gone"),
    ("a member comes before others", "    unsigned count", "    int new_one;\n    unsigned count", "became 'int new_one'"),
    ("a plain structure grows", "{ int x; }", "{ int x; int y; }", "has no struct_bytes"),
    ("a value comes before others", "GW_THING_TWO,", "GW_THING_NEW, GW_THING_TWO,", "became 'GW_THING_NEW'"),
    ("a macro changes", "GW_THING_MAX 7", "GW_THING_MAX 8", "'7' became '8'"),
    ("a callback changes", "gw_thing_fn(int x)", "gw_thing_fn(char x)", "became"),
]


def run(tree, *options):
    return subprocess.run([sys.executable, API, "--root", tree, *options], stdout=subprocess.PIPE, text=True, check=False)


def main():
    bad = 0
    with tempfile.TemporaryDirectory() as tree:
        header = os.path.join(tree, "include/godwit/thing.h")
        os.makedirs(os.path.dirname(header))
        os.makedirs(os.path.join(tree, "tests/data"))
        for what, old, new, said in CHANGES:
            with open(header, "w", encoding="utf-8") as f:
                f.write(HEADER)
            assert run(tree, "--update").returncode == 0
            assert old in HEADER, what
            with open(header, "w", encoding="utf-8") as f:
                f.write(HEADER.replace(old, new, 1) if old else HEADER)
            done = run(tree)
            good = done.returncode == 0 and not done.stdout if said is None else done.returncode == 1 and said in done.stdout
            if not good:
                print(f"{what}: {done.returncode}, {done.stdout}")
                bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main())
