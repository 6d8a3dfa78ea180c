"""A container with all privileges over its own network: raw frames, foreign addresses, odd
headers. Nobody is reached, nobody is impersonated, and nothing of the node changes.

Every attack is sent with what it would need to succeed (right MAC, right port, an open
listener), and is void unless the same frame with honest fields arrives.
"""
import ipaddress
import struct
import unittest

import node as bed
from node import NodeTest, until

WORKFLOW = """
workloads:
- {id: db, owner: ada, workflow: wf1, name: db, serves: [{port: 53, protocol: UDP}, {port: 80}],
   publish: [{port: 80, node_port: 28080, allow_from: [192.0.2.0/24]}]}
- {id: worker, owner: ada, workflow: wf1, peers: [{name: db}]}
- {id: evil, owner: eve, workflow: wf9}
"""
NODE_MAC = "02:00:00:00:00:01"


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def packed(address):
    return ipaddress.ip_address(address).packed


def udp(source, target, port, data=b"ping", sport=40000):
    length = 8 + len(data)
    pseudo = packed(source) + packed(target)
    pseudo += struct.pack(">BBH", 0, 17, length) if len(pseudo) == 8 else \
        struct.pack(">IBBBB", length, 0, 0, 0, 17)
    head = struct.pack(">HHHH", sport, port, length, 0)
    head = head[:6] + struct.pack(">H", checksum(pseudo + head + data) or 0xffff)
    return head + data


def ip4(source, target, payload, proto=17, options=b"", fragment=0):
    words = 5 + len(options) // 4
    head = struct.pack(">BBHHHBBH", 4 << 4 | words, 0, words * 4 + len(payload), 7, fragment, 64,
                       proto, 0) + packed(source) + packed(target) + options
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def ip6(source, target, payload, following=17, hops=64):
    return struct.pack(">IHBB", 6 << 28, len(payload), following, hops) + packed(source) + \
        packed(target) + payload


def icmp6(source, target, body):
    pseudo = packed(source) + packed(target) + struct.pack(">IBBBB", len(body), 0, 0, 0, 58)
    return body[:2] + struct.pack(">H", checksum(pseudo + body)) + body[4:]


def frame(source, payload, kind=None, target=NODE_MAC):
    kind = kind or (0x86dd if payload[0] >> 4 == 6 else 0x0800)
    return (mac(target) + mac(source) + struct.pack(">H", kind) + payload).hex()


