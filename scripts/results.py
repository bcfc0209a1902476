#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Adds up what scripts/check left in a folder: <stage>.xml as ctest writes it for each line of
`stages`, and `rows`, a line `passed|failed NAME` each. Prints what failed, what was skipped and why,
and last `N passed, N failed, N skipped`."""
import os
import re
import sys
import xml.etree.ElementTree as xml

# Anything else that did not run (no program, a fixture that failed) is a failure.
SKIPPED = re.compile(r"SKIP_(REGULAR_EXPRESSION_MATCHED|RETURN_CODE=\d+)")


def reason(output):
    """What a skipped test said: googletest's message, or our scripts' last line."""
    found = re.search(r": Skipped\n(.*?)\n+\[  SKIPPED \]", output, re.S)
    if found:
        return " ".join(found[1].split())
    lines = [line for line in output.splitlines() if line.strip()]
    return re.sub(r"^skipped: ", "", lines[-1]) if lines else "it did not say why"


def read(folder):
    """(outcome, name, reason) of every test of every stage."""
    for stage in lines(os.path.join(folder, "stages")):
        path = os.path.join(folder, stage + ".xml")
        try:
            cases = xml.parse(path).getroot().iter("testcase")
        except (OSError, xml.ParseError) as error:
            yield "failed", stage, f"no results: {error}"
            continue
        for case in cases:
            name = f"{stage}: {case.get('name')}"
            skipped = case.find("skipped")
            if case.get("status") == "run":
                yield "passed", name, ""
            elif skipped is not None and SKIPPED.fullmatch(skipped.get("message", "")):
                yield "skipped", name, reason(case.findtext("system-out") or "")
            else:
                failure = case.find("failure")
                why = skipped if failure is None else failure
                yield "failed", name, "" if why is None else why.get("message", "")
    for row in lines(os.path.join(folder, "rows")):
        outcome, name = row.split(" ", 1)
        yield outcome, name, ""


def lines(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        return f.read().split("\n")[:-1]


def main():
    tests = list(read(sys.argv[1]))
    for outcome in ("skipped", "failed"):
        for _, name, why in (test for test in tests if test[0] == outcome):
            print(f"{outcome}: {name}" + (f": {why}" if why else ""))
    count = {outcome: sum(test[0] == outcome for test in tests) for outcome in ("passed", "failed", "skipped")}
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return 1 if count["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
