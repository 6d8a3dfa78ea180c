"""Podman, the three ways into the mesh that it has: a namespace that is there first, a hook, and a
CNI network."""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import time
import unittest

from engines import (BRIDGE, BUSYBOX, GET, PATIENCE, SERVE, EngineTest, Podman, ask, db, declare,
                     worker, workloads)
from node import run, until

# Podman puts the host's server behind the network's own unless it is told one.
DNS = ("--dns", "169.254.1.1", "--dns-search", "wf1.wf.mesh.internal")
# The two ways that attach when a container starts: a CNI network of ours, and the hook.
WAYS = ("mesh", "none")


class PodmanTest(EngineTest):
    @classmethod
    def prepare(cls):
        cls.podman = Podman(cls.node)
        cls.podman.hook("attach", "createRuntime", "attach")
        cls.podman.hook("detach", "poststop", "detach")
        cls.podman.network("mesh", "1.0.0")
        cls.podman.network("mesh-old", "0.4.0")

    @classmethod
    def tearDownClass(cls):
        cls.podman.close()
        super().tearDownClass()

    def setUp(self):
        self.node.apply(workloads(db(), worker(), declare("stranger")))
        self.vip = self.node.vip("db")

    def tearDown(self):
        self.clear(self.podman, "db", "worker")
        super().tearDown()

    def options(self, name, network):
        """How each way is told whose container it is, and podman whom to ask where it does not
        leave that to us."""
        return DNS if network != "none" else ("--annotation", f"mesh.id={name}")

    def start(self, name, network="mesh"):
        self.podman.run(name, network, *SERVE, options=("-d", *self.options(name, network)))

    def say(self, name, script, network="mesh", options=None):
        options = self.options(name, network) if options is None else options
        return self.podman.run(name, network, "sh", "-c", script, options=("--rm", *options)).stdout

    def each(self, *ways):
        """With nothing left of the one before."""
        for network in ways:
            yield network, self.subTest(network=network)
            self.podman.clear()
            self.until_left()

    def refused(self, name, network="mesh", options=(), runtime="crun"):
        begun = time.monotonic()
        done = self.podman.run(name, network, "true", options=("--rm", *options), runtime=runtime,
                               check=False)
        self.assertNotEqual(done.returncode, 0)
        self.podman("rm", "-f", name, check=False)
        self.assertLess(time.monotonic() - begun, 30)
        return done.stderr

    def prepared(self, name):
        """Its namespace is there before it is, and stays until it is detached."""
        self.node.ctl("prepare", name)
        return f"ns:/run/netns/{name}"

    def test_namespace_that_is_there_first(self):
        db_s, worker_s, stranger_s = map(self.prepared, ("db", "worker", "stranger"))
        self.start("db", db_s)
        self.node.ready("db")
        said = self.say("worker", f"{ask('db')}; {ask('db', 8081)}", worker_s)
        self.assertEqual(said, "0\n1\n")
        said = self.say("stranger", f"{self.ask_all()}; nslookup db; echo $?", stranger_s)
        self.assertRegex(said, r"(?s)^(1\n){4}.*NXDOMAIN.*\n1\n$")
        # Its container ends, however that is, and the namespace is the next one's.
        os.kill(self.podman.pid("db"), signal.SIGKILL)
        done = self.podman.run("worker", worker_s, "/nope", options=("--rm", *DNS), check=False)
        self.assertEqual(done.returncode, 127, done.stderr)
        self.podman("start", "db")
        self.assertEqual(self.node.vip("db"), self.vip)
        self.node.ready("db")
        self.assertEqual(self.say("worker", GET, worker_s), "answered\n")
        self.node.ctl("detach", "stranger")
        self.assertFalse(os.path.exists("/run/netns/stranger"))

    def test_namespace_that_is_there_outlives_the_daemon(self):
        """What is prepared starts and has its flows; nothing new is prepared."""
        db_s, worker_s = map(self.prepared, ("db", "worker"))
        self.start("db", db_s)
        self.node.ready("db")
        self.node.kill()
        vip_s = GET.replace("//db:", f"//{self.vip}:")
        self.assertEqual(self.say("worker", vip_s, worker_s), "answered\n")
        done = self.node.ctl("prepare", "stranger", check=False)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertFalse(os.path.exists("/run/netns/stranger"))

    def test_fifty_namespaces_that_are_there_first(self):
        self.start("db", self.prepared("db"))

        def get(name):
            said = self.say(name, GET, self.prepared(name))
            self.node.ctl("detach", name)
            return said
        self.fifty(get)

    def test_flows_and_names_are_those_that_are_declared(self):
        for network, which in self.each(*WAYS):
            with which:
                self.start("db", network)
                self.node.ready("db")
                said = self.say("worker", f"{ask('db')}; {self.ask_all()}; {self.ask_all(8081)}",
                                network)
                self.assertEqual(said, 5 * "0\n" + 4 * "1\n")
                said = self.say("stranger", f"{self.ask_all()}; nslookup db; echo $?", network)
                self.assertRegex(said, r"(?s)^(1\n){4}.*NXDOMAIN.*\n1\n$")

    def test_held_is_neither_refused_nor_connected(self):
        self.assertRegex(self.say("worker", ask("db", patience=3)), "^143 ")

    def test_hook_by_annotation(self):
        self.podman.run("first", "none", *SERVE, options=("-d", "--annotation", "mesh.id=db"))
        script = f"cat /etc/resolv.conf /proc/net/dev; ls -a /etc; {GET}"
        options = ("--annotation", "mesh.id=worker")
        said = self.podman.run("second", "none", "sh", "-c", script, options=options).stdout
        self.asks_the_mesh_alone(said)
        self.assertIn("eth0", said)
        self.assertNotIn(".mesh", said.replace(".mesh.internal", ""))
        self.assertTrue(said.endswith("answered\n"), said)
        again = self.podman("start", "-a", "second").stdout
        self.assertTrue(again.endswith("answered\n"), again)
        # The image has none, nor has it one now.
        self.assertNotIn("169.254.1.1", self.podman.run(
            "nobody", "none", "sh", "-c", "cat /etc/resolv.conf || true", options=("--rm",)).stdout)

    def test_hook_leaves_a_resolv_conf_that_somebody_mounted(self):
        theirs = self.podman.dir / "theirs.conf"
        theirs.write_text("nameserver 192.0.2.53\n")
        said = self.say("worker", "cat /etc/resolv.conf", "none", (
            *self.options("worker", "none"), "--volume", f"{theirs}:/etc/resolv.conf"))
        self.assertEqual(said, "nameserver 192.0.2.53\n")
        self.assertEqual(theirs.read_text(), said)

    def test_hook_with_the_declaration(self):
        # Podman takes several in one, divided by commas, unless they are quoted.
        text = "{name: web, scope: CLUSTER, serves: [{port: 8080}]}"
        self.podman.run("shop", "none", *SERVE, options=(
            "-d", "--annotation", f'"mesh.declaration={text}"', "--annotation", "mesh.id=shop"))
        self.assertEqual(self.attachment("shop")["ifname"], "eth0")
        # Without an id of its own it is known by its number.
        self.podman.run("unnamed", "none", *SERVE, options=(
            "-d", "--annotation", '"mesh.declaration={name: odd, scope: CLUSTER, serves: [{port: 80}]}"'))
        number = self.podman("inspect", "-f", "{{.Id}}", "unnamed").stdout[:12]
        self.assertEqual(self.attachment(number)["ifname"], "eth0")
        said = self.refused("odd", "none", ("--annotation", "mesh.declaration=nonsense: 1",
                                            "--annotation", "mesh.id=odd"), "runc")
        self.assertIn("nonsense", said)

    def test_what_an_image_says_of_itself_is_not_believed(self):
        """Podman gives a container the annotations of its image."""
        container = self.podman.build("from", "bb:1").stdout.strip()
        self.podman.build("config", "--annotation", "mesh.id=worker", container)
        self.podman.build("commit", "--format", "oci", container, "liar:1")
        self.podman.build("rm", container)
        argv = ("cat", "/proc/net/dev")
        said = self.podman.run("liar", "none", *argv, options=("--rm",), image="liar:1").stdout
        self.assertNotIn("eth0", said)
        # The launcher's own word counts, whatever the image says.
        said = self.podman.run("liar", "none", *argv, image="liar:1", options=(
            "--rm", "--annotation", "mesh.id=stranger")).stdout
        self.assertIn("eth0", said)
        self.assertEqual(self.podman("inspect", "-f", "{{.Annotations}}", "liar:1").stdout.count(
            "mesh.id:worker"), 1)

    def test_hook_of_a_neighbour_that_fails(self):
        """Nothing of ours stays of a container that another hook did not let start."""
        before = self.attached("worker")
        hook = self.podman.hooks / "zz-broken.json"
        hook.write_text(json.dumps({"version": "1.0.0", "stages": ["createRuntime"], "when": {
            "annotations": {"^mesh.id$": "worker"}}, "hook": {"path": "/bin/false"}}))
        try:
            self.refused("worker", "none", self.options("worker", "none"))
            self.assertEqual(self.attached("worker"), before + 1, "ours had done its part")
            self.until_left()
        finally:
            hook.unlink()

    def test_hook_leaves_others_alone(self):
        said = self.say("nobody", "cat /proc/net/dev", "none", ())
        self.assertNotIn("eth0", said)

    def test_network(self):
        for network in ("mesh", "mesh-old"):
            self.start("db", network)
            said = self.say("worker", f"cat /etc/resolv.conf /proc/net/dev; {GET}", network)
            self.assertEqual(self.resolv_conf(said), ["169.254.1.1"])
            self.assertTrue(said.endswith("answered\n"), said)
            self.podman("rm", "-f", "-t", "0", "db")
            self.until_left()

    def test_other_nameservers_never_hear_of_ours(self):
        """Podman puts the host's behind the mesh's, and a container asks whom it likes."""
        hosts, other = self.node.OUTSIDE
        name = "db.wf1.wf.mesh.internal"
        resolv_conf = self.podman.dir / "hosts.conf"
        resolv_conf.write_text(f"nameserver {hosts}\n")
        run("mount", "--bind", resolv_conf, "/etc/resolv.conf")
        upstream = self.node.upstream()
        try:
            until(lambda: self.node.outside.query(name="www.example.com", kind="A", server=hosts)
                  ["rcode"] == "NOERROR", "the host's server answers")
            said = self.say("worker", "cat /etc/resolv.conf", options=())
            servers = self.resolv_conf(said)
            self.assertEqual((servers[0], servers[-1]), ("169.254.1.1", hosts), said)
            for server in (hosts, other):
                said = self.say("worker", f"nslookup {name} {server}", options=())
                self.assertIn(self.node.vip("db"), said)
                self.assertNotIn("NXDOMAIN", said)
            asked = self.node.ASKED.read_text()
            self.assertIn("www.example.com", asked)
            self.assertNotIn("mesh.internal", asked)
        finally:
            upstream.kill()
            upstream.wait()
            run("umount", "/etc/resolv.conf")

    @contextlib.contextmanager
    def own(self, alone=False):
        """A network of the engine's own with ours behind it, or alone."""
        self.podman.network("own", "1.0.0", before=[BRIDGE])
        if alone:
            (self.podman.networks / "own.conflist").write_text(json.dumps(
                {"cniVersion": "1.0.0", "name": "own", "plugins": [BRIDGE]}))
        try:
            yield
        finally:
            self.podman.clear()
            (self.podman.networks / "own.conflist").unlink()
            run("ip", "link", "del", "own0", check=False)

    def test_network_behind_the_engines_own(self):
        with self.own():
            self.start("db")
            said = self.say("worker", f"ip route show default; cat /proc/net/dev; {GET}", "own")
            self.assertIn("dev eth0", said)
            self.assertIn("mesh0", said)
            self.assertTrue(said.endswith("answered\n"), said)
            # Whom nobody declared has what it had without us.
            said = self.say("nobody", "cat /proc/net/dev", "own")
            self.assertIn("eth0", said)
            self.assertNotIn("mesh0", said)

    def test_hook_beside_the_engines_own(self):
        """Its resolver gives way to ours, unless somebody chose one."""
        self.start("db", "none")
        ours = ("--annotation", "mesh.id=worker")
        with self.own(alone=True):
            said = self.say("worker", f"cat /etc/resolv.conf /proc/net/dev; {GET}", "own", ours)
            self.asks_the_mesh_alone(said)
            self.assertIn("mesh0", said)
            self.assertTrue(said.endswith("answered\n"), said)
            script = ("cat /etc/resolv.conf; nslookup db.wf1.wf.mesh.internal 169.254.1.1; "
                      f"{GET.replace('db', self.vip)}")
            said = self.say("worker", script, "own", (*ours, "--dns", "192.0.2.53"))
            self.assertEqual(self.resolv_conf(said), ["192.0.2.53"])
            self.assertIn(f"Address: {self.vip}", said.replace("Address 1:", "Address:"))
            self.assertTrue(said.endswith("answered\n"), said)
            said = self.say("nobody", "cat /etc/resolv.conf", "own", ())
            self.assertNotIn("169.254.1.1", said, "whom nobody declared keeps the engine's")

    def test_declared_ones_do_not_meet_on_the_engines_bridge(self):
        def say(name, script):
            return self.podman("exec", name, "sh", "-c", script).stdout

        names = ("db", "worker", "nobody", "other")
        with self.own():
            for name in names:
                self.start(name, "own")
            self.declared_ones_do_not_meet(say, *names)
            self.node.ready("db")
            self.assertEqual(say("worker", GET), "answered\n")

    def test_what_a_network_of_the_mesh_does_not_do_is_said(self):
        self.podman.network("asking", "1.0.0", capabilities={"portMappings": True})
        try:
            for option, why in ((("--ip", "10.213.0.9"), "CNI_ARGS: IP: "),
                                (("-p", "8081:8080"), "portMappings: ")):
                self.assertIn(why, self.refused("worker", "asking", (*DNS, *option)))
            self.until_left()
        finally:
            (self.podman.networks / "asking.conflist").unlink()

    def test_two_networks_of_the_mesh_are_one_too_many(self):
        """A container has one place in the mesh."""
        done = self.podman("run", "--cgroup-parent", self.podman.cgroups.name, "--network", "mesh",
                           "--network", "mesh-old", "--name", "worker", *DNS, "bb:1", "true",
                           check=False)
        self.assertEqual(done.returncode, 126)
        self.assertRegex(done.stderr, "attach worker: it is attached to cni:mesh(-old)?/")
        self.until_left()

    def test_identity_by_environment(self):
        said = self.podman.run("any", "mesh", "cat", "/proc/net/dev", options=("--rm",),
                               env={"MESHD_UUID": "stranger"}).stdout
        self.assertIn("eth0", said)
        said = self.podman.run("any", "mesh", "true", options=("--rm",),
                               env={"MESHD_UUID": "unknown"}, check=False).stderr
        self.assertIn("attach unknown: no workload of that id is declared here", said)

    def test_daemon_is_away(self):
        self.node.kill(signal.SIGTERM)
        hooked = ("--annotation", "mesh.id=worker")
        for network, options in (("mesh", ()), ("none", hooked)):
            said = self.refused("worker", network, options, "runc")
            self.assertIn("container worker is declared and does not start without the mesh", said)
            self.assertIn("meshd does not answer", said)
        # crun keeps what a hook says to itself.
        self.assertIn("error executing hook", self.refused("worker", "none", hooked))
        self.say("nobody", "true", "none", ())

    @staticmethod
    def at_work(program):
        """And not to tell its version, as podman asks again and again."""
        for pid in run(BUSYBOX, "pidof", program, check=False).stdout.split():
            with contextlib.suppress(OSError):
                environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
                if b"CNI_COMMAND=VERSION" not in environment:
                    return int(pid)
        return None

    def test_nothing_stays_of_a_start_that_was_killed(self):
        """Ours, while it waits for meshd."""
        for network, program in zip(WAYS, ("mesh-cni", "mesh-hook"), strict=True):
            with self.subTest(program), concurrent.futures.ThreadPoolExecutor() as pool:
                self.node.daemon.send_signal(signal.SIGSTOP)
                try:
                    start = pool.submit(self.refused, "worker", network,
                                        self.options("worker", network))
                    ours = until(lambda: self.at_work(program), "it waits", PATIENCE)
                    os.kill(ours, signal.SIGKILL)
                finally:
                    self.node.daemon.send_signal(signal.SIGCONT)
                start.result()
                self.until_left()
                self.assertIn("eth0", self.say("worker", "cat /proc/net/dev", network))
                self.until_left()

    def test_restart_reload_and_kill(self):
        for network, which in self.each(*WAYS):
            with which:
                self.start("db", network)
                vip = self.node.vip("db")
                self.podman("restart", "-t", "0", "db")
                self.assertEqual(self.node.vip("db"), vip)
                self.assertEqual(self.say("worker", GET, network), "answered\n")
                if network == "mesh":
                    self.podman("network", "reload", "db")
                    self.assertEqual(self.say("worker", GET), "answered\n")
                os.kill(self.podman.pid("db"), signal.SIGKILL)
                self.until_left()

    def test_killed_monitor_leaves_nothing_behind(self):
        """conmon, which is all that podman leaves beside a container."""
        for network, which in self.each(*WAYS):
            with which:
                self.start("db", network)
                monitor = self.podman("inspect", "-f", "{{.State.ConmonPid}}", "db").stdout
                os.kill(int(monitor), signal.SIGKILL)
                self.assertEqual(self.say("worker", GET, network), "answered\n")
                # The first one waits in vain for what conmon would have said of the container's
                # end.
                for _ in range(2):
                    self.podman("rm", "-f", "-t", "0", "db", check=False)
                self.until_left()
                self.start("db", network)
                self.assertEqual(self.say("worker", GET, network), "answered\n")

    def test_add_that_fails_starts_nothing(self):
        """Beside a plugin that does not work: podman takes back what ours did."""
        self.podman.network("broken", "1.0.0", after=[{"type": "mesh-broken"}])
        try:
            self.assertIn("broken on purpose", self.refused("worker", "broken", DNS))
            self.broken_had_ours(self.podman)
            self.until_left()
        finally:
            (self.podman.networks / "broken.conflist").unlink()

    def test_removed_while_the_daemon_is_away(self):
        self.start("db")
        self.node.kill()
        self.podman("rm", "-f", "-t", "0", "db")
        self.node.start()
        self.until_left()

    def test_payload_that_does_not_exist_leaves_nothing(self):
        for network, which in self.each(*WAYS):
            with which:
                before = self.attached("worker")
                done = self.podman.run("worker", network, "/nope", check=False,
                                       options=self.options("worker", network))
                self.assertEqual(done.returncode, 127, done.stderr)
                self.until_left()
                self.assertEqual(self.attached("worker"), before + 1)

    def test_fifty_at_once(self):
        for network, which in self.each(*WAYS):
            with which:
                self.start("db", network)
                self.fifty(lambda name: self.say(name, GET, network))


if __name__ == "__main__":
    unittest.main()
