#!/usr/bin/env python3
"""The units in packaging/systemd as systemd itself reads them: no word that it does not know, no
exposure above the limit; and one version in all the places that say it."""

import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Of 100, as `systemd-analyze security` counts: what the capabilities and the node's own network
# cost meshd is 26.
EXPOSURE = 30
# As systemd.special(7) has it.
ORDER = {
    "basic": "Requires=sysinit.target\nWants=sockets.target\nAfter=sysinit.target sockets.target\n",
    "multi-user": "Requires=basic.target\nAfter=basic.target\n",
}
ENGINES = ("docker", "podman")
# Who says the version, and how.
VERSIONS = {
    "CMakeLists.txt": r"project\(meshd VERSION ([\d.]+)",
    "packaging/debian/changelog": r"^meshd \(([\d.]+)\)",
    "meshd/daemon.h": r'kVersion = "([\d.]+)"',
    "controller/main.cc": r'kVersion = "([\d.]+)"',
}


def run(*argv):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


def stage(units, root):
    """A tree that has the units and what they start, for systemd looks whether that is there."""
    folder = root / "usr/lib/systemd/system"
    folder.mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    for unit in units:
        text = unit.read_text(encoding="utf-8")
        (folder / unit.name).write_text(text, encoding="utf-8")
        for program in re.findall(r"^Exec\w+=[-+@!:]*(\S+)", text, re.MULTILINE):
            path = root / program.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("#!/bin/sh\n", encoding="utf-8")
            path.chmod(0o755)
    # What a node has anyway, in its order; and engines that are called by a socket.
    for target in ("sysinit", "basic", "shutdown", "network", "network-online", "multi-user",
                   "sockets"):
        more = ORDER.get(target, "")
        (folder / f"{target}.target").write_text(f"[Unit]\nDescription=x\n{more}",
                                                 encoding="utf-8")
    for engine in ENGINES:
        (folder / f"{engine}.service").write_text("[Unit]\nDescription=x\n"
                                                  "[Service]\nExecStart=/usr/sbin/meshd\n")
        (folder / f"{engine}.socket").write_text("[Unit]\nDescription=x\n"
                                                 f"[Socket]\nListenStream=/run/{engine}.sock\n")
    for target, wanted in (("sockets", [f"{engine}.socket" for engine in ENGINES]),
                           ("multi-user", [*(unit.name for unit in units if unit.suffix ==
                                             ".service"), "docker.service"])):
        wants = folder / f"{target}.target.wants"
        wants.mkdir()
        for name in wanted:
            (wants / name).symlink_to(f"../{name}")


def verify(units, root):
    # Last the whole start of a node, in which an order that leads in a circle is one.
    for name in [*(unit.name for unit in units), "multi-user.target"]:
        status, text = run("systemd-analyze", "verify", "--man=no", f"--root={root}", name)
        if status != 0 or text:
            yield from (f"{name}: {line}" for line in text.splitlines() or ["not good"])


def exposure(unit, limit):
    status, text = run("systemd-analyze", "security", "--offline=true", f"--threshold={limit}",
                       unit)
    return [] if status == 0 else [f"{unit.name}: {text.splitlines()[-1]} (limit {limit / 10})"]


def versions(root):
    found = {}
    for path, pattern in VERSIONS.items():
        match = re.search(pattern, (root / path).read_text(encoding="utf-8"), re.MULTILINE)
        found[path] = match[1] if match else "none"
    if len(set(found.values())) > 1:
        yield "versions differ: " + ", ".join(f"{path} {one}" for path, one in found.items())


def problems(units, limit=EXPOSURE):
    with tempfile.TemporaryDirectory() as folder:
        stage(units, pathlib.Path(folder))
        yield from verify(units, folder)
    for unit in units:
        if unit.suffix == ".service":
            yield from exposure(unit, limit)


def main():
    units = sorted((ROOT / "packaging/systemd").glob("*"))
    found = [*problems(units), *versions(ROOT)]
    if not units:
        found.append("packaging/systemd: no units")
    print("\n".join(found) if found else f"{len(units)} units are good")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
