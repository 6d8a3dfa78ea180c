"""Docker's networks that are the mesh's: a driver of ours says who may start on them, and dockerd
never waits for it, whatever has become of meshd."""
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import time
import unittest

from engines import (GET, PATIENCE, SERVE, DockerEngineTest, ask, db, declare, worker,
                     workloads)
from node import BUILD, run, until

PLUGIN = pathlib.Path("/run/docker/plugins/mesh.sock")
# Docker's own placeholder, which no program may meet.
DUMMY = "192.0.0.8"
# What a call may take at most on a busy machine; dockerd alone would wait for 15 s, and three times
# that for `rm`.
SOON = 12.0


class Driver:
    def __init__(self, node, docker_root):
        self.node, self.docker_root = node, docker_root
        self.process = None
        self.start()

    def start(self, listening=None):
        """With a socket that listens already it gets that, as from a service manager."""
        root = self.docker_root
        argv = [BUILD / "mesh-docker", "--docker-socket", root / "docker.sock", "--docker-root",
                root / "data", "--run-dir", "/run/meshd", "--state-dir", "/run/state"]
        if listening:
            argv = ["sh", "-c", f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&{listening.fileno()}',
                    "sh", *argv]
        with open(self.node.dir / "driver.log", "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log,
                                            pass_fds=[listening.fileno()] if listening else [])
        until(self.answers, "the driver answers")

    def answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the driver ended with {self.process.returncode}")
        try:
            return self.call("/Plugin.Activate", b"")[0] == 200
        except OSError:
            return False

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        self.process.wait(timeout=PATIENCE)

    @staticmethod
    def send(data):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(PLUGIN))
            try:
                connection.sendall(data)
            except BrokenPipeError:
                pass  # it was answered before its end
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            return answer

    @classmethod
    def call(cls, path, body):
        answer = cls.send(b"POST %b HTTP/1.1\r\nHost: \r\nContent-Length: %d\r\n\r\n%b"
                          % (path.encode(), len(body), body))
        head, _, text = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(text)


