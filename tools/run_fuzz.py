#!/usr/bin/env python3
"""Runs one libFuzzer target for MESHD_FUZZ_SECONDS (5) from its corpus. New inputs go to a
directory that is thrown away; an input that crashes is kept and named."""

import os
import shutil
import subprocess
import sys
import tempfile

MEMORY_MIB = 1024      # of one target, sanitizers included; a decoder that needs more is a finding
INPUT_BYTES = 70_000   # above a DNS message over TCP and above a workload, which end at 64 KiB
UNIT_SECONDS = 10      # one input; all ours take micro- to milliseconds


def main(program, corpus, crashes):
    seconds = int(os.environ.get("MESHD_FUZZ_SECONDS", "5"))
    os.makedirs(crashes, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="meshd-fuzz-") as scratch:
        seeds = [corpus] if os.path.isdir(corpus) else []
        command = [program, f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY_MIB}",
                   f"-max_len={INPUT_BYTES}", f"-timeout={UNIT_SECONDS}", "-print_final_stats=1",
                   f"-artifact_prefix={scratch}/", os.path.join(scratch, "found"), *seeds]
        os.mkdir(os.path.join(scratch, "found"))
        code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
        kept = [n for n in sorted(os.listdir(scratch)) if n != "found"]
        for name in kept:
            kept_as = shutil.move(os.path.join(scratch, name), os.path.join(crashes, name))
            print(f"crashing input kept: {kept_as}")
    return 1 if code or kept else 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: run_fuzz.py PROGRAM CORPUS CRASHES")
    sys.exit(main(*sys.argv[1:]))
