#!/usr/bin/env python3
"""One closing line for several ctest runs: reads the JUnit files that ctest wrote, names what
failed and what was left out and why, and fails when anything failed or when nothing ran."""

import collections
import pathlib
import sys
import xml.etree.ElementTree as ElementTree


# What ctest says of a test that chose to skip. All else that did not run (no such program, a
# disabled test) is something missing, and that is a failure.
SKIPPED = ("SKIP_REGULAR_EXPRESSION_MATCHED", "SKIP_RETURN_CODE")


def read(path):
    """(name, outcome, reason) of each test; outcome is passed, failed or left out."""
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name, status = case.get("name"), case.get("status")
        skipped = case.find("skipped")
        if status == "run" and case.find("failure") is None and skipped is None:
            yield name, "passed", ""
        elif skipped is not None and (skipped.get("message") or "").startswith(SKIPPED):
            yield name, "left out", skip_reason(case) or "no reason given"
        else:
            yield name, "failed", ""


def skip_reason(case):
    """What the test said when it skipped: the line after GoogleTest's `Skipped`."""
    lines = (case.findtext("system-out") or "").splitlines()
    for line, following in zip(lines, lines[1:]):
        if line.strip().endswith("Skipped"):
            return following.strip()
    return ""


def main(paths):
    failed, left_out, passed = [], collections.defaultdict(list), 0
    for path in paths:
        try:
            results = list(read(path))
        except (OSError, ElementTree.ParseError) as error:
            failed.append(f"{path}: no results: {error}")
            continue
        if not results:
            failed.append(f"{path}: no test ran")
        for name, outcome, reason in results:
            name = f"{pathlib.Path(path).stem}: {name}"  # one test runs in several presets
            if outcome == "passed":
                passed += 1
            elif outcome == "failed":
                failed.append(name)
            else:
                left_out[reason].append(name)
    for reason, names in sorted(left_out.items()):
        print(f"left out: {len(names)} ({reason}): {', '.join(names[:5])}"
              + (", ..." if len(names) > 5 else ""))
    for name in failed:
        print(f"failed: {name}")
    count = sum(len(names) for names in left_out.values())
    print(f"{passed} passed, {len(failed)} failed" + (f", {count} left out" if count else ""))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
