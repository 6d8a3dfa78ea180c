#!/usr/bin/env bash
# Formats every C++ file (no argument), only says which are not formatted (--check), or reads
# every shell script for mistakes (--shell).
set -euo pipefail
cd "$(dirname "$0")/.."

# Prints the files of the tree below our folders that match the given find tests.
ours() {
  find . \( -name .git -o -path ./build \) -prune -o -type f \( "$@" \) -print0
}

case "${1:-}" in
  "") ours -name '*.cc' -o -name '*.h' | xargs -0 -r clang-format-19 -i ;;
  --check) ours -name '*.cc' -o -name '*.h' | xargs -0 -r clang-format-19 --dry-run --Werror ;;
  --shell)
    # A script is told by its first line: dev and .ci/run have no suffix. SC2016 is excluded
    # because scripts for an inner shell are quoted on purpose here.
    ours -name '*.sh' -o -perm -u+x ! -name '*.py' | xargs -0 -r grep -lZE '^#!.*\bbash$|^#!/bin/sh' |
      xargs -0 -r shellcheck --exclude=SC2016
    ;;
  *)
    echo "usage: format.sh [--check|--shell]" >&2
    exit 2
    ;;
esac
