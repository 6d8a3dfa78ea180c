"""The recipe for an image: meshd is put into a tree that does not run, and what boots from it is a
node of the cluster before anybody comes in by ssh."""
import contextlib
import json
import pathlib
import re
import shutil
import unittest

from machine import PATIENCE, MachineTest, package, run, until

RECIPE = pathlib.Path(__file__).resolve().parents[2] / "examples/image/install"
CONTROLLER = "mesh-controller"
TICKET = "/var/lib/mesh-controller/join.ticket"
SINGULARITY = "opt/singularity-3.10.4"  # as Arvados' role builds it: a prefix of its own
CONFLIST = f"{SINGULARITY}/etc/singularity/network/00_bridge.conflist"
PLUGIN = f"{SINGULARITY}/libexec/singularity/cni/mesh-cni"
UNIT = pathlib.Path(__file__).resolve().parents[2] / "packaging/systemd/meshd.service"
# Who starts containers, as the unit has it, and by whom the dispatcher comes, as the recipe does.
LATER = re.findall(r"^Before=(.*)", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
LATER = [*" ".join(LATER).split(), "ssh.service"]
STAND_IN = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
"""


def inside(root, *argv, check=True):
    return run("chroot", root, "env", "-i", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
               "LC_ALL=C.UTF-8", *argv, check=check, timeout=PATIENCE)


@contextlib.contextmanager
def image(root):
    """An image that is made: what other recipes have put into it, and our packages."""
    folder = root / "srv/packages"
    folder.mkdir()
    for name in ("meshd", "meshctl", CONTROLLER):
        shutil.copy(package(name), folder)
    for path in (CONFLIST, PLUGIN):
        (root / path).parent.mkdir(parents=True)
    (root / CONFLIST).write_text('{"name": "bridge"}\n', encoding="utf-8")
    (root / "etc/docker").mkdir()
    (root / "etc/docker/daemon.json").write_text('{"dns": ["192.0.2.53"]}\n', encoding="utf-8")
    run("mount", "-t", "proc", "proc", root / "proc")  # as whoever makes images does
    try:
        # In the same machine, so that there is a cluster to join.
        inside(root, "sh", "-c", f"apt-get -q -y install /srv/packages/{CONTROLLER}_*.deb")
        inside(root, "runuser", "-u", CONTROLLER, "--", CONTROLLER, "init",
               "--address", "127.0.0.1:7443")
        yield folder
    finally:
        run("umount", root / "proc")
    if (root / "var/lib/meshd").exists() or (root / "run/meshd").exists():
        raise AssertionError("the image has what is a node's own")


def state(root):
    """Of what the recipe may write; a file that is written anew is another one."""
    found = {}
    for folder in ("etc", "opt", "usr", "var/lib/dpkg/info", "var/lib/meshd"):
        for path in (root / folder).rglob("*"):
            about = path.lstat()
            found[str(path)] = about.st_mode, about.st_size, about.st_mtime_ns
    return found


def refused(done, why):
    if done.returncode == 0 or why not in done.stdout + done.stderr:
        raise AssertionError(f"no word of {why!r}: {done.stdout}\n{done.stderr}")


def prepare(root):
    shutil.copy(RECIPE, root / "srv/install")
    options = ("--ticket", TICKET, "--docker", "--docker-forward", "--singularity",
               f"/{SINGULARITY}")

    def recipe(*argv, check=True):
        return inside(root, "/srv/install", *argv, check=check)
    with image(root) as folder:
        refused(recipe("/srv", check=False), "/srv: no meshd_*.deb")
        refused(recipe("/srv/packages", "--ticket", "/srv/none", check=False),
                "/srv/none: not there")
        refused(recipe("/srv/packages", "--docker", check=False), "needs the package meshd-engines")
        shutil.copy(package("meshd-engines"), folder)
        for again, last in ((False, "starts with the node"),
                            (True, "starts with the node, as before")):
            before = state(root)
            said = recipe("/srv/packages", *options).stdout.splitlines()
            if not said[-1].endswith(last):
                raise AssertionError(said)
            if (state(root) == before) != again:
                raise AssertionError(set(state(root).items()) ^ set(before.items()))
    units = root / "etc/systemd/system"
    for unit in LATER:
        (units / unit).unlink(missing_ok=True)  # an alias of the real one's
        (units / unit).write_text(STAND_IN, encoding="utf-8")
        (units / "multi-user.target.wants" / unit).unlink(missing_ok=True)
        (units / "multi-user.target.wants" / unit).symlink_to(f"../{unit}")


class ImageTest(MachineTest):
    prepare = staticmethod(prepare)

    def test_machine_that_boots_from_it_is_a_node(self):
        self.assertTrue(self.machine.active("meshd"))
        self.assertEqual(self.machine.state(), "running")
        until(lambda: "connected" in self.machine.run("meshctl", "status", check=False).stdout,
              lambda: self.machine.run("meshctl", "status", check=False).stdout)
        self.assertIn("identity.pem", self.machine.run("ls", "/var/lib/meshd").stdout)
        modes = self.machine.run("stat", "-c", "%U %a", "/etc/meshd/join.ticket").stdout
        self.assertEqual(modes.strip(), "root 600")

    def test_nobody_comes_in_before(self):
        for unit in ("docker.service", "containerd.service", "podman.service", "kubelet.service",
                     "slurmd.service"):
            self.assertIn(unit, LATER)
        ready = int(self.machine.unit("meshd", "ActiveEnterTimestampMonotonic"))
        self.assertGreater(ready, 0)
        for unit in LATER:
            self.assertTrue(self.machine.active(unit), unit)
            begun = int(self.machine.unit(unit, "ExecMainStartTimestampMonotonic"))
            self.assertGreater(begun, ready, unit)

    def test_docker_gets_the_wrapper_and_keeps_what_it_had(self):
        config = json.loads(self.machine.run("cat", "/etc/docker/daemon.json").stdout)
        self.assertEqual(config["dns"], ["192.0.2.53"])
        self.assertEqual(config["default-runtime"], "mesh")
        self.machine.run("test", "-x", config["runtimes"]["mesh"]["path"])

    def test_bridges_of_engines_that_come_later_are_forwarded(self):
        self.machine.run("ip", "link", "add", "docker0", "type", "bridge")
        self.machine.run("ip", "addr", "add", "198.51.100.1/24", "dev", "docker0")
        until(lambda: "docker0" in self.machine.run("nft", "list", "set", "inet", "meshd",
                                                    "engine4").stdout, "it is found")
        table = self.machine.run("nft", "list", "table", "inet", "meshd").stdout
        self.assertIn("meta nfproto ipv4 jump others4", table)
        self.machine.run("ip", "link", "del", "docker0")

    def test_singularity_gets_the_network_that_crunch_run_asks_for(self):
        network = json.loads(self.machine.run("cat", f"/{CONFLIST}").stdout)
        self.assertEqual(network["name"], "bridge")
        upstream = self.machine.run("cat", f"/{CONFLIST}.upstream").stdout
        self.assertEqual(json.loads(upstream), {"name": "bridge"})
        # As Singularity calls a plugin: by its own folder, with a bare environment.
        config = {"cniVersion": "1.1.0", "name": "bridge", **network["plugins"][0]}
        self.machine.run("env", "-i", "CNI_COMMAND=STATUS", "PATH=/bin:/sbin:/usr/bin:/usr/sbin",
                         f"/{PLUGIN}", stdin=json.dumps(config))

    def test_dockers_firewall_is_told_to_let_the_mesh_pass(self):
        self.machine.run("sh", "-c", "nft -f -", stdin="""
            add table ip filter
            add chain ip filter DOCKER-USER
            add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }
            add rule ip filter FORWARD jump DOCKER-USER
            """)
        wanted = ('iifname "mesh*"', 'oifname "mesh*"')
        until(lambda: all(way in self.machine.run("nft", "list", "chain", "ip", "filter",
                                                  "DOCKER-USER").stdout for way in wanted),
              "both ways are let pass")


if __name__ == "__main__":
    unittest.main(verbosity=2)
