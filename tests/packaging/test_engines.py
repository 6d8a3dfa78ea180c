"""What the package meshd-engines installs, as container engines use it: an OCI runtime's hook, a
wrapper before a runtime, a CNI plugin; and that nothing is in force by its installation alone."""
import json
import pathlib
import re
import unittest

from machine import MachineTest, package, until

WORKLOADS = """
workloads:
- {id: db, owner: ada, workflow: wf1, name: db, serves: [{port: 5432}]}
- {id: worker, owner: ada, workflow: wf1, peers: [{name: db}]}
- {id: plugged, owner: ada, workflow: wf1, peers: [{name: db}]}
"""
PROGRAMS = "/usr/libexec/meshd"
EXAMPLES = "/usr/share/doc/meshd-engines/examples"
RESOLV = "nameserver 169.254.1.1\nsearch wf1.wf.mesh.internal svc.mesh.internal\n"
# nc says nothing of what it met, its exit does: 0 answered, 1 refused or no such name.
ASK = "nc -w 5 db 5432 </dev/null >/dev/null; echo $?"
NAMESPACES = ("pid", "network", "mount", "ipc", "uts")


class EnginesTest(MachineTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.machine.install(*map(package, ("meshd", "meshctl", "meshd-engines")))
        cls.machine.apply(WORKLOADS)
        cls.machine.container("db").serve(proto="tcp", port=5432)
        cls.machine.run("meshctl", "wait", "db", "--timeout", "20s")

    def bundle(self, name, script, annotations):
        """As an engine hands a container to its runtime: busybox, and a resolv.conf."""
        bundle = pathlib.Path("/srv/bundles", name)
        inside = self.machine.root / bundle.relative_to("/")
        for folder in ("bin", "dev", "etc", "proc"):
            (inside / "rootfs" / folder).mkdir(parents=True, exist_ok=True)
        self.machine.run("cp", "/bin/busybox", f"{bundle}/rootfs/bin/")
        (inside / "rootfs/etc/resolv.conf").write_text(RESOLV, encoding="utf-8")
        process = {"args": ["/bin/busybox", "sh", "-c", script], "cwd": "/",
                   "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
        (inside / "config.json").write_text(json.dumps({
            "ociVersion": "1.0.2", "process": process, "root": {"path": "rootfs"},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": [{"type": kind} for kind in NAMESPACES]},
            "annotations": annotations}), encoding="utf-8")
        return bundle

    def start(self, name, script, annotations=(), check=True):
        """By the wrapper, before a runtime that needs no control groups: a machine in a machine
        may not make them."""
        return self.machine.run(
            f"{PROGRAMS}/mesh-runc", "--mesh-runtime=crun", "--cgroup-manager=disabled", "run",
            "--bundle", self.bundle(name, script, dict(annotations)), name, check=check)

    def detached(self, name):
        listed = json.loads(self.machine.run("meshctl", "list", "workloads", "-o", "json").stdout)
        return all(one["state"] == "DECLARED" for one in listed["workloads"] if one["id"] == name)

    def test_first_instruction_is_in_the_mesh_and_nothing_is_left(self):
        said = self.start("worker", f"busybox cat /proc/net/dev; busybox {ASK}").stdout
        self.assertIn("eth0", said)
        self.assertTrue(said.endswith("0\n"), said)
        until(lambda: self.detached("worker"), "it is detached")

    def test_container_brings_its_declaration(self):
        said = self.start("guest", f"busybox {ASK}", {
            "mesh.declaration": "peers: [{name: db}]", "mesh.owner": "ada",
            "mesh.workflow": "wf1"}).stdout
        self.assertEqual(said, "0\n")

    def test_whom_nobody_declared_is_left_alone(self):
        said = self.start("nobody", "busybox cat /proc/net/dev").stdout
        self.assertIn("lo:", said)
        self.assertNotIn("eth0", said)

    def test_declared_does_not_start_while_the_daemon_is_away(self):
        self.machine.run("systemctl", "stop", "meshd")
        try:
            done = self.start("worker", "busybox echo ran", check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertNotIn("ran", done.stdout)
            journal = self.machine.run("journalctl", "-t", "mesh-hook", "--no-pager").stdout
            self.assertIn("worker is declared and does not start", done.stderr + journal)
            self.assertIn("lo:", self.start("nobody", "busybox cat /proc/net/dev").stdout)
        finally:
            self.machine.run("systemctl", "start", "meshd")

    def plugin(self, command, config, netns=""):
        return self.machine.run(
            "env", f"CNI_COMMAND={command}", "CNI_CONTAINERID=plugged", f"CNI_NETNS={netns}",
            "CNI_IFNAME=eth0", "CNI_PATH=/usr/lib/cni", "/usr/lib/cni/mesh-cni",
            stdin=config).stdout

    def test_plugin_is_where_engines_look_and_knows_the_example(self):
        network = json.loads(self.machine.run("cat", f"{EXAMPLES}/mesh.conflist").stdout)
        config = json.dumps({"cniVersion": network["cniVersion"], "name": network["name"],
                             **network["plugins"][0]})
        self.assertIn("1.0.0", json.loads(self.plugin("VERSION", config))["supportedVersions"])
        self.machine.run("ip", "netns", "add", "plugged")
        added = json.loads(self.plugin("ADD", config, "/run/netns/plugged"))
        listed = self.machine.run("ip", "-n", "plugged", "-br", "addr").stdout
        self.assertIn(added["ips"][0]["address"], listed)
        self.plugin("DEL", config, "/run/netns/plugged")
        until(lambda: self.detached("plugged"), "it is detached")
        self.machine.run("ip", "netns", "del", "plugged")

    def test_what_is_configured_names_programs_that_are_there(self):
        hooks = "/usr/share/containers/oci/hooks.d"
        found = self.machine.run("sh", "-c", f"cat {hooks}/*.json").stdout
        decoder, at, stages = json.JSONDecoder(), 0, set()
        while at < len(found):
            hook, at = decoder.raw_decode(found, at)
            at += 1  # the line's end
            stages.update(hook["stages"])
            # No container of a site's is one of these by chance.
            self.assertEqual(list(hook["when"]["annotations"]), [r"^mesh\.(id|declaration)$"])
            self.machine.run("test", "-x", hook["hook"]["path"])
        self.assertEqual(stages, {"createRuntime", "poststop"})
        docker = json.loads(self.machine.run("cat", f"{EXAMPLES}/docker-daemon.json").stdout)
        self.machine.run("test", "-x", docker["runtimes"][docker["default-runtime"]]["path"])

    def test_nothing_is_configured_for_others(self):
        has = self.machine.run("dpkg", "-L", "meshd-engines").stdout.splitlines()
        for folder in ("/etc", "/opt"):
            self.assertEqual([path for path in has if path.startswith(folder)], [])
        for unit in (path for path in has if re.search(r"/systemd/system/.+\.\w+$", path)):
            name = pathlib.Path(unit).name
            # What only its socket starts says so.
            self.assertIn(self.machine.unit(name, "UnitFileState"), ("disabled", "indirect"), name)
            self.assertFalse(self.machine.active(name), name)


# As dockerd greets a driver.
GREET = r"""
import socket
peer = socket.socket(socket.AF_UNIX)
peer.connect("/run/docker/plugins/mesh.sock")
peer.sendall(b"POST /Plugin.Activate HTTP/1.1\r\nHost: plugin\r\nContent-Length: 0\r\n"
             b"Connection: close\r\n\r\n")
print(peer.makefile().read())
"""


class RemovalTest(MachineTest):
    def greeted(self):
        return self.machine.run("python3", "-c", GREET).stdout

    def started(self):
        return [self.machine.unit(f"mesh-docker.{kind}", "ActiveEnterTimestampMonotonic")
                for kind in ("socket", "service")]

    def test_dockers_driver_is_started_by_whom_wants_it_and_ends_with_the_package(self):
        self.machine.install(*map(package, ("meshd", "meshd-engines")))
        self.machine.run("systemctl", "enable", "--now", "mesh-docker.socket")
        self.assertIn('"NetworkDriver"', self.greeted())
        socket, driver = self.started()
        self.machine.install(package("meshd-engines"), option="--reinstall")
        self.assertEqual(self.started()[0], socket, "the socket stays through an upgrade")
        self.assertNotEqual(self.started()[1], driver, "the driver is another one")
        self.assertIn('"NetworkDriver"', self.greeted())
        self.machine.remove("meshd-engines", "meshd", purge=True)
        for unit in ("mesh-docker.socket", "mesh-docker.service"):
            self.assertFalse(self.machine.active(unit), unit)
        # dockerd would go on calling there.
        self.assertEqual(self.machine.run("find", "/run", "-name", "mesh.sock").stdout, "")

    def test_removal_warns_where_docker_still_names_it(self):
        self.machine.install(package("meshd-engines"))
        self.assertNotIn("daemon.json", self.machine.remove("meshd-engines").stderr)
        self.machine.install(package("meshd-engines"))
        self.machine.run("sh", "-c", f"mkdir -p /etc/docker && cp {EXAMPLES}/docker-daemon.json "
                         "/etc/docker/daemon.json")
        done = self.machine.remove("meshd-engines", purge=True)
        self.assertIn("/etc/docker/daemon.json still names", done.stdout + done.stderr)
        left = self.machine.run("find", "/usr", "/etc", "/var/lib", "/run", "-xdev", "(", "-name",
                                "mesh[-.]*", "-o", "-path", "*meshd*", ")", "-not", "-path",
                                "/var/lib/dpkg/*").stdout
        self.assertEqual(left, "")


if __name__ == "__main__":
    unittest.main(verbosity=2)
