"""Two nodes and a controller: the real programs, the real kernel, a network between them."""
import unittest

from cluster import ClusterTest
from node import until

DB = """
- {id: db, owner: ada, workflow: r1, name: db,
   serves: [{port: 5432}, {port: 5432, protocol: UDP}]}
"""
WORKER = "- {id: worker, owner: ada, workflow: r1, peers: [{name: db}]}\n"
STRANGER = "- {id: stranger, owner: bob, workflow: r2}\n"


class TwoNodesTest(ClusterTest):
    @classmethod
    def prepare(cls):
        cls.n1, cls.n2 = cls.cluster.machines

    def ask(self, agent, **what):
        return agent.ask(**what)["result"]

    def reaches(self, agent, to, proto="tcp", port=5432):
        return self.ask(agent, proto=proto, to=to, port=port) == "answered"

    def test_1_across_two_nodes(self):
        self.cluster.apply(DB + WORKER + STRANGER)
        worker = self.n2.container("worker")
        stranger = self.n2.container("stranger")
        db = self.n1.container("db")
        db.serve(proto="tcp", port=5432)
        db.serve(proto="udp", port=5432)
        # Whoever asks over IPv6 in the moment between its two listeners is refused, as ever.
        until(lambda: self.reaches(worker, worker.lookup(name="db", family=6)["addresses"][0]),
              "it listens over IPv6")
        for family in (4, 6):
            instance = self.n1.address_of("db", family)
            vip = until(lambda f=family: worker.lookup(name="db", family=f)["addresses"],
                        "the name resolves")[0]
            for proto in ("tcp", "udp"):
                with self.subTest(family=family, proto=proto):
                    # The first ask waits for its confirmation; it is never refused.
                    self.assertEqual(self.ask(worker, proto=proto, to=vip, port=5432),
                                     "answered")
                    self.assertEqual(self.ask(worker, proto=proto, to=instance, port=5432),
                                     "answered")
                    self.assertEqual(self.ask(stranger, proto=proto, to=instance, port=5432),
                                     "refused")
                    self.assertEqual(self.ask(worker, proto=proto, to=instance, port=9),
                                     "refused")
        self.assertEqual(stranger.lookup(name="db")["addresses"], [])
        states = {w["id"]: (w["state"], w["attachment"]["node"])
                  for w in self.cluster.json("list", "workloads")["workloads"]}
        self.assertEqual(states, {"db": ("READY", "n1"), "worker": ("READY", "n2"),
                                  "stranger": ("READY", "n2")})

    def test_2_without_a_controller(self):
        """Flows, names, restarts, detach and attach go on."""
        worker = self.n2.agents["worker"]
        instance = self.n1.address_of("db")
        self.assertEqual(worker.open(key="a", proto="tcp", to=instance, port=5432)["result"],
                         "answered")
        self.cluster.controllers[0].kill()
        for machine in (self.n1, self.n2):
            until(lambda m=machine: "away" in m.ctl("status", check=False).stdout,
                  "the controller is away")
        vip = worker.lookup(name="db", family=4)["addresses"][0]
        self.assertTrue(self.reaches(worker, vip))
        for machine in (self.n1, self.n2):
            machine.kill()
            self.assertEqual(worker.talk(key="a")["result"], "answered")
            machine.start()
            self.assertEqual(worker.talk(key="a")["result"], "answered")
        self.assertTrue(self.reaches(worker, worker.lookup(name="db", family=4)["addresses"][0]))
        self.n2.remove("stranger")
        stranger = self.n2.container("stranger")
        self.assertEqual(self.ask(stranger, proto="tcp", to=instance, port=5432), "refused")
        self.cluster.controllers[0].start()
        self.cluster.settled()
        self.assertEqual(worker.talk(key="a")["result"], "answered")

    def test_3_a_service_moves(self):
        """Its name stays, and whoever calls it waits and is not refused."""
        worker = self.n2.agents["worker"]
        vip = worker.lookup(name="db", family=4)["addresses"][0]
        self.n1.remove("db")
        until(lambda: "db" not in self.cluster.placed(), "the controller knows")
        asked = worker.begin("ask", proto="tcp", to=vip, port=5432, timeout=30)
        db = self.n2.container("db")
        db.serve(proto="tcp", port=5432)
        self.assertEqual(worker.end(asked)["result"], "answered")
        self.assertEqual(worker.lookup(name="db", family=4)["addresses"], [vip])

    def test_4_a_revoke_cuts(self):
        worker = self.n2.agents["worker"]
        self.n2.remove("db")
        until(lambda: "db" not in self.cluster.placed(), "the controller knows")
        db = self.n1.container("db")
        db.serve(proto="tcp", port=5432)
        vip = worker.lookup(name="db", family=4)["addresses"][0]
        until(lambda: self.reaches(worker, vip), "it is back on n1")
        self.assertEqual(worker.open(key="b", proto="tcp", to=vip, port=5432)["result"],
                         "answered")
        self.cluster.apply("- {id: worker, owner: ada, workflow: r1}\n")
        until(lambda: worker.talk(key="b", timeout=1.0)["result"] != "answered", "it is cut")
        self.assertEqual(self.ask(worker, proto="tcp", to=self.n1.address_of("db"),
                                  port=5432), "refused")


if __name__ == "__main__":
    unittest.main(verbosity=2)
