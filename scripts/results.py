#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Adds up what scripts/check left in a folder: <stage>.xml as ctest writes it for each line of
`stages`, <suite>.xml as googletest writes it for each line of `suites`, and `rows`, a line
`passed|failed|skipped NAME` each. Prints what failed, what was skipped and why, and last
`N passed, N failed, N skipped`."""
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


def judge_ctest(case):
    """(outcome, name, reason) of a test of ctest's."""
    skipped = case.find("skipped")
    if case.get("status") == "run":
        return "passed", case.get("name"), ""
    if skipped is not None and SKIPPED.fullmatch(skipped.get("message", "")):
        return "skipped", case.get("name"), reason(case.findtext("system-out") or "")
    failure = case.find("failure")
    why = skipped if failure is None else failure
    return "failed", case.get("name"), "" if why is None else why.get("message", "")


def judge_gtest(case):
    """The same of a test of googletest's."""
    name = f"{case.get('classname')}.{case.get('name')}"
    failure, skipped = case.find("failure"), case.find("skipped")
    if failure is not None:
        return "failed", name, " ".join(failure.get("message", "").split())
    if skipped is not None:
        # The first line says where.
        return "skipped", name, " ".join(skipped.get("message", "").split("\n", 1)[-1].split())
    if case.get("result") == "completed":
        return "passed", name, ""
    return "failed", name, "it did not run"


def read(folder):
    """(outcome, name, reason) of every test of every stage."""
    for kind, judge in ("stages", judge_ctest), ("suites", judge_gtest):
        for stage in lines(os.path.join(folder, kind)):
            try:
                cases = xml.parse(os.path.join(folder, stage + ".xml")).getroot().iter("testcase")
            except (OSError, xml.ParseError) as error:
                yield "failed", stage, f"no results: {error}"
                continue
            for case in cases:
                outcome, name, why = judge(case)
                yield outcome, f"{stage}: {name}", why
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
