"""Docker as it is, with mesh-runc before its runtime: whoever is declared is in the mesh before its
first instruction or does not run, and whoever is not is none of our business."""
import os
import signal
import socket
import time
import unittest

from engines import (BUSYBOX, GET, PATIENCE, SERVE, DockerEngineTest, ask, db, declare, worker,
                     workloads)
from node import run, until


class DockerTest(DockerEngineTest):
    def setUp(self):
        self.node.apply(workloads(db(), worker(), declare("stranger")))

    def tearDown(self):
        self.clear(self.docker)
        super().tearDown()

    def test_first_instruction_is_in_the_mesh(self):
        self.start("db", *SERVE)
        said = self.say("worker", f"cat /proc/net/dev /etc/resolv.conf; {GET}")
        self.assertIn("eth0", said)
        self.assertTrue(said.endswith("answered\n"), said)
        self.assertEqual(self.attachment("db")["ifname"], "eth0")

    def test_names_and_flows_are_those_that_are_declared(self):
        self.start("db", *SERVE)
        self.node.ready("db")
        self.assertEqual(self.say("worker", f"{ask('db')}; {self.ask_all()}; {self.ask_all(8081)}"),
                         5 * "0\n" + 4 * "1\n")
        said = self.say("stranger", "nslookup db; echo $?")
        self.assertTrue(said.endswith("1\n"), said)
        self.assertEqual(self.say("stranger", self.ask_all()), 4 * "1\n")

    def test_resolver_is_the_mesh_and_no_other(self):
        said = self.say("worker", "cat /etc/resolv.conf")
        self.asks_the_mesh_alone(said)
        self.assertIn("search wf1.wf.mesh.internal svc.mesh.internal", said)

    def test_dns_that_somebody_chose_is_left(self):
        """In the file. Whoever asks it for the mesh's names is answered, and it hears nothing."""
        there, name = self.node.OUTSIDE[0], "db.wf1.wf.mesh.internal"
        upstream = self.node.upstream()
        try:
            until(lambda: "198.51.100.7" in run(BUSYBOX, "nslookup", "www.example.com", there,
                                                check=False).stdout, "it is asked by others")
            for server in ("192.0.2.53", there):
                said = self.say("worker", f"cat /etc/resolv.conf; nslookup {name}",
                                options=("--dns", server))
                self.assertEqual(self.resolv_conf(said), [server])
                self.assertIn(self.node.vip("db"), said)
            asked = self.node.ASKED.read_text()
            self.assertIn("www.example.com", asked)
            self.assertNotIn(name, asked)
        finally:
            upstream.kill()
            upstream.wait()

    def test_container_brings_its_declaration(self):
        serves = "{name: web, scope: CLUSTER, serves: [{port: 8080}]}"
        self.start("shop", *SERVE, options=("--label", f"mesh.declaration={serves}"))
        said = self.say("guest", "wget -qO- http://web:8080/",
                        options=("--label", "mesh.declaration=peers: [{name: web}]"))
        self.assertEqual(said, "answered\n")
        declared = {w["id"]: w
                    for w in self.node.json("list", "workloads")["workloads"]}
        self.assertEqual(declared["shop"]["owner"], "root")
        self.docker("rm", "-f", "shop")

    def test_declaration_that_is_wrong_says_why(self):
        for text, why in (("{serves: [{port: 99999}]}", "port"), ("{id: db}", "id"),
                          ("nonsense: 1", "nonsense")):
            done = self.docker("run", "--rm", "--network", "none", "--name", "odd", "--label",
                               f"mesh.declaration={text}", "bb:1", "true", check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("mesh-hook: container odd brings its declaration", done.stderr)
            self.assertIn(why, done.stderr)
            self.docker("rm", "-f", "odd", check=False)

    def test_made_then_declared_then_started(self):
        """As crunch-run has it: its name or its number alone says who it is."""
        def make(*options):
            return self.docker("create", "--network", "none", *options, "bb:1",
                               *SERVE).stdout.strip()[:12]
        uuid = "zzzzz-dz642-a1b2c3d4e5f6g7h"
        make("--name", uuid)
        while (number := make()).isdigit():  # no label of DNS, once in 300 times
            pass
        for name in (uuid, number):
            self.node.apply(workloads(db(name)))
            self.docker("start", name)
            self.node.ready(name)
            self.assertEqual(self.attachment(name)["ifname"], "eth0")
            get = f"wget -qO- http://{name}.id.mesh.internal:8080/"
            self.assertEqual(self.say("worker", get), "answered\n")
            # A pause is no end.
            self.docker("pause", name)
            self.assertTrue(self.attachment(name)["addresses"])
            self.docker("unpause", name)
            self.assertEqual(self.say("worker", get), "answered\n")

    def test_id_by_label(self):
        self.start("anything", *SERVE, options=("--label", "mesh.id=db"))
        self.assertEqual(self.attachment("db")["addresses"][0][:4], "10.2")
        self.assertEqual(self.say("worker", GET), "answered\n")

    def test_what_an_image_says_of_itself_is_not_believed(self):
        """Else whoever makes an image took the id, and the permissions, of another."""
        archive = self.docker.dir / "image.tar"
        self.docker("import", "--change", "LABEL mesh.id=worker", archive, "bb:liar")
        said = self.docker("run", "--rm", "--network", "none", "--name", "liar", "bb:liar",
                           "cat", "/proc/net/dev").stdout
        self.assertNotIn("eth0", said)
        # The launcher's own word counts, whatever the image says.
        said = self.docker("run", "--rm", "--network", "none", "--name", "liar", "--label",
                           "mesh.id=stranger", "bb:liar", "cat", "/proc/net/dev").stdout
        self.assertIn("eth0", said)

    def test_whom_nobody_declared_is_left_alone(self):
        said = self.say("nobody", "cat /proc/net/dev /etc/resolv.conf")
        self.assertNotIn("eth0", said)
        self.assertNotIn("169.254.1.1", said)
        begun = time.monotonic()
        self.say("nobody", "true")
        took = time.monotonic() - begun
        # A daemon that hangs is not waited for, neither at the start nor at the end: each would
        # take 4 s.
        self.node.daemon.send_signal(signal.SIGSTOP)
        try:
            begun = time.monotonic()
            self.assertNotIn("eth0", self.say("nobody", "cat /proc/net/dev"))
            self.assertLess(time.monotonic() - begun, 2 * took + 3)
        finally:
            self.node.daemon.send_signal(signal.SIGCONT)
        self.node.kill()
        self.assertNotIn("eth0", self.say("nobody", "cat /proc/net/dev"))
        self.node.start()

    def refused(self, name, *options):
        begun = time.monotonic()
        done = self.docker("run", "--rm", "--network", "none", "--name", name, *options, "bb:1",
                           "touch", "/ran", check=False)
        took = time.monotonic() - begun
        self.assertNotEqual(done.returncode, 0)
        self.docker("rm", "-f", name, check=False)
        return done.stderr, took

    def test_declared_does_not_start_while_the_daemon_is_away(self):
        self.node.kill(signal.SIGTERM)
        said, took = self.refused("worker")
        self.assertIn("container worker is declared and does not start without the mesh", said)
        self.assertIn("meshd does not answer at /run/meshd/control.sock", said)
        self.assertLess(took, 20)
        said, _ = self.refused("new", "--label", "mesh.declaration=peers: [{name: db}]")
        self.assertIn("meshd does not answer", said)
        said, _ = self.refused("new", "--label", "mesh.id=worker")
        self.assertIn("meshd does not answer", said)
        self.node.start()
        self.assertIn("eth0", self.say("worker", "cat /proc/net/dev"))

    def test_declared_does_not_start_while_the_daemon_hangs(self):
        self.node.daemon.send_signal(signal.SIGSTOP)
        try:
            said, took = self.refused("worker")
        finally:
            self.node.daemon.send_signal(signal.SIGCONT)
        self.assertIn("container worker is declared and does not start without the mesh", said)
        self.assertIn("meshd at /run/meshd/control.sock does not answer in time", said)
        self.assertLess(took, 20)
        self.assertIn("eth0", self.say("worker", "cat /proc/net/dev"))

    def test_daemon_that_is_replaced_is_waited_for(self):
        """For 2.5 s, within which a busy machine may not have it back: one of three times."""
        for _ in range(3):
            self.node.kill()
            worker = self.docker.begin("run", "--network", "none", "--name", "worker", "bb:1",
                                       "cat", "/proc/net/dev")
            until(lambda: run(BUSYBOX, "pidof", "mesh-hook", check=False).stdout, "its hook waits",
                  PATIENCE)
            self.node.start()
            said, errors = worker.communicate(timeout=PATIENCE)
            self.docker("rm", "-f", "worker")
            if worker.returncode == 0:
                self.assertIn("eth0", said)
                return
            self.assertRegex(errors, "container worker is declared and does not start without the "
                             "mesh: .*(does not answer|lost meshd|not in force)")
        self.fail("it was never waited for")

    def test_nothing_stays_of_a_start_that_was_killed(self):
        """Our hook or the engine, while it waits for meshd, which hears of both together."""
        for who in ("mesh-hook", "the engine"):
            with self.subTest(who):
                self.node.daemon.send_signal(signal.SIGSTOP)
                try:
                    start = self.docker.begin("run", "--network", "none", "--name", "worker", "bb:1",
                                              "true")
                    hook = until(lambda: run(BUSYBOX, "pidof", "mesh-hook", check=False).stdout,
                                 "its hook waits", PATIENCE)
                    if who == "mesh-hook":
                        os.kill(int(hook), signal.SIGKILL)
                    else:
                        self.docker.kill_hard()
                finally:
                    self.node.daemon.send_signal(signal.SIGCONT)
                start.communicate(timeout=PATIENCE)
                self.assertNotEqual(start.returncode, 0)
                if who != "mesh-hook":
                    self.docker.start()
                self.until_left()
                self.docker("rm", "-f", "worker")
                self.assertIn("eth0", self.say("worker", "cat /proc/net/dev"))
                self.until_left()

    def test_payload_that_is_not_there_leaves_nothing(self):
        self.payload_that_is_not_there_leaves_nothing()

    def test_deleted_is_nobody_again(self):
        self.node.ctl("delete", "stranger")
        self.assertNotIn("eth0", self.say("stranger", "cat /proc/net/dev"))

    def test_restart_is_another_namespace_and_the_same_name(self):
        self.start("db", *SERVE)
        first, vip = self.attachment("db"), self.node.vip("db")
        self.docker("restart", "-t", "0", "db")
        second = self.attachment("db")
        self.assertEqual(self.node.vip("db"), vip)
        self.assertNotEqual(first["host_ifname"], "")
        self.assertEqual(first["netns"], second["netns"])  # the same container
        self.assertEqual(self.say("worker", GET), "answered\n")

    def test_killed_payload_is_detached(self):
        self.killed_payload_is_detached()

    def test_killed_engine_leaves_flows_and_then_nothing(self):
        self.killed_engine_leaves_flows_and_then_nothing()

    def test_declared_twice_at_once_starts_once(self):
        self.start("db", *SERVE)
        said, _ = self.refused("other", "--label", "mesh.id=db")
        self.assertIn("it is attached to container:", said)

    def test_network_of_another_container_cannot_be_declared(self):
        self.start("db", *SERVE)
        shared = ("--network", "container:db")
        for label in ((), ("--label", "mesh.declaration={peers: [{name: db}]}")):
            done = self.docker("run", "--rm", *shared, "--name", "worker", *label, "bb:1", "true",
                               check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("container worker", done.stderr)
            self.docker("rm", "-f", "worker", check=False)
        # Nor of one that nobody declared, who would then have what is the other's.
        self.docker("run", "-d", "--network", "none", "--name", "host", "bb:1", *SERVE)
        done = self.docker("run", "--rm", "--network", "container:host", "--name", "worker", "bb:1",
                           "true", check=False)
        self.assertIn("container worker: it has the network of another container", done.stderr)
        self.docker("rm", "-f", "worker", check=False)
        # Nor is one unseen by files of its own in the place of all that Docker mounts.
        files = [f"-v/dev/null:/etc/{name}" for name in ("hostname", "hosts", "resolv.conf")]
        self.assertIn("eth0", self.say("worker", "cat /proc/net/dev", files))
        said = self.docker("run", "--rm", *shared, "--name", "nobody", "bb:1", "cat",
                           "/proc/net/dev").stdout
        self.assertIn("eth0", said)

    def test_host_network_cannot_be_declared(self):
        done = self.docker("run", "--rm", "--network", "host", "--name", "worker", "bb:1", "true",
                           check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("the node's own network", done.stderr)
        self.docker("rm", "-f", "worker", check=False)
        self.docker("run", "--rm", "--network", "host", "--name", "nobody", "bb:1", "true")

    def test_beside_the_engines_own_bridge(self):
        """As crunch-run has it, whose own forwarding goes over the engine's interface."""
        self.docker("network", "create", "-d", "bridge", "--subnet", "198.51.100.0/24", "own")
        try:
            self.start("db", *SERVE)
            said = self.docker("run", "--rm", "--network", "own", "--name", "worker", "bb:1", "sh",
                               "-c", "cat /proc/net/dev /etc/resolv.conf; ip route show default; "
                               + GET).stdout
            self.assertIn("mesh0", said)
            self.asks_the_mesh_alone(said)
            self.assertIn("default via 198.51.100.1 dev eth0", said)
            self.assertTrue(said.endswith("answered\n"), said)
        finally:
            self.docker("network", "rm", "own")

    def test_declared_ones_do_not_meet_on_the_engines_bridge(self):
        """They reach all else there, whom nobody declared too, as they would without us."""
        names = ("db", "worker", "nobody", "other")
        networks = ("own", "late")
        for number, network in enumerate(networks):
            self.docker("network", "create", "-d", "bridge", "--subnet",
                        f"198.51.100.{128 * number}/25", network)
        try:
            for name in names:
                self.docker("run", "-d", "--network", "own", "--name", name, "bb:1", *SERVE)
            at = {name: self.own_address(name, "own") for name in names}
            until(lambda: self.reaches("nobody", at["other"]), "they serve")
            for one, other in (("worker", "db"), ("db", "worker")):
                self.assertFalse(self.reaches(one, at[other]))
                self.assertTrue(self.reaches(one, at["nobody"]))
                self.assertTrue(self.reaches("nobody", at[one]))
                # From the bridge's own address, as crunch-run's gateway.
                socket.create_connection((at[one], 8080), 20).close()
            self.node.ready("db")
            said = self.docker("exec", "worker", "wget", "-qO-", "http://db:8080/").stdout
            self.assertEqual(said, "answered\n")
            for name in names:
                self.docker("network", "connect", "late", name)
            late = self.own_address("db", "late")
            until(lambda: not self.reaches("worker", late), "the network that came later is shut")
            self.assertTrue(self.reaches("nobody", late))
        finally:
            self.docker("rm", "-f", *names, check=False)
            self.docker("network", "rm", *networks)

    def test_fifty_at_once(self):
        self.start("db", *SERVE)
        self.fifty(lambda name: self.say(name, GET))


if __name__ == "__main__":
    unittest.main()
