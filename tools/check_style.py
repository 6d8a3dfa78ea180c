#!/usr/bin/env python3
"""What neither compiler nor formatter says: whitespace in every text file, words that do not
belong in a repository, licences, and the house's rules for C++ that a pattern can tell."""

import fnmatch
import re

import tree

TEXT = (".cc", ".h", ".py", ".sh", ".md", ".cmake", ".txt", ".json", ".proto", ".yaml", ".yml",
        ".sql", ".scn", ".service", ".js", ".css", ".html", ".clang-format", ".clang-tidy", ".gitignore")
SCRIPTS = ("dev", ".ci/run", "examples/demo/run")
PYTHON_TESTS = "tests/tools/*"  # hold the very words that the checks look for

# pattern -> the reason. In every text file, line by line.
LINES = [
    (r"[ \t]+$", "trailing whitespace"),
    (r"\t", "a tab: two spaces here"),
    (r"\b(TODO|FIXME|XXX|HACK)\b", "unfinished work: finish it, or write it down as an issue"),
    (r"(^|[\s\"'`(=:])/(home|root|Users|mnt)/[\w.-]+", "a path of somebody's machine"),
    (r"\b(lorem ipsum|foo ?bar|asdf)\b", "a placeholder"),
]
# In C++ with comments and literals blanked.
CODE = [
    ("*", r"\bthrow\b", "nothing throws: return an Error (base/result.h)"),
    ("*", r"\busing\s+namespace\b(?!\s+(std::\w*literals|std::literals::\w+)\b)",
     "no using namespace: name what you use"),
    ("*", r"\bDISABLED_\w+", "a disabled test: mend it or remove it"),
    ("*", r"\b(assert|ASSERT_TRUE|EXPECT_TRUE)\s*\(\s*true\s*\)", "a test that cannot fail"),
    ("*", r"^[ \t]*#[ \t]*define\s+(?!TRY\b|CHECK_OK\b)\w+", "macros: TRY and CHECK_OK only"),
    ("tests/*", r"\b(sleep_for|usleep|nanosleep|sleep)\s*\(",
     "a fixed sleep: wait for the event, with a deadline (tests/support has the one poll loop)"),
    ("[!t]*", r"\bif\s*\(\s*!?\s*\w*(testing|is_test|under_test)\w*\s*\)",
     "a branch for tests in production code: inject it"),
]
# yaml-cpp's event parser can only be stopped by an exception, which is caught in the same file.
CODE_EXEMPT = {"tests/support/*": r"sleep", "policy/read_yaml.cc": r"throw"}
# Lines of code put in a comment end the way code ends, and prose hardly ever does.
DEAD_CODE = re.compile(r"^\s*//\s*(\w[\w:.>-]*\(.*\);|\}|\w[\w:.>\[\] -]*\s=\s[^=].*;|return\b.*;"
                       r"|if \(.*\{)\s*$")


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def check_text(path, text):
    for pattern, why in LINES:
        for match in re.finditer(pattern, text, re.MULTILINE):
            yield line_of(text, match.start()), why
    if text and not text.endswith("\n"):
        yield line_of(text, len(text)), "no newline at the end"
    if text.endswith("\n\n"):
        yield line_of(text, len(text)) - 1, "empty lines at the end"


def check_cxx(path, text):
    code = tree.code_only(text)
    for where, pattern, why in CODE:
        if not fnmatch.fnmatch(path, where):
            continue
        for match in re.finditer(pattern, code, re.MULTILINE):
            exempt = [e for w, e in CODE_EXEMPT.items() if fnmatch.fnmatch(path, w)]
            if not any(re.search(e, match[0]) for e in exempt):
                yield line_of(code, match.start()), why
    for number, line in enumerate(text.splitlines(), 1):
        if DEAD_CODE.match(line):
            yield number, "code in a comment: remove it, git remembers"
    if path.endswith(".h"):
        if not text.startswith("// "):
            yield 1, "a header opens with a comment: what it is for"
        if len(re.findall(r"^#pragma once$", text, re.MULTILINE)) != 1:
            yield 1, "a header has #pragma once, once"


def check_licence(root):
    wanted = {"LICENSE": "GNU GENERAL PUBLIC LICENSE\n                       Version 3,",
              "proto/LICENSE": "Apache License\n                           Version 2.0,"}
    for path, title in wanted.items():
        try:
            if title not in tree.read(root, path):
                yield f"{path}:1: not the licence that it should be"
        except FileNotFoundError:
            yield f"{path}:1: missing"
    for path in tree.files(root, (".proto",)):
        if not tree.read(root, path).startswith("// SPDX-License-Identifier: Apache-2.0\n"):
            yield f"{path}:1: a .proto opens with // SPDX-License-Identifier: Apache-2.0"


def check(root):
    problems, checked = list(check_licence(root)), 0
    for path in tree.files(root):
        if not (path.endswith(TEXT) or path in SCRIPTS) or fnmatch.fnmatch(path, PYTHON_TESTS):
            continue
        if path == "tools/check_style.py" or path.startswith("tests/fuzz/corpus/"):
            continue
        checked += 1
        text = tree.read(root, path)
        found = list(check_text(path, text))
        if path.endswith(tree.CXX):
            found += check_cxx(path, text)
        problems += [f"{path}:{number}: {why}" for number, why in sorted(set(found))]
    return problems, checked


if __name__ == "__main__":
    tree.report("check_style", *check(tree.root_argument()))
