#!/usr/bin/env python3
"""clang-tidy over every source file, two at a time, skipping what is known to be clean.

A file is known to be clean when it, every header of ours it reaches, its compile command, the
rules and clang-tidy are what they were when it last was. The marks lie beside ccache's files,
so that whatever keeps those keeps these. Only clean results are kept."""

import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time

import tree

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOL = "clang-tidy-19"
RULES = (".clang-tidy", "tests/.clang-tidy")
KEEP_SECONDS = 30 * 24 * 3600  # marks not used for a month belong to code long gone
TIMEOUT_SECONDS = 300          # a file takes 3 to 40 s; past this clang-tidy hangs
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)


def reached(root, path, seen):
    """Our files that path includes, itself too; for a generated header its .proto."""
    path = re.sub(r"(\.grpc)?\.pb\.h$", ".proto", path)
    if path in seen or not os.path.exists(os.path.join(root, path)):
        return
    seen.add(path)
    for match in INCLUDE.finditer(tree.read(root, path)):
        reached(root, match[1], seen)


def key(root, path, command, version):
    seen = set()
    reached(root, path, seen)
    rules = [r for r in RULES if os.path.exists(os.path.join(root, r))]
    digest = hashlib.sha256()
    # The same file in another clone is the same file.
    for text in (version, command.replace(root, ""), *sorted(seen),
                 *(tree.read(root, p) for p in sorted(seen) + rules)):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def sources(root, build, wanted):
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        entries = json.load(file)
    for entry in entries:
        path = os.path.relpath(os.path.join(entry["directory"], entry["file"]), root)
        built = os.path.realpath(entry["file"]).startswith(os.path.realpath(build) + os.sep)
        if built or path.startswith("..") or (wanted and path not in wanted):
            continue
        command = entry.get("command") or shlex.join(entry["arguments"])
        yield path, re.sub(r" -o \S+| -c \S+", "", command)


def tidy(root, build, path):
    try:
        done = subprocess.run([TOOL, "-p", build, "--quiet", path], cwd=root, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"{path}:1: clang-tidy did not end within {TIMEOUT_SECONDS} s\n"
    if done.returncode == 0 and not done.stdout.strip():
        return ""
    return done.stdout or done.stderr or f"{path}:1: {TOOL} ended with {done.returncode}\n"


def prune(cache):
    for entry in os.scandir(cache):
        if entry.stat().st_mtime < time.time() - KEEP_SECONDS:
            os.unlink(entry.path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=ROOT)
    parser.add_argument("--build", required=True, help="where compile_commands.json lies")
    parser.add_argument("--cache", required=True, help="where the marks of clean files lie")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("paths", nargs="*", help="only these files")
    options = parser.parse_args()
    root = os.path.abspath(options.root)
    version = subprocess.check_output([TOOL, "--version"], text=True)
    os.makedirs(options.cache, exist_ok=True)
    prune(options.cache)

    todo, clean = [], 0
    for path, command in sources(root, os.path.abspath(options.build), set(options.paths)):
        mark = os.path.join(options.cache, key(root, path, command, version))
        if os.path.exists(mark):
            os.utime(mark)
            clean += 1
        else:
            todo.append((path, mark))
    if not todo and not clean:
        sys.exit("clang-tidy: nothing to check here")
    print(f"clang-tidy: {clean} files known to be clean, {len(todo)} to check", flush=True)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(tidy, root, options.build, path): (path, mark)
                   for path, mark in todo}
        for number, future in enumerate(concurrent.futures.as_completed(running), 1):
            path, mark = running[future]
            output = future.result()
            print(f"[{number}/{len(todo)}] {path}{': see below' if output else ''}", flush=True)
            if output:
                failed += 1
                print(output, end="", flush=True)
            else:
                with open(mark, "w", encoding="utf-8"):
                    pass
    print(f"clang-tidy: {failed} files with problems")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
