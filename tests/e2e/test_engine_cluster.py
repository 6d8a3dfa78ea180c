"""Three engines on three nodes of a cluster: names and flows are the cluster's, whoever starts
what. Each runs in its node's network namespace, Docker with the firewall that it makes by default;
the mounts, and so directories like /run/netns, are one machine's."""
import signal
import unittest

import engines
from cluster import ClusterTest
from engines import SERVE, ask, db, declare, worker
from node import until

WORKLOADS = "".join(f"- {text}\n" for text in (db("db-1"), worker("worker-1"), declare("other-1")))
CRUNCH = "zzzzz-dz642-a1b2c3d4e5f6g7h"  # a container of Arvados is called so
FORWARDING = "/proc/sys/net/ipv4/ip_forward"


class Docker(engines.Docker):
    def launch(self, *argv):
        super().launch(*self.node.inside(*argv))


class Podman(engines.Podman):
    def argv(self, *argv):
        return self.node.inside(*super().argv(*argv))


class Containerd(engines.Containerd):
    def launch(self, *argv):
        super().launch(*self.node.inside(*argv))


class EnginesOfAClusterTest(ClusterTest):
    OPTIONS = {"nodes": 3}

    @classmethod
    def before_start(cls):
        super().before_start()
        cls.n1, cls.n2, cls.n3 = cls.cluster.machines
        # dockerd drops what is forwarded where it was itself that switched forwarding on.
        cls.n1.run("tee", FORWARDING, stdin="0")
        cls.docker = Docker(cls.n1, "--iptables=true", "--ip-forward=true")
        with open(cls.n1.config, "a", encoding="utf-8") as config:
            config.write("engines: {docker_user: true}\n")

    @classmethod
    def prepare(cls):
        cls.podman, cls.ctr = Podman(cls.n2), Containerd(cls.n3)
        for stage, verb in (("createRuntime", "attach"), ("poststop", "detach")):
            cls.podman.hook(f"mesh-{verb}", stage, verb)

    @classmethod
    def tearDownClass(cls):
        for engine in (cls.docker, cls.podman, cls.ctr):
            engine.close()
        super().tearDownClass()

    def setUp(self):
        self.cluster.apply(WORKLOADS)
        # A node knows what is attached to it, not what the cluster has: its id has to be said.
        self.docker("run", "-d", "--network", "none", "--name", "db", "--label", "mesh.id=db-1",
                    "bb:1", *SERVE)
        self.n1.ctl("wait", "db-1", "--timeout", "20s")

    def tearDown(self):
        self.docker.clear()
        self.podman("rm", "-fa", "-t", "0", check=False)
        for machine, id_ in ((self.n1, "db-1"), (self.n2, "worker-1"), (self.n3, "other-1")):
            machine.ctl("detach", id_, check=False)
        until(lambda: not self.cluster.placed(), "all have left")
        super().tearDown()

    def vip(self):
        return next(a for service in self.cluster.json("list", "services")["services"]
                    if service["name"] == "db" for a in service["vips"] if ":" not in a)

    def ask_by_podman(self, script):
        # By the hook podman makes no resolv.conf: the resolver is asked by its address.
        return self.podman.run("worker-1", "none", "sh", "-c", script,
                               options=("--rm", "--annotation", "mesh.id=worker-1")).stdout

    def test_each_engine_is_on_its_nodes_network(self):
        """As those see it who have no other; and Docker's firewall, which drops, stands there."""
        look = ("/bin/ip", "addr", "show", "up0")
        said = (self.docker("run", "--rm", "--network", "host", "bb:1", *look).stdout,
                self.podman.run("host", "host", *look, options=("--rm",)).stdout,
                self.ctr.run("host", *look, options=("--rm", "--net-host")).stdout)
        for machine, text in zip(self.cluster.machines, said):
            self.assertIn(f"inet {machine.address}/24 ", text)
        self.assertIn("-P FORWARD DROP", self.n1.run("iptables", "-S", "FORWARD").stdout)

    def test_crunch_runs_container_is_known_by_its_name(self):
        """Made, then declared at the controller, then started: no label says who it is."""
        self.docker("rm", "-f", "db")
        other = CRUNCH.replace("a1", "z9")  # whom nobody declares
        for name in (CRUNCH, other):
            self.docker("create", "--network", "none", "--name", name, "bb:1", *SERVE)
        self.cluster.apply(f"- {db(CRUNCH)}\n")
        try:
            for name in (CRUNCH, other):
                self.docker("start", name)
            self.n1.ctl("wait", CRUNCH, "--timeout", "20s")
            self.assertEqual(self.cluster.placed(), {CRUNCH: "n1"})
            said = self.ask_by_podman(f"wget -qO- http://{self.vip()}:8080/")
            self.assertEqual(said, "answered\n")
            self.assertNotIn("eth0", self.docker("exec", other, "cat", "/proc/net/dev").stdout)
        finally:
            self.docker("rm", "-f", CRUNCH)
            until(lambda: not self.cluster.placed(), "it has left")
            self.cluster.ctl("delete", CRUNCH)

    def test_docker_is_called_by_podman(self):
        said = self.ask_by_podman("nslookup db.wf1.wf.mesh.internal 169.254.1.1 >/dev/null && "
                                  f"wget -qO- http://{self.vip()}:8080/")
        self.assertEqual(said, "answered\n")

    def test_who_did_not_declare_it_is_refused(self):
        self.n3.ctl("prepare", "other-1")
        done = self.ctr.run("other-1", "/bin/sh", "-c",
                            "nslookup db.wf1.wf.mesh.internal 169.254.1.1 >/dev/null; echo $?; "
                            + ask(self.vip()),
                            options=("--rm", "--with-ns", "network:/run/netns/other-1"))
        self.assertEqual(done.stdout.split(), ["1", "1"], done.stderr)

    def test_the_name_follows_the_container_to_another_engine(self):
        vip = self.vip()
        self.docker("rm", "-f", "db")
        until(lambda: not self.cluster.placed(), "it has left")
        self.n3.ctl("prepare", "db-1")
        self.ctr.run("db-1", *SERVE, options=("-d", "--with-ns", "network:/run/netns/db-1"))
        try:
            self.n3.ctl("wait", "db-1", "--timeout", "20s")
            self.assertEqual(self.vip(), vip)
            self.assertEqual(self.ask_by_podman(f"wget -qO- http://{vip}:8080/"), "answered\n")
        finally:
            self.ctr("task", "rm", "-f", "db-1", check=False)
            self.ctr("container", "rm", "db-1", check=False)
            self.n3.ctl("detach", "db-1")

    def test_its_nodes_daemon_is_away(self):
        self.n2.kill(signal.SIGTERM)
        try:
            done = self.podman.run("worker-1", "none", "true", check=False, runtime="runc",
                                   options=("--rm", "--annotation", "mesh.id=worker-1"))
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("does not start without the mesh", done.stderr)
        finally:
            self.n2.start()
            self.cluster.settled()


if __name__ == "__main__":
    unittest.main()
