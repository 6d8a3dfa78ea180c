"""Bad input: one line that names field and reason, the exit code, and everything as before."""
import os
import re
import socket
import unittest

import node as bed
from node import NodeTest

DECLARED = """
workloads:
- {id: db, owner: ada, workflow: wf1, name: db, serves: [{port: 5432}]}
- {id: worker, owner: ada, workflow: wf1, peers: [{name: db}]}
- {id: llm, owner: bob, workflow: wf2, name: llm, scope: CLUSTER, serves: [{port: 80}]}
- {id: taken, owner: bob, workflow: wf2, publish: [{port: 80, node_port: 28080, allow_from: [192.0.2.0/24]}]}
"""


def one(fields):
    return f"workloads:\n- {{id: x, owner: ada, workflow: wf1{', ' if fields else ''}{fields}}}\n"


# What is written, and what the one line must say beside the file's name.
REFUSED = {
    "unknown field": (one("colour: red"), r":2: .*colour"),
    "unknown field inside": (one("serves: [{port: 1, colour: red}]"), r"serves\[0\].*colour"),
    "wrong type": (one("serves: 5432"), r"serves.*list"),
    "number where a word stands": (one("name: [a]"), r"name"),
    "duplicate key": (one("name: a, name: b"), r"name.*twice"),
    "duplicate id": (one("") + "- {id: x, owner: ada, workflow: wf1}\n", r"x"),
    "bad label": (one("name: Upper_Case"), r"name.*"),
    "reserved name": (one("name: localhost"), r"name.*"),
    "port 0": (one("serves: [{port: 0}]"), r"serves\[0\]\.port.*"),
    "port 65536": (one("serves: [{port: 65536}]"), r"serves\[0\]\.port.*"),
    "negative port": (one("serves: [{port: -1}]"), r"serves\[0\]\.port.*"),
    "end before start": (one("serves: [{port: 10, end_port: 9}]"), r"serves\[0\]\.end_port.*"),
    "one port published twice": (one("publish: [{port: 80, allow_from: [0.0.0.0/0]}, "
                                     "{port: 80, allow_from: [0.0.0.0/0]}]"), r"publish\[1\].*"),
    "empty ports": (one("peers: [{name: db, ports: []}]"), r"peers\[0\]\.ports.*"),
    "null ports": (one("peers: [{name: db, ports: null}]"), r"peers\[0\]\.ports.*"),
    "empty allow_from": (one("publish: [{port: 80, allow_from: []}]"), r"allow_from.*"),
    "another owner's cluster name": (one("name: llm, scope: CLUSTER"), r"llm.*"),
    "another owner's workflow": ("workloads: [{id: x, owner: eve, workflow: wf1}]", r"workflow.*"),
    "somebody's node_port": (one("publish: [{port: 80, node_port: 28080, "
                                 "allow_from: [192.0.2.0/24]}]"), r"node_port.*"),
    "oneself as a peer": (one("peers: [{id: x}]"), r"peers\[0\].*"),
    "257 peers": (one("peers: [" + ", ".join(f"{{id: p{i}}}" for i in range(257)) + "]"),
                  r"peers.*256"),
    "too large a workload": (one("peers: [" + ", ".join(
        f"{{id: p{i}, ports: [" + ", ".join(
            f"{{port: {20000 + 10 * k}, end_port: {20003 + 10 * k}}}" for k in range(60)) + "]}"
        for i in range(200)) + "]"), r"64 KiB"),
    "too large a file": (one("") + "#" * (1 << 20), r"1 MiB|1048576"),
    "newline in a name": (one('name: "a\\nb"'), r"name.*"),
    "quote in a name": (one("name: \"a'b\""), r"name.*"),
    "slash in an id": ("workloads: [{id: a/b, owner: ada}]", r"id.*"),
    "NUL in a name": (one('name: "a\\0b"'), r"name.*"),
    "NUL itself": (one("") + "\0", r"bad.yaml"),
    "deep nesting": ("workloads: " + "[" * 50000, r"deep"),
    "deep indentation": ("\n".join(" " * i + "- " for i in range(300)), r"deep"),
    "alias bomb": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", r"anchor"),
    "binary rubbish": ("\x01\x02\xff\xfe\x80", r"bad.yaml"),
    "empty": ("", r"empty"),
    "comment only": ("# nothing\n", r"empty"),
    "two documents": ("--- {}\n--- {}\n", r"bad.yaml"),
    "no list": ("workloads: 3", r"workloads"),
    "egress of everything with a bad prefix": (one("egress: [{cidr: 10.0.0.0/33}]"),
                                               r"egress\[0\]\.cidr.*"),
    "prefix with host bits": (one("egress: [{cidr: 10.0.0.1/8}]"), r"egress\[0\]\.cidr.*"),
}


