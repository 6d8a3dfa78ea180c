"""Two equal controllers on one database, a node at each: flows between the two, one of the
controllers lost, the database's primary lost under churn."""
import json
import threading
import time
import unittest

from node import VOLATILE, canonical, until
from postgres import PostgresTest

STALE, DISMISS = 3, 9
LATE = "- {{id: late{}, owner: ada, workflow: r1, peers: [{{name: db}}]}}\n"


class Churn(threading.Thread):
    """Declares one workload after the other, each with a new port, and remembers what was
    acknowledged and what is in doubt."""

    def __init__(self, cluster, name):
        super().__init__()
        self.cluster, self.name = cluster, name
        self.enough = threading.Event()
        self.acknowledged, self.in_doubt, self.refusals = {}, {}, []
        self.generations, self.longest, self.last = [], 0.0, time.monotonic()

    def run(self):
        number = 0
        while not self.enough.is_set():
            number += 1
            workload, port = f"{self.name}{number % 5}", 1024 + number
            done = self.cluster.apply(
                f"- {{id: {workload}, owner: ada, workflow: {self.name}, "
                f"serves: [{{port: {port}}}]}}\n", check=False)
            if done.returncode != 0:
                self.in_doubt.setdefault(workload, set()).add(port)
                self.refusals.append(done.stderr.strip())
                continue
            self.acknowledged[workload] = port
            self.in_doubt.pop(workload, None)
            self.generations.append(int(done.stdout.split("generation ")[1].split(":")[0]))
            now = time.monotonic()
            self.longest, self.last = max(self.longest, now - self.last), now


class ControllersTest(PostgresTest):
    OPTIONS = {"nodes": 3, "more": f"stale_after_s: {STALE}\ndismiss_after_s: {DISMISS}\n"}

    @classmethod
    def before_start(cls):
        super().before_start()
        # Each node to a controller of its own; the third to either.
        cls.c1, cls.c2 = cls.cluster.controllers
        for node, far in ((0, cls.c2), (1, cls.c1)):
            cls.cluster.cut_both(cls.cluster.machines[node], far)

    @classmethod
    def prepare(cls):
        cls.started = time.monotonic()
        cls.talks_to = {m.name: m.controller() for m in cls.cluster.machines}
        super().prepare()

    def nodes(self, controller):
        return {n["name"]: (n["connected"], n["stale"])
                for n in json.loads(controller.ctl("list", "nodes", "-o", "json").stdout)["nodes"]}

    def table(self, machine):
        listing = json.loads(machine.run("nft", "-j", "list", "table", "inet", "meshd").stdout)
        return canonical(listing["nftables"], VOLATILE - {"handle"})

    def test_1_a_flow_between_nodes_of_two_controllers(self):
        self.assertEqual(self.talks_to["n1"], "connected to c1")
        self.assertEqual(self.talks_to["n2"], "connected to c2")
        self.cluster.apply(LATE.format(1))
        late = self.n2.container("late1")
        start = time.monotonic()
        self.assertEqual(late.ask(proto="tcp", to=self.vip, port=5432)["result"], "answered")
        print(f"the first connection took {(time.monotonic() - start) * 1000:.0f} ms", flush=True)

    def test_2_each_knows_of_the_others_nodes(self):
        until(lambda: time.monotonic() > self.started + DISMISS + 2 * STALE,
              "longer than a lost node is kept", 30)
        for controller in (self.c1, self.c2):
            self.assertEqual(self.nodes(controller), {f"n{i}": (True, False) for i in (1, 2, 3)},
                             controller.name)
        self.assertEqual(self.cluster.placed()["db"], "n1")

    def test_3_one_controller_is_lost(self):
        self.cluster.mend()
        before = [self.table(machine) for machine in self.cluster.machines]
        self.c1.kill()
        start = time.monotonic()
        until(lambda: self.n1.controller() == "connected to c2",
              lambda: f"n1 goes on with c2: {self.n1.controller()}")
        print(f"n1 is with the other after {time.monotonic() - start:.1f} s", flush=True)
        self.cluster.settled()
        self.assertEqual([self.table(machine) for machine in self.cluster.machines], before,
                         "it went on where it was: no rule was written")
        self.cluster.apply(LATE.format(3))
        late = self.cluster.machines[2].container("late3")
        self.assertEqual(late.ask(proto="tcp", to=self.vip, port=5432)["result"], "answered")
        self.c1.start()
        until(lambda: self.nodes(self.c1) == {f"n{i}": (True, False) for i in (1, 2, 3)},
              "it is back, and knows who is with the other")

    def test_4_the_primary_is_lost(self):
        churns = [Churn(self.cluster, name) for name in ("x", "y")]
        for churn in churns:
            churn.start()
        try:
            until(lambda: all(len(c.acknowledged) == 5 for c in churns), "they declare", 30)
            self.pair.primary.kill()
            self.pair.promote()
            marks = [len(c.generations) for c in churns]
            until(lambda: all(len(c.generations) > mark + 3 for c, mark in zip(churns, marks)),
                  lambda: f"they declare again: {[c.refusals[-1:] for c in churns]}", 45)
        finally:
            for churn in churns:
                churn.enough.set()
            for churn in churns:
                churn.join()
        self.cluster.settled()
        for controller in (self.c1, self.c2):
            def told(at=controller):
                listed = json.loads(at.ctl("list", "workloads", "-o", "json").stdout)["workloads"]
                ports = {w["id"]: w["serves"][0]["port"] for w in listed if w["workflow"] in "xy"}
                return all(ports[name] in {port} | c.in_doubt.get(name, set())
                           for c in churns for name, port in c.acknowledged.items())
            until(told, f"{controller.name} holds what was acknowledged")
        generations = [g for churn in churns for g in churn.generations]
        self.assertEqual(len(set(generations)), len(generations), "each commit is its own")
        self.assertEqual(self.asks(), "answered")
        for controller in (self.c1, self.c2):
            self.assertEqual(set(self.nodes(controller)), {"n1", "n2", "n3"}, "nobody is given up")
        print(f"{len(generations)} acknowledged, {sum(len(c.refusals) for c in churns)} not; the "
              f"longest wait between two {max(c.longest for c in churns):.1f} s", flush=True)

    def test_5_the_conversation_went_on(self):
        spoken = self.conversation()
        print(f"{spoken['rounds']} rounds, the longest {spoken['longest_ms']} ms", flush=True)


if __name__ == "__main__":
    unittest.main(verbosity=2)
