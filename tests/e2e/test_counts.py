"""What `list flows` counts: every kind of row, by known traffic, and nothing that is refused."""
import unittest

import node as bed
from node import NodeTest

# Two containers with the same ways out: the kernel keeps those once, the counts apart. Their
# rows overlap: 192.0.2.10/32 is inside 0.0.0.0/0, which has 443 already.
EGRESS = """[
     {cidr: 0.0.0.0/0, ports: [{port: 443}, {port: 4433, protocol: UDP}]},
     {cidr: 192.0.2.10/32, ports: [{port: 443, end_port: 444}]},
     {cidr: "2001:db8:1::/64"}]"""
WORLD = """
workloads:
- {id: db, owner: ada, workflow: wf1, name: db, ready: NONE,
   serves: [{port: 5432}, {port: 53, protocol: UDP}, {port: 8000, end_port: 8020}]}
- {id: worker, owner: ada, workflow: wf1, peers: [{name: db}], egress: %s}
- {id: twin, owner: ada, workflow: wf1, peers: [{name: db}], egress: %s}
- {id: web, owner: ada, workflow: wf1,
   publish: [{port: 8080, node_port: 28080, allow_from: [192.0.2.10/32, "2001:db8:1::10/128"]},
             {port: 53, protocol: UDP, node_port: 28053,
              allow_from: [192.0.2.10/32, "2001:db8:1::10/128"]}]}
""" % (EGRESS, EGRESS)
NODE6 = "2001:db8:1::1"


