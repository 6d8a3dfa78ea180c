"""dockerd as it comes, and after meshd, on a node that forwarded nothing before: it finds
forwarding on, so that it is content, and its containers reach all that they would have reached
without meshd. Those that are declared are in the mesh as well, on its bridge docker0 too, which is
crunch-run's default."""
import json
import pathlib
import re
import socket
import unittest

from engines import GET, SERVE, Docker, DockerEngineTest, db, worker, workloads
from node import run, until

SYSCTL = pathlib.Path("/proc/sys/net")
NETWORK = "198.51.100.0/24"


class DockerLaterTest(DockerEngineTest):
    NETWORK = "bridge"

    @classmethod
    def prepare(cls):
        cls.docker = Docker(cls.node, "--iptables=true", "--ip-masq=true", "--ip-forward=true",
                            "--dns", cls.node.OUTSIDE[0], bridge="docker0")
        # Where frames on a bridge are asked, too, whether they are forwarded.
        for setting in SYSCTL.glob("bridge/bridge-nf-call-*tables"):
            setting.write_text("1")
        run("ip", "-n", "outside", "route", "add", NETWORK, "via", cls.node.UPLINK)
        cls.node.outside.serve(proto="tcp", port=9000)
        cls.docker("network", "create", "-d", "bridge", "--subnet", NETWORK, "own")
        for name, *options in (("one", "-p", "8081:8080"), ("two",)):
            cls.docker("run", "-d", "--network", "own", "--name", name, *options, "bb:1", *SERVE)
        cls.upstream = cls.node.upstream()

    @classmethod
    def tearDownClass(cls):
        cls.upstream.kill()
        cls.upstream.wait()
        super().tearDownClass()

    def address(self, name):
        return self.own_address(name, "own")

    def answers_outside(self, address, port):
        return run("ip", "netns", "exec", "outside", "curl", "-sm", "3",
                   f"http://{address}:{port}/", check=False).stdout == "answered\n"

    def unforwarded(self):
        text = run("nft", "list", "counter", "inet", "meshd", "c_unforwarded").stdout
        return int(re.search(r"packets (\d+)", text)[1])

    def check(self):
        before = self.unforwarded()
        until(lambda: self.reaches("one", self.address("two")), "each other")
        until(lambda: self.reaches("one", self.node.OUTSIDE[0], 9000), "the way out")
        until(lambda: self.answers_outside(self.node.UPLINK, 8081), "what Docker publishes")
        self.assertEqual(self.unforwarded(), before)
        # dockerd, which found forwarding on, drops nothing by itself: that nobody comes in by the
        # node's forwarding is for us to see to.
        self.assertIn("-P FORWARD ACCEPT", run("iptables", "-S", "FORWARD").stdout)
        self.assertFalse(self.answers_outside(self.address("two"), 8080))
        self.assertGreater(self.unforwarded(), before)

    def test_its_containers_go_on_as_without_us(self):
        self.assertEqual((SYSCTL / "ipv4/ip_forward").read_text(), "1\n")
        self.check()
        # What was found the first time is what counts, and the bridges are found again.
        self.node.kill()
        run("nft", "delete", "table", "inet", "meshd")
        self.node.start()
        self.check()

    def lookup(self, name, *server, by="one"):
        return self.docker("exec", by, "nslookup", name, *server, check=False).stdout

    def test_they_ask_for_names_as_without_us(self):
        """Docker's own resolver and the site's; and meshd's, should they be told of it, has no name
        of ours for them."""
        self.node.apply(workloads(db()))
        self.assertIn(self.address("two"), self.lookup("two"))
        until(lambda: "198.51.100.7" in self.lookup("www.example.com"), "the site's resolver")
        self.assertIn("198.51.100.7", self.lookup("www.example.com", "169.254.1.1"))
        name = "db.wf1.wf.mesh.internal"
        self.assertIn("NXDOMAIN", self.lookup(name, "169.254.1.1"))
        self.assertNotIn(name, self.node.ASKED.read_text())

    def ip(self, name, *argv):
        pid = self.docker.inspect(name)["State"]["Pid"]
        return run("nsenter", "-t", pid, "-n", "ip", *argv).stdout

    def test_declared_ones_on_docker0_are_in_the_mesh_as_well(self):
        names, outside = ("db", "worker", "nobody"), (self.node.OUTSIDE[0], 9000)
        self.node.apply(workloads(db(), worker()))
        try:
            for name in names:
                self.start(name, *SERVE)
            # Where crunch-run's gateway looks for it.
            at = {name: self.docker.inspect(name)["NetworkSettings"]["IPAddress"] for name in names}
            self.node.ready("db")
            for name in names:
                until(lambda: self.reaches(name, "127.0.0.1"), "it serves")
                socket.create_connection((at[name], 8080), 20).close()
                self.assertTrue(self.reaches(name, *outside))
                self.assertEqual(self.ip(name, "route", "show", "default"),
                                 "default via 172.17.0.1 dev eth0 \n")
                self.assertEqual(self.ip(name, "-6", "route", "show", "default"), "")
                self.assertIn(f"inet {at[name]}/16 ", self.ip(name, "addr", "show", "eth0"))
            for one, other in (("db", "worker"), ("worker", "db")):
                self.assertEqual(self.attachment(one)["ifname"], "mesh0")
                self.asks_the_mesh_alone(self.docker("exec", one, "cat", "/etc/resolv.conf").stdout)
                self.assertFalse(self.reaches(one, at[other]))
                self.assertTrue(self.reaches(one, at["nobody"]))
                self.assertTrue(self.reaches("nobody", at[one]))
            self.assertEqual(self.docker("exec", "worker", "sh", "-c", GET).stdout, "answered\n")
            self.assertFalse(self.reaches("worker", "db", 8081))
            self.assertFalse(self.reaches("db", self.attachment("worker")["addresses"][0]))
            said = self.docker("exec", "nobody", "cat", "/proc/net/dev", "/etc/resolv.conf").stdout
            self.assertNotIn("mesh", said)
            self.assertEqual(self.resolv_conf(said), [self.node.OUTSIDE[0]])
            # Its way out is open, and who is there has names, by the mesh's resolver as well.
            for name in names:
                self.assertIn("198.51.100.7", self.lookup("www.example.com", by=name))
        finally:
            self.docker("rm", "-f", *names, check=False)

    def test_bridge_that_leads_outside_is_no_engines(self):
        """As an administrator makes one of his engine's: then it is not known who is on it."""
        bridge = next(link["ifname"] for link in json.loads(
            run("ip", "-j", "link", "show", "type", "bridge").stdout)
            if link["ifname"].startswith("br-"))
        run("ip", "link", "add", "nic0", "type", "vxlan", "id", "3", "dstport", "0", "dev", "up0")
        run("ip", "link", "set", "nic0", "master", bridge)
        try:
            until(lambda: not self.reaches("one", self.node.OUTSIDE[0], 9000), "it is shut")
        finally:
            run("ip", "link", "del", "nic0")
        until(lambda: self.reaches("one", self.node.OUTSIDE[0], 9000), "it is open again")


if __name__ == "__main__":
    unittest.main()
