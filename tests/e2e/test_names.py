"""Names as programs ask for them: glibc's and musl's resolvers, UDP and TCP, upstreams, and
sockets that outlive the daemon."""
import subprocess
import unittest

import node as bed
from node import NodeTest, until

WORKFLOW = """
workloads:
- {id: db, owner: ada, workflow: wf1, name: db, serves: [{port: 5432, name: sql}]}
- {id: v4only, owner: ada, workflow: wf1, name: v4only, serves: [{port: 80}]}
- {id: worker, owner: ada, workflow: wf1, peers: [{name: db}, {name: v4only}, {name: absent}],
   egress: [{cidr: 192.0.2.10/32, ports: [{port: 80}]}]}
- {id: stranger, owner: ada, workflow: wf1}
"""
MUSL_LOOKUP = r"""
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/socket.h>
int main(int argc, char **argv) {
  struct addrinfo hints, *found, *one;
  char text[64];
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  int error = getaddrinfo(argv[argc - 1], 0, &hints, &found);
  if (error) { printf("%s\n", gai_strerror(error)); return 1; }
  for (one = found; one; one = one->ai_next) {
    const void *address = one->ai_family == AF_INET
        ? (void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr
        : (void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr;
    puts(inet_ntop(one->ai_family, address, text, sizeof text));
  }
  return 0;
}
"""
SHORTEST = 900  # ms: before any second try of a resolver's (musl's first comes after 1 s)