class DockerNetworkTest(DockerEngineTest):
    NETWORK = "net"

    @classmethod
    def prepare(cls):
        super().prepare()
        cls.driver = Driver(cls.node, cls.docker.dir)

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.driver.kill()

    def setUp(self):
        self.node.apply(workloads(db(), worker(), declare("stranger")))
        self.docker("network", "create", "-d", "mesh", "--ipam-driver", "mesh", "net")

    def tearDown(self):
        self.clear(self.docker)
        self.docker("network", "rm", "net")
        super().tearDown()

    def refused(self, name, *options, network="net"):
        """Who does not start, and what Docker says; and that it took no time."""
        begun = time.monotonic()
        done = self.docker("run", "--network", network, "--name", name, *options, "bb:1", "true",
                           check=False)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        self.assertLess(time.monotonic() - begun, SOON)
        begun = time.monotonic()
        self.docker("rm", "-f", name)
        self.assertLess(time.monotonic() - begun, SOON)
        return done.stderr

    def test_two_containers_talk_by_name(self):
        self.start("db", *SERVE)
        said = self.say("worker", f"cat /proc/net/dev /etc/resolv.conf; {GET}")
        self.assertIn("eth0", said)
        self.assertTrue(said.endswith("answered\n"), said)
        servers = self.resolv_conf(said)
        self.assertEqual(servers[0], "169.254.1.1")
        self.assertNotIn("127.0.0.11", servers)

    def test_what_is_not_declared_does_not_pass(self):
        self.start("db", *SERVE)
        self.node.ready("db")
        self.assertEqual(self.say("worker", f"{ask('db')}; {self.ask_all()}; {self.ask_all(8081)}"),
                         5 * "0\n" + 4 * "1\n")
        self.assertEqual(self.say("stranger", self.ask_all()), 4 * "1\n")
        self.assertTrue(self.say("stranger", "nslookup db; echo $?").endswith("1\n"))

    def test_alias_of_dockers_is_no_name(self):
        self.start("db", *SERVE, options=("--network-alias", "nick"))
        self.node.ready("db")
        said = self.say("worker", f"nslookup nick; echo $?; {GET}")
        self.assertRegex(said, r"(?s)NXDOMAIN.*\n1\nanswered\n$")

    def test_a_container_knows_itself_by_an_address_that_it_has(self):
        self.start("db", *SERVE)
        hosts = self.docker("exec", "db", "cat", "/etc/hosts").stdout
        self.assertIn(self.attachment("db")["addresses"][0], hosts)
        self.assertNotIn(DUMMY, hosts)
        self.docker("restart", "-t", "0", "db")
        hosts = self.docker("exec", "db", "cat", "/etc/hosts").stdout
        self.assertIn(self.attachment("db")["addresses"][0], hosts)
        self.assertNotIn(DUMMY, hosts)

    def test_container_brings_its_declaration(self):
        self.start("shop", *SERVE, options=(
            "--label", "mesh.declaration={name: web, scope: CLUSTER, serves: [{port: 8080}]}"))
        said = self.say("guest", "wget -qO- http://web:8080/",
                        options=("--label", "mesh.declaration=peers: [{name: web}]"))
        self.assertEqual(said, "answered\n")

    def test_whom_nobody_declared_does_not_start(self):
        said = self.refused("nobody")
        self.assertIn("container nobody: nobody declared this container", said)
        # Elsewhere it is none of our business.
        self.docker("run", "--rm", "--network", "none", "--name", "nobody", "bb:1", "true")

    def test_what_a_network_of_the_mesh_does_not_do_is_said(self):
        self.assertIn("ports are published by", self.refused("worker", "-p", "80:80"))
        self.assertIn("--dns: on a network of the mesh", self.refused("worker", "--dns", "192.0.2.53"))
        self.assertIn("its runtime is runc", self.refused("worker", "--runtime", "runc"))
        for options, why in ((("--ipv6",), "unasked"), (("--internal",), "--internal"), (("--subnet", "10.0.0.0/8"), "--subnet"),
                             (("-o", "a=b"), "-o a: a network of the mesh has no options")):
            done = self.docker("network", "create", "-d", "mesh", "--ipam-driver", "mesh", *options,
                               "odd", check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(why, done.stderr)
        done = self.docker("network", "create", "-d", "mesh", "odd", check=False)
        self.assertIn("--ipam-driver mesh: is missing", done.stderr)

    def test_one_that_runs_joins_when_it_starts_again(self):
        self.docker("network", "create", "-d", "bridge", "--subnet", "198.51.100.0/24", "own")
        try:
            self.docker("run", "-d", "--network", "own", "--name", "late", "bb:1", *SERVE)
            self.node.apply(workloads(db("late")))
            done = self.docker("network", "connect", "net", "late", check=False)
            self.assertIn("it runs already and is not attached", done.stderr)
            self.docker("stop", "-t", "0", "late")
            self.docker("network", "connect", "net", "late")
            self.docker("start", "late")
            self.assertEqual(self.attachment("late")["ifname"], "mesh0")
            self.assertEqual(self.say("worker", GET), "answered\n")
            self.docker("network", "disconnect", "net", "late")
            until(lambda: not self.node.links(), "one taken off the network is detached")
            self.docker("rm", "-f", "late")
        finally:
            self.docker("network", "rm", "own")

    def test_networks_come_and_go_with_their_containers(self):
        for _ in range(2):
            self.docker("network", "create", "-d", "mesh", "--ipam-driver", "mesh", "stack")
            self.docker("run", "-d", "--network", "stack", "--name", "db", "bb:1", *SERVE)
            self.assertEqual(self.say("worker", GET), "answered\n")  # of another network
            self.docker("rm", "-f", "db")
            self.docker("network", "rm", "stack")

    def test_killed_meshd_comes_back_under_its_containers(self):
        self.start("db", *SERVE)
        self.start("worker", "sleep", "1000")
        self.node.kill()
        self.node.start()
        self.node.ready("db")
        self.assertEqual(self.docker("exec", "worker", "sh", "-c", GET).stdout, "answered\n")
        address = self.attachment("db")["addresses"][0]
        self.assertEqual(self.say("stranger", ask(address)), "1\n")

    def test_nothing_waits_for_a_meshd_that_is_away(self):
        self.start("db", *SERVE)
        self.node.kill(signal.SIGTERM)
        said = self.refused("worker")
        self.assertIn("container worker is declared and does not start without the mesh", said)
        self.assertIn("meshd does not answer at /run/meshd/status.sock", said)
        begun = time.monotonic()
        self.docker("rm", "-f", "db")
        self.assertLess(time.monotonic() - begun, SOON)
        begun = time.monotonic()
        self.docker("network", "create", "-d", "mesh", "--ipam-driver", "mesh", "other")
        self.docker("network", "rm", "other")
        self.assertLess(time.monotonic() - begun, SOON)
        self.node.start()
        self.until_left()
        self.assertIn("eth0", self.say("worker", "cat /proc/net/dev"))

    def test_nothing_waits_for_a_meshd_that_hangs(self):
        self.start("db", *SERVE)
        self.node.daemon.send_signal(signal.SIGSTOP)
        try:
            said = self.refused("worker")
            self.assertIn("does not answer in time", said)
            begun = time.monotonic()
            self.docker("rm", "-f", "db")
            self.assertLess(time.monotonic() - begun, SOON)
        finally:
            self.node.daemon.send_signal(signal.SIGCONT)
        self.assertIn("eth0", self.say("worker", "cat /proc/net/dev"))

    def test_a_driver_that_was_restarted_knows_as_much(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.start("db", *SERVE)
            self.driver.kill(number)
            self.driver.start()
            self.assertEqual(self.say("worker", GET), "answered\n")
            self.docker("rm", "-f", "db")
            self.until_left()

    def test_a_socket_of_the_service_manager_answers_through_a_restart(self):
        self.start("db", *SERVE)
        self.driver.kill(signal.SIGTERM)
        self.assertFalse(PLUGIN.exists())
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(PLUGIN))
            listening.listen()
            worker = self.docker.begin("run", "--rm", "--network", "net", "--name", "worker",
                                       "bb:1", "sh", "-c", GET)
            called, _, _ = select.select([listening], [], [], PATIENCE)
            self.assertTrue(called, "dockerd calls the driver")
            self.assertIsNone(worker.poll())
            self.driver.start(listening)
            self.assertEqual(worker.communicate(timeout=PATIENCE), ("answered\n", ""))
            self.driver.kill(signal.SIGTERM)
            self.assertTrue(PLUGIN.exists())
        self.driver.start()

    def test_dockerd_starts_at_once_with_a_network_of_the_mesh(self):
        self.start("db", *SERVE)
        begun = time.monotonic()
        self.docker.kill(signal.SIGTERM)
        self.docker.start()
        took = time.monotonic() - begun
        self.docker("network", "inspect", "net")
        self.docker("start", "db")
        self.assertEqual(self.say("worker", GET), "answered\n")
        self.node.kill(signal.SIGTERM)
        begun = time.monotonic()
        self.docker.kill(signal.SIGTERM)
        self.docker.start()
        self.assertLess(time.monotonic() - begun, took + SOON)
        self.node.start()

    def test_killed_payload_is_detached(self):
        self.killed_payload_is_detached()

    def test_payload_that_is_not_there_leaves_nothing(self):
        self.payload_that_is_not_there_leaves_nothing()

    def test_killed_engine_leaves_flows_and_then_nothing(self):
        self.killed_engine_leaves_flows_and_then_nothing()
        self.docker("rm", "worker")
        self.docker("start", "db")
        self.assertEqual(self.say("worker", GET), "answered\n")

    def test_fifty_at_once(self):
        self.start("db", *SERVE)
        self.fifty(lambda name: self.say(name, GET))

    def test_what_is_no_call_is_answered(self):
        """dockerd says a call again with an empty body once a connection broke."""
        for path in ("/NetworkDriver.Join", "/NetworkDriver.Leave", "/IpamDriver.RequestPool"):
            for body in (b"", b"[]", b"null", b"\xff", b"{" * 100_000):
                status, answer = self.driver.call(path, body)
                self.assertEqual((status, list(answer)), (200, ["Err", "Error"]), (path, body[:9]))
        self.assertEqual(self.driver.call("/NetworkDriver.Fly", b"{}")[0], 404)
        self.assertEqual(self.driver.call("/NetworkDriver.Join", b"x" * (2 << 20))[0], 413)
        self.assertIn(b"405", self.driver.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").split()[1])
        self.driver.send(b"\0" * 1000 + b"\r\n\r\n")
        self.assertEqual(os.stat(PLUGIN).st_mode & 0o777, 0o700)
        self.assertEqual(self.say("worker", "echo x"), "x\n")

    def test_there_is_one_driver(self):
        done = run(BUILD / "mesh-docker", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("another driver listens there", done.stderr)
        self.assertIn("usage", run(BUILD / "mesh-docker", "--fly", check=False).stderr)


if __name__ == "__main__":
    unittest.main()
