"""dockerd that comes after meshd, on a node that forwarded nothing before: it finds forwarding on,
so that it is content, and its containers reach all that they would have reached without meshd."""
import json
import pathlib
import re
import unittest

from engines import SERVE, Docker, EngineTest, db, workloads
from node import run, until

SYSCTL = pathlib.Path("/proc/sys/net")
NETWORK = "198.51.100.0/24"


class DockerLaterTest(EngineTest):
    @classmethod
    def prepare(cls):
        cls.docker = Docker(cls.node, "--iptables=true", "--ip-masq=true", "--ip-forward=true")
        # Where frames on a bridge are asked, too, whether they are forwarded.
        for setting in SYSCTL.glob("bridge/bridge-nf-call-*tables"):
            setting.write_text("1")
        run("ip", "-n", "outside", "route", "add", NETWORK, "via", cls.node.UPLINK)
        cls.node.outside.serve(proto="tcp", port=9000)
        cls.docker("network", "create", "-d", "bridge", "--subnet", NETWORK, "own")
        for name, *options in (("one", "-p", "8081:8080"), ("two",)):
            cls.docker("run", "-d", "--network", "own", "--dns", cls.node.OUTSIDE[0], "--name", name,
                       *options, "bb:1", *SERVE)
        cls.upstream = cls.node.upstream()

    @classmethod
    def tearDownClass(cls):
        cls.upstream.kill()
        cls.upstream.wait()
        cls.docker.close()
        super().tearDownClass()

    def address(self, name):
        return self.docker.inspect(name)["NetworkSettings"]["Networks"]["own"]["IPAddress"]

    def connects(self, name, address, port):
        return self.docker("exec", name, "sh", "-c", f"nc -w 3 {address} {port} </dev/null",
                           check=False).returncode == 0

    def answers_outside(self, address, port):
        return run("ip", "netns", "exec", "outside", "curl", "-sm", "3",
                   f"http://{address}:{port}/", check=False).stdout == "answered\n"

    def unforwarded(self):
        text = run("nft", "list", "counter", "inet", "meshd", "c_unforwarded").stdout
        return int(re.search(r"packets (\d+)", text)[1])

    def check(self):
        before = self.unforwarded()
        until(lambda: self.connects("one", self.address("two"), 8080), "each other")
        until(lambda: self.connects("one", self.node.OUTSIDE[0], 9000), "the way out")
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

    def lookup(self, name, *server):
        return self.docker("exec", "one", "nslookup", name, *server, check=False).stdout

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

    def test_bridge_that_leads_outside_is_no_engines(self):
        """As an administrator makes one of his engine's bridge: then it is not known who is on it."""
        bridge = next(link["ifname"] for link in json.loads(
            run("ip", "-j", "link", "show", "type", "bridge").stdout)
            if link["ifname"].startswith("br-"))
        run("ip", "link", "add", "nic0", "type", "vxlan", "id", "3", "dstport", "0", "dev", "up0")
        run("ip", "link", "set", "nic0", "master", bridge)
        try:
            until(lambda: not self.connects("one", self.node.OUTSIDE[0], 9000), "it is shut")
        finally:
            run("ip", "link", "del", "nic0")
        until(lambda: self.connects("one", self.node.OUTSIDE[0], 9000), "it is open again")


if __name__ == "__main__":
    unittest.main()