class NamesTest(NodeTest):
    @classmethod
    def prepare(cls):
        node = cls.node
        cls.upstream = node.upstream()
        node.apply(WORKFLOW)
        for name in ("db", "v4only", "worker", "stranger"):
            node.container(name)
        node.agents["db"].serve(proto="tcp", port=5432)
        node.agents["v4only"].serve(proto="tcp", port=80, family=4)
        node.ready("db")
        node.ready("v4only")
        cls.worker, cls.stranger = node.agents["worker"], node.agents["stranger"]
        cls.both = sorted([node.vip("db"), node.vip("db", 6)])
        source = node.dir / "lookup.c"
        source.write_text(MUSL_LOOKUP)
        cls.musl = node.dir / "lookup"
        bed.run("musl-gcc", "-static", "-o", cls.musl, source)
        until(lambda: cls.worker.lookup(name="www.example.com")["addresses"], "the upstream")

    @classmethod
    def tearDownClass(cls):
        cls.upstream.kill()
        cls.upstream.wait()
        super().tearDownClass()

    def musl_lookup(self, agent, name):
        done = agent.run(argv=[str(self.musl), name])
        return sorted(done["out"].split()) if done["code"] == 0 else done["out"].strip()

    def test_every_spelling_of_a_service(self):
        for name in ("db", "db.wf1.wf.mesh.internal", "DB.Wf1.WF.mesh.INTERNAL",
                     "db.wf1.wf.mesh.internal."):
            with self.subTest(name):
                found = self.worker.lookup(name=name)
                self.assertEqual(found["addresses"], self.both)
                self.assertEqual(self.musl_lookup(self.worker, name), self.both)

    def test_instances(self):
        self.assertEqual(self.worker.lookup(name="db.id.mesh.internal")["addresses"],
                         sorted(self.node.facts["db"]["addresses"]))
        self.assertEqual(self.worker.lookup(name="worker.id.mesh.internal")["addresses"],
                         sorted(self.node.facts["worker"]["addresses"]))

    def test_family_on_which_nobody_listens_is_left_out(self):
        self.assertEqual(self.worker.lookup(name="v4only")["addresses"], [self.node.vip("v4only")])
        self.assertEqual(self.musl_lookup(self.worker, "v4only"), [self.node.vip("v4only")])

    def test_what_is_not_declared_does_not_exist(self):
        for agent, name in ((self.stranger, "db"), (self.stranger, "db.wf1.wf.mesh.internal"),
                            (self.stranger, "db.id.mesh.internal"), (self.worker, "absent"),
                            (self.worker, "nothing.mesh.internal")):
            with self.subTest((agent.name, name)):
                found = agent.lookup(name=name)
                self.assertEqual(found["addresses"], [])
                self.assertIn("not known", found["error"], "NXDOMAIN, no temporary failure")
                self.assertLess(found["ms"], SHORTEST)
                self.assertIn("does not", self.musl_lookup(agent, name))

    def test_reason_is_the_same_whether_the_name_exists_or_not(self):
        texts = set()
        for name in ("db", "zz"):
            reply = self.stranger.query(name=f"{name}.wf1.wf.mesh.internal", kind="A",
                                        server="169.254.1.1")
            self.assertEqual(reply["rcode"], "NXDOMAIN")
            self.assertEqual(len(reply["authority"]), 1)
            texts.add(reply["options"][0].replace(f"peer {name}", "peer X"))
        self.assertEqual(len(texts), 1, texts)

    def test_service_and_reverse_records(self):
        srv = self.worker.query(name="_sql._tcp.db.wf1.wf.mesh.internal", kind="SRV",
                                server="169.254.1.1")
        self.assertEqual(srv["answers"], ["0 0 5432 db.wf1.wf.mesh.internal."])
        reverse = self.worker.run(argv=["getent", "hosts", self.node.address("db")])
        self.assertIn("db.id.mesh.internal", reverse["out"])
        hidden = self.stranger.run(argv=["getent", "hosts", self.node.address("db")])
        self.assertEqual(hidden["code"], 2)

    def test_udp_tcp_and_both_families_of_the_resolver(self):
        for server in self.node.facts["worker"]["resolvers"]:
            for tcp in (False, True):
                reply = self.worker.query(name="db.wf1.wf.mesh.internal", kind="AAAA",
                                          server=server, tcp=tcp)
                self.assertEqual(reply["answers"], [self.node.vip("db", 6)], (server, tcp))
                for flag in ("AA", "RA", "QR"):
                    self.assertIn(flag, reply["flags"])

    def test_any_other_server_is_ours_too(self):
        reply = self.worker.query(name="db.wf1.wf.mesh.internal", kind="A", server="192.0.2.10")
        self.assertEqual(reply["answers"], [self.node.vip("db")])
        reply = self.worker.query(name="db.wf1.wf.mesh.internal", kind="A",
                                  server="2001:db8:1::10")
        self.assertEqual(reply["answers"], [self.node.vip("db")])

    def test_foreign_names_for_those_with_egress_only(self):
        self.assertEqual(self.worker.lookup(name="www.example.com")["addresses"],
                         ["198.51.100.7"])
        self.assertEqual(self.musl_lookup(self.worker, "www.example.com"), ["198.51.100.7"])
        asked = self.asked()
        found = self.stranger.lookup(name="www2.example.com")
        self.assertEqual(found["addresses"], [])
        self.assertLess(found["ms"], SHORTEST)
        self.assertEqual(self.asked(), asked, "nothing goes upstream for it")

    def asked(self):
        return (self.node.dir / "asked").read_text()

    def test_upstreams_do_not_lead_inside(self):
        for name in ("rebind.example.com", "loop.example.com"):
            self.assertEqual(self.worker.lookup(name=name)["addresses"], [], name)

    def test_own_and_special_names_never_go_upstream(self):
        for name in ("x.mesh.internal", "printer.local", "wpad", "1.0.213.10.in-addr.arpa",
                     "x.test", "y.onion", "z.invalid"):
            self.worker.lookup(name=name)
        for word in ("mesh.internal", "local.", "wpad", "10.in-addr", ".test", "onion", "invalid"):
            self.assertNotIn(word, self.asked())

    def test_why(self):
        self.stranger.lookup(name="db")
        self.stranger.ask(proto="tcp", to=self.node.address("db"), port=5432)

        def told():
            reply = self.stranger.query(name="why.mesh.internal", kind="TXT", server="169.254.1.1")
            text = " ".join(reply["answers"])
            return "db" in text and "5432" in text and text

        text = until(told, "the refused name and flow are told")
        self.assertIn("peer", text)
        other = self.worker.query(name="why.mesh.internal", kind="TXT", server="169.254.1.1")
        self.assertNotIn("5432", " ".join(other["answers"]), "others' refusals are theirs")

    def test_refusals_are_watched(self):
        with open(self.node.dir / "watched", "w", encoding="utf-8") as out:
            watch = subprocess.Popen([bed.BUILD / "meshctl", "watch", "--refused"], stdout=out)
        try:
            def seen():
                self.stranger.ask(proto="tcp", to=self.node.address("db"), port=5432)
                return "stranger" in (self.node.dir / "watched").read_text()

            until(seen, "a refused flow is reported")
            text = (self.node.dir / "watched").read_text()
            self.assertIn("db", text)
            self.assertIn("peers: [{name: db}]", text)
        finally:
            watch.terminate()
            watch.wait()

    def test_flood_of_one_client_leaves_the_others_alone(self):
        flood = self.stranger.begin("run", timeout=60, argv=["python3", "-c", (
            "import socket, time\n"
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "q = bytes.fromhex('123401000001000000000000026162046d65736808696e7465726e616c"
            "0000010001')\n"
            "end = time.monotonic() + 2\n"
            "while time.monotonic() < end: s.sendto(q, ('169.254.1.1', 53))\n")])
        slowest = 0
        for _ in range(50):
            found = self.worker.lookup(name="db", family=4)
            self.assertEqual(found["addresses"], [self.node.vip("db")])
            slowest = max(slowest, found["ms"])
        self.stranger.end(flood)
        self.assertLess(slowest, SHORTEST)


if __name__ == "__main__":
    unittest.main(verbosity=2)
