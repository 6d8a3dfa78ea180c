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


# As dockerd calls a driver.
CALL = r"""
import socket, sys
path, body = sys.argv[1], sys.argv[2].encode()
peer = socket.socket(socket.AF_UNIX)
peer.settimeout(20)
peer.connect("/run/docker/plugins/mesh.sock")
peer.sendall(b"POST %s HTTP/1.1\r\nHost: plugin\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
             % (path.encode(), len(body)) + body)
print(peer.makefile().read())
"""
# What the driver asks dockerd, answered from a file for each path.
DOCKERD = r"""
import http.server, os, socketserver
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.split("?")[0].strip("/").replace("/", "-")
        try:
            body = open("/srv/dockerd/" + name, "rb").read()
        except FileNotFoundError:
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return "driver"
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    pass
Server("/run/docker.sock", Handler).serve_forever()
"""
NETWORK, ENDPOINT, CONTAINER = ("0a" * 32, "0b" * 32, "0c" * 32)
DRIVER = "mesh-docker.service"
DROP_IN = f"/run/systemd/system/{DRIVER}.d"


class DriverTest(MachineTest):
    """Docker's driver under its unit, which leaves it next to nothing. A daemon of Docker's does
    not run in a machine like this: what it would be asked is answered by a stand-in."""
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.machine.install(*map(package, ("meshd", "meshctl", "meshd-engines")))
        cls.machine.apply(WORKLOADS)
        cls.machine.run("systemctl", "enable", "--now", "mesh-docker.socket")
        (cls.machine.root / "srv/dockerd").mkdir(parents=True)
        cls.machine.run("systemd-run", "--unit=stand-in", "python3", "-c", DOCKERD)
        until(lambda: cls.machine.run("test", "-S", "/run/docker.sock", check=False).returncode == 0,
              "the stand-in listens")

    def container(self, name, runtime="mesh"):
        """As dockerd has it written, and tells of it, while it starts."""
        root = self.machine.root
        image = "sha256/" + "0d" * 32
        files = {
            f"var/lib/docker/containers/{CONTAINER}/config.v2.json": {
                "ID": CONTAINER, "Name": f"/{name}", "Driver": "overlay2",
                "Image": image.replace("/", ":"), "Config": {"Labels": {}}},
            f"var/lib/docker/containers/{CONTAINER}/hostconfig.json": {
                "Runtime": runtime, "Dns": []},
            f"var/lib/docker/image/overlay2/imagedb/content/{image}": {"config": {"Labels": None}},
            f"srv/dockerd/networks-{NETWORK}": {"Containers": {f"ep-{ENDPOINT}": {
                "Name": name, "EndpointID": ENDPOINT}}},
            "srv/dockerd/containers-json": [{"Id": CONTAINER, "Names": [f"/{name}"]}]}
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(json.dumps(text), encoding="utf-8")

    def call(self, path, **body):
        answer = self.machine.run("python3", "-c", CALL, path, json.dumps(body)).stdout
        return json.loads(answer.split("\n\n", 1)[1])

    def join(self):
        return self.call("/NetworkDriver.Join", NetworkID=NETWORK, EndpointID=ENDPOINT,
                         SandboxKey="/run/docker/netns/0e0e0e0e0e0e", Options={})

    def test_declared_one_may_start_and_others_hear_why_not(self):
        self.container("worker")
        self.assertEqual(self.join(), {"DisableGatewayService": True})
        self.container("worker", runtime="runc")
        self.assertIn("its runtime is runc", self.join()["Err"])
        self.container("nobody")
        self.assertIn("nobody declared this container", self.join()["Err"])

    def test_it_answers_while_the_daemon_is_away(self):
        self.container("worker")
        self.machine.run("systemctl", "stop", "meshd")
        try:
            self.assertIn("worker is declared and does not start", self.join()["Err"])
            self.assertTrue(self.machine.active(DRIVER))
        finally:
            self.machine.run("systemctl", "start", "meshd")
        self.assertEqual(self.join(), {"DisableGatewayService": True})

    def test_who_leaves_is_detached(self):
        """Who is taken off the network runs on, and dockerd tells its number by then."""
        self.container("worker")
        named = self.machine.root / f"srv/dockerd/networks-{NETWORK}"
        named.write_text(named.read_text().replace(f"ep-{ENDPOINT}", CONTAINER), encoding="utf-8")
        bundle = self.machine.root / "srv/left"
        bundle.mkdir()
        (bundle / "config.json").write_text("{}", encoding="utf-8")
        self.machine.run("systemd-run", "--unit=left", "--property=PrivateNetwork=yes", "sleep",
                         "1000")
        self.machine.run(f"{PROGRAMS}/mesh-hook", "attach", stdin=json.dumps({
            "ociVersion": "1.0.2", "id": CONTAINER, "bundle": "/srv/left",
            "pid": int(self.machine.unit("left", "MainPID")),
            "annotations": {"mesh.id": "worker"}}))
        self.assertEqual(self.declared("worker"), "READY")
        self.assertEqual(self.call("/NetworkDriver.Leave", NetworkID=NETWORK, EndpointID=ENDPOINT),
                         {})
        self.assertEqual(self.declared("worker"), "DECLARED")
        self.machine.run("systemctl", "stop", "left")

    def declared(self, name):
        listed = json.loads(self.machine.run("meshctl", "list", "workloads", "-o", "json").stdout)
        return next(one["state"] for one in listed["workloads"] if one["id"] == name)

    def test_unit_says_how_it_is(self):
        self.call("/Plugin.Activate")
        self.assertEqual(self.machine.unit(DRIVER, "StatusText"),
                         "answers dockerd at /run/docker/plugins/mesh.sock")

    def test_one_that_hangs_is_replaced(self):
        self.drop_in("[Service]\nWatchdogSec=6s\nTimeoutAbortSec=2s\n")
        self.call("/Plugin.Activate")
        before = self.machine.unit(DRIVER, "MainPID")
        self.machine.signal(DRIVER, "STOP")
        until(lambda: self.machine.unit(DRIVER, "MainPID") not in ("0", before) and
              self.machine.active(DRIVER), "a new one", 60)
        self.assertIn("atchdog", self.machine.run("journalctl", "-u", DRIVER, "-n", "20").stdout)
        # And one that works is left alone for longer than that.
        now = self.machine.unit(DRIVER, "MainPID")
        begun = float(self.machine.unit(DRIVER, "ActiveEnterTimestampMonotonic"))
        until(lambda: float(self.machine.unit(DRIVER, "WatchdogTimestampMonotonic"))
              > begun + 7e6, "it says again and again that it lives", 60)
        self.assertEqual(self.machine.unit(DRIVER, "MainPID"), now)

    def test_one_that_cannot_start_says_why_in_a_line(self):
        self.drop_in("[Service]\nRestart=no\nExecStart=\n"
                     f"ExecStart={PROGRAMS}/mesh-docker --docker-rot /srv\n")
        self.assertNotEqual(self.machine.run("systemctl", "start", DRIVER, check=False).returncode,
                            0)
        self.assertIn("usage: mesh-docker", self.machine.unit(DRIVER, "StatusText"))

    def drop_in(self, text):
        """Until the test ends."""
        self.machine.run("sh", "-c", f"mkdir {DROP_IN} && cat >{DROP_IN}/t.conf", stdin=text)
        self.addCleanup(self.renew)
        self.addCleanup(self.machine.run, "rm", "-r", DROP_IN)
        self.renew()

    def renew(self):
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "stop", DRIVER)
        self.machine.run("systemctl", "restart", "mesh-docker.socket")


class RemovalTest(MachineTest):
    def greeted(self):
        return self.machine.run("python3", "-c", CALL, "/Plugin.Activate", "").stdout

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
