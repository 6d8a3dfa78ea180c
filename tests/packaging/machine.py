"""A machine for tests of the packages: Debian's own systemd, booted by systemd-nspawn over a tree
that debootstrap made, in which packages are installed as people do. What happens to its files is
in memory, and gone with it. Runs inside namespaces of its own (see CMakeLists.txt)."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
from node import Agent, run, until  # noqa: E402

PACKAGES = pathlib.Path(os.environ["MESHD_PACKAGES"]).resolve()
TREE = pathlib.Path(os.environ["MESHD_TREE"]).resolve()
# A boot, and an installation, on a machine that has other things to do.
PATIENCE = 300.0


def package(name):
    found = sorted(PACKAGES.glob(f"{name}_*.deb"))
    if len(found) != 1:
        raise AssertionError(f"{PACKAGES}: {len(found)} packages {name}: ./dev package makes them")
    return found[0]


def reversioned(name, version, folder):
    """The package as if it were another version; what is in it stays."""
    staged = folder / f"{name}-{version}"
    run("dpkg-deb", "-R", package(name), staged)
    control = staged / "DEBIAN/control"
    lines = [f"Version: {version}" if line.startswith("Version:") else line
             for line in control.read_text(encoding="utf-8").splitlines()]
    control.write_text("\n".join(lines) + "\n", encoding="utf-8")
    made = folder / f"{name}_{version}.deb"
    run("dpkg-deb", "--root-owner-group", "-Znone", "-b", staged, made)
    shutil.rmtree(staged)
    return made


def cgroups():
    """Where systemd looks for a hierarchy of processes: one, or two of them on older machines. They
    are the host's: by a number no two tests are told apart, for each is the first in its namespace."""
    name = f"meshd-packages-{os.urandom(4).hex()}"
    for line in pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, what = line.partition(" - ")
        if what.startswith("cgroup2 ") or "name=systemd" in what:
            yield pathlib.Path(fields.split()[4], name)


class Machine:
    def __init__(self, prepare=None):
        """What `prepare` does to its files is done before it boots."""
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
        self.root = pathlib.Path("/run/machine/root")
        for name in ("upper", "work", "root"):
            (self.root.parent / name).mkdir(parents=True)
        layers = ",".join(f"{layer}={self.root.parent / folder}" for layer, folder in
                          (("upperdir", "upper"), ("workdir", "work")))
        run("mount", "-t", "overlay", "-o", f"lowerdir={TREE},{layers}", "overlay", self.root)
        if prepare:
            prepare(self.root)
        self.cgroups, self.process = list(cgroups()), None
        self.agents, self.facts = {}, {}

    def boot(self):
        for folder in self.cgroups:
            folder.mkdir()
        with open(self.root.parent / "console", "w", encoding="utf-8") as console:
            self.process = subprocess.Popen(
                ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network",
                 "--console=pipe", f"--directory={self.root}", "--boot"],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, preexec_fn=self.join)
        self.leader = until(self.init, self.console, PATIENCE)
        until(lambda: self.state() in ("running", "degraded"), self.console, PATIENCE)
        # nspawn lays a boot id of its own over the kernel's, where a unit that has a /proc of its
        # own does not see it: no machine has two.
        self.run("umount", "/proc/sys/kernel/random/boot_id")

    def join(self):
        for folder in self.cgroups:
            (folder / "cgroup.procs").write_text("0", encoding="utf-8")

    def console(self):
        return "the machine runs: " + (self.root.parent / "console").read_text(errors="replace")

    def init(self):
        if self.process.poll() is not None:
            raise AssertionError(self.console())
        pid = self.process.pid
        found = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
        for child in found.split():
            # Before it, for a moment, there is a helper of nspawn's, which may end just now.
            with contextlib.suppress(OSError):
                if pathlib.Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return child
        return None

    def run(self, *argv, check=True, stdin=None):
        # Not the environment of whoever runs the test, which has paths of the host.
        plain = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8",
                 "DEBIAN_FRONTEND=noninteractive")
        return run("nsenter", f"--target={self.leader}", "--all", "--", *plain, *argv, check=check,
                   stdin=stdin, timeout=PATIENCE)

    def state(self):
        return self.run("systemctl", "is-system-running", check=False).stdout.strip()

    def unit(self, name, prop):
        return self.run("systemctl", "show", "--value", f"--property={prop}", name).stdout.strip()

    def active(self, name):
        return self.unit(name, "ActiveState") == "active"

    def signal(self, name, number):
        self.run("systemctl", "kill", f"--signal={number}", "--kill-who=main", name)

    # --- packages ---

    def install(self, *files, option="--no-install-recommends"):
        names = []
        for file in files:
            shutil.copy(file, self.root / "root")
            names.append(f"./{file.name}")
        script = f'cd /root && apt-get -q -y {option} install "$@"'
        return self.run("sh", "-c", script, "sh", *names)

    def remove(self, *names, purge=False, check=True):
        return self.run("apt-get", "-q", "-y", "purge" if purge else "remove", *names, check=check)

    # --- containers ---

    def apply(self, yaml):
        return self.run("meshctl", "apply", "-f", "-", stdin=yaml)

    def container(self, name):
        """Prepared by the machine's meshctl; its agent is a program of the host's inside."""
        resolv = self.root / f"root/{name}.resolv"
        self.facts[name] = json.loads(self.run(
            "meshctl", "prepare", name, "--resolv-conf", f"/root/{resolv.name}").stdout)
        bind = 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"'
        self.agents[name] = Agent(name, [
            "nsenter", f"--net=/proc/{self.leader}/root/run/netns/{name}", "unshare", "--mount",
            "--propagation", "private", "bash", "-c", bind, "container", str(resolv)])
        return self.agents[name]

    def address(self, name, family=4):
        return next(a for a in self.facts[name]["addresses"] if (":" in a) == (family == 6))

    def close(self):
        for agent in self.agents.values():
            agent.stop()
        if self.process:
            self.process.kill()
            self.process.wait()
        # It was a whole system: what it left running goes now, and its folders then.
        for folder in self.cgroups:
            until(lambda: tidy(folder), f"{folder} is empty")


def tidy(folder):
    for path, _, _ in os.walk(folder, topdown=False):
        try:
            for pid in pathlib.Path(path, "cgroup.procs").read_text(encoding="utf-8").split():
                if pid != "0":  # of one that ends just now; to kill(2) it is ourselves
                    os.kill(int(pid), signal.SIGKILL)
            os.rmdir(path)
        except OSError:
            return False  # somebody is about to end
    return True


class MachineTest(unittest.TestCase):
    """One machine for the tests of a class."""

    prepare = None

    @classmethod
    def setUpClass(cls):
        cls.machine = Machine(cls.prepare)
        # Also of a machine that does not boot: its folders are the host's.
        cls.addClassCleanup(cls.machine.close)
        cls.machine.boot()

    def run(self, result=None):
        """Of a test that fails the machine's own word is worth most."""
        bad = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > bad:
            print(self.machine.run("journalctl", "--no-pager", "-n", "60", check=False).stdout,
                  file=sys.stderr)
        return result