class HostileTest(NodeTest):
    @classmethod
    def prepare(cls):
        node = cls.node
        node.apply(WORKFLOW)
        for name in ("db", "worker", "evil"):
            node.container(name)
        node.agents["db"].serve(proto="udp", port=53)
        node.agents["db"].serve(proto="tcp", port=80)
        node.agents["worker"].serve(proto="udp", port=53)
        node.outside.serve(proto="udp", port=53)
        node.node.serve(proto="udp", port=4789)
        node.ready("db")
        cls.macs = {name: node.facts[name]["mac"] for name in ("db", "worker", "evil")}

    def setUp(self):
        self.before = self.state()

    def tearDown(self):
        # What the kernel keeps for a moment (an exception route, say) may go first.
        until(lambda: self.state() == self.before, "the node is as before")
        super().tearDown()

    def state(self):
        return (sorted(bed.run("ip", "route", "show", "table", "all").stdout.splitlines()),
                sorted(bed.run("ip", "-6", "route", "show", "table", "all").stdout.splitlines()),
                bed.run("ip", "neigh", "show", "nud", "permanent").stdout,
                bed.run("ip", "-6", "route", "show", "default").stdout, self.node.rules())

    def arrived(self, name):
        return self.node.agents[name].count(proto="udp", port=53)

    def send(self, name, *frames):
        for one in frames:
            self.node.agents[name].raw(hex_frame=one)

    def addresses(self, name):
        return self.node.address(name), self.node.address(name, 6)

    def packets(self, source_name, target_name, source=None, source6=None):
        """An honest question of each family, but for the source."""
        own4, own6 = self.addresses(source_name)
        to4, to6 = self.addresses(target_name)
        s4, s6 = source or own4, source6 or own6
        return ip4(s4, to4, udp(s4, to4, 53)), ip6(s6, to6, udp(s6, to6, 53))

    def assert_nothing_arrives(self, name, *frames):
        """Control before and after: an honest frame of worker's arrives at db."""
        before = {n: self.arrived(n) for n in ("db", "worker")}
        outside = self.node.outside.count(proto="udp", port=53)
        self.send(name, *frames)
        honest = [frame(self.macs["worker"], p) for p in self.packets("worker", "db")]
        self.send("worker", *honest)
        until(lambda: self.arrived("db") >= before["db"] + 2, "the control arrives")
        self.assertEqual(self.arrived("db"), before["db"] + 2)
        self.assertEqual(self.arrived("worker"), before["worker"])
        self.assertEqual(self.node.outside.count(proto="udp", port=53), outside)

    def test_undeclared(self):
        self.assert_nothing_arrives("evil", *(frame(self.macs["evil"], p)
                                              for p in self.packets("evil", "db")))

    def test_foreign_sources(self):
        worker4, worker6 = self.addresses("worker")
        for own_mac in (self.macs["evil"], self.macs["worker"]):
            for s4, s6 in ((worker4, worker6), ("169.254.1.1", "fe80::1"),
                           ("192.0.2.10", self.node.OUTSIDE6), ("127.0.0.1", "::1"),
                           (self.node.address("db"), self.node.address("db", 6)),
                           (self.node.vip("db"), self.node.vip("db", 6)), ("0.0.0.0", "::"),
                           ("255.255.255.255", "ff02::1"), (self.node.UPLINK, "2001:db8:1::1")):
                with self.subTest((own_mac, s4, s6)):
                    self.assert_nothing_arrives("evil", *(
                        frame(own_mac, p) for p in self.packets("evil", "db", s4, s6)))

    def test_v4_mapped_and_link_local_sources(self):
        mapped = f"::ffff:{self.node.address('worker')}"
        link_local = "fe80::dead"
        for source in (mapped, link_local):
            self.assert_nothing_arrives("evil", frame(
                self.macs["evil"], self.packets("evil", "db", None, source)[1]))

    def test_declared_consumer_with_anothers_mac(self):
        self.assert_nothing_arrives("worker", *(frame("02:01:00:00:00:77", p)
                                                for p in self.packets("worker", "db")))

    def test_fragments_and_options(self):
        own, to = self.node.address("evil"), self.node.address("db")
        body = udp(own, to, 53, b"p" * 64)
        route = bytes([131, 7, 4]) + packed(to) + b"\0"  # loose source route
        self.assert_nothing_arrives(
            "evil",
            frame(self.macs["evil"], ip4(own, to, body[:16], fragment=0x2000)),
            frame(self.macs["evil"], ip4(own, to, body[16:], fragment=2)),
            frame(self.macs["evil"], ip4(own, self.node.UPLINK, body, options=route)),
            frame(self.macs["evil"], ip4(own, to, body, options=b"\x94\x04\0\0")))

    def test_fragments_of_an_allowed_flow_arrive_whole_or_not_at_all(self):
        own, to = self.node.address("worker"), self.node.address("db")
        body = udp(own, to, 53, b"ping" + b"p" * 60)
        before = self.arrived("db")
        self.send("worker", frame(self.macs["worker"], ip4(own, to, body[:16], fragment=0x2000)),
                  frame(self.macs["worker"], ip4(own, to, body[16:], fragment=2)))
        until(lambda: self.arrived("db") == before + 1, "put together on the way")

    def test_extension_headers(self):
        own, to = self.node.address("evil", 6), self.node.address("db", 6)
        body = udp(own, to, 53)
        filler = bytes([17, 0, 1, 4, 0, 0, 0, 0])
        routing = bytes([17, 2, 0, 1, 0, 0, 0, 0]) + packed(to)
        piece = bytes([17, 0, 0, 0, 0, 0, 0, 9])
        self.assert_nothing_arrives("evil", *(
            frame(self.macs["evil"], ip6(own, to, head + body, following))
            for head, following in ((filler, 0), (filler, 60), (routing, 43), (piece, 44))))

    def test_router_advertisement_and_redirect(self):
        ra = struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + \
            bytes([3, 4, 64, 0xc0]) + struct.pack(">III", 86400, 14400, 0) + \
            packed("2001:db8:bad::")
        redirect = struct.pack(">BBHI", 137, 0, 0, 0) + packed("2001:db8:1::10") * 2
        frames = []
        for body in (ra, redirect):
            for source in ("fe80::1", "fe80::dead", self.node.address("evil", 6)):
                for target in ("ff02::1", self.node.address("db", 6), "fe80::1"):
                    frames.append(frame(self.macs["evil"], ip6(
                        source, target, icmp6(source, target, body), 58, 255)))
        self.assert_nothing_arrives("evil", *frames)
        self.assertNotIn("2001:db8:bad", bed.run("ip", "-6", "addr").stdout)
        for name in ("db", "worker"):
            held = self.node.agents[name].run(argv=["ip", "-6", "addr"])["out"]
            self.assertNotIn("2001:db8:bad", held)

    def test_address_takeover_by_arp_and_neighbour_discovery(self):
        victim4, victim6 = self.addresses("db")
        arp = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 2) + mac(self.macs["evil"]) + \
            packed(victim4) + mac(NODE_MAC) + packed("169.254.1.1")
        advert = struct.pack(">BBHI", 136, 0, 0, 0x60000000) + packed(victim6) + \
            bytes([2, 1]) + mac(self.macs["evil"])
        frames = [frame(self.macs["evil"], arp, 0x0806),
                  frame(self.macs["evil"], arp, 0x0806, "ff:ff:ff:ff:ff:ff")]
        for target in ("fe80::1", "ff02::1"):
            frames.append(frame(self.macs["evil"], ip6(
                victim6, target, icmp6(victim6, target, advert), 58, 255)))
        self.assert_nothing_arrives("evil", *frames)
        for family in (4, 6):
            answer = self.node.agents["worker"].ask(proto="udp", port=53,
                                                    to=self.node.address("db", family))
            self.assertEqual(answer["result"], "answered", "still the old place")

    def test_tunnel_to_the_node(self):
        own, to = self.node.address("evil"), self.node.UPLINK
        worker = self.node.address("worker")
        inner = mac(NODE_MAC) + mac(self.macs["worker"]) + b"\x08\x00" + \
            self.packets("worker", "db", worker)[0]
        vxlan = struct.pack(">II", 0x08000000, 1 << 8) + inner
        before = self.node.node.count(proto="udp", port=4789)
        frames = [frame(self.macs["evil"], ip4(own, target, udp(own, target, 4789, vxlan)))
                  for target in (to, "169.254.1.1", "127.0.0.1")]
        frames.append(frame(self.macs["evil"], ip4(own, to, self.packets("worker", "db")[0],
                                                   proto=4)))
        frames.append(frame(self.macs["evil"], ip4(own, to, b"\0\0\x08\0" +
                                                   self.packets("worker", "db")[0], proto=47)))
        self.assert_nothing_arrives("evil", *frames)
        self.assertEqual(self.node.node.count(proto="udp", port=4789), before)

    def test_hairpin_metadata_and_the_nodes_own_addresses(self):
        evil = self.node.agents["evil"]
        for to, port in ((self.node.UPLINK, 28080), ("2001:db8:1::1", 28080),
                         ("169.254.169.254", 80), ("169.254.1.1", 80), ("127.0.0.1", 28080)):
            with self.subTest(to):
                self.assertIn(evil.ask(proto="tcp", to=to, port=port, timeout=2)["result"],
                              ("refused", "silent"))
        own = self.node.address("evil")
        self.assert_nothing_arrives("evil", frame(self.macs["evil"], ip4(
            own, "169.254.169.254", udp(own, "169.254.169.254", 53))), frame(
                self.macs["evil"], ip4(own, "127.0.0.1", udp(own, "127.0.0.1", 53))))

    def test_broadcast_multicast_and_other_protocols(self):
        own4, own6 = self.addresses("evil")
        frames = []
        for target in ("255.255.255.255", "224.0.0.251", "10.213.255.255"):
            frames.append(frame(self.macs["evil"], ip4(own4, target, udp(own4, target, 53)),
                                target="ff:ff:ff:ff:ff:ff"))
        for target in ("ff02::1", "ff02::fb", "ff05::1"):
            frames.append(frame(self.macs["evil"], ip6(own6, target, udp(own6, target, 53)),
                                target="33:33:00:00:00:01"))
        honest = self.packets("evil", "db")[0]
        frames.append(frame(self.macs["evil"], b"\0\x64\x08\0" + honest, 0x8100))
        frames.append(frame(self.macs["evil"], honest, 0x88cc))
        for proto in (1, 2, 4, 41, 47, 50, 132, 255):
            frames.append(frame(self.macs["evil"], ip4(own4, self.node.address("db"), b"x" * 40,
                                                       proto=proto)))
        self.assert_nothing_arrives("evil", *frames)

    def test_own_address_changed_inside_the_container(self):
        evil = self.node.agents["evil"]
        worker = self.node.address("worker")
        evil.run(argv=["ip", "addr", "add", f"{worker}/32", "dev", "eth0"])
        answer = evil.ask(proto="udp", to=self.node.address("db"), port=53, source=worker,
                          timeout=0.5)
        self.assertEqual(answer["result"], "silent", "spoofed packets vanish")
        evil.run(argv=["ip", "addr", "del", f"{worker}/32", "dev", "eth0"])

    def test_names_of_others_by_a_foreign_source(self):
        evil = self.node.agents["evil"]
        worker = self.node.address("worker")
        evil.run(argv=["ip", "addr", "add", f"{worker}/32", "dev", "eth0"])
        reply = evil.query(name="db.wf1.wf.mesh.internal", kind="A", server="169.254.1.1",
                           source=worker, timeout=0.5)
        self.assertEqual(reply["rcode"], "TIMEOUT")
        evil.run(argv=["ip", "addr", "del", f"{worker}/32", "dev", "eth0"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
