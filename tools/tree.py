"""The project's files as the checks see them, and C++ text without comments and literals."""

import os
import re
import sys

SKIPPED = {".git", ".cache", "__pycache__"}
CXX = (".cc", ".h")


def root_argument():
    """The tree to check: the one argument, else the one that this file lies in."""
    if len(sys.argv) > 2:
        sys.exit(f"usage: {os.path.basename(sys.argv[0])} [ROOT]")
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return os.path.abspath(sys.argv[1]) if len(sys.argv) == 2 else here


def files(root, suffixes=None):
    """Paths relative to root, sorted. Build trees are told by what lies in them, not by name; but
    build/ is ./dev's, where packages and the machines of their tests lie as well."""
    found = []
    for folder, subfolders, names in os.walk(root):
        if "CMakeCache.txt" in names:
            subfolders[:] = []
            continue
        subfolders[:] = [s for s in subfolders if s not in SKIPPED and
                         not (s == "build" and folder == root)]
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), root)
            if suffixes is None or name.endswith(tuple(suffixes)):
                found.append(path)
    return sorted(found)


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
        return file.read()


# In this order: a raw string may hold quotes and comment signs, a comment may hold quotes.
# A quote between digits is a separator (1'000), not a character literal.
_NOT_CODE = re.compile(
    r'R"(?P<mark>[^()\\ ]{0,16})\(.*?\)(?P=mark)"'
    r"|//[^\n]*|/\*.*?\*/"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9A-Fa-f])'(?:\\.|[^'\\\n])+'",
    re.DOTALL,
)


def code_only(text):
    """C++ with comments and literals blanked, so that every line keeps its number."""

    def blank(match):
        return re.sub(r"[^\n]", " ", match.group())

    return _NOT_CODE.sub(blank, text)


def report(name, problems, checked):
    """Prints what was found and leaves with the exit code. A check of nothing is a failure."""
    for problem in problems:
        print(problem)
    if not checked:
        sys.exit(f"{name}: nothing to check here")
    print(f"{name}: {checked} files, {len(problems)} problems")
    sys.exit(1 if problems else 0)
