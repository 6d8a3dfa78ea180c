"""Packets of the tunnel that no honest node sends: forged by a host on the nodes' network, made
by a container, or heard there and sent again."""
import json
import socket
import struct
import threading
import unittest

from cluster import ADMIN, Cluster, Machine
from node import Agent, run, until

WORLD = """
- {id: db, owner: ada, workflow: r1, name: db, serves: [{port: 5432}, {port: 5432, protocol: UDP}],
   egress: [{cidr: "0.0.0.0/0"}]}
- {id: worker, owner: ada, workflow: r1, peers: [{name: db}], egress: [{cidr: "0.0.0.0/0"}]}
- {id: other, owner: ada, workflow: r1, peers: [{name: db}]}
- {id: third, owner: ada, workflow: r1, peers: [{name: db}]}
"""
REVOKED = "- {id: worker, owner: ada, workflow: r1}\n"
TUNNEL, DB = 8472, 5432


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def datagram(source, to, port, payload, sport=40000):
    """IPv4 and UDP, whose checksum may be absent."""
    udp = struct.pack("!HHHH", sport, port, 8 + len(payload), 0) + payload
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                         socket.inet_aton(source), socket.inet_aton(to))
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + udp


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


class TunnelTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()
        cls.cluster.machines.append(Machine(cls.cluster, "n3", 3))
        cls.n1, cls.n2, cls.n3 = cls.cluster.machines
        cls.cluster.make()
        cls.cluster.controllers[0].start()
        for machine in cls.cluster.machines:
            machine.run("ip", "route", "add", "default", "via", ADMIN)
            with open(machine.config, "a", encoding="utf-8") as config:
                config.write("underlay: {mode: VXLAN}\n")
            machine.start()
        run("ip", "netns", "add", "forger")
        run("ip", "link", "add", "to-forger", "type", "veth", "peer", "name", "eth0", "netns",
            "forger")
        run("ip", "link", "set", "to-forger", "master", "lan", "up")
        run("ip", "-n", "forger", "addr", "add", "192.0.2.66/24", "dev", "eth0")
        run("ip", "-n", "forger", "link", "set", "eth0", "up")
        cls.forger = Agent("forger", ["ip", "netns", "exec", "forger"])
        for address in ("192.0.2.2", "192.0.2.3"):
            until(lambda a=address: a in cls.n1.run("bridge", "fdb").stdout, "n1 knows the others")
        cls.cluster.apply(WORLD)
        cls.db = cls.n1.container("db")
        cls.worker = cls.n2.container("worker")
        cls.other, cls.third = cls.n1.container("other"), cls.n3.container("third")
        for proto in ("tcp", "udp"):
            cls.db.serve(proto=proto, port=DB)
        for agent in (cls.worker, cls.third):
            until(lambda a=agent: cls.asks(a) == "answered", "they reach db")

    @classmethod
    def tearDownClass(cls):
        cls.forger.stop()
        cls.cluster.close()

    @classmethod
    def address(cls, machine, name):
        return next(a for a in machine.facts[name]["addresses"] if "." in a)

    @classmethod
    def asks(cls, agent=None):
        return (agent or cls.worker).ask(proto="udp", to=cls.address(cls.n1, "db"), port=DB,
                              timeout=1.0)["result"]

    def counter(self, machine, name="c_foreign"):
        words = machine.run("nft", "list", "counter", "inet", "meshd", name).stdout.split()
        return int(words[words.index("packets") + 1])

    @staticmethod
    def link(machine, name):
        return json.loads(machine.run("ip", "-j", "link", "show", name).stdout)[0]["address"]

    def tunnelled(self, machine, inner, network=88):
        """What stands behind the outer UDP header."""
        return (struct.pack("!II", 8 << 24, network << 8) + mac(self.link(machine, "mesh0"))
                + mac("02:6d:00:00:00:09") + b"\x08\x00" + inner)

    def forged(self, machine, outer, inner, **options):
        packet = datagram(outer, machine.address, TUNNEL, self.tunnelled(machine, inner, **options))
        return (mac(self.link(machine, "up0")) + mac("02:00:00:00:00:66") + b"\x08\x00" + packet).hex()

    def arrived(self):
        return self.db.count(proto="udp", port=DB)

    def arrives(self, frame):
        """At db; what does not is counted at its node."""
        before, dropped = self.arrived(), self.counter(self.n1)
        self.forger.raw(hex_frame=frame)
        until(lambda: self.arrived() > before or self.counter(self.n1) > dropped,
              "it came or was counted", patience=5.0)
        return self.arrived() > before

    def test_1_forged(self):
        db, worker = self.address(self.n1, "db"), self.address(self.n2, "worker")
        good = datagram(worker, db, DB, b"ping")
        with self.subTest("a stranger's outer address"):
            self.assertFalse(self.arrives(self.forged(self.n1, "192.0.2.66", good)))
        # The first may call db, and is another node's.
        for source in (self.address(self.n3, "third"), self.address(self.n1, "other"), "10.214.0.1", "10.213.77.1", "192.0.2.2",
                       "203.0.113.9", "127.0.0.1", "169.254.1.1"):
            with self.subTest("a node, but no container of it", source=source):
                self.assertFalse(self.arrives(self.forged(
                    self.n1, "192.0.2.2", datagram(source, db, DB, b"ping"))))
        # The limit that docs/cluster-underlay.md tells: who can send as a node is that node.
        self.assertTrue(self.arrives(self.forged(self.n1, "192.0.2.2", good)))

    def test_2_containers_cannot_reach_the_tunnel(self):
        """Neither that of their own node nor another's, whatever their egress is."""
        db, worker = self.address(self.n1, "db"), self.address(self.n2, "worker")
        forged = self.tunnelled(self.n1, datagram(worker, db, DB, b"ping"))
        before = self.arrived()
        for sender, home in ((self.worker, self.n2), (self.db, self.n1)):
            for target in (self.n1, self.n2):
                dropped = self.counter(target)
                refused = self.counter(home, "c_refused")
                self.assertEqual(sender.run(argv=[
                    "python3", "-c",
                    "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
                    "s.sendto(bytes.fromhex(sys.argv[1]), (sys.argv[2], 8472))",
                    forged.hex(), target.address])["code"], 0)
                until(lambda h=home, r=refused: self.counter(h, "c_refused") > r,
                      f"{home.name} has refused it")
                self.assertEqual(self.counter(target), dropped, "it has left the node")
        self.assertEqual(self.arrived(), before)
        # As itself a container cannot pass for a node.
        spoofed = self.counter(self.n2, "c_spoof")
        self.worker.raw(hex_frame=("020000000001" + self.n2.facts["worker"]["mac"].replace(":", "")
                                   + "0800" + datagram("192.0.2.2", "192.0.2.1", TUNNEL,
                                                       forged).hex()))
        until(lambda: self.counter(self.n2, "c_spoof") > spoofed, "it is taken for spoofed")
        self.assertEqual(self.arrived(), before)

    def test_3_heard_and_sent_again(self):
        """A packet that is repeated is judged as the first was: it opens nothing."""
        heard = []
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as ear:
            ear.bind(("to-n1", 0x0003))
            ear.settimeout(10)

            def listen():
                while not heard:
                    frame = ear.recv(2000)
                    port = frame[36:38]
                    if frame[12:14] == b"\x08\x00" and frame[23] == 17 and \
                            port == struct.pack("!H", TUNNEL) and b"ping" in frame and \
                            frame[26:30] == socket.inet_aton("192.0.2.2"):
                        # Both checksums are left to the card: none is as good.
                        heard.append((frame[:40] + b"\0\0" + frame[42:90] + b"\0\0"
                                      + frame[92:]).hex())

            thread = threading.Thread(target=listen)
            thread.start()
            self.assertEqual(self.asks(), "answered")
            thread.join()
        self.assertTrue(self.arrives(heard[0]), "while it is allowed it is one packet more")
        self.cluster.apply(REVOKED)
        until(lambda: self.asks() == "refused", "the worker is refused")
        until(lambda: self.address(self.n2, "worker") not in self.n1.run(
            "nft", "list", "set", "inet", "meshd", "allow4").stdout, "n1 refuses it, too")
        before, refused = self.arrived(), self.counter(self.n1, "c_refused")
        self.forger.raw(hex_frame=heard[0])
        until(lambda: self.counter(self.n1, "c_refused") > refused, "it is refused")
        self.assertEqual(self.arrived(), before)


if __name__ == "__main__":
    unittest.main(verbosity=2)