class InputTest(NodeTest):
    @classmethod
    def prepare(cls):
        cls.node.apply(DECLARED)
        cls.node.container("db").serve(proto="tcp", port=5432)
        cls.node.container("worker")
        cls.node.ready("db")

    def setUp(self):
        self.before = self.everything()

    def tearDown(self):
        self.assertEqual(self.everything(), self.before)
        worker = self.node.agents["worker"]
        self.assertEqual(worker.lookup(name="db")["addresses"],
                         sorted([self.node.vip("db"), self.node.vip("db", 6)]))
        super().tearDown()

    def everything(self):
        listing = [self.node.ctl("list", what, "-o", "json").stdout
                   for what in ("workloads", "services", "published")]
        status = self.node.json("status")
        return listing, status["generations"], self.node.rules(), self.node.links(), \
            sorted(name for name in os.listdir("/run/netns") if name != "free")

    def assert_refused(self, done, pattern, code=1):
        self.assertEqual(done.returncode, code, done)
        self.assertEqual(done.stdout, "")
        self.assertRegex(done.stderr, r"\Ameshctl: [^\n]+\n\Z")
        self.assertRegex(done.stderr, pattern)
        self.assertNotRegex(done.stderr, r"[\x00-\x09\x0b-\x1f\x7f]", "control characters")

    def test_declarations(self):
        for what, (text, pattern) in REFUSED.items():
            with self.subTest(what):
                path = self.node.dir / "bad.yaml"
                path.write_bytes(text.encode("latin-1"))
                self.assert_refused(self.node.ctl("apply", "-f", path, check=False), pattern)
                self.assert_refused(self.node.ctl("plan", "-f", path, check=False), pattern)

    def test_good_beside_bad_is_not_taken(self):
        good, bad = self.node.dir / "good.yaml", self.node.dir / "bad.yaml"
        good.write_text("workloads: [{id: fine, owner: ada, workflow: wf1}]")
        bad.write_text(one("serves: [{port: 0}]"))
        self.assert_refused(self.node.ctl("apply", "-f", good, "-f", bad, check=False), "bad.yaml")

    def test_node_port_on_which_the_node_listens(self):
        with socket.socket() as listener:
            listener.bind(("0.0.0.0", 0))
            listener.listen()
            port = listener.getsockname()[1]
            done = self.node.apply(one(f"publish: [{{port: 80, node_port: {port}, "
                                       "allow_from: [192.0.2.0/24]}]"), check=False)
            self.assert_refused(done, f"publish.*{port}")

    def test_file_that_is_not_there(self):
        self.assert_refused(self.node.ctl("apply", "-f", "/nowhere", check=False), "/nowhere")

    def test_attach(self):
        self.node.apply("workloads: [{id: y, owner: ada, workflow: wf1}]")
        self.before = self.everything()
        bed.run("ip", "netns", "add", "free")
        bed.run("ip", "-n", "free", "link", "add", "eth0", "type", "veth", "peer",
                "name", "eth1")
        self.before = self.everything()
        dead = bed.subprocess.Popen(["true"])
        dead.wait()
        for what, argv, pattern in (
                ("no namespace", ["y", "--netns", "/etc/passwd"], "/etc/passwd"),
                ("not there", ["y", "--netns", "/nowhere"], "/nowhere"),
                ("the node's own", ["y", "--netns", "/proc/self/ns/net"], "own"),
                ("the node's own, by pid", ["y", "--pid", str(os.getpid())], "own"),
                ("another kind of namespace", ["y", "--netns", "/proc/self/ns/mnt"], "mnt"),
                ("a dead pid", ["y", "--pid", str(dead.pid)], str(dead.pid)),
                ("an interface that exists", ["y", "--netns", "/run/netns/free"], "eth0"),
                ("somebody else's", ["y", "--netns", "/run/netns/db"], "db"),
                ("a second one", ["db", "--netns", "/run/netns/free", "--ifname", "eth9"], "db"),
                ("nobody", ["nobody", "--netns", "/run/netns/free"], "nobody"),
                ("a bad name", ["y", "--netns", "/run/netns/free", "--ifname", "a/b"], "ifname"),
                ("a long name", ["y", "--netns", "/run/netns/free", "--ifname", "a" * 16],
                 "ifname")):
            with self.subTest(what):
                done = self.node.ctl("attach", *argv, check=False)
                self.assertIn(done.returncode, (1, 2), done)
                self.assert_refused(done, pattern, code=done.returncode)
        self.assertEqual(self.everything(), self.before)
        bed.run("ip", "netns", "del", "free")
        self.node.ctl("delete", "y")
        self.before = self.everything()

    def test_wrong_usage_is_two_and_no_daemon_is_three(self):
        for argv in (["nonsense"], ["apply"], ["list", "cats"], ["attach"], ["explain", "a"],
                     ["wait"], ["--bogus"], ["explain", "a", "b", "70000"]):
            done = self.node.ctl(*argv, check=False)
            self.assertEqual(done.returncode, 2, argv)
            self.assertTrue(done.stderr.startswith("meshctl: "), done.stderr)
        done = self.node.ctl("--run-dir", "/run/nowhere", "status", check=False)
        self.assert_refused(done, "nowhere", code=3)

    def test_configuration(self):
        for text, pattern in (("colour: red", "colour"), ("dns: {upstreams: [x]}", "upstreams"),
                              ("pool: {ipv4: 10.0.0.0/33}", "ipv4"),
                              ("pool: {ipv4: 10.0.0.0/16, vip4: 10.0.1.0/24}", "vip4|overlap"),
                              ("publish: {ports: 30000-20000}", "ports"), ("[", "bad-config")):
            path = self.node.dir / "bad-config.yaml"
            path.write_text(text)
            done = bed.run(bed.BUILD / "meshd", "--config", path, "--check-config", check=False)
            self.assertEqual(done.returncode, 1, text)
            self.assertRegex(done.stderr, r"\A[^\n]+\n\Z")
            self.assertRegex(done.stderr, pattern)

    def test_second_daemon_is_refused(self):
        done = bed.run(bed.BUILD / "meshd", "--config", self.node.config, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertTrue(re.search(r"run|another", done.stderr), done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
