"""Who reaches whom, with real sockets: the truth function row by row, over TCP and UDP, IPv4
and IPv6; held, revoked, published, egress."""
import unittest

from node import NodeTest

WORKFLOW = """
workloads:
- {id: db, owner: ada, workflow: wf1, name: db, serves: [{port: 5432}, {port: 53, protocol: UDP}]}
- {id: ranged, owner: ada, workflow: wf1, name: ranged, ready: NONE,
   serves: [{port: 8000, end_port: 8033}]}
- {id: open, owner: bob, workflow: wf2, name: open, scope: CLUSTER, admit: CLUSTER,
   serves: [{port: 80}]}
- {id: private, owner: bob, workflow: wf2, name: private, serves: [{port: 80}]}
- {id: worker, owner: ada, workflow: wf1,
   peers: [{name: db}, {name: ranged, ports: [{port: 8005, end_port: 8020}]},
           {name: open, scope: CLUSTER}, {id: private}]}
- {id: stranger, owner: ada, workflow: wf1}
"""
PORTS = {"db": [("tcp", 5432), ("udp", 53), ("tcp", 5433)],
         "ranged": [("tcp", 7999), ("tcp", 8004), ("tcp", 8005), ("tcp", 8016), ("tcp", 8020),
                    ("tcp", 8021)],
         "open": [("tcp", 80), ("udp", 80)],
         "private": [("tcp", 80)]}
ALLOWED = {("db", "tcp", 5432), ("db", "udp", 53), ("ranged", "tcp", 8005),
           ("ranged", "tcp", 8016), ("ranged", "tcp", 8020), ("open", "tcp", 80)}


class FlowsTest(NodeTest):
    @classmethod
    def prepare(cls):
        cls.node.apply(WORKFLOW)
        for name in ("db", "ranged", "open", "private", "worker", "stranger"):
            cls.node.container(name)
        for name, ports in PORTS.items():
            for proto, port in ports:
                cls.node.agents[name].serve(proto=proto, port=port)
        for name in ("db", "open", "private"):
            cls.node.ready(name)

    def expect(self, source, expected, address_of):
        asks, wanted = [], []
        for name, ports in PORTS.items():
            for proto, port in ports:
                for family in (4, 6):
                    asks.append({"proto": proto, "to": address_of(name, family), "port": port})
                    good = (name, proto, port) in expected
                    wanted.append((name, proto, port, family, "answered" if good else "refused"))
        for row, result in zip(wanted, source.ask_all(asks), strict=True):
            with self.subTest(row=row):
                self.assertEqual(result, row[-1])

    def test_peer_reaches_what_it_declared_by_address(self):
        self.expect(self.node.agents["worker"], ALLOWED, self.node.address)

    def test_peer_reaches_what_it_declared_by_vip(self):
        self.expect(self.node.agents["worker"], ALLOWED, self.node.vip)

    def test_stranger_reaches_nothing(self):
        self.expect(self.node.agents["stranger"], set(), self.node.address)
        self.expect(self.node.agents["stranger"], set(), self.node.vip)

    def test_providers_do_not_reach_their_consumers_or_each_other(self):
        self.node.agents["worker"].serve(proto="tcp", port=5432)
        for source in ("db", "private", "open"):
            for target in ("worker", "db", "stranger"):
                if source == target:
                    continue
                for family in (4, 6):
                    answer = self.node.agents[source].ask(
                        proto="tcp", to=self.node.address(target, family), port=5432)
                    self.assertEqual(answer["result"], "refused", (source, target))

    def test_refusal_is_quick(self):
        for proto in ("tcp", "udp"):
            for family in (4, 6):
                answer = self.node.agents["stranger"].ask(
                    proto=proto, to=self.node.address("db", family), port=5432)
                self.assertEqual(answer["result"], "refused")
                self.assertLess(answer["ms"], 900, "before any second try of the sender's")

    def test_root_of_the_node_reaches_containers_and_others_do_not(self):
        self.assertEqual(self.node.node.ask(proto="tcp", to=self.node.address("db"),
                                            port=5432)["result"], "answered")
        done = self.node.node.run(argv=[
            "setpriv", "--reuid=65534", "--clear-groups", "bash", "-c",
            f"exec 3<>/dev/tcp/{self.node.address('db')}/5432"])
        self.assertNotEqual(done["code"], 0)
        self.assertIn("refused", done["err"])

    def test_containers_do_not_reach_the_node_nor_the_outside(self):
        self.node.node.serve(proto="tcp", port=7777)
        self.node.outside.serve(proto="tcp", port=7778)
        worker = self.node.agents["worker"]
        for to, port in ((self.node.UPLINK, 7777), ("169.254.1.1", 7777),
                         (self.node.OUTSIDE[0], 7778), (self.node.OUTSIDE6, 7778)):
            self.assertEqual(worker.ask(proto="tcp", to=to, port=port)["result"], "refused", to)
        self.assertEqual(self.node.outside.count(proto="tcp", port=7778), 0)

    def test_outside_does_not_reach_containers(self):
        self.node.outside.run(argv=["ip", "route", "add", "10.213.0.0/16", "via",
                                    self.node.UPLINK])
        answer = self.node.outside.ask(proto="tcp", to=self.node.address("db"), port=5432)
        self.assertEqual(answer["result"], "refused")

    def test_explain_says_what_the_packets_do(self):
        for source in ("worker", "stranger"):
            for name, ports in PORTS.items():
                for proto, port in ports:
                    told = self.node.json("explain", source, name, f"{port}/{proto}")
                    good = source == "worker" and (name, proto, port) in ALLOWED
                    self.assertEqual(told["verdict"], "ALLOWED" if good else "REFUSED",
                                     (source, name, proto, port, told))


if __name__ == "__main__":
    unittest.main(verbosity=2)
