"""Raw publications of a cluster by a gateway: a container's port is reached from outside at an
address and a port that stay, by those whom it admits and by nobody else."""
import contextlib
import unittest

from cluster import ClusterTest, Host
from node import Agent, until

FRIEND, STRANGER = "192.0.2.100", "192.0.2.101"  # the same machine outside, by two addresses
DB = """
- {{id: db{}, owner: ada, workflow: r1, name: db, serves: [{{port: 5432}}],
   publish: [{{port: 5432, node_port: 30007, allow_from: ["{}"]}},
             {{port: 53, protocol: UDP, allow_from: ["{}"]}}]}}
"""
PORTS = (("tcp", 5432), ("udp", 53))  # of the container


class GatewayTest(ClusterTest):
    """db on n1, at first; n3 is the gateway. Nobody outside knows of n1 and n2."""
    OPTIONS = {"nodes": 3,
               "more": 'gateway: {ports: "30000-30009", nodes: [n3]}\n'}

    @classmethod
    def before_start(cls):
        super().before_start()
        cls.n1, cls.n2, cls.n3 = cls.cluster.machines
        cls.c1 = cls.cluster.controllers[0]
        for machine in (cls.n2, cls.n3):  # n2 only says so: the controller does not name it
            with open(machine.config, "a", encoding="utf-8") as config:
                config.write("gateway: true\n")
        for machine in cls.cluster.machines:  # each refusal is to be heard
            machine.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/icmp_ratemask")

    @classmethod
    def prepare(cls):
        machine = Host(cls.cluster, "outside", 100)
        machine.run("ip", "addr", "add", f"{STRANGER}/24", "dev", "up0")
        cls.outside = Agent("outside", machine.inside())
        cls.declare("db", FRIEND)
        cls.run_db("db", cls.n1)
        cls.wait_for("n1")

    @classmethod
    def tearDownClass(cls):
        cls.outside.stop()
        super().tearDownClass()

    # --- what is there

    @classmethod
    def declare(cls, name, source):
        cls.cluster.apply(DB.format(name.removeprefix("db"), source, source))

    @classmethod
    def run_db(cls, name, machine):
        agent = machine.container(name)
        for proto, port in PORTS:
            agent.serve(proto=proto, port=port)
        machine.ctl("wait", name)
        return agent

    @classmethod
    def published(cls):
        """Whose outside ports there are, as the controller lists them: {(id, port): its entry}."""
        return {(entry["id"], entry["port"]): entry
                for entry in cls.cluster.json("list", "published")["published"]
                if entry["gateway_port"]}

    @classmethod
    def ports(cls):
        return {key: entry["gateway_port"] for key, entry in cls.published().items()}

    @classmethod
    def wait_for(cls, node):
        """The gateway leads to db, on that node."""
        until(lambda: cls.cluster.placed().get("db") == node and len(cls.ports()) == len(PORTS),
              lambda: f"db has its outside ports on {node}: {cls.published()}")
        until(lambda: cls.ask("tcp") == cls.ask("udp") == "answered", "the gateway leads there")

    # --- what outside does

    @classmethod
    def ask(cls, proto, source=FRIEND, timeout=2.0, machine=None):
        return cls.outside.ask(proto=proto, to=(machine or cls.n3).address, source=source,
                               port=cls.ports_of_db[proto], timeout=timeout)["result"]

    # db has asked for the one; the other is the first that is free.
    ports_of_db = {"tcp": 30007, "udp": 30000}

    def assert_outside(self, friend, stranger="refused"):
        for proto, _ in PORTS:
            with self.subTest(proto=proto):
                self.assertEqual(self.ask(proto), friend)
                self.assertEqual(self.ask(proto, STRANGER), stranger)

    def open(self, key, proto):
        self.assertEqual(
            self.outside.open(key=key, proto=proto, to=self.n3.address,
                              port=self.ports_of_db[proto])["result"], "answered")

    @contextlib.contextmanager
    def conversations(self):
        """One by each protocol, which nothing interrupts."""
        stop = self.cluster.dir / "stop"
        talks = []
        for proto, _ in PORTS:
            self.open(f"kept {proto}", proto)
            talks.append(self.outside.begin("stream", key=f"kept {proto}", until=str(stop)))
        yield
        stop.touch()
        for talk in talks:
            spoken = self.outside.end(talk)
            self.assertEqual(spoken["end"], "stopped", spoken)
            self.assertGreater(spoken["rounds"], 100, "void")
        stop.unlink()

    # --- tests

    def test_1_who_may_comes_in_by_the_gateway_and_nobody_else(self):
        self.assertEqual(self.ports(), {("db", 5432): 30007, ("db", 53): 30000})
        for entry in self.published().values():
            self.assertEqual(entry["gateway_addresses"], [self.n3.address])
        # For people, ready to be copied.
        head, *rows = self.cluster.ctl("list", "published").stdout.splitlines()
        at = head.index("GATEWAY")
        self.assertEqual(sorted(row[at:].split()[0] for row in rows),
                         [f"{self.n3.address}:{port}" for port in (30000, 30007)])
        self.assert_outside("answered")
        until(lambda: f"{STRANGER} is not among the sources db admits" in self.n3.log.read_text(),
              "the gateway says why")
        # A listener of the gateway on that very port is not what a stranger meets.
        at_n3 = Agent("at-n3", self.n3.inside())
        for proto, port in self.ports_of_db.items():
            at_n3.serve(proto=proto, port=port)
        self.assert_outside("answered")
        for proto, port in self.ports_of_db.items():
            self.assertEqual(at_n3.count(proto=proto, port=port), 0)
        at_n3.stop()
        # Ports that are nobody's, and a node that is no gateway, whatever it says.
        self.assertEqual(self.outside.ask(proto="tcp", to=self.n3.address, port=30001)["result"],
                         "refused")
        for proto, _ in PORTS:
            self.assertEqual(self.ask(proto, machine=self.n2), "refused")

    def test_2_containers_do_not_go_round_by_it(self):
        self.cluster.apply('- {id: worker, owner: bob, workflow: r2, '
                           'egress: [{cidr: "0.0.0.0/0"}]}\n')
        for machine in (self.n2, self.n3):
            worker = machine.container("worker")
            for proto, port in self.ports_of_db.items():
                with self.subTest(node=machine.name, proto=proto):
                    self.assertEqual(worker.ask(proto=proto, to=self.n3.address, port=port,
                                                timeout=2.0)["result"], "refused")
            machine.remove("worker")
            until(lambda: "worker" not in self.cluster.placed(), "the controller knows")

    def test_3_restarts_cut_nothing_and_forget_nothing(self):
        with self.conversations():
            self.n3.kill()
            self.assert_outside("answered")
            self.n3.start()
            self.assert_outside("answered")
            self.c1.kill()
            self.assert_outside("answered")
            self.n3.kill()
            self.n3.start()
            self.assert_outside("answered")
            self.c1.start()
            self.cluster.settled()
            self.assertEqual(self.ports(), {("db", 5432): 30007, ("db", 53): 30000})
            self.n1.kill()
            self.assert_outside("answered")
            self.n1.start()
            self.cluster.settled()
            self.assert_outside("answered")

    def test_4_a_source_withdrawn_is_cut(self):
        for proto, _ in PORTS:
            self.open(f"cut {proto}", proto)
        self.declare("db", STRANGER)
        for proto, _ in PORTS:
            until(lambda p=proto: self.outside.talk(key=f"cut {p}", timeout=0.5)["result"]
                  != "answered", "it is cut")
        until(lambda: self.ask("tcp", STRANGER) == self.ask("udp", STRANGER) == "answered",
              "the other is let in")
        self.assert_outside("refused", "answered")
        self.declare("db", FRIEND)
        until(lambda: self.ask("tcp") == self.ask("udp") == "answered", "as before")
        self.assert_outside("answered")

    def test_5_it_follows_a_move_also_to_the_gateway_itself(self):
        places = [self.n1, self.n2, self.n3, self.n1]
        for old, new in zip(places, places[1:]):
            with self.subTest(to=new.name):
                self.open(f"to {new.name}", "tcp")
                old.remove("db")
                until(lambda: self.ask("tcp") == "refused", "it leads nowhere")
                self.assertNotEqual(
                    self.outside.talk(key=f"to {new.name}", timeout=0.5)["result"], "answered")
                self.run_db("db", new)
                self.wait_for(new.name)
                self.assert_outside("answered")

    def test_6_the_port_is_the_services_and_rests_when_that_is_gone(self):
        self.n1.remove("db")
        self.cluster.ctl("delete", "db")
        until(lambda: self.ask("tcp") == "refused", "it leads nowhere")
        # Another one asks for the number, and the first free one is not it either.
        self.cluster.apply(f"""
- {{id: other, owner: bob, workflow: r2, publish: [
   {{port: 80, node_port: 30007, allow_from: ["{FRIEND}"]}},
   {{port: 53, protocol: UDP, allow_from: ["{FRIEND}"]}}]}}
""")
        other = self.n2.container("other")
        other.serve(proto="tcp", port=80)
        until(lambda: len(self.ports()) == 2, "the other has outside ports")
        self.assertEqual(self.ports(), {("other", 80): 30000, ("other", 53): 30001})
        self.assert_outside("refused")
        self.assertEqual(self.outside.ask(proto="tcp", to=self.n3.address, source=FRIEND,
                                          port=30000)["result"], "answered")
        # The same service again, as another container.
        self.declare("db2", FRIEND)
        self.run_db("db2", self.n1)
        until(lambda: self.ask("tcp") == self.ask("udp") == "answered", "it is reached again")
        self.assertEqual({port for (name, _), port in self.ports().items() if name == "db2"},
                         {30007, 30000})


if __name__ == "__main__":
    unittest.main(verbosity=2)
