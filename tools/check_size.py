#!/usr/bin/env python3
"""Sizes of files, functions and lines. Past the limit a reader loses the thread; past the
refusal the part is two parts. `--notes` also prints what lies between the two."""

import re
import sys

import tree

# what: (limit, refused above)
FILE = (500, 800)
HEADER = (200, 200)
FUNCTION = (60, 100)
LINE = (100, 100)
BASE = (1050, 1050)  # all of base/, which everybody includes (docs/decisions/0001)

CONTROL = re.compile(r"\b(if|for|while|switch|catch|do|else|try)\b")
TYPE = re.compile(r"\b(class|struct|union|enum|namespace|concept)\b|\bextern\s*$")


def functions(text):
    """(name, first line, length) of each function body that is not inside another one."""
    code = tree.code_only(text)
    code = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: re.sub(r"[^\n]", " ", m[0]),
                  code, flags=re.MULTILINE)  # a macro's braces need not balance
    chunk, position = 0, 0
    while position < len(code):
        char = code[position]
        if char in ";}":
            chunk = position + 1
        elif char == "{":
            head = code[chunk:position]
            end = closing(code, position)
            if is_function(head):
                following = code[end + 1:].lstrip()[:1]
                if following not in (",", "{"):  # else a member's initialiser: x_{1} {
                    first = code.count("\n", 0, position) + 1
                    yield name_of(head), first, code.count("\n", position, end)
                    chunk = end + 1
                position = end
            elif "=" in head or not (TYPE.search(head) or head.strip() == ""):
                position = end  # an initialiser list, which ends at its semicolon
            else:
                chunk = position + 1
        position += 1


def is_function(head):
    """Whether the text before a brace at namespace or class scope opens a function's body."""
    head = re.sub(r"\[\[.*?\]\]|\boperator\s*[^\s\w]+", " operator_ ", head, flags=re.DOTALL)
    head = re.sub(r"^\s*(public|private|protected)\s*:", "", head)
    head = re.sub(r"^\s*template\s*<[^(){}]*>\s*", "", head)
    if re.search(r"(^|\s)\w+\s*=\s*|^\s*(class|struct|union|enum|namespace)\b", head):
        # `x = [](...) {` is a variable; a default argument stands inside parentheses.
        bare = re.sub(r"\([^()]*(\([^()]*\)[^()]*)*\)", "()", head)
        if "=" in bare or re.search(r"^\s*(class|struct|union|enum|namespace)\b", bare):
            return "=" in bare and "[" in bare.split("=", 1)[1]
    return ")" in head and not CONTROL.match(head.strip())


def name_of(head):
    """The last name before the first parenthesis; for TEST(Suite, Name) the whole of it."""
    match = re.search(r"((?:TEST\w*)\s*\([^)]*\))|([\w:~]+|operator\W+)\s*\(", head)
    return re.sub(r"\s+", " ", (match[1] or match[2])) if match else "?"


def closing(code, opening):
    depth = 0
    for position in range(opening, len(code)):
        depth += {"{": 1, "}": -1}.get(code[position], 0)
        if depth == 0:
            return position
    return len(code) - 1


def check(root):
    problems, notes, checked, base = [], [], 0, 0

    def judge(where, what, size, limits):
        if size > limits[1]:
            problems.append(f"{where}: {what} has {size}, at most {limits[1]}: split it")
        elif size > limits[0]:
            notes.append(f"{where}: {what} has {size}, the limit to keep in mind is {limits[0]}")

    for path in tree.files(root, tree.CXX):
        text = tree.read(root, path)
        lines = text.splitlines()
        checked += 1
        base += len(lines) if path.startswith("base/") else 0
        judge(f"{path}:1", "lines: file", len(lines), HEADER if path.endswith(".h") else FILE)
        for number, line in enumerate(lines, 1):
            judge(f"{path}:{number}", "columns: line", len(line), LINE)
        for name, first, length in functions(text):
            judge(f"{path}:{first}", f"lines: function {name}", length, FUNCTION)
    judge("base:1", "lines: folder", base, BASE)
    return problems, notes, checked


if __name__ == "__main__":
    with_notes = "--notes" in sys.argv
    sys.argv = [a for a in sys.argv if a != "--notes"]
    found, between, count = check(tree.root_argument())
    if with_notes:
        print("\n".join(between))
    tree.report("check_size", found, count)
