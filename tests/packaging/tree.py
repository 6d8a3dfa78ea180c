#!/usr/bin/env python3
"""The tree that the tests' machines boot from: Debian with systemd and all that our packages depend
on, made by debootstrap and kept until that list changes. Needs root and apt's mirror."""
import os
import pathlib
import re
import shutil
import subprocess
import sys

SUITE = "bookworm"
# A machine that boots, with what the tests look at it, and what a compute node has: a container
# runtime, and python3, by which Ansible comes and the recipe for an image merges JSON. Ansible
# itself: a test has no network to fetch it by, and ansible-core has no connection to a chroot. The
# backend is what debootstrap does not find, for Ansible's cryptography asks for it by other names.
BASE = ["systemd", "systemd-sysv", "dbus", "apt", "passwd", "iproute2", "nftables", "crun",
        "busybox-static", "python3", "ansible-core", "python3-cffi-backend", "bash-completion"]
PACKAGES = pathlib.Path(os.environ["MESHD_PACKAGES"])
TREE = pathlib.Path(os.environ["MESHD_TREE"])


def depends(deb):
    field = subprocess.run(["dpkg-deb", "--field", deb, "Depends"], capture_output=True, text=True,
                           check=True).stdout
    # Of alternatives the first, and without the versions.
    return [re.match(r"[\w.+-]+", clause.strip())[0] for clause in field.split(",")
            if clause.strip()]


def provided():
    """Names that are no packages but what packages here are as well, on whose word they were built."""
    listed = subprocess.run(["dpkg-query", "-W", "-f", "${Package}\\t${Provides}\\n"],
                            capture_output=True, text=True, check=True).stdout
    names = {}
    for line in listed.splitlines():
        package, _, provides = line.partition("\t")
        names.update({re.match(r"[\w.+-]+", one)[0]: package
                      for one in provides.split(", ") if one})
    real = {line.split("\t")[0] for line in listed.splitlines()}
    return {name: package for name, package in names.items() if name not in real}


def mirror():
    """Where apt gets this suite from; none: debootstrap knows one itself."""
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages",
         f"Codename: {SUITE}", "Component: main"], capture_output=True, text=True, check=False)
    return asked.stdout.split()[:1]


def main():
    debs = [deb for deb in sorted(PACKAGES.glob("*.deb")) if "-dbgsym_" not in deb.name]
    if not debs:
        return f"{PACKAGES}: no packages: ./dev package makes them"
    ours = {deb.name.split("_")[0] for deb in debs}
    virtual = provided()
    wanted = sorted({*BASE, *(virtual.get(name, name) for deb in debs for name in depends(deb))}
                    - ours)
    mark = TREE.with_suffix(".packages")
    if TREE.is_dir() and mark.is_file() and mark.read_text(encoding="utf-8").split() == wanted:
        return None
    mark.unlink(missing_ok=True)
    if TREE.exists():
        shutil.rmtree(TREE)
    made = subprocess.run(["debootstrap", "--variant=minbase", "--include=" + ",".join(wanted),
                           SUITE, TREE, *mirror()], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    if made.returncode != 0:
        return f"debootstrap: {made.returncode}\n{made.stdout[-4000:]}"
    for cached in (TREE / "var/cache/apt/archives").glob("*.deb"):
        cached.unlink()
    mark.write_text("\n".join(wanted) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    sys.exit(main())