class CountsTest(NodeTest):
    @classmethod
    def prepare(cls):
        cls.node.apply(WORLD)
        for name in ("db", "worker", "twin", "web"):
            cls.node.container(name)
        for proto, port in (("tcp", 5432), ("udp", 53), ("tcp", 8005), ("tcp", 8018)):
            cls.node.agents["db"].serve(proto=proto, port=port)
        for proto, port in (("tcp", 8080), ("udp", 53)):
            cls.node.agents["web"].serve(proto=proto, port=port)
        for proto, port in (("tcp", 443), ("tcp", 444), ("udp", 443), ("udp", 4433), ("tcp", 80)):
            cls.node.outside.serve(proto=proto, port=port)
        cls.node.ready("web")

    def rows(self):
        """(packets, bytes) by (source, destination, protocol, first port)."""
        return {(flow["src"], flow["dst"], flow["protocol"], flow["port"]):
                (int(flow["packets"]), int(flow["bytes"]))
                for flow in self.node.json("list", "flows")["flows"]}

    def grown(self, action):
        before = self.rows()
        action()
        after = self.rows()
        self.assertEqual(before.keys(), after.keys())
        return {row: (after[row][0] - before[row][0], after[row][1] - before[row][1])
                for row in after if after[row] != before[row]}

    def ask(self, agent, proto, to, port, expected="answered", **more):
        self.assertEqual(agent.ask(proto=proto, to=to, port=port, **more)["result"], expected,
                         (agent.name, proto, to, port))

    def kinds(self):
        """(who, protocol, address, port, the row that counts, who answers)."""
        node, worker, outside = self.node, self.node.agents["worker"], self.node.outside
        there, there6 = node.OUTSIDE[0], node.OUTSIDE6
        for to in (node.address("db"), node.address("db", 6), node.vip("db"), node.vip("db", 6)):
            yield worker, "tcp", to, 5432, ("worker", "db", "TCP", 5432), "db"
            yield worker, "udp", to, 53, ("worker", "db", "UDP", 53), "db"
            for port in (8005, 8018):  # of a block, and of the rest of the range
                yield worker, "tcp", to, port, ("worker", "db", "TCP", 8000), "db"
        for to in (node.UPLINK, NODE6):
            yield outside, "tcp", to, 28080, ("outside", "web", "TCP", 8080), "web"
            yield outside, "udp", to, 28053, ("outside", "web", "UDP", 53), "web"
        yield worker, "tcp", there, 443, ("worker", "0.0.0.0/0", "TCP", 443), "outside"
        yield worker, "udp", there, 4433, ("worker", "0.0.0.0/0", "UDP", 4433), "outside"
        yield worker, "tcp", there, 444, ("worker", "192.0.2.10/32", "TCP", 443), "outside"
        yield worker, "tcp", there6, 443, ("worker", "2001:db8:1::/64", "TCP", 0), "outside"
        yield worker, "udp", there6, 443, ("worker", "2001:db8:1::/64", "UDP", 0), "outside"

    def test_datagrams_count_to_the_byte_in_their_row_alone(self):
        for agent, proto, to, port, row, server in self.kinds():
            if proto != "udp":
                continue
            with self.subTest((row, to)):
                headers = 48 if ":" in to else 28
                grown = self.grown(lambda: self.ask(agent, proto, to, port))
                # "ping" there, and back with the name of who answers.
                self.assertEqual(grown, {row: (2, 2 * (headers + 4) + len(server))})

    def test_connections_count_in_both_directions(self):
        asked = [kind for kind in self.kinds() if kind[1] == "tcp"]
        grown = self.grown(lambda: [self.ask(*kind[:4]) for kind in asked])
        wanted = {}
        for kind in asked:
            wanted[kind[4]] = wanted.get(kind[4], 0) + 1
        self.assertEqual(grown.keys(), wanted.keys())
        for row, times in wanted.items():
            # Three packets of a handshake, a question, an answer, an end: at the least.
            self.assertGreaterEqual(grown[row][0], 6 * times, row)
            self.assertGreaterEqual(grown[row][1], 6 * times * 40, row)

    def test_refused_packets_do_not_count(self):
        node = self.node
        outside, worker, web = node.outside, node.agents["worker"], node.agents["web"]

        def try_all():
            for proto, port in (("tcp", 28080), ("udp", 28053)):
                self.ask(outside, proto, node.UPLINK, port, "refused", source="192.0.2.66")
            self.ask(worker, "udp", node.OUTSIDE[0], 443, "refused")
            self.ask(worker, "tcp", node.OUTSIDE[0], 80, "refused")
            self.ask(worker, "tcp", node.OUTSIDE[1], 444, "refused")
            self.ask(worker, "tcp", node.address("db"), 5433, "refused")
            for to in (node.OUTSIDE[0], node.OUTSIDE6):
                self.ask(web, "tcp", to, 443, "refused")
            for family in (4, 6):
                self.ask(web, "udp", node.address("db", family), 53, "refused")

        self.assertEqual(self.grown(try_all), {})

    def test_counts_outlive_the_daemon_and_changes_of_other_rows(self):
        node = self.node
        row = ("worker", "0.0.0.0/0", "UDP", 4433)
        published = ("outside", "web", "UDP", 53)
        self.ask(node.agents["worker"], "udp", node.OUTSIDE[0], 4433)
        self.ask(node.outside, "udp", node.UPLINK, 28053)
        before = self.rows()
        node.kill()
        node.start()
        after = self.rows()
        for one in (row, published):
            self.assertGreater(after[one][0], 0)
            self.assertEqual(after[one], before[one])
        # In another order and with less before it, it is the same row; what is new begins at 0.
        node.apply("workloads: [{id: worker, owner: ada, workflow: wf1, peers: [{name: db}], "
                   "egress: [{cidr: 198.51.100.0/24, ports: [{port: 443}]}, "
                   "{cidr: 0.0.0.0/0, ports: [{port: 4433, protocol: UDP}]}]}]")
        after = self.rows()
        self.assertEqual(after[row], before[row])
        self.assertEqual(after["worker", "198.51.100.0/24", "TCP", 443], (0, 0))
        node.apply(WORLD)
        self.assertEqual(self.rows()[row], before[row])

    def test_a_container_attached_again_begins_at_nothing(self):
        node = self.node
        self.ask(node.agents["twin"], "udp", node.OUTSIDE[0], 4433)
        self.ask(node.agents["twin"], "udp", node.address("db"), 53)
        node.remove("twin")
        bed.run("ip", "netns", "del", "twin", check=False)
        node.container("twin")
        self.assertEqual({counts for row, counts in self.rows().items() if row[0] == "twin"},
                         {(0, 0)})


if __name__ == "__main__":
    unittest.main(verbosity=2)
